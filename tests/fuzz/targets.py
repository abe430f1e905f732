"""What may be hostile, and what must hold of it: one target per file or message that somebody else may have written.

A target has seeds, bytes that are right, and `check(data)`, which raises when the product does anything but refuse in
one line or take what is truly good. tests/fuzz/test_mutations.py mutates the seeds by hypothesis, atheris_main.py by
coverage.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import boot, wire
from agent.clock import rfc3339
from agent.config import Config, load
from agent.disk import PosixDisk
from agent.errors import WardpostError
from agent.evidence import dsse, keys, receipts, records, standalone
from agent.evidence.keys import public_keys
from agent.evidence.ledger import Ledger
from agent.local import LocalWorker
from agent.recording.fragments import scan
from agent.recording.recover import recover
from agent.station.intake import take, take_all
from agent.store.store import Origin, Store
from agent.types import NS, Event, Hold, Kind, Phase, Priority, UtcReading
from agent.uplink.commands import Judge, Run, Verb
from agent.vision.detector.labels import label_of, read_names
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk
from tests.fakes.evidence_post import NODE, EvidencePost, laps
from tests.fakes.packets import encoded
from tests.fakes.recording_post import SOURCE

UTC = UtcReading(1_700_000_000 * NS, 5_000_000, "ntp")
TOML = b"""
[node]
site = "ward"
id = "cam-7"
data = "/var/lib/wardpost"
[camera]
driver = "stream"
url = "rtsp://camera/1"
[uplink]
brokers = ["mqtts://hq:8883"]
"""


@dataclass(slots=True)
class Target:
    """`check` raises AssertionError for a wrong acceptance; any other exception is a traceback that escaped."""

    name: str
    seeds: list[bytes]
    check: Callable[[bytes], None]
    bytes_max: int = field(default=1 << 20)


class WrongAcceptance(AssertionError):  # noqa: N818  (named for what it is)
    """Something was believed that nobody has said."""


def make(folder: Path) -> list[Target]:
    """All targets; their seeds come from a node that has really recorded, in `folder`. Takes some seconds."""
    home = folder / "post"
    post = EvidencePost(home)
    post.feed(laps(encoded(seconds=4.0), 4.0, 2), receipt_every=20)
    post.post.store.commit([_event(n) for n in range(5)])
    post.post.store.add_hold(Hold("h1", 1, 2, None, "why", "who", 3))
    post.seal()
    package = folder / "package.zip"
    post.export(package)
    post.worker.close()
    post.post.stop()
    segment = min((home / "segments").glob("*.mp4")).read_bytes()
    ledger = min((home / "ledger").glob("0*.jsonl"))
    book = home / "ledger" / "receipts.jsonl"
    database = home / "store.db"
    scratch = folder / "scratch"
    scratch.mkdir()
    commander = Ed25519PrivateKey.generate()
    targets = [
        Target("segment", [segment], _segment_check(segment)),
        Target("recover", [segment], _recover_check),
        Target("store", [database.read_bytes()], _store_check(scratch)),
        Target("ledger", [ledger.read_bytes()], _ledger_check(home, scratch, ledger.name, ledger.read_bytes())),
        Target("receipts", [book.read_bytes()], _receipts_check(book.read_bytes())),
        Target("line", [ledger.read_bytes().split(b"\n")[1]], _line_check(home, ledger.read_bytes())),
        Target("package", [package.read_bytes()], _package_check(scratch, package.read_bytes())),
        Target("labels", ["???\nperson\nxe máy\n".encode()], _labels_check(scratch)),
        Target("settings", [TOML], _toml_check(scratch)),
        Target("wire", _messages(), _wire_check),
        Target("command", [_command(commander)], _command_check(commander)),
        Target("socket", [b'{"ask": "status"}\n', b'{"ask": "extraction", "body": {}}\n'], _socket_check(scratch)),
    ]
    return [target for target in targets if target.seeds]


def _event(n: int) -> Event:
    return Event(f"00000000-0000-7000-8000-{n:012d}", Kind.PERSON, Phase.ENDED, 1_000 * NS, Priority.ALERT, "someone")


@contextmanager
def _refusing() -> Iterator[None]:
    """A refusal is one line, and of our own classes."""
    try:
        yield
    except WardpostError as error:
        if not 0 < len(str(error)) < 20_000 or "Traceback" in str(error):
            raise AssertionError("a refusal that says nothing, or a novel") from error


# -- footage -----------------------------------------------------------------------------------------------------------


def _segment_check(good: bytes) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        found = scan(io.BytesIO(data))
        assert 0 <= found.trusted <= len(data)
        ends = [fragment.end_ns for fragment in found.fragments]
        assert all(isinstance(end, int) for end in ends)
        if found.fragments and data[: found.trusted] != good[: found.trusted] and _same_length_change(data, good):
            raise WrongAcceptance(f"{found.trusted} bytes are trusted that were not written so")

    return check


def _same_length_change(data: bytes, good: bytes) -> bool:
    """Whether it is the seed with a few bytes changed: nobody recomputes a chain of hashes by chance."""
    return len(data) == len(good)


def _recover_check(data: bytes) -> None:
    """The file of the last life, as an attacker or a dying card left it."""
    clock = FakeClock(boot_ns=2_000 * NS)
    disk = FakeDisk()
    disk.list("segments")
    disk.put("segments/000001-00000000.mp4", data)
    index = _MemoryStore(clock)
    try:
        found = recover(disk=disk, index=index.store, clock=clock, source=SOURCE)
        assert not found.failed
        for row in found.sealed:
            again = scan(io.BytesIO(disk.content(row.name)))
            assert (again.trusted, again.sha256) == (row.bytes, row.sha256), "a row that its file does not bear out"
        index.store.start_session()
        index.store.footage()
    finally:
        index.store.close()


class _MemoryStore:
    def __init__(self, clock: FakeClock, path: Path = Path(":memory:")) -> None:
        self.store = _make_store(path, clock)
        self.store.open()


def _make_store(path: Path, clock: FakeClock) -> Store:
    ids = itertools.count(10_000)
    return Store(
        path, clock=clock, new_id=lambda: f"00000000-0000-7000-8000-{next(ids):012x}",
        origin=Origin("hoa-cuong", "cam-1"), outbox_rows_max=1000, event_rows_max=1000,
    )  # fmt: skip


# -- the index ---------------------------------------------------------------------------------------------------------


def _store_check(scratch: Path) -> Callable[[bytes], None]:
    """The boot path on a database that is not what it was: it starts, and a second start finds nothing to mend."""
    numbers = itertools.count()

    def check(data: bytes) -> None:
        folder = scratch / f"store-{next(numbers)}"
        folder.mkdir()
        clock = FakeClock()
        (folder / boot.STORE_NAME).write_bytes(data)
        disk = PosixDisk(folder)
        try:
            with _refusing():
                store, _ = boot.open_store(lambda: _make_store(folder / boot.STORE_NAME, clock), disk)
                try:
                    _live(store, disk, clock)
                finally:
                    store.close()
        finally:
            shutil.rmtree(folder)

    return check


def _live(store: Store, disk: PosixDisk, clock: FakeClock) -> None:
    ledger, book, _ = boot.open_ledger(disk, store, clock, NODE)
    boot.restore_index(disk, store, ledger, book, SOURCE)
    recover(disk=disk, index=store, clock=clock, source=SOURCE)
    before = store.start_session()
    assert before is None or before.session < store.session
    boot.end_left_open(store, clock)
    store.commit([_event(77)])
    store.pending(100)
    store.signs()
    store.gaps()
    store.holds()
    store.tombstones()
    store.segments()
    store.facts(100)
    ledger.close()


# -- evidence ----------------------------------------------------------------------------------------------------------


def _ledger_check(home: Path, scratch: Path, name: str, good: bytes) -> Callable[[bytes], None]:
    said = {dsse.parse(line).payload for line in good.splitlines()}
    own = keys.public_keys(keys.load(PosixDisk(home), "node"))

    def stranger(line: bytes) -> bool:
        """Another spelling of what was signed (spaces, the order of fields) is no other word."""
        envelope = dsse.parse(line)
        return envelope.payload not in said or not envelope.verify(own.get(envelope.keyid, bytes(32)))

    def check(data: bytes) -> None:
        clock = FakeClock(boot_ns=3_000 * NS)
        disk = FakeDisk()
        for path in sorted((home / "keys").iterdir()):
            disk.list("keys")
            disk.put(f"keys/{path.name}", path.read_bytes())
        disk.list("ledger")
        disk.put(f"ledger/{name}", data)
        pairs = keys.load_or_make(disk, "node")
        ledger = Ledger(disk, clock=clock, node=NODE, keys=pairs)
        with _refusing():
            repair = ledger.open(records.LedgerMark(0, ""), epoch="e" * 36)
            # A first line by a lost key is believed by its chain alone: nothing of a file whose keys are there is.
            strangers = [line.seq for line in repair.resend[1:] if stranger(line.line)]
            if strangers:
                raise WrongAcceptance(f"records {strangers[:5]} are handed over that the node has not signed")
            lines = ledger.append([])
            again = Ledger(disk, clock=clock, node=NODE, keys=pairs)
            again.open(records.LedgerMark(lines[-1].seq, lines[-1].head) if lines else records.LedgerMark(0, ""),
                       epoch="e" * 36)  # fmt: skip
            assert again.seq == ledger.seq, "what was appended behind the damage is not found again"

    return check


def _receipts_check(good: bytes) -> Callable[[bytes], None]:
    said = {receipts.read(line).payload for line in good.splitlines()}

    def check(data: bytes) -> None:
        disk = FakeDisk()
        disk.list(receipts.FOLDER)
        disk.put(receipts.FILE, data)
        book = receipts.ReceiptBook(disk, NODE)
        with _refusing():
            book.open()
            if book.newest is not None and book.newest.payload not in said:
                raise WrongAcceptance("a receipt that the station has not signed")

    return check


def _line_check(home: Path, ledger: bytes) -> Callable[[bytes], None]:
    public = public_keys(keys.load(PosixDisk(home), "node"))
    payloads = {dsse.parse(line).payload for line in ledger.splitlines()}

    def check(data: bytes) -> None:
        with _refusing():
            envelope = dsse.parse(data)
            key = public.get(envelope.keyid)
            if key is not None and envelope.verify(key) and envelope.payload not in payloads:
                raise WrongAcceptance("a signature that fits what was never signed")
            records.read(envelope)

    return check


def _package_check(scratch: Path, good: bytes) -> Callable[[bytes], None]:
    path = scratch / "package.zip"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        result = standalone.verify(str(path), [])
        text = standalone.in_words("package.zip", result)
        assert text
        assert "Traceback" not in text
        json.dumps(result)
        if data != good and result["verdict"] == "verified":
            raise WrongAcceptance("a package that nobody has made is verified")

    return check


# -- settings, labels, messages ----------------------------------------------------------------------------------------


def _labels_check(scratch: Path) -> Callable[[bytes], None]:
    path = scratch / "labels.txt"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with _refusing():
            for name in read_names(path):
                label_of(name)

    return check


def _toml_check(scratch: Path) -> Callable[[bytes], None]:
    path = scratch / "node.toml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        with _refusing():
            load(path, Config)

    return check


_MESSAGES = (wire.Status, wire.Heartbeat, wire.CloudEvent, wire.Record, wire.Receipt, wire.Command, wire.Reply)


def _messages() -> list[bytes]:
    uuid = "00000000-0000-7000-8000-000000000001"
    event = wire.CloudEvent(
        id=uuid, source="wardpost/ward/cam-7", type="wardpost.person", subject=uuid, time=rfc3339(UTC.utc_ns),
        epoch=uuid, sequence=1, session=1, bootid="f" * 32, monons=1, timeerrms=5,
        data=wire.EventData(incident=uuid, phase="started", severity="alert", summary="x", box=[0, 0, 1, 1]),
    )  # fmt: skip
    receipt = wire.Receipt(station="hq", epoch=uuid, stored=[(1, 5)], head=5, time=rfc3339(UTC.utc_ns))
    record = wire.Record(epoch=uuid, sequence=3, line="{}")
    status = wire.Status(state="online", node="cam-7", bootid="f" * 32, session=1)
    return [wire.encode(message) for message in (event, receipt, record, status)]


def _wire_check(data: bytes) -> None:
    for kind in _MESSAGES:
        with _refusing():
            wire.decode(data, kind)
    for channel in ("event/person", "record", "heartbeat", "status", "ack", "cmd/siren"):
        with _refusing():
            taken = take(f"wardpost/v1/ward/cam-7/{channel}", data, site="ward")
            assert taken.node == "cam-7", "a message speaks for another node"
    for channel in ("events", "records"):
        for payload in (data, b"[" + data + b"]", b"[" + data + b"," + data + b"]"):
            parts, _refused = take_all(f"wardpost/v1/ward/cam-7/{channel}", payload, site="ward")
            assert all(part.node == "cam-7" for part in parts), "a part of a batch speaks for another node"
    with _refusing():
        wire.parse_topic(data.decode("utf-8", "replace"))


def _command(key: Ed25519PrivateKey) -> bytes:
    command = wire.Command(
        id="00000000-0000-7000-8000-000000000001", verb="siren", expires=rfc3339(UTC.utc_ns + 60 * NS),
        args={"seconds": 5},
    )  # fmt: skip
    signature = base64.b64encode(key.sign(command.signing_bytes("ward", "cam-7"))).decode()
    return wire.encode(msgspec.structs.replace(command, signature=signature))


def _command_check(key: Ed25519PrivateKey) -> Callable[[bytes], None]:
    good = wire.decode(_command(key), wire.Command)

    def nothing(_args: dict[str, Any]) -> dict[str, Any]:
        return {}

    def check(data: bytes) -> None:
        verbs = {"siren": Verb(handler=nothing, acting=True)}
        judge = Judge(site="ward", node="cam-7", key=key.public_key(), verbs=verbs)
        decision = judge.judge("wardpost/v1/ward/cam-7/cmd/siren", data, utc=UTC, started_utc_ns=0)
        if isinstance(decision, Run) and decision.command.signing_bytes("ward", "cam-7") != good.signing_bytes(
            "ward", "cam-7"
        ):
            raise WrongAcceptance("a command that nobody has signed runs")
        if data == _command(key):
            assert isinstance(decision, Run), "the command that was signed does not run: the test shows nothing"

    return check


def _socket_check(scratch: Path) -> Callable[[bytes], None]:
    folder = scratch / "socket"
    folder.mkdir()
    clock = FakeClock()
    store = _MemoryStore(clock).store
    store.start_session()

    def check(data: bytes) -> None:
        noted: list[bytes] = []
        worker = LocalWorker(folder, catalog=store, status=dict, extracted=noted.append, wait_s=0.0)
        worker.open()
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(str(folder / "wardpost.sock") if (folder / "wardpost.sock").exists() else _sock(folder))
            client.setblocking(False)
            with suppress(BlockingIOError, BrokenPipeError):
                client.send(data[:8192])
            client.shutdown(socket.SHUT_WR)
            for n in range(12):
                worker.step(float(n))
            for body in noted:
                assert isinstance(json.loads(body), dict), "a body that is no object goes onto the ledger"
        finally:
            client.close()
            worker.close()

    return check


def _sock(folder: Path) -> str:
    return str(next(path for path in folder.iterdir() if path.is_socket()))


__all__ = ["Target", "WrongAcceptance", "make"]
