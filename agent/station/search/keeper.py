"""Keeps the table `incident` up with the store's events. What it holds can be made again from them at any time."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, delete, func, select, update

from agent.clock import Clock
from agent.station.alerts import jpeg_of
from agent.station.arrivals import arrived
from agent.station.db.board import board_mark
from agent.station.db.engine import reading, writing
from agent.station.db.search import incident
from agent.station.db.tables import event
from agent.station.db.together import Among
from agent.station.db.upsert import Upsert
from agent.station.search.meaning import Entry, entry_of
from agent.station.store import event_of
from agent.types import NS

ROWS_MAX = 1000
"""Events taken in one transaction."""
PAUSE_NS = NS
"""Between two transactions, but where ROWS_MAX wait: a commit for each event would cost as much as taking it in."""
MARK = "search"
_KEEP = Upsert(
    incident,
    lambda made: made.on_conflict_do_update(
        index_elements=["incident"],
        set_={one.name: made.excluded[one.name] for one in incident.c if one.name not in ("incident", "node")},
    ),
)
_INCIDENTS = Among(select(incident), incident.c.incident)
_FIRST = Upsert(board_mark, lambda made: made.on_conflict_do_nothing())


class Keeper:
    """One thread; any number of them beside each other on one database. Raises Transient, Corrupt."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._due_ns = 0  # boot time of the next look

    def take_in(self) -> bool:
        """Takes in a bounded part of what the store has taken in since. Returns whether there may be more now."""
        now = self._clock.boot_ns()
        if now < self._due_ns:
            return False
        self._due_ns = now + PAUSE_NS
        with reading(self._engine, "look for what can be searched for") as db:
            mark = _mark(db)
            rows = arrived(db, mark or 0, ROWS_MAX)
        if not rows:
            return False
        entries = [one for row in rows if (one := _entry(row.n, row.node, row.received_utc_ns, row.body))]
        with writing(self._engine, "keep what can be searched for") as db:
            if not _advance(db, mark, rows[-1].n):  # somebody else has taken them in meanwhile
                return True
            _take(db, entries)
            _forget(db)
        if len(rows) == ROWS_MAX:
            self._due_ns = now
        return len(rows) == ROWS_MAX


def _entry(n: int, node: str, received_utc_ns: int, body: bytes) -> Entry | None:
    told = event_of(body)
    if told is None:
        return None
    picture = told.data.severity == "thumbnail"
    if picture and jpeg_of(told) is None:
        return None
    return entry_of(told, n=n, node=node, received_utc_ns=received_utc_ns, picture=picture)


def _take(db: Connection, entries: Iterable[Entry]) -> None:
    told = list(entries)
    rows = _INCIDENTS.ask(db, sorted({one.incident for one in told}))
    known = {row.incident: Entry(**row._mapping) for row in rows}  # noqa: SLF001
    for one in told:
        before = known.setdefault(one.incident, one)
        if before.node == one.node and before is not one:  # two nodes with one incident: the second is not believed
            before.adds(one)
    _KEEP.many(db, [one.row() for one in known.values()])


def _forget(db: Connection) -> None:
    """The store gives up its oldest events: their incidents cannot be told any more."""
    oldest = db.execute(select(event.c.n).order_by(event.c.n).limit(1)).scalar()
    if oldest is not None:
        gone = select(incident.c.incident).where(incident.c.event < oldest).order_by(incident.c.event).limit(ROWS_MAX)
        db.execute(delete(incident).where(incident.c.incident.in_(gone)))


def waiting(db: Connection) -> int:
    """Events of the store that cannot be found yet."""
    newest = db.execute(select(func.coalesce(func.max(event.c.n), 0))).scalar_one()
    return max(int(newest) - (_mark(db) or 0), 0)


def _mark(db: Connection) -> int | None:
    return db.execute(select(board_mark.c.value).where(board_mark.c.key == MARK)).scalar()


def _advance(db: Connection, mark: int | None, to: int) -> bool:
    """Of two who read the same events, one may go on."""
    if mark is None:
        return _FIRST.one(db, {"key": MARK, "value": to})
    where = (board_mark.c.key == MARK) & (board_mark.c.value == mark)
    return bool(db.execute(update(board_mark).where(where).values(value=to)).rowcount)
