"""The vision worker on made-up scenes: visits become incidents, nothing costs nothing, and nothing kills it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.config import LineSettings, RuleSettings, VisionSettings, ZoneSettings
from agent.errors import ConfigError, Transient
from agent.types import NS, Box, Detection, Event, Frame, Kind, Phase, Priority
from agent.vision.detector import Detector
from agent.vision.detector.none import NoDetector
from agent.vision.tracker import Track
from agent.vision.worker import VisionWorker
from agent.worker import Inbox, WhenFull
from tests.fakes.detector import FakeDetector, bright_spots

if TYPE_CHECKING:
    from agent.types import Bgr, Luma

FPS = 5
YARD = ZoneSettings(name="yard", polygon=((0, 0.5), (1, 0.5), (1, 1), (0, 1)))


@dataclass
class Gray:
    """A source whose colours are all gray."""

    luma: Luma
    gone: bool = False

    def crop(self, box: Box, px_max: int) -> Bgr:
        if self.gone:
            raise Transient("the picture has been recycled")
        height, width = self.luma.shape
        part = self.luma[int(box.y * height) : round(box.y2 * height), int(box.x * width) : round(box.x2 * width)]
        return np.repeat(part[:, :, None], 3, axis=2)


def street(x: float | None = None, *, height: int = 180, width: int = 320, noise: int = 0) -> Luma:
    """A gray street; at `x` (left edge, 0..1) stands a bright visitor."""
    picture = _ground(height, width, noise % 7).copy()
    if x is not None:
        picture[int(0.4 * height) : int(0.75 * height), int(x * width) : int((x + 0.06) * width)] = 240
    return picture


@functools.lru_cache(maxsize=16)
def _ground(height: int, width: int, noise: int) -> Luma:
    ys, xs = np.mgrid[0:height, 0:width]
    picture = 90 + 30 * np.sin(xs / 17.0) + 25 * np.cos(ys / 11.0)
    return np.asarray(picture + np.random.default_rng(noise).normal(0, 2, picture.shape), dtype=np.uint8)


class Post:
    """A vision worker with everything around it."""

    def __init__(
        self,
        detector: Detector,
        *,
        every_frame: bool = False,
        settings: VisionSettings | None = None,
        rules: Sequence[RuleSettings] = (),
        lines: Sequence[LineSettings] = (),
        live: bool = False,
    ) -> None:
        """`live`: the camera decodes on demand; `asked` is until when every picture is wanted, one entry a request."""
        self.asked: list[int] = []
        self.frames: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
        self.told: list[Event] = []
        self.seen: list[tuple[int, int, int, int]] = []  # frame, motion, detections, tracks
        ids = itertools.count(1)
        self.worker = VisionWorker(
            frames=self.frames,
            settings=settings or VisionSettings(),
            zones=[YARD],
            lines=lines,
            rules=rules,
            place="the gate",
            detector=detector,
            new_id=lambda: f"id-{next(ids)}",
            report=self.told.extend,
            stopwatch_ns=lambda: 0,
            seen=self._see,
            every_frame=every_frame,
            attend=self.asked.append if live else None,
        )
        self.worker.open()
        self._seq = itertools.count(1)
        self.now_ns = 10_000 * NS

    def _see(self, frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        self.seen.append((frame.seq, len(motion), len(found), len(tracks)))

    def show(self, luma: Luma, *, after_s: float = 1 / FPS, gone: bool = False) -> None:
        self.now_ns += round(after_s * NS)
        self.frames.put(Frame(next(self._seq), self.now_ns, luma, Gray(luma, gone=gone)))
        assert self.worker.step(self.now_ns / NS) > self.now_ns / NS - 1

    def idle(self, seconds: float) -> None:
        for index in range(round(seconds * FPS)):
            self.show(street(noise=index % 7 + 1))

    def visit(self, frames: int = 25) -> None:
        for index in range(frames):
            self.show(street(0.05 + 0.85 * index / frames, noise=index % 7 + 1))

    def kinds(self) -> list[tuple[Kind, Phase]]:
        return [(event.kind, event.phase) for event in self.told]


def test_with_a_rule_the_visit_alerts_when_it_fires_names_it_and_ends_with_its_path() -> None:
    post = Post(
        FakeDetector(bright_spots(score=0.7)),
        rules=[RuleSettings(name="door", kind="crosses", line="l", direction="left")],
        lines=[LineSettings(name="l", points=((0.5, 0.1), (0.5, 0.95)))],
    )
    post.idle(4)
    post.visit()
    post.idle(8)
    assert [(event.phase, event.priority, event.rule) for event in post.told] == [
        (Phase.STARTED, Priority.NOTICE, ""),
        (Phase.UPDATED, Priority.ALERT, "door"),
        (Phase.ENDED, Priority.ALERT, "door"),
    ]
    alert, end = post.told[1:]
    assert alert.onvif == "tns1:RuleEngine/LineDetector/Crossed" and alert.thumbnail is not None
    assert len(end.path) > 5 and end.path[0][0] < 0.3 and end.path[-1][0] > 0.7
    assert end.dwell_ns is not None and end.dwell_ns > 3 * NS and end.height is not None and 0.2 < end.height < 0.6


def test_who_walks_in_an_ignore_mask_is_neither_motion_nor_anybody() -> None:
    street_mask = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.9), (0.0, 0.9))
    post = Post(
        FakeDetector(bright_spots(score=0.7)),
        settings=VisionSettings(ignore_masks=(street_mask,)),
    )
    post.idle(4)
    post.visit()
    post.idle(8)
    assert post.told == []
    assert all(motion == 0 and tracks == 0 for _, motion, _, tracks in post.seen)


def test_one_visit_is_one_alert_with_zone_score_and_picture_and_it_ends() -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)))
    post.idle(4)
    post.visit()
    post.idle(8)
    assert post.kinds() == [(Kind.PERSON, Phase.STARTED), (Kind.PERSON, Phase.ENDED)]
    started, ended = post.told
    assert started.summary == "A person at the gate (zone yard), 70 % sure"
    assert started.priority is Priority.ALERT and started.zones == ("yard",)
    assert started.thumbnail is not None and started.thumbnail[:2] == b"\xff\xd8" and ended.thumbnail is None
    assert started.incident == ended.incident
    assert started.since_ns is not None and started.since_ns < started.boot_ns < ended.boot_ns
    assert (ended.boot_ns - started.since_ns) / NS == pytest.approx(4.8, abs=1)


def test_an_idle_scene_runs_the_detector_never() -> None:
    fake = FakeDetector(bright_spots())
    post = Post(fake)
    post.idle(60)
    assert fake.runs == 0
    assert post.told == []
    assert post.worker.stats.frames == 300
    assert post.worker.stats.gate_openings == 0


def test_a_visit_costs_a_bounded_number_of_inferences() -> None:
    fake = FakeDetector(bright_spots(score=0.7))
    post = Post(fake)
    post.idle(2)
    post.visit(50)
    post.idle(10)
    assert 5 <= fake.runs <= 10 * 2 + 14  # a few at once, then one a second for him and now and then one for all
    assert post.worker.stats.detector_runs == fake.runs


def test_every_visit_is_told_anew() -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)))
    for _ in range(3):
        post.idle(6)
        post.visit()
    post.idle(6)
    assert len({event.incident for event in post.told}) == 3
    assert post.worker.stats.incidents_open == 0


def test_without_a_detector_motion_is_told_and_nothing_is_cropped() -> None:
    post = Post(NoDetector())
    post.idle(4)
    post.visit(25)
    post.idle(8)
    assert post.kinds() == [(Kind.MOTION, Phase.STARTED), (Kind.MOTION, Phase.ENDED)]
    assert post.worker.stats.detector_fault == "" and post.worker.stats.detector_runs == 0


def test_a_detector_that_dies_mid_visit_is_told_once_and_motion_goes_on_being_told() -> None:
    fake = FakeDetector(bright_spots(score=0.7))
    post = Post(fake)
    post.idle(4)
    post.visit(10)
    fake.detect_fault = Transient("no more inferences today")
    post.visit(25)
    assert post.worker.stats.detector_fault == "no more inferences today"
    post.idle(10)
    post.visit(40)
    kinds = post.kinds()
    assert kinds.count((Kind.DETECTOR, Phase.STARTED)) == 1
    assert (Kind.MOTION, Phase.STARTED) in kinds
    assert (Kind.PERSON, Phase.ENDED) in kinds
    fake.detect_fault = None
    post.idle(70)
    assert post.kinds().count((Kind.DETECTOR, Phase.ENDED)) == 1
    before = len(post.told)
    post.visit(25)
    assert (Kind.PERSON, Phase.STARTED) in post.kinds()[before:]


def test_a_model_that_never_opens_is_said_at_once_and_the_worker_lives() -> None:
    fake = FakeDetector()
    fake.open_fault = ConfigError("/models/x.tflite: no such model; fetch it")
    post = Post(fake)
    assert "no such model" in post.worker.stats.detector_fault
    post.worker.step(post.now_ns / NS)  # no frame is needed to say so
    (event,) = post.told
    assert event.kind is Kind.DETECTOR and "no such model" in event.summary
    post.idle(4)
    post.visit(25)
    assert (Kind.MOTION, Phase.STARTED) in post.kinds()


@pytest.mark.parametrize("between_s", [1 / 60, 1 / FPS, 5.0])
def test_any_pace_of_pictures_tells_of_a_visit_once(between_s: float) -> None:
    post = Post(FakeDetector(bright_spots(score=0.8)))
    for index in range(20):
        post.show(street(noise=index + 1), after_s=between_s)
    step = min(0.3 * between_s, 0.02)  # he crosses a third of the picture in a second
    for index in range(round(0.5 / step)):
        post.show(street(0.1 + step * index, noise=index % 7 + 1), after_s=between_s)
    for index in range(80 if between_s < 1 else 10):  # longer than who vanishes in the middle is waited for
        post.show(street(noise=index + 1), after_s=max(between_s, 0.1))
    assert post.kinds() == [(Kind.PERSON, Phase.STARTED), (Kind.PERSON, Phase.ENDED)]


def test_a_strobe_light_without_end_is_told_and_costs_little() -> None:
    fake = FakeDetector()
    post = Post(fake)
    for index in range(50):
        post.show(street() // (index % 2 + 1))
    assert post.kinds() == [(Kind.MOTION, Phase.STARTED)]
    assert fake.runs <= 11


def test_odd_pictures_kill_nothing() -> None:
    post = Post(FakeDetector(bright_spots()))
    odd = [
        street(0.3),
        np.zeros((180, 320), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros((0, 320), np.uint8),
        np.full((180, 320), 255, np.uint8),
        street(height=90, width=160),
        street(0.6, height=272, width=640),
        np.zeros((1, 1), np.uint8),
        np.zeros((180, 320, 3), np.uint8),
    ]
    for index in range(90):
        post.show(odd[(index * 4 + index // 9) % len(odd)])
    post.worker.close()
    assert {event.incident for event in post.told if event.phase is Phase.STARTED} == {
        event.incident for event in post.told if event.phase is Phase.ENDED
    }


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0, -0.5])
def test_a_jump_in_time_ends_what_was_in_view_and_the_next_visit_is_told(jump_s: float) -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)))
    post.idle(4)
    post.visit(12)
    post.show(street(0.5), after_s=jump_s)
    post.idle(8)
    assert post.kinds()[:2] == [(Kind.PERSON, Phase.STARTED), (Kind.PERSON, Phase.ENDED)]
    assert post.told[1].boot_ns >= post.told[0].boot_ns
    post.visit()
    post.idle(6)
    assert post.worker.stats.incidents_open == 0
    assert post.kinds().count((Kind.PERSON, Phase.STARTED)) == 2


def test_when_the_camera_falls_silent_the_visit_ends_when_it_was_last_seen() -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)))
    post.idle(4)
    post.visit(12)
    last_ns = post.now_ns
    assert post.worker.stats.incidents_open == 1
    post.worker.step(last_ns / NS + 30)
    assert post.kinds()[-1] == (Kind.PERSON, Phase.ENDED)
    assert post.told[-1].boot_ns <= last_ns


def test_closing_ends_what_is_open_and_may_be_done_twice() -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)))
    post.idle(4)
    post.visit(12)
    post.worker.close()
    post.worker.close()
    assert post.kinds() == [(Kind.PERSON, Phase.STARTED), (Kind.PERSON, Phase.ENDED)]


def test_a_picture_that_is_gone_is_counted_and_is_not_the_detectors_fault() -> None:
    fake = FakeDetector(bright_spots())
    post = Post(fake)
    post.idle(4)
    for index in range(10):
        post.show(street(0.1 + 0.05 * index), gone=True)
    assert fake.runs == 0
    assert post.worker.stats.crops_lost > 0
    assert post.worker.stats.detector_fault == ""


def test_every_frame_measures_the_detector_whatever_moves() -> None:
    fake = FakeDetector(bright_spots(score=0.12))
    post = Post(fake, every_frame=True)
    for index in range(10):
        post.show(street(0.4, noise=index + 1))
    assert fake.runs == 50  # the whole picture and its four parts
    assert all(found >= 1 for _, _, found, _ in post.seen)
    assert post.told == []  # nobody is alerted at a score of 0.12


def test_the_same_frames_tell_the_same_story() -> None:
    stories = []
    for _ in range(2):
        post = Post(FakeDetector(bright_spots(score=0.7)))
        post.idle(3)
        post.visit()
        post.idle(5)
        stories.append((post.told, post.seen, post.worker.stats))
    assert stories[0] == stories[1]


def test_a_camera_that_decodes_on_demand_is_asked_for_more_while_there_is_something_to_see_and_no_longer() -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)), live=True)
    post.idle(4)
    assert post.asked and post.asked[-1] <= post.now_ns, "a new scene is learned, and then let alone"
    calm = len(post.asked)
    post.idle(4)
    assert len(post.asked) == calm
    begun_ns = post.now_ns
    post.visit()
    assert len(post.asked) > calm + 15
    assert all(until_ns - begun_ns > NS for until_ns in post.asked[calm:])
    assert 0 < post.asked[-1] - post.now_ns <= 2 * NS
    post.idle(8)
    assert post.asked[-1] < post.now_ns - 3 * NS, "who has gone keeps nobody awake"


def test_who_has_gone_is_given_up_by_the_clock_when_nothing_is_worth_a_picture() -> None:
    post = Post(FakeDetector(bright_spots(score=0.7)), live=True)
    post.idle(4)
    post.visit()
    for _ in range(3):
        post.show(street())  # he is out of sight, and the camera sees no reason for another picture
    assert (Kind.PERSON, Phase.ENDED) not in post.kinds()
    for seconds in range(1, 9):
        post.worker.step(post.now_ns / NS + seconds)
    assert (Kind.PERSON, Phase.ENDED) in post.kinds()
    told = len(post.told)
    post.now_ns += 20 * NS
    post.visit()
    assert (Kind.PERSON, Phase.STARTED) in [(event.kind, event.phase) for event in post.told[told:]]
