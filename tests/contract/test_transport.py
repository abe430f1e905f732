"""What a connection to a broker promises: the real driver on a real broker, and the fake one, keep the same promises."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.clock import SystemClock
from agent.errors import Transient
from agent.uplink import (
    Broker,
    Connected,
    Delivered,
    Disconnected,
    Happening,
    Hello,
    Received,
    Refused,
    Transport,
    Will,
    parse_broker,
)
from agent.uplink.mqtt import Credentials, PahoTransport
from tests.e2e.brokers import Mosquitto, NatsServer, make_broker, mosquitto
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.clock import FakeClock

TOPIC = "wardpost/v1/ward-7/gate-1/event/person"
FILTER = (("wardpost/v1/ward-7/+/event/+", 1),)


class World:
    """A broker and clients of it. `until` lets time pass, whichever kind of time it is."""

    def transport(self, *, connect_s_max: float = 20.0) -> Transport:
        raise NotImplementedError

    @property
    def broker(self) -> Broker:
        raise NotImplementedError

    @property
    def hanging(self) -> Broker:
        raise NotImplementedError

    def restart(self) -> None:
        raise NotImplementedError

    def pass_time(self) -> None:
        raise NotImplementedError

    def vanish(self, transport: Transport) -> None:
        raise NotImplementedError

    def until(self, transport: Transport, holds: Callable[[list[Happening]], bool]) -> list[Happening]:
        """Polls until what has happened satisfies `holds`."""
        found: list[Happening] = []
        for _ in range(1_200):
            found += transport.poll(0.05)
            if holds(found):
                return found
            self.pass_time()
        raise AssertionError(f"never happened; what happened: {found}")

    def up(
        self, client_id: str, subscriptions: tuple[tuple[str, int], ...] = (), will: Will | None = None
    ) -> Transport:
        """A client that is connected."""
        transport = self.transport()
        transport.connect(self.broker, Hello(client_id, subscriptions, will))
        happened = self.until(transport, lambda h: any(isinstance(x, Connected | Refused) for x in h))
        assert Connected(self.broker) in happened
        return transport


class FakeWorld(World):
    def __init__(self) -> None:
        self._clock = FakeClock()
        self._broker = FakeBroker(clock=self._clock)
        self._hanging = FakeBroker(clock=self._clock, name="hang")
        self._hanging.hang = True

    def transport(self, *, connect_s_max: float = 20.0) -> Transport:
        return FakeTransport(brokers=[self._broker, self._hanging], clock=self._clock, connect_s_max=connect_s_max)

    @property
    def broker(self) -> Broker:
        return self._broker.address

    @property
    def hanging(self) -> Broker:
        return self._hanging.address

    def restart(self) -> None:
        self._broker.restart()

    def pass_time(self) -> None:
        self._clock.advance(0.05)

    def vanish(self, transport: Transport) -> None:
        assert isinstance(transport, FakeTransport)
        transport.vanish()


class RealWorld(World):
    def __init__(self, process: NatsServer | Mosquitto) -> None:
        self._process = process
        self._process.start()
        self._open: list[PahoTransport] = []
        self._listener = socket.create_server(("127.0.0.1", 0))

    def transport(self, *, connect_s_max: float = 20.0) -> Transport:
        transport = PahoTransport(
            clock=SystemClock(), credentials=Credentials(), connect_s_max=connect_s_max, stall_s_max=20.0
        )
        self._open.append(transport)
        return transport

    @property
    def broker(self) -> Broker:
        return parse_broker(self._process.url)

    @property
    def hanging(self) -> Broker:
        return Broker("127.0.0.1", self._listener.getsockname()[1], tls=False)

    def restart(self) -> None:
        self._process.kill(forget=True)
        self._process.start()

    def pass_time(self) -> None:
        """`poll` has waited."""

    def vanish(self, transport: Transport) -> None:
        assert isinstance(transport, PahoTransport)
        transport._drop()

    def close(self) -> None:
        for transport in self._open:
            transport.close()
        self._listener.close()
        self._process.stop()


@pytest.fixture(
    params=["fake", "nats", pytest.param("mosquitto", marks=pytest.mark.system)],
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    if request.param == "mosquitto" and not mosquitto():
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    real = RealWorld(make_broker(request.param, tmp_path))
    yield real
    real.close()


def received(happened: list[Happening]) -> list[Received]:
    return [h for h in happened if isinstance(h, Received)]


def test_a_message_reaches_its_subscriber_and_the_broker_says_so(world: World) -> None:
    node, station = world.up("node"), world.up("station", FILTER)
    mid = node.publish(TOPIC, b"{}", qos=1)
    world.until(node, lambda h: Delivered(mid) in h)
    [message] = received(world.until(station, lambda h: bool(received(h))))
    assert (message.topic, message.payload, message.retained) == (TOPIC, b"{}", False)
    message.ack()


def test_a_hundred_messages_arrive_in_order_and_each_is_delivered_once(world: World) -> None:
    node, station = world.up("node"), world.up("station", FILTER)
    mids = [node.publish(TOPIC, str(n).encode(), qos=1) for n in range(100)]
    delivered = world.until(node, lambda h: len([x for x in h if isinstance(x, Delivered)]) >= 100)
    assert sorted(h.mid for h in delivered if isinstance(h, Delivered)) == sorted(mids)
    got: list[Received] = []

    def all_here(happened: list[Happening]) -> bool:
        got[:] = received(happened)
        for message in got:
            message.ack()
        return len(got) >= 100

    world.until(station, all_here)
    assert [int(message.payload) for message in got] == list(range(100))


def test_one_who_comes_later_gets_what_was_retained(world: World) -> None:
    node = world.up("node")
    mid = node.publish("wardpost/v1/ward-7/gate-1/status", b"{}", qos=1, retain=True)
    world.until(node, lambda h: Delivered(mid) in h)
    late = world.transport()
    late.connect(world.broker, Hello("late", (("wardpost/v1/ward-7/+/status", 1),)))
    [message] = received(world.until(late, lambda h: bool(received(h))))
    assert message.retained


def test_a_client_that_dies_leaves_its_will_and_one_that_says_goodbye_does_not(world: World) -> None:
    watcher = world.up("watcher", (("wardpost/v1/ward-7/+/status", 1),))
    polite = world.up("polite", will=Will("wardpost/v1/ward-7/polite/status", b"gone"))
    mortal = world.up("mortal", will=Will("wardpost/v1/ward-7/mortal/status", b"gone"))
    polite.disconnect()
    world.vanish(mortal)
    [message] = received(world.until(watcher, lambda h: bool(received(h))))
    assert message.topic == "wardpost/v1/ward-7/mortal/status"


def test_a_broker_that_is_not_there_refuses(world: World) -> None:
    transport = world.transport()
    nowhere = Broker("127.0.0.1", 1, tls=False)
    transport.connect(nowhere, Hello("node"))
    [refused] = world.until(transport, bool)
    assert isinstance(refused, Refused)
    assert refused.broker == nowhere
    assert refused.reason
    assert not transport.connected


def test_a_broker_that_accepts_and_hangs_is_noticed_within_seconds(world: World) -> None:
    transport = world.transport(connect_s_max=1.0)
    transport.connect(world.hanging, Hello("node"))
    [refused] = world.until(transport, bool)
    assert isinstance(refused, Refused)
    assert "did not answer within 1 s" in refused.reason


def test_a_broker_that_dies_is_noticed_and_can_be_reached_again(world: World) -> None:
    node = world.up("node")
    world.restart()
    [lost] = [h for h in world.until(node, bool) if not isinstance(h, Delivered)]
    assert isinstance(lost, Disconnected)
    assert not node.connected
    node.connect(world.broker, Hello("node"))
    assert Connected(world.broker) in world.until(node, bool)


def test_nothing_can_be_published_without_a_connection(world: World) -> None:
    transport = world.transport()
    with pytest.raises(Transient, match="not connected"):
        transport.publish(TOPIC, b"{}", qos=1)


def test_a_goodbye_is_no_news(world: World) -> None:
    node = world.up("node")
    node.disconnect()
    assert not node.connected
    assert node.poll(0.05) == []


def test_an_acknowledgement_after_the_connection_is_gone_is_nothing(world: World) -> None:
    node, station = world.up("node"), world.up("station", FILTER)
    node.publish(TOPIC, b"{}", qos=1)
    [message] = received(world.until(station, lambda h: bool(received(h))))
    station.disconnect()
    message.ack()


def test_a_second_client_of_the_same_name_takes_over(world: World) -> None:
    first = world.up("node")
    second = world.up("node")
    world.until(first, lambda h: any(isinstance(x, Disconnected) for x in h))
    assert second.connected


def test_a_wait_ends_when_somebody_wakes_it(world: World) -> None:
    node = world.up("node")
    timer = threading.Timer(0.2, node.wake)
    begun = time.monotonic()
    timer.start()
    node.poll(60.0)
    timer.join()
    assert time.monotonic() - begun < 50.0
