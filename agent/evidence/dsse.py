"""Signed envelopes: DSSE v1 of the in-toto project, one JSON object on one line, one Ed25519 signature.

    {"payloadType":T,"payload":base64(P),"signatures":[{"keyid":K,"sig":base64(S)}]}
    S = Ed25519(PAE(T, P)),  PAE(T, P) = "DSSEv1" SP len(T) SP T SP len(P) SP P     (lengths in bytes, decimal)

A line has exactly one valid spelling: `parse` refuses every other one, so that the hash of a line stands for what it
says. Nothing of what `parse` returns may be believed before `verify` has said yes.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from dataclasses import dataclass
from typing import Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from agent.errors import Corrupt

LINE_BYTES_MAX = 32 * 1024
KEY_BYTES = 32


class Signer(Protocol):
    """Something that holds a private key."""

    @property
    def keyid(self) -> str:
        """First 16 hex digits of the SHA-256 of the raw public key."""

    def sign(self, data: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""


class _Signature(Struct, forbid_unknown_fields=True):
    keyid: str
    sig: str


class _Wrapper(Struct, forbid_unknown_fields=True):
    payloadType: str  # noqa: N815  (DSSE's own name)
    payload: str
    signatures: list[_Signature]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope taken apart. Its content is a claim until `verify` has said yes."""

    payload_type: str
    payload: bytes
    keyid: str
    signature: bytes

    def verify(self, public: bytes) -> bool:
        """Whether the holder of this raw public key has signed it. False for a key that is none."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, pae(self.payload_type, self.payload))
        except (InvalidSignature, ValueError):
            return False
        return True


def pae(payload_type: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, signer: Signer) -> bytes:
    """A signed line, without newline. Raises ValueError when it is longer than a reader accepts: a caller's bug."""
    line = _spell(payload_type, payload, signer.keyid, signer.sign(pae(payload_type, payload)))
    if len(line) > LINE_BYTES_MAX:
        raise ValueError(f"a signed line of {len(line)} bytes; the limit is {LINE_BYTES_MAX}")
    return line


def parse(line: bytes) -> Envelope:
    """Takes a line apart without believing it. Raises Corrupt in one line, and nothing else, whatever the bytes."""
    if len(line) > LINE_BYTES_MAX:
        raise Corrupt(f"a line of {len(line)} bytes; the limit is {LINE_BYTES_MAX}")
    try:
        wrapper = msgspec.json.decode(line, type=_Wrapper)
        if len(wrapper.signatures) != 1:
            raise Corrupt(f"{len(wrapper.signatures)} signatures; there must be one")
        signature = wrapper.signatures[0]
        found = Envelope(
            wrapper.payloadType,
            binascii.a2b_base64(wrapper.payload.encode("ascii"), strict_mode=True),
            signature.keyid,
            binascii.a2b_base64(signature.sig.encode("ascii"), strict_mode=True),
        )
        spelled = _spell(found.payload_type, found.payload, found.keyid, found.signature)
    except (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError) as error:
        raise Corrupt(f"not a signed line: {error}") from None
    if spelled != line:
        raise Corrupt("not a signed line: another spelling of one")
    return found


def _spell(payload_type: str, payload: bytes, keyid: str, signature: bytes) -> bytes:
    return msgspec.json.encode(
        _Wrapper(payload_type, b64encode(payload).decode(), [_Signature(keyid, b64encode(signature).decode())])
    )
