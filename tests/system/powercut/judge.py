"""Did the post keep its word? Facts are read from a data folder after a cut; the verdict on them is a pure function.

`boot` runs the node's own boot path on the folder, as the next start of the machine would. `gather` reads what is
there then. `verdict` holds it against the promises. The same three judge an image rebuilt from a block log, the disk of
a virtual machine and a Raspberry Pi on the bench.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

from agent.assembly.world import real_world
from agent.boot import STORE_NAME
from agent.clock import SystemClock
from agent.config import Config
from agent.disk import PosixDisk
from agent.main import Node, build
from agent.recording.coverage import Now, coverage
from agent.recording.fragments import scan
from agent.recording.index import FOLDER
from agent.recording.retention import BALLAST
from agent.recording.timeline import Timeline
from agent.store.store import Origin, Store
from agent.types import NS, Cause, Segment

MOMENT_NS = NS // 5  # the product calls shorter holes jitter
CHANGED_FRAMES_NS = NS // 5  # a fragment is closed by the first picture behind its end


class NextBoot(SystemClock):
    """The machine's clock after a restart that did not happen: everything as it is, but another boot id."""

    def __init__(self) -> None:
        super().__init__()
        self._boot_id = uuid.uuid4().hex


# -- promises ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Promises:
    """What a node has said by one moment, from its markers (see entry.py)."""

    committed: dict[tuple[str, int], str] = field(default_factory=dict)  # (epoch, sequence) -> id
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    sealed: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> bytes, sha256
    synced: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> first so many bytes, their sha256
    names: set[str] = field(default_factory=set)  # files that exist
    gone: set[str] = field(default_factory=set)  # files that stay gone
    running: bool = False
    session: int = 0
    boot_id: str = ""
    camera_ns: int | None = None  # the newest picture the camera gave to this session
    first_ns: int | None = None  # the first
    taken_ns: int | None = None  # the newest picture that has left the recorder's queue
    synced_ns: int | None = None  # end of the newest synced fragment of this session
    fragment_ns_max: int = 0

    def note(self, line: bytes) -> None:
        """One marker."""
        fact = json.loads(line)
        getattr(self, "_" + fact.pop("t"))(**fact)

    def _begin(self) -> None:
        self.running = True
        self.camera_ns = self.first_ns = self.taken_ns = self.synced_ns = None

    def _end(self) -> None:
        self.running = False

    def _session(self, session: int, epoch: str, boot_id: str) -> None:
        self.session, self.boot_id = session, boot_id

    def _commit(self, epoch: str, rows: list[tuple[int, str]]) -> None:
        self.committed |= {(epoch, sequence): event_id for sequence, event_id in rows}

    def _ack(self, epoch: str, stored: list[tuple[int, int]]) -> None:
        for low, high in stored:
            self.acknowledged |= {(epoch, sequence) for sequence in range(low, high + 1)}

    def _seal(self, name: str, bytes: int, sha256: str, fragments: int) -> None:  # noqa: A002
        self.sealed[name] = (bytes, sha256)

    def _condemn(self, names: list[str]) -> None:
        for name in names:
            self._remove(name)

    def _create(self, name: str) -> None:
        self.names.add(name)
        self.gone.discard(name)

    def _sync(self, name: str, bytes: int, sha256: str) -> None:  # noqa: A002
        self.synced[name] = (bytes, sha256)
        self.names.add(name)

    def _shorten(self, name: str, bytes: int) -> None:  # noqa: A002
        if self.synced.get(name, (-1, ""))[0] >= bytes:
            del self.synced[name]

    def _remove(self, name: str) -> None:
        self.sealed.pop(name, None)
        self.synced.pop(name, None)
        self.names.discard(name)

    def _unlink(self, name: str) -> None:
        self.gone.add(name)

    def _offer(self, boot_ns: int, taken_ns: int | None) -> None:
        self.camera_ns = max(self.camera_ns or 0, boot_ns)
        self.first_ns = boot_ns if self.first_ns is None else self.first_ns
        if taken_ns is not None:
            self.taken_ns = max(self.taken_ns or 0, taken_ns)

    def _fragment(self, name: str, start_ns: int, end_ns: int) -> None:
        self.synced_ns = max(self.synced_ns or 0, end_ns)
        self.fragment_ns_max = max(self.fragment_ns_max, end_ns - start_ns)


# -- facts -------------------------------------------------------------------------------------------------------------


class FileFacts(msgspec.Struct, frozen=True):
    """A file of footage as it lies on the disk."""

    name: str
    bytes: int
    sha256: str
    fragments: int
    start_ns: int | None
    end_ns: int | None
    boot_id: str
    session: int
    problem: str


