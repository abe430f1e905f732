"""Cases as pages show them. Who may see which is part of each query: a case whose posts are not all in somebody's scope
does not exist for him.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, exists, false, func, select, true

from agent.station.archive_retention_rows import Removed, removed
from agent.station.cases.answers import answers
from agent.station.cases.keeping import HoldAct, Keeps, in_force, keeps, pieces, reason_of
from agent.station.cases.states import Act, State, state_of
from agent.station.db.cases import case_act, case_head, case_item, case_post, case_tombstone
from agent.station.db.engine import reading
from agent.station.db.people import person
from agent.station.db.tables import node
from agent.station.db.uploads import footage
from agent.station.people.roles import Scope
from agent.station.posts.docked import docked_only
from agent.station.search.meaning import fold

SHOWN_MAX = 100
"""Cases on a page of the list."""
LOOKED_AT_MAX = 2000
"""Cases that are looked through for words at a time."""
ACTS_SHOWN_MAX = 500
ACTS_PACKED_MAX = 20_000
"""Acts that a package tells, the newest; it says where the others are."""
ITEMS_SHOWN_MAX = 1000
ITEMS_PACKED_MAX = 100_000
"""Files and alerts that a package names; and files that were disposed of, or removed of one post."""
NAMED_MAX = 300
"""Posts that the list beside a field offers."""


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
    """Something that belongs to a case. `gone`: it was disposed of; `mismatch`: no node has recorded it so."""

    kind: str
    node: str
    ref: str
    name: str
    bytes: int
    from_utc_ns: int | None
    to_utc_ns: int | None
    gone: bool
    mismatch: bool = False


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
class Listed:
    """A page of the list, the newest first. `older`: the next page is `before` this case, None: there is none; `newer`:
    the one before it is `after` this one.
    """

    rows: list[Row]
    older: int | None = None
    newer: int | None = None
    looked_to: int | None = None  # words were looked for down (or up) to this case, and not further


@dataclass(frozen=True, slots=True)
class Case:
    """One case, whole. `newest`: the number of its last act; `held`: hold by post; `generation`: how often one of its
    posts was told that it need not keep it any more.
    """

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
    items: tuple[Item, ...]  # ITEMS_SHOWN_MAX of `items_count`, alerts first
    stones: tuple[Stone, ...]
    held: dict[str, str]
    generation: int = 0
    items_count: int = 0
    unattached: tuple[str, ...] = ()  # posts of which there was more than one act attaches, and the rest is not
    removed: tuple[Removed, ...] = ()  # of its posts and time, by retention: before there was the case, as a rule


@dataclass(frozen=True, slots=True)
class Since:
    """What was done on a case behind an act. `newest`: the number of its last act."""

    n: int
    posts: tuple[str, ...]
    newest: int
    steps: tuple[Step, ...]  # the newest ACTS_SHOWN_MAX, oldest first


def _same(state: str) -> ColumnElement[bool]:
    f = footage.c
    same = (f.node == case_item.c.node, f.sha256 == case_item.c.ref, f.state == state)
    return exists().where(case_item.c.kind == "footage", *same).correlate(case_item)


_MISMATCH = _same("mismatch") & ~_same("verified")
"""What came under a wrong name, and rightly as well, is what its node recorded."""
MORE = "+"
"""Behind the count of an act of attaching: there was more than one act takes."""


class Cases:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def listing(self, scope: Scope, *, words: str = "", before: int | None = None, after: int | None = None) -> Listed:
        """SHOWN_MAX of the newest before a case, or of the oldest after one, that have all these words in number,
        place or report, without accents. Looks at LOOKED_AT_MAX for words.
        """
        up, c = after is not None, case_head.c
        bound = c.n > after if after is not None else c.n < before if before is not None else true()
        wanted = fold(words).split()
        most = LOOKED_AT_MAX if wanted else SHOWN_MAX + 1
        query = select(case_head).where(visible(scope), bound).order_by(c.n if up else c.n.desc()).limit(most)
        with reading(self._engine, "list cases") as db:
            heads = db.execute(query).all()
            fit = [head for head in heads if _has(head, wanted)]
            shown = fit[:SHOWN_MAX]
            looked_to = heads[-1].n if wanted and len(heads) == most and len(fit) <= SHOWN_MAX else None
            rows = _rows(db, list(reversed(shown)) if up else shown)
        onward = shown[-1].n if len(fit) > SHOWN_MAX else looked_to
        if after is not None:
            return Listed(rows, older=rows[-1].n if rows else after + 1, newer=onward, looked_to=looked_to)
        back = None if before is None else rows[0].n if rows else before - 1
        return Listed(rows, older=onward, newer=back, looked_to=looked_to)

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

    def kept(self, case: Case) -> dict[str, Keeps]:
        """What each post that was asked does for a case, by its newest answers."""
        with reading(self._engine, "read what posts have answered") as db:
            told = answers(db, sorted(case.held), reason_of(case.number))
        parts = pieces(case.from_utc_ns, case.to_utc_ns)
        return {node: keeps(hold, parts, reason_of(case.number), told[node]) for node, hold in case.held.items()}

    def posts(self, scope: Scope) -> list[tuple[str, str]]:
        """(post, place) that somebody may open a case about; none where there are more than NAMED_MAX."""
        query = select(node.c.node, node.c.place).where(_own(scope)).order_by(node.c.node).limit(NAMED_MAX + 1)
        with reading(self._engine, "list posts") as db:
            found = [(str(of), str(place)) for of, place in db.execute(query)]
            found += [(of, "") for of in docked_only(db) if scope.covers(of)]
        return sorted(found) if len(found) <= NAMED_MAX else []

    def knows(self, scope: Scope, posts: Sequence[str]) -> bool:
        """Whether these are posts that somebody may open a case about."""
        query = select(node.c.node).where(_own(scope), node.c.node.in_(posts))
        with reading(self._engine, "look for posts") as db:
            unknown = set(posts) - set(db.execute(query).scalars())
            return unknown <= {of for of in docked_only(db, sorted(unknown)) if scope.covers(of)}


def _own(scope: Scope) -> ColumnElement[bool]:
    return true() if scope.whole_site else node.c.node.in_(sorted(scope.posts))


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
        items_count=_count(db, case_item.c.case_n == n),
        unattached=tuple(unattached_of(db, n)),
        stones=tuple(_stones(db, n)),
        held=held_of(db, n),
        generation=_count(db, case_act.c.case_n == n, case_act.c.act == Act.RELEASED.value),
        removed=tuple(
            one
            for post in posts_of(db, n)
            for one in removed(db, post, head.from_utc_ns, head.to_utc_ns, ITEMS_SHOWN_MAX)
        ),
    )


def packed(db: Connection, shown: Case) -> Case:
    """The same with all that belongs to it, not only what a page shows, as it was by its newest act there."""
    return replace(
        shown,
        steps=tuple(_steps(db, shown.n, case_act.c.number <= shown.newest, ACTS_PACKED_MAX)),
        items=tuple(items_of(db, shown.n, ITEMS_PACKED_MAX, newest=shown.newest)),
        items_count=_count(db, case_item.c.case_n == shown.n, case_item.c.act <= shown.newest),
        stones=tuple(_stones(db, shown.n, ITEMS_PACKED_MAX)),
        removed=tuple(
            one
            for post in shown.posts
            for one in removed(db, post, shown.from_utc_ns, shown.to_utc_ns, ITEMS_PACKED_MAX)
        ),
    )


def items_of(db: Connection, n: int, limit: int = ITEMS_SHOWN_MAX, *, newest: int | None = None) -> list[Item]:
    """What belongs to it, by act `newest`: alerts, then files, by post and time."""
    by = true() if newest is None else case_item.c.act <= newest
    gone = and_(case_tombstone.c.node == case_item.c.node, case_tombstone.c.sha256 == case_item.c.ref)
    rows = db.execute(
        select(case_item, case_tombstone.c.sha256.label("stone"), _MISMATCH.label("mismatch"))
        .outerjoin(case_tombstone, gone)
        .where(case_item.c.case_n == n, by)
        .order_by(case_item.c.kind, case_item.c.node, case_item.c.from_utc_ns, case_item.c.ref)
        .limit(limit)
    )
    return [
        Item(
            r.kind, r.node, r.ref, r.name, r.bytes, r.from_utc_ns, r.to_utc_ns, r.stone is not None, bool(r.mismatch)
        )
        for r in rows
    ]  # fmt: skip


def files_of(db: Connection, n: int, node: str) -> list[str]:
    """SHA-256 of some files of one of its posts, ITEMS_SHOWN_MAX at most."""
    c = case_item.c
    mine = (c.case_n == n, c.node == node, c.kind == "footage")
    return list(db.execute(select(c.ref).where(*mine).order_by(c.ref).limit(ITEMS_SHOWN_MAX)).scalars())


def unattached_of(db: Connection, n: int) -> list[str]:
    """Posts whose newest act of attaching took as much as one may, and left something. One act may be of all posts."""
    query = (
        select(case_act.c.node, case_act.c.detail)
        .where(case_act.c.case_n == n, case_act.c.act == Act.ATTACHED.value)
        .order_by(case_act.c.number)
    )
    left = dict.fromkeys(posts_of(db, n), False)
    for of, detail in db.execute(query):
        left |= dict.fromkeys([of] if of else list(left), detail.endswith(MORE))
    return [of for of, more in left.items() if more]


def _count(db: Connection, *which: ColumnElement[bool]) -> int:
    return int(db.execute(select(func.count()).where(*which)).scalar_one())


def _has(head: Any, wanted: Sequence[str]) -> bool:
    text = fold(f"{head.number} {head.place} {head.reason}") if wanted else ""
    return all(word in text for word in wanted)


def _rows(db: Connection, heads: Sequence[Any]) -> list[Row]:
    """In two questions, however many there are."""
    acts, posts = case_act.c, case_post.c
    numbers = [head.n for head in heads]
    done: dict[int, list[tuple[Act, int]]] = {n: [] for n in numbers}
    of: dict[int, list[str]] = {n: [] for n in numbers}
    for n, act, utc_ns in db.execute(
        select(acts.case_n, acts.act, acts.utc_ns).where(acts.case_n.in_(numbers)).order_by(acts.case_n, acts.number)
    ):
        done[n].append((Act(act), utc_ns))
    for n, name in db.execute(
        select(posts.case_n, posts.node).where(posts.case_n.in_(numbers)).order_by(posts.case_n, posts.node)
    ):
        of[n].append(name)
    return [
        Row(
            n=head.n,
            number=head.number,
            place=head.place,
            reason=head.reason,
            state=state_of([act for act, _ in done[head.n]]) or State.OPEN,
            posts=tuple(of[head.n]),
            opened_utc_ns=min(at for _, at in done[head.n]),
            changed_utc_ns=max(at for _, at in done[head.n]),
        )
        for head in heads
        if done[head.n]
    ]


def _steps(db: Connection, n: int, which: ColumnElement[bool], limit: int | None = None) -> list[Step]:
    """The newest, oldest first: `limit`, or as many as a page shows."""
    rows = db.execute(
        select(case_act, person.c.name)
        .outerjoin(person, person.c.login == case_act.c.login)
        .where(case_act.c.case_n == n, which)
        .order_by(case_act.c.number.desc())
        .limit(ACTS_SHOWN_MAX if limit is None else limit)
    ).all()
    return [
        Step(
            r.number, r.utc_ns, r.login, r.name or r.login, Act(r.act), r.reason, r.recipient, r.reference, r.node,
            r.detail, r.sha256, r.bytes,
        )
        for r in reversed(rows)
    ]  # fmt: skip


def _stones(db: Connection, n: int, limit: int | None = None) -> list[Stone]:
    rows = db.execute(
        select(case_tombstone, person.c.name.label("who"))
        .outerjoin(person, person.c.login == case_tombstone.c.login)
        .where(case_tombstone.c.case_n == n)
        .order_by(case_tombstone.c.node, case_tombstone.c.from_utc_ns)
        .limit(ITEMS_SHOWN_MAX if limit is None else limit)
    )
    return [Stone(r.node, r.name, r.sha256, r.bytes, r.who or r.login, r.authority, r.reason, r.utc_ns) for r in rows]
