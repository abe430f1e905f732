"""People, sessions, the audit log, and the board's alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Blob, Whole, Words

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NO_ROWID = {"sqlite_with_rowid": False}


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "person",
        sa.Column("login", Words, primary_key=True),
        sa.Column("name", Words, nullable=False),
        sa.Column("role", Words, nullable=False),
        sa.Column("password", Words, nullable=False),
        sa.Column("whole_site", Whole, nullable=False),
        sa.Column("disabled", Whole, nullable=False, server_default="0"),
        sa.Column("changed_utc_ns", Whole, nullable=False),
        sa.CheckConstraint(
            "role in ('operator', 'supervisor', 'school', 'technician', 'auditor', 'admin')", name="role"
        ),
        **_NO_ROWID,
    )
    op.create_table(
        "person_post",
        sa.Column("login", Words, sa.ForeignKey("person.login"), primary_key=True),
        sa.Column("node", Words, primary_key=True),
        **_NO_ROWID,
    )
    op.create_table(
        "session",
        sa.Column("sha256", Words, primary_key=True),
        sa.Column("login", Words, sa.ForeignKey("person.login"), nullable=False),
        sa.Column("made_utc_ns", Whole, nullable=False),
        sa.Column("seen_utc_ns", Whole, nullable=False),
        **_NO_ROWID,
    )
    op.create_index("session_login", "session", ["login"])
    op.create_table(
        "trail",
        sa.Column("seq", Whole, primary_key=True, autoincrement=False),
        sa.Column("sha256", Words, nullable=False, unique=True),
        sa.Column("keyid", Words, nullable=False),
        sa.Column("line", Blob, nullable=False),
        sa.CheckConstraint("seq > 0", name="seq"),
    )
    _append_only("trail")
    _board()
    op.create_index("event_incident", "event", ["incident"])  # the story of one alert, among a million events


def _append_only(table: str) -> None:
    """Refuses every update and delete, whatever program asks."""
    if op.get_bind().dialect.name == "sqlite":
        for act in ("update", "delete"):
            op.execute(
                f"create trigger {table}_no_{act} before {act} on {table}"
                f" begin select raise(abort, '{table} is append-only'); end"
            )
        op.execute(  # `insert or replace` deletes without asking the trigger for deletes
            f"create trigger {table}_no_replace before insert on {table}"  # noqa: S608
            f" when new.seq <= (select coalesce(max(seq), 0) from {table})"
            f" begin select raise(abort, '{table} is append-only'); end"
        )
        return
    op.execute(
        f"create function {table}_refuses() returns trigger language plpgsql as"
        f" $$ begin raise exception '{table} is append-only'; end $$"
    )
    op.execute(
        f"create trigger {table}_append_only before update or delete or truncate on {table}"
        f" for each statement execute function {table}_refuses()"
    )


def _board() -> None:
    op.create_table(
        "alert",
        sa.Column("incident", Words, primary_key=True),
        sa.Column("node", Words, nullable=False),
        sa.Column("severity", Words, nullable=False),
        sa.Column("event", Whole, nullable=False),
        sa.Column("raised_utc_ns", Whole, nullable=False),
        sa.Column("due_utc_ns", Whole, nullable=False),
        sa.Column("overdue_utc_ns", Whole),
        sa.Column("ended", Whole, nullable=False, server_default="0"),
        sa.Column("acknowledged_by", Words),
        sa.Column("acknowledged_utc_ns", Whole),
        sa.Column("assigned_to", Words),
        sa.Column("verdict", Words),
        sa.Column("verdict_by", Words),
        sa.Column("picture", Whole),
        sa.Column("changed", Whole, nullable=False, server_default="0"),
        sa.CheckConstraint("severity in ('bell', 'alert')", name="severity"),
        sa.CheckConstraint("verdict in ('true', 'false')", name="verdict"),
        **_NO_ROWID,
    )
    op.create_index("alert_changed", "alert", ["changed"])
    op.create_index("alert_open", "alert", ["acknowledged_utc_ns", "raised_utc_ns"])
    op.create_table(
        "alert_step",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("incident", Words, sa.ForeignKey("alert.incident"), nullable=False),
        sa.Column("utc_ns", Whole, nullable=False),
        sa.Column("what", Words, nullable=False),
        sa.Column("login", Words, nullable=False, server_default=""),
        sa.Column("text", Words, nullable=False, server_default=""),
        sa.CheckConstraint(
            "what in ('raised', 'updated', 'ended', 'picture', 'overdue', 'acknowledged', 'verdict', 'handed-over',"
            " 'comment')",
            name="what",
        ),
    )
    op.create_index("alert_step_incident", "alert_step", ["incident"])
    op.create_table(
        "board_mark",
        sa.Column("key", Words, primary_key=True),
        sa.Column("value", Whole, nullable=False),
        **_NO_ROWID,
    )
