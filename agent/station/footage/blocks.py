"""Blocks of a ledger that were read once, and need not be read again.

A block is BLOCK numbers of a ledger, aligned. Lines are never changed: new ones come, also late ones with an old
number, and the oldest rows of the whole table are given up. So what was read of a block still holds while the table has
as many lines with its numbers as were counted before it was read, and none of its rows is older than the oldest row
there is. Nothing here asks the database: who reads tells what he has counted.

What a day of footage mostly is, files that follow each other, is kept as runs: 50 bytes a file instead of the 2,000 of
its line.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import msgspec

from agent.evidence.records import Payload, RecordKind
from agent.recording.runs import Run, fits, runs_of
from agent.station.footage.lines import Filed, filed, payload_of
from agent.types import Segment

BLOCK = 64
LINES_MAX = 4 * BLOCK
"""In the numbers of a block; there are more only where a node has signed many lines of one number."""
BYTES_MAX = 64 << 20
"""Of all that is kept: some 600,000 files, a month of a post's 20."""
BEGINS_MAX = 50_000
"""Blocks of which the time of the first line is kept: 400 bytes each."""
_ENTRY_BYTES = 400
_RUN_BYTES = 600
_FILE_BYTES = 48


@dataclass(frozen=True, slots=True)
class Files:
    """Lines about files, next to each other, of one boot."""

    boot_id: str
    last_ns: int  # boot time of the last line
    alive_ns: int  # the largest
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """What the lines of a block say, in their order."""

    lines: int  # that the numbers of the block have, of any kind
    oldest: int  # `n` of the oldest of these rows
    rows: int  # that were read: those of the kinds that a coverage needs
    numbers: int  # bit for bit: whose line is among the entries
    entries: tuple[Payload | Files, ...]

    def has(self, seq: int) -> bool:
        """Whether this number, of the block, is among the entries."""
        return bool(self.numbers >> seq % BLOCK & 1)


NOTHING = Block(0, 0, 0, 0, ())
"""A block without a line."""


def block_of(rows: Sequence[Any], *, lines: int, oldest: int) -> Block:
    """From rows with `seq`, `n`, `kind` and `body`; of several with one number the first that came and can be read
    counts.
    """
    read: list[Filed | Payload] = []
    numbers = 0
    for row in sorted(rows, key=lambda row: (int(row.seq), int(row.n))):
        told = _told(row.kind, bytes(row.body))
        if told is not None and not numbers >> told.seq % BLOCK & 1:
            numbers |= 1 << told.seq % BLOCK
            read.append(told)
    return Block(lines, oldest, len(rows), numbers, tuple(_entries(read)))


def _told(kind: str, body: bytes) -> Filed | Payload | None:
    told = filed(body) if kind == RecordKind.SEGMENT else None
    return told if told is not None and fits(told.body) else payload_of(body)


def _entries(read: Iterable[Filed | Payload]) -> Iterator[Payload | Files]:
    for boot_id, told in groupby(read, key=lambda one: one.boot_id if isinstance(one, Filed) else None):
        these = list(told)
        if boot_id is None:
            yield from (one for one in these if isinstance(one, Payload))
            continue
        segments: list[Segment] = [one.body for one in these if isinstance(one, Filed)]
        yield Files(boot_id, these[-1].boot_ns, max(one.boot_ns for one in these), tuple(runs_of(segments)))


Key = tuple[str, str, int]
"""Post, root of its ledger, number of the block."""


class Remembered:
    """All threads of a station. Bounded: what was not asked for longest goes."""

    def __init__(self, *, bytes_max: int = BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._bytes = 0
        self._blocks: OrderedDict[Key, tuple[Block, int]] = OrderedDict()
        self._begins: dict[Key, tuple[int, int]] = {}

    @property
    def bytes(self) -> int:
        """About as many as it takes."""
        return self._bytes

    def blocks(self, post: str, root: str, numbers: Iterable[int], *, oldest: int) -> dict[int, Block]:
        """Those that are known. `oldest`: `n` of the oldest row that the table has."""
        found: dict[int, Block] = {}
        with self._lock:
            for number in numbers:
                key = (post, root, number)
                known = self._blocks.get(key)
                if known is None:
                    continue
                if known[0].oldest < oldest:
                    self._forget(key)
                    continue
                self._blocks.move_to_end(key)
                found[number] = known[0]
        return found

    def note(self, post: str, root: str, number: int, block: Block) -> None:
        """Keeps a block."""
        key, size = (post, root, number), _size(block)
        with self._lock:
            self._forget(key)
            self._blocks[key] = (block, size)
            self._bytes += size
            while self._bytes > self._bytes_max:
                self._forget(next(iter(self._blocks)))

    def begins(self, post: str, root: str, number: int, *, oldest: int) -> int | None:
        """UTC of the block's first line, where it is there and somebody vouches for its time; None: not known."""
        with self._lock:
            known = self._begins.get((post, root, number))
            return None if known is None or known[0] < oldest else known[1]

    def note_begin(self, post: str, root: str, number: int, *, n: int, utc_ns: int) -> None:
        """Keeps the time of the line that has the block's first number. `n`: of its row."""
        with self._lock:
            self._begins[post, root, number] = (n, utc_ns)
            while len(self._begins) > BEGINS_MAX:
                del self._begins[next(iter(self._begins))]

    def _forget(self, key: Key) -> None:
        known = self._blocks.pop(key, None)
        self._bytes -= 0 if known is None else known[1]


def _size(block: Block) -> int:
    """About as many bytes as it takes."""
    size = 2 * _ENTRY_BYTES
    for one in block.entries:
        if isinstance(one, Payload):
            size += _ENTRY_BYTES + 4 * len(msgspec.json.encode(one))
        else:
            size += _ENTRY_BYTES + sum(_RUN_BYTES + _FILE_BYTES * len(run) for run in one.runs)
    return size
