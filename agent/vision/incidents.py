"""From tracks and motion to incidents: what is worth telling, once, and when it is over. Pure.

An incident is one visit: it starts when its track is confirmed, is updated when something material changes, and ends
when the track has gone. It keeps one id. Motion that no track explains is one incident for the whole picture, so that
rain cannot be a thousand; while it keeps coming back, each one is kept open longer.

Without rules `vision.alert_on` says which visits are alerts. With rules (rules.py) a visit is a notice until one fires:
then its incident takes that rule's severity and an event names the rule, at once. What gathers (a crowd, congestion) is
an incident of its own. What never moves (statics.py) starts nothing.

Every event is true of one moment: `boot_ns` and `box` belong together, `score` is the best so far, `zones` are all that
were entered so far, in order, `since_ns` is when the visitor was first seen, `dwell_ns` how long ago that was, `height`
the largest share of the picture's height so far, and `path` where the foot went, in PATH_POINTS_MAX points at most.

At most OPEN_MAX incidents are open, and one for each rule about many. When all are taken, an alert ends the oldest
notice and takes its place; anything else waits: its track lives on and starts an incident as soon as there is room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.config import VisionSettings
from agent.types import NS, PATH_POINTS_MAX, Box, Event, Kind, Label, NewId, Phase, Priority
from agent.vision.faults import STATIC
from agent.vision.regions import overlap
from agent.vision.rules import TOPICS, Fired, Gathered, RuleBook, labels_of
from agent.vision.statics import Learned, Statics
from agent.vision.tracker import Track
from agent.vision.zones import ZoneMap

OPEN_MAX = 32
BETTER_SCORE = 0.1  # so much surer is worth an update
_MOTION_PICTURES_MIN = 3  # two noisy pictures are no motion, however far apart
_MOTION_PAUSE_S = 1.0  # motion may pause so long while it gathers
_LINGER_S_MAX = 120.0
_PATH_STEP = 0.01  # of the picture: closer points say nothing new
_CALM_S = 60.0  # quiet for so long: the next motion is news again

_NAMES = {
    Kind.PERSON: "person",
    Kind.VEHICLE: "vehicle",
    Kind.BICYCLE: "bicycle",
    Kind.ANIMAL: "animal",
    Kind.MOTION: "motion",
}


@dataclass(slots=True)
class _Incident:
    """One open incident as last told and as now known."""

    id: str
    kind: Kind
    priority: Priority
    since_ns: int
    last_ns: int
    box: Box
    label: Label | None = None
    score: float | None = None
    zones: list[str] = field(default_factory=list)
    here: tuple[str, ...] = ()  # zones it is in now
    told_ns: int = 0
    told_score: float = 0.0
    told_label: Label | None = None
    told_zones: int = 0
    raised: Priority = Priority.THUMBNAIL  # by a rule; THUMBNAIL: by none
    rule: str = ""  # the most severe one so far
    onvif: str = ""
    count: int = 0  # of a gathering
    height: float = 0.0
    path: list[tuple[float, float]] = field(default_factory=list)

    def follow(self, box: Box) -> None:
        """Takes where it is now into path and height."""
        self.height = max(self.height, box.clipped().h)
        x, y = box.foot
        if self.path and max(abs(x - self.path[-1][0]), abs(y - self.path[-1][1])) < _PATH_STEP:
            return
        self.path.append((x, y))
        if len(self.path) > PATH_POINTS_MAX:
            del self.path[1:-1:2]  # the whole way, at half the detail

    def raise_to(self, fired: Fired | Gathered) -> None:
        """The rule that fired raises the incident, and stands for it unless a more severe one does."""
        if fired.severity < self.raised or not self.rule:
            self.raised, self.rule, self.onvif = fired.severity, fired.rule.name, TOPICS[fired.rule.kind]


class Incidents:
    """The open incidents of one camera. Times given must not go back."""

    def __init__(
        self,
        *,
        settings: VisionSettings,
        zones: ZoneMap,
        place: str,
        new_id: NewId,
        rules: RuleBook | None = None,
        statics: Statics | None = None,
    ) -> None:
        """`place` is where the camera looks, in words ("the gate"); it may be empty."""
        self._rules = rules if rules is not None and len(rules) else None
        self._statics = statics
        self._settings, self._zones, self._place, self._new_id = settings, zones, place, new_id
        self._alerts = frozenset(Kind(name) for name in settings.alert_on) if self._rules is None else frozenset()
        self._open: dict[int, _Incident] = {}  # by track id
        self._gathered: dict[str, _Incident] = {}  # by rule
        self._motion: _Incident | None = None
        self._gathering = _Gathering()
        self._linger_s = settings.gone_s
        self._motion_ended_ns: int | None = None
        self.waiting = 0  # tracks that found no room at the last update

    @property
    def open_count(self) -> int:
        """Incidents that have started and not ended."""
        return len(self._open) + (self._motion is not None) + len(self._gathered)

    def update(
        self, *, tracks: Sequence[Track], motion: Sequence[Box], boot_ns: int, learned: Sequence[Learned] = ()
    ) -> list[Event]:
        """What is to be told after one picture. Usually nothing. `learned`: places that have just become static."""
        events = [self._ignored(one) for one in learned]
        live = [track for track in tracks if self._statics is None or not self._statics.ignores(track)]
        fired, gathered = self._rules.update(live, boot_ns) if self._rules is not None else ([], [])
        by_track: dict[int, list[Fired]] = {}
        for one in fired:
            by_track.setdefault(one.track, []).append(one)
        events += self._gone({track.id for track in live}, by_track)
        self.waiting = 0
        for track in live:
            if track.confirmed:
                events += self._visit(track, by_track.get(track.id, []), boot_ns)
        for gathering in gathered:
            events += self._gather(gathering, boot_ns)
        events += self._plain_motion(tracks, motion, boot_ns)
        return events

    def _gone(self, alive: set[int], fired: dict[int, list[Fired]]) -> list[Event]:
        """Ends the incidents of tracks that have gone, and tells of those that may not go before."""
        events: list[Event] = []
        for key in [key for key in self._open if key not in alive]:
            incident = self._open.pop(key)
            events += [self._by_rule(incident, one) for one in fired.get(key, [])]
            events.append(self._ended(incident))
        return events

    def _visit(self, track: Track, fired: Sequence[Fired], boot_ns: int) -> list[Event]:
        """What is to be told of one confirmed track."""
        incident = self._open.get(track.id)
        if incident is None:
            return self._begun(track, fired)
        event = self._changed(incident, track, boot_ns) if track.last_ns > incident.last_ns else None
        if fired:  # says all that the update would have said
            return [self._by_rule(incident, one) for one in fired]
        return [] if event is None else [event]

    def _by_rule(self, incident: _Incident, fired: Fired) -> Event:
        """Tells at once that a rule has fired, and raises the incident."""
        incident.raise_to(fired)
        incident.priority = self._priority(incident)
        event = self._told(incident, Phase.UPDATED)
        return dataclasses.replace(
            event,
            priority=fired.severity,
            rule=fired.rule.name,
            onvif=TOPICS[fired.rule.kind],
            summary=f"{self._who(incident)} {fired.what} (rule {fired.rule.name}){self._sure(incident)}",
        )

    def _gather(self, gathered: Gathered, boot_ns: int) -> list[Event]:
        name = gathered.rule.name
        if gathered.box is None:
            incident = self._gathered.pop(name, None)
            if incident is None:
                return []
            incident.last_ns = max(boot_ns, incident.last_ns)
            return [self._ended(incident)]
        known = self._gathered.get(name)
        label = min(labels_of(gathered.rule), key=list(Label).index)
        incident = known or _Incident(
            self._new_id(), Kind(label), gathered.severity, gathered.since_ns, boot_ns, gathered.box, label
        )
        incident.raise_to(gathered)
        incident.priority = gathered.severity
        incident.last_ns, incident.box = boot_ns, gathered.box
        incident.count = gathered.count
        incident.zones = list(gathered.rule.zones)
        incident.here = gathered.rule.zones
        incident.height = max(incident.height, gathered.box.clipped().h)
        self._gathered[name] = incident
        return [self._told(incident, Phase.STARTED if known is None else Phase.UPDATED)]

    def _ignored(self, learned: Learned) -> Event:
        """On record, once: what never moves is ignored from now on."""
        kind, zones = Kind(learned.label), self._zones.at(learned.box.foot)
        name = _NAMES[kind]
        minutes = max(round((learned.boot_ns - learned.since_ns) / (60 * NS)), 1)
        return Event(
            incident=self._new_id(),
            kind=kind,
            phase=Phase.ENDED,
            boot_ns=learned.boot_ns,
            priority=Priority.NOTICE,
            summary=f"What looks like {_article(name).lower()} {name}{self._at()}{_where(zones)} has not moved for"
            f" {minutes} min: ignored as static from now on",
            label=learned.label,
            box=learned.box,
            zones=zones,
            since_ns=learned.since_ns,
            dwell_ns=learned.boot_ns - learned.since_ns,
            rule=STATIC,
        )

    def seen_at(self, boot_ns: int) -> list[tuple[str, Box, float]]:
        """Id, box and score of the open visits that were seen at `boot_ns`."""
        return [(one.id, one.box, one.score or 0.0) for one in self._open.values() if one.last_ns == boot_ns]

    def close(self) -> list[Event]:
        """Ends everything, each incident at the time it was last seen."""
        events = [self._ended(incident) for incident in (*self._open.values(), *self._gathered.values())]
        self._open.clear()
        self._gathered.clear()
        if self._rules is not None:
            self._rules.forget()
        if self._statics is not None:
            self._statics.forget()
        if self._motion is not None:
            events.append(self._ended(self._motion))
            self._motion = None
        self._gathering = _Gathering()
        return events

    def _begun(self, track: Track, fired: Sequence[Fired]) -> list[Event]:
        """Begins an incident; the first rule that fired is in its first event, further ones follow."""
        incident = _Incident(
            self._new_id(), Kind(track.label), Priority.NOTICE, track.first_ns, track.last_ns, track.box, track.label,
            track.score, path=list(track.path[-PATH_POINTS_MAX:-1]),
        )  # fmt: skip
        for one in fired[:1]:
            incident.raise_to(one)
        priority = incident.priority = self._priority(incident)
        events: list[Event] = []
        if self.open_count - len(self._gathered) >= OPEN_MAX:
            notices = [(one.since_ns, key) for key, one in self._open.items() if one.priority > priority]
            if not notices:
                self.waiting += 1
                return []
            events.append(self._ended(self._open.pop(min(notices)[1])))
        incident.follow(track.box)
        self._enter_zones(incident)
        self._open[track.id] = incident
        started = self._told(incident, Phase.STARTED)
        for one in fired[:1]:
            what = f"{self._who(incident)} {one.what} (rule {one.rule.name}){self._sure(incident)}"
            started = dataclasses.replace(started, summary=what)
        events.append(started)
        events += [self._by_rule(incident, one) for one in fired[1:]]
        return events

    def _changed(self, incident: _Incident, track: Track, boot_ns: int) -> Event | None:
        incident.last_ns, incident.box, incident.score, incident.label = (
            track.last_ns,
            track.box,
            track.score,
            track.label,
        )
        incident.kind = Kind(track.label)
        incident.priority = self._priority(incident)
        incident.follow(track.box)
        self._enter_zones(incident)
        material = (
            incident.label is not incident.told_label
            or track.score >= incident.told_score + BETTER_SCORE
            or len(incident.zones) > incident.told_zones
        )
        if not material:
            return None
        # What turns out to be a person after all cannot wait for its turn.
        urgent = incident.label is not incident.told_label and incident.priority is Priority.ALERT
        if not urgent and boot_ns - incident.told_ns < self._settings.update_s * NS:
            return None
        return self._told(incident, Phase.UPDATED)

    def _enter_zones(self, incident: _Incident) -> None:
        incident.here = self._zones.at(incident.box.foot)
        incident.zones += [zone for zone in incident.here if zone not in incident.zones]

    def _plain_motion(self, tracks: Sequence[Track], motion: Sequence[Box], boot_ns: int) -> list[Event]:
        """Motion beside every track: gathered until it is worth an incident, then followed until it ceases."""
        unexplained = [box for box in motion if not any(_explains(track, box) for track in tracks)]
        if self._motion is not None:
            return self._follow_motion(self._motion, unexplained, boot_ns)
        if not unexplained:
            self._gathering.pause(boot_ns)
            return []
        self._gathering.add(boot_ns)
        lasting = boot_ns - self._gathering.since_ns >= self._settings.motion_s * NS
        return (
            self._begin_motion(unexplained[0], boot_ns)
            if lasting and self._gathering.pictures >= _MOTION_PICTURES_MIN
            else []
        )

    def _begin_motion(self, box: Box, boot_ns: int) -> list[Event]:
        if self.open_count - len(self._gathered) >= OPEN_MAX:
            self.waiting += 1
            return []
        calm = self._motion_ended_ns is None or boot_ns - self._motion_ended_ns > _CALM_S * NS
        self._linger_s = self._settings.gone_s if calm else min(self._linger_s * 2, _LINGER_S_MAX)
        self._motion = _Incident(self._new_id(), Kind.MOTION, Priority.NOTICE, self._gathering.since_ns, boot_ns, box)
        self._motion.priority = self._priority(self._motion)
        self._enter_zones(self._motion)
        return [self._told(self._motion, Phase.STARTED)]

    def _follow_motion(self, incident: _Incident, unexplained: Sequence[Box], boot_ns: int) -> list[Event]:
        if unexplained:
            incident.last_ns, incident.box = boot_ns, unexplained[0]
            self._enter_zones(incident)
            news = len(incident.zones) > incident.told_zones
            if news and boot_ns - incident.told_ns >= self._settings.update_s * NS:
                return [self._told(incident, Phase.UPDATED)]
        elif boot_ns - incident.last_ns >= self._linger_s * NS:
            self._motion, self._motion_ended_ns = None, incident.last_ns
            self._gathering = _Gathering()
            return [self._ended(incident)]
        return []

    def _priority(self, incident: _Incident) -> Priority:
        """What the kind is worth by itself, or what a rule has made of it."""
        return min(Priority.ALERT if incident.kind in self._alerts else Priority.NOTICE, incident.raised)

    def _told(self, incident: _Incident, phase: Phase) -> Event:
        incident.told_ns, incident.told_label = incident.last_ns, incident.label
        incident.told_score, incident.told_zones = incident.score or 0.0, len(incident.zones)
        return self._event(incident, phase)

    def _ended(self, incident: _Incident) -> Event:
        return self._event(incident, Phase.ENDED)

    def _event(self, incident: _Incident, phase: Phase) -> Event:
        return Event(
            incident=incident.id,
            kind=incident.kind,
            phase=phase,
            boot_ns=incident.last_ns,
            priority=incident.priority,
            summary=self._summary(incident, phase),
            label=incident.label,
            score=incident.score,
            box=incident.box,
            zones=tuple(incident.zones),
            since_ns=incident.since_ns,
            rule=incident.rule,
            onvif=incident.onvif,
            path=() if phase is Phase.STARTED or incident.kind is Kind.MOTION else tuple(incident.path),
            dwell_ns=max(incident.last_ns - incident.since_ns, 0),
            height=incident.height or None,
        )

    def _at(self) -> str:
        return f" at {self._place}" if self._place else " in view"

    def _who(self, incident: _Incident) -> str:
        name = _NAMES[incident.kind]
        return f"{_article(name)} {name}{self._at()}"

    def _sure(self, incident: _Incident) -> str:
        return f", {incident.score:.0%} sure".replace("%", " %") if incident.score is not None else ""

    def _summary(self, incident: _Incident, phase: Phase) -> str:
        """One sentence that needs no legend."""
        name, at, sure = _NAMES[incident.kind], self._at(), self._sure(incident)
        where = _where(incident.zones if phase is Phase.ENDED else incident.here)
        seconds = max(round((incident.last_ns - incident.since_ns) / NS), 1)
        if incident.kind is Kind.MOTION:
            return {
                Phase.STARTED: f"Something moves{at}{where}; not recognised",
                Phase.UPDATED: f"Something still moves{at}{where}; not recognised",
                Phase.ENDED: f"Nothing moves{at} any more, after {seconds} s{where}",
            }[phase]
        if incident.count:
            rule, count = f"(rule {incident.rule})", incident.count
            if count == 1:  # congestion of one: the car that blocks the gate
                return {
                    Phase.STARTED: f"{_article(name)} {name}{at}{where} has stood for {seconds} s {rule}",
                    Phase.UPDATED: f"The {name}{at}{where} still stands there {rule}",
                    Phase.ENDED: f"The {name}{at} no longer stands there, after {seconds} s{where} {rule}",
                }[phase]
            return {
                Phase.STARTED: f"{count} {name}s together{at}{where} for {seconds} s {rule}",
                Phase.UPDATED: f"{count} {name}s are still together{at}{where} {rule}",
                Phase.ENDED: f"The {count} {name}s together{at} have dispersed after {seconds} s{where} {rule}",
            }[phase]
        return {
            Phase.STARTED: f"{_article(name)} {name}{at}{where}{sure}",
            Phase.UPDATED: f"The {name} is still{at}{where}{sure}",
            Phase.ENDED: f"The {name}{at} has gone after {seconds} s{where}{sure}",
        }[phase]


@dataclass(slots=True)
class _Gathering:
    """Unexplained motion that is not yet an incident."""

    since_ns: int = 0
    last_ns: int = 0
    pictures: int = 0
    gap_ns: int = 0  # between its last two pictures

    def add(self, boot_ns: int) -> None:
        if not self.pictures:
            self.since_ns = boot_ns
        else:
            self.gap_ns = boot_ns - self.last_ns
        self.pictures, self.last_ns = self.pictures + 1, boot_ns

    def pause(self, boot_ns: int) -> None:
        """Forgets it when it pauses for long, as measured by the pace at which pictures come."""
        if self.pictures and boot_ns - self.last_ns > max(_MOTION_PAUSE_S * NS, self.gap_ns * 1.5):
            self.pictures = 0


def _article(name: str) -> str:
    return "An" if name[0] in "aeiou" else "A"


def _where(zones: Sequence[str]) -> str:
    return f" (zone{'s' if len(zones) > 1 else ''} {', '.join(zones)})" if zones else ""


def _explains(track: Track, motion: Box) -> bool:
    """Whether `motion` is the track's own, its shadow or its wake. An unconfirmed track may yet explain it.

    But none that has never moved: detectors see an animal in the pavement, which explains nobody who walks there.
    """
    if track.furniture:
        return False
    box = track.box
    around = Box(box.x - box.w * 0.5, box.y - box.h * 0.3, box.w * 2, box.h * 1.6)
    return overlap(around, motion) > 0.4
