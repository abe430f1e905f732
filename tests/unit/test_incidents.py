"""Incidents: one visit is one incident with one id, told when it matters, and it always ends."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import VisionSettings, ZoneSettings
from agent.types import NS, Box, Event, Kind, Label, Phase, Priority
from agent.vision.incidents import OPEN_MAX, Incidents
from agent.vision.tracker import Track
from agent.vision.zones import ZoneMap

STEP_NS = NS // 5
YARD = ZoneSettings(name="yard", polygon=((0, 0.5), (1, 0.5), (1, 1), (0, 1)))
DOOR = ZoneSettings(name="door", polygon=((0.8, 0.5), (1, 0.5), (1, 1), (0.8, 1)))
LEAF = Box(0.1, 0.1, 0.05, 0.05)


def rules(**settings: object) -> Incidents:
    ids = itertools.count(1)
    return Incidents(
        settings=VisionSettings(**settings),  # type: ignore[arg-type]
        zones=ZoneMap([YARD, DOOR]),
        place="the gate",
        new_id=lambda: f"incident-{next(ids)}",
    )


def track(
    number: int, now_ns: int, *, x: float = 0.3, y: float = 0.5, score: float = 0.87, label: Label = Label.PERSON,
    confirmed: bool = True, first_ns: int = 0,
) -> Track:  # fmt: skip
    return Track(number, label, score, Box(x, y, 0.1, 0.3), first_ns, now_ns, confirmed, True, 0, 3)


def test_a_visit_is_told_in_words_that_need_no_legend() -> None:
    one = rules()
    (started,) = one.update(tracks=[track(1, 2 * NS, first_ns=NS)], motion=[], boot_ns=2 * NS)
    assert started.summary == "A person at the gate (zone yard), 87 % sure"
    assert (started.kind, started.phase, started.priority) == (Kind.PERSON, Phase.STARTED, Priority.ALERT)
    assert (started.boot_ns, started.since_ns, started.zones) == (2 * NS, NS, ("yard",))
    assert one.update(tracks=[track(1, 3 * NS, first_ns=NS)], motion=[], boot_ns=3 * NS) == []
    (ended,) = one.update(tracks=[], motion=[], boot_ns=8 * NS)
    assert ended.summary == "The person at the gate has gone after 2 s (zone yard), 87 % sure"
    assert (ended.phase, ended.incident, ended.boot_ns) == (Phase.ENDED, started.incident, 3 * NS)


def test_what_is_not_confirmed_is_not_told() -> None:
    assert rules().update(tracks=[track(1, NS, confirmed=False)], motion=[], boot_ns=NS) == []


def test_an_update_needs_news_and_its_time() -> None:
    one, told = rules(update_s=10), []
    for step in range(200):  # 40 s; surer and surer
        now_ns = step * STEP_NS
        told += one.update(tracks=[track(1, now_ns, score=min(0.5 + step * 0.002, 0.9))], motion=[], boot_ns=now_ns)
    assert [event.phase for event in told] == [Phase.STARTED, Phase.UPDATED, Phase.UPDATED, Phase.UPDATED]
    gaps = [b.boot_ns - a.boot_ns for a, b in itertools.pairwise(told)]
    assert all(gap >= 10 * NS for gap in gaps)
    assert len({event.incident for event in told}) == 1


def test_entering_a_zone_is_news_and_the_zones_are_kept_in_order() -> None:
    one = rules(update_s=1)
    told = one.update(tracks=[track(1, 0, x=0.3)], motion=[], boot_ns=0)
    told += one.update(tracks=[track(1, 2 * NS, x=0.82)], motion=[], boot_ns=2 * NS)
    told += one.update(tracks=[track(1, 4 * NS, x=0.3)], motion=[], boot_ns=4 * NS)  # back: nothing new
    assert [(event.phase, event.zones) for event in told] == [
        (Phase.STARTED, ("yard",)),
        (Phase.UPDATED, ("yard", "door")),
    ]
    assert told[1].summary == "The person is still at the gate (zones yard, door), 87 % sure"


def test_what_turns_out_to_be_a_person_is_an_alert_at_once_under_the_same_id() -> None:
    one = rules(update_s=600)
    (first,) = one.update(tracks=[track(1, 0, label=Label.ANIMAL)], motion=[], boot_ns=0)
    (second,) = one.update(tracks=[track(1, NS, label=Label.PERSON)], motion=[], boot_ns=NS)
    assert (first.kind, first.priority) == (Kind.ANIMAL, Priority.NOTICE)
    assert (second.kind, second.priority, second.phase) == (Kind.PERSON, Priority.ALERT, Phase.UPDATED)
    assert first.incident == second.incident


def test_motion_that_lasts_and_has_no_explanation_is_one_notice() -> None:
    one, told = rules(motion_s=2, gone_s=3), []
    for step in range(100):
        now_ns = step * STEP_NS
        told += one.update(tracks=[], motion=[LEAF] if step < 50 else [], boot_ns=now_ns)
    assert [(event.kind, event.phase, event.priority) for event in told] == [
        (Kind.MOTION, Phase.STARTED, Priority.NOTICE),
        (Kind.MOTION, Phase.ENDED, Priority.NOTICE),
    ]
    assert told[0].summary == "Something moves at the gate; not recognised"
    assert (told[0].since_ns, told[0].boot_ns) == (0, 2 * NS)
    assert told[1].boot_ns == 49 * STEP_NS


def test_motion_is_an_alert_where_the_settings_say_so() -> None:
    one = rules(alert_on=("motion",))
    told = [event for step in range(20) for event in one.update(tracks=[], motion=[LEAF], boot_ns=step * STEP_NS)]
    assert [event.priority for event in told] == [Priority.ALERT]


def test_who_walks_over_furniture_that_looks_like_an_animal_is_motion() -> None:
    one, told = rules(motion_s=2), []
    for step in range(20):
        now_ns = step * STEP_NS
        stone = replace(track(1, now_ns, label=Label.ANIMAL, confirmed=False), moved=False)
        told += one.update(tracks=[stone], motion=[stone.box], boot_ns=now_ns)
    assert [(event.kind, event.phase) for event in told] == [(Kind.MOTION, Phase.STARTED)]


def test_a_passing_flicker_and_a_tracks_own_motion_are_no_motion_incident() -> None:
    one, told = rules(), []
    for step in range(100):
        now_ns = step * STEP_NS
        walker = track(1, now_ns, x=0.3 + 0.002 * step)
        flicker = [LEAF] if step % 25 < 3 else []
        told += one.update(tracks=[walker], motion=[walker.box, *flicker], boot_ns=now_ns)
    assert [event.kind for event in told] == [Kind.PERSON]


def test_motion_in_pictures_five_seconds_apart_is_found_too() -> None:
    one = rules()
    told = [event for step in range(6) for event in one.update(tracks=[], motion=[LEAF], boot_ns=step * 5 * NS)]
    assert [event.phase for event in told] == [Phase.STARTED]


def test_rain_for_an_hour_is_few_incidents() -> None:
    one, told = rules(), []
    for step in range(3600 * 5):
        showers = (step // 25) % 2 == 0  # 5 s on, 5 s off
        told += one.update(tracks=[], motion=[LEAF] if showers else [], boot_ns=step * STEP_NS)
    assert sum(event.phase is Phase.STARTED for event in told) <= 5


def test_close_ends_everything_at_the_time_it_was_last_seen() -> None:
    one = rules()
    for step in range(20):
        now_ns = step * STEP_NS
        one.update(tracks=[track(1, now_ns), track(2, now_ns, x=0.7)], motion=[LEAF], boot_ns=now_ns)
    ended = one.close()
    assert sorted(event.kind for event in ended) == [Kind.MOTION, Kind.PERSON, Kind.PERSON]
    assert all(event.phase is Phase.ENDED and event.boot_ns == 19 * STEP_NS for event in ended)
    assert one.close() == []


def test_a_full_house_gives_way_to_an_alert_and_makes_a_notice_wait() -> None:
    one = rules()
    cars = [track(n, NS, label=Label.VEHICLE, first_ns=n) for n in range(1, OPEN_MAX + 1)]
    assert len(one.update(tracks=cars, motion=[], boot_ns=NS)) == OPEN_MAX
    late = track(90, 2 * NS, label=Label.VEHICLE)
    assert one.update(tracks=[*cars, late], motion=[], boot_ns=2 * NS) == []
    assert one.waiting == 1
    told = one.update(tracks=[*cars, track(91, 3 * NS)], motion=[], boot_ns=3 * NS)
    assert [(event.kind, event.phase) for event in told] == [(Kind.VEHICLE, Phase.ENDED), (Kind.PERSON, Phase.STARTED)]
    assert one.open_count == OPEN_MAX


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sets(st.integers(1, 40), max_size=40), st.booleans(), st.integers(0, 3 * NS)), max_size=30)
)
def test_every_incident_starts_once_ends_once_and_is_bounded(steps: list[tuple[set[int], bool, int]]) -> None:
    one, now_ns = rules(), 0
    told: list[Event] = []
    for alive, moving, wait_ns in steps:
        now_ns += wait_ns
        tracks = [track(n, now_ns, label=list(Label)[n % 4]) for n in sorted(alive)]
        told += one.update(tracks=tracks, motion=[LEAF] if moving else [], boot_ns=now_ns)
        assert one.open_count <= OPEN_MAX
    told += one.close()
    by_incident: dict[str, list[Phase]] = {}
    for event in told:
        by_incident.setdefault(event.incident, []).append(event.phase)
    for phases in by_incident.values():
        assert phases[0] is Phase.STARTED and phases[-1] is Phase.ENDED
        assert set(phases[1:-1]) <= {Phase.UPDATED}
