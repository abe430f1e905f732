"""What the station tells others: a row for each notice and destination, how far each destination has been told, and the
tokens of who fetches by himself.
"""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table, UniqueConstraint

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# A notice for one destination. Rows that are no longer waiting are kept for a while, the newest only.
outward = Table(
    "outward",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("destination", Words, nullable=False),
    Column("event", Words, nullable=False),  # what is told, once to each destination
    Column("kind", Words, nullable=False),
    Column("incident", Words, nullable=False, server_default=""),  # empty: it is about a post or its evidence
    Column("made_utc_ns", Whole, nullable=False),
    Column("made_boot_id", Words, nullable=False),  # of the station: ages are boot time where possible
    Column("made_boot_ns", Whole, nullable=False),
    Column("body", Words, nullable=False),  # notice.Notice as JSON
    Column("state", Words, nullable=False, server_default="waiting"),
    Column("attempts", Whole, nullable=False, server_default="0"),
    Column("ended_utc_ns", Whole),  # when it was delivered, given up or settled
    Column("why", Words, nullable=False, server_default=""),  # the last attempt failed, or it was given up
    UniqueConstraint("event", "destination"),
    CheckConstraint("kind in ('bell', 'alert', 'overdue', 'evidence', 'dark', 'back')", name="kind"),
    CheckConstraint("state in ('waiting', 'delivered', 'given-up', 'settled')", name="state"),
    Index("outward_head", "state", "destination", "n"),
)

# Up to which row of `alert_step`, `change` and `evidence_alarm` a destination has been told.
outward_mark = Table(
    "outward_mark",
    metadata,
    Column("destination", Words, primary_key=True),
    Column("stream", Words, primary_key=True),
    Column("n", Whole, nullable=False),
    CheckConstraint("stream in ('step', 'change', 'evidence')", name="stream"),
    sqlite_with_rowid=False,
)

# Posts of which a destination was told that they are dark, and not yet that they are back.
outward_silent = Table(
    "outward_silent",
    metadata,
    Column("destination", Words, primary_key=True),
    Column("node", Words, primary_key=True),
    sqlite_with_rowid=False,
)

# Who may fetch feeds. The token itself is shown once and kept by who fetches only.
outward_token = Table(
    "outward_token",
    metadata,
    Column("name", Words, primary_key=True),
    Column("purpose", Words, nullable=False),
    Column("sha256", Words, nullable=False, unique=True),  # of the token, hex
    Column("made_utc_ns", Whole, nullable=False),
    Column("revoked_utc_ns", Whole),
    CheckConstraint("purpose in ('cap', 'metrics', 'events')", name="purpose"),
    sqlite_with_rowid=False,
)

# What Home Assistant's broker keeps of ours, so that it can be taken away when a post is revoked.
outward_discovery = Table(
    "outward_discovery",
    metadata,
    Column("topic", Words, primary_key=True),
    Column("node", Words, nullable=False),
    sqlite_with_rowid=False,
)
