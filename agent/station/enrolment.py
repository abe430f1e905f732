"""The station as the site's registrar: a card or a post asks, the register remembers, and only then it is answered."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from agent import wire
from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient
from agent.site import authority, founding
from agent.site.folder import open_site
from agent.site.register import Certificate, Register
from agent.station import renewals
from agent.station.admission import Facts, Give, Issue, Kind, Refuse, decide
from agent.types import NS

ASKED_MAX = 6
ASKED_WINDOW_S = 10.0
"""Of one claim. A card asks every ten seconds; more than this is somebody who wants to keep the disk busy."""
CLAIMS_SEEN_MAX = 1000
TEND_EVERY_S = 86_400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to tell the card. `refused`: why not, with an eye to whoever watches the station."""

    message: wire.Enrolled
    refused: Refuse | None = None


@dataclass(frozen=True, slots=True)
class RenewalAnswer:
    """What to tell the post."""

    message: wire.Renewed
    refused: renewals.Refuse | None = None


class EnrolmentDesk:
    """One thread. Raises Transient when the register is in the way: the card asks again."""

    def __init__(self, folder: Path, *, clock: Clock, site: str) -> None:
        self._folder = folder
        self._clock = clock
        self._site = site
        self._register: Register | None = None
        self._tended_s = -TEND_EVERY_S
        self._authority: authority.Authority | None = None
        self._ca = ""
        self._asked: dict[str, deque[float]] = {}

    def open(self) -> None:
        """Opens the site's folder. Raises ConfigError for another site, Corrupt, Transient."""
        if self._register is not None:
            return
        site = open_site(self._folder)
        if site.settings.name != self._site:
            raise ConfigError(f"station.register: {self._folder} is site {site.settings.name}, this is {self._site}")
        self._authority = founding.load_authority(site)
        self._ca = site.read("ca/ca.pem").decode()
        self._register = founding.open_register(site)

    def close(self) -> None:
        """Lets go of it. Never raises."""
        register, self._register = self._register, None
        if register is not None:
            register.close()

    def answer(self, claim: str, payload: bytes) -> Answer | None:
        """Takes one request. What it says is durable when it returns. None: asked too often, or by no claim.

        Raises Transient, Corrupt (a register that is none).
        """
        register, ca = self._register, self._authority
        if register is None or ca is None:
            raise Transient("the register is closed")
        if not self._may_ask(claim):
            return None
        now_ns = self._clock.utc().utc_ns
        try:
            asked = wire.decode(payload, wire.Enrol)
        except Corrupt as error:
            return self._refuse(register, claim, Refuse(Kind.REQUEST, str(error)), "", now_ns)
        for _ in range(2):  # a second time when somebody else has just used the claim
            facts = _facts(register, claim)
            decision = decide(asked, site=self._site, name=claim, facts=facts, now_utc_ns=now_ns)
            match decision:
                case Refuse():
                    node = facts.claim.node if facts.claim else ""
                    return self._refuse(register, claim, decision, node, now_ns)
                case Give():
                    return self._done(decision.certificate)
                case Issue():
                    signed = authority.issue_node(ca, decision.node, decision.generation, decision.key, now_ns=now_ns)
                    row = founding.of_certificate(
                        signed, "node", now_ns, node=decision.node, generation=decision.generation
                    )
                    if register.enrolled(claim, row, now_ns):
                        log.info("%s is enrolled by %s, serial %s", decision.node, claim, row.serial)
                        return self._done(row)
        raise Transient("the register changes too fast")

    def tend(self) -> None:
        """Once a day: renews the station's own certificate in its last third, and warns of the broker's.

        The new one is for the same key, and shown from the next connection on. Raises ConfigError, Corrupt, Transient.
        """
        register, now_s = self._register, self._clock.boot_ns() / NS
        if register is None or now_s - self._tended_s < TEND_EVERY_S:
            return
        self._tended_s = now_s
        now_ns = self._clock.utc().utc_ns
        for one in founding.servers(register):
            days = founding.days_left(one, now_ns)
            if one.kind == "station" and authority.renewal_due(one.issued_utc_ns, one.not_after_utc_ns, now_ns):
                founding.renew_servers(open_site(self._folder), register, now_ns, kinds=["station"])
                log.info("the station's certificate had %.0f days left: renewed", days)
            elif one.kind == "broker" and days < founding.SERVER_WARN_DAYS:
                text = "the broker's certificate ends in %.0f days, and then no post gets in: wardpost site renew %s"
                log.error(text, days, self._folder)

    def renew(self, node: str, payload: bytes) -> RenewalAnswer | None:
        """Takes one request of a post. What it says is durable when it returns. None: asked too often.

        Raises Transient, Corrupt (a register that is none).
        """
        register, ca = self._register, self._authority
        if register is None or ca is None:
            raise Transient("the register is closed")
        if not self._may_ask(node):
            return None
        now_ns = self._clock.utc().utc_ns
        try:
            asked = wire.decode(payload, wire.Renew)
        except Corrupt as error:
            return self._no_renewal(register, node, renewals.Refuse(renewals.Kind.REQUEST, str(error)), "", now_ns)
        had = [one for one in register.certificates_of(node) if one.kind == "node"]
        lost = _lost(asked, node, had, ca)
        had += lost
        decision = renewals.decide(
            asked, site=self._site, name=node, node=register.node(node), certificates=had, now_utc_ns=now_ns
        )
        key = _asked_key(asked, node)
        if isinstance(decision, renewals.Refuse):
            return self._no_renewal(register, node, decision, key, now_ns)
        for one in lost:  # and its key has signed
            log.warning("%s has a certificate that the register had lost, serial %s: noted again", node, one.serial)
            register.renewed(one, now_ns)
        if isinstance(decision, renewals.Issue):
            signed = authority.issue_node(ca, node, decision.generation, decision.key, now_ns=now_ns)
            new = founding.of_certificate(signed, "node", now_ns, node=node, generation=decision.generation)
            if not register.renewed(new, now_ns):
                raise Transient("the register has changed meanwhile")
            log.info("%s has another certificate, serial %s", node, new.serial)
            decision = renewals.Give(new)
        if isinstance(decision, renewals.InUse) and decision.older:
            register.replaced(decision.older, node, now_ns)
            log.info("%s uses its new certificate; ended: %s", node, ", ".join(decision.older))
        return RenewalAnswer(_told(decision, key))

    def _no_renewal(
        self, register: Register, node: str, refusal: renewals.Refuse, key: str, now_ns: int
    ) -> RenewalAnswer:
        level = logging.ERROR if refusal.alarm else logging.WARNING
        log.log(level, "renewal refused to %s (%s): %s", node, refusal.kind.value, refusal.detail)
        register.refused(node, f"renewal-{refusal.kind.value}", node, refusal.detail, now_ns)
        detail = f"{refusal.kind.value}: {refusal.detail}"[:500]
        return RenewalAnswer(wire.Renewed(state="refused", detail=detail, key=key), refusal)

    def _done(self, row: Certificate) -> Answer:
        return Answer(wire.Enrolled(state="done", key=row.key_sha256, cert=row.pem, ca=self._ca))

    def _refuse(self, register: Register, claim: str, refusal: Refuse, node: str, now_ns: int) -> Answer:
        level = logging.ERROR if refusal.alarm else logging.WARNING
        log.log(level, "enrolment refused (%s): %s", refusal.kind.value, refusal.detail)
        register.refused(claim, refusal.kind.value, node, refusal.detail, now_ns)
        detail = f"{refusal.kind.value}: {refusal.detail}"
        return Answer(wire.Enrolled(state="refused", detail=detail[:500]), refusal)

    def _may_ask(self, claim: str) -> bool:
        now_s = self._clock.boot_ns() / NS
        if claim not in self._asked and len(self._asked) >= CLAIMS_SEEN_MAX:
            self._asked.clear()
        times = self._asked.setdefault(claim, deque(maxlen=ASKED_MAX))
        if len(times) == ASKED_MAX and now_s - times[0] < ASKED_WINDOW_S:
            return False
        times.append(now_s)
        return True


