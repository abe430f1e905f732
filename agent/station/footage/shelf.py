"""What lies in the archive of a post, where its fragments are, and its bytes. By numbers of rows: no path comes in.

A file in the archive never changes, so what a scan found in it is remembered. Files that are not what their node
recorded are never played; they stay in the archive as evidence (agent/station/uploads_clerk.py).
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Engine, Select, bindparam, or_, select

from agent.errors import Transient
from agent.recording.fragments import Fragment, Header, scan
from agent.station.archive import ReadableArchive, name_of
from agent.station.db.cases import case_tombstone
from agent.station.db.engine import reading
from agent.station.db.together import Among, Question, Rows
from agent.station.db.uploads import footage
from agent.station.uploads_judge import State
from agent.types import EndReason, Segment, TimeAnchor

FILES_MAX = 2000  # of one range: a day of files of 43 s
HERE_MAX = 5000
"""Files of a post in the archive: with more, each file of a range is asked for, else those that are here."""
SET_ASIDE_MAX = 50
"""Files that are not what their post recorded, told one by one, of one post: the newest."""
INDEXED_MAX = 2000
READ_BYTES = 1 << 20
COLUMNS = 12  # of a row of `Stored`
_THERE = ~(
    select(case_tombstone.c.sha256)
    .where(case_tombstone.c.node == footage.c.node, case_tombstone.c.sha256 == footage.c.sha256)
    .exists()
)
"""Not disposed of (agent/station/cases)."""


class Lost(Exception):  # noqa: N818  (a state, told on the page)
    """A file is on record, and not in the archive, or nothing of it is what came."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A row of `footage` that may be played."""

    n: int  # names it in addresses
    node: str
    name: str  # on the node
    sha256: str
    bytes: int
    state: State  # verified, or pending: its line is not here yet
    seq: int  # of its line

    boot_id: str  # by its own header, as the times are; empty: it has none
    start_ns: int
    end_ns: int
    from_utc_ns: int | None  # what the node took the time for when it began the file
    received_utc_ns: int  # when it came, by the station's clock

    @property
    def archived(self) -> str:
        """Its name in the archive."""
        return name_of(self.node, self.sha256)

    def segment(self) -> Segment | None:
        """As its row on the node, for coverage, as far as it is known here."""
        if not self.boot_id or self.end_ns <= self.start_ns:
            return None
        return Segment(
            name=self.name,
            session=0,
            boot_id=self.boot_id,
            start_ns=self.start_ns,
            end_ns=self.end_ns,
            bytes=self.bytes,
            fragments=0,
            sha256=self.sha256,
            end_reason=EndReason.ROLLED,
            width=0,
            height=0,
        )

    def anchor(self) -> TimeAnchor | None:
        """Nobody vouches for it: where lines tell of the boot, they count."""
        if self.from_utc_ns is None:
            return None
        return TimeAnchor(self.boot_id, self.start_ns, self.from_utc_ns, None, "file")


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file that is not what its post recorded: it is kept, and never played."""

    name: str  # on the node
    sha256: str
    detail: str  # what is wrong with it
    from_utc_ns: int | None  # by its own header; None: it tells of no time
    to_utc_ns: int | None
    received_utc_ns: int


def _shown(which: ColumnElement[bool]) -> Select[Any]:
    """Rows of `Stored` that may be played."""
    c = footage.c
    columns = (
        c.n, c.node, c.name, c.sha256, c.bytes, c.state, c.seq, c.boot_id, c.start_ns, c.end_ns, c.from_utc_ns,
        c.received_utc_ns,
    )  # fmt: skip
    where = (which, c.state != State.MISMATCH.value, _THERE)
    return select(*columns).where(*where).order_by(c.from_utc_ns, c.n).limit(FILES_MAX)


_BY_NUMBER = _shown((footage.c.n == bindparam("n")) & (footage.c.node == bindparam("node")))
_CONTENTS = Question(
    lambda of: select(footage.c.sha256).where(footage.c.node == of["node"]).limit(HERE_MAX + 1),
    {"node": footage.c.node.type},
)
_NAMED = Among(_shown(footage.c.node == bindparam("node")), footage.c.sha256)
_AROUND = Question(
    lambda of: _shown(
        (footage.c.node == of["node"]) & (footage.c.to_utc_ns > of["start"]) & (footage.c.from_utc_ns < of["end"])
    ),
    {"node": footage.c.node.type, "start": footage.c.to_utc_ns.type, "end": footage.c.from_utc_ns.type},
)


_SET_ASIDE = Question(
    lambda of: (
        select(
            footage.c.name,
            footage.c.sha256,
            footage.c.detail,
            footage.c.from_utc_ns,
            footage.c.to_utc_ns,
            footage.c.received_utc_ns,
        )
        .where(
            footage.c.state == State.MISMATCH.value,
            footage.c.node == of["node"],
            or_(
                footage.c.from_utc_ns.is_(None),
                (footage.c.to_utc_ns > of["start"]) & (footage.c.from_utc_ns < of["end"]),
            ),
            _THERE,
        )
        .order_by(footage.c.n.desc())
        .limit(SET_ASIDE_MAX)
    ),
    {"node": footage.c.node.type, "start": footage.c.to_utc_ns.type, "end": footage.c.from_utc_ns.type},
)


def _stored(rows: Iterable[Any]) -> dict[str, Stored]:
    """By content: what came twice is there once."""
    found: dict[str, Stored] = {}
    for row in rows:
        n, node, name, sha256, size, state, *more = row[-COLUMNS:]  # that of a Question has its number in front
        found.setdefault(sha256, Stored(n, node, name, sha256, size, State(state), *more))
    return found


def _wanted(digests: Iterable[str], rows: Rows) -> list[str]:
    """Those of a post's digests that it is worth to ask for. `rows`: what there is of it."""
    if not rows:
        return []
    here = {row.sha256 for row in rows}
    return list(islice((one for one in digests if len(rows) > HERE_MAX or one in here), FILES_MAX))


