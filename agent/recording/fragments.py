"""The format of a footage file: fragmented MP4 in which every fragment proves itself.

    ftyp moov                    written by FFmpeg (ISO/IEC 14496-12, empty moov)
    uuid header                  JSON (`Header`): whose footage, session, boot, when: enough to rebuild the index
    moof mdat uuid trailer       one fragment: a GOP, or `fragment_s` of a longer one
    moof mdat uuid trailer ...

Trailer, big-endian, `TRAILER_BYTES` long: box header and uuid (24), version u16, flags u16 (bit 0: begins with a key
frame), n u32, length u64 of moof+mdat, start_ns i64, end_ns i64, SHA-256 of moof+mdat (32), chain_n (32).
chain_0 = SHA256(ftyp moov header); chain_n = SHA256(chain_{n-1} || trailer_n up to its chain), n from 1. So a changed
bit anywhere, a lost, doubled or swapped fragment breaks the chain. Players skip uuid boxes.

A fragment counts only when its trailer is whole and right: that is what makes a torn tail harmless.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as Ratio
from typing import BinaryIO

import av
import msgspec
from av.stream import Stream

from agent.errors import Corrupt, Transient
from agent.types import NS, Packet

FORMAT = 1
INIT_BYTES_MAX = 1 << 16
HEADER_BYTES_MAX = 4096
MOOF_BYTES_MAX = 1 << 20
FRAGMENT_BYTES_MAX = 64 << 20  # what a scanner accepts; a writer cuts at CUT_BYTES plus one access unit
CUT_BYTES = 4 << 20
CUT_SHARE = 1.05  # of `fragment_s`: a GOP of that length stays whole
FRAGMENTS_MAX = 20_000  # in one file: two hours of half-second fragments

_HEADER_UUID = bytes.fromhex("b1f0c5a27d0e4b3f9a36776172647631")
_TRAILER_UUID = bytes.fromhex("b1f0c5a27d0e4b3f9a36776172647632")
_BOX = struct.Struct(">I4s")
_TRAILER = struct.Struct(">I4s16sHHIQqq32s")
TRAILER_BYTES = _TRAILER.size + 32
_KEYFRAME_FIRST = 1
_CHUNK_BYTES = 1 << 18
_TIME_BASE = Ratio(1, 1_000_000)


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a file says about itself. Times are CLOCK_BOOTTIME ns of `boot_id`, unless they say utc."""

    v: int
    source: str  # wardpost/<site>/<node>
    session: int
    boot_id: str
    start_ns: int  # presentation time of the first picture
    base_ns: int  # the moment that is time 0 of the file's media clock
    utc_ns: int  # the wall clock at start_ns, as the node knew it when it began the file
    unc_ns: int | None
    utc_source: str
    width: int
    height: int
    sealed: str = ""  # the file's key, sealed to the station (agent/evidence/seal.py); empty: fragments are in clear
    seal_commit: str = ""  # commitment to that key, so that an opening can be proved


@dataclass(frozen=True, slots=True)
class Fragment:
    """One moof+mdat and its place in the file. The trailer follows at `offset + length`."""

    n: int  # counts from 1
    offset: int
    length: int
    start_ns: int
    end_ns: int  # where the next picture begins, as far as is known
    keyframe: bool  # begins with a key frame: decoding may start here
    sha256: bytes

    @property
    def end(self) -> int:
        """Offset behind the trailer."""
        return self.offset + self.length + TRAILER_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to append to the file in one go: the head (no fragment), or a fragment with its trailer."""

    data: bytes
    fragment: Fragment | None


def parameter_sets(data: bytes) -> bytes:
    """SPS and PPS at the front of an Annex B access unit (ITU-T H.264, annex B), each behind a 3-byte start code."""
    found = b""
    at = data.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(data):
        begin = at + 3
        kind = data[begin] & 31
        if kind in (1, 5):  # a slice: everything before it has been seen
            break
        at = data.find(b"\0\0\1", begin)
        if kind in (7, 8):
            nal = data[begin : at if at >= 0 else len(data)].rstrip(b"\0")
            found += b"\0\0\1" + nal
    return found


class _Sink:
    """The file object that FFmpeg writes to. It only collects: an exception must not travel through C."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


