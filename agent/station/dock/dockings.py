"""The dockings: each is on the audit log, and has a row that pages find it by. Both change in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Engine,
    Row,
    ScalarSelect,
    and_,
    case,
    func,
    insert,
    null,
    select,
    true,
    update,
)

from agent.clock import Clock
from agent.station.db.dock import docking
from agent.station.db.engine import reading
from agent.station.db.tables import node
from agent.station.db.together import Question
from agent.station.db.uploads import WRONG, footage
from agent.station.dock.card import Passed
from agent.station.dock.intake import Report
from agent.station.dock.naming import NAMED_MAX, named
from agent.station.people.roles import Scope
from agent.station.people.trail import Trail

SHOWN_MAX = 50
"""Dockings of one page."""
COUNTED_MAX = 1000
"""Files of a docking without an end; one more stands for more."""
COUNTS = ("files", "taken", "duplicates", "bytes", "verified", "pending", "mismatched", "passed")


class DockingRecord:
    """One docking as it goes on record. One thread. Raises Transient, Corrupt."""

    def __init__(
        self, trail: Trail, *, clock: Clock, number: str, post: str, custodian: str, who: str, folder: str
    ) -> None:
        """`who`: `account:NAME` at the station's machine; `custodian`: who had the card until now."""
        self._trail = trail
        self._clock = clock
        self._number = number
        self._who = who
        self._about = {"dock": number, "post": post, "custodian": custodian, "folder": folder}

    def begin(self) -> None:
        """Before anything is read."""
        about = self._about
        with self._trail.writing("note that a docking begins") as entry:
            entry.note("dock-begun", self._who, **about)
            entry.db.execute(
                insert(docking).values(
                    number=self._number,
                    node=about["post"],
                    custodian=about["custodian"],
                    who=self._who,
                    folder=about["folder"],
                    begun_utc_ns=self._clock.utc().utc_ns,
                )
            )

    def end(self, report: Report) -> None:
        """Behind the last file."""
        counts = {name: value for name, value in asdict(report).items() if isinstance(value, int)}
        files = {"not_matching": named(report.not_matching), "not_taken": named(report.not_taken)}
        with self._trail.writing("note that a docking has ended") as entry:
            entry.note("dock-ended", self._who, **self._about, **counts, **files)
            entry.db.execute(
                update(docking)
                .where(docking.c.number == self._number)
                .values(
                    ended_utc_ns=self._clock.utc().utc_ns,
                    **{name: counts[name] for name in COUNTS},
                    **{name: msgspec.json.encode(of).decode() for name, of in files.items()},
                )
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Docking:
    """One, for a page. Times are UTC ns, by the station's clock."""

    n: int
    number: str
    post: str
    place: str | None  # None: the post was never heard, and has no page
    custodian: str
    who: str
    folder: str
    begun_utc_ns: int
    ended_utc_ns: int | None  # None: it goes on, or was cut off
    again: bool  # the post was docked again since
    counts: Mapping[str, int]  # without an end: `taken` and `mismatched` of what is here, COUNTED_MAX + 1 for more
    not_matching: Sequence[Passed]  # NAMED_MAX at most
    not_taken: Sequence[Passed]


class Dockings:
    """What pages read. Any thread. Raises Transient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def page(self, scope: Scope, before: int | None = None) -> tuple[list[Docking], int | None]:
        """Those of these posts, the newest first: SHOWN_MAX of those before number `before`, and what to go on from."""
        c = docking.c
        # Of some posts a database would walk along everybody's, as that order saves it a sort; not by a sum.
        order = c.n if scope.whole_site else c.n + 0
        which = and_(_visible(scope), true() if before is None else c.n < before)
        newest = select(c.n).where(which).order_by(order.desc()).limit(SHOWN_MAX + 1).subquery("newest")
        query = _SHOWN.join_from(docking, newest, newest.c.n == c.n).outerjoin(node, node.c.node == c.node)
        with reading(self._engine, "look for dockings") as db:
            rows = db.execute(query.order_by(c.n.desc())).all()
            shown = rows[:SHOWN_MAX]
            cut = [row.number for row in shown if row.ended_utc_ns is None and row.here_wrong]
            wrong = dict(zip(cut, _WRONG.ask(db, [{"number": number} for number in cut]), strict=True))
        return [_read(row, wrong.get(row.number)) for row in shown], shown[-1].n if len(rows) > SHOWN_MAX else None


def _visible(scope: Scope) -> ColumnElement[bool]:
    return true() if scope.whole_site else docking.c.node.in_(sorted(scope.posts))


def _read(row: Row[Any], wrong: Sequence[Row[Any]] | None) -> Docking:
    if row.ended_utc_ns is None:
        counts = {"taken": row.here, "mismatched": row.here_wrong}
    else:
        counts = {name: row._mapping[name] for name in COUNTS}  # noqa: SLF001  (so SQLAlchemy calls what is public)
    files = msgspec.json.Decoder(list[Passed])
    return Docking(
        n=row.n,
        number=row.number,
        post=row.node,
        place=row.place,
        custodian=row.custodian,
        who=row.who,
        folder=row.folder,
        begun_utc_ns=row.begun_utc_ns,
        ended_utc_ns=row.ended_utc_ns,
        again=bool(row.again),
        counts=counts,
        not_matching=files.decode(row.not_matching)
        if wrong is None
        else named(Passed(one.name, one.detail, one.sha256) for one in wrong),
        not_taken=files.decode(row.not_taken),
    )


def _here(*which: ColumnElement[bool]) -> ScalarSelect[Any]:
    """How many files a docking has brought, COUNTED_MAX + 1 at most."""
    some = select(footage.c.n).where(footage.c.order_id == docking.c.number, *which).limit(COUNTED_MAX + 1)
    return select(func.count()).select_from(some.correlate(docking).subquery("some")).scalar_subquery()


_CUT = docking.c.ended_utc_ns.is_(None)
_LATER = docking.alias("later")
_SHOWN = select(
    docking,
    node.c.place,
    select(_LATER.c.n).where(_LATER.c.node == docking.c.node, _LATER.c.n > docking.c.n).exists().label("again"),
    case((_CUT, _here()), else_=null()).label("here"),
    case((_CUT, _here(WRONG)), else_=null()).label("here_wrong"),
)
_WRONG = Question(
    lambda of: (
        select(footage.c.name, footage.c.detail, footage.c.sha256)
        .where(footage.c.order_id == of["number"], WRONG)
        .order_by(footage.c.n)
        .limit(NAMED_MAX)
    ),
    {"number": footage.c.order_id.type},
)
