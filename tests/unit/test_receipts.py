"""Receipts: what the station signs, what a node believes of it, and what the station notices in a node's ledger."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence

import pytest

from agent import wire
from agent.clock import rfc3339
from agent.errors import Corrupt, Transient
from agent.evidence import dsse, keys, receipts
from agent.evidence.chain import check
from agent.evidence.receipts import FILE, ReceiptBook
from agent.evidence.records import GENESIS, LedgerMark, RecordKind, body, digest
from agent.evidence.records import read as read_record
from agent.station.intake import RecordIn, StatusIn, take
from agent.station.ledgers import ALARM_EVERY_S, RECEIPT_EVERY_S
from agent.station.reader import Reader
from agent.station.store import Batch, StationStore, Stored
from agent.station.watch import Watcher
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.disk import FakeDisk, PowerCut
from tests.unit.test_ledger import KEY, LINES, NODE, STATION, THIEF, boot, chain, fact, make_line, receipt_for

EPOCH = "01900000-0000-7000-8000-000000000001"


# -- the node's book ---------------------------------------------------------------------------------------------------


def opened(disk: FakeDisk) -> ReceiptBook:
    book = ReceiptBook(disk, NODE)
    book.open()
    return book


def test_the_newest_receipt_survives_a_restart() -> None:
    disk = FakeDisk()
    book = opened(disk)
    assert book.newest is None
    for seq in (2, 5):
        assert book.add(receipt_for(LINES[seq - 1], seq), digest(LINES[seq - 1]))
    assert not book.add(receipt_for(LINES[3], 4), digest(LINES[3])), "an older one brings nothing new"
    again = opened(disk)
    assert again.newest is not None
    assert again.newest.payload.seq == 5
    assert again.keyid == STATION.keyid


def test_a_receipt_that_is_not_to_be_believed_is_not_kept() -> None:
    disk = FakeDisk()
    book = opened(disk)
    assert book.add(receipt_for(LINES[0], 1), digest(LINES[0]))
    for line, head, why in (
        (receipt_for(LINES[1], 2, key=THIEF), digest(LINES[1]), "station key"),
        (receipt_for(LINES[1], 2, node="ward/x"), digest(LINES[1]), "this is"),
        (receipt_for(LINES[1], 2), digest(LINES[2]), "another line"),
        (receipt_for(LINES[1], 2), None, "another line"),
        (receipt_for(LINES[1], 2)[:-30] + b"A" * 30, digest(LINES[1]), "not|fit"),
        (LINES[1], digest(LINES[1]), "not that of a receipt"),
        (b"\xff", None, "not a signed line"),
    ):
        with pytest.raises(Corrupt, match=why):
            book.add(line, head)
    assert len(disk.content(FILE).splitlines()) == 1


def test_a_station_that_the_settings_name_is_believed_and_no_other() -> None:
    """Whoever signs first is not believed for that, and what is refused is counted."""
    disk = FakeDisk()
    book = ReceiptBook(disk, NODE, STATION.public)
    book.open()
    assert book.station() == {"key": STATION.keyid, "pinned": True, "receipts_refused": 0}
    with pytest.raises(Corrupt, match=rf"by station key {THIEF.keyid}; uplink.station_key says {STATION.keyid}"):
        book.add(receipt_for(LINES[0], 1, key=THIEF), digest(LINES[0]))
    assert book.station()["receipts_refused"] == 1
    assert book.add(receipt_for(LINES[1], 2), digest(LINES[1]))


def test_receipts_that_were_believed_at_first_sight_count_for_nothing_once_the_settings_know_better() -> None:
    disk = FakeDisk()
    assert opened(disk).add(receipt_for(LINES[4], 5, key=THIEF), digest(LINES[4]))
    book = ReceiptBook(disk, NODE, STATION.public)
    book.open()
    assert book.newest is None and book.keyid == STATION.keyid
    assert book.add(receipt_for(LINES[1], 2), digest(LINES[1]))
    again = ReceiptBook(disk, NODE, STATION.public)
    again.open()
    assert again.newest is not None and again.newest.payload.seq == 2


def test_cuts_and_faults_leave_receipts_whole_or_absent() -> None:
    for at in range(1, 14):
        for seed in range(5):
            disk = FakeDisk()
            opened(disk).add(receipt_for(LINES[0], 1), digest(LINES[0]))
            start = disk.steps

            def cut(step: str, last: int = start + at) -> None:
                if step.startswith(f"{last} "):
                    raise PowerCut

            disk.crash_point = cut
            taken = 1
            try:
                book = opened(disk)
                for seq in (2, 3):
                    book.add(receipt_for(LINES[seq - 1], seq), digest(LINES[seq - 1]))
                    taken = seq
            except PowerCut:
                pass
            disk.crash_point = lambda _: None
            disk.power_cut(random.Random(seed).randrange)
            newest = opened(disk).newest
            assert newest is not None
            assert newest.payload.seq >= taken
    disk = FakeDisk()
    book = opened(disk)
    book.add(receipt_for(LINES[0], 1), digest(LINES[0]))
    disk.fail("sync")
    with pytest.raises(Transient):
        book.add(receipt_for(LINES[1], 2), digest(LINES[1]))
    assert book.add(receipt_for(LINES[2], 3), digest(LINES[2]))
    assert [receipts.read(line).payload.seq for line in disk.content(FILE).splitlines()] == [1, 3]


def test_receipts_are_kept_in_files_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "FILE_BYTES_MAX", 2000)
    monkeypatch.setattr(receipts, "FILES_MAX", 2)
    disk = FakeDisk()
    book = opened(disk)
    for seq, line in enumerate(LINES, start=1):
        assert book.add(receipt_for(line, seq), digest(line))
    assert len(disk.list("ledger")) == 3
    newest = opened(disk).newest
    assert newest is not None
    assert newest.payload.seq == 10


# -- the station -------------------------------------------------------------------------------------------------------


class Desk:
    """A station's store, and what has been sent to it."""

    def __init__(self, database: Database, clock: FakeClock, **settings: object) -> None:
        self.database = database
        self.clock = clock
        self.store = StationStore(
            database.folder,
            clock=clock,
            site="ward",
            database=database.setting,
            station="hq",
            free_bytes=lambda _: 1 << 40,
            **settings,  # type: ignore[arg-type]
        )
        self.store.open()
        self.sequence = 0
        self.reader = Reader(database.folder, database=database.setting)
        self.reader.open()

    def meet(self, key: keys.Key = KEY) -> None:
        """The node says who it is."""
        status = wire.Status(state="online", node="cam-7", bootid="f" * 32, session=1, key=key.public.hex())
        self.store.commit(Batch([StatusIn("cam-7", status, retained=False)]))

    def send(self, *lines: bytes, sequence: int = 0) -> list[int]:
        """Sends lines; returns the sequence numbers that were acknowledged."""
        taken: list[RecordIn] = []
        for line in lines:
            self.sequence += 1
            taken.append(RecordIn("cam-7", EPOCH, sequence or self.sequence, line))
        stored: Sequence[Stored] = self.store.commit(Batch(list(taken)))
        return [number for part in stored for number in part.sequences]

    def alarms(self) -> list[str]:
        return [what for (what,) in self.database.rows("select what from alarm order by what")]

    def told(self) -> list[str]:
        return [reason for _, _, _, reason in self.reader.rejects_after(0, 100)]


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    desk = Desk(database, FakeClock())
    yield desk
    desk.reader.close()
    desk.store.close()


