"""The MQTT 3.1.1 driver: paho-mqtt, driven from one thread by our own select loop (paho's external event loop).

What paho does not give, and this file adds (field notes, "MQTT"):
- Its threads, queues and reconnects are not used: each connection is a new client, so nothing is sent twice behind our
  back. Callbacks only append to a list.
- `Connected` comes after SUBACK: in 3.1.1 a denied subscription is otherwise silent.
- A broker that accepts and then hangs is noticed: TCP, TLS, CONNACK and SUBACK are bounded by `connect_s_max` each.
- A half-open connection is noticed in `stall_s_max` when something was published, by keep-alive when nothing was.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from agent.clock import Clock
from agent.config import TlsSettings
from agent.errors import ConfigError, Transient
from agent.types import NS
from agent.uplink import Broker, Connected, Delivered, Disconnected, Happening, Hello, Received, Refused
from agent.wire import PAYLOAD_BYTES_MAX

HAPPENINGS_MAX = 500
"""How much one `poll` takes in before it returns; the rest waits in the socket."""
READ_BYTES = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a client proves who it is. Files are read at each connection, so that they may be renewed in place."""

    username: str = ""
    password_file: str = ""
    tls: TlsSettings | None = None
    choose: Callable[[], TlsSettings] | None = None  # asked before each connection, in the place of `tls`


class DatedSocket(ssl.SSLSocket):
    """Judges by itself, before anything is said, how old the broker's certificate may be."""

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        context = self.context
        if isinstance(context, TlsContext) and context.since_s is not None:
            refuse_expired(self.getpeercert() or {}, context.since_s)


class TlsContext(ssl.SSLContext):
    """A client context that remembers its socket: paho leaves it open when the handshake fails."""

    made: ssl.SSLSocket | None = None
    since_s: float | None = None
    """Nobody vouches for the clock, but it is later than this, in UTC seconds. None: OpenSSL judges by the clock."""

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self.made = super().wrap_socket(*args, **kwargs)
        return self.made


_SUBACK_CODES = (0, 1, 2, 0x80)
"""MQTT 3.1.1, 3.9.3: what may be granted, and the refusal."""
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL 1.1 and later, for which Python has no name."""


def refuse_expired(certificate: Mapping[str, Any], since_s: float) -> None:
    """Raises SSLCertVerificationError for a certificate (`getpeercert`) that had ended by then."""
    ends = str(certificate.get("notAfter", ""))
    if not ends or ssl.cert_time_to_seconds(ends) < since_s:
        error = ssl.SSLCertVerificationError(1, "certificate verify failed")
        error.verify_message = f"certificate has expired: it was good until {ends or 'nobody knows when'}"
        raise error


def later_than_s(tls: TlsSettings) -> float:
    """A time that has passed for certain, in UTC seconds, for this client's certificate was made then. 0: unknown."""
    from cryptography import x509

    try:
        own = x509.load_pem_x509_certificate(Path(tls.cert).read_bytes()) if tls.cert else None
    except (OSError, ValueError):
        return 0.0
    return own.not_valid_before_utc.timestamp() if own is not None else 0.0


def tls_context(tls: TlsSettings | None, *, vouched: bool = True) -> TlsContext:
    """A client context that checks the broker's certificate and name. Raises ConfigError naming the bad file.

    `vouched`: the machine's clock is right. Where it is not, and the authority is one's own, the dates of the broker's
    certificate are not held against that clock: a post that wakes up in 1970, or years ahead, would be kept from the
    very network that could tell it the time. Signature and name count as ever, and what had ended before this client's
    own certificate was made is refused all the same.
    """
    for name in ("ca", "cert", "key"):
        path = getattr(tls, name, "")
        if path and not os.access(path, os.R_OK):
            raise ConfigError(f"tls.{name}: {path} cannot be read; check the path and its permissions")
    context = TlsContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the name
    try:
        if tls and tls.ca:
            context.load_verify_locations(tls.ca)
        else:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls.ca: {tls.ca if tls else ''} is not a PEM certificate ({error})") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls and tls.ca and not vouched:
        context.verify_flags = ssl.VerifyFlags(context.verify_flags | NO_CHECK_TIME)
        context.sslsocket_class = DatedSocket
        context.since_s = later_than_s(tls)
    if tls and tls.cert:
        try:
            context.load_cert_chain(tls.cert, tls.key or None)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"tls.cert: {tls.cert} and its key do not work together ({error})") from None
    return context


