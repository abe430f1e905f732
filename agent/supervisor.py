"""Threads, restarts and the watchdog: who keeps the post alive when one of its parts is not.

Three rings:

1. A worker that raises is closed and opened again after a back-off (doubling, jittered, capped).
2. A worker that shows `failures_max` bugs within `window_s` ends the process with 70; systemd starts it afresh.
3. systemd's watchdog is fed only while every worker steps within its `step_s_max`. A stuck worker's stack is logged,
   the feeding stops, and after `stuck_grace_s` the others are stopped and the process leaves by `os._exit(71)`.
   Nothing here ever calls the library that is stuck: picamera2's lock is held by its stuck encoder (field notes).

What counts as a failure: only bugs, that is, anything that is not a `WardpostError`. A full disk, a dead network or an
unplugged camera (Transient), rubbish from outside (Corrupt), or a setting found wrong after the start (ConfigError) is
the world's doing: restarting the process would not cure it and would cost footage. Those are tried again for ever.

A NeedsRestart is the world's doing too, but only a new process cures it: the process stops cleanly with 71, though not
before it has run for `settled_s`, so that a camera that stays stuck does not silence the uplink by a crash loop.

Where a network is to blame the code is 75 instead: of all these ends only 70 and 71 may, when they go on and on, end in
a reboot of the machine (deploy/wardpost-escalate), which is never the answer to a lost network.

A ConfigError from the first `open` of a worker, while the agent is starting, ends the process with 78.
"""

from __future__ import annotations

import logging
import math
import os
import random
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType

from agent.clock import Clock
from agent.errors import ConfigError, NeedsRestart, WardpostError
from agent.logs import error_line, stack_line
from agent.notify import Notifier
from agent.types import NS
from agent.worker import FOREVER_S, Worker

EXIT_STOPPED = 0
EXIT_BUG = 70  # EX_SOFTWARE: too many failures, or too much memory
EXIT_STUCK = 71  # EX_OSERR: a worker no longer comes back from a call, or a library is stuck for good
EXIT_AGAIN = 75  # EX_TEMPFAIL: the same of a worker that waits for the network; it is never counted
EXIT_CONFIG = 78  # EX_CONFIG: a person must act

WORKERS_MAX = 16
"""The budget of threads; a node that needs more of them is a design gone wrong."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of supervision."""

    failures_max: int = 8
    window_s: float = 600.0
    backoff_s_min: float = 0.5
    backoff_s_max: float = 30.0
    settled_s: float = 60.0  # a life as long as this forgives the back-off of the ones before
    stuck_grace_s: float = 10.0
    stop_s_max: float = 15.0  # the whole clean stop; a third of it at most for one worker
    poll_s: float = 0.4  # how often the main thread looks, and so how late it sees a signal
    rss_mb_max: int = (
        400  # above this the process stops cleanly with 70: a leak must not end in the kernel's OOM killer
    )


COMPANY_S = 0.2  # the camera's packets are fetched at multiples of it while nothing happens
_AFTER_S = 0.02  # so much later they have been handed on
_PATIENT_S = 0.8  # who can wait for so long can wait a little longer


def in_company_s(pause_s: float, now_s: float) -> float:
    """A pause that ends when others wake as well, COMPANY_S longer at most; a short one is left alone.

    A processor that wakes for a moment spends most of it on caches that have gone cold: a wake alone costs several
    times what it costs beside another. So kernels round timers (`round_jiffies`), and so do we.
    """
    if pause_s < _PATIENT_S:
        return pause_s
    due_s = now_s + pause_s - _AFTER_S
    return math.ceil(due_s / COMPANY_S) * COMPANY_S + _AFTER_S - now_s


def backoff_s(attempt: int, limits: Limits, jitter: float) -> float:
    """How long to wait before life number `attempt + 1`; `jitter` in 0..1 takes off up to half."""
    whole = min(limits.backoff_s_max, limits.backoff_s_min * 2.0 ** min(attempt, 30))
    return whole * (1.0 - 0.5 * jitter)


@dataclass(frozen=True, slots=True)
class Busy:
    """A call that a worker's thread is in."""

    call: str  # open, step, close
    since_s: float
    limit_s: float


