"""How good the node's eyes are, against ground truth in the form of MOT15. Pure, but for reading files.

Of the detector alone: average precision, and precision and recall at a threshold. Of the whole of vision: visits that
were found, how late, and alerts about nobody.

Average precision is the area under the precision-recall curve with precision made monotonic (PASCAL VOC 2010 and
later). A find is right when it overlaps a true box that no better find has taken by `iou_min` or more.
"""

from __future__ import annotations

import json
import math
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


@dataclass(frozen=True, slots=True)
class Visit:
    """One person's stay in view, while large enough to be asked for."""

    who: int  # the id in the ground truth
    start_s: float
    end_s: float
    boxes: Mapping[int, Box]  # by frame


@dataclass(frozen=True, slots=True)
class Sight:
    """A person claimed at a moment: by a confirmed track, or by an alert."""

    frame: int
    at_s: float
    box: Box


@dataclass(frozen=True, slots=True)
class Encounters:
    """How visits and alerts met."""

    visits: int
    found: int  # a confirmed track was on the visitor
    alerted: int  # and an alert was told that showed this visitor
    onset_s: tuple[float, ...]  # of those found: from the start of the visit to the first confirmed track, sorted
    alerts: int
    false_alerts: int  # that showed nobody
    hours: float

    @property
    def recall(self) -> float:
        """Visits found, 0..1; 1 where there was nobody to find."""
        return self.found / self.visits if self.visits else 1.0

    @property
    def precision(self) -> float:
        """Alerts that showed somebody, 0..1; 1 where there was no alert."""
        return 1 - self.false_alerts / self.alerts if self.alerts else 1.0

    @property
    def false_per_h(self) -> float:
        """False alerts per hour of footage."""
        return self.false_alerts / self.hours if self.hours else 0.0

    def onset(self, share: float) -> float | None:
        """The onset that `share` (0..1) of the found visits do not exceed, by nearest rank; None without any."""
        if not self.onset_s:
            return None
        return self.onset_s[max(math.ceil(share * len(self.onset_s)) - 1, 0)]


def read_mot(path: Path, *, width: int, height: int) -> dict[int, list[Box]]:
    """Boxes by frame from a MOT15 ground truth file: `frame,id,left,top,width,height,confidence,...` in pixels.

    Lines with confidence 0 are not to be judged, by the format's own rule. Raises ConfigError naming the line.
    """
    truth: dict[int, list[Box]] = {}
    for boxes in read_tracks(path, width=width, height=height).values():
        for frame, box in boxes.items():
            truth.setdefault(frame, []).append(box)
    return truth


def read_tracks(path: Path, *, width: int, height: int) -> dict[int, dict[int, Box]]:
    """As `read_mot`, but each person's boxes by frame, by the person's id. Raises ConfigError naming the line."""
    tracks: dict[int, dict[int, Box]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the ground truth cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            frame, who, left, top, wide, high, sure = (float(part) for part in line.split(",")[:7])
            if not all(math.isfinite(value) for value in (frame, who, left, top, wide, high, sure)):
                raise ValueError  # noqa: TRY301  (one answer for every line that is none)
            if frame < 1 or frame % 1 or wide <= 0 or high <= 0:  # frames count from 1
                raise ValueError  # noqa: TRY301
        except ValueError:
            raise ConfigError(f"{path}:{number}: not a line of MOT15 ground truth: {line[:60]!r}") from None
        if sure:
            box = Box(left / width, top / height, wide / width, high / height)
            tracks.setdefault(int(who), {})[int(frame)] = box
    return tracks


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


def at_threshold(truth: Truth, found: Found, score_min: float, *, iou_min: float = 0.5) -> tuple[float, float]:
    """Precision and recall of the finds of `score_min` or more. 1 where there is nothing to be wrong about."""
    kept = {frame: [find for find in finds if find[0] >= score_min] for frame, finds in found.items()}
    claimed = sum(len(finds) for finds in kept.values())
    total = sum(len(truth.get(frame, ())) for frame in found)
    right = 0
    for frame, finds in kept.items():
        free = list(truth.get(frame, ()))
        for _, box in sorted(finds, key=lambda find: -find[0]):
            best = max(free, key=box.iou, default=None)
            if best is not None and box.iou(best) >= iou_min:
                free.remove(best)
                right += 1
    return (right / claimed if claimed else 1.0), (right / total if total else 1.0)


def visits(
    tracks: Mapping[int, Mapping[int, Box]],
    times_s: Mapping[int, float],
    *,
    height_min: float = 1 / 8,
    inside_min: float = 0.5,
    gap_s: float = 3.0,
    stay_s_min: float = 1.0,
) -> list[Visit]:
    """Stays in view: boxes of `height_min` of the picture or more, of which `inside_min` lies in it.

    Away for more than `gap_s` makes two visits of one; a stay under `stay_s_min` is none. `times_s` says when each
    frame was; frames without a time are not judged.
    """
    found = []
    for who, boxes in tracks.items():
        asked = [
            (times_s[frame], frame)
            for frame, box in sorted(boxes.items())
            if frame in times_s and box.h >= height_min and box.clipped().area >= inside_min * box.area
        ]
        stay: list[tuple[float, int]] = []
        for at in [*asked, (math.inf, 0)]:
            if stay and at[0] - stay[-1][0] > gap_s:
                if stay[-1][0] - stay[0][0] >= stay_s_min:
                    start_s, end_s = stay[0][0], stay[-1][0]
                    during = {f: box for f, box in boxes.items() if f in times_s and start_s <= times_s[f] <= end_s}
                    found.append(Visit(who, start_s, end_s, during))
                stay = []
            stay.append(at)
    return sorted(found, key=lambda visit: (visit.start_s, visit.who))


def meet(
    stays: Sequence[Visit],
    everybody: Truth,
    *,
    sights: Sequence[Sight],
    alerts: Sequence[Sight],
    updates: Sequence[Sight] = (),
    hours: float,
    iou_min: float = 0.3,
) -> Encounters:
    """Holds what was claimed against who was there.

    `sights`: confirmed tracks, picture by picture. `alerts`: incidents as they started, `updates`: as they went on. An
    alert is false when it overlaps nobody of `everybody` (small and half hidden ones included) by `iou_min` or more.
    """
    onset_s, alerted = [], 0
    for visit in stays:
        on = [one.at_s for one in sights if one.frame in visit.boxes and one.box.iou(visit.boxes[one.frame]) >= iou_min]
        if on:
            onset_s.append(round(max(min(on) - visit.start_s, 0.0), 3))
        alerted += any(
            one.frame in visit.boxes and one.box.iou(visit.boxes[one.frame]) >= iou_min for one in (*alerts, *updates)
        )
    false = sum(all(one.box.iou(box) < iou_min for box in everybody.get(one.frame, ())) for one in alerts)
    return Encounters(len(stays), len(onset_s), alerted, tuple(sorted(onset_s)), len(alerts), false, hours)
