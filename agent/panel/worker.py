"""The panel at work: inputs become incidents, the LED tells how the post is, the siren never wails for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agent.clock import Clock
from agent.errors import ConfigError, Transient, WardpostError
from agent.panel import BLINK_MS, IDENTIFY_MS, Edge, Input, Output, Panel, PostState, blink
from agent.panel.bell import BellLine, BellReport, BellTest
from agent.types import NS, Event, Kind, NewId, Phase, Priority
from agent.worker import Inbox, WhenFull

BELL_HELD_S_MAX = 60.0
"""A bell held longer is a stuck button: its incident ends, and it is silent until released."""
BELL_BURST_MAX = 10
BELL_REFILL_S = 6.0
"""So many presses at once, then one per so many seconds, are incidents of their own. A worn contact or a vandal could
otherwise fill the outbox with alerts of the highest priority and push everything else out."""
IDENTIFY_S_MAX = 600.0
POLL_S = 1.0
"""How often levels are looked at although no interrupt came."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """Something a command asked for."""

    what: Literal["siren", "lamp", "identify"]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Words:
    """How an input is reported."""

    kind: Kind
    priority: Priority
    started: str
    ended: str
    unknown: str


_WORDS = {
    Input.BELL: _Words(Kind.BELL, Priority.BELL, "Emergency bell pressed", "Emergency bell released", "pressed"),
    Input.TAMPER: _Words(Kind.TAMPER, Priority.ALERT, "The box was opened", "The box was closed again", "open"),
    Input.MAINS_LOST: _Words(
        Kind.MAINS, Priority.ALERT, "Mains power lost; running on the battery", "Mains power is back", "without mains"
    ),
}

_LINES = {
    BellLine.WELL: (Priority.RECORD, "The bell's line was tested: a press would be seen"),
    BellLine.STUCK: (Priority.NOTICE, "The bell is stuck: its contact stays closed, so a press would not be seen"),
    BellLine.HIGH: (Priority.NOTICE, "The bell's line is held at 3.3 V: a press may not be seen"),
}


def ignore_privacy(_closed: bool) -> None:
    """The default for `privacy`."""


def ignore_edge(_edge: Edge) -> None:
    """The default for `edges`."""


class BellBudget:
    """Decides which presses are incidents of their own. Pure: times are passed in."""

    def __init__(self) -> None:
        self._tokens = float(BELL_BURST_MAX)
        self._at_ns: int | None = None
        self.unreported = 0

    def take(self, boot_ns: int) -> bool:
        """Whether this press is reported; if not, it is counted."""
        if self._at_ns is not None:
            grown = (boot_ns - self._at_ns) / NS / BELL_REFILL_S
            self._tokens = min(float(BELL_BURST_MAX), self._tokens + grown)
        self._at_ns = boot_ns
        if self._tokens < 1.0:
            self.unreported += 1
            return False
        self._tokens -= 1.0
        return True


@dataclass(slots=True)
class _Open:
    """An incident in progress."""

    incident: str
    since_ns: int


class PanelWorker:
    """See `agent.worker.Worker`. `siren`, `lamp` and `identify` may be called from any thread; they do not block."""

    name = "panel"
    step_s_max = 5.0

    def __init__(
        self,
        panel: Panel,
        *,
        clock: Clock,
        new_id: NewId,
        report: Callable[[Sequence[Event]], None],
        state: Callable[[], PostState],
        siren_s_max: float,
        privacy: Callable[[bool], None] = ignore_privacy,
        edges: Callable[[Edge], None] = ignore_edge,
    ) -> None:
        """`report` stores events (agent.reporter); `state` tells what the LED should say, cheaply, from any thread.

        `edges` is told every settled change of an input; it must not block or raise.
        `privacy` is told when the privacy switch is thrown; it blocks for one transaction at most.
        """
        self._panel = panel
        self._clock = clock
        self._new_id = new_id
        self._report = report
        self._state = state
        self._siren_s_max = siren_s_max
        self._privacy = privacy
        self._edges = edges
        self._opened_ns = 0
        self._orders: Inbox[_Order] = Inbox(16, WhenFull.REFUSE)
        self._incidents: dict[Input, _Open] = {}
        self._bell = BellBudget()
        self._test = BellTest(clock.boot_ns()) if panel.has(Input.BELL) else None
        self._closed_ns: int | None = None  # since when the bell's contact is
        self._until_ns: dict[Output, int] = {}
        self._identify_until_ns = 0
        self._shown: PostState | None = None
        self._shown_since_ns = 0
        self._led = False

    def set_wake(self, wake: Callable[[], None]) -> None:
        """How to wake this worker: an edge of an input and an order both do."""
        self._orders.wake = wake
        self._panel.wake = wake

    @property
    def bell(self) -> BellReport | None:
        """What is known of the bell's line; None: there is no bell. Any thread."""
        test = self._test
        return None if test is None else test.report

    # -- orders, from any thread ---------------------------------------------------------------------------------------

    def siren(self, seconds: float) -> float:
        """Sounds the siren, or stops it with 0. Returns the seconds granted, at most `panel.siren_s_max`."""
        return self._order("siren", Output.SIREN, min(max(seconds, 0.0), self._siren_s_max))

    def lamp(self, seconds: float) -> float:
        """Switches the lamp on for a time, or off with 0. Returns the seconds granted, an hour at most."""
        return self._order("lamp", Output.LAMP, min(max(seconds, 0.0), 3600.0))

    def identify(self, seconds: float) -> float:
        """Flashes the LED fast, so that somebody on the spot finds the box. Returns the seconds granted."""
        return self._order("identify", Output.LED, min(max(seconds, 0.0), IDENTIFY_S_MAX))

    def _order(self, what: Literal["siren", "lamp", "identify"], output: Output, seconds: float) -> float:
        if not self._panel.has(output):
            raise ConfigError(f"panel.{output.value}: nothing is wired there; set its pin in the configuration")
        if seconds != seconds:  # noqa: PLR0124  (NaN, from a command)
            raise ConfigError(f"panel.{output.value}: the time is not a number")
        if not self._orders.put(_Order(what, seconds)):
            raise Transient(f"panel.{output.value}: too many orders at once; try again")
        return seconds

    # -- the worker ----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self._panel.open()
        self._opened_ns = self._clock.boot_ns()
        if self._test is not None:
            self._test = BellTest(self._opened_ns, self._test.report)
        self._closed_ns = None
        self._led = False
        self._shown = None

    def step(self, now: float) -> float:
        now_ns = round(now * NS)
        while (order := self._orders.get()) is not None:
            self._obey(order, now_ns)
        events = [event for edge in self._panel.read(now_ns) for event in self._incident(edge)]
        events += self._held_too_long(now_ns)
        events += self._bell_test(now_ns)
        if events:
            self._report(events)
        wakes = [now_ns + round(POLL_S * NS), self._outputs(now_ns), self._blink(now_ns)]
        settles_ns = self._panel.settles_at()
        if settles_ns is not None:
            wakes.append(settles_ns)
        return max(min(wakes), now_ns) / NS

    def close(self) -> None:
        self._until_ns.clear()
        self._identify_until_ns = 0
        self._panel.close()
        now_ns = self._clock.boot_ns()
        left = [
            self._event(pin, Phase.ENDED, now_ns, f"The post stops watching the panel, still {_WORDS[pin].unknown}")
            for pin in list(self._incidents)
        ]
        self._incidents.clear()
        if left:
            self._report(left)

    # -- inputs --------------------------------------------------------------------------------------------------------

    def _incident(self, edge: Edge) -> list[Event]:
        self._edges(edge)
        if edge.input is Input.PRIVACY:
            # A switch that was left closed is no new wish: privacy would begin anew with each restart.
            if not edge.active or edge.boot_ns > self._opened_ns:
                self._privacy(edge.active)
            return []
        if edge.input is Input.BELL:
            self._closed_ns = edge.boot_ns if edge.active else None
        words = _WORDS[edge.input]
        if edge.active:
            if edge.input is Input.BELL and not self._bell.take(edge.boot_ns):
                log.warning("bell: a press is counted but not reported by itself: more than %d at once", BELL_BURST_MAX)
                return []
            self._incidents[edge.input] = _Open(self._new_id(), edge.boot_ns)
            summary = words.started
            if edge.input is Input.BELL and self._bell.unreported:
                summary += f" (and {self._bell.unreported} times more before)"
                self._bell.unreported = 0
            return [self._event(edge.input, Phase.STARTED, edge.boot_ns, summary)]
        if edge.input not in self._incidents:
            return []  # a press that was not reported, or a stuck bell that is free again
        event = self._event(edge.input, Phase.ENDED, edge.boot_ns, words.ended)
        del self._incidents[edge.input]
        return [event]

    def _held_too_long(self, now_ns: int) -> list[Event]:
        bell = self._incidents.get(Input.BELL)
        if bell is None or now_ns - bell.since_ns < BELL_HELD_S_MAX * NS:
            return []
        summary = f"Emergency bell held for {BELL_HELD_S_MAX:.0f} s; the button may be stuck"
        event = self._event(Input.BELL, Phase.ENDED, now_ns, summary)
        del self._incidents[Input.BELL]
        return [event]

    def _bell_test(self, now_ns: int) -> list[Event]:
        """Tries the bell's line when it is time for it. Never while it is pressed: that is an alarm, not a test."""
        test = self._test
        if test is None:
            return []
        if self._closed_ns is not None:
            if now_ns - self._closed_ns < BELL_HELD_S_MAX * NS:
                return []
            if test.report.state is BellLine.STUCK and not test.due(now_ns):
                return []
            tell = test.stuck(self._closed_ns, now_ns)
        else:
            if test.report.state is not BellLine.STUCK and not test.due(now_ns):
                return []
            tell = test.found(self._panel.test(Input.BELL), now_ns)
        if not tell:
            return []
        priority, summary = _LINES[test.report.state]
        return [
            Event(
                incident=self._new_id(),
                kind=Kind.NODE,
                phase=Phase.ENDED,
                boot_ns=now_ns,
                priority=priority,
                summary=summary,
                reason=f"bell-{test.report.state}",
            )
        ]

    def _event(self, pin: Input, phase: Phase, boot_ns: int, summary: str) -> Event:
        words, incident = _WORDS[pin], self._incidents[pin]
        return Event(
            incident=incident.incident,
            kind=words.kind,
            phase=phase,
            boot_ns=boot_ns,
            priority=words.priority,
            summary=summary,
            since_ns=incident.since_ns,
        )

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _obey(self, order: _Order, now_ns: int) -> None:
        until_ns = now_ns + round(order.seconds * NS)
        if order.what == "identify":
            self._identify_until_ns = until_ns
            return
        output = Output.SIREN if order.what == "siren" else Output.LAMP
        self._panel.set(output, on=until_ns > now_ns)
        self._until_ns[output] = until_ns

    def _outputs(self, now_ns: int) -> int:
        """Switches off what has been on for its time; returns when to look again."""
        for output, until_ns in list(self._until_ns.items()):
            if now_ns >= until_ns:
                self._panel.set(output, on=False)
                del self._until_ns[output]
        return min(self._until_ns.values(), default=now_ns + round(POLL_S * NS))

    def _blink(self, now_ns: int) -> int:
        if not self._panel.has(Output.LED):
            return now_ns + round(POLL_S * NS)
        try:
            state = self._state()
        except WardpostError:
            state = PostState.FAULT
        if state is not self._shown:
            self._shown, self._shown_since_ns = state, now_ns
        pattern = IDENTIFY_MS if now_ns < self._identify_until_ns else BLINK_MS[state]
        on, left_ns = blink(pattern, now_ns - self._shown_since_ns)
        if on != self._led:
            self._panel.set(Output.LED, on=on)
            self._led = on
        return now_ns + left_ns
