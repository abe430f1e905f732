"""A sick detector: told once, healed with back-off, and nothing is taken down with it."""

from __future__ import annotations

import itertools

import numpy as np

from agent.errors import ConfigError, Transient
from agent.types import NS, Box, Detection, Event, Kind, Label, Phase
from agent.vision.detector import Detector
from agent.vision.detector.none import NoDetector
from agent.vision.guard import BACKOFF_S_MAX, GuardedDetector
from tests.fakes.detector import FakeDetector

PICTURE = np.full((300, 300, 3), 90, np.uint8)
SOMEBODY = Detection(Label.PERSON, 0.8, Box(0.1, 0.1, 0.2, 0.6))


def guarded(detector: Detector) -> GuardedDetector:
    ids, clock = itertools.count(1), itertools.count(0, 5_000_000)
    return GuardedDetector(detector=detector, new_id=lambda: f"id-{next(ids)}", stopwatch_ns=lambda: next(clock))


def test_a_healthy_detector_is_passed_through_and_timed() -> None:
    guard = guarded(FakeDetector(lambda _: [SOMEBODY]))
    guard.open()
    assert guard.detect(PICTURE, 0.3) == [SOMEBODY]
    assert guard.attend(NS) == []
    assert (guard.runs, guard.run_ms_mean, guard.input_px) == (1, 5.0, 300)


def test_one_hiccup_is_tried_again_and_not_worth_a_word() -> None:
    calls = itertools.count()

    def find(_: object) -> list[Detection]:
        if next(calls) == 0:
            raise Transient("hiccup")
        return [SOMEBODY]

    guard = guarded(FakeDetector(find))
    guard.open()
    assert guard.detect(PICTURE, 0.3) == [SOMEBODY]
    assert guard.attend(NS) == []


def test_an_illness_is_told_once_healed_with_back_off_and_told_again_when_it_is_over() -> None:
    fake = FakeDetector()
    guard = guarded(fake)
    guard.open()
    fake.detect_fault = Transient("the accelerator is on fire")
    assert guard.detect(PICTURE, 0.3) == []
    told: list[Event] = []
    opens = []
    for second in range(600):
        before = fake.opened
        told += guard.attend(second * NS)
        if fake.opened > before:
            opens.append(second)
        assert guard.input_px == 0
        runs = fake.runs
        assert guard.detect(PICTURE, 0.3) == []
        assert fake.runs == runs  # nobody asks the sick
    (started,) = told
    assert started.summary == "The detector failed; recording goes on, motion only: the accelerator is on fire"
    assert (started.kind, started.phase) == (Kind.DETECTOR, Phase.STARTED)
    gaps = [b - a for a, b in itertools.pairwise(opens)]
    assert gaps == sorted(gaps) and gaps[0] <= 4 and gaps[-1] <= BACKOFF_S_MAX + 2 and len(opens) < 20
    fake.detect_fault = None
    told = [event for second in range(600, 680) for event in guard.attend(second * NS)]
    assert [(event.phase, event.incident) for event in told] == [(Phase.ENDED, started.incident)]
    assert guard.input_px == 300 and not guard.fault


def test_a_model_that_cannot_be_opened_is_told_by_the_first_attendance() -> None:
    fake = FakeDetector()
    fake.open_fault = ConfigError("/m.tflite: no such model; fetch it")
    guard = guarded(fake)
    guard.open()
    assert guard.detect(PICTURE, 0.3) == []
    (started,) = guard.attend(5 * NS)
    assert "no such model" in started.summary and started.boot_ns == 5 * NS


def test_even_a_bug_in_a_driver_is_an_illness_and_nothing_more() -> None:
    fake = FakeDetector()
    guard = guarded(fake)
    guard.open()
    fake.detect_fault = ZeroDivisionError("oops")
    assert guard.detect(PICTURE, 0.3) == []
    assert "ZeroDivisionError: oops" in guard.attend(NS)[0].summary


def test_closing_ends_the_illness_in_the_books() -> None:
    fake = FakeDetector()
    fake.open_fault = ConfigError("no")
    guard = guarded(fake)
    guard.open()
    (started,) = guard.attend(NS)
    (ended,) = guard.close(9 * NS)
    assert (ended.phase, ended.incident, ended.since_ns) == (Phase.ENDED, started.incident, NS)
    assert guard.close(9 * NS) == []


def test_no_detector_is_no_illness() -> None:
    guard = guarded(NoDetector())
    guard.open()
    assert guard.input_px == 0
    assert guard.attend(NS) == [] and not guard.fault
