"""Scripts and styles: files of ours, named one by one."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from starlette.responses import Response

from agent.assets import HLS, Assets
from agent.station.web.gate import Asked, Refused

KINDS = {
    "desk.css": "text/css; charset=utf-8",
    "board.js": "text/javascript; charset=utf-8",
    "posts.css": "text/css; charset=utf-8",
    "cases.css": "text/css; charset=utf-8",
    "print.css": "text/css; charset=utf-8",
    "footage.css": "text/css; charset=utf-8",
    "liveview.css": "text/css; charset=utf-8",
    "liveview.js": "text/javascript; charset=utf-8",
    "footage.js": "text/javascript; charset=utf-8",
}


PLAYER = "hls.min.js"
"""hls.js (Apache-2.0): not in this package, but in the cache of agent/assets.py, where its checksum is looked at."""


def has_player() -> bool:
    """Whether it was fetched (`python -m agent.assets --player`)."""
    return _player() is not None


@cache
def _found(path: Path, changed_ns: int) -> bytes | None:  # noqa: ARG001  (another file, another look)
    state = Assets().state(HLS)
    return state.path.read_bytes() if state.state == "ready" else None


def _player() -> bytes | None:
    path = Assets().path(HLS)
    try:
        return _found(path, path.stat().st_mtime_ns)
    except OSError:
        return None


def asset(asked: Asked) -> Response:
    """One of them. Anything else does not exist, whatever lies in the folder."""
    name = asked.params["asset"]
    if name == PLAYER and (player := _player()) is not None:
        return Response(player, media_type=KINDS["board.js"], headers={"Cache-Control": "no-cache"})
    if name not in KINDS:
        raise Refused(404)
    data = files("agent.station.web").joinpath("static", name).read_bytes()
    return Response(data, media_type=KINDS[name], headers={"Cache-Control": "no-cache"})
