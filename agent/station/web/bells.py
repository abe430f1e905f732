"""What is shown around a bell: the newest picture of a post, and whether a live view belongs to a bell. It is on record
who sees something before it is shown.
"""

from __future__ import annotations

from starlette.responses import Response

from agent.clock import Clock
from agent.station.alerts import Alerts
from agent.station.bells.around import Around
from agent.station.people.roles import Role, Scope
from agent.station.web.gate import Asked, Refused
from agent.station.web.routes import Route
from agent.station.web.viewed import Viewed
from agent.types import NS

RINGING_S = 3600.0
"""So long behind a press, whoever looks on live around it does so for the bell."""
SEEING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})


class Ringing:
    """Any thread; blocks for the database. Raises Transient."""

    def __init__(self, *, alerts: Alerts, around: Around, clock: Clock) -> None:
        self._alerts = alerts
        self._around = around
        self._clock = clock

    def around(self, scope: Scope, incident: str, post: str) -> bool:
        """Whether that is a bell which was pressed a short while ago, and the post one of those shown with it."""
        bell = self._alerts.find(scope, incident)
        if bell is None or bell.severity != "bell" or self._clock.utc().utc_ns - bell.raised_utc_ns > RINGING_S * NS:
            return False
        return any(one.node == post for one in self._around.near(scope, bell.node))


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
