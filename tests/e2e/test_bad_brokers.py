"""Brokers that deny, reset or cannot be trusted: each gives one clear line, and a good one is then used."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import ipaddress
import random
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.clock import SystemClock
from agent.config import TlsSettings
from agent.errors import ConfigError
from agent.uplink import Broker, Connected, Happening, Hello, Refused, Will, parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from tests.e2e.brokers import NatsServer

CONNECT_S_MAX = 30.0  # a busy machine; whoever answers does so at once on a quiet one
HELLO = Hello(
    "wardpost_ward-7_gate-2",
    (("wardpost/v1/ward-7/gate-2/ack", 1), ("wardpost/v1/ward-7/gate-2/cmd/+", 1)),
    Will("wardpost/v1/ward-7/gate-2/status", b"{}"),
)


def outcome(broker: Broker, credentials: Credentials | None = None, hello: Hello = HELLO) -> Happening:
    """What comes of one attempt to connect.

    Each by a name of its own: where the server has not yet seen that the one before has gone, nats-server takes the two
    for one that flaps, and holds the third for a second and closes it.
    """
    hello = dataclasses.replace(hello, client_id=f"{hello.client_id}-{secrets.token_hex(4)}")
    transport = PahoTransport(
        clock=SystemClock(), credentials=credentials or Credentials(), connect_s_max=CONNECT_S_MAX
    )
    try:
        transport.connect(broker, hello)
        by = time.monotonic() + 4 * CONNECT_S_MAX
        while time.monotonic() < by:
            happened = transport.poll(0.1)
            if happened:
                return happened[0]
        raise AssertionError(f"neither connected nor refused within {4 * CONNECT_S_MAX:.0f} s")
    finally:
        transport.close()


def reason(happening: Happening) -> str:
    assert isinstance(happening, Refused), happening
    assert "\n" not in happening.reason
    return happening.reason


def test_a_topic_that_the_broker_denies_is_named(tmp_path: Path) -> None:
    """In MQTT 3.1.1 a denied subscription is silent unless one looks at the SUBACK."""
    rules = """authorization { users: [ { user: gate, password: secret, permissions: {
      publish: { allow: ["wardpost.v1.ward-7.gate-2.>"] }, subscribe: { allow: ["wardpost.v1.ward-7.gate-2.ack"] } } },
      { user: other, password: secret } ] }"""
    broker = NatsServer(tmp_path, extra=rules)
    password = tmp_path / "password"
    password.write_text("secret\n")
    try:
        broker.start()
        gate = Credentials("gate", str(password))
        said = reason(outcome(parse_broker(broker.url), gate))
        assert "denies wardpost/v1/ward-7/gate-2/cmd/+" in said
        assert isinstance(outcome(parse_broker(broker.url), Credentials("other", str(password))), Connected)
        ack, commands = HELLO.subscriptions
        modest = Hello(HELLO.client_id, (ack,), HELLO.will, wishes=(commands,))
        up = outcome(parse_broker(broker.url), gate, modest)
        assert isinstance(up, Connected) and up.denied == (commands[0],), "what is only wished for is only missed"
        assert outcome(parse_broker(broker.url), Credentials("other", str(password)), modest) == Connected(up.broker)
        password.write_text("wrong")
        assert "refuses" in reason(outcome(parse_broker(broker.url), gate))
    finally:
        broker.stop()


@pytest.fixture
def resetting() -> Iterator[Broker]:
    """A listener that takes every connection and resets it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield Broker("127.0.0.1", listener.getsockname()[1], tls=False)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_broker_that_resets_is_refused(resetting: Broker) -> None:
    assert reason(outcome(resetting))


def test_a_name_that_does_not_exist_is_said_so() -> None:
    assert "cannot be looked up" in reason(outcome(Broker("no-such-host.invalid", 1883, tls=False)))


