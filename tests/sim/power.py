"""Where the power can go: numbered crash points, and what SQLite's files may look like after each.

Every step that touches a disk calls `CrashPoints` (the store before and after each commit, the fake disk before and
after each operation). A listener may raise `PowerCut` or `Killed` there. From then on the machine is dead: whatever
the unwinding Python still tries on the disk raises the same again, as no `finally` runs on a machine without power.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

SECTOR_BYTES = 512


class Death(BaseException):
    """The process is gone at this step. A BaseException: no `except Exception` of the product may survive it."""


class PowerCut(Death):
    """The machine has no power: what was not synced may be lost."""


class Killed(Death):
    """kill -9: the process is gone, the kernel keeps what was written."""


Listener = Callable[[int, str], None]


class CrashPoints:
    """Counts the steps of one machine and lets a listener end it at any of them."""

    def __init__(self) -> None:
        self.count = 0
        self.last = ""
        self.listener: Listener | None = None
        self.dead: Death | None = None

    def __call__(self, step: str) -> None:
        """The product is before or after the step named so. Raises Death when the listener says so."""
        if self.dead is not None:
            raise type(self.dead)(str(self.dead))
        self.count += 1
        self.last = step
        if self.listener is not None:
            try:
                self.listener(self.count, step)
            except Death as death:
                self.dead = death
                raise

    def revive(self) -> None:
        """The next life begins. The count goes on."""
        self.dead = None


def kind_of(step: str) -> str:
    """`12 after write segments/000001-00000000.mp4` as the kind that a table shows: `after write segments`."""
    return " ".join(filter(None, map(_without_numbers, step.split())))


def _without_numbers(word: str) -> str:
    """A file that has a number stands for all files of its folder."""
    folder, _, name = word.rpartition("/")
    return folder if any(char.isdigit() for char in name) else word


WAY_LENGTHS = 4
"""Of the lengths that an unsynced tail may have, and of its blocks, so many are tried when all ways are counted out."""
WAYS_MAX = 64
Way = tuple[int, ...]
"""What a disk chose at each of its choices during a power cut."""


class Odometer:
    """Counts through all answers to a run of questions `choose(n)`, whose number may depend on the answers before."""

    def __init__(self) -> None:
        self.chosen: list[int] = []
        self.exact = True  # no question had more than WAY_LENGTHS answers
        self.finished = False
        self.turns = 0
        self._wheels: list[tuple[int, int]] = []  # (position, positions) of each question of the turn before
        self._at = 0

    def turn(self) -> bool:
        """Goes on to the next run of answers; False when there is none."""
        if self.turns:
            while self._wheels and self._wheels[-1][0] + 1 == self._wheels[-1][1]:
                self._wheels.pop()
            if not self._wheels:
                self.finished = True
                return False
            position, positions = self._wheels.pop()
            self._wheels.append((position + 1, positions))
        self.turns += 1
        self._at, self.chosen = 0, []
        return True

    def choose(self, count: int) -> int:
        """0 to `count` - 1; when these are many, the first, the last and some between stand for all."""
        positions = min(count, WAY_LENGTHS)
        self.exact &= positions == count
        if self._at == len(self._wheels):
            self._wheels.append((0, positions))
        position = self._wheels[self._at][0]
        self._at += 1
        self.chosen.append(position * (count - 1) // max(positions - 1, 1))
        return self.chosen[-1]


class DatabaseImage:
    """SQLite's files at one moment, and what a power cut may make of them.

    With synchronous=FULL the write-ahead log is synced before a commit returns, and before a checkpoint touches the
    database. So a cut before the commit loses it, one after it keeps it, and one *during* it leaves any mixture of the
    log's sectors before and after: the log's checksums have to find out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.database = _read(path)
        self.log = _read(_log(path))

    def torn_by(self, after: DatabaseImage, rng: random.Random) -> bytes | None:
        """The log of a cut during the commit between `self` and `after`; None when there is no such cut.

        A commit that also ran a checkpoint had synced the log before: the mixture would not be legal then.
        """
        if after.database != self.database or after.log == self.log:
            return None
        old, new = self.log, after.log
        torn = bytearray(new)
        keep_to = len(new)
        if len(new) > len(old):  # the file's size is metadata of its own: any length in between
            keep_to = rng.choice([len(old), len(new), rng.randrange(len(old), len(new) + 1)])
        for at in range(0, len(new), SECTOR_BYTES):
            if new[at : at + SECTOR_BYTES] != old[at : at + SECTOR_BYTES] and rng.random() < 0.5:
                before = old[at : at + SECTOR_BYTES]
                torn[at : at + SECTOR_BYTES] = before.ljust(len(new[at : at + SECTOR_BYTES]), b"\0")
        return bytes(torn[:keep_to])

    def restore(self, path: Path, log: bytes | None = None) -> None:
        """Writes the files to `path`, with another log if one is given."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        if self.database is not None:
            path.write_bytes(self.database)
        log = self.log if log is None else log
        if log:
            _log(path).write_bytes(log)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def copy_folder(source: Path, target: Path) -> None:
    """The data folder of a machine, as the kernel has it, for another universe in which the cut happens."""
    shutil.copytree(source, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
