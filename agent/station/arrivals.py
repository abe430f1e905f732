"""Events of the store in the order in which they came, for whoever follows it: the board, and the search behind it."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Connection, bindparam, select

from agent.station.db.tables import event, stream
from agent.station.db.together import OnePack


class Arrival(Protocol):
    """An event as it was stored."""

    n: int
    received_utc_ns: int
    node: str
    incident: str | None  # None: the release that stored it did not understand its form
    body: bytes


_SINCE = OnePack(
    select(event.c.n, event.c.received_utc_ns, stream.c.node, event.c.incident, event.c.body)
    .join(stream, event.c.stream == stream.c.stream)
    .where(event.c.n > bindparam("after"))
    .order_by(event.c.n)
    .limit(bindparam("limit"))
)


def arrived(db: Connection, after: int, rows_max: int) -> list[Arrival]:
    """The oldest `rows_max` of those behind event `after`. Raises SQLAlchemy's errors."""
    return _SINCE.ask(db, after=after, limit=rows_max)
