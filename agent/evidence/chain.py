"""What a ledger proves, and what is wrong with it. Pure: lines, receipts and keys in, findings out.

What each attack meets (every row is a test in tests/unit/test_ledger.py):

    a byte of a line changed                signature                                 altered
    a line changed and signed anew
      with a key nobody introduced          key id                                    foreign-key
      with a key that was replaced before   the line that replaced it                 retired-key
      with the node's own key               `prev` of the next line; receipts         chain-break, rewritten
    a line left out                         sequence numbers                          dropped
    lines exchanged                         order of sequence numbers                 out-of-order
    a line twice                            sequence numbers                          duplicate
    two lines of one number                 sequence numbers                          fork
    the end cut off                         a receipt for a later line                truncated
    everything after n written anew, with
      the node's own key                    the receipts for lines after n            rewritten
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.keys import keyid_of, public_of
from agent.evidence.receipts import Receipt
from agent.evidence.receipts import read as read_receipt
from agent.evidence.records import GENESIS, Payload, RecordKind, digest
from agent.types import MS

FINDINGS_MAX = 1000
"""More are counted, not told: a hostile file must not fill the memory."""


class What(StrEnum):
    """What is wrong."""

    ALTERED = "altered"
    FOREIGN_KEY = "foreign-key"
    RETIRED_KEY = "retired-key"
    OTHER_NODE = "other-node"
    DROPPED = "dropped"
    OUT_OF_ORDER = "out-of-order"
    DUPLICATE = "duplicate"
    FORK = "fork"
    CHAIN_BREAK = "chain-break"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    BAD_RECEIPT = "bad-receipt"
    FOOTAGE = "altered-footage"  # a file that the node has sent is not what it recorded


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `seq` is the number of the line concerned, as far as that can be said."""

    what: What
    seq: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line whose signature holds."""

    payload: Payload
    keyid: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Bracket:
    """When a line was written, by the station's clock: None where no receipt says so. UTC ns, errors included."""

    not_before_ns: int | None
    not_after_ns: int | None