class Life:
    """One worker through all its lives. `turn` is called by the worker's thread, or by a simulator; never by two."""

    def __init__(self, worker: Worker, *, limits: Limits, clock: Clock, jitter: Callable[[], float]) -> None:
        self.worker = worker
        self.name = worker.name
        self.wake = threading.Event()
        self.busy: Busy | None = None  # replaced whole, so that the main thread may read it at any time
        self.tried = False  # the first open has come to an end, well or not
        self.opened = False  # the worker is open now
        self.restarts = 0
        self.trouble = ""  # the last error while the worker is down; empty while it is up
        self.fatal: ConfigError | None = None  # from the first open
        self.hopeless = ""  # why only a new process can help
        self.bugs: deque[float] = deque(maxlen=limits.failures_max)
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._attempt = 0
        self._retry_at_s = 0.0
        self._born_s = 0.0

    def turn(self) -> float:
        """Opens the worker or lets it do one step; returns when to call again. Never raises."""
        now = self._now()
        if not self.opened and now < self._retry_at_s:
            return self._retry_at_s
        try:
            if not self.opened:
                with _Call(self, "open"):
                    self.worker.open()
                self.opened = self.tried = True
                self._born_s = self._now()
                if self.trouble:
                    log.info("%s: open again after: %s", self.name, self.trouble)
                    self.trouble = ""
                return self._now()
            with _Call(self, "step"):
                return self.worker.step(now)
        except Exception as error:  # noqa: BLE001  (every failure of a worker ends one life, not the post)
            return self._failed(error)

    def end(self) -> None:
        """Closes an open worker. Never raises."""
        if self.opened:
            self.opened = False
            self._close()

    @property
    def up_s(self) -> float:
        """For how long the worker has been open; 0 while it is down. Any thread may read."""
        return self._now() - self._born_s if self.opened else 0.0

    def exhausted(self, now: float) -> bool:
        """Whether the bugs within the window are as many as are tolerated."""
        limits = self._limits
        return len(self.bugs) >= limits.failures_max and now - self.bugs[0] <= limits.window_s

    def stuck_s(self, now: float) -> float:
        """By how many seconds the call in progress has overrun its limit; 0 when all is well."""
        busy = self.busy
        return 0.0 if busy is None else max(0.0, now - busy.since_s - busy.limit_s)

    def _failed(self, error: Exception) -> float:
        first_open = not self.tried
        self._close()  # also after a failed open: it may have taken hold of half of what it needs
        now = self._now()
        if self.opened and now - self._born_s >= self._limits.settled_s:
            self._attempt = 0
        pause_s = backoff_s(self._attempt, self._limits, self._jitter())
        self._attempt += 1
        self.restarts += 1
        self.opened = False
        self._retry_at_s = now + pause_s
        if isinstance(error, WardpostError):
            if isinstance(error, ConfigError) and first_open:
                self.fatal = error
            if isinstance(error, NeedsRestart):
                self.hopeless = str(error)
            self.trouble = str(error)
            log.warning("%s: %s; trying again in %.1f s", self.name, error, pause_s)
        else:
            self.bugs.append(now)
            self.trouble = f"{type(error).__name__}: {error}"
            log.error("%s: bug: %s; restarting in %.1f s", self.name, error_line(error), pause_s)
        self.tried = True
        return self._retry_at_s

    def _close(self) -> None:
        try:
            with _Call(self, "close"):
                self.worker.close()
        except Exception as error:  # noqa: BLE001  (close never raises by contract; a bug in it must not end the thread)
            log.error("%s: bug in close: %s", self.name, error_line(error))  # noqa: TRY400

    def _now(self) -> float:
        return self._clock.boot_ns() / NS


class _Call:
    """Marks the time that a worker spends in one call, for the main thread to watch."""

    def __init__(self, life: Life, call: str) -> None:
        self._life = life
        self._call = call

    def __enter__(self) -> None:
        life = self._life
        life.busy = Busy(self._call, life._now(), life.worker.step_s_max)  # noqa: SLF001

    def __exit__(self, *_: object) -> None:
        self._life.busy = None


class _Thread:
    """The thread of one life."""

    def __init__(self, life: Life, clock: Clock) -> None:
        self.life = life
        self._clock = clock
        self._stop = False
        self.thread = threading.Thread(target=self._run, name=life.name, daemon=True)

    def stop(self) -> None:
        self._stop = True
        self.life.wake.set()

    def _run(self) -> None:
        life = self.life
        while not self._stop:
            life.wake.clear()  # before the turn: what arrives during it is seen by the next one
            next_s = life.turn()
            if not self._stop:
                now_s = self._clock.boot_ns() / NS
                pause_s = min(next_s - now_s, FOREVER_S)
                if pause_s > 0:
                    self._clock.wait(life.wake, in_company_s(pause_s, now_s))
        life.end()