@dataclass(frozen=True, slots=True)
class Indexed:
    """What a scan found. `header` None: nothing of it can be used."""

    header: Header | None
    init_bytes: int
    fragments: tuple[Fragment, ...]


class Shelf:
    """Any thread. Raises Transient while database or archive cannot be had."""

    def __init__(self, *, engine: Engine, archive: ReadableArchive) -> None:
        self._engine = engine
        self._archive = archive
        self._lock = threading.Lock()
        self._indexed: OrderedDict[str, Indexed] = OrderedDict()

    def find(self, node: str, n: int) -> Stored | None:
        """One file of this post by its number; None where there is none that may be played."""
        with reading(self._engine, "look for footage") as db:
            found = _stored(db.execute(_BY_NUMBER, {"node": node, "n": n}).all())
        return next(iter(found.values()), None)

    def by_digest(self, node: str, sha256: Sequence[str]) -> dict[str, Stored]:
        """Files of a post by their content, FILES_MAX at most."""
        with reading(self._engine, "look for footage") as db:
            return _stored(_NAMED.ask(db, sha256[:FILES_MAX], node=node))

    def find_all(
        self, named: Mapping[str, Iterable[str]], start_utc_ns: int, end_utc_ns: int
    ) -> dict[str, dict[str, Stored]]:
        """Files of several posts, by content: those with a digest that is named, of each post FILES_MAX at most, and
        those that touch the range by the clock that their node had when it recorded them.
        """
        within = {"start": start_utc_ns, "end": end_utc_ns}
        with reading(self._engine, "look for footage") as db:
            contents = _CONTENTS.ask(db, [{"node": node} for node in named])
            found = {
                node: _stored(_NAMED.ask(db, _wanted(digests, rows), node=node))
                for (node, digests), rows in zip(named.items(), contents, strict=True)
            }
            around = _AROUND.ask(db, [{"node": node, **within} for node in named])
        return {node: _stored(rows) | found[node] for node, rows in zip(named, around, strict=True)}

    def set_aside(self, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int) -> dict[str, list[SetAside]]:
        """Files of these posts that are not what was recorded: those that touch the range by their own word, and those
        that tell of no time.
        """
        within = {"start": start_utc_ns, "end": end_utc_ns}
        with reading(self._engine, "look for footage") as db:
            found = _SET_ASIDE.ask(db, [{"node": node, **within} for node in nodes])
        return {node: [SetAside(*row[-6:]) for row in rows] for node, rows in zip(nodes, found, strict=True)}

    def index(self, stored: Stored) -> Indexed:
        """Its fragments. The first time it blocks for reading through the file, without its media data. Raises Lost."""
        with self._lock:
            known = self._indexed.get(stored.archived)
            if known is not None:
                self._indexed.move_to_end(stored.archived)
                return known
        if self._archive.size(stored.archived) is None:
            raise Lost(f"archive: {stored.archived} is on record, and not there; is the disk mounted?")
        with io.BufferedReader(_Archived(self._archive, stored), READ_BYTES) as file:
            found = scan(file, contents=False)
        if found.header is None and stored.boot_id:  # it had one when it came
            raise Lost(f"archive: {stored.archived} is not what came; check the disk")
        indexed = Indexed(found.header, len(found.init), found.fragments)
        with self._lock:
            self._indexed[stored.archived] = indexed
            while len(self._indexed) > INDEXED_MAX:
                self._indexed.popitem(last=False)
        return indexed

    def bytes(self, stored: Stored, first: int, count: int) -> Iterator[bytes]:
        """Bytes of a file, in pieces. Raises Transient when it is not there."""
        while count > 0:
            try:
                data = self._archive.read(stored.archived, first, min(count, READ_BYTES))
            except FileNotFoundError:
                data = b""
            if not data:
                with self._lock:
                    self._indexed.pop(stored.archived, None)  # whoever looks next is told
                raise Transient(f"archive: {stored.archived} ends at byte {first}, it should have {stored.bytes}")
            yield data
            first, count = first + len(data), count - len(data)

    def open(self, stored: Stored) -> io.BufferedReader:
        """The file, for reading. Raises FileNotFoundError from `read` where it is not there."""
        return io.BufferedReader(_Archived(self._archive, stored), READ_BYTES)


class _Archived(io.RawIOBase):
    """A file of the archive as a file of Python's."""

    def __init__(self, archive: ReadableArchive, stored: Stored) -> None:
        super().__init__()
        self._archive, self._stored, self._at = archive, stored, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(offset + (0, self._at, self._stored.bytes)[whence], 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._stored.bytes - self._at)
        data = self._archive.read(self._stored.archived, self._at, count) if count > 0 else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
