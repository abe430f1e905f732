"""Logging in by the provider: the delay, the provider, the link, the session, and the line on the audit log.

Attempts are counted as those with a password are, by address: a failure makes its address wait. What the provider says
is on the log in words of ours; what came from the browser is not. Refusals that anybody can cause are noted up to a
bound (`refusals.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.errors import ConfigError, Corrupt, Transient
from agent.station.people.oidc.claims import Claims
from agent.station.people.oidc.flow import Flows
from agent.station.people.oidc.links import Links
from agent.station.people.oidc.provider import Provider
from agent.station.people.oidc.refusals import Refusals
from agent.station.people.sessions import Sessions
from agent.station.people.throttle import Throttle
from agent.station.people.trail import Trail

Why = Literal["", "wait", "down", "stale", "refused", "unknown"]
HOW = "oidc"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Where the browser is sent, and what it is to keep; or why not."""

    url: str = ""
    cookie: str = ""
    why: Why = ""
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """A session's token and whose it is; or why not."""

    token: str = ""
    login: str = ""
    why: Why = ""
    wait_s: float = 0.0


class OidcEntrance:
    """Any thread; blocks for three requests to the provider. Raises Transient: the database is in the way."""

    def __init__(
        self,
        *,
        provider: Provider,
        flows: Flows,
        links: Links,
        sessions: Sessions,
        throttle: Throttle,
        refusals: Refusals,
        trail: Trail,
    ) -> None:
        self._provider, self._flows, self._links = provider, flows, links
        self._sessions, self._throttle, self._refusals, self._trail = sessions, throttle, refusals, trail

    @property
    def name(self) -> str:
        """Of the provider, as the login page calls it."""
        return self._provider.settings.name

    def begin(self, address: str) -> Begun:
        """Somebody wants to log in there."""
        wait_s = self._throttle.wait_s("", address)
        if wait_s > 0:
            return Begun(why="wait", wait_s=wait_s)
        flow = self._flows.begin()
        try:
            return Begun(url=self._provider.login_url(flow), cookie=flow.cookie)
        except (Transient, Corrupt, ConfigError) as error:
            log.warning("login by %s: %s", self.name, error)
            return Begun(why="down")

    def back(self, cookie: str, query: Mapping[str, str], address: str) -> Returned:
        """The browser comes back with `query`. `cookie`: what it has kept; empty: nothing."""
        wait_s = self._throttle.wait_s("", address)
        if wait_s > 0:
            return Returned(why="wait", wait_s=wait_s)
        claims, why, text = self._vouched(cookie, query)
        if claims is None:
            return self._refused(why, address, text)
        login = self._links.login_of(claims)
        if not login:
            return self._refused("unknown", address, "nobody is linked to this subject", subject=claims.subject)
        self._throttle.succeeded("", address)
        self._trail.note("login", login, address=address, how=HOW)
        return Returned(token=self._sessions.begin(login), login=login)

    def _vouched(self, cookie: str, query: Mapping[str, str]) -> tuple[Claims | None, Why, str]:
        """For whom the provider vouches; or None, and why not, in a word and in a sentence."""
        flow = self._flows.take(cookie, query.get("state", ""))
        if flow is None:
            return None, "stale", "an answer that belongs to no login of this browser"
        if "error" in query:
            return None, "refused", "the provider has let nobody in"
        try:
            return self._provider.claims(flow, query.get("code", ""), query.get("iss", "")), "", ""
        except (Transient, ConfigError) as error:
            log.warning("login by %s: %s", self.name, error)
            return None, "down", str(error)
        except Corrupt as error:
            return None, "refused", str(error)

    def _refused(self, why: Why, address: str, text: str, **more: str) -> Returned:
        if why != "down":  # that is nobody's guess, and must not make a password wait
            self._throttle.failed("", address)
        counted = self._refusals.note(why)
        if counted is not None:
            said = {**more, **counted}
            self._trail.note("login-refused", "", login="", address=address, how=HOW, why=text[:200], **said)
        return Returned(why=why)
