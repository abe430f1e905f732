"""A detector with a memory instead of a model: it finds what it was told stands in the picture, or fails on order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.errors import WardpostError
from agent.types import Detection

if TYPE_CHECKING:
    from agent.types import Bgr


class FakeDetector:
    """Passes the same contract suite as the real drivers.

    `find` looks at a picture's pixels and says what is in it, in 0..1 of that picture; by default nothing.
    """

    name = "fake: told what it sees"
    input_px = 300
    sides_px: tuple[int, ...] = (140, 204, 300)

    def __init__(self, find: Callable[[Bgr], list[Detection]] | None = None) -> None:
        self._find = find or (lambda _picture: [])
        self.open_fault: WardpostError | None = None  # raised by open() while set
        self.detect_fault: Exception | None = None  # raised by detect() while set
        self.opened = 0
        self.runs = 0

    def open(self) -> None:
        self.opened += 1
        if self.open_fault is not None:
            raise self.open_fault

    def detect(self, picture: Bgr, score_min: float, side_px: int = 0) -> list[Detection]:
        assert side_px in (0, *self.sides_px)
        self.runs += 1
        if self.detect_fault is not None:
            raise self.detect_fault
        found = [one for one in self._find(picture) if one.score >= score_min]
        return sorted(found, key=lambda one: -one.score)


def bright_spots(label: str = "person", score: float = 0.9, level: int = 200) -> Callable[[Bgr], list[Detection]]:
    """A `find` that takes the brightest block of a picture for an object: enough for walkers of the fake camera."""
    import numpy as np

    from agent.types import Box, Label

    def find(picture: Bgr) -> list[Detection]:
        blue, green, red = (picture[:, :, channel] for channel in range(3))
        mask = np.minimum(np.minimum(blue, green), red) >= level  # min(axis=2) takes ten times as long
        if int(mask.sum()) < 12:
            return []
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        height, width = mask.shape
        box = Box(
            int(columns[0]) / width,
            int(rows[0]) / height,
            (int(columns[-1]) - int(columns[0]) + 1) / width,
            (int(rows[-1]) - int(rows[0]) + 1) / height,
        )
        return [Detection(Label(label), score, box)]

    return find
