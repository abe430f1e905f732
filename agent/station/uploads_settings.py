"""[uploads] of the station's settings. No library is loaded for them."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from msgspec import Meta

from agent.config import Settings
from agent.errors import ConfigError


class UploadsSettings(Settings, frozen=True):
    """[uploads]: where posts send footage that they are asked for, and the clips of their alerts."""

    listen: str = ""  # host:port; empty: no footage is taken
    hosts: Annotated[tuple[str, ...], Meta(max_length=8)] = ()  # names and addresses by which posts reach it
    cert: str = ""  # paths of PEM files; empty: the site's authority makes a certificate for `hosts`
    key: str = ""
    tls: bool = True  # false: in clear, on a loopback address only
    file_mb_max: Annotated[int, Meta(ge=1, le=4096)] = 512
    clips_mb_per_day_max: Annotated[int, Meta(ge=0, le=10_000_000)] = 1000  # of one post, for alerts, unasked; 0: none
    gb_per_day_max: Annotated[float, Meta(gt=0, le=10_000)] = 100.0  # of one post, for whatever reason
    open_per_node_max: Annotated[int, Meta(ge=1, le=100)] = 4
    room_gb_max: Annotated[float, Meta(gt=0, le=10_000)] = 20.0  # of all that is on its way, in station.data
    free_gb_min: Annotated[float, Meta(ge=0, le=10_000)] = 1.0  # left free on that disk
    expire_h: Annotated[float, Meta(gt=0, le=720)] = 72.0  # an unfinished upload that nobody touches is given up then


def listening(settings: UploadsSettings) -> tuple[str, int]:
    """Host and port. Raises ConfigError for what is none, or would carry footage in clear."""
    host, colon, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise ConfigError(f"uploads.listen: {settings.listen!r}: write host:port, as in 0.0.0.0:8444")
    if not settings.tls and not _loopback(host):
        raise ConfigError(f"uploads.tls: false, and {host} is not a loopback address: footage would go in clear")
    return host, int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
