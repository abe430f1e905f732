"""Posts that are known by their cards alone: one without a network is never heard, but its footage is here."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, exists, select

from agent.station.db.dock import docking
from agent.station.db.tables import node

DOCKED_MAX = 10_000
"""Posts without a network: each of them is a card that somebody has carried here."""
_UNHEARD = select(docking.c.node).distinct().where(~exists().where(node.c.node == docking.c.node))


def docked_only(db: Connection, among: Sequence[str] | None = None) -> list[str]:
    """Those that a card was taken in of and that nobody has heard, by name; `among` these, or the first DOCKED_MAX of
    the site. They have no place: posts say that themselves. Blocks.
    """
    query = _UNHEARD if among is None else _UNHEARD.where(docking.c.node.in_(among))
    return [str(name) for name in db.execute(query.order_by(docking.c.node).limit(DOCKED_MAX)).scalars()]
