"""The uplink: what goes out when, what empties the outbox, and which commands are obeyed."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire
from agent.clock import rfc3339, uuid7_maker
from agent.errors import ConfigError, Transient
from agent.evidence import records
from agent.store.store import Origin, OutboxRow, Store
from agent.types import NS, Event, Kind, Phase, Priority
from agent.uplink import Broker, parse_broker
from agent.uplink.commands import Drop, Judge, Refuse, Run, Verb, load_key
from agent.uplink.window import RESERVE_ROWS, START_ROWS, Window
from agent.uplink.worker import ACK_DELAY_S, ACK_ROWS_MAX, LAST_S, UplinkWorker, backoff_s
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock

NODE = wire.Topics("ward-7", "gate-2")
CLIENT = "wardpost_ward-7_gate-2"


def row(sequence: int, priority: Priority = Priority.ALERT, size: int = 700) -> OutboxRow:
    return OutboxRow(sequence, priority, "person", 1, 0, b"x" * size)


def events_in(topic: str, payload: bytes) -> list[wire.CloudEvent]:
    """What a message brings: one event, a batch of them, or none."""
    if topic == NODE.events:
        return [wire.decode(part, wire.CloudEvent) for part in wire.decode_batch(payload)]
    return [wire.decode(payload, wire.CloudEvent)] if "/event/" in topic else []


# -- the window ---------------------------------------------------------------------------------------------------------


def test_the_window_opens_with_the_stations_receipts_and_never_beyond_its_bound() -> None:
    window = Window(rows_max=50)
    outbox = [row(n, Priority.RECORD) for n in range(1, 500)]
    sent = window.select(outbox[:70], 0.0)
    assert [r.sequence for r in sent] == list(range(1, START_ROWS + 1))
    while outbox:
        low, high = sent[0].sequence, sent[-1].sequence
        outbox = [r for r in outbox if not low <= r.sequence <= high]
        window.receipt([(low, high)], 0.1)
        sent = window.select(outbox[: window.look_ahead], 0.1)
        assert window.unacknowledged <= 50
        assert len(sent) == min(50, len(outbox)) or len(sent) == 2 * (high - low + 1)


def test_bytes_bound_what_lies_in_front_of_the_next_alert() -> None:
    window = Window(rows_max=100, bytes_max=100_000)
    pictures = [row(n, Priority.THUMBNAIL, 40_000) for n in range(1, 50)]
    assert len(window.select(pictures, 0.0)) == 3  # the third crosses the bound, and is the last
    alert = row(99)
    assert window.select([alert, *pictures], 0.1) == [alert]


def test_an_alert_does_not_wait_for_a_full_window_but_alerts_are_bounded_too() -> None:
    window = Window(rows_max=10)
    window.select([row(n, Priority.RECORD) for n in range(1, 30)], 0.0)
    alerts = [row(n) for n in range(100, 200)]
    assert len(window.select(alerts, 0.1)) == RESERVE_ROWS


def test_a_silent_station_gets_one_probe_at_a_time_ever_more_seldom() -> None:
    window = Window(rows_max=100, ack_timeout_s=10, retry_s_max=60)
    outbox = [row(n, Priority.NOTICE) for n in range(1, 120)]
    window.select(outbox, 0.0)
    probes: list[tuple[int, int]] = []
    for second in range(1, 601):
        window.expire(second)
        probes += [(second, r.sequence) for r in window.select(outbox, second)]
    times = [second for second, _ in probes]
    assert times[:5] == [10, 20, 40, 80, 140]  # 10, 20, 40, 60, 60 ... seconds apart
    assert {b - a for a, b in pairwise(times[4:])} == {60}
    assert [sequence for _, sequence in probes[:3]] == [1, 2, 3]  # they take turns: one may be poison
    window.receipt([(probes[-1][1], probes[-1][1])], 601)
    assert not window.silent
    assert len(window.select(outbox, 601)) > 1


def test_a_new_alert_is_sent_once_even_to_a_silent_station() -> None:
    window = Window(rows_max=100, ack_timeout_s=10)
    old = [row(n) for n in range(1, 11)]
    window.select(old, 0.0)
    window.expire(10.0)
    window.select(old, 10.0)
    assert window.silent
    new = row(50)
    assert window.select([*old, new], 11.0) == [new]
    assert window.select([*old, new], 12.0) == []


def test_a_row_that_the_station_never_acknowledges_does_not_hold_up_the_others() -> None:
    window = Window(rows_max=20, ack_timeout_s=10)
    poison = row(1)
    window.select([poison, row(2)], 0.0)
    window.receipt([(2, 2)], 1.0)
    sendings = 0
    for second in range(2, 200):
        window.expire(second)
        sent = window.select([poison, row(1000 + second)], second)
        sendings += poison in sent
        assert [r.sequence for r in sent if r is not poison] == [1000 + second]
        window.receipt([(1000 + second, 1000 + second)], second)
    assert not window.silent
    assert 3 <= sendings <= 6


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_is_lost_every_row_is_delivered_in_the_end(data: st.DataObject) -> None:
    """Messages and receipts get lost by chance for a while, then no more: the outbox must empty."""
    window = Window(rows_max=8, ack_timeout_s=5)
    outbox = {n: row(n, data.draw(st.sampled_from(list(Priority)))) for n in range(1, 40)}
    for second in range(2000):
        window.expire(second)
        head = sorted(outbox.values(), key=lambda r: (r.priority, r.sequence))[: window.look_ahead]
        for r in window.select(head, second):
            if second > 60 or data.draw(st.booleans()):
                window.receipt([(r.sequence, r.sequence)], second)
                del outbox[r.sequence]
        assert window.unacknowledged <= 8 + RESERVE_ROWS
        assert window.due() > second  # a worker that waits until then must not spin
        if not outbox:
            return
    raise AssertionError(f"never delivered: {sorted(outbox)}")


# -- the worker on a fake broker ----------------------------------------------------------------------------------------


@dataclass
class Scene:
    """A node's uplink with everything around it in a test's hands."""

    clock: FakeClock
    store: Store
    broker: FakeBroker
    spare: FakeBroker
    transport: FakeTransport
    worker: UplinkWorker
    ran: list[dict[str, Any]] = field(default_factory=list)
    acknowledged: int = 0  # how much of broker.routed the station has looked at
    station_up: bool = True

    def commit(self, count: int = 1, priority: Priority = Priority.ALERT, kind: Kind = Kind.PERSON) -> list[int]:
        new_id = uuid7_maker(self.clock)
        events = [
            Event(new_id(), kind, Phase.STARTED, self.clock.boot_ns(), priority, "A person at the gate")
            for _ in range(count)
        ]
        sequences = self.store.commit(events)
        self.worker.notify()
        return sequences

    def run(self, seconds: float, *, step_s: float = 0.25) -> None:
        for _ in range(round(seconds / step_s)):
            self.worker.step(self.clock.boot_ns() / NS)
            self.station()
            self.clock.advance(step_s)

    def station(self) -> None:
        """Acknowledges what the broker has routed, as a station does."""
        new = self.broker.routed[self.acknowledged :]
        self.acknowledged = len(self.broker.routed)
        if self.station_up:
            for topic, payload in new:
                sequences = [event.sequence for event in events_in(topic, payload)]
                if sequences:
                    self.receipt(wire.ranges(sequences))
        self.acknowledged = len(self.broker.routed)

    def receipt(self, stored: list[tuple[int, int]], *, head: int = 0, epoch: str = "") -> None:
        receipt = wire.Receipt(station="hq", epoch=epoch or self.store.epoch, stored=stored, head=head, time=rfc3339(0))
        self.broker.publish(NODE.ack, wire.encode(receipt))

    def events(self, broker: FakeBroker | None = None) -> list[wire.CloudEvent]:
        routed = (broker or self.broker).routed
        return [event for topic, payload in routed for event in events_in(topic, payload)]

    def on(self, topic: str, kind: type[wire.M]) -> list[wire.M]:
        return [wire.decode(payload, kind) for t, payload in self.broker.routed if t.startswith(topic)]


def beat(store: Store, clock: FakeClock) -> wire.Heartbeat:
    return wire.Heartbeat(
        node="gate-2",
        bootid=clock.boot_id,
        session=store.session,
        monons=clock.boot_ns(),
        version="1",
        model="test",
        clock=wire.ClockState(utc=rfc3339(0), errms=None, source="test"),
        camera=wire.CameraState(name="none", fps=0, frameagems=None, frames=0, restarts=0),
        vision=wire.VisionState(detector="none", healthy=True, detectorruns=0, inferencems=0),
        recording=wire.RecordingState(recording=False, segments=0, bytes=0, oldest=None, droppedpackets=0),
        queue=wire.QueueState(outboxrows=store.outbox_rows, oldestage_s=None, dropped=0),
        machine=wire.MachineState(
            uptime_s=0, temperature_c=None, throttled=None, diskfreebytes=0, memoryavailablebytes=0, rssbytes=0, load1=0
        ),
    )


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    clock = FakeClock()
    store = Store(
        tmp_path / "node.db",
        clock=clock,
        new_id=uuid7_maker(clock),
        origin=Origin("ward-7", "gate-2", "Lane 12"),
        outbox_rows_max=10_000,
        event_rows_max=10_000,
    )
    store.open()
    store.start_session()
    broker, spare = FakeBroker(clock=clock), FakeBroker(clock=clock, name="spare")
    transport = FakeTransport(brokers=[broker, spare], clock=clock)
    ran: list[dict[str, Any]] = []

    def identify(args: dict[str, Any]) -> dict[str, Any]:
        ran.append(args)
        if args.get("break"):
            raise KeyError("lamp")
        if args.get("busy"):
            raise Transient("the lamp is busy")
        return {"blinks": 3}

    worker = UplinkWorker(
        store=store,
        transport=transport,
        clock=clock,
        rng=random.Random(1),
        site="ward-7",
        node="gate-2",
        place="Lane 12",
        version="1",
        brokers=[broker.address, spare.address],
        heartbeat=lambda: beat(store, clock),
        heartbeat_s=30.0,
        window_rows_max=100,
        verbs={"identify": Verb(identify, acting=False), "siren": Verb(identify, acting=True)},
        wait_s_max=0.0,
    )
    worker.open()
    yield Scene(clock, store, broker, spare, transport, worker, ran)
    worker.close()
    store.close()


def test_the_birth_pairs_with_the_will_by_its_session(scene: Scene) -> None:
    scene.run(1)
    assert wire.decode(scene.broker.retained[NODE.status], wire.Status).state == "online"
    scene.transport.vanish()
    gone = wire.decode(scene.broker.retained[NODE.status], wire.Status)
    assert (gone.state, gone.session, gone.bootid) == ("offline", scene.store.session, scene.clock.boot_id)
    assert gone.reason == "lost", "nobody can take it for a goodbye"


def test_a_clean_stop_says_offline(scene: Scene) -> None:
    scene.run(1)
    scene.worker.close()
    assert wire.decode(scene.broker.retained[NODE.status], wire.Status).state == "offline"
    assert not scene.broker.connected(CLIENT)


@pytest.mark.parametrize("answers", [True, False])
def test_what_a_clean_stop_adds_is_waited_for_a_second(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    """Incidents that were open end when the eyes close: their ends arrive, too, if there is anybody to take them."""
    scene.run(1)
    poll = scene.transport.poll

    def waits(timeout_s: float) -> Any:
        found = poll(0.0)
        if not found:
            scene.clock.advance(min(timeout_s, 0.05) + 0.000_1)
            if answers and scene.events():
                scene.receipt([(1, len(scene.events()))])
        return found

    monkeypatch.setattr(scene.transport, "poll", waits)
    monkeypatch.setattr(scene.worker, "_wait_s_max", 1.0)
    scene.commit(3)
    before_ns = scene.clock.boot_ns()
    scene.worker.close()
    assert scene.store.outbox_rows == (0 if answers else 3)
    assert (scene.clock.boot_ns() - before_ns) / NS == pytest.approx(0.1 if answers else LAST_S, abs=0.1)


def test_only_the_stations_receipt_empties_the_outbox(scene: Scene) -> None:
    scene.station_up = False
    scene.commit(3)
    scene.run(5)
    assert len(scene.events()) == 3  # the broker has them and has said so
    assert scene.store.outbox_rows == 3
    scene.receipt([(1, 3)], epoch="0" * 8 + "-0000-7000-8000-" + "0" * 12)  # of a store that is no more
    scene.run(1)
    assert scene.store.outbox_rows == 3
    scene.receipt([(1, 2)])
    scene.run(1)
    assert [r.sequence for r in scene.store.pending(9)] == [3]


def test_a_head_covers_receipts_that_were_lost(scene: Scene) -> None:
    scene.station_up = False
    scene.commit(5)
    scene.run(1)
    scene.receipt([], head=4)
    scene.run(1)
    assert [r.sequence for r in scene.store.pending(9)] == [5]


def test_what_the_broker_acknowledged_and_lost_is_sent_again(scene: Scene) -> None:
    scene.run(1)
    scene.broker.lose = 40
    scene.commit(60)
    scene.run(120)
    assert len(scene.broker.lost) == 40
    assert scene.store.outbox_rows == 0
    assert {e.sequence for e in scene.events()} == set(range(1, 61))


def test_a_backlog_is_marked_late_and_what_is_fresh_is_not(scene: Scene) -> None:
    scene.broker.refuse = scene.spare.refuse = True
    scene.commit()
    scene.run(60)
    scene.broker.refuse = False
    scene.run(20)
    scene.commit()
    scene.run(2)
    assert [(e.sequence, e.historical) for e in scene.events()] == [(1, True), (2, False)]


def test_events_of_an_earlier_session_are_late_however_young(scene: Scene) -> None:
    scene.commit()
    scene.store.start_session()
    scene.run(2)
    assert [e.historical for e in scene.events()] == [True]


def test_a_bell_overtakes_a_thousand_records(scene: Scene) -> None:
    scene.station_up = False
    scene.commit(1000, Priority.RECORD, Kind.NODE)
    scene.run(1)
    before = len(scene.events())
    bell = scene.commit(1, Priority.BELL, Kind.BELL)
    scene.run(0.5)
    assert scene.events()[before].sequence == bell[0]


def test_an_absent_station_does_not_make_the_node_flood_the_broker(scene: Scene) -> None:
    scene.station_up = False
    scene.commit(500, Priority.NOTICE)
    scene.run(600, step_s=0.5)
    assert len(scene.events()) < START_ROWS + 16
    assert scene.worker.station_silent
    scene.station_up = True
    scene.run(70)
    assert scene.store.outbox_rows == 0


def test_an_absent_station_does_not_make_the_uplink_spin(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    poll = scene.transport.poll

    def waits(timeout_s: float) -> Any:
        found = poll(timeout_s)
        if not found:
            scene.clock.advance(timeout_s + 0.000_1)  # as a real one does, and the step takes time, too
        return found

    monkeypatch.setattr(scene.transport, "poll", waits)
    monkeypatch.setattr(scene.worker, "_wait_s_max", 1.0)
    scene.station_up = False
    scene.commit(50, Priority.NOTICE)
    steps, until_ns = 0, scene.clock.boot_ns() + 600 * NS
    while scene.clock.boot_ns() < until_ns and steps < 5000:
        scene.worker.step(scene.clock.boot_ns() / NS)
        steps += 1
    assert scene.worker.station_silent
    assert steps < 800, f"{steps} steps in ten minutes in which nothing happens"


def test_a_line_that_goes_dead_unnoticed_costs_seconds_and_no_event(scene: Scene) -> None:
    scene.run(1)
    scene.broker.partition(CLIENT)
    scene.commit(5)
    scene.run(20)
    assert scene.worker.broker is None or scene.worker.broker == scene.spare.address
    scene.spare.refuse = True
    scene.spare.restart()
    scene.broker.heal(CLIENT)
    scene.run(60)
    assert scene.store.outbox_rows == 0


def test_the_next_broker_is_tried_and_attempts_are_spread_and_capped(scene: Scene) -> None:
    scene.broker.refuse = True
    scene.run(15)
    assert scene.worker.broker == scene.spare.address
    rng = random.Random(3)
    waits = [backoff_s(n, 10.0, rng) for n in range(30) for _ in range(50)]
    assert max(waits) <= 10.0
    assert min(waits) >= 0.2
    late = [backoff_s(20, 10.0, rng) for _ in range(200)]
    assert max(late) - min(late) > 6  # jitter: a thousand nodes do not come back together


def test_it_knows_why_and_for_how_long_nobody_is_reached(scene: Scene) -> None:
    """For `wardpost doctor`: over all brokers and attempts, and forgotten with the connection that stands."""
    scene.run(1)
    assert (scene.worker.trouble, scene.worker.away_s) == ("", 0.0)
    for broker in (scene.broker, scene.spare):
        broker.refuse = True
        broker.restart()
    scene.run(300)
    assert "connection refused" in scene.worker.trouble
    assert 290 <= scene.worker.away_s <= 300
    scene.worker.close()
    scene.worker.open()  # a part of the agent that is started again is no new outage
    assert scene.worker.away_s >= 290
    scene.broker.refuse = scene.spare.refuse = False
    scene.run(30)
    assert scene.worker.broker is not None and (scene.worker.trouble, scene.worker.away_s) == ("", 0.0)


def test_a_full_disk_under_the_outbox_loses_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.commit(3)

    def full(_stored: object) -> int:
        raise Transient("node.db: cannot acknowledge: database or disk is full; check the disk")

    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "acknowledge", full)
        scene.run(30)
        assert scene.store.acknowledged_rows == 3, "they are still on the disk, and known to be delivered"
        assert len(scene.events()) == 3, "so nothing is sent again"
    scene.run(30)
    assert (scene.store.outbox_rows, scene.store.acknowledged_rows) == (0, 0)


def test_heartbeats_keep_their_pace(scene: Scene) -> None:
    scene.run(121)
    assert len(scene.on(NODE.heartbeat, wire.Heartbeat)) == 5


def test_a_brokers_address_is_read_or_refused_with_an_example() -> None:
    assert parse_broker("mqtt://10.0.0.1") == Broker("10.0.0.1", 1883, tls=False)
    assert parse_broker("mqtts://hq.example:9000/") == Broker("hq.example", 9000, tls=True)
    assert str(parse_broker("mqtts://[fd00::1]")) == "mqtts://[fd00::1]:8883"
    for bad in ("hq.example", "http://hq", "mqtt://", "mqtt://hq:0", "mqtt://hq:99999", "mqtt://a b"):
        with pytest.raises(ConfigError, match="write mqtt://host:1883"):
            parse_broker(bad)


# -- commands -----------------------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """A station that signs, and a node's judge."""

    clock: FakeClock
    key: Ed25519PrivateKey
    judge: Judge
    started_utc_ns: int

    def command(
        self, verb: str = "siren", *, life_s: float = 30, node: str = "gate-2", sign: bool = True
    ) -> wire.Command:
        command = wire.Command(
            id=uuid7_maker(self.clock)(),
            verb=verb,
            expires=rfc3339(self.clock.utc().utc_ns + round(life_s * NS)),
            args={"seconds": 3},
        )
        if not sign:
            return command
        return self.signed(command, node)

    def signed(self, command: wire.Command, node: str = "gate-2") -> wire.Command:
        signature = self.key.sign(command.signing_bytes("ward-7", node))
        return wire.Command(
            id=command.id,
            verb=command.verb,
            expires=command.expires,
            args=command.args,
            signature=base64.b64encode(signature).decode(),
        )

    def says(self, command: wire.Command | bytes, topic: str = "") -> str:
        """'run', or the reason why not."""
        payload = command if isinstance(command, bytes) else wire.encode(command)
        verb = "siren" if isinstance(command, bytes) else command.verb
        decision = self.judge.judge(
            topic or NODE.command(verb), payload, utc=self.clock.utc(), started_utc_ns=self.started_utc_ns
        )
        match decision:
            case Run():
                return "run"
            case Refuse():
                return decision.reply.detail
            case Drop():
                return f"dropped: {decision.reason}"


