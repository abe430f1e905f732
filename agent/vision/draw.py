"""What the node saw, drawn onto the picture: for the demo, for replay and for whoever doubts an alert."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.types import Bgr, Box, Detection, Label
from agent.vision.opencv import cv2
from agent.vision.tracker import Track

Colour = tuple[int, int, int]  # blue, green, red

_COLOURS: dict[Label, Colour] = {
    Label.PERSON: (60, 60, 235),
    Label.VEHICLE: (235, 150, 40),
    Label.BICYCLE: (40, 190, 240),
    Label.ANIMAL: (90, 200, 90),
}
_ZONE: Colour = (200, 200, 60)
_MOTION: Colour = (190, 190, 190)
_INK: Colour = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def annotated(
    picture: Bgr,
    *,
    tracks: Sequence[Track] = (),
    detections: Sequence[Detection] = (),
    motion: Sequence[Box] = (),
    zones: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    caption: str = "",
) -> Bgr:
    """A copy of `picture` with zones, motion, detections, tracks with their paths, and `caption` on a line below.

    A confirmed track has a thick frame, an unconfirmed one a thin one. Text is ASCII: OpenCV's fonts have no more.
    """
    height, width = picture.shape[:2]
    out = picture.copy()
    scale = max(height, 200) / 720
    thin, thick = max(round(scale), 1), max(round(3 * scale), 2)
    for name, polygon in zones:
        points = np.array([(x * width, y * height) for x, y in polygon], np.int32)
        cv2.polylines(out, [points], isClosed=True, color=_ZONE, thickness=thin, lineType=cv2.LINE_AA)
        _text(out, name, int(points[:, 0].min()) + 4, int(points[:, 1].min()) + round(24 * scale), scale, _ZONE)
    for box in motion:
        _frame(out, box, _MOTION, thin)
    for one in detections:
        _frame(out, one.box, _COLOURS[one.label], thin)
    for track in tracks:
        colour = _COLOURS[track.label]
        if len(track.path) > 1:
            path = np.array([(x * width, y * height) for x, y in track.path], np.int32)
            cv2.polylines(out, [path], isClosed=False, color=colour, thickness=thin, lineType=cv2.LINE_AA)
        x, y = _frame(out, track.box, colour, thick if track.confirmed else thin)
        if track.confirmed:
            _text(out, f"{track.label} {track.score:.0%}", x, y, scale, colour)
    if not caption:
        return out
    bar = max(round(34 * scale), 18)
    below = np.full((bar, width, 3), 24, np.uint8)
    _text(below, caption, 8, bar - round(10 * scale), scale, None)
    joined: Bgr = np.concatenate([out, below])
    return joined


def _frame(picture: Bgr, box: Box, colour: Colour, thickness: int) -> tuple[int, int]:
    height, width = picture.shape[:2]
    left, top = round(box.x * width), round(box.y * height)
    cv2.rectangle(picture, (left, top), (round(box.x2 * width), round(box.y2 * height)), colour, thickness, cv2.LINE_AA)
    return left, top


def _text(picture: Bgr, text: str, x: int, y: int, scale: float, ground: Colour | None) -> None:
    """`text` with its lower left corner at (x, y), kept inside the picture, on a ground of its own."""
    plain = text.encode("ascii", "replace").decode()
    size = max(0.62 * scale, 0.35)
    (wide, high), below = cv2.getTextSize(plain, _FONT, size, 1)
    x = min(max(x, 0), max(picture.shape[1] - wide - 2, 0))
    y = min(max(y, high + below), picture.shape[0] - 1)
    if ground is not None:
        cv2.rectangle(picture, (x, y - high - below), (x + wide, y), ground, cv2.FILLED)
    ink = _INK if ground is None or sum(ground) < 500 else (0, 0, 0)
    cv2.putText(picture, plain, (x, y - below // 2), _FONT, size, ink, 1, cv2.LINE_AA)
