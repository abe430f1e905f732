"""How good a detector is: average precision against ground truth in the form of MOT15. Pure, but for reading files.

Average precision is the area under the precision-recall curve with precision made monotonic (PASCAL VOC 2010 and
later). A find is right when it overlaps a true box that no better find has taken by `iou_min` or more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ConfigError
from agent.types import Box, Label

Truth = Mapping[int, Sequence[Box]]  # by frame, from 1
Found = Mapping[int, Sequence[tuple[float, Box]]]  # score and box by frame; frames not in it are not judged


@dataclass(frozen=True, slots=True)
class Quality:
    """How good the finds are."""

    ap: float  # 0..1
    precision: float  # at the score with the best F1
    recall: float
    score: float  # that score
    true: int  # boxes there were to find
    frames: int  # judged


def read_mot(path: Path, *, width: int, height: int) -> dict[int, list[Box]]:
    """Boxes by frame from a MOT15 ground truth file: `frame,id,left,top,width,height,confidence,...` in pixels.

    Lines with confidence 0 are not to be judged, by the format's own rule. Raises ConfigError naming the line.
    """
    truth: dict[int, list[Box]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            frame, _, left, top, wide, high, sure = (float(part) for part in line.split(",")[:7])
        except ValueError:
            raise ConfigError(f"{path}:{number}: not a line of MOT15 ground truth: {line[:60]!r}") from None
        if sure:
            truth.setdefault(int(frame), []).append(Box(left / width, top / height, wide / width, high / height))
    return truth


def read_found(path: Path, label: Label) -> dict[int, list[tuple[float, Box]]]:
    """What replay's `--detections` wrote, of one label. Raises ConfigError naming the line."""
    found: dict[int, list[tuple[float, Box]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            found[int(row["frame"])] = [
                (float(one["score"]), Box(*(float(value) for value in one["box"])))
                for one in row["detections"]
                if one["label"] == label
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}:{number}: not a line of detections: {error}") from None
    return found


def judge(truth: Truth, found: Found, *, iou_min: float = 0.5) -> Quality:
    """Judges the frames in `found`. Without a true box in them, `ap` is 0."""
    total = sum(len(truth.get(frame, ())) for frame in found)
    free = {frame: list(truth.get(frame, ())) for frame in found}
    ranked = sorted(
        ((score, frame, box) for frame, finds in found.items() for score, box in finds), key=lambda f: -f[0]
    )
    curve: list[tuple[float, float, float]] = []  # recall, precision, score
    right = 0
    for rank, (score, frame, box) in enumerate(ranked, 1):
        best = max(free[frame], key=box.iou, default=None)
        if best is not None and box.iou(best) >= iou_min:
            free[frame].remove(best)
            right += 1
        curve.append((right / total if total else 0.0, right / rank, score))
    area, ceiling, recall_above = 0.0, 0.0, curve[-1][0] if curve else 0.0
    for index in range(len(curve) - 1, -1, -1):
        ceiling = max(ceiling, curve[index][1])
        recall_below = curve[index - 1][0] if index else 0.0
        area += (recall_above - recall_below) * ceiling
        recall_above = recall_below
    recall, precision, score = max(
        curve, key=lambda c: 2 * c[0] * c[1] / (c[0] + c[1]) if c[0] else 0.0, default=(0.0, 0.0, 0.0)
    )
    return Quality(area, precision, recall, score, total, len(found))
