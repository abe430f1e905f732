"""A post whose clock is wrong reaches its broker, and no other: certificates of the past and of the future, real TLS.

A certificate that begins in years is to a post of today what today's is to a post whose clock says 1970.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.clock import SystemClock
from agent.config import TlsSettings
from agent.site import authority
from agent.types import NS, UtcReading
from agent.uplink import Connected, Hello, Refused, parse_broker
from agent.uplink.mqtt import Credentials, PahoTransport
from tests.e2e.brokers import nats_server
from tests.system.mtls import WAIT_S, Site


class Unvouched(SystemClock):
    """The machine's clock, of which nobody says that it is right."""

    def utc(self) -> UtcReading:
        return UtcReading(super().utc().utc_ns, None, "unsynchronised")


class Vouched(SystemClock):
    """The machine's clock, of which NTP says that it is right."""

    def utc(self) -> UtcReading:
        return UtcReading(super().utc().utc_ns, 1_000_000, "ntp")


def dated(site: Site, begins: dt.datetime, ends: dt.datetime) -> None:
    """Gives the broker a certificate of these dates."""
    key = authority.new_key()
    cert = authority._issue(
        site.authority, [x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker of ward-7")], key.public_key(),
        before=begins, after=ends, usage=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        names=[authority._general_name(site.host)],
    )  # fmt: skip
    (site.root / "broker/broker.pem").write_bytes(authority.certificate_pem(cert))
    (site.root / "broker/broker.key").write_bytes(authority.key_pem(key))


def outcome(site: Site, clock: SystemClock, *, ca: Path | None = None) -> str:
    """What a post hears that connects by this clock: `connected`, or the reason."""
    folder = site.folder / "gate-a"
    tls = TlsSettings(ca=str(ca or folder / "ca.pem"), cert=str(folder / "node.pem"), key=str(folder / "node.key"))
    transport = PahoTransport(clock=clock, credentials=Credentials(tls=tls))
    try:
        transport.connect(parse_broker(site.found.settings.brokers[0]), Hello("wardpost_ward-7_gate-a"))
        by = time.monotonic() + WAIT_S
        while time.monotonic() < by:
            for happening in transport.poll(0.2):
                if isinstance(happening, Connected):
                    return "connected"
                if isinstance(happening, Refused):
                    return happening.reason
        return "nothing"
    finally:
        transport.close()


@pytest.mark.parametrize(
    ("begins_days", "ends_days", "vouched", "told"),
    [
        (-1000, 1000, "connected", "connected"),
        # The post's clock is in 1970, as far as the broker's certificate can tell.
        (5000, 9000, "not yet valid", "connected"),
        # The post's clock is years ahead: the certificate has ended by it, and yet after the post's own was made.
        (-1000, -1, "has expired", "connected"),
        # It had ended before the post's own certificate was made. No clock is needed to know that it is over.
        (-1000, -30, "has expired", "has expired: it was good until"),
    ],
)  # fmt: skip
def test_a_post_whose_clock_is_wrong_reaches_its_broker_and_no_other(
    tmp_path: Path, begins_days: int, ends_days: int, vouched: str, told: str
) -> None:
    site = Site("nats", tmp_path)
    site.provision("gate-a")
    folder, key = tmp_path / "gate-a", authority.new_key()
    folder.mkdir()
    own = authority.issue_node(site.authority, "gate-a", 1, key.public_key(), now_ns=site.now_ns - 10 * 86_400 * NS)
    (folder / "node.pem").write_bytes(authority.certificate_pem(own))
    (folder / "node.key").write_bytes(authority.key_pem(key))
    shutil.copy(site.root / "ca/ca.pem", folder / "ca.pem")
    now = dt.datetime.now(dt.UTC)
    dated(site, now + dt.timedelta(days=begins_days), now + dt.timedelta(days=ends_days))
    foreign = tmp_path / "foreign.pem"
    stranger = authority.make_authority("ward-7", now_ns=site.now_ns)
    foreign.write_bytes(authority.certificate_pem(stranger.certificate))
    start_without_station(site)
    try:
        assert vouched in outcome(site, Vouched())
        assert told in outcome(site, Unvouched())
        assert "not trusted" in outcome(site, Unvouched(), ca=foreign), "whatever the time, only its own site"
    finally:
        site.stop()


def start_without_station(site: Site) -> None:
    """`Site.start` waits for its station, which would judge the dates."""
    site.configure()
    with site.log.open("ab") as out:
        site._process = subprocess.Popen([nats_server(), "-c", str(site.folder / "nats.conf")], stdout=out, stderr=out)
    by = time.monotonic() + WAIT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", site.port), timeout=1):
            break
        assert time.monotonic() < by, site.log.read_text()[-2000:]
        time.sleep(0.05)
    site.wait_for_log("Server is ready")
