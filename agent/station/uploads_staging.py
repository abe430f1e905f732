"""Uploads on their way: a file that proves itself frame by frame, so that its offset needs no second file.

    uploads/<node>.<sha256>.json   what was announced; durable before the upload has an address
    uploads/<node>.<sha256>.part   frames: length u32 big-endian, SHA-256 of the data (32), data

A chunk is one frame, one write and one sync, and acknowledged after that. After a power cut the file is believed as far
as its frames are whole and right, and cut back there: never less than was acknowledged, never a byte that did not come.
"""

from __future__ import annotations

import hashlib
import io
import struct
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, BinaryIO

import msgspec
from msgspec import Meta, Struct

from agent import state_file, tus
from agent.clock import Clock
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.types import NS

FOLDER = "uploads"
INFO_BYTES_MAX = 4096
_FRAME = struct.Struct(">I32s")


class Why(StrEnum):
    """Why something is refused."""

    UNKNOWN = "unknown"  # no such upload, or given up
    CONFLICT = "conflict"  # another offset than that
    BUSY = "busy"  # somebody else writes to it
    TOO_LARGE = "too-large"
    TOO_MANY = "too-many"
    TOO_MUCH = "too-much"  # within a day
    NOT_ASKED = "not-asked"  # neither a command nor an alert calls for it
    NOT_YET = "not-yet"  # what it is to be held against is not here
    NO_ROOM = "no-room"


