"""Where to point the detector: which crops of the picture are worth an inference, and when. Pure.

A model sees a square of some 300 pixels: in the whole picture a person far away is a few of them. A crop around what
moves shows the same person larger. And a model that can look at smaller squares need not enlarge who is large already:
`side_px` chooses the smallest in which all that a look is about can be recognised.

The plan spends inferences where they can change what is known:

- a track not yet confirmed: after LOOK_S while it is young or not found again, for whoever comes must be known soon and
  what is nothing dropped; then ever later; one that lies on a confirmed track when that is looked at;
- a confirmed track out of sight: after LOOK_S for MISSED_QUICK looks, or once where nothing moves, for the same picture
  gives the same answer; then each vain one doubles the wait, up to RELOOK_S_MAX;
- a confirmed track in sight: after RELOOK_S; after RELOOK_S_MAX when it is alone and either the motion is where the
  track should be, or nothing moves near it: then a look could only repeat what is known;
- motion that no track explains: after LOOK_S, and each look that finds nothing doubles the wait, up to BARREN_S_MAX
  (a flag in the wind must not cost what a visitor costs);
- the whole picture: after FULL_S while anything of the above lives, after FULL_CALM_S while all that moves is explained
  by tracks; of a changed scene, after CHANGED_S.

Looks that no track asks for are paid from a purse that fills by VAIN_RUNS_PER_S: rain moves in a new place each time,
so that no place is barren, and must not cost more for that. A find costs nothing. All looks together keep to
`runs_per_s_max`. An idle scene has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agent.types import FULL, NS, Box, Detection
from agent.vision.tracker import Track

LOOK_S = 0.18
RELOOK_S = 0.45
RELOOK_S_MAX = 0.95  # a little less than five pictures, whose times are not exact
YOUNG_S = 2.0
MISSED_QUICK = 4
FULL_S = 4.0
FULL_CALM_S = 12.0
CHANGED_S = 1.0
BARREN_S_MAX = 3.0
RUNS_PER_S_MAX = 15.0
VAIN_RUNS_PER_S = 1.5  # in the long run, and at once:
VAIN_RUNS_MAX = 8.0
REGIONS_MAX = 3  # in one picture
_LOST_MISSED = 2  # looked for so often in vain: what moves where it should be may be somebody else
_NEW_HITS = 4  # before so many looks nobody knows how fast a track is
_SPOTS_MAX = 32
_SPOT_S_MAX = 10.0  # a spot where nothing moved for so long is forgotten
_SIDE_MIN = 0.42  # of the picture's shorter side: smaller crops are blurred enlargements
_PAD = 1.7  # a region is so many times as wide as what it is about
_MERGE_GAIN = 1.25  # two regions become one when that covers at most so many times their area
_SEEN_PX = 72.0  # the larger side of an object in the model's square; from half of it on people are found as well
_STRANGE = 0.65  # what moves, or is not confirmed, may be a part of what there is to see, or hard to tell
_CUT = 0.01  # closer to the edge of its crop, a box is taken as cut off by it (share of the crop)


class Look(NamedTuple):
    """One look of the detector."""

    region: Box
    smallest: float  # larger side of the smallest thing it is about, as a share of the region; 0: nobody knows


@dataclass(slots=True)
class _Spot:
    """A place where something unexplained moves."""

    box: Box
    looked_ns: int
    moved_ns: int
    barren: int = 0  # looks in a row that found nothing here


class Planner:
    """Decides from one picture to the next. Holds at most _SPOTS_MAX spots and the live tracks' ids."""

    def __init__(self) -> None:
        self._spots: list[_Spot] = []
        self._track_looks: dict[int, int] = {}
        self._full_ns: int | None = None
        self._tokens = float(REGIONS_MAX)
        self._purse = VAIN_RUNS_MAX
        self._paid = 0  # from the purse for the looks of the newest plan
        self._last_ns: int | None = None

    def forget(self) -> None:
        """Starts over, as after a jump in time."""
        self.__init__()  # type: ignore[misc]

    def plan(
        self,
        *,
        boot_ns: int,
        aspect: float,
        motion: Sequence[Box],
        tracks: Sequence[Track],
        changed: bool,
        runs_per_s_max: float = RUNS_PER_S_MAX,
    ) -> list[Look]:
        """Regions of this picture to look at, REGIONS_MAX at most; none when there is nothing to learn.

        `aspect` is the picture's width over its height. `changed` asks for the whole picture.
        """
        passed_s = 0.0 if self._last_ns is None else max(boot_ns - self._last_ns, 0) / NS
        self._last_ns = boot_ns
        self._tokens = min(self._tokens + passed_s * min(runs_per_s_max, RUNS_PER_S_MAX), REGIONS_MAX)
        self._purse = min(self._purse + passed_s * VAIN_RUNS_PER_S, VAIN_RUNS_MAX)
        self._paid = 0
        if not motion and not tracks and not changed:
            return []
        followed, strange = self._due_tracks(boot_ns, motion, tracks), self._due_spots(boot_ns, motion, tracks)
        alive = bool(tracks) or bool(strange)
        full = (changed and self._since_full_s(boot_ns) >= CHANGED_S) or (
            alive
            and (bool(tracks) or self._purse >= 1)
            and self._full_ns is not None
            and boot_ns - self._full_ns >= (FULL_S if self._is_strange(boot_ns) else FULL_CALM_S) * NS
        )
        if alive and self._full_ns is None:
            self._full_ns = boot_ns  # the first whole look comes FULL_S after the first cause
        room = min(REGIONS_MAX, int(self._tokens))
        if room <= 0:
            return []
        regions: list[Box] = []
        if full:
            self._full_ns = boot_ns
            regions.append(FULL)
        needed = merged([region_about(box, aspect) for box in followed], max(room - full, 1)) if room > full else []
        affordable = int(self._purse) - full
        if strange and affordable > 0 and room > full:  # one region may show who is followed and what is strange
            about = [region_about(box, aspect) for box in (*followed, *strange)]
            both = merged(about, min(room - full, len(needed) + affordable))
            self._paid = max(len(both) - len(needed), 0)
            needed = both
        regions += needed
        self._paid += full
        self._purse = max(self._purse - self._paid, 0.0)
        self._tokens -= len(regions)
        for track in tracks:
            if any(_covers(region, track.box) for region in regions):
                self._track_looks[track.id] = boot_ns
        for spot in self._spots:
            if any(_covers(region, spot.box) for region in regions):
                spot.looked_ns = boot_ns
        # Also who is not due is taken for looked at, and for gone when he is not found: he must be large enough, too.
        shown = [(track.box, 1.0 if track.confirmed else _STRANGE) for track in tracks if not _is_part(track, tracks)]
        shown += [(spot.box, _STRANGE) for spot in self._spots]
        return [Look(region, _smallest(region, shown)) for region in regions]

    def _is_strange(self, boot_ns: int) -> bool:
        """Whether anything moved since the last whole look that no track explained."""
        return any(spot.moved_ns > (self._full_ns or 0) for spot in self._spots if spot.moved_ns <= boot_ns)

    def _since_full_s(self, boot_ns: int) -> float:
        return CHANGED_S if self._full_ns is None else (boot_ns - self._full_ns) / NS

    def learn(self, *, boot_ns: int, regions: Sequence[Box], found: Sequence[Detection]) -> None:
        """Tells what the looks planned for `boot_ns` have found, so that barren spots wait longer."""
        for spot in self._spots:
            if spot.looked_ns == boot_ns and regions:
                hit = any(
                    overlap(detection.box, spot.box) > 0.2 or _holds(detection.box, spot.box) for detection in found
                )
                spot.barren = 0 if hit else min(spot.barren + 1, 8)

    def _due_tracks(self, boot_ns: int, motion: Sequence[Box], tracks: Sequence[Track]) -> list[Box]:
        self._track_looks = {track.id: self._track_looks[track.id] for track in tracks if track.id in self._track_looks}
        due = []
        for track in tracks:
            if track.furniture or (not track.confirmed and _is_part(track, tracks)):
                continue  # furniture that looks like a person is worth no look of its own, nor is the hat of a person
            last_ns = max(self._track_looks.get(track.id, track.last_ns), track.last_ns)
            if boot_ns - last_ns >= _wait_s(track, boot_ns, motion, tracks) * NS:
                due.append(track.box)
        return due

    def _due_spots(self, boot_ns: int, motion: Sequence[Box], tracks: Sequence[Track]) -> list[Box]:
        self._spots = [spot for spot in self._spots if boot_ns - spot.moved_ns <= _SPOT_S_MAX * NS]
        due = []
        alive = [track for track in tracks if not track.furniture and track.missed < _LOST_MISSED]
        in_sight = [_grown(track.box, 1.4) for track in alive]
        for box in motion:
            if any(_holds(near, box) for near in in_sight):
                continue  # the track's own motion: the track decides when to look
            spot = next((s for s in self._spots if overlap(s.box, box) > 0.2 or _near(s.box, box)), None)
            if spot is None:
                if len(self._spots) >= _SPOTS_MAX:
                    continue
                spot = _Spot(box, boot_ns - NS, boot_ns)
                self._spots.append(spot)
            elif box.area > 4 * spot.box.area:
                spot.barren = 0  # something much larger than the flag that waved here
            spot.box, spot.moved_ns = box, boot_ns
            wait_s = min(LOOK_S * 2**spot.barren, BARREN_S_MAX)
            if boot_ns - spot.looked_ns >= wait_s * NS:
                due.append(box)
        return due


