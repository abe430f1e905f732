"""What is new on the board, told to every page that listens. One thread asks the database for all of them.

The thread takes in new alerts, notes overdue ones, and looks how far the steps have come; behind that it keeps what can
be searched for. The pages' own streams run on the server's event loop and only ever wait to be told. What another
process changes is found in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from agent.clock import Clock
from agent.errors import WardpostError
from agent.station.alerts import Alerts
from agent.station.search.keeper import Keeper
from agent.types import NS

POLL_S = 0.25
TROUBLE_POLL_S = 2.0
COMPLAIN_S = 60.0
JOIN_S_MAX = 10.0

log = logging.getLogger(__name__)


class Full(Exception):  # noqa: N818  (an answer, not an error)
    """As many pages listen as may."""


class Listener:
    """One open page. Its methods belong to the event loop."""

    def __init__(self, live: Live) -> None:
        self._live = live
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


class Live:
    """Start and stop from one thread."""

    def __init__(self, alerts: Alerts, keeper: Keeper, *, clock: Clock, listeners_max: int) -> None:
        self._alerts = alerts
        self._keeper = keeper
        self._clock = clock
        self._listeners_max = listeners_max
        self._lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._step = -1
        self._complained_ns: int | None = None
        self.sick = False
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

    @property
    def full(self) -> bool:
        """As many pages listen as may."""
        with self._lock:
            return len(self._listeners) >= self._listeners_max

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """On the event loop. Raises Full."""
        listener = Listener(self)
        with self._lock:
            if len(self._listeners) >= self._listeners_max:
                raise Full
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)

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
        step = self._alerts.newest_step()
        if step != self._step:
            self._step = step
            self._tell_all()

    def _run(self) -> None:
        while not self._stop.is_set():
            sick = False
            try:
                self.look()
            except WardpostError as error:
                sick = True
                self._complain(f"the board shows nothing new: {error}")
            except Exception:  # a bug must not leave the board dark for ever, and must not be silent
                sick = True
                log.exception("the board")
            if sick != self.sick:
                self.sick = sick
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
