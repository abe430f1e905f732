"""What comes out of a model, turned into detections. Pure numpy: no interpreter, no OpenCV.

Three families are understood; `decoder_for` tells them apart by the shapes of their outputs:

- raw SSD: box encodings (1, N, 4) and class scores (1, N, C) for N anchors, C with the background first. Anchors and
  box coding are those of TensorFlow's object detection API (`ssd_anchor_generator`, `faster_rcnn_box_coder`, from its
  public source): 6 layers, scales 0.2 to 0.95, reduced lowest layer, factors 10/10/5/5, sigmoid scores - within the
  model or not, depending on how it was exported.
- SSD with `TFLite_Detection_PostProcess` built in: boxes (1, K, 4), classes (1, K), scores (1, K), count (1).
- YOLOX (Megvii): (1, N, 5 + C) for strides 8, 16, 32: centre, log size, objectness, classes; or, exported with
  `--decode_in_inference`, centre and size in pixels.

Two models of the same shapes may differ in what their numbers mean. Their answer to an empty picture tells (`settled`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from agent.errors import ConfigError
from agent.types import Box, Detection, Label
from agent.vision.detector.labels import is_background, label_of

Floats = NDArray[np.float32]

DETECTIONS_MAX = 100  # of one picture, the best
_CANDIDATES_MAX = 400  # looked at before overlaps are removed
_SMALLER_STEPS = 5  # 140 px for 300: at half its side a network still has all of its layers
_OVERLAP_MAX = 0.5  # two boxes of one label that share more (IoU) are one object


class Decoder(Protocol):
    """One family of models."""

    rgb: bool  # channel order the model was trained with; else BGR
    unit: bool  # pixels as -1..1; else 0..255
    letterbox: bool  # the picture keeps its shape in the square; else it is stretched to fill it
    family: str  # in words

    def settled(self, outputs: Sequence[Floats]) -> Decoder:
        """The decoder for a model that answers an even grey picture with `outputs`."""

    def smaller(self, side_px: int) -> Decoder | None:
        """The decoder for the same model when its square has `side_px`; None when it can have no other square."""

    def decode(self, outputs: Sequence[Floats], score_min: float) -> list[Detection]:
        """Detections with boxes in 0..1 of the model's square, best first, overlaps removed."""


def decoder_for(shapes: Sequence[tuple[int, ...]], side_px: int, names: Sequence[str], model: str) -> Decoder:
    """The decoder for a model with such outputs. Raises ConfigError when there is none, or `names` do not fit."""
    by_rank = [shape for shape in shapes if len(shape) == 3 and shape[0] == 1]
    if len(shapes) == 1 and len(by_rank) == 1 and by_rank[0][1] == _yolox_cells(side_px) and by_rank[0][2] > 5:
        return Yolox(side_px, _columns(names, by_rank[0][2] - 5, model, background=False))
    if len(shapes) == 2 and len(by_rank) == 2:
        boxes, scores = (0, 1) if shapes[0][2] == 4 else (1, 0)
        anchors = ssd_anchors(side_px)
        if shapes[boxes][2] == 4 and shapes[boxes][1] == shapes[scores][1] == len(anchors):
            columns = _columns(names, shapes[scores][2], model, background=True)
            return RawSsd(anchors, boxes, scores, columns, side_px=side_px)
    if sorted(len(shape) for shape in shapes) == [1, 2, 2, 3] and len(by_rank) == 1 and by_rank[0][2] == 4:
        return BuiltInSsd(names)
    raise ConfigError(
        f"{model}: its outputs have the shapes {list(shapes)}, which no known detector has; "
        'use an SSD (raw or with post-processing) or a YOLOX model, or driver = "none"'
    )


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of a score matrix speak for which of our labels."""

    labels: tuple[Label, ...]
    columns: tuple[tuple[int, ...], ...]

    def best(self, scores: Floats) -> Floats:
        """(N, C) scores of a model's classes -> (N, len(labels)): two classes of one label compete, not add."""
        return np.stack([scores[:, list(columns)].max(axis=1) for columns in self.columns], axis=1)


def _columns(names: Sequence[str], count: int, model: str, *, background: bool) -> Columns:
    """`names` fitted to a matrix of `count` columns, of which the first may be the background."""
    names = list(names)
    if background and len(names) == count - 1 and not is_background(names[0]):
        names = ["???", *names]
    if len(names) != count:
        raise ConfigError(
            f"{model}: tells {count} classes apart but the label map has {len(names)} names; "
            "set vision.detector.labels to the one made for this model"
        )
    found: dict[Label, list[int]] = {}
    for index, name in enumerate(names):
        label = label_of(name)
        if label is not None:
            found.setdefault(label, []).append(index)
    return Columns(tuple(found), tuple(tuple(columns) for columns in found.values()))


