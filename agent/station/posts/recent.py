"""What a station was told of all posts, followed from one look to the next: only rows that are new are read.

Rows are numbered in the order in which they came (`n`), by the one writer that there is. A look reads what lies behind
the last one; what has grown too much meanwhile, or has shrunk (another database was put in its place), is read anew.
Not for two threads at once. Nothing here takes a decision: what it gives is what a reader of everything would have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Table, func, select

from agent import wire
from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.records import RecordKind
from agent.station.db.tables import change, event, line, stream
from agent.station.posts.known import Change, Incident
from agent.types import NS

CHANGES_MAX = 10_000  # as many as the station keeps
KINDS = ("mains", "camera", "storage", "tamper")
EVENTS_SCANNED_MAX = 20_000
"""Of all posts, the newest: where trouble of posts that are heard is looked for."""
LINES_SCANNED_MAX = 50_000
FALSE_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """An event of one of KINDS. Times are the node's own."""

    incident: str
    kind: str
    utc_ns: int
    since_utc_ns: int
    ended: bool
    severity: str
    summary: str
    reason: str


def told_of(body: bytes) -> Told | None:
    """None: what is no event of ours, or not of KINDS."""
    try:
        one = wire.decode(body, wire.CloudEvent)
        at = parse_rfc3339(one.time)
        began = parse_rfc3339(one.data.since) if one.data.since else at
    except (Corrupt, ValueError, OverflowError):
        return None
    kind = one.type.removeprefix("wardpost.")
    if kind not in KINDS:
        return None
    data = one.data
    return Told(data.incident, kind, at, began, data.phase == "ended", data.severity, data.summary, data.reason)


def incidents_of(events: Iterable[Told], now_utc_ns: int) -> tuple[Incident, ...]:
    """Events, oldest first, put together by incident; the newest first.

    A node's clock may be wrong by years: what would lie ahead of the station's is taken to be now.
    """
    found: dict[str, Incident] = {}
    for one in events:
        at, began = min(one.utc_ns, now_utc_ns), min(one.since_utc_ns, now_utc_ns)
        ended = at if one.ended else None
        before = found.pop(one.incident, None)
        if before is not None:
            ended = ended if before.ended_utc_ns is None else before.ended_utc_ns
            found[before.id] = replace(before, ended_utc_ns=ended)
        else:
            found[one.incident] = Incident(one.incident, one.kind, one.severity, began, ended, one.summary, one.reason)
    return tuple(sorted(found.values(), key=lambda one: -one.since_utc_ns))


def payload_of(body: bytes) -> records.Payload | None:
    """What a line of a ledger says; its signature was verified as it came in."""
    try:
        return records.read(dsse.parse(body))
    except Corrupt:
        return None


def newest_n(db: Connection, table: Table) -> int:
    """The number of its newest row; 0: it has none."""
    return int(db.execute(select(func.coalesce(func.max(table.c.n), 0))).scalar_one())


class Recent:
    """Changes, trouble and false alerts of all posts."""

    def __init__(self) -> None:
        self._change_n = self._event_n = self._line_n = 0
        self._changes: deque[tuple[str, Change]] = deque()
        self._trouble: deque[tuple[int, str, Told]] = deque()
        self._false: deque[tuple[int, str, int]] = deque()

    def look(self, db: Connection) -> None:
        """Reads what is new."""
        self._look_changes(db)
        self._look_trouble(db)
        self._look_verdicts(db)

    def changes(self) -> dict[str, list[Change]]:
        """Of each post, oldest first."""
        found: dict[str, list[Change]] = {}
        for of, one in self._changes:
            found.setdefault(of, []).append(one)
        return found

    def trouble(self, now_utc_ns: int) -> Mapping[str, tuple[Incident, ...]]:
        """Of each post that has any."""
        events: dict[str, list[Told]] = {}
        for _, of, one in self._trouble:
            events.setdefault(of, []).append(one)
        return {of: incidents_of(own, now_utc_ns) for of, own in events.items()}

    def false_alerts(self, now_utc_ns: int) -> Mapping[str, int]:
        """How many alerts people called false, by post."""
        since = now_utc_ns - round(FALSE_DAYS * 86_400) * NS
        found: dict[str, int] = {}
        for _, of, received in self._false:
            if received > since:
                found[of] = found.get(of, 0) + 1
        return found

    def _look_changes(self, db: Connection) -> None:
        newest = newest_n(db, change)
        if newest < self._change_n:
            self._changes.clear()
            self._change_n = 0
        rows = db.execute(
            select(change.c.node, change.c.state, change.c.utc_ns, change.c.since_utc_ns, change.c.reason)
            .where(change.c.n > self._change_n, change.c.n <= newest)
            .order_by(change.c.n.desc())
            .limit(CHANGES_MAX)
        ).all()
        self._changes.extend((of, Change(*told)) for of, *told in reversed(rows))
        while len(self._changes) > CHANGES_MAX:
            self._changes.popleft()
        self._change_n = newest

    def _look_trouble(self, db: Connection) -> None:
        newest = newest_n(db, event)
        if newest < self._event_n:
            self._trouble.clear()
            self._event_n = 0
        rows = db.execute(
            select(event.c.n, stream.c.node, event.c.body)
            .join(stream, stream.c.stream == event.c.stream)
            .where(
                event.c.n > max(self._event_n, newest - EVENTS_SCANNED_MAX),
                event.c.n <= newest,
                event.c.kind.in_(KINDS),
            )
            .order_by(event.c.n)
        )
        self._trouble.extend((n, of, told) for n, of, body in rows if (told := told_of(body)) is not None)
        while self._trouble and self._trouble[0][0] <= newest - EVENTS_SCANNED_MAX:
            self._trouble.popleft()
        self._event_n = newest

    def _look_verdicts(self, db: Connection) -> None:
        newest = newest_n(db, line)
        if newest < self._line_n:
            self._false.clear()
            self._line_n = 0
        rows = db.execute(
            select(line.c.n, line.c.node, line.c.received_utc_ns, line.c.body)
            .where(
                line.c.n > max(self._line_n, newest - LINES_SCANNED_MAX),
                line.c.n <= newest,
                line.c.kind == RecordKind.VERDICT,
            )
            .order_by(line.c.n)
        )
        for n, of, received, body in rows:
            payload = payload_of(body)
            if payload is not None and payload.body.get("verdict") == "false":
                self._false.append((n, of, received))
        while self._false and self._false[0][0] <= newest - LINES_SCANNED_MAX:
            self._false.popleft()
        self._line_n = newest