@dataclass(slots=True)
class Verdict:
    """What `check` has found. `ok` is the whole answer; the rest says why."""

    lines: list[Line] = field(default_factory=list)  # believed, by number, each number once
    receipts: list[Receipt] = field(default_factory=list)  # of the station's keys, by number
    findings: list[Finding] = field(default_factory=list)
    untold: int = 0  # findings beyond FINDINGS_MAX
    keys: dict[str, bytes] = field(default_factory=dict)  # those given, and those that a believed line introduced
    self_introduced: bool = False  # no key was given: the first line was believed about its own

    @property
    def ok(self) -> bool:
        return not self.findings

    def add(self, what: What, seq: int | None, text: str) -> None:
        """Notes a finding."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(what, seq, text))
        else:
            self.untold += 1

    def bracket(self, seq: int) -> Bracket:
        """Between which moments a line was written: after the newest receipt named by it or a line before, and before
        the first receipt for it or a line after.
        """
        by_hash = {receipt.sha256: receipt for receipt in self.receipts}
        named = [
            by_hash[n] for line in self.lines if line.payload.seq <= seq and (n := line.payload.receipt) in by_hash
        ]
        later = [receipt for receipt in self.receipts if receipt.payload.seq >= seq]
        return Bracket(
            max((r.utc_ns - (r.payload.unc_ms or 0) * MS for r in named), default=None),
            min((r.utc_ns + (r.payload.unc_ms or 0) * MS for r in later), default=None),
        )


def check(
    lines: Sequence[bytes],
    *,
    keys: Mapping[str, bytes],
    receipts: Sequence[bytes] = (),
    station_keys: Mapping[str, bytes] | None = None,
    node: str | None = None,
    whole: bool = False,
) -> Verdict:
    """Checks a ledger, or a slice of one, and the receipts for it. Any bytes; never raises for what they hold.

    `keys`: raw public keys of the node by key id; when empty, the key in an `install` line that comes first is believed
    (`self_introduced`: the chain is then consistent with itself, and proves nothing about who wrote it).
    `station_keys`: raw public keys of the station; None takes the key of the first good receipt.
    `whole`: the lines must begin at number 1. Lines carry no newline.
    """
    verdict = Verdict(keys=dict(keys))
    if not keys:
        _introduce(lines, verdict)
    placed = _place(lines, node, verdict)
    _follow(placed, whole, verdict)
    _retired(verdict)
    _receipts(receipts, station_keys, placed, verdict)
    return verdict


def replaces(payload: Payload, keyid: str) -> bool:
    """Whether the key that signed this has signed its last: it introduces another one."""
    introduced = accept_key(payload) if payload.kind == RecordKind.KEY else None
    return introduced is not None and introduced[0] != keyid


def accept_key(line: Line | Payload) -> tuple[str, bytes] | None:
    """The key that a believed line introduces for the lines after it, if it does. A malformed one introduces none."""
    payload = line.payload if isinstance(line, Line) else line
    if payload.kind not in (RecordKind.KEY, RecordKind.INSTALL):
        return None
    try:
        public = public_of(str(payload.body.get("public")))
    except Corrupt:
        return None
    return keyid_of(public), public


def _introduce(lines: Sequence[bytes], verdict: Verdict) -> None:
    """Believes the first line about its own key."""
    if not lines:
        return
    try:
        envelope = dsse.parse(lines[0])
        found = accept_key(records.read(envelope))
    except Corrupt:
        return
    if found is not None and found[0] == envelope.keyid:
        verdict.keys[found[0]] = found[1]
        verdict.self_introduced = True


def _place(lines: Sequence[bytes], node: str | None, verdict: Verdict) -> dict[int, str]:
    """Verifies each line by itself and finds its place. Returns hash by number, also of lines that are not believed."""
    placed: dict[int, str] = {}
    believed: dict[int, Line] = {}
    highest = 0
    for index, raw in enumerate(lines):
        where = f"line {index + 1} of {len(lines)}"
        sha256 = digest(raw)
        line = _believe(raw, where, sha256, highest, node, verdict)
        # An altered line may lie about its number: it is taken to stand where it stands.
        seq = line.payload.seq if line is not None else highest + 1 if highest or index == 0 else 0
        if line is None:
            if seq and seq not in placed and _gap_here(lines, index, seq):
                placed[seq] = sha256
                highest = seq
            continue
        if seq in placed:
            if placed[seq] == sha256:
                verdict.add(What.DUPLICATE, seq, f"record {seq} stands twice ({where})")
            elif seq in believed:
                verdict.add(What.FORK, seq, f"there are two records {seq}, both signed by the node ({where})")
            else:
                believed[seq], placed[seq] = line, sha256
            continue
        if seq < highest:
            verdict.add(What.OUT_OF_ORDER, seq, f"record {seq} stands behind record {highest} ({where})")
        placed[seq], believed[seq] = sha256, line
        highest = max(highest, seq)
    verdict.lines = [believed[seq] for seq in sorted(believed)]
    return placed


def _gap_here(lines: Sequence[bytes], index: int, seq: int) -> bool:
    """Whether a line that cannot be believed fills a place: the next readable one does not claim it."""
    for raw in lines[index + 1 : index + 4]:
        try:
            return records.read(dsse.parse(raw)).seq > seq
        except Corrupt:
            continue
    return True


def _believe(raw: bytes, where: str, sha256: str, before: int, node: str | None, verdict: Verdict) -> Line | None:
    """A line whose signature holds, or None and a finding."""
    place = f"{where}, after record {before}" if before else where
    try:
        envelope = dsse.parse(raw)
        payload = records.read(envelope)
    except Corrupt as error:
        verdict.add(What.ALTERED, before + 1 if before else None, f"{place}: {error}")
        return None
    public = verdict.keys.get(envelope.keyid)
    if public is None:
        verdict.add(
            What.FOREIGN_KEY, payload.seq, f"{place}: signed with key {envelope.keyid[:32]}, which nobody introduced"
        )
        return None
    if not envelope.verify(public):
        verdict.add(What.ALTERED, payload.seq, f"{place}: the signature does not fit the content")
        return None
    if node is not None and payload.node != node:
        verdict.add(What.OTHER_NODE, payload.seq, f"{place}: a record of {payload.node!r}, not of {node!r}")
        return None
    line = Line(payload, envelope.keyid, sha256)
    introduced = accept_key(line)
    if introduced is not None:
        verdict.keys[introduced[0]] = introduced[1]
    return line


def _follow(placed: Mapping[int, str], whole: bool, verdict: Verdict) -> None:
    """Each line must name the one before it, and none may be missing."""
    numbers = sorted(placed)
    if whole and numbers and numbers[0] != 1:
        verdict.add(What.DROPPED, 1, f"the ledger begins with record {numbers[0]}; those before are missing")
    for one, following in pairwise(numbers):
        if following != one + 1:
            missing = f"records {one + 1} to {following - 1} are" if following > one + 2 else f"record {one + 1} is"
            verdict.add(What.DROPPED, one + 1, f"{missing} missing")
    believed = {line.payload.seq: line for line in verdict.lines}
    for seq, line in believed.items():
        if seq == 1 and line.payload.prev != GENESIS:
            verdict.add(What.CHAIN_BREAK, 1, "record 1 names a record before it")
        # Beside a line that is not believed, the broken link is no news.
        elif seq - 1 in believed and line.payload.prev != placed[seq - 1]:
            verdict.add(What.CHAIN_BREAK, seq, f"record {seq} does not follow this record {seq - 1}: one was replaced")


def _retired(verdict: Verdict) -> None:
    """A key that was replaced signs nothing behind the line that says so, which is its last."""
    retired: dict[str, int] = {}
    for line in verdict.lines:
        if line.keyid in retired:
            words = f"is signed with key {line.keyid[:16]}, which record {retired[line.keyid]} has replaced"
            verdict.add(What.RETIRED_KEY, line.payload.seq, f"record {line.payload.seq} {words}")
        elif replaces(line.payload, line.keyid):
            retired[line.keyid] = line.payload.seq


def _receipts(
    receipts: Sequence[bytes], station_keys: Mapping[str, bytes] | None, placed: Mapping[int, str], verdict: Verdict
) -> None:
    """What the station saw must be what is here."""
    trusted = station_keys
    last = max(placed, default=0)
    node = verdict.lines[0].payload.node if verdict.lines else None
    for index, raw in enumerate(receipts):
        where = f"receipt {index + 1} of {len(receipts)}"
        try:
            receipt = read_receipt(raw)
        except Corrupt as error:
            verdict.add(What.BAD_RECEIPT, None, f"{where}: {error}")
            continue
        if trusted is None:
            trusted = {receipt.keyid: public_of(receipt.payload.key)}
        seq = receipt.payload.seq
        if receipt.keyid not in trusted:
            verdict.add(What.BAD_RECEIPT, seq, f"{where}: signed with key {receipt.keyid}, not by the station")
            continue
        if node is not None and receipt.payload.node != node:
            verdict.add(What.BAD_RECEIPT, seq, f"{where}: for {receipt.payload.node!r}, not for {node!r}")
            continue
        verdict.receipts.append(receipt)
        if seq in placed and placed[seq] != receipt.payload.head:
            verdict.add(
                What.REWRITTEN, seq, f"the station saw another record {seq} on {receipt.payload.time} ({where})"
            )
        elif seq > last and placed:
            verdict.add(
                What.TRUNCATED, seq, f"the station saw record {seq} on {receipt.payload.time}; the last here is {last}"
            )
    verdict.receipts.sort(key=lambda receipt: receipt.payload.seq)