def _is_part(track: Track, tracks: Sequence[Track]) -> bool:
    """Whether it lies on its like, or about it, or is the same under another name, and that is known.

    Looked at whenever the known one is, it is confirmed or dropped in time.
    """
    known = [other for other in tracks if other.confirmed and other.id != track.id]
    return any(
        other.box.iou(track.box) > 0.6 or (other.label is track.label and overlap(other.box, track.box) >= 0.7)
        for other in known
    )


def _wait_s(track: Track, boot_ns: int, motion: Sequence[Box], tracks: Sequence[Track]) -> float:
    """After how long a track is worth another look."""
    if not track.confirmed:
        age_s = (boot_ns - track.first_ns) / NS
        return LOOK_S if track.missed else min(LOOK_S * max(age_s / YOUNG_S, 1.0), RELOOK_S_MAX)
    near = _grown(track.box, 1.4)
    if track.missed:
        quick = MISSED_QUICK if any(_shared(near, box) > 0 for box in motion) else 1
        vain = min(max(track.missed - quick, 0), 8)
        return float(min(LOOK_S * 2**vain, RELOOK_S_MAX))
    alike = (other for other in tracks if other.id != track.id and other.label is track.label and other.confirmed)
    crowded = any(_shared(near, other.box) > 0 for other in alike)  # a rider is not mixed up with his bicycle
    if track.hits < _NEW_HITS or crowded:
        return RELOOK_S
    moving = [box for box in motion if _shared(near, box) > 0]
    explained = any(overlap(track.box, box) > 0.6 and box.area < 4 * track.box.area for box in moving)
    return RELOOK_S_MAX if explained or not moving else RELOOK_S


