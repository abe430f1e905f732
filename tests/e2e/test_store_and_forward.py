"""Invariant 1 with real processes: node, broker and station are killed with -9, and every committed event arrives once.

The same story with a bug planted in it must lose events: else it could not tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.brokers import Mosquitto, NatsServer, make_broker, mosquitto

ROOT = Path(__file__).resolve().parents[2]
DELIVER_S_MAX = 90.0
FLOW_S_MAX = 60.0  # this machine may be busy; on a quiet one events flow again within two seconds


class Scene:
    """A node, a broker and a station, each a process of its own."""

    def __init__(
        self, folder: Path, broker: NatsServer | Mosquitto, *, node_bug: str = "", station_bug: str = ""
    ) -> None:
        self.folder = folder
        self.broker = broker
        self._bugs = {"node": node_bug, "station": station_bug}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("node", "station"):
            (folder / name).mkdir(exist_ok=True)

    def start(self, name: str, *args: str) -> None:
        module = {"node": "tests.e2e.uplink_process", "station": "tests.e2e.station_process"}[name]
        bug = ["--bug", self._bugs[name]] if self._bugs[name] else []
        with (self.folder / f"{name}.log").open("ab") as out:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", module, str(self.folder / name), self.broker.url, *bug, *args],
                stdout=out,
                stderr=out,
                cwd=ROOT,
            )

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self._running.pop(name, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def wait_for(self, name: str, timeout_s: float) -> bool:
        """Whether the process ended by itself in time."""
        try:
            return self._running[name].wait(timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False

    def close(self) -> None:
        for name in list(self._running):
            self.kill(name)
        self.broker.stop()

    def flows(self) -> None:
        """Waits until what the node commits from now on arrives at the station: all three are up and connected."""
        newest = max((sequence for _, sequence in self.committed()), default=0)
        self._wait("nothing flows", lambda: max((s for _, s in self.at_station()), default=0) > newest + 20)

    def goes_on(self, count: int) -> None:
        """Waits until the node has committed that many more events."""
        before = len(self.committed())
        self._wait("the node commits nothing", lambda: len(self.committed()) >= before + count)

    def _wait(self, what: str, happened: Callable[[], bool]) -> None:
        by = time.monotonic() + FLOW_S_MAX
        while not happened():
            assert time.monotonic() < by, f"{what} for {FLOW_S_MAX} s\n{self.logs()}"
            time.sleep(0.05)

    # -- the audit ------------------------------------------------------------------------------------------------------

    def committed(self) -> set[tuple[str, int]]:
        """What the node promised: (epoch, sequence). A torn last line was not promised."""
        log = self.folder / "node" / "committed.log"
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return {(line.split()[0], int(line.split()[1])) for line in lines}

    def at_station(self) -> Counter[tuple[str, int]]:
        """How often each event stands in the station's file."""
        path = self.folder / "station" / "station.db"
        if not path.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(path, timeout=FLOW_S_MAX)) as db:
            made = db.execute("select count(*) from sqlite_master where name in ('event', 'stream')").fetchone()[0] == 2
            rows = db.execute("select epoch, sequence from event join stream using (stream)").fetchall() if made else []
        return Counter((epoch, sequence) for epoch, sequence in rows)

    def lost(self) -> set[tuple[str, int]]:
        return self.committed() - self.at_station().keys()

    def logs(self) -> str:
        return "\n".join(
            f"--- {name}\n{(self.folder / f'{name}.log').read_text()[-3000:]}"
            for name in ("node", "station")
            if (self.folder / f"{name}.log").exists()
        )


@pytest.fixture(params=["nats", pytest.param("mosquitto", marks=pytest.mark.system)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer | Mosquitto]:
    if request.param == "mosquitto" and not mosquitto():
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    (tmp_path / "broker").mkdir()
    process = make_broker(request.param, tmp_path / "broker")
    process.start()
    yield process
    process.stop()


def bad_day(scene: Scene, rng: random.Random) -> None:
    """Everything dies at least once while the node commits; at the end everything runs until the outbox is empty.

    A death comes at any moment of a day on which events flow, and the next one only when they flow again: on a slow
    machine nobody is killed before he has begun. Once the station is dead while the broker takes events for it, and then
    the broker forgets them: whoever believed the broker has lost them.
    """
    rate = ("--rate", "60", "--events", "100000")
    scene.start("station")
    scene.start("node", *rate)
    scene.flows()
    deaths = ["node", "station", "station, then a broker that forgets", "broker", "broker that forgets"]
    rng.shuffle(deaths)
    print("deaths:", deaths)
    for victim in deaths:
        time.sleep(rng.uniform(0.0, 0.8))
        if victim.startswith("station,"):
            scene.kill("station")
            scene.goes_on(60)
        if "broker" in victim:
            scene.broker.kill(forget="forgets" in victim)
            time.sleep(rng.uniform(0.0, 0.5))
            scene.broker.start()
            if "station" in victim:
                scene.start("station")
        else:
            scene.kill(victim)
            time.sleep(rng.uniform(0.0, 0.5))
            scene.start(victim, *(rate if victim == "node" else ()))
        scene.flows()
    scene.kill("node")
    scene.start("node", "--events", "0")
    assert scene.wait_for("node", DELIVER_S_MAX), f"the outbox never emptied\n{scene.logs()}"
    time.sleep(0.3)
    scene.kill("station")


def test_every_committed_event_arrives_once_whoever_dies(
    tmp_path: Path, broker: NatsServer | Mosquitto, seed: int
) -> None:
    scene = Scene(tmp_path, broker)
    try:
        bad_day(scene, random.Random(seed))
        assert len(scene.committed()) > 100, f"the story needs events\n{scene.logs()}"
        assert scene.lost() == set(), scene.logs()
        assert set(scene.at_station().values()) == {1}
    finally:
        scene.close()


@pytest.mark.parametrize(("node_bug", "station_bug"), [("delete-on-puback", ""), ("", "ack-first")])
def test_the_same_day_with_a_planted_bug_loses_events(
    tmp_path: Path, broker: NatsServer | Mosquitto, seed: int, node_bug: str, station_bug: str
) -> None:
    scene = Scene(tmp_path, broker, node_bug=node_bug, station_bug=station_bug)
    try:
        bad_day(scene, random.Random(seed))
        assert scene.lost(), "the audit did not notice the planted bug"
    finally:
        scene.close()


def test_what_happened_while_the_line_was_down_comes_marked_as_late(tmp_path: Path, seed: int) -> None:
    """The node was killed with a backlog; the next session delivers it, marked historical."""
    (tmp_path / "broker").mkdir()
    broker = make_broker("nats", tmp_path / "broker")
    scene = Scene(tmp_path, broker)
    try:
        scene.start("node", "--rate", "200", "--events", "100000")
        scene.goes_on(40)
        scene.kill("node")
        broker.start()
        scene.start("station")
        scene.start("node", "--events", "0")
        assert scene.wait_for("node", DELIVER_S_MAX), scene.logs()
        time.sleep(0.3)
        scene.kill("station")
        assert scene.lost() == set()
        with contextlib.closing(sqlite3.connect(tmp_path / "station" / "station.db")) as db:
            bodies = [json.loads(body) for (body,) in db.execute("select body from event")]
        assert len(bodies) >= 40
        assert all(body["historical"] for body in bodies)
    finally:
        scene.close()
