"""The small picture that travels with an event."""

from __future__ import annotations

from agent.types import Bgr, Box, Frame
from agent.vision.opencv import cv2

BYTES_MAX = 24 * 1024
SIDE_PX = 320
_QUALITIES = (80, 65, 50, 35)


def context(box: Box, aspect: float) -> Box:
    """The part of the picture shown around `box`: about twice its size, at least a quarter of the picture's height.

    `aspect` is the picture's width over its height.
    """
    height = min(max(box.h * 1.6, 0.25, box.w * aspect * 1.6 * 0.75), 1.0)
    width = min(max(box.w * 2.0, height / aspect), 1.0)
    x = min(max(box.x + box.w / 2 - width / 2, 0.0), 1.0 - width)
    y = min(max(box.y + box.h / 2 - height / 2, 0.0), 1.0 - height)
    return Box(x, y, width, height)


def of(frame: Frame, box: Box) -> bytes | None:
    """A JPEG of `box` and its surroundings, BYTES_MAX at most; None when the picture has no pixels.

    Blocks for a crop and an encoding, about 2 ms. Raises Transient when the picture is no longer to be had.
    """
    height, width = frame.luma.shape
    return jpeg(frame.crop(context(box.clipped(), width / max(height, 1)), px_max=SIDE_PX))


def jpeg(picture: Bgr, *, bytes_max: int = BYTES_MAX) -> bytes | None:
    """`picture` as JPEG of at most `bytes_max`: coarser first, then smaller. None when it has no pixels."""
    while picture.ndim == 3 and min(picture.shape[:2]) >= 8:
        for quality in _QUALITIES:
            done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
            if done and data.size <= bytes_max:
                return data.tobytes()
        picture = cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return None
