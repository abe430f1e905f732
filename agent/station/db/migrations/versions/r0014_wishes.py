"""Packages of cases that were asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0014"
down_revision: str | None = "0013"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "package_wish",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("case_n", Whole, sa.ForeignKey("case_head.n"), nullable=False),
        sa.Column("node", Words, nullable=False),
        sa.Column("login", Words, sa.ForeignKey("person.login"), nullable=False),
        sa.Column("reason", Words, nullable=False),
        sa.Column("recipient", Words, nullable=False),
        sa.Column("reference", Words, nullable=False),
        sa.Column("newest", Whole, nullable=False),
        sa.Column("asked_utc_ns", Whole, nullable=False),
        sa.Column("begun", Whole, nullable=False, server_default="0"),
        sa.Column("failed_utc_ns", Whole),
        sa.Column("why", Words, nullable=False, server_default=""),
        sa.Column("said", Words, nullable=False, server_default=""),
        sqlite_autoincrement=True,
    )