def make_desk(*, with_key: bool = True, ids_max: int = 1000) -> Desk:
    clock = FakeClock(utc_ns=1_800_000_000 * NS)
    key = Ed25519PrivateKey.generate()
    nothing: Callable[[dict[str, Any]], dict[str, Any]] = lambda _args: {}  # noqa: E731
    verbs = {"siren": Verb(nothing, acting=True), "identify": Verb(nothing, acting=False)}
    judge = Judge(
        site="ward-7", node="gate-2", key=key.public_key() if with_key else None, verbs=verbs, ids_max=ids_max
    )
    started = clock.utc().utc_ns
    clock.advance(60)
    return Desk(clock, key, judge, started)


def test_a_signed_command_runs_once() -> None:
    desk = make_desk()
    command = desk.command()
    assert desk.says(command) == "run"
    assert desk.says(command) == "seen before"


def test_a_command_is_believed_only_with_the_stations_signature_for_this_node() -> None:
    desk = make_desk()
    assert desk.says(desk.command(sign=False)) == "not signed"
    assert desk.says(desk.command(node="gate-3")) == "not signed by the station's key"
    stolen = desk.command("identify")
    forged = wire.Command(
        id=stolen.id, verb="siren", expires=stolen.expires, args=stolen.args, signature=stolen.signature
    )
    assert desk.says(forged) == "not signed by the station's key"
    assert desk.says(desk.command("identify", sign=False)) == "not signed"
    for junk in ("!", "AAAA"):
        plain = desk.command(sign=False)
        odd = wire.Command(id=plain.id, verb="siren", expires=plain.expires, signature=junk)
        assert desk.says(odd) == "not signed by the station's key"


