"""Reads what the station knows of its posts, each query bounded, into plain values. Takes no decision.

Of every post: its row, its newest heartbeat, its changes, and trouble among the newest events of all. Only of those
that need an explanation - dark now, or with an outage among the changes - also their last events and the starts on
their ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from agent import wire
from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.records import RecordKind
from agent.site.register import Node, Register
from agent.station.db.engine import reading
from agent.station.db.tables import change, event, key, ledger, line, node, stream
from agent.station.orders import FILE as ORDERS_FILE
from agent.station.orders import OrderBook
from agent.station.posts.known import Beat, Before, Change, Errand, Incident, Known, Spot, Start
from agent.types import NS

CHANGES_MAX = 10_000  # as many as the station keeps
KINDS = ("mains", "camera", "storage", "tamper")
EVENTS_SCANNED_MAX = 20_000
"""Of all posts, the newest: where trouble of posts that are heard is looked for."""
EVENTS_OF_POST_MAX = 100
LINES_SCANNED_MAX = 50_000
LINES_OF_POST_MAX = 5_000
STARTS_OF_POST_MAX = 50
ERRANDS_MAX = 20
EXPLAINED_POSTS_MAX = 2_000
FALSE_DAYS = 30.0


def spots_of(nodes: Iterable[Node]) -> dict[str, Spot]:
    """From the site's register."""
    return {
        one.node: Spot(one.house, one.pole, one.provider, one.lat, one.lon, one.custodian)
        for one in nodes
        if one.state != "revoked"
    }


def read_spots(root: Path) -> dict[str, Spot]:
    """From the register in a site's folder. Raises ConfigError, Corrupt, Transient."""
    register = Register(root / "register.db")
    register.open()
    try:
        return spots_of(register.nodes())
    finally:
        register.close()


class PostsReader:
    """Any thread; each call is one view of the database."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        """`folder`: the station's, where its book of orders is."""
        self._engine = engine
        self._folder = folder

    def read(self, spots: Mapping[str, Spot], *, now_utc_ns: int) -> list[Known]:
        """Every post that was ever heard, by name. Raises Transient, Corrupt."""
        with reading(self._engine, "read posts") as db:
            changes = _changes(db)
            incidents = _by_post(db, now_utc_ns)
            false = _false_alerts(db, now_utc_ns)
            first = select(key.c.node, func.min(key.c.since_utc_ns)).group_by(key.c.node)
            since: dict[str, int] = {of: at for of, at in db.execute(first)}  # noqa: C416  (a result is no pairs)
            found = [self._known(row, spots, changes, incidents, false, since) for row in db.execute(_ROWS)]
            unwell = [one for one in found if not one.heard or one.changes]
            unwell.sort(key=lambda one: (one.heard, -one.seen_utc_ns))
            closer = {one.node: _closer(db, one) for one in unwell[:EXPLAINED_POSTS_MAX]}
        errands = self._errands([one.node for one in unwell[:EXPLAINED_POSTS_MAX] if not one.heard])
        return [replace(closer.get(one.node, one), errands=errands.get(one.node, ())) for one in found]

    def _known(
        self,
        row: Any,
        spots: Mapping[str, Spot],
        changes: Mapping[str, list[Change]],
        incidents: Mapping[str, tuple[Incident, ...]],
        false: Mapping[str, int],
        since: Mapping[str, int],
    ) -> Known:
        of = row.node
        own = changes.get(of, [])
        known_since = min([row.state_since_utc_ns, row.seen_utc_ns, *(one.since_utc_ns for one in own[:1])])
        return Known(
            node=of,
            place=row.place,
            state=row.state,
            said=row.said,
            seen_utc_ns=row.seen_utc_ns,
            known_since_utc_ns=min(since.get(of, known_since), known_since),
            spot=spots.get(of, Spot()),
            beat=_beat(row.heartbeat, row.seen_utc_ns),
            incidents=incidents.get(of, ()),
            changes=tuple(own),
            false_alerts=false.get(of, 0),
        )

    def _errands(self, nodes: Iterable[str]) -> dict[str, tuple[Errand, ...]]:
        if not (self._folder / ORDERS_FILE).is_file():
            return {}
        book = OrderBook(self._folder)
        book.open()
        try:
            return {
                of: tuple(Errand(o.verb, o.asked_utc_ns, o.state, o.sent) for o in book.of(of, ERRANDS_MAX))
                for of in nodes
            }
        finally:
            book.close()


_ROWS = select(
    node.c.node,
    node.c.place,
    node.c.said,
    node.c.seen_utc_ns,
    node.c.state,
    node.c.state_since_utc_ns,
    node.c.heartbeat,
).order_by(node.c.node)


def _beat(body: bytes | None, seen_utc_ns: int) -> Beat | None:
    """The newest heartbeat. A birth after it counts as seen too, so this may be some seconds late."""
    if body is None:
        return None
    try:
        return Beat(wire.decode(body, wire.Heartbeat), seen_utc_ns)
    except Corrupt:
        return None  # of a form that this station does not understand


def _changes(db: Connection) -> dict[str, list[Change]]:
    rows = db.execute(
        select(change.c.node, change.c.state, change.c.utc_ns, change.c.since_utc_ns)
        .order_by(change.c.n.desc())
        .limit(CHANGES_MAX)
    ).all()
    found: dict[str, list[Change]] = {}
    for of, state, utc_ns, since_utc_ns in reversed(rows):
        found.setdefault(of, []).append(Change(state, utc_ns, since_utc_ns))
    return found


