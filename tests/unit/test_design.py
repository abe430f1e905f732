"""agent/DESIGN.md is true: the files, threads and tests that it names exist, and none is left out."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DESIGN = (ROOT / "agent/DESIGN.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The text under a heading, up to the next one of the same level."""
    return DESIGN.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def table(text: str) -> list[list[str]]:
    """The rows of the first table, without its head."""
    rows = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_every_file_of_the_layout_exists_and_every_module_is_in_it() -> None:
    layout = section("What lives where").split("```")[1]
    named = set(re.findall(r"(?<![\w/])([a-z0-9_]+(?:/[a-z0-9_]+)*(?:\.py|\.sql|/))(?![\w.])", layout))
    top = {path.name for path in (ROOT / "agent").iterdir() if path.suffix == ".py" and path.name != "__init__.py"}
    folders = {f"{path.name}/" for path in (ROOT / "agent").iterdir() if (path / "__init__.py").exists()}
    assert top | folders <= named, f"not in the layout: {sorted((top | folders) - named)}"
    first_words = {line.split()[0] for line in layout.splitlines() if line.startswith("  ") and line.strip()}
    for name in first_words:
        assert (ROOT / "agent" / name.rstrip(",")).exists(), f"the layout names {name}, which is not there"


def test_the_thread_table_names_the_workers_that_run() -> None:
    composed = (ROOT / "agent/main.py").read_text(encoding="utf-8")
    started = re.search(r"workers=\(([^)]*)\)", composed)
    assert started is not None
    running = {name.strip() for name in started[1].split(",") if name.strip()}
    told = {row[0] for row in table(section("Threads"))} - {"main"}
    assert told == running


def test_the_tests_that_prove_an_invariant_exist() -> None:
    rows = table(section("Invariants"))
    assert [row[0] for row in rows] == [str(n) for n in range(1, 11)]
    for row in rows:
        for path in re.findall(r"tests/[\w/]+(?:\.py)?", row[2]):
            assert (ROOT / path).exists(), f"invariant {row[0]}: {path} is not there"
