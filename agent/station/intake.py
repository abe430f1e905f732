"""From a message to what the station may believe of it. Pure: bytes in, a value or Corrupt out.

The topic is what the broker's access list has checked, so it is the identity: what a message says of itself must match.
A message whose identity and sequence number can be read but whose content cannot (a newer node) is kept, not refused:
refusing would make its node send it for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent import wire
from agent.errors import Corrupt


class Envelope(wire.Message, frozen=True):
    """The least that an event must have, of whatever version."""

    id: wire.Uuid
    source: str
    epoch: wire.Uuid
    sequence: wire.Sequence


@dataclass(frozen=True, slots=True)
class EventIn:
    """An event to be stored. `incident` is None when its content is not understood."""

    node: str
    epoch: str
    sequence: int
    id: str
    kind: str
    incident: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class RecordIn:
    """A line of a node's ledger. Nothing in it is verified yet: agent.station.ledgers does that."""

    node: str
    epoch: str
    sequence: int
    line: bytes


@dataclass(frozen=True, slots=True)
class HeartbeatIn:
    """A sign of life."""

    node: str
    heartbeat: wire.Heartbeat
    body: bytes


@dataclass(frozen=True, slots=True)
class StatusIn:
    """What a node, or its last will, says of itself. A retained one is old news, not a sign of life."""

    node: str
    status: wire.Status
    retained: bool


Intake = EventIn | RecordIn | HeartbeatIn | StatusIn


def take(topic: str, payload: bytes, *, site: str, retained: bool = False) -> Intake:
    """Decodes one message. Raises Corrupt with the reason, in one line, and never anything else."""
    address = wire.parse_topic(topic)
    if address.site != site:
        raise Corrupt(f"of site {address.site!r}, this station serves {site!r}")
    match address.channel:
        case "event":
            return _event(address, payload)
        case "record":
            record = wire.decode(payload, wire.Record)
            return RecordIn(address.node, record.epoch, record.sequence, record.line.encode())
        case "heartbeat":
            heartbeat = wire.decode(payload, wire.Heartbeat)
            _same("node", heartbeat.node, address.node)
            return HeartbeatIn(address.node, heartbeat, payload)
        case "status":
            status = wire.decode(payload, wire.Status)
            _same("node", status.node, address.node)
            return StatusIn(address.node, status, retained)
    raise Corrupt(f"{address.channel} is not for a station")


def _event(address: wire.Address, payload: bytes) -> EventIn:
    source = f"wardpost/{address.site}/{address.node}"
    try:
        event = wire.decode(payload, wire.CloudEvent)
    except Corrupt:
        envelope = wire.decode(payload, Envelope)
        _same("source", envelope.source, source)
        return EventIn(address.node, envelope.epoch, envelope.sequence, envelope.id, address.leaf, None, payload)
    _same("source", event.source, source)
    _same("type", event.type, f"wardpost.{address.leaf}")
    _same("data.incident", event.data.incident, event.subject)
    return EventIn(address.node, event.epoch, event.sequence, event.id, address.leaf, event.subject, payload)


def _same(what: str, said: str, expected: str) -> None:
    if said != expected:
        raise Corrupt(f"{what} says {said[:100]!r}, its topic {expected!r}")
