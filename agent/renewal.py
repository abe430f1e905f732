"""A post renews its certificate over its own session, long before it ends. No clock of the post is asked.

    every day   node -> renew    "this is the certificate I use", signed by its key
                     <- renewed  done, or due: the station's clock decides
    due         renewing.key made, durable -> renew: request for it, signed by the key in force
                     <- renewed  done + certificate -> renewed.pem durable: the new pair is on trial
    trial       the next connection shows the new pair; up: renewed.pem becomes node.pem (this one rename decides), then
                renewing.key becomes node.key. Not up: the one after it shows the old pair, and so on by turns
    in use      renew, signed by the new key: the station ends the older certificates

A cut anywhere is followed by the same steps again: the key that waits is used again, the station gives the same
certificate for it, and between the two renames the certificate says which of the two keys is its own. The old pair is
whole until the new one has connected. The private keys never leave the card.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent import wire
from agent.clock import Clock, rfc3339
from agent.config import TlsSettings
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.quantities import DAY_S
from agent.site import authority
from agent.site.proof import private_key, prove
from agent.state_file import read_small
from agent.types import NS
from agent.uplink import Send

NEXT_KEY, NEXT_CERT = "renewing.key", "renewed.pem"
REFUSED_FILE = "renewal.txt"
"""Why headquarters will not renew, in its words: for `wardpost doctor`."""
ASK_AFTER_S = (30.0, 600.0)
"""After the first connection, at random in between: a fleet that comes back together does not ask together."""
RETRY_S = (60.0, 6 * 3600.0)
"""No answer: asked again after the first of these, doubling up to the second, each with jitter."""
TRIALS_MAX = 5
"""So often the broker may refuse the new pair and take the old one; then another certificate is asked for."""
TRIAL_AGAIN_S = 600.0

log = logging.getLogger(__name__)


class Renewal:
    """`agent.uplink.Errand`. One thread, which also asks `choose` before each connection."""

    def __init__(
        self,
        *,
        disk: Disk,
        clock: Clock,
        rng: random.Random,
        site: str,
        node: str,
        tls: TlsSettings,
        tell: Callable[[str], None] = log.info,
        ask_after_s: tuple[float, float] = ASK_AFTER_S,
    ) -> None:
        """`disk`: the folder in which all three files of `tls` are. `tell`: takes a sentence for headquarters."""
        self._ask_after_s = ask_after_s
        self._disk = disk
        self._clock = clock
        self._rng = rng
        self._site = site
        self._node = node
        self._tls = tls
        self._ca, self._cert, self._key = (Path(path).name for path in (tls.ca, tls.cert, tls.key))
        self._topics = wire.Topics(site, node)
        self.tell = tell
        self.wishes: tuple[tuple[str, int], ...] = ((self._topics.renewed, 1),)
        self.wants_new_connection = False
        self._granted = False
        self._shows_new = False  # the newest connection, or attempt
        self._up = False
        self._trials = 0
        self._trial_at = 0.0
        self._next_s: float | None = None  # when to ask; None: not connected yet, in this life
        self._unanswered = 0

    # -- which pair ---------------------------------------------------------------------------------------------------

    def choose(self) -> TlsSettings:
        """What the next connection shows. Never raises: a card in trouble is shown as it is configured."""
        old_turn = self._shows_new  # the attempt before this one showed the new pair and came to nothing
        self._shows_new = False
        with suppress(Transient):
            self._mend()
            if not old_turn and self._on_trial():
                self._shows_new = True
                log.info("trying the new certificate")
                path = self._disk.path
                return TlsSettings(ca=self._tls.ca, cert=str(path(NEXT_CERT)), key=str(path(NEXT_KEY)))
        return self._tls

    def _mend(self) -> None:
        """Finishes what a cut has left, and removes what is of no use. Raises Transient."""
        waiting = self._load(NEXT_KEY)
        if waiting is None:
            for name in (NEXT_CERT, NEXT_KEY):
                if self._read(name) is not None:
                    self._disk.unlink(name)
            return
        given, cert = self._certificate(NEXT_CERT), self._certificate(self._cert)
        if cert is not None and cert.public_key() == waiting.public_key():
            log.info("the certificate in force is the new one; finishing the change")
            self._disk.rename(NEXT_KEY, self._key)
            self._disk.unlink(NEXT_CERT)
            self._disk.unlink(NEXT_KEY)  # a cut may have left both names
            return
        stale = given is not None and cert is not None and given.not_valid_before_utc < cert.not_valid_before_utc
        if stale:  # the card has enrolled anew since
            self._drop()
        elif self._read(NEXT_CERT) is not None and (given is None or self._misfit(NEXT_CERT, waiting)):
            self._disk.unlink(NEXT_CERT)

    def _on_trial(self) -> bool:
        return self._read(NEXT_CERT) is not None and self._load(NEXT_KEY) is not None

    def _promote(self) -> None:
        """The new pair has connected: it is the pair now. Raises Transient; then it is said again."""
        if self._read(NEXT_CERT) is not None:
            self._disk.rename(NEXT_CERT, self._cert)
        self._mend()
        self._shows_new = False
        self._disk.unlink(REFUSED_FILE)
        cert = self._certificate(self._cert)
        until = "" if cert is None else f", good until {rfc3339(int(cert.not_valid_after_utc.timestamp()) * NS)[:10]}"
        self.tell(f"the certificate of this post was renewed{until}")
        self._trials, self._unanswered, self._next_s = 0, 0, self._now()

    def _drop(self) -> None:
        """Gives up the pair that waits."""
        self._disk.unlink(NEXT_CERT)
        self._disk.unlink(NEXT_KEY)
        self._trials = 0

    # -- the connection -----------------------------------------------------------------------------------------------

    def connected(self, denied: tuple[str, ...]) -> None:
        self._up = True
        self._granted = self._topics.renewed not in denied
        if not self._granted:
            log.warning("the broker's access list is older than this agent: it does not let certificates be renewed")
        if self._next_s is None:
            self._next_s = self._now() + self._rng.uniform(*self._ask_after_s)
        if not self._shows_new:
            self._trials += 1  # counts only while a new pair is on trial
            self._trial_at = self._now() + TRIAL_AGAIN_S * self._trials

    def disconnected(self) -> None:
        self.wants_new_connection = False
        if self._up:  # it was good while it lasted
            self._up = self._shows_new = False

    def step(self, now: float, send: Send) -> None:
        if self._shows_new:
            self._promote()
        if now >= self._trial_at and self._trials:
            self._try_again()
        if not self._granted or self._next_s is None or now < self._next_s:
            return
        if self._on_trial():
            self._next_s = now + DAY_S
            return
        message = self._question()
        low, high = RETRY_S
        wait_s = min(high, low * 2.0 ** min(self._unanswered, 16))
        self._next_s = now + self._rng.uniform(0.5, 1.0) * wait_s
        self._unanswered += 1
        if message:
            send(self._topics.renew, message)

    def _try_again(self) -> None:
        """Connected by the old pair. Is there a new one that wants another try?"""
        if not self._on_trial():
            self._trials = 0
        elif self._trials >= TRIALS_MAX:
            self.tell(f"a new certificate was refused {self._trials} times by the broker; another one is asked for")
            self._drop()
            self._next_s = self._now() + DAY_S
        else:
            self._trial_at = self._now() + TRIAL_AGAIN_S
            self.wants_new_connection = True

    # -- the conversation ---------------------------------------------------------------------------------------------

    def _question(self) -> bytes:
        """The request, for the key that waits or for the one in force; empty when there is none to sign by."""
        own, cert = self._load(self._key), self._certificate(self._cert)
        if own is None or cert is None or cert.public_key() != own.public_key():
            return b""
        key = self._load(NEXT_KEY) or own
        asked = wire.Renew(
            csr=authority.make_csr(self._node, key).decode(), by=authority.key_digest(own.public_key()), proof=""
        )
        proof = prove(own, asked.proof_bytes(self._site, self._node))
        return wire.encode(msgspec.structs.replace(asked, proof=proof, cert=authority.certificate_pem(cert).decode()))

    def received(self, topic: str, payload: bytes) -> bool:
        if topic != self._topics.renewed:
            return False
        try:
            answer = wire.decode(payload, wire.Renewed)
        except Corrupt as error:
            log.warning("an answer that is none: %s", error)
            return True
        own, waiting = self._load(self._key), self._load(NEXT_KEY)
        if self._on_trial() or own is None or answer.key != authority.key_digest((waiting or own).public_key()):
            return True  # an answer to an older question
        match answer.state:
            case "done" if waiting is not None:
                self._take(answer, waiting)
            case "done":
                self._disk.unlink(REFUSED_FILE)
                self._rest()
            case "due" if waiting is None:
                self._disk.replace(NEXT_KEY, authority.key_pem(authority.new_key()), private=True)
                log.info("the certificate is due for renewal; made the next key")
                self._unanswered, self._next_s = 0, self._now()
            case "due" | "early":
                self._disk.unlink(NEXT_KEY)
                self._rest()
            case "refused":
                log.error("headquarters does not renew the certificate: %s", answer.detail)
                with suppress(Transient):  # the log has it; the file is for who asks the post later
                    self._disk.replace(REFUSED_FILE, f"{answer.detail or 'refused'}\n".encode())
                self._disk.unlink(NEXT_KEY)
                self._rest()
            case _:
                log.warning("the station could not: %s; asked again in a while", answer.detail)
        return True

    def _take(self, answer: wire.Renewed, waiting: ec.EllipticCurvePrivateKey) -> None:
        wrong = authority.fits(
            answer.cert.encode(), authority=self._read(self._ca) or b"", node=self._node, key=waiting.public_key()
        )
        if wrong:
            log.error("the certificate that came is not ours: %s", wrong)
            return
        self._disk.replace(NEXT_CERT, answer.cert.encode())
        self._trials, self._trial_at = 0, self._now() + TRIAL_AGAIN_S
        self.wants_new_connection = True
        self._rest()

    def _rest(self) -> None:
        self._unanswered = 0
        self._next_s = self._now() + self._rng.uniform(0.9, 1.0) * DAY_S

    # -- files --------------------------------------------------------------------------------------------------------

    def _misfit(self, name: str, key: ec.EllipticCurvePrivateKey) -> str:
        ca, cert = self._read(self._ca), self._read(name)
        return authority.fits(cert or b"", authority=ca or b"", node=self._node, key=key.public_key())

    def _certificate(self, name: str) -> x509.Certificate | None:
        try:
            return x509.load_pem_x509_certificate(self._read(name) or b"")
        except ValueError:
            return None

    def _load(self, name: str) -> ec.EllipticCurvePrivateKey | None:
        return private_key(self._read(name) or b"")

    def _read(self, name: str) -> bytes | None:
        return read_small(self._disk, name)

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
