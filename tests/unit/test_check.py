"""`wardpost check` names every problem of a configuration and of the machine, and nothing that is none."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from agent.check import EXIT_CONFIG, EXIT_OK, Finding, Level, Probe, check
from agent.config import Config
from agent.errors import ConfigError, Transient
from agent.types import NS
from agent.vision.geometry import crossing
from tests.fakes.clock import FakeClock

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def clock(unc_ns: int | None = 1) -> FakeClock:
    return FakeClock(utc_ns=int(NOW.timestamp()) * NS, unc_ns=unc_ns)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


class Site:
    """A machine with nothing wrong; a test spoils one thing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "data").mkdir()
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.write("hq.pub", public_pem(self.key))
        (folder / "model.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
        (folder / "labels.txt").write_text("person\n")
        self.settings: dict[str, dict[str, Any]] = {
            "node": {"site": "s", "id": "n", "data": str(folder / "data")},
            "camera": {"driver": "stream", "url": "rtsp://camera/1"},
            "uplink": {
                "brokers": ["mqtt://localhost:1883"],
                "command_key": str(folder / "hq.pub"),
                "station_key": "ab" * 32,
            },
            "recording": {"budget_gb": 1.2, "free_gb_min": 0.0},
            "vision.detector": {"model": str(folder / "model.tflite"), "labels": str(folder / "labels.txt")},
        }
        self.extra = ""

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path

    def set(self, table: str, **values: Any) -> Site:
        self.settings.setdefault(table, {}).update(values)
        return self

    def check(self, *probes: Probe, at: FakeClock | None = None) -> tuple[int, list[str]]:
        file = self.folder / "node.toml"
        text = "".join(
            f"[{table}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in values.items())
            for table, values in self.settings.items()
        )
        file.write_text(text + self.extra)
        lines: list[str] = []
        return check(file, probes=probes, clock=at or clock(), out=lines.append), lines

    def tls(self, key: Any = None, cert: bytes | None = None) -> Site:
        """Right certificates, or the given ones."""
        own = ec.generate_private_key(ec.SECP256R1())
        self.write("ca.pem", certificate(own))
        self.write("cert.pem", cert or certificate(own))
        self.write("key.pem", private_pem(key or own))
        self.set("uplink", brokers=["mqtts://hq:8883"])
        return self.set("uplink.tls", **{k: str(self.folder / f"{k}.pem") for k in ("ca", "cert", "key")})


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(key: Any, password: bytes | None = None) -> bytes:
    lock = BestAvailableEncryption(password) if password else NoEncryption()
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    return pem


def certificate(key: Any, *, days: float = 365, since_days: float = 10) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "gate-north")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=since_days))
        .not_valid_after(NOW + dt.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_post_with_nothing_wrong(site: Site) -> None:
    assert site.check() == (EXIT_OK, ["0 problems, 0 warnings"])


def test_a_post_that_is_not_enrolled_yet_is_no_problem(site: Site) -> None:
    """A new card: its claim is there, key and certificate are not. It records, and gets them by itself."""
    site.tls()
    (site.folder / "cert.pem").unlink()
    code, lines = site.check()
    assert code == EXIT_CONFIG and any("uplink.tls.cert" in line and line.startswith("problem") for line in lines)
    site.write("claim.toml", b"")
    for key_too in (False, True):
        if key_too:
            (site.folder / "key.pem").unlink()
        code, lines = site.check()
        assert code == EXIT_OK
        (said,) = [line for line in lines if "uplink.tls" in line]
        assert said.startswith("warning: uplink.tls.cert: ") and "not enrolled yet" in said and "by itself" in said
    site.write("cert.pem", b"rubbish")  # a claim beside it excuses nothing that is there
    assert site.check()[0] == EXIT_CONFIG


def test_a_post_with_certificates_and_nothing_wrong(site: Site) -> None:
    site.tls()
    assert site.check() == (EXIT_OK, ["0 problems, 0 warnings"])


def test_every_mistake_of_the_file_comes_at_once(site: Site) -> None:
    site.set("camera", fpss=5)
    site.set("panel", bell=99)
    site.set("nonsense", a=1)
    code, lines = site.check()
    assert code == EXIT_CONFIG
    assert lines[0] == "problem: nonsense: unknown key; did you mean zones?" or "nonsense: unknown key" in lines[0]
    assert any(line.startswith("problem: camera.fpss: unknown key; did you mean camera.fps?") for line in lines)
    assert any(line.startswith("problem: panel.bell: 99") for line in lines)
    assert lines[-1].startswith("3 problems")


def test_a_missing_file(tmp_path: Path) -> None:
    lines: list[str] = []
    assert check(tmp_path / "no.toml", probes=[], clock=clock(), out=lines.append) == EXIT_CONFIG
    assert "no such file; start from deploy/node.example.toml" in lines[0]


SQUARE = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
BOW_TIE = [[0.1, 0.1], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]]

