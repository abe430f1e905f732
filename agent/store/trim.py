"""Bounds on what a node remembers of itself (invariant 6): rows that nothing else deletes must not grow for ever.

A post that is switched off ten times a day makes 11,000 sessions in three years. What is trimmed is the oldest; the
ledger keeps its own account of it, within its own bound.
"""

from __future__ import annotations

import sqlite3

SESSION_ROWS_MAX = 20_000
GAP_ROWS_MAX = 20_000
TOMBSTONE_ROWS_MAX = 20_000
SHED_ROWS_MAX = 5_000
ANCHOR_ROWS_MAX = 60_000
ANCHORS_PER_BOOT_MAX = 2_000
"""A week at one in five minutes; then every other one goes. A boot that is over keeps its first, best and last, and
those at which the wall clock was set."""

_AGE = "(select boot_id, min(session) as age from session group by boot_id)"


def trim(db: sqlite3.Connection, *, boot_id: str) -> int:
    """Deletes what is too much, inside the caller's transaction; returns how many rows went. `boot_id`: this boot's."""
    before = db.total_changes
    _thin_anchors(db, boot_id)
    for table, key, rows_max in (
        ("anchor", "boot_id, boot_ns", ANCHOR_ROWS_MAX),
        ("gap", "boot_id, start_ns, cause", GAP_ROWS_MAX),
        ("tombstone", "boot_id, start_ns", TOMBSTONE_ROWS_MAX),
    ):
        _drop_oldest(db, table, key, rows_max)
    for table, rows_max in (("session", SESSION_ROWS_MAX), ("shed", SHED_ROWS_MAX)):
        newest = f"select session from {table} order by session desc limit 1 offset ?"  # noqa: S608  (our own names)
        db.execute(f"delete from {table} where session <= ({newest})", (rows_max,))  # noqa: S608
    return db.total_changes - before


def _thin_anchors(db: sqlite3.Connection, boot_id: str) -> None:
    """Boots that are over keep three anchors, and one each time the clock was set: a hold may have been asked for by
    the time that it told then. The present boot keeps every other one when there are many.
    """
    db.execute(
        "delete from anchor where boot_id <> ? and boot_ns not in"
        " (select min(boot_ns) from anchor a where a.boot_id = anchor.boot_id union all"
        "  select max(boot_ns) from anchor a where a.boot_id = anchor.boot_id)"
        " and boot_ns <> (select boot_ns from anchor a where a.boot_id = anchor.boot_id"
        "  order by unc_ns is null, unc_ns, boot_ns limit 1)"
        " and (boot_id, boot_ns) not in (select boot_id, boot_ns from (select boot_id, boot_ns, utc_ns - boot_ns"
        "  - lag(utc_ns - boot_ns) over (partition by boot_id order by boot_ns) as moved from anchor)"
        "  where abs(moved) >= 500000000)",
        (boot_id,),
    )
    (rows,) = db.execute("select count(*) from anchor where boot_id = ?", (boot_id,)).fetchone()
    if rows > ANCHORS_PER_BOOT_MAX:
        db.execute(
            "delete from anchor where boot_id = ? and boot_ns in (select boot_ns from"
            " (select boot_ns, row_number() over (order by boot_ns) as n from anchor where boot_id = ?)"
            " where n % 2 = 0) and boot_ns <> (select boot_ns from anchor where boot_id = ?"
            " order by unc_ns is null, unc_ns, boot_ns limit 1)",
            (boot_id, boot_id, boot_id),
        )


def _drop_oldest(db: sqlite3.Connection, table: str, key: str, rows_max: int) -> None:
    """Keeps the newest `rows_max`; boots are ordered by their first session, an unknown boot counts as oldest."""
    (rows,) = db.execute(f"select count(*) from {table}").fetchone()  # noqa: S608  (names of our own tables)
    if rows <= rows_max:
        return
    order = key.split(", ")[1]
    names = ", ".join(f"t.{name}" for name in key.split(", "))
    oldest = (
        f"select {names} from {table} t left join {_AGE} b using (boot_id)"  # noqa: S608
        f" order by coalesce(b.age, 0), t.{order} limit ?"
    )
    db.execute(f"delete from {table} where ({key}) in ({oldest})", (rows - rows_max,))  # noqa: S608
