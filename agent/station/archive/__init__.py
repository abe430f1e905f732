"""Where headquarters keeps footage: what an archive promises. `local.py` is a folder, `s3.py` an object store.

Both pass tests/contract/test_archive.py. A file is named by what it holds, so it is kept once, whatever comes twice,
and nothing that a node says can become a path. Whether a file is what its node recorded is not the archive's business:
that stands in the row that names it (agent/station/uploads_clerk.py).
"""

from __future__ import annotations

import re
from typing import BinaryIO, Protocol

from agent.errors import Corrupt

CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9-]{1,32}/[0-9a-f]{64}\.mp4")


def name_of(node: str, sha256: str) -> str:
    """What footage of a node is called in an archive. Raises Corrupt for what is no id or no digest."""
    return checked(f"{node}/{sha256}.mp4")


def checked(name: str) -> str:
    """The name, when it is one of `name_of`. Raises Corrupt."""
    if not _NAME.fullmatch(name):
        raise Corrupt(f"archive: {name[:120]!r} is no name of a file in it")
    return name


class ReadableArchive(Protocol):
    """Files that are written once and never changed, to who only reads. Raises Transient while they cannot be had."""

    def size(self, name: str) -> int | None:
        """Its size in bytes; None when it is not there."""

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Bytes of a file, fewer at its end. Raises FileNotFoundError when it is not there."""


class Archive(ReadableArchive, Protocol):
    """The same, to who keeps them. One thread."""

    def put(self, name: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        """Keeps the `size` bytes that `source` gives from its beginning; durable, and there as a whole, or not at all.

        The same again changes nothing. Blocks for the writing. Raises Corrupt when the bytes are not those.
        """

    def remove(self, name: str) -> None:
        """Takes a file away, durably; none there is no error. Only what was disposed of (station/cases)."""
