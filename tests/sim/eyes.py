"""A detector that really looks: it finds the bright boxes that the fake camera draws, in the pixels it is given."""

from __future__ import annotations

import numpy as np

from agent.errors import Transient
from agent.types import Bgr, Box, Detection, Label

BRIGHT = 205  # the walkers are painted at 220, the ground stays below 200


class BrightEyes:
    """`agent.vision.detector.Detector`. `sick` makes it fail as a model does that lost its memory."""

    name = "bright-eyes"
    input_px = 96

    def __init__(self, *, label: Label = Label.PERSON, score: float = 0.8) -> None:
        self._label = label
        self._score = score
        self.sick = False

    def open(self) -> None:
        if self.sick:
            raise Transient("bright-eyes: out of memory (fake)")

    def detect(self, picture: Bgr, score_min: float) -> list[Detection]:
        if self.sick:
            raise Transient("bright-eyes: the interpreter failed (fake)")
        bright = picture.mean(axis=2) > BRIGHT
        if self._score < score_min or bright.sum() < 12:
            return []
        rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
        height, width = bright.shape
        top, left = int(rows[0]), int(columns[0])
        box = Box(left / width, top / height, (int(columns[-1]) + 1 - left) / width, (int(rows[-1]) + 1 - top) / height)
        return [Detection(self._label, self._score, box)]
