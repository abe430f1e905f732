"""What never moves is learned, put on record and ignored; whoever comes there is not."""

from __future__ import annotations

from agent.config import VisionSettings
from agent.types import FULL, NS, Box, Detection, Event, Label, Phase, Priority
from agent.vision.incidents import Incidents
from agent.vision.statics import PLACES_MAX, VAIN_LOOKS_MAX, Statics
from agent.vision.tracker import Tracker
from agent.vision.zones import ZoneMap

STEP_NS = NS // 2
TRIPOD = Box(0.5, 0.4, 0.06, 0.2)


class Yard:
    """Tracker, statics and incidents as the worker wires them; looked at twice a second."""

    def __init__(self, static_s: float = 60.0) -> None:
        self.tracker = Tracker(score_min=0.4, confirm_frames=3, gone_s=3.0)
        self.statics = Statics(static_s=static_s)
        ids = iter(range(10**6))
        self.incidents = Incidents(
            settings=VisionSettings(), zones=ZoneMap([]), place="the yard", new_id=lambda: f"id-{next(ids)}",
            statics=self.statics,
        )  # fmt: skip
        self.now_ns = 0

    def look(self, *found: tuple[Label, float, Box], moving: bool = True) -> list[Event]:
        self.now_ns += STEP_NS
        finds = [Detection(label, score, box) for label, score, box in found]
        motion = [find.box for find in finds] if moving else []
        tracks = self.tracker.update(finds, self.now_ns, looked=[FULL], motion=motion)
        learned = self.statics.observe(tracks=tracks, found=finds, looked=[FULL], boot_ns=self.now_ns)
        return self.incidents.update(tracks=tracks, motion=[], boot_ns=self.now_ns, learned=learned)


def tripod(step: int) -> tuple[Label, float, Box]:
    """A detector's box jitters."""
    return Label.PERSON, 0.8, Box(TRIPOD.x + 0.002 * (step % 3), TRIPOD.y + 0.003 * (step % 2), TRIPOD.w, TRIPOD.h)


def learned_yard() -> tuple[Yard, list[Event]]:
    yard = Yard()
    told = [event for step in range(130) for event in yard.look(tripod(step))]  # 65 s; leaves move before it
    return yard, told


def test_a_tripod_alerts_once_is_put_on_record_and_is_then_ignored() -> None:
    yard, told = learned_yard()
    assert [(event.phase, event.priority, event.rule) for event in told] == [
        (Phase.STARTED, Priority.ALERT, ""),
        (Phase.ENDED, Priority.NOTICE, "static"),
        (Phase.ENDED, Priority.ALERT, ""),
    ]
    assert told[1].summary == (
        "What looks like a person at the yard has not moved for 1 min: ignored as static from now on"
    )
    assert told[1].since_ns == STEP_NS and told[1].box is not None
    for _ in range(15):
        assert yard.look() == []  # a lorry hides it: its track dies ...
    assert [event for step in range(200) for event in yard.look(tripod(step))] == []  # ... and it is still no alert


def test_a_person_who_comes_and_stands_there_is_an_alert() -> None:
    yard, _ = learned_yard()
    told: list[Event] = []
    for step in range(40):  # walks up to the tripod and stands before it, as large as it
        x = min(0.1 + 0.02 * step, TRIPOD.x + 0.02)
        told += yard.look(tripod(step), (Label.PERSON, 0.7, Box(x, TRIPOD.y + 0.03, 0.07, 0.25)))
    assert [(event.phase, event.priority) for event in told] == [(Phase.STARTED, Priority.ALERT)]


def test_a_person_of_another_size_at_the_same_spot_is_an_alert_although_nobody_saw_him_come() -> None:
    yard, _ = learned_yard()
    for _ in range(15):
        yard.look()
    told = [event for step in range(6) for event in yard.look((Label.PERSON, 0.8, Box(0.49, 0.28, 0.1, 0.33)))]
    assert [event.phase for event in told] == [Phase.STARTED]


def test_a_guard_who_came_and_stands_still_for_an_hour_is_never_furniture() -> None:
    yard = Yard()
    told = [event for step in range(25) for event in yard.look((Label.PERSON, 0.8, Box(0.02 * step, 0.4, 0.06, 0.2)))]
    told += [
        event for _ in range(7200) for event in yard.look((Label.PERSON, 0.8, Box(0.48, 0.4, 0.06, 0.2)), moving=False)
    ]
    assert [event.phase for event in told if event.phase is not Phase.UPDATED] == [Phase.STARTED]
    assert yard.statics.learned == ()


def test_a_car_that_parks_is_static_after_a_while_and_its_departure_is_a_visit() -> None:
    yard, told = Yard(), []
    for step in range(20):
        told += yard.look((Label.VEHICLE, 0.8, Box(0.02 * step, 0.6, 0.2, 0.15)))
    for _ in range(130):
        told += yard.look((Label.VEHICLE, 0.8, Box(0.38, 0.6, 0.2, 0.15)), moving=False)
    assert [(event.phase, event.rule) for event in told if event.phase is not Phase.UPDATED] == [
        (Phase.STARTED, ""), (Phase.ENDED, "static"), (Phase.ENDED, ""),
    ]  # fmt: skip
    left = [
        event
        for step in range(20)
        for event in yard.look((Label.VEHICLE, 0.8, Box(0.38 + 0.02 * step, 0.6, 0.2, 0.15)))
    ]
    assert [event.phase for event in left if event.phase is not Phase.UPDATED] == [Phase.STARTED]


def test_a_door_where_people_keep_appearing_never_becomes_static() -> None:
    yard = Yard()
    for _ in range(30):
        for step in range(12):
            yard.look((Label.PERSON, 0.8, Box(0.5 + (0.01 * max(step - 4, 0)), 0.4, 0.06, 0.2)))
        for _ in range(16):
            yard.look()
    assert yard.statics.learned == ()


def test_what_was_taken_away_is_forgotten_and_0_learns_nothing() -> None:
    yard, _ = learned_yard()
    assert len(yard.statics.learned) == 1
    for _ in range(VAIN_LOOKS_MAX):
        yard.look()
    assert not yard.statics.learned
    never = Yard(static_s=0)
    for step in range(300):
        never.look(tripod(step))
    assert never.statics.learned == ()


def test_places_are_bounded() -> None:
    yard = Yard()
    for row in range(20):
        for column in range(10):
            yard.look((Label.PERSON, 0.5, Box(0.1 * column, 0.05 * row, 0.02, 0.04)))
    assert len(yard.statics._places) <= PLACES_MAX
