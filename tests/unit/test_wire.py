"""Topics and messages: what is written is read, and what is not of the contract is refused in one line."""

from __future__ import annotations

import json
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.errors import Corrupt
from tests.unit.test_station import event

IDS = st.from_regex(r"[a-z0-9-]{1,32}", fullmatch=True)


@given(IDS, IDS, IDS)
def test_every_topic_that_is_made_can_be_taken_apart(site: str, node: str, leaf: str) -> None:
    topics = wire.Topics(site, node)
    made = {
        "status": topics.status,
        "heartbeat": topics.heartbeat,
        "events": topics.events,
        "record": topics.record,
        "records": topics.records,
        "ack": topics.ack,
        "event": topics.event(leaf),
        "cmd": topics.command(leaf),
        "reply": topics.reply(leaf),
        "config/desired": topics.desired,
        "config/reported": topics.reported,
    }
    for channel, topic in made.items():
        expected = leaf if channel in {"event", "cmd", "reply"} else ""
        assert wire.parse_topic(topic) == wire.Address(site, node, channel, expected)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "wardpost",
        "wardpost/v2/a/b/status",
        "wardpost/v1/A/b/status",
        "wardpost/v1/a/b/config",
        "wardpost/v1/a/b/config/other",
        "wardpost/v1/a/b/config/desired/x",
        "wardpost/v1/a/b/event",
        "wardpost/v1/a/b/status/x",
        "wardpost/v1/a/+/status",
        "wardpost/v1/a/b/event/person\n",
        "wardpost/v1/a/b/event/p/q",
        "x/wardpost/v1/a/b/status",
        "wardpost/v1/" + "a" * 33 + "/b/status",
    ],
)
def test_a_topic_of_something_else_is_refused(topic: str) -> None:
    with pytest.raises(Corrupt, match="is not part of wardpost/v1"):
        wire.parse_topic(topic)


@given(st.text(max_size=200))
def test_marking_an_event_late_changes_that_field_and_nothing_else(summary: str) -> None:
    """Whatever its text says, even the very bytes that are looked for."""
    for text in (summary, '"historical":false', '\\"historical":false'):
        before = event(1)
        data = wire.EventData(incident=before.subject, phase="started", severity="alert", summary=text)
        fields = {name: getattr(before, name) for name in before.__struct_fields__}
        body = wire.encode(wire.CloudEvent(**{**fields, "data": data}))
        marked = json.loads(wire.mark_historical(body))
        assert marked == {**json.loads(body), "historical": True}


@given(st.lists(st.integers(1, 60), max_size=60))
def test_ranges_hold_exactly_what_was_put_in(sequences: list[int]) -> None:
    ranges = wire.ranges(sequences)
    assert [s for low, high in ranges for s in range(low, high + 1)] == sorted(set(sequences))
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(payload: bytes) -> None:
    for kind in (wire.Status, wire.CloudEvent, wire.Receipt, wire.Command, wire.Heartbeat):
        with pytest.raises(Corrupt) as error:
            wire.decode(payload, kind)
        assert "\n" not in str(error.value)


def test_a_message_over_the_limit_is_a_bug_to_send_and_corrupt_to_receive() -> None:
    huge = wire.Reply(id="1" * 36, state="done", result={"x": "y" * wire.PAYLOAD_BYTES_MAX})
    with pytest.raises(ValueError, match="the limit is 65536"):
        wire.encode(huge)
    with pytest.raises(Corrupt, match="the limit is 65536"):
        wire.decode(b" " * (wire.PAYLOAD_BYTES_MAX + 1), wire.Reply)


def test_a_reader_ignores_what_a_newer_peer_adds() -> None:
    body = json.loads(wire.encode(event(1)))
    body["colour"] = "blue"
    assert wire.decode(json.dumps(body).encode(), wire.CloudEvent) == event(1)


def test_a_signature_covers_who_it_is_for() -> None:
    command = wire.Command(id="1" * 36, verb="siren", expires="2026-11-21T00:00:00Z", args={"b": 1, "a": 2})
    same = wire.Command(id="1" * 36, verb="siren", expires="2026-11-21T00:00:00Z", args={"a": 2, "b": 1})
    assert command.signing_bytes("s", "n") == same.signing_bytes("s", "n")
    assert command.signing_bytes("s", "n") != command.signing_bytes("s", "m")
    other = wire.Command(id="1" * 36, verb="siren", expires="2026-11-21T00:00:01Z", args={"b": 1, "a": 2})
    assert command.signing_bytes("s", "n") != other.signing_bytes("s", "n")


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), min_size=1, max_size=100))
def test_a_batch_gives_back_its_parts_byte_for_byte(parts: list[dict[str, str]]) -> None:
    encoded = [json.dumps(part).encode() for part in parts]
    assert wire.decode_batch(wire.encode_batch(encoded)) == encoded


def test_a_batch_beyond_the_contract_is_a_bug_of_its_maker() -> None:
    for parts in ([], [b"1"] * (wire.BATCH_EVENTS_MAX + 1), [b'"' + b"x" * 40_000 + b'"'] * 2):
        with pytest.raises(ValueError, match="a batch of"):
            wire.encode_batch(parts)


def test_why_a_node_left_is_understood_from_older_and_newer_nodes() -> None:
    said = {"state": "offline", "node": "gate-2", "bootid": "f" * 32, "session": 7}
    assert wire.decode(msgspec.json.encode(said), wire.Status).reason == "", "an older node says nothing of it"
    for reason in (*wire.LEFT, "struck-by-lightning"):
        assert wire.decode(msgspec.json.encode(said | {"reason": reason}), wire.Status).reason == reason
    with pytest.raises(Corrupt):
        wire.decode(msgspec.json.encode(said | {"reason": "x" * 33}), wire.Status)
    older = msgspec.defstruct("Older", [(one.name, one.type) for one in msgspec.structs.fields(wire.Status)[:4]])
    told = wire.Status(state="offline", node="gate-2", bootid="f" * 32, session=7, reason=wire.LOST)
    assert msgspec.to_builtins(msgspec.json.decode(wire.encode(told), type=older)) == said, (
        "an older station ignores it"
    )