def read_password(credentials: Credentials) -> str | None:
    """The first line of the password file, or None. Raises ConfigError."""
    if not credentials.password_file:
        return None
    try:
        return Path(credentials.password_file).read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise ConfigError(f"password_file: {credentials.password_file} cannot be read ({error})") from None


class ReadingAhead:
    """A socket that does not block, and asks the system for READ_BYTES at a time: paho asks it for a packet's first
    byte, for each byte of its length, and for the rest.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = b""
        self._at = 0

    def recv(self, size: int) -> bytes:
        """As a socket's: some bytes, none at the end. Raises what the socket raises."""
        if self._at == len(self._held):
            self._held, self._at = self._sock.recv(READ_BYTES), 0
        part = self._held[self._at : self._at + size]
        self._at += len(part)
        return part

    def pending(self) -> int:
        """Bytes that can be had although the system has nothing new."""
        beneath = self._sock.pending() if isinstance(self._sock, ssl.SSLSocket) else 0
        return len(self._held) - self._at + beneath

    def __getattr__(self, name: str) -> Any:
        """Everything else is the socket's own."""
        return getattr(self._sock, name)


class _Client(paho.Client):
    def _create_socket(self) -> Any:
        return ReadingAhead(super()._create_socket())  # type: ignore[arg-type]


