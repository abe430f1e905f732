"""The profiles that ship: they load, nothing is wrong with them, and each alerts at what it is for and at nothing else."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from agent.config import Config, problems, read_toml
from agent.types import NS, Box, Event, Label, Phase, Priority, UtcReading
from agent.vision.faults import faults
from agent.vision.incidents import Incidents
from agent.vision.rules import RuleBook
from agent.vision.schedule import Calendar
from agent.vision.tracker import Track
from agent.vision.zones import ZoneMap

ROOT = Path(__file__).parents[2]
STEP_NS = NS // 5
NODE = {"node": {"site": "s", "id": "n", "data": "/d"}, "camera": {}, "uplink": {"brokers": ["mqtt://localhost"]}}
PROFILES = sorted((ROOT / "deploy/profiles").glob("*.toml"))


def loaded(name: str) -> Config:
    tables = {**NODE, **read_toml(ROOT / f"deploy/profiles/{name}.toml")}
    assert problems(tables, Config) == []
    return msgspec.convert(tables, Config)


class Place:
    """A post with a profile, at a local time, with a clock that is right to 50 ms, or wrong."""

    def __init__(self, name: str, at: str, *, synchronised: bool = True) -> None:
        config = loaded(name)
        local = dt.datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(config.calendar.time_zone))
        self.begin_ns, self.now_ns = round(local.timestamp()) * NS, 0
        unc_ns = NS // 20 if synchronised else None
        ids = itertools.count(1)
        zones = ZoneMap(config.zones)
        calendar = Calendar(
            settings=config.calendar,
            schedules=config.schedules,
            utc=lambda: UtcReading(self.begin_ns + self.now_ns, unc_ns, "test"),
        )
        self.incidents = Incidents(
            settings=config.vision, zones=zones, place="the gate", new_id=lambda: f"id-{next(ids)}",
            rules=RuleBook(rules=config.rules, zones=zones, lines=config.lines, active=calendar.active),
        )  # fmt: skip

    def live(self, seconds: float, scene: Callable[[float], Iterator[tuple[int, Label, float, float]]]) -> list[Event]:
        """What is told while `scene` (id, label, foot x, foot y at each second) lasts."""
        told: list[Event] = []
        first: dict[int, int] = {}
        for step in range(round(seconds * 5)):
            self.now_ns += STEP_NS
            tracks = [
                Track(number, label, 0.8, Box(x - 0.03, y - 0.2, 0.06, 0.2), first.setdefault(number, self.now_ns),
                      self.now_ns, True, True, 0, 3)
                for number, label, x, y in scene(step / 5)
            ]  # fmt: skip
            told += self.incidents.update(tracks=tracks, motion=[], boot_ns=self.now_ns)
        return told


def alerts(told: list[Event]) -> list[tuple[str, Phase]]:
    return [(event.rule, event.phase) for event in told if event.priority is Priority.ALERT]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_is_without_fault(path: Path) -> None:
    assert list(faults(loaded(path.stem))) == []


def test_all_profiles_ship() -> None:
    assert [path.stem for path in PROFILES] == ["household", "roadside", "school-gate"]


def walk(y: float) -> Callable[[float], Iterator[tuple[int, Label, float, float]]]:
    """One person from left to right in 20 s."""
    return lambda s: iter([(1, Label.PERSON, 0.05 + 0.045 * s, y)] if s < 20 else [])


def test_a_household_hears_of_the_intruder_at_night_once_and_by_name() -> None:
    told = Place("household", "2026-03-10T02:15").live(25, walk(0.9))
    assert alerts(told) == [("intruder", Phase.STARTED), ("intruder", Phase.ENDED)]
    assert told[0].summary == "A person at the gate is in yard at a forbidden hour (rule intruder), 80 % sure"
    assert told[0].onvif == "tns1:RuleEngine/FieldDetector/ObjectsInside"
    assert told[-1].dwell_ns is not None and told[-1].dwell_ns > 19 * NS and 2 <= len(told[-1].path) <= 32


def test_a_passer_by_on_the_road_is_silence_even_at_night() -> None:
    told = Place("household", "2026-03-10T02:15").live(25, walk(0.4))
    assert [event.phase for event in told] == [Phase.STARTED, Phase.ENDED]
    assert alerts(told) == []


def test_the_family_by_day_is_a_notice() -> None:
    told = Place("household", "2026-03-10T18:00").live(25, walk(0.9))
    assert alerts(told) == []
    assert {event.rule for event in told} == {"came-home"}


def test_a_household_whose_clock_is_wrong_rather_alerts() -> None:
    assert alerts(Place("household", "2026-03-10T18:00", synchronised=False).live(25, walk(0.9)))


def test_who_waits_at_the_door_is_told_after_45_s_and_then_left_alone() -> None:
    told = Place("household", "2026-03-10T18:00").live(
        120, lambda s: iter([(1, Label.PERSON, 0.5, 0.7)] if s < 100 else [])
    )
    alert = next(event for event in told if event.rule == "at-the-door")
    assert (alert.phase, alert.priority) == (Phase.UPDATED, Priority.ALERT)
    assert 45 * NS <= alert.boot_ns - (alert.since_ns or 0) < 46 * NS
    assert sum(event.phase is Phase.UPDATED and event.rule == "at-the-door" for event in told) == 1


def dismissal(s: float) -> Iterator[tuple[int, Label, float, float]]:
    """Twelve children come out one a second, stand before the gate for a minute, and go."""
    for child in range(12):
        if child < s < 70 + child:
            yield child + 1, Label.PERSON, 0.34 + 0.025 * child, 0.6


def test_a_dismissal_is_one_crowd_and_no_twelve_alerts() -> None:
    told = Place("school-gate", "2026-03-10T16:25").live(95, dismissal)
    assert alerts(told) == [("crowd-at-dismissal", Phase.STARTED), ("crowd-at-dismissal", Phase.ENDED)]
    crowd = next(event for event in told if event.rule)
    assert crowd.summary.startswith("12 persons together at the gate (zone gate) for 20 s")
    assert crowd.box is not None and crowd.box.w > 0.2 and crowd.label is Label.PERSON


def test_the_same_crowd_in_a_holiday_or_on_a_sunday_is_silence() -> None:
    for day in ("2026-10-02", "2026-03-08"):
        assert alerts(Place("school-gate", f"{day}T16:25").live(95, dismissal)) == []


def test_a_van_on_the_pavement_and_cars_that_stand_are_told_apart_from_traffic() -> None:
    def cars(s: float) -> Iterator[tuple[int, Label, float, float]]:
        yield 1, Label.VEHICLE, 0.2, 0.95
        yield 2, Label.VEHICLE, 0.6, 0.95
        if s < 10:
            yield 3, Label.VEHICLE, 0.1 * s, 0.95  # drives past
        if 80 < s < 85:
            yield 4, Label.VEHICLE, 0.5, 0.7

    told = Place("school-gate", "2026-03-10T16:25").live(100, cars)
    assert [rule for rule, phase in alerts(told) if phase is Phase.STARTED] == ["blocked-road", "vehicle-on-pavement"]


def test_a_child_that_walks_out_in_lessons_is_told_and_one_that_walks_in_is_not() -> None:
    out = Place("school-gate", "2026-03-10T10:00").live(
        15, lambda s: iter([(1, Label.PERSON, 0.5, 0.3 + 0.03 * s)] if s < 12 else [])
    )
    assert ("walks-out", Phase.UPDATED) in alerts(out)
    inward = Place("school-gate", "2026-03-10T10:00").live(
        15, lambda s: iter([(1, Label.PERSON, 0.5, 0.7 - 0.03 * s)] if s < 12 else [])
    )
    assert alerts(inward) == []


def test_a_pole_at_the_road_tells_who_tampers_with_it_and_what_is_dumped_and_not_the_traffic() -> None:
    def traffic(s: float) -> Iterator[tuple[int, Label, float, float]]:
        for number in range(20):
            x = 0.1 * (s - 5 * number)
            if 0 <= x <= 1:
                yield number, Label.VEHICLE, x, 0.7

    assert alerts(Place("roadside", "2026-03-10T23:00").live(100, traffic)) == []
    thief = Place("roadside", "2026-03-10T14:00").live(
        25, lambda s: iter([(1, Label.PERSON, 0.5, 0.95)] if s < 20 else [])
    )
    assert ("at-the-pole", Phase.UPDATED) in alerts(thief)
    lorry = Place("roadside", "2026-03-10T23:00").live(150, lambda _: iter([(1, Label.VEHICLE, 0.5, 0.5)]))
    assert ("dumping", Phase.UPDATED) in alerts(lorry)
    by_day = Place("roadside", "2026-03-10T12:00").live(150, lambda _: iter([(1, Label.VEHICLE, 0.5, 0.5)]))
    assert alerts(by_day) == []
