"""Two real posts on a real broker: one is killed, one is cut off; what `wardpost posts` says while and after it."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.assets import Assets
from agent.clock import SystemClock
from agent.errors import WardpostError
from agent.evidence import dsse, records
from agent.station.posts.table import posts
from agent.station.reader import Reader
from tests.e2e.brokers import RealBroker, free_port
from tests.e2e.post import WAIT_S_MAX, Post

STATION = """
[station]
site = "ward"
id = "hq"
data = "{data}"
late_s = 5
dark_s = 10

[broker]
brokers = ["{broker}"]
keepalive_s = 5
"""


class Line:
    """A line to the broker that can be cut: nothing is refused or closed then, it only goes nowhere."""

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self._to = to
        self._cut = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        """What hung in it is gone."""
        self._close()
        self._cut.clear()

    def close(self) -> None:
        self._listener.close()
        self._close()

    def _close(self) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                if not self._cut.is_set():
                    other.sendall(data)


@pytest.fixture
def pair(
    tmp_path: Path, assets: Assets, broker: RealBroker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Post, Post, Line]]:
    """gate-1 straight at the broker, gate-2 by a line that can be cut."""
    assets.model()
    assets.labels()
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))
    line = Line(broker.port)
    made_here = []
    for node, url in (("gate-1", broker.url), ("gate-2", f"mqtt://127.0.0.1:{line.port}")):
        folder = tmp_path / node
        folder.mkdir()
        made = Post(folder, assets.footage(), url)
        text = made.config.read_text(encoding="utf-8").replace("cam-7", node)
        made.config.write_text(text.replace("[uplink]", "[uplink]\nkeepalive_s = 5"), encoding="utf-8")
        made_here.append(made)
    yield made_here[0], made_here[1], line
    for made in made_here:
        made.clean_up()
    line.close()


@pytest.fixture
def station(tmp_path: Path, broker: RealBroker) -> Iterator[Path]:
    """`wardpost station` as a process; its configuration."""
    folder = tmp_path / "station"
    folder.mkdir()
    config = tmp_path / "station.toml"
    config.write_text(STATION.format(data=folder, broker=broker.url), encoding="utf-8")
    with (tmp_path / "station.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "station", "--config", str(config)], stdout=log, stderr=log
        )
    yield config
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0


def rows(config: Path) -> dict[str, Any]:
    """What `--json` prints, asked in this process: it is asked often."""
    said: list[str] = []
    asked = {"node": None, "as_todo": False, "by_cost": False, "as_json": True}
    with contextlib.suppress(WardpostError):  # there is no station yet
        posts(config.parent / "station", database="", register="", clock=SystemClock(), out=said.append, **asked)  # type: ignore[arg-type]
    return {one["node"]: one for one in json.loads("".join(said) or "[]")}


def ask(config: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "agent.cli", "posts", "--config", str(config), *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=90)
    return ran.stdout


def until(config: Path, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Asks until it is so."""
    by = time.monotonic() + WAIT_S_MAX
    told: dict[str, Any] = {}
    while time.monotonic() < by:
        told = rows(config)
        if len(told) == 2 and what(told):
            return told
        time.sleep(0.5)
    raise AssertionError(f"it did not come to that: {json.dumps(told, indent=1)[:4000]}")


def heard(told: dict[str, Any]) -> bool:
    return all(one["state"] == "online" for one in told.values())


def begun(config: Path, node: str) -> bool:
    """Its first start is on record here: what comes later can be held against it."""
    reader = Reader(config.parent / "station")
    reader.open()
    try:
        return any(records.read(dsse.parse(line)).kind == records.RecordKind.START for line in reader.lines(node))
    finally:
        reader.close()


@pytest.mark.system
def test_one_post_is_killed_and_one_is_cut_off(pair: tuple[Post, Post, Line], station: Path) -> None:
    one, two, line = pair
    one.start()
    two.start()
    until(station, lambda told: heard(told) and all(begun(station, node) for node in told))
    one.end(signal.SIGKILL)
    line.cut()

    dark = until(station, lambda told: all(row["state"] == "dark" for row in told.values()))
    assert dark["gate-1"]["why"]["cause"] == "program", "its kernel closed the connection: the network stood"
    assert dark["gate-1"]["why"]["evidence"][0]["what"] == "goodbye"
    assert dark["gate-2"]["why"]["cause"] == "unknown", "power or network: nobody can tell yet"
    assert any("its own record tells" in line for line in dark["gate-2"]["why"]["more"])
    words = ask(station, "--node", "gate-2")
    assert "gate-2 (School gate): dark, last heard " in words and "why: not known" in words
    assert "gate-1 (School gate): Ask `wardpost doctor --node`" in ask(station, "--to-do")

    one.start()
    line.mend()
    back = until(station, lambda told: heard(told) and all(row["past"] for row in told.values()))
    # A heartbeat, which may come before the records, tells that the computer was on: likely the network, of both.
    back = until(station, lambda told: all(row["past"][-1]["why"]["word"] == "sure" for row in told.values()))
    last = {node: row["past"][-1]["why"] for node, row in back.items()}
    assert last["gate-1"]["cause"] == "program" and last["gate-1"]["word"] == "sure"
    assert {row["what"] for row in last["gate-1"]["evidence"]} >= {"same_boot", "agent_died"}
    assert last["gate-2"]["cause"] == "network" and last["gate-2"]["word"] == "sure"
    assert {row["what"] for row in last["gate-2"]["evidence"]} >= {"same_session"}
    assert "was dark " in ask(station, "--node", "gate-2")
