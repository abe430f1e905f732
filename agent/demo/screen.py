"""What the terminal shows: lines for people, one moving line of progress, and plain text when nobody watches."""

from __future__ import annotations

import textwrap
from typing import TextIO

WIDTH = 80
_STYLES = {"bold": "1", "alert": "1;33", "late": "36", "good": "32", "bad": "1;31", "dim": "2"}


class Screen:
    """Writes to one stream. One thread. Lines never exceed `WIDTH` columns unless a single word does."""

    def __init__(self, out: TextIO, *, terminal: bool, colour: bool) -> None:
        """`terminal`: the last line may be written over. `colour` follows NO_COLOR, see no-color.org."""
        self._out = out
        self._terminal = terminal
        self._colour = colour
        self._progress = ""

    def heading(self, text: str) -> None:
        """A new part of the story."""
        self._line("")
        self._line(self._styled(text, "bold"))

    def say(self, text: str = "", style: str = "", indent: str = "  ") -> None:
        """A paragraph."""
        for line in textwrap.wrap(
            text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
        ) or [""]:
            self._line(self._styled(line, style))

    def fact(self, name: str, value: str) -> None:
        """One thing to copy and paste: never broken into lines, however long a path it holds."""
        self._line(f"  {name:<16}{value}")

    def event(self, text: str, style: str = "") -> None:
        """Something that arrived at the station; what does not fit is continued below, further in."""
        for line in textwrap.wrap(
            text,
            WIDTH,
            initial_indent="  > ",
            subsequent_indent="      ",
            break_on_hyphens=False,
            break_long_words=False,
        ):
            self._line(self._styled(line, style))

    def result(self, passed: bool, name: str, detail: str) -> None:
        """One promise and whether it held."""
        mark = self._styled("  ok  ", "good") if passed else self._styled(" FAIL ", "bad")
        lines = textwrap.wrap(f"{name}: {detail}", WIDTH - 7, break_on_hyphens=False, break_long_words=False)
        self._line(f"{mark} {lines[0]}")
        for line in lines[1:]:
            self._line(" " * 7 + line)

    def progress(self, done_s: float, all_s: float, text: str) -> None:
        """Replaces the moving line: a bar, and what is going on. Nothing when this is no terminal."""
        if not self._terminal:
            return
        filled = round(20 * min(max(done_s / all_s, 0.0), 1.0)) if all_s > 0 else 20
        line = f"  [{'=' * filled}{' ' * (20 - filled)}] {text}"[: WIDTH - 1]
        if line != self._progress:
            self._out.write(f"\r\x1b[K{self._styled(line, 'dim')}")
            self._out.flush()
            self._progress = line

    def clear(self) -> None:
        """Takes the moving line away."""
        if self._progress:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._progress = ""

    def _line(self, text: str) -> None:
        self.clear()
        self._out.write(text + "\n")
        self._out.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour and style else text
