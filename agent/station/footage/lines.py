"""One ledger line at the station, as far as footage asks for it. Pure.

A line was verified as it came in, so neither its signature nor its spelling is looked at again: that is most of what
`dsse.parse` takes. What does not fit is left out all the same: a body is a node's words.
"""

from __future__ import annotations

import binascii
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agent.evidence import records
from agent.evidence.records import Payload, RecordKind
from agent.types import Segment


class _Line(msgspec.Struct):
    payload_type: str = msgspec.field(name="payloadType")
    payload: str


class _Bytes(msgspec.Struct):
    payload_type: str = msgspec.field(name="payloadType")
    payload: bytes


class Filed(msgspec.Struct, frozen=True):
    """A line of kind `segment`, with the parts that a coverage needs."""

    v: int
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    boot_id: str
    boot_ns: int
    kind: str
    body: Segment


_LINE = msgspec.json.Decoder(_Line)
_BYTES = msgspec.json.Decoder(_Bytes)
_PAYLOAD = msgspec.json.Decoder(Payload)
_FILED = msgspec.json.Decoder(Filed)
_WRONG = (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError)


def payload_of(body: bytes) -> Payload | None:
    """What a line says; None for one that this release cannot read."""
    try:
        raw = _LINE.decode(body)
        payload = _PAYLOAD.decode(binascii.a2b_base64(raw.payload))
    except _WRONG:
        return None
    return payload if raw.payload_type == records.PAYLOAD_TYPE and payload.v == records.VERSION else None


def filed(body: bytes) -> Filed | None:
    """The same of a sealed file's, in half of the time; None for every other one, which `payload_of` may know."""
    try:
        raw = _BYTES.decode(body)
        found = _FILED.decode(raw.payload)
    except _WRONG:
        return None
    good = raw.payload_type == records.PAYLOAD_TYPE and found.v == records.VERSION
    return found if good and found.kind == RecordKind.SEGMENT else None


def converted(body: dict[str, Any], kind: Any) -> Any:
    """A body as a row of the node's own store; None where it does not fit."""
    try:
        return msgspec.convert(body, kind)
    except (msgspec.ValidationError, ValueError, TypeError):
        return None
