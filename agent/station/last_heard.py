"""What a station knows of a post that does not answer: when it was last heard, and what it said then. Pure.

No station knows why a post is dark. But a post that lost its mains, ran hot, was on trial with a new release or had a
full card said so before it fell silent, and that is where a technician begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent import wire
from agent.clock import rfc3339
from agent.errors import Corrupt
from agent.quantities import span
from agent.station.states import NodeSeen
from agent.types import NS

KINDS_OF_TROUBLE = ("mains", "tamper", "camera", "storage", "node")
HOT_C = 80.0
DISK_BYTES_MIN = 500_000_000


@dataclass(frozen=True, slots=True)
class LastHeard:
    """Of one post."""

    node: str
    state: str  # as the station judges it; "never heard"
    heard_utc_ns: int | None
    summary: str
    facts: tuple[str, ...]  # what it said of itself the last time
    events: tuple[str, ...]  # its last events that tell of trouble, newest first

    @classmethod
    def of(
        cls,
        node: str,
        seen: NodeSeen | None,
        heartbeat: bytes | None,
        events: Sequence[tuple[int, bytes]],
        *,
        utc_ns: int,
    ) -> LastHeard:
        """`heartbeat`, `events`: as they came, (received_utc_ns, body)."""
        if seen is None:
            what = "this station has never heard it; is it enrolled here, and is this the station it reports to?"
            return cls(node, "never heard", None, what, (), ())
        ago = span(max(utc_ns - seen.seen_utc_ns, 0) / NS)
        summary = f"it is {seen.state}; last heard {rfc3339(seen.seen_utc_ns)}, {ago} ago"
        if seen.state in ("online", "late"):
            summary += "; it is there, and does not answer: is `wardpost station` running here?"
        elif seen.said == "offline":
            summary += f"; {_left(seen.reason)}"
        else:
            summary += "; it fell silent without a goodbye: its power, its network, or the broker"
        return cls(node, seen.state, seen.seen_utc_ns, summary, tuple(_facts(heartbeat)), tuple(_events(events)))

    def words(self) -> list[str]:
        """Lines for a person."""
        return [
            f"    {self.summary}",
            *(f"    then: {fact}" for fact in self.facts),
            *(f"    before: {event}" for event in self.events),
        ]

    def as_dict(self) -> dict[str, Any]:
        """The same for a program."""
        heard = None if self.heard_utc_ns is None else rfc3339(self.heard_utc_ns)
        return {
            "state": self.state,
            "heard": heard,
            "summary": self.summary,
            "facts": list(self.facts),
            "events": list(self.events),
        }


def _left(reason: str) -> str:
    """Why it is offline, by `wire.Status.reason`; a newer agent's word is a goodbye, too, as on the page of posts."""
    match reason:
        case "":  # an older agent
            return "its connection ended: it was stopped, or the broker lost it"
        case wire.LOST:
            return "it said no goodbye, its connection died: its power, its network, or its program"
        case wire.UPDATE:
            return "it said goodbye while a release was on trial: it was restarting for an update"
        case wire.SETTINGS:
            return "it said goodbye while settings were on trial: it was restarting for them"
    return "it said goodbye: it was stopped in order, by a command, a person at the post, or the end of its system"


def _facts(body: bytes | None) -> list[str]:
    """What may explain a silence, of the newest heartbeat."""
    try:
        beat = None if body is None else wire.decode(body, wire.Heartbeat)
    except Corrupt:
        return ["its last heartbeat has a form that this station does not understand"]
    if beat is None:
        return ["it has never sent a heartbeat"]
    return [*_machine(beat), *_work(beat)]


def _machine(beat: wire.Heartbeat) -> Iterator[str]:
    machine = beat.machine
    if machine.uptime_s is not None:
        yield f"up for {span(machine.uptime_s)}, wardpost {beat.version}"
    if machine.throttled:
        yield f"power: {', '.join(machine.throttled)}"
    if machine.temperature_c is not None and machine.temperature_c >= HOT_C:
        yield f"hot: {machine.temperature_c:.0f} C"
    if machine.diskfreebytes is not None and machine.diskfreebytes < DISK_BYTES_MIN:
        yield f"card nearly full: {machine.diskfreebytes / 1e6:.0f} MB free"


def _work(beat: wire.Heartbeat) -> Iterator[str]:
    if beat.camera is None or beat.camera.frameagems is None:
        yield "no picture from its camera"
    if beat.release is not None and beat.release.phase == "trying":
        yield f"release {beat.release.tried} was on trial: if it is to blame, the post goes back by itself"
    if beat.settings is not None and beat.settings.trial:
        yield f"settings, revision {beat.settings.trial}, were on trial: if they are to blame, it goes back by itself"
    if beat.queue is not None and beat.queue.outboxrows:
        yield f"{beat.queue.outboxrows} messages were not delivered yet"


def _events(events: Sequence[tuple[int, bytes]]) -> list[str]:
    found = []
    for received_ns, body in events:
        try:
            event = wire.decode(body, wire.CloudEvent)
        except Corrupt:
            continue
        found.append(f"{event.time or rfc3339(received_ns)} {event.data.summary}")
    return found
