"""[web] of a station's settings: who may reach its pages, and how long things may take."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from agent.config import Settings
from agent.errors import ConfigError
from agent.station.people.oidc.settings import OidcSettings

_LISTEN = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")


class WebSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[web]: the pages of the desk; without this table the station has none."""

    listen: str = "127.0.0.1:8443"  # address and port; [::]:8443 for all of IPv6
    origin: str  # as browsers write it: https://desk.example.org or https://desk.example.org:8443
    certificate: str = ""  # PEM, with the chain; `wardpost site desk-cert` makes one
    key: str = ""  # PEM
    behind_proxy: bool = False  # plain HTTP on loopback, behind a reverse proxy that speaks TLS
    idle_minutes: Annotated[float, Meta(ge=1, le=1440)] = 60.0  # a session that does nothing ends
    session_hours: Annotated[float, Meta(gt=0, le=168)] = 12.0  # ... and every one after so long: a shift
    bell_deadline_s: Annotated[float, Meta(ge=5, le=86_400)] = 60.0  # a bell that nobody has acknowledged is overdue
    alert_deadline_s: Annotated[float, Meta(ge=5, le=86_400)] = 300.0
    board_hours: Annotated[float, Meta(gt=0, le=720)] = 24.0  # alerts that are settled stay on the board so long
    time_zone: str = "UTC"  # IANA name: in which the pages tell the time
    listeners_max: Annotated[int, Meta(ge=1, le=1000)] = 100  # open boards; one more is asked to come later
    connections_max: Annotated[int, Meta(ge=10, le=10_000)] = 400
    tiles: str = ""  # folder z/x/y.png: pictures behind the map of posts
    tiles_attribution: str = ""  # who made them, as their licence wants it told
    oidc: OidcSettings | None = None  # people may log in by a provider, too


@dataclass(frozen=True, slots=True)
class Listening:
    """What comes of the settings, checked."""

    host: str
    port: int
    secure: bool  # the station speaks TLS itself


def listening(settings: WebSettings) -> Listening:
    """Where to listen. Plain HTTP is refused wherever somebody else could listen in. Raises ConfigError."""
    found = _LISTEN.fullmatch(settings.listen)
    try:
        address = ipaddress.ip_address((found["six"] or found["four"]) if found else "")
    except ValueError:
        address = None
    if found is None or address is None or not 0 < int(found["port"]) < 65536:
        raise ConfigError(f"web.listen: {settings.listen!r} is no address and port, such as 127.0.0.1:8443")
    origin = urlsplit(settings.origin)
    if origin.scheme != "https" or not origin.hostname or settings.origin != f"https://{origin.netloc}".lower():
        raise ConfigError(
            f"web.origin: {settings.origin!r} is not what a browser shows in front of the path,"
            " such as https://desk.example.org"
        )
    if bool(settings.certificate) != bool(settings.key):
        raise ConfigError("web.certificate, web.key: both or neither")
    if not settings.certificate and not settings.behind_proxy:
        raise ConfigError(
            "web.certificate: none; make one by `wardpost site desk-cert`, or put a reverse proxy in front"
            " and say web.behind_proxy = true"
        )
    if settings.behind_proxy and (settings.certificate or not address.is_loopback):
        raise ConfigError(
            "web.behind_proxy: that is plain HTTP, on loopback only and without a certificate;"
            f" web.listen is {settings.listen}"
        )
    return Listening(str(address), int(found["port"]), secure=bool(settings.certificate))
