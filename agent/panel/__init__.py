"""The Panel protocol: what is wired to the post, and the pure rules of debouncing and blinking.

A driver is one file that implements `Panel`. Callbacks of its library only append to a bounded deque and return;
everything else happens on the panel worker's thread, in `read`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent.types import NS


class Input(StrEnum):
    """What the post is told by a wire."""

    BELL = "bell"  # a person presses for help
    TAMPER = "tamper"  # the box is open, or the wire is cut
    MAINS_LOST = "mains_lost"  # running on the battery
    PRIVACY = "privacy"  # a person wants nothing recorded


class Output(StrEnum):
    """What the post can switch."""

    SIREN = "siren"
    LAMP = "lamp"
    LED = "led"


@dataclass(frozen=True, slots=True)
class Edge:
    """An input has changed, and stayed so for the debounce time. `boot_ns`: when it changed."""

    input: Input
    active: bool
    boot_ns: int


class Line(StrEnum):
    """What a test of an input's line has found."""

    NONE = "none"  # nothing is wired there
    WELL = "well"  # open, and it can be pulled down: a contact that closes will be seen
    CLOSED = "closed"  # the contact is closed, or the wires touch
    HIGH = "high"  # something holds it at 3.3 V: a contact that closes may never be seen


class Panel(Protocol):
    """One panel. All methods are called from one thread; none blocks for more than a few milliseconds.

    Outputs are off after `open` and after `close`. `read` gives an input that is already active at `open` as an edge.
    """

    name: str  # for messages: the driver and its pins
    wake: Callable[[], None] | None  # called from any thread when `read` has something to look at; set before `open`

    def open(self) -> None:
        """Takes the pins. Raises ConfigError (it never will work) or Transient (pins are held by somebody)."""

    def read(self, now_ns: int) -> list[Edge]:
        """Settled changes since the last call, oldest first, at most one per input. Raises Transient."""

    def settles_at(self) -> int | None:
        """When `read` should be called again because an input is settling; None when none is. CLOCK_BOOTTIME ns."""

    def set(self, output: Output, *, on: bool) -> bool:
        """Switches an output; False when none is wired. Raises Transient."""

    def has(self, pin: Input | Output) -> bool:
        """Whether something is wired there, by the settings."""

    def test(self, pin: Input) -> Line:
        """Tries an input's line, but for the contact at its end. Blocks for a tenth of a second; changes of this input
        within that time are told afterwards, if they last. Raises Transient.
        """

    def close(self) -> None:
        """Outputs off, pins released. May be called at any time, also twice; never raises."""


class Debouncer:
    """Lets a level through once it has held for `hold_ns`. Pure: levels and times are passed in.

    A contact that closes bounces for some milliseconds, and a long bell wire picks up every motor start nearby:
    what does not hold is not told.
    """

    def __init__(self, hold_ns: int) -> None:
        self._hold_ns = hold_ns
        self._settled: dict[Input, bool] = {}
        self._raw: dict[Input, tuple[bool, int]] = {}

    def level(self, pin: Input, active: bool, boot_ns: int) -> None:
        """The wire was seen at this level. Repeating a level changes nothing."""
        known = self._raw.get(pin)
        if known is None or known[0] != active:
            self._raw[pin] = (active, boot_ns)

    def settled(self, now_ns: int) -> list[Edge]:
        """Levels that have held long enough and differ from the last ones told."""
        edges = [
            Edge(pin, active, since_ns)
            for pin, (active, since_ns) in self._raw.items()
            if active != self._settled.get(pin, False) and now_ns - since_ns >= self._hold_ns
        ]
        for edge in edges:
            self._settled[edge.input] = edge.active
        return sorted(edges, key=lambda edge: edge.boot_ns)

    def settles_at(self) -> int | None:
        """When the next level will have held long enough."""
        waiting = [
            since_ns + self._hold_ns
            for pin, (active, since_ns) in self._raw.items()
            if active != self._settled.get(pin, False)
        ]
        return min(waiting, default=None)


class PostState(StrEnum):
    """What the LED says. In order of urgency, least first."""

    WELL = "well"
    BOOTING = "booting"
    NO_NETWORK = "no network"
    NO_CAMERA = "no camera"
    FAULT = "fault"
    WATCHED = "watched"
    PRIVACY = "privacy"


def post_state(
    *, booting: bool, network: bool, camera: bool, fault: bool, privacy: bool = False, watched: bool = False
) -> PostState:
    """The most urgent thing to say. `fault`: a worker is down, or footage cannot be written.

    Privacy comes first: whoever threw the switch relies on seeing that it works, and it ends by itself. So does a live
    view (`watched`), which whoever lives beside the post has a right to see.
    """
    if privacy:
        return PostState.PRIVACY
    if watched:
        return PostState.WATCHED
    if fault:
        return PostState.FAULT
    if booting:
        return PostState.BOOTING
    if not camera:
        return PostState.NO_CAMERA
    return PostState.WELL if network else PostState.NO_NETWORK


# Blink codes, as milliseconds on, off, on, off, ... A LED that is steadily on or off means that nobody drives it.
# hardware/wiring.md carries this table for the technician; a test holds the two together.
BLINK_MS: dict[PostState, tuple[int, ...]] = {
    PostState.WELL: (100, 2900),
    PostState.BOOTING: (500, 500),
    PostState.NO_NETWORK: (200, 300, 200, 2300),
    PostState.NO_CAMERA: (200, 300, 200, 300, 200, 1800),
    PostState.FAULT: (200, 300, 200, 300, 200, 300, 200, 1300),
    PostState.WATCHED: (1200, 300),
    PostState.PRIVACY: (2700, 300),
}
IDENTIFY_MS = (100, 100)  # somebody at headquarters wants to know which box this is


def blink(pattern_ms: tuple[int, ...], since_start_ns: int) -> tuple[bool, int]:
    """Whether the LED is on at this point of the pattern, and in how many nanoseconds that changes."""
    at_ns = since_start_ns % (sum(pattern_ms) * (NS // 1000))
    on = True
    for length_ms in pattern_ms:
        length_ns = length_ms * (NS // 1000)
        if at_ns < length_ns:
            return on, length_ns - at_ns
        at_ns -= length_ns
        on = not on
    raise AssertionError("a position lies within its pattern")  # unreachable: at_ns is below the sum