def _smallest(region: Box, about: Sequence[tuple[Box, float]]) -> float:
    """See Look. `about`: what is looked for, each with the part of it that may be all there is."""
    if region == FULL:
        return 0.0
    sizes = [max(box.w / region.w, box.h / region.h) * part for box, part in about if _covers(region, box)]
    return min(sizes, default=0.0)


def side_px(look: Look, sides_px: Sequence[int]) -> int:
    """Which of a model's squares, smallest first, a look needs."""
    return next((side for side in sides_px[:-1] if look.smallest * side >= _SEEN_PX), sides_px[-1])


def region_about(box: Box, aspect: float) -> Box:
    """A region around `box`, square in pixels where the picture allows, padded, inside the picture."""
    shorter = min(1.0, aspect)  # in units of the picture's height
    w, h = box.w * aspect * _PAD, box.h * _PAD
    side = max(w, h, _SIDE_MIN * shorter)
    width, height = min(side / aspect, 1.0), min(side, 1.0)
    x = min(max(box.x + box.w / 2 - width / 2, 0.0), 1.0 - width)
    y = min(max(box.y + box.h / 2 - height / 2, 0.0), 1.0 - height)
    return Box(x, y, width, height)


def merged(regions: Sequence[Box], count_max: int) -> list[Box]:
    """`regions` joined where they overlap so much that one look is cheaper, and on until `count_max` are left."""
    rest = list(regions[:_SPOTS_MAX])
    while len(rest) > 1:
        cost, i, j = min(
            (_joined(rest[i], rest[j]).area / (rest[i].area + rest[j].area - _shared(rest[i], rest[j])), i, j)
            for i in range(len(rest))
            for j in range(i + 1, len(rest))
        )
        if cost > _MERGE_GAIN and len(rest) <= count_max:
            break
        rest[i] = _joined(rest[i], rest[j])
        del rest[j]
    return rest


