"""The ledger: each attack on it is found and named, and no power cut costs or doubles a line."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Transient
from agent.evidence import dsse, keys, receipts, records
from agent.evidence.chain import Verdict, What, check
from agent.evidence.keys import Key
from agent.evidence.ledger import Ledger
from agent.evidence.records import GENESIS, Fact, LedgerLine, LedgerMark, RecordKind, digest
from agent.types import NS, UtcReading
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut

NODE = "ward/cam-7"
KEY, STATION, THIEF = keys.generate(), keys.generate(), keys.generate()
PUBLIC = keys.public_keys([KEY])


def fact(n: int, kind: str = RecordKind.EVENT, body: bytes | None = None) -> Fact:
    told = records.body(sequence=n) if body is None else body
    return Fact(n, kind, "b" * 32, n * NS, (1_700_000_000 + n) * NS, 0, told)


def make_line(seq: int, prev: str, *, key: Key = KEY, receipt: str | None = None, say: str = "as it was") -> bytes:
    told = fact(seq, body=records.body(say=say))
    return dsse.sign(
        records.PAYLOAD_TYPE,
        records.payload_of(told, node=NODE, epoch="e", seq=seq, prev=prev, receipt=receipt),
        key,
    )


def chain(count: int, *, first: int = 1, prev: str = GENESIS, say: str = "as it was", key: Key = KEY) -> list[bytes]:
    lines: list[bytes] = []
    for seq in range(first, first + count):
        lines.append(make_line(seq, digest(lines[-1]) if lines else prev, say=say, key=key))
    return lines


def receipt_for(line: bytes, seq: int, *, key: Key = STATION, at: int = 0, node: str = NODE) -> bytes:
    time = UtcReading((1_700_000_000 + (at or seq)) * NS, 2_000_000, "ntp")
    return receipts.make(station="hq", node=node, seq=seq, head=digest(line), time=time, prev=GENESIS, key=key)


def another_at(line: bytes, at: int) -> bytes:
    """One character of the base64 is another one, whichever it was: the keys are new in every run."""
    edited = bytearray(line)
    edited[at] = ord("B") if edited[at] == ord("A") else ord("A")
    return bytes(edited)


LINES = chain(10)
RECEIPTS = [receipt_for(LINES[3], 4), receipt_for(LINES[8], 9)]


def judged(lines: Sequence[bytes], given_receipts: Sequence[bytes] = (), **more: object) -> Verdict:
    return check(lines, keys=PUBLIC, receipts=given_receipts, node=NODE, **more)  # type: ignore[arg-type]


def whats(verdict: Verdict) -> list[tuple[What, int | None]]:
    return [(finding.what, finding.seq) for finding in verdict.findings]


# -- what is right -----------------------------------------------------------------------------------------------------


def test_a_whole_ledger_and_every_slice_of_it_are_good() -> None:
    assert judged(LINES, RECEIPTS, whole=True).ok
    for low in range(10):
        for high in range(low + 1, 11):
            assert judged(LINES[low:high]).ok
    assert judged([]).ok


# -- attacks -----------------------------------------------------------------------------------------------------------


def edited(line: bytes) -> bytes:
    """The content changed, the signature left as it was."""
    envelope = dsse.parse(line)
    payload = envelope.payload.replace(b"as it was", b"as I like")
    assert payload != envelope.payload

    class Keeps:
        keyid = envelope.keyid

        def sign(self, _data: bytes) -> bytes:
            return envelope.signature

    return dsse.sign(envelope.payload_type, payload, Keeps())


def with_line(n: int, line: bytes) -> list[bytes]:
    return [*LINES[: n - 1], line, *LINES[n:]]


ATTACKS: dict[str, tuple[list[bytes], list[bytes], list[tuple[What, int | None]]]] = {
    "edited": (with_line(5, edited(LINES[4])), RECEIPTS, [(What.ALTERED, 5)]),
    "a byte": (with_line(5, LINES[4].replace(b'"sig":"', b'"sig":"A', 1)), RECEIPTS, [(What.ALTERED, 5)]),
    "first edited": (with_line(1, edited(LINES[0])), RECEIPTS, [(What.ALTERED, 1)]),
    "last edited": (with_line(10, edited(LINES[9])), RECEIPTS, [(What.ALTERED, 10)]),
    "dropped": ([*LINES[:4], *LINES[5:]], RECEIPTS, [(What.DROPPED, 5)]),
    "three dropped": ([*LINES[:4], *LINES[7:]], RECEIPTS, [(What.DROPPED, 5)]),
    "front cut off": (LINES[2:], RECEIPTS, [(What.DROPPED, 1)]),
    "swapped": ([*LINES[:4], LINES[5], LINES[4], *LINES[6:]], RECEIPTS, [(What.OUT_OF_ORDER, 5)]),
    "duplicated": ([*LINES[:5], LINES[4], *LINES[5:]], RECEIPTS, [(What.DUPLICATE, 5)]),
    "replayed at the end": ([*LINES, LINES[2]], RECEIPTS, [(What.DUPLICATE, 3)]),
    "truncated": (LINES[:7], RECEIPTS, [(What.TRUNCATED, 9)]),
    "re-signed with a foreign key": (
        with_line(5, make_line(5, digest(LINES[3]), key=THIEF, say="anew")), RECEIPTS, [(What.FOREIGN_KEY, 5)],
    ),
    "one written anew with the node's own key": (
        with_line(5, make_line(5, digest(LINES[3]), say="anew")), RECEIPTS, [(What.CHAIN_BREAK, 6)],
    ),
    "all behind 6 written anew with the node's own key": (
        [*LINES[:6], *chain(4, first=7, prev=digest(LINES[5]), say="anew")], RECEIPTS, [(What.REWRITTEN, 9)],
    ),
    "everything written anew with the node's own key": (
        chain(10, say="anew"), RECEIPTS, [(What.REWRITTEN, 4), (What.REWRITTEN, 9)],
    ),
    "two of one number": (
        [*LINES[:5], make_line(5, digest(LINES[3]), say="anew"), *LINES[5:]], RECEIPTS, [(What.FORK, 5)],
    ),
    "a receipt of another station": (LINES, [*RECEIPTS, receipt_for(LINES[9], 10, key=THIEF)], [(What.BAD_RECEIPT, 10)]),
    "a receipt for another node": (LINES, [*RECEIPTS, receipt_for(LINES[9], 10, node="ward/x")], [(What.BAD_RECEIPT, 10)]),
    "a receipt edited": (LINES, [another_at(RECEIPTS[0], -40)], [(What.BAD_RECEIPT, None)]),
    "lines of another node": (
        [dsse.sign(records.PAYLOAD_TYPE, records.payload_of(
            fact(1), node="ward/x", epoch="e", seq=1, prev=GENESIS, receipt=None), KEY)],
        [], [(What.OTHER_NODE, 1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_attack_is_found_and_named(attack: str) -> None:
    lines, given_receipts, expected = ATTACKS[attack]
    verdict = judged(lines, given_receipts, whole=True)
    assert whats(verdict) == expected, [finding.text for finding in verdict.findings]
    assert all("\n" not in finding.text for finding in verdict.findings)


def test_a_rewrite_after_the_last_receipt_is_what_remains_possible() -> None:
    """The honest limit: what no receipt covers yet can be written anew by whoever has stolen the node's key."""
    assert judged([*LINES[:9], *chain(1, first=10, prev=digest(LINES[8]), say="anew")], RECEIPTS, whole=True).ok


