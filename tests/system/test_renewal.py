"""Certificates that end, on both real brokers: renewed over MQTT, refused and fallen back from."""

from __future__ import annotations

import hashlib
import random
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from agent.clock import SystemClock, rfc3339
from agent.config import TlsSettings
from agent.disk import PosixDisk
from agent.renewal import NEXT_CERT, NEXT_KEY, Renewal
from agent.site import authority, commands, founding
from agent.store.store import Origin, Store
from agent.types import NS
from agent.uplink import parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from agent.uplink.worker import UplinkWorker
from agent.wire import ClockState, Heartbeat, MachineState
from tests.e2e.brokers import mosquitto
from tests.system.mtls import WAIT_S, Client, Identity, Site, connected

pytestmark = pytest.mark.system
DAY_NS = 86_400 * NS
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["mosquitto", "nats"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "mosquitto" and not mosquitto():
        pytest.skip("Debian's mosquitto is not installed")
    one = Site(request.param, tmp_path)
    yield one
    one.stop()


def issue(site: Site, node: str, *, age_days: float, key_name: str = "node.key", cert_name: str = "node.pem") -> str:
    """A certificate made so long ago, in a folder as a card has it; its serial."""
    folder = site.folder / node
    folder.mkdir(exist_ok=True)
    shutil.copy(site.root / "ca/ca.pem", folder / "ca.pem")
    key, then = authority.new_key(), site.now_ns - round(age_days * DAY_NS)
    cert = authority.issue_node(site.authority, node, 1, key.public_key(), now_ns=then)
    (folder / key_name).write_bytes(authority.key_pem(key))
    (folder / cert_name).write_bytes(authority.certificate_pem(cert))
    return note(site, node, cert, then)


def note(site: Site, node: str, cert: x509.Certificate, then: int) -> str:
    register = founding.open_register(site.found)
    row = founding.of_certificate(cert, "node", then, node=node, generation=1)
    claim = register.claims_of(node)[0]
    if claim.used_by is None:
        assert register.enrolled(claim.claim, row, then)
    register.close()
    return row.serial


class Post:
    """A post's uplink with its renewal, on real files and a real connection."""

    def __init__(self, site: Site, node: str) -> None:
        self.folder = site.folder / node
        clock = SystemClock()
        names = {"ca": "ca.pem", "cert": "node.pem", "key": "node.key"}
        tls = TlsSettings(**{name: str(self.folder / file) for name, file in names.items()})
        self.renewal = Renewal(
            disk=PosixDisk(self.folder), clock=clock, rng=random.Random(1), site="ward-7", node=node, tls=tls,
            ask_after_s=(0.0, 0.2),
        )  # fmt: skip
        self.transport = PahoTransport(clock=clock, credentials=Credentials(tls=tls, choose=self.renewal.choose))
        self.store = Store(
            self.folder / "node.db", clock=clock, new_id=lambda: "0" * 8, origin=Origin("ward-7", node, ""),
            outbox_rows_max=1000, event_rows_max=1000,
        )  # fmt: skip
        self.store.open()
        self.store.start_session()
        self.worker = UplinkWorker(
            store=self.store, transport=self.transport, clock=clock, rng=random.Random(2), site="ward-7", node=node,
            place="", version="1", brokers=[parse_broker(site.found.settings.brokers[0])], heartbeat=self.beat,
            heartbeat_s=30.0, backoff_s_max=1.0, wait_s_max=0.2, errands=(self.renewal,),
        )  # fmt: skip
        self.node = node
        self.worker.open()

    def beat(self) -> Heartbeat:
        machine = MachineState(
            uptime_s=None, temperature_c=None, throttled=None, diskfreebytes=None, memoryavailablebytes=None,
            rssbytes=None, load1=None,
        )  # fmt: skip
        clock = ClockState(utc=rfc3339(0), errms=None, source="test")
        return Heartbeat(node=self.node, bootid="0" * 32, session=1, monons=0, version="1", model="test", clock=clock,
                         camera=None, vision=None, recording=None, queue=None, machine=machine)  # fmt: skip

    def live(self, until: Callable[[], bool], *, seconds: float = WAIT_S) -> float:
        """Seconds until it holds."""
        started = time.monotonic()
        while not until():
            assert time.monotonic() < started + seconds, sorted(path.name for path in self.folder.iterdir())
            self.worker.step(time.clock_gettime_ns(time.CLOCK_BOOTTIME) / NS)
        return time.monotonic() - started

    @property
    def serial(self) -> str:
        return f"{x509.load_pem_x509_certificate((self.folder / 'node.pem').read_bytes()).serial_number:x}"

    @property
    def settled(self) -> bool:
        return self.worker.broker is not None and not (self.folder / NEXT_KEY).exists()

    def close(self) -> None:
        self.worker.close()
        self.transport.close()
        self.store.close()


def test_a_post_renews_over_its_own_session_and_a_copy_of_its_old_card_is_out(site: Site) -> None:
    """`wardpost station` as a process answers; the old pair is then refused where a broker reads the CRL."""
    site.provision("gate-a")
    first = issue(site, "gate-a", age_days=2.2 * 365)
    copy = Identity("gate-a", site.folder / "old.pem", site.folder / "old.key")
    for name in ("pem", "key"):
        shutil.copy(site.folder / f"gate-a/node.{name}", site.folder / f"old.{name}")
    site.start()
    command = [sys.executable, "-m", "agent.cli", "station", "--config", str(site.root / "station/station.toml")]
    with (site.folder / "station.log").open("wb") as out:
        station = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    by = time.monotonic() + WAIT_S
    while "connected to" not in (site.folder / "station.log").read_text():
        assert time.monotonic() < by and station.poll() is None, (site.folder / "station.log").read_text()
        time.sleep(0.1)
    post = Post(site, "gate-a")
    try:

        def ended() -> bool:
            register = founding.open_register(site.found)
            old = register.certificate(first)
            register.close()
            return old is not None and old.reason == "renewed"

        took_s = post.live(lambda: post.serial != first and post.settled and ended())
        print(f"{site.kind}: renewed in {took_s:.1f} s, from the first connection to the old certificate's end")
        assert "uses its new certificate" in (site.folder / "station.log").read_text()
        assert (site.folder / "gate-a/node.key").stat().st_mode & 0o777 == 0o600
    finally:
        station.terminate()
        station.wait(timeout=WAIT_S)
        post.close()
    commands.brokers(site.root, clock=site.clock, out=print)  # writes the CRL
    mark = site.mark()
    site.reload()
    if site.kind == "mosquitto":
        assert not Client(site, copy).connect()
        site.count("certificate: renewed since", site.wait_for_log("certificate verify failed", mark))
    with connected(site, Identity("gate-a", site.folder / "gate-a/node.pem", site.folder / "gate-a/node.key")):
        pass


def test_a_new_certificate_that_the_broker_refuses_does_not_keep_the_post_away(site: Site) -> None:
    """Made by a station whose clock was a day ahead: the broker says `not yet valid`, the old pair still connects."""
    site.provision("gate-a")
    first = issue(site, "gate-a", age_days=800)
    issue(site, "gate-a", age_days=-1, key_name=NEXT_KEY, cert_name=NEXT_CERT)
    site.start()
    mark = site.mark()
    post = Post(site, "gate-a")
    try:
        took_s = post.live(lambda: post.worker.broker is not None)
        print(f"{site.kind}: connected by the old pair {took_s:.1f} s after the new one was refused")
        assert post.serial == first and (post.folder / NEXT_CERT).exists(), "kept for another try"
        words = "SSL routines" if site.kind == "mosquitto" else "expired or is not yet valid"
        site.count("certificate: not yet valid", site.wait_for_log(words, mark))
    finally:
        post.close()


def test_the_brokers_own_certificate_is_renewed_and_the_posts_notice_nothing(site: Site) -> None:
    a = site.enrolled("gate-a")
    site.start()

    def served() -> str:
        return hashlib.sha256(peer(site, a)).hexdigest()

    before = served()
    with connected(site, a) as live:
        told: list[str] = []
        assert commands.renew(site.root, every=False, clock=site.clock, out=told.append) == 0
        assert "nothing was changed" in told[-1]
        assert commands.renew(site.root, every=True, clock=site.clock, out=told.append) == 0
        site.reload()
        assert served() != before, "a reload is enough"
        assert not live.lost.is_set()
    with connected(site, a), connected(site, site.station):
        pass


def peer(site: Site, who: Identity) -> bytes:
    """The certificate that the broker shows, DER."""
    import socket

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(site.root / "broker/ca.pem")
    assert who.cert is not None and who.key is not None
    context.load_cert_chain(who.cert, who.key)
    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=WAIT_S) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as line,
    ):
        return line.getpeercert(binary_form=True) or b""
