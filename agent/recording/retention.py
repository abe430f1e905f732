"""Which footage goes when room is needed, and its removal.

    delete   row garbage + tombstone (one transaction), unlink, folder synced, row forgotten

In that order a cut leaves either the footage with its row, or a row that says the rest of the deletion is still to do.

Every segment is of one class (`Keep`). Room is made from the lowest class up, the oldest of a class first. Footage
around events has a share of the budget: what exceeds it counts as ordinary again, so that there is always room for what
comes. Held footage has a share of its own (agent.recording.holds) and is never deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from agent.clock import Clock, rfc3339
from agent.config import RecordingSettings
from agent.disk import Disk
from agent.errors import Transient, WardpostError
from agent.recording.holds import Kept, bytes_per_s
from agent.recording.index import Index
from agent.recording.marks import MarkedTime, Marks
from agent.recording.timeline import Timeline
from agent.types import NS, Event, Hold, Kind, NewId, Phase, Priority, Segment

PERIOD_S = 5.0
FORECAST_S = 60.0
AGES_S = 60.0
"""Whether footage has grown too old is asked so often; whether there is room for it at every step. The first means
reading every row, and a card of 1 TB has 200,000: neither it nor the forecast takes more than SHARE_MAX of the time."""
SHARE_MAX = 0.01
DELETIONS_PER_STEP = 16
SILENT_S = 600.0  # nothing sealed for so long: the present rate is nothing
CALM_S = 3600.0  # the notice about young footage ends when none had to go, or was about to, for so long
BALLAST = "ballast"
BALLAST_BYTES = 4 << 20
NEVER_S = 10 * 366 * 86_400.0  # beyond this a forecast says nothing

log = logging.getLogger(__name__)


class Keep(IntEnum):
    """Classes of footage; the smaller goes first."""

    CONTINUOUS = 0  # nothing happened
    EVENT = 1  # around an event
    UNSENT = 2  # around an alert that headquarters does not have yet
    HELD = 3  # a person wants it: never deleted


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may stay."""

    budget_bytes: int
    free_bytes_min: int
    age_ns_max: int
    event_bytes_max: int = 1 << 62  # of EVENT and UNSENT together
    event_age_ns_max: int = 1 << 62
    young_ns: int = 24 * 3600 * NS  # footage younger than this should not have to go
    notice_ns: int = 2 * 3600 * NS  # so long before it has to, headquarters is told

    @classmethod
    def of(cls, settings: RecordingSettings) -> Limits:
        return cls(
            budget_bytes=round(settings.budget_gb * 1e9),
            free_bytes_min=round(settings.free_gb_min * 1e9),
            age_ns_max=round(settings.keep_days_max * 86_400 * NS),
            event_bytes_max=round(settings.budget_gb * 1e9 * settings.event_share_max),
            event_age_ns_max=round(max(settings.event_days_max, settings.keep_days_max) * 86_400 * NS),
            young_ns=round(settings.young_h * 3600 * NS),
            notice_ns=round(settings.notice_h * 3600 * NS),
        )


def ordinary(_segment: Segment) -> Keep:
    """The default for `keep`."""
    return Keep.CONTINUOUS


def within_share(segments: Sequence[Segment], keep: Callable[[Segment], Keep], event_bytes_max: int) -> dict[str, Keep]:
    """The class of each segment, by name.

    Footage of events beyond their share is ordinary: what is sent before what is not, the oldest first.
    """
    classes = {segment.name: keep(segment) for segment in segments}
    over = sum(s.bytes for s in segments if classes[s.name] in (Keep.EVENT, Keep.UNSENT)) - event_bytes_max
    for level in (Keep.EVENT, Keep.UNSENT):
        for segment in segments:
            if over <= 0:
                return classes
            if classes[segment.name] is level:
                classes[segment.name] = Keep.CONTINUOUS
                over -= segment.bytes
    return classes


def decide(
    segments: Sequence[Segment],
    *,
    limits: Limits,
    free_bytes: int,
    age_ns: Callable[[Segment], int | None],
    keep: Callable[[Segment], Keep] = ordinary,
) -> list[tuple[Segment, str]]:
    """What must go and why, first things first. `segments` oldest first; `age_ns` None: time cannot be vouched for.

    Room is made by age in the order of recording, which needs no clock. Held footage is passed over: when nothing else
    is left, the budget is exceeded rather than the promise broken.
    """
    total = sum(segment.bytes for segment in segments)
    if total <= limits.budget_bytes and free_bytes >= limits.free_bytes_min:
        ages = [age for segment in segments if (age := age_ns(segment)) is not None]
        if max(ages, default=0) <= min(limits.age_ns_max, limits.event_age_ns_max):
            return []
    classes = within_share(segments, keep, limits.event_bytes_max)
    age_max = {Keep.CONTINUOUS: limits.age_ns_max, Keep.EVENT: limits.event_age_ns_max}
    doomed: list[tuple[Segment, str]] = []
    for level in (Keep.CONTINUOUS, Keep.EVENT, Keep.UNSENT):
        for segment in segments:
            if classes[segment.name] is not level:
                continue
            age = age_ns(segment)
            if level in age_max and age is not None and age > age_max[level]:
                reason = "age"
            elif total > limits.budget_bytes:
                reason = "budget"
            elif free_bytes < limits.free_bytes_min:
                reason = "disk full"
            else:
                continue
            doomed.append((segment, reason))
            total -= segment.bytes
            free_bytes += segment.bytes
    return doomed