class FragmentMuxer:
    """Turns access units into the pieces of one file. One thread; no disk.

    A piece comes out with the packet that follows it. Fragments are cut at key frames, and in between once they are
    5 % longer than `fragment_s` (so that a GOP of `fragment_s` stays whole) or larger than CUT_BYTES.
    """

    def __init__(
        self,
        first: Packet,
        parameters: bytes,
        *,
        header: Header,
        fragment_s: float,
        seal: Callable[[int, bytes], bytes] | None = None,
    ) -> None:
        """`parameters`: SPS and PPS, put before `first` when it carries none.

        `seal` turns the moof+mdat of a fragment, given with its number, into what is written instead: a moof and a
        mdat box as well. Hash and chain stand over that.
        """
        self._header = header
        self._seal = seal
        self._parameters = b"" if parameter_sets(first.data) else parameters
        self._sink = _Sink()
        self._container = av.open(
            self._sink,
            "w",
            format="mp4",
            options={
                "movflags": "frag_keyframe+empty_moov+default_base_moof+skip_trailer",
                "frag_duration": str(round(fragment_s * CUT_SHARE * 1e6)),
                "frag_size": str(CUT_BYTES),
                "flush_packets": "1",
            },
        )
        self._stream: Stream = self._container.add_mux_stream(
            "h264", width=first.video.width, height=first.video.height, time_base=_TIME_BASE
        )
        self._offset = 0
        self._n = 0
        self._chain = b""
        # What FFmpeg holds and has not given out yet:
        self._start_ns: int | None = None
        self._last_ns = 0
        self._keyframe = False
        self._dts_us = -1
        self._frame_ns = NS // 25

    def mux(self, packet: Packet) -> list[Piece]:
        """Takes one access unit. Returns what became complete by it. Raises Corrupt when FFmpeg refuses the packet."""
        dts_us = (packet.dts_ns - self._header.base_ns) // 1000
        if self._dts_us >= 0:
            frame_ns = (dts_us - self._dts_us) * 1000
            if frame_ns > 0:
                self._frame_ns = frame_ns
            dts_us = max(dts_us, self._dts_us + 1)  # equal stamps are legal for a camera, not for MP4
        data = packet.data
        if self._parameters:
            # Behind a fourth zero FFmpeg takes a zero into the PPS, and the file would claim another format.
            data = self._parameters + b"\0\0" + data.lstrip(b"\0")
            self._parameters = b""
        unit = av.Packet(data)
        unit.stream = self._stream
        unit.time_base = _TIME_BASE
        unit.dts = dts_us
        unit.pts = max((packet.boot_ns - self._header.base_ns) // 1000, dts_us)
        unit.is_keyframe = packet.keyframe
        try:
            self._container.mux(unit)
        except av.FFmpegError as error:
            raise Corrupt(f"FFmpeg refuses an access unit of {len(packet.data)} bytes: {error}") from error
        pieces = self._take(packet)
        self._dts_us = dts_us
        at_ns = self._header.base_ns + unit.pts * 1000
        if self._start_ns is None:
            self._start_ns, self._last_ns, self._keyframe = at_ns, at_ns, packet.keyframe
        self._start_ns = min(self._start_ns, at_ns)
        self._last_ns = max(self._last_ns, at_ns)
        return pieces

    def finish(self, following: Packet | None = None) -> list[Piece]:
        """Ends the file. `following`: the packet that comes next without a gap, if one does (it tells the last end)."""
        try:
            self._container.close()
        except av.FFmpegError as error:
            raise Corrupt(f"FFmpeg cannot end the file: {error}") from error
        return self._take(following)

    def _take(self, following: Packet | None) -> list[Piece]:
        """Cuts whole boxes off the sink. At most one head and one fragment can be waiting."""
        pieces: list[Piece] = []
        data = self._sink.data
        while True:
            boxes = _whole_boxes(data)
            if self._offset == 0 and [kind for kind, _ in boxes[:2]] == [b"ftyp", b"moov"]:
                head = bytes(data[: boxes[1][1]]) + _header_box(self._header)
                del data[: boxes[1][1]]
                self._chain = hashlib.sha256(head).digest()
                self._offset = len(head)
                pieces.append(Piece(head, None))
            elif self._offset and [kind for kind, _ in boxes[:2]] == [b"moof", b"mdat"]:
                body = bytes(data[: boxes[1][1]])
                del data[: boxes[1][1]]
                pieces.append(self._piece(body, following))
            elif len(boxes) > 1:
                raise Corrupt(f"FFmpeg wrote boxes {[kind for kind, _ in boxes]}: this version is not supported")
            else:
                return pieces

    def _piece(self, body: bytes, following: Packet | None) -> Piece:
        """A fragment with its trailer."""
        if self._start_ns is None:
            raise Corrupt("FFmpeg wrote a fragment without pictures: this version is not supported")
        end_ns = self._last_ns + self._frame_ns
        if following is not None and following.keyframe and following.boot_ns > self._last_ns:
            end_ns = following.boot_ns
        self._n += 1
        if self._seal is not None:
            body = self._seal(self._n, body)
        fragment = Fragment(
            n=self._n,
            offset=self._offset,
            length=len(body),
            start_ns=self._start_ns,
            end_ns=end_ns,
            keyframe=self._keyframe,
            sha256=hashlib.sha256(body).digest(),
        )
        self._start_ns = None
        trailer, self._chain = _trailer(fragment, self._chain)
        self._offset = fragment.end
        return Piece(body + trailer, fragment)


def _whole_boxes(data: bytearray) -> list[tuple[bytes, int]]:
    """The complete boxes at the front: (type, offset behind it). Two suffice."""
    boxes: list[tuple[bytes, int]] = []
    at = 0
    while len(boxes) < 2 and at + 8 <= len(data):
        size, kind = _BOX.unpack_from(data, at)
        if size < 8 or at + size > len(data):
            break
        at += size
        boxes.append((kind, at))
    return boxes


def _header_box(header: Header) -> bytes:
    payload = msgspec.json.encode(header)
    return _BOX.pack(24 + len(payload), b"uuid") + _HEADER_UUID + payload


def _trailer(fragment: Fragment, chain: bytes) -> tuple[bytes, bytes]:
    """The trailer box of a fragment, and the chain value in it."""
    front = _TRAILER.pack(
        TRAILER_BYTES,
        b"uuid",
        _TRAILER_UUID,
        FORMAT,
        _KEYFRAME_FIRST if fragment.keyframe else 0,
        fragment.n,
        fragment.length,
        fragment.start_ns,
        fragment.end_ns,
        fragment.sha256,
    )
    chain = hashlib.sha256(chain + front).digest()
    return front + chain, chain


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scan:
    """What a file holds. Everything before `trusted` is right; what comes after is not to be used."""

    header: Header | None
    init: bytes  # ftyp + moov
    fragments: tuple[Fragment, ...]
    trusted: int  # bytes, from the front
    sha256: str  # of the trusted bytes; empty when the scan did not read the contents
    problem: str  # why the scan stopped before the end of the file; empty: it did not
    trailers_after: int = 0  # trailers behind the trusted part: one may be a torn tail, two are damage within the file

    @property
    def end_ns(self) -> int:
        """End of the trusted footage. ValueError when there is none."""
        return max(fragment.end_ns for fragment in self.fragments)


class _Stop(Exception):  # noqa: N818
    """The scan has come to the end of what can be trusted."""


def scan(file: BinaryIO, *, contents: bool = True) -> Scan:
    """Reads a file up to the first thing that is wrong. Never raises for what the bytes say, whatever they are.

    With `contents` every byte is hashed. Without, media data is skipped: the chain still proves the trailers, and
    whoever reads a fragment checks it by `read_fragment`. Memory is bounded by INIT_BYTES_MAX and FRAGMENTS_MAX
    small tuples; time by one pass over the file. Raises Transient when the disk cannot be read.
    """
    try:
        return _Scanner(file, contents=contents).run()
    except OSError as error:
        raise Transient(f"cannot read footage: {error}; check the disk") from error


class _Scanner:
    def __init__(self, file: BinaryIO, *, contents: bool) -> None:
        self._file = file
        self._contents = contents
        self._whole = hashlib.sha256()  # everything read so far
        self._trusted_sha256 = ""
        self._trusted = 0
        self._at = 0

    def run(self) -> Scan:
        header: Header | None = None
        init = b""
        fragments: list[Fragment] = []
        problem = ""
        size = self._file.seek(0, 2)
        self._file.seek(0)
        try:
            init, header, chain = self._head()
            while self._at < size:
                fragment, chain = self._fragment(len(fragments) + 1, chain)
                fragments.append(fragment)
                self._trust()
            if not fragments:
                problem = "it ends behind its header"
        except _Stop as stop:
            problem = str(stop)
        return Scan(
            header=header,
            init=init,
            fragments=tuple(fragments),
            trusted=self._trusted,
            sha256=self._trusted_sha256,
            problem=problem,
            trailers_after=_trailers_after(self._file, self._trusted) if problem else 0,
        )

    def _trust(self) -> None:
        self._trusted = self._at
        if self._contents:
            self._trusted_sha256 = self._whole.copy().hexdigest()

    def _read(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise _Stop(f"{what} is cut off at byte {self._at + len(data)}")
        self._whole.update(data)
        self._at += count
        return data

    def _box(self, kind: bytes, size_max: int) -> tuple[bytes, int]:
        """The 8 bytes of a box header and the length of its body."""
        start = self._at
        front = self._read(8, kind.decode())
        size, found = _BOX.unpack(front)
        if found != kind or not 8 <= size <= size_max:
            raise _Stop(f"no {kind.decode()} box at byte {start}")
        return front, size - 8

    def _head(self) -> tuple[bytes, Header, bytes]:
        init = b""
        for kind in (b"ftyp", b"moov"):
            front, length = self._box(kind, INIT_BYTES_MAX)
            init += front + self._read(length, kind.decode())
        front, length = self._box(b"uuid", HEADER_BYTES_MAX)
        body = self._read(length, "header")
        if body[:16] != _HEADER_UUID:
            raise _Stop("no Wardpost header: not a file of this recorder")
        try:
            header = msgspec.json.decode(body[16:], type=Header)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Stop(f"header: {error}") from None
        return init, header, hashlib.sha256(init + front + body).digest()

    def _fragment(self, n: int, chain: bytes) -> tuple[Fragment, bytes]:
        if n > FRAGMENTS_MAX:
            raise _Stop(f"more than {FRAGMENTS_MAX} fragments")
        offset = self._at
        sha = hashlib.sha256()
        front, length = self._box(b"moof", MOOF_BYTES_MAX)
        sha.update(front)
        sha.update(self._read(length, "moof"))
        front, length = self._box(b"mdat", FRAGMENT_BYTES_MAX)
        sha.update(front)
        self._body(length, sha.update)
        total = self._at - offset
        raw = self._read(TRAILER_BYTES, f"fragment {n}")
        fields = _TRAILER.unpack_from(raw)
        fragment = Fragment(
            n=fields[5],
            offset=offset,
            length=fields[6],
            start_ns=fields[7],
            end_ns=fields[8],
            keyframe=bool(fields[4] & _KEYFRAME_FIRST),
            sha256=fields[9],
        )
        expected, value = _trailer(fragment, chain)
        if raw != expected or fragment.n != n or fragment.length != total or fragment.end_ns < fragment.start_ns:
            raise _Stop(f"fragment {n} at byte {offset}: its trailer does not fit")
        if self._contents and sha.digest() != fragment.sha256:
            raise _Stop(f"fragment {n} at byte {offset}: its contents do not match their hash")
        return fragment, value

    def _body(self, length: int, update: Callable[[bytes], None]) -> None:
        """Hashes, or skips, the media data."""
        if not self._contents:
            self._file.seek(length, 1)
            self._at += length
            return
        while length > 0:
            data = self._read(min(length, _CHUNK_BYTES), "mdat")
            update(data)
            length -= len(data)


def _trailers_after(file: BinaryIO, offset: int) -> int:
    """How often a trailer's mark stands behind `offset`."""
    file.seek(offset)
    found = 0
    tail = b""
    while data := file.read(_CHUNK_BYTES):
        window = tail + data
        found += window.count(_TRAILER_UUID)
        tail = window[-15:]
    return found


def read_fragment(file: BinaryIO, fragment: Fragment) -> bytes:
    """The moof+mdat of one fragment. Raises Corrupt when the bytes are not those that were recorded."""
    try:
        file.seek(fragment.offset)
        data = file.read(fragment.length)
    except OSError as error:
        raise Corrupt(f"fragment {fragment.n} at byte {fragment.offset} cannot be read: {error}") from error
    if hashlib.sha256(data).digest() != fragment.sha256:
        raise Corrupt(f"fragment {fragment.n} at byte {fragment.offset}: its contents do not match their hash")
    return data
