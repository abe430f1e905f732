"""Logging in: the delay, the password, the session, and the line on the audit log, in this order.

Wherever a password is asked for it is asked for here, or guesses would be counted at one door and not at the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.station.people.passwords import Passwords
from agent.station.people.registry import Registry
from agent.station.people.roles import LOGIN
from agent.station.people.sessions import Sessions
from agent.station.people.throttle import Throttle
from agent.station.people.trail import Trail


@dataclass(frozen=True, slots=True)
class Entered:
    """What came of an attempt: a session's token; or none, and for how long no attempt is looked at."""

    token: str = ""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Whether a password was right; or for how long no attempt is looked at."""

    right: bool = False
    wait_s: float = 0.0


class Entrance:
    """Any thread; blocks for the hashing of a password. Raises Transient."""

    def __init__(
        self, *, registry: Registry, sessions: Sessions, passwords: Passwords, throttle: Throttle, trail: Trail
    ) -> None:
        self._registry = registry
        self._sessions = sessions
        self._passwords = passwords
        self._throttle = throttle
        self._trail = trail

    def enter(self, login: str, password: str, address: str) -> Entered:
        """A login that nobody has is refused in the same words and the same time as a wrong password."""
        known = login if LOGIN.fullmatch(login) else ""
        wait_s = self._throttle.wait_s(known, address)
        if wait_s > 0:
            return Entered(wait_s=wait_s)
        kept = self._registry.password(known) if known else None
        self._throttle.failed(known, address)  # counted before the answer: many attempts at once are many attempts
        if not self._passwords.fits(kept, password) or kept is None:
            self._trail.note("login-refused", "", login=known, address=address)
            return Entered(wait_s=0.0)
        self._throttle.succeeded(known, address)
        if self._passwords.old(kept):
            self._registry.set_password(known, self._passwords.hash(password), by=known, upgrade=True)
        self._trail.note("login", known, address=address)
        return Entered(token=self._sessions.begin(known))

    def confirm(self, login: str, password: str, address: str) -> Confirmed:
        """Whether this is the password of `login`, who is in and is asked for it again. A guess here is one there."""
        wait_s = self._throttle.wait_s(login, address)
        if wait_s > 0:
            return Confirmed(wait_s=wait_s)
        kept = self._registry.password(login)
        self._throttle.failed(login, address)
        if not self._passwords.fits(kept, password) or kept is None:
            self._trail.note("password-refused", login, address=address)
            return Confirmed()
        self._throttle.succeeded(login, address)
        return Confirmed(right=True)

    def leave(self, token: str, login: str, address: str) -> None:
        """Logs out."""
        self._sessions.end(token)
        self._trail.note("logout", login, address=address)
