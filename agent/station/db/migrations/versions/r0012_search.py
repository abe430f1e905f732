"""Incidents as they are searched for. The rows are made by the station as it runs (agent/station/search/keeper.py)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0012"
down_revision: str | None = "0011"

_INDEXES = {
    "incident_at": ("at_utc_ns", "incident"),
    "incident_of_at": ("node", "at_utc_ns", "incident"),
    "incident_kind_at": ("kind", "at_utc_ns", "incident"),
    "incident_label_at": ("label", "at_utc_ns", "incident"),
    "incident_event": ("event",),
}


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "incident",
        sa.Column("incident", Words, primary_key=True),
        sa.Column("node", Words, nullable=False),
        sa.Column("kind", Words, nullable=False),
        sa.Column("label", Words, nullable=False),
        sa.Column("severity", Words, nullable=False),
        sa.Column("at_utc_ns", Whole, nullable=False),
        sa.Column("error_ms", Whole),
        sa.Column("event", Whole, nullable=False),
        sa.Column("picture", Whole),
        sa.Column("zones", Words, nullable=False),
        sa.Column("words", Words, nullable=False),
        sqlite_with_rowid=False,
    )
    for name, columns in _INDEXES.items():
        op.create_index(name, "incident", list(columns))
