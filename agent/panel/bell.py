"""The bell's own test: what is known of its line without anybody pressing it. Pure: levels and times are passed in.

Once a day, and soon after a start, the line is tried (`Panel.test`): open, it must be possible to pull it down. A
contact that stays closed is a fault of its own. While there is a fault it is tried more often, so that a repair shows.

What no test of one wire can see: a cut wire, a button that makes no contact, one that somebody has taken off. All read
as a bell that nobody presses; that takes a person who presses it, or a second wire. The same goes for the way of the
alarm from the pin on, which only a press goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from agent.panel import Line
from agent.types import NS

FIRST_S = 60.0
"""After a start: what is pressed then is an alarm first."""
TEST_S = 86_400.0
AGAIN_S = 600.0
"""After a fault."""


class BellLine(StrEnum):
    """What is known of the bell's line."""

    UNTESTED = "untested"
    WELL = "well"
    STUCK = "stuck"  # closed for so long that nobody presses it
    HIGH = "high"  # something holds it at 3.3 V


@dataclass(frozen=True, slots=True)
class BellReport:
    """CLOCK_BOOTTIME ns. `tested_ns` None: not since the start; `since_ns`: since when it is so."""

    state: BellLine
    tested_ns: int | None
    since_ns: int


class BellTest:
    """Decides when the line is tested, and what is told of it."""

    def __init__(self, started_ns: int, before: BellReport | None = None) -> None:
        """`before`: what was known before the driver was opened anew, if it was: a driver that fails must not look
        tested.
        """
        self._due_ns = started_ns + round(FIRST_S * NS)
        self._told: tuple[BellLine, int] | None = None
        went_on = before is not None and before.state is BellLine.UNTESTED
        since_ns = before.since_ns if before is not None and went_on else started_ns
        self.report = BellReport(BellLine.UNTESTED, None if before is None else before.tested_ns, since_ns)

    def due(self, now_ns: int) -> bool:
        """Whether the line is to be tried now."""
        return now_ns >= self._due_ns

    def due_ns(self) -> int:
        """When it is to be tried next."""
        return self._due_ns

    def found(self, line: Line, now_ns: int) -> bool:
        """What a try has found. Returns whether it is to be told: once a day, and whenever it has changed.

        A contact that is closed now may be a press: then the try is repeated, and nothing is said of it.
        """
        if line in (Line.CLOSED, Line.NONE):
            self._due_ns = now_ns + round(FIRST_S * NS)
            return False
        return self._is(BellLine.WELL if line is Line.WELL else BellLine.HIGH, now_ns, since_ns=now_ns)

    def stuck(self, since_ns: int, now_ns: int) -> bool:
        """The contact is closed since then, for longer than anybody presses. Returns whether that is to be told."""
        return self._is(BellLine.STUCK, now_ns, since_ns=since_ns)

    def _is(self, state: BellLine, now_ns: int, *, since_ns: int) -> bool:
        since_ns = self.report.since_ns if state is self.report.state else since_ns
        self.report = BellReport(state, now_ns, since_ns)
        self._due_ns = now_ns + round((TEST_S if state is BellLine.WELL else AGAIN_S) * NS)
        told = self._told
        if told is not None and told[0] is state and now_ns - told[1] < round(TEST_S * NS):
            return False
        self._told = (state, now_ns)
        return True
