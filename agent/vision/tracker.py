"""From detections in single pictures to things that stay the same thing. Pure: detections and times in, tracks out.

Each track predicts where it is by constant velocity that dies away; detections are given to tracks greedily, cheapest
pair first (for the handful of objects before a guard post an optimal assignment differs only where both are guesses).
Weak detections may continue a track but not begin one, as in ByteTrack (Zhang et al., 2022).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.types import MS, NS, Box, Detection, Label

TRACKS_MAX = 32
SURE = 0.75  # one look at this score confirms: a person running past is seen clearly once
_PATH_POINTS_MAX = 48
_TENTATIVE_MISSES_MAX = 3
_GONE_LOOKS_MIN = 2  # a track is gone only after this many vain looks, however long the pictures are apart
_COAST_S = 1.4  # velocity dies away with this time constant when unseen
_MOVED_SHARE = 0.2  # of a track's box moving now: it may be alive
_WENT_SIZES = 0.25  # gone so far from where it was first seen, in its own sizes: it is alive
_FIDGETS = 3  # times as many moving looks confirm what stays in its place; a bollard somebody walks past has fewer


@dataclass(frozen=True, slots=True)
class Track:
    """One thing as known after one picture. Later pictures give later Tracks with the same id."""

    id: int  # counts from 1, never used again
    label: Label  # by vote, weighted by score
    score: float  # the best so far for this label
    box: Box  # where it was seen last, or by prediction is now
    first_ns: int
    last_ns: int  # last seen
    confirmed: bool
    moved: bool  # seen moving at least once; what never moved is furniture, and starts nothing
    missed: int  # looks in a row that did not find it; 0: seen at its last look
    hits: int
    path: tuple[tuple[float, float], ...] = ()  # foot points, oldest first, _PATH_POINTS_MAX at most


@dataclass(slots=True)
class _Live:
    """The tracker's own working copy."""

    id: int
    box: Box
    birth: Box
    first_ns: int
    last_ns: int
    vx: float = 0.0  # of the box's centre, pictures per second
    vy: float = 0.0
    hits: int = 0
    missed: int = 0
    confirmed: bool = False
    moving_hits: int = 0
    went_sizes: float = 0.0
    votes: dict[Label, float] = field(default_factory=dict)
    bests: dict[Label, float] = field(default_factory=dict)
    path: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_PATH_POINTS_MAX))

    @property
    def label(self) -> Label:
        return max(self.votes, key=lambda label: self.votes[label])

    def predicted(self, boot_ns: int) -> Box:
        """Where it should be: constant velocity, dying away."""
        passed_s = max(boot_ns - self.last_ns, 0) / NS
        reach_s = _COAST_S * (1 - math.exp(-passed_s / _COAST_S))
        return Box(self.box.x + self.vx * reach_s, self.box.y + self.vy * reach_s, self.box.w, self.box.h)


