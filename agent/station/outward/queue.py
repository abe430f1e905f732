"""The durable queue of what the station tells: a row for each notice and destination, in the station's database.

Notices are made of what the board (`alert_step`), the store (`change`) and whoever finds false evidence
(`evidence_alarm`) have committed, in their order, and a destination's mark moves in the same transaction as its rows:
after a kill -9 none is missing and none is there twice. A row is delivered at least once; its event and destination
name it for ever, and who receives it can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, case, delete, func, insert, or_, select, true, update

from agent.clock import Clock
from agent.errors import Corrupt
from agent.station.db.board import alert, alert_step
from agent.station.db.engine import reading, writing
from agent.station.db.evidence import evidence_alarm
from agent.station.db.outward import outward, outward_mark, outward_silent
from agent.station.db.tables import change, event, node
from agent.station.db.upsert import Upsert
from agent.station.outward import notice as notices
from agent.station.outward.notice import Kind, Notice
from agent.station.outward.retry import Outcome, hopeless
from agent.station.people.trail import Trail
from agent.types import NS

ROWS_MAX = 200
"""Looked at in one transaction, of each stream and destination."""
WAITING_MAX = 10_000
"""Of one destination; beyond that the oldest are given up, those about posts before those about alerts."""
ENDED_MAX = 20_000
"""Rows that are no longer waiting, of all destinations."""
WHY_CHARS_MAX = 300
_POSTS = ("dark", "back")
_STREAMS = ("step", "change", "evidence")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a destination is told, and when."""

    name: str
    tell: frozenset[Kind]
    keep_s: float
    after_s: float = 0.0  # alerts, evidence, and what is overdue, so long after it was put on record
    unless_answered: bool = False  # what somebody has acknowledged meanwhile is not told any more
    posts: frozenset[str] | None = None  # of these posts only; None: of all


