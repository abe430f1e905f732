"""The store: what was committed is there, what is full makes room on record, what is broken says so."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import boot, wire
from agent.clock import uuid7_maker
from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.evidence.records import LedgerLine
from agent.reporter import Reporter
from agent.store.store import InUse, Origin, Store
from agent.types import Box, Cause, EndReason, Event, Gap, Kind, Label, Phase, Priority, Segment
from tests.fakes.clock import FakeClock

INCIDENT = "01890a5d-ac96-774b-bcce-b302099a8057"


def make_store(path: Path, clock: FakeClock, **bounds: int) -> Store:
    return Store(
        path,
        clock=clock,
        new_id=uuid7_maker(clock),
        origin=Origin("ward", "cam-7", "School gate"),
        outbox_rows_max=bounds.get("outbox_rows_max", 1000),
        event_rows_max=bounds.get("event_rows_max", 1000),
    )


def an_event(
    clock: FakeClock,
    priority: Priority = Priority.ALERT,
    phase: Phase = Phase.STARTED,
    incident: str = INCIDENT,
    thumbnail: bytes | None = None,
) -> Event:
    return Event(
        incident=incident,
        kind=Kind.PERSON,
        phase=phase,
        boot_ns=clock.boot_ns(),
        priority=priority,
        summary="A person at the gate",
        label=Label.PERSON,
        score=0.81234,
        box=Box(0.9, 0.5, 0.2, 0.3),
        zones=("gate",),
        thumbnail=thumbnail,
    )


def a_segment(n: int, seconds: int = 30) -> Segment:
    start = n * seconds * 1_000_000_000
    return Segment(
        f"segments/000001-{n:08d}.mp4", 1, "a" * 32, start, start + seconds * 1_000_000_000,
        1000, 30, "0" * 64, EndReason.ROLLED, 640, 360,
    )  # fmt: skip


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
    store = make_store(tmp_path / "wardpost.db", clock)
    store.open()
    store.start_session()
    yield store
    store.close()


def test_an_event_and_its_outbox_row_survive_a_reopening(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    store.commit([an_event(clock)])
    epoch = store.epoch
    store.close()

    again = make_store(tmp_path / "wardpost.db", clock)
    again.open()
    assert again.epoch == epoch
    assert again.outbox_rows == 1
    (row,) = again.pending(10)
    message = wire.decode(row.body, wire.CloudEvent)
    assert message.source == "wardpost/ward/cam-7"
    assert message.data.place == "School gate"
    assert message.data.box == pytest.approx([0.9, 0.5, 0.1, 0.3])  # clipped to the picture
    assert message.sequence == 1
    again.close()


def test_urgent_rows_leave_first_and_a_thumbnail_never_delays_an_alert(store: Store, clock: FakeClock) -> None:
    store.commit([an_event(clock, Priority.NOTICE)])
    store.commit([an_event(clock, Priority.ALERT, thumbnail=b"\xff\xd8jpeg")])
    store.commit([an_event(clock, Priority.BELL)])
    assert [row.priority for row in store.pending(10)] == [
        Priority.BELL,
        Priority.ALERT,
        Priority.NOTICE,
        Priority.THUMBNAIL,
    ]
    assert [row.kind for row in store.pending(10)][-1] == "thumbnail"


def test_only_what_the_station_acknowledged_leaves_the_outbox(store: Store, clock: FakeClock) -> None:
    for _ in range(5):
        store.commit([an_event(clock)])
    assert store.acknowledge([(2, 3), (9, 12)]) == 2
    assert [row.sequence for row in store.pending(10)] == [1, 4, 5]
    assert store.acknowledge([(2, 3)]) == 0, "a receipt that comes twice does no harm"
    assert store.outbox_rows == 3


def test_sequence_numbers_are_never_used_again(tmp_path: Path, clock: FakeClock) -> None:
    store = make_store(tmp_path / "wardpost.db", clock, event_rows_max=100)
    store.open()
    store.start_session()
    for _ in range(300):
        (last,) = store.commit([an_event(clock)])
        store.acknowledge([(1, last)])
    store.close()
    with sqlite3.connect(tmp_path / "wardpost.db") as db:
        (rows,) = db.execute("select count(*) from event").fetchone()
    db.close()
    assert rows <= 100 + 256, "old events are forgotten"
    store.open()
    assert store.commit([an_event(clock)]) == [last + 1]
    store.close()


def test_a_full_outbox_gives_up_the_least_important_first_and_says_so(tmp_path: Path, clock: FakeClock) -> None:
    store = make_store(tmp_path / "wardpost.db", clock, outbox_rows_max=100)
    store.open()
    store.start_session()
    store.commit([an_event(clock, Priority.BELL)])
    for _ in range(90):
        store.commit([an_event(clock, Priority.NOTICE)])
    for _ in range(30):
        store.commit([an_event(clock, Priority.ALERT)])
    rows = store.pending(1000)
    assert len(rows) == store.outbox_rows == 100
    assert [r.priority for r in rows].count(Priority.ALERT) == 30, "no alert is lost while notices are left to give"
    assert rows[0].priority == Priority.BELL
    assert next(r.sequence for r in rows if r.priority is Priority.NOTICE) == 23, "the oldest notices went"
    assert store.shed_rows() == 21
    store.close()


def test_a_second_process_on_the_same_store_is_refused_in_one_line(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InUse, match="in use by another process"):
        make_store(tmp_path / "wardpost.db", FakeClock()).open()


@pytest.mark.parametrize("damage", [b"not a database at all" * 300, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_damaged_store_is_set_aside_and_a_new_epoch_begins(tmp_path: Path, clock: FakeClock, damage: bytes) -> None:
    (tmp_path / "wardpost.db").write_bytes(damage)
    disk = PosixDisk(tmp_path)
    store, said = boot.open_store(lambda: make_store(tmp_path / "wardpost.db", clock), disk)
    assert said is not None
    assert "set aside as wardpost.db.corrupt-000001" in said
    assert (tmp_path / "wardpost.db.corrupt-000001").read_bytes() == damage
    store.start_session()
    assert store.commit([an_event(clock)]) == [1]
    store.close()


def test_quarantine_is_bounded(tmp_path: Path) -> None:
    disk = PosixDisk(tmp_path)
    for _ in range(boot.QUARANTINE_FILES_MAX + 5):
        (tmp_path / "wardpost.db").write_bytes(b"x")
        boot.quarantine(disk, "wardpost.db", "-wal", "-shm")
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert len(kept) == boot.QUARANTINE_FILES_MAX
    assert kept[-1] == f"wardpost.db.corrupt-{boot.QUARANTINE_FILES_MAX + 5:06d}"


def test_a_store_of_another_schema_is_not_touched_by_guessing(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "wardpost.db") as db:
        db.execute("update meta set value = '99' where key = 'schema'")
    db.close()
    with pytest.raises(Corrupt, match="schema '99'"):
        make_store(tmp_path / "wardpost.db", clock).open()


def test_what_an_earlier_session_left_open_is_ended_once(store: Store, tmp_path: Path, clock: FakeClock) -> None:
    other = INCIDENT[:-1] + "8"
    store.commit([an_event(clock), an_event(clock, incident=other), an_event(clock, phase=Phase.ENDED, incident=other)])
    store.close()
    clock.advance(60)
    again = make_store(tmp_path / "wardpost.db", clock)
    again.open()
    before = again.start_session()
    assert before is not None
    assert before.session == 1
    ended = boot.end_left_open(again, clock)
    assert [e.incident for e in ended] == [INCIDENT]
    assert ended[0].phase is Phase.ENDED
    again.commit(ended)
    assert boot.end_left_open(again, clock) == []
    again.close()


def test_deleting_footage_leaves_one_merged_tombstone(store: Store) -> None:
    for n in range(5):
        store.add_segment(a_segment(n))
    store.condemn([a_segment(0).name, a_segment(1).name], "over budget")
    store.condemn([a_segment(0).name], "over budget")  # a repetition after a cut buries nothing twice
    assert [s.name for s in store.segments(garbage=True)] == [a_segment(0).name, a_segment(1).name]
    assert len(store.segments()) == 3
    store.forget([a_segment(0).name, a_segment(1).name])
    assert store.segments(garbage=True) == []
    (stone,) = store.tombstones()
    assert (stone.start_ns, stone.end_ns, stone.segments, stone.bytes) == (0, 60_000_000_000, 2, 2000)


def test_gaps_and_anchors_come_back_as_they_went_in(store: Store, clock: FakeClock) -> None:
    gap = Gap(clock.boot_id, 5, 9, Cause.CAMERA_FAULT, "no frame for 4 s")
    store.add_gap(gap)
    assert store.gaps() == [gap]
    (anchor,) = store.anchors()
    assert anchor.boot_id == clock.boot_id


def test_a_transaction_that_dies_leaves_nothing_behind(store: Store, clock: FakeClock) -> None:
    class Cut(BaseException):
        pass

    def cut(step: str) -> None:
        if step == "before commit: commit events":
            raise Cut

    store._crash_point = cut
    with pytest.raises(Cut):
        store.commit([an_event(clock)])
    store._crash_point = lambda _: None
    assert store.pending(10) == []
    assert store.outbox_rows == 0


class _RefusingStore(Store):
    refuse = True

    def commit(self, events: object) -> list[int]:
        if self.refuse:
            raise Transient("the disk is full")
        return super().commit(events)  # type: ignore[arg-type]


def test_an_event_that_the_disk_refuses_waits_in_memory_and_is_stored_later(tmp_path: Path, clock: FakeClock) -> None:
    store = _RefusingStore(
        tmp_path / "s.db", clock=clock, new_id=uuid7_maker(clock), origin=Origin("w", "n"),
        outbox_rows_max=1000, event_rows_max=1000,
    )  # fmt: skip
    store.open()
    store.start_session()
    woken: list[bool] = []
    reporter = Reporter(store, committed=lambda: woken.append(True))
    for _ in range(510):
        reporter([an_event(clock)])
    assert (reporter.waiting, reporter.refused, woken) == (500, 10, [])
    store.refuse = False
    reporter.retry()
    assert (reporter.waiting, store.outbox_rows, woken) == (0, 500, [True])
    store.close()


def test_a_gap_that_grows_is_told_when_it_begins_and_when_it_ends(store: Store, clock: FakeClock) -> None:
    """A camera that is dead for a day refreshes its gap every ten seconds: not 8,640 records of it."""
    before = store.record_rows
    for end_ns in range(10, 1000, 10):
        store.add_gap(Gap(clock.boot_id, 5, end_ns, Cause.CAMERA_FAULT, "no frame", growing=True))
    store.add_gap(Gap(clock.boot_id, 5, 1000, Cause.CAMERA_FAULT, "no frame"))
    assert store.record_rows == before + 2
    (gap,) = store.gaps()
    assert gap.end_ns == 1000


def test_a_schema_that_is_not_even_text_is_set_aside(tmp_path: Path, clock: FakeClock) -> None:
    """Found by the fuzzer: SQLite quotes the rotten schema in its error, and Python cannot decode it."""
    with sqlite3.connect(tmp_path / "wardpost.db") as db:
        db.execute("create table t (a)")
        db.execute("pragma writable_schema = on")
        db.execute("update sqlite_master set name = cast(x'8b8b' as text), sql = cast(x'8b20' as text)")
    db.close()
    store, said = boot.open_store(lambda: make_store(tmp_path / "wardpost.db", clock), PosixDisk(tmp_path))
    assert said is not None
    assert "set aside" in said
    store.close()


def test_what_is_noted_as_acknowledged_goes_with_the_next_transaction_or_comes_back_after_a_cut(
    tmp_path: Path, clock: FakeClock
) -> None:
    store = make_store(tmp_path / "wardpost.db", clock)
    store.open()
    store.start_session()
    store.commit([an_event(clock) for _ in range(5)])
    store.note_acknowledged([(1, 2), (9, 12)])
    assert [row.sequence for row in store.pending(9)] == [3, 4, 5]
    assert [row.sequence for row in store.pending(9, skip={4})] == [3, 5]
    store.close()  # as a cut would: nothing was written
    store.open()
    assert (store.outbox_rows, store.acknowledged_rows) == (5, 0)
    store.note_acknowledged([(1, 2)])
    store.alive()
    assert (store.outbox_rows, store.acknowledged_rows) == (3, 0)
    assert store._query("select count(*) from outbox") == [(3,)]
    store.close()


def test_a_transaction_that_fails_leaves_what_was_noted_for_the_next(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit([an_event(clock)])
    store.note_acknowledged([(1, 1)])
    assert store.outbox_rows == 0
    with monkeypatch.context() as patch:

        def full(_step: str) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        patch.setattr(store, "_crash_point", full)
        with pytest.raises(Transient):
            store.commit([an_event(clock)])
    assert (store.outbox_rows, store.acknowledged_rows) == (0, 1)
    assert store.commit([an_event(clock)]) == [2]
    assert (store.outbox_rows, store.acknowledged_rows) == (1, 0)


def test_an_acknowledgement_costs_the_same_however_much_still_waits(tmp_path: Path, clock: FakeClock) -> None:
    """To delete a line of the ledger, SQLite once looked through the whole outbox for it (a foreign key)."""
    store = make_store(tmp_path / "wardpost.db", clock, outbox_rows_max=20_000)
    store.open()
    store.start_session()
    store.commit([an_event(clock, Priority.NOTICE) for _ in range(4000)])
    store.hand_over([LedgerLine(seq=n, number=None, line=b"{}", head="0" * 64) for n in range(1, 201)])
    assert store._db is not None
    looks: list[int] = []
    store._db.set_progress_handler(lambda: looks.append(1), 1000)
    assert store.acknowledge([(4001, 4200)]) == 200
    assert len(looks) < 100, f"{len(looks)} thousand steps of SQLite's machine for 200 lines"
    store.close()
