"""The newest picture of a post's alerts: which one, and when it was taken. One question for all posts of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Engine, select

from agent.station.db.board import alert
from agent.station.db.engine import reading
from agent.station.db.tables import event, node
from agent.station.moments import told_ns
from agent.station.people.roles import Scope

ALERTS_LOOKED_AT_MAX = 50
"""Of a post, the newest: one that tells of alerts all day and sends no picture must not have them all read."""


@dataclass(frozen=True, slots=True)
class AlertPicture:
    """The picture of an alert. `utc_ns`: when it was taken, by the post's clock; None: it told no time that can be."""

    incident: str
    utc_ns: int | None
    error_ms: int | None  # bound of the error of that time; None: nobody vouches for the clock


class _Said(msgspec.Struct):
    """All that is read of the message with the picture: most of it is the picture."""

    time: str = ""
    timeerrms: int | None = None


_SAID = msgspec.json.Decoder(_Said)


class Pictures:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self, scope: Scope, posts: Sequence[str]) -> dict[str, AlertPicture]:
        """Of each of these posts that has one, and that the scope covers. The caller bounds how many are asked for."""
        wanted = [name for name in posts if scope.covers(name)]
        if not wanted:
            return {}
        with reading(self._engine, "look for pictures") as db:
            rows = db.execute(_NEWEST.where(node.c.node.in_(wanted))).all()
        return {str(row.node): _picture(str(row.incident), bytes(row.body)) for row in rows}


def _picture(incident: str, body: bytes) -> AlertPicture:
    try:
        said = _SAID.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = _Said()
    return AlertPicture(incident, told_ns(said.time), said.timeerrms)


# Of each post the newest end of its index, and of that the newest with a picture; then by primary keys alone.
_LOOKED_AT = (
    select(alert.c.incident, alert.c.picture, alert.c.raised_utc_ns)
    .where(alert.c.node == node.c.node)
    .order_by(alert.c.raised_utc_ns.desc())
    .limit(ALERTS_LOOKED_AT_MAX)
    .correlate(node)
    .subquery("looked_at")
)
_FIRST = (
    select(_LOOKED_AT.c.incident)
    .where(_LOOKED_AT.c.picture.isnot(None))
    .order_by(_LOOKED_AT.c.raised_utc_ns.desc())
    .limit(1)
    .scalar_subquery()
)
_SHOWN = alert.alias("shown")
_NEWEST = (
    select(node.c.node, _SHOWN.c.incident, event.c.body)
    .select_from(node)
    .join(_SHOWN, _SHOWN.c.incident == _FIRST)
    .join(event, event.c.n == _SHOWN.c.picture)
)
