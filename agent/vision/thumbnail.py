"""The small picture that travels with an event."""

from __future__ import annotations

import math
from dataclasses import dataclass

from agent.errors import Transient
from agent.types import NS, Bgr, Box, Event, Frame, Phase
from agent.vision.opencv import cv2

BYTES_MAX = 24 * 1024
SIDE_PX = 320
SHOTS_MAX = 32
BETTER_BY = 1.3
SHOT_S = 1.0
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


class BestShots:
    """The best picture of each open incident, SHOTS_MAX of them (768 KiB): sent at its end, if it was not sent before.

    Only `offer` encodes anything, and only for a look that is better by BETTER_BY, once in SHOT_S: 2 ms each.
    """

    def __init__(self) -> None:
        self._shots: dict[str, _Shot] = {}

    def told(self, event: Event, picture: bytes | None) -> None:
        """`picture` has gone out with `event`: only a better one is worth sending at the end."""
        if event.phase is Phase.STARTED and len(self._shots) >= SHOTS_MAX:
            return
        worth = _worth(event.box, event.score) if picture is not None else 0.0
        self._shots[event.incident] = _Shot(worth, event.boot_ns, None)

    def offer(self, incident: str, *, box: Box, score: float, frame: Frame) -> None:
        """Shows what an open incident looks like in `frame`, whose moment `box` and `score` are of."""
        shot = self._shots.get(incident)
        worth = _worth(box, score)
        if shot is None or worth < shot.worth * BETTER_BY or frame.boot_ns - shot.boot_ns < SHOT_S * NS:
            return
        try:
            picture = of(frame, box)
        except Transient:
            return
        if picture is not None:
            self._shots[incident] = _Shot(worth, frame.boot_ns, picture)

    def take(self, incident: str) -> bytes | None:
        """The best shot that has not been sent, once; None when the best one has."""
        shot = self._shots.pop(incident, None)
        return None if shot is None else shot.picture


@dataclass(frozen=True, slots=True)
class _Shot:
    worth: float
    boot_ns: int
    picture: bytes | None  # None: sent


def _worth(box: Box | None, score: float | None) -> float:
    """Large and surely recognised; what the picture's edge cuts off is worth half."""
    if box is None:
        return 0.0
    whole = box.x > 0.005 and box.y > 0.005 and box.x2 < 0.995 and box.y2 < 0.995
    return math.sqrt(box.area) * (score or 0.1) * (1.0 if whole else 0.5)
