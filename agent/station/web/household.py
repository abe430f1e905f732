"""The page of a household that hosts a post: who viewed its camera, who was given footage, whose case, when, why."""

from __future__ import annotations

import re

from sqlalchemy import Engine, select
from starlette.responses import HTMLResponse, Response

from agent.station.db.engine import reading
from agent.station.db.tables import node
from agent.station.people import view_log
from agent.station.people.roles import Role
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.station.web.viewed import Viewed

HOSTING = frozenset({Role.HOUSEHOLD})
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")


class HouseholdPages:
    """Handlers. Any thread; they block for reading the audit log."""

    def __init__(self, *, engine: Engine, viewed: Viewed, pages: Pages) -> None:
        self._engine = engine
        self._viewed = viewed
        self._pages = pages

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (Route(method="GET", path="/household", handler=self.page, may=HOSTING),)

    def page(self, asked: Asked) -> Response:
        """One post at a time: `post` chooses among those that somebody hosts, `before` goes back in the log."""
        hosted = sorted(asked.who.scope.posts)
        post = asked.query.get("post", hosted[0] if hosted else "")
        before = asked.query.get("before", "")
        if not asked.who.scope.covers(post) or (before and not _NUMBER.fullmatch(before)):
            raise Refused(404)
        with reading(self._engine, "look for a post") as db:
            rows = db.execute(select(node.c.node, node.c.place).where(node.c.node.in_(hosted)))
            places = {str(of): str(place) for of, place in rows}
        page = view_log.read(self._engine, post, int(before) if before else None)
        self._viewed.note(asked, [(post, "log")], what="log")
        return HTMLResponse(
            self._pages.render(
                "household.html",
                asked=asked,
                words=asked.words,
                post=post,
                hosted=[(of, places.get(of) or of) for of in hosted],
                place=places.get(post) or post,
                page=page,
            )
        )
