"""The whole product under kill -9: the real node, a broker that forgets everything, the real station; then all at once.

What must hold whoever dies: every event that the node had committed arrives, and stands at the station once; no sealed
footage is lost, and no more than the last moments of what was being recorded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.assets import Assets
from agent.errors import WardpostError
from agent.local import status_of
from tests.e2e.brokers import NatsServer

ROOT = Path(__file__).resolve().parents[2]
WAIT_S_MAX = 180.0  # this machine may be busy; on a quiet one each wait is over in a few seconds
EVENTS_MIN = 8  # at the station, before the day ends

CONFIG = """
[node]
site = "ward-7"
id = "post"
data = "{data}"

[camera]
driver = "stream"
url = "{footage}"
loop = true

[vision]
update_s = 1.0
motion_s = 0.5
gone_s = 1.0
alert_on = ["person", "vehicle", "bicycle", "motion"]

[vision.detector]
model = "{model}"
labels = "{labels}"

[recording]
segment_s = 10
free_gb_min = 0.01

[uplink]
brokers = ["{broker}"]
backoff_s_max = 1.0
ack_timeout_s = 1.0

[health]
heartbeat_s = 1
"""


class Product:
    """Node, broker and station, each a process, and what the node had promised whenever somebody looked."""

    def __init__(self, folder: Path, assets: Assets) -> None:
        self.data = folder / "node"
        for name in ("node", "station", "broker"):
            (folder / name).mkdir()
        self._folder = folder
        self.broker = NatsServer(folder / "broker")
        self._config = folder / "node.toml"
        self._config.write_text(
            CONFIG.format(
                data=self.data,
                footage=assets.footage(),
                model=assets.model(),
                labels=assets.labels(),
                broker=self.broker.url,
            )
        )
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.committed: dict[tuple[str, int], str] = {}  # (epoch, sequence) -> id
        self.sealed: dict[str, str] = {}  # name -> sha256
        self.deaths: Counter[str] = Counter()

    def start(self, name: str) -> None:
        if name == "broker":
            self.broker.start()
            return
        command = {
            "node": ["-m", "agent.cli", "run", "--config", str(self._config)],
            "station": ["-m", "tests.e2e.station_process", str(self._folder / "station"), self.broker.url],
        }[name]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, cwd=ROOT)

    def kill(self, *names: str) -> None:
        """kill -9, all before any is waited for; the broker loses its memory too. Then the node's disk is looked at."""
        for name in names:
            self.deaths[name] += 1
            if name in self._running:
                self._running[name].kill()
        for name in names:
            if name == "broker":
                self.broker.kill(forget=True)
            else:
                self._running.pop(name).wait()
        if "node" in names:
            self.look()

    def end_node(self) -> int:
        """SIGTERM."""
        self._running["node"].send_signal(signal.SIGTERM)
        code = self._running.pop("node").wait(timeout=60)
        self.look()
        return code

    def close(self) -> None:
        for name in list(self._running):
            process = self._running.pop(name)
            process.kill()
            process.wait()
        self.broker.stop()

    def look(self) -> None:
        """Reads a dead node's store: what stands there was committed. What stood there before must stand there still."""
        with contextlib.closing(sqlite3.connect(self.data / "wardpost.db")) as db:
            ((epoch,),) = db.execute("select value from meta where key = 'epoch'").fetchall()
            rows = db.execute(
                "select sequence, id from event where kind <> 'record'"
            )  # lines of the ledger go once delivered
            events = {(epoch, sequence): found for sequence, found in rows}
            sealed = dict(db.execute("select name, sha256 from segment where state = 'sealed'").fetchall())
        assert self.committed.items() <= events.items(), "a committed event has gone or changed"
        assert self.sealed.items() <= sealed.items(), "a sealed segment has gone or changed"
        self.committed, self.sealed = events, sealed

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """From the store of a node that does not run."""
        with contextlib.closing(sqlite3.connect(self.data / "wardpost.db")) as db:
            return db.execute(sql).fetchall()

    def status(self) -> dict[str, Any]:
        try:
            return status_of(self.data)
        except WardpostError:
            return {}

    def wait(self, what: str, happened: Callable[[dict[str, Any]], bool]) -> None:
        by = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < by:
            assert self._running["node"].poll() is None, f"the node has ended\n{self.logs()}"
            status = self.status()
            if status and happened(status):
                return
            time.sleep(0.1)
        raise AssertionError(f"{what}: {self.status()}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self._folder.glob("*.log"))

    def station(self, sql: str) -> list[tuple[Any, ...]]:
        """From the station's file."""
        with contextlib.closing(sqlite3.connect(self._folder / "station" / "station.db")) as db:
            return db.execute(sql).fetchall()

    def at_station(self) -> list[tuple[tuple[str, int], str]]:
        """What the station has: ((epoch, sequence), id)."""
        rows = self.station("select epoch, sequence, id from event join stream using (stream)")
        return [((epoch, sequence), found) for epoch, sequence, found in rows]


def recording(status: dict[str, Any]) -> bool:
    return bool(status["recording"]["recording"])


def bad_day(product: Product, rng: random.Random, rounds: int) -> None:
    """In every round each one dies alone, and at the end all three at once."""
    for name in ("broker", "station", "node"):
        product.start(name)
    product.wait("the first start", recording)
    for number in range(rounds):
        victims: list[tuple[str, ...]] = [("broker",), ("station",), ("node",)]
        rng.shuffle(victims)
        for names in (*victims, ("node", "station", "broker")):
            time.sleep(rng.uniform(0.8, 2.5))
            product.kill(*names)
            time.sleep(rng.uniform(0.0, 0.4))
            for name in rng.sample(names, len(names)):
                product.start(name)
            product.wait(f"round {number}, after the death of {names}", recording)
    product.wait(
        "events are told", lambda _: len(product.at_station()) >= EVENTS_MIN
    )  # a busy machine sees fewer a second
    product.wait("the outbox runs empty", lambda s: s["queue"]["outboxrows"] == 0)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("rounds", [1, pytest.param(8, marks=pytest.mark.system)])
def test_nothing_that_was_promised_is_lost_whoever_dies(tmp_path: Path, assets: Assets, seed: int, rounds: int) -> None:
    rounds = int(os.environ.get("WARDPOST_CHAOS_ROUNDS") or rounds)
    product = Product(tmp_path, assets)
    try:
        bad_day(product, random.Random(seed), rounds)
        assert product.end_node() == 0, product.logs()
        # What the last moments committed has to arrive as well: one more life, on a quiet day.
        product.start("node")
        product.wait("the last events arrive", lambda s: recording(s) and s["queue"]["outboxrows"] == 0)
        product.end_node()
        time.sleep(0.3)
        waiting = {sequence for (sequence,) in product.rows("select sequence from outbox")}

        stored = product.at_station()
        assert max(Counter(key for key, _ in stored).values()) == 1
        assert max(Counter(found for _, found in stored).values()) == 1
        ((head,),) = product.station("select head from stream")
        newest = max(sequence for _, sequence in product.committed if sequence not in waiting)
        assert head >= newest, "from the first number to the last nothing is missing at the station"
        missing = {key for key in product.committed if key[1] not in waiting} - dict(stored).keys()
        assert missing == set(), product.logs()
        told = dict(stored)
        assert len(told) >= EVENTS_MIN, "the story needs events"
        assert all(told[key] == found for key, found in product.committed.items() if key in told)

        # The ledger's records come once too, each station number once, and none of them breaks the chain.
        assert product.station("select seq, count(*) from line group by node, root, seq having count(*) > 1") == []
        assert product.station("select what, count from alarm") == []

        for name, sha256 in product.sealed.items():
            assert hashlib.sha256((product.data / name).read_bytes()).hexdigest() == sha256, name
        names = {str(path.relative_to(product.data)) for path in (product.data / "segments").iterdir()}
        assert names == product.sealed.keys(), "every file has its row"
        killed = product.rows("select count(*) from session where stop is null")[0][0]
        assert killed == product.deaths["node"]
        print(
            json.dumps(
                {
                    "deaths": dict(product.deaths),
                    "events": len(product.committed),
                    "at_station": len(stored),
                    "segments": len(product.sealed),
                }
            )
        )
    finally:
        product.close()
