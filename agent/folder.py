"""One agent per data folder: an advisory lock that names its holder and dies with it."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.clock import Clock
from agent.errors import ConfigError

LOCK_NAME = "agent.lock"
_POLL_S = 0.1


class InUse(ConfigError):  # noqa: N818
    """Another process works on this data folder."""


class DataLock:
    """flock(2) on `agent.lock`: the kernel lets go of it when its process dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_NAME
        self._fd = -1

    def take(self, clock: Clock, *, patience_s: float = 0.0) -> DataLock:
        """Takes the lock, waiting at most `patience_s`: a `wardpost footage` holds it while it reads the index.

        Raises InUse naming the holder's process, or ConfigError when the folder cannot be used at all.
        """
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _unusable(self._path.parent, error) from None
        never = threading.Event()
        tries = 1 + int(patience_s / _POLL_S)
        for left in range(tries - 1, -1, -1):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    os.close(fd)
                    raise _unusable(self._path.parent, error) from None
                if left:
                    clock.wait(never, _POLL_S)
                    continue
                holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(fd)
                raise InUse(
                    f"node.data: {self._path.parent} is in use by process {holder}; "
                    "stop that agent, or give this one a folder of its own"
                ) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the lock itself holds, only its holder's name is missing
        self._fd = fd
        return self

    def release(self) -> None:
        """Lets go; may be called twice."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _unusable(folder: Path, error: OSError) -> ConfigError:
    hint = {
        errno.ENOENT: "make the folder, or mount the data partition",
        errno.ENOTDIR: "it must be a folder",
        errno.EACCES: "the folder must belong to the agent's user; run as that user",
        errno.EROFS: "the file system is read-only: the card may be failing",
        errno.ENOSPC: "the disk is full: free some space",
    }.get(error.errno or 0, "check the disk")
    return ConfigError(f"node.data: {folder} cannot be used: {error.strerror}; {hint}")
