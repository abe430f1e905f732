"""Records: what stands on the ledger. Kinds, bodies, and the payload of one line. Pure.

Times of a record's own (`boot_id`, `boot_ns`, `utc`, `unc_ms`) are those of the moment at which the fact became
durable; a body carries the times of the fact itself. Times are CLOCK_BOOTTIME ns of the boot named beside them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from agent.clock import rfc3339
from agent.errors import Corrupt
from agent.evidence.dsse import Envelope
from agent.types import MS, Event, Gap, Segment, TimeAnchor, Verdict

PAYLOAD_TYPE = "application/vnd.wardpost.record+json;v=1"
VERSION = 1
GENESIS = "0" * 64
"""`prev` of the first line of a ledger."""


class RecordKind(StrEnum):
    """What a record tells. A reader keeps, and verifies, kinds that it does not know."""

    INSTALL = "install"  # a ledger begins, or goes on with a key that nobody has introduced
    KEY = "key"  # the next line is signed by the key in this one
    INDEX = "index"  # the node's database was lost or damaged; what was had back of it
    LEDGER = "ledger"  # lines were lost, damaged or given up; which, and where what is left of them lies
    START = "start"
    STOP = "stop"
    ANCHOR = "anchor"
    CLOCK_STEP = "clock-step"
    CONFIG = "config"
    SEGMENT = "segment"
    GAP = "gap"
    DELETION = "deletion"
    EVENT = "event"
    HOLD = "hold"
    RELEASE = "release"
    PRIVACY = "privacy"
    EXTRACTION = "extraction"
    VERDICT = "verdict"  # what headquarters says of an alert
    SIGNAL = "signal"  # siren or lamp at headquarters' word: for how long, who asked, why
    UPDATE = "update"  # a release or a configuration from afar: refused, staged, switched to, confirmed, rolled back
    VIEWED = "viewed"  # headquarters watched as it happened: who, why, how long, how it ended
    PAGE = "page"  # the local page of a technician: on, who entered, what he tried, off
    OVERFLOW = "overflow"  # facts that are in the node's store, and for which there was no room in the journal


class Payload(Struct, frozen=True, kw_only=True):
    """What a line says, in the lead's own order; spelled with sorted keys."""

    v: int
    node: Annotated[str, Meta(max_length=80)]  # site/node
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    prev: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]  # sha256 of the line before, without its newline
    epoch: str  # of the store
    number: int | None  # of the row in the store's journal; None: the ledger's own
    boot_id: str
    boot_ns: int
    utc: str
    unc_ms: int | None  # None: nobody vouches for `utc`
    kind: str
    body: dict[str, Any]
    receipt: str | None  # sha256 of the newest station receipt that the node had


class _Spelled(Struct, frozen=True, kw_only=True):
    """A Payload whose body is JSON already."""

    v: int
    node: str
    seq: int
    prev: str
    epoch: str
    number: int | None
    boot_id: str
    boot_ns: int
    utc: str
    unc_ms: int | None
    kind: str
    body: Raw
    receipt: str | None


@dataclass(frozen=True, slots=True)
class Fact:
    """A row of the journal: what is to go on the ledger, in order of `number`."""

    number: int | None
    kind: str
    boot_id: str
    boot_ns: int
    utc_ns: int
    unc_ns: int | None
    body: bytes  # JSON object


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """A line that is durable on the ledger. `number`: of its row in this store's journal, None: it has none there."""

    seq: int
    head: str  # sha256
    number: int | None
    line: bytes  # without newline


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """The last line of the ledger that was handed to the outbox. `seq` 0: none."""

    seq: int
    head: str


