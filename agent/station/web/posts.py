"""The pages of the posts: the list, one post with why it is dark, and what is to be done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, Response

from agent.clock import Clock
from agent.quantities import gb
from agent.station.alerts import Alerts
from agent.station.moments import told_ns
from agent.station.people.roles import Role, Scope
from agent.station.posts.desk import PostsDesk
from agent.station.posts.fleet import DAYS, PostView, ranking, todo
from agent.station.posts.outages import Day
from agent.station.posts.upkeep import BellLine, bell_of, storage_days
from agent.station.posts.words import Words as PostWords
from agent.station.posts.words import overwrite_of
from agent.station.search.meaning import fold
from agent.station.web.evidence import EvidencePages
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.types import NS

PICTURES = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})
PICTURE_DAYS = 7.0
PAST_SHOWN_MAX = 20
ROWS_MAX = 50
"""Posts on one page of the list."""
SEARCH_CHARS_MAX = 60
FOLDED_MAX = 100_000
"""Posts whose words are kept as they are searched; some 400 bytes each."""
PAGE_DIGITS_MAX = 5
LOOKS = ("bad", "warn", "good")
"""Not heard; heard, and something is wrong or to be done; heard. Classes of posts.css and map.css."""
GOOD_UP, FAIR_UP = 0.995, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A post as a template shows it."""

    view: PostView
    look: str  # good, warn, bad: a class of posts.css
    state: str
    why: str  # empty: nothing is wrong
    kept: str
    free: str
    overwrite_utc_ns: int | None
    up: str
    hours: str
    bell: BellLine | None
    bell_says: str


