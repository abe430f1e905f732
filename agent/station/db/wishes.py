"""Packages of cases that were asked for and are not there yet."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# A row goes with the act that puts the package on the timeline, in the same transaction. Its number is not given again.
package_wish = Table(
    "package_wish",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("case_n", Whole, ForeignKey("case_head.n"), nullable=False),
    Column("node", Words, nullable=False),  # empty: all its posts in one
    Column("login", Words, ForeignKey("person.login"), nullable=False),
    Column("reason", Words, nullable=False),
    Column("recipient", Words, nullable=False),
    Column("reference", Words, nullable=False),
    Column("newest", Whole, nullable=False),  # the case's last act when it was asked for
    Column("asked_utc_ns", Whole, nullable=False),
    Column("begun", Whole, nullable=False, server_default="0"),  # so often its making was begun and not ended
    Column("failed_utc_ns", Whole),  # there will be none; null: it waits, or is made
    Column("why", Words, nullable=False, server_default=""),
    Column("said", Words, nullable=False, server_default=""),
    sqlite_autoincrement=True,
)
