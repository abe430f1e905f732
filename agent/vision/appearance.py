"""How something looks, in few numbers: colours of its upper and lower half. To tell apart two people who cross.

Colours are compared by the Hellinger distance of histograms, as OpenCV's HISTCMP_BHATTACHARYYA does (Comaniciu et al.,
2003). It holds for seconds in the same light, which is what a tracker needs; nobody can be recognised by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from agent.errors import Transient
from agent.vision.opencv import cv2

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from agent.types import Bgr, Box, Frame

    Look = NDArray[np.float32]  # roots of two histograms, one behind the other; each of them has length 1
else:
    Look = object

PX = 32  # a crop of this height says enough
_BINS = (4, 4, 4)  # lightness, green-red, blue-yellow


def look(picture: Bgr) -> Look | None:
    """The look of a thing that fills `picture`. Only its middle is taken: the ground is at the sides. About 0.05 ms.

    None when there are too few pixels to say anything.
    """
    height, width = picture.shape[:2]
    if height < 8 or width < 4:
        return None
    middle = picture[:, width // 5 : width - width // 5]
    lab = cv2.cvtColor(np.ascontiguousarray(middle), cv2.COLOR_BGR2LAB)
    parts = []
    for top, bottom in ((0.1, 0.5), (0.5, 0.9)):
        part = lab[int(top * height) : int(bottom * height)]
        ranges = [0, 256, 96, 160, 96, 160]  # colours of the street lie near gray
        np.clip(part[..., 1:], 96, 159, out=part[..., 1:])
        histogram = cv2.calcHist([part], [0, 1, 2], None, list(_BINS), ranges).ravel()
        parts.append(np.sqrt(histogram / max(float(histogram.sum()), 1.0)))
    return np.concatenate(parts, dtype=np.float32)


def looks(frame: Frame, boxes: Sequence[Box]) -> list[Look | None]:
    """The look of each box in `frame`; None where the picture is no longer to be had. About 0.2 ms a box."""
    found: list[Look | None] = []
    for box in boxes:
        try:
            found.append(look(frame.crop(box, px_max=PX)))
        except Transient:
            found.append(None)
    return found


def unlike(one: Look, other: Look) -> float:
    """0 for the same look, 1 for nothing in common."""
    return float(np.sqrt(max(1.0 - float(one @ other) / 2, 0.0)))


def blended(old: Look, new: Look, *, share: float = 0.2) -> Look:
    """`old` moved towards `new`: what a track remembers of its looks."""
    mixed = old * (1 - share) + new * share
    halves = mixed.reshape(2, -1)
    halves /= np.maximum(np.linalg.norm(halves, axis=1, keepdims=True), 1e-6)
    return mixed
