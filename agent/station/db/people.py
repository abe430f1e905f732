"""People, their sessions, and the audit log. All of one database are of one site."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Blob, Whole, Words

_NO_ROWID: dict[str, Any] = {"sqlite_with_rowid": False}

# Never deleted, only disabled: the audit log names them.
person = Table(
    "person",
    metadata,
    Column("login", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("role", Words, nullable=False),
    Column("password", Words, nullable=False),  # Argon2id, PHC string format
    Column("whole_site", Whole, nullable=False),  # 0: the posts in person_post only
    Column("disabled", Whole, nullable=False, server_default="0"),
    Column("changed_utc_ns", Whole, nullable=False),
    CheckConstraint(
        "role in ('operator', 'supervisor', 'school', 'technician', 'auditor', 'admin', 'household')",
        name="role",
    ),
    **_NO_ROWID,
)

person_post = Table(
    "person_post",
    metadata,
    Column("login", Words, ForeignKey("person.login"), primary_key=True),
    Column("node", Words, primary_key=True),
    **_NO_ROWID,
)

# Who is logged in. The token itself stands in the browser's cookie only.
session = Table(
    "session",
    metadata,
    Column("sha256", Words, primary_key=True),  # of the token, hex
    Column("login", Words, ForeignKey("person.login"), nullable=False),
    Column("made_utc_ns", Whole, nullable=False),
    Column("seen_utc_ns", Whole, nullable=False),
    Index("session_login", "login"),
    **_NO_ROWID,
)

# The audit log: signed, chained lines (agent/station/people/trail_line.py). Triggers refuse every update and delete.
trail = Table(
    "trail",
    metadata,
    Column("seq", Whole, primary_key=True, autoincrement=False),
    Column("sha256", Words, nullable=False, unique=True),
    Column("keyid", Words, nullable=False),
    Column("line", Blob, nullable=False),
    CheckConstraint("seq > 0", name="seq"),
)
