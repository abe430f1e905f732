"""What a key has signed, between a node and its station: a request counts for who holds the key of a certificate.

ECDSA over SHA-256 (FIPS 186-5), DER, base64. Pure.
"""

from __future__ import annotations

import base64
import binascii

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def private_key(pem: bytes) -> ec.EllipticCurvePrivateKey | None:
    """The key of a PEM file; None when it is damaged, of another kind, or locked."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def prove(key: ec.EllipticCurvePrivateKey, data: bytes) -> str:
    """The signature over `data`."""
    return base64.b64encode(key.sign(data, ec.ECDSA(hashes.SHA256()))).decode()


def proved(certificate: bytes, proof: str, data: bytes) -> bool:
    """Whether the key of this certificate (PEM) has signed `data`: then no broker in between need be believed.

    Raises ValueError for a certificate that is none: the caller's own.
    """
    key = x509.load_pem_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(base64.b64decode(proof, validate=True), data, ec.ECDSA(hashes.SHA256()))
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return True
