"""Orders and desired settings: two files of their own before (agent/station/old_books.py brings those over)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Blob, Whole, Words

revision = "0011"
down_revision: str | None = "0010"


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "command",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("id", Words, nullable=False, unique=True),
        sa.Column("node", Words, nullable=False),
        sa.Column("verb", Words, nullable=False),
        sa.Column("payload", Blob, nullable=False),
        sa.Column("asked_utc_ns", Whole, nullable=False),
        sa.Column("expires_utc_ns", Whole, nullable=False),
        sa.Column("state", Words, nullable=False, server_default="waiting"),
        sa.Column("sent", Whole, nullable=False, server_default="0"),
        sa.Column("answer", Words, nullable=False, server_default=""),
        sa.CheckConstraint("state in ('waiting', 'done', 'refused', 'failed', 'expired')", name="state"),
    )
    op.create_index("command_state", "command", ["state", "expires_utc_ns"])
    op.create_index("command_node", "command", ["node", "n"])
    op.create_table(
        "request",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("id", Words, nullable=False, unique=True),
        sa.Column("verb", Words, nullable=False),
        sa.Column("body", Words, nullable=False),
        sa.Column("answer", Words),
    )
    op.create_table(
        "desired",
        sa.Column("node", Words, primary_key=True),
        sa.Column("revision", Whole, primary_key=True, autoincrement=False),
        sa.Column("digest", Words, nullable=False),
        sa.Column("payload", Blob, nullable=False),
        sa.Column("asked_utc_ns", Whole, nullable=False),
        sa.Column("published", Whole, nullable=False, server_default="0"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reported",
        sa.Column("node", Words, primary_key=True),
        sa.Column("body", Blob, nullable=False),
        sa.Column("utc_ns", Whole, nullable=False),
        sqlite_with_rowid=False,
    )
