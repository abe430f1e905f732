"""The contract of uploads: what a node and its station say to each other over HTTPS. Both sides import this file.

    POST /v1/challenge   {"node"}                             -> {"challenge"}      good for CHALLENGE_S, once
    POST /v1/token       {"node", "challenge", "by", "proof"} -> {"token", "life_s"}
    POST, HEAD, PATCH, OPTIONS /v1/files...                   tus 1.0.0: core, creation, checksum (sha256), expiration

The proof is by the key of the node's certificate, as for a renewal: no password is kept anywhere, no clock of the node
is asked, and a certificate that the register has revoked opens nothing. An upload is named by what it is: the same
file asked for again is the same upload, wherever it stands, so nothing is sent or kept twice.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from agent.errors import Corrupt
from agent.wire import Id

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration"
CHALLENGE, TOKEN, FILES = "/v1/challenge", "/v1/token", "/v1/files"
CHALLENGE_S = 60.0
CHUNK_BYTES_MAX = 1 << 20
"""Of one PATCH: kept in memory until its checksum is right, durable before it is acknowledged."""
JSON_BYTES_MAX = 4096
METADATA_CHARS_MAX = 2048
OFFSET_TYPE = "application/offset+octet-stream"

# These become names of files.
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Name = Annotated[str, Meta(pattern=r"^segments/[0-9]{6,12}-[0-9]{8,12}\.mp4$(?!\n)")]
_UPLOAD = re.compile(r"([a-z0-9-]{1,32})\.([0-9a-f]{64})")


class Ask(Struct, frozen=True, kw_only=True):
    """Who wants to send."""

    node: Id


class Challenge(Struct, frozen=True, kw_only=True):
    """What is to be signed."""

    challenge: Annotated[str, Meta(min_length=1, max_length=200)]


class Proof(Struct, frozen=True, kw_only=True):
    """The challenge, signed: see agent/site/proof.py."""

    node: Id
    challenge: Annotated[str, Meta(max_length=200)]
    by: Digest  # SHA-256 of the SubjectPublicKeyInfo of the key that signs
    proof: Annotated[str, Meta(max_length=256)]

    def proof_bytes(self, site: str) -> bytes:
        """What the proof covers: the challenge, for whom and by whom, and nothing that is asked for elsewhere."""
        return b"\n".join([b"wardpost-upload-v1", f"{site}/{self.node}/{self.by}".encode(), self.challenge.encode()])


class Grant(Struct, frozen=True, kw_only=True):
    """`Authorization: Bearer <token>` of what follows."""

    token: Annotated[str, Meta(min_length=16, max_length=200)]
    life_s: Annotated[float, Meta(gt=0, le=86_400)]


Reason = Literal["order", "alert"]
"""Why a file comes: a command has asked for it, or an alert of the node calls for it."""
CLIP_S_MAX = 360.0
"""A file that comes for an alert lies no further than this from the moment of one of its events."""


class Footage(Struct, frozen=True, kw_only=True):
    """What a file is, as its node says: `Upload-Metadata`."""

    name: Name  # of the segment, below the node's data folder
    sha256: Digest
    order: Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}$(?!\n)")]  # id of the command, or of the alert's incident
    why: Reason = "order"


T = TypeVar("T", Ask, Challenge, Proof, Grant)


def decode(data: bytes, kind: type[T]) -> T:
    """Raises Corrupt, in one line."""
    if len(data) > JSON_BYTES_MAX:
        raise Corrupt(f"{len(data)} bytes; {JSON_BYTES_MAX} at most")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{kind.__name__.lower()}: {error}") from None


def metadata(footage: Footage) -> str:
    """`Upload-Metadata`: pairs of a key and its value in base64 (tus, creation)."""
    told: Mapping[str, str] = msgspec.to_builtins(footage)
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items())


def footage_of(text: str) -> Footage:
    """What `metadata` says. Raises Corrupt."""
    if len(text) > METADATA_CHARS_MAX:
        raise Corrupt(f"Upload-Metadata: {len(text)} characters; {METADATA_CHARS_MAX} at most")
    found = {}
    try:
        for pair in text.split(","):
            key, _, value = pair.strip().partition(" ")
            found[key] = base64.b64decode(value, validate=True).decode()
        return msgspec.convert(found, Footage)
    except (binascii.Error, UnicodeError, msgspec.ValidationError) as error:
        raise Corrupt(f"Upload-Metadata: {error}") from None


def upload_id(node: str, sha256: str) -> str:
    """The last part of an upload's address."""
    return f"{node}.{sha256}"


def parse_id(text: str) -> tuple[str, str] | None:
    """Node and digest of an upload; None for what is no name of one."""
    match = _UPLOAD.fullmatch(text)
    return (match[1], match[2]) if match else None


def checksum(digest: bytes) -> str:
    """`Upload-Checksum` of a chunk."""
    return f"sha256 {base64.b64encode(digest).decode()}"
