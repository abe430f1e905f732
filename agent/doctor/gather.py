"""Gathers what the doctor judges: from a running agent's own parts, or from what a stopped one has left on its card.

A part that cannot be asked becomes a fact of its own: the sicker a post is, the more must still be told.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent import drivers, wire
from agent.boot import STORE_NAME, require_newest
from agent.clock import Clock, parse_rfc3339, rfc3339
from agent.config import Config, load
from agent.disk import Disk, PosixDisk
from agent.doctor.facts import (
    Camera,
    Card,
    Computer,
    Dark,
    Facts,
    Identity,
    Link,
    Outbox,
    Part,
    Recording,
    Service,
    Stopped,
    Time,
    Trials,
)
from agent.enrolment import CLAIM_FILE, REFUSED_FILE, ClaimSettings
from agent.errors import ConfigError, WardpostError
from agent.evidence import keys
from agent.evidence.ledger import FOLDER as LEDGER_FOLDER
from agent.evidence.seal import station_key
from agent.folder import LOCK_NAME, DataLock, InUse
from agent.logs import error_line
from agent.machine import Machine
from agent.quantities import DAY_S
from agent.recording.account import account
from agent.recording.coverage import Now, Stretch
from agent.recording.timeline import Timeline
from agent.release import plan, slots
from agent.release.settings_desk import read_state
from agent.renewal import REFUSED_FILE as RENEWAL_REFUSED_FILE
from agent.store.store import Origin, SessionRow, Store
from agent.types import NS, Cause, Kind, Segment, Sign
from agent.uplink import parse_broker
from agent.uplink.commands import load_key
from agent.vision.faults import refuse

GB = 1_000_000_000
HOUR_S = 3600.0
OPEN_KINDS = (Kind.CAMERA, Kind.MAINS, Kind.TAMPER)
FILE_BYTES_MAX = 64 * 1024
SYSTEMCTL_S_MAX = 5.0
UNIT = "wardpost-node.service"
_ENDS = {
    "exit 70": "it gave up after too many errors of its own (exit 70)",
    "exit 71": "a part of it hung (exit 71)",
    "exit 78": "it found its settings or its machine wrong (exit 78)",
}

T = TypeVar("T")


class Questions:
    """Asks each part, and notes those that could not be asked. One thread."""

    def __init__(self) -> None:
        self.failed: list[tuple[str, str]] = []  # part, error

    def __call__(self, part: str, question: Callable[[], T], otherwise: T) -> T:
        """The answer, or `otherwise`. Never raises."""
        try:
            return question()
        except WardpostError as error:
            self.failed.append((part, str(error)))
            return otherwise
        except Exception as error:  # noqa: BLE001  (whatever is sick, the rest is told)
            self.failed.append((part, error_line(error)))
            return otherwise


class RunningPost:
    """Gathers inside a running agent. Any thread; blocks for some reads of the store, /sys and the certificate."""

    def __init__(
        self,
        *,
        config: Config,
        clock: Clock,
        disk: Disk,
        store: Store,
        machine: Machine,
        status: Callable[[], Mapping[str, Any]],
        writing: Callable[[], Segment | None],
    ) -> None:
        """`status`: as `wardpost status` prints it. `writing`: the file of footage in progress."""
        self._config, self._clock, self._disk, self._store = config, clock, disk, store
        self._machine, self._status, self._writing = machine, status, writing

    def facts(self) -> Facts:
        """Never raises for a part that is sick."""
        ask = Questions()
        config, clock, store = self._config, self._clock, self._store
        status: dict[str, Any] = ask("state", lambda: dict(self._status()), {})
        opened: list[wire.CloudEvent] = ask("incidents", lambda: store.open_now(OPEN_KINDS), [])
        signs: list[Sign] = ask("signs", store.signs, [])
        sessions: list[SessionRow] = ask("sessions", store.sessions, [])
        writing = self._writing()
        now = Now(clock.boot_id, clock.boot_ns(), utc_ns=clock.utc().utc_ns, running=True)
        said = {kind: [e for e in opened if e.type == f"wardpost.{kind}"] for kind in OPEN_KINDS}
        return Facts(
            age_s=_age_s(sessions, clock),
            starts=ask("starts", lambda: starts_within(sessions, Timeline(store.anchors()), clock), 1),
            camera=ask("camera", lambda: _camera(status, config, _summary(said[Kind.CAMERA])), None)
            if status
            else None,
            recording=ask("recording", lambda: _recording(status, config, clock), None) if status else None,
            card=card(self._disk.path(""), config, status.get("recording", {}).get("bytes", 0)),
            link=ask("link", lambda: _link(status, config, signs, clock), None) if status else None,
            outbox=ask("outbox", lambda: _outbox(status, config), None) if status else None,
            identity=ask("certificate", lambda: identity(config, clock), None),
            computer=computer(self._machine, ask, _summary(said[Kind.MAINS])),
            time=time(clock),
            trials=ask("releases", lambda: trials(self._disk), None),
            detector_fault=status.get("vision", {}).get("fault", ""),
            views=tuple(event.data.summary for event in said[Kind.TAMPER]),
            parts=tuple(
                Part(name, one["restarts"], one["trouble"], one["up_s"])
                for name, one in status.get("workers", {}).items()
            ),
            objections=objections(config),
            dark=ask("coverage", lambda: _dark(store, clock, now, [writing] if writing else []), ()),
            unasked=tuple(ask.failed),
        )


def stopped_facts(
    config: Config, *, said: str, clock: Clock, machine: Machine, service: Callable[[], Service | None]
) -> Facts:
    """What a post whose agent gives no answer has left. Takes the folder's lock for the moment of reading, and adds
    nothing to the card. `said`: what came instead of an answer. Never raises for a part that is sick.
    """
    folder = Path(config.node.data)
    ask = Questions()
    fault = folder_fault(folder)
    left = _Left() if fault else _left(config, folder, clock)
    return Facts(
        stopped=Stopped(
            folder=str(folder),
            folder_fault=fault,
            holder=left.holder,
            said=said,
            never=left.never,
            ended=left.ended,
            silent_s=left.silent_s,
            store_fault=left.store_fault,
            objections=objections(config),
            service=ask("service", service, None),
        ),
        starts=left.starts,
        card=None if fault else card(folder, config, left.footage_bytes),
        outbox=left.outbox,
        identity=ask("certificate", lambda: identity(config, clock), None),
        computer=computer(machine, ask, ""),
        time=time(clock),
        trials=None if fault else ask("releases", lambda: trials(PosixDisk(folder)), None),
        detector_fault=_model_fault(config),
        dark=left.dark,
        unasked=tuple(ask.failed),
    )


@dataclass(slots=True)
class _Left:
    """What was read off the card of a stopped agent."""

    holder: str = ""
    never: bool = False
    ended: str = ""
    silent_s: float | None = None
    store_fault: str = ""
    starts: int = 0
    footage_bytes: int = 0
    outbox: Outbox | None = None
    dark: tuple[Dark, ...] = ()


def _left(config: Config, folder: Path, clock: Clock) -> _Left:
    left = _Left()
    if not (folder / LOCK_NAME).exists():  # taking it would make it, and it might not be the agent's then
        left.never = not (folder / STORE_NAME).exists()
        return left
    try:
        lock = DataLock(folder).take(clock)
    except InUse as error:
        left.holder = str(error).partition(" by process ")[2].partition(";")[0] or "unknown"
        return left
    except ConfigError as error:
        left.store_fault = str(error)
        return left
    with lock:
        if not (folder / STORE_NAME).exists():
            left.never = True
            return left
        try:
            _read_store(left, config, folder, clock)
        except WardpostError as error:
            left.store_fault = str(error)
    return left


def _read_store(left: _Left, config: Config, folder: Path, clock: Clock) -> None:
    store = Store(
        folder / STORE_NAME,
        clock=clock,
        new_id=_no_id,
        origin=Origin("", ""),
        outbox_rows_max=config.store.outbox_rows_max,
        event_rows_max=config.store.event_rows_max,
    )
    store.open()
    try:
        sessions, timeline = store.sessions(), Timeline(store.anchors())
        left.never = not sessions
        if sessions:
            left.ended, left.silent_s = last_end(sessions[-1], timeline, clock)
        left.starts = starts_within(sessions, timeline, clock)
        left.footage_bytes = store.footage().bytes
        left.outbox = Outbox(rows=store.outbox_rows, rows_max=config.store.outbox_rows_max, dropped=store.shed_rows())
        now = Now(clock.boot_id, clock.boot_ns(), utc_ns=clock.utc().utc_ns, running=False)
        left.dark = _dark(store, clock, now, [])
        if (folder / LEDGER_FOLDER).is_dir() and (folder / keys.FOLDER).is_dir():  # to list a folder makes it
            require_newest(store, PosixDisk(folder), f"{config.node.site}/{config.node.id}")
    finally:
        store.close()


def _no_id() -> str:
    raise AssertionError("reading makes no ids")


# -- the past --------------------------------------------------------------------------------------------------------


def last_end(row: SessionRow, timeline: Timeline, clock: Clock) -> tuple[str, float | None]:
    """How a life ended, in words, and for how many seconds there has been no sign of it; None: nobody knows."""
    then, now = timeline.utc(row.boot_id, row.alive_ns), clock.utc()
    silent_s = None
    if row.boot_id == clock.boot_id:
        silent_s = (clock.boot_ns() - row.alive_ns) / NS
    elif then is not None and now.utc_ns >= then.utc_ns:
        silent_s = (now.utc_ns - then.utc_ns) / NS
    if row.stop is not None:
        return _ENDS.get(row.stop, f"it was stopped ({row.stop})"), silent_s
    if row.boot_id == clock.boot_id:
        return "it ended without a word: killed, or crashed", silent_s
    return "it ended by a power cut or a restart of the machine, and was not started since", silent_s


def starts_within(sessions: Sequence[SessionRow], timeline: Timeline, clock: Clock, within_s: float = HOUR_S) -> int:
    """How often the agent started lately."""
    now_ns, utc_ns = clock.boot_ns(), clock.utc().utc_ns
    count = 0
    for row in sessions:
        moment = timeline.utc(row.boot_id, row.start_ns)
        if row.boot_id == clock.boot_id:
            count += now_ns - row.start_ns <= within_s * NS
        elif moment is not None:
            count += 0 <= utc_ns - moment.utc_ns <= within_s * NS
    return count


def _dark(store: Store, clock: Clock, now: Now, writing: Sequence[Segment]) -> tuple[Dark, ...]:
    """The last day without footage, by cause; what lasts still is told by the part that is to blame."""
    utc_ns = clock.utc().utc_ns
    found = account(store, utc_ns - round(DAY_S * NS), utc_ns, writing=writing, now=now)
    return darkness(found.stretches, utc_ns)


_TOLD = (Cause.POWER_OFF, Cause.AGENT_STOPPED, Cause.CAMERA_FAULT, Cause.STORAGE_FAULT, Cause.UNKNOWN)


def darkness(stretches: Sequence[Stretch], utc_ns: int) -> tuple[Dark, ...]:
    """Sums by cause. Pure. A stretch that ends now goes on: it is left out."""
    kinds: dict[str, list[Stretch]] = {}
    for stretch in stretches:
        if stretch.what in _TOLD and stretch.end_utc_ns < utc_ns - NS:
            kinds.setdefault(str(stretch.what), []).append(stretch)
    return tuple(
        Dark(
            cause=cause,
            times=len(them),
            seconds=sum(stretch.seconds for stretch in them),
            ago_s=(utc_ns - them[-1].end_utc_ns) / NS,
            evidence="; ".join(them[-1].evidence[:3]),
        )
        for cause, them in kinds.items()
    )


# -- the parts of a running agent ------------------------------------------------------------------------------------


def _age_s(sessions: Sequence[SessionRow], clock: Clock) -> float:
    if not sessions or sessions[-1].boot_id != clock.boot_id:
        return 0.0
    return (clock.boot_ns() - sessions[-1].start_ns) / NS


def _summary(events: Sequence[wire.CloudEvent]) -> str:
    return events[-1].data.summary if events else ""


def _camera(status: Mapping[str, Any], config: Config, fault: str) -> Camera:
    told = status["camera"]
    age_ms = told["frameagems"]
    return Camera(
        name=told["name"],
        up=age_ms is not None and age_ms <= config.camera.stall_s * 1000,
        ever=age_ms is not None,
        age_s=None if age_ms is None else age_ms / 1000,
        fps=told["fps"],
        fps_wanted=config.camera.fps if config.camera.driver == "picamera2" else None,
        restarts=told["restarts"],
        fault=fault,
    )


def _recording(status: Mapping[str, Any], config: Config, clock: Clock) -> Recording:
    told, utc_ns = status["recording"], clock.utc().utc_ns
    goes = {one["name"]: _left_s(one["overwrite"], utc_ns) for one in told["classes"]}
    kept_s = _left_s(told["oldest"], utc_ns)
    return Recording(
        on=told["recording"],
        fault=told["fault"],
        privacy_left_s=told["privacyleft_s"],
        kept_s=None if kept_s is None else -kept_s,
        overwrite_s=goes.get("continuous"),
        unsent_s=goes.get("unsent"),
        young_s=config.recording.young_h * HOUR_S,
        notice_s=config.recording.notice_h * HOUR_S,
    )


def _left_s(utc: str | None, utc_ns: int) -> float | None:
    return None if utc is None else (parse_rfc3339(utc) - utc_ns) / NS


def _link(status: Mapping[str, Any], config: Config, signs: Sequence[Sign], clock: Clock) -> Link:
    up = status["broker"] is not None
    told = status["link"]
    trouble = told["trouble"] or status["workers"].get("uplink", {}).get("trouble", "")
    return Link(
        brokers=config.uplink.brokers,
        up=up,
        away_s=0.0 if up else max(told["away_s"], down_s(signs, clock)),
        reason=trouble,
        silent=status["station_silent"],
    )


def down_s(signs: Sequence[Sign], clock: Clock) -> float:
    """Since when the signs of this boot say that the uplink is down, also in earlier lives of the agent. Pure."""
    since_ns = None
    for sign in signs:
        if sign.what == "link" and sign.boot_id == clock.boot_id:
            since_ns = None if not sign.active else sign.boot_ns if since_ns is None else since_ns
    return 0.0 if since_ns is None else (clock.boot_ns() - since_ns) / NS


def _outbox(status: Mapping[str, Any], config: Config) -> Outbox:
    told = status["queue"]
    return Outbox(
        rows=told["outboxrows"],
        rows_max=config.store.outbox_rows_max,
        oldest_s=told["oldestage_s"],
        dropped=told["dropped"],
    )


# -- what can be asked of any post -----------------------------------------------------------------------------------


def objections(config: Config) -> tuple[str, ...]:
    """What `wardpost run` would refuse to start for, beside the file itself: asked as the composition root asks it."""
    uplink, vision = config.uplink, config.vision
    questions: list[Callable[[], object]] = [
        lambda: refuse(config),
        lambda: keys.pinned("uplink.station_key", uplink.station_key),
        lambda: keys.pinned("release.key", config.release.key),
        lambda: load_key(uplink.command_key),
        lambda: [parse_broker(url) for url in uplink.brokers],
        lambda: drivers.model_paths(vision.detector),
    ]
    if config.recording.seal_key:
        questions.append(lambda: station_key(Path(config.recording.seal_key)))
    if config.camera.driver == "stream" and not config.camera.url:
        questions.append(
            lambda: _refuse("camera.url: missing; the stream driver needs rtsp://..., /dev/video0 or a file")
        )
    found = []
    for question in questions:
        try:
            question()
        except ConfigError as error:
            found.append(str(error))
    return tuple(found)


def _refuse(why: str) -> None:
    raise ConfigError(why)


def _model_fault(config: Config) -> str:
    """Why a stopped agent would tell nobody apart."""
    if config.vision.detector.driver == "none":
        return ""
    try:
        missing = [path for path in drivers.model_paths(config.vision.detector) if not path.is_file()]
    except ConfigError:
        return ""  # an objection
    return "" if not missing else f"{missing[0]} is missing"


def folder_fault(folder: Path) -> str:
    """Why an agent cannot use its data folder; empty when it can."""
    try:
        flags = os.statvfs(folder).f_flag
    except OSError as error:
        return f"{folder}: {error.strerror}"
    if not folder.is_dir():
        return f"{folder} is not a folder"
    if flags & os.ST_RDONLY:
        return f"{folder} lies on a read-only file system: Linux does so when a card answers with errors"
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return f"{folder} may not be written by this user; ask as the agent's user: sudo -u wardpost"
    return ""


def card(folder: Path, config: Config, footage_bytes: int) -> Card:
    """The file system of the data folder."""
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        return Card(fault=f"{folder}: {error.strerror}")
    return Card(
        size_bytes=stat.f_blocks * stat.f_frsize,
        free_bytes=stat.f_bavail * stat.f_frsize,
        free_bytes_min=round(config.recording.free_gb_min * GB),
        footage_bytes=footage_bytes,
        read_only=bool(stat.f_flag & os.ST_RDONLY),
    )


def identity(config: Config, clock: Clock) -> Identity | None:
    """The node's certificate; None where none is set."""
    tls = config.uplink.tls
    if tls is None or not tls.cert:
        return None
    path = Path(tls.cert)
    claim = path.parent / CLAIM_FILE
    try:
        data = path.read_bytes()[:FILE_BYTES_MAX]
    except FileNotFoundError:
        return Identity(
            path=str(path),
            there=False,
            claim=claim.exists(),
            claim_expires=_claim_expires(claim),
            refused=_text(path.parent / REFUSED_FILE),
        )
    except OSError as error:
        return Identity(path=str(path), fault=f"{path}: {error.strerror}")
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificates(data)[0]
    except (ValueError, IndexError):
        return Identity(path=str(path), fault=f"{path}: it holds no certificate")
    now_s = clock.utc().utc_ns / NS
    return Identity(
        path=str(path),
        days_left=(first.not_valid_after_utc.timestamp() - now_s) / DAY_S,
        early_days=max(first.not_valid_before_utc.timestamp() - now_s, 0.0) / DAY_S,
        life_days=(first.not_valid_after_utc - first.not_valid_before_utc).total_seconds() / DAY_S,
        claim=claim.exists(),
        not_renewed=_text(path.parent / RENEWAL_REFUSED_FILE),
    )


