"""The page of dockings: cards that were taken in, by whom and from whom, how many files, and what did not match."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, Response

from agent.station.dock.dockings import COUNTED_MAX, Docking, Dockings
from agent.station.people.roles import Role
from agent.station.web.evidence import FOOTAGE
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route

DOCKING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.TECHNICIAN, Role.AUDITOR, Role.ADMIN})
"""Who sees them: there are no pictures on it. Cards are brought by technicians, too."""
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")


class DockPages:
    """Handlers. Any thread; they block for the database."""

    def __init__(self, *, dockings: Dockings, pages: Pages) -> None:
        self._dockings = dockings
        self._pages = pages

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (Route(method="GET", path="/dock", handler=self.page, may=DOCKING),)

    def page(self, asked: Asked) -> Response:
        """The newest first; `before`: those that were begun before this one."""
        before = asked.query.get("before", "")
        if before and not _NUMBER.fullmatch(before):
            raise Refused(404)
        found, older = self._dockings.page(asked.who.scope, int(before) if before else None)
        page = self._pages.render(
            "dock.html",
            asked=asked,
            words=asked.words,
            shown=[(one, look(one)) for one in found],
            older=older,
            first=not before,
            footage=(lambda post: f"/footage?{urlencode({f'post.{post}': 'on'})}")
            if asked.who.role in FOOTAGE
            else None,
            counted_max=COUNTED_MAX,
        )
        return HTMLResponse(page)


def look(one: Docking) -> str:
    """How it stands: a key of words.*.json behind `dock.`."""
    if one.ended_utc_ns is None:
        return "cut" if one.again else "open"
    return "wrong" if one.counts["mismatched"] or one.counts["passed"] else "done"