SPOILS: dict[str, tuple[Callable[[Site], object], str]] = {
    "no url": (lambda s: s.set("camera", url=""), "problem: camera.url: is empty; write rtsp://"),
    "url of nothing": (
        lambda s: s.set("camera", url="/dev/video99"),
        "problem: camera.url: /dev/video99 does not exist",
    ),
    "unused url": (lambda s: s.set("camera", driver="picamera2"), "warning: camera.url: is not used"),
    "bow tie ignored": (
        lambda s: s.set("vision", ignore_masks=[BOW_TIE]),
        "problem: vision.ignore_masks[0]: crosses itself",
    ),
    "no such zone": (
        lambda s: setattr(
            s,
            "extra",
            f'[[zones]]\nname = "yard"\npolygon = {toml(SQUARE)}\n'
            '[[rules]]\nname = "a"\nkind = "enters"\nzones = ["yrad"]\n',
        ),
        "problem: rules[0].zones: there is no zone 'yrad'; did you mean 'yard'?",
    ),
    "no such label": (
        lambda s: setattr(s, "extra", '[[rules]]\nname = "a"\nkind = "loiters"\nlabels = ["persno"]\n'),
        "problem: rules[0].labels: Invalid enum value 'persno' (at [0]); did you mean 'person'?",
    ),
    "no such time zone": (
        lambda s: s.set("calendar", time_zone="Europe/Berlim"),
        "problem: calendar.time_zone: 'Europe/Berlim' is not a time zone that this machine knows; did you mean",
    ),
    "no hours": (
        lambda s: setattr(s, "extra", '[[schedules]]\nname = "a"\nhours = ["07:00-07:00"]\n'),
        "problem: schedules[0].hours: '07:00-07:00' is no time at all; write",
    ),
    "masks": (
        lambda s: s.set("camera", privacy_masks=[SQUARE]),
        "warning: camera.privacy_masks: on a stream every picture",
    ),
    "bow tie mask": (
        lambda s: s.set("camera", privacy_masks=[BOW_TIE]),
        "problem: camera.privacy_masks[0]: crosses itself",
    ),
    "thin mask": (
        lambda s: s.set("camera", privacy_masks=[SQUARE[:2]]),
        "problem: camera.privacy_masks[0]: has 2 corners",
    ),
    "bow tie zone": (
        lambda s: setattr(s, "extra", f'[[zones]]\nname = "a"\npolygon = {toml(BOW_TIE)}\n'),
        "problem: zones[0].polygon: crosses itself: the side (0.1, 0.1) to (0.9, 0.9) meets the side",
    ),
    "zones twice": (
        lambda s: setattr(s, "extra", f'[[zones]]\nname = "a"\npolygon = {toml(SQUARE)}\n' * 2),
        "problem: zones[1].name: 'a' is there twice",
    ),
    "no data": (lambda s: s.set("node", data="/nowhere"), "problem: node.data: /nowhere is not a folder; make it, or"),
    "budget": (lambda s: s.set("recording", budget_gb=1e6), "problem: recording.budget_gb: 1e+06 GB"),
    "tiny budget": (lambda s: s.set("recording", budget_gb=0.1), "warning: recording.budget_gb: 0.1 GB hold less"),
    "no model": (
        lambda s: (s.folder / "model.tflite").unlink(),
        "problem: vision.detector.model: ",
    ),
    "empty model": (
        lambda s: (s.folder / "model.tflite").write_bytes(b""),
        "problem: vision.detector.model: ",
    ),
    "not a model": (lambda s: s.write("model.tflite", b"PK\3\4zipzip"), "problem: vision.detector.model: "),
    "no labels": (lambda s: s.set("vision.detector", labels=""), "problem: vision.detector.labels: is empty although"),
    "no detector": (lambda s: s.set("vision.detector", driver="none"), "warning: vision.detector.driver: none: only"),
    "same pin": (
        lambda s: s.set("panel", driver="gpio", bell=17, led=17),
        "problem: panel.led: BCM pin 17 is also panel.bell",
    ),
    "unused pin": (lambda s: s.set("panel", bell=17), "warning: panel.bell: is not used by the driver none"),
    "no pin": (lambda s: s.set("panel", driver="gpio"), "warning: panel.driver: gpio, but no pin is set"),
    "not a broker": (lambda s: s.set("uplink", brokers=["hq.example"]), "problem: uplink.brokers[0]: 'hq.example' is"),
    "bad port": (lambda s: s.set("uplink", brokers=["mqtt://h:99999"]), "problem: uplink.brokers[0]: 'mqtt://h:99999'"),
    "password in url": (lambda s: s.set("uplink", brokers=["mqtt://u:p@localhost"]), "problem: uplink.brokers[0]: car"),
    "plain": (
        lambda s: s.set("uplink", brokers=["mqtt://hq.example"]),
        "warning: uplink.brokers[0]: hq.example is spo",
    ),
    "footage in clear": (
        lambda s: s.tls().set("sending", url="http://hq.example:8444"),
        "problem: sending.url: http://hq.example:8444: footage goes in clear only",
    ),
    "footage by nobody": (
        lambda s: s.set("sending", url="https://hq.example:8444"),
        "problem: sending.url: is set without uplink.tls.cert",
    ),
    "no tls": (lambda s: s.set("uplink", brokers=["mqtts://hq"]), "problem: uplink.tls: is missing although"),
    "no password": (
        lambda s: s.set("uplink", username="u", password_file="/nowhere"),
        "problem: uplink.password_file: /nowhere cannot be read",
    ),
    "no user": (
        lambda s: s.set("uplink", password_file=str(s.write("pw", b"x"))),
        "problem: uplink.password_file: is set without uplink.username",
    ),
    "no command key": (lambda s: s.set("uplink", command_key=""), "warning: uplink.command_key: is empty: commands"),
    "no station key": (
        lambda s: s.set("uplink", station_key=""),
        "warning: uplink.station_key: is empty: whoever signs",
    ),
    "no key of the station": (
        lambda s: s.set("uplink", station_key="/nowhere"),
        "problem: uplink.station_key: /nowhere is neither 64 hex digits nor a readable PEM public key",
    ),
    "station key of another kind": (
        lambda s: s.set(
            "uplink", station_key=str(s.write("st.pub", public_pem(ec.generate_private_key(ec.SECP256R1()))))
        ),
        "problem: uplink.station_key: ",
    ),
    "command key of another kind": (
        lambda s: s.write("hq.pub", public_pem(ec.generate_private_key(ec.SECP256R1()))),
        "problem: uplink.command_key: ",
    ),
    "command key is the private one": (
        lambda s: s.write("hq.pub", private_pem(s.key)),
        "problem: uplink.command_key: ",
    ),
    "ca is rubbish": (lambda s: s.tls().write("ca.pem", b"rubbish"), "problem: uplink.tls.ca: "),
    "ca is empty": (lambda s: s.tls().write("ca.pem", b""), "problem: uplink.tls.ca: "),
    "key of another certificate": (
        lambda s: s.tls(key=ec.generate_private_key(ec.SECP256R1())),
        "problem: uplink.tls.key: ",
    ),
    "key locked": (
        lambda s: s.tls().write("key.pem", private_pem(s.key, b"pw")),
        "problem: uplink.tls.key: ",
    ),
    "key is a certificate": (
        lambda s: s.tls().write("key.pem", (s.folder / "cert.pem").read_bytes()),
        "problem: uplink.tls.key: ",
    ),
    "key for all to read": (
        lambda s: (s.tls().folder / "key.pem").chmod(0o644),
        "warning: uplink.tls.key: ",
    ),
    "cert without key": (lambda s: s.tls().set("uplink.tls", key=""), "problem: uplink.tls.key: is missing"),
    "key without cert": (lambda s: s.tls().set("uplink.tls", cert=""), "problem: uplink.tls.cert: is missing"),
    "expired": (
        lambda s: s.tls(cert=certificate(ec.generate_private_key(ec.SECP256R1()), days=-1)),
        "problem: uplink.tls.cert: the certificate CN=gate-north expired on 2026-11-20; a post of a site",
    ),
    "not yet valid": (
        lambda s: s.tls(cert=certificate(ec.generate_private_key(ec.SECP256R1()), since_days=-1)),
        "problem: uplink.tls.cert: the certificate CN=gate-north is not valid before 2026-11-22 00:00 UTC",
    ),
    "expires soon": (
        lambda s: s.tls(cert=certificate(ec.generate_private_key(ec.SECP256R1()), days=9)),
        "warning: uplink.tls.cert: the certificate CN=gate-north expires in 9 days",
    ),
}