def test_something_that_is_no_broker_is_refused_whatever_it_says(seed: int) -> None:
    """It answers, but not in MQTT; or in MQTT, but nonsense."""
    rng = random.Random(seed)
    answers = [b"SSH-2.0-OpenSSH_9.2\r\n" * 20, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x00", b"\x20\x02\x00"]
    answers += [
        b"\x20\x02\x00\x00\x90\x01\x00",
        b"\x20\x02\x00\x00\x30\x01\x00",
        b"\x20\x02\x00\x63",
        b"\x20\x02\x00\x01",
        b"\x90\x02\x1e\x93",  # grants, and nobody has asked yet
        b"\x90\x03\x00\x01\x01",
        b"\x20\x02\x00\x00\x90\x02\x46\xc4",  # to another question, or without an answer
        b"\x20\x02\x00\x00\x90\x02\x00\x01",
        b"\x20\x02\x00\x00\x90\x03\x12\x34\x01",
        b"\x20\x02\x00\x00\x90\x05\x00\x01\x01\x01\x01",  # more answers than questions
        b"\x20\x02\x00\x00\x90\x03\x00\x01\x01",
        b"\x20\x02\x00\x00\x90\x04\x00\x01\x01\x03",  # a grant that MQTT does not have
        b"\x20\x02\x00\x00\x90\x04\x00\x01\x01\x7f",
    ]
    answers += [rng.randbytes(rng.randrange(1, 40)) for _ in range(20)]
    answers += [b"\x20\x02\x00\x00" + rng.randbytes(rng.randrange(1, 40)) for _ in range(20)]
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(100)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass

    thread = threading.Thread(target=serve, daemon=True)  # it waits for ever where one of them is believed
    thread.start()
    broker = Broker("127.0.0.1", listener.getsockname()[1], tls=False)
    said = [reason(outcome(broker)) for _ in answers]
    thread.join()
    listener.close()
    assert all(said)


# -- TLS ----------------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        cert = self._sign(self._name, self._key.public_key(), ca=True)
        self.path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, *, ca: bool = False) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        usage = x509.KeyUsage(True, False, False, False, False, ca, ca, False, False)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )

    def issue(self, name: str) -> tuple[str, str]:
        """Paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert_path, key_path = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        cert_path.write_bytes(self._sign(subject, key.public_key()).public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return str(cert_path), str(key_path)


class TlsNats(NatsServer):
    """nats-server that asks for client certificates."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        cert, key = authority.issue("broker")
        tls = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{authority.path}", verify: true }}'
        super().__init__(folder)
        self._tls = tls

    def command(self) -> list[str]:
        words = super().command()
        conf = Path(words[-1])
        conf.write_text(conf.read_text().replace("max_ack_pending: 1000", f"max_ack_pending: 1000, {self._tls}"))
        return words

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=CONNECT_S_MAX):
                return True
        except OSError:
            return False


def test_tls_trusts_who_it_should_and_nobody_else(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "our-ca"), Authority(tmp_path, "their-ca")
    (tmp_path / "broker-data").mkdir()
    broker = TlsNats(tmp_path / "broker-data", ours)
    cert, key = ours.issue("gate-2")
    foreign_cert, foreign_key = theirs.issue("gate-9")
    address = Broker("127.0.0.1", broker.port, tls=True)
    try:
        broker.start()

        def attempt(ca: Path, cert: str, key: str, to: Broker = address) -> Happening:
            return outcome(to, Credentials(tls=TlsSettings(ca=str(ca), cert=cert, key=key)))

        assert isinstance(attempt(ours.path, cert, key), Connected)
        assert "is not trusted" in reason(attempt(theirs.path, cert, key))
        assert reason(attempt(ours.path, foreign_cert, foreign_key))
        assert reason(attempt(ours.path, "", ""))
        assert "is not trusted" in reason(attempt(ours.path, cert, key, Broker("localhost", broker.port, tls=True)))
        assert reason(outcome(Broker("127.0.0.1", broker.port, tls=False)))
    finally:
        broker.stop()


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "our-ca")
    cert, _ = ours.issue("gate-2")
    _, other_key = ours.issue("gate-3")
    nowhere = Broker("127.0.0.1", 1, tls=True)
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for tls, match in (
        (TlsSettings(ca=str(tmp_path / "missing.pem")), r"tls\.ca: .*missing\.pem cannot be read"),
        (TlsSettings(ca=str(junk)), r"tls\.ca: .*junk\.pem is not a PEM certificate"),
        (TlsSettings(ca=str(ours.path), cert=cert, key=other_key), r"tls\.cert: .* do not work together"),
    ):
        with pytest.raises(ConfigError, match=match):
            outcome(nowhere, Credentials(tls=tls))
    with pytest.raises(ConfigError, match=r"password_file: .*nowhere cannot be read"):
        outcome(Broker("127.0.0.1", 1, tls=False), Credentials("gate", str(tmp_path / "nowhere")))
