"""Footage that came from posts, and the lines of their ledgers that speak of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision: str | None = "0002"

_whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _words(name: str, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, sa.Text, server_default=default, nullable=False)


def _number(name: str, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, _whole, server_default=default, nullable=False)


def upgrade() -> None:  # noqa: D103
    op.create_table(
        "footage",
        sa.Column("n", _whole, primary_key=True),
        _words("node"),
        _words("name"),
        _words("announced"),
        _words("sha256"),
        _number("bytes"),
        _words("boot_id", ""),
        _number("start_ns", "0"),
        _number("end_ns", "0"),
        sa.Column("from_utc_ns", _whole),
        sa.Column("to_utc_ns", _whole),
        _number("sealed", "0"),
        _words("order_id"),
        _words("state"),
        _words("root", ""),
        _number("seq", "0"),
        _words("detail", ""),
        _number("received_utc_ns"),
        _number("checked_utc_ns"),
        sa.UniqueConstraint("node", "announced", "sha256"),
        sa.CheckConstraint("state in ('verified', 'pending', 'mismatch')", name="state"),
    )
    op.create_index("footage_time", "footage", ["node", "from_utc_ns"])
    op.create_index("footage_order", "footage", ["order_id"])
    op.create_index("footage_state", "footage", ["state", "node"])
    op.create_table(
        "footage_line",
        sa.Column("line", _whole, primary_key=True, autoincrement=False),
        _words("node"),
        _words("root"),
        _number("seq"),
        _words("boot_id"),
        _number("start_ns"),
        _words("sha256"),
    )
    op.create_index("footage_line_sha256", "footage_line", ["node", "sha256"])
    op.create_index("footage_line_start", "footage_line", ["node", "boot_id", "start_ns"])
    op.create_table(
        "footage_mark",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", _whole, nullable=False),
        sqlite_with_rowid=False,
    )