@given(st.integers(0, len(b"\n".join(LINES)) * 8 - 1))
def test_no_flipped_bit_is_accepted(bit: int) -> None:
    data = bytearray(b"\n".join(LINES))
    data[bit // 8] ^= 1 << bit % 8
    assert not judged(bytes(data).split(b"\n"), RECEIPTS, whole=True).ok


@given(st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=200)), max_size=12))
def test_whatever_is_mixed_only_the_true_order_is_good(lines: list[bytes]) -> None:
    verdict = judged(lines)
    assert verdict.ok == (lines in [LINES[low:high] for low in range(11) for high in range(low, 11)])


def test_a_hostile_pile_of_lines_fills_no_memory_with_findings() -> None:
    verdict = judged([b"rubbish"] * 5000)
    assert len(verdict.findings) == 1000
    assert verdict.untold == 4000


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_is_introduced_by_the_key_before_and_by_nobody_else() -> None:
    disk, clock = FakeDisk(), FakeClock()
    ledger, _ = boot(disk, clock, LedgerMark(0, ""))
    ledger.append([fact(1)])
    new = keys.make(disk, "node")
    ledger.add_key(new)
    told = records.body(keyid=new.keyid, public=new.public.hex(), algorithm="Ed25519")
    ledger.append([fact(2), fact(3, RecordKind.KEY, told), fact(4)])
    assert ledger.key.keyid == new.keyid
    old = keys.load(disk, "node")[0]
    lines = on_disk(disk)
    verdict = check(lines, keys={old.keyid: old.public}, whole=True)
    assert verdict.ok
    assert [line.keyid for line in verdict.lines] == [old.keyid] * 4 + [new.keyid]
    without = check([line for n, line in enumerate(lines) if n != 3], keys={old.keyid: old.public})
    assert (What.FOREIGN_KEY, 5) in whats(without), "nobody introduced it"

    again, _ = boot(disk, clock, mark_of(lines))
    assert again.key.keyid == new.keyid, "and it goes on with the new one after a restart"


