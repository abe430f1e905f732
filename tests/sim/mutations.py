"""Bugs that have cost others their footage or their alerts, planted into the real parts by subclassing.

Each one is a way in which Wardpost could be written that looks right and passes a test without power cuts.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from agent import boot
from agent.disk import Disk, DurableFile
from agent.evidence.ledger import Ledger
from agent.evidence.worker import LedgerWorker
from agent.recording.holds import HoldDesk, Kept
from agent.recording.index import FOLDER
from agent.recording.recorder import RecorderWorker
from agent.recording.recover import Recovery, recover
from agent.recording.retention import RetentionWorker
from agent.recording.timeline import Timeline
from agent.station.intake import EventIn
from agent.station.store import Batch, Stored
from agent.store.store import Store
from agent.transaction import statements
from agent.types import Event, Gap, Priority, Segment
from agent.uplink.worker import UplinkWorker
from tests.sim import update
from tests.sim import world as sim
from tests.sim.stories import VISITS, a_day_in_half_a_minute, notice
from tests.sim.world import Visit, World


class HoldsNothing(HoldDesk):
    """Holds are written down, and retention does not ask."""

    def held(self, segments: Sequence[Segment], timeline: Timeline) -> Kept:
        return Kept(frozenset(), 0, 0)


class TrustsTornLines:
    """agent.boot as it is, but a torn end of the ledger stays in the file."""

    def __getattr__(self, name: str) -> Any:
        return _open_ledger_untouched if name == "open_ledger" else getattr(boot, name)


def _open_ledger_untouched(disk: Disk, *given: Any) -> Any:
    truncate = disk.truncate
    disk.truncate = lambda *_: None  # type: ignore[method-assign]
    try:
        return boot.open_ledger(disk, *given)
    finally:
        disk.truncate = truncate  # type: ignore[method-assign]


class AgesByTheWallClock(RetentionWorker):
    """The age of footage is what the wall clock says now, less what it said when the machine started."""

    def _ages(self) -> Callable[[Segment], int | None]:
        now_ns = self._clock.utc().utc_ns
        started: dict[str, int] = {}
        for anchor in self._index.anchors():
            started.setdefault(anchor.boot_id, anchor.utc_ns - anchor.boot_ns)

        def age_ns(segment: Segment) -> int | None:
            return now_ns - (started[segment.boot_id] + segment.end_ns) if segment.boot_id in started else None

        return age_ns


class TakesTheNewestToo(RetentionWorker):
    """Files without a row are left from some cut, and are cleared away: the one in progress has none, either."""

    def _delete(self, now: float) -> bool:
        more = super()._delete(now)
        known = {row.name for row in [*self._index.segments(), *self._index.segments(garbage=True)]}
        for name in self._disk.list(FOLDER):
            if name not in known:
                self._disk.unlink(name)
        return more


class NeverForwards(LedgerWorker):
    """Lines that find no room in the outbox are left to the card."""

    def _forward(self) -> bool:
        return False


class RecordsOnTop(Store):
    """Lines of the ledger have a quarter of the outbox to themselves, however full it is."""

    def _record_room(self, db: Any) -> int:
        (rows,) = db.execute("select count(*) from outbox where priority = ?", (int(Priority.RECORD),)).fetchone()
        return int(max(self._outbox_rows_max // 4 - rows, 0))


class KeepsOldSettingsQuiet(Store):
    """Settings go on the ledger at the first start only."""

    def note_config(self, sha256: str) -> bool:
        known = self._query("select 1 from meta where key = 'config'")
        return False if known else super().note_config(sha256)


class UpgradesInTwoSteps(Store):
    """The schema is called new before its tables are there."""

    def _upgraded(self, db: Any) -> dict[str, str]:
        meta = dict(db.execute("select key, value from meta"))
        if meta.get("schema") != "1":
            return super()._upgraded(db)
        with self._transaction("upgrade: name"):
            db.execute("update meta set value = '2' where key = 'schema'")
        with self._transaction("upgrade: tables"):
            sql = importlib.resources.files("agent.store").joinpath("upgrade_1_to_2.sql").read_text(encoding="utf-8")
            for statement in statements(sql):
                db.execute(statement)
        return super()._upgraded(db)


class BeginsAnew(Store):
    """An update that cannot read the old outbox empties it."""

    def _upgraded(self, db: Any) -> dict[str, str]:
        old = dict(db.execute("select key, value from meta")).get("schema") == "1"
        meta = super()._upgraded(db)
        if old:
            with self._transaction("tidy"):
                db.execute("delete from outbox")
        return meta


class HandsOverFirst(Ledger):
    """Lines count as put down before they are on the disk."""

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._disk.append(self._name) if self._name else self._create()
        self._file.write(data)
        self._size += len(data)


class BootHandsOverFirst:
    """agent.boot with that ledger."""

    def __getattr__(self, name: str) -> Any:
        if name != "open_ledger":
            return getattr(boot, name)

        def open_ledger(*given: Any) -> Any:
            with mock.patch.object(boot, "Ledger", HandsOverFirst):
                return boot.open_ledger(*given)

        return open_ledger


@dataclass(frozen=True, slots=True)
class Mutation:
    """A planted bug and who must catch it."""

    name: str
    caught_by: str  # part of the name of a check
    at: str  # cut where a step contains this; empty: no cut is needed
    later: int = 0  # cut so many crash points after such a step instead
    parts: Mapping[str, Any] = field(default_factory=dict)
    plant: Callable[[World], None] = lambda _world: None
    settings: Mapping[str, Any] = field(default_factory=dict)
    story: Callable[[World], None] = a_day_in_half_a_minute
    visits: tuple[Visit, ...] = VISITS


class _Unsynced:
    """A file whose sync does nothing."""

    def __init__(self, file: DurableFile) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def sync(self) -> None:
        return

    def close(self) -> None:
        self._file.close()


def files_are_not_synced(world: World) -> None:
    create = world.disk.create
    world.disk.create = lambda name: _Unsynced(create(name))  # type: ignore[assignment, method-assign, return-value]


def names_are_not_synced(world: World) -> None:
    world.disk.unsynced_names = True


class RowBeforeLastSync(RecorderWorker):
    """The row of a segment goes down before its last fragment is synced."""

    def _append(self, writing: Any, pieces: Any) -> None:
        if pieces and pieces[-1].fragment is not None and len(pieces[-1].data) and self._sealing:
            whole = writing.bytes + sum(len(piece.data) for piece in pieces)
            sha = writing.sha.copy()
            for piece in pieces:
                sha.update(piece.data)
            last = pieces[-1].fragment
            row = Segment(
                name=writing.name, session=writing.header.session, boot_id=writing.header.boot_id,
                start_ns=writing.header.start_ns, end_ns=last.end_ns, bytes=whole,
                fragments=writing.fragments + 1, sha256=sha.hexdigest(), end_reason=self._sealing,
                width=writing.header.width, height=writing.header.height,
            )  # fmt: skip
            self._ledger.add_segment(row)
        super()._append(writing, pieces)

    _sealing: Any = None

    def _seal(self, end_reason: Any, **more: Any) -> None:
        self._sealing = end_reason
        super()._seal(end_reason, **more)
        self._sealing = None


class DeletesBeforeTheRow(RetentionWorker):
    """Retention removes the file first and writes it down afterwards."""

    def _delete(self, now: float) -> bool:
        condemn = self._index.condemn

        def late(names: Sequence[str], reason: str) -> None:
            for name in names:
                self._disk.unlink(name)
            condemn(names, reason)

        self._index.condemn = late  # type: ignore[method-assign]
        try:
            return super()._delete(now)
        finally:
            self._index.condemn = condemn  # type: ignore[method-assign]


class DeletesOnPuback(UplinkWorker):
    """What the broker has taken leaves the outbox."""

    def _fill(self, now: float) -> None:
        before = set(self._window._sent)
        super()._fill(now)
        sent = [(sequence, sequence) for sequence in self._window._sent if sequence not in before]
        if sent:
            self._store.acknowledge(sent)


class ForgetsSequences(Store):
    """Delivered events are deleted, and with them the memory of which number was the last."""

    def _delete_acknowledged(self, db: Any) -> int:
        deleted = super()._delete_acknowledged(db)
        db.execute("delete from event where sequence not in (select sequence from outbox)")
        return deleted


class TwoTransactions(Store):
    """The event row first, then, in a transaction of its own, the outbox row."""

    def commit(self, events: Sequence[Event]) -> list[int]:
        sequences = super().commit(events)
        rows = self._query("select priority, sequence from outbox where sequence >= ?", min(sequences, default=0))
        with self._transaction("take back") as db:  # as if it had not been there yet
            db.execute("delete from outbox where sequence >= ?", (min(sequences, default=0),))
        with self._transaction("commit outbox") as db:
            db.executemany("insert or ignore into outbox values (?, ?)", rows)
        return sequences


class NoBound(Store):
    """A full outbox grows on."""

    def _make_room(self, db: Any, excess: int) -> int:
        return 0


class NoGaps(Store):
    """What was not recorded is not explained."""

    def add_gap(self, gap: Gap) -> None:
        return


class StationReceiptsFirst(sim.SimStationStore):
    """The station answers at once and commits with the next batch."""

    _late: Batch | None = None

    def commit(self, batch: Batch) -> list[Stored]:
        late, self._late = self._late, batch
        if late is not None:
            super().commit(late)
        found: dict[tuple[str, str], list[int]] = {}
        for intake in batch.taken:
            if isinstance(intake, EventIn):
                found.setdefault((intake.node, intake.epoch), []).append(intake.sequence)
        return [Stored(node, epoch, numbers, 0) for (node, epoch), numbers in found.items()]


def trusts_torn_tails(**given: Any) -> Recovery:
    """Recovery indexes what it can read and leaves the torn tail in the file."""
    disk = given["disk"]
    truncate = disk.truncate
    disk.truncate = lambda *_: None
    try:
        return recover(**given)
    finally:
        disk.truncate = truncate


class NothingEnds:
    """agent.boot as it is, but incidents of the life before are forgotten."""

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: []) if name == "end_left_open" else getattr(boot, name)


def flood(world: World) -> None:
    """More alerts than the outbox holds, while there is no network."""

    def alarm() -> None:
        for number in range(150):
            world.report([notice(world, number, Priority.ALERT)])

    world.at(12.0, alarm)


def lossy_broker(world: World) -> None:
    """A broker that acknowledges and forgets: killed without persistence."""
    world.at(4.5, lambda: setattr(world.broker, "lose", 6))


def blink(world: World) -> None:
    """The camera is unplugged for some seconds."""
    world.at(9.0, lambda: world.camera.vanish())  # noqa: PLW0108  (each life has a camera of its own)
    world.at(18.0, lambda: world.camera.heal())  # noqa: PLW0108


def clock_steps(world: World) -> None:
    """The wall clock was wrong by an hour, and is corrected while the camera is away."""
    blink(world)
    world.at(12.0, lambda: world.clock.step_utc(3600.0))


def station_receipts_first(world: World) -> None:
    """Plants StationReceiptsFirst and kills the station while it owes a commit."""
    world.station_kind = StationReceiptsFirst
    world._start_station()
    world.at(7.2, world.kill_station)


MUTATIONS = (
    Mutation("no fdatasync after a fragment", "check_3", "before write segments", plant=files_are_not_synced),
    Mutation("missing directory fsync", "check_3", "before write segments", plant=names_are_not_synced),
    Mutation(
        "row before fsync",
        "check_2",
        "after commit: seal",
        later=2,
        parts={"RecorderWorker": RowBeforeLastSync},
    ),
    Mutation(
        "retention unlinks before the row",
        "check_2",
        "before commit: condemn",
        parts={"RetentionWorker": DeletesBeforeTheRow},
    ),
    Mutation(
        "time step used as interval",
        "check_2_only_old",
        "",
        parts={"RetentionWorker": AgesByTheWallClock},
    ),
    Mutation("open file cleared away", "check_2_the_open", "", parts={"RetentionWorker": TakesTheNewestToo}),
    Mutation(
        "lines without room never follow",
        "check_the_ledger",
        "",
        parts={"LedgerWorker": NeverForwards},
        plant=flood,
        settings={"store": {"outbox_rows_max": 100}},
    ),
    Mutation(
        "lines on top of a full outbox",
        "check_6",
        "",
        parts={"Store": RecordsOnTop},
        plant=flood,
        settings={"store": {"outbox_rows_max": 100}},
    ),
    Mutation("new settings not on the ledger", "check_the_ledger", "", parts={"Store": KeepsOldSettingsQuiet}),
    Mutation("recovery trusts a torn tail", "check_2", "after write segments", parts={"recover": trusts_torn_tails}),
    Mutation("delete on PUBACK", "check_1", "", parts={"UplinkWorker": DeletesOnPuback}, plant=lossy_broker),
    Mutation("acknowledge before commit", "check_1", "", plant=station_receipts_first),
    Mutation("reused sequence number", "check_", "", parts={"Store": ForgetsSequences}),
    Mutation(
        "event and outbox row in two transactions",
        "check_1",
        "before commit: commit outbox",
        parts={"Store": TwoTransactions},
    ),
    Mutation(
        "unbounded queue",
        "check_6",
        "",
        parts={"Store": NoBound},
        plant=flood,
        settings={"store": {"outbox_rows_max": 100}},
    ),
    Mutation("torn ledger line accepted", "check_the_ledger", "after write ledger/", parts={"boot": TrustsTornLines()}),
    Mutation(
        "ledger line handed over before its sync",
        "check_the_ledger",
        "before commit: hand over",
        later=2,
        parts={"boot": BootHandsOverFirst()},
    ),
    Mutation("held footage deleted", "check_2_held", "", parts={"HoldDesk": HoldsNothing}),
    Mutation("gaps not written down", "check_4", "", parts={"Store": NoGaps}, plant=blink),
    Mutation(
        "upgrade in two transactions",
        "",
        "before commit: upgrade: tables",
        parts={"Store": UpgradesInTwoSteps},
        story=update.an_update,
        visits=update.VISITS,
    ),
    Mutation(
        "update empties the outbox",
        "check_1",
        "",
        parts={"Store": BeginsAnew},
        story=update.an_update,
        visits=update.VISITS,
    ),
    Mutation("incidents of a dead life stay open", "check_incidents", "after sync", parts={"boot": NothingEnds()}),
)
