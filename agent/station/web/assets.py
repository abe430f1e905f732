"""Scripts and styles: files of ours, named one by one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from starlette.responses import Response

from agent.assets import HLS, HLS_LICENSE, LEAFLET, LEAFLET_LICENSE, LEAFLET_STYLE, Asset, Assets
from agent.station.web.gate import Asked, Refused

KINDS = {
    "desk.css": "text/css; charset=utf-8",
    "board.js": "text/javascript; charset=utf-8",
    "nearlive.js": "text/javascript; charset=utf-8",
    "school.js": "text/javascript; charset=utf-8",
    "evidence.js": "text/javascript; charset=utf-8",
    "posts.css": "text/css; charset=utf-8",
    "cases.css": "text/css; charset=utf-8",
    "cases.js": "text/javascript; charset=utf-8",
    "print.css": "text/css; charset=utf-8",
    "search.css": "text/css; charset=utf-8",
    "footage.css": "text/css; charset=utf-8",
    "liveview.css": "text/css; charset=utf-8",
    "liveview.js": "text/javascript; charset=utf-8",
    "footage.js": "text/javascript; charset=utf-8",
    "map.css": "text/css; charset=utf-8",
    "map.js": "text/javascript; charset=utf-8",
}


PLAYER = "hls.min.js"
LICENCES = "licences.txt"
FETCHED: Mapping[str, tuple[Asset, str]] = {
    PLAYER: (HLS, "text/javascript; charset=utf-8"),
    "leaflet.js": (LEAFLET, "text/javascript; charset=utf-8"),
    "leaflet.css": (LEAFLET_STYLE, "text/css; charset=utf-8"),
}
"""Not in this package, but in the cache of agent/assets.py, where each one's checksum is looked at."""
NOTES = (
    (HLS, HLS_LICENSE, "hls.js", "Apache-2.0", "plays footage in the page"),
    (LEAFLET, LEAFLET_LICENSE, "Leaflet", "BSD-2-Clause", "draws the map of posts"),
)
"""What browsers get that others have written: licences.txt says so."""
LICENCE_BYTES_MAX = 64 * 1024


def has_player() -> bool:
    """Whether it was fetched (`python -m agent.assets --desk`)."""
    return _fetched(HLS) is not None


def has_map() -> bool:
    """Whether the map's script and style were."""
    return _fetched(LEAFLET) is not None and _fetched(LEAFLET_STYLE) is not None


@cache
def _read(path: Path, changed_ns: int, asset: Asset) -> bytes | None:  # noqa: ARG001  (another file, another look)
    state = Assets(path.parent).state(asset)
    return state.path.read_bytes() if state.state == "ready" else None


def _fetched(asset: Asset) -> bytes | None:
    path = Assets().path(asset)
    try:
        return _read(path, path.stat().st_mtime_ns, asset)
    except OSError:
        return None


def licences() -> str:
    """What of others a browser gets from this station, by which licence, with its text."""
    parts = ["Everything that a browser gets from this station is part of Wardpost (LICENSE), but for:\n"]
    for script, licence, name, spdx, what in NOTES:
        text = _fetched(licence)
        there = "" if _fetched(script) is not None else "; not fetched at this station"
        parts.append(f"{name} {script.version}, {spdx}: {what}{there}\n")
        if text is not None:
            parts.append(text[:LICENCE_BYTES_MAX].decode("utf-8", "replace"))
    return f"\n{'-' * 80}\n\n".join(parts)


def asset(asked: Asked) -> Response:
    """One of them. Anything else does not exist, whatever lies in the folder."""
    name = asked.params["asset"]
    keep = {"Cache-Control": "no-cache"}
    if name == LICENCES:
        return Response(licences(), media_type="text/plain; charset=utf-8", headers=keep)
    if name in FETCHED and (data := _fetched(FETCHED[name][0])) is not None:
        return Response(data, media_type=FETCHED[name][1], headers=keep)
    if name not in KINDS:
        raise Refused(404)
    own = files("agent.station.web").joinpath("static", name).read_bytes()
    return Response(own, media_type=KINDS[name], headers=keep)
