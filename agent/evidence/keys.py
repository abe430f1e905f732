"""Ed25519 keys that are made where they are used and never leave it.

    make    generate, write keys/<name>-<n>.pem (PKCS 8, mode 0600) durably, and only then use it

A key that was used before it was durable could sign a line that nobody can attribute after the next power cut. Public
keys travel as 64 hex digits; a key is named by its id, the first 16 hex digits of the SHA-256 of the raw public key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from agent.disk import Disk
from agent.errors import ConfigError, Corrupt

FOLDER = "keys"
KEYS_MAX = 64
"""Generations that are kept; a node changes its key a few times in its life."""
_FILE = re.compile(r"(?P<name>[a-z]+)-(?P<number>[0-9]{6})\.pem")


PEM_BYTES_MAX = 16 * 1024
"""Of a file that a person names as a key. It may be any file, or a device without an end."""


def read_pem(path: Path) -> bytes:
    """What a person has named as a key, as far as a key can go. Raises OSError."""
    with path.open("rb") as file:
        return file.read(PEM_BYTES_MAX)


def keyid_of(public: bytes) -> str:
    """Names a raw public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def public_of(text: str) -> bytes:
    """A raw public key from its 64 hex digits. Raises Corrupt."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise Corrupt(f"{text[:80]!r} is not a public key; it has 64 hex digits")
    return bytes.fromhex(text)


def public_pem(public: bytes) -> bytes:
    """A raw public key in the form that `openssl pkeyutl -pubin` reads. Raises ValueError for no key."""
    return Ed25519PublicKey.from_public_bytes(public).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """A key pair. Its text form shows the public half only."""

    private: Ed25519PrivateKey
    public: bytes  # raw, 32 bytes
    keyid: str

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature (RFC 8032), 64 bytes."""
        return self.private.sign(data)

    def __repr__(self) -> str:
        return f"Key({self.keyid})"


def generate() -> Key:
    """A new key, in memory only. Its randomness is the kernel's."""
    return _key(Ed25519PrivateKey.generate())


def load(disk: Disk, name: str) -> list[Key]:
    """All generations of a key, oldest first; an unreadable file is passed over. Raises Transient."""
    found = []
    for _, path in _files(disk, name):
        with disk.open(path) as file:
            data = file.read(4096)
        try:
            private = load_pem_private_key(data, password=None)
        except (ValueError, TypeError):
            continue  # it signed nothing: a key is durable before its first use; or the card has rotted
        if isinstance(private, Ed25519PrivateKey):
            found.append(_key(private))
    return found


def make(disk: Disk, name: str) -> Key:
    """A new generation of a key: durable when this returns. Raises Transient; Corrupt at KEYS_MAX generations."""
    numbers = [number for number, _ in _files(disk, name)]
    if len(numbers) >= KEYS_MAX:
        raise Corrupt(f"{disk.path(FOLDER)}: {len(numbers)} keys of {name}; somebody makes them without need")
    key = generate()
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    disk.replace(f"{FOLDER}/{name}-{max(numbers, default=0) + 1:06d}.pem", pem, private=True)
    return key


def load_or_make(disk: Disk, name: str) -> list[Key]:
    """All generations of a key, oldest first, at least one. Raises Transient, Corrupt."""
    return load(disk, name) or [make(disk, name)]


def public_keys(keys: Sequence[Key]) -> dict[str, bytes]:
    """The public halves by key id: what a verifier wants."""
    return {key.keyid: key.public for key in keys}


def public_key(where: str, text: str) -> bytes:
    """A raw Ed25519 public key from 64 hex digits or the path of a PEM file. `where` names the setting.

    Raises ConfigError.
    """
    if re.fullmatch("[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        key = load_pem_public_key(read_pem(Path(text)))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where}: {text} is neither 64 hex digits nor a readable PEM public key ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{where}: {text} is not an Ed25519 key")
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def pinned(where: str, text: str) -> bytes | None:
    """As `public_key`; None for a setting that is empty."""
    return public_key(where, text) if text else None


def private_key(path: Path) -> Key:
    """A private key in PEM that a person names; a station's own lie in keys/ of its data folder. Raises ConfigError."""
    try:
        private = load_pem_private_key(read_pem(path), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}: no private key can be read there: {error}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key")
    return _key(private)


def _files(disk: Disk, name: str) -> list[tuple[int, str]]:
    found = []
    for path in disk.list(FOLDER):
        match = _FILE.fullmatch(path.rpartition("/")[2])
        if match is not None and match["name"] == name:
            found.append((int(match["number"]), path))
    return sorted(found)


def _key(private: Ed25519PrivateKey) -> Key:
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Key(private, public, keyid_of(public))
