"""Cards that were docked."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# The audit log is the record; a row changes with its lines, in one transaction, and is what pages read.
docking = Table(
    "docking",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("number", Words, nullable=False, unique=True),  # on the audit log; order_id of the footage that it brings
    Column("node", Words, nullable=False),
    Column("custodian", Words, nullable=False),
    Column("who", Words, nullable=False),
    Column("folder", Words, nullable=False),
    Column("begun_utc_ns", Whole, nullable=False),  # by the station's clock
    Column("ended_utc_ns", Whole),  # null: it goes on, or was cut off; then what follows is not known
    Column("files", Whole, nullable=False, server_default="0"),
    Column("taken", Whole, nullable=False, server_default="0"),
    Column("duplicates", Whole, nullable=False, server_default="0"),
    Column("bytes", Whole, nullable=False, server_default="0"),
    Column("verified", Whole, nullable=False, server_default="0"),
    Column("pending", Whole, nullable=False, server_default="0"),
    Column("mismatched", Whole, nullable=False, server_default="0"),
    Column("passed", Whole, nullable=False, server_default="0"),
    Column("not_matching", Words, nullable=False, server_default="[]"),  # JSON: the first few, dock/naming.py
    Column("not_taken", Words, nullable=False, server_default="[]"),
    sqlite_autoincrement=True,
)

Index("docking_of", docking.c.node, docking.c.n)
