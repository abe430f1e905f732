"""What a disk may hold after the power went at one point of its log.

Everything before the last flush is there. Of what was written since then any part may be:

    none     nothing of it
    all      all of it
    prefix   its first so many writes
    subset   any selection of its 4 KiB pieces: a write cache keeps no order
    torn     a prefix, and of the next write only the first so many 512-byte sectors

Reading the log's markers up to the same point gives the promises that were made by then.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.system.powercut.blocklog import FLUSH, MARK, WRITE, Entry, entries

MODES = ("none", "all", "prefix", "subset", "torn")
SECTOR = 512
PIECE = 4096


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut: after the first `position` entries of the log."""

    position: int
    mode: str
    seed: int

    def __str__(self) -> str:
        return f"{self.position}:{self.mode}:{self.seed}"


class BlockLog:
    """A finished log."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        self._data = memoryview(self._map)
        self.entries: list[Entry] = list(entries(self._data))

    def bytes_of(self, entry: Entry) -> memoryview:
        return self._data[entry.at : entry.at + entry.length]

    def marks(self) -> list[tuple[int, bytes]]:
        """(position behind it, line) of every marker."""
        return [(n + 1, bytes(self.bytes_of(e))) for n, e in enumerate(self.entries) if e.kind == MARK]

    def count(self, kind: int) -> int:
        return sum(1 for entry in self.entries if entry.kind == kind)

    def written_bytes(self) -> int:
        return sum(entry.length for entry in self.entries if entry.kind == WRITE)

    def cuts(self, count: int, rng: random.Random, *, first: int = 0) -> list[Cut]:
        """`count` cuts spread over the log from `first` on, by chance within equal parts, each mode equally often.

        Positions are behind a write, a flush or a promise; markers of what merely happened (packets offered) are
        frequent and would crowd out the rest.
        """
        places = [
            n + 1
            for n, entry in enumerate(self.entries)
            if n >= first and (entry.kind != MARK or b'"offer"' not in bytes(self.bytes_of(entry)))
        ]
        found = []
        for n in range(count):
            low, high = n * len(places) // count, max((n + 1) * len(places) // count, n * len(places) // count + 1)
            position = places[min(rng.randrange(low, high), len(places) - 1)]
            found.append(Cut(position, MODES[n % len(MODES)], rng.getrandbits(32)))
        return found

    def cuts_after(self, word: bytes, rng: random.Random) -> list[Cut]:
        """Cuts of every mode right behind each marker that contains `word`: the sharpest test of that promise."""
        return [
            Cut(position, mode, rng.getrandbits(32))
            for position, line in self.marks()
            if word in line
            for mode in MODES
        ]


class Rebuilder:
    """Makes images of one log, for cuts in rising order. `scratch` should be on tmpfs."""

    def __init__(self, log: BlockLog, base: Path, scratch: Path) -> None:
        """`base` is the disk as it was when the log began."""
        self._log = log
        self._durable = scratch / "durable.img"
        sparse_copy(base, self._durable)
        self._fd = os.open(self._durable, os.O_RDWR | os.O_CLOEXEC)
        self._position = 0  # entries looked at
        self._pending: list[Entry] = []  # written, not flushed

    def close(self) -> None:
        os.close(self._fd)
        self._durable.unlink()

    def image(self, cut: Cut, out: Path) -> int:
        """Writes the image of a cut to `out`; returns how many bytes of writes were lost by it."""
        if cut.position < self._position:
            raise ValueError("cuts must come in rising order")
        for entry in self._log.entries[self._position : cut.position]:
            if entry.kind == WRITE:
                self._pending.append(entry)
            elif entry.kind == FLUSH:
                for write in self._pending:
                    os.pwrite(self._fd, self._log.bytes_of(write), write.offset)
                self._pending.clear()
        self._position = cut.position
        sparse_copy(self._durable, out)
        kept = 0
        fd = os.open(out, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for offset, data in self._survivors(cut):
                os.pwrite(fd, data, offset)
                kept += len(data)
        finally:
            os.close(fd)
        return sum(entry.length for entry in self._pending) - kept

    def _survivors(self, cut: Cut) -> list[tuple[int, memoryview]]:
        """What of the unflushed writes reached the medium. A write with FUA did, whatever else."""
        rng = random.Random(cut.seed)
        pending = self._pending
        whole, torn = len(pending), 0
        if cut.mode == "none":
            whole = 0
        elif cut.mode in ("prefix", "torn"):
            whole = rng.randint(0, len(pending))
            if cut.mode == "torn" and whole < len(pending):
                torn = rng.randrange(0, max(pending[whole].length // SECTOR, 1)) * SECTOR
        found: list[tuple[int, memoryview]] = []
        for n, entry in enumerate(pending):
            data = self._log.bytes_of(entry)
            if entry.fua:
                found.append((entry.offset, data))
            elif cut.mode == "subset":
                share = rng.random()
                found += [
                    (entry.offset + at, data[at : at + PIECE])
                    for at in range(0, entry.length, PIECE)
                    if rng.random() < share
                ]
            elif n < whole:
                found.append((entry.offset, data))
            elif n == whole and torn:
                found.append((entry.offset, data[:torn]))
        return found


def sparse_copy(source: Path, target: Path) -> None:
    """Copies the data of a sparse file and leaves its holes."""
    size = source.stat().st_size
    with source.open("rb") as src, target.open("wb") as dst:
        dst.truncate(size)
        at = 0
        while at < size:
            try:
                start = os.lseek(src.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                raise
            at = os.lseek(src.fileno(), start, os.SEEK_HOLE)
            while start < at:
                data = os.pread(src.fileno(), min(at - start, 1 << 20), start)
                start += os.pwrite(dst.fileno(), data, start)


def share(cuts: Sequence[Cut], part: int, of: int) -> list[Cut]:
    """One of `of` equal parts of the cuts, each in rising order."""
    ordered = sorted(cuts, key=lambda cut: cut.position)
    return ordered[part * len(ordered) // of : (part + 1) * len(ordered) // of]
