"""The alerts of the board, and what people do about them. Every act is a step of the alert and a line on the audit log,
in one transaction. Who may see which alert is part of each query.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, insert, or_, select, true, update

from agent import wire
from agent.clock import Clock
from agent.errors import Corrupt
from agent.station.db.board import alert, alert_step, board_mark
from agent.station.db.engine import reading
from agent.station.db.people import person
from agent.station.db.tables import event, stream
from agent.station.people.registry import find
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Entry, Trail
from agent.types import NS

ROWS_MAX = 500
"""Events looked at in one transaction."""
TEXT_CHARS_MAX = 300
"""Of a reason or a comment; the bound of a node's verdicts."""
SHOWN_MAX = 200
STEPS_MAX = 200
JPEG_BYTES_MAX = 64 * 1024
ANSWERING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL})
"""Who may acknowledge, and be handed an alert."""
_EVENTS = "event"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as a page shows it. `told` None: its event is no longer in the store. Times are UTC ns."""

    incident: str
    node: str
    severity: str
    raised_utc_ns: int
    due_utc_ns: int
    overdue: bool
    ended: bool
    acknowledged_by: str  # names, empty: nobody
    acknowledged_utc_ns: int | None
    assigned_to: str
    verdict: str
    verdict_by: str
    has_picture: bool
    changed: int
    told: wire.CloudEvent | None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that became of an alert. `who` is a name; empty: nobody."""

    n: int
    utc_ns: int
    what: str
    who: str
    text: str


