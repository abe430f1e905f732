"""Programs that fetch feeds show a token; no cookie, no session, no form is theirs."""

from __future__ import annotations

from agent.station.outward.tokens import Purpose, Rate, Tokens
from agent.station.web.fetches import Fetches
from agent.station.web.gate import Refused

SCHEME = "bearer "


class Bearers:
    """Any thread; blocks for one query."""

    def __init__(self, *, tokens: Tokens, rate: Rate, fetches: Fetches) -> None:
        self._tokens = tokens
        self._fetches = fetches
        self._rate = rate

    def admit(self, purpose: Purpose, authorization: str, feed: str, address: str) -> None:
        """Raises Refused: no token that is good for this (401), or too many requests with it (429); Transient: it
        cannot be put on record who fetches this feed.
        """
        token = authorization[len(SCHEME) :].strip() if authorization.lower().startswith(SCHEME) else ""
        holder = self._tokens.holder(token, purpose)
        if holder is None:
            raise Refused(401)
        wait_s = self._rate.wait_s(holder)
        if wait_s:
            raise Refused(429, "refused.503", wait_s=wait_s)
        self._fetches.note(holder, feed, address, purpose=purpose)
