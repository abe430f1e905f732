"""Rows of what is in the archive, what was removed, and what is to be taken away; a statement or a few each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, delete, func, insert, or_, select, text, true

from agent.errors import Transient
from agent.station.archive_retention import File, Why
from agent.station.db.cases import case_tombstone
from agent.station.db.engine import reading, writing
from agent.station.db.people import person
from agent.station.db.retention import archive_wait, retention_answer, retention_ask, retention_stone, retention_todo
from agent.station.db.together import Question
from agent.station.db.uploads import footage, footage_asked
from agent.station.db.upsert import Upsert
from agent.station.people.roles import Scope
from agent.station.uploads_judge import State

SHOWN_MAX = 500
STONE_COLUMNS = 15  # of a row of `Removed`
_THERE = ~(
    select(case_tombstone.c.sha256)
    .where(case_tombstone.c.node == footage.c.node, case_tombstone.c.sha256 == footage.c.sha256)
    .exists()
)
_WAIT = "archive"
_TODO = Upsert(retention_todo, lambda made: made.on_conflict_do_nothing())
_WAITS = Upsert(
    archive_wait,
    lambda made: made.on_conflict_do_update(
        index_elements=["key"], set_={"why": made.excluded.why, "tried_utc_ns": made.excluded.tried_utc_ns}
    ),
)


@dataclass(frozen=True, slots=True)
class Removed:
    """A tombstone. `asked`, `confirmed`: names of two persons, of an early removal."""

    node: str
    name: str
    sha256: str
    bytes: int
    from_utc_ns: int | None
    to_utc_ns: int | None
    received_utc_ns: int
    why: Why
    policy: str
    utc_ns: int
    asked: str
    confirmed: str
    reason: str
    authority: str
    trail_seq: int  # of the line of the audit log that says so


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody wants footage removed before its time. `answer` empty: nobody has said anything to it."""

    n: int
    node: str
    from_utc_ns: int
    to_utc_ns: int
    login: str
    who: str
    reason: str
    authority: str
    utc_ns: int
    answer: str
    by: str
    said: str
    files: int
    kept: int
    answered_utc_ns: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Since when the archive takes nothing, and why."""

    why: str
    since_utc_ns: int
    tried_utc_ns: int


# -- beside who puts files into the archive ----------------------------------------------------------------------------


def before_put(engine: Engine, node: str, sha256: str) -> int:
    """To be asked before a file is put into the archive; `unchanged` takes the answer.

    Raises Transient while the bytes of an earlier one are still to be taken away: they would go with the new row.
    """
    with reading(engine, "look for a tombstone") as db:
        _refuse_todo(db, node, sha256)
        return newest(db, node, sha256)


def unchanged(db: Connection, node: str, sha256: str, before: int) -> None:
    """In the transaction that notes the file: raises Transient when it was removed since `before_put`. Put it again."""
    exclude(db)
    _refuse_todo(db, node, sha256)
    if newest(db, node, sha256) != before:
        raise Transient(f"archive: {node}/{sha256[:16]}... was removed by retention meanwhile; it is kept anew")


def exclude(db: Connection) -> None:
    """Until the end of this transaction no other one notes a file or removes one. SQLite's writers are alone anyhow."""
    if db.dialect.name == "postgresql":
        db.execute(text("lock table retention_stone in share row exclusive mode"))


def newest(db: Connection, node: str, sha256: str) -> int:
    """The number of the newest tombstone of a file; 0: there is none."""
    c = retention_stone.c
    return int(db.execute(select(func.max(c.n)).where(c.node == node, c.sha256 == sha256)).scalar() or 0)


def _refuse_todo(db: Connection, node: str, sha256: str) -> None:
    c = retention_todo.c
    if db.execute(select(c.stone_n).where(c.node == node, c.sha256 == sha256)).first() is not None:
        raise Transient(f"archive: {node}/{sha256[:16]}... is being removed by retention; it is kept anew after that")


# -- what is there -----------------------------------------------------------------------------------------------------


def files(db: Connection, *, after: int, limit: int, node: str | None = None) -> list[File]:
    """Rows of files in the archive, in the order in which they came; what came twice is there twice."""
    c = footage.c
    mine = true() if node is None else c.node == node
    columns = (c.n, c.node, c.sha256, c.bytes, c.from_utc_ns, c.to_utc_ns, c.received_utc_ns)
    rows = db.execute(select(*columns).where(c.n > after, mine, _THERE).order_by(c.n).limit(limit))
    return [File(*row) for row in rows]