def test_without_a_key_only_harmless_commands_run() -> None:
    desk = make_desk(with_key=False)
    assert desk.says(desk.command("identify", sign=False)) == "run"
    assert "no uplink.command_key" in desk.says(desk.command("siren"))


def test_a_command_that_may_have_expired_has_expired() -> None:
    desk = make_desk()
    assert desk.says(desk.command(life_s=-1)) == "expired"
    desk.clock.set_unc(20 * NS)
    assert desk.says(desk.command(life_s=10)) == "expired"
    assert desk.says(desk.command(life_s=30)) == "run"
    assert "too far ahead" in desk.says(desk.command(life_s=86_400))


def test_with_an_unsynchronised_clock_nothing_that_acts_is_obeyed() -> None:
    desk = make_desk()
    desk.clock.set_unc(None)
    assert "clock is not synchronised" in desk.says(desk.command("siren"))
    assert desk.says(desk.command("identify")) == "run"


def test_a_restart_does_not_open_the_door_to_a_replay() -> None:
    desk = make_desk()
    command = desk.command(life_s=600)
    assert desk.says(command) == "run"
    desk.clock.advance(30)
    reborn = make_desk()
    again = Desk(
        desk.clock,
        desk.key,
        Judge(site="ward-7", node="gate-2", key=desk.key.public_key(), verbs=reborn.judge._verbs),
        desk.clock.utc().utc_ns,
    )
    assert "issued before this node started" in again.says(command)
    assert again.says(again.command()) == "run"
    old_style = wire.Command(id="11111111-1111-4111-8111-111111111111", verb="siren", expires=again.command().expires)
    assert "issued before this node started" in again.says(again.signed(old_style))


