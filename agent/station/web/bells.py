"""The newest picture of a post, as it is shown around a bell. It is on record who sees it before it is shown."""

from __future__ import annotations

from starlette.responses import Response

from agent.station.bells.around import Around
from agent.station.people.roles import Role
from agent.station.web.gate import Asked, Refused
from agent.station.web.routes import Route
from agent.station.web.viewed import Viewed

SEEING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})


class BellPages:
    """Handlers. Any thread."""

    def __init__(self, *, around: Around, viewed: Viewed) -> None:
        self._around = around
        self._viewed = viewed

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (Route(method="GET", path="/posts/{post}/picture", handler=self.picture, may=SEEING),)

    def picture(self, asked: Asked) -> Response:
        """JPEG."""
        post = asked.params["post"]
        found = self._around.picture(asked.who.scope, post)
        if found is None:
            raise Refused(404)
        incident, jpeg = found
        self._viewed.note(asked, [(post, incident)], what="picture")
        return Response(jpeg, media_type="image/jpeg")
