"""A part of a file as a file of its own: a member of an archive, for a reader that wants a file."""

from __future__ import annotations

import io
from typing import Any, BinaryIO


class _Part(io.RawIOBase):
    """Reading and seeking only. It moves the position of the whole file, and never relies on it."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max((0, self._at, self._size)[whence] + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(min(len(buffer), self._size - self._at), 0))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def part_of(file: BinaryIO, start: int, size: int) -> BinaryIO:
    """`size` bytes of `file` from byte `start` on. Ends where the whole file ends, if that is earlier.

    Closing it leaves the whole file open. One thread with every other reader of that file.
    """
    return io.BufferedReader(_Part(file, start, size))
