"""The station's orders: a hold for a post that is dark waits, goes out when it is heard, and is asked until answered."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import wire
from agent.clock import rfc3339
from agent.errors import ConfigError, Transient
from agent.station.book import station_engine
from agent.station.db import migrate
from agent.station.db.engine import database_url, open_engine
from agent.station.fleet_settings import FleetSettings
from agent.station.main import BrokerSettings, DeskSettings, StationSettings
from agent.station.order import order
from agent.station.orders import RESEND_S, WAITING_PER_NODE_MAX, OrderBook
from agent.station.settings_book import SettingsBook
from agent.station.signing import signed
from agent.station.store import StationStore
from agent.station.worker import StationWorker
from agent.types import NS, UtcReading
from agent.uplink import Hello, Received
from agent.uplink.commands import Judge, Run, Verb
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database, engine_in

KEY = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
TOPICS = wire.Topics("ward-7", "gate-2")
LIFE_NS = 14 * 86_400 * NS


class Desk:
    """A station, a broker, and a node that a test plays by hand."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.clock = FakeClock()
        self.folder = folder
        self.database = database
        self.broker = FakeBroker(clock=self.clock)
        self.engine = open_engine(database_url(folder, database), pooled=False)
        migrate.upgrade(self.engine)
        self.book = OrderBook(self.engine)
        self.book.open()
        self.count = 0
        self.node = FakeTransport(brokers=[self.broker], clock=self.clock)
        self.start()

    def start(self) -> None:
        """The station begins, or begins again."""
        self.worker = StationWorker(
            store=StationStore(
                self.folder, clock=self.clock, site="ward-7", database=self.database, free_bytes=lambda _: 1 << 40
            ),
            transport=FakeTransport(brokers=[self.broker], clock=self.clock),
            clock=self.clock,
            rng=random.Random(1),
            site="ward-7",
            station="hq",
            brokers=[self.broker.address],
            wait_s_max=0.0,
            orders=OrderBook(self.engine),
            settings=FleetSettings(SettingsBook(self.engine), clock=self.clock, site="ward-7"),
        )
        self.worker.open()

    def ask(self, verb: str, args: dict[str, str]) -> str:
        """A person at the station asks; another process writes, as the command does."""
        self.count += 1
        now_ns = self.clock.utc().utc_ns
        name = f"01900000-0000-7000-8000-{self.count:012x}"
        made = signed(
            KEY, site="ward-7", node="gate-2", verb=verb, args=args, command_id=name, expires=rfc3339(now_ns + LIFE_NS)
        )
        self.book.add("gate-2", made, asked_utc_ns=now_ns, expires_utc_ns=now_ns + LIFE_NS)
        return name

    def run(self, seconds: float) -> list[wire.Command]:
        """Time passes; returns what the node was sent."""
        got: list[wire.Command] = []
        end_ns = self.clock.boot_ns() + round(seconds * NS)
        while self.clock.boot_ns() < end_ns:
            self.worker.step(self.clock.boot_ns() / NS)
            for happening in self.node.poll(0.0):
                if isinstance(happening, Received):
                    got.append(wire.decode(happening.payload, wire.Command))
                    happening.ack()
            self.clock.advance(0.5)
        return got

    def appear(self) -> None:
        """The node is there, and heard."""
        self.node.connect(self.broker.address, Hello("node", subscriptions=((TOPICS.commands, 1),)))
        self.node.poll(0.0)
        self.beat()

    def beat(self) -> None:
        status = wire.Status(state="online", node="gate-2", bootid="f" * 32, session=1)
        self.node.publish(TOPICS.status, wire.encode(status), qos=1)

    def answer(self, command: wire.Command, state: str = "done") -> None:
        reply = wire.Reply(id=command.id, state=state, result={"summary": "kept"})  # type: ignore[arg-type]
        self.node.publish(TOPICS.reply(command.id), wire.encode(reply), qos=1)


@pytest.fixture
def at(tmp_path: Path, database: Database) -> Iterator[Desk]:
    desk = Desk(tmp_path, database.setting)
    yield desk
    desk.worker.close()
    desk.book.close()


def test_a_hold_waits_for_a_dark_post_survives_a_restart_of_the_station_and_goes_out_when_it_is_heard(at: Desk) -> None:
    hold = at.ask("hold", {"reason": "theft"})
    assert at.run(300) == []
    at.worker.close()
    at.start()
    at.run(5)
    at.appear()
    (sent, *_again) = at.run(5)
    assert sent.id == hold and sent.verb == "hold"
    at.answer(sent)
    assert at.run(120) == [], "answered: it is not asked again"
    (known,) = at.book.of("gate-2")
    assert known.state == "done" and json.loads(known.answer)["result"] == {"summary": "kept"}