def _by_post(db: Connection, now_utc_ns: int) -> dict[str, tuple[Incident, ...]]:
    """Trouble among the newest events of all posts."""
    newest = db.execute(select(func.coalesce(func.max(event.c.n), 0))).scalar_one()
    rows = db.execute(
        select(stream.c.node, event.c.body)
        .join(stream, stream.c.stream == event.c.stream)
        .where(event.c.n > newest - EVENTS_SCANNED_MAX, event.c.kind.in_(KINDS))
        .order_by(event.c.n)
    )
    bodies: dict[str, list[bytes]] = {}
    for of, body in rows:
        bodies.setdefault(of, []).append(body)
    return {of: incidents_of(own, now_utc_ns) for of, own in bodies.items()}


def incidents_of(bodies: Iterable[bytes], now_utc_ns: int) -> tuple[Incident, ...]:
    """Events, oldest first, put together by incident; the newest first. What is no event of ours is left out.

    A node's clock may be wrong by years: what would lie ahead of the station's is taken to be now.
    """
    found: dict[str, Incident] = {}
    for body in bodies:
        try:
            one = wire.decode(body, wire.CloudEvent)
            at = min(parse_rfc3339(one.time), now_utc_ns)
            began = min(parse_rfc3339(one.data.since), now_utc_ns) if one.data.since else at
        except (Corrupt, ValueError, OverflowError):
            continue
        kind = one.type.removeprefix("wardpost.")
        if kind not in KINDS:
            continue
        ended = at if one.data.phase == "ended" else None
        before = found.pop(one.data.incident, None)
        if before is not None:
            ended = ended if before.ended_utc_ns is None else before.ended_utc_ns
            found[before.id] = replace(before, ended_utc_ns=ended)
        else:
            found[one.data.incident] = Incident(
                one.data.incident, kind, one.data.severity, began, ended, one.data.summary, one.data.reason
            )
    return tuple(sorted(found.values(), key=lambda one: -one.since_utc_ns))


def _false_alerts(db: Connection, now_utc_ns: int) -> dict[str, int]:
    """How many alerts people called false, by post, among the newest lines of all ledgers."""
    newest = db.execute(select(func.coalesce(func.max(line.c.n), 0))).scalar_one()
    rows = db.execute(
        select(line.c.node, line.c.body).where(
            line.c.n > newest - LINES_SCANNED_MAX,
            line.c.kind == RecordKind.VERDICT,
            line.c.received_utc_ns > now_utc_ns - round(FALSE_DAYS * 86_400) * NS,
        )
    )
    found: dict[str, int] = {}
    for of, body in rows:
        payload = _payload(body)
        if payload is not None and payload.body.get("verdict") == "false":
            found[of] = found.get(of, 0) + 1
    return found


def _closer(db: Connection, one: Known) -> Known:
    """A post that needs an explanation, with its last events and its starts."""
    streams = select(stream.c.stream).where(stream.c.node == one.node).order_by(stream.c.stream.desc()).limit(1)
    rows = db.execute(
        select(event.c.received_utc_ns, event.c.kind, event.c.body)
        .where(event.c.stream == streams.scalar_subquery(), event.c.kind != "thumbnail")
        .order_by(event.c.sequence.desc())
        .limit(EVENTS_OF_POST_MAX)
    ).all()
    trouble = incidents_of((body for _, kind, body in reversed(rows) if kind in KINDS), max(one.seen_utc_ns, 0) + NS)
    known = {incident.id: incident for incident in (*trouble, *one.incidents)}
    late = tuple(received for received, _, body in rows if _was_late(body))
    starts = tuple(start for start in map(_start, _starts(db, one.node)) if start is not None)
    ordered = sorted(known.values(), key=lambda incident: -incident.since_utc_ns)
    return replace(one, incidents=tuple(ordered), late_utc_ns=late, starts=starts)


def _was_late(body: bytes) -> bool:
    return b'"historical":true' in body


def _starts(db: Connection, of: str) -> list[tuple[int, bytes]]:
    """(received_utc_ns, body) of the newest starts on its ledgers, in order of arrival."""
    found: list[tuple[int, int, bytes]] = []
    for root, seq in db.execute(select(ledger.c.root, ledger.c.seq).where(ledger.c.node == of)).all():
        found += [
            (n, received, body)
            for n, received, body in db.execute(
                select(line.c.n, line.c.received_utc_ns, line.c.body)
                .where(
                    line.c.node == of,
                    line.c.root == root,
                    line.c.seq > seq - LINES_OF_POST_MAX,
                    line.c.kind == RecordKind.START,
                )
                .order_by(line.c.seq.desc())
                .limit(STARTS_OF_POST_MAX)
            )
        ]
    return [(received, body) for _, received, body in sorted(found, key=lambda row: row[0])]


def _start(row: tuple[int, bytes]) -> Start | None:
    received, body = row
    payload = _payload(body)
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
    return Start(payload.body["session"], payload.boot_id, payload.boot_ns, received, utc_ns, before)


def _payload(body: bytes) -> records.Payload | None:
    """What a line of a ledger says; its signature was verified as it came in."""
    try:
        return records.read(dsse.parse(body))
    except Corrupt:
        return None
