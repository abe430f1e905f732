"""A broker and its network in memory, driven by a clock that a test owns. Deterministic: there are no threads.

`FakeTransport` is `agent.uplink.Transport`; it passes tests/contract/test_transport.py like the real driver on a real
broker. On top of what a broker promises, a test can make it do what brokers do on bad days:

    refuse, hang          connections are turned away, or taken and never answered
    deny                  topic prefixes whose subscriptions are refused and whose messages vanish, acknowledged
    partition, heal       a client's traffic goes nowhere in both directions, and nobody is told
    lose                  the next messages are acknowledged and lost
    duplicate             the next messages arrive twice
    restart               every connection breaks; retained messages are forgotten unless it persists
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.clock import Clock
from agent.errors import Transient
from agent.types import NS
from agent.uplink import (
    Broker,
    Connected,
    Delivered,
    Disconnected,
    Happening,
    Hello,
    Received,
    Refused,
)

HAPPENINGS_MAX = 500
INFLIGHT_MAX = 1000  # QoS 1 messages to one client that it has not acknowledged


def matches(pattern: str, topic: str) -> bool:
    """MQTT topic filters: + is one level, # is the rest."""
    want, have = pattern.split("/"), topic.split("/")
    for index, level in enumerate(want):
        if level == "#":
            return True
        if index >= len(have) or level not in ("+", have[index]):
            return False
    return len(want) == len(have)


