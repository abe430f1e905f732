"""A post with nothing wired to it: most of them. A real driver, held to the same contract."""

from __future__ import annotations

from collections.abc import Callable

from agent.panel import Edge, Input, Line, Output


class NoPanel:
    """No input ever changes, no output is there."""

    name = "none"

    def __init__(self) -> None:
        self.wake: Callable[[], None] | None = None

    def open(self) -> None:
        return

    def read(self, now_ns: int) -> list[Edge]:  # noqa: ARG002
        return []

    def settles_at(self) -> int | None:
        return None

    def set(self, output: Output, *, on: bool) -> bool:  # noqa: ARG002
        return False

    def has(self, pin: Input | Output) -> bool:  # noqa: ARG002
        return False

    def test(self, pin: Input) -> Line:  # noqa: ARG002
        return Line.NONE

    def close(self) -> None:
        return
