"""One record, one line; journald's priorities."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    text, root = io.StringIO(), logging.getLogger()
    level = root.level
    handler = logs.set_up(stream=text, environment={})
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def test_a_traceback_is_one_line_that_names_the_innermost_call(stream: io.StringIO) -> None:
    def deep() -> None:
        raise ValueError("first\nsecond")

    try:
        deep()
    except ValueError:
        logging.getLogger("agent.camera").exception("it\nfailed")
    (line,) = stream.getvalue().splitlines()
    assert "error    camera: it | failed | ValueError: first | second in deep (unit/test_logs.py:" in line


def test_terminal_codes_from_outside_do_not_reach_the_terminal(stream: io.StringIO) -> None:
    logging.getLogger("x").warning("evil %s", "\x1b[2J\r\x00")
    assert "\x1b" not in stream.getvalue() and "\x00" not in stream.getvalue()


def test_a_huge_record_is_cut(stream: io.StringIO) -> None:
    logging.getLogger("x").warning("a" * 100_000)
    assert len(stream.getvalue()) < logs.LINE_CHARS_MAX + 100


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.CRITICAL, "<2>"),
        (logging.ERROR, "<3>"),
        (logging.WARNING, "<4>"),
        (logging.INFO, "<6>"),
        (logging.DEBUG, "<7>"),
    ],
)
def test_journald_gets_its_priorities(level: int, prefix: str) -> None:
    record = logging.LogRecord("agent.uplink", level, "f", 1, "text", (), None)
    assert logs.LineFormatter(journald=True).format(record) == f"{prefix}uplink: text"


def test_journald_is_known_by_its_stream(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as file:
        stat = (tmp_path / "stderr").stat()
        assert logs.under_journald({"JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"}, file)
        assert not logs.under_journald({"JOURNAL_STREAM": "1:2"}, file)
        assert not logs.under_journald({}, file)
    assert not logs.under_journald({"JOURNAL_STREAM": "1:2"}, io.StringIO())
