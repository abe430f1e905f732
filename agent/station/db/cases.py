"""Cases, and what was inspected. Every table is append-only by triggers: a case is what its acts have made of it."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# What was said when it was opened. `n` names it at this desk, `number` at the authority.
case_head = Table(
    "case_head",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("number", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("place", Words, nullable=False),
    Column("from_utc_ns", Whole, nullable=False),
    Column("to_utc_ns", Whole, nullable=False),
    CheckConstraint("to_utc_ns > from_utc_ns", name="range"),
)

case_post = Table(
    "case_post",
    metadata,
    Column("case_n", Whole, ForeignKey("case_head.n"), primary_key=True, autoincrement=False),
    Column("node", Words, primary_key=True),
    Index("case_post_node", "node"),
    sqlite_with_rowid=False,
)

# Its timeline, numbered from 1. Whoever acts says which number was the last one that he saw.
case_act = Table(
    "case_act",
    metadata,
    Column("case_n", Whole, ForeignKey("case_head.n"), primary_key=True, autoincrement=False),
    Column("number", Whole, primary_key=True, autoincrement=False),
    Column("utc_ns", Whole, nullable=False),
    Column("login", Words, nullable=False),
    Column("act", Words, nullable=False),
    Column("reason", Words, nullable=False, server_default=""),
    Column("recipient", Words, nullable=False, server_default=""),  # of a transfer: agency and person
    Column("reference", Words, nullable=False, server_default=""),  # theirs; of a disposal: the authority for it
    Column("node", Words, nullable=False, server_default=""),  # where it is about one post
    Column("detail", Words, nullable=False, server_default=""),  # id of a hold, name of a package
    Column("sha256", Words, nullable=False, server_default=""),  # of a copy
    Column("bytes", Whole, nullable=False, server_default="0"),
    Column("trail_seq", Whole, nullable=False),  # its line on the audit log
    sqlite_with_rowid=False,
)

# Footage (ref: its SHA-256) and alerts (ref: the incident) that belong to it.
case_item = Table(
    "case_item",
    metadata,
    Column("case_n", Whole, primary_key=True, autoincrement=False),
    Column("node", Words, primary_key=True),
    Column("kind", Words, primary_key=True),
    Column("ref", Words, primary_key=True),
    Column("act", Whole, nullable=False),  # number of the act that attached it
    Column("name", Words, nullable=False, server_default=""),  # of the file on the node
    Column("bytes", Whole, nullable=False, server_default="0"),
    Column("from_utc_ns", Whole),
    Column("to_utc_ns", Whole),
    CheckConstraint("kind in ('footage', 'alert')", name="kind"),
    Index("case_item_ref", "node", "ref"),
    sqlite_with_rowid=False,
)

# A file that was disposed of: what it was, and by whose word it is gone.
case_tombstone = Table(
    "case_tombstone",
    metadata,
    Column("node", Words, primary_key=True),
    Column("sha256", Words, primary_key=True),
    Column("case_n", Whole, ForeignKey("case_head.n"), nullable=False),
    Column("name", Words, nullable=False),
    Column("bytes", Whole, nullable=False),
    Column("from_utc_ns", Whole),
    Column("to_utc_ns", Whole),
    Column("login", Words, nullable=False),
    Column("authority", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("utc_ns", Whole, nullable=False),
    Index("case_tombstone_case", "case_n"),
    sqlite_with_rowid=False,
)

# What is to be looked at in a week: the draw, with all that it was drawn from.
inspection_draw = Table(
    "inspection_draw",
    metadata,
    Column("week", Words, primary_key=True),  # ISO 8601: 2026-W47
    Column("utc_ns", Whole, nullable=False),
    Column("login", Words, nullable=False),
    Column("body", Words, nullable=False),  # JSON: candidates with their weights, and who was drawn
    sqlite_with_rowid=False,
)

# What was drawn of that, apart from what it was drawn from: a draw of a large site is megabytes.
inspection_sample = Table(
    "inspection_sample",
    metadata,
    Column("week", Words, ForeignKey("inspection_draw.week"), primary_key=True),
    Column("utc_ns", Whole, nullable=False),
    Column("body", Words, nullable=False),  # JSON (agent/station/inspection/drawn.py)
    sqlite_with_rowid=False,
)

# What was found. A second look is a second row.
inspection_check = Table(
    "inspection_check",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("week", Words, ForeignKey("inspection_draw.week"), nullable=False),
    Column("kind", Words, nullable=False),
    Column("node", Words, nullable=False),
    Column("ref", Words, nullable=False, server_default=""),  # SHA-256 of the file; empty: the post
    Column("login", Words, nullable=False),
    Column("utc_ns", Whole, nullable=False),
    Column("result", Words, nullable=False),
    Column("text", Words, nullable=False, server_default=""),
    CheckConstraint("kind in ('post', 'footage')", name="kind"),
    CheckConstraint("result in ('good', 'poor', 'bad', 'not-possible')", name="result"),
    Index("inspection_check_node", "node"),
)
