"""What was drawn for inspection, apart from what it was drawn from; of the draws of before as well. Append-only."""

from __future__ import annotations

import hashlib
import json

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0017"
down_revision: str | None = "0016"

TABLE = "inspection_sample"


def upgrade() -> None:
    """Makes the table, and fills it from the draws, one after the other: each may be megabytes."""
    op.create_table(
        TABLE,
        sa.Column("week", Words, sa.ForeignKey("inspection_draw.week"), primary_key=True),
        sa.Column("utc_ns", Whole, nullable=False),
        sa.Column("body", Words, nullable=False),
        sqlite_with_rowid=False,
    )
    db = op.get_bind()
    draw = sa.table("inspection_draw", sa.column("week"), sa.column("utc_ns"), sa.column("body"))
    sample = sa.table(TABLE, sa.column("week"), sa.column("utc_ns"), sa.column("body"))
    for (week,) in db.execute(sa.select(draw.c.week)).all():
        utc_ns, body = db.execute(sa.select(draw.c.utc_ns, draw.c.body).where(draw.c.week == week)).one()
        db.execute(sa.insert(sample).values(week=week, utc_ns=utc_ns, body=_apart(str(body))))
    _append_only()


def _apart(draw: str) -> str:
    told = json.loads(draw)
    kept = {
        "week": told["week"],
        "posts": told["drawn_posts"],
        "footage": told["drawn_footage"],
        "of_posts": len(told["posts"]),
        "of_footage": len(told["footage"]),
        "of_senders": len(told.get("senders", ())),
        "seed": str(told.get("seed", "")),
        "sha256": hashlib.sha256(draw.encode()).hexdigest(),
    }
    return json.dumps(kept, ensure_ascii=True, sort_keys=True)


def _append_only() -> None:
    """Refuses every update and delete, whatever program asks."""
    if op.get_bind().dialect.name == "sqlite":
        for act in ("update", "delete"):
            op.execute(
                f"create trigger {TABLE}_no_{act} before {act} on {TABLE}"
                f" begin select raise(abort, '{TABLE} is append-only'); end"
            )
        op.execute(  # `insert or replace` deletes without asking the trigger for deletes
            f"create trigger {TABLE}_no_replace before insert on {TABLE}"  # noqa: S608
            f" when exists (select 1 from {TABLE} where week = new.week)"
            f" begin select raise(abort, '{TABLE} is append-only'); end"
        )
        return
    op.execute(
        f"create function {TABLE}_refuses() returns trigger language plpgsql as"
        f" $$ begin raise exception '{TABLE} is append-only'; end $$"
    )
    op.execute(
        f"create trigger {TABLE}_append_only before update or delete or truncate on {TABLE}"
        f" for each statement execute function {TABLE}_refuses()"
    )
