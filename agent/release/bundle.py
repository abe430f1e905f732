"""A release bundle: one zip with wheels and a manifest that the site's release key has signed.

    manifest.json         what the release is: version, number, architecture, Python, files with size and SHA-256
    manifest.dsse         DSSE envelope over exactly these bytes, Ed25519 (agent/evidence/dsse.py)
    wheels/NAME.whl       what the manifest lists, and nothing else

Only one shape of zip is taken: stored (a wheel is compressed already), no extra fields, no comment, no flags, entries
one behind the other without a gap, sizes as in the manifest. So nothing can be hidden, doubled or blown up, and what is
verified is what is unpacked. Order of belief: shape, signature, whether it fits, then hashes; nothing is unpacked
before. `number` grows with every release of a site, whatever the version says: by it downgrade and replay are judged.
"""

from __future__ import annotations

import hashlib
import platform
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
from msgspec import Meta, Struct

from agent.errors import Corrupt
from agent.evidence import dsse
from agent.part import part_of
from agent.release.wheel import ZIP_ERRORS

PAYLOAD_TYPE = "application/vnd.wardpost.release+json;v=1"
FILES_MAX = 64
BUNDLE_BYTES_MAX = 1 << 30
MANIFEST_BYTES_MAX = 20 * 1024
DIRECTORY_BYTES_MAX = 64 * 1024
NUMBER_MAX = 2**31 - 1
CHUNK_BYTES = 1 << 20
MANIFEST, ENVELOPE, WHEELS = "manifest.json", "manifest.dsse", "wheels/"
_EOCD = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_WHEEL = re.compile(r"wheels/[A-Za-z0-9._+!-]{5,200}\.whl")

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a bundle."""

    name: Annotated[str, Meta(max_length=220)]
    bytes: Annotated[int, Meta(ge=0, le=BUNDLE_BYTES_MAX)]
    sha256: Sha256


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release is."""

    v: Literal[1] = 1
    version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$(?!\n)")]
    number: Annotated[int, Meta(ge=1, le=NUMBER_MAX)]
    architecture: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,32}$(?!\n)")]
    python: Annotated[str, Meta(pattern=r"^3\.[0-9]{1,2}$(?!\n)")]
    unpacked_bytes: Annotated[int, Meta(ge=0)]
    files: Annotated[list[File], Meta(min_length=1, max_length=FILES_MAX)]

    def misfit(self, *, architecture: str, python: str) -> str:
        """Why it cannot run here; empty when it can."""
        if self.architecture != architecture:
            return f"release {self.number} is for {self.architecture}, this machine is {architecture}"
        if self.python != python:
            return f"release {self.number} is for Python {self.python}, here is {python}"
        return ""


def this_architecture() -> str:
    """As the kernel names it: aarch64, x86_64."""
    return platform.machine()


