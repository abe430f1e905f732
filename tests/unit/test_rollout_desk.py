"""The station's worker and a rollout: durable, on record, and through a kill of the station at any moment of it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import fleet, wire
from agent.clock import uuid7_maker
from agent.errors import ConfigError
from agent.remote import Announced
from agent.station import rings
from agent.station.db.engine import open_engine
from agent.station.main import BrokerSettings, DeskSettings, StationSettings
from agent.station.orders import OrderBook
from agent.station.reader import Reader
from agent.station.rollout import Has, Rules, State
from agent.station.rollout_desk import RolloutDesk, fit
from agent.station.rollouts import KEPT_MAX
from agent.station.signing import Signer
from agent.station.store import StationStore
from agent.station.worker import StationWorker
from agent.types import NS
from agent.uplink import Hello, Received
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.unit.test_orders import KEY
from tests.unit.test_uplink import beat

NODES = ("cam-1", "cam-2", "cam-3")
BUNDLE = Announced(42, "https://files.example/42.zip", 1000, "a" * 64)


class Killed(BaseException):
    """As kill -9: nothing of ours catches it."""


class Node:
    """A post on the broker: installs what it is told, and says so in its heartbeat."""

    session = 3
    outbox_rows = 0

    def __init__(self, name: str, world: World) -> None:
        self.name, self.clock = name, world.clock
        self.topics = wire.Topics("ward-7", name)
        self.transport = FakeTransport(brokers=[world.broker], clock=world.clock)
        self.transport.connect(world.broker.address, Hello(name, ((self.topics.commands, 1),)))
        self.release = wire.ReleaseState(number=41)
        self.good, self.there, self.recording = True, True, True
        self.got: list[wire.Command] = []

    def live(self) -> None:
        for happening in self.transport.poll(0.0):
            if isinstance(happening, Received):
                command = wire.decode(happening.payload, wire.Command)
                happening.ack()
                self.got.append(command)
                if self.good:
                    self.release = wire.ReleaseState(number=42)
                else:
                    self.release = wire.ReleaseState(number=41, tried=42, phase="rolled-back", why="no frames")
                reply = wire.Reply(id=command.id, state="done", result={"summary": "staged"})
                self.transport.publish(self.topics.reply(command.id), wire.encode(reply), qos=1)
        if self.there:
            told = msgspec.structs.replace(
                beat(self, self.clock),  # type: ignore[arg-type]
                node=self.name,
                release=self.release,
                camera=wire.CameraState(name="x", fps=5, frameagems=40, frames=9, restarts=0),
                recording=wire.RecordingState(
                    recording=self.recording, segments=1, bytes=1, oldest=None, droppedpackets=0
                ),
            )
            self.transport.publish(self.topics.heartbeat, wire.encode(told), qos=0)


class World:
    """A station that may be killed, its folder, and three posts."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.clock, self.database = folder, FakeClock(), database
        self.broker = FakeBroker(clock=self.clock)
        key = folder / "hq.pem"
        key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.settings = StationSettings(
            station=DeskSettings(
                site="ward-7", id="hq", data=str(folder), database=database.setting, command_key=str(key)
            ),
            broker=BrokerSettings(brokers=("mqtt://127.0.0.1:1",)),
        )
        self.new_id = uuid7_maker(self.clock)
        self.start()
        self.nodes = {name: Node(name, self) for name in NODES}
        self.run(5)

    def start(self) -> None:
        self.store = StationStore(
            self.folder,
            clock=self.clock,
            site="ward-7",
            database=self.database.setting,
            free_bytes=lambda _: 1 << 40,
        )
        self.book = OrderBook(open_engine(self.database.url, pooled=False))
        desk = self.settings.station
        self.worker = StationWorker(
            store=self.store,
            transport=FakeTransport(brokers=[self.broker], clock=self.clock),
            clock=self.clock,
            rng=random.Random(1),
            site="ward-7",
            station="hq",
            brokers=[self.broker.address],
            wait_s_max=0.0,
            orders=self.book,
            rollouts=RolloutDesk(
                store=self.store,
                orders=self.book,
                clock=self.clock,
                signer=Signer(site="ward-7", key=desk.command_key, days=desk.order_days),
                new_id=self.new_id,
            ),
        )
        self.worker.open()

    def restart(self) -> None:
        self.worker.close()
        self.start()

    def run(self, seconds: float) -> None:
        end_ns = self.clock.boot_ns() + round(seconds * NS)
        while self.clock.boot_ns() < end_ns:
            self.worker.step(self.clock.boot_ns() / NS)
            if self.clock.boot_ns() // NS % 10 < 1:
                for node in self.nodes.values() if hasattr(self, "nodes") else ():
                    node.live()
            self.clock.advance(1.0)

    def ask(self, verb: str, body: msgspec.Struct) -> str:
        """As `wardpost rollout` does, from another process."""
        request_id = self.new_id()
        book = OrderBook(open_engine(self.database.url, pooled=False))
        book.open()
        book.ask(request_id, verb, msgspec.json.encode(body).decode())
        book.close()
        return request_id

    def answer(self, request_id: str) -> dict[str, object]:
        found = self.book.request(request_id)
        assert found is not None and found.answer is not None
        told: dict[str, object] = json.loads(found.answer)
        return told

    def begin(self, *, soak_s: float = 30.0) -> str:
        file = rings.RingsFile(
            ring=(
                rings.RingSettings(name="bench", nodes=("cam-1",)),
                rings.RingSettings(name="rest", nodes=("*",)),
            ),
            soak_s=soak_s,
        )
        wanted, rules = rings.wanted(file, NODES)
        start = rings.Start(**BUNDLE.args(), rings=wanted, rules=rules, by="Minh")
        return self.ask("start", start)

    @property
    def told(self) -> dict[str, int]:
        return {name: len(node.got) for name, node in self.nodes.items()}

    def state(self) -> State | None:
        now = self.store.rollout()
        return None if now is None else now.state

    def words(self) -> str:
        said: list[str] = []
        assert fleet.status(self.settings, as_json=False, out=said.append) == 0
        return said[0]


