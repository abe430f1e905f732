"""Cases as pages show them. Who may see which is part of each query: a case whose posts are not all in somebody's scope
does not exist for him.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, false, func, select, true

from agent.station.archive_retention_rows import Removed, removed
from agent.station.cases.keeping import HoldAct, in_force
from agent.station.cases.states import Act, State, state_of
from agent.station.db.cases import case_act, case_head, case_item, case_post, case_tombstone
from agent.station.db.engine import reading
from agent.station.db.people import person
from agent.station.db.tables import node
from agent.station.people.roles import Scope

SHOWN_MAX = 200
ACTS_SHOWN_MAX = 500
ITEMS_SHOWN_MAX = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One act. `who` is a name."""

    number: int
    utc_ns: int
    login: str
    who: str
    act: Act
    reason: str
    recipient: str
    reference: str
    node: str
    detail: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Item:
    """Something that belongs to a case. `gone`: it was disposed of."""

    kind: str
    node: str
    ref: str
    name: str
    bytes: int
    from_utc_ns: int | None
    to_utc_ns: int | None
    gone: bool


@dataclass(frozen=True, slots=True)
class Stone:
    """What is left of a file."""

    node: str
    name: str
    sha256: str
    bytes: int
    who: str
    authority: str
    reason: str
    utc_ns: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list."""

    n: int
    number: str
    place: str
    reason: str
    state: State
    posts: tuple[str, ...]
    opened_utc_ns: int
    changed_utc_ns: int


@dataclass(frozen=True, slots=True)
class Case:
    """One case, whole. `newest`: the number of its last act; `held`: hold by post."""

    n: int
    number: str
    reason: str
    place: str
    from_utc_ns: int
    to_utc_ns: int
    posts: tuple[str, ...]
    state: State
    newest: int
    steps: tuple[Step, ...]  # the newest ACTS_SHOWN_MAX, oldest first
    items: tuple[Item, ...]
    stones: tuple[Stone, ...]
    held: dict[str, str]
    removed: tuple[Removed, ...] = ()  # of its posts and time, by retention: before there was the case, as a rule


@dataclass(frozen=True, slots=True)
class Since:
    """What was done on a case behind an act. `newest`: the number of its last act."""

    n: int
    posts: tuple[str, ...]
    newest: int
    steps: tuple[Step, ...]  # the newest ACTS_SHOWN_MAX, oldest first


class Cases:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def listing(self, scope: Scope) -> list[Row]:
        """The newest SHOWN_MAX, the newest first."""
        newest = (
            select(case_act.c.case_n, func.max(case_act.c.number).label("number"))
            .group_by(case_act.c.case_n)
            .subquery()
        )
        query = (
            select(case_head)
            .join(newest, newest.c.case_n == case_head.c.n)
            .where(visible(scope))
            .order_by(case_head.c.n.desc())
            .limit(SHOWN_MAX)
        )
        with reading(self._engine, "list cases") as db:
            heads = db.execute(query).all()
            return [_row(db, head) for head in heads]

    def find(self, scope: Scope, n: int) -> Case | None:
        """One; None also when it is not for these eyes."""
        with reading(self._engine, "read a case") as db:
            return find(db, scope, n)

    def since(self, scope: Scope, n: int, number: int) -> Since | None:
        """What came behind act `number`, without what else there is of the case: a page asks every few seconds."""
        with reading(self._engine, "read a case") as db:
            if head_of(db, scope, n) is None:
                return None
            steps = tuple(_steps(db, n, case_act.c.number > number))
            return Since(n, posts_of(db, n), newest_of(db, n), steps)

    def step(self, scope: Scope, n: int, number: int) -> Step | None:
        """One act of a case."""
        with reading(self._engine, "read a case") as db:
            if head_of(db, scope, n) is None:
                return None
            return next(iter(_steps(db, n, case_act.c.number == number)), None)

    def gone(self, scope: Scope, n: int) -> list[tuple[str, str]]:
        """(post, SHA-256) of all its files that were disposed of."""
        with reading(self._engine, "read a case") as db:
            if head_of(db, scope, n) is None:
                return []
            stones = select(case_tombstone.c.node, case_tombstone.c.sha256).where(case_tombstone.c.case_n == n)
            return [(of, sha256) for of, sha256 in db.execute(stones)]

    def posts(self, scope: Scope) -> list[tuple[str, str]]:
        """(post, place) that somebody may open a case about."""
        mine = true() if scope.whole_site else node.c.node.in_(sorted(scope.posts))
        with reading(self._engine, "list posts") as db:
            return [
                (of, place) for of, place in db.execute(select(node.c.node, node.c.place).where(mine).order_by("node"))
            ]


def visible(scope: Scope) -> ColumnElement[bool]:
    """Cases of this scope."""
    if scope.whole_site:
        return true()
    if not scope.posts:
        return false()
    foreign = select(case_post.c.node).where(
        case_post.c.case_n == case_head.c.n, case_post.c.node.notin_(sorted(scope.posts))
    )
    return ~foreign.exists()


def head_of(db: Connection, scope: Scope, n: int) -> Any:
    """The row of a case; None when there is none for these eyes."""
    return db.execute(select(case_head).where(visible(scope), case_head.c.n == n)).one_or_none()


def posts_of(db: Connection, n: int) -> tuple[str, ...]:
    """Its posts, by name."""
    return tuple(
        db.execute(select(case_post.c.node).where(case_post.c.case_n == n).order_by(case_post.c.node)).scalars()
    )


def acts_of(db: Connection, n: int) -> list[Act]:
    """Its whole timeline, as far as its state hangs on it."""
    rows = db.execute(select(case_act.c.act).where(case_act.c.case_n == n).order_by(case_act.c.number)).scalars()
    return [Act(act) for act in rows]


def newest_of(db: Connection, n: int) -> int:
    """The number of its last act."""
    return int(
        db.execute(select(func.coalesce(func.max(case_act.c.number), 0)).where(case_act.c.case_n == n)).scalar_one()
    )


def held_of(db: Connection, n: int) -> dict[str, str]:
    """Hold by post."""
    rows = db.execute(
        select(case_act.c.act, case_act.c.node, case_act.c.detail)
        .where(case_act.c.case_n == n, case_act.c.act.in_((Act.HELD.value, Act.RELEASED.value)))
        .order_by(case_act.c.number)
    )
    return in_force(HoldAct(Act(act), of, hold) for act, of, hold in rows)


def find(db: Connection, scope: Scope, n: int) -> Case | None:
    """On a connection of the caller's."""
    head = head_of(db, scope, n)
    state = None if head is None else state_of(acts_of(db, n))
    if head is None or state is None:
        return None
    return Case(
        n=n,
        number=head.number,
        reason=head.reason,
        place=head.place,
        from_utc_ns=head.from_utc_ns,
        to_utc_ns=head.to_utc_ns,
        posts=posts_of(db, n),
        state=state,
        newest=newest_of(db, n),
        steps=tuple(_steps(db, n, true())),
        items=tuple(items_of(db, n)),
        stones=tuple(_stones(db, n)),
        held=held_of(db, n),
        removed=tuple(
            one
            for post in posts_of(db, n)
            for one in removed(db, post, head.from_utc_ns, head.to_utc_ns, ITEMS_SHOWN_MAX)
        ),
    )


