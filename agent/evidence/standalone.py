#!/usr/bin/env python3
"""Checks a Wardpost evidence package. One file; needs Python 3.9 or newer and the program `openssl`, nothing else.

    python3 verify.py PACKAGE.zip [--trust KEY ...] [--json]

Exit code 0: verified. 1: not verified, every finding says what is wrong and where. 2: not a package, or not readable.
`--trust`: public keys (a PEM file, or 64 hex digits) known from elsewhere, of the node or of its station; without one
the check proves that the package is whole and by the holder of *one* key, and prints that key's fingerprint to be
compared by other means.

Format of a package (agent/evidence/package.py writes it): a zip in which every byte is determined by the names and
contents of its files, so that nothing can be changed unseen. manifest.json names every file with its SHA-256 and is
signed (manifest.sig) by the node, or, where its `maker` is `station`, by the station that put the package together from
what the node had sent; then case.json tells of the case, and trail.jsonl holds lines of the station's audit log.
ledger.jsonl is a slice of the node's ledger: one signed record a line, each with the hash of the one before; the record
of kind `segment` holds the SHA-256 of a file of footage. receipts.jsonl holds what the station signed: how long the
ledger was at what time. Signatures are Ed25519 over DSSE's PAE ("DSSEv1 <length> <type> <length> <payload>", in-toto
DSSE v1).

Footage that was sealed to the station lies in segments/ as it was sealed. A package that was opened at the station
holds opening.json besides: for each of these files its own key. The file's header, which is part of what the ledger
has recorded, holds a hash of that key, so one key fits; with it `openssl enc -chacha20` gives the one content that this
file has, and opened/ must hold exactly that. Whoever made opening.json need not be believed for any of it.

The package of a whole case (agent/evidence/case_package.py writes it) is such a zip around others: packages/ holds the
package of each post, as it is by itself, and manifest.json, signed by the station, names each with its SHA-256, with
whose it is, for whom and why. It is examined first, and then each package in it by all of the rules above; each must be
of this case, as case.json has it, and signed by the same station.

Bounds: FILES_MAX files, META_BYTES_MAX of text, LINES_MAX records, PACKAGES_MAX packages of a case; footage is streamed
by CHUNK_BYTES; time is five passes over the footage at most, and one start of openssl a signature.
"""

# One file that must run on a bare Python 3.9, and that a stranger reads from top to bottom: a check that raises and is
# caught in the same function reads better there than a helper; so do plain `open` and short words for exceptions.
# ruff: noqa: N818, TRY301, TRY004, PTH108, PTH118, PTH123, PLR0911, EXE001

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import datetime as dt
import hashlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, Optional

FILES_MAX = 20_000
NAME_BYTES_MAX = 100
DIRECTORY_BYTES_MAX = 4 << 20
META_BYTES_MAX = 256 << 20
MANIFEST_BYTES_MAX = 16 << 20
LINE_BYTES_MAX = 1 << 16
LINES_MAX = 100_000
CHUNK_BYTES = 1 << 20
FINDINGS_MAX = 200
PACKAGES_MAX = 100
MOOV_BYTES_MAX = 64 << 20
SAMPLE_BYTES_MAX = 16 << 20
NS = 1_000_000_000

PACKAGE_TYPE = "application/vnd.wardpost.package+json;v=1"
RECORD_TYPE = "application/vnd.wardpost.record+json;v=1"
RECEIPT_TYPE = "application/vnd.wardpost.receipt+json;v=1"
OPENING_TYPE = "application/vnd.wardpost.opening+json;v=1"
CASE_TYPE = "application/vnd.wardpost.case+json;v=1"
CASE_WHAT = "Wardpost case package"
MANIFEST, SIGNATURE, LEDGER, EXTRACTION, RECEIPTS = (
    "manifest.json",
    "manifest.sig",
    "ledger.jsonl",
    "extraction.jsonl",
    "receipts.jsonl",
)
KEYS = "keys.jsonl"
CASE, TRAIL = "case.json", "trail.jsonl"
LEFT_OUT_MAX = 20
"""Sentences of case.json that are repeated."""
OPENING, OPENING_SIGNATURE = "opening.json", "opening.sig"
FIRST = "README.txt"  # by its name at the front even a cut-off package is known as one
NAMES = re.compile(
    r"manifest\.json|manifest\.sig|ledger\.jsonl|extraction\.jsonl|receipts\.jsonl|keys\.jsonl|coverage\.json|report\.html"
    r"|report\.txt|verify\.py|README\.txt|clip(-[0-9]{1,4})?\.mp4|segments/[0-9]{6,12}-[0-9]{8,12}\.mp4"
    r"|case\.json|trail\.jsonl|keys/[a-z0-9-]{1,64}\.pem|opening\.json|opening\.sig|opened/clip(-[0-9]{1,4})?\.mp4"
    r"|opened/[0-9]{6,12}-[0-9]{8,12}\.mp4|packages/[a-z0-9-]{1,32}\.zip"
)
PACKAGES = "packages/"


class NotAPackage(Exception):
    """The file is no package at all, or cannot be read. The text says why."""


class Stop(Exception):
    """What was found makes it impossible to go on."""


class Finding(NamedTuple):
    """One thing that is wrong. `code` is for programs, `says` for people."""

    code: str
    where: str
    says: str


class Findings:
    """What is wrong, in the order in which it was met; at most FINDINGS_MAX are kept."""

    def __init__(self) -> None:
        self.items: list[Finding] = []
        self.more = 0

    def add(self, code: str, where: str, says: str) -> None:
        if len(self.items) < FINDINGS_MAX:
            self.items.append(Finding(code, where, says))
        else:
            self.more += 1


# -- the zip ----------------------------------------------------------------------------------------------------------


class Member(NamedTuple):
    """One file of the package."""

    name: str
    size: int
    crc: int
    offset: int  # of its local header

    @property
    def start(self) -> int:
        """Where its contents begin."""
        return self.offset + len(local_header(self))


_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_BIG = 0xFFFFFFFF
_DATE = 0x21  # 1980-01-01: a package's bytes do not depend on when files were touched
_MODE = 0o100644 << 16


def local_header(member: Member) -> bytes:
    """What stands before the contents of a file."""
    big = member.size >= _BIG
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if big else b""
    size = _BIG if big else member.size
    name = member.name.encode()
    return (
        _LOCAL.pack(b"PK\3\4", 45 if big else 20, 0, 0, 0, _DATE, member.crc, size, size, len(name), len(extra))
        + name
        + extra
    )


def directory_entry(member: Member) -> bytes:
    """What stands for a file in the directory at the end."""
    fields = b""
    size, offset = member.size, member.offset
    if member.size >= _BIG:
        fields += struct.pack("<QQ", member.size, member.size)
        size = _BIG
    if member.offset >= _BIG:
        fields += struct.pack("<Q", member.offset)
        offset = _BIG
    extra = struct.pack("<HH", 1, len(fields)) + fields if fields else b""
    version = 45 if fields else 20
    name = member.name.encode()
    return (
        _CENTRAL.pack(
            b"PK\1\2",
            0x300 | version,
            version,
            0,
            0,
            0,
            _DATE,
            member.crc,
            size,
            size,
            len(name),
            len(extra),
            0,
            0,
            0,
            _MODE,
            offset,
        )
        + name
        + extra
    )


def end_of(count: int, size: int, offset: int) -> bytes:
    """What stands behind the directory."""
    tail = b""
    if offset >= _BIG:
        tail += _END64.pack(b"PK\6\6", 44, 0x32D, 45, 0, 0, count, count, size, offset)
        tail += _LOCATOR.pack(b"PK\6\7", 0, offset + size, 1)
    return tail + _END.pack(b"PK\5\6", 0, 0, count, count, size, min(offset, _BIG), 0)


