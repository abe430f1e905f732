"""A pattern of a message or a setting means the whole text: `$` alone would let a newline follow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest

from agent import wire

AGENT = Path(__file__).parents[2] / "agent"
PATTERNS = sorted(
    {
        (str(file.relative_to(AGENT)), keyword.value.value)
        for file in AGENT.rglob("*.py")
        if "pattern" in (source := file.read_text(encoding="utf-8"))
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "pattern" and isinstance(keyword.value, ast.Constant)
        if ast.unparse(call.func).endswith("Meta")
    }
)


@pytest.mark.parametrize(("file", "pattern"), PATTERNS)
def test_nothing_may_follow_what_a_pattern_asks_for(file: str, pattern: str) -> None:
    # `\Z` would do for Python, but the published contract is read by other languages, too
    assert pattern.startswith("^"), file
    assert pattern.endswith(r"$(?!\n)"), file
    re.compile(pattern)


@pytest.mark.parametrize("name", ["cam-1\n", "cam-1\n\n", "\ncam-1", "cam-1 ", ""])
def test_a_node_is_not_called_by_a_name_with_a_line_end(name: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(name, wire.Id)


def test_a_node_is_called_by_its_name() -> None:
    assert msgspec.convert("cam-1", wire.Id) == "cam-1"