class RawSsd:
    """SSD without post-processing."""

    rgb = True
    unit = True
    letterbox = False

    def __init__(
        self,
        anchors: Floats,
        boxes: int,
        scores: int,
        columns: Columns,
        *,
        side_px: int,
        probabilities: bool = False,
    ) -> None:
        """`boxes` and `scores` say which output is which; `probabilities`: scores are 0..1 already, not logits.

        `side_px` is that of the square the model was trained with.
        """
        self._side_px = side_px
        self._anchors, self._boxes, self._scores, self._columns = anchors, boxes, scores, columns
        self._probabilities = probabilities
        self.family = f"SSD without post-processing, {'scores' if probabilities else 'logits'}"

    def settled(self, outputs: Sequence[Floats]) -> RawSsd:
        # Thousands of logits of things that are not there are negative; scores never are.
        scores = outputs[self._scores]
        sure = bool(scores.min() >= 0 and scores.max() <= 1)
        return self._like(self._anchors, probabilities=sure)

    def smaller(self, side_px: int) -> RawSsd | None:
        return self._like(ssd_anchors(side_px, self._side_px), probabilities=self._probabilities)

    def _like(self, anchors: Floats, *, probabilities: bool) -> RawSsd:
        return RawSsd(
            anchors, self._boxes, self._scores, self._columns, side_px=self._side_px, probabilities=probabilities
        )

    def decode(self, outputs: Sequence[Floats], score_min: float) -> list[Detection]:
        logits = self._columns.best(outputs[self._scores][0])
        cut = score_min if self._probabilities else math.log(max(score_min, 1e-6) / max(1 - score_min, 1e-6))
        rows = np.flatnonzero(logits.max(axis=1) >= cut)
        if not rows.size:
            return []
        code, anchor = outputs[self._boxes][0][rows], self._anchors[rows]
        cy = code[:, 0] / 10 * anchor[:, 2] + anchor[:, 0]
        cx = code[:, 1] / 10 * anchor[:, 3] + anchor[:, 1]
        h = np.exp(np.minimum(code[:, 2] / 5, 4)) * anchor[:, 2]
        w = np.exp(np.minimum(code[:, 3] / 5, 4)) * anchor[:, 3]
        corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
        scores = logits[rows] if self._probabilities else (1 / (1 + np.exp(-logits[rows]))).astype(np.float32)
        return pick(corners, scores, self._columns.labels, score_min)


class BuiltInSsd:
    """SSD with post-processing built in. Interpreters give its four outputs in no fixed order."""

    rgb = True
    unit = True
    letterbox = False
    family = "SSD with post-processing"

    def settled(self, outputs: Sequence[Floats]) -> BuiltInSsd:  # noqa: ARG002
        return self

    def smaller(self, side_px: int) -> None:
        """Never: the anchors are in the model."""

    def __init__(self, names: Sequence[str]) -> None:
        # Such a model counts its classes from 0 without the background, which most label maps nevertheless list.
        self._labels = [label_of(name) for name in (names[1:] if is_background(names[0]) else names)]

    def decode(self, outputs: Sequence[Floats], score_min: float) -> list[Detection]:
        boxes = next(output[0] for output in outputs if output.ndim == 3)
        count = int(next(output for output in outputs if output.ndim == 1)[0])
        lists = [output[0] for output in outputs if output.ndim == 2]
        # Classes are whole numbers, scores rarely; where both are whole the order of TensorFlow 1 decides.
        whole = [bool(np.all(values == np.round(values))) for values in lists]
        classes, scores = (lists[1], lists[0]) if whole == [False, True] else (lists[0], lists[1])
        found = []
        for row in range(min(max(count, 0), len(boxes))):
            index, score = int(classes[row]), float(scores[row])
            label = self._labels[index] if 0 <= index < len(self._labels) else None
            if label is not None and score >= score_min and np.all(np.isfinite(boxes[row])):
                top, left, bottom, right = (float(value) for value in boxes[row])
                found.append(Detection(label, min(score, 1.0), Box(left, top, right - left, bottom - top).clipped()))
        return merge_overlaps([d for d in found if d.box.area > 0])[:DETECTIONS_MAX]


class Yolox:
    """YOLOX as exported, its grid not yet decoded, or in pixels."""

    rgb = False
    unit = False
    letterbox = True

    def __init__(self, side_px: int, columns: Columns, *, pixels: bool = False) -> None:
        """`pixels`: the model has put its boxes into the picture already."""
        self._side_px, self._columns, self._pixels = side_px, columns, pixels
        self.family = f"YOLOX, {'boxes in pixels' if pixels else 'grid not decoded'}"
        grids, strides = [], []
        for stride in (8, 16, 32):
            cells = side_px // stride
            ys, xs = np.mgrid[0:cells, 0:cells]
            grids.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
            strides.append(np.full((cells * cells, 1), stride))
        self._grid = np.concatenate(grids).astype(np.float32)
        self._stride = np.concatenate(strides).astype(np.float32)

    def settled(self, outputs: Sequence[Floats]) -> Yolox:
        # Offsets within a cell are about one; centres in pixels are spread over the whole square.
        spread = float(np.median(np.abs(outputs[0][0][:, 0:2])))
        return Yolox(self._side_px, self._columns, pixels=spread > self._side_px / 8)

    def smaller(self, side_px: int) -> None:
        """Never: the model's own reshapes name the cells of one square."""

    def decode(self, outputs: Sequence[Floats], score_min: float) -> list[Detection]:
        raw = outputs[0][0]
        rows = np.flatnonzero(raw[:, 4] >= score_min)  # class scores only lower it
        if not rows.size:
            return []
        scores = raw[rows, 4:5] * self._columns.best(raw[rows, 5:])
        if self._pixels:
            centre, size = raw[rows, 0:2] / self._side_px, raw[rows, 2:4] / self._side_px
        else:
            centre = (raw[rows, 0:2] + self._grid[rows]) * self._stride[rows] / self._side_px
            size = np.exp(np.minimum(raw[rows, 2:4], 8)) * self._stride[rows] / self._side_px
        corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
        return pick(corners, scores, self._columns.labels, score_min)


