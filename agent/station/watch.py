"""`wardpost watch`: what the station has stored, as it is stored, in words for the person on duty, or as JSON lines.

It reads the station's file beside the station, so it shows only what is safe, and each event once.
"""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from agent import wire
from agent.clock import Clock, parse_rfc3339, rfc3339
from agent.station.ledgers import ALARM
from agent.station.reader import Reader
from agent.station.store import event_of
from agent.types import NS

POLL_S = 0.2
ROWS_MAX = 500

_CALL = {"bell": "HELP CALL", "alert": "ALERT", "notice": "Notice", "record": "Record", "thumbnail": "Picture"}
_KEY = {
    "pinned": "has told its key for the first time, and is believed: compare it with `wardpost key show` at the post,"
    " and register it in station.node_keys",
    "registered": "has a key that is registered here",
    "introduced": "has a new key, introduced by the one before",
}
_STATE = {
    "online": "is back",
    "late": "is late: no sign of life",
    "dark": "IS SILENT: no sign of life",
    "offline": "has gone offline; last heard",
}


class Watcher:
    """Turns new rows of a station's file into lines. One thread; blocks for one query at a time."""

    def __init__(self, reader: Reader, *, as_json: bool, zone: dt.tzinfo | None = None) -> None:
        """`zone` is the time zone of the words; the machine's own unless given. JSON is always UTC."""
        self._reader = reader
        self._as_json = as_json
        self._zone = zone
        self._event = self._change = self._reject = 0
        self._keys: set[tuple[str, str]] = set()  # node and key id: a station's clock may go back, a key stays

    def from_now(self) -> None:
        """Skips what is already stored."""
        self._event, self._change, self._reject = (self._reader.newest(t) for t in ("event", "change", "reject"))
        self._keys = {(node, keyid) for _, node, keyid, _, _ in self._reader.all_keys()}

    def lines(self) -> Iterator[str]:
        """A line for each thing that was stored since the last call, a bounded number of them."""
        for n, received_ns, node, kind, body in self._reader.events_after(self._event, ROWS_MAX):
            self._event = n
            if self._as_json:
                yield _json({"kind": "event", "node": node, "received": rfc3339(received_ns), "event": _raw(body)})
            elif kind != "thumbnail":
                yield say_event(node, kind, event_of(body), received_ns, self._zone)
        for n, node, state, utc_ns, since_ns in self._reader.changes_after(self._change, ROWS_MAX):
            self._change = n
            if self._as_json:
                times = {"time": rfc3339(utc_ns), "since": rfc3339(since_ns)}
                yield _json({"kind": "node", "node": node, "state": state, **times})
            else:
                yield say_change(node, state, utc_ns, since_ns, self._zone)
        yield from self._new_keys()
        for n, received_ns, topic, reason in self._reader.rejects_after(self._reject, ROWS_MAX):
            self._reject = n
            if self._as_json:
                yield _json({"kind": "reject", "received": rfc3339(received_ns), "topic": topic, "reason": reason})
            else:
                yield say_reject(received_ns, topic, reason, self._zone)

    def _new_keys(self) -> Iterator[str]:
        """Keys of nodes that the station has come to know since: whose word it takes from now on."""
        if self._reader.key_count() == len(self._keys):
            return
        for since_ns, node, keyid, public, how in self._reader.all_keys():
            if (node, keyid) in self._keys:
                continue
            self._keys.add((node, keyid))
            if self._as_json:
                told = {"keyid": keyid, "public": public, "how": how, "time": rfc3339(since_ns)}
                yield _json({"kind": "key", "node": node, **told})
            else:
                yield say_key(node, keyid, public, how, since_ns, self._zone)


def follow(
    watcher: Watcher, *, say: Callable[[str], None], stop: threading.Event, clock: Clock, once: bool = False
) -> None:
    """Says each line until `stop` is set; with `once`, only what is stored now."""
    while not stop.is_set():
        said = 0
        for line in watcher.lines():
            say(line)
            said += 1
        if said:
            continue
        if once:
            return
        clock.wait(stop, POLL_S)


def say_event(
    node: str, kind: str, event: wire.CloudEvent | None, received_ns: int, zone: dt.tzinfo | None = None
) -> str:
    """One event in one line: when, how sure of the time, what, where, and whether it comes late."""
    if event is None:
        when = _clock_time(received_ns, zone)
        return (
            f"{when}  Record: post {node} reports {kind!r} in a form that this station does not understand; it is kept"
        )
    data = event.data
    where = f"{data.place} ({node})" if data.place else f"post {node}"
    call = _CALL[data.severity]
    if data.phase == "ended" and data.since not in (None, event.time):
        call = "Over"  # nobody need run any more
    late = "  [DELIVERED LATE]" if event.historical else ""
    return f"{_event_time(event, zone)}  {call} at {where}: {_sentence(kind, data)}{late}"


def _sentence(kind: str, data: wire.EventData) -> str:
    """The node's own sentence; of a node that sends none, what its fields say."""
    if data.summary:
        return data.summary.rstrip(".")
    parts = [f"{kind} {data.phase}"]
    if data.zones:
        parts.append(f"zone {', '.join(data.zones)}")
    if data.score is not None:
        parts.append(f"{data.score:.0%} sure")
    return "; ".join(parts)


def say_reject(received_ns: int, topic: str, reason: str, zone: dt.tzinfo | None = None) -> str:
    """A message that was refused, or an alarm about a ledger, in one line."""
    when = _clock_time(received_ns, zone)
    if reason.startswith(ALARM):
        return f"{when}  {ALARM} at post {topic.partition('/')[0]}: {reason.removeprefix(ALARM).lstrip(': ')}"
    return f"{when}  Refused: a message on {topic or '?'}: {reason}"


def say_key(node: str, keyid: str, public: str, how: str, since_ns: int, zone: dt.tzinfo | None = None) -> str:
    """A key that came into the station's books, in one line."""
    return f"{_clock_time(since_ns, zone)}  Post {node} {_KEY.get(how, how)}: {keyid} ({public})"


def say_change(node: str, state: str, utc_ns: int, since_ns: int, zone: dt.tzinfo | None = None) -> str:
    """A node that came or went, in one line."""
    since = "" if state == "online" else f" since {_clock_time(since_ns, zone)}"
    return f"{_clock_time(utc_ns, zone)}  Post {node} {_STATE.get(state, state)}{since}"


def _event_time(event: wire.CloudEvent, zone: dt.tzinfo | None) -> str:
    """The time of an event with its error: a wrong clock must not look like a right one."""
    try:
        when = _clock_time(parse_rfc3339(event.time), zone)
    except (ValueError, OverflowError):
        return f"{event.time} (not a time)"
    if event.timeerrms is None:
        return f"{when} (clock not verified)"
    return f"{when} ±{max(-(-event.timeerrms // 1000), 1)} s"


def _clock_time(utc_ns: int, zone: dt.tzinfo | None) -> str:
    moment = dt.datetime.fromtimestamp(min(max(utc_ns // NS, 0), 253_402_000_000), dt.UTC).astimezone(zone)
    return f"{moment:%d.%m.%Y %H:%M:%S}"


def _raw(body: bytes) -> Any:
    """The event as it came; text when it is not JSON after all."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace")


def _json(value: dict[str, Any]) -> str:
    return msgspec.json.encode(value).decode()
