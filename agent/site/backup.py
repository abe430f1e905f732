r"""A site in one encrypted file. Format, version 1:

    WARDPOST-SITE-BACKUP 1\n
    {"kdf": "scrypt", "n": 131072, "r": 8, "p": 1, "salt": base64, "cipher": "chacha20-poly1305", "nonce": base64}\n
    ciphertext and tag (RFC 8439); the two lines above are its associated data; the plaintext is a tar file

The key is scrypt (RFC 7914) of the passphrase in UTF-8, 32 bytes. A file that was changed anywhere, or another
passphrase, does not open; the cipher cannot tell the two apart.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import re
import tarfile
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from agent.errors import ConfigError, Corrupt

MAGIC = b"WARDPOST-SITE-BACKUP 1\n"
PASSPHRASE_CHARS_MIN = 12
COST = 1 << 17
"""scrypt's n: 128 MiB and about half a second a guess."""
COST_MAX = 1 << 20
BYTES_MAX = 512 << 20
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,5}")


def seal(files: Mapping[str, bytes], passphrase: str, *, cost: int = COST) -> bytes:
    """The backup of `files` (relative names). Raises ConfigError for a passphrase that is too short."""
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise ConfigError(f"the passphrase has {len(passphrase)} characters; take {PASSPHRASE_CHARS_MIN} or more")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o600
            tar.addfile(entry, io.BytesIO(files[name]))
    salt, nonce = os.urandom(16), os.urandom(12)
    header = {
        "kdf": "scrypt", "n": cost, "r": 8, "p": 1, "salt": base64.b64encode(salt).decode(),
        "cipher": "chacha20-poly1305", "nonce": base64.b64encode(nonce).decode(),
    }  # fmt: skip
    head = MAGIC + json.dumps(header).encode() + b"\n"
    return head + ChaCha20Poly1305(_key(passphrase, salt, cost)).encrypt(nonce, packed.getvalue(), head)


def unseal(data: bytes, passphrase: str) -> dict[str, bytes]:
    """The files of a backup, by relative name. Raises Corrupt with the reason; never returns a part."""
    if not data.startswith(MAGIC) or len(data) > BYTES_MAX:
        raise Corrupt("not a backup of a site (version 1)")
    line, newline, sealed = data[len(MAGIC) :].partition(b"\n")
    head = MAGIC + line + newline
    try:
        header = json.loads(line)
        cost = header["n"]
        right = (header["kdf"], header["r"], header["p"], header["cipher"]) == ("scrypt", 8, 1, "chacha20-poly1305")
        salt, nonce = (base64.b64decode(header[name], validate=True) for name in ("salt", "nonce"))
        if not right or not isinstance(cost, int) or not 1 < cost <= COST_MAX or cost & (cost - 1) or len(nonce) != 12:
            raise ValueError("made in a way that this program does not know")  # noqa: TRY301
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise Corrupt(f"the head of the backup cannot be read: {error}") from None
    try:
        plain = ChaCha20Poly1305(_key(passphrase, salt, cost)).decrypt(nonce, sealed, head)
    except InvalidTag:
        raise Corrupt("the passphrase is wrong, or the backup was changed") from None
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                if content is None or not _NAME.fullmatch(entry.name):
                    raise Corrupt(f"the backup holds {entry.name[:80]!r}, which is no file of a site")
                files[entry.name] = content.read()
    except tarfile.TarError as error:
        raise Corrupt(f"the backup cannot be unpacked: {error}") from None
    return files


def _key(passphrase: str, salt: bytes, cost: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(passphrase.encode("utf-8"))
