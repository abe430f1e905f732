"""Logging: one line a record on standard error, with journald's priorities when journald listens.

journald cuts a record at each line break and reads a leading `<3>` as its priority (sd-daemon(3)), so a traceback
over twenty lines would become twenty records of the wrong priority. It is folded into one line instead.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TextIO

from agent.clock import rfc3339

LINE_CHARS_MAX = 4000
STACK_FRAMES_MAX = 12
_PRIORITIES = (
    (logging.CRITICAL, 2),
    (logging.ERROR, 3),
    (logging.WARNING, 4),
    (logging.INFO, 6),
)


def priority(level: int) -> int:
    """syslog(3) priority of a logging level."""
    return next((number for floor, number in _PRIORITIES if level >= floor), 7)


def fold(text: str) -> str:
    """One printable line of any text: line breaks become ` | `, other control characters `?`. Bounded."""
    line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= LINE_CHARS_MAX else line[: LINE_CHARS_MAX - 3] + "..."


def stack_line(frames: traceback.StackSummary) -> str:
    """A stack as one line, innermost call first: `step (camera/worker.py:88) < turn (supervisor.py:120)`."""
    calls = [f"{f.name} ({'/'.join(Path(f.filename).parts[-2:])}:{f.lineno})" for f in reversed(frames)]
    return " < ".join(calls[:STACK_FRAMES_MAX])


def error_line(error: BaseException, tb: TracebackType | None = None) -> str:
    """An exception as one line: class, text, and where it came from."""
    where = stack_line(traceback.extract_tb(tb or error.__traceback__))
    return fold(f"{type(error).__name__}: {error}" + (f" in {where}" if where else ""))


class LineFormatter(logging.Formatter):
    """One record, one line."""

    def __init__(self, *, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += " | " + error_line(record.exc_info[1], record.exc_info[2])
        name = record.name.removeprefix("agent.")
        if self._journald:
            return f"<{priority(record.levelno)}>{name}: {fold(text)}"
        at = rfc3339(round(record.created * 1e9))
        return f"{at} {record.levelname.lower():8} {name}: {fold(text)}"


def under_journald(environment: Mapping[str, str], stream: TextIO) -> bool:
    """Whether `stream` is the one that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        stat = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


def set_up(
    *, verbose: bool = False, stream: TextIO = sys.stderr, environment: Mapping[str, str] = os.environ
) -> logging.Handler:
    """Sends all records to `stream`. Called once, by the command line; returns the handler for whoever takes it out."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(journald=under_journald(environment, stream)))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h.formatter, LineFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    for noisy in ("libav", "asyncio", "paho"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return handler
