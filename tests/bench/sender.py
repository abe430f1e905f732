"""A node's store and uplink without the rest: fills an outbox, waits for a word, and drains it.

Run as a program: `python -m tests.bench.sender FOLDER PORT EVENTS ALERT_EVERY`; every so manieth event is an alert, the
others are notices. It prints `filled`, reads a line, connects, and prints one line of JSON when the station has
acknowledged everything: seconds (and CPU seconds) from the connection to the empty outbox.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from agent import wire
from agent.clock import Clock, SystemClock, rfc3339, uuid7_maker
from agent.types import NS, Priority
from agent.uplink import parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from agent.uplink.worker import UplinkWorker
from tests.bench.event_bytes import an_event, store

DRAIN_S_MAX = 60.0
FILL_BATCH = 200


def main(folder: str, port: str, events: str, alert_every: str) -> None:
    """Fills, waits, drains."""
    clock = SystemClock()
    outbox = store(Path(folder))
    new_id = uuid7_maker(clock)
    count = int(events)
    for start in range(0, count, FILL_BATCH):
        numbers = range(start, min(start + FILL_BATCH, count))
        of = [Priority.NOTICE if n % int(alert_every) else Priority.ALERT for n in numbers]
        outbox.commit([an_event(new_id, clock.boot_ns(), priority) for priority in of])
    outbox.start_session()  # an outage that the agent did not survive: whatever waits is late
    transport = PahoTransport(clock=clock, credentials=Credentials())
    uplink = UplinkWorker(
        store=outbox,
        transport=transport,
        clock=clock,
        rng=random.Random(1),
        site="bench",
        node="post-1",
        place="the bench",
        version="bench",
        brokers=[parse_broker(f"mqtt://127.0.0.1:{port}")],
        heartbeat=lambda: _heartbeat(clock, outbox.session),
        heartbeat_s=600.0,
        window_rows_max=250,
    )
    print("filled", flush=True)
    sys.stdin.readline()
    uplink.open()
    connected_ns, spent_s, deadline = 0, 0.0, time.monotonic() + DRAIN_S_MAX
    while outbox.outbox_rows and time.monotonic() < deadline:
        uplink.step(clock.boot_ns() / NS)
        if not connected_ns and uplink.broker is not None:
            connected_ns, spent_s = clock.boot_ns(), time.process_time()
    outbox.acknowledge([])  # the deletion of the last ones belongs to it
    seconds = (clock.boot_ns() - connected_ns) / NS
    cpu_s = time.process_time() - spent_s
    left = outbox.outbox_rows
    uplink.close()
    outbox.close()
    print(json.dumps({"seconds": seconds, "left": left, "cpu_s": cpu_s}), flush=True)


def _heartbeat(clock: Clock, session: int) -> wire.Heartbeat:
    now_ns, utc = clock.boot_ns(), clock.utc()
    state = wire.ClockState(utc=rfc3339(utc.utc_ns), errms=None, source=utc.source)
    machine = wire.MachineState(**dict.fromkeys(wire.MachineState.__struct_fields__))
    return wire.Heartbeat(
        node="post-1", bootid=clock.boot_id, session=session, monons=now_ns, version="bench", model="bench", clock=state,
        camera=None, vision=None, recording=None, queue=None, machine=machine,
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
