"""Desired and reported: a station, a broker that may forget, and a node that tries what it is given, or is dark for a week."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import configure, wire
from agent.errors import ConfigError, NeedsRestart
from agent.release.settings_desk import SettingsDesk, at_start, parse
from agent.release.settings_errand import SettingsErrand
from agent.station.fleet_settings import RESEND_S
from agent.station.main import BrokerSettings, DeskSettings, StationSettings
from agent.station.settings_book import SettingsBook
from agent.types import NS, UtcReading
from agent.uplink import Connected, Hello, Received
from agent.uplink.commands import believe
from tests.fakes.broker import FakeTransport
from tests.fakes.database import engine_in
from tests.fakes.disk import FakeDisk
from tests.unit.test_orders import KEY, TOPICS, Desk
from tests.unit.test_uplink import beat

WEEK_S = 7 * 86_400.0


class Beat:
    session = 1
    outbox_rows = 0


class Post:
    """A node as far as its settings go: its own desk and errand, on a card of its own."""

    def __init__(self, at: Desk, text: str) -> None:
        self.at = at
        self.disk = FakeDisk()
        self.disk.list("config")
        self.base = parse(text)
        self.station = True
        self.tells = True  # an agent that reports settings
        self.on = False
        self.away_s = 0.0  # from the end of a process to the next one
        self.starts_ns: int | None = None
        self.transport = FakeTransport(brokers=[at.broker], clock=at.clock)

    def start(self) -> None:
        """Power comes, or the process begins anew."""
        self.transport.disconnect()
        self.running, revision = at_start(self.base, self.disk, self.at.clock, lambda _: None)
        self.desk = SettingsDesk(
            disk=self.disk,
            clock=self.at.clock,
            running=self.running,
            revision=revision,
            believe=partial(believe, site="ward-7", node="gate-2", key=KEY.public_key()),
            station=lambda: self.station,
            frames=lambda: True,
            busy=lambda: False,
            note=lambda _: None,
            tell=lambda _: None,
        )
        self.errand = SettingsErrand(TOPICS, self.desk)
        self.began_ns = self.at.clock.boot_ns()
        self.transport.connect(self.at.broker.address, Hello("node", wishes=self.errand.wishes))
        self.on = True

    def off(self) -> None:
        self.transport.disconnect()
        self.on = False

    def step(self) -> None:
        now_ns = self.at.clock.boot_ns()
        if self.starts_ns is not None:
            if now_ns >= self.starts_ns:
                self.starts_ns = None
                self.start()
            return
        for happening in self.transport.poll(0.0):
            if isinstance(happening, Connected):
                self.errand.connected(happening.denied)
            elif isinstance(happening, Received):
                assert self.errand.received(happening.topic, happening.payload)
                happening.ack()
        try:
            self.desk.watch((now_ns - self.began_ns) / NS)
        except NeedsRestart:
            if self.transport.connected and self.tells:  # the uplink has had its minute before the process leaves
                self.errand.step(now_ns / NS, self._send)
            self.off()
            self.starts_ns = now_ns + round(self.away_s * NS)
            return
        if self.transport.connected and self.tells:
            self.errand.step(now_ns / NS, self._send)

    def beat(self) -> None:
        told = msgspec.structs.replace(
            beat(Beat(), self.at.clock),  # type: ignore[arg-type]
            settings=self.desk.reported() if self.tells else None,
        )
        self.transport.publish(TOPICS.heartbeat, wire.encode(told), qos=0)

    def _send(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        self.transport.publish(topic, payload, qos=1, retain=retain)
        return True


class World:
    """The clock of the command: while it waits, the station and the node work."""

    def __init__(self, desk: Desk, post: Post) -> None:
        self.desk, self.post = desk, post

    @property
    def boot_id(self) -> str:
        return self.desk.clock.boot_id

    def boot_ns(self) -> int:
        return self.desk.clock.boot_ns()

    def utc(self) -> UtcReading:
        return self.desk.clock.utc()

    def wait(self, _event: threading.Event, timeout_s: float) -> bool:
        self.run(timeout_s)
        return False

    def run(self, seconds: float) -> None:
        end_ns = self.boot_ns() + round(seconds * NS)
        while self.boot_ns() < end_ns:
            if self.post.on or self.post.starts_ns is not None:
                self.post.step()
                if self.post.transport.connected and self.boot_ns() // NS % 30 == 0:
                    self.post.beat()
            self.desk.run(0.5)


@pytest.fixture
def node_toml(tmp_path: Path) -> str:
    return (
        f'# of the gate\n[node]\nsite = "ward-7"\nid = "gate-2"\ndata = "{tmp_path}"\n'
        '[camera]\ndriver = "picamera2"\n[vision]\nscore_min = 0.4\n[vision.detector]\ndriver = "none"\n'
        '[uplink]\nbrokers = ["mqtt://hq"]\n[recording]\nbudget_gb = 0.001\nfree_gb_min = 0.0\n'
    )


@pytest.fixture
def world(tmp_path: Path, node_toml: str) -> Iterator[World]:
    desk = Desk(tmp_path)
    yield World(desk, Post(desk, node_toml))
    desk.worker.close()
    desk.book.close()


@pytest.fixture
def settings(tmp_path: Path) -> StationSettings:
    key = tmp_path / "hq.pem"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return StationSettings(
        station=DeskSettings(site="ward-7", id="hq", data=str(tmp_path), command_key=str(key)),
        broker=BrokerSettings(brokers=("mqtt://127.0.0.1:1",)),
    )


@pytest.fixture
def give(
    world: World, settings: StationSettings, tmp_path: Path, node_toml: str
) -> Callable[..., tuple[int, list[str]]]:
    file = tmp_path / "node.toml"
    file.write_text(node_toml, encoding="utf-8")

    def give(
        *values: str, whole: bool = False, wait_s: float = 0.0, revision: int | None = None
    ) -> tuple[int, list[str]]:
        said: list[str] = []
        code = configure.configure(
            settings,
            "gate-2",
            file=file if whole else None,
            values=values,
            revision=revision,
            wait_s=wait_s,
            as_json=False,
            clock=world,
            out=said.append,
        )
        return code, said

    return give


def shown(settings: StationSettings, node: str | None = None) -> list[str]:
    said: list[str] = []
    assert configure.show(settings, node, as_json=False, out=said.append) == 0
    return said


def test_settings_are_desired_tried_kept_and_reported(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    world.post.start()
    world.run(40)
    assert shown(settings) == ["gate-2: has the file of its card; nothing is desired from here", "1 node, 0 behind"]
    code, said = give("vision.score_min=0.5", whole=True, wait_s=300)
    assert code == 0
    assert said[0] == "gate-2: revision 1 of its settings is desired"
    assert "and tries the desired one since" in said[1]
    assert "has revision 1, as desired since" in said[2]
    assert world.post.running.vision.score_min == 0.5
    for topic in (TOPICS.desired, TOPICS.reported):
        assert topic in world.desk.broker.retained, "both are retained"
    # What it has is what the next change starts from.
    code, said = give("uplink.ack_timeout_s=20", wait_s=300)
    assert code == 0 and world.post.running.uplink.ack_timeout_s == 20 and world.post.running.vision.score_min == 0.5
    assert len(published(world)) == 2, "each was sent once"
    assert shown(settings)[1] == "1 node, 0 behind"


def test_a_node_that_is_away_to_try_them_is_waited_for(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    world.post.away_s = 200.0  # a slow board; the station calls it dark by then
    world.post.start()
    world.run(40)
    code, said = give("vision.score_min=0.5", whole=True, wait_s=600)
    assert code == 0 and "has revision 1, as desired since" in said[-1], said


def published(world: World) -> list[wire.Desired]:
    return [wire.decode(body, wire.Desired) for topic, body in world.desk.broker.routed if topic == TOPICS.desired]


def test_a_node_that_is_dark_for_a_week_finds_them_on_its_return_also_without_a_station(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    world.post.start()
    world.run(40)
    world.post.off()
    world.run(300)
    began_ns = world.boot_ns()
    code, said = give("vision.score_min=0.5", whole=True, wait_s=300)
    assert code == 0 and world.boot_ns() == began_ns, "nobody waits for it"
    assert "it is dark" in said[-1] and "is taken when the node is back" in said[-1]
    world.run(5)
    assert len(published(world)) == 1, "it stands at the broker already"
    (first, last) = shown(settings)
    assert first.startswith("gate-2 (dark): behind: revision 1 is desired; it has the file of its card")
    assert last == "1 node, 1 behind"
    world.desk.clock.advance(WEEK_S)
    world.desk.worker.close()  # and nobody is there when it comes back
    world.post.start()
    for _ in range(200):
        world.post.step()
        world.desk.clock.advance(1.0)
    assert world.post.running.vision.score_min == 0.5
    assert world.post.desk.reported().revision == 1
    world.desk.start()
    world.run(40)
    assert "as desired" in shown(settings)[0]
    assert len(published(world)) == 1


def test_a_broker_that_keeps_nothing_costs_time_and_no_settings(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    world.post.start()
    world.run(40)
    world.post.off()
    world.run(300)
    give("vision.score_min=0.5", whole=True)
    world.run(5)
    world.desk.broker.restart()
    world.run(30)
    world.post.start()
    assert TOPICS.desired not in world.desk.broker.retained
    world.run(200)
    assert world.post.running.vision.score_min == 0.5 and "as desired" in shown(settings)[0]
    assert len(published(world)) == 2


def test_settings_that_lock_the_node_out_come_back_as_rolled_back_and_are_not_sent_again(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    world.post.start()
    world.run(40)
    give('uplink.brokers=["mqtt://hp"]', whole=True)
    world.run(20)
    assert world.post.desk.reported().trial == 1
    world.post.station = False  # there is no such broker
    world.post.transport.disconnect()
    for _ in range(620):
        world.post.step()
        world.desk.clock.advance(1.0)
    world.post.station = True
    world.run(60)
    assert world.post.running.uplink.brokers == ("mqtt://hq",)
    line = shown(settings, "gate-2")[0]
    assert "tried it and went back at 20" in line and "the station is not reached within 600 s" in line
    count = len(published(world))
    world.run(600)
    assert len(published(world)) == count, "it has been judged"
    with pytest.raises(ConfigError, match="revision 1 is desired already"):
        give("vision.score_min=0.5", whole=True, revision=1)
    code, said = give("vision.score_min=0.6", whole=True, wait_s=300)
    assert code == 0 and "revision 2" in said[0] and world.post.running.vision.score_min == 0.6


def test_a_refusal_is_an_exit_code_and_names_the_reason(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    world.post.start()
    world.run(40)
    code, said = give("uplink.command_key=/nowhere/key.pem", whole=True, wait_s=60)
    assert code == 1 and "and refused it at" in said[-1] and "uplink.command_key" in said[-1]
    rows: list[str] = []
    configure.show(settings, None, as_json=True, out=rows.append)
    (row,) = json.loads(rows[0])
    assert (row["behind"], row["desired"]["revision"], row["reported"]["state"]) == (True, 1, "refused")


def test_an_agent_that_tells_nothing_is_sent_them_ever_more_rarely(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]]
) -> None:
    """A link with a data budget, and a node that is too old to know the topic."""
    world.post.tells = False
    world.post.start()
    world.post.desk.desire = lambda payload: None  # type: ignore[method-assign]  # noqa: ARG005
    world.run(40)
    with pytest.raises(ConfigError, match="has never told which settings it has"):
        give("vision.score_min=0.5")
    give("vision.score_min=0.5", whole=True)
    world.run(1000)
    assert 5 <= len(published(world)) <= 7, "at 0, 30, 90, 210, ... s"
    assert RESEND_S == 30.0
    assert "behind: revision 1 is desired; it has never told" in shown(settings)[0]


def test_what_was_set_at_the_post_itself_is_said_and_not_overwritten(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]], node_toml: str
) -> None:
    world.post.start()
    world.run(40)
    give("vision.score_min=0.5", whole=True, wait_s=300)
    world.post.desk.draw(node_toml.replace("0.4", "0.3"), by="the local page")
    world.run(120)
    assert world.post.running.vision.score_min == 0.3
    assert "it has revision 2" in shown(settings)[0]
    code, said = give("vision.score_min=0.7", whole=True, wait_s=300)
    assert code == 0 and "revision 3" in said[0] and world.post.running.vision.score_min == 0.7


def test_what_the_node_could_not_load_is_not_even_desired(
    world: World, settings: StationSettings, give: Callable[..., tuple[int, list[str]]], tmp_path: Path
) -> None:
    for values, why in (
        ("vision.score_min=7", "score_min"),
        ("node.id=gate-3", "not of ward-7/gate-2"),
        ("node.place=" + "x" * 50_000, "40 KiB at most"),
    ):
        with pytest.raises(ConfigError, match=why):
            give(values, whole=True)
    book = SettingsBook(engine_in(tmp_path))
    book.open()
    assert book.wanted() == []
    book.close()


def test_the_settings_of_the_card_are_known_where_the_sites_register_is(
    world: World, settings: StationSettings, tmp_path: Path, node_toml: str
) -> None:
    kit = tmp_path / "site/nodes/gate-2"
    kit.mkdir(parents=True)
    (kit / "node.toml").write_text(node_toml, encoding="utf-8")
    with_site = msgspec.structs.replace(
        settings, station=msgspec.structs.replace(settings.station, register=str(tmp_path / "site"))
    )
    world.post.start()
    world.run(40)
    configure.configure(
        with_site,
        "gate-2",
        file=None,
        values=["vision.score_min=0.3"],
        revision=None,
        wait_s=0,
        as_json=True,
        clock=world,
        out=lambda _: None,
    )
    world.run(5)
    assert published(world)[0].toml == node_toml.replace("0.4", "0.3")
    world.run(120)
    book = SettingsBook(engine_in(tmp_path))
    book.open()
    assert book.text("gate-2", 1) == node_toml.replace("0.4", "0.3")
    for number in range(2, 40):  # years of changes
        book.desire("gate-2", wire.Desired(revision=number, toml="x", time="2026-11-22T00:00:00Z"), asked_utc_ns=1)
    assert book.text("gate-2", 1) is None and book.text("gate-2", 39) == "x"
    book.close()