class NotTaken(Corrupt):
    """A request that is refused."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Limits:
    """What all nodes together, and each one, may fill."""

    file_bytes_max: int
    open_per_node_max: int
    room_bytes_max: int
    free_bytes_min: int
    expire_s: float


class Info(Struct, frozen=True, kw_only=True):
    """What was announced."""

    node: str
    size: Annotated[int, Meta(ge=1)]
    footage: tus.Footage
    utc_ns: int  # when, by the station's clock

    @property
    def id(self) -> str:
        return tus.upload_id(self.node, self.footage.sha256)


@dataclass(slots=True)
class _Entry:
    info: Info
    touched_ns: int  # boot time: of this life of the station
    offset: int | None = None  # None: the file has to be looked through first
    end: int = 0  # of the good frames in the file
    busy: bool = False
    suspect: bool = False  # a write or sync has failed: what is in the file behind `end` may be on no disk


@dataclass(slots=True)
class Frames:
    """Where the data of each frame begins: in the upload, and in the file."""

    at: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    size: int = 0
    end: int = 0


class Staging:
    """Any thread. Blocks for one write and one sync; two requests for one upload never do so at once."""

    def __init__(self, disk: Disk, *, clock: Clock, limits: Limits) -> None:
        self._disk = disk
        self._clock = clock
        self._limits = limits
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def open(self) -> None:
        """Remembers what an earlier life had; removes what a cut has left over. Raises Transient."""
        names = set(self._disk.list(FOLDER))
        entries = {}
        for name in sorted(names):
            if name.endswith(".json"):
                info = self._info(name)
                if info is not None and name == _info_name(info.id):
                    entries[info.id] = _Entry(info, self._clock.boot_ns())
        for name in names - {n for one in entries for n in (_info_name(one), _part_name(one))}:
            self._disk.unlink(name)
        with self._lock:
            self._entries = entries

    def _info(self, name: str) -> Info | None:
        try:
            with self._disk.open(name) as file:
                return state_file.decode(file.read(INFO_BYTES_MAX + 1), Info, name=name, bytes_max=INFO_BYTES_MAX)
        except (FileNotFoundError, Corrupt):
            return None  # it has no address that anybody was told

    # -- for nodes ----------------------------------------------------------------------------------------------------

    def create(self, node: str, size: int, footage: tus.Footage) -> str:
        """The id of the upload of this file, new or known; durable. Raises NotTaken, Transient."""
        info = Info(node=node, size=size, footage=footage, utc_ns=self._clock.utc().utc_ns)
        with self._lock:
            known = self._entries.get(info.id)
            if known is not None:
                if known.info.size != size:
                    raise NotTaken(Why.CONFLICT, f"it was announced with {known.info.size} bytes")
                known.touched_ns = self._clock.boot_ns()
                return info.id
            self._admit(info)
            self._disk.replace(_info_name(info.id), msgspec.json.encode(info))
            self._entries[info.id] = _Entry(info, self._clock.boot_ns(), offset=0)
        return info.id

    def _admit(self, info: Info) -> None:
        """Raises NotTaken where a bound is reached."""
        limits = self._limits
        if info.size > limits.file_bytes_max:
            raise NotTaken(Why.TOO_LARGE, f"{info.size} bytes; {limits.file_bytes_max} at most")
        entries = self._entries.values()
        unfinished = sum(1 for one in entries if one.info.node == info.node and one.offset != one.info.size)
        if unfinished >= limits.open_per_node_max:
            raise NotTaken(Why.TOO_MANY, f"{unfinished} uploads of {info.node} are unfinished; finish those first")
        if sum(one.info.size for one in entries) + info.size > limits.room_bytes_max:
            raise NotTaken(Why.NO_ROOM, "the room for uploads is taken; later")
        if self._disk.free_bytes() - info.size < limits.free_bytes_min:
            raise NotTaken(Why.NO_ROOM, "the station's disk is full; later")

    def announced(self, node: str) -> list[Info]:
        """What a post has announced, whether it has come or not."""
        with self._lock:
            return [one.info for one in self._entries.values() if one.info.node == node]

    def offset(self, upload: str) -> tuple[int, int]:
        """How many bytes are durable here, and how many there are to be. Raises NotTaken, Transient."""
        with self._taken(upload) as entry:
            return self._look_through(entry), entry.info.size

    def append(self, upload: str, offset: int, data: bytes) -> int:
        """Adds a chunk; the new offset, durable. Raises NotTaken, Transient: then nothing of it counts."""
        with self._taken(upload) as entry:
            here = self._look_through(entry)
            if offset != here:
                raise NotTaken(Why.CONFLICT, f"the offset is {here}")
            if offset + len(data) > entry.info.size:
                raise NotTaken(Why.TOO_LARGE, f"{entry.info.size} bytes were announced")
            if not data:
                return offset
            name = _part_name(upload)
            entry.suspect = True  # until the sync is done nobody knows
            file = self._disk.append(name) if entry.end else self._fresh(name)
            try:
                file.write(_FRAME.pack(len(data), hashlib.sha256(data).digest()) + data)
                file.sync()
            finally:
                file.close()
            entry.offset, entry.end = offset + len(data), entry.end + _FRAME.size + len(data)
            entry.suspect = False
            return entry.offset

    def _fresh(self, name: str) -> Any:
        self._disk.unlink(name)
        return self._disk.create(name)

    @contextmanager
    def _taken(self, upload: str) -> Iterator[_Entry]:
        with self._lock:
            entry = self._entries.get(upload)
            if entry is None:
                raise NotTaken(Why.UNKNOWN, "there is no such upload here")
            if entry.busy:
                raise NotTaken(Why.BUSY, "another request for it is at work")
            entry.busy, entry.touched_ns = True, self._clock.boot_ns()
        try:
            yield entry
        finally:
            entry.busy = False

    def _look_through(self, entry: _Entry) -> int:
        """The offset, by the file itself where it is not known; what is behind the good frames is cut off."""
        if entry.offset is None:
            name = _part_name(entry.info.id)
            try:
                with self._disk.open(name) as file:
                    found = frames(file)
                if self._disk.size(name) > found.end:
                    self._disk.truncate(name, found.end)
            except FileNotFoundError:
                found = Frames()
            except OSError as error:
                raise Transient(f"{self._disk.path(name)}: cannot be read: {error.strerror}; check the disk") from None
            entry.offset, entry.end = found.size, found.end
        elif entry.suspect and entry.end:
            self._disk.truncate(_part_name(entry.info.id), entry.end)
        entry.suspect = False
        return entry.offset

    # -- for the clerk ------------------------------------------------------------------------------------------------

    def complete(self) -> list[Info]:
        """Uploads of which every byte is here, oldest first. Raises Transient."""
        found = []
        with self._lock:
            ids = list(self._entries)
        for upload in ids:
            with suppress(NotTaken):
                offset, size = self.offset(upload)
                if offset == size:
                    found.append(self._entries[upload].info)
        return sorted(found, key=lambda info: info.utc_ns)

    @contextmanager
    def content(self, info: Info) -> Iterator[BinaryIO]:
        """The file itself. Raises Transient, NotTaken."""
        with self._taken(info.id):
            try:
                with self._disk.open(_part_name(info.id)) as file:
                    yield io.BufferedReader(_Content(file, frames(file)))
            except OSError as error:
                raise Transient(f"{_part_name(info.id)}: cannot be read: {error.strerror}; check the disk") from None

    def remove(self, upload: str) -> None:
        """It is kept elsewhere, or given up. Raises Transient; NotTaken while somebody is at it."""
        with self._taken(upload), self._lock:
            self._disk.unlink(_info_name(upload))  # first: what is left then has no address, and goes at the next start
            self._disk.unlink(_part_name(upload))
            del self._entries[upload]

    def expire(self) -> list[Info]:
        """Gives up what was not touched for so long in this life, and is not whole. Raises Transient."""
        now_ns = self._clock.boot_ns()
        with self._lock:
            old = [
                one.info
                for one in self._entries.values()
                if not one.busy and one.offset != one.info.size and now_ns - one.touched_ns > self._limits.expire_s * NS
            ]
        for info in old:
            with suppress(NotTaken):
                self.remove(info.id)
        return old

    @property
    def expire_s(self) -> float:
        """How long an upload that nobody touches is kept."""
        return self._limits.expire_s


def frames(file: BinaryIO) -> Frames:
    """The good frames at the front of a file. Raises OSError."""
    found = Frames()
    file.seek(0)
    while len(front := file.read(_FRAME.size)) == _FRAME.size:
        length, digest = _FRAME.unpack(front)
        if not 0 < length <= tus.CHUNK_BYTES_MAX:
            break
        data = file.read(length)
        if len(data) < length or hashlib.sha256(data).digest() != digest:
            break
        found.at.append(found.size)
        found.place.append(found.end + _FRAME.size)
        found.size += length
        found.end += _FRAME.size + length
    return found


class _Content(io.RawIOBase):
    """What the frames hold, as one file."""

    def __init__(self, file: BinaryIO, index: Frames) -> None:
        super().__init__()
        self._file, self._index, self._at = file, index, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._index.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        index = self._index
        if self._at >= index.size:
            return 0
        n = bisect_right(index.at, self._at) - 1
        until = index.at[n + 1] if n + 1 < len(index.at) else index.size
        self._file.seek(index.place[n] + self._at - index.at[n])
        data = self._file.read(min(len(buffer), until - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _info_name(upload: str) -> str:
    return f"{FOLDER}/{upload}.json"


def _part_name(upload: str) -> str:
    return f"{FOLDER}/{upload}.part"
