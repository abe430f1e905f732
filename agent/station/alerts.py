"""The alerts of the board, and what people do about them. Every act is a step of the alert and a line on the audit log,
in one transaction. Who may see which alert is part of each query.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, insert, select, true, update

from agent import wire
from agent.clock import Clock
from agent.station.arrivals import Arrival, arrived
from agent.station.db.board import alert, alert_step, board_mark
from agent.station.db.engine import reading
from agent.station.db.people import person
from agent.station.db.tables import event, stream
from agent.station.db.together import Among
from agent.station.db.upsert import Upsert
from agent.station.people.registry import find
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Entry, Trail
from agent.station.store import event_of
from agent.types import NS

ROWS_MAX = 500
"""Events looked at in one transaction."""
TEXT_CHARS_MAX = 300
"""Of a reason or a comment; the bound of a node's verdicts."""
SHOWN_MAX = 200
COUNTED_MAX = 1000
"""Of open alerts: where there are more, their count says nothing more to anybody, and would cost more with each."""
SKIP_MAX = 10_000
"""Open alerts that a page of the board may pass by; what is behind is shown when some of them are answered."""
STEPS_MAX = 200
JPEG_BYTES_MAX = 64 * 1024
ANSWERING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL})
"""Who may acknowledge, and be handed an alert."""
PICTURES_TRIED_MAX = 4
"""Of an incident that becomes an alert: so many of the pictures before may turn out to be none."""
UNMARKED_MAX = 5000
"""Events that are of no alert may be looked at again after a restart, so many at most."""
_EVENTS = "event"
_KEEP = Upsert(
    alert,
    lambda made: made.on_conflict_do_update(
        index_elements=["incident"],
        set_={name: made.excluded[name] for name in ("severity", "event", "ended", "picture")},
    ),
)
_STEP = Upsert(alert_step, lambda made: made)
_C = alert.c
_ALERTS = Among(
    select(
        _C.incident, _C.node, _C.severity, _C.event, _C.raised_utc_ns, _C.due_utc_ns, _C.ended, _C.picture, _C.changed
    ),
    _C.incident,
)


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
    heard_utc_ns: int  # when that came; of one that is no longer there, when the alert was raised


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that became of an alert. `who` is a name; empty: nobody."""

    n: int
    utc_ns: int
    what: str
    who: str
    text: str


@dataclass(frozen=True, slots=True)
class _Told:
    """An event of the store."""

    n: int
    received_utc_ns: int
    node: str
    told: wire.CloudEvent

    @property
    def incident(self) -> str:
        return self.told.data.incident

    @property
    def severity(self) -> str:
        return self.told.data.severity

    @property
    def ended(self) -> bool:
        return self.told.data.phase == "ended"


@dataclass(slots=True)
class _Kept:
    """What events change of a row of `alert`; what people change of it is left alone."""

    incident: str
    node: str
    severity: str
    event: int
    raised_utc_ns: int
    due_utc_ns: int
    ended: int
    picture: int | None
    changed: int

    def row(self) -> dict[str, Any]:
        return asdict(self)


def _adds(known: _Kept, one: _Told) -> str:
    """What an event of its own node changes of an alert, as a step; empty: nothing."""
    if one.severity == "thumbnail":
        if jpeg_of(one.told) is None:
            return ""
        known.picture = one.n
        return "picture"
    known.event, known.ended = one.n, int(one.ended)
    if one.severity == "bell":
        known.severity = "bell"
    return "ended" if one.ended else "updated"


class Alerts:
    """Any thread. Raises Transient."""

    def __init__(
        self, engine: Engine, *, trail: Trail, clock: Clock, bell_deadline_s: float, alert_deadline_s: float
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._looked_at = 0  # n of the newest event that was looked at; the mark in the database may lie before it
        self._deadline_ns = {"bell": int(bell_deadline_s * NS), "alert": int(alert_deadline_s * NS)}

    # -- what comes in ------------------------------------------------------------------------------------------------

    def take_in(self) -> bool:
        """Looks at what the store has taken in since, a bounded part of it. Returns whether there may be more.

        A few statements whatever the part holds; where no alert is concerned nothing is written, but for the mark now
        and then: most events are of none, and a commit for each would cost as much as the taking in itself.
        """
        with reading(self._engine) as db:
            mark = max(stored := _mark(db), self._looked_at)
            rows = arrived(db, mark, ROWS_MAX)
            if not rows:
                return False
            of = {row.n: incident for row in rows if (incident := _incident_of(row)) is not None}
            known = self._known(db, set(of.values()))
        last, more = rows[-1].n, len(rows) == ROWS_MAX
        told = self._concerning(known, [(of[row.n], row) for row in rows if row.n in of])
        if not told:
            self._looked_at = last
            if last - stored < UNMARKED_MAX:
                return more
        with self._trail.writing("take in alerts") as entry:
            if _mark(entry.db) != stored:  # somebody else has taken them in meanwhile
                return True
            self._take(entry.db, told)
            _set_mark(entry.db, last)
        self._looked_at = last
        return more

    def _concerning(self, known: Container[str], rows: Sequence[tuple[str, Arrival]]) -> list[_Told]:
        """Those that raise alerts, and all others of an alert's incident. Most are of none, and glanced at only.

        `rows`: each with its incident.
        """
        raised = {incident for incident, row in rows if _severity_of(row.body) in self._deadline_ns}
        return [
            _Told(row.n, row.received_utc_ns, row.node, one)
            for incident, row in rows
            if (incident in raised or incident in known) and (one := event_of(row.body))
        ]

    @staticmethod
    def _known(db: Connection, incidents: Iterable[str]) -> dict[str, _Kept]:
        """Their alerts as they stand, of those that are alerts."""
        return {row.incident: _Kept(*row) for row in _ALERTS.ask(db, sorted(incidents))}

    def _take(self, db: Connection, told: Sequence[_Told]) -> None:
        """What becomes of alerts by these events, in their order."""
        alerts = self._known(db, {one.incident for one in told})
        steps: list[tuple[str, str]] = []
        new: list[_Kept] = []
        pictures: dict[tuple[str, str], int] = {}  # of incidents that are no alerts yet, here
        for one in told:
            known = alerts.get(one.incident)
            if known is None:
                if one.severity in self._deadline_ns:
                    due = one.received_utc_ns + self._deadline_ns[one.severity]
                    known = alerts[one.incident] = _Kept(
                        one.incident, one.node, one.severity, one.n, one.received_utc_ns, due, int(one.ended), None, 0
                    )
                    known.picture = pictures.get((one.incident, one.node))
                    new.append(known)
                    steps.append((one.incident, "raised"))
                elif one.severity == "thumbnail" and jpeg_of(one.told) is not None:
                    pictures[one.incident, one.node] = one.n
            elif known.node == one.node and (what := _adds(known, one)):  # of two nodes the second is not believed
                steps.append((one.incident, what))
        if not steps:
            return
        bare = {known.incident: known.node for known in new if known.picture is None}
        for incident, picture in self._earlier_pictures(db, bare, told[0].n).items():
            alerts[incident].picture = picture
        changed = [alerts[incident] for incident in dict.fromkeys(incident for incident, _ in steps)]
        _KEEP.many(db, [known.row() for known in changed])
        now = self._clock.utc().utc_ns
        _STEP.many(db, [{"incident": incident, "utc_ns": now, "what": what} for incident, what in steps])
        newest = select(func.max(alert_step.c.n)).where(alert_step.c.incident == alert.c.incident).scalar_subquery()
        touched = alert.c.incident.in_([known.incident for known in changed])
        db.execute(update(alert).where(touched).values(changed=newest))

    @staticmethod
    def _earlier_pictures(db: Connection, new: Mapping[str, str], first: int) -> dict[str, int]:
        """An incident may have had a picture before it became an alert: the newest that is one, before event `first`.

        `new`: the node of each.
        """
        if not new:
            return {}
        place = func.row_number().over(partition_by=[event.c.incident, stream.c.node], order_by=event.c.n.desc())
        pictures = (
            select(event.c.incident, stream.c.node, event.c.n, place.label("nth"))
            .join(stream, event.c.stream == stream.c.stream)
            .where(event.c.incident.in_(sorted(new)), event.c.kind == "thumbnail", event.c.n < first)
            .subquery()
        )
        newest = select(pictures).where(pictures.c.nth <= PICTURES_TRIED_MAX).order_by(pictures.c.n.desc())
        before: dict[str, list[int]] = {}
        for row in db.execute(newest):
            if row.node == new[row.incident]:
                before.setdefault(row.incident, []).append(row.n)
        found: dict[str, int] = {}
        for nth in range(PICTURES_TRIED_MAX):
            tried = {
                many[nth]: incident for incident, many in before.items() if incident not in found and nth < len(many)
            }
            if not tried:
                break
            for number, body in db.execute(select(event.c.n, event.c.body).where(event.c.n.in_(sorted(tried)))):
                told = event_of(bytes(body))
                if told is not None and jpeg_of(told) is not None:
                    found[tried[number]] = number
        return found

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

    def open_count(self, scope: Scope) -> int:
        """How many nobody has acknowledged; COUNTED_MAX + 1 stands for more."""
        with reading(self._engine) as db:
            bells = _count(db, _waiting(scope, "bell"), COUNTED_MAX + 1)
            return bells + _count(db, _waiting(scope, "alert"), COUNTED_MAX + 1 - bells)

    def board(self, scope: Scope, since_utc_ns: int, skip: int = 0) -> list[Alert]:
        """What is open, and what was raised since. Open bells first, then open alerts, then the rest; newest first.

        `skip`: so many of the open ones are passed by, and those that are settled with them; SKIP_MAX at most.

        Each of the three is the newest end of an index, so that it costs the same however many there are; what is open
        comes first, so that a flood of settled ones never hides it.
        """
        c = alert.c
        # Of some posts SQLite would walk along everybody's, as an index in that order saves it a sort; not by a sum.
        at = c.raised_utc_ns if scope.whole_site else c.raised_utc_ns + 0
        newest = select(alert).order_by(at.desc())
        settled = (_visible(scope), c.acknowledged_utc_ns.isnot(None), c.raised_utc_ns >= since_utc_ns)
        rows: list[Row[Any]] = []
        with reading(self._engine) as db:
            left = min(skip, SKIP_MAX)
            for severity in ("bell", "alert"):
                waiting = _waiting(scope, severity)
                passed = _count(db, waiting, left) if left else 0
                left -= passed
                if len(rows) < SHOWN_MAX:
                    rows += db.execute(newest.where(*waiting).offset(passed).limit(SHOWN_MAX - len(rows)))
            if not skip and len(rows) < SHOWN_MAX:
                rows += db.execute(newest.where(*settled).limit(SHOWN_MAX - len(rows)))
            return _read(db, rows)

    def changed_since(self, scope: Scope, step: int, limit: int) -> list[Alert]:
        """Alerts that something has become of since that step, in the order of their newest one."""
        query = select(alert).where(_visible(scope), alert.c.changed > step).order_by(alert.c.changed).limit(limit)
        with reading(self._engine) as db:
            return _read(db, db.execute(query).all())

    def find(self, scope: Scope, incident: str) -> Alert | None:
        """One alert; None also when it is not for these eyes."""
        with reading(self._engine) as db:
            rows = db.execute(select(alert).where(_visible(scope), alert.c.incident == incident)).all()
            return next(iter(_read(db, rows)), None)

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
        return [_step(row, names) for row in reversed(rows)]

    def picture(self, scope: Scope, incident: str) -> bytes | None:
        """The newest picture of an alert, JPEG."""
        query = select(event.c.body).join(alert, alert.c.picture == event.c.n)
        with reading(self._engine) as db:
            body = db.execute(query.where(_visible(scope), alert.c.incident == incident)).scalar()
        told = None if body is None else event_of(bytes(body))
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

    def unseen_verdict(self, who: Person, incident: str, seen: int) -> Step | None:
        """What somebody else has said of it last, if that is newer than step `seen`. Not for who may not see it."""
        with reading(self._engine) as db:
            row = None if self._need(db, who, incident) is None else _unseen(db, who, incident, seen)
            return None if row is None else _step(row, _names(db, [row.login]))

    def verdict_step(self, incident: str) -> int:
        """The number of the newest verdict on it; 0: there is none."""
        with reading(self._engine) as db:
            return int(db.execute(_newest_verdict(incident)).scalar() or 0)

    def judge(
        self,
        who: Person,
        incident: str,
        verdict: str,
        reason: str,
        seen: int | None = None,
        *,
        order: Callable[[Connection], str] = lambda _: "",
    ) -> bool:
        """True or false alert, and why. It is acknowledged by that, if it was not.

        False: no such alert, or somebody else has judged it since step `seen`. None: whatever was said before. `order`
        tells its post, in the same transaction, so that neither is there without the other: the id of what it queued,
        which goes on the audit log; empty: nothing, and so it says.
        """
        with self._trail.writing("judge an alert") as entry:
            row = self._need(entry.db, who, incident)
            if row is None or (seen is not None and _unseen(entry.db, who, incident, seen) is not None):
                return False
            if row.acknowledged_by is None:
                self._acknowledge(entry, who, incident, row.node)
            self._set(entry.db, incident, verdict=verdict, verdict_by=who.login)
            self._step(entry.db, incident, "verdict", who.login, f"{verdict}: {reason}" if reason else verdict)
            told = {"incident": incident, "node": row.node, "verdict": verdict, "reason": reason}
            entry.note("verdict", who.login, **told, order=order(entry.db))
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


def _incident_of(row: Arrival) -> str | None:
    """None: no release has understood its form. This one may, where that which stored it did not."""
    if row.incident is not None or (told := event_of(row.body)) is None:
        return row.incident
    return told.data.incident


class _GlanceData(msgspec.Struct):
    severity: str


class _Glance(msgspec.Struct):
    data: _GlanceData


_GLANCE = msgspec.json.Decoder(_Glance)


def _severity_of(body: bytes) -> str:
    """What an event says of itself; empty: nothing. Whether the rest of it can be believed is not looked at."""
    try:
        return _GLANCE.decode(body).data.severity
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


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


def _step(row: Row[Any], names: Mapping[str, str]) -> Step:
    return Step(row.n, row.utc_ns, row.what, names.get(row.login, row.login), row.text)


def _newest_verdict(incident: str) -> Select[Any]:
    c = alert_step.c
    query = select(c.n, c.utc_ns, c.what, c.login, c.text).where(c.incident == incident, c.what == "verdict")
    return query.order_by(c.n.desc()).limit(1)


def _unseen(db: Connection, who: Person, incident: str, seen: int) -> Row[Any] | None:
    """The newest verdict, if it is newer than that and somebody else's."""
    row = db.execute(_newest_verdict(incident)).one_or_none()
    return None if row is None or row.n <= seen or row.login == who.login else row