@pytest.fixture
def world(tmp_path: Path, database: Database) -> Iterator[World]:
    made = World(tmp_path, database)
    yield made
    made.worker.close()


def test_a_release_goes_through_its_rings_and_each_step_is_on_record(world: World) -> None:
    assert world.words() == "there was no rollout"
    request = world.begin()
    world.run(15)
    assert world.answer(request) == {"ok": True, "text": "rollout of release 42 is started by Minh"}
    world.run(10)
    assert world.told == {"cam-1": 1, "cam-2": 0, "cam-3": 0}
    world.run(200)
    assert world.state() is State.DONE and world.told == dict.fromkeys(NODES, 1)
    assert world.nodes["cam-2"].got[0].args == BUNDLE.args()
    words = world.words()
    for step in (
        "started by Minh",
        "cam-1: is told",
        "cam-1: confirmed",
        "ring bench is good: 1 of 1 confirmed; ring rest begins",
        "cam-3: confirmed",
        "done: 3 of 3 posts confirmed",
    ):
        assert step in words
    assert "rest (over): 2 posts: 2 confirmed" in words


def test_a_bad_release_stops_a_person_goes_on_and_ends_it(world: World) -> None:
    world.nodes["cam-1"].good = False
    world.begin()
    world.run(100)
    assert world.state() is State.STOPPED and world.told == {"cam-1": 1, "cam-2": 0, "cam-3": 0}
    assert "stopped: ring bench: 1 of 1 failed" in world.words() and "no frames" in world.words()
    again = world.ask("pause", rings.Act())
    world.run(5)
    assert world.answer(again) == {"ok": False, "text": "it is stopped already"}
    world.restart()
    world.run(30)
    assert world.state() is State.STOPPED, "a new start of the station is no permission"
    resumed = world.ask("resume", rings.Act(by="Lan"))
    world.run(5)
    assert world.answer(resumed)["text"] == "resumed by Lan"
    assert world.state() is State.STOPPED and "only 0 of 1 confirmed" in world.words(), "nobody has proved it"
    # Its successor may begin.
    for node in world.nodes.values():
        node.good, node.release = True, wire.ReleaseState(number=41)
    world.run(15)  # they say so
    world.begin()
    world.run(300)
    assert world.state() is State.DONE


def test_what_cannot_be_done_is_answered_with_the_reason(world: World) -> None:
    for verb in ("pause", "resume", "stop"):
        request = world.ask(verb, rings.Act())
        world.run(5)
        assert world.answer(request) == {"ok": False, "text": "there is no rollout that is not done"}
    unknown = world.ask("start", rings.Act())
    world.run(5)
    assert "rollout start" in str(world.answer(unknown)["text"])
    Path(world.settings.station.command_key).unlink()
    request = world.begin()
    world.run(5)
    assert "station.command_key" in str(world.answer(request)["text"]) and world.state() is None
    world.run(20)


def test_two_rollouts_at_once_are_refused_and_a_pause_holds_it(world: World) -> None:
    world.nodes["cam-1"].there = False
    world.run(200)  # dark: it cannot be told
    world.begin()
    world.run(10)
    second = world.begin()
    paused = world.ask("pause", rings.Act(by="Minh"))
    world.run(5)
    assert "stop it first" in str(world.answer(second)["text"]) and world.answer(paused)["ok"]
    world.nodes["cam-1"].there = True
    world.run(100)
    assert world.told["cam-1"] == 0
    world.ask("resume", rings.Act())
    world.run(30)
    assert world.told["cam-1"] == 1


