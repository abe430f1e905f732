"""Holds that the station has ordered by itself, around presses of bells."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

_NO_ROWID: dict[str, Any] = {"sqlite_with_rowid": False}

# One row for each press and post that is asked to keep its footage. `id`: of the command, and of the hold at the post.
bell_hold = Table(
    "bell_hold",
    metadata,
    Column("incident", Words, primary_key=True),
    Column("node", Words, primary_key=True),
    Column("bell", Words, nullable=False),  # the post whose bell it was
    Column("id", Words, nullable=False, unique=True),
    Column("asked_utc_ns", Whole, nullable=False),
    Column("from_utc_ns", Whole, nullable=False),
    Column("to_utc_ns", Whole, nullable=False),
    Column("metres", Whole, nullable=False),
    Column("reason", Words, nullable=False),
    Column("state", Words, nullable=False),  # due: it is not queued yet; queued; failed
    Column("why", Words, nullable=False, server_default=""),  # it failed
    CheckConstraint("state in ('due', 'queued', 'failed')", name="state"),
    Index("bell_hold_asked", "asked_utc_ns"),
    Index("bell_hold_due", "state"),
    **_NO_ROWID,
)
