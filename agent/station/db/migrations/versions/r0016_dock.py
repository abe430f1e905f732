"""Cards that were docked: those of before are on the audit log alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0016"
down_revision: str | None = "0015"

_WRONG = sa.text("state = 'mismatch'")


def upgrade() -> None:
    """Makes the table, and an index of what does not match by what has brought it."""
    op.create_table(
        "docking",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("number", Words, nullable=False, unique=True),
        sa.Column("node", Words, nullable=False),
        sa.Column("custodian", Words, nullable=False),
        sa.Column("who", Words, nullable=False),
        sa.Column("folder", Words, nullable=False),
        sa.Column("begun_utc_ns", Whole, nullable=False),
        sa.Column("ended_utc_ns", Whole),
        sa.Column("files", Whole, nullable=False, server_default="0"),
        sa.Column("taken", Whole, nullable=False, server_default="0"),
        sa.Column("duplicates", Whole, nullable=False, server_default="0"),
        sa.Column("bytes", Whole, nullable=False, server_default="0"),
        sa.Column("verified", Whole, nullable=False, server_default="0"),
        sa.Column("pending", Whole, nullable=False, server_default="0"),
        sa.Column("mismatched", Whole, nullable=False, server_default="0"),
        sa.Column("passed", Whole, nullable=False, server_default="0"),
        sa.Column("not_matching", Words, nullable=False, server_default="[]"),
        sa.Column("not_taken", Words, nullable=False, server_default="[]"),
        sqlite_autoincrement=True,
    )
    op.create_index("docking_of", "docking", ["node", "n"])
    op.create_index("footage_wrong", "footage", ["order_id", "n"], sqlite_where=_WRONG, postgresql_where=_WRONG)
