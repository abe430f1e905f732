"""The node's half of store and forward as a process of its own: the real Store and the real UplinkWorker.

    python -m tests.e2e.uplink_process FOLDER BROKER_URL [--node N] [--rate 50] [--events 100] [--backlog 0]
        [--bug delete-on-puback] [--linger S]

Commits events at a rate and writes the ids of each commit to FOLDER/committed.log, synced, *after* the commit: what
stands there was promised. Prints one JSON line about each second, and one when everything is delivered.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from agent import wire
from agent.clock import SystemClock, rfc3339, uuid7_maker
from agent.store.store import Origin, Store
from agent.types import NS, Box, Event, Kind, Label, Phase, Priority
from agent.uplink import Delivered, Happening, parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from agent.uplink.worker import UplinkWorker


def heartbeat(store: Store, clock: SystemClock, node: str) -> wire.Heartbeat:
    """A whole heartbeat; this process has no camera, and says so."""
    utc = clock.utc()
    return wire.Heartbeat(
        node=node,
        bootid=clock.boot_id,
        session=store.session,
        monons=clock.boot_ns(),
        version="0.0.0",
        model="test",
        clock=wire.ClockState(utc=rfc3339(utc.utc_ns), errms=None, source=utc.source),
        camera=wire.CameraState(name="none", fps=0.0, frameagems=None, frames=0, restarts=0),
        vision=wire.VisionState(detector="none", healthy=True, detectorruns=0, inferencems=0.0),
        recording=wire.RecordingState(recording=False, segments=0, bytes=0, oldest=None, droppedpackets=0),
        queue=wire.QueueState(outboxrows=store.outbox_rows, oldestage_s=None, dropped=0),
        machine=wire.MachineState(
            uptime_s=clock.boot_ns() / NS,
            temperature_c=None,
            throttled=None,
            diskfreebytes=0,
            memoryavailablebytes=0,
            rssbytes=0,
            load1=0.0,
        ),
    )


class BrokenTransport(PahoTransport):
    """A planted bug: believes that PUBACK means delivered. For proving that the suite would notice."""

    store: Store
    _sequences: dict[int, int]

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        mid = super().publish(topic, payload, qos=qos, retain=retain)
        if "/event/" in topic:
            self._sequences[mid] = wire.decode(payload, wire.CloudEvent).sequence
        return mid

    def poll(self, timeout_s: float) -> list[Happening]:
        happenings = super().poll(timeout_s)
        done = [self._sequences.pop(h.mid) for h in happenings if isinstance(h, Delivered) and h.mid in self._sequences]
        if done:
            self.store.acknowledge(wire.ranges(done))
        return happenings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("broker")
    parser.add_argument("--node", default="node-1")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--ack-timeout", type=float, default=1.0)
    parser.add_argument("--bug", default="")
    parser.add_argument("--linger", type=float, default=0.0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")

    clock = SystemClock()
    new_id = uuid7_maker(clock)
    store = Store(
        args.folder / "node.db",
        clock=clock,
        new_id=new_id,
        origin=Origin("ward-7", args.node, "Ngo 12"),
        outbox_rows_max=100_000,
        event_rows_max=200_000,
    )
    store.open()
    store.start_session()
    transport = (BrokenTransport if args.bug == "delete-on-puback" else PahoTransport)(
        clock=clock, credentials=Credentials(), keepalive_s=5, connect_s_max=2.0, stall_s_max=3.0
    )
    if isinstance(transport, BrokenTransport):
        transport.store, transport._sequences = store, {}
    worker = UplinkWorker(
        store=store,
        transport=transport,
        clock=clock,
        rng=random.Random(),
        site="ward-7",
        node=args.node,
        place="Ngo 12",
        version="0.0.0",
        brokers=[parse_broker(args.broker)],
        heartbeat=lambda: heartbeat(store, clock, args.node),
        heartbeat_s=1.0,
        backoff_s_max=1.0,
        window_rows_max=args.window,
        ack_timeout_s=args.ack_timeout,
    )

    def event(number: int) -> Event:
        return Event(
            incident=new_id(),
            kind=Kind.PERSON,
            phase=Phase.STARTED,
            boot_ns=clock.boot_ns(),
            priority=Priority.ALERT if number % 3 else Priority.NOTICE,
            summary="A person at the gate",
            label=Label.PERSON,
            score=0.71,
            box=Box(0.1, 0.2, 0.3, 0.4),
            zones=("gate",),
        )

    log = os.open(args.folder / "committed.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def commit(count: int, start: int) -> None:
        stamp = time.time_ns()
        sequences = store.commit([event(start + i) for i in range(count)])
        os.write(log, "".join(f"{store.epoch} {s} {stamp}\n" for s in sequences).encode())
        os.fsync(log)

    for start in range(0, args.backlog, 500):
        commit(min(500, args.backlog - start), start)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def serve() -> None:
        worker.open()
        while not stop.is_set():
            worker.step(clock.boot_ns() / NS)
        worker.close()

    thread = threading.Thread(target=serve, name="uplink")
    thread.start()
    begun = time.monotonic()
    for number in range(args.events):
        if stop.is_set():
            break
        commit(1, number)
        worker.notify()
        stop.wait(max(begun + (number + 1) / args.rate - time.monotonic(), 0.0))
    said = 0.0
    while not stop.is_set() and store.outbox_rows:
        stop.wait(0.02)
        if time.monotonic() - said > 1.0:
            said = time.monotonic()
            print(json.dumps({"outbox": store.outbox_rows, "broker": str(worker.broker)}), flush=True)
    print(json.dumps({"done": not stop.is_set(), "seconds": round(time.monotonic() - begun, 3)}), flush=True)
    stop.wait(args.linger)
    stop.set()
    transport.wake()
    thread.join()
    store.close()


if __name__ == "__main__":
    main()
