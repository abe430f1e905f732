"""From detections in single pictures to things that stay the same thing. Pure: detections and times in, tracks out.

Each track predicts where it is with a Kalman filter of constant velocity whose velocity dies away while it is unseen.
Detections are given to tracks by the cheapest assignment, in two rounds as in ByteTrack (Zhang et al., 2022): the sure
ones to every track, then the weak ones to tracks that were seen just now. A weak one never begins a track. The cost of
a pair is how far it lies from where it should be, how much size and shape differ, and how different it looks.

Somebody who vanishes in the open middle of the picture is hidden, not gone: such a track waits HIDDEN_TIMES as long
as one that vanishes at the picture's edge, and takes up whoever comes out near there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.types import NS, Box, Detection, Label
from agent.vision.appearance import Look, blended, unlike
from agent.vision.assignment import cheapest

TRACKS_MAX = 32
SURE = 0.75  # one look at this score confirms: a person running past is seen clearly once
HIDDEN_TIMES = 2.0
_PATH_POINTS_MAX = 48
_TENTATIVE_MISSES_MAX = 3
_GONE_LOOKS_MIN = 2  # a track is gone only after this many vain looks, however long the pictures are apart
_COAST_S = 1.0  # velocity dies away with this time constant when unseen
_EDGE = 0.03  # of the picture: closer to its border than this, things leave it
_MOVED_SHARE = 0.2  # of a track's box moving now: it may be alive
_WENT_SIZES = 0.25  # gone so far from where it was first seen, in its own sizes: it is alive
_FIDGETS = 3  # times as many moving looks confirm what stays in its place; a bollard somebody walks past has fewer
_ITSELF_IOU = 0.6  # what moves is the thing itself, all of it, and nobody who walks past it: sooner is sure enough ...
_ITSELF_SCORE = 0.5  # ... if it is seen so well
_SPEEDS_UP = 0.9  # sizes per second and root second: walkers turn and stop
_JITTER = 0.12  # of its size: a box lies so far beside the thing
_SIZE_S = 0.5  # the size follows with this time constant: half a person behind a car has not shrunk
_COST_MAX = 1.8  # dearer pairs are two things
_WEAK_COST_MAX = 1.2
_WEAK_S = 1.1  # a weak detection continues only what was seen so recently
_LABEL_COST = 1.0
_TENTATIVE_COST = 0.4  # the known before the new
_LOOK_COST = 1.5
_LOOK_MAX = 0.5  # looks further apart than this are two things
_UNSEEN_COST = 0.1  # per second, up to _UNSEEN_S_MAX
_UNSEEN_S_MAX = 3.0
_NEW_HITS = 3  # before so many looks nobody knows how fast it is ...
_NEW_REACH_SIZES = 0.4  # ... so it may be found so much farther off
_REACH_SIZES = 0.5  # how far from its place something may be found, in its own sizes ...
_REACH_SIZES_PER_S = 0.55  # ... and so much farther for each second unseen


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
    went: bool = False  # has left the place where it was first seen

    @property
    def furniture(self) -> bool:
        """Never seen to move: a thing of the place that the model takes for somebody."""
        return not (self.confirmed or self.moved)


class _Axis:
    """A Kalman filter of position and velocity on one axis, white noise in the acceleration."""

    __slots__ = ("p00", "p01", "p11", "v", "x")

    def __init__(self, x: float, size: float) -> None:
        self.x, self.v = x, 0.0
        self.p00, self.p01, self.p11 = (0.1 * size) ** 2, 0.0, (1.0 * size) ** 2

    def ahead(self, passed_s: float) -> float:
        """Where it should be `passed_s` from now."""
        return self.x + self.v * _COAST_S * (1 - math.exp(-passed_s / _COAST_S))

    def advance(self, passed_s: float, size: float) -> None:
        """Time passes unseen; `size` (of the thing on this axis) scales how much it may speed up meanwhile."""
        t, q = passed_s, (_SPEEDS_UP * size) ** 2
        self.x = self.ahead(t)
        self.v *= math.exp(-t / _COAST_S) if t > 1.0 else 1.0
        self.p00 += t * (2 * self.p01 + t * self.p11) + q * t**3 / 3
        self.p01 += t * self.p11 + q * t**2 / 2
        self.p11 += q * t

    def correct(self, seen: float, size: float) -> None:
        """It was seen at `seen`, as exactly as boxes of this `size` are."""
        r = (_JITTER * size) ** 2
        gain0, gain1 = self.p00 / (self.p00 + r), self.p01 / (self.p00 + r)
        wrong = seen - self.x
        self.x += gain0 * wrong
        self.v += gain1 * wrong
        self.p11 -= gain1 * self.p01
        self.p01 *= 1 - gain0
        self.p00 *= 1 - gain0


@dataclass(slots=True)
class _Live:
    """The tracker's own working copy."""

    id: int
    box: Box
    birth: Box
    first_ns: int
    last_ns: int
    across: _Axis
    down: _Axis
    w: float
    h: float
    hits: int = 0
    missed: int = 0
    confirmed: bool = False
    moving_hits: int = 0
    itself_hits: int = 0  # of them those in which nothing but it moved there
    went_sizes: float = 0.0
    look: Look | None = None
    votes: dict[Label, float] = field(default_factory=dict)
    bests: dict[Label, float] = field(default_factory=dict)
    path: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_PATH_POINTS_MAX))

    @property
    def label(self) -> Label:
        return max(self.votes, key=lambda label: self.votes[label])

    def predicted(self, boot_ns: int) -> Box:
        """Where it should be at `boot_ns`."""
        passed_s = max(boot_ns - self.last_ns, 0) / NS
        return Box(self.across.ahead(passed_s) - self.w / 2, self.down.ahead(passed_s) - self.h / 2, self.w, self.h)