def test_a_key_that_was_replaced_signs_nothing_any_more() -> None:
    """Else who has stolen it could go on with the ledger as if it had never been replaced."""
    new = keys.generate()
    lines = chain(2)
    told = records.body(keyid=new.keyid, public=new.public.hex(), algorithm="Ed25519")
    change = records.payload_of(
        fact(3, RecordKind.KEY, told), node=NODE, epoch="e", seq=3, prev=digest(lines[-1]), receipt=None
    )
    lines.append(dsse.sign(records.PAYLOAD_TYPE, change, KEY))
    honest = [*lines, *chain(2, first=4, prev=digest(lines[-1]), key=new)]
    assert judged(honest).ok
    stolen = [*lines, *chain(2, first=4, prev=digest(lines[-1]), key=KEY)]
    assert whats(judged(stolen)) == [(What.RETIRED_KEY, 4), (What.RETIRED_KEY, 5)]


def test_without_a_key_the_first_line_is_believed_and_that_is_said() -> None:
    disk = FakeDisk()
    ledger, _ = boot(disk, FakeClock(), LedgerMark(0, ""))
    ledger.append([fact(1), fact(2)])
    verdict = check(on_disk(disk), keys={}, whole=True)
    assert verdict.ok
    assert verdict.self_introduced
    assert not check(LINES, keys={}).ok, "these lines introduce nobody"


# -- time --------------------------------------------------------------------------------------------------------------


def test_receipts_bracket_the_time_of_a_line_from_both_sides() -> None:
    lines = chain(3)
    first = receipt_for(lines[2], 3, at=100)
    lines.append(make_line(4, digest(lines[2]), receipt=digest(first)))
    lines += chain(2, first=5, prev=digest(lines[3]))
    second = receipt_for(lines[4], 5, at=200)
    verdict = check(lines, keys=PUBLIC, receipts=[first, second], whole=True)
    assert verdict.ok
    second_of = 1_700_000_000 * NS
    error = 2_000_000
    assert verdict.bracket(4).not_before_ns == second_of + 100 * NS - error
    assert verdict.bracket(4).not_after_ns == second_of + 200 * NS + error
    assert (verdict.bracket(2).not_before_ns, verdict.bracket(6).not_after_ns) == (None, None)


# -- the files ---------------------------------------------------------------------------------------------------------


def boot(
    disk: FakeDisk, clock: FakeClock, mark: LedgerMark, *, epoch: str = "e", receipted: int = 0, **bounds: int
) -> tuple[Ledger, list[LedgerLine]]:
    ledger = Ledger(disk, clock=clock, node=NODE, keys=keys.load_or_make(disk, "node"), **bounds)
    repair = ledger.open(mark, epoch=epoch, receipted=receipted)
    return ledger, repair.resend


def on_disk(disk: FakeDisk) -> list[bytes]:
    names = [name for name in disk.list("ledger") if "receipts" not in name]
    return [line for name in names for line in disk.content(name).split(b"\n")[:-1]]


def mark_of(lines: Sequence[bytes]) -> LedgerMark:
    return LedgerMark(records.read(dsse.parse(lines[-1])).seq, digest(lines[-1]))