class Alerts:
    """Any thread. Raises Transient."""

    def __init__(
        self, engine: Engine, *, trail: Trail, clock: Clock, bell_deadline_s: float, alert_deadline_s: float
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._deadline_ns = {"bell": int(bell_deadline_s * NS), "alert": int(alert_deadline_s * NS)}

    # -- what comes in ------------------------------------------------------------------------------------------------

    def take_in(self) -> bool:
        """Looks at what the store has taken in since, a bounded part of it. Returns whether there may be more."""
        with reading(self._engine) as db:
            mark = _mark(db)
            rows = db.execute(
                select(event.c.n, event.c.received_utc_ns, stream.c.node, event.c.body)
                .join(stream, event.c.stream == stream.c.stream)
                .where(event.c.n > mark)
                .order_by(event.c.n)
                .limit(ROWS_MAX)
            ).all()
        if not rows:
            return False
        with self._trail.writing("take in alerts") as entry:
            if _mark(entry.db) != mark:  # somebody else has taken them in meanwhile
                return True
            for row in rows:
                self._take(entry.db, row.n, row.received_utc_ns, row.node, bytes(row.body))
            _set_mark(entry.db, rows[-1].n)
        return len(rows) == ROWS_MAX

    def _take(self, db: Connection, n: int, received_ns: int, node: str, body: bytes) -> None:
        told = _event(body)
        if told is None:
            return
        data = told.data
        known = db.execute(
            select(alert.c.node, alert.c.severity).where(alert.c.incident == data.incident)
        ).one_or_none()
        if known is not None and known.node != node:
            return  # two nodes with one incident: the second one is not believed
        if known is None:
            if data.severity not in self._deadline_ns:
                return
            db.execute(
                insert(alert).values(
                    incident=data.incident,
                    node=node,
                    severity=data.severity,
                    event=n,
                    raised_utc_ns=received_ns,
                    due_utc_ns=received_ns + self._deadline_ns[data.severity],
                    ended=int(data.phase == "ended"),
                    picture=self._earlier_picture(db, node, data.incident),
                )
            )
            self._step(db, data.incident, "raised")
        elif data.severity == "thumbnail":
            if jpeg_of(told) is not None:
                self._set(db, data.incident, picture=n)
                self._step(db, data.incident, "picture")
        else:
            more: dict[str, Any] = {"severity": "bell"} if data.severity == "bell" else {}
            ended = data.phase == "ended"
            self._set(db, data.incident, event=n, ended=int(ended), **more)
            self._step(db, data.incident, "ended" if ended else "updated")

    @staticmethod
    def _earlier_picture(db: Connection, node: str, incident: str) -> int | None:
        """An incident may have had a picture before it became an alert."""
        query = (
            select(func.max(event.c.n))
            .join(stream, event.c.stream == stream.c.stream)
            .where(event.c.incident == incident, event.c.kind == "thumbnail", stream.c.node == node)
        )
        return db.execute(query).scalar()

    def note_overdue(self) -> int:
        """Puts on record what nobody has acknowledged in time. Returns how many."""
        now = self._clock.utc().utc_ns
        late = and_(alert.c.acknowledged_utc_ns.is_(None), alert.c.overdue_utc_ns.is_(None), alert.c.due_utc_ns <= now)
        query = select(alert.c.incident, alert.c.node, alert.c.severity).where(late).limit(ROWS_MAX)
        with reading(self._engine) as db:
            if db.execute(query.limit(1)).first() is None:
                return 0
        with self._trail.writing("note what is overdue") as entry:
            rows = entry.db.execute(query).all()
            for row in rows:
                self._set(entry.db, row.incident, overdue_utc_ns=now)
                self._step(entry.db, row.incident, "overdue")
                entry.note("overdue", "", incident=row.incident, node=row.node, severity=row.severity)
        return len(rows)

    # -- what is shown ------------------------------------------------------------------------------------------------

    def newest_step(self) -> int:
        """The number of the newest step of any alert: whoever listens from there on misses nothing."""
        with reading(self._engine) as db:
            return int(db.execute(select(func.coalesce(func.max(alert_step.c.n), 0))).scalar_one())

    def board(self, scope: Scope, since_utc_ns: int) -> list[Alert]:
        """What is open, and what was raised since. Open bells first, then open alerts, then the rest; newest first."""
        wanted = or_(alert.c.acknowledged_utc_ns.is_(None), alert.c.raised_utc_ns >= since_utc_ns)
        query = _alerts(scope).where(wanted)
        # What is open comes first, so that a flood of settled ones never hides it.
        order = (alert.c.acknowledged_utc_ns.isnot(None), alert.c.severity != "bell", alert.c.raised_utc_ns.desc())
        with reading(self._engine) as db:
            return _read(db, query.order_by(*order).limit(SHOWN_MAX))

    def changed_since(self, scope: Scope, step: int, limit: int) -> list[Alert]:
        """Alerts that something has become of since that step, in the order of their newest one."""
        query = _alerts(scope).where(alert.c.changed > step).order_by(alert.c.changed).limit(limit)
        with reading(self._engine) as db:
            return _read(db, query)

    def find(self, scope: Scope, incident: str) -> Alert | None:
        """One alert; None also when it is not for these eyes."""
        with reading(self._engine) as db:
            return next(iter(_read(db, _alerts(scope).where(alert.c.incident == incident))), None)

    def steps(self, scope: Scope, incident: str) -> list[Step]:
        """What became of one alert, oldest first; its newest STEPS_MAX, without mere signs of life."""
        query = (
            select(alert_step.c.n, alert_step.c.utc_ns, alert_step.c.what, alert_step.c.login, alert_step.c.text)
            .join(alert, alert.c.incident == alert_step.c.incident)
            .where(_visible(scope), alert.c.incident == incident, alert_step.c.what.notin_(("updated", "picture")))
            .order_by(alert_step.c.n.desc())
            .limit(STEPS_MAX)
        )
        with reading(self._engine) as db:
            rows = db.execute(query).all()
            names = _names(db, (row.login for row in rows))
        return [Step(r.n, r.utc_ns, r.what, names.get(r.login, r.login), r.text) for r in reversed(rows)]

    def picture(self, scope: Scope, incident: str) -> bytes | None:
        """The newest picture of an alert, JPEG."""
        query = select(event.c.body).join(alert, alert.c.picture == event.c.n)
        with reading(self._engine) as db:
            body = db.execute(query.where(_visible(scope), alert.c.incident == incident)).scalar()
        told = None if body is None else _event(bytes(body))
        return None if told is None else jpeg_of(told)

    def answering(self, scope: Scope, incident: str) -> list[Person]:
        """Who may be handed this alert."""
        with reading(self._engine) as db:
            node = db.execute(select(alert.c.node).where(_visible(scope), alert.c.incident == incident)).scalar()
            return [] if node is None else [one for one in find(db) if _may_take(one, node)]

    # -- what people do -----------------------------------------------------------------------------------------------

    def acknowledge(self, who: Person, incident: str) -> str | None:
        """Returns who has it: `who`, or whoever was first. None when there is no such alert for these eyes."""
        with self._trail.writing("acknowledge") as entry:
            row = self._need(entry.db, who, incident)
            if row is None:
                return None
            if row.acknowledged_by is None:
                self._acknowledge(entry, who, incident, row.node)
                return who.login
            return str(row.acknowledged_by)

    def judge(self, who: Person, incident: str, verdict: str, reason: str) -> bool:
        """True or false alert, and why. It is acknowledged by that, if it was not. False: no such alert."""
        with self._trail.writing("judge an alert") as entry:
            row = self._need(entry.db, who, incident)
            if row is None:
                return False
            if row.acknowledged_by is None:
                self._acknowledge(entry, who, incident, row.node)
            self._set(entry.db, incident, verdict=verdict, verdict_by=who.login)
            self._step(entry.db, incident, "verdict", who.login, f"{verdict}: {reason}" if reason else verdict)
            entry.note("verdict", who.login, incident=incident, node=row.node, verdict=verdict, reason=reason)
        return True

    def hand_over(self, who: Person, incident: str, to: str) -> bool:
        """To somebody who may answer this post's alerts. False: no such alert, or nobody of that kind."""
        with self._trail.writing("hand an alert over") as entry:
            row = self._need(entry.db, who, incident)
            if row is None or not any(_may_take(one, row.node) for one in find(entry.db, to)):
                return False
            self._set(entry.db, incident, assigned_to=to)
            self._step(entry.db, incident, "handed-over", who.login, to)
            entry.note("handed-over", who.login, incident=incident, node=row.node, to=to)
        return True

    def comment(self, who: Person, incident: str, text: str) -> bool:
        """What somebody adds. False: no such alert."""
        with self._trail.writing("comment an alert") as entry:
            row = self._need(entry.db, who, incident)
            if row is None:
                return False
            self._step(entry.db, incident, "comment", who.login, text)
            entry.note("comment", who.login, incident=incident, node=row.node, text=text)
        return True

    def _acknowledge(self, entry: Entry, who: Person, incident: str, node: str) -> None:
        self._set(entry.db, incident, acknowledged_by=who.login, acknowledged_utc_ns=self._clock.utc().utc_ns)
        self._step(entry.db, incident, "acknowledged", who.login)
        entry.note("acknowledged", who.login, incident=incident, node=node)

    @staticmethod
    def _need(db: Connection, who: Person, incident: str) -> Any:
        query = select(alert.c.node, alert.c.acknowledged_by).where(_visible(who.scope), alert.c.incident == incident)
        return db.execute(query).one_or_none()

    @staticmethod
    def _set(db: Connection, incident: str, **values: Any) -> None:
        db.execute(update(alert).where(alert.c.incident == incident).values(**values))

    def _step(self, db: Connection, incident: str, what: str, login: str = "", text: str = "") -> None:
        made = db.execute(
            insert(alert_step)
            .values(incident=incident, utc_ns=self._clock.utc().utc_ns, what=what, login=login, text=text)
            .returning(alert_step.c.n)
        ).scalar_one()
        self._set(db, incident, changed=made)


def jpeg_of(told: wire.CloudEvent) -> bytes | None:
    """The picture in a message, if it is one: a node may send anything."""
    if told.data.jpeg is None:
        return None
    try:
        data = base64.b64decode(told.data.jpeg, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data[:3] == b"\xff\xd8\xff" and len(data) <= JPEG_BYTES_MAX else None


def _visible(scope: Scope) -> ColumnElement[bool]:
    return true() if scope.whole_site else alert.c.node.in_(sorted(scope.posts))


def _may_take(one: Person, node: str) -> bool:
    return not one.disabled and one.role in ANSWERING and one.scope.covers(node)


def _alerts(scope: Scope) -> Select[Any]:
    return select(alert, event.c.body).outerjoin(event, alert.c.event == event.c.n).where(_visible(scope))


def _read(db: Connection, query: Select[Any]) -> list[Alert]:
    rows: Sequence[Row[Any]] = db.execute(query).all()
    names = _names(db, (x for r in rows for x in (r.acknowledged_by, r.assigned_to, r.verdict_by)))

    def name(login: str | None) -> str:
        return "" if login is None else names.get(login, login)

    return [
        Alert(
            incident=r.incident,
            node=r.node,
            severity=r.severity,
            raised_utc_ns=r.raised_utc_ns,
            due_utc_ns=r.due_utc_ns,
            overdue=r.overdue_utc_ns is not None and r.acknowledged_utc_ns is None,
            ended=bool(r.ended),
            acknowledged_by=name(r.acknowledged_by),
            acknowledged_utc_ns=r.acknowledged_utc_ns,
            assigned_to=name(r.assigned_to),
            verdict=r.verdict or "",
            verdict_by=name(r.verdict_by),
            has_picture=r.picture is not None,
            changed=r.changed,
            told=None if r.body is None else _event(bytes(r.body)),
        )
        for r in rows
    ]


def _names(db: Connection, logins: Iterable[str | None]) -> dict[str, str]:
    wanted = sorted({login for login in logins if login})
    if not wanted:
        return {}
    rows = db.execute(select(person.c.login, person.c.name).where(person.c.login.in_(wanted)))
    return {row.login: row.name for row in rows}


def _event(body: bytes) -> wire.CloudEvent | None:
    try:
        return wire.decode(body, wire.CloudEvent)
    except Corrupt:
        return None


def _mark(db: Connection) -> int:
    return int(db.execute(select(board_mark.c.value).where(board_mark.c.key == _EVENTS)).scalar() or 0)


def _set_mark(db: Connection, n: int) -> None:
    done = db.execute(update(board_mark).where(board_mark.c.key == _EVENTS).values(value=n))
    if not done.rowcount:
        db.execute(insert(board_mark).values(key=_EVENTS, value=n))