class PostPages:
    """Handlers. Any thread; they block for the database."""

    def __init__(self, *, desk: PostsDesk, alerts: Alerts, evidence: EvidencePages, pages: Pages, clock: Clock) -> None:
        self._desk = desk
        self._alerts = alerts
        self._evidence = evidence
        self._pages = pages
        self._clock = clock

    def page(self, asked: Asked) -> Response:
        """Posts that somebody may see, ROWS_MAX at a time. `show`: all, trouble, dark or cost; `find`: in name, place,
        house or pole; `provider`; `page`.
        """
        show, number = asked.query.get("show", "all"), asked.query.get("page", "1")
        if show not in ("all", "trouble", "dark", "cost") or not _is_page(number):
            raise Refused(404)
        find = " ".join(asked.query.get("find", "")[:SEARCH_CHARS_MAX].split())
        provider = asked.query.get("provider", "")[:SEARCH_CHARS_MAX]
        part = fold(find)
        told = PostWords.of(asked.words.language)
        views = self._views(asked)
        fitting = [
            view
            for view in (ranking(views) if show == "cost" else views)
            if (show != "trouble" or look_of(view) != "good")
            and (show != "dark" or not view.post.heard)
            and (not provider or view.post.spot.provider == provider)
            and (not part or part in _text(view.post.node, view.post.place, view.post.spot.house, view.post.spot.pole))
        ]
        pages = max(math.ceil(len(fitting) / ROWS_MAX), 1)
        page = min(int(number), pages)
        chosen = {"show": show, "find": find, "provider": provider}
        return self._page(
            asked,
            "posts.html",
            rows=[self._row(view, told) for view in fitting[(page - 1) * ROWS_MAX : page * ROWS_MAX]],
            count=len(fitting),
            pages=pages,
            page=page,
            link=lambda **other: "/posts?" + urlencode({k: v for k, v in (chosen | other).items() if v}),
            show=show,
            find=find,
            provider=provider,
            providers=sorted({view.post.spot.provider for view in views} - {""}),
        )

    def post(self, asked: Asked) -> Response:
        """One post."""
        node = asked.params["post"]
        view = next((one for one in self._views(asked) if one.post.node == node), None)
        if view is None:
            raise Refused(404)
        told = PostWords.of(asked.words.language)
        picture = self._picture(node) if asked.who.role in PICTURES else None
        return self._page(
            asked,
            "post.html",
            row=self._row(view, told),
            told=told,
            past=view.past[:PAST_SHOWN_MAX],
            bars=[
                (10 * (DAYS + 1 - len(view.uptime.days) + index), _look(day), self._day(asked, day))
                for index, day in enumerate(view.uptime.days)
            ],
            wide=10 * (DAYS + 1),
            picture=picture,
            evidence=self._evidence.of_post(asked, node),
            median="" if view.uptime.median_s is None else told.span(view.uptime.median_s),
            length=lambda outage: told.span(outage.seconds(self._clock.utc().utc_ns)),
        )

    def todo(self, asked: Asked) -> Response:
        """What somebody must do, by ways."""
        told = PostWords.of(asked.words.language)
        trips = []
        for trip in todo(self._views(asked)):
            keys = dict.fromkeys(key for view in trip if view.task is not None for key in view.task.bring)
            trips.append(([self._row(view, told) for view in trip], [told(key) for key in keys]))
        return self._page(asked, "todo.html", trips=trips, told=told, evidence=self._evidence.strip(asked))

    def _page(self, asked: Asked, template: str, **values: object) -> Response:
        return HTMLResponse(self._pages.render(template, asked=asked, words=asked.words, person=asked.who, **values))

    def _views(self, asked: Asked) -> list[PostView]:
        return self._desk.views(only(asked.who.scope))

    def _picture(self, node: str) -> str | None:
        """The incident of the newest alert of a post that has a picture. Its own route notes who looks at it."""
        since = self._clock.utc().utc_ns - round(PICTURE_DAYS * 86_400) * NS
        only = Scope(whole_site=False, posts=frozenset({node}))
        found = [one for one in self._alerts.board(only, since) if one.has_picture]
        return max(found, key=lambda one: one.raised_utc_ns).incident if found else None

    def _row(self, view: PostView, told: PostWords) -> Row:
        post = view.post
        kept = storage_days(post, self._clock.utc().utc_ns)
        free = None if post.beat is None else post.beat.said.machine.diskfreebytes
        overwrite = overwrite_of(view)
        bell = bell_of(post, self._clock.utc().utc_ns)
        when = "" if bell is None or bell.utc_ns is None else self._pages.moment(bell.utc_ns)
        return Row(
            view=view,
            look=look_of(view),
            state=told.state(post),
            why="" if view.now is None else told.why(view.now),
            kept="" if kept is None else told.span(kept * 86_400),
            free="" if free is None else gb(free),
            overwrite_utc_ns=None if overwrite is None else told_ns(overwrite),
            up="" if view.uptime.up is None else f"{view.uptime.up:.1%}",
            hours=f"{view.cost.total_h:.1f}",
            bell=bell,
            bell_says="" if bell is None else told(f"bell.{bell.look}").format(when=when),
        )

    def _day(self, asked: Asked, day: Day) -> str:
        up = asked.words("posts.unknown") if day.up is None else f"{day.up:.1%}"
        return f"{day.date:%d.%m.%Y}: {up}"


def only(scope: Scope) -> frozenset[str] | None:
    """The posts of a scope, as PostsDesk.views takes them."""
    return None if scope.whole_site else scope.posts


def look_of(view: PostView) -> str:
    """One of LOOKS."""
    return "bad" if not view.post.heard else "warn" if view.now is not None or view.task is not None else "good"


def _is_page(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= PAGE_DIGITS_MAX and int(text) > 0


@lru_cache(maxsize=FOLDED_MAX)
def _text(*words: str) -> str:
    """What a post is looked for in: kept, for folding takes some microseconds, and a station has tens of thousands."""
    return fold(" ".join(words))


def _look(day: Day) -> str:
    if day.up is None:
        return "none"
    return "good" if day.up >= GOOD_UP else "warn" if day.up >= FAIR_UP else "bad"