@pytest.mark.parametrize("name", SPOILS)
def test_one_thing_wrong_is_named_in_one_line(site: Site, name: str) -> None:
    spoil, expected = SPOILS[name]
    spoil(site)
    code, lines = site.check()
    assert any(line.startswith(expected) for line in lines), lines
    assert code == (EXIT_CONFIG if any(line.startswith("problem: ") for line in lines) else EXIT_OK)
    if expected.startswith("problem"):
        assert code == EXIT_CONFIG
    assert not any("\n" in line or "Traceback" in line for line in lines)
    assert all(";" in line for line in lines[:-1]), "each line says what to do"


def test_a_clock_that_nobody_vouches_for_makes_no_certificate_a_problem(site: Site) -> None:
    """1970 after a power cut: the broker judges the post's certificate, by a clock that is kept."""
    site.tls()
    wrong = clock()
    wrong.step_utc(-50 * 365 * 86_400)
    assert any(line.startswith("problem: uplink.tls.cert: ") for line in site.check(at=wrong)[1])
    wrong.set_unc(None)
    lines = site.check(at=wrong)[1]
    assert any(line.startswith("warning: uplink.tls.cert: ") and "set the clock" in line for line in lines)
    assert not any(line.startswith("problem: uplink.tls.") for line in lines), lines


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_files_of_another_user(site: Site) -> None:
    site.tls()
    (site.folder / "key.pem").chmod(0o000)
    (site.folder / "data").chmod(0o500)
    _, lines = site.check()
    (site.folder / "data").chmod(0o700)
    assert any("uplink.tls.key" in line and "cannot be read: Permission denied" in line for line in lines)
    assert any("node.data" in line and "not writable" in line for line in lines)


