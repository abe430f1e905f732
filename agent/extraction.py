"""`wardpost export`: an evidence package from a data folder, whether a node runs on it or not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent import __version__, boot
from agent.clock import Clock, SystemClock, uuid7_maker
from agent.config import Config
from agent.desk import asked_at, check_output, moment
from agent.disk import Disk, PosixDisk
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import c2pa, keys, rotation
from agent.evidence.ledger import Ledger
from agent.evidence.opening import open_package
from agent.evidence.package import (
    REASON_CHARS_MAX,
    WHO_CHARS_MAX,
    Exported,
    Mark,
    Origin,
    Request,
    Witness,
    checked_text,
    export,
)
from agent.evidence.records import RecordKind
from agent.evidence.seal import private_key
from agent.evidence.worker import LedgerWorker
from agent.folder import DataLock, InUse
from agent.local import catalog_of, note_extraction, order
from agent.login import login
from agent.recording.account import table
from agent.recording.footage import NoFootage
from agent.store import store as stores

LEDGER_WAIT_S_MAX = 15.0
_POLL_S = 0.1


class _Waiting:
    """Gives the ledger LEDGER_WAIT_S_MAX, in small steps."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = round(LEDGER_WAIT_S_MAX / _POLL_S)
        self._never = threading.Event()

    def wait(self) -> bool:
        self._left -= 1
        self._clock.wait(self._never, _POLL_S)
        return self._left > 0


class RunningNode(_Waiting):
    """The witness when a node runs: it writes its own ledger."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        super().__init__(clock)
        self._folder = folder

    def extraction(self, body: bytes) -> None:
        """Raises Transient."""
        note_extraction(self._folder, body)


class StoppedNode:
    """The witness when none runs: the ledger is written here and now, by the node's own parts."""

    def __init__(self, config: Config, disk: Disk, clock: Clock) -> None:
        self._config, self._disk, self._clock = config, disk, clock

    def extraction(self, body: bytes) -> None:
        """Raises Transient; Corrupt when the database is damaged."""
        with self.open() as (_ledger, store):
            store.note(RecordKind.EXTRACTION, body, urgent=True)

    @contextmanager
    def open(self) -> Iterator[tuple[Ledger, stores.Store]]:
        """The ledger and the store of a node that does not run; what is noted stands on the ledger afterwards."""
        node = self._config.node
        with DataLock(self._disk.path("")).take(self._clock):
            store = stores.Store(
                self._disk.path(boot.STORE_NAME),
                clock=self._clock,
                new_id=uuid7_maker(self._clock),
                origin=stores.Origin(node.site, node.id, node.place),
                outbox_rows_max=self._config.store.outbox_rows_max,
                event_rows_max=self._config.store.event_rows_max,
            )
            store.open()
            try:
                self._require_newest(store)
                station = keys.pinned("uplink.station_key", self._config.uplink.station_key)
                ledger, receipts, _problem = boot.open_ledger(
                    self._disk, store, self._clock, f"{node.site}/{node.id}", station
                )
                yield ledger, store
                LedgerWorker(ledger=ledger, receipts=receipts, journal=store).close()
            finally:
                store.close()

    def _require_newest(self, store: stores.Store) -> None:
        node = self._config.node
        try:
            boot.require_newest(store, self._disk, f"{node.site}/{node.id}")
        except Corrupt as error:
            raise Corrupt(f"{error}; start the node once, it rebuilds its index") from None

    def wait(self) -> bool:
        """The line is there, or will never be."""
        return False


def export_package(
    config: Config, *, start: str, end: str, output: Path, who: str, reason: str, out: Callable[[str], None]
) -> int:
    """Makes the package and says what is in it; returns the exit code. Blocks for the reading and writing.

    Raises ConfigError, Transient, Corrupt.
    """
    clock = SystemClock()
    request = Request(
        moment("export", "--from", start),
        moment("export", "--to", end),
        checked_text("--who", who or login(), WHO_CHARS_MAX),
        checked_text("--reason", reason, REASON_CHARS_MAX),
    )
    folder = Path(config.node.data)
    check_output("export", output, folder)
    disk = PosixDisk(folder)
    catalog = catalog_of(folder, clock)
    try:
        done = export(
            disk=disk,
            catalog=catalog,
            origin=Origin(f"{config.node.site}/{config.node.id}", config.node.place, _camera(config)),
            request=request,
            output=output,
            clock=clock,
            signer=_signer(disk),
            witness=_witness(config, disk, clock),
            now=asked_at(clock, catalog),
            mark=_mark(config, clock),
        )
    except NoFootage as error:
        out(f"{error}\n{table(error.coverage)}")
        return 1
    out(_words(done))
    return 0


