"""A test message to a contact of a school: whoever sets one sees whether it is reached, before it has to be.

It goes past the queue, once, and what became of it is told to who has sent it. The audit log has both, and no address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.clock import Clock
from agent.station.outward.messages import ToSchool, Tried
from agent.station.outward.schools import SchoolBook, SchoolContact
from agent.station.outward.settings import SchoolSettings
from agent.station.people.roles import Person
from agent.station.people.trail import Trail
from agent.types import NS

CONTACT_S = 60.0
"""Between two test messages to one contact."""
PERSON_S = 5.0
"""Between two test messages of one person."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of it. `tried` None: it was not sent, and may be in `wait_s`; 0: while another one is under way."""

    contact: SchoolContact
    tried: Tried | None
    wait_s: float = 0.0


class Trial:
    """Any thread. Raises Transient."""

    def __init__(self, *, settings: SchoolSettings, book: SchoolBook, trail: Trail, clock: Clock, origin: str) -> None:
        """`origin`: the desk's own address."""
        self._settings = settings
        self._book = book
        self._trail = trail
        self._clock = clock
        self._origin = origin
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}  # boot time; of the last minute
        self._sending = threading.Lock()

    def send(self, n: int, *, by: Person, text: Callable[[SchoolContact, str], tuple[str, str]]) -> Answer | None:
        """`text`: title and body, of the contact and the desk's address. Blocks for one attempt.

        None: no such contact for these eyes, or one that is told nothing.
        """
        found = self._book.reach(n, by=by)
        if found is None or found[0].how == "phone":
            return None
        contact, where = found
        if not self._sending.acquire(blocking=False):  # a service that hangs must not take every thread of the pages
            return Answer(contact, None)
        try:
            wait_s = self._wait_s(f"contact {n}", f"person {by.login}")
            if wait_s:
                return Answer(contact, None, wait_s)
            said = {"n": n, "school": contact.login, "name": contact.name, "how": contact.how}
            self._trail.note("school-contact-test", by.login, **said)
            hand = ToSchool(self._settings, how=where.how, address=where.address, origin=self._origin)
            tried = hand.try_out(*text(contact, self._origin))
            self._trail.note("school-contact-tested", by.login, **said, result=tried.result, status=tried.status)
        finally:
            self._sending.release()
        return Answer(contact, tried)

    def _wait_s(self, contact: str, person: str) -> float:
        """0: it may be sent, and that is counted."""
        now = self._clock.boot_ns()
        with self._lock:
            self._last = {key: at for key, at in self._last.items() if now - at < int(CONTACT_S * NS)}
            left = max(
                self._last.get(contact, now - int(CONTACT_S * NS)) + int(CONTACT_S * NS) - now,
                self._last.get(person, now - int(PERSON_S * NS)) + int(PERSON_S * NS) - now,
            )
            if left <= 0:
                self._last |= {contact: now, person: now}
            return max(left, 0) / NS