def good(disk: FakeDisk) -> bool:
    return check(on_disk(disk), keys=keys.public_keys(keys.load(disk, "node")), node=NODE, whole=True).ok


def bodies(disk: FakeDisk, kind: str) -> list[dict[str, object]]:
    said = [records.read(dsse.parse(line)) for line in on_disk(disk)]
    return [payload.body for payload in said if payload.kind == kind]


def numbers(disk: FakeDisk) -> list[int]:
    said = [records.read(dsse.parse(line)).number for line in on_disk(disk)]
    return [number for number in said if number is not None]


def test_a_ledger_begins_with_its_key_and_goes_on_after_a_restart() -> None:
    disk, clock = FakeDisk(), FakeClock()
    ledger, resend = boot(disk, clock, LedgerMark(0, ""))
    assert resend == []
    lines = ledger.append([fact(1), fact(2)])
    assert [line.number for line in lines] == [None, 1, 2]
    (install,) = bodies(disk, RecordKind.INSTALL)
    assert install["public"] == ledger.key.public.hex()
    ledger.close()
    ledger.append([fact(3)])
    again, resend = boot(disk, clock, LedgerMark(3, lines[-1].head))
    assert [(line.seq, line.number) for line in resend] == [(4, 3)], "durable here, and not handed over yet"
    again.append([fact(4)])
    assert good(disk)
    assert numbers(disk) == [1, 2, 3, 4]
    assert disk.list("ledger") == ["ledger/000000000001.jsonl"]


def test_full_files_are_followed_by_others_and_the_oldest_go_on_record() -> None:
    disk, clock = FakeDisk(), FakeClock()
    ledger, _ = boot(disk, clock, LedgerMark(0, ""), file_bytes_max=2000, bytes_max=9000)
    last: list[LedgerLine] = []
    for n in range(1, 60):
        last = ledger.append([fact(n)])
    files = disk.list("ledger")
    assert 3 <= len(files) <= 8
    given_up = bodies(disk, RecordKind.LEDGER)
    assert given_up
    assert {body["problem"] for body in given_up} == {"given up for room"}
    first = records.read(dsse.parse(on_disk(disk)[0])).seq
    assert given_up[-1]["last"] == first - 1, "the record says exactly what is missing"
    assert check(on_disk(disk), keys=keys.public_keys(keys.load(disk, "node"))).ok
    again, resend = boot(disk, clock, LedgerMark(last[-1].seq, last[-1].head), file_bytes_max=2000, bytes_max=9000)
    assert resend == []
    again.append([fact(60)])
    assert check(on_disk(disk), keys=keys.public_keys(keys.load(disk, "node"))).ok


def test_a_torn_last_line_is_cut_off_and_costs_nothing() -> None:
    for cut in (1, 50, 200):
        disk, clock = FakeDisk(), FakeClock()
        ledger, _ = boot(disk, clock, LedgerMark(0, ""))
        lines = ledger.append([fact(1), fact(2)])
        ledger.append([fact(3)])
        name = disk.list("ledger")[0]
        disk.put(name, disk.content(name)[:-cut])
        again, resend = boot(disk, clock, LedgerMark(3, lines[-1].head))
        assert resend == []
        again.append([fact(3)])  # it is still in the journal
        assert good(disk)
        assert numbers(disk) == [1, 2, 3]
        assert bodies(disk, RecordKind.LEDGER) == []


def test_a_first_batch_that_lost_a_block_in_its_middle_was_never_promised() -> None:
    """CI found it: sectors reach the card in any order, so whole lines may stand behind a hole of the torn batch."""
    disk, clock = FakeDisk(), FakeClock()
    ledger, _ = boot(disk, clock, LedgerMark(0, ""))
    ledger.append([fact(n) for n in range(1, 7)])  # the power goes in its sync: nothing was handed over
    name = disk.list("ledger")[0]
    data = disk.content(name)
    at = len(b"\n".join(on_disk(disk)[:2])) // 512 * 512 + 512
    disk.put(name, data[:at] + bytes(512) + data[at + 512 :])
    again, resend = boot(disk, clock, LedgerMark(0, ""))
    assert [line.seq for line in resend] == [1, 2], "what is whole at the front is used"
    again.append([fact(n) for n in range(2, 7)])
    assert good(disk)
    assert numbers(disk) == [1, 2, 3, 4, 5, 6]
    assert bodies(disk, RecordKind.LEDGER) == []


