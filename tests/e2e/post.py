"""A whole node as a process, in a folder of its own: started, asked, killed and started again."""

from __future__ import annotations

import contextlib
import io
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.cli import main
from agent.errors import WardpostError
from agent.local import status_of

WAIT_S_MAX = 180.0  # this machine may be busy; on a quiet one each wait is over in a few seconds

CONFIG = """
[node]
site = "ward"
id = "cam-7"
data = "{data}"
place = "School gate"

[camera]
driver = "stream"
url = "{footage}"
loop = true

[recording]
segment_s = 10

[uplink]
brokers = ["{broker}"]

[health]
heartbeat_s = 1
"""


def wardpost(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`wardpost ...` in this process, beside the others: a new one takes a second to load, longer on a busy machine."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


class Post:
    """A node's folder, and the process that runs on it."""

    def __init__(self, folder: Path, footage: Path, broker: str) -> None:
        self.data = folder / "data"
        self.data.mkdir()
        self.config = folder / "node.toml"
        self.config.write_text(CONFIG.format(data=self.data, footage=footage, broker=broker))
        self._log = folder / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "agent.cli", arguments[0], "--config", str(self.config), *arguments[1:]]

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command("run"), stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(timeout=WAIT_S_MAX)
        self._process = None
        return code

    def clean_up(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=WAIT_S_MAX)

    def ask_here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As `ask`, in this process: for what is asked again and again, and for all but one of several alike."""
        return wardpost(arguments[0], "--config", str(self.config), *arguments[1:])

    def status(self) -> dict[str, Any]:
        try:
            return status_of(self.data)
        except WardpostError:
            return {}

    def wait_for(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        by = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < by:
            if self._process is not None and self._process.poll() is not None:
                break
            status = self.status()
            if status and what(status):
                return status
            time.sleep(0.1)
        raise AssertionError(f"it did not come to that; status {self.status()}, log:\n{self._log.read_text()[-3000:]}")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """From the store of a node that does not run."""
        db = sqlite3.connect(self.data / "wardpost.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def written(self) -> int:
        return sum(path.stat().st_size for path in (self.data / "segments").glob("*.mp4"))

    def newest_bytes(self) -> int:
        """Of the file that it writes at the moment; 0 before the first."""
        return max(
            ((path.name, path.stat().st_size) for path in (self.data / "segments").glob("*.mp4")), default=("", 0)
        )[1]


def recording(status: dict[str, Any]) -> bool:
    return bool(status["recording"]["recording"] and status["broker"] and status["queue"]["outboxrows"])
