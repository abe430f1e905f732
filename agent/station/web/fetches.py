"""Which token fetched which feed, and from where: on the audit log once a day, however often a program asks."""

from __future__ import annotations

import datetime as dt
import logging
import threading

from sqlalchemy import Engine, select

from agent.clock import Clock, parse_rfc3339
from agent.errors import Corrupt, Transient
from agent.station.db.engine import reading
from agent.station.db.people import trail
from agent.station.outward.tokens import Purpose
from agent.station.people import trail_line
from agent.station.people.trail import Trail
from agent.types import NS

KIND = "feed-fetched"
ADDRESSES_MAX = 10
"""Of one token and feed in a day; further ones are not noted."""
LINES_MAX = 5000
"""Of the audit log, read once after a start: what is on it of this day already. Behind more a line may come twice."""
UNNOTED: frozenset[Purpose] = frozenset({"metrics"})
"""Given also where nothing can be put on record, for they tell of that: figures, of no person and no place."""

Fetch = tuple[str, str, str]
"""Token by name, feed, address."""

log = logging.getLogger(__name__)


class Fetches:
    """Any thread; blocks for the first fetch of a day."""

    def __init__(self, engine: Engine, *, trail: Trail, clock: Clock, zone: dt.tzinfo) -> None:
        """`zone`: whose midnight begins a day."""
        self._engine = engine
        self._trail = trail
        self._clock = clock
        self._zone = zone
        self._lock = threading.Lock()
        self._day: dt.date | None = None
        self._known: set[Fetch] = set()

    def note(self, token: str, feed: str, address: str, *, purpose: Purpose) -> None:
        """Before it is given. Raises Transient: then it may not be."""
        one, today = (token, feed, address), self._date(self._clock.utc().utc_ns)
        if self._day == today and one in self._known:
            return
        with self._lock:  # a fetch that nobody has noted yet is noted once, and another one waits until it is
            try:
                if self._day is None:
                    self._known = self._told(today)
                elif self._day != today:
                    self._known = set()
                self._day = today
                if one not in self._known and sum(known[:2] == one[:2] for known in self._known) < ADDRESSES_MAX:
                    self._trail.note(KIND, "", token=token, feed=feed, address=address)
                    self._known.add(one)
            except Transient as error:
                if purpose not in UNNOTED:
                    raise
                log.warning("%s was given to %s, and that is not on record: %s", feed, token, error)

    def _told(self, day: dt.date) -> set[Fetch]:
        """What the log has of a day."""
        with reading(self._engine, "read the audit log") as db:
            newest = select(trail.c.line).order_by(trail.c.seq.desc()).limit(LINES_MAX)
            lines = [bytes(raw) for raw in db.execute(newest).scalars()]
        found: set[Fetch] = set()
        for raw in lines:
            try:
                said = trail_line.said(raw)
                if said["kind"] == KIND and self._date(parse_rfc3339(said["time"])) == day:
                    found.add((str(said["token"]), str(said["feed"]), str(said["address"])))
            except (Corrupt, KeyError, ValueError):
                continue
        return found

    def _date(self, utc_ns: int) -> dt.date:
        return dt.datetime.fromtimestamp(utc_ns // NS, self._zone).date()
