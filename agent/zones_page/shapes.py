"""What can be drawn, where it stands in a node's configuration, and what is wrong with it. Pure.

A Shape is one polygon or line as the page knows it; `KINDS` says where each kind lives in the file. A kind that this
version's Config does not have is not offered.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from agent import config
from agent.check import Level, judge
from agent.clock import Clock
from agent.config import Config
from agent.errors import ConfigError

SHAPES_MAX = 128  # drawn at once, all kinds together
POINTS_MAX = 64
DIGITS = 4  # of a coordinate: 1/10,000 of the picture, the same as on the wire


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of shape."""

    id: str
    title: str
    does: str  # for the person who draws
    path: tuple[str, ...]  # of the list in the file
    points: str  # key of the points in an entry; empty: the entry is the list of points itself
    named: bool
    closed: bool  # a polygon; else a line of two points
    points_min: int
    points_max: int


KINDS: tuple[Kind, ...] = (
    Kind("zone", "Zone", "alerts say in which zone somebody stands", ("zones",), "polygon", True, True, 3, POINTS_MAX),
    Kind("line", "Line", "somebody crosses it, one way or the other", ("lines",), "points", True, False, 2, 2),
    Kind("ignore", "Ignore mask", "seen and recorded, never alerted about", ("vision", "ignore_masks"), "", False, True,
         3, POINTS_MAX),
    Kind("privacy", "Privacy mask", "blackened before anything is recorded or shown", ("camera", "privacy_masks"), "",
         False, True, 3, POINTS_MAX),
)  # fmt: skip


class Shape(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One shape. `was` is its place in its list in the file, None for a new one."""

    kind: str
    name: str = ""
    points: list[tuple[float, float]]
    was: int | None = None


class Complaint(Struct, frozen=True):
    """What is wrong, and with which of the shapes (its place in the list; None: with the file as a whole)."""

    text: str
    shape: int | None
    blocks: bool  # nothing is written while it stands


def kinds() -> tuple[Kind, ...]:
    """The kinds that this version's configuration knows."""
    return tuple(kind for kind in KINDS if _known(Config, kind.path))


def _known(settings: type[Struct], path: Sequence[str]) -> bool:
    for field in msgspec.structs.fields(settings):
        if field.encode_name == path[0]:
            inner = field.type
            return len(path) == 1 or (isinstance(inner, type) and issubclass(inner, Struct) and _known(inner, path[1:]))
    return False


def listed(tables: dict[str, Any], path: Sequence[str]) -> list[Any]:
    """The list at `path`; empty where there is none."""
    found: Any = tables
    for key in path:
        found = found.get(key, {} if key != path[-1] else [])
    return list(found)


def read(tables: dict[str, Any]) -> list[Shape]:
    """The shapes of a valid configuration, in the order of KINDS and of the file."""
    found = []
    for kind in kinds():
        for index, entry in enumerate(listed(tables, kind.path)):
            points = entry[kind.points] if kind.points else entry
            name = str(entry["name"]) if kind.named else ""
            found.append(Shape(kind=kind.id, name=name, points=[(float(x), float(y)) for x, y in points], was=index))
    return found


def tidy(shapes: Sequence[Shape]) -> list[Shape]:
    """What a browser sent, in bounds: coordinates finite and rounded. Raises ConfigError for what no page sends."""
    known = {kind.id: kind for kind in kinds()}
    if len(shapes) > SHAPES_MAX:
        raise ConfigError(f"{len(shapes)} shapes; {SHAPES_MAX} at most")
    places = [(shape.kind, shape.was) for shape in shapes if shape.was is not None]
    if len(set(places)) != len(places):
        raise ConfigError("two shapes claim the same place in the file; load the page again")
    for shape in shapes:
        if shape.kind not in known:
            raise ConfigError(f"nobody knows a shape of the kind {shape.kind[:40]!r}")
        if len(shape.points) > known[shape.kind].points_max:
            raise ConfigError(f"{shape.name or shape.kind}: {len(shape.points)} points; {POINTS_MAX} at most")
        if not all(math.isfinite(value) for point in shape.points for value in point):
            raise ConfigError(f"{shape.name or shape.kind}: a coordinate is not a number")
    return [
        msgspec.structs.replace(shape, points=[(round(x, DIGITS), round(y, DIGITS)) for x, y in shape.points])
        for shape in shapes
    ]


def wanted(tables: dict[str, Any], shapes: Sequence[Shape]) -> dict[str, Any]:
    """The configuration with these shapes and no others. What stays keeps its place and its other keys.

    Raises ConfigError when a shape claims a place that the file does not have.
    """
    result = copy.deepcopy(tables)
    for kind in kinds():
        old = listed(tables, kind.path)
        mine = [shape for shape in shapes if shape.kind == kind.id]
        kept = sorted((shape for shape in mine if shape.was is not None), key=lambda shape: shape.was or 0)
        new: list[Any] = []
        for shape in [*kept, *(shape for shape in mine if shape.was is None)]:
            if shape.was is not None and not 0 <= shape.was < len(old):
                raise ConfigError(f"{shape.name or shape.kind}: the file has no such place; load the page again")
            new.append(_entry(kind, shape, None if shape.was is None else old[shape.was]))
        if new != old:
            holder = result
            for key in kind.path[:-1]:
                holder = holder.setdefault(key, {})
            holder[kind.path[-1]] = new
            if kind.points and not new:
                del holder[kind.path[-1]]  # no [[zones]] at all
    return result


def _entry(kind: Kind, shape: Shape, old: Any) -> Any:
    points = [list(point) for point in shape.points]
    if not kind.points:
        return points
    return {**(old or {}), "name": shape.name, kind.points: points}


def complaints(old: dict[str, Any], new: dict[str, Any], shapes: Sequence[Shape], clock: Clock) -> list[Complaint]:
    """What is wrong in `new` with what can be drawn, and what drawing has broken elsewhere (a rule without its zone).

    Troubles that the file had before and that no shape is part of are not named: `wardpost check` tells them.
    """
    order = _order(shapes)
    found = [(text, _place(text, order), True) for text in config.problems(new, Config)]
    if not found:
        known = {finding.line() for finding in judge(msgspec.convert(old, Config), clock)}
        for finding in judge(msgspec.convert(new, Config), clock):
            place = _place(finding.where, order)
            fresh = finding.line() not in known
            if place is not None or fresh:
                blocks = finding.level is Level.PROBLEM
                found.append((finding.line().removeprefix(f"{finding.level.value}: "), place, blocks))
    return [Complaint(text, place, blocks) for text, place, blocks in found]


def _order(shapes: Sequence[Shape]) -> dict[str, int]:
    """Where each shape will stand in the file, as findings write it: `zones[0]`, `camera.privacy_masks[1]`."""
    order = {}
    for kind in kinds():
        mine = [
            (shape.was is None, shape.was or 0, index) for index, shape in enumerate(shapes) if shape.kind == kind.id
        ]
        for place, (_, _, index) in enumerate(sorted(mine)):
            order[f"{'.'.join(kind.path)}[{place}]"] = index
    return order


def _place(where: str, order: dict[str, int]) -> int | None:
    return next((index for path, index in order.items() if where.startswith(path)), None)
