"""What is wrong with zones, lines, masks, schedules and rules, beyond what each value may be. Pure.

`wardpost check` lists all of it; a node that is started with any of it refuses with the same lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from agent.config import (
    CalendarSettings,
    LineSettings,
    RuleSettings,
    ScheduleSettings,
    VisionSettings,
    ZoneSettings,
)
from agent.errors import ConfigError
from agent.vision import schedule
from agent.vision.geometry import Polygon, area, crossing

AREA_MIN = 1e-4  # of the picture: nothing will ever stand in less
STATIC = "static"  # the rule by which what never moves is ignored; no rule of the file may take its name
_LINE_MIN = 0.01  # of the picture
_TIMED = ("loiters", "crowd", "congestion")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that cannot work (or, where not `fatal`, hardly can): where, what, and what to do about it."""

    where: str
    what: str
    todo: str
    fatal: bool = True


class Watch(Protocol):
    """Everything in a configuration that says where and when to look out for what: a Config, or a part of one."""

    @property
    def vision(self) -> VisionSettings: ...

    @property
    def zones(self) -> Sequence[ZoneSettings]: ...

    @property
    def lines(self) -> Sequence[LineSettings]: ...

    @property
    def calendar(self) -> CalendarSettings: ...

    @property
    def schedules(self) -> Sequence[ScheduleSettings]: ...

    @property
    def rules(self) -> Sequence[RuleSettings]: ...


def faults(watch: Watch) -> Iterator[Fault]:
    """All of them, in the order of the file."""
    yield from _names("zones", [zone.name for zone in watch.zones])
    for index, zone in enumerate(watch.zones):
        yield from polygon_faults(f"zones[{index}].polygon", zone.polygon)
    for index, mask in enumerate(watch.vision.ignore_masks):
        yield from polygon_faults(f"vision.ignore_masks[{index}]", mask)
    yield from _names("lines", [line.name for line in watch.lines])
    for index, line in enumerate(watch.lines):
        (x1, y1), (x2, y2) = line.points
        if max(abs(x1 - x2), abs(y1 - y2)) < _LINE_MIN:
            yield Fault(f"lines[{index}].points", "has its ends in one place", "write two points apart")
    yield from _schedules(watch)
    yield from _names("rules", [rule.name for rule in watch.rules])
    for index, rule in enumerate(watch.rules):
        yield from _rule(f"rules[{index}]", rule, watch)


def refuse(watch: Watch) -> None:
    """Raises ConfigError with every fatal fault, a line each."""
    found = [f"{one.where}: {one.what}; {one.todo}" for one in faults(watch) if one.fatal]
    if found:
        raise ConfigError("\n".join(found))


def polygon_faults(where: str, polygon: Polygon) -> Iterator[Fault]:
    """What is wrong with one polygon, one fault at most."""
    if len(polygon) < 3:
        yield Fault(where, f"has {len(polygon)} corners", "a polygon needs three at least")
        return
    if any(not (0 <= value <= 1) for corner in polygon for value in corner):
        yield Fault(where, "lies outside the picture", "write corners between 0 and 1")
        return
    crossed = crossing(polygon)
    if crossed is not None:
        first, second = (f"{polygon[i]} to {polygon[(i + 1) % len(polygon)]}" for i in crossed)
        what = f"crosses itself: the side {first} meets the side {second}"
        yield Fault(where, what, "write the corners in order around it")
    elif area(polygon) < AREA_MIN:
        yield Fault(
            where, "is smaller than 1/10,000 of the picture", "nothing will ever be in it", fatal=area(polygon) < 1e-6
        )


def _schedules(watch: Watch) -> Iterator[Fault]:
    yield from _refused("calendar.time_zone", partial(schedule.zone, watch.calendar.time_zone))
    yield from _names("schedules", [one.name for one in watch.schedules])
    for index, one in enumerate(watch.schedules):
        if not one.days:
            yield Fault(f"schedules[{index}].days", "is empty", "name days, or leave it out for all of them")
        yield from _refused(f"schedules[{index}].hours", partial(schedule.windows, one))
        for text in one.except_on:
            yield from _refused(f"schedules[{index}].except_on", partial(schedule.dates, text))


def _rule(where: str, rule: RuleSettings, watch: Watch) -> Iterator[Fault]:
    if rule.name == STATIC:
        yield Fault(f"{where}.name", f"{STATIC!r} is the post's own rule", "give it another name")
    for key, names, known in (
        ("zones", rule.zones, [zone.name for zone in watch.zones]),
        ("during", rule.during, [one.name for one in watch.schedules]),
        ("outside", rule.outside, [one.name for one in watch.schedules]),
        ("line", (rule.line,) if rule.line else (), [line.name for line in watch.lines]),
    ):
        what = {"zones": "zone", "line": "line"}.get(key, "schedule")
        for name in names:
            if name not in known:
                yield Fault(f"{where}.{key}", f"there is no {what} {name!r}", _near(name, known, what))
    if rule.kind == "crosses" and not rule.line:
        yield Fault(f"{where}.line", "is missing", "a rule that crosses needs the name of a line")
    yield from _meaningless(where, rule)
    if rule.kind in ("enters", "leaves") and not rule.zones:
        yield Fault(f"{where}.zones", "is empty", f"a rule that {rule.kind} needs a zone")
    if rule.kind == "forbidden" and not (rule.during or rule.outside):
        yield Fault(
            f"{where}.during", "is empty: it is forbidden always", "name a schedule, if that is not meant", fatal=False
        )
    if rule.kind in _TIMED and rule.for_s == 0 and rule.kind != "crowd":
        yield Fault(f"{where}.for_s", f"is 0 for a rule of the kind {rule.kind}", "write how many seconds it takes")


def _meaningless(where: str, rule: RuleSettings) -> Iterator[Fault]:
    """What a rule says and nobody reads: somebody relies on it."""
    if rule.kind == "crosses" and rule.zones:
        yield Fault(f"{where}.zones", "mean nothing to a rule that crosses: all of the line counts", "take them out")
    for key, said in (("line", rule.line), ("direction", rule.direction != "any")):
        if said and rule.kind != "crosses":
            yield Fault(f"{where}.{key}", f"means nothing to a rule of the kind {rule.kind}", "take it out")
    for name in sorted({*rule.during} & {*rule.outside}):
        yield Fault(f"{where}.outside", f"names {name!r}, which is in during too: it would never count", "take one out")


def _names(table: str, names: Sequence[str]) -> Iterator[Fault]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Fault(f"{table}[{index}].name", f"{name!r} is there twice", "rename one")


def _refused(where: str, attempt: Callable[[], object]) -> Iterator[Fault]:
    try:
        attempt()
    except ConfigError as error:
        what, _, todo = str(error).partition("; ")
        yield Fault(where, what, todo)


def _near(name: str, known: Sequence[str], what: str) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known here: {', '.join(known)}" if known else f"there is no {what} at all yet"
