"""From a message to what the station may believe of it. Pure: bytes in, a value or Corrupt out.

The topic is what the broker's access list has checked, so it is the identity: what a message says of itself must match.
A message whose identity and sequence number can be read but whose content cannot (a newer node) is kept, not refused:
refusing would make its node send it for ever.

A batch is judged part by part: each event says who it is and is acknowledged by its own number, so one bad part must
not keep the good ones out - their node would send them again with the bad one for ever. What is no batch of the
contract (no array, more parts than `wire.BATCH_EVENTS_MAX`) is refused whole: no node of ours sends it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agent import wire
from agent.errors import Corrupt


class Envelope(wire.Message, frozen=True):
    """The least that an event must have, of whatever version. In a batch also its type: there is no topic to say it."""

    id: wire.Uuid
    source: str
    epoch: wire.Uuid
    sequence: wire.Sequence
    type: str = ""


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


@dataclass(frozen=True, slots=True)
class ReportedIn:
    """Which settings a node says it has. A retained one is as good as a new one: it holds until there is another."""

    node: str
    settings: wire.SettingsState


Intake = EventIn | RecordIn | HeartbeatIn | StatusIn | ReportedIn


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message, or which parts of a batch, are not taken in."""

    reason: str
    payload: bytes


def take_all(topic: str, payload: bytes, *, site: str, retained: bool = False) -> tuple[list[Intake], Refusal | None]:
    """Decodes one message, which may be a batch. Never raises: what cannot be believed is refused, in one line."""
    try:
        address = wire.parse_topic(topic)
        if address.channel not in _BATCHES:
            return [_one(address, payload, site, retained)], None
        _serves(address, site)
        if address.node.startswith(wire.CLAIM_PREFIX):
            return [_one(address, payload, site, retained)], None  # which refuses it
        parts = wire.decode_batch(payload)
    except Corrupt as error:
        return [], Refusal(str(error), payload)
    one = _BATCHES[address.channel]
    taken: list[Intake] = []
    refused: list[Refusal] = []
    for part in parts:
        try:
            taken.append(one(address, part))
        except Corrupt as error:
            refused.append(Refusal(str(error), part))
    if not refused:
        return taken, None
    first = refused[0]
    return taken, Refusal(f"{len(refused)} of a batch of {len(parts)}, the first: {first.reason}", first.payload)


def take(topic: str, payload: bytes, *, site: str, retained: bool = False) -> Intake:
    """Decodes one message. Raises Corrupt with the reason, in one line, and never anything else."""
    return _one(wire.parse_topic(topic), payload, site, retained)


def _one(address: wire.Address, payload: bytes, site: str, retained: bool) -> Intake:
    _serves(address, site)
    if address.node.startswith(wire.CLAIM_PREFIX):  # whatever a broker's access list has let through
        raise Corrupt(f"{address.node} is a claim: it may ask for a certificate, and say nothing else")
    match address.channel:
        case "event":
            return _event(address, payload)
        case "record":
            return _record(address, payload)
        case "heartbeat":
            heartbeat = wire.decode(payload, wire.Heartbeat)
            _same("node", heartbeat.node, address.node)
            return HeartbeatIn(address.node, heartbeat, payload)
        case "status":
            status = wire.decode(payload, wire.Status)
            _same("node", status.node, address.node)
            return StatusIn(address.node, status, retained)
        case "config/reported":
            return ReportedIn(address.node, wire.decode(payload, wire.SettingsState))
    raise Corrupt(f"{address.channel} is not for a station")


def _serves(address: wire.Address, site: str) -> None:
    if address.site != site:
        raise Corrupt(f"of site {address.site!r}, this station serves {site!r}")


def _event(address: wire.Address, payload: bytes) -> EventIn:
    """One event. Its kind is the topic's last level; in a batch, its own word for it."""
    source = f"wardpost/{address.site}/{address.node}"
    try:
        event = wire.decode(payload, wire.CloudEvent)
    except Corrupt:
        envelope = wire.decode(payload, Envelope)
        _same("source", envelope.source, source)
        kind = address.leaf or _kind(envelope.type)
        return EventIn(address.node, envelope.epoch, envelope.sequence, envelope.id, kind, None, payload)
    _same("source", event.source, source)
    kind = address.leaf or _kind(event.type)
    _same("type", event.type, f"wardpost.{kind}")
    _same("data.incident", event.data.incident, event.subject)
    return EventIn(address.node, event.epoch, event.sequence, event.id, kind, event.subject, payload)


def _record(address: wire.Address, payload: bytes) -> RecordIn:
    record = wire.decode(payload, wire.Record)
    return RecordIn(address.node, record.epoch, record.sequence, record.line.encode())


def _kind(event_type: str) -> str:
    """`wardpost.person` -> `person`, of the alphabet and length that a topic allows."""
    match = _TYPE.fullmatch(event_type)
    if match is None:
        raise Corrupt(f"type {event_type[:100]!r} is not part of {wire.ROOT}")
    return match[1]


def _same(what: str, said: str, expected: str) -> None:
    if said != expected:
        raise Corrupt(f"{what} says {said[:100]!r}, its topic {expected!r}")


_TYPE = re.compile(r"wardpost\.([a-z0-9-]{1,36})")
_BATCHES: dict[str, Callable[[wire.Address, bytes], Intake]] = {"events": _event, "records": _record}
