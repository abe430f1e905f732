"""The map of posts: where they are and how they are, kept up to date by its script; a list beside it says the same.

Nothing on it comes from elsewhere: the script is Leaflet from this station, what lies behind the posts is a folder of
tiles on its disk, or a plain grid of coordinates. Without the script there is the plan of agent/station/posts/plan.py.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.responses import HTMLResponse, Response

from agent.station.people.roles import Role
from agent.station.posts.desk import PostsDesk
from agent.station.posts.fleet import PostView
from agent.station.posts.plan import HEIGHT, WIDTH, Plan, plan
from agent.station.posts.words import Words as PostWords
from agent.station.web.evidence import EvidencePages
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages, unturned
from agent.station.web.posts import LOOKS, look_of, only
from agent.station.web.routes import Route
from agent.station.web.tiles import Tiles

MAY = frozenset(Role) - {Role.HOUSEHOLD}
REFRESH_S = 10
PLACED_MAX = 5_000
"""Posts on one map; of more, the worst."""
LISTED_MAX = 100
PLAN_MAX = 60
"""More than this cannot be told apart on the plan."""
KEPT_MAX = 16
VERSION_CHARS = 16

Line = tuple[str, str, float | None, float | None, str, str, bool]
"""name, place, latitude, longitude, look, how it is in words, whether an evidence alarm is open there: of one post, for
the script.
"""


class MapPages:
    """Handlers. Any thread; they block for the database and the disk."""

    def __init__(
        self,
        *,
        desk: PostsDesk,
        evidence: EvidencePages,
        pages: Pages,
        tiles: Tiles | None,
        attribution: str,
        has_map: Callable[[], bool],
    ) -> None:
        """`attribution`: who made the tiles. `has_map`: whether Leaflet was fetched."""
        self._desk = desk
        self._evidence = evidence
        self._pages = pages
        self._tiles = tiles
        self._attribution = attribution
        self._has_map = has_map
        self._lock = threading.Lock()
        self._told: OrderedDict[tuple[frozenset[str] | None, str], _Told] = OrderedDict()

    def routes(self) -> tuple[Route, ...]:
        """Who may use what. Without tiles there is no address for them."""
        tile = Route(method="GET", path="/map/tiles/{zoom}/{column}/{tile}", handler=self.tile, may=MAY)
        return (
            Route(method="GET", path="/map", handler=self.page, may=MAY),
            Route(method="GET", path="/map/posts", handler=self.posts, may=MAY),
            *(() if self._tiles is None else (tile,)),
        )

    def page(self, asked: Asked) -> Response:
        """The map, and the list for whoever sees none."""
        views = self._views(asked)
        say = _Saying(PostWords.of(asked.words.language), asked.words("evidence.mark"), self._evidence.posts())
        worst_first = say.worst_first(views)
        drawn: Plan | None = plan(views) if len(views) <= PLAN_MAX else None
        page = self._pages.render(
            "map.html",
            asked=asked,
            words=asked.words,
            person=asked.who,
            lines=[say.line(view) for view in worst_first[:LISTED_MAX]],
            more=max(len(views) - LISTED_MAX, 0),
            unplaced=sum(not _is_placed(view) for view in views),
            plan=drawn,
            dots=[] if drawn is None else [(dot, say.line(dot.view)) for dot in drawn.dots],
            box=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}",
            map=self._has_map(),
            tiles=self._tiles,
            attribution=self._attribution,
            refresh_s=REFRESH_S,
            listed_max=LISTED_MAX,
        )
        return HTMLResponse(page)

    def posts(self, asked: Asked) -> Response:
        """How the posts are, for the script: 204 when that is what it has (`known`) already."""
        version, body = self._lines(asked)
        if asked.query.get("known") == version:
            return Response(status_code=204)
        return Response(body, media_type="application/json")

    def tile(self, asked: Asked) -> Response:
        """One picture."""
        at = (int(asked.params["zoom"]), int(asked.params["column"]), int(asked.params["tile"].partition(".")[0]))
        data = None if self._tiles is None else self._tiles.read(*at)
        if data is None:
            raise Refused(404)
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"})

    def _views(self, asked: Asked) -> list[PostView]:
        return self._desk.views(only(asked.who.scope))

    def _lines(self, asked: Asked) -> tuple[str, bytes]:
        key = only(asked.who.scope), asked.words.language
        views, alarmed = self._desk.views(key[0]), self._evidence.posts()
        with self._lock:
            kept = self._told.get(key)
        # Both are the same objects as long as nothing new is known.
        if kept is None or kept.views is not views or kept.alarmed is not alarmed:
            say = _Saying(PostWords.of(key[1]), asked.words("evidence.mark"), alarmed)
            placed = say.worst_first([view for view in views if _is_placed(view)])
            lines = [say.line(view) for view in placed[:PLACED_MAX]]
            shown = json.dumps(lines, ensure_ascii=False, separators=(",", ":"))
            version = hashlib.sha256(shown.encode()).hexdigest()[:VERSION_CHARS]
            left_out = max(len(placed) - PLACED_MAX, 0)
            body = f'{{"version":"{version}","leftout":{left_out},"posts":{shown}}}'.encode()
            kept = _Told(views, alarmed, version, body)
            with self._lock:
                self._told[key] = kept
                self._told.move_to_end(key)
                while len(self._told) > KEPT_MAX:
                    self._told.popitem(last=False)
        return kept.version, kept.body


@dataclass(frozen=True, slots=True)
class _Told:
    """What the script was told, and what that was made of."""

    views: Sequence[PostView]
    alarmed: frozenset[str]
    version: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Saying:
    """Makes lines, in one language."""

    told: PostWords
    alarm: str  # in words
    alarmed: frozenset[str]

    def line(self, view: PostView) -> Line:
        post, alarmed = view.post, view.post.node in self.alarmed
        state = self.told.state(post)
        says = [state, *([] if view.now is None else [self.told.why(view.now)]), *([self.alarm] if alarmed else [])]
        lat, lon = (post.spot.lat, post.spot.lon) if _is_placed(view) else (None, None)
        look = look_of(view, alarmed=alarmed)
        return post.node, unturned(post.place) or post.node, lat, lon, look, " · ".join(says), alarmed

    def worst_first(self, views: Sequence[PostView]) -> list[PostView]:
        """Of what is alike, in the order given."""
        return sorted(views, key=self._rank)

    def _rank(self, view: PostView) -> tuple[int, bool]:
        alarmed = view.post.node in self.alarmed
        return LOOKS.index(look_of(view, alarmed=alarmed)), not alarmed


def _is_placed(view: PostView) -> bool:
    return view.post.spot.lat is not None and view.post.spot.lon is not None
