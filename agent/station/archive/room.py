"""An archive with a bound of its own, that puts on record when it takes nothing: an archive in front of another one.

Whoever puts files waits then and comes again (agent/station/uploads_clerk.py), uploads fill their room, and the posts
keep what they have: nothing is dropped for want of room here.
"""

from __future__ import annotations

import logging
from typing import BinaryIO

from sqlalchemy import Engine

from agent.clock import Clock
from agent.errors import Transient
from agent.station import archive_retention_rows as rows
from agent.station.archive import Archive
from agent.station.archive_retention import GB
from agent.station.db.engine import reading
from agent.types import NS

RECKON_S = 30.0

log = logging.getLogger(__name__)


class RoomArchive:
    """`agent.station.archive.Archive`."""

    def __init__(self, inner: Archive, *, engine: Engine, clock: Clock, bytes_max: int) -> None:
        """`bytes_max` 0: as much as `inner` takes."""
        self._inner = inner
        self._engine = engine
        self._clock = clock
        self._bytes_max = bytes_max
        self._used = 0
        self._reckon_ns = -1
        self._waits: bool | None = None  # None: nobody knows yet in this life

    def put(self, name: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        try:
            self._room(name, size)
            self._inner.put(name, source, size=size, sha256=sha256)
        except Transient as error:
            rows.waits(self._engine, str(error), self._clock.utc().utc_ns)
            self._waits = True
            raise
        self._used += size
        if self._waits is not False:
            rows.takes(self._engine)
            self._waits = False

    def _room(self, name: str, size: int) -> None:
        """Raises Transient where the file would go beyond the bound."""
        if not self._bytes_max:
            return
        now = self._clock.boot_ns()
        if now >= self._reckon_ns or self._waits:
            with reading(self._engine, "reckon the archive") as db:
                self._used = rows.used_bytes(db)
            self._reckon_ns = now + round(RECKON_S * NS)
        if self._used + size > self._bytes_max and self._inner.size(name) is None:
            raise Transient(
                f"archive: {self._used / GB:.1f} GB are kept, {self._bytes_max / GB:g} at most (archive.gb_max), and"
                " nothing more may go: cases, holds and inspections need it; dispose of cases, or raise the bound"
            )

    def size(self, name: str) -> int | None:
        return self._inner.size(name)

    def read(self, name: str, offset: int, count: int) -> bytes:
        return self._inner.read(name, offset, count)

    def remove(self, name: str) -> None:
        self._inner.remove(name)
