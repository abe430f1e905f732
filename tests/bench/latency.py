"""How long an alert takes: from the moment of the picture that decided it to a subscriber of the broker on loopback.

The whole real node watches people walk in and out. `monons` of a `started` event is the stamp of that picture, and the
subscriber reads the same clock (CLOCK_BOOTTIME). So this holds decoding, motion gate, inference, tracker, rules, the
SQLite commit, the uplink and the broker. Beside it: a durable SQLite insert and a publish, and nothing else.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent import wire
from agent.types import MS
from tests.bench import footage, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row, percentile
from tests.bench.programs import broker, wait_for

_VISION = '[vision]\ngone_s = 1.0\nalert_on = ["person", "bicycle"]\n'
_HEIGHT = 360  # smaller, and the detector finds nobody


def measure(bench: Bench) -> list[Row]:
    """p50 and p95 over `alerts` incidents."""
    size = bench.size
    scene = footage.make(bench.assets.footage(), bench.footage, name="visits", height=_HEIGHT, seconds=40)
    with broker(bench.folder / "broker") as port:
        alone = _alone(bench.folder / "alone.db", port, max(size.alerts, 20))
        with (
            station(bench.folder / "station", broker_port=port),
            Arrivals(port, "wardpost/v1/bench/+/event/+") as seen,
        ):
            path = node.config(bench.folder / "node", footage=scene.path, broker_port=port, extra=_VISION)
            with node.start(bench, path) as program:
                wait_for(
                    lambda: len(seen.alerts()) >= size.alerts,
                    program,
                    f"{size.alerts} alerts",
                    timeout_s=60 + 4 * footage.PERIOD_S * size.alerts,
                )
            ours = seen.alerts()
    note = f"{len(ours)} alerts; the picture comes every 200 ms"
    peer = "SQLite commit and publish alone"
    return [
        Row(f"alert-ms-p{round(share * 100)}", f"alert, from picture to subscriber, p{round(share * 100)}",
            percentile(ours, share), "ms", peer, percentile(alone, share), note=note)
        for share in (0.5, 0.95)
    ]  # fmt: skip


class Arrivals:
    """A subscriber that stamps what comes in."""

    def __init__(self, port: int, topic: str) -> None:
        self._messages: list[tuple[int, bytes]] = []
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-watcher")
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topic, qos=1)

    def _on_message(self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        self._messages.append((time.clock_gettime_ns(time.CLOCK_BOOTTIME), bytes(message.payload)))

    def messages(self) -> list[tuple[int, bytes]]:
        """What has come: (boot_ns, payload)."""
        return list(self._messages)

    def alerts(self) -> list[float]:
        """Milliseconds from picture to arrival, of incidents that started."""
        found = []
        for at_ns, payload in self.messages():
            event = wire.decode(payload, wire.CloudEvent)
            wanted = event.data.phase == "started" and event.data.severity == "alert"
            if wanted and event.type in {"wardpost.person", "wardpost.bicycle"} and not event.historical:
                found.append((at_ns - event.monons) / MS)
        return found

    def __enter__(self) -> Self:
        self._client.loop_start()
        if not self._ready.wait(20):
            raise RuntimeError("the broker does not answer a subscription")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def _alone(path: Path, port: int, count: int) -> list[float]:
    """Milliseconds of a durable insert, a publish and its arrival, one at a time."""
    topic = "bench/latency"
    times = []
    connection = sqlite3.connect(path, isolation_level=None)
    with closing(connection) as db, Arrivals(port, topic) as seen, publisher(port) as client:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        db.execute("create table event (n integer primary key, body blob)")
        body = msgspec.json.encode({"data": "x" * 700})
        for number in range(1, count + 1):
            started_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            db.execute("insert into event (body) values (?)", (body,))
            client.publish(topic, body, qos=1)
            deadline = time.monotonic() + 10
            while len(seen.messages()) < number and time.monotonic() < deadline:
                time.sleep(0.0005)
            times.append((seen.messages()[-1][0] - started_ns) / MS)
    return times


@contextmanager
def publisher(port: int) -> Iterator[paho.Client]:
    """Somebody who is connected and publishes; the network is another thread's."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-sender")
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    if not connected.wait(20):
        raise RuntimeError("the broker does not take a connection")
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()
