"""One station at a time: a file lock in its data folder, and where the database is PostgreSQL, a lock there.

The lock in PostgreSQL belongs to the session that writes. With the session goes the lock, and with the lock the ability
to write: two stations never both believe that they are the one.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sqlalchemy import Connection, text

from agent.errors import ConfigError, Transient
from agent.station.db.engine import transaction

WRITER = 0x77617264_00000002
"""The advisory lock of the station that takes in, signs receipts and drives rollouts."""


class FolderLock:
    """Held from `take` to `release`. The kernel releases what dies."""

    def __init__(self, folder: Path, *, file: str = "station.lock", other: str = "station") -> None:
        """`other`: what the one is called that has it."""
        self._folder = folder
        self._file = file
        self._other = other
        self._fd = -1

    def take(self) -> None:
        """Raises ConfigError when the folder cannot be written to, or another station has it."""
        try:
            fd = os.open(self._folder / self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"station.data: cannot write to {self._folder}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise ConfigError(f"station.data: {self._folder} is in use by another {self._other}") from None
        self._fd = fd

    def release(self) -> None:
        """Never raises."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def become_writer(db: Connection, name: str) -> None:
    """Makes this session of PostgreSQL the writing one, for as long as it lives. Raises Transient when there is one."""
    if db.dialect.name != "postgresql":
        return  # the folder's lock covers the file in it
    with transaction(db, writes=False):
        taken = db.execute(text("select pg_try_advisory_lock(:key)"), {"key": WRITER}).scalar_one()
    if not taken:
        raise Transient(f"{name}: another station writes to it; this one takes over when that one ends")