@pytest.mark.parametrize("name", ["save_rollout", "queue", "settle", "settled"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_station_that_is_killed_at_any_step_goes_on_and_tells_each_post_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, name: str, when: str, nth: int
) -> None:
    kind = {"save_rollout": StationStore, "settled": StationStore, "queue": Signer, "settle": OrderBook}[name]
    world = World(tmp_path, database)
    real, count = getattr(kind, name), [0]

    def dying(*args: object, **more: object) -> object:
        count[0] += 1
        if when == "before" and count[0] == nth:
            raise Killed
        result = real(*args, **more)
        if when == "after" and count[0] == nth:
            raise Killed
        return result

    monkeypatch.setattr(kind, name, dying)
    request = world.begin()
    killed = 0
    for _ in range(60):
        done = world.state() is State.DONE
        try:
            world.run(60 if done else 15)
        except Killed:
            killed += 1
            world.restart()
            continue
        if done:  # and a minute later nobody has been told again
            break
    assert killed == (1 if count[0] >= nth else 0)
    assert world.state() is State.DONE and world.told == dict.fromkeys(NODES, 1)
    assert world.answer(request)["ok"] is True
    assert world.words().count("is started by Minh") == 1
    world.worker.close()


def test_soaking_is_counted_over_a_restart_and_no_faster(world: World) -> None:
    world.begin(soak_s=300.0)
    world.run(200)
    before = world.store.rollout()
    assert before is not None and 60 <= before.soaked_s <= 200
    world.clock.advance(86_400)  # the station was off for a day
    world.restart()
    world.run(5)
    after = world.store.rollout()
    assert after is not None and after.ring == 0 and after.soaked_s < 220


def test_frames_and_footage_and_the_privacy_switch(world: World) -> None:
    plain = beat(world.nodes["cam-1"], world.clock)  # type: ignore[arg-type]
    camera = wire.CameraState(name="x", fps=5, frameagems=40, frames=9, restarts=0)
    recording = wire.RecordingState(recording=True, segments=1, bytes=1, oldest=None, droppedpackets=0)
    change = msgspec.structs.replace
    good = change(plain, camera=camera, recording=recording)
    assert fit(good)
    assert not fit(change(good, camera=None)) and not fit(change(good, recording=None))
    assert not fit(change(good, camera=change(camera, frameagems=31_000)))
    assert not fit(change(good, recording=change(recording, recording=False)))
    assert fit(change(good, camera=None, recording=change(recording, recording=False, privacyleft_s=60.0)))


def test_the_command_waits_for_the_station_and_says_when_there_is_none(world: World, tmp_path: Path) -> None:
    file = tmp_path / "rings.toml"
    file.write_text('[[ring]]\nname = "all"\nnodes = ["cam-1", "cam-9"]\n')
    said: list[str] = []
    code = fleet.start(world.settings, BUNDLE, rings_file=file, clock=world.clock, as_json=False, out=said.append)
    assert code == 1 and "is `wardpost station` running" in said[-1]
    assert "never heard here, told when they are: cam-9" in said[0]
    file.write_text('[[ring]]\nname = "all"\nnodes = ["cam-1", "cam-1"]\n')
    with pytest.raises(ConfigError, match="--rings: ring all: cam-1 is in ring all already"):
        fleet.start(world.settings, BUNDLE, rings_file=file, clock=world.clock, as_json=False, out=said.append)
    file.write_text('[[ring]]\nname = "all"\nnode = ["cam-1"]\n')
    with pytest.raises(ConfigError, match="ring"):
        fleet.start(world.settings, BUNDLE, rings_file=file, clock=world.clock, as_json=False, out=said.append)


def test_the_example_of_rings_is_one_and_names_every_limit() -> None:
    path = Path(__file__).resolve().parents[2] / "deploy/rings.example.toml"
    text = path.read_text(encoding="utf-8")
    from agent.config import load

    assert load(path, rings.RingsFile).ring[-1].nodes == ("*",)
    defaults = msgspec.structs.asdict(rings.RingsFile(ring=(rings.RingSettings(name="a", nodes=("b",)),)))
    for name, value in defaults.items():
        if name != "ring":
            assert f"# {name} = {value}" in text
    assert {name: defaults[name] for name in Rules.__struct_fields__} == msgspec.structs.asdict(Rules())


# -- the store ------------------------------------------------------------------------------------------------------


def test_rollouts_are_kept_whole_and_only_the_newest(tmp_path: Path, database: Database) -> None:
    store = StationStore(
        tmp_path, clock=FakeClock(), site="ward-7", database=database.setting, free_bytes=lambda _: 1 << 40
    )
    store.open()
    wanted, rules = rings.wanted(
        rings.RingsFile(ring=(rings.RingSettings(name="a", nodes=("n1", "n2")),)), ["n1", "n2"]
    )
    start = rings.Start(**BUNDLE.args(), rings=wanted, rules=rules)
    for n in range(KEPT_MAX + 3):
        made = rings.begun(start, f"r{n}")
        store.save_rollout(made, made.posts, [])
        assert store.rollout() == made
    moved = msgspec.structs.replace(made.posts[1], has=Has.FAILED, why="x")
    now = msgspec.structs.replace(made, posts=(made.posts[0], moved), state=State.STOPPED)
    store.save_rollout(now, [moved], [])
    store.close()
    store.open()
    assert store.rollout() == now
    store.close()
    assert database.rows("select count(*) from rollout") == [(KEPT_MAX,)]
    assert database.rows("select count(*) from rollout_post") == [(2 * KEPT_MAX,)]
    reader = Reader(tmp_path, database=database.setting)
    reader.open()
    found = reader.rollout()
    assert found is not None and found[1] == now
    reader.close()
