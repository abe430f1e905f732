"""Evidence alarms: what came from a post is not what it recorded, or its ledger does not hold.

One is raised in the transaction that notes what was found, and stays open until somebody who may answer alerts
acknowledges it, in one transaction with a line on the audit log. Of each post and kind one is open at most, with a
count: a hostile post must not bury the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, insert, select, text, true, update

from agent.clock import Clock
from agent.evidence.chain import What
from agent.station.db.engine import reading
from agent.station.db.evidence import evidence_alarm
from agent.station.db.people import person
from agent.station.db.tables import node
from agent.station.people.roles import Person, Scope
from agent.station.people.trail import Trail

SHOWN_MAX = 20
"""Open ones on a page, the newest; it says when there are more."""
MARKED_POSTS_MAX = 100_000
"""Posts with an open one that lists mark: more than a station has."""
PAST_MAX = 5
"""Acknowledged ones on the page of a post, the newest."""
FILE_CHARS_MAX = 200
TEXT_CHARS_MAX = 500
_C = evidence_alarm.c
_OPEN = _C.acknowledged_utc_ns.is_(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfFile:
    """The file that an alarm is about. `recorded` empty: nobody knows what it should be."""

    name: str = ""
    recorded: str = ""
    arrived: str = ""
    from_utc_ns: int | None = None
    to_utc_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceAlarm:
    """One as pages show it. `count` things were found, the newest at `last_utc_ns`. Times are UTC ns."""

    n: int
    node: str
    place: str
    what: str
    count: int
    first_utc_ns: int
    last_utc_ns: int
    text: str
    about: OfFile = field(default_factory=OfFile)
    acknowledged_by: str  # a name; empty: nobody
    acknowledged_utc_ns: int | None
    comment: str
    changed: int


def wait_for_others(db: Connection) -> None:
    """Who raises or answers one waits here, before it touches a row: so numbers grow as they become visible."""
    if db.dialect.name == "postgresql":  # SQLite's writers are alone anyhow
        db.execute(text("lock table evidence_alarm in share row exclusive mode"))


def sound(db: Connection, node: str, what: What, said: str, now_utc_ns: int, about: OfFile) -> None:
    """Raises an alarm, or counts on the open one of this post and kind. Behind `wait_for_others`."""
    told = {
        "last_utc_ns": now_utc_ns,
        "text": said[:TEXT_CHARS_MAX],
        "file": about.name[:FILE_CHARS_MAX],
        "recorded": about.recorded,
        "arrived": about.arrived,
        "from_utc_ns": about.from_utc_ns,
        "to_utc_ns": about.to_utc_ns,
        "changed": _newest(db) + 1,
    }
    this = (_C.node == node) & (_C.what == what.value) & _OPEN
    if not db.execute(update(evidence_alarm).where(this).values(times=_C.times + 1, **told)).rowcount:
        first = {"node": node, "what": what.value, "times": 1, "first_utc_ns": now_utc_ns}
        db.execute(insert(evidence_alarm).values(**first, **told))


def count_open(db: Connection) -> int:
    """Of all posts."""
    return int(db.execute(select(func.count()).select_from(evidence_alarm).where(_OPEN)).scalar_one())


class EvidenceAlarms:
    """What people see and do. Any thread. Raises Transient, Corrupt."""

    def __init__(self, engine: Engine, *, trail: Trail, clock: Clock) -> None:
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._posts: tuple[int, frozenset[str]] = -1, frozenset()  # as of which change

    def newest_change(self) -> int:
        """Grows with each change of any alarm."""
        with reading(self._engine) as db:
            return _newest(db)

    def posts(self) -> frozenset[str]:
        """The posts with one that nobody has acknowledged, whoever may see them; the same object until one changes."""
        with reading(self._engine) as db:
            newest = _newest(db)
            kept = self._posts
            if kept[0] != newest:
                query = select(_C.node).where(_OPEN).distinct().order_by(_C.node).limit(MARKED_POSTS_MAX)
                kept = self._posts = newest, frozenset(str(of) for of in db.execute(query).scalars())
            return kept[1]

    def open(self, scope: Scope) -> list[EvidenceAlarm]:
        """Those that nobody has acknowledged, the newest first: SHOWN_MAX, and one more where there are more."""
        query = _SHOWN.where(_visible(scope), _OPEN).order_by(_C.n.desc()).limit(SHOWN_MAX + 1)
        with reading(self._engine) as db:
            return _read(db, db.execute(query).all())

    def past(self, post: str) -> list[EvidenceAlarm]:
        """Those of a post that were acknowledged, the newest first."""
        query = _SHOWN.where(_C.node == post, ~_OPEN).order_by(_C.n.desc()).limit(PAST_MAX)
        with reading(self._engine) as db:
            return _read(db, db.execute(query).all())

    def acknowledge(self, who: Person, n: int, comment: str) -> tuple[str, str] | None:
        """The post, and who has it: `who`, or whoever was first. None: there is no such alarm for these eyes."""
        with self._trail.writing("acknowledge an evidence alarm") as entry:
            wait_for_others(entry.db)
            row = entry.db.execute(select(evidence_alarm).where(_visible(who.scope), _C.n == n)).one_or_none()
            if row is None:
                return None
            if row.acknowledged_by is not None:
                return row.node, row.acknowledged_by
            values = {"acknowledged_by": who.login, "acknowledged_utc_ns": self._clock.utc().utc_ns, "comment": comment}
            entry.db.execute(update(evidence_alarm).where(_C.n == n).values(**values, changed=_newest(entry.db) + 1))
            entry.note(
                "evidence-alarm-acknowledged",
                who.login,
                alarm=n,
                node=row.node,
                what=row.what,
                count=row.times,
                file=row.file,
                recorded=row.recorded,
                arrived=row.arrived,
                comment=comment,
            )
            return row.node, who.login


_SHOWN = select(evidence_alarm, node.c.place).outerjoin(node, node.c.node == _C.node)


def _visible(scope: Scope) -> ColumnElement[bool]:
    return true() if scope.whole_site else _C.node.in_(sorted(scope.posts))


def _newest(db: Connection) -> int:
    return int(db.execute(select(func.coalesce(func.max(_C.changed), 0))).scalar_one())


def _read(db: Connection, rows: Sequence[Row[Any]]) -> list[EvidenceAlarm]:
    logins = sorted({row.acknowledged_by for row in rows if row.acknowledged_by is not None})
    found = db.execute(select(person.c.login, person.c.name).where(person.c.login.in_(logins))) if logins else ()
    names = {str(row.login): str(row.name) for row in found}
    return [
        EvidenceAlarm(
            n=row.n,
            node=row.node,
            place=row.place or "",
            what=row.what,
            count=row.times,
            first_utc_ns=row.first_utc_ns,
            last_utc_ns=row.last_utc_ns,
            text=row.text,
            about=OfFile(
                name=row.file,
                recorded=row.recorded,
                arrived=row.arrived,
                from_utc_ns=row.from_utc_ns,
                to_utc_ns=row.to_utc_ns,
            ),
            acknowledged_by=names.get(row.acknowledged_by, row.acknowledged_by or ""),
            acknowledged_utc_ns=row.acknowledged_utc_ns,
            comment=row.comment,
            changed=row.changed,
        )
        for row in rows
    ]