class Tracker:
    """The live tracks of one camera, TRACKS_MAX at most: with more, the newest finds wait for a free place."""

    def __init__(self, *, score_min: float, confirm_frames: int, gone_s: float) -> None:
        """A track is confirmed when it was seen at `score_min` or more once and moving in `confirm_frames` looks.

        What has not left its place needs _FIDGETS times as many; one moving look of SURE or more stands for all. A
        confirmed track ends when looked for in vain twice and unseen for `gone_s`, or for HIDDEN_TIMES as long where it
        is not at the picture's edge.
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
                went=one.went_sizes >= _WENT_SIZES,
            )
            for one in self._live
        ]

    def update(
        self,
        detections: Sequence[Detection],
        boot_ns: int,
        *,
        looked: Sequence[Box],
        motion: Sequence[Box],
        looks: Sequence[Look | None] | None = None,
    ) -> list[Track]:
        """Takes what was found in the regions `looked` at, and what moved. Returns what is alive after it.

        A track that lies in no region was not missed: nobody looked. `looks` says how each detection looks, None where
        nobody knows; without it, two people who cross are told apart by their places alone.
        """
        looks = looks or [None] * len(detections)
        matched, taken = self._assign(detections, looks, boot_ns)
        for live, index in matched:
            self._hit(live, detections[index], looks[index], boot_ns, motion)
        for live in self._live:
            if live.last_ns != boot_ns or live.hits == 0:
                box = live.predicted(boot_ns).clipped()
                outside = box.area < 0.3 * live.box.area
                if outside or any(_share(box, region) > 0.6 for region in looked):
                    live.missed += 1
        for index, detection in enumerate(detections):
            if index not in taken and self._may_begin(detection, boot_ns):
                self._live.append(self._born(detection, looks[index], boot_ns, motion))
        for live in self._live:
            live.confirmed = live.confirmed or self._confirms(live)
        self._live = [live for live in self._live if self._lives(live, boot_ns)]
        return self.tracks(boot_ns)

    def _born(self, detection: Detection, look: Look | None, boot_ns: int, motion: Sequence[Box]) -> _Live:
        box = detection.box
        live = _Live(
            self._next_id,
            box,
            box,
            boot_ns,
            boot_ns,
            _Axis(box.x + box.w / 2, max(box.w, 0.4 * box.h)),
            _Axis(box.y + box.h / 2, box.h),
            box.w,
            box.h,
        )
        self._next_id += 1
        self._hit(live, detection, look, boot_ns, motion)
        return live

    def _confirms(self, live: _Live) -> bool:
        """Whether it is what it seems and alive. Detectors see persons in tripods and bollards; those do not move."""
        best = live.bests[live.label]
        if best < self._score_min or not live.moving_hits:
            return False
        if best >= SURE:
            return True
        if best >= _ITSELF_SCORE and live.itself_hits > self._confirm_frames:
            return True
        went = live.went_sizes >= _WENT_SIZES
        return live.moving_hits >= self._confirm_frames * (1 if went else _FIDGETS)

    def _lives(self, live: _Live, boot_ns: int) -> bool:
        unseen_s = (boot_ns - live.last_ns) / NS
        if not live.confirmed and live.missed >= _TENTATIVE_MISSES_MAX:
            return False
        hidden = live.confirmed and not _at_edge(live.predicted(boot_ns))
        patience_s = self._gone_s * (HIDDEN_TIMES if hidden else 1.0)
        return unseen_s < patience_s or live.missed < _GONE_LOOKS_MIN

    def _assign(
        self, detections: Sequence[Detection], looks: Sequence[Look | None], boot_ns: int
    ) -> tuple[list[tuple[_Live, int]], set[int]]:
        """Pairs of track and detection's index, and the indexes taken."""
        taken: set[int] = set()
        matched: list[tuple[_Live, int]] = []
        sure = [index for index, one in enumerate(detections) if one.score >= self.birth_min]
        weak = [index for index, one in enumerate(detections) if one.score < self.birth_min]
        places = [(live.predicted(boot_ns), max(boot_ns - live.last_ns, 0) / NS) for live in self._live]
        free = set(range(len(self._live)))
        for columns, cost_max, unseen_s_max in ((sure, _COST_MAX, math.inf), (weak, _WEAK_COST_MAX, _WEAK_S)):
            costs = {}
            for row in free:
                box, unseen_s = places[row]
                if unseen_s > unseen_s_max:
                    continue
                for column in columns:
                    cost = _cost(self._live[row], box, detections[column], looks[column], unseen_s)
                    if cost is not None and cost <= cost_max:
                        costs[row, column] = cost
            for row, column in cheapest(costs, left_out=cost_max + 0.5):
                matched.append((self._live[row], column))
                taken.add(column)
                free.remove(row)
        return matched, taken

    def _hit(self, live: _Live, detection: Detection, look: Look | None, boot_ns: int, motion: Sequence[Box]) -> None:
        passed_s = max(boot_ns - live.last_ns, 0) / NS
        new = detection.box
        high, wide = max(live.h, new.h), max(live.w, new.w, 0.4 * live.h)
        live.across.advance(passed_s, wide)
        live.down.advance(passed_s, high)
        live.across.correct(new.x + new.w / 2, wide)
        live.down.correct(new.y + new.h / 2, high)
        keep = math.exp(-passed_s / _SIZE_S) if live.hits else 0.0
        live.w, live.h = live.w * keep + new.w * (1 - keep), live.h * keep + new.h * (1 - keep)
        live.box, live.last_ns, live.missed = new, max(boot_ns, live.last_ns), 0
        live.hits += 1
        if look is not None:
            live.look = look if live.look is None else blended(live.look, look)
        live.moving_hits += _moving(new, motion)
        live.itself_hits += any(new.iou(spot) > _ITSELF_IOU for spot in motion)
        live.went_sizes = max(live.went_sizes, _apart(live.birth, new))
        live.votes[detection.label] = live.votes.get(detection.label, 0.0) * 0.98 + detection.score
        live.bests[detection.label] = max(live.bests.get(detection.label, 0.0), detection.score)
        live.path.append(new.foot)

    def _may_begin(self, detection: Detection, boot_ns: int) -> bool:
        """Sure enough, and not a second box (a part of it, or one around two) of something that was seen just now."""
        if detection.score < self.birth_min or len(self._live) >= TRACKS_MAX:
            return False
        box = detection.box
        return not any(
            live.last_ns == boot_ns
            and live.label is detection.label
            and (live.box.iou(box) > 0.45 or _share(box, live.box) > 0.75 or _share(live.box, box) > 0.75)
            for live in self._live
        )


