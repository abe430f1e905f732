"""Logging in and out, one's own password, the language."""

from __future__ import annotations

import re

from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent.errors import ConfigError
from agent.station.people.entrance import Entrance
from agent.station.people.passwords import Passwords
from agent.station.people.registry import Registry
from agent.station.people.roles import Role
from agent.station.web.gate import DOOR, SESSION, Asked, Gate, Refused, choose_language, drop_cookie, set_cookie
from agent.station.web.pages import Pages

HOME = {
    Role.TECHNICIAN: "/account",
    Role.ADMIN: "/account",
    Role.SCHOOL: "/school",
    Role.HOUSEHOLD: "/household",
}
"""Where somebody begins who has no board, or a page of his own."""
BACK_CHARS_MAX = 8000
_OWN = re.compile(r"/(?!/)[!-\[\]-~]*")


class Door:
    """Handlers of the pages that are not about alerts. Any thread."""

    def __init__(
        self,
        *,
        entrance: Entrance,
        registry: Registry,
        passwords: Passwords,
        pages: Pages,
        gate: Gate,
        provider: str = "",
    ) -> None:
        """`provider`: the name of whom people may log in by instead; empty: there is none."""
        self._entrance = entrance
        self._registry = registry
        self._passwords = passwords
        self._pages = pages
        self._gate = gate
        self._provider = provider

    def login(self, asked: Asked) -> Response:
        """The form."""
        if asked.person is not None:
            return RedirectResponse(home(asked.person.role), status_code=303)
        return self.form(asked)

    def form(self, asked: Asked, *, wrong: str = "", login: str = "", status: int = 200, wait_s: int = 0) -> Response:
        """The form, and what went wrong before."""
        page = self._pages.render(
            "login.html", asked=asked, words=asked.words, wrong=wrong, login=login, provider=self._provider
        )
        return HTMLResponse(page, status_code=status, headers={"Retry-After": str(wait_s)} if wait_s else {})

    def enter(self, asked: Asked) -> Response:
        """The form, sent. The old session, if there was one, stays what it was: it is not ours to trust."""
        login = asked.form.get("login", "")[:64].strip().lower()
        entered = self._entrance.enter(login, asked.form.get("password", ""), asked.address)
        if not entered.token:
            wait_s = int(entered.wait_s) + 1 if entered.wait_s else 0
            wrong = asked.words("login.wait", seconds=wait_s) if wait_s else asked.words("login.wrong")
            return self.form(asked, wrong=wrong, login=login, status=429 if wait_s else 403, wait_s=wait_s)
        person = self._registry.find(login)
        if person is None:
            raise Refused(403)
        response = RedirectResponse(home(person.role), status_code=303)
        set_cookie(response, SESSION, entered.token)
        drop_cookie(response, DOOR)
        return response

    def leave(self, asked: Asked) -> Response:
        """Logs out."""
        self._entrance.leave(asked.token, asked.who.login, asked.address)
        response = RedirectResponse("/login", status_code=303)
        drop_cookie(response, SESSION)
        return response

    def account(self, asked: Asked) -> Response:
        """Who one is, and the form for another password."""
        return self._account(asked, "", 200)

    def password(self, asked: Asked) -> Response:
        """Another password; it ends all of one's sessions, this one too."""
        who = asked.who
        confirmed = self._entrance.confirm(who.login, asked.form.get("old", ""), asked.address)
        if confirmed.wait_s:
            wait_s = int(confirmed.wait_s) + 1
            return self._account(asked, asked.words("login.wait", seconds=wait_s), 429, wait_s=wait_s)
        if not confirmed.right:
            return self._account(asked, asked.words("account.wrong"), 403)
        new = asked.form.get("new", "")
        if new != asked.form.get("again", ""):
            return self._account(asked, asked.words("account.differ"), 400)
        try:
            hashed = self._passwords.hash(new)
        except ConfigError:
            return self._account(asked, asked.words("account.weak"), 400)
        self._registry.set_password(who.login, hashed, by=who.login)
        response = RedirectResponse("/login", status_code=303)
        drop_cookie(response, SESSION)
        return response

    def language(self, asked: Asked) -> Response:
        """Another language, and back to the page."""
        back = asked.form.get("back", "")
        response = RedirectResponse(back if _ours(back) else "/", status_code=303)
        if not self._gate.speaks(asked.form.get("language", "")):
            raise Refused(400)
        choose_language(response, asked.form["language"])
        return response

    def _account(self, asked: Asked, said: str, status: int, *, wait_s: int = 0) -> Response:
        page = self._pages.render("account.html", asked=asked, words=asked.words, said=said)
        return HTMLResponse(page, status_code=status, headers={"Retry-After": str(wait_s)} if wait_s else {})


def _ours(back: str) -> bool:
    """Whether it is a place on this desk. A browser takes two slashes, of either kind, for another host."""
    return len(back) <= BACK_CHARS_MAX and _OWN.fullmatch(back) is not None


def home(role: Role) -> str:
    """The first page of a role."""
    return HOME.get(role, "/")
