"""A schematic plan of the posts from their positions, north up: no map, no tiles, nothing from outside. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agent.station.posts.fleet import PostView

WIDTH, HEIGHT, EDGE = 1000.0, 600.0, 60.0
M_PER_DEGREE = 111_320.0
APART_X, APART_Y, TRIES_MAX = 84.0, 44.0, 100
SCALES_M = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


@dataclass(frozen=True, slots=True)
class Dot:
    """A post on the plan."""

    view: PostView
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it, in a box of WIDTH by HEIGHT. `scale_m` metres are `scale_px` wide."""

    dots: tuple[Dot, ...]
    scale_m: int
    scale_px: float


def plan(views: Sequence[PostView]) -> Plan | None:
    """None with fewer than two posts whose position is known."""
    placed = [
        (view, lat, lon)
        for view in views
        if (lat := view.post.spot.lat) is not None and (lon := view.post.spot.lon) is not None
    ]
    if len(placed) < 2:
        return None
    middle = (min(lat for _, lat, _ in placed) + max(lat for _, lat, _ in placed)) / 2
    narrow = max(math.cos(math.radians(middle)), 0.01)  # a degree of longitude is shorter away from the equator
    at = [(view, lon * narrow * M_PER_DEGREE, -lat * M_PER_DEGREE) for view, lat, lon in placed]
    left, top = min(x for _, x, _ in at), min(y for _, _, y in at)
    wide, high = max(x for _, x, _ in at) - left, max(y for _, _, y in at) - top
    px_per_m = min((WIDTH - 2 * EDGE) / max(wide, 20.0), (HEIGHT - 2 * EDGE) / max(high, 20.0))
    x0, y0 = (WIDTH - wide * px_per_m) / 2, (HEIGHT - high * px_per_m) / 2
    drawn = tuple(
        Dot(view, round(x0 + (x - left) * px_per_m, 1), round(y0 + (y - top) * px_per_m, 1)) for view, x, y in at
    )
    dots = _apart(drawn)
    scale = max((one for one in SCALES_M if one * px_per_m <= WIDTH / 4), default=SCALES_M[0])
    return Plan(dots, scale, round(scale * px_per_m, 1))


def _apart(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """Posts of one house would hide each other: they stand side by side."""
    found: list[Dot] = []
    for dot in dots:
        x, y = dot.x, dot.y
        for _ in range(TRIES_MAX):
            if not any(abs(x - other.x) < APART_X and abs(y - other.y) < APART_Y for other in found):
                break
            x, y = (x + APART_X, y) if x + APART_X < WIDTH - EDGE / 2 else (EDGE, max(y - APART_Y, EDGE / 2))
        found.append(Dot(dot.view, round(x, 1), round(y, 1)))
    return tuple(found)
