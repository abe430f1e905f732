"""An archive in a folder: <node>/<sha256>.mp4. Written beside its name, synced, then renamed: see agent/disk.py."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.station.archive import CHUNK_BYTES, checked


class LocalArchive:
    """`agent.station.archive.Archive` on a disk of which `free_bytes_min` stay free."""

    def __init__(self, disk: Disk, *, free_bytes_min: int, writer: str = "") -> None:
        """`writer`: of two programs that put files at the same time, each has a name of its own."""
        self._disk = disk
        self._part = f".{writer}.part" if writer else ".part"
        self._free_bytes_min = free_bytes_min

    def put(self, name: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        if self.size(name) == size:
            return
        free = self._disk.free_bytes()
        if free - size < self._free_bytes_min:
            raise Transient(
                f"archive: {free >> 20} MiB are free, {self._free_bytes_min >> 20} stay free"
                f" (archive.free_gb_min), and {size >> 10} KiB are to be kept; make room there"
            )
        temporary = f"{name}{self._part}"
        self._disk.list(name.partition("/")[0])  # makes the folder
        self._disk.unlink(temporary)  # of an attempt that was cut
        self._copy(source, temporary, size, sha256)
        self._disk.rename(temporary, name)

    def _copy(self, source: BinaryIO, temporary: str, size: int, sha256: str) -> None:
        digest, left = hashlib.sha256(), size
        source.seek(0)
        file = self._disk.create(temporary)
        try:
            while left > 0 and (data := source.read(min(CHUNK_BYTES, left))):
                file.write(data)
                digest.update(data)
                left -= len(data)
            if not left and digest.hexdigest() == sha256:
                file.sync()
                return
        finally:
            file.close()
        self._disk.unlink(temporary)
        raise Corrupt(f"archive: {temporary}: not the {size} bytes with SHA-256 {sha256[:16]}... that were to be kept")

    def size(self, name: str) -> int | None:
        try:
            return self._disk.size(checked(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Transient(f"archive: {self._disk.path(name)}: {error.strerror}; check the disk") from None

    def read(self, name: str, offset: int, count: int) -> bytes:
        with self._disk.open(checked(name)) as file:
            try:
                file.seek(offset)
                return file.read(count)
            except OSError as error:
                raise Transient(f"archive: {self._disk.path(name)}: {error.strerror}; check the disk") from None

    def remove(self, name: str) -> None:
        self._disk.unlink(checked(name))
