"""Who may have another certificate: decided from facts alone. `enrolment.py` gathers them and acts.

A post is who holds the key of a certificate of its own that has not been revoked; the topic must agree. The same key
that asks again is given the same certificate, for an answer gets lost. Once a post has shown that it uses a newer one,
the older ones are revoked, so that a copy of the card as it was is worth nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec

from agent import wire
from agent.errors import Corrupt
from agent.site.authority import key_digest, read_csr, renewal_due
from agent.site.proof import proved
from agent.site.register import Certificate, Node
from agent.types import NS

ISSUED_EVERY_S = 3600
"""Of one post. One that loses its new key asks with another; more than this is somebody who fills the register."""
EXPIRED_S_MAX = 30 * 86_400
"""A session outlives its certificate, for brokers judge it when it begins. So long such a post may still renew."""
CLOCK_BEHIND_S_MAX = 86_400


class Kind(StrEnum):
    """Why a post gets no other certificate."""

    UNKNOWN = "unknown-post"
    REVOKED = "revoked"
    PROOF = "bad-proof"
    REQUEST = "bad-request"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Issue:
    """A new certificate for this key."""

    generation: int
    key: ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class Give:
    """The certificate that was made before: its first answer was lost."""

    certificate: Certificate


@dataclass(frozen=True, slots=True)
class InUse:
    """The post says which one it uses. `older` are serials that end by it; `due`: it is time for the next."""

    older: tuple[str, ...]
    due: bool


@dataclass(frozen=True, slots=True)
class Early:
    """The one it has is good for long."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now; it is to ask again."""

    detail: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """No certificate. `alarm`: somebody should look at it."""

    kind: Kind
    detail: str

    @property
    def alarm(self) -> bool:
        return self.kind in (Kind.REVOKED, Kind.PROOF, Kind.SUPERSEDED)


Decision = Issue | Give | InUse | Early | Wait | Refuse


def decide(  # noqa: PLR0911  (one return for each answer)
    asked: wire.Renew, *, site: str, name: str, node: Node | None, certificates: Sequence[Certificate], now_utc_ns: int
) -> Decision:
    """`name`: the post that the broker has checked; `certificates`: all that it ever had, of kind `node`, oldest first.

    `now_utc_ns`: the station's clock. Never raises.
    """
    if node is None:
        return Refuse(Kind.UNKNOWN, f"{name} is not in this site's register")
    own = next((one for one in certificates if one.key_sha256 == asked.by), None)
    refusal = _distrust(asked, site, node, own, now_utc_ns)
    if refusal is not None or own is None:
        return refusal or Refuse(Kind.PROOF, "")
    try:
        key = read_csr(asked.csr, name)
    except Corrupt as error:
        return Refuse(Kind.REQUEST, str(error))
    found = next((one for one in certificates if one.key_sha256 == key_digest(key)), None)
    alive = [one for one in certificates if one.generation == node.generation and one.revoked_utc_ns is None]
    due = renewal_due(own.issued_utc_ns, own.not_after_utc_ns, now_utc_ns)
    if found is own:
        return InUse(tuple(one.serial for one in alive if one.issued_utc_ns < own.issued_utc_ns), due)
    if found is not None:
        return _again(name, found, alive)
    newest = max(one.issued_utc_ns for one in alive)
    if now_utc_ns < newest - CLOCK_BEHIND_S_MAX * NS:
        return Wait("the station's clock is behind: it has made a certificate at a later time than this")
    if not due:
        return Early()
    if now_utc_ns < newest + ISSUED_EVERY_S * NS:
        return Wait(f"{name} was given a certificate less than an hour ago")
    return Issue(node.generation, key)


def _again(name: str, found: Certificate, alive: Sequence[Certificate]) -> Give | Refuse:
    """The key that asks has had a certificate before."""
    if found not in alive:
        return Refuse(Kind.REVOKED, f"the certificate of {name} for this key was revoked: {found.reason}")
    if any(one.issued_utc_ns > found.issued_utc_ns for one in alive):
        return Refuse(Kind.SUPERSEDED, f"{name} has had a newer certificate than the one for this key")
    return Give(found)


def standing(name: str, by: str, *, node: Node | None, own: Certificate | None, now_utc_ns: int) -> Refuse | None:
    """Why a post of this name and key `by` is not honoured here, whatever it asks for; None when it is.

    `own`: its certificate for that key, if it ever had one. That it holds the key is yet to be proved.
    """
    if node is None:
        return Refuse(Kind.UNKNOWN, f"{name} is not in this site's register")
    if own is None:
        return Refuse(Kind.PROOF, f"key {by[:16]} has no certificate of {name}")
    if own.revoked_utc_ns is not None or node.state == "revoked" or own.generation != node.generation:
        why = own.reason or "a new card was made"
        return Refuse(Kind.REVOKED, f"the certificate of {name} that asks was revoked: {why}")
    if now_utc_ns >= own.not_after_utc_ns + EXPIRED_S_MAX * NS:
        return Refuse(Kind.EXPIRED, f"the certificate of {name} has long expired; provision it with --again")
    return None


def _distrust(asked: wire.Renew, site: str, node: Node, own: Certificate | None, now_utc_ns: int) -> Refuse | None:
    """Why whoever asks is not this post."""
    refusal = standing(node.node, asked.by, node=node, own=own, now_utc_ns=now_utc_ns)
    if own is None or (refusal is not None and refusal.kind is not Kind.EXPIRED):
        return refusal
    if not proved(own.pem.encode(), asked.proof, asked.proof_bytes(site, node.node)):
        return Refuse(Kind.PROOF, f"the request is not signed by key {asked.by[:16]} of {node.node}")
    return refusal