def this_python() -> str:
    """Major and minor: "3.13"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class _Place:
    offset: int  # of the first byte of the file's content
    bytes: int


class Bundle:
    """A bundle whose shape and signature are good. Its wheels may be used once `check_files` has run to its end."""

    def __init__(self, file: BinaryIO, manifest: Manifest, spelled: bytes, places: dict[str, _Place]) -> None:
        self._file = file
        self._places = places
        self.manifest = manifest
        self.spelled = spelled  # manifest.json as it was signed

    def check_files(self) -> Iterator[int]:
        """Compares every file with its hash; gives the bytes read so far, about each MiB. Raises Corrupt."""
        done = 0
        for listed in self.manifest.files:
            digest = hashlib.sha256()
            place = self._places[listed.name]
            self._file.seek(place.offset)
            left = place.bytes
            while left:
                chunk = self._file.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise Corrupt(f"bundle: {listed.name} ends early")
                digest.update(chunk)
                left -= len(chunk)
                done += len(chunk)
                yield done
            if digest.hexdigest() != listed.sha256:
                raise Corrupt(f"bundle: {listed.name} is not the file that was signed; get the bundle again")

    def wheels(self) -> Iterator[tuple[str, BinaryIO]]:
        """Name and content of each wheel."""
        for listed in self.manifest.files:
            place = self._places[listed.name]
            yield listed.name.removeprefix(WHEELS), part_of(self._file, place.offset, place.bytes)


def open_bundle(file: BinaryIO, *, public: bytes, architecture: str = "", python: str = "") -> Bundle:
    """Judges shape, signature by the raw Ed25519 key `public`, and whether it fits. Reads 200 KiB at most.

    An empty `architecture` or `python` is not asked for. Raises Corrupt in one line.
    """
    places = _places(file)
    for name, limit in ((ENVELOPE, dsse.LINE_BYTES_MAX), (MANIFEST, MANIFEST_BYTES_MAX)):
        if name not in places:
            raise Corrupt(f"bundle: has no {name}; it is no release bundle")
        if places[name].bytes > limit:
            raise Corrupt(f"bundle: {name} has {places[name].bytes} bytes; {limit} at most")
    envelope = dsse.parse(_content(file, places[ENVELOPE]))
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Corrupt(f"bundle: signed as {envelope.payload_type[:80]!r}, which is no release")
    if not envelope.verify(public):
        raise Corrupt(f"bundle: not signed by this site's release key, but by {envelope.keyid[:16]!r}")
    spelled = _content(file, places[MANIFEST])
    if spelled != envelope.payload:
        raise Corrupt("bundle: manifest.json is not the one that was signed")
    try:
        manifest = msgspec.json.decode(spelled, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"bundle: manifest.json: {error}") from None
    _listed(manifest, places)
    misfit = manifest.misfit(architecture=architecture or manifest.architecture, python=python or manifest.python)
    if misfit:
        raise Corrupt(f"bundle: {misfit}; get the bundle for this one")
    return Bundle(file, manifest, spelled, places)


def verify(path: Path, *, public: bytes, architecture: str = "", python: str = "") -> Manifest:
    """Everything that can be known of a bundle without unpacking it. Blocks for the reading. Raises Corrupt."""
    try:
        with path.open("rb") as file:
            bundle = open_bundle(file, public=public, architecture=architecture, python=python)
            for _ in bundle.check_files():
                pass
            return bundle.manifest
    except OSError as error:
        raise Corrupt(f"{path}: cannot be read: {error.strerror}") from None
    except Corrupt as error:
        raise Corrupt(f"{path}: {error}") from None


def _listed(manifest: Manifest, places: dict[str, _Place]) -> None:
    """The manifest and the zip must tell of the same files. Raises Corrupt."""
    listed = {file.name: file for file in manifest.files}
    if len(listed) != len(manifest.files):
        raise Corrupt("bundle: the manifest lists a file twice")
    for name, file in listed.items():
        if not _WHEEL.fullmatch(name):
            raise Corrupt(f"bundle: the manifest lists {name[:120]!r}, which is no wheels/NAME.whl")
        if name not in places:
            raise Corrupt(f"bundle: {name} is missing")
        if places[name].bytes != file.bytes:
            raise Corrupt(f"bundle: {name} has {places[name].bytes} bytes; the manifest says {file.bytes}")
    for name in places:
        if name not in listed and name not in (MANIFEST, ENVELOPE):
            raise Corrupt(f"bundle: holds {name[:120]!r}, which the manifest does not list")


def _places(file: BinaryIO) -> dict[str, _Place]:
    """Where each file lies, of a zip of the one shape that is taken. Raises Corrupt for every other."""
    infos, start = _directory(file)
    found: dict[str, _Place] = {}
    at = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        name = info.orig_filename
        if name in found:
            raise Corrupt(f"bundle: holds {name[:120]!r} twice")
        if name not in (MANIFEST, ENVELOPE) and not _WHEEL.fullmatch(name):
            raise Corrupt(f"bundle: holds a file with the name {name[:120]!r}")
        _plain(info, name)
        if info.header_offset != at:
            raise Corrupt(f"bundle: something lies hidden before {name}, or under it")
        file.seek(at)
        _same_header(info, file.read(_LOCAL.size + len(name)))
        at += _LOCAL.size + len(name)
        found[name] = _Place(at, info.file_size)
        at += info.file_size
    if at != start:
        raise Corrupt("bundle: something lies hidden behind its last file")
    return found


def _directory(file: BinaryIO) -> tuple[list[zipfile.ZipInfo], int]:
    """The entries of the zip, and where its directory begins. Bounded before it is parsed. Raises Corrupt."""
    size = file.seek(0, 2)
    if not _EOCD.size <= size <= BUNDLE_BYTES_MAX:
        raise Corrupt(f"bundle: {size} bytes; {_EOCD.size} at least, {BUNDLE_BYTES_MAX} at most")
    file.seek(size - _EOCD.size)
    magic, disk, first, here, entries, length, start, comment = _EOCD.unpack(file.read(_EOCD.size))
    if magic != b"PK\5\6" or disk or first or comment or here != entries:
        raise Corrupt("bundle: is no zip, cut short, or has a comment; get it again")
    if entries > FILES_MAX + 2 or length > DIRECTORY_BYTES_MAX or start + length + _EOCD.size != size:
        raise Corrupt(f"bundle: its directory ({entries} files, {length} bytes) is not that of a release bundle")
    try:
        infos = zipfile.ZipFile(file).infolist()  # its directory is small now; the content is not looked at
    except ZIP_ERRORS as error:
        raise Corrupt(f"bundle: is no zip: {error}") from None
    return infos, start


def _same_header(info: zipfile.ZipInfo, local: bytes) -> None:
    """Readers differ in which of the two headers they believe: both must say the same. Raises Corrupt."""
    name = info.orig_filename
    if len(local) != _LOCAL.size + len(name):
        raise Corrupt(f"bundle: {name} ends early")
    magic, _version, flags, method, _time, _date, *rest = _LOCAL.unpack(local[: _LOCAL.size])
    expected = [info.CRC, info.file_size, info.file_size, len(name), 0]
    if (magic, flags, method, rest) != (b"PK\3\4", 0, 0, expected) or local[_LOCAL.size :] != name.encode():
        raise Corrupt(f"bundle: the two headers of {name} do not agree")


def _plain(info: zipfile.ZipInfo, name: str) -> None:
    mode = info.external_attr >> 16
    if mode and (mode & 0o170000) != 0o100000:
        raise Corrupt(f"bundle: {name} is a link or a device")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise Corrupt(f"bundle: {name} is compressed; a release bundle stores its files as they are")
    if info.flag_bits or info.extra or info.comment:
        raise Corrupt(f"bundle: {name} is encrypted or carries extra fields")


def _content(file: BinaryIO, place: _Place) -> bytes:
    file.seek(place.offset)
    return file.read(place.bytes)
