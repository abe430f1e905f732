"""Who of the people somebody at an OpenID Connect provider is."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table, UniqueConstraint

from agent.station.db import metadata
from agent.station.db.types import Words

# One link a person. By the provider's subject; or by an e-mail that it has verified, until its first login tells the
# subject: an address may be somebody else's next year, a subject is never given again.
oidc_link = Table(
    "oidc_link",
    metadata,
    Column("login", Words, ForeignKey("person.login"), primary_key=True),
    Column("issuer", Words, nullable=False),
    Column("subject", Words),
    Column("email", Words),
    UniqueConstraint("issuer", "subject"),
    UniqueConstraint("issuer", "email"),
    sqlite_with_rowid=False,
)
