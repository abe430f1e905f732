"""What never moves: a tripod that looks like a person, a poster, a parked car. It is learned, put on record, ignored.

Evidence is gathered by place: things found again and again in the same box (SAME_IOU) that have never left it, over
`static_s` and LOOKS_MIN looks. Then the place is static, and a track that has never left it is ignored. A vehicle or
bicycle that arrived and stands for `static_s` becomes static too; a person or animal that arrived never does while its
track lives, however still it stands.

Nobody becomes invisible by standing there: who comes has moved, and whose box differs from the learned one is another
thing. MOVERS_MAX things that began in the learned box and walked off undo it, and so does looking VAIN_LOOKS_MAX times
in a row in vain; a place that nobody looked at for FORGET_S is forgotten. PLACES_MAX places, the stalest gives way.

The limit: a person whose track was lost (say, by a passing van), who stands in one spot for all of `static_s` and is
nothing but a box that never moves, is taken for furniture until he moves by a quarter of his size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.types import NS, Box, Detection, Label
from agent.vision.tracker import Track

PLACES_MAX = 64
SAME_IOU = 0.6
LOOKS_MIN = 20
MOVERS_MAX = 3
VAIN_LOOKS_MAX = 20
FORGET_S = 24 * 3600.0
_FOUND_IOU = 0.3
_LOOKED_SHARE = 0.8
_PARKS = frozenset({Label.VEHICLE, Label.BICYCLE})


@dataclass(frozen=True, slots=True)
class Learned:
    """A place that has just become static."""

    label: Label
    box: Box
    since_ns: int  # when it was first seen there
    boot_ns: int


@dataclass(slots=True)
class _Place:
    label: Label
    box: Box
    first_ns: int
    last_ns: int
    looks: int = 0
    vain: int = 0  # looks in a row that found nothing here
    movers: int = 0
    learned: bool = False


@dataclass(slots=True)
class _Rest:
    """Where one live track has been since when, and what it gave to which place."""

    box: Box
    since_ns: int
    place: _Place | None = None
    looks: int = 0
    went: bool = field(default=False)


class Statics:
    """The static things of one camera. Memory only: a start begins anew. Times must not go back."""

    def __init__(self, *, static_s: float) -> None:
        """`static_s` 0 learns nothing."""
        self._static_ns = round(static_s * NS)
        self._places: list[_Place] = []
        self._rests: dict[int, _Rest] = {}

    @property
    def learned(self) -> tuple[Box, ...]:
        """The places that are static now."""
        return tuple(place.box for place in self._places if place.learned)

    def forget(self) -> None:
        """Starts over, as after a jump in time."""
        self._places.clear()
        self._rests.clear()

    def observe(
        self, *, tracks: Sequence[Track], found: Sequence[Detection], looked: Sequence[Box], boot_ns: int
    ) -> list[Learned]:
        """Takes what was found in the regions `looked` at, and the tracks after it. Returns what is static from now."""
        if not self._static_ns:
            return []
        news = []
        self._rests = {track.id: self._rests[track.id] for track in tracks if track.id in self._rests}
        for track in tracks:
            if track.last_ns == boot_ns:
                learned = self._seen(track, boot_ns)
                if learned is not None:
                    news.append(learned)
        self._miss(found, looked, boot_ns)
        return news

    def ignores(self, track: Track) -> bool:
        """Whether `track` is a static thing."""
        rest = self._rests.get(track.id)
        if rest is None or rest.place is None or not rest.place.learned:
            return False
        return rest.box.iou(track.box) >= SAME_IOU and (not track.went or track.label in _PARKS)

    def _seen(self, track: Track, boot_ns: int) -> Learned | None:
        rest = self._rests.get(track.id)
        if rest is None:
            rest = self._rests[track.id] = _Rest(track.box, track.first_ns)
        moved_off = track.went and not rest.went
        rest.went = track.went
        if rest.box.iou(track.box) < SAME_IOU or (moved_off and track.label not in _PARKS):
            self._leaves(rest)
            rest.box, rest.since_ns = track.box, boot_ns
            rest.place, rest.looks = None, 0
        if track.went and (track.label not in _PARKS or boot_ns - rest.since_ns < self._static_ns):
            return None
        if rest.place is None:
            rest.place = self._place(track, rest.since_ns)
        return self._add(rest.place, rest, track, boot_ns)

    def _add(self, place: _Place, rest: _Rest, track: Track, boot_ns: int) -> Learned | None:
        rest.looks += 1
        place.looks, place.last_ns, place.vain = place.looks + 1, boot_ns, 0
        if not place.learned:
            old, new = place.box, track.box
            place.box = Box(*(0.9 * a + 0.1 * b for a, b in zip(_values(old), _values(new), strict=True)))
        long_enough = boot_ns - place.first_ns >= self._static_ns and place.looks >= LOOKS_MIN
        if place.learned or not (long_enough or track.went):
            return None
        place.learned = True
        return Learned(place.label, place.box, place.first_ns, boot_ns)

    def _place(self, track: Track, since_ns: int) -> _Place:
        near = [one for one in self._places if one.label is track.label and one.box.iou(track.box) >= SAME_IOU]
        if near:
            return max(near, key=lambda one: one.box.iou(track.box))
        if len(self._places) >= PLACES_MAX:
            self._drop(min(self._places, key=lambda one: (one.learned, one.last_ns)))
        place = _Place(track.label, track.box, since_ns, track.last_ns)
        self._places.append(place)
        return place

    def _leaves(self, rest: _Rest) -> None:
        """What began there has moved: it was no furniture, and what it told of the place is taken back."""
        place = rest.place
        if place is None:
            return
        place.looks = max(place.looks - rest.looks, 0)
        place.movers += 1
        if not place.learned or place.movers >= MOVERS_MAX:
            self._drop(place)

    def _miss(self, found: Sequence[Detection], looked: Sequence[Box], boot_ns: int) -> None:
        for place in list(self._places):
            if place.last_ns != boot_ns and any(_share(place.box, region) >= _LOOKED_SHARE for region in looked):
                if not any(one.box.iou(place.box) >= _FOUND_IOU for one in found):
                    place.vain += 1
                if place.vain >= VAIN_LOOKS_MAX:
                    self._drop(place)
                    continue
            if boot_ns - place.last_ns > FORGET_S * NS:
                self._drop(place)

    def _drop(self, place: _Place) -> None:
        self._places = [one for one in self._places if one is not place]
        for rest in self._rests.values():
            if rest.place is place:
                rest.place, rest.looks = None, 0


def _values(box: Box) -> tuple[float, float, float, float]:
    return box.x, box.y, box.w, box.h


def _share(box: Box, region: Box) -> float:
    """Share of `box` that lies in `region`."""
    w = min(box.x2, region.x2) - max(box.x, region.x)
    h = min(box.y2, region.y2) - max(box.y, region.y)
    return w * h / box.area if w > 0 and h > 0 and box.area > 0 else 0.0
