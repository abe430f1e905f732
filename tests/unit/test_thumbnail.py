"""Thumbnails: small enough to travel, whatever is in the picture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.types import NS, Box, Event, Frame, Kind, Phase, Priority
from agent.vision import thumbnail
from agent.vision.opencv import cv2

if TYPE_CHECKING:
    from agent.types import Bgr


class Picture:
    """A source of one picture."""

    def __init__(self, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        self.pixels = pixels
        self.asked: list[tuple[Box, int]] = []

    def crop(self, box: Box, px_max: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        self.asked.append((box, px_max))
        height, width = self.pixels.shape[:2]
        part = self.pixels[int(box.y * height) : int(box.y2 * height), int(box.x * width) : int(box.x2 * width)]
        scale = px_max / max(part.shape[:2])
        return cv2.resize(part, None, fx=scale, fy=scale) if scale < 1 else part  # type: ignore[return-value]


def frame(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> tuple[Frame, Picture]:
    source = Picture(pixels)
    return Frame(1, 0, np.zeros((180, 320), np.uint8), source), source


@pytest.mark.parametrize(
    "box", [Box(0.4, 0.4, 0.05, 0.2), Box(0, 0, 1, 1), Box(0.99, 0.99, 0.01, 0.01), Box(-0.1, 0.5, 0.4, 2)]
)
def test_the_worst_picture_still_fits(box: Box) -> None:
    noise = np.random.default_rng(5).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    one, source = frame(noise)
    data = thumbnail.of(one, box)
    assert data is not None and data[:2] == b"\xff\xd8" and len(data) <= thumbnail.BYTES_MAX
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None and max(decoded.shape) <= thumbnail.SIDE_PX
    ((asked, _),) = source.asked
    assert asked.x >= 0 and asked.y >= 0 and asked.x2 <= 1 + 1e-9 and asked.y2 <= 1 + 1e-9


def test_the_context_holds_the_box_and_some_of_its_surroundings() -> None:
    box = Box(0.4, 0.3, 0.05, 0.3)
    around = thumbnail.context(box, 16 / 9)
    assert around.x < box.x and around.y < box.y and around.x2 > box.x2 and around.y2 > box.y2
    assert around.area < 12 * box.area


def test_a_picture_without_pixels_has_no_thumbnail() -> None:
    assert thumbnail.jpeg(np.zeros((0, 0, 3), np.uint8)) is None


def picture_frame(seq: int, boot_ns: int) -> Frame:
    rng = np.random.default_rng(seq)
    bgr = rng.integers(0, 255, (180, 320, 3), dtype=np.uint8)

    class Source:
        def crop(self, box: Box, px_max: int) -> Bgr:
            return bgr

    return Frame(seq, boot_ns, np.zeros((180, 320), np.uint8), Source())


def an_event(phase: Phase, box: Box, boot_ns: int) -> Event:
    return Event("one", Kind.PERSON, phase, boot_ns, Priority.ALERT, score=0.5, box=box)


def test_the_best_shot_of_a_visit_goes_out_at_its_end_unless_it_has_been_sent() -> None:
    far, near = Box(0.4, 0.4, 0.05, 0.1), Box(0.3, 0.2, 0.2, 0.6)
    shots = thumbnail.BestShots()
    shots.told(an_event(Phase.STARTED, far, NS), b"far")
    assert shots.take("one") is None  # nothing better has come
    shots.told(an_event(Phase.STARTED, far, NS), b"far")
    shots.offer("one", box=near, score=0.8, frame=picture_frame(1, 3 * NS))
    shots.offer("one", box=far, score=0.8, frame=picture_frame(2, 5 * NS))
    best = shots.take("one")
    assert best is not None and best == thumbnail.of(picture_frame(1, 3 * NS), near)
    assert shots.take("one") is None


def test_best_shots_are_bounded_and_a_stranger_has_none() -> None:
    shots = thumbnail.BestShots()
    for number in range(100):
        shots.told(dataclasses.replace(an_event(Phase.STARTED, Box(0, 0, 0.1, 0.1), NS), incident=f"id-{number}"), b"x")
    assert len(shots._shots) == thumbnail.SHOTS_MAX
    shots.offer("nobody", box=Box(0, 0, 0.5, 0.5), score=1.0, frame=picture_frame(1, 9 * NS))
    assert shots.take("nobody") is None
