"""What an ID token must be (OpenID Connect Core 1.0, 3.1.3.7), by joserfc. Pure: bytes and keys in, claims out."""

from __future__ import annotations

import hmac
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from agent.errors import Corrupt
from agent.station.people.oidc.claims import SUBJECT_CHARS_MAX, Claims, is_subject

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
"""Signatures that only who has the private key can make: no `none`, and no HMAC, whose key others may know."""
SKEW_S_MAX = 60
"""By which the provider's clock and the station's may differ."""
TOKEN_BYTES_MAX = 32 * 1024
KEYS_MAX = 64
_KINDS = ("RSA", "EC", "OKP")
_BROKEN = (JoseError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""Whatever a library says of bytes that were made to break it."""


def read_keys(body: bytes) -> KeySet:
    """The signing keys among those that it publishes (RFC 7517). Raises Corrupt."""
    try:
        told = msgspec.json.decode(body, type=dict[str, Any])["keys"]
        public = [one for one in told[:KEYS_MAX] if one.get("kty") in _KINDS and one.get("use", "sig") == "sig"]
        return KeySet.import_key_set({"keys": public})
    except _BROKEN as error:
        raise Corrupt(f"its keys cannot be read: {type(error).__name__}") from None


def read_token(text: str, *, keys: KeySet, issuer: str, client: str, nonce: str, now_s: int) -> Claims:
    """Raises Corrupt: in its words nothing stands that the token says."""
    if len(text) > TOKEN_BYTES_MAX:
        raise Corrupt(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
    try:
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        claims = jwt.decode(text, keys, algorithms=ALGORITHMS, registry=registry).claims
        jwt.JWTClaimsRegistry(
            now=now_s,
            leeway=SKEW_S_MAX,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": client},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True},
        ).validate(claims)
    except JoseError as error:
        raise Corrupt(f"the token does not hold: {error.error} {getattr(error, 'claim', '')}".rstrip()) from None
    except _BROKEN as error:
        raise Corrupt(f"the token cannot be read: {type(error).__name__}") from None
    return _claims(claims, client=client, nonce=nonce)


def _claims(claims: dict[str, Any], *, client: str, nonce: str) -> Claims:
    given, audience, party = claims["nonce"], claims["aud"], claims.get("azp")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "replace"), nonce.encode()):
        raise Corrupt("the token does not hold: invalid_claim nonce")
    others = isinstance(audience, list) and len(audience) > 1
    if (others or party is not None) and party != client:
        raise Corrupt("the token does not hold: invalid_claim azp")
    subject = str(claims["sub"])
    if not is_subject(subject):
        raise Corrupt("the token does not hold: invalid_claim sub")
    email, verified = claims.get("email"), claims.get("email_verified")
    vouched = verified is True and isinstance(email, str) and len(email) <= SUBJECT_CHARS_MAX
    return Claims(subject, str(email).lower() if vouched else "")
