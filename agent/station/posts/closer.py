"""The last events of posts that need an explanation, and the starts on their ledgers; followed as in `recent`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select

from agent.clock import parse_rfc3339
from agent.evidence.records import RecordKind
from agent.station.db.tables import event, ledger, line, stream
from agent.station.posts.known import Before, Known, Start
from agent.station.posts.recent import (
    EVENTS_SCANNED_MAX,
    KINDS,
    LINES_SCANNED_MAX,
    Told,
    incidents_of,
    newest_n,
    payload_of,
    told_of,
)
from agent.types import NS

EVENTS_OF_POST_MAX = 100
LINES_OF_POST_MAX = 5_000
STARTS_OF_POST_MAX = 50
POSTS_AT_ONCE = 200
"""In one query."""


@dataclass(frozen=True, slots=True)
class _Event:
    n: int
    received_utc_ns: int
    late: bool
    told: Told | None


@dataclass(slots=True)
class _Post:
    """Of one post. `events` by sequence, of its newest stream; `starts` by their number here: (root, seq, start)."""

    stream: int | None
    events: dict[int, _Event] = field(default_factory=dict)
    starts: dict[int, tuple[str, int, Start | None]] = field(default_factory=dict)


class Closer:
    """Not for two threads at once."""

    def __init__(self) -> None:
        self._event_n = self._line_n = 0
        self._posts: dict[str, _Post] = {}

    def look(self, db: Connection, posts: Collection[Known]) -> dict[str, Known]:
        """Those posts, with what is known of them closer."""
        wanted = {one.node for one in posts}
        self._posts = {of: one for of, one in self._posts.items() if of in wanted}
        events, lines = newest_n(db, event), newest_n(db, line)
        if not (0 <= events - self._event_n <= EVENTS_SCANNED_MAX and 0 <= lines - self._line_n <= LINES_SCANNED_MAX):
            self._posts.clear()
        streams = db.execute(select(stream.c.node, func.max(stream.c.stream)).group_by(stream.c.node))
        newest: dict[str, int] = {of: number for of, number in streams}  # noqa: C416  (a result is no pairs)
        self._posts = {of: one for of, one in self._posts.items() if one.stream == newest.get(of)}
        self._follow_events(db, events)
        self._follow_starts(db, lines)
        self._meet(db, sorted(wanted - self._posts.keys()), newest)
        self._event_n, self._line_n = events, lines
        heads: dict[str, dict[str, int]] = {}
        for of, root, seq in db.execute(select(ledger.c.node, ledger.c.root, ledger.c.seq)):
            heads.setdefault(of, {})[root] = seq
        first_event = int(db.execute(select(func.coalesce(func.min(event.c.n), 0))).scalar_one())
        first_line = int(db.execute(select(func.coalesce(func.min(line.c.n), 0))).scalar_one())
        return {
            one.node: _closer(self._posts[one.node], one, heads.get(one.node, {}), first_event, first_line)
            for one in posts
        }

    def _follow_events(self, db: Connection, newest: int) -> None:
        if not self._posts:
            return
        known = {one.stream: one for one in self._posts.values()}
        rows = db.execute(
            select(event.c.stream, *_EVENT)
            .where(event.c.n > self._event_n, event.c.n <= newest, event.c.kind != "thumbnail")
            .order_by(event.c.n)
        )
        for row in rows:
            if row.stream in known:
                _add(known[row.stream], row)

    def _follow_starts(self, db: Connection, newest: int) -> None:
        if not self._posts:
            return
        rows = db.execute(
            select(*_LINE).where(line.c.n > self._line_n, line.c.n <= newest, line.c.kind == RecordKind.START)
        )
        for row in rows:
            if row.node in self._posts:
                self._posts[row.node].starts[row.n] = row.root, row.seq, _start(row)

    def _meet(self, db: Connection, nodes: list[str], newest: Mapping[str, int]) -> None:
        """Posts that nothing is known of yet: all of it is read."""
        for first in range(0, len(nodes), POSTS_AT_ONCE):
            chunk = nodes[first : first + POSTS_AT_ONCE]
            for of in chunk:
                made = self._posts[of] = _Post(newest.get(of))
                for row in db.execute(_LAST_EVENTS, {"of": made.stream}) if made.stream is not None else ():
                    _add(made, row)
            met: dict[tuple[str, str], list[Any]] = {}
            for one in db.execute(_STARTS, {"chunk": chunk}):
                met.setdefault((one.node, one.root), []).append(one)
            for (of, _), rows in met.items():
                for one in sorted(rows, key=lambda one: -one.seq)[:STARTS_OF_POST_MAX]:
                    self._posts[of].starts[one.n] = one.root, one.seq, _start(one)


_EVENT = (event.c.sequence, event.c.n, event.c.received_utc_ns, event.c.kind, event.c.body)
_LAST_EVENTS = (
    select(*_EVENT)
    .where(event.c.stream == bindparam("of"), event.c.kind != "thumbnail")
    .order_by(event.c.sequence.desc())
    .limit(EVENTS_OF_POST_MAX)
)
_LINE = (line.c.node, line.c.root, line.c.seq, line.c.n, line.c.received_utc_ns, line.c.body)
_STARTS = (
    select(*_LINE)
    .join(ledger, and_(ledger.c.node == line.c.node, ledger.c.root == line.c.root))
    .where(
        ledger.c.node.in_(bindparam("chunk", expanding=True)),
        line.c.seq > ledger.c.seq - LINES_OF_POST_MAX,
        line.c.kind == RecordKind.START,
    )
)


def _add(post: _Post, row: Any) -> None:
    told = told_of(row.body) if row.kind in KINDS else None
    post.events[row.sequence] = _Event(row.n, row.received_utc_ns, b'"historical":true' in row.body, told)
    if len(post.events) > EVENTS_OF_POST_MAX:
        del post.events[min(post.events)]


def _closer(found: _Post, one: Known, heads: Mapping[str, int], first_event: int, first_line: int) -> Known:
    """A post with its last events and its starts; what the station has given up since is left out."""
    events = [found.events[s] for s in sorted(found.events, reverse=True) if found.events[s].n >= first_event]
    told = [row.told for row in reversed(events) if row.told is not None]
    known = {i.id: i for i in (*incidents_of(told, max(one.seen_utc_ns, 0) + NS), *one.incidents)}
    return replace(
        one,
        incidents=tuple(sorted(known.values(), key=lambda incident: -incident.since_utc_ns)),
        late_utc_ns=tuple(row.received_utc_ns for row in events if row.late),
        starts=tuple(_starts(found, heads, first_line)),
    )


def _starts(found: _Post, heads: Mapping[str, int], first_line: int) -> Iterator[Start]:
    """The newest of each ledger, in order of arrival."""
    by_root: dict[str, list[tuple[int, int]]] = {}
    for n, (root, seq, _) in found.starts.items():
        if n >= first_line and seq > heads.get(root, 0) - LINES_OF_POST_MAX:
            by_root.setdefault(root, []).append((seq, n))
    newest = (n for rows in by_root.values() for _, n in sorted(rows, reverse=True)[:STARTS_OF_POST_MAX])
    for n in sorted(newest):
        start = found.starts[n][2]
        if start is not None:
            yield start


def _start(row: Any) -> Start | None:
    payload = payload_of(row.body)
    if payload is None or not isinstance(payload.body.get("session"), int):
        return None
    told = payload.body.get("before")
    try:
        before = None if told is None else Before(
            int(told["session"]), str(told["boot_id"]), int(told["alive_ns"]), told["stop"]
        )  # fmt: skip
        utc_ns = None if payload.unc_ms is None else parse_rfc3339(payload.utc)
    except (KeyError, TypeError, ValueError):
        return None
    return Start(payload.body["session"], payload.boot_id, payload.boot_ns, row.received_utc_ns, utc_ns, before)
