"""Clips of alerts that posts send by themselves: why a file came, which orders it serves, what a post says of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0006"
down_revision: str | None = "0005"

_NO_ROWID = {"sqlite_with_rowid": False}


def upgrade() -> None:
    """Adds a column, an index and two tables."""
    op.add_column("footage", sa.Column("why", Words, nullable=False, server_default="order"))
    op.create_index("footage_received", "footage", ["node", "received_utc_ns"])
    op.create_table(
        "footage_asked",
        sa.Column("order_id", Words, primary_key=True, nullable=False),
        sa.Column("node", Words, primary_key=True, nullable=False),
        sa.Column("sha256", Words, primary_key=True, nullable=False),
        **_NO_ROWID,
    )
    op.create_table(
        "footage_clip",
        sa.Column("node", Words, primary_key=True, nullable=False),
        sa.Column("incident", Words, primary_key=True, nullable=False),
        sa.Column("line", Whole, nullable=False),
        sa.Column("files", Whole, nullable=False),
        sa.Column("bytes", Whole, nullable=False),
        sa.Column("not_sent", Words, nullable=False),
        **_NO_ROWID,
    )
    op.create_index("footage_clip_line", "footage_clip", ["line"])
