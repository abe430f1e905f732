"""`wardpost check`: everything that is wrong with a configuration and with the machine, before it matters.

Judgements on the settings are pure; what needs the world (camera, broker, model) comes in as probes, so that this
module imports no driver. A check never changes anything.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from agent import config
from agent.clock import Clock
from agent.config import Config
from agent.enrolment import CLAIM_FILE
from agent.errors import ConfigError, WardpostError
from agent.logs import error_line, fold
from agent.sending.address import parse_address
from agent.types import NS
from agent.vision.faults import Fault, faults, polygon_faults

EXIT_OK = 0
EXIT_CONFIG = 78
CERT_WARN_DAYS = 30
_RULES_NAME = ("zones", "lines", "schedules")  # tables whose entries rules name


class Level(StrEnum):
    """How bad a finding is."""

    PROBLEM = "problem"  # the post will not work as configured
    WARNING = "warning"  # it will work, at a price that somebody should know


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: where, what, and what to do about it."""

    level: Level
    where: str
    what: str
    todo: str = ""

    def line(self) -> str:
        """`problem: camera.url: is empty; write rtsp://..., /dev/video0 or a file`."""
        return fold(f"{self.level.value}: {self.where}: {self.what}" + (f"; {self.todo}" if self.todo else ""))


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at the world. `run` returns what it found in words, or raises WardpostError with the reason.

    Nothing is said where `run` returns nothing: these settings do not ask for it.

    It must bound its own waiting (10 s). `level`: how bad a failure is.
    """

    where: str
    run: Callable[[Config], str]
    level: Level = Level.PROBLEM


def check(path: Path, *, probes: Sequence[Probe], clock: Clock, out: Callable[[str], None]) -> int:
    """Prints every finding, and every probe that went well. Returns 78 when there is a problem, else 0."""
    findings: list[Finding] = []
    settings = None
    try:
        tables = config.read_toml(path)
    except ConfigError as error:
        findings.append(_of_error(Level.PROBLEM, "config", error))
    else:
        findings += [_of_text(text) for text in config.problems(tables, Config)]
        settings = _what_is_right(tables, [finding.where for finding in findings])
    wrong = [finding.where for finding in findings]
    for finding in findings:
        out(finding.line())
    if settings is not None:
        for finding in judge(settings, clock):
            if _said_already(finding.where, wrong):
                continue
            findings.append(finding)
            out(finding.line())
        for probe in probes:
            if any(_under(where, probe.where.partition(".")[0]) for where in wrong):
                continue  # what would be tried is not what is meant
            findings += _asked(probe, settings, out)
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    warnings = len(findings) - problems
    if settings is None:
        out(f"{problems} problem{_s(problems)} in {path}; the machine is looked at once the file is right")
    else:
        out(f"{problems} problem{_s(problems)}, {warnings} warning{_s(warnings)}")
    return EXIT_CONFIG if problems else EXIT_OK


def judge(settings: Config, clock: Clock) -> Iterator[Finding]:
    """Everything that can be said from the settings, the files they name, and the clock."""
    yield from _camera(settings)
    yield from _watch(settings)
    yield from _data(settings)
    yield from _model(settings)
    yield from _panel(settings)
    yield from _uplink(settings, clock)
    yield from _sending(settings)
    if clock.utc().unc_ns is None:
        yield Finding(
            Level.WARNING,
            "clock",
            "is not synchronised: times of events will carry no error bound",
            "give the post a time server (systemd-timesyncd) or a real-time clock",
        )
        if any(rule.during or rule.outside for rule in settings.rules):
            yield Finding(
                Level.WARNING,
                "calendar.unsynchronised",
                f"is {settings.calendar.unsynchronised}: as long as the clock is not synchronised, rules with schedules"
                f" count {'always' if settings.calendar.unsynchronised == 'active' else 'never'}",
                "synchronise the clock",
            )


# -- one judgement per part ------------------------------------------------------------------------------------------


def _camera(settings: Config) -> Iterator[Finding]:
    camera = settings.camera
    if camera.driver == "stream" and not camera.url:
        yield Finding(Level.PROBLEM, "camera.url", "is empty", "write rtsp://..., /dev/video0 or the path of a file")
    if camera.driver == "picamera2" and camera.url:
        yield Finding(Level.WARNING, "camera.url", "is not used by the driver picamera2", 'set driver = "stream"?')
    if camera.driver == "stream" and "://" not in camera.url and camera.url and not Path(camera.url).exists():
        yield Finding(Level.PROBLEM, "camera.url", f"{camera.url} does not exist", "plug the camera in, or correct it")
    if camera.driver == "stream" and camera.privacy_masks:
        yield Finding(
            Level.WARNING,
            "camera.privacy_masks",
            "on a stream every picture is decoded, blackened and encoded again instead of being passed on as it came:"
            " 2.7 times the processor time of decoding alone (720p, x86), and the quality of a second encoding",
            "set the mask in the camera itself if it can",
        )
    for index, mask in enumerate(camera.privacy_masks):
        for fault in polygon_faults(f"camera.privacy_masks[{index}]", mask):
            yield _of_fault(fault)


def _watch(settings: Config) -> Iterator[Finding]:
    """Zones, lines, ignore masks, schedules and rules."""
    for fault in faults(settings):
        yield _of_fault(fault)
    if settings.rules and settings.vision.detector.driver == "none":
        what = "rules speak of persons and vehicles, and nobody tells them apart"
        yield Finding(Level.PROBLEM, "rules", what, 'set vision.detector.driver = "tflite"')


def _of_fault(fault: Fault) -> Finding:
    return Finding(Level.PROBLEM if fault.fatal else Level.WARNING, fault.where, fault.what, fault.todo)


def _data(settings: Config) -> Iterator[Finding]:
    folder = Path(settings.node.data)
    if not folder.is_dir():
        yield Finding(Level.PROBLEM, "node.data", f"{folder} is not a folder", "make it, or mount the data partition")
        return
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        yield Finding(Level.PROBLEM, "node.data", f"{folder}: {error.strerror}", "check the disk")
        return
    if stat.f_flag & os.ST_RDONLY:
        what = f"{folder} is on a read-only file system"
        yield Finding(Level.PROBLEM, "node.data", what, "the card may be failing; see dmesg, remount or replace it")
    elif not os.access(folder, os.W_OK | os.X_OK):
        what = f"{folder} is not writable for this user"
        yield Finding(Level.PROBLEM, "node.data", what, "run as the agent's user, or chown the folder")
    size_gb, free_gb = (blocks * stat.f_frsize / 1e9 for blocks in (stat.f_blocks, stat.f_bavail))
    recording = settings.recording
    if recording.budget_gb + recording.free_gb_min > size_gb:
        yield Finding(
            Level.PROBLEM,
            "recording.budget_gb",
            f"{recording.budget_gb:g} GB and {recording.free_gb_min:g} GB left free do not fit"
            f" on a file system of {size_gb:.1f} GB",
            f"lower it to {max(size_gb * 0.9 - recording.free_gb_min, 0.1):.1f} or less",
        )
    elif free_gb < recording.free_gb_min:
        what = f"only {free_gb:.2f} GB are free on {folder}, less than recording.free_gb_min"
        yield Finding(Level.WARNING, "node.data", what, "old footage will be deleted at once; free some space")
    day_gb = settings.camera.bitrate_kbps * 86_400 / 8e6
    if recording.budget_gb < day_gb / 24:
        what = f"{recording.budget_gb:g} GB hold less than an hour at {settings.camera.bitrate_kbps} kbit/s"
        yield Finding(Level.WARNING, "recording.budget_gb", what, "raise it, or lower camera.bitrate_kbps")


def _model(settings: Config) -> Iterator[Finding]:
    detector = settings.vision.detector
    if detector.driver == "none":
        what = "none: only motion is seen, nobody is told apart"
        yield Finding(Level.WARNING, "vision.detector.driver", what, 'set it to "tflite" for persons')
        return
    for where, name in (("model", detector.model), ("labels", detector.labels)):
        if name:
            yield from _readable(f"vision.detector.{where}", Path(name), "see `wardpost model`")
    if detector.model and Path(detector.model).is_file() and os.access(detector.model, os.R_OK):
        with Path(detector.model).open("rb") as file:
            magic = file.read(8)
        if magic[4:8] != b"TFL3":  # the file identifier of TensorFlow Lite's FlatBuffers schema
            what = f"{detector.model} is not a TensorFlow Lite model"
            yield Finding(Level.PROBLEM, "vision.detector.model", what, "give the path of a .tflite file")
    if detector.model and not detector.labels:
        what = "is empty although a model of your own is set"
        yield Finding(Level.PROBLEM, "vision.detector.labels", what, "give the model's label file, one label a line")


def _panel(settings: Config) -> Iterator[Finding]:
    panel = settings.panel
    unknown = set(panel.signals_during) - {one.name for one in settings.schedules}
    for name in sorted(unknown):
        yield Finding(
            Level.PROBLEM, "panel.signals_during", f"there is no schedule {name!r}", "name it in [[schedules]]"
        )
    pins = {
        name: pin
        for name in ("bell", "tamper", "mains_lost", "siren", "lamp", "led", "privacy")
        if (pin := getattr(panel, name)) is not None
    }
    if panel.driver == "none":
        for name in pins:
            yield Finding(Level.WARNING, f"panel.{name}", "is not used by the driver none", 'set driver = "gpio"?')
        return
    if not pins:
        yield Finding(Level.WARNING, "panel.driver", "gpio, but no pin is set", 'set pins, or driver = "none"')
    users: dict[int, str] = {}
    for name, pin in pins.items():
        if pin in users:
            what = f"BCM pin {pin} is also panel.{users[pin]}"
            yield Finding(Level.PROBLEM, f"panel.{name}", what, "give each its own pin; see hardware/wiring.md")
        users.setdefault(pin, name)


def _sending(settings: Config) -> Iterator[Finding]:
    """Footage goes where nobody else can read it, by somebody who can prove who he is."""
    url, tls = settings.sending.url, settings.uplink.tls
    if not url:
        return
    try:
        parse_address(url)
    except ConfigError as error:
        yield Finding(Level.PROBLEM, "sending.url", str(error).removeprefix("sending.url: "))
    if tls is None or not (tls.cert and tls.key):
        what = "is set without uplink.tls.cert and uplink.tls.key, by which this post proves that it sends"
        yield Finding(Level.PROBLEM, "sending.url", what, "enrol this post, or clear sending.url")


def _uplink(settings: Config, clock: Clock) -> Iterator[Finding]:
    uplink = settings.uplink
    secure = False
    for index, broker in enumerate(uplink.brokers):
        where = f"uplink.brokers[{index}]"
        try:
            url = urlsplit(broker)
            host, _port = url.hostname, url.port
        except ValueError as error:
            yield Finding(Level.PROBLEM, where, f"{broker!r}: {error}", "write mqtts://host:8883")
            continue
        if url.scheme not in ("mqtt", "mqtts") or not host or url.path not in ("", "/"):
            what = f"{broker!r} is not a broker's address"
            yield Finding(Level.PROBLEM, where, what, "write mqtts://host:8883 or mqtt://host:1883")
            continue
        if url.username or url.password:
            what = "carries a user name or password"
            yield Finding(Level.PROBLEM, where, what, "use uplink.username and uplink.password_file")
        secure = secure or url.scheme == "mqtts"
        if url.scheme == "mqtt" and host not in ("localhost", "127.0.0.1", "::1"):
            what = f"{host} is spoken to without encryption: anybody on the way reads and forges alerts"
            yield Finding(Level.WARNING, where, what, "use mqtts:// with [uplink.tls]")
    if secure and uplink.tls is None:
        yield Finding(Level.PROBLEM, "uplink.tls", "is missing although a broker is mqtts://", "set uplink.tls.ca")
    if uplink.password_file:
        yield from _readable("uplink.password_file", Path(uplink.password_file), "write the password into it")
        if not uplink.username:
            what = "is set without uplink.username"
            yield Finding(Level.PROBLEM, "uplink.password_file", what, "MQTT has no password without a user name")
    yield from _keys(settings, clock)


def _keys(settings: Config, clock: Clock) -> Iterator[Finding]:
    """Certificates and keys: there, readable, what they claim to be, valid, and fitting together."""
    tls = settings.uplink.tls
    if tls is not None:
        yield from _certificates("uplink.tls.ca", Path(tls.ca), clock, renew="renew it")
        if bool(tls.cert) != bool(tls.key):
            missing, there = ("key", "cert") if tls.cert else ("cert", "key")
            yield Finding(
                Level.PROBLEM, f"uplink.tls.{missing}", f"is missing although uplink.tls.{there} is set", "set both"
            )
        if tls.cert and _not_enrolled(Path(tls.cert)):
            yield Finding(
                Level.WARNING,
                "uplink.tls.cert",
                f"{tls.cert} is not there: the post is not enrolled yet; it records meanwhile, and asks headquarters"
                " for its certificate by itself",
                "let it reach the network; `wardpost doctor` tells how far it is",
            )
        elif tls.cert:
            renew = "a post of a site renews it by itself, `wardpost doctor` tells why not; else renew it"
            yield from _certificates("uplink.tls.cert", Path(tls.cert), clock, renew=renew)
        if tls.key and not (_not_enrolled(Path(tls.cert)) and not Path(tls.key).exists()):
            yield from _private_key(Path(tls.key), Path(tls.cert) if tls.cert else None)
    if settings.uplink.command_key:
        yield from _command_key(Path(settings.uplink.command_key))
    else:
        what = "is empty: commands that act (siren, restart, configuration) are refused"
        yield Finding(Level.WARNING, "uplink.command_key", what, "give the path of the station's public key")
    yield from _station_key(settings.uplink.station_key)


def _not_enrolled(cert: Path) -> bool:
    """A card with its claim still to use: `wardpost enrol` makes the key and gets the certificate."""
    return not cert.exists() and (cert.parent / CLAIM_FILE).is_file()


def _readable(where: str, path: Path, todo: str) -> Iterator[Finding]:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                yield Finding(Level.PROBLEM, where, f"{path} is empty", todo)
    except OSError as error:
        yield Finding(Level.PROBLEM, where, f"{path} cannot be read: {error.strerror}", todo)


def _certificates(where: str, path: Path, clock: Clock, *, renew: str) -> Iterator[Finding]:
    from cryptography import x509

    failed = list(_readable(where, path, "give the path of a PEM file"))
    if failed:
        yield from failed
        return
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (ValueError, OSError) as error:
        what = f"{path} holds no certificate: {error}"
        yield Finding(Level.PROBLEM, where, what, "give a PEM file that begins with BEGIN CERTIFICATE")
        return
    utc = clock.utc()
    over = Level.PROBLEM if utc.unc_ns is not None else Level.WARNING  # by a clock of which nobody is sure
    for certificate in certificates:
        name = certificate.subject.rfc4514_string() or "(no name)"
        left_s = certificate.not_valid_after_utc.timestamp() - utc.utc_ns / NS
        early_s = certificate.not_valid_before_utc.timestamp() - utc.utc_ns / NS
        if left_s < 0:
            what = f"the certificate {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
            yield Finding(over, where, what, renew)
        elif early_s > 0:
            what = f"the certificate {name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            yield Finding(over, where, what, f"set the clock; if it is right, {renew}")
        elif left_s < CERT_WARN_DAYS * 86_400:
            what = f"the certificate {name} expires in {left_s / 86_400:.0f} days"
            yield Finding(Level.WARNING, where, what, renew)


def _private_key(path: Path, cert: Path | None) -> Iterator[Finding]:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    where = "uplink.tls.key"
    failed = list(_readable(where, path, "give the path of a PEM file"))
    if failed:
        yield from failed
        return
    if path.stat().st_mode & 0o077:
        yield Finding(Level.WARNING, where, f"{path} can be read by other users", f"chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        what = f"{path} is locked with a password"
        yield Finding(Level.PROBLEM, where, what, "an unattended post cannot type it: store the key unlocked, mode 600")
        return
    except (ValueError, UnsupportedAlgorithm, OSError) as error:
        what = f"{path} holds no private key: {error}"
        yield Finding(Level.PROBLEM, where, what, "give a PEM file that begins with BEGIN PRIVATE KEY")
        return
    if cert is None:
        return
    try:
        certificate = x509.load_pem_x509_certificates(cert.read_bytes())[0]
    except (ValueError, OSError, IndexError):
        return  # said already, about the certificate
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        what = f"{path} does not belong to the certificate {cert}"
        yield Finding(Level.PROBLEM, where, what, "give the key that the certificate was made for")


def _station_key(text: str) -> Iterator[Finding]:
    from agent.evidence.keys import public_key

    where, todo = "uplink.station_key", "write the key that `wardpost key show --station` prints there"
    if not text:
        what = "is empty: whoever signs the first receipt is believed to be the station from then on"
        yield Finding(Level.WARNING, where, what, todo)
        return
    try:
        public_key(where, text)
    except ConfigError as error:
        yield Finding(Level.PROBLEM, where, str(error).removeprefix(f"{where}: "), todo)


def _command_key(path: Path) -> Iterator[Finding]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    where = "uplink.command_key"
    failed = list(_readable(where, path, "copy the station's public key there"))
    if failed:
        yield from failed
        return
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, UnsupportedAlgorithm, OSError) as error:
        what = f"{path} holds no public key: {error}"
        yield Finding(Level.PROBLEM, where, what, "give a PEM file that begins with BEGIN PUBLIC KEY")
        return
    if not isinstance(key, Ed25519PublicKey):
        yield Finding(
            Level.PROBLEM, where, f"{path} is not an Ed25519 key", "make one with openssl genpkey -algorithm ed25519"
        )


# -- texts -----------------------------------------------------------------------------------------------------------


def _asked(probe: Probe, settings: Config, out: Callable[[str], None]) -> list[Finding]:
    """A line for the probe, and a finding when it failed."""
    try:
        found = probe.run(settings)
    except WardpostError as error:
        finding = _of_error(probe.level, probe.where, error)
    except Exception as error:  # noqa: BLE001  (the other checks still matter)
        finding = Finding(Level.PROBLEM, probe.where, f"the check itself failed: {error_line(error)}", "report this")
    else:
        if found:
            out(fold(f"ok: {probe.where}: {found}"))
        return []
    out(finding.line())
    return [finding]


def _of_error(level: Level, where: str, error: WardpostError) -> Finding:
    """Our errors say where themselves, often; then it is not said twice."""
    text = str(error)
    return Finding(level, where, text.removeprefix(f"{where}: "))


def _what_is_right(tables: dict[str, Any], wrong: Sequence[str]) -> Config | None:
    """The settings without the values at `wrong` paths, so that one run names every problem; None: too little left."""
    right = copy.deepcopy(tables)
    for where in wrong:
        *path, last = re.sub(r"\[\d+\].*", "", where).split(".")  # of a list, all goes
        table: Any = right
        for name in path:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(last, None)
    try:
        return msgspec.convert(right, Config)
    except msgspec.ValidationError:
        return None


def _said_already(where: str, wrong: Sequence[str]) -> bool:
    """Whether a finding there speaks of a default that stands in for a value already named, or misses such a value."""
    if any(_under(where, other) for other in wrong):
        return True
    return _under(where, "rules") and any(_under(other, part) for other in wrong for part in _RULES_NAME)


def _under(where: str, other: str) -> bool:
    """Whether one path is the other or lies below it."""
    return where == other or where.startswith((f"{other}.", f"{other}["))


def _of_text(text: str) -> Finding:
    """A line of config.problems: `path: what; what to do`."""
    where, _, what = text.partition(": ")
    return Finding(Level.PROBLEM, where, what)


def _s(count: int) -> str:
    return "" if count == 1 else "s"
