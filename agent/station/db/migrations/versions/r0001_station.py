"""The station's memory: nodes, events, ledgers, rollouts.

A SQLite file that the station's own scripts made (schemas 1 to 3, before there was Alembic) has some or all of these
tables; it keeps them, with everything in them, and gets what it lacks.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from agent.errors import Corrupt
from agent.transaction import statements

revision = "0001"
down_revision: str | None = None

LEGACY = {"1": "legacy_1_to_2.sql", "2": "legacy_2_to_3.sql"}
LEGACY_LAST = "3"

_whole = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_blob = sa.LargeBinary()


def upgrade() -> None:  # noqa: D103
    db = op.get_bind()
    if not sa.inspect(db).has_table("meta"):
        _create()
        return
    schema = db.execute(sa.text("select value from meta where key = 'schema'")).scalar()
    while schema in LEGACY:
        for statement in statements((Path(__file__).parent / LEGACY[schema]).read_text(encoding="utf-8")):
            db.exec_driver_sql(statement)
        schema = str(int(schema) + 1)
    if schema != LEGACY_LAST:
        raise Corrupt(f"schema {schema!r} was never made by a station; is this its database?")
    db.execute(sa.text("delete from meta where key = 'schema'"))  # alembic_version tells it from now on


def _words(name: str, *, key: bool = False, default: str | None = None, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=key, server_default=default, nullable=null)


def _number(name: str, *, default: str | None = None) -> sa.Column[int]:
    return sa.Column(name, _whole, server_default=default, nullable=False)


def _count(name: str) -> sa.Column[int]:
    """Counts up by itself."""
    return sa.Column(name, _whole, primary_key=True)


def _bytes(name: str, *, null: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, _blob, nullable=null)


def _create() -> None:
    op.create_table("meta", _words("key", key=True), _words("value"), sqlite_with_rowid=False)
    op.create_table(
        "node",
        _words("node", key=True),
        _words("place", default=""),
        _words("version", default=""),
        _number("session", default="0"),
        _words("said", default="online"),
        _words("seen_boot_id"),
        _number("seen_ns"),
        _number("seen_utc_ns"),
        _words("state", default="online"),
        _number("state_since_utc_ns"),
        _bytes("heartbeat", null=True),
        sa.CheckConstraint("said in ('online', 'offline')", name="said"),
        sa.CheckConstraint("state in ('online', 'late', 'dark', 'offline')", name="state"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "stream",
        _count("stream"),
        _words("node"),
        _words("epoch"),
        _number("head", default="0"),
        sa.UniqueConstraint("node", "epoch"),
        sa.CheckConstraint("head >= 0", name="head"),
    )
    op.create_table(
        "event",
        _count("n"),
        sa.Column("stream", _whole, sa.ForeignKey("stream.stream"), nullable=False),
        _number("sequence"),
        _words("id"),
        _words("kind"),
        _words("incident", null=True),
        _number("received_utc_ns"),
        _bytes("body"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("stream", "sequence"),
        sa.CheckConstraint("sequence > 0", name="sequence"),
    )
    op.create_table(
        "reject", _count("n"), _number("received_utc_ns"), _words("topic"), _words("reason"), _number("bytes"),
        _bytes("head"),
    )  # fmt: skip
    op.create_table(
        "change", _count("n"), _words("node"), _words("state"), _number("utc_ns"), _number("since_utc_ns")
    )  # fmt: skip
    op.create_table(
        "key",
        _words("node", key=True),
        _words("keyid", key=True),
        _words("public"),
        _words("root"),
        _words("how"),
        _number("since_utc_ns"),
        sa.CheckConstraint("length(public) = 64", name="public"),
        sa.CheckConstraint("how in ('pinned', 'registered', 'introduced')", name="how"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "line",
        _count("n"),
        _words("node"),
        _words("root"),
        _number("seq"),
        _words("sha256"),
        _words("prev"),
        _words("kind"),
        _number("received_utc_ns"),
        _bytes("body"),
        sa.UniqueConstraint("node", "root", "seq", "sha256"),
        sa.CheckConstraint("seq > 0", name="seq"),
    )
    op.create_table(
        "carried",
        sa.Column("stream", _whole, sa.ForeignKey("stream.stream"), primary_key=True, autoincrement=False),
        sa.Column("sequence", _whole, primary_key=True, autoincrement=False),
        _number("n"),
        sa.CheckConstraint("sequence > 0", name="sequence"),
        sqlite_with_rowid=False,
    )
    op.create_index("carried_line", "carried", ["n"])
    op.create_table(
        "ledger",
        _words("node", key=True),
        _words("root", key=True),
        _words("epoch"),
        _number("seq"),
        _words("head"),
        _number("receipt_seq", default="0"),
        _words("receipt_sha256", default=""),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "receipt", _count("n"), _words("node"), _words("root"), _number("seq"), _number("utc_ns"), _bytes("body")
    )  # fmt: skip
    op.create_table(
        "alarm",
        _words("node", key=True),
        _words("what", key=True),
        _number("count"),
        _number("first_utc_ns"),
        _number("told_utc_ns"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollout", _count("n"), _words("id"), _number("utc_ns"), _words("body"), sa.UniqueConstraint("id")
    )  # fmt: skip
    op.create_table(
        "rollout_post",
        sa.Column("rollout", _whole, sa.ForeignKey("rollout.n"), primary_key=True, autoincrement=False),
        _words("node", key=True),
        _words("body"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollout_log",
        _count("n"),
        _number("utc_ns"),
        _words("rollout"),
        _words("text"),
        _words("request", null=True),
        sa.UniqueConstraint("request"),
    )
