"""Indexes by which the desk's pages find what they show, however much there is (tests/unit/test_station_plans.py)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision: str | None = "0008"

_WAITING = sa.text("acknowledged_utc_ns IS NULL")
_PUNCTUAL = sa.text("acknowledged_utc_ns IS NULL AND overdue_utc_ns IS NULL")


def upgrade() -> None:
    """Makes them; `alert_open` is one of them no more."""
    op.drop_index("alert_open", "alert")
    op.create_index("alert_of_changed", "alert", ["node", "changed"])
    op.create_index("alert_raised", "alert", ["raised_utc_ns"])
    op.create_index("alert_of_raised", "alert", ["node", "raised_utc_ns"])
    _some("alert_waiting", ["severity", "raised_utc_ns"], _WAITING)
    _some("alert_of_waiting", ["node", "severity", "raised_utc_ns"], _WAITING)
    _some("alert_due", ["due_utc_ns"], _PUNCTUAL)
    op.create_index("line_kind", "line", ["node", "root", "kind", "seq"])
    op.create_index("footage_content", "footage", ["node", "sha256"])


def _some(name: str, columns: list[str], which: sa.TextClause) -> None:
    """Of some of the alerts only: the others cost it nothing."""
    op.create_index(name, "alert", columns, sqlite_where=which, postgresql_where=which)
