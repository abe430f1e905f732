"""Durable files: the only writer of footage. What returns has reached the disk's promise, or it raised.

Procedures (as in Moonfire's schema.md, each one verified by tests/contract/test_disk.py and by the simulator):

    create   open O_EXCL, fsync directory            -> the name survives a power cut
    append   write, fdatasync                        -> the bytes survive a power cut
    go on    open an existing file at its end        -> as append; the name was durable already
    replace  write temporary, fsync, rename, fsync directory
    unlink   unlink, fsync directory                 -> the name stays gone

A file on which a sync has failed is never trusted again: Linux reports a write-back error once and then forgets it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from agent.errors import ConfigError, Transient


class DurableFile(Protocol):
    """A file that only grows. One thread at a time."""

    def write(self, data: bytes) -> int:
        """Appends all of `data`. Not durable before `sync`. Raises Transient; then the file must be abandoned."""

    def sync(self) -> None:
        """fdatasync: blocks until the bytes written so far are on the disk. Raises Transient; abandon the file."""

    def close(self) -> None:
        """Closes without syncing. Never raises."""


class Disk(Protocol):
    """A data folder. Names are relative to it, with `/`. Raises Transient when the world is in the way."""

    def create(self, name: str) -> DurableFile:
        """Makes a new file whose name survives a power cut. An existing one is an error."""

    def append(self, name: str) -> DurableFile:
        """Opens an existing file to go on writing at its end. Raises FileNotFoundError when it is not there."""

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading. Raises FileNotFoundError when it is not there."""

    def size(self, name: str) -> int:
        """Size in bytes."""

    def truncate(self, name: str, size: int) -> None:
        """Shortens a file, durably."""

    def replace(self, name: str, data: bytes, *, private: bool = False) -> None:
        """Writes a whole small file so that a power cut leaves the old content or the new one.

        `private`: only the agent's user may read it.
        """

    def rename(self, name: str, new: str) -> None:
        """Renames, durably; the new folder must exist (see `list`). A cut may leave both names, never none."""

    def unlink(self, name: str) -> None:
        """Removes a file, durably. One that is not there is fine: the procedure may be a repetition."""

    def list(self, folder: str) -> list[str]:
        """Names of the files in a folder, sorted, with the folder. The folder is made when it is missing."""

    def free_bytes(self) -> int:
        """Bytes that an ordinary user may still write."""

    def path(self, name: str) -> Path:
        """The real path, for SQLite and for messages."""


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _transient(error: OSError, what: str, path: Path) -> Transient:
    hint = {
        errno.ENOSPC: "the disk is full: lower recording.budget_gb or free some space",
        errno.EROFS: "the file system is read-only: the card may be failing; replace it",
        errno.EIO: "the disk answered with an I/O error: replace the card",
        errno.EACCES: "no permission: the folder must belong to the agent's user",
    }.get(error.errno or 0, "check the disk")
    return Transient(f"cannot {what} {path}: {error.strerror or error}; {hint}")


class PosixFile:
    """A DurableFile on a POSIX file system."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self._path = path

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _transient(error, "write", self._path) from error
        return len(data)

    def sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _transient(error, "sync", self._path) from error

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError:
                return  # nothing more can be done with it, and what mattered was synced


class PosixDisk:
    """A data folder on a POSIX file system."""

    def __init__(self, root: Path) -> None:
        """`root` must exist: making it here would hide a partition that is not mounted."""
        if not root.is_dir():
            raise ConfigError(f"node.data: {root} is not a folder; make it, or mount the data partition")
        self._root = root
        self._is = self._identity()

    def _identity(self) -> tuple[int, int]:
        stat = self._root.stat()
        return stat.st_dev, stat.st_ino

    def _same_folder(self) -> None:
        """Nothing is made on the card below when the data partition has gone from under the agent."""
        try:
            same = self._identity() == self._is
        except OSError as error:
            raise _transient(error, "look at", self._root) from error
        if not same:
            raise Transient(
                f"{self._root} is not the folder that it was when the agent started: the data partition has gone;"
                " mount it again, or restart the agent on the one that is there"
            )

    def path(self, name: str) -> Path:
        return self._root / name

    def create(self, name: str) -> PosixFile:
        path = self.path(name)
        self._same_folder()
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise _transient(error, "create", path) from error
        try:
            self._sync_folder(path.parent)
        except Transient:
            os.close(fd)
            raise
        return PosixFile(fd, path)

    def append(self, name: str) -> PosixFile:
        path = self.path(name)
        try:
            return PosixFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _transient(error, "open", path) from error

    def open(self, name: str) -> BinaryIO:
        path = self.path(name)
        try:
            return path.open("rb")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _transient(error, "open", path) from error

    def size(self, name: str) -> int:
        return self.path(name).stat().st_size

    def truncate(self, name: str, size: int) -> None:
        path = self.path(name)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, size)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _transient(error, "truncate", path) from error

    def replace(self, name: str, data: bytes, *, private: bool = False) -> None:
        path = self.path(name)
        temporary = path.with_name(path.name + ".tmp")
        mode = 0o600 if private else 0o640
        self._same_folder()
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            file = PosixFile(fd, temporary)
            try:
                if private:
                    os.fchmod(fd, mode)  # before the secret is in it: a cut may have left the temporary with any mode
                file.write(data)
                os.fsync(fd)
            finally:
                file.close()
            temporary.rename(path)
        except OSError as error:
            raise _transient(error, "replace", path) from error
        self._sync_folder(path.parent)

    def rename(self, name: str, new: str) -> None:
        path = self.path(name)
        try:
            path.rename(self.path(new))
        except OSError as error:
            raise _transient(error, "rename", path) from error
        self._sync_folder(self.path(new).parent)  # the new name first: a cut in between shows both, never none
        if self.path(new).parent != path.parent:
            self._sync_folder(path.parent)

    def unlink(self, name: str) -> None:
        path = self.path(name)
        self._same_folder()  # what is not there would count as removed
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise _transient(error, "remove", path) from error
        self._sync_folder(path.parent)

    def list(self, folder: str) -> list[str]:
        path = self.path(folder)
        self._same_folder()
        try:
            if not path.is_dir():
                path.mkdir()
                self._sync_folder(path.parent)
            return sorted(f"{folder}/{entry.name}" for entry in os.scandir(path) if entry.is_file())
        except OSError as error:
            raise _transient(error, "list", path) from error

    def free_bytes(self) -> int:
        try:
            stat = os.statvfs(self._root)
        except OSError as error:
            raise _transient(error, "look at", self._root) from error
        return stat.f_bavail * stat.f_frsize

    def _sync_folder(self, folder: Path) -> None:
        try:
            sync_folder(folder)
        except OSError as error:
            raise _transient(error, "sync folder", folder) from error