def payload_of(fact: Fact, *, node: str, epoch: str, seq: int, prev: str, receipt: str | None) -> bytes:
    """The bytes that are signed for this fact: JSON with sorted keys."""
    spelled = _Spelled(
        v=VERSION,
        node=node,
        seq=seq,
        prev=prev,
        epoch=epoch,
        number=fact.number,
        boot_id=fact.boot_id,
        boot_ns=fact.boot_ns,
        utc=rfc3339(fact.utc_ns),
        unc_ms=None if fact.unc_ns is None else -(-fact.unc_ns // MS),
        kind=fact.kind,
        body=Raw(fact.body),
        receipt=receipt,
    )
    return msgspec.json.encode(spelled, order="sorted")


def read(envelope: Envelope) -> Payload:
    """What an envelope's payload says. Raises Corrupt in one line. Does not verify the signature."""
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Corrupt(f"payload type {envelope.payload_type[:80]!r} is not that of a record")
    try:
        payload = msgspec.json.decode(envelope.payload, type=Payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"not a record: {error}") from None
    if payload.v != VERSION:
        raise Corrupt(f"a record of version {payload.v}; this program reads {VERSION}")
    return payload


def digest(line: bytes) -> str:
    """Names a line, or a receipt: SHA-256 of its bytes without newline."""
    return hashlib.sha256(line).hexdigest()


# -- bodies ------------------------------------------------------------------------------------------------------------


def body(**fields: Any) -> bytes:
    """A body as it is kept and signed: JSON with sorted keys."""
    return msgspec.json.encode(fields, order="sorted")


def segment_body(segment: Segment, *, resealed: bool = False) -> bytes:
    """A sealed file: name, times, size and hash. `resealed`: the row of before is void, a part was lost."""
    told = msgspec.to_builtins(segment)
    return body(**told, resealed=True) if resealed else body(**told)


def gap_body(gap: Gap) -> bytes:
    """A stretch in which nothing was recorded, and why."""
    return body(**msgspec.to_builtins(gap))


def verdict_body(verdict: Verdict) -> bytes:
    """What a person says of an alert; the time of it is the line's own."""
    return body(
        id=verdict.id,
        incident=verdict.incident,
        verdict=verdict.verdict,
        reason=verdict.reason,
        by=verdict.by,
        asker=verdict.asker,
    )


def anchor_body(anchor: TimeAnchor, moved_ns: int | None = None) -> bytes:
    """A pairing of boot time and UTC; for a clock step, by how much UTC jumped."""
    told = {
        "boot_id": anchor.boot_id,
        "boot_ns": anchor.boot_ns,
        "utc_ns": anchor.utc_ns,
        "unc_ns": anchor.unc_ns,
        "source": anchor.source,
    }
    return body(**told) if moved_ns is None else body(**told, moved_ns=moved_ns)


def event_body(event: Event, *, sequence: int, id: str, message: bytes) -> bytes:  # noqa: A002
    """An event: what it says, and the hash of the message that the station gets (as committed, `historical` false)."""
    told: dict[str, Any] = {
        "sequence": sequence,
        "id": id,
        "incident": event.incident,
        "kind": event.kind.value,
        "phase": event.phase.value,
        "severity": event.priority.name.lower(),
        "boot_ns": event.boot_ns,
        "summary": event.summary[:500],
        "message_sha256": hashlib.sha256(message).hexdigest(),
    }
    if event.label is not None:
        told["label"] = event.label.value
    if event.box is not None:
        told["box"] = event.box.clipped().as_list()
    if event.zones:
        told["zones"] = list(event.zones)
    if event.reason:
        told["reason"] = event.reason
    if event.onvif:
        told["onvif"] = event.onvif
    if event.rule:
        told["rule"] = event.rule
    if event.thumbnail is not None:
        told["thumbnail_sha256"] = hashlib.sha256(event.thumbnail).hexdigest()
    return body(**told)


def deletion_body(segments: Sequence[tuple[str, str, int, int, int, str]], reason: str) -> bytes:
    """Deleted files: (name, boot_id, start_ns, end_ns, bytes, sha256) each, and why."""
    names = ("name", "boot_id", "start_ns", "end_ns", "bytes", "sha256")
    return body(segments=[dict(zip(names, row, strict=True)) for row in segments], reason=reason)
