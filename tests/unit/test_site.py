"""A site is made, kept, lost, brought back; a certificate is what it claims to be, and a cut leaves nothing half done."""

from __future__ import annotations

import shutil
import sqlite3
import ssl
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.cli import main
from agent.clock import SystemClock
from agent.config import load
from agent.errors import ConfigError, Corrupt
from agent.evidence import keys
from agent.site import authority, backup, founding
from agent.site.folder import check_name, making, open_site, toml_text
from agent.site.register import Certificate, Claim, Node
from agent.station.main import StationSettings

NOW_NS = SystemClock().utc().utc_ns
PASSPHRASE = "correct horse battery"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "ward-7"
    founding.found_site(root, name="ward-7", hosts=["hq.example.org", "10.0.0.5:8884"], clock=SystemClock())
    return root


def provisioned(site: Path, node: str, generation: int = 1) -> tuple[str, str]:
    """A post in the register, with a certificate of its own; returns the serials of claim and post."""
    found = open_site(site)
    ca = founding.load_authority(found)
    register = founding.open_register(found)
    name = f"claim-{node.replace('-', '')}{generation}xxxxxxx"
    claim = authority.issue_claim(ca, name, authority.new_key().public_key(), now_ns=NOW_NS, days=14)
    row = founding.of_certificate(claim, "claim", NOW_NS, node=node, generation=generation)
    register.provisioned(
        Node(node=node, generation=generation, state="provisioned", device="", place="", custodian="", consent="",
             profile="", made_utc_ns=NOW_NS),
        Claim(claim=name, node=node, generation=generation, hash=row.key_sha256, expires_utc_ns=row.not_after_utc_ns),
        row,
        NOW_NS,
    )  # fmt: skip
    own = authority.issue_node(ca, node, generation, authority.new_key().public_key(), now_ns=NOW_NS)
    cert = founding.of_certificate(own, "node", NOW_NS, node=node, generation=generation)
    assert register.enrolled(name, cert, NOW_NS)
    register.close()
    return row.serial, cert.serial


def test_every_certificate_is_what_it_claims_to_be(site: Path) -> None:
    ca = x509.load_pem_x509_certificate((site / "ca/ca.pem").read_bytes())
    broker = x509.load_pem_x509_certificate((site / "broker/broker.pem").read_bytes())
    station = x509.load_pem_x509_certificate((site / "station/station.pem").read_bytes())
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical and constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    for one in (broker, station):
        one.verify_directly_issued_by(ca)
        assert one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
        key = one.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    assert len({ca.serial_number, broker.serial_number, station.serial_number}) == 3
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hq.example.org"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]
    usages = station.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    # a post that wakes up in 2021 must be able to believe its broker
    assert ca.not_valid_before_utc.year == broker.not_valid_before_utc.year == 2020


