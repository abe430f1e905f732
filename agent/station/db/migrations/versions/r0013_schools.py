"""Whom alerts of a school's posts reach at the school itself; why a post said that it is offline."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0013"
down_revision: str | None = "0012"


def upgrade() -> None:
    """Makes the table, and the columns."""
    for table in ("node", "change"):
        op.add_column(table, sa.Column("reason", Words, nullable=False, server_default=""))
    op.create_table(
        "school_contact",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("login", Words, sa.ForeignKey("person.login"), nullable=False),
        sa.Column("name", Words, nullable=False),
        sa.Column("how", Words, nullable=False),
        sa.Column("address", Words, nullable=False),
        sa.Column("after_s", Whole, nullable=False),
        sa.Column("made_utc_ns", Whole, nullable=False),
        sa.Column("removed_utc_ns", Whole),
        sa.CheckConstraint("how in ('phone', 'email', 'webhook', 'messenger')", name="how"),
    )
    op.create_index("school_contact_login", "school_contact", ["login"])
