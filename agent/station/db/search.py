"""Incidents as they are searched for: a row for each that the store still has an event of, alert or not."""

from __future__ import annotations

from sqlalchemy import Column, Index, Table

from agent.station.db import metadata
from agent.station.db.types import Whole, Words

incident = Table(
    "incident",
    metadata,
    Column("incident", Words, primary_key=True),
    Column("node", Words, nullable=False),
    Column("kind", Words, nullable=False),  # of agent/station/search/meaning.py, as label
    Column("label", Words, nullable=False),
    Column("severity", Words, nullable=False),  # the highest that it came to
    Column("at_utc_ns", Whole, nullable=False),  # when it began
    Column("error_ms", Whole),  # of that time; null: the node's clock could not be gone by, and it is the arrival
    Column("event", Whole, nullable=False),  # n of its newest event that says something
    Column("picture", Whole),  # n of the newest event with a picture of it
    Column("zones", Words, nullable=False),  # `|yard|gate|`; empty: none
    Column("words", Words, nullable=False),  # place, rule, zones and what was said, without case and accents
    sqlite_with_rowid=False,
)

# A search walks the newest end of one of these, and no further than it says (agent/station/search/finder.py).
Index("incident_at", incident.c.at_utc_ns, incident.c.incident)
Index("incident_of_at", incident.c.node, incident.c.at_utc_ns, incident.c.incident)
Index("incident_kind_at", incident.c.kind, incident.c.at_utc_ns, incident.c.incident)
Index("incident_label_at", incident.c.label, incident.c.at_utc_ns, incident.c.incident)
Index("incident_event", incident.c.event)  # those whose events are gone