def items_of(db: Connection, n: int) -> list[Item]:
    """What belongs to it, by post and time."""
    gone = and_(case_tombstone.c.node == case_item.c.node, case_tombstone.c.sha256 == case_item.c.ref)
    rows = db.execute(
        select(case_item, case_tombstone.c.sha256.label("stone"))
        .outerjoin(case_tombstone, gone)
        .where(case_item.c.case_n == n)
        .order_by(case_item.c.kind, case_item.c.node, case_item.c.from_utc_ns, case_item.c.ref)
        .limit(ITEMS_SHOWN_MAX)
    )
    return [Item(r.kind, r.node, r.ref, r.name, r.bytes, r.from_utc_ns, r.to_utc_ns, r.stone is not None) for r in rows]


def _row(db: Connection, head: Any) -> Row:
    first, last = db.execute(
        select(func.min(case_act.c.utc_ns), func.max(case_act.c.utc_ns)).where(case_act.c.case_n == head.n)
    ).one()
    state = state_of(acts_of(db, head.n)) or State.OPEN
    return Row(head.n, head.number, head.place, head.reason, state, posts_of(db, head.n), first, last)


def _steps(db: Connection, n: int, which: ColumnElement[bool]) -> list[Step]:
    rows = db.execute(
        select(case_act, person.c.name)
        .outerjoin(person, person.c.login == case_act.c.login)
        .where(case_act.c.case_n == n, which)
        .order_by(case_act.c.number.desc())
        .limit(ACTS_SHOWN_MAX)
    ).all()
    return [
        Step(
            r.number, r.utc_ns, r.login, r.name or r.login, Act(r.act), r.reason, r.recipient, r.reference, r.node,
            r.detail, r.sha256, r.bytes,
        )
        for r in reversed(rows)
    ]  # fmt: skip


def _stones(db: Connection, n: int) -> list[Stone]:
    rows = db.execute(
        select(case_tombstone, person.c.name.label("who"))
        .outerjoin(person, person.c.login == case_tombstone.c.login)
        .where(case_tombstone.c.case_n == n)
        .order_by(case_tombstone.c.node, case_tombstone.c.from_utc_ns)
        .limit(ITEMS_SHOWN_MAX)
    )
    return [Stone(r.node, r.name, r.sha256, r.bytes, r.who or r.login, r.authority, r.reason, r.utc_ns) for r in rows]
