"""The rows of what is kept around bells, in the station's database.

A press is decided about once, in one transaction: the rows of the holds, a line of the audit log, and how far the
board's steps have been read. Only then are the orders queued, under the ids that stand in the rows: what a cut leaves
undone is done at the next start, and twice is once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from agent import wire
from agent.station.bells.deciding import DAY_NS, HOUR_NS, Ordered
from agent.station.db.bells import bell_hold
from agent.station.db.board import alert, alert_step, board_mark
from agent.station.db.engine import reading
from agent.station.db.tables import event, node
from agent.station.people.trail import Trail
from agent.station.store import event_of

PRESSES_MAX = 50
"""Looked at in one go."""
KEPT_NS = 400 * DAY_NS
_MARK = "bells"
SKIP_MAX = 10_000
"""Steps of the board without a bell, before it is written down how far they have been read."""


@dataclass(frozen=True, slots=True)
class Press:
    """A bell that the board has raised. `step`: the number of that step; `told` None: its message is gone."""

    step: int
    incident: str
    node: str
    received_utc_ns: int
    told: wire.CloudEvent | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as it is ordered. `why`: it failed."""

    incident: str
    node: str
    bell: str
    id: str
    asked_utc_ns: int
    from_utc_ns: int
    to_utc_ns: int
    metres: int
    reason: str
    state: str = "due"
    why: str = ""


class BellBook:
    """One thread. Raises Transient, Corrupt (no key)."""

    def __init__(self, engine: Engine, *, trail: Trail) -> None:
        self._engine = engine
        self._trail = trail
        self._kept = -1  # as it is written down
        self._read = -1  # how far the steps have been read

    def open(self) -> None:
        """Begins behind what it has read before; the first time with what comes now, for the old bells are over."""
        self._trail.open()
        with reading(self._engine) as db:
            kept = db.execute(select(board_mark.c.value).where(board_mark.c.key == _MARK)).scalar()
            newest = _newest(db)
        if kept is None:
            with self._trail.writing("begin with bells") as entry:
                entry.db.execute(insert(board_mark).values(key=_MARK, value=newest))
        self._kept = self._read = newest if kept is None else int(kept)

    def presses(self) -> list[Press]:
        """Bells that were raised since, in their order, PRESSES_MAX at most. Cheap when there are none."""
        with reading(self._engine) as db:
            newest = _newest(db)
            if newest <= self._read:
                return []
            rows = db.execute(
                select(alert_step.c.n, alert.c.incident, alert.c.node, alert.c.raised_utc_ns, event.c.body)
                .join(alert, alert.c.incident == alert_step.c.incident)
                .outerjoin(event, event.c.n == alert.c.event)
                .where(alert_step.c.n > self._read, alert_step.c.what == "raised", alert.c.severity == "bell")
                .order_by(alert_step.c.n)
                .limit(PRESSES_MAX)
            ).all()
        if not rows:
            self._read = newest
            if newest - self._kept > SKIP_MAX:
                with self._trail.writing("note how far bells were read") as entry:
                    self._mark(entry.db, newest)
        return [Press(n, incident, of, at, _told(body)) for n, incident, of, at, body in rows]

    def posts(self) -> dict[str, str]:
        """Every post that was ever heard, and its place."""
        with reading(self._engine) as db:
            return {str(of): str(place) for of, place in db.execute(select(node.c.node, node.c.place))}

    def past(self, now_utc_ns: int) -> list[Ordered]:
        """What was ordered within the last day. A station's clock that was ahead must not count for ever."""
        c = bell_hold.c
        lately = (c.asked_utc_ns > now_utc_ns - DAY_NS) & (c.asked_utc_ns <= now_utc_ns + HOUR_NS)
        with reading(self._engine) as db:
            rows = db.execute(select(c.bell, c.node, c.asked_utc_ns, c.incident).where(lately)).all()
        return [Ordered(*row) for row in rows]

    def settle(self, press: Press, holds: Sequence[Hold], line: dict[str, object] | None, now_utc_ns: int) -> None:
        """What was decided about a press; `line`: of the audit log, None: nothing new is to be told."""
        with self._trail.writing("order what is kept around a bell") as entry:
            c = bell_hold.c
            if holds and entry.db.execute(select(c.id).where(c.incident == press.incident)).first() is None:
                entry.db.execute(insert(bell_hold), [asdict(one) for one in holds])
            if line is not None:
                entry.note("bell-hold", "", **line)
            entry.db.execute(delete(bell_hold).where(c.asked_utc_ns < now_utc_ns - KEPT_NS, c.state != "due"))
            self._mark(entry.db, press.step)
        self._read = press.step

    def due(self) -> list[Hold]:
        """What is to be queued."""
        with reading(self._engine) as db:
            return _holds(db.execute(select(bell_hold).where(bell_hold.c.state == "due").limit(PRESSES_MAX)))

    def done(self, hold: Hold, why: str = "") -> None:
        """It is queued; `why`: it could not be, which is on the audit log."""
        state = "failed" if why else "queued"
        with self._trail.writing("note an order") as entry:
            entry.db.execute(update(bell_hold).where(bell_hold.c.id == hold.id).values(state=state, why=why))
            if why:
                entry.note("bell-hold-failed", "", incident=hold.incident, bell=hold.bell, posts=[hold.node], why=why)

    def _mark(self, db: Connection, n: int) -> None:
        db.execute(update(board_mark).where(board_mark.c.key == _MARK).values(value=n))
        self._kept = n


def holds_of(engine: Engine, incident: str) -> list[Hold]:
    """What was ordered for a press, the nearest post first. Any thread."""
    c = bell_hold.c
    with reading(engine) as db:
        return _holds(db.execute(select(bell_hold).where(c.incident == incident).order_by(c.metres, c.node)))


def _holds(rows: Iterable[Any]) -> list[Hold]:
    names = [one.name for one in fields(Hold)]
    return [Hold(**{name: getattr(row, name) for name in names}) for row in rows]


def _newest(db: Connection) -> int:
    return int(db.execute(select(func.coalesce(func.max(alert_step.c.n), 0))).scalar_one())


def _told(body: bytes | None) -> wire.CloudEvent | None:
    return None if body is None else event_of(bytes(body))
