"""Real brokers with a site's own certificates and rights, and clients that try what they must not."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from cryptography import x509
from paho.mqtt.enums import CallbackAPIVersion

from agent.clock import SystemClock
from agent.site import authority, brokers, founding
from agent.site.folder import SiteFolder
from agent.site.provisioning import Asked, provision
from agent.types import NS
from agent.uplink import parse_broker
from tests.e2e.brokers import free_port, mosquitto, nats_server

WAIT_S = 60.0  # a busy machine; on a quiet one a broker answers within a tenth of a second


@dataclass(frozen=True)
class Identity:
    """PEM files of a client; without a certificate it has none to show."""

    name: str
    cert: Path | None = None
    key: Path | None = None


@dataclass
class Site:
    """A site with a broker of one kind, on loopback."""

    kind: str  # mosquitto or nats
    folder: Path
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    refused: dict[str, int] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.root = self.folder / "ward-7"
        self.clock = SystemClock()
        self.found: SiteFolder = founding.found_site(
            self.root, name="ward-7", hosts=[f"{self.host}:{self.port}"], clock=self.clock
        )
        self.station = Identity("station", self.root / "station/station.pem", self.root / "station/station.key")
        self._plain = free_port()

    # -- identities ---------------------------------------------------------------------------------------------------

    def provision(self, node: str, *, again: bool = False) -> Identity:
        """Registers a post; returns its claim."""
        assert provision(self.root, Asked(node=node, ethernet=True, again=again), clock=self.clock, out=print) == 0
        kit = self.root / "nodes" / node / "kit"
        cert = x509.load_pem_x509_certificate((kit / "claim.pem").read_bytes())
        (name,) = cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return Identity(str(name.value), kit / "claim.pem", kit / "claim.key")

    def enrolled(self, node: str) -> Identity:
        """A post that has its certificate, without the trouble of getting one."""
        claim = self.provision(node)
        key = authority.new_key()
        cert = authority.issue_node(self.authority, node, 1, key.public_key(), now_ns=self.now_ns)
        register = founding.open_register(self.found)
        row = founding.of_certificate(cert, "node", self.now_ns, node=node, generation=1)
        assert register.enrolled(claim.name, row, self.now_ns)
        register.close()
        return self.files(node, cert, authority.key_pem(key))

    @property
    def authority(self) -> authority.Authority:
        return founding.load_authority(self.found)

    @property
    def now_ns(self) -> int:
        return self.clock.utc().utc_ns

    def expired(self, node: str) -> Identity:
        key = authority.new_key()
        then = self.now_ns - (authority.NODE_DAYS + 2) * 86_400 * NS
        cert = authority.issue_node(self.authority, node, 1, key.public_key(), now_ns=then)
        return self.files(f"{node}-expired", cert, authority.key_pem(key))

    def foreign(self, node: str) -> Identity:
        key = authority.new_key()
        other = authority.make_authority("ward-7", now_ns=self.now_ns)
        cert = authority.issue_node(other, node, 1, key.public_key(), now_ns=self.now_ns)
        return self.files(f"{node}-foreign", cert, authority.key_pem(key))

    def files(self, name: str, cert: x509.Certificate, key: bytes) -> Identity:
        for suffix, data in (("pem", authority.certificate_pem(cert)), ("key", key)):
            (self.folder / f"{name}.{suffix}").write_bytes(data)
        return Identity(name, self.folder / f"{name}.pem", self.folder / f"{name}.key")

    # -- the broker ---------------------------------------------------------------------------------------------------

    @property
    def log(self) -> Path:
        return self.folder / f"{self.kind}.log"

    def configure(self) -> None:
        """What `wardpost site` generates, with the paths and ports of this test."""
        here = self.root / "broker"
        at = brokers.Listener(
            host="127.0.0.1", port=self.port, ca=f"{here}/ca.pem", crl=f"{here}/crl.pem", cert=f"{here}/broker.pem",
            key=f"{here}/broker.key", acl=f"{here}/{brokers.MOSQUITTO_ACL}", store=str(self.folder / "store"),
            nats=f"127.0.0.1:{self._plain}",
        )  # fmt: skip
        register = founding.open_register(self.found)
        files = founding.broker_files("ward-7", [parse_broker(u) for u in self.found.settings.brokers], register,
                                      self.now_ns, at)  # fmt: skip
        register.close()
        conf = files["broker/mosquitto.conf" if self.kind == "mosquitto" else "broker/nats.conf"].decode()
        if self.kind == "mosquitto":
            user = "user root\n" if os.getuid() == 0 else ""
            conf = conf.replace("persistence true", f"persistence false\n{user}log_type all")
        (self.folder / f"{self.kind}.conf").write_text(conf)

    def start(self) -> None:
        """Starts it and waits until its port answers."""
        self.configure()
        conf = str(self.folder / f"{self.kind}.conf")
        command = [mosquitto(), "-c", conf] if self.kind == "mosquitto" else [nats_server(), "-c", conf]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        by = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                break
            assert time.monotonic() < by and self._process.poll() is None, self.log.read_text()[-2000:]
            time.sleep(0.02)
        station = Client(self, self.station)  # JetStream takes a moment longer than the port
        while not station.connect():
            assert time.monotonic() < by, self.log.read_text()[-2000:]
            station = Client(self, self.station)
        station.close()

    def reload(self) -> None:
        """Takes in a changed configuration and a changed CRL."""
        self.configure()
        assert self._process is not None
        mark = len(self.log.read_bytes())
        os.kill(self._process.pid, signal.SIGHUP)
        self.wait_for_log("Reloading config" if self.kind == "mosquitto" else "Reloaded server configuration", mark)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def wait_for_log(self, text: str, mark: int = 0) -> str:
        """The log line that says so, written after `mark` bytes."""
        by = time.monotonic() + WAIT_S
        while True:
            for line in self.log.read_bytes()[mark:].decode(errors="replace").splitlines():
                if text in line:
                    return line
            assert time.monotonic() < by, f"no {text!r} in:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)

    def mark(self) -> int:
        return len(self.log.read_bytes())

    def count(self, kind: str, seen: str) -> None:
        """One more attempt that was refused, and where it can be seen."""
        assert seen
        self.refused[kind] = self.refused.get(kind, 0) + 1
        print(f"{self.kind}: {kind}: {seen.strip()[:160]}")


class Client:
    """An MQTT 3.1.1 client with an identity; 5 where the reason of a refusal is to be seen (Mosquitto only)."""

    def __init__(
        self,
        site: Site,
        who: Identity,
        *,
        client_id: str = "",
        will: str = "",
        will_payload: bytes = b"forged",
        v5: bool = False,
    ) -> None:
        self.site = site
        self.received: list[tuple[str, bytes]] = []
        self.codes: dict[int, Any] = {}
        self.granted: dict[int, list[Any]] = {}
        self.lost = threading.Event()
        self.failure = ""
        self._up = threading.Event()
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id or f"wardpost_ward-7_{who.name}",
            protocol=paho.MQTTv5 if v5 else paho.MQTTv311, reconnect_on_failure=False,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(site.root / "broker/ca.pem")
        if who.cert is not None and who.key is not None:
            context.load_cert_chain(who.cert, who.key)
        self._client.tls_set_context(context)
        self._client.connect_timeout = WAIT_S
        if will:
            self._client.will_set(will, will_payload, qos=1, retain=True)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = lambda *_args: self.lost.set()
        self._client.on_publish = self._on_publish
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = lambda _c, _u, m: self.received.append((m.topic, bytes(m.payload)))

    def connect(self) -> bool:
        """Whether the broker lets it in."""
        try:
            self._client.connect("127.0.0.1", self.site.port, keepalive=20)
        except OSError as error:
            self.failure = str(error)
            return False
        self._client.loop_start()
        by = time.monotonic() + WAIT_S
        while not (self._up.is_set() or self.lost.is_set() or self.failure) and time.monotonic() < by:
            time.sleep(0.005)
        if not self._up.is_set():
            self.failure = self.failure or "closed by the broker"
            self.close()
        return self._up.is_set()

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: Any, _p: Any) -> None:
        if code.is_failure:
            self.failure = str(code)
        else:
            self._up.set()

    def _on_publish(self, _c: Any, _u: Any, mid: int, code: Any, _p: Any) -> None:
        self.codes[mid] = code

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, codes: Any, _p: Any) -> None:
        self.granted[mid] = codes

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> str:
        """Waits for the PUBACK; returns its reason, or that the connection ended."""
        mid = self._client.publish(topic, payload, qos=1, retain=retain).mid
        by = time.monotonic() + WAIT_S
        while mid not in self.codes and not self.lost.is_set() and time.monotonic() < by:
            time.sleep(0.005)
        return str(self.codes[mid]) if mid in self.codes else "connection ended"

    def subscribe(self, topic: str) -> str:
        """Waits for the SUBACK; returns its reason, or that the connection ended."""
        mid = self._client.subscribe(topic, qos=1)[1] or 0
        by = time.monotonic() + WAIT_S
        while mid not in self.granted and not self.lost.is_set() and time.monotonic() < by:
            time.sleep(0.005)
        return str(self.granted[mid][0]) if mid in self.granted else "connection ended"

    def heard(self, payload: bytes) -> bool:
        return any(found == payload for _, found in self.received)

    def wait_heard(self, payload: bytes) -> None:
        by = time.monotonic() + WAIT_S
        while not self.heard(payload):
            assert time.monotonic() < by, f"{payload!r} never came: {self.received}"
            time.sleep(0.005)

    def vanish(self) -> None:
        """The line is cut: no goodbye, so the broker publishes the will."""
        sock: Any = self._client.socket()
        assert sock is not None
        sock.shutdown(socket.SHUT_RDWR)
        assert self.lost.wait(WAIT_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def let_in(make: Callable[[], Client]) -> Client:
    """Who has a right to come in. nats-server may refuse him for a second: when it has not yet seen that those who came
    by the same name before have gone, it takes them for some that fight about it."""
    by = time.monotonic() + WAIT_S
    while not (client := make()).connect():
        assert time.monotonic() < by, client.failure
    return client


@contextlib.contextmanager
def connected(site: Site, who: Identity, **how: Any) -> Iterator[Client]:
    client = let_in(lambda: Client(site, who, **how))
    try:
        yield client
    finally:
        client.close()
