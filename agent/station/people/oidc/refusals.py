"""How many refusals are put on the audit log, each with a line of its own. Pure but for its memory; one process.

Anybody can come back from a provider to whom nobody has sent him, from as many addresses as he has; the log is kept for
ever, and each line is signed. So of each reason NOTED_MAX are noted within WINDOW_S, and the rest is counted: the last
one that is noted says for how long, the next one how many there were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.types import NS

NOTED_MAX = 20
WINDOW_S = 600.0


@dataclass(slots=True)
class _Window:
    since_ns: int
    noted: int = 0
    untold: int = 0


class Refusals:
    """Any thread."""

    def __init__(self, *, boot_ns: Callable[[], int]) -> None:
        self._boot_ns = boot_ns
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def note(self, why: str) -> dict[str, int] | None:
        """What the line of this refusal says more; None: it is counted only. `why`: one of a few words of ours."""
        with self._lock:
            now = self._boot_ns()
            window = self._windows.get(why)
            if window is None or now - window.since_ns >= WINDOW_S * NS:
                before = 0 if window is None else window.untold
                window = self._windows[why] = _Window(now, untold=before)
            if window.noted >= NOTED_MAX:
                window.untold += 1
                return None
            window.noted += 1
            more = {"untold": window.untold} if window.untold else {}
            window.untold = 0
            if window.noted == NOTED_MAX:
                more["counted_s"] = int(WINDOW_S - (now - window.since_ns) / NS) + 1
            return more
