"""Who of the people somebody at an OpenID Connect provider is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from agent.station.db.types import Words

revision = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    """Makes the table."""
    op.create_table(
        "oidc_link",
        sa.Column("login", Words, sa.ForeignKey("person.login"), primary_key=True),
        sa.Column("issuer", Words, nullable=False),
        sa.Column("subject", Words),
        sa.Column("email", Words),
        sa.UniqueConstraint("issuer", "subject"),
        sa.UniqueConstraint("issuer", "email"),
        sqlite_with_rowid=False,
    )
