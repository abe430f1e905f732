"""How quickly a backlog reaches the station after an outage: committed there, and acknowledged to the node.

Broker (nats-server), node uplink and station are three processes. Beside it, in the same run: the same broker with a
client that only publishes (sliding window of 100, QoS 1, as many bytes), and SQLite alone with the station's durability.
The CPU time per event is there because it does not suffer from what else the machine does.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.bench.desk import station
from tests.bench.figure import Bench, Row, percentile
from tests.bench.programs import ROOT, broker, python, wait_for

TARGET_PER_S = 2500.0
WINDOW = 100
EVENT_BYTES = 720
ALERT_EVERY = 5
"""Of a backlog: a person, and four notices. Alerts go one by one, the rest of a backlog in batches."""


def measure(bench: Bench) -> list[Row]:
    """Events per second, committed at the station; CPU time per event of node and station."""
    count = bench.size.backlog
    ours, published, inserted, cpu_us, published_cpu_us = [], [], [], [], []
    alerts = []
    for turn in range(bench.size.repeats):
        folder = bench.folder / str(turn)
        with broker(folder / "broker") as port:
            seconds, _ = _drain(folder / "alerts", port, count, alert_every=1)
            alerts.append(count / seconds)
        with broker(folder / "broker-2") as port:
            seconds, cpu_s = _drain(folder, port, count, alert_every=ALERT_EVERY)
            ours.append(count / seconds)
            cpu_us.append(cpu_s / count * 1e6)
            seconds, cpu_s = _publish(port, count)
            published.append(count / seconds)
            published_cpu_us.append(cpu_s / count * 1e6)
        inserted.append(count / _insert(folder / "bare.db", count))
    rate = percentile(ours, 0.5)
    what = f"drain of {count:,} events, committed at the station"
    target, met = f">= {TARGET_PER_S:,.0f} /s", rate >= TARGET_PER_S
    return [
        Row("drain", what, rate, "/s", "QoS 1 publishing alone", percentile(published, 0.5), target=target, met=met),
        Row("drain-alerts", "the same, but every event an alert", percentile(alerts, 0.5), "/s", "QoS 1 publishing alone",
            percentile(published, 0.5)),
        Row("drain-sqlite", what, rate, "/s", "SQLite alone, 100 a transaction", percentile(inserted, 0.5)),
        Row("drain-cpu", "the same, CPU of node and station per event", percentile(cpu_us, 0.5), "us",
            "QoS 1 publishing alone", percentile(published_cpu_us, 0.5)),
    ]  # fmt: skip


def _drain(folder: Path, port: int, count: int, *, alert_every: int) -> tuple[float, float]:
    """Seconds, and CPU seconds of node and station, from the node's connection until its outbox is empty.

    Every event is looked for at the station.
    """
    with station(folder / "station", broker_port=port) as desk:
        log = folder / "station" / "station.log"
        wait_for(lambda: "connected to" in log.read_text(), desk, "the station to connect")
        command = python("tests.bench.sender", str(folder / "node"), str(port), str(count), str(alert_every))
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
            if sender.stdout is None or sender.stdout.readline() != "filled\n":
                raise RuntimeError("the sender could not fill its outbox")
            spent_s = desk.cpu_s()
            out, _ = sender.communicate("go\n", timeout=400)
        spent_s = desk.cpu_s() - spent_s
    found = json.loads(out)
    with closing(sqlite3.connect(f"file:{folder / 'station' / 'data' / 'station.db'}?mode=ro", uri=True)) as db:
        (stored,) = db.execute("select count(*) from event").fetchone()
    if found["left"] or stored != count:
        raise RuntimeError(f"{count} events: {found['left']} are still at the node, {stored} at the station")
    return found["seconds"], found["cpu_s"] + spent_s


def _publish(port: int, count: int) -> tuple[float, float]:
    """Seconds and CPU seconds until the broker has acknowledged as many messages of that size, nobody subscribed."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-publisher")
    client.max_inflight_messages_set(WINDOW)
    client.connect("127.0.0.1", port)
    client.loop_start()
    body = bytes(EVENT_BYTES)
    started, spent_s = time.perf_counter(), time.process_time()
    sent = [client.publish("bench/bare", body, qos=1) for _ in range(count)]
    for info in sent:
        info.wait_for_publish(60)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - spent_s
    client.disconnect()
    client.loop_stop()
    return seconds, cpu_s


def _insert(path: Path, count: int) -> float:
    """Seconds to store as many rows in WAL with FULL, a window's worth a transaction."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    db.execute("create table event (n integer primary key, body blob)")
    body = bytes(EVENT_BYTES)
    started = time.perf_counter()
    for start in range(0, count, WINDOW):
        db.execute("begin immediate")
        db.executemany("insert into event (body) values (?)", [(body,)] * min(WINDOW, count - start))
        db.execute("commit")
    seconds = time.perf_counter() - started
    db.close()
    return seconds
