"""Whom alerts of a school's posts reach at the school itself."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# A row is never deleted: its number names a destination of `outward`, and a number that is given again would be told
# what waits for another. What is removed loses its address, which is somebody's own.
school_contact = Table(
    "school_contact",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("login", Words, ForeignKey("person.login"), nullable=False),  # of the school; its posts are this person's
    Column("name", Words, nullable=False),
    Column("how", Words, nullable=False),
    Column("address", Words, nullable=False),  # may hold a key; empty once it is removed
    Column("after_s", Whole, nullable=False),  # so long after an alert was raised, if nobody has acknowledged it
    Column("made_utc_ns", Whole, nullable=False),
    Column("removed_utc_ns", Whole),
    CheckConstraint("how in ('phone', 'email', 'webhook', 'messenger')", name="how"),
    Index("school_contact_login", "login"),
)
