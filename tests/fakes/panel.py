"""A panel that a test presses and looks at. It keeps the contract of `agent.panel.Panel` and remembers every switch."""

from __future__ import annotations

from collections.abc import Callable

from agent.errors import Transient
from agent.panel import Debouncer, Edge, Input, Line, Output


class FakePanel:
    """Wires with levels, and outputs with a history. `broken` makes every call on the open panel raise Transient."""

    name = "fake"

    def __init__(self, *, hold_ns: int = 50_000_000) -> None:
        self.wake: Callable[[], None] | None = None
        self.levels: dict[Input, bool] = dict.fromkeys(Input, False)
        self.outputs: dict[Output, bool] = dict.fromkeys(Output, False)
        self.history: list[tuple[Output, bool]] = []
        self.held_high: set[Input] = set()  # something touches 3.3 V
        self.tests = 0
        self.broken = False
        self.is_open = False
        self._hold_ns = hold_ns
        self._debouncer = Debouncer(hold_ns)

    def level(self, pin: Input, active: bool, boot_ns: int) -> None:
        """The world moves a wire at `boot_ns`."""
        self.levels[pin] = active
        if self.is_open:
            self._debouncer.level(pin, active, boot_ns)
            if self.wake is not None:
                self.wake()

    def open(self) -> None:
        self._check()
        self._debouncer = Debouncer(self._hold_ns)
        self.is_open = True
        self._all_off()

    def read(self, now_ns: int) -> list[Edge]:
        self._check()
        for pin, active in self.levels.items():
            self._debouncer.level(pin, active, now_ns)
        return self._debouncer.settled(now_ns)

    def settles_at(self) -> int | None:
        return self._debouncer.settles_at()

    def set(self, output: Output, *, on: bool) -> bool:
        self._check()
        if not self.is_open:
            return False
        self.outputs[output] = on
        self.history.append((output, on))
        return True

    def has(self, pin: Input | Output) -> bool:
        return True

    def test(self, pin: Input) -> Line:
        self._check()
        self.tests += 1
        if self.levels[pin]:
            return Line.CLOSED
        return Line.HIGH if pin in self.held_high else Line.WELL

    def close(self) -> None:
        self.is_open = False
        self._all_off()

    def _all_off(self) -> None:
        self.outputs = dict.fromkeys(Output, False)

    def _check(self) -> None:
        if self.broken:
            raise Transient("panel: the wire is broken (fake)")
