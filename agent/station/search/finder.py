"""Looks for incidents, newest first, a bounded part at a time.

A search walks the newest end of one index: that of the posts it names or the person sees, else of the kind, of the
class, of time. First it is looked how far back LOOKED_MAX rows of that reach, in the index alone; then only rows so far
back are held against everything else that was asked for. So a search for what hardly ever happens costs no more than
one for what happens all the time, however much the store holds: it says how far it has looked, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, func, or_, select, true, tuple_, union_all

from agent import wire
from agent.station.alerts import jpeg_of
from agent.station.bells.deciding import SURE_MS_MAX
from agent.station.db.board import alert, alert_step
from agent.station.db.engine import reading
from agent.station.db.search import incident
from agent.station.db.tables import event
from agent.station.people.roles import Scope
from agent.station.search.keeper import waiting
from agent.station.search.meaning import fold
from agent.station.search.query import NO_VERDICT, Place, Query
from agent.station.store import event_of
from agent.types import MS

SHOWN_MAX = 24
LOOKED_MAX = 10_000
"""Rows of an index that one search walks."""
WALKS_MAX = 50
"""Posts whose own index is walked, each for its part of LOOKED_MAX; of more, everybody's is."""
_C = incident.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """One that was found. `told` None: its newest event cannot be read. Times are UTC ns."""

    incident: str
    node: str
    kind: str
    label: str
    severity: str
    at_utc_ns: int
    error_ms: int | None  # None: the time is that of arrival, the post's clock could not be gone by
    has_picture: bool
    is_alert: bool  # it has a page
    verdict: str
    told: wire.CloudEvent | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of a search. `onward`: where the next one begins; None: that was all."""

    incidents: tuple[Incident, ...]
    onward: Place | None
    looked_utc_ns: (
        int | None
    )  # nothing before this has been looked at, though the page is not full; None: no such bound
    waiting: int  # events of the store that cannot be found yet


class Finder:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine, *, looked_max: int = LOOKED_MAX) -> None:
        self._engine = engine
        self._looked_max = looked_max

    def find(self, scope: Scope, query: Query) -> Found:
        """The newest SHOWN_MAX of what was asked for, among what this person may see."""
        with reading(self._engine, "search") as db:
            posts = query.posts or (() if scope.whole_site else tuple(sorted(scope.posts)))
            cut = self._cut(db, posts, query)
            rows = db.execute(_page(posts, query, cut)).all()
            told = _told(db, [row.event for row in rows[:SHOWN_MAX]])
            left = waiting(db)
        shown = rows[:SHOWN_MAX]
        onward, looked = None, None
        if len(rows) > SHOWN_MAX:
            onward = Place(shown[-1].at_utc_ns, shown[-1].incident)
        elif cut is not None:
            onward, looked = Place(cut), cut
        return Found(
            incidents=tuple(_incident(row, told.get(row.event)) for row in shown),
            onward=onward,
            looked_utc_ns=looked,
            waiting=left,
        )

    def picture(self, scope: Scope, name: str) -> tuple[str, bytes] | None:
        """Post and newest picture, JPEG, of an incident; None also when it is not for these eyes."""
        query = select(_C.node, event.c.body).join(event, event.c.n == _C.picture).where(_C.incident == name)
        with reading(self._engine, "look for a picture") as db:
            row = db.execute(query).one_or_none()
        told = event_of(bytes(row.body)) if row is not None and scope.covers(row.node) else None
        jpeg = None if told is None else jpeg_of(told)
        return None if row is None or jpeg is None else (str(row.node), jpeg)

    def _cut(self, db: Connection, posts: Sequence[str], query: Query) -> int | None:
        """So far back may be looked; None: to the end. Of some posts each one's own index is walked, for its part."""
        walks = [_C.node == post for post in posts] if 0 < len(posts) <= WALKS_MAX else [_lead(posts, query)]
        each = max(self._looked_max // len(walks), 1)
        counts = []
        for walk in walks:
            part = select(_C.at_utc_ns).where(walk, *_span(query)).order_by(_C.at_utc_ns.desc(), _C.incident.desc())
            newest = part.limit(each).subquery()
            counts.append(select(func.count().label("rows"), func.min(newest.c.at_utc_ns).label("oldest")))
        found = db.execute(union_all(*counts) if len(counts) > 1 else counts[0]).all()
        return max((row.oldest for row in found if row.rows == each), default=None)


def _lead(posts: Sequence[str], query: Query) -> ColumnElement[bool]:
    """What the walked index begins with."""
    if 0 < len(posts) <= WALKS_MAX:
        return _C.node.in_(posts)
    if query.kind:
        return _C.kind == query.kind
    return _C.label == query.label if query.label else true()


def _page(posts: Sequence[str], query: Query, cut: int | None) -> Select[tuple[object, ...]]:
    """One more than are shown. `coalesce` keeps the databases from an index of which nobody has said how far back it
    may be walked.
    """
    kind, label, node = (func.coalesce(one, "") for one in (_C.kind, _C.label, _C.node))
    verdict = func.coalesce(alert.c.verdict, NO_VERDICT)
    asked: list[ColumnElement[bool]] = [_lead(posts, query), *_span(query)]
    if cut is not None:
        asked.append(_C.at_utc_ns >= cut)
    if len(posts) > WALKS_MAX:
        asked.append(node.in_(posts))
    if query.kind:
        asked.append(kind == query.kind)
    if query.label:
        asked.append(label == query.label)
    if query.severity:
        asked.append(func.coalesce(_C.severity, "") == query.severity)
    if query.verdict:
        asked += [verdict == query.verdict, func.coalesce(alert.c.incident, "") != ""]
    if query.zone:
        asked.append(_C.zones.contains(f"|{query.zone}|", autoescape=True))
    error_ns = func.coalesce(_C.error_ms, 0) * MS
    if query.start_utc_ns is not None:
        asked.append(_C.at_utc_ns + error_ns >= query.start_utc_ns)
    if query.end_utc_ns is not None:
        asked.append(_C.at_utc_ns - error_ns <= query.end_utc_ns)
    asked += [_says(word) for word in query.words]
    found = select(incident, alert.c.incident.label("alert"), alert.c.verdict).outerjoin(
        alert, alert.c.incident == _C.incident
    )
    # Of some posts SQLite would walk along everybody's, as an index in that order saves it a sort; not by a sum.
    at = _C.at_utc_ns + 0 if 1 < len(posts) <= WALKS_MAX else _C.at_utc_ns
    return found.where(*asked).order_by(at.desc(), _C.incident.desc()).limit(SHOWN_MAX + 1)


def _span(query: Query) -> list[ColumnElement[bool]]:
    """Where in time: the error of a post's clock may reach into what was asked for, from SURE_MS_MAX away at most."""
    where: list[ColumnElement[bool]] = []
    if query.start_utc_ns is not None:
        where.append(_C.at_utc_ns >= query.start_utc_ns - SURE_MS_MAX * MS)
    if query.end_utc_ns is not None:
        where.append(_C.at_utc_ns <= query.end_utc_ns + SURE_MS_MAX * MS)
    if query.before is not None:
        where.append(tuple_(_C.at_utc_ns, _C.incident) < tuple_(query.before.at_utc_ns, query.before.incident))
    return where


def _says(word: str) -> ColumnElement[bool]:
    """What the post said, in whatever letters; or what somebody wrote about the alert, in those that he used.

    A value and not `exists`, which PostgreSQL may answer by reading everything that anybody ever wrote.
    """
    wrote = (
        select(alert_step.c.n)
        .where(
            alert_step.c.incident == _C.incident,
            alert_step.c.what.in_(("comment", "verdict")),
            alert_step.c.text.icontains(word, autoescape=True),
        )
        .limit(1)
        .scalar_subquery()
    )
    return or_(_C.words.contains(fold(word), autoescape=True), wrote.is_not(None))


def _incident(row: Row[tuple[object, ...]], told: wire.CloudEvent | None) -> Incident:
    return Incident(
        incident=row.incident,
        node=row.node,
        kind=row.kind,
        label=row.label,
        severity=row.severity,
        at_utc_ns=row.at_utc_ns,
        error_ms=row.error_ms,
        has_picture=row.picture is not None,
        is_alert=row.alert is not None,
        verdict=row.verdict or "",
        told=told,
    )


def _told(db: Connection, numbers: Sequence[int]) -> dict[int, wire.CloudEvent]:
    rows = db.execute(select(event.c.n, event.c.body).where(event.c.n.in_(numbers))) if numbers else ()
    return {n: told for n, body in rows if (told := event_of(bytes(body))) is not None}
