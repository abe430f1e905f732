"""Which footage goes when room is needed, and its removal.

    delete   row garbage + tombstone (one transaction), unlink, folder synced, row forgotten

In that order a cut leaves either the footage with its row, or a row that says the rest of the deletion is still to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.clock import Clock
from agent.config import RecordingSettings
from agent.disk import Disk
from agent.errors import Transient, WardpostError
from agent.recording.index import Index
from agent.recording.timeline import Timeline
from agent.types import NS, Event, Kind, NewId, Phase, Priority, Segment

PERIOD_S = 5.0
DELETIONS_PER_STEP = 16
YOUNG_S = 24 * 3600.0  # footage younger than this should not have to go
CALM_S = 3600.0  # the notice about it ends when none had to for so long
BALLAST = "ballast"
BALLAST_BYTES = 4 << 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may stay."""

    budget_bytes: int
    free_bytes_min: int
    age_ns_max: int

    @classmethod
    def of(cls, settings: RecordingSettings) -> Limits:
        return cls(
            budget_bytes=round(settings.budget_gb * 1e9),
            free_bytes_min=round(settings.free_gb_min * 1e9),
            age_ns_max=round(settings.keep_days_max * 86_400 * NS),
        )


def never(_segment: Segment) -> bool:
    """The default for `protected`."""
    return False


def decide(
    segments: Sequence[Segment],
    *,
    limits: Limits,
    free_bytes: int,
    age_ns: Callable[[Segment], int | None],
    protected: Callable[[Segment], bool] = never,
) -> list[tuple[Segment, str]]:
    """What must go and why, oldest first. `segments` oldest first; `age_ns` is None where time cannot be vouched for.

    Room is made by age in the order of recording, which needs no clock. Protected footage is passed over: when nothing
    else is left, the budget is exceeded rather than the promise broken.
    """
    total = sum(segment.bytes for segment in segments)
    doomed: list[tuple[Segment, str]] = []
    for segment in segments:
        age = age_ns(segment)
        if total > limits.budget_bytes:
            reason = "budget"
        elif free_bytes < limits.free_bytes_min:
            reason = "disk full"
        elif age is not None and age > limits.age_ns_max:
            reason = "age"
        else:
            continue
        if protected(segment):
            continue
        doomed.append((segment, reason))
        total -= segment.bytes
        free_bytes += segment.bytes
    return doomed


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
        protected: Callable[[Segment], bool] = never,
    ) -> None:
        """`protected`: footage that must outlive ordinary footage (holds, clips not sent yet)."""
        self._limits = limits
        self._disk = disk
        self._index = index
        self._clock = clock
        self._report = report
        self._new_id = new_id
        self._protected = protected
        self._incident: tuple[str, int] | None = None
        self._young_s = 0.0  # when young footage last had to go
        self.deleted = 0  # segments, since the start

    def open(self) -> None:
        return

    def close(self) -> None:
        return

    def step(self, now: float) -> float:
        """At most DELETIONS_PER_STEP files; comes back at once while there is more to do."""
        try:
            self._ballast()
            more = self._delete(now)
        except Transient as error:
            # SQLite needs room to write down a deletion: the ballast is that room.
            log.error("retention: %s", error)  # noqa: TRY400
            self._drop_ballast()
            return now + PERIOD_S
        if self._incident is not None and now - self._young_s > CALM_S:
            self._say(Phase.ENDED, "Room for recordings suffices again")
            self._incident = None
        return now if more else now + PERIOD_S

    def _delete(self, now: float) -> bool:
        unfinished = [segment.name for segment in self._index.segments(garbage=True)][:DELETIONS_PER_STEP]
        if unfinished:
            self._remove(unfinished)
            return True
        doomed = decide(
            self._index.segments(),
            limits=self._limits,
            free_bytes=self._disk.free_bytes(),
            age_ns=self._ages(),
            protected=self._protected,
        )
        batch = doomed[:DELETIONS_PER_STEP]
        for reason in dict.fromkeys(reason for _, reason in batch):
            names = [segment.name for segment, why in batch if why == reason]
            self._index.condemn(names, reason)
            self._remove(names)
        self._warn(batch, now)
        return len(doomed) > len(batch)

    def _remove(self, names: list[str]) -> None:
        for name in names:
            self._disk.unlink(name)
        self._index.forget(names)
        self.deleted += len(names)

    def _ages(self) -> Callable[[Segment], int | None]:
        """Age by the wall clock, where both ends can be vouched for: a clock set to 2100 must not delete everything."""
        utc = self._clock.utc()
        timeline = Timeline(self._index.anchors())

        def age_ns(segment: Segment) -> int | None:
            moment = timeline.utc(segment.boot_id, segment.end_ns)
            if utc.unc_ns is None or moment is None or moment.unc_ns is None:
                return None
            return utc.utc_ns - moment.utc_ns

        return age_ns

    def _warn(self, batch: Sequence[tuple[Segment, str]], now: float) -> None:
        """Says so when footage goes that a person would expect to find."""
        ages = self._ages()
        for segment, reason in batch:
            age = ages(segment)
            if segment.boot_id == self._clock.boot_id:
                age = self._clock.boot_ns() - segment.end_ns
            if reason == "age" or age is None or age > YOUNG_S * NS:
                continue
            self._young_s = now
            if self._incident is None:
                self._incident = (self._new_id(), self._clock.boot_ns())
                hours = age / NS / 3600
                self._say(Phase.STARTED, f"Recordings only {hours:.1f} h old are deleted for lack of room ({reason})")

    def _say(self, phase: Phase, summary: str) -> None:
        if self._incident is None:
            return
        incident, since_ns = self._incident
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
