"""Who may have a certificate: decided from facts alone. `enrolment.py` gathers them and acts.

A claim is used up by the first key that asks with it. The same key may ask again, for an answer gets lost: it is given
the same certificate. Any other key is refused, and that is an alarm: two machines hold one card's claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec

from agent import wire
from agent.errors import Corrupt
from agent.site.authority import key_digest, read_csr
from agent.site.proof import proved
from agent.site.register import Certificate, Claim, Node


class Kind(StrEnum):
    """Why a card gets no certificate."""

    UNKNOWN = "unknown-claim"
    REVOKED = "revoked"
    PROOF = "bad-proof"
    REQUEST = "bad-request"
    USED = "claim-used"
    EXPIRED = "claim-expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the register says of a claim. `own`: the claim's certificate; `given`: what it was used for."""

    claim: Claim | None = None
    own: Certificate | None = None
    node: Node | None = None
    given: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Issue:
    """A new certificate for this key."""

    node: str
    generation: int
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Give:
    """The certificate that was made before: its first answer was lost."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Refuse:
    """No certificate. `alarm`: somebody should look at it."""

    kind: Kind
    detail: str

    @property
    def alarm(self) -> bool:
        return self.kind in (Kind.USED, Kind.REVOKED, Kind.PROOF)


def decide(  # noqa: PLR0911  (one return for each answer)
    asked: wire.Enrol, *, site: str, name: str, facts: Facts, now_utc_ns: int
) -> Issue | Give | Refuse:
    """`name`: the claim that the broker has checked; `now_utc_ns`: the station's clock. Never raises."""
    claim, own, node = facts.claim, facts.own, facts.node
    if claim is None or own is None or node is None:
        return Refuse(Kind.UNKNOWN, f"{name} is not in this site's register; provision the post again")
    if own.revoked_utc_ns is not None or node.state == "revoked" or node.generation != claim.generation:
        return Refuse(Kind.REVOKED, f"{name} of {claim.node} was revoked; a new card was made, or the post given up")
    if not proved(own.pem.encode(), asked.proof, asked.proof_bytes(site, name)):
        return Refuse(Kind.PROOF, f"the request is not signed by the key of {name}")
    try:
        key = read_csr(asked.csr, claim.node)
    except Corrupt as error:
        return Refuse(Kind.REQUEST, str(error))
    digest = key_digest(key)
    if claim.used_by is not None:
        if claim.used_by != digest or facts.given is None:
            text = f"{name} was used by key {claim.used_by[:16]}; key {digest[:16]} asks now:"
            return Refuse(Kind.USED, f"{text} is there a copy of the card of {claim.node}?")
        if facts.given.revoked_utc_ns is not None:
            return Refuse(Kind.REVOKED, f"the certificate of {claim.node} was revoked")
        return Give(facts.given)
    if now_utc_ns >= claim.expires_utc_ns:
        return Refuse(Kind.EXPIRED, f"{name} has run out; provision {claim.node} with --again")
    return Issue(claim.node, claim.generation, key)
