"""Logging in by an OpenID Connect provider, as pages: the way there, and the way back.

The way back comes from another site, so the browser sends none of our cookies with it, but for one that says so
(SameSite=Lax). For the same reason the session's cookie (Strict) would not go with a redirect to the board: a page of
ours leads there.
"""

from __future__ import annotations

from sqlalchemy import Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent.clock import Clock
from agent.station.people.oidc.entrance import OidcEntrance, Why
from agent.station.people.oidc.flow import LASTS_S, Flows
from agent.station.people.oidc.links import Links
from agent.station.people.oidc.provider import Provider
from agent.station.people.oidc.refusals import Refusals
from agent.station.people.oidc.settings import OidcSettings, check
from agent.station.people.registry import Registry
from agent.station.people.sessions import Sessions
from agent.station.people.throttle import Throttle
from agent.station.people.trail import Trail
from agent.station.web.door import Door, home
from agent.station.web.gate import OIDC, SESSION, Asked, Refused, drop_cookie, set_cookie
from agent.station.web.pages import Pages
from agent.station.web.routes import ANYBODY, Route

BEGIN, BACK = "/login/oidc", "/login/oidc/back"
_STATUS: dict[Why, int] = {"wait": 429, "down": 503}


def oidc_routes(
    settings: OidcSettings,
    *,
    origin: str,
    engine: Engine,
    clock: Clock,
    trail: Trail,
    registry: Registry,
    sessions: Sessions,
    throttle: Throttle,
    door: Door,
    pages: Pages,
) -> tuple[Route, ...]:
    """Wired, for the table. Asks the provider nothing yet. Raises ConfigError."""
    check(settings)
    entrance = OidcEntrance(
        provider=Provider(settings, back=origin + BACK, clock=clock),
        flows=Flows(boot_ns=clock.boot_ns),
        links=Links(engine, trail=trail, issuer=settings.issuer),
        sessions=sessions,
        throttle=throttle,
        refusals=Refusals(boot_ns=clock.boot_ns),
        trail=trail,
    )
    return OidcPages(entrance=entrance, registry=registry, door=door, pages=pages).routes()


class OidcPages:
    """Handlers. Any thread."""

    def __init__(self, *, entrance: OidcEntrance, registry: Registry, door: Door, pages: Pages) -> None:
        self._entrance, self._registry, self._door, self._pages = entrance, registry, door, pages

    def routes(self) -> tuple[Route, ...]:
        """For the table."""
        return (
            Route(method="GET", path=BEGIN, handler=self.begin, may=ANYBODY),
            Route(method="GET", path=BACK, handler=self.back, may=ANYBODY),
        )

    def begin(self, asked: Asked) -> Response:
        """To the provider."""
        if asked.person is not None:
            return RedirectResponse(home(asked.person.role), status_code=303)
        begun = self._entrance.begin(asked.address)
        if begun.why:
            return self._not(asked, begun.why, begun.wait_s)
        response = RedirectResponse(begun.url, status_code=303)
        set_cookie(response, OIDC, begun.cookie, max_age_s=LASTS_S, samesite="lax")
        return response

    def back(self, asked: Asked) -> Response:
        """From the provider. A session that the browser had stays what it was: it is not ours to trust."""
        returned = self._entrance.back(asked.oidc, asked.query, asked.address)
        if returned.why:
            response = self._not(asked, returned.why, returned.wait_s)
        else:
            person = self._registry.find(returned.login)
            if person is None:
                raise Refused(403)
            response = HTMLResponse(self._pages.render("entered.html", words=asked.words, to=home(person.role)))
            set_cookie(response, SESSION, returned.token)
        drop_cookie(response, OIDC)
        return response

    def _not(self, asked: Asked, why: Why, wait_s: float) -> Response:
        seconds = int(wait_s) + 1 if wait_s else 0
        text = asked.words("login.wait", seconds=seconds) if why == "wait" else asked.words(f"login.oidc.{why}")
        return self._door.form(asked, wrong=text, status=_STATUS.get(why, 403), wait_s=seconds)
