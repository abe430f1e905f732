"""Footage that only the station can read: sealed to its public key as it is written.

    header of the file    `sealed`: base64 of HPKE(station's X25519 key, the file's own 32-byte key)   (RFC 9180)
                          `seal_commit`: SHA-256(COMMIT, 0, that key), 64 hex digits: there is one key that fits
    each fragment         an empty `moof` box, then a `mdat` box with ChaCha20-Poly1305(moof+mdat as they would be)

So the file keeps its shape: trailer, chain and hash stand over what is on the card, and the recorder, recovery,
retention, coverage and the ledger work without any key. The file's key exists in memory only while the file is written.
The nonce is the fragment's number, the associated data the file's name for itself (session, boot and start) and that
number: fragments cannot be moved within a file or between files. ChaCha20, for Pis before the 5 have no AES.

The commitment is what makes an opening provable to somebody without the station's private key. The hash on the ledger
binds header and sealed bytes; the header binds the key; sealed bytes and key have one content. So whoever is shown the
key of a file (agent/evidence/opening.py) can tell that what it opens to is what the node sealed. ChaCha20-Poly1305
alone does not promise that: its tag can be made to fit two keys by whoever chooses the sealed bytes.

What stays readable: the times and the size of the picture in the header, the sizes of fragments (they tell when
something moved), and everything in the store, thumbnails that are not delivered yet included.
"""

from __future__ import annotations

import binascii
import hashlib
import struct
from base64 import b64decode, b64encode
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from agent.errors import ConfigError, Corrupt
from agent.evidence.keys import read_pem

INFO = b"wardpost footage, version 1"
COMMIT = b"wardpost footage key, version 1"
_BOX = struct.Struct(">I4s")
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_FRONT = _BOX.pack(8, b"moof")
_TAG_BYTES = 16
KEY_BYTES = 32
OVERHEAD_BYTES = 2 * _BOX.size + _TAG_BYTES
"""What sealing adds to a fragment."""


class Lock:
    """Seals the fragments of one file. Its key is made here and forgotten with it."""

    def __init__(self, station: X25519PublicKey, identity: bytes) -> None:
        key = ChaCha20Poly1305.generate_key()
        self._cipher = ChaCha20Poly1305(key)
        self._identity = identity
        self.token = b64encode(_SUITE.encrypt(key, station, info=INFO + b"\0" + identity)).decode()
        self.commitment = commitment(key)
        """Both for the header of the file."""

    def seal(self, n: int, body: bytes) -> bytes:
        """Fragment `n` as it is written. No number twice: the nonce is made of it."""
        sealed = self._cipher.encrypt(_nonce(n), body, _about(self._identity, n))
        return _FRONT + _BOX.pack(_BOX.size + len(sealed), b"mdat") + sealed


class Key:
    """The station's private key: opens what was sealed to it."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private

    def opener(self, token: str, identity: bytes) -> Opener:
        """For one file. Raises Corrupt when the file was sealed to another key, or its header was altered."""
        return opener_of(self.file_key(token, identity), identity)

    def file_key(self, token: str, identity: bytes) -> bytes:
        """The file's own key, 32 bytes: who has it reads this file and no other. Raises Corrupt as `opener`."""
        try:
            key = _SUITE.decrypt(b64decode(token, validate=True), self._private, info=INFO + b"\0" + identity)
        except (InvalidTag, ValueError, binascii.Error):
            key = b""
        if len(key) != KEY_BYTES:
            raise Corrupt("it is sealed to another station's key, or its header was altered")
        return key


class Opener:
    """Opens the fragments of one file."""

    def __init__(self, cipher: ChaCha20Poly1305, identity: bytes) -> None:
        self._cipher = cipher
        self._identity = identity

    def open(self, n: int, data: bytes) -> bytes:
        """moof+mdat of fragment `n`. Raises Corrupt."""
        if data[: _BOX.size] != _FRONT or len(data) < OVERHEAD_BYTES:
            raise Corrupt(f"fragment {n} is not sealed, though its file is")
        try:
            return self._cipher.decrypt(_nonce(n), data[2 * _BOX.size :], _about(self._identity, n))
        except InvalidTag:
            raise Corrupt(f"fragment {n} cannot be opened: it was altered, or moved from elsewhere") from None


def opener_of(key: bytes, identity: bytes) -> Opener:
    """From the file's own key. Raises ValueError when it has not 32 bytes."""
    return Opener(ChaCha20Poly1305(key), identity)


def commitment(key: bytes) -> str:
    """What the header of a file says of its key; nothing can be learnt about the key from it."""
    return hashlib.sha256(COMMIT + b"\0" + key).hexdigest()


def identity(session: int, boot_id: str, start_ns: int, source: str) -> bytes:
    """What a file is called in its own seal."""
    return f"{source} {session} {boot_id} {start_ns}".encode()


def station_key(path: Path) -> X25519PublicKey:
    """The public key of `recording.seal_key`. Raises ConfigError."""
    try:
        key = load_pem_public_key(read_pem(path))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"recording.seal_key: {path}: no public key can be read there: {error}") from None
    if not isinstance(key, X25519PublicKey):
        raise ConfigError(
            f"recording.seal_key: {path}: not an X25519 key; make one with openssl genpkey -algorithm X25519"
        )
    return key


def private_key(path: Path) -> Key:
    """The station's private key, given with --key. Raises ConfigError."""
    try:
        key = load_pem_private_key(read_pem(path), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"--key {path}: no private key can be read there: {error}") from None
    if not isinstance(key, X25519PrivateKey):
        raise ConfigError(f"--key {path}: not an X25519 key")
    return Key(key)


def _nonce(n: int) -> bytes:
    return n.to_bytes(12, "big")


def _about(identity: bytes, n: int) -> bytes:
    return identity + b" " + str(n).encode()
