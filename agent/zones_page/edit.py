"""A configuration's text with other shapes in it: comments, order and everything else stay as they are. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from agent.errors import ConfigError, Corrupt
from agent.zones_page.shapes import Kind, Shape, kinds, listed, wanted


def edited(text: str, shapes: Sequence[Shape]) -> str:
    """`text` with these shapes and no others. What has not changed is not touched, to the byte.

    Raises ConfigError without tomlkit, or for a shape without a place; Corrupt should the result mean anything else
    than what was asked for (nothing is to be written then).
    """
    tomlkit = _tomlkit()
    tables = tomllib.loads(text)
    goal = wanted(tables, shapes)
    if goal == tables:
        return text
    document = tomlkit.parse(text)
    for kind in kinds():
        if listed(tables, kind.path) != listed(goal, kind.path):
            _rewrite(document, kind, [shape for shape in shapes if shape.kind == kind.id])
    return _written(text, tomlkit.dumps(document), goal)


def valued(text: str, table: str, key: str, value: float) -> str:
    """`text` with this number in this table, made when it is missing. Raises as `edited`."""
    tomlkit = _tomlkit()
    goal = tomllib.loads(text)
    goal.setdefault(table, {})[key] = value
    document = tomlkit.parse(text)
    if table not in document:
        document[table] = tomlkit.table()
    document[table][key] = value
    return _written(text, tomlkit.dumps(document), goal)


def _tomlkit() -> Any:
    """Its functions know no types for what is in a document."""
    try:
        import tomlkit
    except ImportError:
        raise ConfigError("tomlkit is missing, which keeps the comments of the file: pip install tomlkit") from None
    return tomlkit


def _written(text: str, result: str, goal: dict[str, Any]) -> str:
    """`result` with the line ends of `text`, if it means what was asked for. Raises Corrupt."""
    result = _ends_as(text, result)
    try:
        meant = tomllib.loads(result) == goal
    except ValueError:
        meant = False
    if not meant:
        raise Corrupt("the file is written in a way that cannot be edited safely; nothing was changed: edit it by hand")
    return result


def _ends_as(text: str, result: str) -> str:
    """`result` with the line ends of a file written on Windows, if `text` has no others."""
    bare = re.compile(r"(?<!\r)\n")
    return result if "\r\n" not in text or bare.search(text) else bare.sub("\r\n", result)


def _rewrite(document: Any, kind: Kind, shapes: Sequence[Shape]) -> None:
    import tomlkit

    holder = document
    for key in kind.path[:-1]:
        if key not in holder:
            holder[key] = tomlkit.table()
        holder = holder[key]
    last = kind.path[-1]
    entries = holder.get(last)
    by_place = {shape.was: shape for shape in shapes if shape.was is not None}
    fresh = [shape for shape in shapes if shape.was is None]
    for place in reversed(range(len(entries or []))):
        if place not in by_place:
            del entries[place]
        else:
            _update(entries, place, kind, by_place[place])
    if fresh:
        entries = _home(holder, last, kind)
        for shape in fresh:
            entries.append(_new(entries, kind, shape))
    elif kind.points and not entries:
        del holder[last]


def _home(holder: Any, key: str, kind: Kind) -> Any:
    """The list that takes new entries, made when it is missing: [[zones]] for tables, an array for bare points."""
    import tomlkit

    entries = holder.get(key)
    if entries or (entries is not None and not kind.points):
        return entries
    if entries is not None:
        del holder[key]  # `zones = []`
    holder[key] = tomlkit.aot() if kind.points else tomlkit.array()
    return holder[key]


def _update(entries: Any, place: int, kind: Kind, shape: Shape) -> None:
    """Only what is different: an untouched line keeps its form."""
    points = [list(point) for point in shape.points]
    if not kind.points:
        if _plain(entries[place]) != points:
            entries[place] = points
        return
    entry = entries[place]
    if str(entry["name"]) != shape.name:
        entry["name"] = shape.name
    if _plain(entry[kind.points]) != points:
        entry[kind.points] = points


def _new(entries: Any, kind: Kind, shape: Shape) -> Any:
    import tomlkit

    points = [list(point) for point in shape.points]
    if not kind.points:
        return points
    if isinstance(entries, tomlkit.items.AoT):
        entry: Any = tomlkit.table()
        entry.trivia.indent = "\n"  # an empty line before its header
    else:
        entry = tomlkit.inline_table()
    entry["name"] = shape.name
    entry[kind.points] = points
    return entry


def _plain(points: Any) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in points]
