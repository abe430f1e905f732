"""[web.oidc] of a station's settings. No library is loaded for them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from agent.config import Settings
from agent.errors import ConfigError

SECRET_BYTES_MAX = 4096
_URL = re.compile(r"[\x21-\x7e]{1,2000}")
_DISCOVERY = "/.well-known/openid-configuration"


class OidcSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[web.oidc]: people may log in by this provider; without this table, by their passwords only."""

    issuer: str  # https://sso.example.org/realms/ward: exactly as the provider writes it
    client_id: Annotated[str, Meta(min_length=1, max_length=200)]
    secret_file: str = ""  # its first line is the client's secret, read at each login; empty: a public client
    name: Annotated[str, Meta(min_length=1, max_length=40)] = "OpenID Connect"  # as the login page calls it
    ca: str = ""  # PEM; empty: the authorities that this machine trusts
    timeout_s: Annotated[float, Meta(ge=1, le=60)] = 10.0  # of one request to the provider


@dataclass(frozen=True, slots=True)
class Address:
    """Where one request goes."""

    url: str
    host: str
    port: int
    authority: str  # as the Host header has it
    target: str
    secure: bool


def parse_url(text: str) -> Address:
    """https, or http to this machine itself. Raises ValueError, without the text."""
    if not _URL.fullmatch(text):
        raise ValueError("it is no URL")
    parts = urlsplit(text)
    host, port = parts.hostname or "", parts.port
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("it is no URL of https")
    if parts.username is not None or parts.password is not None or "#" in text:
        raise ValueError("it has a user, a password or a fragment")
    secure = parts.scheme == "https"
    if not secure and not _is_loopback(host):
        raise ValueError("it is not https: others could read and change what is said")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(text, host, port or (443 if secure else 80), parts.netloc, target, secure)


def discovery_of(settings: OidcSettings) -> Address:
    """Where the provider tells its addresses (OpenID Connect Discovery 1.0, 4). Raises ConfigError."""
    try:
        found = parse_url(settings.issuer.rstrip("/") + _DISCOVERY)
        if "?" in settings.issuer:
            raise ValueError("it has a query")  # noqa: TRY301
    except ValueError as error:
        raise ConfigError(
            f"web.oidc.issuer: {error}; write it as the provider does, such as https://sso.example.org/realms/ward"
        ) from None
    return found


def check(settings: OidcSettings) -> None:
    """What types cannot say, and whether its library is there. Raises ConfigError."""
    discovery_of(settings)
    if not settings.name.isprintable():
        raise ConfigError("web.oidc.name: it holds something that is no character")
    read_secret(settings)
    if find_spec("joserfc") is None:
        raise ConfigError("web.oidc: joserfc is missing: pip install 'wardpost[station,oidc]'")


def read_secret(settings: OidcSettings) -> str:
    """Empty for a public client. Raises ConfigError; nothing of what was read is in it."""
    if not settings.secret_file:
        return ""
    where = f"web.oidc.secret_file: {settings.secret_file}"
    try:
        with Path(settings.secret_file).open("rb") as file:
            secret = file.read(SECRET_BYTES_MAX).decode("ascii").partition("\n")[0].strip()
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: its first line is not text") from None
    if not secret or not secret.isprintable():
        raise ConfigError(f"{where}: its first line is empty, or not text")
    return secret


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