@dataclass(frozen=True, slots=True)
class ClassForecast:
    """How a class of footage stands. `gone_in_s`: its oldest is expected to be deleted then, at the present rate."""

    keep: Keep
    segments: int
    bytes: int
    oldest: Segment | None
    gone_in_s: float | None  # None: not to be expected
    age_s: float | None  # of the oldest, now; None: time cannot be vouched for


def forecast(
    segments: Sequence[Segment],
    *,
    limits: Limits,
    free_bytes: int,
    age_ns: Callable[[Segment], int | None],
    keep: Callable[[Segment], Keep],
    hold_ends_in_s: float | None = None,
    rate: float | None = None,
) -> dict[Keep, ClassForecast]:
    """When the oldest footage of each class has to go, if everything goes on as it does. Pure.

    Ordinary footage goes when the room is used up, or for its age; footage of events when it has outgrown its share, or
    for its age; footage of unsent alerts when nothing else is left of that share; held footage when its hold ends.
    """
    per_s = bytes_per_s(segments, 0.0) if rate is None else rate
    classes = within_share(segments, keep, limits.event_bytes_max)
    room = max(min(limits.budget_bytes - sum(s.bytes for s in segments), free_bytes - limits.free_bytes_min), 0)
    found: dict[Keep, ClassForecast] = {}
    of: dict[Keep, list[Segment]] = {level: [] for level in Keep}
    for segment in segments:
        of[classes[segment.name]].append(segment)
    taken = {level: sum(s.bytes for s in of[level]) for level in Keep}
    share_left = max(limits.event_bytes_max - taken[Keep.EVENT] - taken[Keep.UNSENT], 0)
    seconds = sum(s.end_ns - s.start_ns for s in segments) / NS
    event_per_s = (taken[Keep.EVENT] + taken[Keep.UNSENT]) / seconds if seconds else 0.0
    for level in Keep:
        oldest = of[level][0] if of[level] else None
        age = None if oldest is None else age_ns(oldest)
        ways: list[float] = []
        if oldest is not None and level is Keep.CONTINUOUS:
            ways += [room / per_s] if per_s else []
            ways += [] if age is None else [(limits.age_ns_max - age) / NS]
        elif oldest is not None and level is Keep.EVENT:
            ways += [share_left / event_per_s] if event_per_s else []
            ways += [] if age is None else [(limits.event_age_ns_max - age) / NS]
        elif oldest is not None and level is Keep.UNSENT:
            ways += [(share_left + taken[Keep.EVENT]) / event_per_s] if event_per_s else []
        elif oldest is not None and hold_ends_in_s is not None:
            ways.append(hold_ends_in_s)
        soonest = max(min(ways), 0.0) if ways else None
        found[level] = ClassForecast(
            keep=level,
            segments=len(of[level]),
            bytes=taken[level],
            oldest=oldest,
            gone_in_s=None if soonest is None or soonest > NEVER_S else soonest,
            age_s=None if age is None else age / NS,
        )
    return found


class HoldKeeper(Protocol):
    """What retention needs of `agent.recording.holds.HoldDesk`."""

    @property
    def steady(self) -> AbstractContextManager[Any]: ...

    def in_force(self) -> list[Hold]: ...

    def held(self, segments: Sequence[Segment], timeline: Timeline) -> Kept: ...

    def expire(self) -> list[Hold]: ...