def test_good_lines_are_stored_once_and_receipted_with_a_chain_of_receipts(desk: Desk) -> None:
    desk.meet()
    assert desk.send(*LINES[:4]) == [1, 2, 3, 4]
    (first,) = desk.store.receipts()
    assert desk.store.receipts() == [], "nothing new, no receipt"
    desk.sequence = 0
    assert desk.send(*LINES[:4]) == [1, 2, 3, 4], "sent again, acknowledged again"
    desk.send(*LINES[4:9])
    assert desk.store.receipts() == [], "one in a while suffices"
    desk.clock.advance(RECEIPT_EVERY_S)
    (second,) = desk.store.receipts()
    assert (first.node, first.epoch) == ("cam-7", EPOCH)
    one, two = receipts.read(first.line.encode()), receipts.read(second.line.encode())
    assert (one.payload.seq, two.payload.seq) == (4, 9)
    assert (one.payload.prev, two.payload.prev) == (GENESIS, one.sha256)
    assert two.payload.head == digest(LINES[8])
    assert desk.reader.lines("cam-7") == LINES[:9]
    assert check(desk.reader.lines("cam-7"), keys=desk.reader.keys("cam-7"), receipts=desk.reader.receipts("cam-7")).ok
    assert desk.alarms() == []
    assert desk.reader.sequences() == {("cam-7", EPOCH): list(range(1, 10))}