class Tracker:
    """The live tracks of one camera, TRACKS_MAX at most: with more, the newest finds wait for a free place."""

    def __init__(self, *, score_min: float, confirm_frames: int, gone_s: float) -> None:
        """A track is confirmed when it was seen at `score_min` or more once and moving in `confirm_frames` looks.

        What has not left its place needs _FIDGETS times as many; one moving look of SURE or more stands for all. A
        confirmed track ends when unseen for `gone_s` and looked for in vain twice.
        """
        self._score_min, self._confirm_frames, self._gone_s = score_min, confirm_frames, gone_s
        self.birth_min = min(score_min, max(0.3, score_min * 0.8))  # below this a detection begins nothing
        self.score_floor = min(self.birth_min, max(0.15, score_min * 0.6))  # below this it is worth nothing
        self._live: list[_Live] = []
        self._next_id = 1

    def forget(self) -> None:
        """Drops all tracks (their ids are not used again)."""
        self._live.clear()

    def tracks(self, boot_ns: int) -> list[Track]:
        """What is alive, as predicted for `boot_ns`, oldest first."""
        return [
            Track(
                id=one.id,
                label=one.label,
                score=one.bests[one.label],
                box=(one.box if boot_ns <= one.last_ns else one.predicted(boot_ns)).clipped(),
                first_ns=one.first_ns,
                last_ns=one.last_ns,
                confirmed=one.confirmed,
                moved=one.moving_hits > 0,
                missed=one.missed,
                hits=one.hits,
                path=tuple(one.path),
            )
            for one in self._live
        ]

    def update(
        self, detections: Sequence[Detection], boot_ns: int, *, looked: Sequence[Box], motion: Sequence[Box]
    ) -> list[Track]:
        """Takes what was found in the regions `looked` at, and what moved. Returns what is alive after it.

        A track that lies in no region was not missed: nobody looked.
        """
        matched, taken = self._assign(detections, boot_ns)
        for live, detection in matched:
            self._hit(live, detection, boot_ns, motion)
        for live in self._live:
            if live.last_ns != boot_ns or live.hits == 0:
                box = live.predicted(boot_ns).clipped()
                outside = box.area < 0.3 * live.box.area
                if outside or any(_share(box, region) > 0.6 for region in looked):
                    live.missed += 1
        for index, detection in enumerate(detections):
            if index not in taken and self._may_begin(detection, boot_ns):
                live = _Live(self._next_id, detection.box, detection.box, boot_ns, boot_ns)
                self._next_id += 1
                self._live.append(live)
                self._hit(live, detection, boot_ns, motion)
        for live in self._live:
            live.confirmed = live.confirmed or self._confirms(live)
        self._live = [live for live in self._live if self._lives(live, boot_ns)]
        return self.tracks(boot_ns)

    def _confirms(self, live: _Live) -> bool:
        """Whether it is what it seems and alive. Detectors see persons in tripods and bollards; those do not move."""
        best = live.bests[live.label]
        if best < self._score_min or not live.moving_hits:
            return False
        if best >= SURE:
            return True
        went = live.went_sizes >= _WENT_SIZES
        return live.moving_hits >= self._confirm_frames * (1 if went else _FIDGETS)

    def _lives(self, live: _Live, boot_ns: int) -> bool:
        unseen_s = (boot_ns - live.last_ns) / NS
        if not live.confirmed and live.missed >= _TENTATIVE_MISSES_MAX:
            return False
        return unseen_s < self._gone_s or live.missed < _GONE_LOOKS_MIN

    def _assign(self, detections: Sequence[Detection], boot_ns: int) -> tuple[list[tuple[_Live, Detection]], set[int]]:
        """Pairs of track and detection, and the detections taken."""
        costs: list[tuple[float, int, int]] = []
        for row, live in enumerate(self._live):
            box, label = live.predicted(boot_ns), live.label
            unseen_s = max(boot_ns - live.last_ns, 0) / NS
            for column, detection in enumerate(detections):
                cost = _cost(box, detection.box, unseen_s)
                if cost is None:
                    continue
                if detection.label is not label:
                    if box.iou(detection.box) < 0.5:
                        continue  # a person beside a bicycle is not the bicycle
                    cost += 1.0
                if not live.confirmed:
                    cost += 0.3  # the known before the new
                costs.append((cost, row, column))
        costs.sort()
        rows: set[int] = set()
        columns: set[int] = set()
        pairs = []
        for _, row, column in costs:
            if row not in rows and column not in columns:
                rows.add(row)
                columns.add(column)
                pairs.append((self._live[row], detections[column]))
        return pairs, columns

    def _hit(self, live: _Live, detection: Detection, boot_ns: int, motion: Sequence[Box]) -> None:
        passed_s = (boot_ns - live.last_ns) / NS
        new, old = detection.box, live.box
        if live.hits and passed_s > 20 * MS / NS:
            keep = math.exp(-passed_s / 0.6)  # boxes jitter: the velocity of one pair of pictures says little
            vx = (new.x + new.w / 2 - old.x - old.w / 2) / passed_s
            vy = (new.y + new.h / 2 - old.y - old.h / 2) / passed_s
            live.vx, live.vy = live.vx * keep + vx * (1 - keep), live.vy * keep + vy * (1 - keep)
        live.box, live.last_ns, live.missed = new, max(boot_ns, live.last_ns), 0
        live.hits += 1
        live.moving_hits += _moving(new, motion)
        live.went_sizes = max(live.went_sizes, _apart(live.birth, new))
        live.votes[detection.label] = live.votes.get(detection.label, 0.0) * 0.98 + detection.score
        live.bests[detection.label] = max(live.bests.get(detection.label, 0.0), detection.score)
        live.path.append(new.foot)

    def _may_begin(self, detection: Detection, boot_ns: int) -> bool:
        """Sure enough, and not a second box of something that was seen just now."""
        if detection.score < self.birth_min or len(self._live) >= TRACKS_MAX:
            return False
        return not any(
            live.last_ns == boot_ns
            and (live.box.iou(detection.box) > 0.45 or _share(detection.box, live.box) > 0.75)
            and live.label is detection.label
            for live in self._live
        )


def _cost(predicted: Box, seen: Box, unseen_s: float) -> float | None:
    """How ill `seen` fits a track, 0 (perfect) and up; None when it cannot be the same thing."""
    ratio = seen.h / predicted.h if predicted.h > 0 else 0.0
    if not 0.4 < ratio < 2.5:
        return None
    far = _apart(predicted, seen)
    iou = predicted.iou(seen)
    if iou < 0.1 and far > 0.7 + min(unseen_s, 1.5) * 0.5:
        return None
    return (1 - iou) + 0.5 * far + 0.3 * abs(math.log(ratio)) + 0.2 * min(unseen_s, 3.0)


def _apart(one: Box, other: Box) -> float:
    """Distance of two boxes' centres in their own sizes; a thin person is not taken for a thing of no width."""
    high = max((one.h + other.h) / 2, 1e-6)
    wide = max((one.w + other.w) / 2, 0.4 * high)
    dx = one.x + one.w / 2 - other.x - other.w / 2
    dy = one.y + one.h / 2 - other.y - other.h / 2
    return math.hypot(dx / wide, dy / high)


def _share(box: Box, region: Box) -> float:
    """Share of `box` that lies in `region`."""
    w = min(box.x2, region.x2) - max(box.x, region.x)
    h = min(box.y2, region.y2) - max(box.y, region.y)
    return w * h / box.area if w > 0 and h > 0 and box.area > 0 else 0.0


def _moving(box: Box, motion: Sequence[Box]) -> bool:
    """Whether a fair part of `box` moves, by a spot not so large that it says nothing about this box."""
    return any(_share(box, spot) > _MOVED_SHARE and spot.area < 12 * max(box.area, 1e-9) for spot in motion)
