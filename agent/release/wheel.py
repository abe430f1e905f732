"""Wheels (PEP 427) as they lie in a bundle: what they are for, and the files that they hold. Unpacks nothing itself.

A release is made from wheels by putting files where pip would put them, so a node needs neither pip nor its 200 MB of
memory, and every file goes through `agent.release.tree`, which syncs it.

    name                        -> lib/pythonX.Y/site-packages/name
    D.data/purelib|platlib/name -> lib/pythonX.Y/site-packages/name
    D.data/scripts/name         -> bin/name, executable
    D.data/data/name            -> name
    D.data/headers/name         -> left out
"""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from agent.errors import Corrupt

FILES_MAX = 30_000
"""In one wheel; the largest that we use has 2,200."""
UNPACKED_BYTES_MAX = 2 << 30
"""Of one wheel."""
NAME_CHARS_MAX = 400
CHUNK_BYTES = 1 << 20
ZIP_ERRORS = (
    zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error, zlib.error,
)  # fmt: skip
"""What `zipfile` raises for a file that is none, or a damaged or hostile one."""
_NAME = re.compile(
    r"(?P<dist>[A-Za-z0-9._]{1,80})-(?P<version>[A-Za-z0-9._+!]{1,64})(-\d[A-Za-z0-9_.]{0,20})?"
    r"-(?P<python>[a-z0-9_.]{1,80})-(?P<abi>[a-z0-9_.]{1,80})-(?P<platform>[a-z0-9_.]{1,200})\.whl"
)
_BAD = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class WheelName:
    """What a wheel's file name says."""

    dist: str  # normalised: lower case, hyphens
    version: str
    python: frozenset[str]
    abi: frozenset[str]
    platform: frozenset[str]

    def objection(self, *, architecture: str, python: str) -> str:
        """Why it does not run on this machine and Python ("3.13"); empty when it does. Linux with glibc only."""
        minor = int(python.partition(".")[2])
        tag = f"cp3{minor}"
        pure = bool(self.python & {"py3", f"py3{minor}"})
        stable = "abi3" in self.abi and any(
            re.fullmatch(r"cp3\d{1,2}", found) and int(found[3:]) <= minor for found in self.python
        )
        exact = tag in self.python and tag in self.abi
        if not (stable or exact or (self.abi == {"none"} and (pure or tag in self.python))):
            return f"is for Python {'.'.join(sorted(self.python))}, not {python}"
        if "any" not in self.platform and not any(
            found.startswith(("manylinux", "linux_")) and found.endswith(f"_{architecture}") for found in self.platform
        ):
            return f"is for {'.'.join(sorted(self.platform))}, not {architecture}"
        return ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a wheel: where it goes inside the release, its size, and whether it may be run."""

    path: str
    size: int
    executable: bool
    info: zipfile.ZipInfo


def parse_name(name: str) -> WheelName:
    """Raises Corrupt for a name that is no wheel's."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise Corrupt(f"{name[:120]!r} is not the name of a wheel")
    return WheelName(
        dist=re.sub(r"[-_.]+", "-", match["dist"]).lower(),
        version=match["version"],
        python=frozenset(match["python"].split(".")),
        abi=frozenset(match["abi"].split(".")),
        platform=frozenset(match["platform"].split(".")),
    )


class Wheel:
    """One wheel, opened. `file` must stay open as long as this is used. Raises Corrupt in one line."""

    def __init__(self, file: BinaryIO, name: str, *, python: str) -> None:
        self._name = name
        self._site = f"lib/python{python}/site-packages"
        try:
            self._zip = zipfile.ZipFile(file)
            infos = self._zip.infolist()
        except ZIP_ERRORS as error:
            raise Corrupt(f"{name}: is no wheel: {error}") from None
        if len(infos) > FILES_MAX:
            raise Corrupt(f"{name}: holds {len(infos)} files; {FILES_MAX} at most")
        self.entries = tuple(entry for info in infos if (entry := self._entry(info)) is not None)
        paths = [entry.path for entry in self.entries]
        if len(set(paths)) != len(paths):
            twice = next(path for path in paths if paths.count(path) > 1)
            raise Corrupt(f"{name}: holds {twice!r} twice")
        if self.unpacked_bytes > UNPACKED_BYTES_MAX:
            raise Corrupt(f"{name}: would unpack to {self.unpacked_bytes >> 20} MB; {UNPACKED_BYTES_MAX >> 20} at most")

    @property
    def unpacked_bytes(self) -> int:
        """Of all files, unpacked, as the wheel says; `chunks` gives no more than that."""
        return sum(entry.size for entry in self.entries)

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """The bytes of a file, CHUNK_BYTES at most at once. Raises Corrupt where size or checksum do not hold."""
        left = entry.size
        try:
            with self._zip.open(entry.info) as file:
                while chunk := file.read(CHUNK_BYTES):
                    left -= len(chunk)
                    if left < 0:
                        raise Corrupt(f"{self._name}: {entry.path!r} is longer than it says")
                    yield chunk
        except ZIP_ERRORS as error:
            raise Corrupt(f"{self._name}: {entry.path!r} is damaged: {error}") from None
        if left:
            raise Corrupt(f"{self._name}: {entry.path!r} is shorter than it says")

    def _entry(self, info: zipfile.ZipInfo) -> Entry | None:
        name = info.orig_filename
        parts = PurePosixPath(name).parts
        if (
            not name
            or len(name) > NAME_CHARS_MAX
            or _BAD.search(name)
            or name.startswith("/")
            or any(part in ("", ".", "..") for part in name.rstrip("/").split("/"))
        ):
            raise Corrupt(f"{self._name}: holds a file with the name {name[:120]!r}")
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Corrupt(f"{self._name}: {name[:120]!r} is a link or a device")
        if info.flag_bits & 0x1:
            raise Corrupt(f"{self._name}: {name[:120]!r} is encrypted")
        if name.endswith("/"):
            return None
        executable = bool(mode & 0o111)
        if not parts[0].endswith(".data") or len(parts) < 3:
            return Entry(f"{self._site}/{name}", info.file_size, executable, info)
        scheme, rest = parts[1], "/".join(parts[2:])
        if scheme in ("purelib", "platlib"):
            return Entry(f"{self._site}/{rest}", info.file_size, executable, info)
        if scheme == "scripts":
            return Entry(f"bin/{rest}", info.file_size, True, info)
        return Entry(rest, info.file_size, executable, info) if scheme == "data" else None
