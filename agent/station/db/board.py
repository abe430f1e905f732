"""Alerts and what people do about them. An alert is an incident that has been told as an alert or a bell."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

_NO_ROWID: dict[str, Any] = {"sqlite_with_rowid": False}

alert = Table(
    "alert",
    metadata,
    Column("incident", Words, primary_key=True),
    Column("node", Words, nullable=False),
    Column("severity", Words, nullable=False),
    Column("event", Whole, nullable=False),  # n of the newest event of it that says something
    Column("raised_utc_ns", Whole, nullable=False),  # when the station had it
    Column("due_utc_ns", Whole, nullable=False),  # to be acknowledged by then
    Column("overdue_utc_ns", Whole),  # when it was put on record that nobody had
    Column("ended", Whole, nullable=False, server_default="0"),  # the node says that it is over
    Column("acknowledged_by", Words),
    Column("acknowledged_utc_ns", Whole),
    Column("assigned_to", Words),
    Column("verdict", Words),
    Column("verdict_by", Words),
    Column("picture", Whole),  # n of the newest event with a picture of it
    Column("changed", Whole, nullable=False, server_default="0"),  # n of its newest step
    CheckConstraint("severity in ('bell', 'alert')", name="severity"),
    CheckConstraint("verdict in ('true', 'false')", name="verdict"),
    **_NO_ROWID,
)

# What a page shows is the newest end of one of these, of the whole site or of some posts: no page reads alerts through.
Index("alert_changed", alert.c.changed)
Index("alert_of_changed", alert.c.node, alert.c.changed)
Index("alert_raised", alert.c.raised_utc_ns)
Index("alert_of_raised", alert.c.node, alert.c.raised_utc_ns)
_WAITING = alert.c.acknowledged_utc_ns.is_(None)
_PUNCTUAL = _WAITING & alert.c.overdue_utc_ns.is_(None)
Index("alert_waiting", alert.c.severity, alert.c.raised_utc_ns, sqlite_where=_WAITING, postgresql_where=_WAITING)
Index("alert_of_waiting", alert.c.node, alert.c.severity, alert.c.raised_utc_ns,
      sqlite_where=_WAITING, postgresql_where=_WAITING)  # fmt: skip
Index("alert_due", alert.c.due_utc_ns, sqlite_where=_PUNCTUAL, postgresql_where=_PUNCTUAL)

# What became of it, step by step: what a board that listens is told, in this order.
alert_step = Table(
    "alert_step",
    metadata,
    Column("n", Whole, primary_key=True),
    Column("incident", Words, ForeignKey("alert.incident"), nullable=False),
    Column("utc_ns", Whole, nullable=False),
    Column("what", Words, nullable=False),
    Column("login", Words, nullable=False, server_default=""),  # empty: nobody, it came to pass
    Column("text", Words, nullable=False, server_default=""),
    CheckConstraint(
        "what in ('raised', 'updated', 'ended', 'picture', 'overdue', 'acknowledged', 'verdict', 'handed-over',"
        " 'comment')",
        name="what",
    ),
    Index("alert_step_incident", "incident"),
)

# How far the board has read the store's events: one row.
board_mark = Table(
    "board_mark",
    metadata,
    Column("key", Words, primary_key=True),
    Column("value", Whole, nullable=False),
    **_NO_ROWID,
)
