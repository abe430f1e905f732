"""The whole of vision with the real model on real footage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from agent.assets import Assets
from agent.types import NS, Box, Detection, Frame, Kind, Label, Phase
from agent.vision import evaluate
from agent.vision.opencv import cv2
from agent.vision.tracker import Track
from tests.fakes.watching import started, watch
from tests.fakes.weather import Decoded

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="evaluation data is not on this machine")


def read(path: Path, *, fps: float | None, frames_max: int, every: int = 1) -> Iterator[Frame]:
    """Frames of a file at `fps` (or every one), luma 320 wide."""
    next_s = 0.0
    with av.open(str(path)) as container:
        for index, frame in enumerate(itertools.islice(container.decode(video=0), frames_max), 1):
            at_s = float(frame.time or 0)
            if (fps and at_s < next_s - 1e-6) or index % every:
                continue
            next_s += 1 / fps if fps else 0
            bgr = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
            gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
            luma = cv2.resize(gray, (320, round(320 * bgr.shape[0] / bgr.shape[1])), interpolation=cv2.INTER_AREA)
            yield Frame(index, round((1 + at_s) * NS), np.asarray(luma, np.uint8), Decoded(bgr))


def test_a_street_with_people_and_bicycles_is_seen_told_with_pictures_and_ends(assets: Assets) -> None:
    bicycles: list[float] = []

    def seen(_frame: Frame, _motion: list[Box], found: list[Detection], _tracks: Sequence[Track]) -> None:
        bicycles.extend(one.score for one in found if one.label is Label.BICYCLE)

    told, stats = watch(read(assets.footage(), fps=5, frames_max=250), assets, seen=seen)
    assert started(told, Kind.PERSON) >= 1
    assert started(told, Kind.VEHICLE) >= 2
    # The film is cut: no bicycle stays for longer than a second, which is told or not by a hair's breadth.
    assert sum(score > 0.5 for score in bicycles) >= 3
    assert len(told) <= 60
    assert stats.frames == 50 and 0 < stats.detector_runs <= 150
    for event in told:
        if event.phase is Phase.STARTED and event.box is not None:
            assert event.thumbnail is not None and len(event.thumbnail) <= 24 * 1024
    opened = [event.incident for event in told if event.phase is Phase.STARTED]
    ended = [event.incident for event in told if event.phase is Phase.ENDED]
    assert sorted(opened) == sorted(ended) and len(set(opened)) == len(opened)


def test_noise_and_drifting_blobs_are_no_person(assets: Assets) -> None:
    rng = np.random.default_rng(11)
    ground = cv2.GaussianBlur(rng.integers(60, 180, (360, 640, 3), dtype=np.uint8), (0, 0), 5)

    def scene() -> Iterator[Frame]:
        for index in range(60):
            picture = np.asarray(ground, dtype=np.int16) + rng.normal(0, 4, ground.shape)
            if index >= 15:
                x = 40 + 9 * (index - 15)
                picture[200:260, x : x + 70] = (40, 120, 60)  # a green block slides by
            bgr = np.asarray(picture.clip(0, 255), np.uint8)
            gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
            luma = np.asarray(cv2.resize(gray, (320, 180), interpolation=cv2.INTER_AREA), np.uint8)
            yield Frame(index + 1, (1 + index) * NS // 5, luma, Decoded(bgr))

    told, stats = watch(scene(), assets)
    assert started(told, Kind.PERSON) == 0
    assert started(told, Kind.MOTION) == 1
    assert 0 < stats.detector_runs < 60


@needs_data
def test_people_on_the_square_are_found_as_well_as_promised(assets: Assets) -> None:
    found: dict[int, list[tuple[float, Box]]] = {}

    def seen(frame: Frame, _motion: list[Box], detections: list[Detection], _tracks: Sequence[Track]) -> None:
        found[frame.seq] = [(one.score, one.box) for one in detections if one.label is Label.PERSON]

    watch(read(DATA / "vtest.avi", fps=None, frames_max=795, every=40), assets, seen=seen, every_frame=True)
    truth = evaluate.read_mot(DATA / "vtest.gt.txt", width=768, height=576)
    assert evaluate.judge(truth, found).ap > 0.82


@needs_data
def test_eight_people_in_twenty_seconds_are_all_found_and_not_told_as_fifty(assets: Assets) -> None:
    told, stats = watch(read(DATA / "vtest.avi", fps=5, frames_max=200), assets)
    assert 8 <= started(told, Kind.PERSON) <= 24
    assert stats.detector_runs < 3 * stats.frames


@needs_data
@pytest.mark.parametrize("clip", ["dvrscan_traffic_camera.mp4", "intel_car-detection.mp4"])
def test_roads_without_people_raise_no_alarm(assets: Assets, clip: str) -> None:
    told, _ = watch(read(DATA / clip, fps=5, frames_max=300), assets)
    assert started(told, Kind.PERSON) == 0
    assert started(told, Kind.VEHICLE) >= 2
