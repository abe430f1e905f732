"""[uploads]: settings that cannot work are refused with what to do, and the certificate is the site's own."""

from __future__ import annotations

import random
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from agent.clock import SystemClock
from agent.demo.programs import free_port
from agent.errors import ConfigError
from agent.sending.address import parse_address
from agent.site import authority, founding
from agent.station.archive.making import ArchiveSettings, make_archive
from agent.station.archive.s3 import S3Archive
from agent.station.main import BrokerSettings, DeskSettings, Station, StationSettings
from agent.station.uploads_server import own_certificate
from agent.station.uploads_settings import UploadsSettings, listening

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hq") / "site"
    founding.found_site(root, name="ward", hosts=["127.0.0.1:8883"], clock=CLOCK)
    return root


def station(folder: Path, site: Path | None, uploads: UploadsSettings) -> Station:
    folder.mkdir(exist_ok=True)
    settings = StationSettings(
        station=DeskSettings(site="ward", id="hq", data=str(folder), register=str(site or "")),
        broker=BrokerSettings(brokers=("mqtt://127.0.0.1:1",)),
        uploads=uploads,
        archive=ArchiveSettings(free_gb_min=0.0),
    )
    return Station(settings, clock=CLOCK, rng=random.Random(1))


@pytest.mark.parametrize("listen", ["", "8444", ":8444", "host:", "host:0", "host:65536", "host:٣", "host:1e3"])
def test_an_address_that_is_none(listen: str) -> None:
    with pytest.raises(ConfigError, match=r"uploads\.listen"):
        listening(UploadsSettings(listen=listen))


@pytest.mark.parametrize("listen", ["0.0.0.0:8444", "[::]:8444", "hq.example:8444", "10.0.0.1:8444"])
def test_footage_goes_in_clear_within_this_machine_only(listen: str) -> None:
    with pytest.raises(ConfigError, match="in clear"):
        listening(UploadsSettings(listen=listen, tls=False))
    assert listening(UploadsSettings(listen=listen))[1] == 8444
    assert listening(UploadsSettings(listen="[::1]:1", tls=False)) == ("::1", 1)
    with pytest.raises(ConfigError, match="write https://"):
        parse_address("http://" + listen)


def test_without_a_register_nobody_could_be_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"station\.register"):
        station(tmp_path / "data", None, UploadsSettings(listen="127.0.0.1:8444", hosts=("127.0.0.1",)))


def test_the_certificate_is_made_once_and_anew_for_other_names_or_a_broken_pair(site: Path, tmp_path: Path) -> None:
    def made(*hosts: str) -> x509.Certificate:
        cert, _ = own_certificate(tmp_path, site, site="ward", hosts=hosts, clock=CLOCK)
        return x509.load_pem_x509_certificate(Path(cert).read_bytes())

    with pytest.raises(ConfigError, match=r"uploads\.hosts"):
        made()
    first = made("hq.example", "10.0.0.1")
    ca = x509.load_pem_x509_certificate((site / "ca/ca.pem").read_bytes())
    first.verify_directly_issued_by(ca)
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(one.value) for one in names} == {"hq.example", "10.0.0.1"}
    assert (tmp_path / "uploads.key").stat().st_mode & 0o777 == 0o600
    assert made("10.0.0.1", "hq.example") == first, "it is good for long"
    second = made("other.example")
    assert second != first
    (tmp_path / "uploads.key").write_bytes(authority.key_pem(authority.new_key()))
    assert made("other.example") != second, "the key was another one's"
    (tmp_path / "uploads.pem").write_bytes(b"rubbish")
    made("other.example")


def test_it_listens_by_the_sites_certificate_and_leaves_when_told(site: Path, tmp_path: Path) -> None:
    port = free_port()
    made = station(tmp_path / "data", site, UploadsSettings(listen=f"127.0.0.1:{port}", hosts=("127.0.0.1",)))
    assert made.uploads is not None
    made.store.open()
    try:
        made.uploads.start()
        made.uploads.start()  # again changes nothing
        context = ssl.create_default_context(cafile=str(site / "ca/ca.pem"))
        raw = socket.create_connection(("127.0.0.1", port), timeout=20)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
            secure.sendall(b"OPTIONS /v1/files HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert secure.recv(100).startswith(b"HTTP/1.1 204")
        made.uploads.check()
        other = station(tmp_path / "two", site, UploadsSettings(listen=f"127.0.0.1:{port}", hosts=("127.0.0.1",)))
        assert other.uploads is not None
        with pytest.raises(ConfigError, match="cannot listen"):
            other.uploads.start()
    finally:
        made.uploads.stop()
        made.store.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (ArchiveSettings(place="/nowhere/at/all"), "not a folder"),
        (ArchiveSettings(place="s3://"), "s3://bucket"),
        (ArchiveSettings(place="s3://b", endpoint="ftp://x"), r"archive\.endpoint"),
        (ArchiveSettings(place="s3://b", endpoint="http://store.example"), "in clear"),
        (ArchiveSettings(place="s3://b", endpoint="https://store.example", secret_file="/nowhere"), "not readable"),
    ],
)
def test_an_archive_that_cannot_work(tmp_path: Path, settings: ArchiveSettings, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_archive(settings, tmp_path)


def test_an_object_store_by_configuration_alone_and_its_secret_stays_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t\n")
    made = make_archive(
        ArchiveSettings(
            place="s3://footage/ward",
            endpoint="https://store.example",
            key_id="k",
            secret_file=str(tmp_path / "secret"),
        ),
        tmp_path,
    )
    assert isinstance(made, S3Archive)
    assert "s3cr3t" not in repr(made._where)