def tiles() -> list[Look]:
    """The whole picture and 2x2 overlapping parts of it: everything a detector can find, for measuring it."""
    side = 0.6
    parts = [Box(x, y, side, side) for y in (0.0, 1.0 - side) for x in (0.0, 1.0 - side)]
    return [Look(region, 0.0) for region in (FULL, *parts)]


def placed(detections: Sequence[Detection], region: Box) -> list[tuple[Detection, bool]]:
    """Detections in 0..1 of `region` as ones in 0..1 of the picture, each with whether the region cuts it off."""
    out = []
    for one in detections:
        box = one.box
        cut = (
            (box.x < _CUT and region.x > 0)
            or (box.y < _CUT and region.y > 0)
            or (box.x2 > 1 - _CUT and region.x2 < 1 - 1e-9)
            or (box.y2 > 1 - _CUT and region.y2 < 1 - 1e-9)
        )
        whole = Box(region.x + box.x * region.w, region.y + box.y * region.h, box.w * region.w, box.h * region.h)
        out.append((Detection(one.label, one.score, whole.clipped()), cut))
    return out


def united(found: Sequence[tuple[Detection, bool]]) -> list[Detection]:
    """One detection per object out of several regions' finds, best first.

    Whole boxes are settled before cut-off ones, whatever their scores: half a person is often the surer find.
    """
    kept: list[Detection] = []
    for one, cut in sorted(found, key=lambda item: (item[1], -item[0].score)):
        rivals = (other for other in kept if other.label is one.label)
        if not any(one.box.iou(other.box) > 0.5 or (cut and overlap(other.box, one.box) > 0.6) for other in rivals):
            kept.append(one)
    kept.sort(key=lambda detection: -detection.score)
    return kept


def overlap(one: Box, other: Box) -> float:
    """Shared area over the smaller area, 0..1."""
    smaller = min(one.area, other.area)
    return _shared(one, other) / smaller if smaller > 0 else 0.0


def _shared(one: Box, other: Box) -> float:
    w = min(one.x2, other.x2) - max(one.x, other.x)
    h = min(one.y2, other.y2) - max(one.y, other.y)
    return w * h if w > 0 and h > 0 else 0.0


def _joined(one: Box, other: Box) -> Box:
    x, y = min(one.x, other.x), min(one.y, other.y)
    return Box(x, y, max(one.x2, other.x2) - x, max(one.y2, other.y2) - y)


def _grown(box: Box, factor: float) -> Box:
    return Box(box.x - box.w * (factor - 1) / 2, box.y - box.h * (factor - 1) / 2, box.w * factor, box.h * factor)


def _holds(outer: Box, inner: Box) -> bool:
    """Whether most of `inner` lies in `outer`."""
    return inner.area > 0 and _shared(outer, inner) >= 0.7 * inner.area


def _covers(region: Box, box: Box) -> bool:
    return box.area > 0 and _shared(region, box) >= 0.8 * box.area


def _near(one: Box, other: Box) -> bool:
    dx = abs(one.x + one.w / 2 - other.x - other.w / 2)
    dy = abs(one.y + one.h / 2 - other.y - other.h / 2)
    return dx < (one.w + other.w) / 2 and dy < (one.h + other.h) / 2
