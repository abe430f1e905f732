"""Records: what a line says, byte for byte the same wherever it is made."""

from __future__ import annotations

import hashlib
import json

import pytest

from agent.clock import uuid7_maker
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.keys import generate
from agent.evidence.records import GENESIS, Fact, RecordKind
from agent.types import Box, Cause, EndReason, Event, Gap, Kind, Label, Phase, Priority, Segment, TimeAnchor
from tests.fakes.clock import FakeClock

SEGMENT = Segment("segments/000001-00000001.mp4", 1, "a" * 32, 5, 9, 1000, 30, "b" * 64, EndReason.ROLLED, 640, 360)
KEY = generate()


def payload(fact: Fact, **changes: object) -> bytes:
    told: dict[str, object] = {"node": "ward/cam-7", "epoch": "e", "seq": 1, "prev": GENESIS, "receipt": None}
    return records.payload_of(fact, **told | changes)  # type: ignore[arg-type]


def test_a_payload_is_canonical_json_and_reads_back() -> None:
    fact = Fact(
        7, RecordKind.SEGMENT, "c" * 32, 11, 1_700_000_000_250_000_000, 3_200_001, records.segment_body(SEGMENT)
    )
    spelled = payload(fact)
    assert (
        spelled == json.dumps(json.loads(spelled), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    said = records.read(dsse.parse(dsse.sign(records.PAYLOAD_TYPE, spelled, KEY)))
    assert (said.number, said.kind, said.boot_ns, said.utc, said.unc_ms) == (
        7, "segment", 11, "2023-11-14T22:13:20.250Z", 4,  # an error bound is rounded up, never down
    )  # fmt: skip
    assert said.body["sha256"] == "b" * 64
    assert said.body["end_reason"] == "rolled"


def test_every_fact_has_a_body_that_says_what_matters() -> None:
    clock = FakeClock()
    incident = uuid7_maker(clock)()
    event = Event(
        incident, Kind.PERSON, Phase.STARTED, 5, Priority.ALERT, "A person", Label.PERSON, 0.9, Box(0.9, 0, 0.5, 1),
        ("gate",), b"jpeg", 5,
    )  # fmt: skip
    told = json.loads(records.event_body(event, sequence=3, id="i", message=b"message"))
    assert told["message_sha256"] == hashlib.sha256(b"message").hexdigest()
    assert told["thumbnail_sha256"] == hashlib.sha256(b"jpeg").hexdigest()
    assert (told["sequence"], told["incident"], told["box"]) == (3, incident, [0.9, 0.0, 0.1, 1.0])
    assert b"jpeg" not in records.event_body(event, sequence=3, id="i", message=b"")
    gap = json.loads(records.gap_body(Gap("a", 1, 2, Cause.PRIVACY, "switch")))
    assert gap | {"boot_id": "a", "start_ns": 1, "end_ns": 2, "cause": "privacy", "detail": "switch"} == gap
    anchor = TimeAnchor("a", 1, 2, None, "ntp")
    assert json.loads(records.anchor_body(anchor))["unc_ns"] is None
    assert json.loads(records.anchor_body(anchor, -5))["moved_ns"] == -5
    deleted = json.loads(records.deletion_body([("n", "a", 1, 2, 3, "b")], "budget"))
    assert deleted["segments"][0] == {
        "name": "n",
        "boot_id": "a",
        "start_ns": 1,
        "end_ns": 2,
        "bytes": 3,
        "sha256": "b",
    }
    assert json.loads(records.segment_body(SEGMENT, resealed=True))["resealed"] is True


@pytest.mark.parametrize(
    "spelled",
    [
        b"{}",
        b"[]",
        b"\xff",
        payload(Fact(1, "x", "b", 1, 1, None, b"[]")),
        payload(Fact(1, "x", "b", 1, 1, None, b"{}"), seq=0),
        payload(Fact(1, "x", "b", 1, 1, None, b"{}"), prev="0" * 63),
        payload(Fact(1, "x", "b", 1, 1, None, b"{}")).replace(b'"v":1', b'"v":2'),
    ],
)
def test_what_is_no_record_is_said_to_be_none(spelled: bytes) -> None:
    with pytest.raises(Corrupt):
        records.read(dsse.parse(dsse.sign(records.PAYLOAD_TYPE, spelled, KEY)))


def test_a_receipt_is_not_a_record() -> None:
    with pytest.raises(Corrupt, match="not that of a record"):
        records.read(dsse.parse(dsse.sign("application/other", payload(Fact(1, "x", "b", 1, 1, None, b"{}")), KEY)))
