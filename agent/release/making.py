"""At headquarters: a release bundle out of a folder of wheels. See agent/release/bundle.py for its shape."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path
from typing import BinaryIO

import msgspec

from agent.errors import ConfigError, Corrupt
from agent.evidence import dsse
from agent.release.bundle import (
    BUNDLE_BYTES_MAX,
    ENVELOPE,
    FILES_MAX,
    MANIFEST,
    MANIFEST_BYTES_MAX,
    NUMBER_MAX,
    PAYLOAD_TYPE,
    WHEELS,
    File,
    Manifest,
)
from agent.release.wheel import Wheel, WheelName, parse_name


def make(output: Path, *, signer: dsse.Signer, wheels: Path, number: int, architecture: str, python: str) -> Manifest:
    """Writes a bundle of all wheels in a folder. Raises ConfigError in one line and leaves no half of a file."""
    if not 1 <= number <= NUMBER_MAX:
        raise ConfigError(f"release make: --number {number}: a number from 1 to {NUMBER_MAX}")
    if not re.fullmatch(r"3\.[0-9]{1,2}", python):
        raise ConfigError(f"release make: --python {python!r}: write it like 3.13")
    paths = sorted(wheels.glob("*.whl"))
    if not 1 <= len(paths) <= FILES_MAX:
        raise ConfigError(f"release make: {wheels} holds {len(paths)} wheels; 1 to {FILES_MAX} are needed")
    version, total = _fitting(paths, architecture, python)
    manifest = Manifest(
        version=version,
        number=number,
        architecture=architecture,
        python=python,
        unpacked_bytes=total,
        files=[_file(path) for path in paths],
    )
    spelled = _spelled(manifest)
    small = [(MANIFEST, spelled), (ENVELOPE, dsse.sign(PAYLOAD_TYPE, spelled, signer))]
    _save(output, small, paths)
    return manifest


def _file(path: Path) -> File:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(name=f"{WHEELS}{path.name}", bytes=path.stat().st_size, sha256=digest)


def _spelled(manifest: Manifest) -> bytes:
    """The manifest as it is signed, by the node's own rules: what a node would refuse is not signed."""
    spelled = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    if len(spelled) > MANIFEST_BYTES_MAX:
        raise ConfigError(f"release make: the manifest has {len(spelled)} bytes; {MANIFEST_BYTES_MAX} at most")
    try:
        msgspec.json.decode(spelled, type=Manifest)
    except msgspec.ValidationError as error:
        raise ConfigError(f"release make: {error}") from None
    return spelled


def _fitting(paths: list[Path], architecture: str, python: str) -> tuple[str, int]:
    """Version of the agent among the wheels, and how much they unpack to. Raises ConfigError."""
    names: dict[str, WheelName] = {}
    seen: dict[str, str] = {}
    total = 0
    for path in paths:
        try:
            name = parse_name(path.name)
            with path.open("rb") as file:
                wheel = Wheel(file, path.name, python=python)
        except (Corrupt, OSError) as error:
            raise ConfigError(f"release make: {error}") from None
        total += wheel.unpacked_bytes
        objection = name.objection(architecture=architecture, python=python)
        if objection:
            raise ConfigError(f"release make: {path.name} {objection}")
        if name.dist in names:
            raise ConfigError(f"release make: {name.dist} is there twice")
        names[name.dist] = name
        for entry in wheel.entries:
            if seen.setdefault(entry.path, path.name) != path.name:
                raise ConfigError(f"release make: {path.name} brings {entry.path!r}, as {seen[entry.path]} does")
    if "wardpost" not in names:
        raise ConfigError("release make: there is no wheel of wardpost itself among them; make one with pip wheel .")
    return names["wardpost"].version, total


def _save(output: Path, small: list[tuple[str, bytes]], wheels: list[Path]) -> None:
    try:
        out = output.open("xb")
    except FileExistsError:
        raise ConfigError(f"release make: {output} exists; choose another name") from None
    except OSError as error:
        raise ConfigError(f"release make: {output}: {error.strerror or error}") from None
    try:
        with out:
            _write(out, small, wheels)
            size = out.tell()
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    if size > BUNDLE_BYTES_MAX:
        output.unlink()
        raise ConfigError(f"release make: {size} bytes; {BUNDLE_BYTES_MAX} at most")


def _write(out: BinaryIO, small: list[tuple[str, bytes]], wheels: list[Path]) -> None:
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, data in small:
            archive.writestr(_info(name), data)
        for path in wheels:
            # Whole, for the header before the content must name its checksum; the largest wheel has 60 MB.
            archive.writestr(_info(f"{WHEELS}{path.name}"), path.read_bytes())


def _info(name: str) -> zipfile.ZipInfo:
    """The same bytes for the same content, whenever and wherever it is made."""
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = 0o100644 << 16
    return info