class StretchFacts(msgspec.Struct, frozen=True):
    """A part of the account of time."""

    start_utc_ns: int
    end_utc_ns: int
    what: str
    detail: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a data folder holds, in a form that travels as JSON."""

    epoch: str
    session: int  # the newest
    boots: int
    files: list[FileFacts]
    rows: list[Segment]
    events: list[tuple[int, str, bool]]  # sequence, id, still in the outbox
    ledger: list[str]  # what is wrong with the ledger
    ledger_lines: int
    account: list[StretchFacts]  # the node's whole life, by its own account of time
    second_boot: list[str] = []  # what a second recovery still found to do


def boot(settings: Config, folder: Path) -> Node:
    """Runs the node's boot path on a folder, as a machine that has just been switched on. No thread is started."""
    settings = msgspec.structs.replace(settings, node=msgspec.structs.replace(settings.node, data=str(folder)))
    return build(settings, real_world(settings, PosixDisk(folder), NextBoot()))


def gather(folder: Path, store: Store, *, boot_id: str, boot_ns: int) -> Facts:
    """Reads everything. `store` is open; `boot_id`, `boot_ns`: now, on the machine of the folder."""
    rows = store.segments()
    ledger, lines = ledger_problems(folder)
    events = store._query("select sequence, id, sequence in (select sequence from outbox) from event order by sequence")
    return Facts(
        epoch=store.epoch,
        session=max((row.session for row in store.sessions()), default=0),
        boots=len({row.boot_id for row in store.sessions()}),
        files=[_file(folder, path) for path in sorted((folder / FOLDER).glob("*")) if path.is_file()],
        rows=rows,
        events=[(sequence, event_id, bool(waiting)) for sequence, event_id, waiting in events],
        ledger=ledger,
        ledger_lines=lines,
        account=_account(store, rows, boot_id, boot_ns),
    )


def _file(folder: Path, path: Path) -> FileFacts:
    with path.open("rb") as file:
        found = scan(file)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    header = found.header
    return FileFacts(
        name=str(path.relative_to(folder)),
        bytes=path.stat().st_size,
        sha256=digest,
        fragments=len(found.fragments),
        start_ns=header.start_ns if header else None,
        end_ns=found.end_ns if found.fragments else None,
        boot_id=header.boot_id if header else "",
        session=header.session if header else 0,
        problem=found.problem,
    )


def _account(store: Store, rows: Sequence[Segment], boot_id: str, boot_ns: int) -> list[StretchFacts]:
    """The product's own account of its life, from its first session to now."""
    timeline, sessions = Timeline(store.anchors()), store.sessions()
    start = timeline.utc(sessions[0].boot_id, sessions[0].start_ns) if sessions else None
    end = timeline.utc(boot_id, boot_ns)
    if start is None or end is None:
        return []
    stretches = coverage(
        start.utc_ns,
        end.utc_ns,
        sessions=sessions,
        segments=rows,
        gaps=store.gaps(),
        tombstones=store.tombstones(),
        timeline=timeline,
        now=Now(boot_id, boot_ns),
    )
    return [StretchFacts(s.start_utc_ns, s.end_utc_ns, s.what, s.detail) for s in stretches]


