"""What is kept of packages that were asked for, from the asking to the act that makes them one of the case's copies.

That act takes the wish away in its own transaction (`CaseDesk.copied`): whatever breaks, a package is on the timeline,
or it is still waited for. What the station died of while it was made is begun BEGUN_MAX times and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Engine, delete, insert, select, update

from agent.station.cases.packing import FAILED_MAX, FAILED_S_MAX, Failure, Why, Wish
from agent.station.cases.reading import posts_of
from agent.station.cases.states import Told
from agent.station.db.engine import reading, writing
from agent.station.db.people import person
from agent.station.db.wishes import package_wish
from agent.types import NS

BEGUN_MAX = 3
"""A package that was begun so often, and each time the station ended without a word, is not begun again by itself."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A wish as an earlier life has left it. `failure`: there will be no package, told since `failed_utc_ns`."""

    wish: Wish
    begun: int
    failed_utc_ns: int = 0
    failure: Failure | None = None


class Wishes:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, wish: Wish) -> Wish:
        """Keeps it; returns it with its number. That there was none of the same is told no more."""
        w = package_wish.c
        with writing(self._engine, "ask for a package") as db:
            db.execute(
                delete(package_wish).where(w.case_n == wish.case, w.node == wish.node, w.failed_utc_ns.is_not(None))
            )
            row = {
                "case_n": wish.case,
                "node": wish.node,
                "login": wish.login,
                "reason": wish.told.reason,
                "recipient": wish.told.recipient,
                "reference": wish.told.reference,
                "newest": wish.newest,
                "asked_utc_ns": wish.asked_utc_ns,
            }
            n = db.execute(insert(package_wish).values(**row).returning(w.n)).scalar_one()
        return replace(wish, n=int(n))

    def begin(self, n: int) -> bool:
        """It is made from now on, once more. False: there is no such wish, so its package is there."""
        return self._set(n, begun=package_wish.c.begun + 1)

    def put_back(self, n: int) -> bool:
        """The station ends, in order, and what was begun does not count. False as of `begin`."""
        return self._set(n, begun=package_wish.c.begun - 1)

    def fail(self, n: int, failure: Failure, *, utc_ns: int) -> bool:
        """There will be none. False: there is no such wish, so its package is there after all."""
        with writing(self._engine, "note why there is no package") as db:
            known = _set(db, n, failed_utc_ns=utc_ns, why=failure.why.value, said=failure.said)
            _tidy(db, utc_ns)
        return known

    def all(self, *, utc_ns: int) -> Sequence[Kept]:
        """What is waited for, in the order of asking, and which failed in the last FAILED_S_MAX, in that of failing."""
        w = package_wish.c
        with reading(self._engine, "read which packages were asked for") as db:
            rows = db.execute(
                select(package_wish, person.c.name)
                .outerjoin(person, person.c.login == w.login)
                .where(w.failed_utc_ns.is_(None) | (w.failed_utc_ns > utc_ns - round(FAILED_S_MAX * NS)))
                .order_by(w.failed_utc_ns, w.n)
            ).all()
            return [_kept(row, (row.node,) if row.node else posts_of(db, row.case_n)) for row in rows]

    def _set(self, n: int, **columns: Any) -> bool:
        with writing(self._engine, "note what becomes of a package") as db:
            return _set(db, n, **columns)


def granted(db: Connection, n: int) -> bool:
    """Its package comes to be there, in this transaction. False: it has come before."""
    return bool(db.execute(delete(package_wish).where(package_wish.c.n == n)).rowcount)


def _set(db: Connection, n: int, **columns: Any) -> bool:
    return bool(db.execute(update(package_wish).where(package_wish.c.n == n).values(**columns)).rowcount)


def _tidy(db: Connection, utc_ns: int) -> None:
    w = package_wish.c
    newest = (
        select(w.n).where(w.failed_utc_ns.is_not(None)).order_by(w.failed_utc_ns.desc(), w.n.desc()).limit(FAILED_MAX)
    )
    old = (w.failed_utc_ns <= utc_ns - round(FAILED_S_MAX * NS)) | w.n.not_in(newest.scalar_subquery())
    db.execute(delete(package_wish).where(w.failed_utc_ns.is_not(None), old))


def _kept(row: Any, posts: tuple[str, ...]) -> Kept:
    wish = Wish(
        case=row.case_n,
        node=row.node,
        posts=posts,
        login=row.login,
        name=row.name or row.login,
        told=Told(reason=row.reason, recipient=row.recipient, reference=row.reference),
        asked_utc_ns=row.asked_utc_ns,
        newest=row.newest,
        n=row.n,
    )
    if row.failed_utc_ns is None:
        return Kept(wish, row.begun)
    return Kept(wish, row.begun, row.failed_utc_ns, Failure(Why(row.why), row.said))