def _claim_expires(path: Path) -> str:
    try:
        return load(path, ClaimSettings).expires
    except ConfigError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:300].strip()
    except OSError:
        return ""


def computer(machine: Machine, ask: Questions, mains_lost: str) -> Computer:
    """The computer under the agent."""
    flags: list[str] | None = ask("voltage", machine.throttled, None)
    return Computer(
        temperature_c=ask("temperature", machine.temperature_c, None),
        throttled=None if flags is None else tuple(flags),
        memory_available_bytes=ask("memory", machine.memory_available_bytes, None),
        mains_lost=mains_lost,
    )


def time(clock: Clock) -> Time:
    """The wall clock."""
    utc = clock.utc()
    return Time(vouched=utc.unc_ns is not None, source=utc.source, says=f"{rfc3339(utc.utc_ns)[:16]}Z")


def trials(disk: Disk) -> Trials:
    """Releases and settings from afar. Raises Transient, Corrupt."""
    state = read_state(disk)
    last = state.answer
    told = Trials(
        settings=None if state.trial is None else state.trial.revision,
        settings_why=last.why if last is not None and last.state == "rolled-back" else "",
        settings_seen=state.seen,
    )
    try:
        with disk.open(slots.STATE) as file:
            tried = plan.decode(file.read(plan.STATE_BYTES_MAX + 1)).candidate
    except FileNotFoundError:
        return told
    if tried is None or tried.phase is plan.Phase.STAGED:
        return told
    trying = tried.phase is plan.Phase.TRYING
    return Trials(
        release=tried.release.number if trying else None,
        release_failed=None if trying else tried.release.number,
        release_why=tried.why,
        settings=told.settings,
        settings_why=told.settings_why,
        settings_seen=told.settings_seen,
    )


def systemd_service() -> Service | None:
    """What systemd says of the agent's unit; None where there is no systemd, or no such unit."""
    try:
        ran = subprocess.run(
            ["systemctl", "show", UNIT, "--property=LoadState,ActiveState,UnitFileState,NRestarts,ExecMainStatus"],
            capture_output=True,
            text=True,
            timeout=SYSTEMCTL_S_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return service_of(ran.stdout)


def service_of(text: str) -> Service | None:
    """Reads `systemctl show`: a line `Name=value` each. Pure."""
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        return None

    def number(name: str) -> int:
        value = told.get(name, "")
        return int(value) if value.isdigit() else 0

    return Service(
        active=told.get("ActiveState", "unknown"),
        enabled=told.get("UnitFileState", "") not in ("disabled", "masked"),
        restarts=number("NRestarts"),
        exit_code=number("ExecMainStatus"),
    )