def rows_of(db: Connection, node: str, sha256: str) -> list[Any]:
    """All rows of one content."""
    c = footage.c
    return list(db.execute(select(footage).where(c.node == node, c.sha256 == sha256, _THERE).order_by(c.n)))


def used_bytes(db: Connection) -> int:
    """Of all files in the archive."""
    each = select(footage.c.node, footage.c.sha256, footage.c.bytes).where(_THERE).distinct().subquery()
    return int(db.execute(select(func.coalesce(func.sum(each.c.bytes), 0))).scalar_one())


def came_bytes(db: Connection, since_utc_ns: int) -> int:
    """Of what has come since, and is there."""
    c = footage.c
    where = (c.received_utc_ns >= since_utc_ns) & _THERE
    return int(db.execute(select(func.coalesce(func.sum(c.bytes), 0)).where(where)).scalar_one())


# -- what goes ---------------------------------------------------------------------------------------------------------


def entomb(
    db: Connection, found: Sequence[Any], *, why: Why, policy: str, ask_n: int | None, utc_ns: int, trail_seq: int
) -> None:
    """Puts tombstones in the place of rows of `footage`, and notes that their bytes are to be taken away."""
    for row in found:
        known = {
            name: getattr(row, name)
            for name in (
                "node", "name", "announced", "sha256", "bytes", "from_utc_ns", "to_utc_ns", "received_utc_ns",
                "order_id", "state", "root", "seq", "detail",
            )
        }  # fmt: skip
        made = insert(retention_stone).values(
            **known, came_for=row.why, why=why.value, policy=policy, ask_n=ask_n, utc_ns=utc_ns, trail_seq=trail_seq
        )
        n = int(db.execute(made.returning(retention_stone.c.n)).scalar_one())
        _TODO.one(db, {"node": row.node, "sha256": row.sha256, "stone_n": n})
        db.execute(delete(footage).where(footage.c.n == row.n))


def todo(db: Connection, limit: int) -> list[tuple[str, str]]:
    """(post, SHA-256) of files whose bytes are to be taken away."""
    c = retention_todo.c
    rows = db.execute(select(c.node, c.sha256).order_by(c.stone_n).limit(limit))
    return [(str(node), str(sha256)) for node, sha256 in rows]


def done(engine: Engine, refs: Iterable[tuple[str, str]]) -> None:
    """Their bytes are gone, durably."""
    c = retention_todo.c
    with writing(engine, "note what retention has removed") as db:
        for node, sha256 in refs:
            db.execute(delete(retention_todo).where(c.node == node, c.sha256 == sha256))


# -- what is shown -----------------------------------------------------------------------------------------------------


def removed(db: Connection, node: str, start_utc_ns: int, end_utc_ns: int, limit: int = SHOWN_MAX) -> list[Removed]:
    """What was removed of a post's time, by the labels of the files, oldest first. What is there again is left out."""
    return removed_all(db, [node], start_utc_ns, end_utc_ns, limit)[node]


def removed_all(
    db: Connection, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int, limit: int = SHOWN_MAX
) -> dict[str, list[Removed]]:
    """The same of several posts, in one trip to the database."""
    values = {"start": start_utc_ns, "end": end_utc_ns, "limit": limit}
    rows = _REMOVED.ask(db, [{"node": node, **values} for node in nodes])
    return {
        node: [_stone(list(row[-STONE_COLUMNS:])) for row in found] for node, found in zip(nodes, rows, strict=True)
    }


def removed_at(db: Connection, scope: Scope, limit: int = SHOWN_MAX) -> list[Removed]:
    """The newest tombstones."""
    return _removed(db, _mine(scope, retention_stone.c.node), limit, newest_first=True)


def _removed(db: Connection, where: Any, limit: int, *, newest_first: bool = False) -> list[Removed]:
    return [_stone(list(row)) for row in db.execute(_stones(where, newest_first=newest_first).limit(limit))]


def _stones(where: Any, *, newest_first: bool = False) -> Select[Any]:
    """Rows of `Removed`."""
    c, a, b = retention_stone.c, retention_ask.c, retention_answer.c
    asker, second = person.alias("asker"), person.alias("second")
    return (
        select(
            c.node, c.name, c.sha256, c.bytes, c.from_utc_ns, c.to_utc_ns, c.received_utc_ns, c.why, c.policy, c.utc_ns,
            func.coalesce(asker.c.name, a.login, ""), func.coalesce(second.c.name, b.login, ""),
            func.coalesce(a.reason, ""), func.coalesce(a.authority, ""), c.trail_seq,
        )
        .outerjoin(retention_ask, a.n == c.ask_n)
        .outerjoin(retention_answer, b.ask_n == c.ask_n)
        .outerjoin(asker, asker.c.login == a.login)
        .outerjoin(second, second.c.login == b.login)
        .where(where)
        .order_by(*((c.n.desc(),) if newest_first else (c.from_utc_ns, c.n)))
    )  # fmt: skip


