"""From a fact in the store to a line on the ledger to the outbox: once, in order, across cuts and faults."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

from agent import boot, wire
from agent.clock import uuid7_maker
from agent.errors import Transient
from agent.evidence import dsse, keys, records
from agent.evidence.chain import check
from agent.evidence.ledger import Ledger
from agent.evidence.records import Payload, RecordKind, digest
from agent.evidence.worker import BATCH_S, RETRY_S, LedgerWorker
from agent.store.store import Origin, Store
from agent.types import NS, Cause, EndReason, Event, Gap, Kind, Phase, Priority, Segment, TimeAnchor
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut
from tests.unit.test_ledger import STATION, receipt_for

NODE = "ward/cam-7"


class Post:
    """The part of a node that tells what happened. Its disk and its database outlive it."""

    def __init__(self, folder: Path, **bounds: int) -> None:
        self.clock = FakeClock()
        self.disk = FakeDisk()
        self.path = folder / "node.db"
        self.bounds = bounds
        self.crash_point: Callable[[str], None] = lambda _: None
        self.woken = 0
        self.new_id = uuid7_maker(self.clock)
        self.store: Store | None = None

    def boot(self) -> Post:
        self.store = Store(
            self.path,
            clock=self.clock,
            new_id=self.new_id,
            origin=Origin("ward", "cam-7"),
            crash_point=self.crash_point,
            **({"outbox_rows_max": 1000, "event_rows_max": 1000} | self.bounds),
        )
        self.store.open()
        self.ledger, self.book, self.problem = boot.open_ledger(self.disk, self.store, self.clock, NODE)
        self.worker = LedgerWorker(ledger=self.ledger, receipts=self.book, journal=self.store)
        self.worker.handed_over = self._woken
        self.store.on_urgent = self.worker.notify
        self.store.start_session()
        self.worker.open()
        return self

    def _woken(self) -> None:
        self.woken += 1

    @property
    def db(self) -> Store:
        assert self.store is not None
        return self.store

    def step(self) -> float:
        return self.worker.step(self.clock.boot_ns() / NS)

    def event(self, priority: Priority = Priority.ALERT, kind: Kind = Kind.PERSON) -> None:
        self.db.commit(
            [Event(self.new_id(), kind, Phase.ENDED, self.clock.boot_ns(), priority, "A person", thumbnail=b"jpeg")]
        )

    def segment(self, n: int) -> None:
        start = n * 30 * NS
        self.db.add_segment(
            Segment(f"segments/{n}.mp4", 1, "a" * 32, start, start + 1, 10, 1, "0" * 64, EndReason.ROLLED, 1, 1)
        )

    def lines(self) -> list[bytes]:
        names = [name for name in self.disk.list("ledger") if "receipts" not in name]
        return [line for name in names for line in self.disk.content(name).split(b"\n")[:-1]]

    def said(self) -> list[Payload]:
        return [records.read(dsse.parse(line)) for line in self.lines()]

    def kinds(self) -> list[str]:
        return [payload.kind for payload in self.said()]

    def whole(self) -> bool:
        return check(self.lines(), keys=keys.public_keys(keys.load(self.disk, "node")), node=NODE, whole=True).ok

    def sent(self) -> list[bytes]:
        """Lines in the outbox, in order."""
        rows = [row for row in self.db.pending(1000) if row.kind == "record"]
        return [wire.decode(row.body, wire.Record).line.encode() for row in rows]

    def end(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(tmp_path).boot()


def test_every_fact_of_a_life_is_on_the_ledger_once_and_in_order(post: Post) -> None:
    store, clock = post.db, post.clock
    store.note_config("c" * 64)
    assert not store.note_config("c" * 64), "the same settings are no news"
    post.segment(1)
    post.segment(1)  # told again by a repeated recovery
    gap = Gap("a" * 32, 1, 2, Cause.CAMERA_FAULT, "no frames")
    store.add_gap(gap)
    store.add_gap(gap)
    clock.advance(300)
    store.add_anchor(TimeAnchor(clock.boot_id, clock.boot_ns(), clock.utc().utc_ns, 1, "ntp"))
    clock.step_utc(3600)
    clock.advance(1)
    store.add_anchor(TimeAnchor(clock.boot_id, clock.boot_ns(), clock.utc().utc_ns, 1, "ntp"))
    post.event(Priority.BELL, Kind.BELL)
    store.condemn(["segments/1.mp4", "segments/none.mp4"], "budget")
    store.note(RecordKind.EXTRACTION, records.body(who="ward"))
    store.stop_session("stopped")
    post.worker.close()
    assert post.kinds() == [
        "install", "start", "config", "segment", "gap", "anchor", "clock-step", "event", "deletion", "extraction",
        "stop",
    ]  # fmt: skip
    told = post.said()
    assert told[6].body["moved_ns"] == 3600 * NS
    assert told[7].body["kind"] == "bell"
    assert told[8].body["segments"][0]["name"] == "segments/1.mp4"
    message = next(row.body for row in store.pending(100) if row.kind == "bell")
    assert told[7].body["message_sha256"] == digest(bytes(message)), "the ledger vouches for what the station gets"
    assert post.whole()
    assert post.sent() == post.lines()
    assert store.record_rows == 0
    post.end()


def test_one_batch_a_second_unless_something_is_urgent(post: Post) -> None:
    post.step()
    syncs: Counter[str] = Counter()
    post.disk.delay = lambda what: syncs.update([what])
    for _ in range(40):
        post.event(Priority.NOTICE)
        post.step()
        post.clock.advance(0.1)
    assert 3 <= syncs["sync"] <= 6
    woke = []
    post.worker.set_wake(lambda: woke.append(1))
    before = syncs["sync"]
    post.event(Priority.ALERT)
    assert woke == [1], "an alarm does not wait for the second to pass"
    post.step()
    assert syncs["sync"] == before + 1
    assert post.woken, "the uplink is told"
    post.end()


def test_a_disk_that_refuses_is_waited_for_and_nothing_is_told_twice(post: Post) -> None:
    post.step()
    for op in ("write", "sync"):
        post.disk.fail(op)
        post.event()
        assert post.step() == pytest.approx(post.clock.boot_ns() / NS + RETRY_S)
        assert post.db.record_rows == 1
        post.clock.advance(RETRY_S)
        post.step()
    assert post.kinds() == ["install", "start", "event", "event"]
    assert post.whole()
    post.end()


def test_a_store_that_refuses_after_the_line_is_down_gets_the_same_line_later(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    post.step()
    post.event()

    def refuses(_lines: object) -> None:
        raise Transient("full")

    with monkeypatch.context() as patch:
        patch.setattr(post.store, "hand_over", refuses)
        post.step()
    post.event()
    post.clock.advance(RETRY_S)
    post.step()
    post.worker.close()
    assert post.kinds() == ["install", "start", "event", "event"]
    assert post.sent() == post.lines()
    post.end()


def test_a_full_journal_refuses_no_fact_and_counts_what_it_cannot_hold(tmp_path: Path) -> None:
    post = Post(tmp_path, record_rows_max=10).boot()
    for _ in range(30):
        post.event()
    post.segment(1)
    assert len([row for row in post.db.pending(1000) if row.kind == "person"]) == 30, "the facts themselves are safe"
    assert post.db.record_rows <= 12
    post.step()
    post.event()
    post.clock.advance(BATCH_S)
    post.worker.close()
    counted = [payload.body["facts"] for payload in post.said() if payload.kind == "overflow"]
    assert counted == [{"event": 21, "segment": 1}]
    assert post.kinds().count("event") == 10
    assert post.kinds()[-1] == "event", "with room again, facts are told again"
    post.end()


def test_a_count_that_the_ledger_has_read_already_is_not_changed(tmp_path: Path) -> None:
    post = Post(tmp_path, record_rows_max=2).boot()
    for _ in range(4):
        post.event()
    read = post.db.facts(100)
    post.event()
    assert [fact.body for fact in post.db.facts(100)][: len(read)] == [fact.body for fact in read]
    post.end()


def test_acknowledged_lines_leave_the_store_and_numbers_are_not_used_again(post: Post) -> None:
    for _ in range(5):
        post.event()
        post.step()
        post.clock.advance(1)
    rows = post.db._query("select count(*) from event where kind = 'record'")[0][0]
    assert rows == 7  # install, start, five events
    newest = post.db._query("select max(sequence) from event")[0][0]
    post.db.acknowledge([(1, newest)])
    assert post.db.outbox_rows == 0
    assert post.db._query("select count(*) from event where kind = 'record'")[0][0] <= 1
    post.end()
    post.boot()
    post.event()
    post.worker.close()
    numbers = [payload.number for payload in post.said() if payload.number is not None]
    assert numbers == sorted(set(numbers))
    assert post.db._query("select max(sequence) from event")[0][0] > newest
    assert post.db.open_incidents() == []
    assert {event.type for event in post.db.events(100)} == {"wardpost.person"}
    post.end()


def test_a_receipt_is_kept_and_named_by_the_next_record(post: Post) -> None:
    post.step()
    lines = post.lines()
    receipt = receipt_for(lines[1], 2)
    post.worker.receipt(receipt.decode())
    post.worker.receipt("rubbish")
    post.worker.receipt(receipt_for(lines[0], 2).decode())  # of a line that is not ours
    post.event()
    post.step()
    assert post.said()[-1].receipt == digest(receipt)
    assert [payload.receipt for payload in post.said()[:2]] == [None, None]
    assert post.book.keyid == STATION.keyid
    post.end()
    post.boot()
    post.worker.close()
    assert post.said()[-1].receipt == digest(receipt), "after a restart too"
    post.end()


def test_a_new_store_goes_on_with_the_old_ledger(post: Post) -> None:
    post.event()
    post.worker.close()
    before = len(post.lines())
    post.end()
    for path in post.path.parent.glob("node.db*"):
        path.unlink()
    post.boot()
    assert post.sent() == post.lines()[:before], "nobody knows what the station has: it gets them again"
    post.event()
    post.worker.close()
    assert post.whole()
    assert len({payload.epoch for payload in post.said()}) == 2
    post.end()


def test_lines_lost_on_the_card_are_said_aloud(post: Post) -> None:
    post.event()
    post.worker.close()
    post.end()
    for name in post.disk.list("ledger"):
        post.disk.unlink(name)
    post.boot()
    assert "Records 1 to 3 of the ledger are lost" in post.problem
    post.worker.close()
    assert post.said()[0].seq == 4
    post.end()


def test_a_store_of_schema_1_is_brought_up_to_date_with_everything_in_it(tmp_path: Path) -> None:
    sql = files("agent.store").joinpath("schema.sql").read_text().partition("-- The journal:")[0]
    with closing(sqlite3.connect(tmp_path / "node.db")) as db:
        db.executescript(sql)
        db.executemany(
            "insert into meta values (?, ?)",
            [("schema", "1"), ("epoch", "01900000-0000-7000-8000-000000000001"), ("node", "wardpost/ward/cam-7")],
        )
        db.execute("insert into session values (4, ?, 1, 2, null)", ("a" * 32,))
        db.execute("insert into event values (9, 'i', 'i', 'person', 'ended', 4, 1, x'7b7d')")
        db.execute("insert into outbox values (1, 9)")
        db.commit()
    post = Post(tmp_path).boot()
    assert post.db.epoch == "01900000-0000-7000-8000-000000000001"
    assert post.db.session == 5
    assert post.db.outbox_rows == 1
    post.worker.close()
    assert post.kinds() == ["install", "start"]
    assert post.said()[1].body["before"]["session"] == 4
    post.end()
    assert post.boot().db.session == 6
    post.end()


class Lived:
    """What the story was told to be durable."""

    def __init__(self) -> None:
        self.done: list[str] = []


def live(post: Post, lived: Lived, count: int) -> None:
    """A life of facts of every kind; each is noted here only after the store has said that it is durable."""
    post.boot()
    for n in range(len(lived.done), count):
        if n % 3 == 2:
            post.segment(n)
            lived.done.append(f"segments/{n}.mp4")
        else:
            post.event(Priority.NOTICE if n % 2 else Priority.BELL)
            lived.done.append("event")
        post.step()
        post.clock.advance(0.4)
    post.worker.close()
    post.end()


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is room for that: on a real disk this test would spend its time in SQLite's syncs."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def cut_at(folder: Path, at: int) -> int:
    """One life that is cut off at that step, and again while it recovers, and what must hold then. Returns how often."""
    cuts, kill = 0, at % 2 == 0
    rng = random.Random(at)
    post, lived = Post(folder), Lived()
    try:
        for again in (at, rng.randrange(1, 25), 0):
            seen = 0

            def cut(_step: str, at: int = again) -> None:
                nonlocal seen
                seen += 1
                if seen == at:
                    raise PowerCut

            post.crash_point = post.disk.crash_point = cut
            try:
                live(post, lived, 8)
            except PowerCut:
                cuts += 1
                post.crash_point = post.disk.crash_point = lambda _: None
                if kill:
                    post.disk._boot += 1  # the files are as the kernel has them, the process's handles are gone
                else:
                    post.disk.power_cut(rng.randrange)
                    post.clock.reboot(3)
                post.end()  # SQLite keeps what was committed: its own log is its own test (tests/sim)
        assert post.whole(), f"cut at step {at}"
        post.boot()
        told = post.said()
        numbers = [payload.number for payload in told if payload.number is not None]
        assert numbers == sorted(set(numbers)), f"cut at step {at}"
        events = [payload.body["sequence"] for payload in told if payload.kind == "event"]
        assert events == [s for (s,) in post.db._query("select sequence from event where kind in ('person')")]
        names = [payload.body["name"] for payload in told if payload.kind == "segment"]
        assert names == [row.name for row in post.db.segments()], f"cut at step {at}"
        assert set(names) >= {name for name in lived.done if name != "event"}
        assert post.sent() == post.lines(), "each line is in the outbox once, in order"
    finally:
        post.end()  # also where an assertion fails: the control below wants it to, and an open database would outlive it
    return cuts


def test_cuts_between_each_pair_of_steps_double_and_lose_nothing(quick_folder: Path) -> None:
    """Disk and database share one count of steps; kill -9 or power cut at each, and again in the recovery."""
    cuts = 0
    for at in range(1, 75):
        folder = quick_folder / str(at)
        folder.mkdir()
        cuts += cut_at(folder, at)
    print(f"{cuts} cuts")
    assert cuts > 100


def test_the_checks_above_notice_a_boot_path_that_forgets(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted bug - the boot path forgets to hand over what a cut left behind - must not pass the checks above."""

    def forgets(self: Ledger, *_args: object) -> list[object]:
        return []

    monkeypatch.setattr(Ledger, "_behind", forgets)
    with pytest.raises(AssertionError):
        test_cuts_between_each_pair_of_steps_double_and_lose_nothing(quick_folder)