class Package:
    """The files of a package that lies open. Reads only; `members` is in the order of the zip."""

    def __init__(self, file: BinaryIO, findings: Findings) -> None:
        self._file = file
        self._findings = findings
        self.members: dict[str, Member] = {}
        self.size = file.seek(0, 2)

    def _at(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(count)

    def open(self) -> None:
        """Reads the directory and holds every byte of the structure against it. Raises NotAPackage, Stop."""
        start = self._at(0, 30 + len(FIRST))
        ours = start[:4] == b"PK\3\4" and start[30:] == FIRST.encode()
        tail = self._at(max(self.size - _END.size, 0), _END.size)
        if len(tail) < _END.size or tail[:4] != b"PK\5\6":
            if not ours:
                raise NotAPackage("it is no zip file of Wardpost's")
            self._stop("truncated", "package", "the zip has no end: the package is cut off, or something was appended")
        (_, _, _, _, count, size, offset, _) = _END.unpack(tail)
        if offset == _BIG:
            place = self.size - _END.size - _LOCATOR.size - _END64.size
            big = self._at(max(place, 0), _END64.size)
            if place < 0 or big[:4] != b"PK\6\6":
                self._stop("structure", "package", "the zip's 64-bit end record is damaged")
            (_, _, _, _, _, _, _, count, size, offset) = _END64.unpack(big)
        if size > DIRECTORY_BYTES_MAX or count > FILES_MAX or offset + size > self.size:
            self._stop("structure", "package", "the zip's directory is larger than a package can have, or cut off")
        entries = self._entries(self._at(offset, size), count)
        if not any(member.name == MANIFEST for member in entries):
            if not ours:
                raise NotAPackage("it is a zip file, but has no manifest.json: no package of Wardpost's")
            self._stop("structure", "package", "the directory of the zip has lost manifest.json")
        if self._findings.items:
            raise Stop
        self._compare(entries, offset)
        self.members = {member.name: member for member in entries}

    def _stop(self, code: str, where: str, says: str) -> None:
        self._findings.add(code, where, says)
        raise Stop

    def _entries(self, data: bytes, count: int) -> list[Member]:
        """The directory's files. Names and methods that a package never has are findings."""
        entries: list[Member] = []
        seen: set[str] = set()
        at = 0
        while at < len(data):
            if at + _CENTRAL.size > len(data) or data[at : at + 4] != b"PK\1\2":
                self._stop("structure", "package", f"the zip's directory is damaged at its byte {at}")
            fields = _CENTRAL.unpack_from(data, at)
            method, crc, packed, size = fields[4], fields[7], fields[8], fields[9]
            name_length, extra_length, comment_length, offset = fields[10], fields[11], fields[12], fields[16]
            at += _CENTRAL.size
            raw = data[at : at + name_length]
            extra = data[at + name_length : at + name_length + extra_length]
            at += name_length + extra_length + comment_length
            big = list(
                struct.unpack(f"<{max(len(extra) - 4, 0) // 8}Q", extra[4 : 4 + max(len(extra) - 4, 0) // 8 * 8])
            )
            if size == _BIG and len(big) >= 2:
                size = packed = big.pop(0)
                big.pop(0)
            if offset == _BIG and big:
                offset = big.pop(0)
            name = raw.decode("ascii", "backslashreplace")
            shown = printable(name)
            if method != 0 or packed != size:
                self._findings.add(
                    "compressed", shown, "the file is compressed; a package stores its files as they are"
                )
            if name in seen:
                self._findings.add("duplicate-name", shown, "the zip holds two files of this name")
            seen.add(name)
            if not NAMES.fullmatch(name):
                tricky = len(raw) > NAME_BYTES_MAX or not re.fullmatch(r"[A-Za-z0-9 _.\-/]+", name)
                tricky = tricky or name.startswith("/") or ".." in name.split("/")
                code = "bad-name" if tricky else "extra-file"
                says = "a name that would leave the folder it is unpacked in" if tricky else "no file of a package"
                self._findings.add(code, shown, says)
            entries.append(Member(name, size, crc, offset))
        if len(entries) != count:
            self._stop(
                "structure", "package", f"the zip's end speaks of {count} files, its directory of {len(entries)}"
            )
        return entries

    def _compare(self, entries: list[Member], directory: int) -> None:
        """Every byte that is not contents must be the one that the names and contents demand."""
        at = 0
        for member in entries:
            expected = local_header(member)
            if member.offset != at or at + len(expected) + member.size > directory:
                self._stop("structure", member.name, "its place in the zip does not follow the file before it")
            if self._at(at, len(expected)) != expected:
                self._stop("structure", member.name, f"the zip's header of this file, at byte {at}, was altered")
            at += len(expected) + member.size
        if at != directory:
            self._stop("structure", "package", f"{directory - at} bytes at byte {at} belong to no file")
        for member in entries:
            expected = directory_entry(member)
            if self._at(at, len(expected)) != expected:
                self._stop(
                    "structure", member.name, f"the zip's directory entry of this file, at byte {at}, was altered"
                )
            at += len(expected)
        if self._at(at, min(self.size - at, 1 << 16)) != end_of(len(entries), at - directory, directory):
            self._stop("structure", "package", f"the end of the zip, from byte {at}, was altered")

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The contents, piece by piece."""
        left, at = member.size, member.start
        while left > 0:
            data = self._at(at, min(left, CHUNK_BYTES))
            if not data:
                raise NotAPackage(f"{member.name} cannot be read to its end")
            yield data
            at += len(data)
            left -= len(data)

    def read(self, member: Member, limit: int) -> bytes:
        """The contents of a small file."""
        if member.size > limit:
            self._stop("limit", member.name, f"{member.size} bytes; the verifier reads {limit} at most")
        return b"".join(self.chunks(member))

    def lines(self, member: Member) -> Iterator[tuple[int, bytes]]:
        """(number, line without its end). A last line without an end is given as it is."""
        rest, number = b"", 0
        for data in self.chunks(member):
            parts = (rest + data).split(b"\n")
            rest = parts.pop()
            if len(rest) > LINE_BYTES_MAX:
                self._stop(
                    "limit", member.name, f"line {number + len(parts) + 1} is longer than {LINE_BYTES_MAX} bytes"
                )
            for line in parts:
                number += 1
                yield number, line
        if rest:
            yield number + 1, rest

    def view(self, member: Member) -> View:
        """The contents as a place to read from."""
        return View(self._file, member.start, member.size)


class View:
    """A stretch of a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file = file
        self._start = start
        self.size = size

    def at(self, offset: int, count: int) -> bytes:
        """`count` bytes, or fewer at the end."""
        if offset < 0 or count < 0 or offset >= self.size:
            return b""
        self._file.seek(self._start + offset)
        return self._file.read(min(count, self.size - offset))


class ViewFile(io.RawIOBase):
    """A View as a file."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self._view, self._at = view, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of every file; not before its first byte."""
        self._at = max(offset + (0, self._at, self._view.size)[whence], 0)
        return self._at

    def tell(self) -> int:
        """Where it is read next."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there are and as fit."""
        data = self._view.at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def printable(text: str) -> str:
    """Somebody else's text on a terminal: no control characters, bounded."""
    return re.sub(r"[^\x20-\x7e]", "?", text[:120])


def readable(text: str) -> str:
    """The same for what people wrote in a language of theirs: nothing that moves a cursor or turns the line around."""
    return "".join(char if char.isprintable() else "?" for char in text[:500])


def left_out(package: Package) -> list[str]:
    """What the station says that it does not tell of the case, and where that is."""
    member = package.members.get(CASE)
    try:
        case = None if member is None else parse(package.read(member, META_BYTES_MAX))
    except ValueError:
        return []
    said = case.get("left_out") if isinstance(case, dict) else None
    told = said[:LEFT_OUT_MAX] if isinstance(said, list) else []
    return [f"{CASE} says: {readable(one)}" for one in told if isinstance(one, str)]


# -- JSON, keys, signatures -------------------------------------------------------------------------------------------


def _no_constant(text: str) -> Any:
    raise ValueError(text)


def parse(data: bytes) -> Any:
    """JSON of bounded size; ValueError for anything else, NaN and absurd nesting included."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def unbase64(text: Any) -> bytes:
    """Strict: there is one way to write a value. Raises ValueError."""
    if not isinstance(text, str):
        raise ValueError("no base64 text")
    data = base64.b64decode(text.encode("ascii", "replace"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not canonical base64")
    return data


_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=]{60})\n-----END PUBLIC KEY-----\n")
_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: Ed25519, then 32 bytes


def raw_key(pem: bytes) -> Optional[bytes]:  # noqa: UP045  (Python 3.9)
    """The 32 bytes of an Ed25519 public key in PEM; None for anything else."""
    found = _PEM.fullmatch(pem)
    if not found:
        return None
    try:
        der = unbase64(found.group(1).decode())
    except ValueError:
        return None
    return der[len(_SPKI) :] if der.startswith(_SPKI) and len(der) == len(_SPKI) + 32 else None


def trusted_key(text: str) -> Optional[bytes]:  # noqa: UP045  (Python 3.9)
    """A public key as a person gives it: 64 hex digits, or the path of a PEM file, which may have been in a mail."""
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    with open(text, "rb") as file:
        return raw_key(file.read(4096).replace(b"\r\n", b"\n").strip() + b"\n")


def pem_of(raw: bytes) -> bytes:
    """PEM of an Ed25519 public key."""
    return b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(_SPKI + raw) + b"\n-----END PUBLIC KEY-----\n"


def key_id(raw: bytes) -> str:
    """How a signature names its key."""
    return hashlib.sha256(raw).hexdigest()[:16]


def pae(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed."""
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


class Signed(NamedTuple):
    """A signature to be checked."""

    raw_key: bytes
    message: bytes
    signature: bytes


class Locked(NamedTuple):
    """Something sealed: ChaCha20 (RFC 8439, block counter from 1) with a file's key and a fragment's number."""

    key: bytes
    nonce: int
    data: bytes


class OpenSsl:
    """Ed25519 by `openssl pkeyutl`, ChaCha20 by `openssl enc`, a few at a time."""

    def unlock(self, many: list[Locked]) -> list[bytes]:
        """The contents, as long as what was sealed. Raises NotAPackage when openssl cannot do its work."""

        def one(locked: Locked) -> bytes:
            start = (1).to_bytes(4, "little") + locked.nonce.to_bytes(12, "big")
            command = ["openssl", "enc", "-d", "-chacha20", "-K", locked.key.hex(), "-iv", start.hex()]
            try:
                done = subprocess.run(command, input=locked.data, capture_output=True, timeout=60, check=False)
            except FileNotFoundError:
                raise NotAPackage("the program openssl is not installed; it opens what was sealed") from None
            except subprocess.TimeoutExpired:
                raise NotAPackage("openssl did not answer within a minute") from None
            if done.returncode or len(done.stdout) != len(locked.data):
                raise NotAPackage("this openssl cannot do ChaCha20; version 1.1.1 or newer of OpenSSL is needed")
            return done.stdout

        with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            return list(pool.map(one, many))

    def check(self, many: list[Signed]) -> list[bool]:
        """Whether each signature is right. Raises NotAPackage when openssl cannot do its work."""
        if not many:
            return []
        with tempfile.TemporaryDirectory(prefix="wardpost-verify-") as folder:
            for raw in {signed.raw_key for signed in many}:
                with open(os.path.join(folder, raw.hex()), "wb") as file:
                    file.write(pem_of(raw))

            def one(number: int) -> bool:
                signed = many[number]
                if len(signed.signature) != 64:
                    return False
                message = os.path.join(folder, f"{number}.m")
                signature = os.path.join(folder, f"{number}.s")
                with open(message, "wb") as file:
                    file.write(signed.message)
                with open(signature, "wb") as file:
                    file.write(signed.signature)
                command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin"]
                command += ["-inkey", os.path.join(folder, signed.raw_key.hex()), "-in", message, "-sigfile", signature]
                try:
                    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
                except FileNotFoundError:
                    raise NotAPackage("the program openssl is not installed; it checks the signatures") from None
                except subprocess.TimeoutExpired:
                    raise NotAPackage("openssl did not answer within a minute") from None
                os.unlink(message)
                os.unlink(signature)
                if done.returncode not in (0, 1) or b"rawin" in done.stderr:
                    raise NotAPackage("this openssl cannot check Ed25519; version 1.1.1 or newer of OpenSSL is needed")
                return done.returncode == 0

            with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
                return list(pool.map(one, range(len(many))))


# -- MP4 --------------------------------------------------------------------------------------------------------------


class BadMedia(Exception):
    """Boxes that are not as they must be."""


class Sample(NamedTuple):
    """One access unit: where it lies, and when it is decoded and shown, in ticks of its file."""

    offset: int
    size: int
    dts: int
    delay: int
    key: bool


class Track(NamedTuple):
    """The video of a flat MP4."""

    timescale: int
    config: bytes  # the sample description with SPS and PPS
    samples: list[Sample]


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin of body, end) of the boxes in a stretch of memory."""
    while start < end:
        if start + 8 > end:
            raise BadMedia("a box is cut off")
        size, kind = struct.unpack_from(">I4s", data, start)
        if size < 8 or start + size > end:
            raise BadMedia(f"box {kind!r} has an impossible size")
        yield kind, start + 8, start + size
        start += size


def _find(data: bytes, start: int, end: int, *path: bytes) -> tuple[int, int]:
    for wanted in path:
        for kind, begin, stop in _boxes(data, start, end):
            if kind == wanted:
                start, end = begin, stop
                break
        else:
            raise BadMedia(f"no box {wanted!r}")
    return start, end


def _table(data: bytes, place: tuple[int, int], columns: int, skip: int = 4) -> list[tuple[int, ...]]:
    """Rows of u32 behind version, flags and a count."""
    start, end = place
    (count,) = struct.unpack_from(">I", data, start + skip)
    start += skip + 4
    if count * columns * 4 > end - start:
        raise BadMedia("a table is cut off")
    return list(struct.iter_unpack(f">{columns}I", data[start : start + count * columns * 4]))


def _top(view: View) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin, end) of the outer boxes of a file."""
    at = 0
    for _ in range(200_000):
        if at >= view.size:
            return
        front = view.at(at, 16)
        if len(front) < 8:
            raise BadMedia("a box is cut off")
        size, kind = struct.unpack_from(">I4s", front)
        if size == 1 and len(front) == 16:
            (size,) = struct.unpack_from(">Q", front, 8)
        if size < 8 or at + size > view.size:
            raise BadMedia(f"box {kind!r} has an impossible size")
        yield kind, at, at + size
        at += size
    raise BadMedia("too many boxes")


def _moov(view: View) -> bytes:
    for kind, begin, end in _top(view):
        if kind == b"moov":
            if end - begin > MOOV_BYTES_MAX:
                raise BadMedia("its index is too large")
            return view.at(begin + 8, end - begin - 8)
    raise BadMedia("it has no index")


def _description(data: bytes, media: tuple[int, int]) -> tuple[int, bytes]:
    """Timescale, and the avcC: how the pictures are coded."""
    start, _end = _find(data, *media, b"mdhd")
    (timescale,) = struct.unpack_from(">I", data, start + (20 if data[start] == 1 else 12))
    start, end = _find(data, *media, b"minf", b"stbl", b"stsd")
    size, kind = struct.unpack_from(">I4s", data, start + 8)
    if kind != b"avc1" or start + 8 + size > end or timescale == 0:
        raise BadMedia("it is no H.264")
    begin, stop = _find(data, start + 8 + 8 + 78, start + 8 + size, b"avcC")
    return timescale, data[begin:stop]


def _video(data: bytes) -> tuple[int, int]:
    """The one track of a file."""
    traks = [(begin, end) for kind, begin, end in _boxes(data, 0, len(data)) if kind == b"trak"]
    if len(traks) != 1:
        raise BadMedia(f"{len(traks)} tracks; a file of footage has one")
    return _find(data, *traks[0], b"mdia")


def flat(view: View) -> Track:
    """The samples of a flat MP4 (ISO/IEC 14496-12). Raises BadMedia, whatever the bytes are."""
    try:
        return _flat(_moov(view))
    except (struct.error, IndexError) as error:
        raise BadMedia(f"its index is damaged: {error}") from None


def _flat(data: bytes) -> Track:
    media = _video(data)
    timescale, config = _description(data, media)
    stbl = _find(data, *media, b"minf", b"stbl")
    kinds = {kind: (begin, end) for kind, begin, end in _boxes(data, *stbl)}
    if not {b"stts", b"stsz", b"stsc"} <= set(kinds):
        raise BadMedia("its index lacks a table")
    start, _ = kinds[b"stsz"]
    fixed, count = struct.unpack_from(">II", data, start + 4)
    if count > MOOV_BYTES_MAX // 4 or fixed:
        raise BadMedia("its sizes are no recorder's")
    sizes = [row[0] for row in _table(data, kinds[b"stsz"], 1, 8)]
    times = _spread(_table(data, kinds[b"stts"], 2), count)
    delays = _spread(_table(data, kinds[b"ctts"], 2), count) if b"ctts" in kinds else [0] * count
    keys = {row[0] for row in _table(data, kinds[b"stss"], 1)} if b"stss" in kinds else None
    chunks = _chunks(data, kinds)
    runs = _table(data, kinds[b"stsc"], 3)
    samples: list[Sample] = []
    dts = 0
    for index, (first, per_chunk, _) in enumerate(runs):
        last = runs[index + 1][0] if index + 1 < len(runs) else len(chunks) + 1
        if not 1 <= first <= last <= len(chunks) + 1:
            raise BadMedia("its chunks are out of order")
        for chunk in range(first, last):
            at = chunks[chunk - 1]
            if per_chunk > count - len(samples):
                raise BadMedia("its chunks hold more samples than there are")
            for _ in range(per_chunk):
                n = len(samples)
                samples.append(Sample(at, sizes[n], dts, _signed(delays[n]), keys is None or n + 1 in keys))
                at += sizes[n]
                dts += times[n]
    if len(samples) != count:
        raise BadMedia("its tables do not fit each other")
    return Track(timescale, config, samples)


def _chunks(data: bytes, kinds: dict[bytes, tuple[int, int]]) -> list[int]:
    if b"co64" in kinds:
        return [high << 32 | low for high, low in _table(data, kinds[b"co64"], 2)]
    if b"stco" in kinds:
        return [row[0] for row in _table(data, kinds[b"stco"], 1)]
    raise BadMedia("its index lacks a table")


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value


def _spread(rows: list[tuple[int, ...]], count: int) -> list[int]:
    values: list[int] = []
    for repeat, value in rows:
        if repeat > count - len(values):
            raise BadMedia("its tables do not fit each other")
        values += [value] * repeat
    if len(values) != count:
        raise BadMedia("its tables do not fit each other")
    return values


def head_of(view: View) -> tuple[int, bytes]:
    """Timescale and avcC of a fragmented file. Raises BadMedia."""
    try:
        data = _moov(view)
        return _description(data, _video(data))
    except (struct.error, IndexError) as error:
        raise BadMedia(f"its index is damaged: {error}") from None


def fragment_samples(view: View, offset: int) -> list[Sample]:
    """The samples of the fragment (moof, mdat) at `offset`, with offsets in the file. Raises BadMedia."""
    try:
        return _fragment_samples(view, offset)
    except (struct.error, IndexError) as error:
        raise BadMedia(f"the fragment at byte {offset} is damaged: {error}") from None


def _fragment_samples(view: View, offset: int) -> list[Sample]:
    size, kind = struct.unpack(">I4s", view.at(offset, 8))
    if kind != b"moof" or size > 1 << 20:
        raise BadMedia(f"no fragment at byte {offset}")
    data = view.at(offset + 8, size - 8)
    traf = _find(data, 0, len(data), b"traf")
    start, _ = _find(data, *traf, b"tfhd")
    flags = int.from_bytes(data[start + 1 : start + 4], "big")
    at = start + 8
    defaults = {}
    for bit, name, width in ((1, "base", 8), (2, "desc", 4), (8, "duration", 4), (16, "size", 4), (32, "flags", 4)):
        if flags & bit:
            defaults[name] = int.from_bytes(data[at : at + width], "big")
            at += width
    start, _ = _find(data, *traf, b"tfdt")
    dts = struct.unpack_from(">Q" if data[start] == 1 else ">I", data, start + 4)[0]
    samples: list[Sample] = []
    for box, begin, end in _boxes(data, *traf):
        if box == b"trun":
            dts = _run(data, begin, end, offset, defaults, samples, dts)
    return samples


def _run(data: bytes, at: int, end: int, base: int, defaults: dict[str, int], samples: list[Sample], dts: int) -> int:
    flags = int.from_bytes(data[at + 1 : at + 4], "big")
    (count,) = struct.unpack_from(">I", data, at + 4)
    at += 8
    if count > (end - at) // 4 + 1:
        raise BadMedia("a run is cut off")
    if not flags & 1:
        raise BadMedia("a run without a place")
    place = base + struct.unpack_from(">i", data, at)[0]
    at += 4
    first_flags = None
    if flags & 4:
        (first_flags,) = struct.unpack_from(">I", data, at)
        at += 4
    for n in range(count):
        row = {"duration": defaults.get("duration", 0), "size": defaults.get("size", 0), "delay": 0}
        row["flags"] = defaults.get("flags", 0) if first_flags is None or n else first_flags
        for bit, name in ((0x100, "duration"), (0x200, "size"), (0x400, "flags"), (0x800, "delay")):
            if flags & bit:
                (row[name],) = struct.unpack_from(">I", data, at)
                at += 4
        samples.append(Sample(place, row["size"], dts, _signed(row["delay"]), not row["flags"] & 0x10000))
        place += row["size"]
        dts += row["duration"]
    return dts


# -- a file of footage ------------------------------------------------------------------------------------------------

_TRAILER = struct.Struct(">I4s16sHHIQqq32s")
_TRAILER_BYTES = _TRAILER.size + 32
_HEADER_UUID = bytes.fromhex("b1f0c5a27d0e4b3f9a36776172647631")
_TRAILER_UUID = bytes.fromhex("b1f0c5a27d0e4b3f9a36776172647632")
FRAGMENTS_MAX = 20_000


class Fragment(NamedTuple):
    """One second or so of footage."""

    n: int
    offset: int
    end: int  # behind its trailer
    start_ns: int
    end_ns: int
    key: bool


class Scan(NamedTuple):
    """A file as far as it proves itself."""

    header: dict[str, Any]
    fragments: list[Fragment]
    problem: str  # empty: whole


def scan(view: View) -> Scan:
    """Reads a file of footage up to the first thing that is wrong: each fragment carries its own hash and a chain."""
    header: dict[str, Any] = {}
    fragments: list[Fragment] = []
    try:
        at = 0
        chain = hashlib.sha256()
        for kind, size_max in ((b"ftyp", 1 << 16), (b"moov", 1 << 16), (b"uuid", 4096)):
            size = _box(view, at, kind, size_max)
            data = view.at(at, size)
            if len(data) < size:
                raise BadMedia(f"its {kind.decode()} is cut off")
            chain.update(data)
            at += size
        found = parse(data[24:]) if data[8:24] == _HEADER_UUID else None
        if not isinstance(found, dict):
            raise BadMedia("it has no header of this recorder")
        header = found
        value = chain.digest()
        while at < view.size:
            n = len(fragments) + 1
            if n > FRAGMENTS_MAX:
                raise BadMedia(f"more than {FRAGMENTS_MAX} fragments")
            fragment, value = _scan_fragment(view, at, n, value)
            fragments.append(fragment)
            at = fragment.end
        if not fragments:
            raise BadMedia("it ends behind its header")
    except (BadMedia, ValueError) as error:
        return Scan(header, fragments, str(error))
    return Scan(header, fragments, "")


def header_of(view: View) -> dict[str, Any]:
    """What a file says about itself; empty when that cannot be read. Reads the front of the file only."""
    at = 0
    try:
        for kind, size_max in ((b"ftyp", 1 << 16), (b"moov", 1 << 16), (b"uuid", 4096)):
            size = _box(view, at, kind, size_max)
            at += size
        data = view.at(at - size, size)
        found = parse(data[24:]) if data[8:24] == _HEADER_UUID else None
    except (BadMedia, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _box(view: View, at: int, kind: bytes, size_max: int) -> int:
    front = view.at(at, 8)
    if len(front) < 8:
        raise BadMedia(f"cut off at byte {at + len(front)}")
    size, found = struct.unpack(">I4s", front)
    if found != kind or not 8 <= size <= size_max:
        raise BadMedia(f"no {kind.decode()} box at byte {at}")
    return int(size)


def _scan_fragment(view: View, at: int, n: int, chain: bytes) -> tuple[Fragment, bytes]:
    length = _box(view, at, b"moof", 1 << 20)
    length += _box(view, at + length, b"mdat", 64 << 20)
    digest = hashlib.sha256()
    done = 0
    while done < length:
        data = view.at(at + done, min(CHUNK_BYTES, length - done))
        if not data:
            raise BadMedia(f"fragment {n} is cut off at byte {at + done}")
        digest.update(data)
        done += len(data)
    raw = view.at(at + length, _TRAILER_BYTES)
    if len(raw) < _TRAILER_BYTES:
        raise BadMedia(f"fragment {n} is cut off at byte {at + length + len(raw)}")
    size, kind, mark, version, flags, number, stated, start_ns, end_ns, sha = _TRAILER.unpack_from(raw)
    value = hashlib.sha256(chain + raw[: _TRAILER.size]).digest()
    fits = (size, kind, mark, version) == (_TRAILER_BYTES, b"uuid", _TRAILER_UUID, 1) and flags in (0, 1)
    if not fits or raw[_TRAILER.size :] != value or number != n or stated != length or end_ns < start_ns:
        raise BadMedia(f"fragment {n} at byte {at}: its trailer does not fit")
    if sha != digest.digest():
        raise BadMedia(f"fragment {n} at byte {at}: its contents do not match their hash")
    return Fragment(n, at, at + length + _TRAILER_BYTES, start_ns, end_ns, bool(flags & 1)), value


def second_of(header: dict[str, Any], fragments: list[Fragment]) -> str:
    """Words for the moment behind the last good fragment."""
    start, utc = header.get("start_ns"), header.get("utc_ns")
    if not isinstance(start, int) or not isinstance(utc, int):
        return "at its very beginning"
    at = fragments[-1].end_ns if fragments else start
    return f"second {(at - start) / NS:.1f} of the file, {rfc3339(utc + at - start)} by the node's clock"


def rfc3339(utc_ns: int) -> str:
    """UTC with milliseconds."""
    try:
        moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=utc_ns // 1000)  # noqa: DTZ001  (UTC throughout)
    except OverflowError:
        return "at an impossible time"
    return moment.isoformat(timespec="milliseconds") + "Z"


def when(text: Any) -> int:
    """Nanoseconds of UTC; ValueError."""
    if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text):
        raise ValueError("no time")
    delta = dt.datetime.fromisoformat(text[:-1]) - dt.datetime(1970, 1, 1)  # noqa: DTZ001
    return (delta.days * 86_400 + delta.seconds) * NS + delta.microseconds * 1000


# -- what was sealed --------------------------------------------------------------------------------------------------

_SEALED_FRONT = struct.pack(">I4s", 8, b"moof")
_SEALED_BYTES = 16  # before what is sealed: an empty moof box, and the header of the mdat box
_TAG_BYTES = 16  # behind it: Poly1305's tag. Hash and key settle the content; `wardpost verify` checks the tag as well.
_UNLOCK_BYTES = 8 << 20
_COMMIT = b"wardpost footage key, version 1\0"


def locked_with(header: dict[str, Any]) -> str:
    """Empty for a file in clear, else the hash of its key as the header has it; "?" where it has none."""
    if not header.get("sealed"):
        return ""
    commit = header.get("seal_commit")
    return commit if isinstance(commit, str) and re.fullmatch("[0-9a-f]{64}", commit) else "?"


def fits(key: bytes, commit: str) -> bool:
    """Whether a key is the one of which a header speaks."""
    return len(key) == 32 and hashlib.sha256(_COMMIT + key).hexdigest() == commit


def compare_opened(sealed: View, seen: Scan, opened: View, key: bytes, engine: Any) -> str:
    """What is wrong with a file that is said to be what `sealed` holds; empty when nothing is.

    It is the head of the sealed file (boxes and header, as they stand there), then each fragment's moof and mdat.
    Memory is bounded by _UNLOCK_BYTES and one fragment.
    """
    head = seen.fragments[0].offset
    if opened.at(0, head) != sealed.at(0, head):
        return "its head is not that of the original"
    at, size = head, 0
    batch: list[Fragment] = []
    for fragment in [*seen.fragments, None]:
        if fragment is not None:
            batch.append(fragment)
            size += fragment.end - fragment.offset
            if size < _UNLOCK_BYTES:
                continue
        pieces = [sealed.at(f.offset, f.end - f.offset - _TRAILER_BYTES) for f in batch]
        for found, piece in zip(batch, pieces):  # noqa: B905
            if piece[:8] != _SEALED_FRONT or len(piece) < _SEALED_BYTES + _TAG_BYTES:
                return f"fragment {found.n} of the original is not sealed, though its file is"
        locked = [Locked(key, f.n, p[_SEALED_BYTES:-_TAG_BYTES]) for f, p in zip(batch, pieces)]  # noqa: B905
        for found, content in zip(batch, engine.unlock(locked)):  # noqa: B905
            if opened.at(at, len(content)) != content:
                where = second_of(seen.header, seen.fragments[: found.n - 1])
                return f"fragment {found.n}, at byte {at}, is not what the original holds; {where}"
            at += len(content)
        batch, size = [], 0
    return "" if at == opened.size else f"{opened.size - at} bytes behind its last fragment are not of the original"


# -- the clip against the originals -----------------------------------------------------------------------------------

HOLE_NS_MAX = 2 * NS
_TOLERANCE_NS = 1_000_000


class Original(NamedTuple):
    """One access unit of the original files, in the order of the package."""

    view: View
    sample: Sample
    config: bytes
    boot_id: str
    dts_ns: int
    delay_ns: int


def originals(files: list[View]) -> Iterator[Original]:
    """Every access unit of whole original files. Raises BadMedia."""
    for view in files:
        timescale, config = head_of(view)
        header: dict[str, Any] = {}
        for kind, begin, end in _top(view):
            if kind == b"uuid" and not header:
                try:
                    header = parse(view.at(begin + 24, min(end - begin - 24, 4096)))
                    base_ns, boot_id = int(header["base_ns"]), str(header["boot_id"])
                except (ValueError, KeyError, TypeError):
                    raise BadMedia("its header makes no sense") from None
            elif kind == b"moof":
                if not header:
                    raise BadMedia("it has no header")
                for sample in fragment_samples(view, begin):
                    dts_ns = base_ns + round(sample.dts * NS / timescale)
                    yield Original(view, sample, config, boot_id, dts_ns, round(sample.delay * NS / timescale))


def playable(units: Iterator[Original]) -> Iterator[tuple[Original, bool]]:
    """What a clip shows of them, and whether a hole (closed in it) comes before. As agent/recording/footage.py."""
    boot_id, last_ns, config, synced = "", 0, b"", False
    for unit in units:
        if unit.boot_id == boot_id and unit.dts_ns <= last_ns:
            continue
        hole = unit.boot_id != boot_id or unit.dts_ns - last_ns > HOLE_NS_MAX
        if (hole or unit.config != config or not synced) and not unit.sample.key:
            synced = False
            continue
        hole = hole or unit.config != config
        synced, boot_id, last_ns, config = True, unit.boot_id, unit.dts_ns, unit.config
        yield unit, hole


def compare_clip(files: list[View], clips: list[View], first: int, samples: int) -> str:
    """What is wrong with a clip that is said to begin at the originals' access unit `first`; empty when nothing is.

    Every access unit must be the original's, byte for byte, in order, none left out, at its own time.
    """
    units = originals(files)
    try:
        for _ in range(first):
            next(units)
    except StopIteration:
        return "it is said to begin behind the end of the originals"
    except BadMedia as error:
        return f"an original cannot be read: {error}"
    wanted = playable(units)
    done = 0
    for number, clip in enumerate(clips, 1):
        try:
            track = flat(clip)
        except BadMedia as error:
            return f"file {number} of the clip cannot be read: {error}"
        before: Optional[tuple[Sample, Original]] = None  # noqa: UP045
        for sample in track.samples:
            try:
                unit, hole = next(wanted)
            except StopIteration:
                return f"it goes on behind the end of the originals, from its access unit {done + 1}"
            except BadMedia as error:
                return f"an original cannot be read: {error}"
            wrong = _unlike(track, clip, sample, unit, None if hole else before)
            if wrong:
                return f"access unit {done + 1} of the clip, second {sample.dts / track.timescale:.1f}: {wrong}"
            before = (sample, unit)
            done += 1
    return "" if done == samples else f"it has {done} access units, the manifest says {samples}"


def _unlike(
    track: Track,
    clip: View,
    sample: Sample,
    unit: Original,
    before: Optional[tuple[Sample, Original]],  # noqa: UP045
) -> str:
    if track.config != unit.config:
        return "it is described otherwise than the original"
    if sample.size != unit.sample.size or sample.size > SAMPLE_BYTES_MAX:
        return "it is not the original's (another length)"
    data = clip.at(sample.offset, sample.size)
    if len(data) != sample.size or data != unit.view.at(unit.sample.offset, sample.size):
        return "it is not the original's (other bytes)"
    if sample.key != unit.sample.key:
        return "it is marked as a key frame, or not, against the original"
    if abs(sample.delay * NS // track.timescale - unit.delay_ns) > _TOLERANCE_NS:
        return "it is shown at another time than the original"
    if before is not None:
        step_ns = (sample.dts - before[0].dts) * NS // track.timescale
        if abs(step_ns - (unit.dts_ns - before[1].dts_ns)) > _TOLERANCE_NS:
            return "it is played at another speed than the original"
    return ""


# -- the check --------------------------------------------------------------------------------------------------------

_RECORD_FIELDS = {
    "v": int,
    "node": str,
    "seq": int,
    "prev": str,
    "epoch": str,
    "boot_id": str,
    "boot_ns": int,
    "utc": str,
    "kind": str,
    "body": dict,
}
_RECEIPT_FIELDS = {"v": int, "station": str, "node": str, "seq": int, "head": str, "time": str, "prev": str}
_SEGMENT_FIELDS = {"name": str, "boot_id": str, "start_ns": int, "end_ns": int, "bytes": int, "sha256": str}


def sound_manifest(manifest: Any) -> bool:
    """Whether it has all that the check reads, of the right types, and names no file twice."""
    fields = {"v": int, "node": str, "range": dict, "files": list, "segments": list, "missing": list}
    if not typed(manifest, fields) or manifest["v"] != 1:
        return False
    if not typed(manifest["range"], {"from": str, "to": str, "boots": list}):
        return False
    parts: tuple[tuple[list[Any], dict[str, type]], ...] = (
        (manifest["files"], {"name": str, "bytes": int, "sha256": str}),
        (manifest["segments"], {"name": str, "sealed": bool}),
        (manifest["missing"], {"name": str, "why": str}),
        (manifest["range"]["boots"], {"boot_id": str, "from_ns": int, "to_ns": int}),
    )
    if not all(typed(entry, wanted) for entries, wanted in parts for entry in entries):
        return False
    return len({entry["name"] for entry in manifest["files"]}) == len(manifest["files"])


_PACKAGE = re.compile(PACKAGES + r"([a-z0-9-]{1,32})\.zip")


def sound_case(manifest: Any) -> bool:
    """Whether the manifest of a case has all that the check reads, of the right types, and names no file twice."""
    fields = {"v": int, "what": str, "site": str, "case": int, "number": str, "who": str, "reason": str}
    fields = {**fields, "made": dict, "packages": list, "without": list, "files": list}
    if not typed(manifest, fields) or manifest["v"] != 1 or manifest["what"] != CASE_WHAT:
        return False
    packages, files, without = manifest["packages"], manifest["files"], manifest["without"]
    stated = {"name": str, "bytes": int, "sha256": str}
    sound = all(typed(entry, {**stated, "post": str}) for entry in packages)
    sound = sound and all(typed(entry, stated) for entry in files)
    sound = sound and all(typed(entry, {"post": str, "why": str}) for entry in without)
    if not sound or not 0 < len(packages) <= PACKAGES_MAX or not typed(manifest["made"], {"utc": str}):
        return False
    names = [entry["name"] for entry in (*packages, *files)]
    posts = [entry["post"] for entry in (*packages, *without)]
    ours = all(entry["name"] == f"{PACKAGES}{entry['post']}.zip" for entry in packages)
    ours = ours and all(_PACKAGE.fullmatch(entry["name"]) for entry in packages)
    ours = ours and not any(entry["name"].startswith(PACKAGES) for entry in files)
    return ours and len(set(names)) == len(names) and len(set(posts)) == len(posts)


_HEX = re.compile("[0-9a-f]{64}")
_RETIRED = "it is signed with key %s, which record %d has replaced: somebody uses a key of the past"


def sound_opening(opening: Any) -> bool:
    """Whether it has all that the check reads, of the right types, and names no file twice."""
    fields = {"v": int, "manifest": str, "key": str, "who": str, "made": dict, "files": list, "clip": dict}
    if not typed(opening, fields) or opening["v"] != 1 or not typed(opening["made"], {"utc": str}):
        return False
    clip = opening["clip"]
    if not typed(clip, {"files": list, "first": int, "samples": int}):
        return False
    entry = {"name": str, "bytes": int, "sha256": str, "of": str, "key": str}
    if not all(typed(found, entry) for found in opening["files"]) or not all(isinstance(n, str) for n in clip["files"]):
        return False
    if not all(_HEX.fullmatch(found["key"]) if found["of"] else not found["key"] for found in opening["files"]):
        return False
    names, originals_of = ([found[field] for found in opening["files"]] for field in ("name", "of"))
    once = len(set(names)) == len(names) and len(set(filter(None, originals_of))) == len(
        list(filter(None, originals_of))
    )
    return once and (opening["key"] == "" or bool(_HEX.fullmatch(opening["key"])))


class Line(NamedTuple):
    """A signed line, taken apart."""

    where: str
    digest: str
    key: str
    signed: bytes
    signature: bytes
    payload: dict[str, Any]


def typed(value: Any, fields: dict[str, type]) -> bool:
    """Whether a JSON object has these fields, of these types."""
    return isinstance(value, dict) and all(
        isinstance(value.get(name), kind) and not (kind is int and isinstance(value.get(name), bool))
        for name, kind in fields.items()
    )


def open_line(where: str, raw: bytes, kind: str, fields: dict[str, type]) -> Line:
    """Takes a DSSE line apart. Raises ValueError with what is wrong."""
    try:
        wrapper = parse(raw)
        (signature,) = wrapper["signatures"]
        payload = unbase64(wrapper["payload"])
        key, sig = signature["keyid"], unbase64(signature["sig"])
    except (ValueError, KeyError, TypeError):
        raise ValueError("it is no signed line") from None
    spelled = {
        "payloadType": kind,
        "payload": wrapper["payload"],
        "signatures": [{"keyid": key, "sig": signature["sig"]}],
    }
    if json.dumps(spelled, separators=(",", ":"), ensure_ascii=False).encode() != raw:
        raise ValueError(f"it is no line of the type {kind}, or written in another way than a node does")
    try:
        content = parse(payload)
    except ValueError:
        content = None
    if not typed(content, fields) or content["v"] != 1 or not isinstance(key, str):
        raise ValueError("its content lacks something, or is of another version")
    return Line(where, hashlib.sha256(raw).hexdigest(), key, pae(kind, payload), sig, content)


class Check:
    """One package under examination. After `run`, `findings`, `notes` and `proves` tell the result."""

    manifest_type = PACKAGE_TYPE

    def __init__(self, file: BinaryIO, trusted: list[bytes], ed25519: Any = None) -> None:
        self.findings = Findings()
        self.package = Package(file, self.findings)
        self.trusted = trusted
        self.ed25519 = ed25519 or OpenSsl()
        self.manifest: dict[str, Any] = {}
        self.stated: dict[str, tuple[int, str]] = {}  # name -> size, sha256 of the manifest
        self.hashes: dict[str, str] = {}
        self.node_keys: dict[str, bytes] = {}
        self.station_keys: dict[str, bytes] = {}
        self.records: list[Line] = []
        self.receipts: list[Line] = []
        self.extraction: Optional[Line] = None  # noqa: UP045
        self.opening: dict[str, Any] = {}  # empty: this package was not opened
        self.opened: dict[str, dict[str, Any]] = {}  # name -> its entry in opening.json
        self.locked: dict[str, str] = {}  # name of a sealed original -> its opened twin, or empty
        self.opener = ""  # key id of whoever signed the opening
        self.signer = ""  # key id of whoever signed the manifest
        self.introductions: list[Line] = []
        self.signatures: list[tuple[Signed, str, str, str]] = []
        self.notes: list[str] = []
        self.proves: list[str] = []
        self.trust = "not compared with a key known from elsewhere"

    def run(self) -> None:
        """Raises NotAPackage only."""
        try:
            self.package.open()
            self._manifest()
            self._read_opening()
            self._hash_all()
            self._keys()
            self._signature_of_manifest()
            self._signature_of_opening()
            self._ledger()
            self._introduced()
            self._receipts()
            self._trail()
            self._extraction()
            self._segments()
            self._check_signatures()
            self._opened()
            self._clip()
            self._trust()
        except Stop:
            return
        except BadMedia as error:
            self._add("media", "package", str(error))
        if not self.findings.items:
            self._say()

    def _add(self, code: str, where: str, says: str) -> None:
        self.findings.add(code, where, says)

    def _manifest(self) -> None:
        try:
            manifest = parse(self.package.read(self.package.members[MANIFEST], MANIFEST_BYTES_MAX))
        except ValueError:
            manifest = None
        if isinstance(manifest, dict) and manifest.get("what") == CASE_WHAT:
            self._add(
                "manifest", MANIFEST, "it is the package of a case: unpack it, and take those in packages/ by one"
            )
            raise Stop
        if not sound_manifest(manifest):
            self._add("manifest", MANIFEST, "it is damaged, or not of a version that this program reads")
            raise Stop
        self.manifest = manifest
        self.stated = {entry["name"]: (entry["bytes"], entry["sha256"]) for entry in manifest["files"]}
        for name in self.package.members:
            if name.startswith(PACKAGES):
                self._add("extra-file", name, "a package in the package of one post: only that of a case holds others")

    def _hash_all(self) -> None:
        """Each file once: its hash, and the zip's own checksum."""
        for whose, names in (("the manifest", self.stated), ("opening.json", self.opened)):
            for name in sorted(set(names) - set(self.package.members)):
                self._add("missing-file", printable(name), f"{whose} names this file, the package does not hold it")
        for member in self.package.members.values():
            digest, crc = hashlib.sha256(), 0
            for data in self.package.chunks(member):
                digest.update(data)
                crc = zlib.crc32(data, crc)
            self.hashes[member.name] = digest.hexdigest()
            if member.name in (MANIFEST, SIGNATURE, OPENING, OPENING_SIGNATURE):
                if crc != member.crc:
                    self._add("altered-file", member.name, "its contents do not fit the checksum of the zip")
                continue
            entry = self.opened.get(member.name)
            stated = (entry["bytes"], entry["sha256"]) if entry else self.stated.get(member.name)
            if stated is None:
                self._add("extra-file", member.name, "the manifest does not know this file")
            elif stated != (member.size, self.hashes[member.name]):
                self._add("altered-file", member.name, self._altered(member))
            elif crc != member.crc:
                self._add("structure", member.name, "the zip's checksum of this file was altered")

    def _altered(self, member: Member) -> str:
        """Where a file that is not what the manifest says was altered."""
        if member.name in self.opened:
            return "it is not the file of which opening.json speaks"
        if not member.name.startswith("segments/"):
            return "it is not the file that the manifest was signed for"
        hashes = {sha: name for name, (_, sha) in self.stated.items()}
        found = self.hashes[member.name]
        if found in hashes:
            return f"its place holds {hashes[found]}: files were swapped, or one was put in twice"
        return self._damage(member.name, self.stated[member.name][0])

    @property
    def by_station(self) -> bool:
        """Whether the station put the package together, and not the node."""
        return bool(self.manifest.get("maker") == "station")

    def _keys(self) -> None:
        for member in self.package.members.values():
            if not member.name.startswith("keys/"):
                continue
            found = re.fullmatch(r"keys/(node|station)-([0-9a-f]{16})\.pem", member.name)
            if not found:
                continue  # a certificate of somebody else's
            raw = raw_key(self.package.read(member, 4096))
            if raw is None or key_id(raw) != found.group(2):
                self._add("foreign-key", member.name, "the file does not hold the key that its name names")
                continue
            (self.node_keys if found.group(1) == "node" else self.station_keys)[key_id(raw)] = raw

    def _read_opening(self) -> None:
        """What somebody with the station's key has added. Nobody signs for its shape, so it has one spelling."""
        member = self.package.members.get(OPENING)
        if member is None:
            return
        data = self.package.read(member, MANIFEST_BYTES_MAX)
        try:
            found = parse(data)
            if not sound_opening(found) or json.dumps(found, indent=1).encode() + b"\n" != data:
                raise ValueError
        except (ValueError, RecursionError):
            self._add("opening", OPENING, "it is damaged, or not of a version that this program reads")
            raise Stop from None
        names = {entry["name"] for entry in found["files"]}
        if names & set(self.stated) or not all(name.startswith("opened/") for name in names):
            self._add("opening", OPENING, "it speaks of files that are the node's")
            raise Stop
        manifest = self.package.read(self.package.members[MANIFEST], MANIFEST_BYTES_MAX)
        if hashlib.sha256(manifest).hexdigest() != found["manifest"]:
            self._add("opening", OPENING, "it is the opening of another package than this")
        self.opening = found
        self.opened = {entry["name"]: entry for entry in found["files"]}

    def _signature_in(self, name: str, kind: str) -> Optional[tuple[Any, bytes]]:  # noqa: UP045
        """(key id, signature) of a file that holds nothing else; None for anything but its one spelling."""
        data = self.package.read(self.package.members[name], 4096)
        try:
            found = parse(data)
            (signature,) = found["signatures"]
            key, sig = signature["keyid"], unbase64(signature["sig"])
            again = {"payloadType": kind, "signatures": [{"keyid": key, "sig": signature["sig"]}]}
            if json.dumps(again, separators=(",", ":")).encode() + b"\n" != data:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            return None
        return key, sig

    def _signature_of_opening(self) -> None:
        """Who opened it: a question of its own, for what was opened is checked without that."""
        if not self.opening:
            if OPENING_SIGNATURE in self.package.members:
                self._add("extra-file", OPENING_SIGNATURE, "a signature without what it is for")
            return
        by = self.opening["key"]
        if (by == "") != (OPENING_SIGNATURE not in self.package.members):
            self._add("opening", OPENING, "it names a signer and has no signature, or the other way round")
        elif by:
            found = self._signature_in(OPENING_SIGNATURE, OPENING_TYPE)
            if found is None:
                self._add("opening-signature", OPENING_SIGNATURE, "the signature of the opening is damaged")
                return
            raw = bytes.fromhex(by)
            self.opener = key_id(raw)
            content = self.package.read(self.package.members[OPENING], MANIFEST_BYTES_MAX)
            self._sign(
                found[0],
                {self.opener: raw},
                pae(OPENING_TYPE, content),
                found[1],
                "opening-signature",
                OPENING,
                "its signature is not right: opening.json was altered after it was signed",
            )

    def _signature_of_manifest(self) -> None:
        if SIGNATURE not in self.package.members:
            self._add("unsigned", MANIFEST, "nobody has signed the manifest: who made this package is not proved")
            return
        found = self._signature_in(SIGNATURE, self.manifest_type)
        if found is None:
            self._add("manifest-signature", SIGNATURE, "the signature of the manifest is damaged")
            return
        key, sig = found
        self.signer = str(key)
        content = self.package.read(self.package.members[MANIFEST], MANIFEST_BYTES_MAX)
        self._sign(
            key,
            self.station_keys if self.by_station else self.node_keys,
            pae(self.manifest_type, content),
            sig,
            "manifest-signature",
            MANIFEST,
            "its signature is not right: the manifest was altered after it was signed",
        )

    def _sign(
        self, key: Any, keys: dict[str, bytes], message: bytes, signature: bytes, code: str, where: str, says: str
    ) -> None:
        """Puts a signature on the list; a key that is not known is a finding at once."""
        raw = keys.get(key) if isinstance(key, str) else None
        if raw is None:
            self._add("foreign-key", where, f"signed by the key {printable(str(key))}, which is none of this package's")
        else:
            self.signatures.append((Signed(raw, message, signature), code, where, says))

    def _check_signatures(self) -> None:
        for right, (_, code, where, says) in zip(  # noqa: B905
            self.ed25519.check([signed for signed, _, _, _ in self.signatures]), self.signatures
        ):
            if not right:
                self._add(code, where, says)

    def _lines(self, name: str, kind: str, fields: dict[str, type], code: str) -> Iterator[Line]:
        member = self.package.members.get(name)
        if member is None:
            return
        if member.size > META_BYTES_MAX:
            self._add("limit", name, f"{member.size} bytes; this verifier reads {META_BYTES_MAX} at most")
            raise Stop
        for number, raw in self.package.lines(member):
            if number > LINES_MAX:
                self._add("limit", name, f"more than {LINES_MAX} lines")
                raise Stop
            where = f"{name} line {number}"
            try:
                yield open_line(where, raw, kind, fields)
            except ValueError as error:
                self._add(code, where, str(error))

    def _ledger(self) -> None:
        """Signatures, the chain, and the numbers: what was dropped, swapped, played twice, replaced."""
        if LEDGER not in self.package.members:
            self._add("no-ledger", LEDGER, "the package has no ledger: nothing says what was recorded when")
            return
        keys = dict(self.node_keys)
        before: Optional[Line] = None  # noqa: UP045
        seen: dict[int, str] = {}
        for line in self._lines(LEDGER, RECORD_TYPE, _RECORD_FIELDS, "record"):
            payload = line.payload
            where = f"{line.where}, record {payload['seq']}"
            if payload["node"] != self.manifest["node"]:
                self._add("foreign-record", where, f"a record of {printable(payload['node'])}, not of this node")
            self._sign(
                line.key,
                keys,
                line.signed,
                line.signature,
                "record-signature",
                where,
                "its signature is not right: the record was altered, or signed again by another key",
            )
            self._follows(before, line, where, seen)
            seen[payload["seq"]] = line.digest
            self.records.append(line)
            before = line

    def _follows(self, before: Optional[Line], line: Line, where: str, seen: dict[int, str]) -> None:  # noqa: UP045
        if before is None:
            return
        seq, last = line.payload["seq"], before.payload["seq"]
        if seq in seen:
            same = seen[seq] == line.digest
            self._add(
                "replayed-record" if same else "fork",
                where,
                "this record stands here for the second time" if same else f"two records have the number {seq}",
            )
        elif seq <= last:
            self._add("swapped-record", where, f"it stands behind record {last}: the order was changed")
        elif seq > last + 1:
            what = f"record {last + 1} is" if seq == last + 2 else f"records {last + 1} to {seq - 1} are"
            self._add("dropped-record", where, f"{what} missing")
        elif line.payload["prev"] != before.digest:
            self._add("chain-break", where, f"it does not follow the record {last} that stands before it")

    def _introduced(self) -> None:
        """Each key of the node must come from the one that signed the first record here, by records of kind `key`.

        Else whoever has any key of his own could put it beside the node's, and sign the manifest anew with it. A key
        that is trusted from elsewhere needs no introduction.
        """
        for line in self._lines(KEYS, RECORD_TYPE, _RECORD_FIELDS, "record"):
            where = f"{KEYS}, record {line.payload['seq']}"
            says = "its signature is not right: the record was altered, or signed again by another key"
            self._sign(line.key, self.node_keys, line.signed, line.signature, "record-signature", where, says)
            if line.payload["node"] != self.manifest["node"] or line.payload["kind"] != "key":
                self._add("foreign-record", where, "it does not introduce a key of this node")
            if not self.records or line.payload["seq"] <= self.records[-1].payload["seq"]:
                self._add("swapped-record", where, "it does not come after the ledger in this package")
            self.introductions.append(line)
        known = {self.records[0].key if self.records else self.signer}
        known |= {key_id(raw) for raw in self.trusted}
        retired: dict[str, int] = {}  # by which record
        for line in sorted([*self.records, *self.introductions], key=lambda line: int(line.payload["seq"])):
            if line.key in retired:
                self._add("retired-key", line.where, _RETIRED % (line.key[:16], retired[line.key]))
                continue
            public = line.payload["body"].get("public")
            if (
                line.payload["kind"] == "key"
                and line.key in known
                and isinstance(public, str)
                and _HEX.fullmatch(public)
            ):
                new = key_id(bytes.fromhex(public))
                known.add(new)
                if new != line.key:
                    retired[line.key] = line.payload["seq"]
        if self.signer in retired:
            self._add("retired-key", MANIFEST, _RETIRED % (self.signer[:16], retired[self.signer]))
        for name in sorted(set(self.node_keys) - known):
            self._add("foreign-key", f"keys/node-{name}.pem", "no key of the node before it has introduced this one")

    def _receipts(self) -> None:
        """What the station signed: a record it has seen cannot be exchanged any more."""
        by_seq = {line.payload["seq"]: line.digest for line in self.records}
        before: Optional[Line] = None  # noqa: UP045
        for line in self._lines(RECEIPTS, RECEIPT_TYPE, _RECEIPT_FIELDS, "receipt"):
            payload = line.payload
            where = f"{line.where}, receipt for record {payload['seq']}"
            if payload["node"] != self.manifest["node"]:
                self._add("foreign-receipt", where, f"a receipt for {printable(payload['node'])}, not for this node")
            self._sign(
                line.key,
                self.station_keys,
                line.signed,
                line.signature,
                "receipt-signature",
                where,
                "its signature is not right: the receipt was altered, or made by somebody else",
            )
            if before is not None and payload["seq"] <= before.payload["seq"]:
                self._add("receipt-order", where, "it stands behind a receipt for a later record")
            if payload["seq"] in by_seq and by_seq[payload["seq"]] != payload["head"]:
                self._add(
                    "rewritten",
                    where,
                    f"the station has signed another record {payload['seq']}: the ledger was rewritten after it",
                )
            try:
                when(payload["time"])
            except ValueError:
                self._add("receipt", where, "it names no time")
            self.receipts.append(line)
            before = line
        self._named_receipts()

    def _named_receipts(self) -> None:
        """A record names the newest receipt that the node had: it must be older, and it must be here.

        The receipts' own chain has holes on a node that was offline; only the station holds all of it.
        """
        numbers = {line.digest: line.payload["seq"] for line in self.receipts}
        first, last = min(numbers.values(), default=0), max(numbers.values(), default=0)
        for line in self.records:
            named, seq = line.payload.get("receipt"), line.payload["seq"]
            if not isinstance(named, str):
                continue
            if numbers.get(named, 0) >= seq:
                self._add("receipt-order", line.where, "it names a receipt that was given for a later record")
            elif named not in numbers and first < seq <= last:
                self._add("dropped-receipt", line.where, "it names a receipt that is not in the package")

    def _trail(self) -> None:
        """Lines of the station's audit log: each signed by it; which others there are between them is not shown."""
        if TRAIL in self.package.members and not self.by_station:
            self._add("extra-file", TRAIL, "an audit log in a package that no station has made")
        before: Optional[Line] = None  # noqa: UP045
        for line in self._lines(TRAIL, RECORD_TYPE, _RECORD_FIELDS, "trail"):
            says = "its signature is not right: the line was altered, or signed again by another key"
            self._sign(line.key, self.station_keys, line.signed, line.signature, "trail-signature", line.where, says)
            if before is not None:
                step = line.payload["seq"] - before.payload["seq"]
                if step <= 0 or (step == 1 and line.payload["prev"] != before.digest):
                    self._add("trail", line.where, "it does not follow the line before it")
            before = line

    def _extraction(self) -> None:
        """The export itself stands on the ledger, with the hash of what was taken out."""
        for line in self._lines(EXTRACTION, RECORD_TYPE, _RECORD_FIELDS, "record"):
            payload = line.payload
            where = f"{EXTRACTION}, record {payload['seq']}"
            self._sign(
                line.key,
                self.node_keys,
                line.signed,
                line.signature,
                "record-signature",
                where,
                "its signature is not right: the record was altered, or signed again by another key",
            )
            twin = [other for other in self.records if other.payload["seq"] == payload["seq"]]
            if twin and twin[0].digest != line.digest:
                self._add("fork", where, "the ledger has another record of this number")
            elif self._next(payload["seq"]) and payload["prev"] != self.records[-1].digest:
                self._add("chain-break", where, "it does not follow the ledger's last record in this package")
            if payload["node"] != self.manifest["node"] or payload["kind"] != "extraction":
                self._add("extraction", where, "it does not tell of an export by this node")
            elif payload["body"].get("content") != self.content():
                self._add("extraction", where, "it tells of an export of other files than these")
            else:
                for name in ("who", "reason"):
                    if payload["body"].get(name) != self.manifest.get(name):
                        self._add("extraction", where, f"it names another `{name}` than the manifest")
            self.extraction = line

    def _next(self, seq: int) -> bool:
        return bool(self.records) and bool(seq == self.records[-1].payload["seq"] + 1)

    def content(self) -> str:
        """One hash for all footage of the package, as the record of the export has it."""
        digest = hashlib.sha256()
        for name, (_, sha) in sorted(self.stated.items()):
            if name.endswith(".mp4") or name == "coverage.json":
                digest.update(f"{sha}  {name}\n".encode("utf-8", "replace"))
        return digest.hexdigest()

    def _segments(self) -> None:
        """Each original file against the record that the node made when it sealed it."""
        sealed: dict[str, dict[str, Any]] = {}
        deleted: set[str] = set()
        for line in self.records:
            body = line.payload["body"]
            if line.payload["kind"] == "segment" and typed(body, _SEGMENT_FIELDS):
                sealed[body["name"]] = body
            elif line.payload["kind"] == "deletion" and isinstance(body.get("segments"), list):
                deleted |= {str(row.get("name")) for row in body["segments"] if isinstance(row, dict)}
        listed = {entry["name"] for entry in self.manifest["segments"]}
        present = {name for name in self.package.members if name.startswith("segments/")}
        for entry in self.manifest["segments"]:
            if entry["name"] in present:  # a missing one has been named already
                self._against_ledger(entry["name"], entry["sealed"], sealed)
        for name in sorted(present - listed):
            self._add("manifest", printable(name), "the manifest does not list this file as footage")
        excused = {entry["name"] for entry in self.manifest["missing"]} | deleted | listed
        boots = {boot["boot_id"]: boot for boot in self.manifest["range"]["boots"]}
        for name, body in sealed.items():
            boot = boots.get(body["boot_id"])
            if boot and name not in excused and body["end_ns"] > boot["from_ns"] and body["start_ns"] < boot["to_ns"]:
                self._add("dropped-footage", printable(name), "the ledger says that it was recorded in this time")

    def _against_ledger(self, name: str, is_sealed: bool, sealed: dict[str, dict[str, Any]]) -> None:
        body = sealed.get(name)
        if not is_sealed:
            if self.extraction is None:
                self._add("not-on-ledger", name, "no signed record tells of this file")
            return
        if body is None:
            self._add("not-on-ledger", name, "the ledger in this package does not know this file")
            return
        found = self.hashes[name]
        if found == body["sha256"] or self.stated.get(name, (0, ""))[1] != found:
            return  # right; or altered behind the manifest's back, and that was said
        others = [printable(other) for other, row in sealed.items() if row["sha256"] == found]
        if others:
            says = f"it is {others[0]}: files were swapped, or one was put in twice"
        else:
            says = self._damage(name, body["bytes"])
        self._add("altered-file", name, f"not the file that the ledger has recorded: {says}")

    def _damage(self, name: str, size: int) -> str:
        """Where an original stops being what it was. `size`: what it should have."""
        member = self.package.members[name]
        seen = scan(self.package.view(member))
        if seen.problem:
            return f"altered: {seen.problem}; {second_of(seen.header, seen.fragments)}"
        if member.size < size:
            return f"truncated behind fragment {len(seen.fragments)}, {second_of(seen.header, seen.fragments)}"
        return "whole in itself, but not what was recorded: another file was put in its place"

    def _opened(self) -> None:
        """Each opened file against its sealed original: one key fits, and with it one content."""
        if self.findings.items:
            if self.opening:
                self.notes.append("opened/ was not compared with the originals, for something else is wrong")
            return
        twins = {entry["of"]: entry for entry in self.opened.values() if entry["of"]}
        members = self.package.members
        for listed in self.manifest["segments"]:
            name = listed["name"]
            if name not in members:
                continue
            view = self.package.view(members[name])
            seen = scan(view) if name in twins else Scan(header_of(view), [], "")
            commit = locked_with(seen.header)
            if commit:
                entry = twins.pop(name, None)
                self.locked[name] = entry["name"] if entry else ""
                if entry is not None:
                    self._against_sealed(view, seen, commit, entry)
                elif self.opening:
                    self._add("opening", printable(name), "it was left sealed, though the package was opened")
        for name in twins:
            self._add("opening", printable(str(name)), "an opening of a file that is not sealed, or not here")
        if self.opening and not self.locked:
            self._add("opening", OPENING, "nothing in this package was sealed")

    def _against_sealed(self, view: View, seen: Scan, commit: str, entry: dict[str, Any]) -> None:
        key = bytes.fromhex(entry["key"])
        if seen.problem:
            self._add("opening", entry["name"], f"its original is damaged: {seen.problem}")
        elif commit == "?":
            self._add("opening-key", entry["name"], "its original does not say which key fits: nothing can be proved")
        elif not fits(key, commit):
            self._add("opening-key", entry["name"], "the key is not the one with which the node sealed this file")
        else:
            opened = self.package.view(self.package.members[entry["name"]])
            wrong = compare_opened(view, seen, opened, key, self.ed25519)
            if wrong:
                self._add("opening", entry["name"], wrong)

    def _clip(self) -> None:
        clip, prefix = self.manifest.get("clip"), ""
        if self.opening:
            if clip is not None:
                self._add("opening", OPENING, "the node itself made a clip: nothing of it was sealed")
                return
            clip, prefix = self.opening["clip"], "opened/"
            if {name for name, entry in self.opened.items() if not entry["of"]} != set(clip["files"]):
                self._add("opening", OPENING, "it speaks of files that are neither originals nor the clip")
                return
        if clip is None:
            return
        if not typed(clip, {"files": list, "first": int, "samples": int}) or clip["first"] < 0:
            self._add("manifest", MANIFEST, "what it says of the clip makes no sense")
            return
        if self.findings.items:
            self.notes.append(f"{prefix}clip.mp4 was not compared with the originals, for something else is wrong")
            return
        members = self.package.members
        names = [entry["name"] for entry in self.manifest["segments"]]
        names = [self.locked.get(name) or name for name in names]
        if any(name not in members for name in (*clip["files"], *names)):
            self._add("missing-file", f"{prefix}clip.mp4", "the clip or an original of it is missing")
            return
        views = [self.package.view(members[name]) for name in names]
        wrong = compare_clip(
            views, [self.package.view(members[n]) for n in clip["files"]], clip["first"], clip["samples"]
        )
        if wrong:
            self._add("clip", f"{prefix}clip.mp4", wrong)

    def _trust(self) -> None:
        if not self.trusted:
            return
        known = {key_id(raw) for raw in self.trusted}
        if known & set(self.node_keys) and self.by_station and self.signer not in known:
            # or else anybody could thin out a node's package and sign what is left as a station of his own
            says = "the station that put this together is not one whose key you trust: name that key, too"
            self._add("foreign-key", "keys", says)
        elif known == {self.opener} and not known & {*self.node_keys, *self.station_keys}:
            self.trust = "opened by somebody whose key you trust; the keys of node and station were not compared"
        elif known & self._vouching():
            self.trust = "signed by a node's key that you trust"
            if not set(self.node_keys) <= known:
                self.notes.append("the package also holds older or newer keys of the node, which you have not named")
        elif known & set(self.station_keys):
            seen = self._received(known)
            if seen:
                self.trust = "its records were received by a station whose key you trust"
                late = sum(
                    1 for line in self.records if line.payload["seq"] > seen and line.payload["kind"] == "segment"
                )
                if late:
                    self.notes.append(f"the station's receipts do not reach the records of the last {late} files")
            elif self.signer in known:
                self.trust = "put together and signed by a station whose key you trust"
            else:
                self._add("foreign-key", "keys", "no record here has a receipt by the station whose key you trust")
        else:
            self._add("foreign-key", "keys", "the package is signed by other keys than those that you trust")

    def _vouching(self) -> set[str]:
        """Keys of the node that answer for all of it: that of the first record, from which the others come, and that
        which signed the manifest, and so every byte. A key that merely lies here does not.
        """
        return {self.signer, *(line.key for line in self.records[:1])} & set(self.node_keys)

    def _received(self, known: set[str]) -> int:
        """The last record here that a trusted station has seen as it is; those before it are bound by the chain."""
        by_seq = {line.payload["seq"]: line.digest for line in self.records}
        mine = (line.payload for line in self.receipts if line.key in known)
        return max((said["seq"] for said in mine if by_seq.get(said["seq"]) == said["head"]), default=0)

    # -- what it comes to ---------------------------------------------------------------------------------------------

    def bracket(self) -> tuple[Optional[str], Optional[str]]:  # noqa: UP045
        """The files' records were made (after, before), by the station's clock; None: no receipt bounds that side."""
        numbers = [
            line.payload["seq"]
            for line in self.records
            if line.payload["kind"] == "segment" and line.payload["body"].get("name") in self.hashes
        ]
        if not numbers:
            return None, None
        named = {line.digest: line for line in self.receipts}
        after = before = None
        for line in self.records:
            receipt = named.get(str(line.payload.get("receipt")))
            if line.payload["seq"] == numbers[0] and receipt is not None:
                after = self._moment(receipt, -1)
        for line in self.receipts:
            if line.payload["seq"] >= numbers[-1]:
                before = self._moment(line, 1)
                break
        return after, before

    @staticmethod
    def _moment(line: Line, side: int) -> str:
        unc = line.payload.get("unc_ms")
        moment = when(line.payload["time"])
        if isinstance(unc, int) and 0 <= unc < 1 << 40:
            return rfc3339(moment + side * unc * 1_000_000)
        return rfc3339(moment) + " (nobody vouched for the station's clock)"

    def _say(self) -> None:
        segments = self.manifest["segments"]
        unsealed = [entry["name"] for entry in segments if not entry["sealed"]]
        self.proves.append(
            f"the {len(segments)} files of footage are, byte for byte, those that {printable(self.manifest['node'])} "
            f"recorded and signed for; no byte of the package was changed since the export"
        )
        if self.opening:
            self.proves.append(
                f"the {sum(1 for twin in self.locked.values() if twin)} files in opened/ are, byte for byte, what the"
                " sealed originals hold: there is no other content that the node could have sealed in them"
            )
            self._say_opener()
        elif self.locked:
            self.notes.append(
                f"{len(self.locked)} files are sealed to the station: they are those that the node recorded, but nobody"
                " can see what they show before they are opened there (wardpost open)"
            )
        if self.opening or self.manifest.get("clip") is not None:
            self.proves.append("the clip shows exactly these pictures, in order, at their own speed (holes closed)")
        if self.by_station:
            self.notes.append(
                "the station has put this together from what it had; what is missing, the coverage, the case and the"
                " lines of its audit log are the station's word"
            )
            self.notes.extend(left_out(self.package))
            named = {line.payload.get("receipt") for line in self.records}
            if not any(line.key == self.signer and line.digest in named for line in self.receipts):
                self.notes.append("no record of the node here names a receipt by this key of the station: compare it")
        after, before = self.bracket()
        if after:
            self.proves.append(f"the node made the records of these files after {after}, by the station's clock")
        if before:
            self.proves.append(f"the files existed, as they are, before {before}, by the station's clock")
        for name in unsealed:
            self.notes.append(f"{printable(name)} was being written: only the record of the export vouches for it")
        if not before:
            self.notes.append("no receipt of the station bounds the time from above: when, only the node's clock says")

    def _say_opener(self) -> None:
        who = printable(self.opening["who"]) or "somebody"
        if not self.opener:
            self.notes.append(
                f"nobody has signed the opening by {who}: what was opened is proved all the same; the words about it,"
                " and what the clip's file holds besides its pictures, are not"
            )
            return
        if self.opener in self.station_keys:
            key = "the station whose receipts are here"
        elif self.opener in {key_id(raw) for raw in self.trusted}:
            key = "a key that you trust"
        else:
            key = f"the key {hashlib.sha256(bytes.fromhex(self.opening['key'])).hexdigest()}; compare it as well"
        self.notes.append(f"opened by {who} at {printable(self.opening['made']['utc'])}, signed by {key}")

    def result(self) -> dict[str, Any]:
        """Everything, for JSON."""
        after, before = self.bracket() if self.manifest and not self.findings.items else (None, None)
        return {
            "verdict": "not verified" if self.findings.items else "verified",
            "findings": [finding._asdict() for finding in self.findings.items],
            "findings_more": self.findings.more,
            "proves": self.proves,
            "does_not_prove": list(LIMITS),
            "notes": self.notes,
            "trust": self.trust,
            "node": printable(str(self.manifest.get("node", ""))),
            "range": {k: printable(str(self.manifest.get("range", {}).get(k, ""))) for k in ("from", "to")},
            "node_keys": sorted(hashlib.sha256(raw).hexdigest() for raw in self.node_keys.values()),
            "station_keys": sorted(hashlib.sha256(raw).hexdigest() for raw in self.station_keys.values()),
            "recorded_after": after,
            "recorded_before": before,
            "files": len(self.package.members),
            "segments": len(self.manifest.get("segments", [])),
            "locked": len(self.locked),
            "opened": sum(1 for twin in self.locked.values() if twin),
            "records": len(self.records),
            "receipts": len(self.receipts),
        }


class CaseCheck(Check):
    """The package of a case under examination, and then each package in it."""

    manifest_type = CASE_TYPE

    def __init__(
        self,
        file: BinaryIO,
        trusted: list[bytes],
        one: Callable[[BinaryIO], Check],
        ed25519: Any = None,
    ) -> None:
        """`one`: the check of the package of one post."""
        super().__init__(file, trusted, ed25519)
        self._one = one
        self.inside: dict[str, Check] = {}  # by the name of the package; of those that could be examined

    def run(self) -> None:
        """Raises NotAPackage only."""
        try:
            self.package.open()
            self._manifest()
            self._hash_all()
            self._keys()
            self._signature_of_manifest()
            self._trail()
            self._check_signatures()
            self._case()
            self._trust()
            for entry in self.manifest["packages"]:
                if entry["name"] in self.package.members:
                    self._examine(entry["name"], entry["post"])
        except Stop:
            return
        if not self.findings.items:
            self._say()

    @property
    def by_station(self) -> bool:
        """Nobody else makes one."""
        return True

    def _manifest(self) -> None:
        try:
            manifest = parse(self.package.read(self.package.members[MANIFEST], MANIFEST_BYTES_MAX))
        except ValueError:
            manifest = None
        if not sound_case(manifest):
            self._add("manifest", MANIFEST, "it is damaged, or not of a version that this program reads")
            raise Stop
        self.manifest = manifest
        entries = (*manifest["packages"], *manifest["files"])
        self.stated = {entry["name"]: (entry["bytes"], entry["sha256"]) for entry in entries}

    def _altered(self, member: Member) -> str:
        found = self.hashes[member.name]
        for name, (_, sha) in self.stated.items():
            if sha == found:
                return f"its place holds {printable(name)}: files were swapped, or one was put in twice"
        return "it is not the file that the manifest was signed for"

    def _case(self) -> None:
        """case.json is the case of which the manifest speaks, and each of its posts is here or said not to be."""
        member = self.package.members.get(CASE)
        try:
            case = None if member is None else parse(self.package.read(member, META_BYTES_MAX))
        except ValueError:
            case = None
        if not isinstance(case, dict) or not typed(case, {"case": int, "number": str, "posts": list}):
            self._add("case", CASE, "it is missing, damaged, or not of a version that this program reads")
            raise Stop
        if (case["case"], case["number"]) != (self.manifest["case"], self.manifest["number"]):
            self._add("case", CASE, "it is another case than that of the manifest")
        posts = {entry["post"] for entry in (*self.manifest["packages"], *self.manifest["without"])}
        for post in sorted({str(post) for post in case["posts"]} ^ posts):
            self._add("case", CASE, f"{printable(post)}: a post of the case or of the manifest, not of both")

    def _examine(self, name: str, post: str) -> None:
        check = self._one(io.BufferedReader(ViewFile(self.package.view(self.package.members[name]))))
        try:
            check.run()
        except NotAPackage as error:
            self._add("not-a-package", name, str(error))
            return
        for finding in check.findings.items:
            self._add(finding.code, f"{name}: {finding.where}", finding.says)
        self.findings.more += check.findings.more
        if not check.manifest:
            return
        self.inside[name] = check
        if check.manifest["node"] != f"{self.manifest['site']}/{post}":
            says = f"it is the package of {printable(check.manifest['node'])}, not of this post"
            self._add("foreign-package", name, says)
        if not check.by_station or check.signer != self.signer:
            self._add("foreign-package", name, "it is not signed by the station that has signed for the case")
        for told in (CASE, TRAIL):
            if check.hashes.get(told) != self.hashes.get(told):
                says = f"its {told} is not that of the case: it is of another case, or of another moment"
                self._add("foreign-package", name, says)

    def _trust(self) -> None:
        if not self.trusted:
            return
        if self.signer in {key_id(raw) for raw in self.trusted}:
            self.trust = "put together and signed by a station whose key you trust"
        else:
            self._add("foreign-key", "keys", "the case is signed by another station than one whose key you trust")

    def _say(self) -> None:
        about = f"case {readable(self.manifest['number'])} of {readable(self.manifest['site'])}"
        self.proves.append(
            f"the {len(self.inside)} packages are those that the station has signed for as {about}: none was changed,"
            " exchanged, added or taken away since; what each of them proves stands below"
        )
        self.notes.append(
            "which posts the case has, what was done with it, and why, are the station's word: case.json, trail.jsonl"
        )
        self.notes.extend(left_out(self.package))
        for entry in self.manifest["without"]:
            self.notes.append(f"{readable(entry['post'])}: no package; the station says: {readable(entry['why'])}")

    def result(self) -> dict[str, Any]:
        """Everything, for JSON. `packages`: that of each package, by its name."""
        wanted = ("verdict", "findings", "findings_more", "proves", "does_not_prove", "notes", "trust", "station_keys")
        whole = super().result()
        told = {name: whole[name] for name in wanted}
        inside = {name: check.result() for name, check in self.inside.items()}
        about = {name: readable(str(self.manifest.get(name, ""))) for name in ("site", "number", "who", "reason")}
        return {**told, "case": self.manifest.get("case"), **about, "packages": inside}


def is_case(file: BinaryIO) -> bool:
    """Whether a file is to be examined as the package of a case. False, too, for one of which nothing can be said."""
    package = Package(file, Findings())
    try:
        package.open()
        manifest = parse(package.read(package.members[MANIFEST], MANIFEST_BYTES_MAX))
    except (Stop, NotAPackage, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("what") == CASE_WHAT


LIMITS = (
    "that the keys are the node's and the station's: compare the fingerprints with those from elsewhere (--trust)",
    "that the camera looked at the real scene: it signs what it sees, a picture held before it included",
    "that the node's clock was right: receipts bound when the records were made, not when the pictures were taken",
    "that nothing happened while nothing was recorded: the report lists those stretches and their reasons",
)


def in_words(path: str, result: dict[str, Any]) -> str:
    """The result for a person."""
    lines = [f"{path}: {result['verdict'].upper()}"]
    lines += [f"  wrong: {f['where']}: {f['says']} [{f['code']}]" for f in result["findings"]]
    if result.get("findings_more"):
        lines.append(f"  and {result['findings_more']} more")
    if result["verdict"] == "not a package":
        return "\n".join(lines)
    if "packages" in result:
        return "\n".join(lines + _case_in_words(result))
    lines += _in_words(result)
    lines += [f"  proved: {text}" for text in result["proves"]]
    lines += [f"  note: {text}" for text in result["notes"]]
    if result["verdict"] == "verified":
        lines += [f"  not proved: {text}" for text in result["does_not_prove"]]
    return "\n".join(lines)


def _case_in_words(result: dict[str, Any]) -> list[str]:
    lines = [f"  case {result['number']} (number {result['case']} at this desk) of {result['site']}"]
    lines.append(f"  for {result['who']}: {result['reason']}")
    lines.append(f"  {len(result['packages'])} packages; trust: {result['trust']}")
    lines += [f"  key of the station: {key}" for key in result["station_keys"]]
    lines += [f"  proved: {text}" for text in result["proves"]]
    lines += [f"  note: {text}" for text in result["notes"]]
    for name, inside in result["packages"].items():
        lines.append(f"  {name}: {inside['verdict']}")
        lines += [f"  {line}" for line in _in_words(inside)]
        lines += [f"    proved: {text}" for text in inside["proves"]]
        lines += [f"    note: {text}" for text in inside["notes"]]
    if result["verdict"] == "verified":
        lines += [f"  not proved: {text}" for text in result["does_not_prove"]]
    return lines


def _in_words(result: dict[str, Any]) -> list[str]:
    """Whose footage it is, how much, and by which keys."""
    lines = [f"  node {result['node']}, {result['range']['from']} to {result['range']['to']}"]
    lines.append(
        f"  {result['segments']} files of footage, {result['records']} records, {result['receipts']} receipts;"
        f" trust: {result['trust']}"
    )
    lines += [f"  key of the node: {key}" for key in result["node_keys"]]
    lines += [f"  key of the station: {key}" for key in result["station_keys"]]
    return lines


EXIT = {"verified": 0, "not verified": 1, "not a package": 2}


def not_a_package(why: str) -> dict[str, Any]:
    """The result for something that cannot be examined."""
    return {"verdict": "not a package", "findings": [Finding("not-a-package", "package", why)._asdict()]}


def check_of(file: BinaryIO, one: Callable[[BinaryIO], Check], trusted: list[bytes], ed25519: Any = None) -> Check:
    """The check that fits a file. `one`: that of the package of one post."""
    return CaseCheck(file, trusted, one, ed25519) if is_case(file) else one(file)


def verify(path: str, trusted: list[bytes], ed25519: Any = None) -> dict[str, Any]:
    """Examines one file. Never raises for what the file holds. `ed25519`: checks signatures in place of openssl."""
    try:
        with open(path, "rb") as file:
            check = check_of(file, lambda part: Check(part, trusted, ed25519), trusted, ed25519)
            check.run()
            return check.result()
    except NotAPackage as error:
        return not_a_package(str(error))
    except OSError as error:
        return not_a_package(f"it cannot be read: {error.strerror or error}")


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Checks a Wardpost evidence package.")
    parser.add_argument("package", metavar="PACKAGE")
    parser.add_argument("--trust", action="append", default=[], metavar="KEY", help="a public key known from elsewhere")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    args = parser.parse_args()
    trusted = []
    for path in args.trust:
        try:
            raw = trusted_key(path)
        except OSError:
            raw = None
        if raw is None:
            said = f"--trust {path}: neither 64 hex digits nor a file with an Ed25519 public key in PEM"
            print(said, file=sys.stderr)
            return 2
        trusted.append(raw)
    result = verify(args.package, trusted)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that has not all letters
    print(json.dumps(result, indent=2) if args.json else in_words(args.package, result))
    return EXIT[result["verdict"]]


if __name__ == "__main__":
    sys.exit(main())
