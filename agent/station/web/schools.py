"""The page of schools: whom the alerts of each school's posts reach at the school, and who may change that.

A school sees its own contacts on its own page and changes none: its account is one for everybody at the gate, and who
could put another address there would silence a bell. Whoever answers for its posts at headquarters does it, by name.
"""

from __future__ import annotations

import re

from sqlalchemy import Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent.errors import ConfigError
from agent.station.db.engine import reading
from agent.station.outward.queue import standings
from agent.station.outward.school_address import ADDRESS_CHARS_MAX, HOWS, MESSENGERS, wrong
from agent.station.outward.schools import AFTER_S_MAX, SchoolBook, SchoolContact, destination_name
from agent.station.outward.settings import SchoolSettings
from agent.station.outward.trial import Trial
from agent.station.people.registry import find
from agent.station.people.roles import NAME_CHARS_MAX, Person, Role
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route

READING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN})
SETTING = frozenset({Role.SUPERVISOR, Role.ADMIN})
SCHOOLS_MAX = 200
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_SECONDS = re.compile(r"[0-9]{1,4}")


class SchoolsPages:
    """Handlers. Any thread; they block for the database."""

    def __init__(
        self,
        *,
        engine: Engine,
        book: SchoolBook,
        pages: Pages,
        settings: SchoolSettings | None,
        headquarters: bool,
        trial: Trial | None,
    ) -> None:
        """`settings`, `trial` None: the station sends to no school, so pages take phone numbers only. `headquarters`:
        whether anybody there is told of what nobody has acknowledged.
        """
        self._trial = trial
        self._engine = engine
        self._book = book
        self._pages = pages
        self._settings = settings
        self._headquarters = headquarters

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (
            Route(method="GET", path="/schools", handler=self.page, may=READING),
            Route(method="POST", path="/schools/contacts", handler=self.add, may=SETTING),
            Route(method="POST", path="/schools/contacts/remove", handler=self.remove, may=SETTING),
            Route(method="POST", path="/schools/contacts/test", handler=self.test, may=SETTING),
        )

    def page(self, asked: Asked) -> Response:
        """The schools all of whose posts are in somebody's scope, by login."""
        return self._page(asked)

    def add(self, asked: Asked) -> Response:
        """A new contact. What was typed as its address is not shown again."""
        school, name, how = asked.field("school", 32), asked.field("contact", NAME_CHARS_MAX), asked.field("how", 16)
        address, after = asked.field("address", ADDRESS_CHARS_MAX), asked.field("after", 4) or "0"
        if school not in {one.login for one in self._schools(asked.who)}:
            raise Refused(404)
        if not name or not _SECONDS.fullmatch(after) or int(after) > AFTER_S_MAX:
            return self._page(asked, "entry", status=400)
        hosts, mail = self._allowed()
        why = "unset" if how != "phone" and self._settings is None else ""
        why = why or wrong(how, address, hosts=hosts, mail=mail)
        if why:
            return self._page(asked, why, status=400)
        try:
            self._book.add(school, name=name, how=how, address=address, after_s=int(after), by=asked.who)
        except ConfigError:
            return self._page(asked, "many", status=400)
        return RedirectResponse("/schools", status_code=303)

    def remove(self, asked: Asked) -> Response:
        """Forgets one."""
        n = asked.field("n", 9)
        if not _NUMBER.fullmatch(n) or not self._book.remove(int(n), by=asked.who):
            raise Refused(404)
        return RedirectResponse("/schools", status_code=303)

    def test(self, asked: Asked) -> Response:
        """A message to one, now; the page says what became of it."""
        n, words = asked.field("n", 9), asked.words

        def text(contact: SchoolContact, origin: str) -> tuple[str, str]:
            body = words("schools.test.body", name=contact.name, who=asked.who.name)
            return words("schools.test.subject"), f"{body}\n{origin}/"

        if not _NUMBER.fullmatch(n):
            raise Refused(404)
        if self._trial is None:
            return self._page(asked, "unset", status=400)
        answer = self._trial.send(int(n), by=asked.who, text=text)
        if answer is None:
            raise Refused(404)
        name, tried = answer.contact.name, answer.tried
        if tried is None:
            wait_s = int(answer.wait_s) + 1
            return self._page(asked, status=429, said=words("schools.test.wait", seconds=wait_s), failed=True)
        if tried.result == "delivered":
            return self._page(asked, said=words("schools.test.delivered", name=name))
        why = tried.why if tried.result == "impossible" else ""
        said = words(f"schools.test.{tried.result}", name=name, status=tried.status, why=why)
        return self._page(asked, said=said, failed=True)

    def _allowed(self) -> tuple[tuple[str, ...], bool]:
        return ((), False) if self._settings is None else (self._settings.hosts, bool(self._settings.mail_url_file))

    def _schools(self, who: Person) -> list[Person]:
        with reading(self._engine, "look for schools") as db:
            people = find(db)
        schools = [one for one in people if one.role is Role.SCHOOL and not one.disabled]
        return [one for one in schools if who.scope.covers_all(one.scope.posts)][:SCHOOLS_MAX]

    def _page(
        self, asked: Asked, problem: str = "", *, status: int = 200, said: str = "", failed: bool = False
    ) -> Response:
        """`said`: what became of a test message; `failed`: it is not good."""
        schools = self._schools(asked.who)
        contacts = self._book.contacts([one.login for one in schools])
        stuck = {one.destination: one.waiting for one in standings(self._engine) if one.why}
        hosts, mail = self._allowed()
        page = self._pages.render(
            "schools.html",
            asked=asked,
            words=asked.words,
            schools=[(one, [contact for contact in contacts if contact.login == one.login]) for one in schools],
            stuck={one.n: stuck.get(destination_name(one.n), 0) for one in contacts},
            may=asked.who.role in SETTING,
            hows=[how for how in HOWS if self._settings is not None or how == "phone"],
            messengers=", ".join(MESSENGERS.values()),
            hosts=", ".join(hosts),
            mail=mail,
            sends=self._settings is not None,
            headquarters=self._headquarters,
            wrong=asked.words(f"schools.wrong.{problem}") if problem else said if failed else "",
            said="" if failed else said,
            name_max=NAME_CHARS_MAX,
            address_max=ADDRESS_CHARS_MAX,
            after_max=AFTER_S_MAX,
        )
        return HTMLResponse(page, status_code=status)
