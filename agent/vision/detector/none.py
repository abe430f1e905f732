"""No detector: the node lives by motion alone, and says so."""

from __future__ import annotations

from agent.types import Bgr, Detection


class NoDetector:
    """Finds nothing. An input of 0 pixels tells the worker not to spend a crop on it."""

    name = "none: motion only"
    input_px = 0
    sides_px: tuple[int, ...] = ()

    def open(self) -> None:
        """Nothing to load."""

    def detect(self, picture: Bgr, score_min: float, side_px: int = 0) -> list[Detection]:  # noqa: ARG002
        """Always nothing."""
        return []
