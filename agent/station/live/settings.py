"""[live] of a station's settings: how long, and by which servers a viewer and a post behind NAT find each other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from agent.config import Settings
from agent.errors import ConfigError

_HOST = r"[A-Za-z0-9.-]{1,150}(:[0-9]{1,5})?"
# No more than both browser and post understand: no address of IPv6, no TLS over UDP.
_STUN = re.compile(rf"stun:{_HOST}")
_TURN = re.compile(rf"turn:{_HOST}(\?transport=(udp|tcp))?|turns:{_HOST}(\?transport=tcp)?")
SECRET_CHARS_MIN = 16


class LiveSettings(Settings, frozen=True):
    """[live]: without it, viewers and posts find each other by their own addresses only."""

    seconds: Annotated[float, Meta(ge=10, le=3600)] = 120.0  # of one grant; the post may allow less
    stun: Annotated[tuple[str, ...], Meta(max_length=2)] = ()  # stun:host:port
    turn: Annotated[tuple[str, ...], Meta(max_length=2)] = ()  # turn:host:port?transport=udp or tcp, turns:host:port
    turn_secret_file: str = ""  # coturn's static-auth-secret: each view gets credentials of its own, good for an hour


CREDENTIAL_S = 3600


def check(settings: LiveSettings) -> str:
    """The secret of the TURN servers; empty where there are none. Raises ConfigError."""
    for url in settings.stun:
        if not _STUN.fullmatch(url):
            raise ConfigError(f"live.stun: {url[:60]!r} is not stun:host:port")
    for url in settings.turn:
        if not _TURN.fullmatch(url):
            raise ConfigError(f"live.turn: {url[:60]!r} is not turn:host:port?transport=udp or tcp, or turns:host:port")
    if bool(settings.turn) != bool(settings.turn_secret_file):
        raise ConfigError("live.turn, live.turn_secret_file: both or neither")
    if not settings.turn:
        return ""
    try:
        secret = Path(settings.turn_secret_file).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"live.turn_secret_file: {settings.turn_secret_file} cannot be read: {error}") from None
    if len(secret) < SECRET_CHARS_MIN:
        raise ConfigError(f"live.turn_secret_file: {SECRET_CHARS_MIN} characters at least")
    return secret


def ice_servers(settings: LiveSettings, secret: str, *, view: str, utc_s: int) -> list[dict[str, str]]:
    """The servers as one view is told of them; of TURN with credentials that end by themselves. Pure.

    The scheme is that of coturn's `use-auth-secret` (draft-uberti-behave-turn-rest): the name holds the end, the
    password is HMAC-SHA1 of the name. SHA-1 is what coturn speaks; as HMAC with a secret it is sound.
    """
    found = [{"url": url} for url in settings.stun]
    if settings.turn:
        name = f"{utc_s + CREDENTIAL_S}:{view}"
        password = base64.b64encode(hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()).decode()
        found += [{"url": url, "username": name, "credential": password} for url in settings.turn]
    return found
