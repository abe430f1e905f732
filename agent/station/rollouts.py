"""Rollouts in the station's database: the rows, and nothing of what they mean. The caller has the transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, delete, func, insert, select

from agent.errors import Corrupt
from agent.station.db.tables import rollout as rollout_table
from agent.station.db.tables import rollout_log, rollout_post
from agent.station.db.upsert import Upsert
from agent.station.rollout import Post, Rollout

KEPT_MAX = 20
LOG_MAX = 10_000

_SAVE = Upsert(
    rollout_table, lambda made: made.on_conflict_do_update(index_elements=["id"], set_={"body": made.excluded.body})
)
_SAVE_POST = Upsert(
    rollout_post,
    lambda made: made.on_conflict_do_update(index_elements=["rollout", "node"], set_={"body": made.excluded.body}),
)


@dataclass(frozen=True, slots=True)
class Note:
    """A step on record. `request`: the id of what a person asked for, when this settles it."""

    rollout: str
    text: str
    request: str | None = None


def newest(db: Connection) -> tuple[int, Rollout] | None:
    """When it began, in UTC nanoseconds, and the newest rollout. Raises Corrupt for a row that cannot be read."""
    row = db.execute(select(rollout_table).order_by(rollout_table.c.n.desc()).limit(1)).one_or_none()
    if row is None:
        return None
    try:
        posts = tuple(
            msgspec.json.decode(body, type=Post)
            for body in db.execute(select(rollout_post.c.body).where(rollout_post.c.rollout == row.n)).scalars()
        )
        bare = msgspec.json.decode(row.body, type=Rollout)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"rollout {row.n}: {error}") from None
    ordered = tuple(sorted(posts, key=lambda one: (one.ring, one.node)))
    return int(row.utc_ns), msgspec.structs.replace(bare, posts=ordered)


def save(
    db: Connection, rollout: Rollout | None, posts: Iterable[Post], notes: Iterable[Note], utc_ns: int
) -> None:  # fmt: skip
    """The rollout, these of its posts, and what is on record of it. Keeps the newest of each kind."""
    if rollout is not None:
        body = msgspec.json.encode(msgspec.structs.replace(rollout, posts=())).decode()
        _SAVE.one(db, {"id": rollout.id, "utc_ns": utc_ns, "body": body})
        n = int(db.execute(select(rollout_table.c.n).where(rollout_table.c.id == rollout.id)).scalar_one())
        changed = {post.node: msgspec.json.encode(post).decode() for post in posts}
        if changed:
            _SAVE_POST.many(db, [{"rollout": n, "node": node, "body": body} for node, body in changed.items()])
        kept = select(rollout_table.c.n).order_by(rollout_table.c.n.desc()).limit(KEPT_MAX)
        db.execute(delete(rollout_post).where(rollout_post.c.rollout.not_in(kept)))
        db.execute(delete(rollout_table).where(rollout_table.c.n.not_in(kept)))
    rows = [{"utc_ns": utc_ns, "rollout": one.rollout, "text": one.text, "request": one.request} for one in notes]
    if rows:
        db.execute(insert(rollout_log), rows)
        last = select(func.max(rollout_log.c.n)).scalar_subquery()
        db.execute(delete(rollout_log).where(rollout_log.c.n <= last - LOG_MAX))


def settled(db: Connection, request: str) -> str | None:
    """What was put on record of a request; None when it was not done yet."""
    found = db.execute(select(rollout_log.c.text).where(rollout_log.c.request == request)).scalar_one_or_none()
    return None if found is None else str(found)


def record(db: Connection, rollout: str, limit: int) -> list[tuple[int, str]]:
    """(utc_ns, text) of the newest steps of one, oldest first."""
    rows = db.execute(
        select(rollout_log.c.utc_ns, rollout_log.c.text)
        .where(rollout_log.c.rollout == rollout)
        .order_by(rollout_log.c.n.desc())
        .limit(limit)
    ).all()
    return [(int(utc_ns), str(text)) for utc_ns, text in reversed(rows)]
