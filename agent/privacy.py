"""The privacy switch: for a bounded time nothing is recorded or looked at, visibly and on record.

It stands between the camera and everybody else: what the camera gives is dropped in memory, by the moment of capture,
so that neither what is on its way when the switch is thrown nor what a driver hands over late gets any further. The
camera goes on running: a camera that fails behind the curtain is still noticed.

After a restart only the rest of the time is granted. Time is charged `REFRESH_S` ahead, so that a power cut can make it
shorter, never longer. The longest time counts from the moment it was switched on: asking again does not extend it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from agent.clock import Clock
from agent.errors import ConfigError, Transient
from agent.recording.timeline import Timeline
from agent.types import (
    NS,
    Cause,
    Curtain,
    Event,
    Frame,
    Gap,
    Kind,
    NewId,
    Packet,
    Phase,
    Priority,
    TimeAnchor,
)

REFRESH_S = 10.0
LOOK_S = 1.0
PAST_MAX = 16
"""Curtains that are remembered, to drop what a driver hands over late."""
POST = "the switch at the post"

log = logging.getLogger(__name__)


class Ledger(Protocol):
    """Where privacy is put on record: the part of the store that is needed. Raises Transient."""

    def draw(self, curtain: Curtain, gap: Gap, *, begins: bool) -> None: ...

    def undraw(self, gap: Gap, how: str) -> None: ...

    def curtain(self) -> Curtain | None: ...

    def anchors(self) -> list[TimeAnchor]: ...

    def gaps(self) -> list[Gap]: ...


def rest(left: Curtain, clock: Clock, anchors: Sequence[TimeAnchor]) -> Curtain | None:
    """What is still granted of a curtain that an earlier life left in force; None: nothing. Pure but for the clock.

    In the same boot its end stands. In another one, what was not spent goes on; the time without power counts as spent
    where both ends of it can be vouched for.
    """
    now_ns = clock.boot_ns()
    if left.boot_id == clock.boot_id:
        return left if left.until_ns > now_ns else None
    rest_ns = left.until_ns - left.charged_ns
    before, utc = Timeline(anchors).utc(left.boot_id, left.charged_ns), clock.utc()
    if before is not None and before.unc_ns is not None and utc.unc_ns is not None:
        rest_ns -= max(utc.utc_ns - before.utc_ns, 0)
    if rest_ns <= 0:
        return None
    return Curtain(clock.boot_id, now_ns, now_ns + rest_ns, now_ns, left.asker)


@dataclass(frozen=True, slots=True)
class _Said:
    """The incident in progress."""

    incident: str
    since_ns: int


class PrivacyWorker:
    """See `agent.worker.Worker`. All other methods may be called from any thread."""

    name = "privacy"
    step_s_max = 20.0

    def __init__(
        self,
        *,
        clock: Clock,
        ledger: Ledger,
        packets: Callable[[Packet], object],
        frames: Callable[[Frame], object],
        paused: Callable[[int, str], None],
        report: Callable[[Sequence[Event]], None],
        new_id: NewId,
        s_max: float,
    ) -> None:
        """`packets` and `frames` get what is not hidden and do not block; `paused` tells the recorder of the hole.

        What an earlier life left in force is in force from here on: make this before the camera starts. Raises
        Transient when the store cannot be read.
        """
        self._clock = clock
        self._ledger = ledger
        self._packets = packets
        self._frames = frames
        self._paused = paused
        self._report = report
        self._new_id = new_id
        self._s_max = s_max
        self._gate = threading.Lock()  # held while an item is handed on: none slips through as the curtain falls
        self._book = threading.RLock()  # held while the store is written
        self._curtain: Curtain | None = None
        self._longest_ns = 0  # asking again does not extend it beyond this
        self._past: deque[tuple[int, int]] = deque(maxlen=PAST_MAX)
        self._said: _Said | None = None
        self._owed: tuple[Gap, str] | None = None  # an end that the store has not taken yet
        self._written = False
        self._refreshed_ns = 0
        self.wake: Callable[[], None] | None = None
        self.hidden = 0  # items dropped since the start
        left = ledger.curtain()
        if left is not None:
            self._resume(left)

    # -- the camera's thread -------------------------------------------------------------------------------------------

    def packet(self, packet: Packet) -> bool:
        """Hands a packet on, unless it is hidden."""
        with self._gate:
            if self._hides(packet.boot_ns):
                return False
            return bool(self._packets(packet))

    def frame(self, frame: Frame) -> None:
        """Hands a frame on, unless it is hidden."""
        with self._gate:
            if not self._hides(frame.boot_ns):
                self._frames(frame)

    def _hides(self, boot_ns: int) -> bool:
        curtain = self._curtain
        hides = (curtain is not None and min(boot_ns, self._clock.boot_ns()) < curtain.until_ns) or any(
            start_ns <= boot_ns < end_ns for start_ns, end_ns in self._past
        )
        self.hidden += hides
        return hides

    # -- any thread ----------------------------------------------------------------------------------------------------

    @property
    def left_s(self) -> float:
        """How long it still lasts; 0: it is not in force."""
        curtain = self._curtain
        return 0.0 if curtain is None else max(curtain.until_ns - self._clock.boot_ns(), 0) / NS

    def command(self, seconds: float) -> float:
        """Switches it on for so long, or off with 0. Returns the seconds that are left. Raises ConfigError."""
        if not 0 <= seconds < float("inf"):
            raise ConfigError(f"privacy: {seconds} is not a time; give seconds from 0 to {self._s_max:g}")
        with self._book:
            if seconds > 0:
                self._draw(seconds, "headquarters")
            elif self._curtain is not None and self._curtain.asker == POST:
                raise ConfigError("privacy: it was switched on at the post, and can only be switched off there")
            else:
                self._undraw("switched off by headquarters")
        return self.left_s

    def switch(self, closed: bool) -> None:
        """The switch at the post has been thrown. One that is found closed at a start has not: see the panel."""
        with self._book:
            if closed:
                self._draw(self._s_max, POST)
            elif self._curtain is not None and self._curtain.asker == POST:
                self._undraw("switched off at the post")

    # -- the worker ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        return

    def step(self, now: float) -> float:
        with self._book:
            curtain, now_ns = self._curtain, self._clock.boot_ns()
            self._settle()
            if curtain is None:
                return now + LOOK_S
            if now_ns >= curtain.until_ns:
                self._undraw("its time was over")
            elif now_ns - self._refreshed_ns >= REFRESH_S * NS or not self._written:
                self._write(now_ns)
            return min(now + LOOK_S, max(curtain.until_ns / NS, now))

    def close(self) -> None:
        """Stays in force: the next life goes on with the rest."""
        with self._book:
            self._settle()
            if self._curtain is not None:
                self._write(self._clock.boot_ns())

    # -- the work, under the book --------------------------------------------------------------------------------------

    def _resume(self, left: Curtain) -> None:
        going_on = rest(left, self._clock, self._ledger.anchors())
        if going_on is None:
            # Its end fell into the time between two lives: what is on record of it stays as it stands.
            key = (left.boot_id, left.start_ns, Cause.PRIVACY)
            stands = [gap for gap in self._ledger.gaps() if (gap.boot_id, gap.start_ns, gap.cause) == key]
            gap = stands[0] if stands else self._gap(left, left.start_ns)
            self._owed = (gap, "its time was over before the post was back")
            self._settle()
            return
        self._longest_ns = going_on.until_ns
        self._begin(going_on, f"Privacy goes on after a restart, for {self._span_s(going_on):.0f} s at most")

    def _draw(self, seconds: float, asker: str) -> None:
        now_ns = self._clock.boot_ns()
        curtain = self._curtain
        if curtain is not None and now_ns < curtain.until_ns:
            until_ns = min(now_ns + round(seconds * NS), self._longest_ns)
            if until_ns > curtain.until_ns or asker == POST:
                self._curtain = replace(curtain, until_ns=max(until_ns, curtain.until_ns), asker=asker)
                self._write(now_ns)
            return
        if curtain is not None:
            self._undraw("its time was over")
        seconds = min(seconds, self._s_max)
        fresh = Curtain(self._clock.boot_id, now_ns, now_ns + round(seconds * NS), now_ns, asker)
        self._longest_ns = now_ns + round(self._s_max * NS)
        self._begin(fresh, f"Privacy: recording and detection are off for {seconds:.0f} s at most, by {asker}")

    def _begin(self, curtain: Curtain, summary: str) -> None:
        with self._gate:
            self._curtain = curtain
            self._paused(max(curtain.start_ns, self._clock.boot_ns()), f"privacy, by {curtain.asker}")
        self._written = False
        self._said = _Said(self._new_id(), curtain.start_ns)
        log.warning("%s", summary)
        self._settle()
        self._write(self._clock.boot_ns())
        self._report([self._event(Phase.STARTED, curtain.start_ns, summary)])
        if self.wake is not None:
            self.wake()

    def _undraw(self, how: str) -> None:
        curtain = self._curtain
        if curtain is None:
            return
        end_ns = min(self._clock.boot_ns(), curtain.until_ns)
        with self._gate:
            self._curtain = None
            self._past.append((curtain.start_ns, end_ns))
        self._settle()
        self._owed = (self._gap(curtain, end_ns), how)
        self._settle()
        seconds = (end_ns - curtain.start_ns) / NS
        log.warning("privacy has ended after %.0f s: %s", seconds, how)
        self._report([self._event(Phase.ENDED, end_ns, f"Privacy has ended after {seconds:.0f} s: {how}")])
        self._said = None

    def _write(self, now_ns: int) -> None:
        """Puts it on record as it stands. What the disk refuses is tried again; it is in force all the same."""
        curtain = self._curtain
        if curtain is None:
            return
        ahead_ns = min(now_ns + round(REFRESH_S * NS), curtain.until_ns)
        told = replace(curtain, charged_ns=ahead_ns)
        try:
            self._ledger.draw(told, self._gap(curtain, min(now_ns, curtain.until_ns)), begins=not self._written)
        except Transient as error:
            log.error("privacy: not on record yet: %s", error)  # noqa: TRY400
            return
        self._curtain, self._written, self._refreshed_ns = told, True, now_ns

    def _settle(self) -> None:
        """An end that the store has not taken yet."""
        if self._owed is None:
            return
        try:
            self._ledger.undraw(*self._owed)
        except Transient as error:
            log.error("privacy: its end is not on record yet: %s", error)  # noqa: TRY400
            return
        self._owed = None

    def _gap(self, curtain: Curtain, end_ns: int) -> Gap:
        detail = f"privacy, by {curtain.asker}"
        return Gap(curtain.boot_id, curtain.start_ns, max(end_ns, curtain.start_ns), Cause.PRIVACY, detail)

    @staticmethod
    def _span_s(curtain: Curtain) -> float:
        return (curtain.until_ns - curtain.start_ns) / NS

    def _event(self, phase: Phase, boot_ns: int, summary: str) -> Event:
        said = self._said or _Said(self._new_id(), boot_ns)
        return Event(
            incident=said.incident,
            kind=Kind.NODE,
            phase=phase,
            boot_ns=boot_ns,
            priority=Priority.NOTICE,
            summary=summary,
            since_ns=said.since_ns,
        )