def open_sealed(
    package: Path, *, key: Path, output: Path, who: str, sign: Path | None, out: Callable[[str], None]
) -> int:
    """Opens a package of sealed footage with the station's private key; returns the exit code. Blocks.

    Needs no configuration and no node: it is done where the private key is. Raises ConfigError, Corrupt, Transient.
    """
    if output.is_symlink() or (output.exists() and not output.is_file()):
        raise ConfigError(f"open: {output} is a folder, a device or a link; name a file of its own")
    done = open_package(
        sealed=package,
        key=private_key(key),
        output=output,
        who=checked_text("--who", who or login(), WHO_CHARS_MAX),
        clock=SystemClock(),
        signer=None if sign is None else keys.private_key(sign),
    )
    signed = "" if done.signed else "\n  nobody has signed the opening; --sign KEY.pem says who opened it"
    out(f"{done.path}: {done.bytes / 1e6:.1f} MB, {done.files} files opened\n  sha256 {done.sha256}{signed}")
    return 0


def _witness(config: Config, disk: Disk, clock: Clock) -> Witness:
    folder = disk.path("")
    try:
        DataLock(folder).take(clock).release()
    except InUse:
        return RunningNode(folder, clock)
    return StoppedNode(config, disk, clock)


def _signer(disk: Disk) -> keys.Key | None:
    """The node's key in force. None: there is none yet; the package says that it is unsigned."""
    return rotation.in_force(disk)


def show_keys(config: Config, *, as_json: bool, out: Callable[[str], None]) -> int:
    """Prints the node's public keys; returns the exit code. Beside a running node and on a stopped one's card."""
    found = rotation.show(PosixDisk(_folder(config)))
    if as_json:
        out(json.dumps(found, indent=2))
        return 0
    for key in found["keys"]:
        out(f"{key['keyid']}  {key['public']}{'  in force' if key['in_force'] else ''}")
    if not found["keys"]:
        out("this node has no key yet; it makes one at its first start")
    return 0


def show_station_key(folder: Path, *, as_json: bool, out: Callable[[str], None]) -> int:
    """Prints the public key by which a station signs; returns the exit code. Raises ConfigError, Transient."""
    if not folder.is_dir():
        raise ConfigError(f"station.data: {folder} is not a folder")
    found = keys.load(PosixDisk(folder), "station")
    if not found:
        raise ConfigError(f"{folder}: this station has no key yet; it makes one at its first start")
    key = found[-1]
    told = {"keyid": key.keyid, "public": key.public.hex()}
    out(json.dumps(told, indent=2) if as_json else f"{key.keyid}  {key.public.hex()}")
    return 0


def rotate_key(config: Config, *, reason: str, as_json: bool, out: Callable[[str], None]) -> int:
    """Gives the node a new key, introduced by the old one; returns the exit code. Blocks for LEDGER_WAIT_S_MAX at most.

    By the running node, or on the card of one that does not run. Raises ConfigError, Corrupt, Transient.
    """
    folder = _folder(config)
    disk, clock = PosixDisk(folder), SystemClock()
    asked = {"reason": checked_text("--reason", reason, rotation.REASON_CHARS_MAX), "by": login()}
    waiting = _Waiting(clock)
    try:
        DataLock(folder).take(clock).release()
    except InUse:
        told = order(folder, "key", asked)
    else:
        with StoppedNode(config, disk, clock).open() as (ledger, store):
            told = rotation.KeyDesk(disk=disk, ledger=ledger, notes=store).rotate(asked)
    while (found := rotation.in_force(disk)) is None or found.keyid != told["keyid"]:
        if not waiting.wait():
            raise Transient(
                f"key: {told['keyid']} is made and noted, but not on the ledger yet; see wardpost key show later"
            )
    out(json.dumps(told, indent=2) if as_json else f"{told['before']} has introduced {told['keyid']}\n{told['public']}")
    return 0


def _folder(config: Config) -> Path:
    folder = Path(config.node.data)
    boot.require_store(folder)
    return folder


def _mark(config: Config, clock: Clock) -> Mark | None:
    if not c2pa.available():
        return None
    return c2pa.marker(node=f"{config.node.site}/{config.node.id}", agent=__version__, utc_ns=clock.utc().utc_ns)


def _camera(config: Config) -> str:
    camera = config.camera
    return f"{camera.driver}, {camera.width}x{camera.height}" if camera.driver == "picamera2" else camera.driver


def _words(done: Exported) -> str:
    holds = f"{done.segments} original files ({done.footage_bytes / 1e6:.1f} MB), {done.records} ledger records"
    lines = [
        f"{done.path}: {done.bytes / 1e6:.1f} MB, {holds}, {done.receipts} station receipts",
        f"  sha256 {done.sha256}",
    ]
    if not done.signed:
        lines.append("  the node has no key yet: the package is not signed, and no verifier will accept it")
    if done.locked:
        lines.append(
            f"  {done.locked} files are sealed to the station: wardpost open shows them, where its private key is"
        )
    if not done.witnessed:
        lines.append("  this export is not on the ledger: the node did not answer in time")
    lines += [f"  missing: {entry['name']}: {entry['why']}" for entry in done.missing]
    return "\n".join([*lines, table(done.coverage)])
