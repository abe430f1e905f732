"""One line of the audit log, and what a whole one proves. Pure: lines and keys in, findings out.

A line has the form of a node's ledger (agent/evidence/records.py): a DSSE envelope, signed by the station's key, each
with the hash of the one before. Its `node` is <site>/<station id>, its kind begins with `desk-`, and its body says who
did what. So everything that finds a changed, dropped, exchanged or cut-off line there finds it here
(agent/evidence/chain.py). The end is held by checkpoints: receipts that the station signs for its own lines.

    export     the lines, then one checkpoint for the last of them, a line each
    check      `chain.check` of all of it, and: there is a checkpoint for the very last line
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.clock import Clock
from agent.errors import Corrupt
from agent.evidence import chain, dsse, receipts, records
from agent.evidence.chain import Finding, Verdict, What
from agent.evidence.keys import Key
from agent.evidence.records import Fact, RecordKind

KIND = "desk-"
"""How the kinds of the audit log begin: no node writes such records."""
ALARM = "alarm"
EPOCH = "desk"
LINES_MAX = 2_000_000
BYTES_MAX = 1 << 30
"""Of a file that a person names."""


def make(*, key: Key, clock: Clock, node: str, seq: int, prev: str, kind: str, body: Mapping[str, Any]) -> bytes:
    """One signed line. `kind` without its prefix. Raises ValueError for a body that is too large: a caller's bug."""
    return _line(key, clock, node=node, seq=seq, prev=prev, kind=KIND + kind, body=body)


def introduce(*, key: Key, by: Key, clock: Clock, node: str, seq: int, prev: str) -> bytes:
    """The line that introduces a key: the first one by itself, a later one signed by the key before."""
    kind = RecordKind.INSTALL if key.keyid == by.keyid else RecordKind.KEY
    return _line(by, clock, node=node, seq=seq, prev=prev, kind=kind, body={"public": key.public.hex()})


def checkpoint(*, key: Key, clock: Clock, station: str, node: str, seq: int, head: str) -> bytes:
    """Signed: at this time the last line was `seq`, and its hash `head`."""
    return receipts.make(
        station=station, node=node, seq=seq, head=head, time=clock.utc(), prev=records.GENESIS, key=key
    )


def check(
    lines: Sequence[bytes],
    checkpoints: Sequence[bytes],
    *,
    keys: Mapping[str, bytes],
    closed: bool = True,
) -> Verdict:
    """What is wrong with an audit log from its first line on. Any bytes.

    `keys`: raw public keys of the station that somebody vouches for; empty: its first line is believed about its own.
    `closed`: there must be a checkpoint for the very last line.
    """
    verdict = chain.check(lines, keys=keys, receipts=checkpoints, station_keys=None, whole=True)
    for seal in verdict.receipts:
        if seal.keyid not in verdict.keys:
            verdict.add(What.BAD_RECEIPT, seal.payload.seq, "a checkpoint is signed by a key that is not the log's")
    for line in verdict.lines:
        if line.payload.kind == KIND + ALARM:  # what was lost before this line, nobody can bring back
            verdict.add(What.TRUNCATED, line.payload.seq, f"line {line.payload.seq}: {line.payload.body.get('text')}")
    if not lines:
        verdict.add(What.TRUNCATED, None, "there is no line at all")
    elif closed:
        last = verdict.lines[-1].payload.seq if verdict.lines else 0
        if not any(seal.payload.seq == last for seal in verdict.receipts):
            verdict.add(
                What.TRUNCATED, last, f"no checkpoint closes the log behind line {last}: its end may be missing"
            )
    return verdict


def findings_of(verdict: Verdict) -> list[Finding]:
    """The findings, and one that counts those which are not told."""
    more = [] if not verdict.untold else [Finding(What.ALTERED, None, f"and {verdict.untold} more")]
    return [*verdict.findings, *more]


def split(data: bytes) -> tuple[list[bytes], list[bytes]]:
    """The lines and the checkpoints of an exported file, in order. Raises Corrupt for what is no such file at all."""
    lines: list[bytes] = []
    seals: list[bytes] = []
    for number, raw in enumerate(data.split(b"\n")):
        if not raw:
            continue
        if number >= LINES_MAX:
            raise Corrupt(f"more than {LINES_MAX} lines")
        try:
            kind = dsse.parse(raw).payload_type
        except Corrupt:
            kind = records.PAYLOAD_TYPE  # it counts as an altered line
        (seals if kind == receipts.PAYLOAD_TYPE else lines).append(raw)
    return lines, seals


def _line(key: Key, clock: Clock, *, node: str, seq: int, prev: str, kind: str, body: Mapping[str, Any]) -> bytes:
    now = clock.utc()
    fact = Fact(
        number=None,
        kind=kind,
        boot_id=clock.boot_id,
        boot_ns=clock.boot_ns(),
        utc_ns=now.utc_ns,
        unc_ns=now.unc_ns,
        body=records.body(**body),
    )
    payload = records.payload_of(fact, node=node, epoch=EPOCH, seq=seq, prev=prev, receipt=None)
    return dsse.sign(records.PAYLOAD_TYPE, payload, key)


def said(line: bytes) -> dict[str, Any]:
    """A line in plain words, for people and programs: seq, time, kind, and its body. Raises Corrupt."""
    payload = records.read(dsse.parse(line))
    return {"seq": payload.seq, "time": payload.utc, "kind": payload.kind.removeprefix(KIND), **payload.body}
