"""Cases, their timelines, what was disposed of, and inspections: all of it append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0005"
down_revision: str | None = "0004"

_NO_ROWID = {"sqlite_with_rowid": False}
_KEYS = {
    "case_head": ("n",),
    "case_post": ("case_n", "node"),
    "case_act": ("case_n", "number"),
    "case_item": ("case_n", "node", "kind", "ref"),
    "case_tombstone": ("node", "sha256"),
    "inspection_draw": ("week",),
    "inspection_check": ("n",),
}


def _words(name: str, *, key: bool = False, default: str | None = None) -> sa.Column[str]:
    return sa.Column(name, Words, primary_key=key, nullable=False, server_default=default)


def _number(name: str, *, key: bool = False, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, Whole, primary_key=key, nullable=False, server_default=default, autoincrement=False)


def _case(*, key: bool) -> sa.Column[int]:
    return sa.Column(
        "case_n", Whole, sa.ForeignKey("case_head.n"), primary_key=key, nullable=False, autoincrement=False
    )


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "case_head",
        sa.Column("n", Whole, primary_key=True),
        _words("number"),
        _words("reason"),
        _words("place"),
        _number("from_utc_ns"),
        _number("to_utc_ns"),
        sa.CheckConstraint("to_utc_ns > from_utc_ns", name="range"),
    )
    op.create_table("case_post", _case(key=True), _words("node", key=True), **_NO_ROWID)
    op.create_index("case_post_node", "case_post", ["node"])
    op.create_table(
        "case_act",
        _case(key=True),
        _number("number", key=True),
        _number("utc_ns"),
        _words("login"),
        _words("act"),
        _words("reason", default=""),
        _words("recipient", default=""),
        _words("reference", default=""),
        _words("node", default=""),
        _words("detail", default=""),
        _words("sha256", default=""),
        _number("bytes", default="0"),
        _number("trail_seq"),
        **_NO_ROWID,
    )
    op.create_table(
        "case_item",
        _number("case_n", key=True),
        _words("node", key=True),
        _words("kind", key=True),
        _words("ref", key=True),
        _number("act"),
        _words("name", default=""),
        _number("bytes", default="0"),
        sa.Column("from_utc_ns", Whole),
        sa.Column("to_utc_ns", Whole),
        sa.CheckConstraint("kind in ('footage', 'alert')", name="kind"),
        **_NO_ROWID,
    )
    op.create_index("case_item_ref", "case_item", ["node", "ref"])
    op.create_table(
        "case_tombstone",
        _words("node", key=True),
        _words("sha256", key=True),
        _case(key=False),
        _words("name"),
        _number("bytes"),
        sa.Column("from_utc_ns", Whole),
        sa.Column("to_utc_ns", Whole),
        _words("login"),
        _words("authority"),
        _words("reason"),
        _number("utc_ns"),
        **_NO_ROWID,
    )
    op.create_index("case_tombstone_case", "case_tombstone", ["case_n"])
    _inspection()
    for table, key in _KEYS.items():
        _append_only(table, key)


def _inspection() -> None:
    op.create_table(
        "inspection_draw",
        _words("week", key=True),
        _number("utc_ns"),
        _words("login"),
        _words("body"),
        **_NO_ROWID,
    )
    op.create_table(
        "inspection_check",
        sa.Column("n", Whole, primary_key=True),
        sa.Column("week", Words, sa.ForeignKey("inspection_draw.week"), nullable=False),
        _words("kind"),
        _words("node"),
        _words("ref", default=""),
        _words("login"),
        _number("utc_ns"),
        _words("result"),
        _words("text", default=""),
        sa.CheckConstraint("kind in ('post', 'footage')", name="kind"),
        sa.CheckConstraint("result in ('good', 'poor', 'bad', 'not-possible')", name="result"),
    )
    op.create_index("inspection_check_node", "inspection_check", ["node"])


def _append_only(table: str, key: tuple[str, ...]) -> None:
    """Refuses every update and delete, whatever program asks."""
    if op.get_bind().dialect.name == "sqlite":
        for act in ("update", "delete"):
            op.execute(
                f"create trigger {table}_no_{act} before {act} on {table}"
                f" begin select raise(abort, '{table} is append-only'); end"
            )
        same = " and ".join(f"{name} = new.{name}" for name in key)
        op.execute(  # `insert or replace` deletes without asking the trigger for deletes
            f"create trigger {table}_no_replace before insert on {table}"  # noqa: S608
            f" when exists (select 1 from {table} where {same})"
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
