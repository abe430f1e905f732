"""Bad input in zones, masks, lines, schedules and rules: one clear line each, all at once, and no node starts with it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import LineSettings, RuleSettings, ScheduleSettings, VisionSettings, ZoneSettings
from agent.errors import ConfigError
from agent.replay import ReplaySettings
from agent.vision.faults import Watch, faults, polygon_faults, refuse
from agent.vision.geometry import area, contains, crossing

SQUARE = ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9))
BOW = ((0.1, 0.1), (0.9, 0.9), (0.9, 0.1), (0.1, 0.9))


def rule(**values: Any) -> RuleSettings:
    return msgspec.convert({"name": "r", "kind": "enters", "zones": ["yard"], **values}, RuleSettings)


def watch(**parts: Any) -> Watch:
    return ReplaySettings(
        **{
            "zones": (ZoneSettings(name="yard", polygon=SQUARE),),
            "schedules": (ScheduleSettings(name="night", hours=("22:00-06:00",)),),
            **parts,
        }
    )


def lines(one: Watch) -> list[str]:
    return [f"{fault.where}: {fault.what}; {fault.todo}" for fault in faults(one)]


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (watch(zones=(ZoneSettings(name="yard", polygon=BOW),)), "zones[0].polygon: crosses itself: the side "),
        (watch(zones=(ZoneSettings(name="a", polygon=SQUARE),) * 2), "zones[1].name: 'a' is there twice; rename one"),
        (
            watch(zones=(ZoneSettings(name="a", polygon=((0, 0), (0.5, 0.5), (1, 1))),)),
            "zones[0].polygon: crosses itself",
        ),
        (watch(vision=VisionSettings(ignore_masks=(SQUARE[:2],))), "vision.ignore_masks[0]: has 2 corners; a polygon"),
        (watch(vision=VisionSettings(ignore_masks=(BOW,))), "vision.ignore_masks[0]: crosses itself"),
        (watch(rules=(rule(zones=["yrad"]),)), "rules[0].zones: there is no zone 'yrad'; did you mean 'yard'?"),
        (watch(rules=(rule(zones=["moon"]),)), "rules[0].zones: there is no zone 'moon'; known here: yard"),
        (watch(zones=(), rules=(rule(),)), "rules[0].zones: there is no zone 'yard'; there is no zone at all yet"),
        (
            watch(rules=(rule(during=["nigth"]),)),
            "rules[0].during: there is no schedule 'nigth'; did you mean 'night'?",
        ),
        (watch(rules=(rule(outside=["x"]),)), "rules[0].outside: there is no schedule 'x'; known here: night"),
        (watch(rules=(rule(kind="crosses", zones=[]),)), "rules[0].line: is missing; a rule that crosses needs"),
        (
            watch(rules=(rule(kind="crosses", line="l", zones=[]),)),
            "rules[0].line: there is no line 'l'; there is no line at all",
        ),
        (
            watch(lines=(LineSettings(name="l", points=((0, 0), (1, 1))),), rules=(rule(kind="crosses", line="l"),)),
            "rules[0].zones: mean nothing to a rule that crosses",
        ),
        (watch(rules=(rule(direction="left"),)), "rules[0].direction: means nothing to a rule of the kind enters"),
        (
            watch(rules=(rule(during=["night"], outside=["night"]),)),
            "rules[0].outside: names 'night', which is in during too: it would never count",
        ),
        (watch(rules=(rule(kind="enters", zones=[]),)), "rules[0].zones: is empty; a rule that enters needs a zone"),
        (watch(rules=(rule(name="static"),)), "rules[0].name: 'static' is the post's own rule"),
        (watch(rules=(rule(), rule())), "rules[1].name: 'r' is there twice"),
        (watch(rules=(rule(kind="loiters", for_s=0),)), "rules[0].for_s: is 0 for a rule of the kind loiters"),
        (
            watch(schedules=(ScheduleSettings(name="a", hours=("08:00-08:00",)),)),
            "schedules[0].hours: '08:00-08:00' is no time at all; write",
        ),
        (
            watch(schedules=(ScheduleSettings(name="a", hours=("08:00-09:00",), except_on=("soon",)),)),
            "schedules[0].except_on: 'soon' is no date; write",
        ),
    ],
)
def test_a_fault_is_one_line_that_says_where_what_and_what_to_do(one: Watch, expected: str) -> None:
    found = lines(one)
    assert len(found) == 1 and found[0].startswith(expected), found
    assert "\n" not in found[0]
    with pytest.raises(ConfigError):
        refuse(one)


def test_all_faults_come_at_once() -> None:
    bad = watch(
        zones=(ZoneSettings(name="yard", polygon=BOW),),
        vision=VisionSettings(ignore_masks=(BOW,)),
        rules=(rule(zones=["x"], during=["y"]),),
    )
    assert len(lines(bad)) == 4
    with pytest.raises(ConfigError) as caught:
        refuse(bad)
    assert len(str(caught.value).splitlines()) == 4


def test_what_is_right_is_not_complained_of() -> None:
    refuse(watch(rules=(rule(during=["night"]),)))
    assert lines(watch(rules=(rule(during=["night"]),))) == []


def ring(corners: int, radii: list[float]) -> list[tuple[float, float]]:
    """A star-shaped polygon: never crosses itself."""
    return [
        (0.5 + r * math.cos(2 * math.pi * i / corners), 0.5 + r * math.sin(2 * math.pi * i / corners))
        for i, r in enumerate(radii)
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(3, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.floats(0.05, 0.49), min_size=n, max_size=n)))
)
def test_a_star_is_simple_holds_its_middle_and_two_corners_exchanged_are_found(shape: tuple[int, list[float]]) -> None:
    corners, radii = shape
    polygon = ring(corners, radii)
    assert crossing(polygon) is None and list(polygon_faults("p", polygon)) == []
    assert area(polygon) > 0 and not contains(polygon, 1.5, 0.5) and not contains(polygon, 0.5, -0.5)
    if corners > 3:
        assert contains(polygon, 0.5 + 1e-7, 0.5 + 1e-7)
    assert area(polygon) == pytest.approx(area(polygon[::-1]))


points = st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))


@settings(max_examples=200, deadline=None)
@given(st.lists(points, max_size=8))
def test_no_polygon_whatever_makes_it_stumble_and_what_passes_is_in_the_picture(
    polygon: list[tuple[float, float]],
) -> None:
    found = list(polygon_faults("p", polygon))
    assert len(found) <= 1
    if not found:
        assert len(polygon) >= 3 and area(polygon) > 0 and crossing(polygon) is None
        assert all(0 <= value <= 1 for point in polygon for value in point)
