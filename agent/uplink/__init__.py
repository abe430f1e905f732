"""The way out: what a connection to a broker promises. `mqtt.py` is the driver; tests/fakes/broker.py is its fake.

Both pass tests/contract/test_transport.py. One thread owns a transport; only `wake` may be called from another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.errors import ConfigError

_URL = re.compile(r"(?P<scheme>mqtts?)://(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?/?")


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker listens."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def parse_broker(url: str) -> Broker:
    """`mqtt://host:1883` or `mqtts://host:8883`. Raises ConfigError that says how to write it."""
    match = _URL.fullmatch(url.strip())
    port = int(match["port"]) if match and match["port"] else 8883 if match and match["scheme"] == "mqtts" else 1883
    if match is None or not 0 < port < 65536:
        raise ConfigError(f"brokers: {url!r} is not a broker; write mqtt://host:1883 or mqtts://host:8883")
    return Broker(match["host"].strip("[]"), port, match["scheme"] == "mqtts")


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained and at QoS 1, when the connection dies without a goodbye."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Hello:
    """What a client says when it connects. The session is always clean: each side keeps its own memory on disk."""

    client_id: str
    subscriptions: tuple[tuple[str, int], ...] = ()  # (topic filter, QoS)
    will: Will | None = None
    wishes: tuple[tuple[str, int], ...] = ()
    """Subscriptions that one can do without: an access list older than this agent may deny them."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took us, and every subscription is granted; `denied` names the wishes that are not."""

    broker: Broker
    denied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """`connect` came to nothing: unreachable, refused, denied, or silent for too long."""

    broker: Broker
    reason: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection that was up is gone. Nothing that is not yet Delivered may be counted on."""

    broker: Broker
    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The broker acknowledged a QoS 1 message. The broker: not the station (invariant 1)."""

    mid: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message. At QoS 1 the broker keeps it until `ack()`, which is to be called once what it asks for is durable.

    `ack` never raises, and is nothing on a connection that has ended meanwhile.
    """

    topic: str
    payload: bytes
    retained: bool = False
    ack: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)


Happening = Connected | Refused | Disconnected | Delivered | Received


class Send(Protocol):
    """Publishes at QoS 1; False when the connection is gone."""

    def __call__(self, topic: str, payload: bytes, *, retain: bool = False) -> bool: ...


class Errand(Protocol):
    """Something that is settled over the node's own session, beside events and commands. Called on its thread only."""

    wishes: tuple[tuple[str, int], ...]

    @property
    def wants_new_connection(self) -> bool:
        """The connection that stands is to be ended and made again."""

    def connected(self, denied: tuple[str, ...]) -> None:
        """A connection is up; `denied`: wishes that this broker did not grant."""

    def disconnected(self) -> None:
        """It is gone, or never came up."""

    def step(self, now: float, send: Send) -> None:
        """While connected, often: sends what is due. Does not block, but for small files. Raises Transient."""

    def received(self, topic: str, payload: bytes) -> bool:
        """Takes a message; False when it is for somebody else. Raises Transient."""


class Transport(Protocol):
    """One connection at a time to an MQTT 3.1.1 broker."""

    @property
    def connected(self) -> bool:
        """Between Connected and Disconnected."""

    def connect(self, broker: Broker, hello: Hello) -> None:
        """Begins a connection, dropping an older one without a goodbye. Its outcome comes from `poll`, within seconds.

        Blocks for name lookup, TCP and TLS, each bounded. Never raises for what a broker does.
        Raises ConfigError when the certificates or the password file cannot be read.
        """

    def disconnect(self) -> None:
        """Says goodbye: the broker does not publish the will. Bounded, never raises. No Disconnected follows."""

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        """Hands a message over and returns its id, which Delivered names at QoS 1. Does not block.

        Raises Transient when there is no connection.
        """

    def poll(self, timeout_s: float) -> list[Happening]:
        """What has happened, oldest first; waits up to `timeout_s` for the first. Returns early after `wake`.

        At most some hundred at once: what is not taken stays with the broker.
        """

    def wake(self) -> None:
        """Ends a `poll` that waits, or the next one. From any thread."""
