"""What the station tells others: the queue, its marks, tokens of feeds, Home Assistant's messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "outward",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("destination", Words, nullable=False),
        sa.Column("event", Words, nullable=False),
        sa.Column("kind", Words, nullable=False),
        sa.Column("incident", Words, nullable=False, server_default=""),
        sa.Column("made_utc_ns", Whole, nullable=False),
        sa.Column("made_boot_id", Words, nullable=False),
        sa.Column("made_boot_ns", Whole, nullable=False),
        sa.Column("body", Words, nullable=False),
        sa.Column("state", Words, nullable=False, server_default="waiting"),
        sa.Column("attempts", Whole, nullable=False, server_default="0"),
        sa.Column("ended_utc_ns", Whole),
        sa.Column("why", Words, nullable=False, server_default=""),
        sa.UniqueConstraint("event", "destination"),
        sa.CheckConstraint("kind in ('bell', 'alert', 'overdue', 'dark', 'back')", name="kind"),
        sa.CheckConstraint("state in ('waiting', 'delivered', 'given-up', 'settled')", name="state"),
    )
    op.create_index("outward_head", "outward", ["state", "destination", "n"])
    op.create_table(
        "outward_mark",
        sa.Column("destination", Words, primary_key=True),
        sa.Column("stream", Words, primary_key=True),
        sa.Column("n", Whole, nullable=False),
        sa.CheckConstraint("stream in ('step', 'change')", name="stream"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outward_silent",
        sa.Column("destination", Words, primary_key=True),
        sa.Column("node", Words, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outward_token",
        sa.Column("name", Words, primary_key=True),
        sa.Column("purpose", Words, nullable=False),
        sa.Column("sha256", Words, nullable=False, unique=True),
        sa.Column("made_utc_ns", Whole, nullable=False),
        sa.Column("revoked_utc_ns", Whole),
        sa.CheckConstraint("purpose in ('cap', 'metrics', 'events')", name="purpose"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outward_discovery",
        sa.Column("topic", Words, primary_key=True),
        sa.Column("node", Words, nullable=False),
        sqlite_with_rowid=False,
    )
