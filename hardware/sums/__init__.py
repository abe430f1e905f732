"""The arithmetic of the hardware guides. `.venv/bin/python -m hardware.sums` prints every table that stands in them;
tests/unit/test_hardware.py holds page and arithmetic together, and checks the inputs against the code they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown, without a newline at its end."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