def promised(count: int = 6) -> tuple[FakeDisk, FakeClock, LedgerMark]:
    disk, clock = FakeDisk(), FakeClock()
    ledger, _ = boot(disk, clock, LedgerMark(0, ""))
    lines = ledger.append([fact(n) for n in range(1, count + 1)])
    ledger.close()
    return disk, clock, LedgerMark(lines[-1].seq, lines[-1].head)


def damage(disk: FakeDisk, at: int) -> None:
    """Rots a byte in the middle of the line with this index."""
    name = disk.list("ledger")[0]
    offset = sum(len(line) + 1 for line in on_disk(disk)[:at]) + 100
    disk.flip(name, offset * 8)


def test_a_damaged_file_is_set_aside_and_the_numbers_go_on_behind_what_was_promised() -> None:
    disk, clock, mark = promised()
    as_it_was = disk.content("ledger/000000000001.jsonl")
    damage(disk, 3)
    ledger, resend = boot(disk, clock, mark)
    assert resend == []
    (line, *_) = ledger.append([fact(7)])
    assert line.seq > mark.seq
    aside = disk.list("quarantine")
    assert aside == ["quarantine/ledger-000000000001.jsonl"]
    assert len(disk.content(aside[0])) == len(as_it_was), "all of it is kept for examination"
    told = bodies(disk, RecordKind.LEDGER)
    assert [body["problem"] for body in told] == ["damaged", "lost"]
    assert (told[1]["first"], told[1]["last"]) == (4, 7)
    verdict = check(on_disk(disk), keys=keys.public_keys(keys.load(disk, "node")), whole=True)
    assert whats(verdict) == [(What.DROPPED, 4)], "an honest hole, and no second chain"
    again, _ = boot(disk, clock, mark_of(on_disk(disk)))
    again.append([fact(8)])
    assert len(bodies(disk, RecordKind.LEDGER)) == 2, "told once"


def test_a_ledger_that_vanished_goes_on_where_the_station_expects_it() -> None:
    disk, clock, mark = promised()
    disk.unlink("ledger/000000000001.jsonl")
    ledger, _ = boot(disk, clock, mark)
    first, second = ledger.append([fact(7)])
    assert (first.seq, second.seq) == (8, 9)
    assert records.read(dsse.parse(first.line)).prev == mark.head
    assert bodies(disk, RecordKind.LEDGER) == [{"problem": "lost", "first": 1, "last": 7}]


def test_a_lost_store_goes_on_with_the_ledger_and_hands_over_what_has_no_receipt() -> None:
    disk, clock, _ = promised()
    ledger, resend = boot(disk, clock, LedgerMark(0, ""), epoch="new", receipted=4)
    assert [(line.seq, line.number) for line in resend] == [(5, None), (6, None), (7, None)], (
        "numbers of the old journal mean nothing in the new one"
    )
    assert ledger.append([fact(1)])[0].seq == 8
    assert good(disk)


def test_a_lost_store_and_a_damaged_file_still_do_not_use_a_number_twice() -> None:
    disk, clock, mark = promised()
    damage(disk, 3)
    ledger, _ = boot(disk, clock, LedgerMark(0, ""), epoch="new")
    assert ledger.append([fact(1)])[0].seq == mark.seq + 1


def test_a_lost_key_is_on_record_and_foreign_to_whoever_knew_the_old_one() -> None:
    disk, clock, mark = promised()
    old = keys.public_keys(keys.load(disk, "node"))
    for name in disk.list("keys"):
        disk.unlink(name)
    ledger, _ = boot(disk, clock, mark)
    ledger.append([fact(7)])
    verdict = check(on_disk(disk), keys=old, whole=True)
    assert whats(verdict) == [(What.FOREIGN_KEY, 8), (What.FOREIGN_KEY, 9)]
    assert bodies(disk, RecordKind.INSTALL)[-1]["reason"] == "the key of before is lost"