def _yolox_cells(side_px: int) -> int:
    return sum((side_px // stride) ** 2 for stride in (8, 16, 32))


def ssd_sides(trained_px: int) -> tuple[int, ...]:
    """The squares in which a raw SSD sees as well as in its own, smallest first and that one last.

    Each is a multiple of 32 pixels smaller: then its layers have their edges where they had them in training. On
    vtest.avi 236 px find 96 % of the people that a crop shows, 204 95 %, 172 92 %, as 300 do (95 %), but 224 91 %, 192
    86 %, 160 80 %.
    """
    return tuple(range(trained_px - _SMALLER_STEPS * 32, trained_px + 1, 32))


def ssd_anchors(side_px: int, trained_px: int | None = None) -> Floats:
    """Anchors (N, 4) as centre y, centre x, height, width in 0..1; 1917 of them for a side of 300 px.

    A network has learned its objects in pixels: in a square smaller than `trained_px` an anchor is a larger part of it.
    """
    larger = (trained_px or side_px) / side_px
    sides = []
    cells = -(-side_px // 16)
    for _ in range(6):
        sides.append(cells)
        cells = -(-cells // 2)
    scales = [0.2 + (0.95 - 0.2) * layer / 5 for layer in range(6)] + [1.0]
    rows = []
    for layer, cells in enumerate(sides):
        if layer == 0:
            shapes = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
        else:
            shapes = [(scales[layer], ratio) for ratio in (1.0, 2.0, 0.5, 3.0, 1 / 3)]
            shapes.append(((scales[layer] * scales[layer + 1]) ** 0.5, 1.0))
        rows += [
            ((y + 0.5) / cells, (x + 0.5) / cells, scale / ratio**0.5 * larger, scale * ratio**0.5 * larger)
            for y in range(cells)
            for x in range(cells)
            for scale, ratio in shapes
        ]
    return np.array(rows, dtype=np.float32)


def pick(corners: Floats, scores: Floats, labels: Sequence[Label], score_min: float) -> list[Detection]:
    """Detections from (N, 4) corners left, top, right, bottom and (N, labels) scores, overlaps removed, best first.

    Boxes are cut to the picture; ones that are empty or not finite are dropped: a broken model must not break the node.
    """
    corners = np.clip(np.nan_to_num(corners, nan=0.0), 0.0, 1.0)
    sizes = np.maximum(corners[:, 2:] - corners[:, :2], 0.0)
    areas = sizes[:, 0] * sizes[:, 1]
    found: list[Detection] = []
    for column, label in enumerate(labels):
        score = scores[:, column]
        rows = np.flatnonzero((score >= score_min) & (areas > 1e-6))
        rows = rows[np.argsort(-score[rows], kind="stable")][:_CANDIDATES_MAX]
        while rows.size and len(found) < DETECTIONS_MAX * len(labels):
            best, rest = rows[0], rows[1:]
            left, top, right, bottom = (float(value) for value in corners[best])
            found.append(Detection(label, min(float(score[best]), 1.0), Box(left, top, right - left, bottom - top)))
            rows = rest[_iou(corners[best], corners[rest]) <= _OVERLAP_MAX]
    found.sort(key=lambda detection: -detection.score)
    return found[:DETECTIONS_MAX]


def merge_overlaps(found: Sequence[Detection]) -> list[Detection]:
    """Best first; of two boxes of one label that overlap only the better stays."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda detection: -detection.score):
        if all(one.label is not other.label or one.box.iou(other.box) <= _OVERLAP_MAX for other in kept):
            kept.append(one)
    return kept


def _iou(one: Floats, many: Floats) -> Floats:
    w = np.minimum(one[2], many[:, 2]) - np.maximum(one[0], many[:, 0])
    h = np.minimum(one[3], many[:, 3]) - np.maximum(one[1], many[:, 1])
    both = np.maximum(w, 0) * np.maximum(h, 0)
    area = (one[2] - one[0]) * (one[3] - one[1]) + (many[:, 2] - many[:, 0]) * (many[:, 3] - many[:, 1])
    shared: Floats = both / np.maximum(area - both, 1e-9)
    return shared