def _waiting(scope: Scope, severity: str) -> tuple[ColumnElement[bool], ...]:
    """What is open of one kind."""
    return _visible(scope), alert.c.acknowledged_utc_ns.is_(None), alert.c.severity == severity


def _count(db: Connection, which: tuple[ColumnElement[bool], ...], most: int) -> int:
    """How many there are, `most` at most: no more are looked at."""
    some = select(alert.c.raised_utc_ns).where(*which).limit(most).subquery()
    return int(db.execute(select(func.count()).select_from(some)).scalar_one())


def _may_take(one: Person, node: str) -> bool:
    return not one.disabled and one.role in ANSWERING and one.scope.covers(node)


def _read(db: Connection, rows: Sequence[Row[Any]]) -> list[Alert]:
    """Rows of `alert`, with what their newest events say."""
    heard = _heard(db, {r.event for r in rows})
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
            told=event_of(heard[r.event][1]) if r.event in heard else None,
            heard_utc_ns=heard[r.event][0] if r.event in heard else r.raised_utc_ns,
        )
        for r in rows
    ]


def _heard(db: Connection, numbers: set[int]) -> dict[int, tuple[int, bytes]]:
    """When each of these events came, and its body."""
    query = select(event.c.n, event.c.received_utc_ns, event.c.body).where(event.c.n.in_(sorted(numbers)))
    return {n: (received, bytes(body)) for n, received, body in (db.execute(query) if numbers else ())}


def _names(db: Connection, logins: Iterable[str | None]) -> dict[str, str]:
    wanted = sorted({login for login in logins if login})
    if not wanted:
        return {}
    rows = db.execute(select(person.c.login, person.c.name).where(person.c.login.in_(wanted)))
    return {row.login: row.name for row in rows}


def _mark(db: Connection) -> int:
    return int(db.execute(select(board_mark.c.value).where(board_mark.c.key == _EVENTS)).scalar() or 0)


def _set_mark(db: Connection, n: int) -> None:
    done = db.execute(update(board_mark).where(board_mark.c.key == _EVENTS).values(value=n))
    if not done.rowcount:
        db.execute(insert(board_mark).values(key=_EVENTS, value=n))
