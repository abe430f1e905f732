"""Everything that real processes say to each other is in the published contract."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from jsonschema import Draft202012Validator

from agent import contract, wire
from agent.clock import SystemClock, rfc3339, uuid7_maker
from agent.uplink import Connected, Hello, Received, parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from tests.e2e.brokers import make_broker
from tests.e2e.test_store_and_forward import Scene


def test_real_traffic_is_as_the_contract_says(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    broker = make_broker("nats", tmp_path / "broker")
    broker.start()
    scene = Scene(tmp_path, broker)
    clock = SystemClock()
    ear = PahoTransport(clock=clock, credentials=Credentials())
    validators = {c.name: Draft202012Validator(contract.schema_of(c.name)) for c in contract.CHANNELS}
    wanted = {"status", "heartbeat", "event", "ack", "cmd", "reply"}
    heard: Counter[str] = Counter()
    try:
        ear.connect(parse_broker(broker.url), Hello("ear", ((f"{wire.ROOT}/#", 1),)))
        by = time.monotonic() + 30
        while not any(isinstance(happening, Connected) for happening in ear.poll(0.2)):  # subscribed: it misses nothing
            assert time.monotonic() < by, "the ear cannot connect"
        scene.start("station")
        scene.start("node", "--rate", "20", "--events", "60", "--linger", "20")
        by, asked = time.monotonic() + 90, False
        while time.monotonic() < by and not (wanted <= heard.keys() and heard["event"] >= 50):
            for happening in ear.poll(0.2):
                if isinstance(happening, Connected):
                    continue
                if not isinstance(happening, Received):
                    continue
                happening.ack()
                address = wire.parse_topic(happening.topic)
                validators[address.channel].validate(json.loads(happening.payload))
                heard[address.channel] += 1
            if heard["event"] and not asked:
                asked = True
                expires = rfc3339(clock.utc().utc_ns + 30 * 10**9)
                command = wire.Command(id=uuid7_maker(clock)(), verb="coverage", expires=expires)
                topic = wire.Topics("ward-7", "node-1").command("coverage")
                ear.publish(topic, wire.encode(command), qos=1)
        assert wanted <= heard.keys(), f"{heard}\n{scene.logs()}"
    finally:
        ear.close()
        scene.close()
