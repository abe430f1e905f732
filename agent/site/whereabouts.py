"""What a post shares with its neighbours - house, pole, provider - and where it stands: words of a person, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent.clock import Clock
from agent.errors import ConfigError
from agent.site import founding
from agent.site.folder import open_site
from agent.site.register import Node

TEXT_CHARS_MAX = 200
SHARED = ("house", "pole", "provider")


def check_text(what: str, text: str) -> None:
    """Raises ConfigError for what does not fit into one line of a label or a list."""
    if len(text) > TEXT_CHARS_MAX or not text.isprintable():
        raise ConfigError(f"--{what}: one line of {TEXT_CHARS_MAX} characters at most")


def parse_position(text: str) -> tuple[float | None, float | None]:
    """`21.0285,105.8542` as (latitude, longitude) in degrees, WGS 84; empty: (None, None). Raises ConfigError."""
    if not text:
        return None, None
    parts = text.split(",")
    try:
        lat, lon = (float(part) for part in parts)
    except ValueError:
        lat = lon = math.nan
    if not (abs(lat) <= 90 and abs(lon) <= 180):
        raise ConfigError(f"--position {text[:60]!r}: LATITUDE,LONGITUDE in degrees, as 21.0285,105.8542")
    return lat, lon


def place(
    root: Path,
    node: str,
    *,
    house: str | None,
    pole: str | None,
    provider: str | None,
    position: str | None,
    clock: Clock,
    out: Callable[[str], None],
) -> int:
    """`site place`: notes what is given, leaves what is None, takes back what is empty. Needs no new card.

    Raises ConfigError, Corrupt, Transient.
    """
    given = {what: text for what, text in zip(SHARED, (house, pole, provider), strict=True) if text is not None}
    for what, text in given.items():
        check_text(what, text)
    if not given and position is None:
        raise ConfigError("site place: give --house, --pole, --provider or --position")
    where = None if position is None else parse_position(position)
    register = founding.open_register(open_site(root))
    try:
        known = register.node(node)
        if known is None:
            raise ConfigError(f"{node}: no post of that name in the register; see `wardpost site show`")
        lat, lon = (known.lat, known.lon) if where is None else where
        changed = replace(
            known,
            house=given.get("house", known.house),
            pole=given.get("pole", known.pole),
            provider=given.get("provider", known.provider),
            lat=lat,
            lon=lon,
        )
        register.located(changed, clock.utc().utc_ns)
    finally:
        register.close()
    out(f"{node}: {words(changed) or 'nothing is known of where it is'}")
    return 0


def words(node: Node) -> str:
    """`house 12, pole 7, provider Viettel, at 21.0285,105.8542`; empty when nobody has said anything."""
    told = [f"{what} {getattr(node, what)}" for what in SHARED if getattr(node, what)]
    if node.lat is not None and node.lon is not None:
        told.append(f"at {node.lat:.6g},{node.lon:.7g}")
    return ", ".join(told)
