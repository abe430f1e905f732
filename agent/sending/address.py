"""`sending.url`: where a station takes footage. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.errors import ConfigError

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a station takes footage."""

    host: str
    port: int
    tls: bool


def parse_address(url: str) -> Address:
    """`https://host:port`; in clear only on this machine. Raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if parts.scheme not in ("http", "https") or not host or parts.path not in ("", "/") or parts.query:
        raise ConfigError(f"sending.url: {url!r}: write https://host:8444, the address of the station's [uploads]")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ConfigError(f"sending.url: {url}: footage goes in clear only within this machine; write https://")
    return Address(host, port or (443 if parts.scheme == "https" else 80), parts.scheme == "https")
