"""The station as the site's registrar: a card asks, the register remembers, and only then is there an answer."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from agent import wire
from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient
from agent.site import authority, founding
from agent.site.folder import open_site
from agent.site.register import Certificate, Register
from agent.station.admission import Facts, Give, Issue, Kind, Refuse, decide
from agent.types import NS

ASKED_MAX = 6
ASKED_WINDOW_S = 10.0
"""Of one claim. A card asks every ten seconds; more than this is somebody who wants to keep the disk busy."""
CLAIMS_SEEN_MAX = 1000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to tell the card. `refused`: why not, with an eye to whoever watches the station."""

    message: wire.Enrolled
    refused: Refuse | None = None


class EnrolmentDesk:
    """One thread. Raises Transient when the register is in the way: the card asks again."""

    def __init__(self, folder: Path, *, clock: Clock, site: str) -> None:
        self._folder = folder
        self._clock = clock
        self._site = site
        self._register: Register | None = None
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


def _facts(register: Register, name: str) -> Facts:
    claim = register.claim(name)
    if claim is None:
        return Facts()
    certificates = register.certificates_of(claim.node)
    own = next((one for one in certificates if one.kind == "claim" and one.name == name), None)
    given = next((one for one in certificates if one.serial == claim.serial), None)
    return Facts(claim=claim, own=own, node=register.node(claim.node), given=given)
