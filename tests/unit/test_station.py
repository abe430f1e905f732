"""The receiving desk: what it believes, what it keeps, and that it acknowledges nothing that is not on its disk."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from agent import wire
from agent.config import load
from agent.errors import ConfigError, Corrupt, Transient
from agent.station import worker as worker_module
from agent.station.db import tables
from agent.station.db.engine import open_engine, writing
from agent.station.db.upsert import Upsert
from agent.station.intake import EventIn, take
from agent.station.main import Station, StationSettings
from agent.station.reader import Reader
from agent.station.states import NodeSeen, NodeState, age_s, in_turn, judge
from agent.station.store import FREE_BYTES_MIN, REJECTS_MAX, StationStore
from agent.station.worker import StationWorker
from agent.types import NS
from agent.uplink import Hello, Received
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.unit.test_uplink import beat

EPOCH = "01900000-0000-7000-8000-000000000001"
ROOT = Path(__file__).resolve().parents[2]


def uid(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012x}"


def event(sequence: int, *, node: str = "gate-2", epoch: str = EPOCH, id_: str = "") -> wire.CloudEvent:
    return wire.CloudEvent(
        id=id_ or uid(sequence + hash_of(node)),
        source=f"wardpost/ward-7/{node}",
        type="wardpost.person",
        subject=uid(99),
        time="2026-11-21T07:02:11.250Z",
        epoch=epoch,
        sequence=sequence,
        session=1,
        bootid="f" * 32,
        monons=1,
        timeerrms=3000,
        data=wire.EventData(incident=uid(99), phase="started", severity="alert", summary="A person at the gate"),
    )


def hash_of(node: str) -> int:
    return int.from_bytes(node.encode()[-4:], "big")


class Beat:
    """What `beat` asks of a store."""

    session = 4
    outbox_rows = 0


@dataclass
class Scene:
    clock: FakeClock
    broker: FakeBroker
    node: FakeTransport
    store: StationStore
    worker: StationWorker
    folder: Path
    free: list[int]
    database: Database

    def send(self, *events: wire.CloudEvent, node: str = "gate-2") -> None:
        for one in events:
            self.node.publish(wire.Topics("ward-7", node).event("person"), wire.encode(one), qos=1)

    def run(self, seconds: float = 1.0) -> list[wire.Receipt]:
        """Lets the station work, and returns the receipts that the node got."""
        for _ in range(round(seconds / 0.25)):
            self.worker.step(self.clock.boot_ns() / NS)
            self.clock.advance(0.25)
        got = [h for h in self.node.poll(0) if isinstance(h, Received)]
        return [wire.decode(message.payload, wire.Receipt) for message in got]

    def sequences(self) -> list[int]:
        return [s for (s,) in self.database.rows("select sequence from event order by n")]

    def rejects(self) -> list[str]:
        return [reason for (reason,) in self.database.rows("select reason from reject order by n")]


@pytest.fixture
def scene(tmp_path: Path, database: Database) -> Iterator[Scene]:
    clock = FakeClock()
    broker = FakeBroker(clock=clock)
    free = [1 << 40]
    store = StationStore(
        tmp_path,
        clock=clock,
        site="ward-7",
        database=database.setting,
        nodes_max=3,
        streams_per_node_max=2,
        free_bytes=lambda _: free[0],
    )
    worker = StationWorker(
        store=store,
        transport=FakeTransport(brokers=[broker], clock=clock),
        clock=clock,
        rng=random.Random(1),
        site="ward-7",
        station="hq",
        brokers=[broker.address],
        wait_s_max=0.0,
    )
    node = FakeTransport(brokers=[broker], clock=clock)
    node.connect(broker.address, Hello("gate-2", (("wardpost/v1/ward-7/+/ack", 1),)))
    worker.open()
    made = Scene(clock, broker, node, store, worker, tmp_path, free, database)
    made.run()
    yield made
    worker.close()


def test_what_is_stored_is_receipted_in_ranges_with_the_head(scene: Scene) -> None:
    scene.send(event(1), event(2), event(4))
    [receipt] = scene.run()
    assert (receipt.stored, receipt.head, receipt.epoch) == ([(1, 2), (4, 4)], 2, EPOCH)
    scene.send(event(3))
    [receipt] = scene.run()
    assert (receipt.stored, receipt.head) == ([(3, 3)], 4)
    assert sorted(scene.sequences()) == [1, 2, 3, 4]


def test_what_comes_twice_is_stored_once_and_receipted_twice(scene: Scene) -> None:
    scene.send(event(1))
    assert len(scene.run()) == 1
    scene.send(event(1), event(1))
    assert [r.stored for r in scene.run()] == [[(1, 1)]]
    assert scene.sequences() == [1]


def test_a_station_that_cannot_store_acknowledges_nothing(scene: Scene) -> None:
    scene.free[0] = FREE_BYTES_MIN - 1
    acks: list[int] = []
    scene.send(event(1))
    [message] = [h for h in scene.worker._transport.poll(0) if isinstance(h, Received)]
    spied = Received(message.topic, message.payload, ack=lambda: acks.append(1))
    scene.worker._desk([spied])
    assert (acks, scene.sequences()) == ([], [])
    assert not scene.broker.connected("wardpost_ward-7_station_hq")  # so that the broker does not go on giving
    assert scene.run(30) == []
    scene.free[0] = 1 << 40
    scene.run(30)
    scene.send(event(1))  # the node still has it, and sends it again
    assert [r.stored for r in scene.run()] == [[(1, 1)]]


def test_the_commit_comes_before_the_acknowledgement(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug of the design, acknowledge before commit, would be seen here."""
    seen: list[tuple[str, int]] = []
    payload = wire.encode(event(1))
    topic = wire.Topics("ward-7", "gate-2").event("person")
    published = scene.worker._transport.publish

    def publish(topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        seen.append(("receipt", len(scene.sequences())))
        return published(topic, payload, qos=qos, retain=retain)

    monkeypatch.setattr(scene.worker._transport, "publish", publish)
    scene.worker._desk([Received(topic, payload, ack=lambda: seen.append(("puback", len(scene.sequences()))))])
    assert seen == [("puback", 1), ("receipt", 1)]


def test_the_topic_is_the_identity(scene: Scene) -> None:
    scene.send(event(1, node="gate-3"), node="gate-2")
    assert scene.run() == []
    assert scene.sequences() == []
    assert "source says 'wardpost/ward-7/gate-3'" in scene.rejects()[0]


def test_rubbish_is_counted_and_listed_and_stops_nobody(scene: Scene) -> None:
    topic = wire.Topics("ward-7", "gate-2").event("person")
    for junk in (b"", b"{", b"\xff", b"{}", b"[1]", b"x" * 70_000, b"[" * 60_000):
        scene.node.publish(topic, junk, qos=1)
    scene.broker.publish("wardpost/v1/ward-7/gate-2/status", b"nonsense")
    scene.send(event(1))
    assert [r.stored for r in scene.run()] == [[(1, 1)]]
    assert scene.store.rejected == 8
    assert len(scene.rejects()) == 8


@pytest.mark.parametrize("session", [-(2**63) - 1, 2**63, 10**30])
def test_a_number_that_no_database_can_hold_ends_nobodys_station(scene: Scene, session: int) -> None:
    body = wire.encode(beat(Beat(), scene.clock)).replace(b'"session":4', b'"session":%d' % session)  # type: ignore[arg-type]
    scene.node.publish("wardpost/v1/ward-7/gate-2/heartbeat", body, qos=0)
    for error in (-(10**30), -1, 10**30):
        strange = wire.encode(event(1)).replace(b'"timeerrms":', b'"timeerrms":%d,"x":' % error)
        assert b"%d" % error in strange
        scene.node.publish(wire.Topics("ward-7", "gate-2").event("person"), strange, qos=1)
    scene.run()
    scene.send(event(2))
    assert scene.run()[-1].stored == [(2, 2)]


def test_a_message_of_a_newer_form_is_kept_and_receipted(scene: Scene) -> None:
    """Refusing it would make its node send it for ever."""
    body = wire.encode(event(1)).replace(b'"phase":"started"', b'"phase":"paused"')
    scene.node.publish(wire.Topics("ward-7", "gate-2").event("person"), body, qos=1)
    assert [r.stored for r in scene.run()] == [[(1, 1)]]
    assert scene.database.rows("select incident, body from event") == [(None, body)]


def test_a_sequence_number_used_twice_is_loud_and_not_receipted(scene: Scene) -> None:
    scene.send(event(1))
    scene.run()
    scene.send(event(1, id_=uid(777)))
    assert scene.run() == []
    assert "taken by another event" in scene.rejects()[0]


def test_a_new_store_of_a_node_starts_again_at_one(scene: Scene) -> None:
    other = "01900000-0000-7000-8000-000000000002"
    scene.send(event(1), event(1, epoch=other, id_=uid(500)))
    assert sorted((r.epoch, r.head) for r in scene.run()) == [(EPOCH, 1), (other, 1)]
    third = "01900000-0000-7000-8000-000000000003"
    scene.send(event(1, epoch=third, id_=uid(501)))
    assert scene.run() == []
    assert "stores of this node" in scene.rejects()[0]


def test_strangers_beyond_the_bound_are_refused(scene: Scene) -> None:
    for number in range(5):
        scene.send(event(1, node=f"n-{number}"), node=f"n-{number}")
    assert len(scene.run()) == 3
    assert len([r for r in scene.rejects() if "nodes are known already" in r]) == 2


def test_the_list_of_rejects_is_bounded(scene: Scene) -> None:
    topic = wire.Topics("ward-7", "gate-2").event("person")
    for _ in range(REJECTS_MAX + 400):
        scene.node.publish(topic, b"{", qos=1)
    scene.run(5)
    assert len(scene.rejects()) == REJECTS_MAX
    assert scene.store.rejected == REJECTS_MAX + 400


def test_everything_survives_a_restart_of_the_station(scene: Scene) -> None:
    scene.send(*[event(n) for n in range(1, 30)])
    scene.run()
    scene.worker.close()
    scene.worker.open()
    scene.run()
    scene.send(event(30), event(5))
    [receipt] = scene.run()
    assert (receipt.stored, receipt.head) == ([(5, 5), (30, 30)], 30)


def test_old_events_make_room_and_are_counted(tmp_path: Path, database: Database) -> None:
    clock = FakeClock()
    store = StationStore(tmp_path, clock=clock, site="ward-7", database=database.setting, event_rows_max=10)
    store.open()
    from agent.station.store import Batch

    for n in range(1, 31):
        store.commit(Batch([EventIn("gate-2", EPOCH, n, uid(n), "person", uid(9), b"{}")]))
    store.close()
    assert database.rows("select min(sequence), max(sequence) from event") == [(21, 30)]
    assert database.rows("select value from meta where key = 'deleted'") == [("20",)]


def test_two_stations_do_not_share_a_folder_and_a_missing_one_is_not_made(tmp_path: Path) -> None:
    clock = FakeClock()
    first = StationStore(tmp_path, clock=clock, site="ward-7")
    first.open()
    with pytest.raises(ConfigError, match="in use by another station"):
        StationStore(tmp_path, clock=clock, site="ward-7").open()
    first.close()
    with pytest.raises(ConfigError, match="of site 'ward-7'"):
        StationStore(tmp_path, clock=clock, site="ward-8").open()
    with pytest.raises(ConfigError, match="not a folder"):
        StationStore(tmp_path / "missing", clock=clock, site="ward-7").open()


def test_a_file_that_is_no_database_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "station.db").write_bytes(b"not a database, however hard one looks" * 100)
    with pytest.raises(Corrupt, match=r"station\.db"):
        StationStore(tmp_path, clock=FakeClock(), site="ward-7").open()


