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

    def open(self) -> None:
        """Loads the model. Blocks for seconds. Raises ConfigError when the model can never work here."""

    def detect(self, picture: Bgr, score_min: float) -> list[Detection]:
        """Objects in `picture` scoring `score_min` or more, boxes in 0..1 of `picture`, best first.

        Blocks for one inference. Raises Transient when the model failed on this picture.
        """
