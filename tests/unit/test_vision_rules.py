"""Rules: what a track does before a zone or a line, once each, in the right direction, with its cooldown."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import LineSettings, RuleSettings, ZoneSettings
from agent.types import NS, Box, Label, Priority
from agent.vision.rules import TOPICS, Fired, Gathered, RuleBook
from agent.vision.tracker import Track
from agent.vision.zones import ZoneMap

STEP_NS = NS // 5
YARD = ZoneSettings(name="yard", polygon=((0.5, 0.0), (1, 0.0), (1, 1), (0.5, 1)))
LINE = LineSettings(name="door", points=((0.5, 0.2), (0.5, 0.9)))  # downwards: its right-hand side is on the left


class Scene:
    def __init__(self, **rule: Any) -> None:
        one = msgspec.convert({"name": "r", "kind": "enters", "cooldown_s": 0, **rule}, RuleSettings)
        self.active = True
        self.book = RuleBook(rules=[one], zones=ZoneMap([YARD]), lines=[LINE], active=lambda _: self.active)
        self.now_ns = 0
        self.firsts: dict[int, int] = {}

    def look(self, *feet: tuple[float, float], label: Label = Label.PERSON) -> tuple[list[Fired], list[Gathered]]:
        self.now_ns += STEP_NS
        tracks = [
            Track(n, label, 0.8, Box(x - 0.03, y - 0.2, 0.06, 0.2), self.firsts.setdefault(n, self.now_ns),
                  self.now_ns, True, True, 0, 3)
            for n, (x, y) in enumerate(feet, 1)
        ]  # fmt: skip
        return self.book.update(tracks, self.now_ns)

    def walk(self, *xs: float, y: float = 0.6) -> list[str]:
        return [one.what for x in xs for one in self.look((x, y))[0]]


def path(start: float, end: float, steps: int = 20) -> list[float]:
    return [start + (end - start) * i / (steps - 1) for i in range(steps)]


def test_who_enters_is_told_once_and_who_flickers_on_the_border_is_not_told_again() -> None:
    scene = Scene(zones=["yard"])
    assert scene.walk(*path(0.2, 0.7)) == ["has entered yard"]
    assert scene.walk(*[0.499, 0.501] * 20) == []
    assert scene.walk(*path(0.5, 0.2), *path(0.2, 0.7)) == ["has entered yard"]


def test_who_is_first_seen_in_the_zone_has_entered_and_who_vanishes_there_has_left() -> None:
    assert Scene(zones=["yard"]).walk(0.7) == ["has entered yard"]
    scene = Scene(zones=["yard"], kind="leaves")
    assert scene.walk(0.7, 0.7) == []
    assert [one.what for one in scene.look()[0]] == ["has left yard"]
    assert Scene(zones=["yard"], kind="leaves").walk(*path(0.7, 0.2)) == ["has left yard"]


def test_a_line_has_a_direction() -> None:
    for direction, there, back in (("any", 1, 1), ("left", 1, 0), ("right", 0, 1)):
        scene = Scene(kind="crosses", line="door", direction=direction)
        assert scene.walk(*path(0.2, 0.8)) == ["has crossed door to the left"] * there
        assert scene.walk(*path(0.8, 0.2)) == ["has crossed door to the right"] * back


def test_who_walks_past_the_end_of_a_line_or_dances_on_it_has_not_crossed_it() -> None:
    assert Scene(kind="crosses", line="door").walk(*path(0.2, 0.8), y=0.95) == []
    assert Scene(kind="crosses", line="door").walk(*path(0.2, 0.49), *[0.495, 0.505] * 30, *path(0.49, 0.2)) == []


def test_a_line_crossed_before_the_track_was_sure_counts() -> None:
    scene = Scene(kind="crosses", line="door")
    track = Track(
        1, Label.PERSON, 0.8, Box(0.6, 0.4, 0.06, 0.2), 0, NS, True, True, 0, 3, path=((0.4, 0.6), (0.63, 0.6))
    )
    assert [one.what for one in scene.book.update([track], NS)[0]] == ["has crossed door to the left"]


def test_loitering_is_told_once_a_stay() -> None:
    scene = Scene(kind="loiters", zones=["yard"], for_s=10)
    told = scene.walk(*[0.7] * 49)
    assert told == []
    assert scene.walk(*[0.7] * 100) == ["has stayed in yard for 10 s"]
    assert scene.walk(*[0.2] * 5, *[0.7] * 100) == ["has stayed in yard for 10 s"]


def test_within_the_cooldown_further_firings_are_notices_and_are_not_lost() -> None:
    scene = Scene(zones=["yard"], cooldown_s=10)
    first = scene.look((0.7, 0.6))[0]
    second = scene.look((0.7, 0.6), (0.8, 0.6))[0]
    for _ in range(60):
        scene.look((0.7, 0.6), (0.8, 0.6))
    third = scene.look((0.7, 0.6), (0.8, 0.6), (0.9, 0.6))[0]
    assert [one.severity for one in (*first, *second, *third)] == [Priority.ALERT, Priority.NOTICE, Priority.ALERT]


def test_who_came_within_the_cooldown_and_is_still_there_after_it_is_an_alert_after_all() -> None:
    """The second burglar comes in ten seconds after the first, and stays."""
    for kind in ("forbidden", "loiters", "allowed-only"):
        labels = ["animal"] if kind == "allowed-only" else []
        scene = Scene(kind=kind, zones=["yard"], labels=labels, cooldown_s=10, for_s=1)
        told = [(scene.now_ns, one) for _ in range(20) for one in scene.look((0.7, 0.6))[0]]
        told += [(scene.now_ns, one) for _ in range(200) for one in scene.look((0.7, 0.6), (0.8, 0.6))[0]]
        of_second = [(at_ns, one.severity) for at_ns, one in told if one.track == 2]
        assert [severity for _, severity in of_second] == [Priority.NOTICE, Priority.ALERT], kind
        first_ns = next(at_ns for at_ns, one in told if one.track == 1)
        assert first_ns + 10 * NS <= of_second[1][0] <= first_ns + 11 * NS, kind
        assert [one.severity for _, one in told if one.track == 1] == [Priority.ALERT], kind


def test_who_has_left_before_the_cooldown_is_over_stays_a_notice() -> None:
    scene = Scene(kind="forbidden", zones=["yard"], cooldown_s=10)
    told = [*scene.look((0.7, 0.6))[0]]
    told += [one for _ in range(20) for one in scene.look((0.7, 0.6), (0.8, 0.6))[0]]
    told += [one for _ in range(100) for one in scene.look((0.7, 0.6), (0.2, 0.6))[0]]
    assert [one.severity for one in told] == [Priority.ALERT, Priority.NOTICE]


def test_a_rule_of_notices_does_not_repeat_itself() -> None:
    scene = Scene(kind="forbidden", zones=["yard"], cooldown_s=1, severity="notice")
    told = [one for _ in range(100) for one in scene.look((0.7, 0.6), (0.8, 0.6))[0]]
    assert [one.severity for one in told] == [Priority.NOTICE] * 2


def test_a_second_crowd_that_outlasts_the_cooldown_is_an_alert() -> None:
    scene, feet = Scene(kind="crowd", zones=["yard"], count=2, for_s=1, cooldown_s=20), [(0.6, 0.6), (0.8, 0.6)]
    told = [one for _ in range(20) for one in scene.look(*feet)[1]]
    told += [one for _ in range(30) for one in scene.look(feet[0])[1]]
    told += [one for _ in range(200) for one in scene.look(*feet)[1]]
    assert [(one.count, one.severity) for one in told] == [
        (2, Priority.ALERT), (0, Priority.NOTICE), (2, Priority.NOTICE), (2, Priority.ALERT),
    ]  # fmt: skip


def test_forbidden_fires_when_its_hour_begins_for_who_is_there_already() -> None:
    scene = Scene(kind="forbidden", zones=["yard"])
    scene.active = False
    assert scene.walk(*[0.7] * 10) == []
    scene.active = True
    assert scene.walk(*[0.7] * 10) == ["is in yard at a forbidden hour"]


def test_only_the_allowed_may_be_there() -> None:
    scene = Scene(kind="allowed-only", zones=["yard"], labels=["bicycle"])
    assert scene.look((0.7, 0.6), label=Label.BICYCLE)[0] == []
    assert [one.what for one in Scene(kind="allowed-only", zones=["yard"]).look((0.7, 0.6))[0]] == [
        "is not allowed in yard"
    ]


def test_a_crowd_survives_a_moment_in_which_it_seems_smaller_and_ends_after_a_lull() -> None:
    scene, feet = Scene(kind="crowd", zones=["yard"], count=3, for_s=4), [(0.6, 0.6), (0.7, 0.6), (0.8, 0.6)]
    told = [one for step in range(40) for one in scene.look(*feet[: 2 if step % 5 == 0 else 3])[1]]
    assert [one.count for one in told] == [3]
    over = [one for _ in range(30) for one in scene.look(feet[0])[1]]
    assert [one.count for one in over] == [0]


def test_traffic_that_flows_is_no_congestion() -> None:
    scene = Scene(kind="congestion", zones=["yard"], count=2, for_s=5)
    for step in range(100):
        feet = (0.5 + 0.02 * (step % 20), 0.6), (0.52 + 0.02 * (step % 20), 0.8)
        assert scene.look(*feet, label=Label.VEHICLE)[1] == []
    told = [one for _ in range(40) for one in scene.look((0.6, 0.6), (0.8, 0.8), label=Label.VEHICLE)[1]]
    assert [one.count for one in told] == [2]


def test_every_kind_has_its_topic() -> None:
    kinds = set(get_args(get_type_hints(RuleSettings)["kind"]))
    assert kinds == set(TOPICS)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(TOPICS)),
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=5), max_size=30),
)
def test_whatever_walks_nothing_stumbles_and_what_has_gone_is_forgotten(
    kind: str, looks: list[list[tuple[float, float]]]
) -> None:
    scene = Scene(
        kind=kind, zones=[] if kind == "crosses" else ["yard"], line="door" if kind == "crosses" else "", count=2
    )
    for feet in looks:
        scene.look(*feet)
    scene.look()
    assert not scene.book._stays and not scene.book._stands
