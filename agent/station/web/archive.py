"""The archive: how full it is and what it waits for, what goes in the next days, what was removed and by whose word.

And footage that somebody wants removed before its time: nothing goes before a second person has confirmed it.
"""

from __future__ import annotations

from sqlalchemy import Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent.clock import Clock
from agent.station import archive_retention_rows as rows
from agent.station.archive_retention import FORECAST_DAYS, Policy
from agent.station.archive_retention_desk import (
    ASKING,
    CONFIRMING,
    EARLY_RANGE_S_MAX,
    Early,
    Named,
    No,
    RetentionDesk,
)
from agent.station.archive_retention_making import make_retention
from agent.station.cases.desk import Remover
from agent.station.cases.states import NAME_CHARS_MAX, TEXT_CHARS_MAX
from agent.station.db.engine import reading
from agent.station.people.roles import POST, Role
from agent.station.people.trail import Trail
from agent.station.posts.choosing import Choosing
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.types import NS

READING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN})
NAMED_SHOWN_MAX = 200
POST_CHARS_MAX = 40
AHEAD_SHOWN_MAX = 100
"""Posts of the table of what goes, those of which the most goes first."""
_STATUS = {No.NOT_YOURS: 403, No.ONE_PERSON: 403, No.OVER: 409}


class ArchivePages:
    """Handlers. Any thread."""

    def __init__(
        self,
        *,
        engine: Engine,
        trail: Trail,
        archive: Remover,
        pages: Pages,
        clock: Clock,
        policy: Policy,
        choosing: Choosing,
    ) -> None:
        self._engine = engine
        self._trail = trail
        self._archive = archive
        self._pages = pages
        self._clock = clock
        self._policy = policy
        self._choosing = choosing

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (
            Route(method="GET", path="/archive", handler=self.page, may=READING),
            Route(method="POST", path="/archive/removals", handler=self.ask, may=ASKING),
            Route(method="GET", path="/archive/removals/{removal}", handler=self.one, may=READING),
            Route(method="POST", path="/archive/removals/{removal}/confirm", handler=self.confirm, may=CONFIRMING),
            Route(method="POST", path="/archive/removals/{removal}/refuse", handler=self.refuse, may=CONFIRMING),
        )

    def page(self, asked: Asked) -> Response:
        """The archive."""
        return self._page(asked)

    def ask(self, asked: Asked) -> Response:
        """Somebody wants footage removed."""
        node, reason = asked.field("post", POST_CHARS_MAX), asked.field("reason", TEXT_CHARS_MAX)
        authority = asked.field("authority", NAME_CHARS_MAX)
        typed = [asked.form.get(name, "") for name in ("from", "to")]
        start, end = self._pages.begins(typed[0]), self._pages.ends(typed[1])
        if not POST.fullmatch(node) or not self._choosing.places(asked.who.scope, [node]):
            return self._page(asked, "archive.no.post", status=400)
        if not reason or not authority:
            return self._page(asked, "archive.no.reason", status=400)
        if start is None or end is None or not 0 < end - start <= EARLY_RANGE_S_MAX * NS:
            return self._page(asked, "archive.no.range", status=400)
        if self._pages.twice(asked.words, start, end):  # elsewhere both are meant: here nothing goes that may not be
            return self._page(asked, "archive.no.twice", status=400)
        made = self._desk().ask(asked.who, Early(node, start, end, reason, authority))
        if isinstance(made, No):
            return self._page(asked, f"archive.no.{made.value}", status=_STATUS.get(made, 400))
        return RedirectResponse(f"/archive/removals/{made}", status_code=303)

    def one(self, asked: Asked) -> Response:
        """One ask: what it comes to, file by file, before anybody confirms it."""
        return self._one(asked, self._need(asked))

    def confirm(self, asked: Asked) -> Response:
        """A second person's word: the files go, but for those that something needs."""
        return self._answer(asked, confirmed=True)

    def refuse(self, asked: Asked) -> Response:
        """It stays."""
        return self._answer(asked, confirmed=False)

    def _answer(self, asked: Asked, *, confirmed: bool) -> Response:
        ask, reason = self._need(asked), asked.field("reason", TEXT_CHARS_MAX)
        if not confirmed and not reason:
            return self._one(asked, ask, "archive.no.reason", status=400)
        done = self._desk().answer(asked.who, ask.n, confirmed=confirmed, reason=reason)
        if done is None:
            raise Refused(404)
        if isinstance(done, No):
            return self._one(asked, self._need(asked), f"archive.no.{done.value}", status=_STATUS.get(done, 400))
        return RedirectResponse(f"/archive/removals/{ask.n}", status_code=303)

    # -- in words -----------------------------------------------------------------------------------------------------

    def _desk(self) -> RetentionDesk:
        """One for each request: what it remembers of ledgers is one thread's."""
        return make_retention(
            engine=self._engine, trail=self._trail, archive=self._archive, clock=self._clock, policy=self._policy
        )

    def _need(self, asked: Asked) -> rows.Ask:
        with reading(self._engine, "read an ask") as db:
            found = rows.asks(db, asked.who.scope, n=int(asked.params["removal"]))
        if not found:
            raise Refused(404)
        return found[0]

    def _page(self, asked: Asked, wrong: str = "", *, status: int = 200) -> Response:
        scope, form, desk = asked.who.scope, asked.form, self._desk()
        ahead, offered = desk.forecast(scope), self._choosing.offered(scope)
        more_ahead = max(len(ahead) - AHEAD_SHOWN_MAX, 0)
        with reading(self._engine, "read the archive") as db:
            used, wait = rows.used_bytes(db), rows.waiting(db)
            asks, removed = rows.asks(db, scope), rows.removed_at(db, scope)
        page = self._pages.render(
            "archive.html",
            asked=asked,
            words=asked.words,
            policy=self._policy,
            used=used,
            wait=wait,
            unsure=self._policy.days > 0 and not desk.clock_trusted,
            ahead=sorted(ahead, key=lambda one: -sum(one.bytes))[:AHEAD_SHOWN_MAX] if more_ahead else ahead,
            more_ahead=more_ahead,
            days=FORECAST_DAYS,
            totals=[sum(one.bytes[day] for one in ahead) for day in range(FORECAST_DAYS)],
            asks=asks,
            open_asks={one.n for one in asks if not desk.over(one)},
            removed=removed,
            posts=offered.posts,
            more_posts=offered.more,
            post_max=POST_CHARS_MAX,
            asking=asked.who.role in ASKING,
            wrong=(self._pages.never(asked.words, form.get("from", ""), form.get("to", "")) or asked.words(wrong))
            if wrong
            else "",
            given={name: form.get(name, "") for name in ("post", "reason", "authority", "from", "to")},
            text_max=TEXT_CHARS_MAX,
            name_max=NAME_CHARS_MAX,
        )
        return HTMLResponse(page, status_code=status)

    def _one(self, asked: Asked, ask: rows.Ask, wrong: str = "", *, status: int = 200) -> Response:
        desk = self._desk()
        closed = desk.over(ask)
        page = self._pages.render(
            "removal.html",
            asked=asked,
            words=asked.words,
            ask=ask,
            over=closed,
            named=Named((), ()) if closed else desk.names(ask),
            shown_max=NAMED_SHOWN_MAX,
            confirming=asked.who.role in CONFIRMING,
            own=asked.who.login == ask.login,
            wrong=asked.words(wrong) if wrong else "",
            text_max=TEXT_CHARS_MAX,
        )
        return HTMLResponse(page, status_code=status)
