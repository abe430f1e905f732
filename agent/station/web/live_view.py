"""Live view of one post: asked for with a reason, for a bounded time, with who else watches; stills where it must be.

Nobody is shown anything before the audit log has who asks, of which post, and why; how it ended follows on the log. The
post keeps records of its own, by the name that it is given here.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sqlalchemy import Engine, select
from starlette.responses import HTMLResponse, Response

from agent.clock import Clock, rfc3339
from agent.errors import ConfigError, Transient
from agent.station.db.engine import reading
from agent.station.db.tables import node
from agent.station.footage.holds import HOLD_DAYS
from agent.station.live.desk import LiveDesk
from agent.station.live.views import View
from agent.station.people.roles import Role, Scope
from agent.station.people.trail import Trail
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.types import NS

WATCHING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL})
REASON_CHARS_MAX = 100
HOLD_BEFORE_S, HOLD_AFTER_S = 300, 1800
ENDS = {
    "the privacy switch is on": "privacy",
    "its time was over": "time",
    "the viewer has gone": "gone",
    "nobody looks at the page any more": "closed",
    "the page was closed": "closed",
    "no connection came about": "noway",
    "the connection failed": "noway",
    "the network is too thin for video": "thin",
    "ended by headquarters": "ended",
    "ended by the viewer": "ended",
    "the post does not answer": "dark",
}
"""How a view ends, as post and station say it, and the key of the text for it. Anything else is shown as it is."""
AskHold = Callable[[str, dict[str, str]], None]
"""(post, args): queues a signed command `hold`. Raises WardpostError."""
Around = Callable[[Scope, str, str], bool]
"""(eyes, incident, post): whether that is a bell that rings, and this post near it. Raises Transient."""


class LivePages:
    """Handlers. Any thread."""

    def __init__(
        self,
        *,
        desk: LiveDesk,
        engine: Engine,
        trail: Trail,
        pages: Pages,
        clock: Clock,
        hold: AskHold,
        ringing: Around,
    ) -> None:
        self._desk = desk
        self._engine = engine
        self._trail = trail
        self._pages = pages
        self._clock = clock
        self._hold = hold
        self._ringing = ringing
        desk.ended = self._note_end

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        post, view = "/live/{post}", "/live/{post}/{view}"
        return (
            Route(method="GET", path=post, handler=self.page, may=WATCHING),
            Route(method="POST", path=f"{post}/open", handler=self.open, may=WATCHING),
            Route(method="POST", path=f"{post}/hold", handler=self.hold, may=WATCHING),
            Route(method="POST", path=f"{view}/begin", handler=self.begin, may=WATCHING),
            Route(method="GET", path=f"{view}/state", handler=self.state, may=WATCHING),
            Route(method="GET", path=f"{view}/still", handler=self.still, may=WATCHING),
            Route(method="POST", path=f"{view}/more", handler=self.more, may=WATCHING),
            Route(method="POST", path=f"{view}/end", handler=self.end, may=WATCHING),
        )

    def page(self, asked: Asked) -> Response:
        """The page of one post. It begins nothing by itself."""
        post = self._post(asked)
        html = self._pages.render(
            "liveview.html",
            asked=asked,
            words=asked.words,
            post=asked.params["post"],
            place=post,
            seconds=round(self._desk.seconds),
            reason=asked.query.get("reason", "")[:REASON_CHARS_MAX],
        )
        return HTMLResponse(html)

    def open(self, asked: Asked) -> Response:
        """An id for a view, and by which servers its connection may be found. Nothing is seen by this."""
        self._post(asked)
        view = self._desk.new_view()
        return _json({"view": view, "ice": self._desk.servers(view)})

    def begin(self, asked: Asked) -> Response:
        """Asks the post. A view around a bell has it on record: it is of no case, and needs none."""
        self._post(asked)
        post, view = asked.params["post"], asked.params["view"]
        reason, case = asked.field("reason", REASON_CHARS_MAX), asked.field("case", REASON_CHARS_MAX)
        mode, offer, bell = asked.form.get("mode", ""), asked.form.get("offer", ""), asked.form.get("bell", "")
        if mode not in ("video", "stills") or (mode == "video") != offer.startswith("v=0"):
            raise Refused(400)
        if not reason:
            return _json({"said": asked.words("live.noreason")}, 400)
        told = {"bell": bell} if bell and self._ringing(asked.who.scope, bell, post) else {}
        self._trail.note(
            "live-began",
            asked.who.login,
            address=asked.address,
            post=post,
            view=view,
            mode=mode,
            reason=reason,
            case=case,
            **told,
        )
        try:
            begun = self._desk.begin(
                view=view,
                node=post,
                login=asked.who.login,
                name=asked.who.name,
                reason=reason,
                case=case,
                stills=mode == "stills",
                offer=offer,
            )
        except (ConfigError, Transient) as error:
            why = str(error).partition(";")[0][:200]
            self._trail.note("live-ended", asked.who.login, post=post, view=view, how=why, seconds=0.0, pictures=None)
            return _json({"said": asked.words("live.notsent", why=why)}, 409)
        return _json(self._told(asked, begun))

    def state(self, asked: Asked) -> Response:
        """How it stands; asking keeps it open."""
        return _json(self._told(asked, self._view(asked)))

    def still(self, asked: Asked) -> Response:
        """The newest still."""
        view = self._view(asked)
        if not view.jpeg:
            raise Refused(404)
        return Response(view.jpeg, media_type="image/jpeg")

    def more(self, asked: Asked) -> Response:
        """Another grant."""
        view = self._view(asked)
        if self._desk.more(view.id, asked.who.login):
            self._trail.note("live-extended", asked.who.login, post=view.node, view=view.id, seconds=self._desk.seconds)
        return _json(self._told(asked, self._view(asked)))

    def end(self, asked: Asked) -> Response:
        """Enough."""
        view = self._view(asked)
        self._desk.end(view.id, asked.who.login)
        return _json(self._told(asked, self._view(asked)))

    def hold(self, asked: Asked) -> Response:
        """Keeps what is recorded now: some minutes before, half an hour from here on."""
        self._post(asked)
        post, reason = asked.params["post"], asked.field("reason", REASON_CHARS_MAX)
        if not reason:
            return _json({"said": asked.words("live.noreason")}, 400)
        now = self._clock.utc().utc_ns
        args = {
            "from": rfc3339(now - HOLD_BEFORE_S * NS),
            "to": rfc3339(now + HOLD_AFTER_S * NS),
            "until": rfc3339(now + HOLD_DAYS * 86_400 * NS),
            "reason": f"{asked.who.name}: {reason}",
        }
        self._trail.note("footage-held", asked.who.login, address=asked.address, post=post, reason=reason)
        try:
            self._hold(post, args)
        except ConfigError as error:
            return _json({"said": asked.words("live.notsent", why=str(error).partition(";")[0][:200])}, 409)
        return _json({"said": asked.words("live.held", days=HOLD_DAYS)})

    # -- parts --------------------------------------------------------------------------------------------------------

    def _post(self, asked: Asked) -> str:
        """The place of a post that this person may see. Raises Refused: there is none such."""
        name = asked.params["post"]
        if asked.who.scope.covers(name):
            with reading(self._engine, "look for a post") as db:
                place = db.execute(select(node.c.place).where(node.c.node == name)).scalar_one_or_none()
            if place is not None:
                return str(place)
        raise Refused(404)

    def _view(self, asked: Asked) -> View:
        """A view of this person, of a post that he may still see. Raises Refused."""
        self._post(asked)
        found = self._desk.look(asked.params["view"], asked.who.login)
        if found is None or found.node != asked.params["post"]:
            raise Refused(404)
        return found

    def _told(self, asked: Asked, view: View) -> dict[str, object]:
        left_s = max(view.until_s - self._clock.boot_ns() / NS, 0.0)
        others = list(view.watching)
        if view.name in others:
            others.remove(view.name)
        key = ENDS.get(view.over)
        over = asked.words(f"live.over.{key}") if key else view.over
        return {
            "view": view.id,
            "sdp": view.sdp,
            "left_s": round(left_s, 1),
            "others": asked.words("live.others", names=", ".join(others)) if others else asked.words("live.alone"),
            "still": view.still,
            "rate": asked.words("live.rate", seconds=f"{view.period_s:g}") if view.stills and view.period_s else "",
            "period_s": view.period_s,
            "age": asked.words("live.age", seconds=f"{view.age_ms / 1000:.1f}") if view.still else "",
            "over": over,
            "why": key or ("other" if view.over else ""),
        }

    def _note_end(self, view: View) -> None:
        self._trail.note(
            "live-ended",
            view.login,
            post=view.node,
            view=view.id,
            how=view.over,
            seconds=round(view.over_s - view.since_s, 1),
            pictures=view.pictures,
        )


def _json(data: dict[str, object], status: int = 200) -> Response:
    return Response(json.dumps(data), status_code=status, media_type="application/json")