class NoHolds:
    """Nobody holds anything."""

    @property
    def steady(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def in_force(self) -> list[Hold]:
        return []

    def held(self, segments: Sequence[Segment], timeline: Timeline) -> Kept:  # noqa: ARG002
        return Kept(frozenset(), 0, 0)

    def expire(self) -> list[Hold]:
        return []


@dataclass(frozen=True, slots=True)
class Outlook:
    """The newest forecast, with its moment. A snapshot: replaced, never changed."""

    boot_ns: int
    classes: dict[Keep, ClassForecast] = field(default_factory=dict)
    left_out: int = 0  # segments in held ranges for which the share of holds had no room


class RetentionWorker:
    """Deletes what `decide` says. Only sealed segments have rows, so the one being written is never touched."""

    name = "retention"
    step_s_max = 60.0

    def __init__(
        self,
        *,
        limits: Limits,
        disk: Disk,
        index: Index,
        clock: Clock,
        report: Callable[[Sequence[Event]], None],
        new_id: NewId,
        marks: Marks | None = None,
        holds: HoldKeeper | None = None,
    ) -> None:
        """`marks`: where something happened; `holds`: what must never go."""
        self._limits = limits
        self._disk = disk
        self._index = index
        self._clock = clock
        self._report = report
        self._new_id = new_id
        self._marks = marks
        self._holds: HoldKeeper = holds or NoHolds()
        self._incidents: dict[str, tuple[str, int]] = {}  # what it is about -> id, since
        self._last_s: dict[str, float] = {}  # when it was last so
        self._forecast_s = 0.0
        self._ages_s = 0.0
        self._unfinished = True  # there may be garbage: a deletion that was cut off
        self.outlook = Outlook(0)
        self.deleted = 0  # segments, since the start

    def open(self) -> None:
        self._forecast_s = self._ages_s = 0.0
        self._unfinished = True

    def close(self) -> None:
        return

    def step(self, now: float) -> float:
        """At most DELETIONS_PER_STEP files; comes back at once while there is more to do."""
        try:
            self._ballast()
            if self._marks is not None and not self._marks.catch_up():
                return now  # what has happened is not all read: nothing is deleted in ignorance
            more = self._delete(now)
            if not more and now >= self._forecast_s:
                began_ns, self._forecast_s = self._clock.boot_ns(), now + FORECAST_S
                self._look_ahead(now)
                self._forecast_s = now + max(FORECAST_S, self._since_s(began_ns) / SHARE_MAX)
        except Transient as error:
            # SQLite needs room to write down a deletion: the ballast is that room.
            log.error("retention: %s", error)  # noqa: TRY400
            self._drop_ballast()
            return now + PERIOD_S
        for about in list(self._incidents):
            if now - self._last_s[about] > CALM_S:
                self._say(about, Phase.ENDED, "Room for recordings suffices again")
                del self._incidents[about]
        return now if more else now + PERIOD_S

    def _delete(self, now: float) -> bool:
        if self._unfinished:
            unfinished = [segment.name for segment in self._index.segments(garbage=True)][:DELETIONS_PER_STEP]
            if unfinished:
                self._remove(unfinished)
                return True
            self._unfinished = False
        with self._holds.steady:  # a hold that comes between the decision and the deed would come too late
            self._holds.expire()
            room = (
                self._index.footage_bytes <= self._limits.budget_bytes
                and self._disk.free_bytes() >= self._limits.free_bytes_min
            )
            if room and now < self._ages_s:
                return False
            began_ns = self._clock.boot_ns()
            segments = self._index.segments()
            doomed = decide(
                segments,
                limits=self._limits,
                free_bytes=self._disk.free_bytes(),
                age_ns=self._ages(),
                keep=self._classes(segments),
            )
            self._ages_s = now + max(AGES_S, self._since_s(began_ns) / SHARE_MAX)
            batch = doomed[:DELETIONS_PER_STEP]
            self._unfinished = bool(batch)
            reasons = dict.fromkeys(reason for _, reason in batch)
            for reason in reasons:
                self._index.condemn([segment.name for segment, why in batch if why == reason], reason)
        self._remove([segment.name for segment, _ in batch])
        self._unfinished = False
        self._warn(batch, now)
        more = len(doomed) > len(batch)
        if more:
            self._ages_s = now  # the next step goes on, whatever it is about
        return more

    def _since_s(self, began_ns: int) -> float:
        return (self._clock.boot_ns() - began_ns) / NS

    def _classes(self, segments: Sequence[Segment]) -> Callable[[Segment], Keep]:
        """The class of a segment; what it rests on is read when the first one is asked about."""
        read: list[tuple[frozenset[str], MarkedTime]] = []

        def keep(segment: Segment) -> Keep:
            if not read:
                held = self._holds.held(segments, Timeline(self._index.anchors())).names
                read.append((held, self._marks.unsent() if self._marks is not None else MarkedTime()))
            held, unsent = read[0]
            if segment.name in held:
                return Keep.HELD
            if unsent.touches(segment):
                return Keep.UNSENT
            marked = self._marks is not None and self._marks.touches(segment)
            return Keep.EVENT if marked else Keep.CONTINUOUS

        return keep

    def _look_ahead(self, now: float) -> None:
        segments, age_ns = self._index.segments(), self._ages()
        utc, ends = self._clock.utc(), [h.until_utc_ns for h in self._holds.in_force() if h.until_utc_ns is not None]
        newest = segments[-1] if segments else None
        silent = newest is None or newest.boot_id != self._clock.boot_id
        if newest is not None and not silent:
            silent = self._clock.boot_ns() - newest.end_ns > SILENT_S * NS
        found = forecast(
            segments,
            limits=self._limits,
            free_bytes=self._disk.free_bytes(),
            rate=0.0 if silent else None,
            age_ns=age_ns,
            keep=self._classes(segments),
            hold_ends_in_s=(min(ends) - utc.utc_ns) / NS if ends and utc.unc_ns is not None else None,
        )
        left_out = self._holds.held(segments, Timeline(self._index.anchors())).left_out
        self.outlook = Outlook(self._clock.boot_ns(), found, left_out)
        soon_s = self._limits.notice_ns / NS
        first = found[Keep.CONTINUOUS]
        if first.gone_in_s is not None and first.age_s is not None and 0 < first.gone_in_s <= soon_s:
            age_then_s = first.age_s + first.gone_in_s
            if age_then_s < min(self._limits.young_ns, self._limits.age_ns_max) / NS:
                when = rfc3339(utc.utc_ns + round(first.gone_in_s * NS))
                text = f"From {when} on recordings will be overwritten when they are only {age_then_s / 3600:.1f} h old"
                self._notice("young", text, now)
        unsent = found[Keep.UNSENT]
        if unsent.gone_in_s is not None and unsent.gone_in_s <= soon_s:
            hours = unsent.gone_in_s / 3600
            text = f"In about {hours:.1f} h recordings must go whose alerts headquarters does not have yet"
            self._notice("unsent", text, now)
        if left_out:
            text = f"{left_out} recordings in a held range are not held: the share for holds is full"
            self._notice("holds", text, now)

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._disk.unlink(name)
        self._index.forget(names)
        self.deleted += len(names)

    def _ages(self) -> Callable[[Segment], int | None]:
        """Age of this boot's footage by its own clock; else by the wall clock, where both ends can be vouched for.

        A clock set to 2100 must not delete everything, not even when a wrong time server vouches for it: of all that it
        has said in this boot the earliest counts.
        """
        utc, now_ns, boot_id = self._clock.utc(), self._clock.boot_ns(), self._clock.boot_id
        anchors = self._index.anchors()
        timeline = Timeline(anchors)
        vouched = [a.utc_ns + now_ns - a.boot_ns for a in anchors if a.boot_id == boot_id and a.unc_ns is not None]
        earliest_ns = min([utc.utc_ns, *vouched])

        def age_ns(segment: Segment) -> int | None:
            if segment.boot_id == boot_id:
                return now_ns - segment.end_ns
            moment = timeline.utc(segment.boot_id, segment.end_ns)
            if utc.unc_ns is None or moment is None or moment.unc_ns is None:
                return None
            return earliest_ns - moment.utc_ns

        return age_ns

    def _warn(self, batch: Sequence[tuple[Segment, str]], now: float) -> None:
        """Says so when footage goes that a person would expect to find."""
        ages = self._ages()
        for segment, reason in batch:
            age = ages(segment)
            if segment.boot_id == self._clock.boot_id:
                age = self._clock.boot_ns() - segment.end_ns
            if reason == "age" or age is None or age > self._limits.young_ns:
                continue
            hours = age / NS / 3600
            self._notice("young", f"Recordings only {hours:.1f} h old are deleted for lack of room ({reason})", now)

    def _notice(self, about: str, summary: str, now: float) -> None:
        """One incident for as long as it goes on."""
        self._last_s[about] = now
        if about not in self._incidents:
            self._incidents[about] = (self._new_id(), self._clock.boot_ns())
            self._say(about, Phase.STARTED, summary)

    def _say(self, about: str, phase: Phase, summary: str) -> None:
        incident, since_ns = self._incidents[about]
        event = Event(
            incident=incident,
            kind=Kind.STORAGE,
            phase=phase,
            boot_ns=self._clock.boot_ns(),
            priority=Priority.NOTICE,
            summary=summary,
            since_ns=since_ns,
        )
        self._report([event])

    # -- room for the index on a full disk ----------------------------------------------------------------------------

    def _ballast(self) -> None:
        """Keeps BALLAST_BYTES aside while there is room."""
        try:
            if self._disk.size(BALLAST) >= BALLAST_BYTES:
                return
            self._disk.unlink(BALLAST)  # cut off while it was made
        except FileNotFoundError:
            pass
        if self._disk.free_bytes() < 2 * BALLAST_BYTES:
            return
        file = self._disk.create(BALLAST)
        try:
            file.write(bytes(BALLAST_BYTES))
            file.sync()
        finally:
            file.close()

    def _drop_ballast(self) -> None:
        try:
            self._disk.unlink(BALLAST)
        except WardpostError as error:
            log.error("retention: %s", error)  # noqa: TRY400