def _stones_of(of: Mapping[str, ColumnElement[Any]]) -> Select[Any]:
    """Those of a post's time, but for what is there again."""
    c = retention_stone.c
    again = select(footage.c.n).where(footage.c.node == c.node, footage.c.sha256 == c.sha256).exists()
    return _stones((c.node == of["node"]) & (c.to_utc_ns > of["start"]) & (c.from_utc_ns < of["end"]) & ~again).limit(
        of["limit"]
    )


_REMOVED = Question(
    _stones_of,
    {
        "node": retention_stone.c.node.type,
        "start": retention_stone.c.to_utc_ns.type,
        "end": retention_stone.c.from_utc_ns.type,
        "limit": retention_stone.c.n.type,
    },
)


def _stone(row: list[Any]) -> Removed:
    values: list[Any] = [*row[:7], Why(row[7]), *row[8:]]
    return Removed(*values)


def counted(db: Connection, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> dict[Why, tuple[int, int]]:
    """(files, bytes) that were removed in a period, by why."""
    c = retention_stone.c
    where = (c.utc_ns >= start_utc_ns) & (c.utc_ns < end_utc_ns) & _mine(scope, c.node)
    each = select(c.node, c.sha256, c.bytes, c.why, c.utc_ns).where(where).distinct().subquery()
    rows = db.execute(select(each.c.why, func.count(), func.sum(each.c.bytes)).group_by(each.c.why))
    told = {Why(why): (int(count), int(size)) for why, count, size in rows}
    return {why: told.get(why, (0, 0)) for why in Why}


def asks(db: Connection, scope: Scope, *, n: int | None = None, limit: int = SHOWN_MAX) -> list[Ask]:
    """The newest first; with `n`, that one."""
    a, b = retention_ask.c, retention_answer.c
    asker, second = person.alias("asker"), person.alias("second")
    where = _mine(scope, a.node) & (true() if n is None else a.n == n)
    query = (
        select(
            a.n, a.node, a.from_utc_ns, a.to_utc_ns, a.login, func.coalesce(asker.c.name, a.login), a.reason,
            a.authority, a.utc_ns, func.coalesce(b.answer, ""), func.coalesce(second.c.name, b.login, ""),
            func.coalesce(b.reason, ""), func.coalesce(b.files, 0), func.coalesce(b.kept, 0),
            func.coalesce(b.utc_ns, 0),
        )
        .outerjoin(retention_answer, b.ask_n == a.n)
        .outerjoin(asker, asker.c.login == a.login)
        .outerjoin(second, second.c.login == b.login)
        .where(where)
        .order_by(a.n.desc())
        .limit(limit)
    )  # fmt: skip
    found: list[list[Any]] = [list(row) for row in db.execute(query)]
    return [Ask(*row) for row in found]


def of_order(db: Connection, order: str) -> int:
    """Files that a command has brought, that were what the post recorded, and that were removed since."""
    c, also = retention_stone.c, footage_asked.c
    asked = select(also.order_id).where(also.order_id == order, also.node == c.node, also.sha256 == c.announced)
    good = or_(c.order_id == order, asked.exists()) & (c.state != State.MISMATCH.value)
    return int(db.execute(select(func.count()).select_from(retention_stone).where(good)).scalar_one())


def _mine(scope: Scope, column: Any) -> Any:
    return true() if scope.whole_site else column.in_(sorted(scope.posts))


# -- whether it takes anything -----------------------------------------------------------------------------------------


def waits(engine: Engine, why: str, now_utc_ns: int) -> None:
    """Notes why the archive takes nothing."""
    with writing(engine, "note that the archive waits") as db:
        row = {"key": _WAIT, "why": why[:500], "since_utc_ns": now_utc_ns, "tried_utc_ns": now_utc_ns}
        _WAITS.one(db, row)


def takes(engine: Engine) -> None:
    """It takes files again."""
    with writing(engine, "note that the archive takes footage") as db:
        db.execute(delete(archive_wait).where(archive_wait.c.key == _WAIT))


def waiting(db: Connection) -> Wait | None:
    """None: it takes files."""
    c = archive_wait.c
    row = db.execute(select(c.why, c.since_utc_ns, c.tried_utc_ns).where(c.key == _WAIT)).one_or_none()
    return None if row is None else Wait(*row)
