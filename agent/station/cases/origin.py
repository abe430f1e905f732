"""What the station has of one post, in the shape in which the node's own export reads it (agent/evidence/package.py).

Files of footage come out of the archive, named as on the node; the ledger and the station's receipts out of the store,
as files of FILE_LINES lines. What the archive does not have is FileNotFoundError: the package lists it as missing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO, cast

from sqlalchemy import Engine, func, select

from agent.evidence import receipts
from agent.evidence.package import LEDGER_FOLDER
from agent.station.archive import ReadableArchive
from agent.station.db.engine import reading
from agent.station.db.tables import line, receipt
from agent.station.db.uploads import footage_line
from agent.station.footage.shelf import Shelf, Stored
from agent.station.footage.told import Told
from agent.store.store import SessionRow, Tombstone
from agent.types import Gap, Hold, Segment, Sign, TimeAnchor

FILE_LINES = 2000


class StationDisk:
    """The reading half of `agent.disk.Disk`. One thread. Raises Transient."""

    def __init__(
        self, *, engine: Engine, archive: ReadableArchive, shelf: Shelf, node: str, root: str, told: Told
    ) -> None:
        """`root`: of the ledger of this post that is read; `told`: what it says of the range."""
        self._engine = engine
        self._archive = archive
        self._shelf = shelf
        self._node = node
        self._mine = (line.c.node == node) & (line.c.root == root)
        self._receipts = (receipt.c.node == node) & (receipt.c.root == root)
        self._files = {segment.name: segment for segment in told.segments}

    def list(self, folder: str) -> list[str]:
        """The ledger's files. Footage is named by the index, not found by looking."""
        if folder != LEDGER_FOLDER:
            return []
        with reading(self._engine, "read a ledger") as db:
            first, last = db.execute(select(func.min(line.c.seq), func.max(line.c.seq)).where(self._mine)).one()
        if first is None:
            return []
        return [f"{LEDGER_FOLDER}/{seq:012d}.jsonl" for seq in range(first, last + 1, FILE_LINES)]

    def open(self, name: str) -> BinaryIO:
        """Raises FileNotFoundError for what the station has not."""
        if name == receipts.FILE:
            return self._lines(select(receipt.c.body).where(self._receipts).order_by(receipt.c.seq, receipt.c.n))
        if name.startswith(f"{LEDGER_FOLDER}/"):
            if not (text := name.removeprefix(f"{LEDGER_FOLDER}/").removesuffix(".jsonl")).isdigit():
                raise FileNotFoundError(name)
            which = self._mine & (line.c.seq >= int(text)) & (line.c.seq < int(text) + FILE_LINES)
            return self._lines(select(line.c.body).where(which).order_by(line.c.seq, line.c.n))
        return cast(BinaryIO, self._shelf.open(self._stored(name)))

    def size(self, name: str) -> int:
        """Of a file of footage. Raises FileNotFoundError."""
        return self._stored(name).bytes

    def _stored(self, name: str) -> Stored:
        segment = self._files.get(name)
        stored = None if segment is None else self._shelf.by_digest(self._node, [segment.sha256]).get(segment.sha256)
        if stored is None or self._archive.size(stored.archived) is None:
            raise FileNotFoundError(name)
        return stored

    def _lines(self, query: object) -> BinaryIO:
        with reading(self._engine, "read a ledger") as db:
            bodies = db.execute(query).scalars()  # type: ignore[call-overload]
            return io.BytesIO(b"".join(bytes(body) + b"\n" for body in bodies))


class StationCatalog:
    """`agent.recording.index.Catalog` of what a ledger tells."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def sessions(self) -> list[SessionRow]:
        return self._told.sessions

    def anchors(self) -> list[TimeAnchor]:
        return self._told.anchors

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        return [] if garbage else self._told.segments

    def gaps(self) -> list[Gap]:
        return self._told.gaps

    def tombstones(self) -> list[Tombstone]:
        return self._told.tombstones

    def signs(self) -> list[Sign]:
        return []

    def holds(self) -> list[Hold]:
        return []


def ledger_of(engine: Engine, node: str, sha256: Sequence[str]) -> str | None:
    """The ledger of a post that tells of these files, else its newest; None: the station has none."""
    with reading(engine, "look for a ledger") as db:
        found = db.execute(
            select(footage_line.c.root)
            .where(footage_line.c.node == node, footage_line.c.sha256.in_(list(sha256)[:500]))
            .group_by(footage_line.c.root)
            .order_by(func.count().desc())
            .limit(1)
        ).scalar()
        if found is None:
            found = db.execute(
                select(line.c.root).where(line.c.node == node).order_by(line.c.n.desc()).limit(1)
            ).scalar()
    return None if found is None else str(found)
