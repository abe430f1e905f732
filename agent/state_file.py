"""Small files: read within a bound, and states that are kept as JSON read back strictly."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from agent.disk import Disk
from agent.errors import Corrupt, Transient

T = TypeVar("T", bound=msgspec.Struct)

SMALL_BYTES_MAX = 64 * 1024


def read_small(disk: Disk, name: str) -> bytes | None:
    """A key, a certificate, a note: its first SMALL_BYTES_MAX; None when it is not there. Raises Transient."""
    try:
        with disk.open(name) as file:
            return file.read(SMALL_BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Transient(f"{disk.path(name)}: cannot be read: {error.strerror}") from None


def decode(data: bytes, kind: type[T], *, name: str, bytes_max: int) -> T:
    """Raises Corrupt in one line that begins with `name`."""
    if len(data) > bytes_max:
        raise Corrupt(f"{name}: {len(data)} bytes; {bytes_max} at most")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{name}: {error}") from None
