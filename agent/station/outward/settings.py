"""[outward] of a station's settings: whom the station tells, and who may fetch."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from agent.config import Id, Settings, TlsSettings
from agent.errors import ConfigError
from agent.station.outward.notice import Kind

DESTINATIONS_MAX = 16  # of each
SECRET_FILE_BYTES_MAX = 4096
_PATH = re.compile(r"[!-~]*")


class WebhookSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[outward.webhook]]: a program that is told, by Standard Webhooks."""

    name: Id
    url: str  # https://...; http:// on this machine only
    secret_file: str  # whsec_ and 24 to 64 bytes in base64; a second line, while a secret is being replaced
    tell: Annotated[tuple[Kind, ...], Meta(min_length=1, max_length=6)] = (
        "bell", "alert", "overdue", "evidence", "dark", "back",
    )  # fmt: skip
    ca: str = ""  # PEM; empty: the authorities that the machine trusts
    keep_h: Annotated[float, Meta(gt=0, le=720)] = 24.0  # a notice that could not be delivered for so long is given up
    timeout_s: Annotated[float, Meta(ge=1, le=60)] = 10.0  # of one attempt, all in all


class ContactSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[[outward.contact]]: who is told of an alert that nobody has acknowledged, in this order."""

    name: Id
    url_file: str  # its first line is a URL of apprise; it may hold passwords, so it stands in a file
    after_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0  # ... for so long after it was overdue
    keep_h: Annotated[float, Meta(gt=0, le=720)] = 12.0


class SchoolSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[outward.schools]: by what a school's own contacts may be reached; people at the desk set them."""

    mail_url_file: str = ""  # its first line is mailto(s):// of apprise without a recipient; empty: no e-mail
    hosts: Annotated[
        tuple[Annotated[str, Meta(pattern=r"^([a-z0-9.-]{1,253}|\[::1\])(:[0-9]{1,5})?$(?!\n)")], ...],
        Meta(max_length=DESTINATIONS_MAX),
    ] = ()  # where their webhooks may go: HOST, or HOST:PORT


class HomeAssistantSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[outward.home_assistant]: the broker on which Home Assistant listens."""

    brokers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)]
    username: str = ""
    password_file: str = ""
    tls: TlsSettings | None = None
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,40}$(?!\n)")] = "homeassistant"


class FeedSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[outward.feeds]: what others fetch over HTTP with a token of their own; needs [web]."""

    sender: Annotated[str, Meta(pattern=r"^[!-%'-;=-~]{1,100}$(?!\n)")]  # of CAP: a name no other sender has
    language: Annotated[str, Meta(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$(?!\n)")] = "en"  # of what nodes say
    hours: Annotated[float, Meta(gt=0, le=720)] = 24.0  # alerts stay in the feeds so long
    per_minute_max: Annotated[int, Meta(ge=1, le=6000)] = 60  # requests of one token


class OutwardSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[outward]: whom the station tells."""

    webhook: Annotated[tuple[WebhookSettings, ...], Meta(max_length=DESTINATIONS_MAX)] = ()
    contact: Annotated[tuple[ContactSettings, ...], Meta(max_length=DESTINATIONS_MAX)] = ()
    schools: SchoolSettings | None = None
    home_assistant: HomeAssistantSettings | None = None
    feeds: FeedSettings | None = None


@dataclass(frozen=True, slots=True)
class Url:
    """Where a webhook goes."""

    host: str
    port: int
    target: str  # path and query
    secure: bool

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def check_url(name: str, text: str) -> Url:
    """Raises ConfigError. The text is not in its message: a URL may hold a key."""
    where = f"outward.webhook: {name}: url"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError(f"{where}: is none; write it like https://example.org/hooks/wardpost") from None
    if parts.scheme not in ("http", "https") or not host or not host.isascii() or not _PATH.fullmatch(text):
        raise ConfigError(f"{where}: is none; write it like https://example.org/hooks/wardpost")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ConfigError(f"{where}: without user, password and fragment; the signature says who it comes from")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(f"{where}: https, for others could read and change it; http is for 127.0.0.1 and ::1 only")
    secure = parts.scheme == "https"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(host, port or (443 if secure else 80), target, secure)


def check(settings: OutwardSettings) -> None:
    """What types cannot say. Raises ConfigError."""
    names = [*(one.name for one in settings.webhook), *(one.name for one in settings.contact)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"outward: {name} is the name of two; what was told to whom is remembered by name")
    for hook in settings.webhook:
        check_url(hook.name, hook.url)
    _ascending(settings.contact)


def _ascending(contacts: Sequence[ContactSettings]) -> None:
    for before, after in itertools.pairwise(contacts):
        if after.after_s < before.after_s:
            raise ConfigError(
                f"outward.contact: {after.name} comes behind {before.name}, but after {after.after_s:g} s instead of"
                f" {before.after_s:g}; put them in the order in which they are to be told"
            )


def read_secret_lines(what: str, path: str) -> list[str]:
    """The lines of a file that a person names, without blank ones. Raises ConfigError; nothing read is in it."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(SECRET_FILE_BYTES_MAX + 1)
        lines = [line.strip() for line in data.decode().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(f"{what}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{what}: {path} is not a text file") from None
    if not lines or len(data) > SECRET_FILE_BYTES_MAX:
        raise ConfigError(f"{what}: {path} is empty, or longer than {SECRET_FILE_BYTES_MAX} bytes")
    return lines


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
