"""A card becomes a post: makes its key, asks for its certificate by its one-time claim, and forgets the claim.

    node.key made, durable -> request signed by it -> (claim's certificate, MQTT) -> answer -> node.pem durable
    -> claim.key, claim.pem, claim.toml removed, durably

A cut anywhere is followed by the same steps again: the key that is there is used again, the station gives the same
certificate for it, and what is removed already stays so. The private key never leaves the card.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from agent import wire
from agent.clock import Clock
from agent.config import Id, Settings
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient
from agent.renewal import NEXT_CERT, NEXT_KEY
from agent.site import authority
from agent.site.proof import private_key, prove
from agent.state_file import read_small
from agent.types import NS
from agent.uplink import Broker, Connected, Disconnected, Hello, Received, Refused, Transport

KEY, CERT, CA = "node.key", "node.pem", "ca.pem"
CLAIM_KEY, CLAIM_CERT, CLAIM_FILE = "claim.key", "claim.pem", "claim.toml"
REFUSED_FILE = "refused.txt"
"""What headquarters last said of the claim, where it would not have it: for `wardpost doctor`."""
ANSWER_S_MAX = (2.0, 5.0, 10.0)
"""So long for an answer; then the question is asked again. On one connection as often as there are numbers."""
BACKOFF_S_MAX = 60.0

log = logging.getLogger(__name__)


class ClaimSettings(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """claim.toml."""

    node: Id
    site: Id
    claim: str
    expires: str = ""
    brokers: tuple[str, ...] = ()


class Enrolment:
    """`agent.worker.Worker`, until `done`. `refused`: why the station will not have this card; asking again is vain."""

    name = "enrolment"
    step_s_max = 60.0

    def __init__(
        self,
        *,
        disk: Disk,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        site: str,
        node: str,
        claim: str,
        brokers: Sequence[Broker],
        wait_s_max: float = 1.0,
    ) -> None:
        """`disk`: the identity folder. `claim`: its name; empty when there is none any more."""
        self._disk = disk
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._site = site
        self._node = node
        self._claim = claim
        self._brokers = tuple(brokers)
        self._wait_s_max = wait_s_max
        self._topics = wire.Topics(site, claim)
        self._request = b""
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._turn = 0
        self._failures = 0
        self._asks = 0
        self._up = False
        self._connecting = False
        self._next_s = 0.0  # of connecting, or of asking
        self.done = False
        self.refused = ""

    def open(self) -> None:
        """Makes what is missing and finishes what a cut has left. Raises ConfigError, Transient."""
        if self._finished():
            self._forget()
            return
        if not self._claim:
            raise ConfigError(
                f"{self._disk.path(CERT)}: there is no certificate and no claim to get one by;"
                " provision the post with --again"
            )
        self._key = self._own_key()
        self._request = self._ask_for()

    def step(self, now: float) -> float:
        """Connects, asks, takes the answer. Raises Transient when the disk refuses."""
        if self.done or self.refused:
            return now + self._wait_s_max
        if not self._up and not self._connecting and now >= self._next_s:
            self._connecting = True
            hello = Hello(f"wardpost_{self._site}_{self._claim}", subscriptions=((self._topics.enrolled, 1),))
            self._transport.connect(self._brokers[self._turn % len(self._brokers)], hello)
        for happening in self._transport.poll(max(0.0, min(self._wait_s_max, self._next_s - now or self._wait_s_max))):
            match happening:
                case Connected():
                    log.info("connected to %s as %s", happening.broker, self._claim)
                    self._up, self._connecting, self._asks, self._next_s = True, False, 0, 0.0
                case Refused() | Disconnected():
                    self._lost(str(happening.broker), happening.reason)
                case Received():
                    happening.ack()
                    if happening.topic == self._topics.enrolled and not happening.retained:
                        self._answered(happening.payload)
                case _:
                    pass
        if self._up and not self.done and not self.refused and self._now() >= self._next_s:
            self._ask()
        return self._now()

    def close(self) -> None:
        self._transport.disconnect()
        self._up = self._connecting = False

    # -- the card -----------------------------------------------------------------------------------------------------

    def _finished(self) -> bool:
        """Whether the card has its certificate, whole and fitting, and no claim that was made after it.

        Such a claim is a person's wish that the post enrols anew: its certificate ended in the dark, or was revoked.
        """
        cert, key = self._read(CERT), self._load_key()
        if cert is None or key is None or self._misfit(cert, key):
            return False
        return not self._claim or not authority.newer(self._read(CLAIM_CERT) or b"", cert)

    def _misfit(self, cert: bytes, key: ec.EllipticCurvePrivateKey) -> str:
        ca = self._read(CA)
        if ca is None:
            raise ConfigError(f"{self._disk.path(CA)}: missing; it belongs to the kit of this post")
        return authority.fits(cert, authority=ca, node=self._node, key=key.public_key())

    def _forget(self) -> None:
        """Removes the claim: its key first, for that is what a thief could use."""
        for name in (CLAIM_KEY, CLAIM_CERT, CLAIM_FILE, REFUSED_FILE, NEXT_KEY, NEXT_CERT):
            self._disk.unlink(name)
        self.done = True

    def _own_key(self) -> ec.EllipticCurvePrivateKey:
        """The card's key; a new one is durable before anybody hears of it."""
        key = self._load_key()
        if key is None:
            key = authority.new_key()
            self._disk.replace(KEY, authority.key_pem(key), private=True)
            log.info("made the key of this post: %s", self._disk.path(KEY))
        return key

    def _load_key(self) -> ec.EllipticCurvePrivateKey | None:
        data = self._read(KEY)
        if data is None:
            return None
        key = private_key(data)
        if key is None:
            log.warning("%s is no key that can be read; a new one is made", self._disk.path(KEY))
        return key

    def _ask_for(self) -> bytes:
        """The message. Raises ConfigError when the claim's key is missing or damaged."""
        claim_key = private_key(self._read(CLAIM_KEY) or b"")
        if claim_key is None or self._key is None:
            raise ConfigError(f"{self._disk.path(CLAIM_KEY)}: no key of a claim; provision the post with --again")
        asked = wire.Enrol(csr=authority.make_csr(self._node, self._key).decode(), proof="")
        proof = prove(claim_key, asked.proof_bytes(self._site, self._claim))
        return wire.encode(msgspec.structs.replace(asked, proof=proof))

    def _read(self, name: str) -> bytes | None:
        return read_small(self._disk, name)

    # -- the conversation ---------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        if self._asks >= len(ANSWER_S_MAX):
            self._transport.disconnect()
            self._lost("the station", f"no answer in {sum(ANSWER_S_MAX):.0f} s; is it running, with station.register?")
            return
        self._next_s = self._now() + ANSWER_S_MAX[self._asks]
        self._asks += 1
        try:
            self._transport.publish(self._topics.enrol, self._request, qos=1)
        except Transient as error:
            log.debug("%s", error)  # Disconnected follows

    def _answered(self, payload: bytes) -> None:
        try:
            answer = wire.decode(payload, wire.Enrolled)
        except Corrupt as error:
            log.warning("an answer that is none: %s", error)
            return
        if answer.state == "refused":
            self.refused = answer.detail or "refused"
            with suppress(Transient):  # it is said anyway; this is for who asks the post later
                self._disk.replace(REFUSED_FILE, f"{self.refused}\n".encode())
            return
        if answer.state == "failed":
            log.warning("the station could not: %s; asked again in a while", answer.detail)
            return
        if self._key is None or answer.key != authority.key_digest(self._key.public_key()):
            log.warning("a certificate for another key: somebody else uses %s", self._claim)
            return
        wrong = self._misfit(answer.cert.encode(), self._key)
        if wrong:
            log.error("the certificate that came is not ours: %s", wrong)
            return
        self._disk.replace(CERT, answer.cert.encode())
        log.info("enrolled: %s", self._disk.path(CERT))
        self._forget()

    def _lost(self, who: str, reason: str) -> None:
        self._failures += 1
        self._turn += 1
        wait_s = self._rng.uniform(0.2, 1.0) * min(BACKOFF_S_MAX, 2.0 ** min(self._failures, 16))
        log.warning("%s: %s; next attempt in %.1f s", who, reason, wait_s)
        self._up, self._connecting, self._next_s = False, False, self._now() + wait_s

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
