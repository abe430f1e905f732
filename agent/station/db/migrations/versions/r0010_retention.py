"""What left the archive by retention (append-only), what is still to be taken away, and why the archive waits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0010"
down_revision: str | None = "0009"

_NO_ROWID = {"sqlite_with_rowid": False}
_KEYS = {"retention_ask": "n", "retention_answer": "ask_n", "retention_stone": "n"}


def _words(name: str, *, key: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, Words, primary_key=key, nullable=False, server_default=default)


def _number(name: str, *, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, Whole, nullable=False, server_default=default)


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "retention_ask",
        sa.Column("n", Whole, primary_key=True),
        _words("node"),
        _number("from_utc_ns"),
        _number("to_utc_ns"),
        _words("login"),
        _words("reason"),
        _words("authority"),
        _number("utc_ns"),
        _number("trail_seq"),
        sa.CheckConstraint("to_utc_ns > from_utc_ns", name="range"),
    )
    op.create_table(
        "retention_answer",
        sa.Column(
            "ask_n", Whole, sa.ForeignKey("retention_ask.n"), primary_key=True, nullable=False, autoincrement=False
        ),
        _words("login"),
        _words("answer"),
        _words("reason", default=""),
        _number("files", default="0"),
        _number("kept", default="0"),
        _number("utc_ns"),
        _number("trail_seq"),
        sa.CheckConstraint("answer in ('confirmed', 'refused')", name="answer"),
        **_NO_ROWID,
    )
    _stones()
    op.create_table(
        "retention_todo",
        _words("node", key=True),
        _words("sha256", key=True),
        _number("stone_n"),
        **_NO_ROWID,
    )
    op.create_table(
        "archive_wait",
        _words("key", key=True),
        _words("why"),
        _number("since_utc_ns"),
        _number("tried_utc_ns"),
        **_NO_ROWID,
    )
    for table, key in _KEYS.items():
        _append_only(table, key)


def _stones() -> None:
    op.create_table(
        "retention_stone",
        sa.Column("n", Whole, primary_key=True),
        _words("node"),
        _words("name"),
        _words("announced"),
        _words("sha256"),
        _number("bytes"),
        sa.Column("from_utc_ns", Whole),
        sa.Column("to_utc_ns", Whole),
        _number("received_utc_ns"),
        _words("order_id"),
        _words("state"),
        _words("root"),
        _number("seq"),
        _words("detail"),
        _words("came_for"),
        _words("why"),
        _words("policy", default=""),
        sa.Column("ask_n", Whole, sa.ForeignKey("retention_ask.n")),
        _number("utc_ns"),
        _number("trail_seq"),
        sa.CheckConstraint("why in ('age', 'room', 'early')", name="why"),
    )
    op.create_index("retention_stone_file", "retention_stone", ["node", "sha256"])
    op.create_index("retention_stone_time", "retention_stone", ["node", "from_utc_ns"])
    op.create_index("retention_stone_removed", "retention_stone", ["utc_ns"])
    op.create_index("retention_stone_order", "retention_stone", ["order_id"])


def _append_only(table: str, key: str) -> None:
    """Refuses every update and delete, whatever program asks."""
    if op.get_bind().dialect.name == "sqlite":
        for act in ("update", "delete"):
            op.execute(
                f"create trigger {table}_no_{act} before {act} on {table}"
                f" begin select raise(abort, '{table} is append-only'); end"
            )
        op.execute(  # `insert or replace` deletes without asking the trigger for deletes
            f"create trigger {table}_no_replace before insert on {table}"  # noqa: S608
            f" when exists (select 1 from {table} where {key} = new.{key})"
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