class Supervisor:
    """Runs workers until a signal, a bug too many, or a stuck call. Made and run on the main thread.

    `workers` are in the order of their start, consumers before producers: panel, health, uplink, recorder, vision,
    camera. They stop in reverse: no more is taken in, what is there is sealed and flushed, outputs are safe last.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        clock: Clock,
        notify: Notifier,
        limits: Limits | None = None,
        exit_now: Callable[[int], object] = os._exit,
        jitter: Callable[[], float] = random.random,
        rss_bytes: Callable[[], int] | None = None,
        on_network: frozenset[str] = frozenset(),
        on_ready: Callable[[], object] | None = None,
    ) -> None:
        """`exit_now` leaves the process at once, without finalisers. `rss_bytes` tells the resident memory.

        `on_ready` is called once, on the main thread, when all workers have tried to open.

        `on_network`: workers that are stuck because of a network, so that the end is 75, which wardpost-escalate never
        counts.
        """
        if len(workers) > WORKERS_MAX:
            raise ValueError(f"{len(workers)} workers; the budget is {WORKERS_MAX} threads")
        if len({worker.name for worker in workers}) < len(workers):
            raise ValueError("two workers have the same name")
        self._limits = limits or Limits()
        self._clock = clock
        self._notify = notify
        self._exit_now = exit_now
        self._rss_bytes = rss_bytes
        self._on_network = on_network
        self._on_ready = on_ready
        self._threads = {
            worker.name: _Thread(Life(worker, limits=self._limits, clock=clock, jitter=jitter), clock)
            for worker in workers
        }
        self._started: list[_Thread] = []
        self._signal: int | None = None
        self._asked = threading.Event()
        self._ready = False
        self._born_s: float | None = None  # the first look
        self._fed_at_s = float("-inf")
        self._rss_at_s = float("-inf")
        self._stuck_since_s: float | None = None
        self.left_running: tuple[str, ...] = ()

    @property
    def lives(self) -> dict[str, Life]:
        """The lives by the worker's name: `restarts` and `trouble` are for the heartbeat. Any thread may read."""
        return {name: thread.life for name, thread in self._threads.items()}

    def wake(self, name: str) -> None:
        """Lets a worker step at once. Any thread; never blocks. A name nobody has is a bug: KeyError."""
        self._threads[name].life.wake.set()

    def waker(self, name: str) -> Callable[[], None]:
        """`wake` for one worker, to be an Inbox's `wake`."""
        return self._threads[name].life.wake.set

    def ask_to_stop(self) -> None:
        """Begins a clean stop, as SIGTERM does. Any thread, but no signal handler (it takes a lock)."""
        self._asked.set()

    def run(self, *, signals: bool = True) -> int:
        """Starts everything, watches, stops everything; returns the exit code. Blocks the main thread.

        Afterwards `left_running` names the workers whose threads did not end within the bound. Then the caller
        should leave by `os._exit`: Python would wait for a C library that never comes back.
        """
        old = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT) if signals}
        try:
            while (code := self.look(self._now())) is None:
                # While starting, the next worker waits for this look: eight of them at poll_s would cost two seconds.
                poll_s, now = self._limits.poll_s, self._now()
                self._clock.wait(self._asked, poll_s - (now - _AFTER_S) % poll_s if self._ready else poll_s / 25)
            self.stop()
            return code
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def look(self, now: float) -> int | None:
        """One look at everything, from the main thread; the exit code when it is time to stop, else None."""
        if self._signal is not None or self._asked.is_set():
            name = "a request" if self._signal is None else signal.Signals(self._signal).name
            log.info("stopping: %s", name)
            return EXIT_STOPPED
        self._born_s = now if self._born_s is None else self._born_s
        for thread in self._started:
            life = thread.life
            if life.hopeless and now - self._born_s >= self._limits.settled_s:
                log.critical("%s: %s; leaving, so that systemd starts the post afresh", life.name, life.hopeless)
                return self._stuck_code([life.name])
            if life.fatal is not None and not self._ready:
                log.critical("%s: %s", life.name, life.fatal)
                return EXIT_CONFIG
            if life.exhausted(now):
                log.critical(
                    "%s: %d bugs within %.0f s; leaving, so that systemd starts the post afresh; the last: %s",
                    life.name,
                    self._limits.failures_max,
                    self._limits.window_s,
                    life.trouble,
                )
                return EXIT_BUG
        self._start_next(now)
        if not self._stuck(now):
            self._feed(now)
        return self._memory(now)

    def stop(self) -> None:
        """Stops all workers in reverse order of their start, each within a third of what is left of `stop_s_max`."""
        self._notify.stopping()
        self._notify.status("stopping")
        deadline = self._now() + self._limits.stop_s_max
        for thread in reversed(self._started):
            thread.stop()
            if thread.life.stuck_s(self._now()) == 0.0:
                left_s = max(deadline - self._now(), 0.0)
                thread.thread.join(min(left_s, self._limits.stop_s_max / 3))
            if self._stuck_since_s is None:
                self._notify.feed()
        self.left_running = tuple(t.life.name for t in self._started if t.thread.is_alive())
        for name in self.left_running:
            log.error("%s: did not stop; it is at: %s", name, self._stack(self._threads[name]))
        if not self.left_running:
            log.info("all workers stopped")

    def _start_next(self, now: float) -> None:
        """Starts a worker when the one before it has tried to open; says READY when all have.

        READY does not wait for every open to succeed: a post whose camera is unplugged must come up and say so,
        not be killed by systemd's start timeout.
        """
        if self._ready:
            return
        if all(thread.life.tried for thread in self._started):
            waiting = [t for t in self._threads.values() if t not in self._started]
            if waiting:
                self._started.append(waiting[0])
                self._notify.status(f"starting {waiting[0].life.name}")
                waiting[0].thread.start()
            elif not any(thread.life.fatal for thread in self._started):
                self._ready = True
                self._notify.ready()
                log.info("ready: %s", ", ".join(self._threads))
                self._say(now)
                if self._on_ready is not None:
                    self._on_ready()

    def _stuck(self, now: float) -> bool:
        """Whether a worker is stuck. Leaves the process once one has been for longer than the grace."""
        stuck = [thread for thread in self._started if thread.life.stuck_s(now) > 0]
        if not stuck:
            if self._stuck_since_s is not None:
                log.warning("nobody is stuck any more")
                self._stuck_since_s = None
            return False
        if self._stuck_since_s is None:
            self._stuck_since_s = now
            for thread in stuck:
                busy = thread.life.busy
                log.critical(
                    "%s: stuck in %s for more than %.1f s; the watchdog is no longer fed; it is at: %s",
                    thread.life.name,
                    busy.call if busy else "?",
                    thread.life.worker.step_s_max,
                    self._stack(thread),
                )
            self._notify.status("stuck: " + ", ".join(thread.life.name for thread in stuck))
        if now - self._stuck_since_s >= self._limits.stuck_grace_s:
            log.critical("%s: still stuck; stopping the others and leaving", stuck[0].life.name)
            self.stop()
            for handler in logging.getLogger().handlers:
                handler.flush()
            self._exit_now(self._stuck_code([thread.life.name for thread in stuck]))
        return True

    def _stuck_code(self, names: Sequence[str]) -> int:
        return EXIT_AGAIN if self._on_network.issuperset(names) else EXIT_STUCK

    def _feed(self, now: float) -> None:
        period_s = min(10.0, (self._notify.watchdog_s or 30.0) / 3)
        if now - self._fed_at_s >= period_s:
            self._fed_at_s = now
            self._notify.feed()
            if self._ready:
                self._say(now)

    def _memory(self, now: float) -> int | None:
        if self._rss_bytes is None or now - self._rss_at_s < 10.0:
            return None
        self._rss_at_s = now
        used_mb = self._rss_bytes() / 1e6
        if used_mb <= self._limits.rss_mb_max:
            return None
        log.critical("%.0f MB of memory in use, the budget is %d MB; leaving", used_mb, self._limits.rss_mb_max)
        return EXIT_BUG

    def _say(self, _now: float) -> None:
        """The line for `systemctl status`."""
        down = [f"{t.life.name}: {t.life.trouble}" for t in self._started if t.life.trouble]
        self._notify.status("; ".join(down) if down else f"well: {len(self._threads)} workers")

    @staticmethod
    def _stack(thread: _Thread) -> str:
        # sys._current_frames is how the standard library itself does it (faulthandler's Python twin)
        frame = sys._current_frames().get(thread.thread.ident or 0)  # noqa: SLF001
        return "(no Python code)" if frame is None else stack_line(traceback.extract_stack(frame))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A plain attribute: Event.set takes a lock that the interrupted main thread may hold.
        self._signal = number

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