def test_openssl_agrees_also_about_what_is_revoked(site: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    _, serial = provisioned(site, "gate-2")
    register = founding.open_register(open_site(site))
    cert = register.certificate(serial)
    register.close()
    assert cert is not None
    (site / "post.pem").write_text(cert.pem)

    def verify() -> str:
        command = ["openssl", "verify", "-x509_strict", "-crl_check", "-CAfile", site / "ca/ca.pem", "-CRLfile",
                   site / "ca/crl.pem", "-purpose", "sslclient", site / "post.pem"]  # fmt: skip
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        return done.stdout + done.stderr

    assert ": OK" in verify()
    founding.revoke(open_site(site), node="gate-2", serial=None, reason="stolen", clock=SystemClock())
    assert "certificate revoked" in verify()


def test_keys_are_for_the_owner_alone_and_belong_to_their_certificates(site: Path) -> None:
    assert stat.S_IMODE(site.stat().st_mode) == stat.S_IMODE((site / "ca").stat().st_mode) == 0o700
    private = [*site.rglob("*.key"), *site.rglob("keys/*.pem")]
    assert len(private) == 6  # authority, broker, station, commands, receipts, releases
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for name in ("station/station", "broker/broker", "ca/ca"):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(site / f"{name}.pem", site / f"{name}.key")
    command = keys.private_key(site / "station/command.key")
    assert keys.public_key("x", str(site / "station/command.pub")) == command.public
    release = keys.private_key(site / "release/release.key")
    assert keys.public_key("x", str(site / "release/release.pub")) == release.public
    (receipt,) = (site / "station/data/keys").iterdir()
    assert keys.public_key("x", str(site / "station/station.pub")) == keys.private_key(receipt).public
    assert isinstance(command.private, ed25519.Ed25519PrivateKey)


def test_the_station_starts_from_what_init_wrote(site: Path) -> None:
    settings = load(site / "station/station.toml", StationSettings)
    assert settings.station.site == "ward-7" and Path(settings.station.register) == site
    assert settings.broker.brokers == ("mqtts://hq.example.org:8883", "mqtts://10.0.0.5:8884")
    assert Path(settings.station.data).is_dir()


def test_a_site_is_never_overwritten(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert main(["site", "init", str(site), "--site", "other", "--broker", "hq"]) == 78
    assert "never overwritten" in capsys.readouterr().err
    (site / "site.toml").unlink()  # damaged: still somebody's keys
    assert main(["site", "init", str(site), "--site", "other", "--broker", "hq"]) == 78
    assert "is not empty" in capsys.readouterr().err
    del before[site / "site.toml"]
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("cut_at", range(1, 24, 2))
def test_a_cut_while_a_site_is_made_leaves_no_half_site_and_the_next_run_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    class PowerCut(BaseException):
        """Nothing in the program may catch it."""

    steps = 0
    from agent.disk import PosixDisk

    real = PosixDisk.replace

    def replace(self: PosixDisk, name: str, data: bytes, *, private: bool = False) -> None:
        nonlocal steps
        steps += 1
        if steps == cut_at:
            raise PowerCut
        real(self, name, data, private=private)

    root = tmp_path / "s"
    with monkeypatch.context() as patch:
        patch.setattr(PosixDisk, "replace", replace)
        patch.setattr(shutil, "rmtree", lambda *_a, **_k: None)  # the machine is dead: nobody tidies up
        try:
            founding.found_site(root, name="ward-7", hosts=["hq"], clock=SystemClock())
        except PowerCut:
            assert not root.exists()
            with pytest.raises(ConfigError, match="no site there"):
                open_site(root)
        else:
            assert steps < cut_at
    if not root.exists():
        founding.found_site(root, name="ward-7", hosts=["hq"], clock=SystemClock())
    assert open_site(root).settings.name == "ward-7"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--site", "Ward 7", "--broker", "hq"], "is not a name"),
        (["--site", "-ward", "--broker", "hq"], "no hyphen at an end"),
        (["--site", "ward", "--broker", "hq:99999"], "is not a broker"),
        (["--site", "ward", "--broker", "mqtt://hq:1883"], "TLS only"),
        (["--site", "ward", "--broker", "hq", "--broker", "hq:8883"], "named twice"),
        (["--site", "ward", "--broker", "h q"], "is not a broker"),
    ],
)
def test_wrong_words_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    assert main(["site", "init", str(tmp_path / "s"), f"--site={args[1]}", *args[2:]]) == 78
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_a_site_comes_back_from_its_backup_elsewhere(site: Path, tmp_path: Path) -> None:
    _, serial = provisioned(site, "gate-2")
    (site / "station/data/station.db").write_bytes(b"gigabytes of events")
    file = tmp_path / "ward.backup"
    founding.back_up(open_site(site), file, PASSPHRASE, cost=2)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (site / "ca/ca.key").read_bytes() not in file.read_bytes() and b"PRIVATE" not in file.read_bytes()
    shutil.move(site, tmp_path / "burnt")
    back = founding.restore(file, tmp_path / "new", PASSPHRASE)
    burnt = tmp_path / "burnt"
    for path in burnt.rglob("*"):
        name = path.relative_to(burnt)
        if path.is_file() and name.name not in ("station.db", "register.db", "station.toml"):
            assert (back.root / name).read_bytes() == path.read_bytes(), name
            assert stat.S_IMODE((back.root / name).stat().st_mode) == stat.S_IMODE(path.stat().st_mode), name
    register = founding.open_register(back)
    found = register.certificate(serial)
    register.close()
    assert found is not None and found.node == "gate-2"
    assert load(back.root / "station/station.toml", StationSettings).station.register == str(back.root)
    assert not (back.root / "station/data/station.db").exists()


