"""Rollouts in the station's database: the rows, and nothing of what they mean. The caller has the transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from agent.errors import Corrupt
from agent.station.rollout import Post, Rollout

KEPT_MAX = 20
LOG_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Note:
    """A step on record. `request`: the id of what a person asked for, when this settles it."""

    rollout: str
    text: str
    request: str | None = None


def newest(db: sqlite3.Connection) -> tuple[int, Rollout] | None:
    """When it began, in UTC nanoseconds, and the newest rollout. Raises Corrupt for a row that cannot be read."""
    row = db.execute("select n, utc_ns, body from rollout order by n desc limit 1").fetchone()
    if row is None:
        return None
    try:
        posts = tuple(
            msgspec.json.decode(body, type=Post)
            for (body,) in db.execute("select body from rollout_post where rollout = ? order by node", (row[0],))
        )
        bare = msgspec.json.decode(row[2], type=Rollout)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"rollout {row[0]}: {error}") from None
    return row[1], msgspec.structs.replace(bare, posts=tuple(sorted(posts, key=lambda one: (one.ring, one.node))))


def save(
    db: sqlite3.Connection, rollout: Rollout | None, posts: Iterable[Post], notes: Iterable[Note], utc_ns: int
) -> None:
    """The rollout, these of its posts, and what is on record of it. Keeps the newest of each kind."""
    if rollout is not None:
        body = msgspec.json.encode(msgspec.structs.replace(rollout, posts=())).decode()
        db.execute(
            "insert into rollout (id, utc_ns, body) values (?, ?, ?)"
            " on conflict (id) do update set body = excluded.body",
            (rollout.id, utc_ns, body),
        )
        (n,) = db.execute("select n from rollout where id = ?", (rollout.id,)).fetchone()
        db.executemany(
            "insert into rollout_post values (?, ?, ?) on conflict do update set body = excluded.body",
            [(n, post.node, msgspec.json.encode(post).decode()) for post in posts],
        )
        db.execute("delete from rollout_post where rollout <= ?", (n - KEPT_MAX,))
        db.execute("delete from rollout where n <= ?", (n - KEPT_MAX,))
    rows = [(utc_ns, note.rollout, note.text, note.request) for note in notes]
    db.executemany("insert into rollout_log (utc_ns, rollout, text, request) values (?, ?, ?, ?)", rows)
    if rows:
        db.execute("delete from rollout_log where n <= (select max(n) from rollout_log) - ?", (LOG_MAX,))


def settled(db: sqlite3.Connection, request: str) -> str | None:
    """What was put on record of a request; None when it was not done yet."""
    row = db.execute("select text from rollout_log where request = ?", (request,)).fetchone()
    return None if row is None else str(row[0])


def record(db: sqlite3.Connection, rollout: str, limit: int) -> list[tuple[int, str]]:
    """(utc_ns, text) of the newest steps of one, oldest first."""
    rows = db.execute(
        "select utc_ns, text from rollout_log where rollout = ? order by n desc limit ?", (rollout, limit)
    ).fetchall()
    return rows[::-1]
