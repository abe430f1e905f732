"""What is worth an alert: rules about where tracks go, how long they stay and how many there are. Pure.

A track is where its foot is (the middle of its box's lower edge). A change of zone counts when two looks agree, a line
is crossed when the foot has come clear of it (CLEAR_HEIGHTS) on its other side: feet jitter. Somebody first seen in a
zone has entered it; somebody who vanishes in one has left it.

A rule that is not active (see schedule.py) goes on following tracks, so that it is right at its first second.

Within a rule's cooldown whoever else does the same is a notice. What goes on (somebody who is or stays where he should
not, a crowd) and outlasts the cooldown is an alert then: nobody hides behind the one who came before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.config import LineSettings, RuleSettings
from agent.types import NS, Box, Label, Priority
from agent.vision.geometry import Point, touch, turn
from agent.vision.tracker import Track
from agent.vision.zones import ZoneMap

CLEAR_HEIGHTS = 0.1  # of the track's box
_CLEAR_MIN = 0.01  # of the picture
_AGREE_LOOKS = 2
_LULL_S = 3.0  # a crowd that seems too small for so long has gone
_STANDS_SIZES = 0.35  # a vehicle that has moved by less than this share of its size stands

# The topics of ONVIF's rules (Analytics Service Specification, annex A); it has none for crowds but the counters'.
TOPICS = {
    "enters": "tns1:RuleEngine/FieldDetector/ObjectsInside",
    "leaves": "tns1:RuleEngine/FieldDetector/ObjectsInside",
    "crosses": "tns1:RuleEngine/LineDetector/Crossed",
    "loiters": "tns1:RuleEngine/LoiteringDetector/ObjectIsLoitering",
    "crowd": "tns1:RuleEngine/CountAggregation/Counter",
    "congestion": "tns1:RuleEngine/CountAggregation/Counter",
    "forbidden": "tns1:RuleEngine/FieldDetector/ObjectsInside",
    "allowed-only": "tns1:RuleEngine/FieldDetector/ObjectsInside",
}

Active = Callable[[RuleSettings], bool]


@dataclass(frozen=True, slots=True)
class Fired:
    """A rule has found what it looks for."""

    rule: RuleSettings
    severity: Priority  # NOTICE while the rule cools down
    what: str  # in words, after the visitor's name: "has entered yard"
    track: int  # its id


@dataclass(frozen=True, slots=True)
class Gathered:
    """A rule about many holds, holds still when its cooldown is over, or holds no longer (`count` 0)."""

    rule: RuleSettings
    severity: Priority
    count: int
    box: Box | None  # around all of them
    since_ns: int


@dataclass(slots=True)
class _Stay:
    """One track before one rule."""

    inside: bool
    since_ns: int  # inside or outside for so long
    disagree: int = 0  # looks in a row that say otherwise
    fired: bool = False  # in this stay
    muted: bool = False  # it fired within the cooldown, and has been no alert yet
    side: int = 0  # of the line, as last clear of it: -1 left, 1 right
    foot: Point = (0.0, 0.0)  # where it was then


@dataclass(slots=True)
class _Stand:
    box: Box
    since_ns: int


@dataclass(slots=True)
class _Crowd:
    since_ns: int | None = None
    enough_ns: int = 0  # when there were enough last
    told: bool = False
    muted: bool = False  # as of a stay


def labels_of(rule: RuleSettings) -> frozenset[Label]:
    """What a rule looks at; of `allowed-only`, what it allows."""
    if rule.labels:
        return frozenset(Label(name) for name in rule.labels)
    if rule.kind == "allowed-only":
        return frozenset()
    return frozenset({Label.VEHICLE if rule.kind == "congestion" else Label.PERSON})


class RuleBook:
    """The rules of one camera and how each track stands to them. Times given must not go back."""

    def __init__(
        self, *, rules: Sequence[RuleSettings], zones: ZoneMap, lines: Sequence[LineSettings], active: Active
    ) -> None:
        """Zones and lines that rules name must exist (see faults.py)."""
        self._rules, self._zones, self._active = tuple(rules), zones, active
        self._lines = {line.name: (line.points[0], line.points[1]) for line in lines}
        self._labels = [labels_of(rule) for rule in self._rules]
        self._alerted_ns: list[int | None] = [None] * len(self._rules)
        self.forget()

    def __len__(self) -> int:
        return len(self._rules)

    def forget(self) -> None:
        """All tracks are gone, as after a jump in time. Cooldowns go on."""
        self._stays: dict[tuple[int, int], _Stay] = {}  # by rule's index and track's id
        self._stands: dict[int, _Stand] = {}
        self._crowds = [_Crowd() for _ in self._rules]

    def update(self, tracks: Sequence[Track], boot_ns: int) -> tuple[list[Fired], list[Gathered]]:
        """What the confirmed ones of `tracks` do, most severe first. A track that is missing has gone."""
        sure = [track for track in tracks if track.confirmed]
        here = {track.id for track in sure}
        fired: list[Fired] = []
        gathered: list[Gathered] = []
        self._stands = {key: stand for key, stand in self._stands.items() if key in here}
        for track in sure:
            self._stand(track)
        for index, rule in enumerate(self._rules):
            if rule.kind in ("crowd", "congestion"):
                gathered += self._many(index, rule, sure, boot_ns)
                continue
            for track in sure:
                if (track.label in self._labels[index]) != (rule.kind == "allowed-only"):
                    what = self._one(index, rule, track, boot_ns)
                    if what:
                        severity = self._severity(index, rule, boot_ns)
                        self._stays[index, track.id].muted = _muted(rule, severity)
                        fired.append(Fired(rule, severity, what, track.id))
        for (index, key), stay in list(self._stays.items()):
            if key not in here:
                del self._stays[index, key]
                rule = self._rules[index]
                if rule.kind == "leaves" and stay.inside and self._active(rule):
                    fired.append(Fired(rule, self._severity(index, rule, boot_ns), f"has left {_places(rule)}", key))
        fired.sort(key=lambda one: one.severity)
        return fired, gathered

    def _severity(self, index: int, rule: RuleSettings, boot_ns: int) -> Priority:
        """The rule's own, or NOTICE within its cooldown. Called once for each firing: an alert begins the cooldown."""
        if rule.severity == "notice":
            return Priority.NOTICE
        if self._cools(index, rule, boot_ns):
            return Priority.NOTICE
        self._alerted_ns[index] = boot_ns
        return Priority.ALERT

    def _cools(self, index: int, rule: RuleSettings, boot_ns: int) -> bool:
        last_ns = self._alerted_ns[index]
        return last_ns is not None and boot_ns - last_ns < rule.cooldown_s * NS

    def _inside(self, rule: RuleSettings, track: Track) -> bool:
        return not rule.zones or any(name in rule.zones for name in self._zones.at(track.box.foot))

    def _one(self, index: int, rule: RuleSettings, track: Track, boot_ns: int) -> str:
        """What `track` does that `rule` is about, in words; empty when nothing, or when the rule is not active."""
        if rule.kind == "crosses":
            return self._cross(index, rule, track, boot_ns)
        stay = self._stays.get((index, track.id))
        inside = self._inside(rule, track)
        turned = stay is None and inside  # first seen in the zone: it has entered
        if stay is None:
            stay = self._stays[index, track.id] = _Stay(inside, track.last_ns if inside else track.first_ns)
        elif track.last_ns == boot_ns:  # seen now; a prediction changes nothing
            stay.disagree = stay.disagree + 1 if inside != stay.inside else 0
            if stay.disagree >= _AGREE_LOOKS:
                stay.inside, stay.since_ns, stay.disagree, stay.fired = inside, track.last_ns, 0, False
                stay.muted = False
                turned = True
        where = _places(rule)
        if rule.kind == "leaves":
            return f"has left {where}" if turned and not stay.inside and self._active(rule) else ""
        again = stay.muted and track.last_ns == boot_ns and not self._cools(index, rule, boot_ns)
        if not stay.inside or (stay.fired and not again):
            return ""
        if rule.kind == "enters":
            return f"has entered {where}" if turned and self._active(rule) else ""
        passed_s = (track.last_ns - stay.since_ns) / NS
        if (rule.kind == "loiters" and passed_s < rule.for_s) or not self._active(rule):
            return ""
        stay.fired = True
        return {
            "loiters": f"has stayed in {where} for {passed_s:.0f} s",
            "forbidden": f"is in {where} at a forbidden hour",
            "allowed-only": f"is not allowed in {where}",
        }[rule.kind]

    def _cross(self, index: int, rule: RuleSettings, track: Track, boot_ns: int) -> str:
        if track.last_ns != boot_ns:
            return ""
        a, b = self._lines[rule.line]
        foot = track.box.foot
        length = max(((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5, 1e-9)
        off = turn(a, b, foot) / length
        if abs(off) < max(CLEAR_HEIGHTS * track.box.h, _CLEAR_MIN):
            return ""
        side = 1 if off > 0 else -1
        stay = self._stays.get((index, track.id))
        if stay is None:
            began = _first_clear(track, a, b, length)
            stay = self._stays[index, track.id] = _Stay(False, track.first_ns, side=began[0], foot=began[1])
        crossed = stay.side not in (0, side) and touch(stay.foot, foot, a, b)
        stay.side, stay.foot = side, foot
        to = "right" if side > 0 else "left"
        if not crossed or rule.direction not in ("any", to) or not self._active(rule):
            return ""
        return f"has crossed {rule.line} to the {to}"

    def _stand(self, track: Track) -> None:
        stand = self._stands.get(track.id)
        if stand is None or _moved_sizes(stand.box, track.box) > _STANDS_SIZES:
            self._stands[track.id] = _Stand(track.box, track.last_ns)

    def _many(self, index: int, rule: RuleSettings, tracks: Sequence[Track], boot_ns: int) -> list[Gathered]:
        crowd, labels = self._crowds[index], self._labels[index]
        members = [track for track in tracks if track.label in labels and self._inside(rule, track)]
        if rule.kind == "congestion":  # each has stood so long; a crowd needs to be one for so long
            members = [one for one in members if boot_ns - self._stands[one.id].since_ns >= rule.for_s * NS]
        if len(members) >= rule.count:
            crowd.enough_ns = boot_ns
            if crowd.since_ns is None:
                crowd.since_ns = boot_ns
        elif crowd.since_ns is not None and boot_ns - crowd.enough_ns >= _LULL_S * NS:
            since_ns, told = crowd.since_ns, crowd.told
            self._crowds[index] = _Crowd()
            return [Gathered(rule, Priority.NOTICE, 0, None, since_ns)] if told else []
        if crowd.since_ns is None or len(members) < rule.count:
            return []
        if crowd.told and (not crowd.muted or self._cools(index, rule, boot_ns)):
            return []
        if rule.kind == "crowd" and boot_ns - crowd.since_ns < rule.for_s * NS:
            return []
        if not self._active(rule):
            return []
        severity = self._severity(index, rule, boot_ns)
        crowd.told, crowd.muted = True, _muted(rule, severity)
        return [Gathered(rule, severity, len(members), _around(members), crowd.since_ns)]


def _muted(rule: RuleSettings, severity: Priority) -> bool:
    """Whether only the cooldown made a notice of it."""
    return rule.severity == "alert" and severity is Priority.NOTICE


def _first_clear(track: Track, a: Point, b: Point, length: float) -> tuple[int, Point]:
    """Side and place at which the track's path was first clear of the line; 0 when it never was before now."""
    for point in track.path[:-1]:
        off = turn(a, b, point) / length
        if abs(off) >= max(CLEAR_HEIGHTS * track.box.h, _CLEAR_MIN):
            return (1 if off > 0 else -1), point
    return 0, track.box.foot


def _moved_sizes(one: Box, other: Box) -> float:
    dx = abs(one.x + one.w / 2 - other.x - other.w / 2) / max((one.w + other.w) / 2, 1e-6)
    dy = abs(one.y + one.h / 2 - other.y - other.h / 2) / max((one.h + other.h) / 2, 1e-6)
    return max(dx, dy)


def _around(tracks: Sequence[Track]) -> Box:
    boxes = [track.box for track in tracks]
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    return Box(x, y, max(box.x2 for box in boxes) - x, max(box.y2 for box in boxes) - y)


def _places(rule: RuleSettings) -> str:
    return " or ".join(rule.zones) if rule.zones else "the picture"