def _cost(live: _Live, predicted: Box, detection: Detection, look: Look | None, unseen_s: float) -> float | None:
    """How ill `detection` fits a track, 0 (perfect) and up; None when it cannot be the same thing."""
    seen = detection.box
    ratio = seen.h / predicted.h if predicted.h > 0 else 0.0
    if not 0.45 < ratio < 2.2:
        return None
    far = _apart(predicted, seen)
    iou = predicted.iou(seen)
    reach = _REACH_SIZES + _REACH_SIZES_PER_S * min(unseen_s, _UNSEEN_S_MAX)
    reach += _NEW_REACH_SIZES if live.hits < _NEW_HITS else 0.0
    if far > reach and iou < 0.1:
        return None
    cost = 0.6 * (1 - iou) + 0.5 * far / reach + 0.4 * abs(math.log(ratio))
    if detection.label is not live.label:
        if iou < 0.5:
            return None  # a person beside a bicycle is not the bicycle
        cost += _LABEL_COST
    if not live.confirmed:
        cost += _TENTATIVE_COST
    if look is not None and live.look is not None:
        differs = unlike(live.look, look)
        if differs > _LOOK_MAX:
            return None
        cost += _LOOK_COST * differs
    cost += _UNSEEN_COST * min(unseen_s, _UNSEEN_S_MAX)
    return cost


def _at_edge(box: Box) -> bool:
    """Where things leave the picture. Few leave it upwards: only what is half outside does."""
    return box.x < _EDGE or box.x2 > 1 - _EDGE or box.y2 > 1 - _EDGE or box.y < 0


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