@dataclass(frozen=True, slots=True)
class Waiting:
    """The oldest notice that a destination has not got."""

    n: int
    destination: str
    notice: Notice | None  # None: the row cannot be read
    attempts: int
    age_s: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with one destination."""

    destination: str
    waiting: int
    delivered: int
    given_up: int
    settled: int
    oldest_utc_ns: int | None  # of those that wait
    attempts: int  # of the oldest one
    why: str  # its last attempt failed


class OutwardQueue:
    """Any thread; one worker at a time moves it. Raises Transient, Corrupt."""

    def __init__(self, engine: Engine, *, trail: Trail, clock: Clock, site: str) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._site = site
        self._seen: tuple[int, int, int] | None = None  # of the streams, when nothing was left to do
        self._row = Upsert(outward, lambda bare: bare.on_conflict_do_nothing(index_elements=["event", "destination"]))
        self._silent = Upsert(outward_silent, lambda bare: bare.on_conflict_do_nothing())

    # -- what is to be told -------------------------------------------------------------------------------------------

    def begin(self, plans: Sequence[Plan]) -> None:
        """Opens the audit log too. A destination that is new is told what comes from now on; what waits for one that is
        gone is given up.
        """
        self._trail.open()
        self._seen = None
        with writing(self._engine, "begin to tell others") as db:
            newest = _newest(db)
            known = set(db.execute(select(outward_mark.c.destination).distinct()).scalars())
            for plan in plans:
                if plan.name not in known:
                    for stream, n in zip(_STREAMS, newest, strict=True):
                        db.execute(insert(outward_mark).values(destination=plan.name, stream=stream, n=n))
            gone = sorted(known - {plan.name for plan in plans})
            for table in (outward_mark, outward_silent):
                db.execute(delete(table).where(table.c.destination.in_(gone)))
        for name in gone:
            while self._give_up_oldest(name, ROWS_MAX, "it is no longer to be told"):
                pass

    def gather(self, plans: Sequence[Plan]) -> int:
        """Makes rows of what has come to pass since, a bounded part of it. Returns how many."""
        with reading(self._engine) as db:
            newest = _newest(db)
        if newest == self._seen:
            return 0
        made, left = 0, False
        with writing(self._engine, "queue what is to be told") as db:
            for plan in plans:
                rows, more = self._steps(db, plan, newest[0])
                posts, more_posts = self._changes(db, plan, newest[1])
                evidence, more_evidence = self._evidence(db, plan, newest[2])
                found = (*rows, *posts, *evidence)
                self._row.many(db, [self._values(plan, one) for one in found]) if found else None
                made += len(found)
                left = left or more or more_posts or more_evidence
            if made:
                _trim(db)
        self._seen = None if left else newest
        if made:
            for plan in plans:
                self._shed(plan.name)
        return made

    def _values(self, plan: Plan, told: Notice) -> dict[str, Any]:
        return {
            "destination": plan.name,
            "event": told.id,
            "kind": told.kind,
            "incident": told.incident,
            "made_utc_ns": self._clock.utc().utc_ns,
            "made_boot_id": self._clock.boot_id,
            "made_boot_ns": self._clock.boot_ns(),
            "body": notices.encode(told),
        }

    def _steps(self, db: Connection, plan: Plan, newest: int) -> tuple[list[Notice], bool]:
        """What the board has put on record, and whether something is left for later."""
        wanted = [
            *(["raised"] if plan.tell & {"bell", "alert"} else []),
            *(["overdue"] if "overdue" in plan.tell else []),
        ]
        mark = _mark(db, plan.name, "step")
        theirs = true() if plan.posts is None else alert.c.node.in_(sorted(plan.posts))
        query = (
            select(
                alert_step.c.n,
                alert_step.c.what,
                alert_step.c.utc_ns,
                alert.c.incident,
                alert.c.node,
                alert.c.severity,
                alert.c.raised_utc_ns,
                alert.c.due_utc_ns,
                alert.c.acknowledged_utc_ns,
                event.c.body,
            )
            .join(alert, alert.c.incident == alert_step.c.incident)
            .outerjoin(event, event.c.n == alert.c.event)
            .where(alert_step.c.n > mark, alert_step.c.n <= newest, alert_step.c.what.in_(wanted), theirs)
            .order_by(alert_step.c.n)
            .limit(ROWS_MAX)
        )
        rows = db.execute(query).all() if wanted and newest > mark else []
        found: list[Notice] = []
        reached, more = (rows[-1].n, True) if len(rows) == ROWS_MAX else (newest, False)
        for row in rows:
            if self._is_early(row.utc_ns, plan.after_s):
                reached, more = row.n - 1, True
                break
            kind: Kind = "overdue" if row.what == "overdue" else row.severity
            if kind in plan.tell and not (plan.unless_answered and row.acknowledged_utc_ns is not None):
                found.append(self._notice(kind, row))
        _set_mark(db, plan.name, "step", mark, reached)
        return found, more

    def _is_early(self, since_utc_ns: int, after_s: float) -> bool:
        """A wall clock that went back must not make somebody wait for hours: then it is now."""
        left_ns = since_utc_ns + int(after_s * NS) - self._clock.utc().utc_ns
        return 0 < left_ns <= int(after_s * NS)

    def _notice(self, kind: Kind, row: Any) -> Notice:
        return notices.of_alert(
            kind,
            step=row.n,
            site=self._site,
            node=row.node,
            incident=row.incident,
            severity=row.severity,
            noticed_utc_ns=row.utc_ns,
            due_utc_ns=row.due_utc_ns,
            body=None if row.body is None else bytes(row.body),
        )

    def _changes(self, db: Connection, plan: Plan, newest: int) -> tuple[list[Notice], bool]:
        """Posts that fell silent, and those of them that are heard again; not each that was merely late."""
        mark = _mark(db, plan.name, "change")
        if newest <= mark:
            return [], False
        rows = db.execute(
            select(change, node.c.place)
            .outerjoin(node, node.c.node == change.c.node)
            .where(change.c.n > mark, change.c.n <= newest, change.c.state.in_(("dark", "online")))
            .order_by(change.c.n)
            .limit(ROWS_MAX)
        ).all()
        found: list[Notice] = []
        for row in rows if plan.tell & set(_POSTS) else []:
            key = {"destination": plan.name, "node": row.node}
            if row.state == "dark":
                told: Kind | None = "dark" if self._silent.one(db, key) else None
            else:
                was = delete(outward_silent).filter_by(**key)
                told = "back" if db.execute(was).rowcount else None
            if told is not None and told in plan.tell:
                found.append(
                    notices.of_post(
                        told,
                        change=row.n,
                        site=self._site,
                        node=row.node,
                        place=row.place or "",
                        noticed_utc_ns=row.utc_ns,
                        since_utc_ns=row.since_utc_ns,
                    )
                )
        reached, more = (rows[-1].n, True) if len(rows) == ROWS_MAX else (newest, False)
        _set_mark(db, plan.name, "change", mark, reached)
        return found, more

    def _evidence(self, db: Connection, plan: Plan, newest: int) -> tuple[list[Notice], bool]:
        """Evidence alarms, each once: what is counted on an open one is not told again."""
        mark = _mark(db, plan.name, "evidence")
        if newest <= mark:
            return [], False
        c = evidence_alarm.c
        theirs = true() if plan.posts is None else c.node.in_(sorted(plan.posts))
        rows = db.execute(
            select(evidence_alarm, node.c.place)
            .outerjoin(node, node.c.node == c.node)
            .where(c.n > mark, c.n <= newest, theirs)
            .order_by(c.n)
            .limit(ROWS_MAX)
        ).all()
        found: list[Notice] = []
        reached, more = (rows[-1].n, True) if len(rows) == ROWS_MAX else (newest, False)
        for row in rows if "evidence" in plan.tell else []:
            if self._is_early(row.first_utc_ns, plan.after_s):
                reached, more = row.n - 1, True
                break
            if not (plan.unless_answered and row.acknowledged_utc_ns is not None):
                found.append(
                    notices.of_evidence(
                        alarm=row.n,
                        site=self._site,
                        node=row.node,
                        place=row.place or "",
                        what=row.what,
                        said=row.text,
                        file=row.file,
                        recorded=row.recorded,
                        arrived=row.arrived,
                        noticed_utc_ns=row.first_utc_ns,
                    )
                )
        _set_mark(db, plan.name, "evidence", mark, reached)
        return found, more

    def _shed(self, destination: str) -> None:
        with reading(self._engine) as db:
            count = select(func.count()).where(outward.c.state == "waiting", outward.c.destination == destination)
            excess = int(db.execute(count).scalar_one()) - WAITING_MAX
        if excess > 0:
            self._give_up_oldest(destination, excess, f"more than {WAITING_MAX} wait for this destination")

    # -- what became of it --------------------------------------------------------------------------------------------

    def head(self, destination: str) -> Waiting | None:
        """The oldest notice that waits for a destination; None: nothing does."""
        query = (
            select(outward, alert.c.acknowledged_utc_ns)
            .outerjoin(alert, alert.c.incident == outward.c.incident)
            .where(outward.c.state == "waiting", outward.c.destination == destination)
            .order_by(outward.c.n)
            .limit(1)
        )
        with reading(self._engine) as db:
            row = db.execute(query).one_or_none()
            answered = row is not None and (row.acknowledged_utc_ns is not None or _evidence_is_answered(db, row.event))
        return None if row is None else self._waiting(row, answered=answered)

    def _waiting(self, row: Any, *, answered: bool) -> Waiting:
        try:
            told = notices.decode(row.body)
        except Corrupt:
            told = None
        same = row.made_boot_id == self._clock.boot_id
        age_ns = self._clock.boot_ns() - row.made_boot_ns if same else self._clock.utc().utc_ns - row.made_utc_ns
        return Waiting(row.n, row.destination, told, row.attempts, max(age_ns, 0) / NS, answered)

    def note(self, one: Waiting, outcome: Outcome) -> bool:
        """Writes down what became of an attempt. Returns whether the notice waits on."""
        attempts = one.attempts + 1
        if outcome.state == "delivered":
            with writing(self._engine, "note a delivery") as db:
                self._end(db, [one.n], "delivered", "", attempts=attempts)
            return False
        if hopeless(outcome, attempts):
            self.give_up(one, outcome.why, attempts=attempts)
            return False
        with writing(self._engine, "note an attempt") as db:
            db.execute(
                update(outward).where(outward.c.n == one.n).values(attempts=attempts, why=outcome.why[:WHY_CHARS_MAX])
            )
        return True

    def settle(self, one: Waiting) -> None:
        """Somebody has answered: nobody else need be told."""
        with writing(self._engine, "note what is settled") as db:
            self._end(db, [one.n], "settled", "it was acknowledged meanwhile")

    def give_up(self, one: Waiting, why: str, *, attempts: int | None = None) -> None:
        """With a line on the audit log: somebody was not told."""
        tried = one.attempts if attempts is None else attempts
        with self._trail.writing("give a notice up") as entry:
            row = entry.db.execute(select(outward.c.event, outward.c.kind).where(outward.c.n == one.n)).one()
            self._end(entry.db, [one.n], "given-up", why, attempts=tried)
            entry.note(
                "outward-given-up",
                "",
                destination=one.destination,
                event=row.event,
                what=row.kind,
                attempts=tried,
                why=why[:WHY_CHARS_MAX],
            )

    def expire(self, plan: Plan) -> int:
        """Gives up what has waited for longer than it is kept, ROWS_MAX at once. Returns how many."""
        keep_ns = int(plan.keep_s * NS)
        here = outward.c.made_boot_id == self._clock.boot_id
        old = or_(
            and_(here, outward.c.made_boot_ns < self._clock.boot_ns() - keep_ns),
            and_(~here, outward.c.made_utc_ns < self._clock.utc().utc_ns - keep_ns),
        )
        return self._give_up_oldest(plan.name, ROWS_MAX, f"not delivered within {plan.keep_s / 3600:g} h", old)

    def _give_up_oldest(self, destination: str, count: int, why: str, *which: ColumnElement[bool]) -> int:
        """The oldest that wait, those about posts first; one line on the audit log for all of them."""
        with self._trail.writing("give notices up") as entry:
            rows = entry.db.execute(
                select(outward.c.n, outward.c.event)
                .where(outward.c.state == "waiting", outward.c.destination == destination, *which)
                .order_by(case((outward.c.kind.in_(_POSTS), 0), else_=1), outward.c.n)
                .limit(min(count, ROWS_MAX))
            ).all()
            if rows:
                self._end(entry.db, [row.n for row in rows], "given-up", why)
                events = {"first": rows[0].event, "last": rows[-1].event}
                entry.note("outward-given-up", "", destination=destination, count=len(rows), **events, why=why)
        return len(rows)

    def _end(self, db: Connection, rows: Sequence[int], state: str, why: str, **more: Any) -> None:
        values = {"state": state, "why": why[:WHY_CHARS_MAX], "ended_utc_ns": self._clock.utc().utc_ns, **more}
        db.execute(update(outward).where(outward.c.n.in_(rows)).values(**values))


def standings(engine: Engine, names: Sequence[str] = ()) -> list[Standing]:
    """How it stands with each destination that has rows, and with those of these names. Reads only."""
    with reading(engine) as db:
        counted: dict[str, dict[str, int]] = {name: {} for name in names}
        for row in db.execute(
            select(outward.c.destination, outward.c.state, func.count().label("rows"))
            .group_by(outward.c.destination, outward.c.state)
            .order_by(outward.c.destination)
        ):
            counted.setdefault(row.destination, {})[row.state] = row.rows
        first = select(func.min(outward.c.n)).where(outward.c.state == "waiting").group_by(outward.c.destination)
        heads = {row.destination: row for row in db.execute(select(outward).where(outward.c.n.in_(first)))}
    return list(_standings(counted, heads))


def _standings(counted: Mapping[str, Mapping[str, int]], heads: Mapping[str, Any]) -> Iterator[Standing]:
    for name, states in counted.items():
        head = heads.get(name)
        yield Standing(
            destination=name,
            waiting=states.get("waiting", 0),
            delivered=states.get("delivered", 0),
            given_up=states.get("given-up", 0),
            settled=states.get("settled", 0),
            oldest_utc_ns=None if head is None else head.made_utc_ns,
            attempts=0 if head is None else head.attempts,
            why="" if head is None else head.why,
        )


def _evidence_is_answered(db: Connection, told: str) -> bool:
    """`told`: the event of a row; of one that is about something else, no."""
    kind, _, n = told.partition("-")
    if kind != "evidence" or not n.isdecimal():
        return False
    answered = select(evidence_alarm.c.acknowledged_utc_ns).where(evidence_alarm.c.n == int(n))
    return db.execute(answered).scalar() is not None


def _newest(db: Connection) -> tuple[int, int, int]:
    """The highest row numbers of `alert_step`, `change` and `evidence_alarm`."""
    step, changed, found = (
        int(db.execute(select(func.coalesce(func.max(table.c.n), 0))).scalar_one())
        for table in (alert_step, change, evidence_alarm)
    )
    return step, changed, found


def _mark(db: Connection, destination: str, stream: str) -> int:
    mark = outward_mark.c.n
    found = select(mark).where(outward_mark.c.destination == destination, outward_mark.c.stream == stream)
    return int(db.execute(found).scalar_one())


def _set_mark(db: Connection, destination: str, stream: str, before: int, n: int) -> None:
    if n > before:
        row = (outward_mark.c.destination == destination, outward_mark.c.stream == stream)
        db.execute(update(outward_mark).where(*row).values(n=n))


def _trim(db: Connection) -> None:
    newest = db.execute(select(func.coalesce(func.max(outward.c.n), 0))).scalar_one()
    db.execute(delete(outward).where(outward.c.n <= newest - ENDED_MAX, outward.c.state != "waiting"))