def test_the_memory_of_ids_is_bounded_and_full_memory_refuses_to_act() -> None:
    desk = make_desk(ids_max=5)
    assert [desk.says(desk.command(life_s=100)) for _ in range(5)] == ["run"] * 5
    assert "too many" in desk.says(desk.command(life_s=100))
    assert [desk.says(desk.command("identify")) for _ in range(20)] == ["run"] * 20
    desk.clock.advance(101)
    assert desk.says(desk.command()) == "run"


def test_what_is_no_command_is_dropped_and_what_is_strange_is_refused() -> None:
    desk = make_desk()
    for junk in (b"", b"{", b"\xff\xfe", b"[]", b"{}", b"x" * 100_000, b"[" * 60_000):
        assert desk.says(junk).startswith("dropped")
    assert desk.says(desk.command(), topic="wardpost/v1/ward-7/gate-3/cmd/siren").startswith("dropped: a command for")
    assert desk.says(desk.command(), topic="something/else").startswith("dropped")
    assert "the topic says" in desk.says(desk.command(), topic=NODE.command("identify"))
    assert "unknown verb" in desk.says(desk.command("dance"))
    odd = wire.Command(id=uuid7_maker(desk.clock)(), verb="siren", expires="soon")
    assert "not a time" in desk.says(odd)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_judge(payload: bytes) -> None:
    assert make_desk().says(payload).startswith("dropped")