def test_the_receipt_names_the_same_key_after_a_restart_of_the_station(desk: Desk) -> None:
    desk.meet()
    desk.send(LINES[0])
    (before,) = desk.store.receipts()
    desk.store.close()
    again = Desk(desk.database, desk.clock)
    again.sequence = 1
    again.send(LINES[1])
    (after,) = again.store.receipts()
    one, two = receipts.read(before.line.encode()), receipts.read(after.line.encode())
    assert one.keyid == two.keyid
    assert two.payload.prev == one.sha256
    again.reader.close()
    again.store.close()
    assert (desk.database.folder / "keys" / "station-000001.pem").stat().st_mode & 0o777 == 0o600


def test_lines_that_come_out_of_order_are_no_alarm(desk: Desk) -> None:
    desk.meet()
    order = [*range(10)]
    random.Random(5).shuffle(order)
    for n in order:
        assert desk.send(LINES[n])
    assert desk.alarms() == []
    assert desk.reader.lines("cam-7") == LINES


def test_a_fork_is_an_alarm_and_both_lines_are_kept(desk: Desk) -> None:
    desk.meet()
    desk.send(*LINES[:6])
    forged = make_line(4, digest(LINES[2]), say="anew")
    assert desk.send(forged), "it is evidence: stored and acknowledged"
    assert desk.alarms() == ["chain-break", "fork"]  # and line 5 does not follow it, but it follows the other
    assert forged in desk.reader.lines("cam-7")


def test_a_chain_break_is_an_alarm(desk: Desk) -> None:
    desk.meet()
    desk.send(*LINES[:3])
    desk.send(make_line(4, digest(LINES[0])))
    assert desk.alarms() == ["chain-break"]


def test_a_foreign_key_is_refused_until_a_person_has_looked(desk: Desk) -> None:
    desk.meet()
    desk.send(*LINES[:3])
    stranger = chain(2, key=THIEF)
    assert desk.send(*stranger) == [], "not acknowledged: the node keeps it"
    assert desk.alarms() == ["foreign-key"]
    (told,) = desk.told()
    assert told.startswith("EVIDENCE ALARM: foreign-key")
    desk.store.close()
    again = Desk(desk.database, desk.clock, node_keys={"cam-7": THIEF.public.hex()})
    again.sequence = 20
    assert again.send(*stranger) == [21, 22]
    assert again.alarms() == ["foreign-key"], "its ledger is one of its own: number 1 is no fork"
    again.reader.close()
    again.store.close()


def test_the_first_install_line_introduces_a_node_that_nobody_announced(desk: Desk) -> None:
    assert desk.send(LINES[0]) == []
    assert desk.alarms() == [], "it has not introduced itself yet; time will cure that"
    disk = FakeDisk()
    ledger, _ = boot(disk, desk.clock, LedgerMark(0, ""))
    lines = [line.line for line in ledger.append([fact(1), fact(2)])]
    assert len(desk.send(*lines)) == 3
    assert set(desk.reader.keys("cam-7")) == {ledger.key.keyid}


def test_a_key_that_the_old_key_introduces_is_believed(desk: Desk) -> None:
    disk = FakeDisk()
    ledger, _ = boot(disk, desk.clock, LedgerMark(0, ""))
    new = keys.make(disk, "node")
    ledger.add_key(new)
    told = body(keyid=new.keyid, public=new.public.hex(), algorithm="Ed25519")
    lines = [line.line for line in ledger.append([fact(1), fact(2, RecordKind.KEY, told), fact(3)])]
    assert len(desk.send(*lines)) == 4
    assert desk.alarms() == []
    assert new.keyid in desk.reader.keys("cam-7")


def test_a_key_that_was_replaced_is_an_alarm_also_after_a_restart_of_the_station(desk: Desk) -> None:
    """The line is kept: it is the evidence that somebody has the old key."""
    disk = FakeDisk()
    ledger, _ = boot(disk, desk.clock, LedgerMark(0, ""))
    (old,) = keys.load(disk, "node")
    new = keys.make(disk, "node")
    ledger.add_key(new)
    told = body(keyid=new.keyid, public=new.public.hex(), algorithm="Ed25519")
    lines = [line.line for line in ledger.append([fact(1), fact(2, RecordKind.KEY, told), fact(3)])]
    change = read_record(dsse.parse(lines[2])).seq
    stolen = make_line(change + 1, digest(lines[2]), key=old)
    assert len(desk.send(*lines[:3])) == 3
    assert len(desk.send(stolen)) == 1
    assert desk.alarms() == ["retired-key"]
    assert f"which record {change} has replaced" in desk.told()[-1]
    desk.store.close()
    again = Desk(desk.database, desk.clock)
    again.sequence = 10
    assert len(again.send(make_line(change + 2, digest(stolen), key=old))) == 1
    assert again.alarms() == ["retired-key"]
    again.reader.close()
    again.store.close()