def test_somebody_who_replaced_the_last_line_on_the_card_is_told_of() -> None:
    disk, clock, mark = promised()
    (key,) = keys.load(disk, "node")
    lines = on_disk(disk)
    forged = make_line(7, digest(lines[5]), key=key, say="anew")
    disk.put("ledger/000000000001.jsonl", b"".join(line + b"\n" for line in [*lines[:6], forged]))
    ledger = Ledger(disk, clock=clock, node=NODE, keys=[key])
    repair = ledger.open(mark, epoch="e")
    assert "damaged behind record 6" in repair.problem
    assert forged in disk.content("quarantine/ledger-000000000001.jsonl")
    assert ledger.append([fact(7)])[0].seq == 8
    assert records.read(dsse.parse(on_disk(disk)[6])).prev == mark.head, "the chain that the station knows goes on"


@pytest.mark.parametrize("op", ["write", "sync", "create", "truncate", "unlink"])
def test_a_disk_that_refuses_for_a_while_costs_no_line_and_doubles_none(op: str) -> None:
    disk, clock = FakeDisk(), FakeClock()
    ledger, _ = boot(disk, clock, LedgerMark(0, ""), file_bytes_max=3000)
    refused = 0
    for n in range(1, 40):
        if n % 4 == 0:
            disk.fail("write" if op in ("truncate", "unlink") else op)
            disk.fail(op)
        while True:
            try:
                ledger.append([fact(n)])
                break
            except Transient:
                refused += 1
                assert refused < 100
    disk.heal()
    assert refused
    assert good(disk)
    assert numbers(disk) == list(range(1, 40))


def test_a_full_disk_is_waited_for() -> None:
    disk, clock = FakeDisk(), FakeClock()
    ledger, _ = boot(disk, clock, LedgerMark(0, ""))
    ledger.append([fact(1)])
    disk.fill(free_bytes=300)
    with pytest.raises(Transient):
        ledger.append([fact(2)])
    disk.fill(free_bytes=1 << 20)
    ledger.append([fact(2)])
    assert numbers(disk) == [1, 2]
    assert good(disk)


def test_power_cuts_at_every_step_lose_and_double_nothing() -> None:
    """The journal and the mark are a database's; the files are a FakeDisk's. Cut, boot, go on, until all is told."""

    class Memory:
        """What SQLite would have: it survives, and its steps are atomic."""

        def __init__(self) -> None:
            self.journal = list(range(1, 25))
            self.mark = LedgerMark(0, "")
            self.handed: tuple[int, ...] = ()

    def hand_over(memory: Memory, lines: Sequence[LedgerLine]) -> None:
        told = [line.number for line in lines if line.number is not None]
        memory.journal = [n for n in memory.journal if n > max(told, default=0)]
        memory.handed += tuple(told)
        if lines:
            memory.mark = LedgerMark(lines[-1].seq, lines[-1].head)

    def live(disk: FakeDisk, memory: Memory, clock: FakeClock) -> None:
        ledger, resend = boot(disk, clock, memory.mark, file_bytes_max=2500)
        hand_over(memory, resend)
        while memory.journal:
            lines = ledger.append([fact(n) for n in memory.journal[:3]])
            disk.crash_point("0 before hand over")
            hand_over(memory, lines)
            disk.crash_point("0 after hand over")
        ledger.close()

    def cutter(at: int) -> Callable[[str], None]:
        seen = 0

        def cut(_step: str) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise PowerCut

        return cut

    total = cuts = 0
    for at in range(1, 80):
        for seed in range(3):
            rng = random.Random(f"{at} {seed}")
            disk, memory, clock = FakeDisk(), Memory(), FakeClock()
            for again in (at, rng.randrange(1, 40), 0):
                disk.crash_point = cutter(again) if again else lambda _: None
                try:
                    live(disk, memory, clock)
                except PowerCut:
                    cuts += 1
                    disk.crash_point = lambda _: None
                    disk.power_cut(rng.randrange)
                    clock.reboot(5)
            total += 1
            assert good(disk), f"at {at}, seed {seed}"
            assert numbers(disk) == list(range(1, 25)), f"at {at}, seed {seed}"
            assert memory.handed == tuple(range(1, 25)), f"at {at}, seed {seed}"
    print(f"{cuts} cuts in {total} lives")
    assert cuts > 300
