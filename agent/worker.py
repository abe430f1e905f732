"""The contract of everything that lives, and the bounded mailbox between two workers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

FOREVER_S = 3600.0
"""The longest a worker may ask to sleep: an hour bounds how long a lost wake-up can hurt."""


class Worker(Protocol):
    """A thing with a life of its own. The supervisor gives it a thread; a simulator calls it from one thread.

    All three methods are called from that one thread. Anything they raise ends this life: the supervisor calls
    `close`, waits with back-off, and calls `open` again.
    """

    name: str
    step_s_max: float  # a step that takes longer than this is stuck: the watchdog is no longer fed

    def open(self) -> None:
        """Takes hold of what the worker needs. May block up to `step_s_max`."""

    def step(self, now: float) -> float:
        """Does one bounded job. `now` is CLOCK_BOOTTIME in seconds; returns the time of the next step.

        An Inbox that gets something wakes the worker earlier.
        """

    def close(self) -> None:
        """Lets go of everything, keeping what was promised. Called also after a failed `open`; never raises."""


class WhenFull(StrEnum):
    """What an Inbox does with one item too many."""

    LATEST = "latest"  # the newest replaces all: frames
    DROP_OLDEST = "drop_oldest"  # room is made at the far end
    REFUSE = "refuse"  # put() returns False and the sender deals with it


class Inbox(Generic[T]):
    """A bounded queue into one worker. `put` never blocks and never raises; it may be called from any thread."""

    def __init__(self, capacity: int, when_full: WhenFull, wake: Callable[[], None] | None = None) -> None:
        """`capacity` is in items. `wake` is called after each accepted item (the supervisor sets it)."""
        self._items: deque[T] = deque()
        self._capacity = 1 if when_full is WhenFull.LATEST else capacity
        self._when_full = when_full
        self._lock = threading.Lock()
        self.wake = wake
        self.dropped = 0  # items lost or refused since the start

    def put(self, item: T) -> bool:
        """Adds an item; False means that it was refused. Dropping an older one still returns True."""
        with self._lock:
            if len(self._items) >= self._capacity:
                self.dropped += 1
                if self._when_full is WhenFull.REFUSE:
                    return False
                self._items.popleft()
            self._items.append(item)
        if self.wake is not None:
            self.wake()
        return True

    def get(self) -> T | None:
        """The oldest item, or None when there is none. Never blocks."""
        with self._lock:
            return self._items.popleft() if self._items else None

    def __len__(self) -> int:
        return len(self._items)