def test_who_is_believed_and_why_is_a_line_of_watch(desk: Desk) -> None:
    """At first sight, then by the chain; each once, for a person to compare; a registered one says so."""
    watcher = Watcher(desk.reader, as_json=False)
    disk = FakeDisk()
    ledger, _ = boot(disk, desk.clock, LedgerMark(0, ""))
    first = ledger.key
    desk.send(*(line.line for line in ledger.append([fact(1)])))
    (line,) = watcher.lines()
    assert "Post cam-7 has told its key for the first time" in line and first.public.hex() in line
    assert "wardpost key show" in line
    desk.clock.step_utc(-3600)  # a key that comes by a clock that went back is told all the same
    new = keys.make(disk, "node")
    ledger.add_key(new)
    told = body(keyid=new.keyid, public=new.public.hex(), algorithm="Ed25519")
    desk.send(*(line.line for line in ledger.append([fact(2, RecordKind.KEY, told), fact(3)])))
    (line,) = watcher.lines()
    assert f"has a new key, introduced by the one before: {new.keyid}" in line
    assert list(watcher.lines()) == []
    later = Watcher(desk.reader, as_json=True)
    later.from_now()
    assert list(later.lines()) == []
    everything = [json.loads(line) for line in Watcher(desk.reader, as_json=True).lines()]
    assert {(line["kind"], line["node"], line["how"]) for line in everything} == {
        ("key", "cam-7", "pinned"),
        ("key", "cam-7", "introduced"),
    }


def test_an_altered_line_and_one_of_another_node_are_refused(desk: Desk) -> None:
    desk.meet()
    assert desk.send(LINES[0].replace(b'"sig":"', b'"sig":"A', 1)) == []
    stored = desk.store.commit(Batch([RecordIn("cam-8", EPOCH, 1, LINES[0])]))
    assert stored == []
    assert desk.alarms() == ["altered", "other-node"]


def test_the_same_alarm_is_told_once_in_a_while(desk: Desk) -> None:
    desk.meet()
    stranger = chain(1, key=THIEF)[0]
    for _ in range(50):
        desk.send(stranger)
        desk.clock.advance(ALARM_EVERY_S / 25)
    assert len(desk.told()) == 2
    assert "(time 26 for this post)" in desk.told()[1]


def test_an_alarm_is_a_line_of_watch(desk: Desk) -> None:
    desk.meet()
    desk.send(*chain(1, key=THIEF))
    _key, line = Watcher(desk.reader, as_json=False).lines()
    assert "EVIDENCE ALARM at post cam-7: foreign-key: record 1 is signed with key" in line
    assert "Refused" not in line


def test_a_sequence_number_that_brings_two_things_is_an_alarm(desk: Desk) -> None:
    desk.meet()
    desk.send(LINES[0], sequence=7)
    desk.send(LINES[1], sequence=7)
    assert desk.alarms() == ["duplicate"]


def test_the_intake_takes_a_record_and_nothing_else_for_one() -> None:
    topic = wire.Topics("ward", "cam-7").record
    payload = wire.encode(wire.Record(epoch=EPOCH, sequence=3, line=LINES[0].decode()))
    assert take(topic, payload, site="ward") == RecordIn("cam-7", EPOCH, 3, LINES[0])
    with pytest.raises(Corrupt):
        take(topic, b"{}", site="ward")


def test_old_lines_make_room(database: Database) -> None:
    desk = Desk(database, FakeClock(), event_rows_max=4)
    desk.meet()
    for line in LINES:
        desk.send(line)
    assert desk.reader.lines("cam-7") == LINES[6:]
    desk.reader.close()
    desk.store.close()


def test_times_of_a_receipt_are_the_stations_own(desk: Desk) -> None:
    desk.meet()
    desk.send(LINES[0])
    (signed,) = desk.store.receipts()
    payload = receipts.read(signed.line.encode()).payload
    assert payload.time == rfc3339(desk.clock.utc().utc_ns)
    assert payload.unc_ms == 5
    assert payload.station == "hq"
    assert payload.node == "ward/cam-7"
    assert desk.clock.boot_ns() == 1000 * NS
