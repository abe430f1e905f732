"""Holds around bells, and the role of a household."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Whole, Words

revision = "0007"
down_revision: str | None = "0006"

ROLES = "'operator', 'supervisor', 'school', 'technician', 'auditor', 'admin', 'household'"
_NO_ROWID = {"sqlite_with_rowid": False}


def upgrade() -> None:
    """Makes the table, and lets people have the new role."""
    op.create_table(
        "bell_hold",
        sa.Column("incident", Words, primary_key=True),
        sa.Column("node", Words, primary_key=True),
        sa.Column("bell", Words, nullable=False),
        sa.Column("id", Words, nullable=False, unique=True),
        sa.Column("asked_utc_ns", Whole, nullable=False),
        sa.Column("from_utc_ns", Whole, nullable=False),
        sa.Column("to_utc_ns", Whole, nullable=False),
        sa.Column("metres", Whole, nullable=False),
        sa.Column("reason", Words, nullable=False),
        sa.Column("state", Words, nullable=False),
        sa.Column("why", Words, nullable=False, server_default=""),
        sa.CheckConstraint("state in ('due', 'queued', 'failed')", name="state"),
        **_NO_ROWID,
    )
    op.create_index("bell_hold_asked", "bell_hold", ["asked_utc_ns"])
    op.create_index("bell_hold_due", "bell_hold", ["state"])
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(op.f("ck_person_role"), "person", type_="check")
        op.create_check_constraint(op.f("ck_person_role"), "person", f"role in ({ROLES})")
        return
    # SQLite cannot change a constraint: the table is made anew. Its foreign keys are off while migrations run.
    op.create_table(
        "person_anew",
        sa.Column("login", Words, nullable=False),
        sa.Column("name", Words, nullable=False),
        sa.Column("role", Words, nullable=False),
        sa.Column("password", Words, nullable=False),
        sa.Column("whole_site", Whole, nullable=False),
        sa.Column("disabled", Whole, nullable=False, server_default="0"),
        sa.Column("changed_utc_ns", Whole, nullable=False),
        sa.PrimaryKeyConstraint("login", name=op.f("pk_person")),
        sa.CheckConstraint(f"role in ({ROLES})", name=op.f("ck_person_role")),
        **_NO_ROWID,
    )
    columns = "login, name, role, password, whole_site, disabled, changed_utc_ns"
    op.execute(f"insert into person_anew ({columns}) select {columns} from person")  # noqa: S608
    op.drop_table("person")
    op.rename_table("person_anew", "person")
