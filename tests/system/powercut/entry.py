"""The real node, `wardpost run`, telling the logging disk what it has promised, and on demand with a bug planted in it.

    python -m tests.system.powercut.entry CONFIG CONTROL [--bug NAME]

CONTROL is the disk's control socket, or the serial port of a virtual machine.

A promise is told *after* the call that makes it has returned (`commit`, `seal`, `create`, `sync`, `unlink`); what lifts
one is told *before* (`condemn`, `ack`, `remove`, `shorten`): so at any point of the log the promises told by then hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent import main as node
from agent.assembly import books, sight
from agent.disk import PosixDisk, PosixFile
from agent.recording.fragments import Piece
from agent.recording.index import FOLDER
from agent.recording.recorder import RecorderWorker
from agent.store.store import Store
from agent.types import EndReason, Event, Packet, Segment
from tests.system.powercut.blocklog import Marker

BUGS = {
    "no-fdatasync": "footage is written and never synced",
    "row-first": "the row of a segment goes down before its last fragment is synced",
    "no-folder-sync": "names are made and removed without syncing the folder",
    "sqlite-off": "the index runs with synchronous=OFF",
}

Tell = Callable[..., None]


def telling(marker: Callable[[bytes], None]) -> Tell:
    """A function that writes a fact as a marker."""

    def tell(what: str, **facts: Any) -> None:
        marker(json.dumps({"t": what, **facts}, separators=(",", ":")).encode())

    return tell


class TellingFile(PosixFile):
    """Tells what is synced: so many bytes with this hash."""

    def __init__(self, fd: int, path: Path, name: str, tell: Tell, *, sync: bool, before: bytes = b"") -> None:
        """`before`: what the file holds already."""
        super().__init__(fd, path)
        self._name = name
        self._tell = tell
        self._sync = sync
        self._sha = hashlib.sha256(before)
        self._bytes = len(before)
        self.careless = False  # the next syncs do nothing and promise nothing

    def write(self, data: bytes) -> int:
        count = super().write(data)
        self._sha.update(data)
        self._bytes += len(data)
        return count

    def sync(self) -> None:
        if self.careless:
            return
        if self._sync:
            super().sync()
        self._tell("sync", name=self._name, bytes=self._bytes, sha256=self._sha.hexdigest())


class TellingDisk(PosixDisk):
    """Tells which names were made and removed for good."""

    tell: Tell
    bug: str = ""
    newest: TellingFile | None = None  # of footage

    def create(self, name: str) -> PosixFile:
        made = super().create(name)
        footage = name.startswith(FOLDER + "/")
        sync = not (footage and self.bug == "no-fdatasync")
        file = TellingFile(os.dup(made._fd), self.path(name), name, self.tell, sync=sync)
        made.close()
        if footage:
            self.newest = file
        self.tell("create", name=name)
        return file

    def append(self, name: str) -> PosixFile:
        made = super().append(name)
        before = self.path(name).read_bytes()
        file = TellingFile(os.dup(made._fd), self.path(name), name, self.tell, sync=True, before=before)
        made.close()
        return file

    def replace(self, name: str, data: bytes, **how: Any) -> None:
        self.tell("shorten", name=name, bytes=0)
        super().replace(name, data, **how)
        self.tell("sync", name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def truncate(self, name: str, size: int) -> None:
        self.tell("shorten", name=name, bytes=size)
        super().truncate(name, size)

    def rename(self, name: str, new: str) -> None:
        self.tell("remove", name=name)
        super().rename(name, new)

    def unlink(self, name: str) -> None:
        self.tell("remove", name=name)
        super().unlink(name)
        self.tell("unlink", name=name)

    def _sync_folder(self, folder: Path) -> None:
        if self.bug != "no-folder-sync":
            super()._sync_folder(folder)


class TellingStore(Store):
    """Tells what is committed, sealed, condemned and acknowledged."""

    tell: Tell
    bug: str = ""

    def open(self) -> None:
        super().open()
        if self.bug == "sqlite-off" and self._db is not None:
            self._db.execute("pragma synchronous=off")

    def start_session(self) -> Any:
        before = super().start_session()
        self.tell("session", session=self.session, epoch=self.epoch, boot_id=self._clock.boot_id)
        return before

    def commit(self, events: Sequence[Event]) -> list[int]:
        sequences = super().commit(events)
        if sequences:
            rows = self._query(
                "select sequence, id from event where sequence between ? and ?", sequences[0], sequences[-1]
            )
            self.tell("commit", epoch=self.epoch, rows=rows)
        return sequences

    def note_acknowledged(self, stored: Sequence[tuple[int, int]]) -> None:
        if stored:
            self.tell("ack", epoch=self.epoch, stored=list(stored))
        super().note_acknowledged(stored)

    def add_segment(self, segment: Segment) -> None:
        super().add_segment(segment)
        self.tell("seal", name=segment.name, bytes=segment.bytes, sha256=segment.sha256, fragments=segment.fragments)

    def condemn(self, names: Sequence[str], reason: str) -> None:
        self.tell("condemn", names=list(names))
        super().condemn(names, reason)


class TellingRecorder(RecorderWorker):
    """Tells what the camera gave, how much of it has left the queue, and how far footage is synced."""

    tell: Tell
    bug: str = ""
    disk: TellingDisk

    def offer(self, packet: Packet) -> bool:
        taken = super().offer(packet)
        last = self._last
        self.tell("offer", boot_ns=packet.boot_ns, taken_ns=None if last is None else last.boot_ns)
        return taken

    def _append(self, writing: Any, pieces: Sequence[Piece]) -> None:
        super()._append(writing, pieces)
        for piece in pieces:
            if piece.fragment is not None and not (self.disk.newest and self.disk.newest.careless):
                fragment = piece.fragment
                self.tell("fragment", name=writing.name, start_ns=fragment.start_ns, end_ns=fragment.end_ns)

    def _seal(self, end_reason: EndReason, *, now: float, following: Packet | None = None) -> None:
        if self.bug == "row-first" and self.disk.newest is not None:
            self.disk.newest.careless = True
        super()._seal(end_reason, now=now, following=following)
        if self.bug == "row-first":
            self._flush_rows()


def port(path: Path) -> Callable[[bytes], None]:
    """A character device instead of the socket, out of a virtual machine: what arrives there was promised before."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    lock = threading.Lock()

    def mark(line: bytes) -> None:
        with lock:
            os.write(fd, line + b"\n")

    return mark


def plant(tell: Tell, bug: str) -> None:
    """Puts the telling parts, and a bug, in the place of the node's own."""
    disks: list[TellingDisk] = []

    class Disk(TellingDisk):
        def __init__(self, root: Path) -> None:
            super().__init__(root)
            self.tell, self.bug = tell, bug
            disks.append(self)

    class Memory(TellingStore):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.tell, self.bug = tell, bug

    class Recorder(TellingRecorder):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.tell, self.bug, self.disk = tell, bug, disks[-1]

    for name, part in (("PosixDisk", Disk), ("Store", Memory), ("RecorderWorker", Recorder)):
        homes = [module for module in (node, books, sight) if hasattr(module, name)]  # no tests.fakes in the machine
        if not homes:
            raise RuntimeError(f"{name} is used nowhere any more: tests/system/powercut/entry.py must follow")
        for home in homes:
            setattr(home, name, part)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("control", type=Path)
    parser.add_argument("--bug", choices=["", *BUGS], default="")
    args = parser.parse_args()
    tell = telling(Marker(args.control) if args.control.is_socket() else port(args.control))
    plant(tell, args.bug)
    threading.current_thread().name = "node"
    tell("begin")
    code = node.run(args.config)
    tell("end")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