def ledger_problems(folder: Path) -> tuple[list[str], int]:
    """Walks the hash chain of `ledger/` (agent/evidence): what is wrong, and how many records there are.

    Independent of the product's own reader on purpose: base64, JSON and SHA-256 only.
    """
    wrong: list[str] = []
    before, count, seq = b"", 0, 0
    for path in sorted((folder / "ledger").glob("[0-9]*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            if not line:
                continue
            count += 1
            try:
                record = json.loads(base64.b64decode(json.loads(line)["payload"]))
            except (ValueError, KeyError) as error:
                wrong.append(f"{path.name}: record {count} cannot be read: {error}")
                continue
            if seq and record["seq"] != seq + 1:
                wrong.append(f"{path.name}: record {record['seq']} follows {seq}")
            if before and record["prev"] != hashlib.sha256(before).hexdigest():
                wrong.append(f"{path.name}: record {record['seq']} does not follow the one before it")
            before, seq = line, record["seq"]
    return wrong, count


# -- the verdict -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was broken (nothing: the promises held), and what the cut cost."""

    broken: tuple[str, ...]
    lost_s: float | None  # footage the camera had given and that is not there; None: nothing was being recorded
    waiting_s: float  # how much of it was in the recorder's queue, behind the card or between two looks at the queue


def verdict(facts: Facts, promises: Promises, *, fragment_s: float) -> Verdict:
    """Holds what is there against what was said. `fragment_s`: the node's setting."""
    lost_s, waiting_s, late = _loss(facts, promises, fragment_s)
    broken = [
        *_events(facts, promises),
        *_rows(facts),
        *_sealed(facts, promises),
        *late,
        *facts.ledger,
        *unexplained(facts.account),
        *(f"a second start still finds something to mend: {what}" for what in facts.second_boot),
    ]
    return Verdict(tuple(broken), lost_s, waiting_s)


def _events(facts: Facts, promises: Promises) -> Iterable[str]:
    there = {(facts.epoch, sequence): (event_id, waiting) for sequence, event_id, waiting in facts.events}
    for key, event_id in promises.committed.items():
        found = there.get(key)
        if found is None:
            yield f"event {key[1]} was committed and is gone"
        elif found[0] != event_id:
            yield f"event {key[1]} was committed as {event_id} and is now {found[0]}"
        elif not found[1] and key not in promises.acknowledged:
            yield f"event {key[1]} is not in the outbox, and the station never acknowledged it"


def _rows(facts: Facts) -> Iterable[str]:
    """Invariant 2, both ways."""
    files = {file.name: file for file in facts.files}
    for row in facts.rows:
        file = files.pop(row.name, None)
        if file is None:
            yield f"{row.name} has a row and no file"
        elif (file.bytes, file.sha256) != (row.bytes, row.sha256):
            yield f"{row.name}: its row promises {row.bytes} other bytes than the {file.bytes} on the disk"
        elif file.problem or file.fragments != row.fragments:
            yield f"{row.name}: {file.fragments} of {row.fragments} fragments verify: {file.problem}"
    yield from (f"{name} has no row after recovery" for name in files)


def _sealed(facts: Facts, promises: Promises) -> Iterable[str]:
    rows = {row.name: row for row in facts.rows}
    files = {file.name for file in facts.files}
    for name, (size, sha256) in promises.sealed.items():
        row = rows.get(name)
        if row is None or (row.bytes, row.sha256) != (size, sha256):
            yield f"{name} was sealed with {size} bytes; now: {row.bytes if row else 'nothing'}"
    for name in promises.gone & files:
        yield f"{name} was deleted for good and is back"


def disk_promises(folder: Path, promises: Promises, *, names: bool) -> list[str]:
    """What agent/disk.py promised, held against a folder.

    `names`: before recovery, which may remove a segment without a good fragment, and gives up its ballast when it likes.
    """
    wrong = [f"{name} was deleted for good and is back" for name in promises.gone if (folder / name).exists()]
    if names:
        wrong += [f"{name} was made and is gone" for name in promises.names if not (folder / name).exists()]
    for name, (size, sha256) in promises.synced.items():
        if not names and name == BALLAST:
            continue
        try:
            with (folder / name).open("rb") as file:
                data = file.read(size)
        except FileNotFoundError:
            wrong.append(f"{name}: {size} bytes were synced and the file is gone")
            continue
        if hashlib.sha256(data).hexdigest() != sha256:
            wrong.append(f"{name}: {size} bytes were synced; the {len(data)} there are not those")
    return wrong


def _loss(facts: Facts, promises: Promises, fragment_s: float) -> tuple[float | None, float, list[str]]:
    """Footage lost of the recording in progress; complaints when it is more than one fragment and what waited."""
    if not promises.running or promises.camera_ns is None or promises.first_ns is None:
        return None, 0.0, []
    ends = [row.end_ns for row in facts.rows if row.session == promises.session]
    kept_ns = max(ends, default=promises.first_ns)
    lost_s = max(promises.camera_ns - kept_ns, 0) / NS
    taken_ns = promises.first_ns if promises.taken_ns is None else promises.taken_ns
    waiting_s = max(promises.camera_ns - taken_ns, 0) / NS
    wrong = []
    if promises.synced_ns is not None and kept_ns < promises.synced_ns:
        wrong.append(f"{(promises.synced_ns - kept_ns) / NS:.2f} s of footage were synced and are gone")
    if lost_s > fragment_s + waiting_s + CHANGED_FRAMES_NS / NS:
        wrong.append(f"{lost_s:.2f} s of footage are lost; {waiting_s:.2f} s of it waited in memory for the card")
    return lost_s, waiting_s, wrong


def unexplained(account: Sequence[StretchFacts]) -> Iterable[str]:
    """Invariant 4: the account has no hole, no overlap, and knows a cause for everything."""
    if not account:
        yield "the node's life cannot be placed in UTC: no time anchor"
    for one, following in pairwise(account):
        if one.end_utc_ns != following.start_utc_ns:
            yield f"the account has a hole or an overlap at {one.end_utc_ns}"
    for stretch in account:
        if stretch.what == Cause.UNKNOWN and stretch.end_utc_ns - stretch.start_utc_ns > MOMENT_NS:
            yield f"{(stretch.end_utc_ns - stretch.start_utc_ns) / NS:.2f} s are unexplained: {stretch.detail}"


def fsck(image: Path, *, how: str = "-n") -> tuple[int, str]:
    """e2fsck's exit code and words: 0 clean, 1 mended, 4 and more: damaged. `how`: -n looks, -p and -y mend."""
    done = subprocess.run(["e2fsck", "-f", how, str(image)], capture_output=True, text=True, timeout=120)
    return done.returncode, (done.stdout + done.stderr).strip()


# -- on the post itself: python judge.py DATA, while the node does not run -----------------------------------------------


def read(folder: Path) -> Facts:
    """The facts of a stopped node's folder, changing nothing in it."""
    clock = SystemClock()
    store = Store(
        folder / STORE_NAME,
        clock=clock,
        new_id=lambda: "",
        origin=Origin("", ""),
        outbox_rows_max=1,
        event_rows_max=1,
    )
    store.open()
    try:
        return gather(folder, store, boot_id=clock.boot_id, boot_ns=clock.boot_ns())
    finally:
        store.close()


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(read(Path(sys.argv[1]))) + b"\n")
