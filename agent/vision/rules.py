"""From tracks and motion to incidents: what is worth telling, once, and when it is over. Pure.

An incident is one visit: it starts when its track is confirmed, is updated when something material changes, and ends
when the track has gone. It keeps one id. Motion that no track explains is one incident for the whole picture, so that
rain cannot be a thousand; while it keeps coming back, each one is kept open longer.

Every event is true of one moment: `boot_ns` and `box` belong together, `score` is the best so far, `zones` are all that
were entered so far, in order, and `since_ns` is when the visitor was first seen.

At most OPEN_MAX incidents are open. When all are taken, an alert ends the oldest notice and takes its place; anything
else waits: its track lives on and starts an incident as soon as there is room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.config import VisionSettings
from agent.types import NS, Box, Event, Kind, Label, NewId, Phase, Priority
from agent.vision.regions import overlap
from agent.vision.tracker import Track
from agent.vision.zones import ZoneMap

OPEN_MAX = 32
BETTER_SCORE = 0.1  # so much surer is worth an update
_MOTION_PICTURES_MIN = 3  # two noisy pictures are no motion, however far apart
_MOTION_PAUSE_S = 1.0  # motion may pause so long while it gathers
_LINGER_S_MAX = 120.0
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


class Rules:
    """The open incidents of one camera. Times given must not go back."""

    def __init__(self, *, settings: VisionSettings, zones: ZoneMap, place: str, new_id: NewId) -> None:
        """`place` is where the camera looks, in words ("the gate"); it may be empty."""
        self._settings, self._zones, self._place, self._new_id = settings, zones, place, new_id
        self._alerts = frozenset(Kind(name) for name in settings.alert_on)
        self._open: dict[int, _Incident] = {}  # by track id
        self._motion: _Incident | None = None
        self._gathering = _Gathering()
        self._linger_s = settings.gone_s
        self._motion_ended_ns: int | None = None
        self.waiting = 0  # tracks that found no room at the last update

    @property
    def open_count(self) -> int:
        """Incidents that have started and not ended."""
        return len(self._open) + (self._motion is not None)

    def update(self, *, tracks: Sequence[Track], motion: Sequence[Box], boot_ns: int) -> list[Event]:
        """What is to be told after one picture. Usually nothing."""
        events: list[Event] = []
        alive = {track.id for track in tracks}
        events += [self._ended(self._open.pop(key)) for key in list(self._open) if key not in alive]
        self.waiting = 0
        for track in tracks:
            if not track.confirmed:
                continue
            incident = self._open.get(track.id)
            if incident is None:
                events += self._begun(track)
            elif track.last_ns > incident.last_ns:
                event = self._changed(incident, track, boot_ns)
                if event is not None:
                    events.append(event)
        events += self._plain_motion(tracks, motion, boot_ns)
        return events

    def close(self) -> list[Event]:
        """Ends everything, each incident at the time it was last seen."""
        events = [self._ended(incident) for incident in self._open.values()]
        self._open.clear()
        if self._motion is not None:
            events.append(self._ended(self._motion))
            self._motion = None
        self._gathering = _Gathering()
        return events

    def _begun(self, track: Track) -> list[Event]:
        kind = Kind(track.label)
        priority = self._priority(kind)
        events: list[Event] = []
        if self.open_count >= OPEN_MAX:
            notices = [(one.since_ns, key) for key, one in self._open.items() if one.priority > priority]
            if not notices:
                self.waiting += 1
                return []
            events.append(self._ended(self._open.pop(min(notices)[1])))
        incident = _Incident(
            self._new_id(), kind, priority, track.first_ns, track.last_ns, track.box, track.label, track.score
        )
        self._enter_zones(incident)
        self._open[track.id] = incident
        events.append(self._told(incident, Phase.STARTED))
        return events

    def _changed(self, incident: _Incident, track: Track, boot_ns: int) -> Event | None:
        incident.last_ns, incident.box, incident.score, incident.label = (
            track.last_ns,
            track.box,
            track.score,
            track.label,
        )
        incident.kind = Kind(track.label)
        incident.priority = self._priority(incident.kind)
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
        if self.open_count >= OPEN_MAX:
            self.waiting += 1
            return []
        calm = self._motion_ended_ns is None or boot_ns - self._motion_ended_ns > _CALM_S * NS
        self._linger_s = self._settings.gone_s if calm else min(self._linger_s * 2, _LINGER_S_MAX)
        priority, since_ns = self._priority(Kind.MOTION), self._gathering.since_ns
        self._motion = _Incident(self._new_id(), Kind.MOTION, priority, since_ns, boot_ns, box)
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

    def _priority(self, kind: Kind) -> Priority:
        return Priority.ALERT if kind in self._alerts else Priority.NOTICE

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
        )

    def _summary(self, incident: _Incident, phase: Phase) -> str:
        """One sentence that needs no legend."""
        name = _NAMES[incident.kind]
        article = "An" if name[0] in "aeiou" else "A"
        at = f" at {self._place}" if self._place else " in view"
        zones = incident.zones if phase is Phase.ENDED else incident.here
        where = f" (zone{'s' if len(zones) > 1 else ''} {', '.join(zones)})" if zones else ""
        sure = f", {incident.score:.0%} sure".replace("%", " %") if incident.score is not None else ""
        seconds = max(round((incident.last_ns - incident.since_ns) / NS), 1)
        if incident.kind is Kind.MOTION:
            return {
                Phase.STARTED: f"Something moves{at}{where}; not recognised",
                Phase.UPDATED: f"Something still moves{at}{where}; not recognised",
                Phase.ENDED: f"Nothing moves{at} any more, after {seconds} s{where}",
            }[phase]
        return {
            Phase.STARTED: f"{article} {name}{at}{where}{sure}",
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


def _explains(track: Track, motion: Box) -> bool:
    """Whether `motion` is the track's own, its shadow or its wake. An unconfirmed track may yet explain it."""
    box = track.box
    around = Box(box.x - box.w * 0.5, box.y - box.h * 0.3, box.w * 2, box.h * 1.6)
    return overlap(around, motion) > 0.4
