"""Keeps what pages show of all posts new, on a thread of its own: of 70,000 posts it takes seconds to read and judge
them, and whoever opens a page must not wait for that.
"""

from __future__ import annotations

from agent.clock import Clock
from agent.station.outward.worker import OutwardThread
from agent.station.posts.desk import SHARE, PostsDesk

QUICK_S = 0.2
"""What takes no longer than this is read when somebody asks: a small station does nothing as long as nobody looks."""
QUICK_PAUSE_S, PAUSE_S_MAX = 60.0, 60.0


class Renewal:
    """`agent.worker.Worker`, with its thread."""

    name = "posts"
    step_s_max = 3600.0  # nobody watches it

    def __init__(self, desk: PostsDesk, *, clock: Clock) -> None:
        self._desk = desk
        self._due = 0.0
        self._thread = OutwardThread(self, clock=clock)

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Bounded: a reading that takes longer is left behind on its daemon thread. Never raises."""
        self._thread.stop()

    def open(self) -> None:
        """Nothing is held."""

    def step(self, now: float) -> float:
        """Reads and judges all once. A SHARE of the time goes into that at most. Raises Transient, Corrupt."""
        if now >= self._due:
            cost_s = self._desk.renew()
            pause_s = QUICK_PAUSE_S if cost_s <= QUICK_S else min(cost_s / SHARE, PAUSE_S_MAX)
            self._due = now + cost_s + pause_s
        return self._due

    def close(self) -> None:
        """Nothing is held."""
