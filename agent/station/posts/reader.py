"""Reads what the station knows of its posts, each query bounded, into plain values. Takes no decision.

Of every post: its row, its newest heartbeat, its changes, and trouble among the newest events of all. Only of those
that need an explanation - dark now, or with an outage among the changes - also their last events and the starts on
their ledger.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from agent import wire
from agent.errors import Corrupt
from agent.site.register import Node, Register
from agent.station.db.books import command
from agent.station.db.engine import reading
from agent.station.db.tables import key, node
from agent.station.posts.closer import Closer
from agent.station.posts.known import Beat, Change, Errand, Incident, Known, Spot
from agent.station.posts.recent import Recent

ERRANDS_MAX = 10_000
EXPLAINED_POSTS_MAX = 2_000


def spots_of(nodes: Iterable[Node]) -> dict[str, Spot]:
    """From the site's register. One that was revoked shares nothing with anybody any more: it is no evidence."""
    return {
        one.node: Spot(lat=one.lat, lon=one.lon, revoked=True)
        if one.state == "revoked"
        else Spot(one.house, one.pole, one.provider, one.lat, one.lon, one.custodian)
        for one in nodes
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
    """Each call is one view of the database. Whoever keeps a reader reads only what has come since the last call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._recent, self._closer = Recent(), Closer()
        self._beats: dict[str, tuple[bytes, wire.Heartbeat | None]] = {}

    def read(self, spots: Mapping[str, Spot], *, now_utc_ns: int) -> list[Known]:
        """Every post that was ever heard, by name. Any thread, one at a time. Raises Transient, Corrupt."""
        with self._lock:
            try:
                return self._read(spots, now_utc_ns)
            except BaseException:
                self._recent, self._closer = Recent(), Closer()  # they may have come halfway
                raise

    def _read(self, spots: Mapping[str, Spot], now_utc_ns: int) -> list[Known]:
        with reading(self._engine, "read posts") as db:
            self._recent.look(db)
            changes = self._recent.changes()
            incidents = self._recent.trouble(now_utc_ns)
            false = self._recent.false_alerts(now_utc_ns)
            first = select(key.c.node, func.min(key.c.since_utc_ns)).group_by(key.c.node)
            since: dict[str, int] = {of: at for of, at in db.execute(first)}  # noqa: C416  (a result is no pairs)
            found = [self._known(row, spots, changes, incidents, false, since) for row in db.execute(_ROWS)]
            unwell = [one for one in found if not one.heard or one.changes]
            unwell.sort(key=lambda one: (one.heard, -one.seen_utc_ns))
            closer = self._closer.look(db, unwell[:EXPLAINED_POSTS_MAX])
            updates = _updates(db)
        return [_errand(closer.get(one.node, one), updates) for one in found]

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
            beat=self._beat(of, row.heartbeat, row.seen_utc_ns),
            incidents=incidents.get(of, ()),
            changes=tuple(own),
            false_alerts=false.get(of, 0),
        )

    def _beat(self, of: str, body: bytes | None, seen_utc_ns: int) -> Beat | None:
        """The newest heartbeat. A birth after it counts as seen too, so this may be some seconds late."""
        if body is None:
            return None
        kept = self._beats.get(of)
        if kept is None or kept[0] != body:
            try:
                kept = body, wire.decode(body, wire.Heartbeat)
            except Corrupt:
                kept = body, None  # of a form that this station does not understand
            self._beats[of] = kept
        return None if kept[1] is None else Beat(kept[1], seen_utc_ns)


_ROWS = select(
    node.c.node,
    node.c.place,
    node.c.said,
    node.c.seen_utc_ns,
    node.c.state,
    node.c.state_since_utc_ns,
    node.c.heartbeat,
).order_by(node.c.node)


def _updates(db: Connection) -> dict[str, tuple[Errand, ...]]:
    """Updates on their way, the newest first: of all commands only they explain a silence."""
    rows = db.execute(
        select(command.c.node, command.c.verb, command.c.asked_utc_ns, command.c.state, command.c.sent)
        .where(command.c.state == "waiting", command.c.verb == "update")
        .order_by(command.c.n.desc())
        .limit(ERRANDS_MAX)
    )
    found: dict[str, tuple[Errand, ...]] = {}
    for of, *told in rows:
        found[of] = (*found.get(of, ()), Errand(*told))
    return found


def _errand(one: Known, updates: Mapping[str, tuple[Errand, ...]]) -> Known:
    return replace(one, errands=updates[one.node]) if not one.heard and one.node in updates else one
