"""A whole node as a process, on a real broker: killed, started again, asked while it runs, refused when it must be."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest

from agent.assets import Assets
from agent.clock import SystemClock, rfc3339
from agent.errors import WardpostError
from agent.local import status_of
from agent.types import EndReason
from tests.e2e.brokers import NatsServer, RealBroker

WAIT_S_MAX = 40.0

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
        code = self._process.wait(timeout=30)
        self._process = None
        return code

    def clean_up(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60)

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


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[RealBroker]:
    (tmp_path / "broker").mkdir()
    broker = NatsServer(tmp_path / "broker")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture
def post(tmp_path: Path, assets: Assets, broker: RealBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Post]:
    assets.model()
    assets.labels()
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    post = Post(tmp_path, assets.footage(), broker.url)
    yield post
    post.clean_up()


def recording(status: dict[str, Any]) -> bool:
    return bool(status["recording"]["recording"] and status["broker"] and status["queue"]["outboxrows"])


def test_a_node_lives_dies_and_explains_itself(post: Post, tmp_path: Path) -> None:
    clock = SystemClock()
    began = clock.utc().utc_ns
    post.start()
    post.wait_for(recording)
    size = post.written()
    post.wait_for(lambda _: post.written() > size + 200_000)  # fragments reach the disk while it runs

    # Asked while it runs: the newest footage is there, although its segment is not sealed.
    clip = tmp_path / "clip.mp4"
    asked = post.ask(
        "footage", "--from", rfc3339(began), "--to", rfc3339(clock.utc().utc_ns), "-o", str(clip), "--json"
    )
    assert asked.returncode == 0, asked.stderr
    told = json.loads(asked.stdout)
    assert sum(s["seconds"] for s in told["coverage"] if s["what"] == "recorded") > 1
    with av.open(str(clip)) as film:
        assert sum(1 for _ in film.decode(video=0)) > 20

    # A second instance on the same folder: one line that names the first, and the first goes on.
    second = post.ask("run")
    assert second.returncode == 78
    (line,) = second.stderr.splitlines()
    assert str(post.data) in line
    assert "in use" in line or "works on" in line
    assert recording(post.status())

    # kill -9 in the middle of a fragment, and a start afterwards: nothing stands in the way, the tail is mended.
    post.end(signal.SIGKILL)
    sequences = {sequence for (sequence,) in post.rows("select sequence from event")}
    assert sequences, "something had happened by then"
    killed_at = clock.utc().utc_ns
    post.start()
    post.wait_for(lambda s: recording(s) and s["session"] == 2)
    assert post.end(signal.SIGTERM) == 0

    ends = {reason for (reason,) in post.rows("select end_reason from segment")}
    assert ends >= {EndReason.KILLED.value, EndReason.STOPPED.value}
    assert sequences <= {s for (s,) in post.rows("select sequence from event")}, "committed is committed"
    ((stop,),) = post.rows("select stop from session where session = 2")
    assert stop == "stopped"
    unended = post.rows("select incident from event group by incident having sum(phase = 'ended') = 0")
    assert unended == [], "every incident that started has ended"

    # The whole life is accounted for, without a second nobody can explain.
    asked = post.ask(
        "footage", "--from", rfc3339(began), "--to", rfc3339(clock.utc().utc_ns), "-o", str(clip), "--json"
    )
    assert asked.returncode == 0, asked.stderr
    coverage = json.loads(asked.stdout)["coverage"]
    assert {s["what"] for s in coverage} <= {"recorded", "agent-stopped", "before-install"}
    assert coverage[0]["from"] == rfc3339(began)
    lost = [s for s in coverage if s["what"] == "agent-stopped" and s["from"] <= rfc3339(killed_at) < s["to"]]
    assert len(lost) >= 1, "the gap of the crash is named"


def test_without_a_broker_it_records_and_stops_cleanly(post: Post, broker: RealBroker) -> None:
    broker.kill()
    post.start()
    status = post.wait_for(lambda s: bool(s["recording"]["recording"] and s["post"] == "no network"))
    assert status["broker"] is None
    began = time.monotonic()
    assert post.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("folder", ["missing", "read-only"])
def test_a_data_folder_that_cannot_be_used_is_one_line(post: Post, folder: str) -> None:
    if folder == "missing":
        post.data.rmdir()
    else:
        if os.geteuid() == 0:
            pytest.skip("root may write anywhere; tests/system mounts a read-only file system")
        post.data.chmod(0o500)
    ran = post.ask("run")
    assert ran.returncode == 78
    (line,) = ran.stderr.splitlines()
    assert str(post.data) in line


def test_all_mistakes_of_a_configuration_are_named_at_once(post: Post) -> None:
    text = post.config.read_text().replace("loop = true", "lop = true").replace("segment_s = 10", 'segment_s = "x"')
    post.config.write_text(text)
    ran = post.ask("run")
    assert ran.returncode == 78
    assert "camera.lop: unknown key; did you mean camera.loop?" in ran.stderr
    assert "recording.segment_s" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_camera_that_is_not_there_is_told_and_does_not_end_the_node(post: Post) -> None:
    post.config.write_text(
        post.config.read_text()
        .replace("loop = true", "loop = true\nstall_s = 2")
        .replace('url = "', 'url = "rtsp://127.0.0.1:1/nothing"\n#')
    )
    post.start()
    status = post.wait_for(lambda s: s["camera"]["restarts"] >= 1 and s["queue"]["outboxrows"] >= 2)
    assert status["post"] in ("no camera", "fault")
    assert post.end(signal.SIGTERM) == 0
    kinds = {kind for (kind,) in post.rows("select kind from event")}
    assert "camera" in kinds
