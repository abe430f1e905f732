"""Whatever a broken camera sends: the vision thread lives and sees again afterwards, and all incidents end, once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from agent.config import TamperSettings, VisionSettings
from agent.errors import Transient
from agent.types import NS, Bgr, Box, Event, Frame, Kind, Luma, Phase
from agent.vision.tamper import ViewWatch
from agent.vision.worker import VisionWorker
from agent.worker import Inbox, WhenFull
from tests.fakes.detector import FakeDetector, bright_spots
from tests.fakes.weather import Decoded

FRAMES = 150
HEALTHY_FPS = 5
CALM_S, WALK_S = 40, 12  # afterwards: an empty street, long enough for every incident to end, then somebody walks


class Flaky:
    """A source that has often lost the picture, or has one of another size than its luma."""

    def __init__(self, chance: np.random.Generator) -> None:
        self._chance = chance

    def crop(self, box: Box, px_max: int) -> Bgr:
        if self._chance.random() < 0.2:
            raise Transient("the picture has been recycled")
        height, width = (int(side) for side in self._chance.integers(1, 400, 2))
        return self._chance.integers(0, 256, (height, width, 3)).astype(np.uint8)


def street(x: int | None = None) -> Luma:
    """An empty street of 320 x 180, or one with a bright spot as high as a person at column `x`."""
    luma = np.full((180, 320), 90, np.uint8)
    if x is not None:
        luma[60:130, x : x + 24] = 240
    return luma


def healthy(now_ns: int) -> Iterator[Frame]:
    """The camera is well again: `CALM_S` of nothing, then somebody walks for `WALK_S`."""
    for index in range((CALM_S + WALK_S) * HEALTHY_FPS):
        walked = index - CALM_S * HEALTHY_FPS
        luma = street(4 * walked if walked >= 0 else None)
        colour = np.repeat(luma[:, :, None], 3, axis=2)
        yield Frame(FRAMES + index, now_ns + (index + 1) * NS // HEALTHY_FPS, luma, Decoded(colour))


def picture(chance: np.random.Generator, before: Luma) -> Luma:
    """Noise, black, white, a smear, half of the picture before, the same again, or nothing at all."""
    shape = [(180, 320), (181, 321), (90, 160), (8, 8), (0, 320), (1, 1), (16, 900), (600, 17)][chance.integers(8)]
    match int(chance.integers(8)):
        case 0:
            return np.zeros(shape, np.uint8)
        case 1:
            return np.full(shape, 255, np.uint8)
        case 2:  # corrupt: what a decoder makes of a lost packet
            smear = before.copy()
            smear[smear.shape[0] // 2 :] = 128
            return smear
        case 3:
            return before[::-1, ::-1]  # not contiguous
        case 4 | 5:
            return before
        case 6:
            return street(int(chance.integers(0, 280)))
    return chance.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("run", range(3))
def test_broken_frames_at_broken_times(run: int, seed: int) -> None:
    chance = np.random.default_rng([seed, run])
    ids = itertools.count(1)
    told: list[Event] = []
    inbox: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
    worker = VisionWorker(
        frames=inbox,
        settings=VisionSettings(),
        zones=[],
        place="",
        detector=FakeDetector(bright_spots(score=0.7)),
        new_id=lambda: f"id-{next(ids)}",
        report=told.extend,
        stopwatch_ns=lambda: 0,
        view=ViewWatch(
            settings=TamperSettings(confirm_s=2, clear_s=1), place="", camera="x", new_id=lambda: f"id-{next(ids)}"
        ),
    )
    worker.open()
    now_ns, luma = 5000 * NS, np.full((180, 320), 90, np.uint8)
    steps = [0, 1, NS // 60, NS // 5, 5 * NS, -NS // 5, -5 * NS, 70 * NS, -70 * NS, 86_400 * NS]
    weights = np.array([4, 2, 20, 40, 10, 4, 2, 1, 1, 0.2])
    for index in range(FRAMES):
        now_ns = max(now_ns + int(chance.choice(steps, p=weights / weights.sum())), 1)
        if chance.random() < 0.6 or luma.size == 0:
            luma = picture(chance, luma)
        inbox.put(Frame(index, now_ns, luma, Flaky(chance)))
        worker.step(now_ns / NS)
    assert worker.stats.frames == FRAMES
    before = len(told)
    for frame in healthy(now_ns):
        inbox.put(frame)
        worker.step(frame.boot_ns / NS)
    seen = [event for event in told[before:] if event.phase is Phase.STARTED and event.kind is Kind.PERSON]
    assert seen, "it did not see somebody walk through a healthy picture"
    worker.close()
    opened: dict[str, int] = {}
    for event in told:
        assert (event.phase is Phase.STARTED) == (event.incident not in opened), event
        opened[event.incident] = opened.get(event.incident, 0) + (event.phase is Phase.ENDED)
        assert event.kind is not Kind.DETECTOR
    assert set(opened.values()) == {1}
