"""A node's data folder that somebody has brought: read only, and nothing in it is believed.

Only plain files directly in `segments` and `ledger`, whose names are a node's own, are opened: by the folder's
descriptor, never through a link, never waiting for a pipe, never past a bound. What is passed over is told.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from agent.errors import ConfigError, Transient

SEGMENTS, LEDGER = "segments", "ledger"
ENTRIES_MAX = 500_000
LEDGER_FILE_BYTES_MAX = 64 << 20
LEDGER_BYTES_MAX = 2 << 30
_SEGMENT = re.compile(r"[0-9]{6,12}-[0-9]{8,12}\.mp4")
_LINES = re.compile(r"[0-9]{1,20}\.jsonl")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that may be taken in. `size`: when the folder was listed."""

    name: str  # segments/...
    size: int


@dataclass(frozen=True, slots=True)
class Passed:
    """Something that is not taken in, or does not match, and why."""

    name: str
    why: str
    sha256: str = ""  # of what lay there; empty: it was not read


@dataclass(slots=True)
class Listed:
    """What lies in `segments`."""

    files: list[Entry] = field(default_factory=list)
    passed: list[Passed] = field(default_factory=list)


class Card:
    """One folder. One thread. Raises ConfigError where it is no node's, Transient when it cannot be read any more."""

    def __init__(self, root: Path) -> None:
        """Opens nothing."""
        self._root = root

    def check(self) -> None:
        """Raises ConfigError for what is not a node's data folder."""
        try:
            mode = self._root.stat().st_mode
        except OSError as error:
            raise ConfigError(f"dock: {self._root}: {error.strerror}") from None
        if stat.S_ISBLK(mode):
            raise ConfigError(
                f"dock: {self._root} is a device; mount its data partition read-only and name the folder:"
                f" mount -o ro,noload,nodev,nosuid,noexec {self._root} /mnt && wardpost dock /mnt ..."
            )
        if not stat.S_ISDIR(mode):
            raise ConfigError(f"dock: {self._root} is not a folder")
        with self._folder(SEGMENTS) as fd:
            if fd is None:
                raise ConfigError(
                    f"dock: {self._root} holds no {SEGMENTS}/: name the node's data folder, the one with {SEGMENTS}/"
                    f" and {LEDGER}/ in it"
                )

    def listed(self, *, file_bytes_max: int) -> Listed:
        """All of `segments`, oldest first."""
        found = Listed()
        with self._folder(SEGMENTS) as fd:
            if fd is None:
                raise Transient(f"dock: {self._root / SEGMENTS} has gone; is the card still there?")
            with self._plain(SEGMENTS), os.scandir(fd) as entries:
                for number, one in enumerate(entries):
                    if number >= ENTRIES_MAX:
                        found.passed.append(Passed(SEGMENTS, f"more than {ENTRIES_MAX} entries: the rest is left"))
                        break
                    self._sort_in(found, one, file_bytes_max)
        found.files.sort(key=lambda entry: entry.name)
        found.passed.sort(key=lambda passed: passed.name)
        return found

    @staticmethod
    def _sort_in(found: Listed, one: os.DirEntry[str], file_bytes_max: int) -> None:
        name = f"{SEGMENTS}/{one.name}"
        why = ""
        size = 0
        try:
            told = one.stat(follow_symlinks=False)
        except OSError as error:
            why = f"cannot be looked at: {error.strerror}"
        else:
            size = told.st_size
            if not stat.S_ISREG(told.st_mode):
                why = "not a plain file"
            elif not _SEGMENT.fullmatch(one.name):
                why = "not the name of footage"
            elif not size:
                why = "empty"
            elif size > file_bytes_max:
                why = f"{size} bytes; a file of footage has {file_bytes_max} at most"
        if why:
            found.passed.append(Passed(name, why))
        else:
            found.files.append(Entry(name, size))

    @contextmanager
    def open(self, entry: Entry) -> Iterator[BinaryIO | None]:
        """The file; None when it is no longer the plain file of that size that was listed."""
        with self._folder(SEGMENTS) as fd:
            file = None if fd is None else self._file(fd, entry.name.partition("/")[2], entry.size, exactly=True)
            try:
                yield file
            finally:
                if file is not None:
                    file.close()

    def ledger_lines(self) -> Iterator[bytes]:
        """Lines of the node's ledger, as they stand there. A card without a ledger has none."""
        left = LEDGER_BYTES_MAX
        with self._folder(LEDGER) as fd:
            if fd is None:
                return
            with self._plain(LEDGER), os.scandir(fd) as entries:
                names = sorted(one.name for _, one in zip(range(ENTRIES_MAX), entries, strict=False))
            for name in names:
                if not _LINES.fullmatch(name) or left <= 0:
                    continue
                file = self._file(fd, name, LEDGER_FILE_BYTES_MAX, exactly=False)
                if file is None:
                    continue
                with file, self._plain(name):
                    data = file.read(min(LEDGER_FILE_BYTES_MAX, left))
                left -= len(data)
                yield from filter(None, data.split(b"\n"))

    @contextmanager
    def _folder(self, name: str) -> Iterator[int | None]:
        """A descriptor of a folder in the root; None when there is none, or it is a link."""
        try:
            fd = os.open(self._root / name, _FLAGS | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                yield None
                return
            raise Transient(f"dock: {self._root / name}: {error.strerror}; is the card still there?") from None
        try:
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def _file(folder: int, name: str, size: int, *, exactly: bool) -> BinaryIO | None:
        """A plain file of that size, or of that at most. Does not move its time of access where that is allowed."""
        fd = -1
        with suppress(OSError):
            fd = os.open(name, _FLAGS | os.O_NOATIME, dir_fd=folder)
        try:
            if fd < 0:
                fd = os.open(name, _FLAGS, dir_fd=folder)
            told = os.fstat(fd)
        except OSError:
            return None
        if not stat.S_ISREG(told.st_mode) or (told.st_size != size if exactly else told.st_size > size):
            os.close(fd)
            return None
        return os.fdopen(fd, "rb")

    @contextmanager
    def _plain(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Transient(f"dock: {self._root / name}: {error.strerror}; is the card still there?") from None
