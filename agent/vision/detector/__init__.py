"""The Detector protocol: which objects are in a picture."""

from __future__ import annotations

from typing import Protocol

from agent.types import Bgr, Detection


class Detector(Protocol):
    """One model. Called from the vision worker's thread only (two inference threads spin on a Pi)."""

    name: str  # driver and model, for the heartbeat
    # Side of the square that the model sees: crops much larger than this lose small objects. Final after `open`.
    # 0 means that it looks at nothing, and need not be given crops.
    input_px: int
    # Squares that it can look at, smallest first and `input_px` last: a smaller one costs less, by its area. An
    # object must be as many pixels large in it as ever: a small square shows a smaller part of the world.
    sides_px: tuple[int, ...]

    def open(self) -> None:
        """Loads the model. Blocks for seconds. Raises ConfigError when the model can never work here."""

    def detect(self, picture: Bgr, score_min: float, side_px: int = 0) -> list[Detection]:
        """Objects in `picture` scoring `score_min` or more, boxes in 0..1 of `picture`, best first.

        `side_px` is one of `sides_px`; 0: the largest.
        Blocks for one inference. Raises Transient when the model failed on this picture.
        """
