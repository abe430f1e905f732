"""Takes notices to their destinations: one thread decides, and lends each destination a hand of its own.

A destination gets its notices in their order, the next one when the last was delivered or given up. A hand that is
stuck in a slow network holds up nobody else, and nothing here ever waits for a hand.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from agent.clock import Clock
from agent.errors import Transient, WardpostError
from agent.station.outward.notice import Notice
from agent.station.outward.queue import OutwardQueue, Plan, Waiting
from agent.station.outward.retry import Outcome, pause_s
from agent.types import NS
from agent.worker import Worker

LOOK_S = 0.5
BUSY_S = 0.02
RESTART_S = 5.0

log = logging.getLogger(__name__)


class Sender(Protocol):
    """Takes one notice to one destination."""

    def __call__(self, told: Notice, key: str, /) -> Outcome:
        """Blocks, bounded. `key` names notice and destination, at every attempt the same. Never raises Transient."""


class Hands(Protocol):
    """Where senders run: `concurrent.futures.Executor`, as far as it is used here."""

    def submit(self, fn: Callable[[], Outcome], /) -> Future[Outcome]: ...
    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None: ...


@dataclass(slots=True)
class _Line:
    """One destination, while this process lives."""

    plan: Plan
    send: Sender
    next_at: float = 0.0
    idle: bool = False  # nothing waits for it, as far as is known
    one: Waiting | None = None
    under_way: Future[Outcome] | None = field(default=None)


class OutwardWorker:
    """`agent.worker.Worker`."""

    name = "outward"
    step_s_max = 60.0

    def __init__(
        self,
        *,
        queue: OutwardQueue,
        destinations: Mapping[Plan, Sender],
        clock: Clock,
        rng: random.Random,
        hands: Callable[[int], Hands] | None = None,
        others: Callable[[], Mapping[Plan, Sender]] = dict,
        others_max: int = 0,
    ) -> None:
        """`hands` makes the executor for so many destinations; a test may bring one that runs at once. `others`: those
        that come and go meanwhile, asked for at each look, `others_max` of them; it raises Transient.
        """
        self._queue = queue
        self._destinations = destinations
        self._others = others
        self._others_max = others_max
        self._clock = clock
        self._rng = rng
        self._make_hands = hands or _threads
        self._hands: Hands | None = None
        self._lines: dict[str, _Line] = {}
        self._look_at = 0.0

    def open(self) -> None:
        """Raises ConfigError, Corrupt, Transient."""
        self._lines = {}
        self._follow({**self._destinations, **self._others()})
        self._hands = self._make_hands(len(self._destinations) + self._others_max)
        self._look_at = 0.0

    def _follow(self, wanted: Mapping[Plan, Sender]) -> None:
        """Tells these from now on. A hand under way for one of them goes on, whatever has changed of its plan."""
        self._queue.begin(list(wanted))
        before, self._lines = self._lines, {}
        for plan, send in wanted.items():
            line = self._lines[plan.name] = before.get(plan.name) or _Line(plan, send)
            line.plan, line.idle = plan, False

    def step(self, now: float) -> float:
        """One look. Raises Transient when the database is away: nothing is lost by that."""
        finished = [line for line in self._lines.values() if line.under_way is not None and line.under_way.done()]
        for line in finished:
            self._finish(line, now)
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            wanted = {**self._destinations, **self._others()}
            if wanted.keys() != {line.plan for line in self._lines.values()}:
                self._follow(wanted)
            if self._queue.gather([line.plan for line in self._lines.values()]):
                for line in self._lines.values():
                    line.idle = False
        elif not finished:
            return self._next(now)
        for line in self._lines.values():
            if line.under_way is None and not line.idle and now >= line.next_at:
                self._start(line)
        return self._next(now)

    def _next(self, now: float) -> float:
        """A hand is looked after more often: behind what it has delivered there may be much more."""
        busy = any(line.under_way is not None for line in self._lines.values())
        return min(self._look_at, now + BUSY_S) if busy else self._look_at

    def close(self) -> None:
        """What is under way is not waited for: it is sent again, under the same name."""
        hands, self._hands = self._hands, None
        self._lines = {}
        if hands is not None:
            hands.shutdown(wait=False, cancel_futures=True)

    def _start(self, line: _Line) -> None:
        one = self._queue.head(line.plan.name)
        if one is None:
            line.idle = True
        elif one.notice is None:
            self._queue.give_up(one, "its row cannot be read")
        elif line.plan.posts is not None and one.notice.node not in line.plan.posts:
            self._queue.give_up(one, "its post is another's now")
        elif line.plan.unless_answered and one.answered:
            self._queue.settle(one)
        elif one.age_s > line.plan.keep_s:
            self._queue.expire(line.plan)
        elif self._hands is not None:
            told, send, key = one.notice, line.send, f"{one.notice.id}_{line.plan.name}"
            line.one, line.under_way = one, self._hands.submit(lambda: send(told, key))

    def _finish(self, line: _Line, now: float) -> None:
        one, done = line.one, line.under_way
        line.one = line.under_way = None
        if one is None or done is None or done.cancelled():
            return
        error = done.exception()
        # An exception's text may hold an address with a password in it: its class must do.
        outcome = Outcome("later", f"unexpected {type(error).__name__}") if error is not None else done.result()
        waits_on = self._queue.note(one, outcome)
        if not waits_on:
            line.next_at = now
            return
        wait_s = pause_s(one.attempts + 1, self._rng)
        line.next_at = now + wait_s
        log.warning("%s: not told %s: %s; next attempt in %.0f s", line.plan.name, _id(one), outcome.why, wait_s)


class OutwardThread:
    """Runs a worker beside the station, and again after whatever ended it: telling others must never end the
    intake.
    """

    def __init__(self, worker: Worker, *, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Returns at once. Does nothing when it runs."""
        if self._thread is not None:
            return
        self._thread = threading.Thread(target=self._run, name=self._worker.name, daemon=True)
        self._thread.start()

    def stop(self, wait_s_max: float = 5.0) -> None:
        """Asks it to end and waits for that. Never raises."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(wait_s_max)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._worker.open()
                while not self._stop.is_set():
                    now = self._clock.boot_ns() / NS
                    self._clock.wait(self._stop, self._worker.step(now) - self._clock.boot_ns() / NS)
            except Transient as error:
                log.warning("%s: %s; next attempt in %g s", self._worker.name, error, RESTART_S)
            except WardpostError as error:
                log.error("%s: %s; next attempt in %g s", self._worker.name, error, RESTART_S)  # noqa: TRY400
            except Exception:
                log.exception("%s: a bug; next attempt in %g s", self._worker.name, RESTART_S)
            finally:
                self._worker.close()
            self._clock.wait(self._stop, RESTART_S)


def _id(one: Waiting) -> str:
    return "?" if one.notice is None else one.notice.id


def _threads(count: int) -> Hands:
    pool: Hands = ThreadPoolExecutor(max_workers=max(count, 1), thread_name_prefix="outward")
    return pool
