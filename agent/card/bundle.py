"""An offline bundle: a folder with everything that a first boot installs, and a manifest of its hashes.

manifest.json        version of the agent, architecture, Python, SHA-256 of every other file
requirements.txt     exact versions with hashes, for pip
wheels/ model/ units/ lib/ appliance/ install.py
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.errors import ConfigError

MANIFEST = "manifest.json"
FILES_MAX = 200
BUNDLE_BYTES_MAX = 400 << 20  # the boot partition has 512 MiB, the stock files take a fifth
PYTHONS = ("3.11", "3.13")
ARCHITECTURES = ("aarch64", "x86_64")
_FOLDERS = "wheels|model|units|lib|appliance"
_NAME = re.compile(rf"({_FOLDERS})/[A-Za-z0-9][A-Za-z0-9._+!-]{{0,199}}|requirements\.txt|install\.py")


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file."""

    bytes: Annotated[int, Meta(ge=0, le=BUNDLE_BYTES_MAX)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """manifest.json."""

    v: Literal[1] = 1
    version: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$(?!\n)")]
    arch: str
    python: str
    files: Annotated[dict[str, Entry], Meta(min_length=1, max_length=FILES_MAX)]


def digest(path: Path) -> Entry:
    """Size and hash of a file. Raises OSError."""
    with path.open("rb") as file:
        return Entry(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def encode(manifest: Manifest) -> bytes:
    """The content of manifest.json."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1) + b"\n"


def read_bundle(folder: Path, *, arch: str, python: str | None) -> Manifest:
    """Reads a bundle and compares every file with the manifest; blocks for a second per 500 MB.

    `python` None: not known, and not asked. Raises ConfigError in one line when it is not for this architecture or
    Python, not whole, or changed.
    """
    again = "; make it anew with `wardpost bundle`"
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise ConfigError(f"{folder} is no bundle: it has no {MANIFEST}{again}") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{folder / MANIFEST} cannot be read: {error}{again}") from None
    if manifest.arch != arch:
        raise ConfigError(
            f"{folder} is a bundle for {manifest.arch}, the card is for {arch}; make one with --arch {arch}"
        )
    if python is not None and manifest.python != python:
        raise ConfigError(
            f"{folder} is a bundle for Python {manifest.python}, the card has Python {python};"
            f" make one with --python {python}"
        )
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST}
    wrong = sorted(there ^ set(manifest.files)) or sorted(name for name in there if not _NAME.fullmatch(name))
    if wrong:
        raise ConfigError(f"{folder}: {wrong[0]} does not belong there, or is missing{again}")
    for name, entry in manifest.files.items():
        try:
            found = digest(folder / name)
        except OSError as error:
            raise ConfigError(f"{folder / name} cannot be read: {error.strerror or error}{again}") from None
        if found != entry:
            raise ConfigError(f"{folder / name} is not the file that was bundled (SHA-256 differs){again}")
    if not any(name.startswith("wheels/wardpost-") for name in there) or "install.py" not in there:
        raise ConfigError(f"{folder} holds no agent{again}")
    return manifest