class PahoTransport:
    """`agent.uplink.Transport` on paho-mqtt."""

    def __init__(
        self,
        *,
        clock: Clock,
        credentials: Credentials,
        keepalive_s: int = 20,
        connect_s_max: float = 5.0,
        stall_s_max: float = 15.0,
    ) -> None:
        """`stall_s_max`: something is published and nothing at all comes back for so long: the line is dead."""
        self._clock = clock
        self._credentials = credentials
        self._keepalive_s = keepalive_s
        self._connect_s_max = connect_s_max
        self._stall_s_max = stall_s_max
        self._client: paho.Client | None = None
        self._broker = Broker("", 0, tls=False)
        self._hello = Hello("")
        self._happenings: list[Happening] = []
        self._connected = False
        self._connack_by_s: float | None = None  # while connecting: when patience ends
        self._asked: int | None = None  # the message id of what was subscribed to on this connection
        self._unacked: set[int] = set()
        self._heard_s = 0.0  # the last sign of life, or the start of waiting for one
        self._lookup: threading.Thread | None = None
        self._wake_r, self._wake_w = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def connected(self) -> bool:
        return self._connected

    def close(self) -> None:
        """Drops the connection and the wake pipe. The transport is of no use afterwards."""
        self.disconnect()
        for fd in (self._wake_r, self._wake_w):
            if fd >= 0:
                os.close(fd)
        self._wake_r = self._wake_w = -1

    # -- connecting ---------------------------------------------------------------------------------------------------

    def connect(self, broker: Broker, hello: Hello) -> None:
        self._drop()
        self._broker, self._hello = broker, hello
        self._happenings.clear()
        context = self._context() if broker.tls else None
        client = self._make_client(hello, context)
        reason = self._look_up(broker)
        if reason is None:
            try:
                client.connect(broker.host, broker.port, keepalive=self._keepalive_s)
            except (OSError, ValueError) as error:  # ssl errors are OSErrors; an odd host name is a ValueError
                reason = _plain(error)
        if reason is not None:
            if context is not None and context.made is not None:
                context.made.close()
            self._happenings.append(Refused(broker, reason))
            return
        self._client = client
        self._connack_by_s, self._asked = self._now() + self._connect_s_max, None

    def _context(self) -> TlsContext:
        tls = self._credentials.tls if self._credentials.choose is None else self._credentials.choose()
        return tls_context(tls, vouched=self._clock.utc().unc_ns is not None)

    def _make_client(self, hello: Hello, context: TlsContext | None) -> paho.Client:
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=hello.client_id,
            clean_session=True,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,  # also: no silent downgrade to MQTT 3.1
            manual_ack=True,
        )
        client.connect_timeout = self._connect_s_max
        client.max_inflight_messages_set(0)  # no limit here: the sender's window is the limit
        if self._credentials.username:
            client.username_pw_set(self._credentials.username, read_password(self._credentials))
        if context is not None:
            client.tls_set_context(context)
        if hello.will is not None:
            client.will_set(hello.will.topic, hello.will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _look_up(self, broker: Broker) -> str | None:
        """Resolves the name with a bound: getaddrinfo has none and can hang for a minute. Returns what is wrong."""
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(broker.host)
            return None
        if self._lookup is not None and self._lookup.is_alive():
            return f"the name {broker.host} is still being looked up; is the network's DNS server reachable?"
        failure: list[str] = []

        def look_up() -> None:
            try:
                socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                failure.append(f"the name {broker.host} cannot be looked up: {_plain(error)}")

        self._lookup = threading.Thread(target=look_up, name="lookup", daemon=True)
        self._lookup.start()
        self._lookup.join(self._connect_s_max)
        if self._lookup.is_alive():
            return f"looking up the name {broker.host} takes longer than {self._connect_s_max:g} s"
        self._lookup = None
        return failure[0] if failure else None

    # -- callbacks: they run inside poll, publish or disconnect, on the owner's thread --------------------------------

    def _on_connect(self, client: paho.Client, _u: object, _f: object, code: ReasonCode, _p: object) -> None:
        if client is not self._client:
            return
        if code.is_failure:
            self._end(f"the broker refuses: {code}")
        elif self._hello.subscriptions or self._hello.wishes:
            _, self._asked = client.subscribe([*self._hello.subscriptions, *self._hello.wishes])
            self._connack_by_s = self._now() + self._connect_s_max
        else:
            self._up()

    def _on_subscribe(self, client: paho.Client, _u: object, mid: int, codes: list[ReasonCode], _p: object) -> None:
        if client is not self._client or self._connected:
            return
        count = len(self._hello.subscriptions)
        # paho takes any SUBACK at any time, and no code at all would read as all granted.
        answers = len(codes) == count + len(self._hello.wishes) and all(code.value in _SUBACK_CODES for code in codes)
        if mid != self._asked or not answers:
            self._end("the broker answers what was not asked; is it an MQTT broker?")
            return
        denied = [topic for (topic, _), code in zip(self._hello.subscriptions, codes, strict=False) if code.is_failure]
        if denied:
            self._end(f"the broker denies {', '.join(denied)}; check the access list for {self._hello.client_id}")
            return
        wishes = zip(self._hello.wishes, codes[count:], strict=False)
        self._up(tuple(topic for (topic, _), code in wishes if code.is_failure))

    def _on_disconnect(self, client: paho.Client, _u: object, _f: object, code: ReasonCode, _p: object) -> None:
        if client is self._client:
            self._end("the connection was lost" if self._connected else f"closed before it was up ({code})")

    def _on_publish(self, client: paho.Client, _u: object, mid: int, _c: object, _p: object) -> None:
        if client is self._client and mid in self._unacked:
            self._unacked.discard(mid)
            self._heard_s = self._now()
            self._happenings.append(Delivered(mid))

    def _on_message(self, client: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        if client is not self._client:
            return
        self._heard_s = self._now()
        ack = self._acknowledger(client, message.mid) if message.qos else _nothing
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = "?"
        if len(message.payload) > PAYLOAD_BYTES_MAX:
            # Cut one byte over the limit: the reader refuses it for its size, and memory stays bounded.
            self._happenings.append(Received(topic, bytes(message.payload[: PAYLOAD_BYTES_MAX + 1]), ack=ack))
            return
        self._happenings.append(Received(topic, bytes(message.payload), bool(message.retain), ack))

    def _acknowledger(self, client: paho.Client, mid: int) -> Callable[[], None]:
        def ack() -> None:
            if client is self._client:
                client.ack(mid, 1)

        return ack

    def _up(self, denied: tuple[str, ...] = ()) -> None:
        self._connected, self._connack_by_s = True, None
        self._unacked.clear()
        self._heard_s = self._now()
        self._happenings.append(Connected(self._broker, denied))

    def _end(self, reason: str) -> None:
        """The connection is over, or never came up."""
        was_up = self._connected
        self._drop()
        self._happenings.append((Disconnected if was_up else Refused)(self._broker, reason))

    def _drop(self) -> None:
        """Closes the socket without a goodbye."""
        client, self._client = self._client, None
        self._connected, self._connack_by_s = False, None
        self._unacked.clear()
        if client is not None and (sock := client.socket()) is not None:
            with contextlib.suppress(OSError):
                sock.close()  # not through paho: we may be inside one of its callbacks, under its mutex

    # -- working ------------------------------------------------------------------------------------------------------

    def disconnect(self) -> None:
        client = self._client
        if client is not None and self._connected:
            self._client = None  # what paho reports from here on is no news
            self._connected = False
            self._unacked.clear()
            client.disconnect()
            by_s = self._now() + 1.0
            while (sock := client.socket()) is not None and client.want_write() and self._now() < by_s:
                if select.select([], [sock], [], 0.1)[1]:
                    client.loop_write()
            self._client = client
        self._drop()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        client = self._client
        if client is None or not self._connected:
            raise Transient(f"not connected to {self._broker}; the message to {topic} waits")
        info = client.publish(topic, payload, qos=qos, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS or client is not self._client:
            if client is self._client:
                self._end(f"cannot send: {paho.error_string(info.rc)}")
            raise Transient(f"the connection to {self._broker} broke while sending to {topic}")
        if qos:
            if not self._unacked:
                self._heard_s = self._now()
            self._unacked.add(info.mid)
        return info.mid

    def poll(self, timeout_s: float) -> list[Happening]:
        if not self._happenings:
            self._wait(timeout_s)
        happenings, self._happenings = self._happenings, []
        return happenings

    def _wait(self, timeout_s: float) -> None:
        """Waits for the first thing to happen, then takes in what is there."""
        first = True
        while len(self._happenings) < HAPPENINGS_MAX:
            client = self._client
            sock: Any = None if client is None else client.socket()
            if client is not None and sock is None:
                self._end("the connection was lost")
                return
            readers = [self._wake_r] if sock is None else [self._wake_r, sock]
            writers = [sock] if client is not None and client.want_write() else []
            buffered = _waits(sock)
            wait_s = min(timeout_s, 1.0 if client is not None else timeout_s) if first and not buffered else 0.0
            readable, writable, _ = select.select(readers, writers, [], max(wait_s, 0.0))
            woken = self._wake_r in readable
            if woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_r, 4096)
            if client is not None and client is self._client and writable:
                client.loop_write()
            if client is not None and client is self._client and (buffered or sock in readable):
                self._read(client)
            elif woken or not readable:
                break
            first = False
        self._check_deadlines()

    def _read(self, client: paho.Client) -> None:
        try:
            client.loop_read()
            while len(self._happenings) < HAPPENINGS_MAX and client is self._client and _waits(client.socket()):
                client.loop_read()
        except Exception as error:  # noqa: BLE001  (paho's parser meets whatever a stranger sends)
            if client is not self._client:
                return
            log.debug("paho: %r", error)
            self._end("it does not speak MQTT; is the port right?")

    def _check_deadlines(self) -> None:
        client, now = self._client, self._now()
        if client is None:
            return
        if self._connack_by_s is not None and now >= self._connack_by_s:
            self._end(f"it accepts connections but did not answer within {self._connect_s_max:g} s")
        elif self._unacked and now - self._heard_s >= self._stall_s_max:
            self._end(f"nothing came back for {self._stall_s_max:g} s: the line is dead")
        else:
            client.loop_misc()  # keep-alive

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_w, b"w")

    def _now(self) -> float:
        return self._clock.boot_ns() / NS


def _waits(sock: Any) -> bool:
    """Whether there are bytes that `select` does not tell of."""
    return sock is not None and sock.pending() > 0


def _nothing() -> None:
    """Acknowledges a QoS 0 message."""


def _plain(error: Exception) -> str:
    """An error of the socket or of TLS in words that say what to look at."""
    if isinstance(error, ssl.SSLCertVerificationError):
        dates = ("expired", "not yet valid")
        todo = "the clock" if any(word in error.verify_message for word in dates) else "tls.ca and the name"
        return f"the broker's certificate is not trusted: {error.verify_message}; check {todo}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with the broker: {error.reason or error}; is it the TLS port?"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the broker running, and is the port right?"
    if isinstance(error, TimeoutError):
        return "no answer; is the broker reachable?"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
