"""Evidence alarms, which people must answer; others are told of them, too."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0015"
down_revision: str | None = "0014"

_OPEN = sa.text("acknowledged_utc_ns IS NULL")
KINDS = "kind in ('bell', 'alert', 'overdue', 'evidence', 'dark', 'back')"
STATES = "state in ('waiting', 'delivered', 'given-up', 'settled')"
STREAMS = "stream in ('step', 'change', 'evidence')"


def upgrade() -> None:
    """Makes the table, and lets the queue hold the new kind. A destination is told of what comes from now on."""
    op.create_table(
        "evidence_alarm",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("node", Words, nullable=False),
        sa.Column("what", Words, nullable=False),
        sa.Column("times", Whole, nullable=False),
        sa.Column("first_utc_ns", Whole, nullable=False),
        sa.Column("last_utc_ns", Whole, nullable=False),
        sa.Column("text", Words, nullable=False),
        sa.Column("file", Words, nullable=False, server_default=""),
        sa.Column("recorded", Words, nullable=False, server_default=""),
        sa.Column("arrived", Words, nullable=False, server_default=""),
        sa.Column("from_utc_ns", Whole),
        sa.Column("to_utc_ns", Whole),
        sa.Column("acknowledged_by", Words),
        sa.Column("acknowledged_utc_ns", Whole),
        sa.Column("comment", Words, nullable=False, server_default=""),
        sa.Column("changed", Whole, nullable=False),
        sqlite_autoincrement=True,
    )
    _open_ones("evidence_alarm_open", ["n"], unique=False)
    _open_ones("evidence_alarm_of_open", ["node", "what"], unique=True)
    op.create_index("evidence_alarm_of", "evidence_alarm", ["node", "n"])
    op.create_index("evidence_alarm_changed", "evidence_alarm", ["changed"])
    if op.get_bind().dialect.name == "postgresql":
        for table, column, check in (("outward", "kind", KINDS), ("outward_mark", "stream", STREAMS)):
            op.drop_constraint(op.f(f"ck_{table}_{column}"), table, type_="check")
            op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, check)
    else:
        _anew()
    op.execute(
        "insert into outward_mark (destination, stream, n) select distinct destination, 'evidence', 0 from outward_mark"
    )


def _open_ones(name: str, columns: list[str], *, unique: bool) -> None:
    """Of those that nobody has acknowledged: the others cost it nothing."""
    op.create_index(name, "evidence_alarm", columns, unique=unique, sqlite_where=_OPEN, postgresql_where=_OPEN)


def _anew() -> None:
    """SQLite cannot change a constraint: the tables are made anew."""
    op.create_table(
        "outward_anew",
        sa.Column("n", Whole, nullable=False),
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
        sa.PrimaryKeyConstraint("n", name=op.f("pk_outward")),
        sa.UniqueConstraint("event", "destination", name=op.f("uq_outward_event_destination")),
        sa.CheckConstraint(KINDS, name=op.f("ck_outward_kind")),
        sa.CheckConstraint(STATES, name=op.f("ck_outward_state")),
    )
    op.create_table(
        "outward_mark_anew",
        sa.Column("destination", Words, nullable=False),
        sa.Column("stream", Words, nullable=False),
        sa.Column("n", Whole, nullable=False),
        sa.PrimaryKeyConstraint("destination", "stream", name=op.f("pk_outward_mark")),
        sa.CheckConstraint(STREAMS, name=op.f("ck_outward_mark_stream")),
        sqlite_with_rowid=False,
    )
    columns = (
        "n, destination, event, kind, incident, made_utc_ns, made_boot_id, made_boot_ns, body, state, attempts,"
        " ended_utc_ns, why"
    )
    for table, names in (("outward", columns), ("outward_mark", "destination, stream, n")):
        op.execute(f"insert into {table}_anew ({names}) select {names} from {table}")  # noqa: S608
        op.drop_table(table)
        op.rename_table(f"{table}_anew", table)
    op.create_index("outward_head", "outward", ["state", "destination", "n"])
