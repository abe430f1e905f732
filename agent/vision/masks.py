"""Ignore masks: parts of the picture that are recorded, but not looked at. (A privacy mask is never recorded.)

What moves in one opens no gate, and whoever stands in one (the foot of the box, as with zones) is not detected. A
person outside one is seen even where a mask covers the body: a mask over a poster or a road hides nobody before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.types import Box, Luma
from agent.vision.geometry import Polygon, contains
from agent.vision.opencv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GRAY = 128


class IgnoreMasks:
    """The ignore masks of one camera. One thread."""

    def __init__(self, polygons: Sequence[Polygon]) -> None:
        self._polygons = tuple(tuple(polygon) for polygon in polygons)
        self._raster: NDArray[np.bool_] | None = None

    def still(self, luma: Luma) -> Luma:
        """`luma` with everything under a mask at one gray, so that nothing moves there. A copy, if there is a mask."""
        if not self._polygons or luma.ndim != 2 or not luma.size:
            return luma
        if self._raster is None or self._raster.shape != luma.shape:
            self._raster = self._drawn(*luma.shape)
        return np.where(self._raster, np.uint8(_GRAY), luma)

    def hide(self, box: Box) -> bool:
        """Whether what is in `box` stands in a mask."""
        x, y = (min(max(value, 1e-6), 1 - 1e-6) for value in box.foot)
        return any(contains(polygon, x, y) for polygon in self._polygons)

    def _drawn(self, height: int, width: int) -> NDArray[np.bool_]:
        canvas = np.zeros((height, width), np.uint8)
        for polygon in self._polygons:
            corners = np.rint(np.array([(x * (width - 1), y * (height - 1)) for x, y in polygon])).astype(np.int32)
            cv2.fillPoly(canvas, [corners.reshape(-1, 1, 2)], 255)
        return canvas > 0