# -- who is there -------------------------------------------------------------------------------------------------------


def seen(said: str = "online") -> NodeSeen:
    return NodeSeen("gate-2", "", said, "b" * 32, 100 * NS, 1000 * NS, "online", 0)


def test_silence_has_degrees() -> None:
    states = [judge(seen(), age, late_s=75, dark_s=180) for age in (0, 74, 75, 179, 180, 1e9)]
    assert states == [NodeState.ONLINE] * 2 + [NodeState.LATE] * 2 + [NodeState.DARK] * 2
    assert judge(seen("offline"), 5, late_s=75, dark_s=180) is NodeState.OFFLINE
    assert judge(seen("offline"), 500, late_s=75, dark_s=180) is NodeState.DARK


def test_age_is_boot_time_within_one_boot_and_never_negative() -> None:
    assert age_s(seen(), boot_id="b" * 32, boot_ns=130 * NS, utc_ns=0) == 30
    assert age_s(seen(), boot_id="c" * 32, boot_ns=5 * NS, utc_ns=1060 * NS) == 60
    assert age_s(seen(), boot_id="c" * 32, boot_ns=5 * NS, utc_ns=0) == 0


def test_a_node_that_falls_silent_and_comes_back_is_on_record(scene: Scene) -> None:
    def hello() -> None:
        body = wire.encode(beat(Beat(), scene.clock))  # type: ignore[arg-type]
        scene.node.publish("wardpost/v1/ward-7/gate-2/heartbeat", body, qos=0)

    hello()
    scene.run(100)
    scene.run(100)
    hello()
    scene.run(5)
    reader = Reader(scene.folder, database=scene.database.setting)
    reader.open()
    assert [state for _, _, state, _, _ in reader.changes_after(0, 9)] == ["late", "dark", "online"]
    reader.close()