@dataclass(slots=True)
class _Outgoing:
    """A message on its way to one client."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


@dataclass(slots=True)
class _Session:
    """A client as the broker knows it."""

    transport: FakeTransport
    hello: Hello
    keepalive_s: float
    heard: float
    queue: deque[_Outgoing] = field(default_factory=deque)
    unacked: int = 0


class FakeBroker:
    """One broker. All methods from one thread."""

    def __init__(self, *, clock: Clock, name: str = "fake", port: int = 1883) -> None:
        self.address = Broker(name, port, tls=False)
        self._clock = clock
        self._sessions: dict[str, _Session] = {}
        self._partitioned: set[str] = set()
        self.retained: dict[str, bytes] = {}
        self.deny: set[str] = set()
        self.throws_out = False  # who publishes what is denied; else it is acknowledged and dropped
        self.refuse = False
        self.hang = False
        self.lose = 0
        self.duplicate = 0
        self.lost: list[tuple[str, bytes]] = []
        self.routed: list[tuple[str, bytes]] = []  # the newest, for tests that look at traffic
        self.routed_max = 100_000

    # -- what a test does to it -----------------------------------------------------------------------------------------

    def partition(self, client_id: str) -> None:
        """From now on nothing passes between the broker and this client, and neither is told."""
        self._partitioned.add(client_id)

    def heal(self, client_id: str) -> None:
        """The line works again. What was sent meanwhile is lost; connections of before stay as each side sees them."""
        self._partitioned.discard(client_id)

    def cut(self, client_id: str) -> None:
        """The connection is reset: both sides notice at once."""
        session = self._sessions.get(client_id)
        if session is not None:
            self._end(session, will=True)
            session.transport._broken("the connection was lost")

    def restart(self, *, persist: bool = False) -> None:
        """Killed and started again. No wills are published: a broker that dies publishes none."""
        for session in list(self._sessions.values()):
            self._end(session, will=False)
            if session.hello.client_id not in self._partitioned:
                session.transport._broken("the connection was lost")
        if not persist:
            self.retained.clear()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """A message from somebody else."""
        self._route(topic, payload, qos=1, retain=retain)

    def connected(self, client_id: str) -> bool:
        """Whether the broker believes that this client is there."""
        return client_id in self._sessions

    # -- what transports do ---------------------------------------------------------------------------------------------

    def _reachable(self, client_id: str) -> bool:
        return client_id not in self._partitioned

    def _accept(self, transport: FakeTransport, hello: Hello, keepalive_s: float) -> str | None:
        """Takes a client in; returns why not."""
        if self.refuse:
            return "connection refused; is the broker running, and is the port right?"
        denied = [topic for topic, _ in hello.subscriptions if self._denied(topic)]
        if denied:
            return f"the broker denies {', '.join(denied)}"
        old = self._sessions.get(hello.client_id)
        if old is not None:
            self._end(old, will=True)
            if old.transport is not transport:
                old.transport._broken("taken over by another client of the same name")
        session = _Session(transport, hello, keepalive_s, self._now())
        self._sessions[hello.client_id] = session
        for topic, payload in self.retained.items():
            for pattern, qos in self.granted(hello):
                if matches(pattern, topic):
                    session.queue.append(_Outgoing(topic, payload, qos, retained=True))
        transport.stirred()
        return None

    def _take(self, session: _Session, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        session.heard = self._now()
        if self._denied(topic):
            if self.throws_out:
                self.cut(session.hello.client_id)
            return
        if self.lose > 0:
            self.lose -= 1
            self.lost.append((topic, payload))
            return
        self._route(topic, payload, qos=qos, retain=retain)
        if self.duplicate > 0:
            self.duplicate -= 1
            self._route(topic, payload, qos=qos, retain=retain)

    def _route(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> None:
        if len(self.routed) >= self.routed_max:
            del self.routed[: self.routed_max // 2]
        self.routed.append((topic, payload))
        if retain:
            self.retained[topic] = payload
            if not payload:
                del self.retained[topic]
        for session in self._sessions.values():
            granted = [granted for pattern, granted in self.granted(session.hello) if matches(pattern, topic)]
            if granted:
                session.queue.append(_Outgoing(topic, payload, min(qos, max(granted)), retained=False))
                session.transport.stirred()

    def _end(self, session: _Session, *, will: bool) -> None:
        if self._sessions.get(session.hello.client_id) is session:
            del self._sessions[session.hello.client_id]
            if will and session.hello.will is not None:
                self._route(session.hello.will.topic, session.hello.will.payload, qos=1, retain=True)

    def _reap(self) -> None:
        """Clients that were not heard for one and a half keep-alives are dead, and their wills are published."""
        for session in list(self._sessions.values()):
            if self._reachable(session.hello.client_id):
                session.heard = self._now()  # a client that can will have sent its ping
            elif self._now() - session.heard >= 1.5 * session.keepalive_s:
                self._end(session, will=True)

    def granted(self, hello: Hello) -> list[tuple[str, int]]:
        """What it subscribes to, and those of its wishes that are not denied."""
        return [*hello.subscriptions, *(wish for wish in hello.wishes if not self._denied(wish[0]))]

    def _denied(self, topic: str) -> bool:
        return any(topic.startswith(prefix) for prefix in self.deny)

    def _now(self) -> float:
        return self._clock.boot_ns() / NS


class FakeTransport:
    """`agent.uplink.Transport` over fake brokers. `poll` never waits: the test moves the clock."""

    def __init__(
        self,
        *,
        brokers: list[FakeBroker],
        clock: Clock,
        keepalive_s: float = 20.0,
        connect_s_max: float = 5.0,
        stall_s_max: float = 15.0,
    ) -> None:
        self._brokers = {broker.address: broker for broker in brokers}
        self._clock = clock
        self._keepalive_s = keepalive_s
        self._connect_s_max = connect_s_max
        self._stall_s_max = stall_s_max
        self._address = Broker("", 0, tls=False)
        self._hello = Hello("")
        self._session: _Session | None = None
        self._happenings: deque[Happening] = deque()
        self._waits_until: float | None = None  # for a broker that does not answer
        self._mid = 0
        self._unacked = 0
        self._heard = 0.0
        self._life = 0  # counts connections, so that an old acknowledgement is nothing
        self.woken = 0
        self.stirred: Callable[[], None] = lambda: None  # called when a real socket would end the wait in `poll`

    @property
    def connected(self) -> bool:
        return self._session is not None

    @property
    def holds_something(self) -> bool:
        """`poll` has something to hand over."""
        if self._happenings:
            return True
        session = self._session
        if session is None or not session.queue or session.unacked >= INFLIGHT_MAX:
            return False
        return self._target()._reachable(self._hello.client_id)

    def connect(self, broker: Broker, hello: Hello) -> None:
        self._forget()
        self._address, self._hello = broker, hello
        self._happenings.clear()
        target = self._brokers.get(broker)
        if target is None:
            self._happenings.append(Refused(broker, "no answer; is the broker reachable?"))
            return
        if target.hang or not target._reachable(hello.client_id):
            self._waits_until = self._now() + self._connect_s_max
            return
        reason = target._accept(self, hello, self._keepalive_s)
        if reason is not None:
            self._happenings.append(Refused(broker, reason))
            return
        self._session = target._sessions[hello.client_id]
        self._heard = self._now()
        granted = target.granted(hello)
        self._happenings.append(
            Connected(broker, tuple(topic for topic, _ in hello.wishes if (topic, _) not in granted))
        )

    def disconnect(self) -> None:
        if self._session is not None and self._target()._reachable(self._hello.client_id):
            self._target()._end(self._session, will=False)
        self._forget()

    def vanish(self) -> None:
        """The process dies: no goodbye, and the kernel resets the connection."""
        if self._session is not None and self._target()._reachable(self._hello.client_id):
            self._target()._end(self._session, will=True)
        self._forget()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        if self._session is None:
            raise Transient(f"not connected to {self._address}; the message to {topic} waits")
        self._mid += 1
        target = self._target()
        if not target._reachable(self._hello.client_id):
            if qos and not self._unacked:
                self._heard = self._now()
            self._unacked += bool(qos)
            return self._mid
        if target._sessions.get(self._hello.client_id) is not self._session:
            self._broken("the connection was lost")
            raise Transient(f"the connection to {self._address} broke while sending to {topic}")
        target._take(self._session, topic, payload, qos=qos, retain=retain)
        if qos:
            self._heard = self._now()
            self._happenings.append(Delivered(self._mid))
        return self._mid

    def poll(self, timeout_s: float) -> list[Happening]:
        for broker in self._brokers.values():
            broker._reap()
        self._check_deadlines()
        session = self._session
        if session is not None and self._target()._reachable(self._hello.client_id):
            while session.queue and session.unacked < INFLIGHT_MAX and len(self._happenings) < HAPPENINGS_MAX:
                self._happenings.append(self._hand_over(session, session.queue.popleft()))
        return [self._happenings.popleft() for _ in range(min(len(self._happenings), HAPPENINGS_MAX))]

    def _hand_over(self, session: _Session, message: _Outgoing) -> Received:
        self._heard = self._now()
        life = self._life
        session.unacked += bool(message.qos)

        def ack() -> None:
            if message.qos and life == self._life:
                session.unacked -= 1

        return Received(message.topic, message.payload, message.retained, ack)

    def _check_deadlines(self) -> None:
        now = self._now()
        if self._waits_until is not None and now >= self._waits_until:
            self._waits_until = None
            self._happenings.append(
                Refused(self._address, f"it accepts connections but did not answer within {self._connect_s_max:g} s")
            )
        if self._session is None:
            return
        target = self._target()
        reachable = target._reachable(self._hello.client_id)
        if reachable and target._sessions.get(self._hello.client_id) is not self._session:
            self._broken("the connection was lost")  # the broker gave us up while we were cut off
        elif not reachable and self._unacked and now - self._heard >= self._stall_s_max:
            self._broken(f"nothing came back for {self._stall_s_max:g} s: the line is dead")
        elif not reachable and now - self._heard >= 2 * self._keepalive_s:
            self._broken("no answer to keep-alive")
        elif reachable:
            if self._unacked:  # what was sent into the partition is retransmitted by TCP, or not; here it is lost
                self._broken("the connection was lost")
            self._heard = now

    def wake(self) -> None:
        self.woken += 1
        self.stirred()

    def close(self) -> None:
        """As of the real one."""
        self.disconnect()

    def _broken(self, reason: str) -> None:
        if self._session is not None:
            self._forget()
            self._happenings.append(Disconnected(self._address, reason))
            self.stirred()

    def _forget(self) -> None:
        self._session = None
        self._waits_until = None
        self._unacked = 0
        self._life += 1

    def _target(self) -> FakeBroker:
        return self._brokers[self._address]

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