def test_it_is_asked_again_until_it_is_answered_and_the_node_believes_it(at: Desk) -> None:
    at.ask("hold", {"reason": "theft"})
    at.run(2)
    at.appear()
    sent = []
    for _ in range(4):
        sent += at.run(RESEND_S + 1)
        at.beat()
    assert 3 <= len(sent) <= 6 and len({one.id for one in sent}) == 1
    judge = Judge(
        site="ward-7",
        node="gate-2",
        key=KEY.public_key(),
        verbs={"hold": Verb(lambda _: {}, acting=True, lasting=True)},
    )
    utc = UtcReading(at.clock.utc().utc_ns + 13 * 86_400 * NS, 1, "ntp")
    for one in sent:
        decision = judge.judge(TOPICS.command("hold"), wire.encode(one), utc=utc, started_utc_ns=utc.utc_ns)
        assert isinstance(decision, Run)


def test_a_release_never_overtakes_its_hold(at: Desk) -> None:
    hold = at.ask("hold", {"reason": "theft"})
    release = at.ask("release", {"hold": hold})
    at.run(2)
    at.appear()
    first = at.run(40)
    assert {one.id for one in first} == {hold}
    at.answer(first[0])
    at.beat()
    assert {one.id for one in at.run(10)} == {release}


def test_one_order_for_footage_does_not_keep_the_next_one_from_being_held(at: Desk) -> None:
    first, second = (at.ask("send", {"reason": reason}) for reason in ("theft", "accident"))
    at.run(2)
    at.appear()
    assert {one.id for one in at.run(10)} == {first, second}, "the first may take days to be sent"


def test_a_refusal_is_an_answer_and_silence_ends_with_the_expiry(at: Desk) -> None:
    at.ask("hold", {"reason": "too much"})
    at.run(2)
    at.appear()
    (sent, *_rest) = at.run(5)
    at.answer(sent, "failed")
    at.run(2)
    assert at.book.of("gate-2")[0].state == "failed"
    at.ask("hold", {"reason": "another"})
    at.node.disconnect()
    at.clock.advance(LIFE_NS / NS + 1)
    at.run(5)
    assert at.book.of("gate-2")[0].state == "expired"


def test_a_reply_of_another_node_is_not_believed(at: Desk) -> None:
    hold = at.ask("hold", {"reason": "x"})
    assert not at.book.answered("gate-3", wire.Reply(id=hold, state="done"))
    assert not at.book.answered("gate-2", wire.Reply(id=hold, state="accepted"))
    assert at.book.answered("gate-2", wire.Reply(id=hold, state="done"))
    assert not at.book.answered("gate-2", wire.Reply(id=hold, state="failed")), "the first answer counts"


def test_the_queue_of_a_node_is_bounded(at: Desk) -> None:
    for _ in range(WAITING_PER_NODE_MAX):
        at.ask("hold", {})
    with pytest.raises(ConfigError, match="wait for this node already"):
        at.ask("hold", {})


def test_a_closed_book_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Transient, match="not open"):
        OrderBook(engine_in(tmp_path)).of("gate-2")
    with pytest.raises(ConfigError, match="not a folder"), station_engine(tmp_path / "missing", ""):
        pass


def test_the_command_line_signs_queues_and_lists(tmp_path: Path) -> None:
    pem = tmp_path / "key.pem"
    pem.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def settings(key: str) -> StationSettings:
        return StationSettings(
            station=DeskSettings(site="ward-7", id="hq", data=str(tmp_path), command_key=key),
            broker=BrokerSettings(brokers=("mqtt://hq:1883",)),
        )

    said: list[str] = []
    asked = {"from": "2026-11-21T14:00:00+07:00", "to": "2026-11-21T15:00:00+07:00", "reason": "theft"}
    assert order(settings(str(pem)), "gate-2", "hold", asked, as_json=True, out=said.append) == 0
    (row,) = json.loads(said[0])
    assert row["state"] == "waiting" and row["args"]["from"] == "2026-11-21T07:00:00.000Z"
    order(settings(""), "gate-2", "holds", {}, as_json=False, out=said.append)
    assert "hold (from 2026-11-21T07:00:00.000Z" in said[1] and "waiting; sent 0 times" in said[1]
    for bad, args, words in (
        (settings(""), asked, "command_key: not set"),
        (settings(str(tmp_path / "no.pem")), asked, "not a readable PEM"),
        (settings(str(pem)), asked | {"from": "yesterday"}, "--from"),
    ):
        with pytest.raises(ConfigError, match=words):
            order(bad, "gate-2", "hold", args, as_json=False, out=said.append)
    with pytest.raises(ConfigError, match="a node's id is"):
        order(settings(str(pem)), "Gate/2", "hold", asked, as_json=False, out=said.append)
