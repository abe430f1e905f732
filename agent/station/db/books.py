"""What is asked of nodes and of the station, and which settings nodes are to have. Any of its processes writes."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Blob, Whole, Words

# Commands for nodes, until they are answered; what is over is kept for the record, the newest only.
command = Table(
    "command",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("node", Words, nullable=False),
    Column("verb", Words, nullable=False),
    Column("payload", Blob, nullable=False),  # wire.Command, signed, as it is sent
    Column("asked_utc_ns", Whole, nullable=False),
    Column("expires_utc_ns", Whole, nullable=False),
    Column("state", Words, nullable=False, server_default="waiting"),
    Column("sent", Whole, nullable=False, server_default="0"),  # how often
    Column("answer", Words, nullable=False, server_default=""),  # wire.Reply; while it waits, the newest of progress
    CheckConstraint("state in ('waiting', 'done', 'refused', 'failed', 'expired')", name="state"),
    Index("command_state", "state", "expires_utc_ns"),
    Index("command_node", "node", "n"),
)

# What is asked of the station itself.
request = Table(
    "request",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("id", Words, nullable=False, unique=True),
    Column("verb", Words, nullable=False),
    Column("body", Words, nullable=False),  # JSON
    Column("answer", Words),  # JSON: what became of it; null: the station has not looked yet
)

# Settings that nodes are to have, the newest revisions only.
desired = Table(
    "desired",
    metadata,
    Column("node", Words, primary_key=True),
    Column("revision", Whole, primary_key=True, autoincrement=False),
    Column("digest", Words, nullable=False),  # SHA-256 of the text
    Column("payload", Blob, nullable=False),  # wire.Desired, signed, as it is published
    Column("asked_utc_ns", Whole, nullable=False),
    Column("published", Whole, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

# Settings that nodes say they have.
reported = Table(
    "reported",
    metadata,
    Column("node", Words, primary_key=True),
    Column("body", Blob, nullable=False),  # wire.SettingsState, as it came
    Column("utc_ns", Whole, nullable=False),  # when it was last something else
    sqlite_with_rowid=False,
)