def test_days_without_network_leave_no_hole_at_the_station(tmp_path: Path) -> None:
    """The outbox has room for a few lines only: the others wait on the ledger and follow, once each and in order."""
    post = Post(tmp_path, outbox_rows_max=80).boot()
    for _ in range(150):
        post.event(Priority.NOTICE)
        post.clock.advance(BATCH_S)
        post.step()
    assert len(post.sent()) == 20, "a quarter of the outbox"
    assert len(post.lines()) > 150
    assert post.db.outbox_rows <= 80

    delivered: list[bytes] = []
    for turn in range(100):
        rows = post.db.pending(1000)
        delivered += [wire.decode(row.body, wire.Record).line.encode() for row in rows if row.kind == "record"]
        post.db.acknowledge([(row.sequence, row.sequence) for row in rows])
        if turn % 5 == 3:  # and the node dies now and then
            post.end()
            post.boot()
        post.clock.advance(BATCH_S)
        post.step()
    assert delivered == post.lines()[: len(delivered)], "in order, each once"
    assert len(delivered) >= len(post.lines()) - 3, "and all of them, but for those of the last start"
    post.end()


def test_an_outbox_full_of_alerts_stays_within_its_bound_and_the_lines_follow_when_there_is_room(
    tmp_path: Path,
) -> None:
    """Lines came on top of a full outbox once: 125 rows where 100 may be."""
    post = Post(tmp_path, outbox_rows_max=100).boot()
    for _ in range(150):
        post.event(Priority.ALERT)
        post.clock.advance(BATCH_S)
        post.step()
        assert post.db.outbox_rows <= 100
    assert len(post.lines()) > 150

    def deliver() -> list[bytes]:
        rows = post.db.pending(1000)
        post.db.acknowledge([(row.sequence, row.sequence) for row in rows])
        post.clock.advance(BATCH_S)
        post.step()
        assert post.db.outbox_rows <= 100
        return [wire.decode(row.body, wire.Record).line.encode() for row in rows if row.kind == "record"]

    delivered = [line for _ in range(30) for line in deliver()]
    assert delivered == post.lines()
    post.end()
