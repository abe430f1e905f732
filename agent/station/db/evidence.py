"""Evidence alarms: what came from a post is not what it recorded, or its ledger does not hold."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

# Of each post and kind one at most is open; what comes meanwhile is counted, and the newest is told.
evidence_alarm = Table(
    "evidence_alarm",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("node", Words, nullable=False),
    Column("what", Words, nullable=False),  # chain.What
    Column("times", Whole, nullable=False),
    Column("first_utc_ns", Whole, nullable=False),  # by the station's clock
    Column("last_utc_ns", Whole, nullable=False),
    Column("text", Words, nullable=False),  # of the newest
    Column("file", Words, nullable=False, server_default=""),  # on the post; empty: it is about a line
    Column("recorded", Words, nullable=False, server_default=""),  # sha256 by the post; empty: nobody knows
    Column("arrived", Words, nullable=False, server_default=""),  # sha256 of what came
    Column("from_utc_ns", Whole),  # of the file, by the clock that the post had
    Column("to_utc_ns", Whole),
    Column("acknowledged_by", Words),
    Column("acknowledged_utc_ns", Whole),
    Column("comment", Words, nullable=False, server_default=""),
    Column("changed", Whole, nullable=False),  # a number that grows with each change of any of them
    sqlite_autoincrement=True,
)

_OPEN = evidence_alarm.c.acknowledged_utc_ns.is_(None)
Index("evidence_alarm_open", evidence_alarm.c.n, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("evidence_alarm_of_open", evidence_alarm.c.node, evidence_alarm.c.what, unique=True,
      sqlite_where=_OPEN, postgresql_where=_OPEN)  # fmt: skip
Index("evidence_alarm_of", evidence_alarm.c.node, evidence_alarm.c.n)
Index("evidence_alarm_changed", evidence_alarm.c.changed)