def test_a_city_of_nodes_is_looked_through_in_a_small_part_of_the_time(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[float] = []

    def slow() -> list[NodeSeen]:
        began.append(scene.clock.boot_ns() / NS)
        scene.clock.advance(1.5)  # 70,000 rows
        return []

    scene.run(5)
    monkeypatch.setattr(scene.store, "nodes", slow)
    scene.run(120)
    pauses = [after - before for before, after in pairwise(began)]
    assert len(began) >= 3 and all(30 <= pause < 34 for pause in pauses), (
        "20 times what one takes, and at most two more"
    )
    scene.send(event(1))
    assert [receipt.head for receipt in scene.run(1)] == [1], "what comes in does not wait for it"

    def away() -> list[NodeSeen]:
        began.append(scene.clock.boot_ns() / NS)
        scene.clock.advance(40)
        raise Transient("the database is away")

    monkeypatch.setattr(scene.store, "nodes", away)
    scene.run(40)
    before = len(began)
    scene.run(120)
    assert len(began) - before >= 3, "who could not look looks again at once"


def test_a_city_that_falls_silent_at_once_is_on_record_post_by_post(scene: Scene) -> None:
    """What comes in does not wait for all of them. PostgreSQL takes no more than 65,535 values in a statement."""
    posts = [f"post-{n:05d}" for n in range(66_000 if scene.database.kind == "postgresql" else 11_000)]
    scene.run(2)
    now, engine = scene.clock, open_engine(scene.database.url, pooled=False)
    with writing(engine, "make a city") as db:
        Upsert(tables.node, lambda made: made).many(db, [
            {"node": name, "said": "offline", "reason": f"why {n}", "seen_boot_id": now.boot_id,
             "seen_ns": now.boot_ns(), "seen_utc_ns": now.utc().utc_ns, "state_since_utc_ns": 0}
            for n, name in enumerate(posts)
        ])  # fmt: skip
    engine.dispose()
    for n in range(1, 11):
        scene.run(3)
        scene.send(event(n))
        assert [one.head for one in scene.run()] == [n], "what comes in goes on"
    states = "select state, count(*) from node where node <> 'gate-2' group by state"
    assert scene.database.rows(states) == [("offline", len(posts))]
    assert scene.database.rows("select max(n), count(*) from change") == [(len(posts), 10_000)], (
        "each once, the newest kept"
    )
    told = scene.database.rows("select node, state, reason from change")
    assert all((state, reason) == ("offline", f"why {int(name[5:])}") for name, state, reason in told)


def test_posts_that_come_and_go_without_end_keep_no_other_post_from_being_noted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as are noted at once flap at each look, and have the first names. The others said goodbye once."""
    monkeypatch.setattr(worker_module, "STATES_MAX", 4)
    posts = [f"post-{n:02}" for n in range(13)]
    scene.run(2)
    now, engine = scene.clock, open_engine(scene.database.url, pooled=False)
    row = {"seen_boot_id": now.boot_id, "seen_ns": now.boot_ns(), "seen_utc_ns": now.utc().utc_ns}
    with writing(engine, "make a street") as db:
        Upsert(tables.node, lambda made: made).many(
            db, [row | {"node": one, "said": "offline", "state": "online", "state_since_utc_ns": 0} for one in posts]
        )
    left: list[tuple[str]] = [(one,) for one in posts]
    looks = 0
    while left and looks < 8:
        looks += 1
        with writing(engine, "they flap") as db:
            flap = tables.node.c.node.in_(posts[:4])
            judged = {"online": "offline", "offline": "online"}
            for name, state in db.execute(select(tables.node.c.node, tables.node.c.state).where(flap)).all():
                said = {
                    "said": judged[state],
                    "seen_ns": scene.clock.boot_ns(),
                    "seen_utc_ns": scene.clock.utc().utc_ns,
                }
                db.execute(update(tables.node).where(tables.node.c.node == name).values(**said))
        scene.run(2)
        left = scene.database.rows("select node from node where node >= 'post-04' and state <> 'offline'")
    engine.dispose()
    assert not left, f"after {looks} looks"
    noted = dict(scene.database.rows("select node, count(*) from change group by node"))
    assert set(noted) >= set(posts) and noted["post-12"] == 1, "each once, and the others come to their turn, too"


def test_whose_turn_it_is_goes_around() -> None:
    changes = [(name, "dark", 0) for name in ("d", "b", "a", "c")]
    assert [one[0] for one in in_turn(changes, "", 3)] == ["a", "b", "c"]
    assert [one[0] for one in in_turn(changes, "c", 3)] == ["d", "a", "b"]
    assert [one[0] for one in in_turn(changes, "x", 9)] == ["a", "b", "c", "d"]
    assert in_turn([], "c", 3) == []


def test_the_will_of_an_earlier_session_is_stale(scene: Scene) -> None:
    def status(state: str, session: int) -> None:
        message = wire.Status(
            state="online" if state == "online" else "offline", node="gate-2", bootid="f" * 32, session=session
        )
        scene.broker.publish("wardpost/v1/ward-7/gate-2/status", wire.encode(message), retain=True)

    status("online", 5)
    status("offline", 4)
    scene.run(3)
    assert [n.said for n in scene.store.nodes()] == ["online"]
    status("offline", 5)
    scene.run(3)
    assert [n.said for n in scene.store.nodes()] == ["offline"]


# -- pure decoding ------------------------------------------------------------------------------------------------------


@given(st.text(max_size=80), st.binary(max_size=300))
def test_no_message_whatever_breaks_the_intake(topic: str, payload: bytes) -> None:
    for t in (topic, "wardpost/v1/ward-7/gate-2/event/person", "wardpost/v1/ward-7/gate-2/heartbeat"):
        with pytest.raises(Corrupt):
            take(t, payload, site="ward-7")


def test_another_site_is_another_stations_business() -> None:
    with pytest.raises(Corrupt, match="of site 'ward-8'"):
        take("wardpost/v1/ward-8/gate-2/event/person", wire.encode(event(1)), site="ward-7")


def test_the_example_configuration_is_a_station(tmp_path: Path) -> None:
    settings = load(ROOT / "deploy" / "station.example.toml", StationSettings)
    Station(settings, clock=FakeClock(), rng=random.Random(1)).transport.close()


# -- batches -------------------------------------------------------------------------------------------------------------


def batch(*parts: bytes) -> bytes:
    return b"[" + b",".join(parts) + b"]"


def test_a_batch_is_stored_as_its_events_would_be_alone(scene: Scene) -> None:
    scene.node.publish(
        wire.Topics("ward-7", "gate-2").events, batch(*(wire.encode(event(n)) for n in (2, 1, 3))), qos=1
    )
    [receipt] = scene.run()
    assert (receipt.stored, receipt.head) == ([(1, 3)], 3)
    rows = scene.database.rows("select sequence, kind, body from event order by sequence")
    assert rows == [(n, "person", wire.encode(event(n))) for n in (1, 2, 3)]
    scene.send(event(2))
    assert [r.stored for r in scene.run()] == [[(2, 2)]], "known, whichever way it came"
    assert len(scene.sequences()) == 3


def test_a_bad_part_of_a_batch_is_refused_and_the_good_ones_are_kept(scene: Scene) -> None:
    good = wire.encode(event(1))
    newer = wire.encode(event(2)).replace(b'"started"', b'"paused"')  # a phase this station does not know: kept
    bad = [
        wire.encode(event(3, node="gate-3")),
        b"1",
        b"[[[]]]",
        b"{}",
        newer.replace(b"wardpost.person", b"something.else"),
        wire.encode(event(1, id_=uid(77))),  # a second event of that number
        wire.encode(event(5, id_=event(1).id)),  # a second number of that event
    ]
    scene.node.publish(wire.Topics("ward-7", "gate-2").events, batch(good, *bad[:3], newer, *bad[3:], good), qos=1)
    [receipt] = scene.run()
    assert receipt.stored == [(1, 2)]
    assert sorted(scene.sequences()) == [1, 2]
    told = scene.rejects()
    assert told[0].startswith("5 of a batch of 10, the first: source says 'wardpost/ward-7/gate-3'")
    assert len(told) == 3, "one line for what cannot be read, and one for each that contradicts what is stored"


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "batch: "),
        (b"{}", "batch: Expected `array`"),
        (b"[]", "of length >= 1"),
        (batch(*[b"{}"] * (wire.BATCH_EVENTS_MAX + 1)), f"of length <= {wire.BATCH_EVENTS_MAX}"),
        (b"[" * 30_000, "batch: "),
        (b"[" + b"[" * 20_000 + b"]" * 20_000 + b"]", ""),
        (batch(b'"' + b"x" * 70_000 + b'"'), "the limit is 65536"),
        (b'["\xff\xfe"]', ""),
    ],
)
def test_what_is_no_batch_is_refused_whole_and_the_desk_goes_on(scene: Scene, payload: bytes, why: str) -> None:
    for topic in (wire.Topics("ward-7", "gate-2").events, wire.Topics("ward-7", "gate-2").records):
        scene.node.publish(topic, payload, qos=1)
    assert scene.run() == []
    assert len(scene.rejects()) == 2
    assert all(why in reason and len(reason) < 300 for reason in scene.rejects())
    scene.send(event(1))
    assert [r.stored for r in scene.run()] == [[(1, 1)]]
