"""The folder of releases: every act on it is one call, and what makes it durable is a call of its own.

`agent.disk` cannot be used here: a release is folders, links and files that may be run, and it is renamed as a whole.

    a file      create: written and synced; its *name* is durable after `sync` of its folder
    a folder    mkdir, then `sync` of its parent
    a rename    durable after `sync` of the folder; a cut before it leaves the old name or the new one
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from agent.disk import sync_folder
from agent.errors import Transient


class Tree(Protocol):
    """Names are relative, with `/`; "" is the root. One thread at a time. Raises Transient when the disk refuses."""

    def names(self, folder: str) -> list[str]:
        """Names in a folder, without it, sorted; empty when it is not there."""

    def exists(self, name: str) -> bool:
        """Whether there is a file, a folder or a link, dangling or not."""

    def mkdir(self, name: str) -> None:
        """Makes one folder; its parent must be there. One that is there already is fine."""

    def create(self, name: str, chunks: Iterable[bytes], *, executable: bool = False) -> None:
        """Writes a new file and syncs its content. One that is there already is an error."""

    def link(self, name: str, target: str) -> None:
        """Makes a symbolic link. One that is there already is an error."""

    def target(self, name: str) -> str:
        """Where a link points; empty when it is none."""

    def rename(self, name: str, new: str) -> None:
        """Renames within one folder; a file or link of the new name gives way."""

    def sync(self, folder: str) -> None:
        """Syncs a folder: the names in it are durable."""

    def remove(self, name: str) -> None:
        """Removes a file, a link, or a folder with all that is in it. Nothing there is fine. Not durable."""

    def read(self, name: str, bytes_max: int) -> bytes:
        """The first bytes of a file. Raises FileNotFoundError."""

    def free_bytes(self) -> int:
        """What may still be written."""


class PosixTree:
    """A Tree in a real folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self.root / folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._refused("list", folder, error) from error

    def exists(self, name: str) -> bool:
        return os.path.lexists(self.root / name)

    def mkdir(self, name: str) -> None:
        try:
            (self.root / name).mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise self._refused("make", name, error) from error

    def create(self, name: str, chunks: Iterable[bytes], *, executable: bool = False) -> None:
        mode = 0o755 if executable else 0o644
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self.root / name, flags, mode)
            with os.fdopen(fd, "wb", buffering=0) as file:
                os.fchmod(fd, mode)  # a service's umask would keep everybody else from reading it
                for chunk in chunks:
                    view = memoryview(chunk)
                    while view:
                        view = view[file.write(view) :]
                os.fsync(fd)
        except OSError as error:
            raise self._refused("write", name, error) from error

    def link(self, name: str, target: str) -> None:
        try:
            (self.root / name).symlink_to(target)
        except OSError as error:
            raise self._refused("link", name, error) from error

    def target(self, name: str) -> str:
        try:
            return str((self.root / name).readlink())
        except OSError:
            return ""

    def rename(self, name: str, new: str) -> None:
        try:
            (self.root / name).rename(self.root / new)
        except OSError as error:
            raise self._refused("rename", name, error) from error

    def sync(self, folder: str) -> None:
        try:
            sync_folder(self.root / folder)
        except OSError as error:
            raise self._refused("sync", folder, error) from error

    def remove(self, name: str) -> None:
        path = self.root / name
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused("remove", name, error) from error

    def read(self, name: str, bytes_max: int) -> bytes:
        with (self.root / name).open("rb") as file:
            return file.read(bytes_max)

    def free_bytes(self) -> int:
        try:
            stat = os.statvfs(self.root)
        except OSError as error:
            raise self._refused("look at", "", error) from error
        return stat.f_bavail * stat.f_frsize

    def _refused(self, what: str, name: str, error: OSError) -> Transient:
        where = self.root / name
        return Transient(f"release: cannot {what} {where}: {error.strerror or error}; check the disk and its owner")
