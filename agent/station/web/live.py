"""What is new on the board, told to every page that listens. One thread asks the database for all of them.

The thread takes in new alerts, notes overdue ones, and looks how far the steps have come; behind that it keeps what can
be searched for. The pages' own streams run on the server's event loop and only ever wait to be told. What another
process changes is found in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from agent.clock import Clock
from agent.errors import NoRoom, WardpostError
from agent.station.alerts import Alerts
from agent.station.search.keeper import Keeper
from agent.types import NS

POLL_S = 0.25
TROUBLE_POLL_S = 2.0
COMPLAIN_S = 60.0
JOIN_S_MAX = 10.0
PER_PERSON_MAX = 10
"""Boards that one person has open, and never more than half of all: nobody can take them from the others."""
PER_SESSION_MAX = 6
"""... and one browser: it holds no more connections to one host."""

log = logging.getLogger(__name__)


class Full(Exception):  # noqa: N818  (an answer, not an error)
    """As many pages listen as may."""


class Listener:
    """One open page. Its methods belong to the event loop."""

    def __init__(self, live: Live, who: str, session: str) -> None:
        self._live = live
        self.who, self.session = who, session
        self.crowded = False
        """Its person has opened one board too many, or others need one and he has most: this one, his oldest, ends."""
        self._loop = asyncio.get_running_loop()
        self._told = asyncio.Event()

    async def wait(self, within_s: float) -> bool:
        """Until something may be new; False when nothing was within that time."""
        try:
            async with asyncio.timeout(within_s):
                await self._told.wait()
        except TimeoutError:
            return False
        self._told.clear()
        return True

    def tell(self) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._told.set)

    @property
    def over(self) -> bool:
        """The server ends."""
        return self._live.over

    @property
    def sick(self) -> bool:
        """The database is in the way: what the page shows may be old."""
        return self._live.sick

    @property
    def no_room(self) -> bool:
        """... because its disk is full."""
        return self._live.no_room


class Live:
    """Start and stop from one thread."""

    def __init__(
        self,
        alerts: Alerts,
        keeper: Keeper,
        *,
        clock: Clock,
        listeners_max: int,
        others: Callable[[], int] = lambda: 0,
    ) -> None:
        """`others`: a number that changes when something else than an alert is new. It raises WardpostError."""
        self._alerts = alerts
        self._keeper = keeper
        self._clock = clock
        self._listeners_max = listeners_max
        self._lock = threading.Lock()
        self._per_person_max = min(PER_PERSON_MAX, max(listeners_max // 2, 1))
        self._listeners: dict[Listener, None] = {}  # the oldest first
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._others = others
        self._newest = (-1, -1)
        self._complained_ns: int | None = None
        self.sick = False
        self.no_room = False
        self.over = False

    def start(self) -> None:
        """Begins to look."""
        self._thread = threading.Thread(target=self._run, name="board")
        self._thread.start()

    def stop(self) -> None:
        """Ends, and lets every listener go."""
        self.over = True
        self._stop.set()
        self._tell_all()
        if self._thread is not None:
            self._thread.join(JOIN_S_MAX)
            self._thread = None

    def full(self, who: str, session: str) -> bool:
        """As many pages listen as may, and none of them would make room for another one of this person."""
        with self._lock:
            return len(self._listeners) >= self._listeners_max and self._yielding(who, session) is None

    @contextmanager
    def listening(self, who: str, session: str) -> Iterator[Listener]:
        """On the event loop. `who`: whose page it is, of which session; his oldest ends when he has one too many. Where
        all are taken, the oldest of whoever has most ends, if he then still has as many: who has none gets one as long
        as anybody has two.

        Raises Full.
        """
        listener = Listener(self, who, session)
        with self._lock:
            yields = self._yielding(who, session)
            if yields is not None:
                yields.crowded = True
                del self._listeners[yields]
            if len(self._listeners) >= self._listeners_max:
                raise Full
            self._listeners[listener] = None
        if yields is not None:
            yields.tell()
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.pop(listener, None)

    def _yielding(self, who: str, session: str) -> Listener | None:
        """The page that ends when this person opens one more; None: he may have it if there is room."""
        theirs = [one for one in self._listeners if one.who == who]
        here = [one for one in theirs if one.session == session]
        if len(here) >= PER_SESSION_MAX:
            return here[0]
        if len(theirs) >= self._per_person_max:
            return theirs[0]
        if len(self._listeners) < self._listeners_max:
            return None
        has = Counter(one.who for one in self._listeners)
        most, count = has.most_common(1)[0]  # of several the one who has the oldest
        return next(one for one in self._listeners if one.who == most) if count >= len(theirs) + 2 else None

    def look(self) -> None:
        """Once: takes in, judges, tells; of a backlog every POLL_S, not at its end. Raises WardpostError."""
        told_ns = self._clock.boot_ns()
        while self._alerts.take_in() and not self._stop.is_set():
            if self._clock.boot_ns() - told_ns >= POLL_S * NS:
                self._tell_news()
                told_ns = self._clock.boot_ns()
        self._alerts.note_overdue()
        self._tell_news()

    def _tell_news(self) -> None:
        newest = self._alerts.newest_step(), self._others()
        if newest != self._newest:
            self._newest = newest
            self._tell_all()

    def _run(self) -> None:
        while not self._stop.is_set():
            sick = no_room = False
            try:
                self.look()
            except WardpostError as error:
                sick, no_room = True, isinstance(error, NoRoom)
                self._complain(f"the board shows nothing new: {error}")
            except Exception:  # a bug must not leave the board dark for ever, and must not be silent
                sick = True
                log.exception("the board")
            if (sick, no_room) != (self.sick, self.no_room):
                self.sick, self.no_room = sick, no_room
                self._tell_all()
            if not sick:
                self._keep()
            self._clock.wait(self._stop, TROUBLE_POLL_S if sick else POLL_S)

    def _keep(self) -> None:
        """A part of what can be searched for, behind what the board shows: in a flood what comes in goes first."""
        try:
            self._keeper.take_in()
        except WardpostError as error:
            self._complain(f"nothing new can be searched for: {error}")
        except Exception:  # as above: what cannot be searched for must not keep alerts from the board
            log.exception("the search")

    def _complain(self, text: str) -> None:
        now = self._clock.boot_ns()
        if self._complained_ns is None or now - self._complained_ns > COMPLAIN_S * NS:
            self._complained_ns = now
            log.error("%s", text)

    def _tell_all(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            try:
                listener.tell()
            except RuntimeError:  # its event loop has ended
                continue
