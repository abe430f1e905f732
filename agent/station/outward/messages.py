"""A contact: e-mail or a messenger, by apprise. Its URL may hold passwords: it comes from a file, never into a log."""

from __future__ import annotations

import itertools
import logging
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from agent.errors import ConfigError
from agent.station.outward.notice import Notice, headline, text
from agent.station.outward.retry import DELIVERED, Outcome
from agent.station.outward.school_address import url_of, wrong
from agent.station.outward.settings import ContactSettings, SchoolSettings, read_secret_lines

SERVICE_S_MAX = 30.0
"""Of one attempt, all in all."""
BODY_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one attempt. `impossible`: nothing was sent, by the settings or the address. No secrets."""

    result: Literal["delivered", "refused", "undelivered", "impossible"]
    status: int = 0  # of HTTP, where the service has refused it with one
    why: str = ""


class Contact:
    """A Sender. Its URL is read at each attempt, so that it may be replaced in place."""

    def __init__(self, settings: ContactSettings, *, origin: str = "") -> None:
        """`origin`: the desk's own address. Raises ConfigError: the file, the URL, apprise not installed."""
        self._settings = settings
        self._origin = origin
        self._where = f"outward.contact: {settings.name}: url_file"
        self._service()

    def __call__(self, told: Notice, key: str) -> Outcome:
        """Apprise says only whether it worked; why not is in its log, which may hold the URL and is shut."""
        try:
            service = self._service()
        except ConfigError as error:
            return Outcome("later", str(error))
        return _send(service, told, key, self._origin, "try its URL with `apprise -vv`")

    def _service(self) -> Any:
        file = self._settings.url_file
        return _apprise(read_secret_lines(self._where, file)[0], f"{self._where}: {file}: its first line")


class ToSchool:
    """A Sender: to a contact that people at the desk have set."""

    def __init__(self, settings: SchoolSettings, *, how: str, address: str, origin: str = "") -> None:
        """Is not looked at before it is used: what the settings allowed yesterday may be refused today.

        `origin`: the desk's own address.
        """
        self._settings = settings
        self._origin = origin
        self._how = how
        self._address = address

    def __call__(self, told: Notice, key: str) -> Outcome:
        """Says nothing of the address when it fails."""
        try:
            service = self._service()
        except ConfigError as error:
            return Outcome("later", str(error))
        return _send(service, told, key, self._origin, "see whether its address is still right")

    def try_out(self, title: str, body: str) -> Tried:
        """Sends a text of somebody's, once. Blocks as long as any attempt. Says nothing of the address."""
        try:
            return _notify(self._service(), title, body)
        except ConfigError as error:
            return Tried("impossible", why=str(error))

    def _service(self) -> Any:
        mail_url = read_mail_url(self._settings)
        if wrong(self._how, self._address, hosts=self._settings.hosts, mail=bool(mail_url)):
            raise ConfigError("[outward.schools] does not allow its address any more")
        return _apprise(url_of(self._how, self._address, mail_url=mail_url), "a school's contact: its address")


def read_mail_url(settings: SchoolSettings) -> str:
    """Of the account by which schools' contacts get mail; empty: there is none. Raises ConfigError; no URL is in it."""
    if not settings.mail_url_file:
        return ""
    what = "outward.schools: mail_url_file"
    url = read_secret_lines(what, settings.mail_url_file)[0]
    options = {name.lower() for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)}
    if not url.startswith(("mailto://", "mailtos://")) or options & {"to", "cc", "bcc"}:
        raise ConfigError(f"{what}: {settings.mail_url_file}: its first line is no mailto(s):// without recipients")
    _apprise(url, f"{what}: {settings.mail_url_file}: its first line")
    return url


def _send(service: Any, told: Notice, key: str, origin: str, hint: str) -> Outcome:
    tried = _notify(service, headline(told), f"{text(told, origin=origin)}\n({key})")
    if tried.result == "delivered":
        return DELIVERED
    return Outcome(
        "later",
        f"it could not be delivered ({tried.why}); {hint}" if tried.why else f"it could not be delivered; {hint}",
    )


def _notify(service: Any, title: str, body: str) -> Tried:
    """What apprise says of it holds URLs and addresses: none of that goes on."""
    done = service.notify(title=title, body=body, body_format="text", notify_type="warning")
    if done:
        return Tried("delivered")
    heard = [str(one.message) for one in itertools.islice(done.logs(), HEARD_MAX)]
    status = next((int(found[1]) for line in heard if (found := _STATUS.search(line))), 0)
    if status:
        return Tried("refused", status, f"HTTP {status}")
    return Tried("undelivered", why="no connection" if any("onnection" in line for line in heard) else "")


_STATUS = re.compile(r"\berror=([345][0-9]{2})\b")
HEARD_MAX = 20
"""Lines of one attempt."""


def _apprise(url: str, what: str) -> Any:
    """Raises ConfigError, in which `what` stands instead of the URL."""
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise ConfigError("outward: apprise is missing: pip install 'wardpost[messages]'") from None
    _shut_logs()
    asset = AppriseAsset(
        async_mode=False,
        storage_mode="memory",
        http_redirects=False,
        service_timeout=SERVICE_S_MAX,
        payload_max_size=BODY_BYTES_MAX,
        allow_templates=False,
        app_id="Wardpost",
        app_desc="Wardpost",
        app_url="",
    )
    service = Apprise(asset=asset)
    if not service.add(url) or len(service) != 1:
        raise ConfigError(f"{what} is no URL that apprise knows")
    return service


def _shut_logs() -> None:
    """Apprise logs URLs, at debug with everything in them, and addresses of people at any level; what it sends by logs
    paths. Any number of times.
    """
    apprise = logging.getLogger("apprise")
    apprise.handlers = [one for one in apprise.handlers if not isinstance(one, logging.NullHandler)]
    apprise.addHandler(logging.NullHandler())  # without any, warnings would go to standard error
    apprise.propagate = False
    apprise.setLevel(logging.WARNING)  # so that a result tells why
    logging.getLogger("urllib3").setLevel(logging.CRITICAL + 1)