def test_a_backup_opens_for_its_passphrase_only_and_only_as_it_was_written() -> None:
    files = {"site.toml": b"x", "ca/ca.key": b"secret"}
    sealed = backup.seal(files, PASSPHRASE, cost=2)
    assert backup.unseal(sealed, PASSPHRASE) == files
    with pytest.raises(Corrupt, match="passphrase is wrong"):
        backup.unseal(sealed, PASSPHRASE + " ")
    for at in range(0, len(sealed), 97):
        broken = bytearray(sealed)
        broken[at] ^= 1
        with pytest.raises(Corrupt):
            backup.unseal(bytes(broken), PASSPHRASE)
        with pytest.raises(Corrupt):
            backup.unseal(sealed[:at], PASSPHRASE)
    with pytest.raises(ConfigError, match="12 or more"):
        backup.seal(files, "short", cost=2)
    huge = sealed.replace(b'"n": 2,', b'"n": 1099511627776,')
    with pytest.raises(Corrupt, match="does not know"):
        backup.unseal(huge, PASSPHRASE)
    for name in ("../../etc/passwd", "/etc/passwd", "a/../b"):
        with pytest.raises(Corrupt, match="no file of a site"):
            backup.unseal(backup.seal({name: b""}, PASSPHRASE, cost=2), PASSPHRASE)


