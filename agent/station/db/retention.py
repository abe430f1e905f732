"""What left the archive by retention, by whose word, and what is still to be taken away. Times are the station's own.

A file that is removed leaves `footage` in the transaction that writes its tombstone: all that was known of it stands
there. So it may come again, as a new file.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# Somebody wants footage removed before its time; append-only.
retention_ask = Table(
    "retention_ask",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("from_utc_ns", Whole, nullable=False),
    Column("to_utc_ns", Whole, nullable=False),
    Column("login", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("authority", Words, nullable=False),  # the decision that allows it, in words
    Column("utc_ns", Whole, nullable=False),
    Column("trail_seq", Whole, nullable=False),
    CheckConstraint("to_utc_ns > from_utc_ns", name="range"),
)

# What a second person says to that; append-only.
retention_answer = Table(
    "retention_answer",
    metadata,
    Column("ask_n", Whole, ForeignKey("retention_ask.n"), primary_key=True, autoincrement=False),
    Column("login", Words, nullable=False),
    Column("answer", Words, nullable=False),
    Column("reason", Words, nullable=False, server_default=""),
    Column("files", Whole, nullable=False, server_default="0"),
    Column("kept", Whole, nullable=False, server_default="0"),  # files that a case, a hold or an inspection needs
    Column("utc_ns", Whole, nullable=False),
    Column("trail_seq", Whole, nullable=False),
    CheckConstraint("answer in ('confirmed', 'refused')", name="answer"),
    sqlite_with_rowid=False,
)

# The tombstone of a row of `footage`; append-only.
retention_stone = Table(
    "retention_stone",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("name", Words, nullable=False),
    Column("announced", Words, nullable=False),
    Column("sha256", Words, nullable=False),
    Column("bytes", Whole, nullable=False),
    Column("from_utc_ns", Whole),
    Column("to_utc_ns", Whole),
    Column("received_utc_ns", Whole, nullable=False),
    Column("order_id", Words, nullable=False),
    Column("state", Words, nullable=False),  # of the row: verified, pending, mismatch
    Column("root", Words, nullable=False),
    Column("seq", Whole, nullable=False),
    Column("detail", Words, nullable=False),
    Column("came_for", Words, nullable=False),  # tus.Reason
    Column("why", Words, nullable=False),
    Column("policy", Words, nullable=False, server_default=""),  # days, or GB, as they were set
    Column("ask_n", Whole, ForeignKey("retention_ask.n")),
    Column("utc_ns", Whole, nullable=False),
    Column("trail_seq", Whole, nullable=False),
    CheckConstraint("why in ('age', 'room', 'early')", name="why"),
    Index("retention_stone_file", "node", "sha256"),
    Index("retention_stone_time", "node", "from_utc_ns"),
    Index("retention_stone_removed", "utc_ns"),
    Index("retention_stone_order", "order_id"),
)

# Files whose bytes are still to be taken away. A row is written with its tombstone, and goes when they are gone.
retention_todo = Table(
    "retention_todo",
    metadata,
    Column("node", Words, primary_key=True),
    Column("sha256", Words, primary_key=True),
    Column("stone_n", Whole, nullable=False),
    sqlite_with_rowid=False,
)

# Since when the archive takes nothing, and why: one row, or none.
archive_wait = Table(
    "archive_wait",
    metadata,
    Column("key", Words, primary_key=True),
    Column("why", Words, nullable=False),
    Column("since_utc_ns", Whole, nullable=False),
    Column("tried_utc_ns", Whole, nullable=False),
    sqlite_with_rowid=False,
)
