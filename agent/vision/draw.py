"""What the node saw, drawn onto the picture: for the demo, for replay and for whoever doubts an alert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.types import Bgr, Box, Detection, Label
from agent.vision.opencv import cv2
from agent.vision.tracker import Track

Colour = tuple[int, int, int]  # blue, green, red
Points = Sequence[tuple[float, float]]

_COLOURS: dict[Label, Colour] = {
    Label.PERSON: (60, 60, 235),
    Label.VEHICLE: (235, 150, 40),
    Label.BICYCLE: (40, 190, 240),
    Label.ANIMAL: (90, 200, 90),
}
_ZONE: Colour = (200, 200, 60)
_IGNORE: Colour = (210, 130, 170)
_MOTION: Colour = (190, 190, 190)
_MARK: Colour = (40, 40, 40)
_INK: Colour = (255, 255, 255)
_GROUND = 24  # gray of the lines below the picture
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT_MIN = 0.5  # letters of 9 pixels: below this they run together


@dataclass(frozen=True, slots=True)
class Mark:
    """A numbered spot: where something of the list below the picture happened."""

    number: int
    at: tuple[float, float]
    label: Label | None


def annotated(  # noqa: C901  (a list of things to draw, in order)
    picture: Bgr,
    *,
    tracks: Sequence[Track] = (),
    detections: Sequence[Detection] = (),
    motion: Sequence[Box] = (),
    zones: Sequence[tuple[str, Points]] = (),
    lines: Sequence[tuple[str, Points]] = (),
    ignored: Sequence[Points] = (),
    marks: Sequence[Mark] = (),
    caption: str = "",
    ids: bool = False,
) -> Bgr:
    """A copy of `picture` with zones, lines, masks, motion, detections, tracks with their paths, marks and `caption`.

    A confirmed track has a thick frame, an unconfirmed one a thin one. `ids`: with the number of each track, and the
    score of each detection that no confirmed track stands for. The caption stands on a line below. Text is ASCII:
    OpenCV's fonts have no more.
    """
    height, width = picture.shape[:2]
    out = picture.copy()
    scale = max(height, 200) / 720
    thin, thick = max(round(scale), 1), max(round(3 * scale), 2)
    for mask in ignored:
        _hatched(out, mask, thin)
    for name, polygon in zones:
        points = _pixels(polygon, width, height)
        cv2.polylines(out, [points], isClosed=True, color=_ZONE, thickness=thin, lineType=cv2.LINE_AA)
        _text(out, name, int(points[:, 0].min()) + 4, int(points[:, 1].min()) + round(24 * scale), scale, _ZONE)
    for name, ends in lines:
        points = _pixels(ends, width, height)
        start, end = ((int(x), int(y)) for x, y in (points[0], points[-1]))
        cv2.arrowedLine(out, start, end, _ZONE, thick, cv2.LINE_AA, tipLength=0.05)
        _text(out, name, *start, scale, _ZONE)
    for box in motion:
        _frame(out, box, _MOTION, thin)
    sure = [track.box for track in tracks if track.confirmed]
    for one in detections:
        x, y = _frame(out, one.box, _COLOURS[one.label], thin)
        if ids and not any(one.box.iou(box) > 0.5 for box in sure):
            _text(out, f"{one.label} {one.score:.0%}?", x, y, scale * 0.8, _MARK)
    for track in tracks:
        colour = _COLOURS[track.label]
        if len(track.path) > 1:
            path = _pixels(track.path, width, height)
            cv2.polylines(out, [path], isClosed=False, color=colour, thickness=thin, lineType=cv2.LINE_AA)
        x, y = _frame(out, track.box, colour, thick if track.confirmed else thin)
        if track.confirmed:
            # In a crowd long texts hide each other; a person is known by the colour.
            name = "" if ids and track.label is Label.PERSON else f"{track.label} "
            who = f"#{track.id} {name}" if ids else name
            _text(out, f"{who}{track.score:.0%}", x, y, scale * 0.85 if ids else scale, colour)
    for mark in marks:
        _marked(out, mark, scale)
    return listed(out, [caption]) if caption else out


def listed(picture: Bgr, lines: Sequence[str], *, rows: int = 0) -> Bgr:
    """`picture` with `lines` of text below it; `rows`: room for so many, whatever there is (frames of a film)."""
    height, width = picture.shape[:2]
    scale = max(height, 200) / 720
    row = max(round(34 * scale), 18)
    below = np.full((row * max(len(lines), rows), width, 3), _GROUND, np.uint8)
    for index, line in enumerate(lines):
        _text(below, line, 8, row * (index + 1) - max(round(8 * scale), 4), scale, None)
    joined: Bgr = np.concatenate([picture, below])
    return joined


def _pixels(points: Points, width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    return np.array([(x * width, y * height) for x, y in points], np.int32)


def _hatched(picture: Bgr, mask: Points, thickness: int) -> None:
    """An ignore mask: its outline, and stripes over what is not looked at."""
    height, width = picture.shape[:2]
    points = _pixels(mask, width, height)
    stencil = np.zeros((height, width), np.uint8)
    cv2.fillPoly(stencil, [points], 255)
    rows, columns = np.indices((height, width), np.int32)
    stripes = (stencil > 0) & ((rows + columns) % max(height // 45, 8) < max(height // 180, 2))
    picture[stripes] = _IGNORE
    cv2.polylines(picture, [points], isClosed=True, color=_IGNORE, thickness=thickness, lineType=cv2.LINE_AA)


def _marked(picture: Bgr, mark: Mark, scale: float) -> None:
    height, width = picture.shape[:2]
    radius = max(round(13 * scale), 8)
    x = min(max(round(mark.at[0] * width), radius), max(width - radius, radius))
    y = min(max(round(mark.at[1] * height), radius), max(height - radius, radius))
    colour = _MARK if mark.label is None else _COLOURS[mark.label]
    cv2.circle(picture, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA)
    cv2.circle(picture, (x, y), radius, _INK, max(round(scale), 1), cv2.LINE_AA)
    size = max(0.5 * scale, 0.36)
    (wide, high), _ = cv2.getTextSize(str(mark.number), _FONT, size, 1)
    cv2.putText(picture, str(mark.number), (x - wide // 2, y + high // 2), _FONT, size, _INK, 1, cv2.LINE_AA)


def _frame(picture: Bgr, box: Box, colour: Colour, thickness: int) -> tuple[int, int]:
    height, width = picture.shape[:2]
    left, top = round(box.x * width), round(box.y * height)
    cv2.rectangle(picture, (left, top), (round(box.x2 * width), round(box.y2 * height)), colour, thickness, cv2.LINE_AA)
    return left, top


def _text(picture: Bgr, text: str, x: int, y: int, scale: float, ground: Colour | None) -> None:
    """`text` with its lower left corner at (x, y), kept inside the picture, on a ground of its own if there is one."""
    plain = text.encode("ascii", "replace").decode()
    size = max(0.62 * scale, _TEXT_MIN)
    weight = 2 if size > 1 else 1
    (wide, high), below = cv2.getTextSize(plain, _FONT, size, weight)
    x = min(max(x, 0), max(picture.shape[1] - wide - 2, 0))
    y = min(max(y, high + below), picture.shape[0] - 1)
    if ground is not None:
        cv2.rectangle(picture, (x, y - high - below), (x + wide, y), ground, cv2.FILLED)
    ink = _INK if ground is None or sum(ground) < 500 else (0, 0, 0)
    cv2.putText(picture, plain, (x, y - below // 2), _FONT, size, ink, weight, cv2.LINE_AA)