def test_a_card_that_turned_read_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(site.folder)
    fields = [*real]
    fields[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    code, lines = site.check()
    assert code == EXIT_CONFIG
    assert any("node.data" in line and "read-only file system; the card may be failing" in line for line in lines)


def test_an_unsynchronised_clock_is_a_warning(site: Site) -> None:
    code, lines = site.check(at=clock(unc_ns=None))
    assert code == EXIT_OK
    assert lines[0].startswith("warning: clock: is not synchronised")


def test_probes_tell_what_they_found_and_all_are_asked(site: Site) -> None:
    def answer(text: str) -> Callable[[Config], str]:
        return lambda _config: text

    def fail(error: Exception) -> Callable[[Config], str]:
        def run(_config: Config) -> str:
            raise error

        return run

    code, lines = site.check(
        Probe("camera", answer("1280x720 at 15 fps")),
        Probe("broker", fail(Transient("broker: mqtt://localhost:1883 refuses; is it running?"))),
        Probe("time", fail(ConfigError("no server")), Level.WARNING),
        Probe("model", fail(ZeroDivisionError("division by zero"))),
    )
    assert code == EXIT_CONFIG
    assert lines[:3] == [
        "ok: camera: 1280x720 at 15 fps",
        "problem: broker: mqtt://localhost:1883 refuses; is it running?",
        "warning: time: no server",
    ]
    assert lines[3].startswith("problem: model: the check itself failed: ZeroDivisionError: division by zero in run")
    assert lines[4] == "2 problems, 1 warning"


def test_a_finding_is_one_line_whatever_is_in_it() -> None:
    assert Finding(Level.PROBLEM, "a", "two\nlines\x1b[2J", "act").line() == "problem: a: two | lines?[2J; act"


# -- geometry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polygon", "crosses"),
    [
        ([(0, 0), (1, 0), (0, 1)], False),
        ([(0, 0), (1, 0), (1, 1), (0, 1)], False),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], True),
        ([(0, 0), (1, 0), (0.5, 0), (0.5, 1)], True),  # goes back on its own side
        ([(0, 0), (1, 0), (1, 1), (0.5, 0), (0, 1)], True),  # a corner touches another side
        ([(0, 0), (1, 0), (0, 0), (0, 1)], True),  # the same corner twice
        ([(0, 0), (0.5, 0), (1, 0), (1, 1)], False),  # a corner in the middle of a straight side is fine
        ([(0, 0), (1, 0), (1, 1), (0.5, 0.2), (0, 1)], False),  # concave
    ],
)
def test_crossing(polygon: list[tuple[float, float]], crosses: bool) -> None:
    for shift in range(len(polygon)):
        turned = polygon[shift:] + polygon[:shift]
        assert (crossing(turned) is not None) == crosses
        assert (crossing(turned[::-1]) is not None) == crosses


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=8, unique=True))
def test_crossing_does_not_depend_on_where_one_starts(polygon: list[tuple[float, float]]) -> None:
    assert (crossing(polygon) is None) == (crossing(polygon[1:] + polygon[:1]) is None)


def test_a_wrong_type_does_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    """A technician on a ladder wants one list, not one list after the other."""
    path = tmp_path / "node.toml"
    path.write_text(
        f'[node]\nsite = "ward"\nid = "cam"\ndata = "{tmp_path / "gone"}"\n'
        '[camera]\ndriver = "stream"\nurl = "x.mp4"\nlop = true\n'
        '[uplink]\nbrokers = ["http://x"]\nkeepalive_s = "often"\n'
    )
    lines: list[str] = []
    asked: list[str] = []

    def probe(where: str) -> Probe:
        return Probe(where, lambda _: asked.append(where) or "fine")  # type: ignore[func-returns-value]

    probes = [probe("camera"), probe("vision.detector"), probe("uplink.brokers")]
    assert check(path, probes=probes, clock=FakeClock(), out=lines.append) == 78
    text = "\n".join(lines)
    for said in ("camera.lop", "uplink.keepalive_s", "node.data", "uplink.brokers[0]"):
        assert said in text, f"{said} is not in:\n{text}"
    assert asked == ["vision.detector"], "what hangs on a wrong table is not tried with something else in its place"