def test_a_command_key_is_read_or_refused(tmp_path: Path) -> None:
    assert load_key("") is None
    path = tmp_path / "key.pem"
    for content in (b"", b"not a key"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"key\.pem"):
            load_key(str(path))
    with pytest.raises(ConfigError, match="missing"):
        load_key(str(tmp_path / "missing.pem"))


def replies(scene: Scene, *commands: bytes, topic: str = "") -> list[wire.Reply]:
    scene.run(1)
    for command in commands:
        scene.broker.publish(topic or NODE.command("identify"), command)
    scene.run(1)
    return scene.on(f"{NODE.base}/reply/", wire.Reply)


def harmless(clock: FakeClock, **args: object) -> bytes:
    return wire.encode(
        wire.Command(id=uuid7_maker(clock)(), verb="identify", expires=rfc3339(clock.utc().utc_ns + 30 * NS), args=args)
    )


def test_a_command_is_answered_and_a_handler_that_breaks_takes_nothing_down(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    clock = scene.clock
    found = replies(scene, harmless(clock), harmless(clock, busy=True), harmless(clock, **{"break": True}))
    assert [r.state for r in found] == ["done", "failed", "failed"]
    assert found[0].result == {"blinks": 3}
    assert found[1].detail == "the lamp is busy"
    assert "KeyError" in found[2].detail
    assert len(scene.ran) == 3
    scene.commit()
    scene.run(2)
    assert scene.store.outbox_rows == 0


def test_a_storm_of_bad_commands_costs_a_line_a_minute_and_no_alert(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    storm = [b"x" * 70_000, b"{", b"\x00"] * 100
    assert replies(scene, *storm) == []
    assert scene.worker.dropped_commands == 300
    assert len([r for r in caplog.records if "command dropped" in r.message]) == 1
    scene.commit()
    scene.run(2)
    assert scene.store.outbox_rows == 0


def test_a_command_that_a_broker_kept_is_not_for_now(scene: Scene) -> None:
    scene.broker.publish(NODE.command("identify"), harmless(scene.clock), retain=True)
    scene.run(3)
    assert scene.ran == []


def test_a_receipt_of_rubbish_is_nothing(scene: Scene) -> None:
    scene.station_up = False
    scene.commit(2)
    scene.run(1)
    for junk in (b"", b"{", b'{"stored": [[1, 2]]}'):
        scene.broker.publish(NODE.ack, junk)
    scene.receipt([(5, 1)])
    scene.run(1)
    assert scene.store.outbox_rows == 2


# -- batches -------------------------------------------------------------------------------------------------------------


def after_an_outage(scene: Scene, count: int, *, alerts: int = 0) -> None:
    """A backlog of an hour ago."""
    scene.broker.refuse = scene.spare.refuse = True
    scene.commit(count, Priority.NOTICE, Kind.NODE)
    if alerts:
        scene.commit(alerts)
    scene.run(60)
    scene.broker.refuse = False


def messages(scene: Scene, topic: str) -> list[bytes]:
    return [payload for t, payload in scene.broker.routed if t == topic]


def test_a_backlog_comes_in_batches_behind_its_alerts_each_event_once_and_late(scene: Scene) -> None:
    after_an_outage(scene, 400, alerts=30)
    scene.run(30)
    assert scene.store.outbox_rows == 0
    found = scene.events()
    assert sorted(e.sequence for e in found) == list(range(1, 431))
    assert [e.data.severity for e in found] == ["alert"] * 30 + ["notice"] * 400
    assert all(e.historical for e in found)
    assert 400 / 64 <= len(messages(scene, NODE.events)) <= 30
    assert len(messages(scene, NODE.event("person"))) == 30, "alerts go one by one"


def test_what_happens_now_is_not_batched(scene: Scene) -> None:
    scene.run(1)
    scene.commit(50, Priority.NOTICE, Kind.NODE)
    scene.run(5)
    assert messages(scene, NODE.events) == []
    assert len(messages(scene, NODE.event("node"))) == 50


def test_lines_of_the_ledger_go_together(scene: Scene) -> None:
    lines = [records.LedgerLine(seq=n, number=None, line=b"{}", head="0" * 64) for n in range(1, 41)]
    scene.store.hand_over(lines)
    scene.run(2)
    batches = [wire.decode_batch(payload) for payload in messages(scene, NODE.records)]
    found = [wire.decode(part, wire.Record).sequence for parts in batches for part in parts]
    assert found[:10] == list(range(1, 11)), "the first window of a connection"
    assert messages(scene, NODE.record) == []


def test_a_broker_that_swallows_batches_gets_every_event_alone_and_the_log_says_why(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Its access list was not brought up to date: MQTT 3.1.1 acknowledges and drops."""
    scene.broker.deny = {NODE.events, NODE.records}
    after_an_outage(scene, 150, alerts=5)
    for _ in range(20):  # something fresh comes now and then, so the station is not silent
        scene.commit(1)
        scene.run(6)
    scene.run(30)
    assert scene.store.outbox_rows == 0
    assert {e.sequence for e in scene.events()} == set(range(1, 176))
    assert any("access list" in r.message for r in caplog.records)


def test_a_broker_that_throws_out_whoever_sends_a_batch_gets_the_backlog_all_the_same(scene: Scene) -> None:
    """Some brokers end the connection of a client that publishes what its access list does not know. The backlog came to
    its first batch on each connection, and never past it.
    """
    scene.broker.deny, scene.broker.throws_out = {NODE.events, NODE.records}, True
    after_an_outage(scene, 150, alerts=5)
    scene.run(120)
    assert scene.store.outbox_rows == 0
    assert {e.sequence for e in scene.events()} == set(range(1, 156))


def test_receipts_are_written_down_together_and_a_cut_before_that_doubles_nothing_in_effect(scene: Scene) -> None:
    written: list[str] = []
    scene.run(1)
    scene.store._crash_point = written.append
    for _ in range(8):
        scene.commit(1)
        scene.run(0.5)
    assert [step for step in written if "acknowledge" in step] == [], "the next transaction takes them along"
    assert (scene.store.outbox_rows, scene.store.acknowledged_rows) == (0, 1)
    assert scene.store.pending(10) == [], "what is acknowledged is not sent again"
    before = len(scene.events())
    scene.run(ACK_DELAY_S + 1)
    assert written.count("after commit: acknowledge") == 1
    assert (scene.store.outbox_rows, scene.store.acknowledged_rows) == (0, 0)
    assert len(scene.events()) == before


def test_a_backlogs_receipts_do_not_wait_without_bound(scene: Scene) -> None:
    after_an_outage(scene, ACK_ROWS_MAX + 300)
    most = 0
    for _ in range(40):
        scene.run(0.25)
        most = max(most, scene.store.acknowledged_rows)
    assert most < ACK_ROWS_MAX + 120


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        ({}, "stopped"),
        ({"release": wire.ReleaseState(number=3, tried=4, phase="trying")}, "update"),
        ({"release": wire.ReleaseState(number=3, tried=4, phase="staged")}, "stopped"),
        ({"settings": wire.SettingsState(revision=7, trial=8)}, "settings"),
    ],
)
def test_a_goodbye_says_why(scene: Scene, monkeypatch: pytest.MonkeyPatch, trial: dict[str, Any], reason: str) -> None:
    def told() -> wire.Status:
        return wire.decode(scene.broker.retained[NODE.status], wire.Status)

    scene.run(1)
    assert told().reason == ""
    heartbeat = msgspec.structs.replace(beat(scene.store, scene.clock), **trial)
    monkeypatch.setattr(scene.worker, "_heartbeat", lambda: heartbeat)
    scene.worker.close()
    assert (told().state, told().reason) == ("offline", reason) and reason in wire.LEFT