def _told(decision: renewals.Give | renewals.InUse | renewals.Early | renewals.Wait, key: str) -> wire.Renewed:
    match decision:
        case renewals.Give():
            return wire.Renewed(state="done", key=key, cert=decision.certificate.pem)
        case renewals.InUse():
            return wire.Renewed(state="due" if decision.due else "done", key=key)
        case renewals.Early():
            return wire.Renewed(state="early", key=key)
        case renewals.Wait():
            return wire.Renewed(state="failed", key=key, detail=decision.detail)


def _lost(asked: wire.Renew, node: str, had: Sequence[Certificate], ca: authority.Authority) -> list[Certificate]:
    """The certificate of the key that asks, where only its signature tells that this site has made it.

    So it is when the site came back from a backup that is older than the certificate.
    """
    generation = authority.generation_of(asked.cert.encode(), authority=ca.certificate, node=node)
    if generation is None or any(one.key_sha256 == asked.by for one in had):
        return []
    given = x509.load_pem_x509_certificate(asked.cert.encode())
    issued_ns = int((given.not_valid_before_utc + authority.CLIENT_BACKDATED).timestamp()) * NS
    row = founding.of_certificate(given, "node", issued_ns, node=node, generation=generation)
    return [row] if row.key_sha256 == asked.by and not any(one.serial == row.serial for one in had) else []


def _asked_key(asked: wire.Renew, node: str) -> str:
    """Names the key of a request; empty when it is none."""
    try:
        return authority.key_digest(authority.read_csr(asked.csr, node))
    except Corrupt:
        return ""


def _facts(register: Register, name: str) -> Facts:
    claim = register.claim(name)
    if claim is None:
        return Facts()
    certificates = register.certificates_of(claim.node)
    own = next((one for one in certificates if one.kind == "claim" and one.name == name), None)
    given = next((one for one in certificates if one.serial == claim.serial), None)
    return Facts(claim=claim, own=own, node=register.node(claim.node), given=given)
