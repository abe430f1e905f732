"""Footage that came from posts, and what their ledgers say of it. Times are the node's own unless they say utc."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table, UniqueConstraint, literal_column

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# A file in the archive, named there by node and sha256, and what was found when it was held against the ledger.
footage = Table(
    "footage",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("name", Words, nullable=False),  # of the segment on the node, as it was announced
    Column("announced", Words, nullable=False),  # sha256 that the node said
    Column("sha256", Words, nullable=False),  # of what came
    Column("bytes", Whole, nullable=False),
    Column("boot_id", Words, nullable=False, server_default=""),  # by the file's own header; empty: it has none
    Column("start_ns", Whole, nullable=False, server_default="0"),
    Column("end_ns", Whole, nullable=False, server_default="0"),
    Column("from_utc_ns", Whole),  # by the clock that the node had when it recorded it
    Column("to_utc_ns", Whole),
    Column("sealed", Whole, nullable=False, server_default="0"),  # only the station's private key opens it
    Column("order_id", Words, nullable=False),  # the command that first asked for it, or the incident of the alert
    Column("state", Words, nullable=False),
    Column("root", Words, nullable=False, server_default=""),  # the ledger and the line that say so
    Column("seq", Whole, nullable=False, server_default="0"),
    Column("detail", Words, nullable=False, server_default=""),
    Column("received_utc_ns", Whole, nullable=False),
    Column("checked_utc_ns", Whole, nullable=False),
    Column("why", Words, nullable=False, server_default="order"),  # uploads_rows.Came
    UniqueConstraint("node", "announced", "sha256"),
    CheckConstraint("state in ('verified', 'pending', 'mismatch')", name="state"),
    Index("footage_time", "node", "from_utc_ns"),
    Index("footage_order", "order_id"),
    Index("footage_state", "state", "node"),
    Index("footage_content", "node", "sha256"),
    Index("footage_received", "node", "received_utc_ns"),
)

WRONG = footage.c.state == literal_column("'mismatch'")
"""Not as recorded, spelled as SQLite must read it to go by the index of these."""
Index("footage_wrong", footage.c.order_id, footage.c.n, sqlite_where=WRONG, postgresql_where=WRONG)

# Further commands that asked for a file which was here or on its way already: it is among what they have brought.
footage_asked = Table(
    "footage_asked",
    metadata,
    Column("order_id", Words, primary_key=True),
    Column("node", Words, primary_key=True),
    Column("sha256", Words, primary_key=True),  # as announced
    sqlite_with_rowid=False,
)

# What a post's ledger says of the clip that it has sent by itself for an alert.
footage_clip = Table(
    "footage_clip",
    metadata,
    Column("node", Words, primary_key=True),
    Column("incident", Words, primary_key=True),
    Column("line", Whole, nullable=False),  # n of the newest line about it
    Column("files", Whole, nullable=False),
    Column("bytes", Whole, nullable=False),
    Column("not_sent", Words, nullable=False),  # why not all of it came; empty: it did
    Index("footage_clip_line", "line"),
    sqlite_with_rowid=False,
)

# The lines of kind `segment`, by what they say, so that footage finds its line without reading a ledger through.
footage_line = Table(
    "footage_line",
    metadata,
    Column("line", Whole, primary_key=True, autoincrement=False),  # n of the line
    Column("node", Words, nullable=False),
    Column("root", Words, nullable=False),
    Column("seq", Whole, nullable=False),
    Column("boot_id", Words, nullable=False),
    Column("start_ns", Whole, nullable=False),
    Column("sha256", Words, nullable=False),
    Index("footage_line_sha256", "node", "sha256"),
    Index("footage_line_start", "node", "boot_id", "start_ns"),
)

# How far the lines have been read: one row.
footage_mark = Table(
    "footage_mark",
    metadata,
    Column("key", Words, primary_key=True),
    Column("value", Whole, nullable=False),
    sqlite_with_rowid=False,
)