def test_a_restore_overwrites_nothing_and_a_wrong_passphrase_leaves_nothing(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, words = tmp_path / "b", tmp_path / "words"
    words.write_text(PASSPHRASE + "\n")
    assert main(["site", "backup", str(site), "-o", str(file), "--passphrase-file", str(words)]) == 0
    assert main(["site", "backup", str(site), "-o", str(file), "--passphrase-file", str(words)]) == 78
    restore = ["site", "restore", str(site), "--from", str(file), "--passphrase-file", str(words)]
    assert main(restore) == 78
    words.write_text("something else altogether\n")
    restore[2] = str(tmp_path / "new")
    assert main(restore) == 1
    assert "passphrase is wrong" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not list(tmp_path.glob(".*"))


def test_revoking_a_post_takes_its_claim_along_and_leaves_the_others(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim, own = provisioned(site, "gate-2")
    _, other = provisioned(site, "gate-3")
    assert main(["site", "revoke", str(site), "gate-2", "--reason", "stolen"]) == 0
    crl = x509.load_pem_x509_crl((site / "broker/crl.pem").read_bytes())
    listed = {f"{entry.serial_number:x}" for entry in crl}
    assert listed == {claim, own} and other not in listed
    ca = x509.load_pem_x509_certificate((site / "ca/ca.pem").read_bytes())
    assert crl.next_update_utc == ca.not_valid_after_utc, "a list that runs out locks everybody out"
    nats = (site / "broker/nats.conf").read_text()
    assert "CN=gate-3,OU=g1" in nats and "gate-2" not in nats
    assert main(["site", "revoke", str(site), "gate-2"]) == 0  # again: no error, and said
    assert "was revoked before" in capsys.readouterr().out
    assert main(["site", "show", str(site)]) == 0
    assert "gate-2: revoked" in capsys.readouterr().out


def test_a_certificate_is_revoked_by_its_serial_and_the_sites_own_are_not(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, own = provisioned(site, "gate-2")
    dotted = ":".join(own.rjust(len(own) + len(own) % 2, "0")[i : i + 2] for i in range(0, len(own), 2)).upper()
    assert main(["site", "revoke", str(site), "--serial", dotted]) == 0
    assert "CN=gate-2," not in (site / "broker/nats.conf").read_text()
    broker = x509.load_pem_x509_certificate((site / "broker/broker.pem").read_bytes())
    assert main(["site", "revoke", str(site), "--serial", f"{broker.serial_number:x}"]) == 78
    assert main(["site", "revoke", str(site), "--serial", "zz"]) == 78
    assert main(["site", "revoke", str(site), "gate-9"]) == 78
    assert main(["site", "revoke", str(site)]) == 78
    assert capsys.readouterr().err.count("\n") == 4


def test_the_register_survives_and_refuses_what_is_no_register(site: Path) -> None:
    path = site / "register.db"
    with sqlite3.connect(path) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute(
            "insert into node (node, generation, state, made_utc_ns) values ('x', 'not a number', 'enrolled', 0)"
        )
    db.close()
    path.write_bytes(b"not a database, but long enough to be looked at by SQLite as one" * 100)
    with pytest.raises(Corrupt, match="restore the site from its backup"):
        founding.open_register(open_site(site))
    path.unlink()
    with pytest.raises(ConfigError, match="no register there"):
        founding.open_register(open_site(site))


def test_a_claim_is_used_once_by_whoever_comes_first(site: Path) -> None:
    provisioned(site, "gate-2")
    register = founding.open_register(open_site(site))
    (claim,) = register.claims_of("gate-2")
    late = Certificate(serial="ff", kind="node", name="gate-2", node="gate-2", generation=1, key_sha256="0" * 64,
                       pem="", not_after_utc_ns=0, issued_utc_ns=0)  # fmt: skip
    assert register.enrolled(claim.claim, late, NOW_NS) is False
    assert register.certificate("ff") is None and register.claim(claim.claim) == claim
    register.close()


def test_refusals_are_counted_not_piled_up(site: Path) -> None:
    register = founding.open_register(open_site(site))
    for at in range(50):
        register.refused("claim-abcdefgh", "claim-used", "gate-2", f"key {at}", NOW_NS + at)
    (row,) = register.refusals()
    assert (row.count, row.detail, row.last_utc_ns) == (50, "key 49", NOW_NS + 49)
    register.close()


@pytest.mark.parametrize(
    "name", ["", "a" * 33, "A", "gate_1", "-a", "a-", "station", "broker", "claim-12345678", "..", "ä"]
)
def test_names_that_no_post_may_have(name: str) -> None:
    with pytest.raises(ConfigError):
        check_name("node", name)


def test_toml_texts_survive_the_trip() -> None:
    for text in ('a "quoted" name', "Cà phê Đà Nẵng 咖啡", "back\\slash", "tab\tdel\x7fnul\x00", "'''", "🏠"):
        assert tomllib.loads(f"x = {toml_text(text)}")["x"] == text
    with pytest.raises(ConfigError):
        toml_text("\ud800")


def test_a_folder_in_the_making_is_private_and_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".s.making").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link"), making(tmp_path / "s"):
        pass
    (tmp_path / ".s.making").unlink()
    with making(tmp_path / "s") as scratch:
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    with pytest.raises(ConfigError), making(tmp_path / "missing" / "s"):
        pass


def test_requests_that_no_post_of_ours_sends_are_refused() -> None:
    key = authority.new_key()
    good = authority.make_csr("gate-2", key).decode()
    assert authority.read_csr(good, "gate-2") == key.public_key()
    with pytest.raises(Corrupt, match="is for gate-2, the claim for gate-3"):
        authority.read_csr(good, "gate-3")
    lines = good.splitlines()
    flipped = "\n".join(
        [*lines[:3], ("B" if lines[3][5] == "A" else "A").join([lines[3][:5], lines[3][6:]]), *lines[4:]]
    )
    for bad in (
        "",
        "x" * 5000,
        "-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----",
        flipped,
        "\ud800",
    ):
        with pytest.raises(Corrupt):
            authority.read_csr(bad, "gate-2")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate-2")])
    weak = x509.CertificateSigningRequestBuilder().subject_name(name).sign(ed25519.Ed25519PrivateKey.generate(), None)
    from cryptography.hazmat.primitives.serialization import Encoding

    with pytest.raises(Corrupt, match="not for a P-256 key"):
        authority.read_csr(weak.public_bytes(Encoding.PEM).decode(), "gate-2")


def test_the_stations_and_the_brokers_certificates_are_renewed_for_the_same_keys(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {kind: (site / f"{kind}/{kind}.pem").read_bytes() for kind in ("broker", "station")}
    keys_before = {kind: (site / f"{kind}/{kind}.key").read_bytes() for kind in before}
    assert main(["site", "renew", str(site)]) == 0
    assert "nothing was changed" in capsys.readouterr().out
    assert main(["site", "renew", str(site), "--now"]) == 0
    told = capsys.readouterr().out
    assert "broker: a new certificate" in told and "copy" in told and "station: a new certificate" in told
    for kind, old in before.items():
        new, last = (x509.load_pem_x509_certificate(pem) for pem in ((site / f"{kind}/{kind}.pem").read_bytes(), old))
        assert new.serial_number != last.serial_number and new.public_key() == last.public_key()
        assert new.subject == last.subject and (site / f"{kind}/{kind}.key").read_bytes() == keys_before[kind]
        new.verify_directly_issued_by(x509.load_pem_x509_certificate((site / "ca/ca.pem").read_bytes()))
    assert main(["site", "show", str(site)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("broker: good for") == shown.count("station: good for") == 1


def test_what_ends_is_told_half_a_year_before_and_the_station_renews_its_own(
    site: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from agent.site import commands
    from agent.station.enrolment import EnrolmentDesk
    from tests.fakes.clock import FakeClock

    clock = FakeClock(utc_ns=SystemClock().utc().utc_ns)
    desk = EnrolmentDesk(site, clock=clock, site=open_site(site).settings.name)
    desk.open()
    desk.tend()
    first = (site / "station/station.pem").read_bytes()
    assert not caplog.records
    clock.advance((authority.SERVER_DAYS - 100) * 86_400)
    desk.tend()
    assert (site / "station/station.pem").read_bytes() != first
    assert "the broker's certificate ends in 100 days" in caplog.text and "site renew" in caplog.text
    said = len(caplog.records)
    desk.tend()
    assert len(caplog.records) == said, "once a day"
    desk.close()
    assert commands.show(site, as_json=False, clock=clock, out=print) == 0
    shown = capsys.readouterr().out
    assert f"broker: good for 100 days - wardpost site renew {site}" in shown
    assert f"station: good for {authority.SERVER_DAYS} days" in shown


def test_a_post_whose_certificate_is_due_or_over_is_shown(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from agent.site import commands
    from agent.site.provisioning import Asked, provision
    from tests.fakes.clock import FakeClock

    clock = FakeClock(utc_ns=SystemClock().utc().utc_ns)
    assert provision(site, Asked(node="gate-7", ethernet=True), clock=clock, out=lambda _: None) == 0
    now_ns = clock.utc().utc_ns
    signed = authority.issue_node(
        founding.load_authority(open_site(site)), "gate-7", 1, authority.new_key().public_key(), now_ns=now_ns
    )
    register = founding.open_register(open_site(site))
    row = founding.of_certificate(signed, "node", now_ns, node="gate-7", generation=1)
    assert register.enrolled(register.claims_of("gate-7")[0].claim, row, now_ns)
    register.close()

    def line() -> str:
        capsys.readouterr()
        assert commands.show(site, as_json=False, clock=clock, out=print) == 0
        return next(text for text in capsys.readouterr().out.splitlines() if "gate-7:" in text)

    assert line().strip() == "gate-7: enrolled"
    clock.advance(800 * 86_400)
    assert "its certificate is good for 295 days: it is renewed when the post is heard again" in line()
    clock.advance(300 * 86_400)
    assert "ended 5 days ago: provision it with --again" in line()


def test_an_expired_certificate_leaves_the_list_of_revoked_ones_after_a_month(site: Path) -> None:
    from tests.fakes.clock import FakeClock

    clock = FakeClock(utc_ns=SystemClock().utc().utc_ns)
    from agent.site import commands
    from agent.site.provisioning import Asked, provision

    assert provision(site, Asked(node="gate-8", ethernet=True), clock=clock, out=lambda _: None) == 0
    founding.revoke(open_site(site), node="gate-8", serial=None, reason="", clock=clock)

    def listed() -> int:
        commands.brokers(site, clock=clock, out=lambda _: None)
        return len(list(x509.load_pem_x509_crl((site / "broker/crl.pem").read_bytes())))

    there = listed()
    clock.advance((14 + 29) * 86_400)
    assert listed() == there
    clock.advance(2 * 86_400)
    assert listed() < there


def test_only_a_revoked_post_is_kicked(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["site", "kick", str(site), "nobody"]) == 78
    assert "is not in the register" in capsys.readouterr().err
