"""The pages of the posts: the list, one post with why it is dark, and what is to be done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.responses import HTMLResponse, Response

from agent.clock import Clock
from agent.quantities import gb
from agent.station.moments import told_ns
from agent.station.people.roles import Role, Scope
from agent.station.posts.desk import PostsDesk
from agent.station.posts.fleet import DAYS, PostView, ranking, todo
from agent.station.posts.outages import Day
from agent.station.posts.pictures import AlertPicture, Pictures
from agent.station.posts.searched import text_of
from agent.station.posts.upkeep import BellLine, bell_of, storage_days
from agent.station.posts.words import Words as PostWords
from agent.station.posts.words import overwrite_of
from agent.station.search.meaning import fold
from agent.station.web.evidence import EvidencePages
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.viewed import Viewed
from agent.station.web.words import clock_error

PICTURES = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})
PAST_SHOWN_MAX = 20
ROWS_MAX = 50
"""Posts on one page of the list."""
SEARCH_CHARS_MAX = 60
PAGE_DIGITS_MAX = 5
LOOKS = ("bad", "warn", "good")
"""Not heard; heard, and something is wrong or to be done; heard. Classes of posts.css and map.css."""
GOOD_UP, FAIR_UP = 0.995, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A post as a template shows it."""

    view: PostView
    alarmed: bool  # an evidence alarm is open there
    look: str  # good, warn, bad: a class of posts.css
    state: str
    why: str  # empty: nothing is wrong
    reason: str  # of its look: why, or what is to be done; empty: it is well, or was revoked
    kept: str
    free: str
    overwrite_utc_ns: int | None
    up: str
    hours: str
    bell: BellLine | None
    bell_says: str
    picture: AlertPicture | None
    picture_error: str  # of its time, in words


class PostPages:
    """Handlers. Any thread; they block for the database."""

    def __init__(
        self,
        *,
        desk: PostsDesk,
        pictures: Pictures,
        viewed: Viewed,
        evidence: EvidencePages,
        pages: Pages,
        clock: Clock,
    ) -> None:
        """`viewed`: the one of the board, whose pictures these are."""
        self._desk = desk
        self._pictures = pictures
        self._viewed = viewed
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
        views, alarmed = self._views(asked), self._evidence.posts()
        fitting = [
            view
            for view in (ranking(views) if show == "cost" else views)
            if _is_shown(view, show, alarmed=view.post.node in alarmed)
            and (not provider or view.post.spot.provider == provider)
            and (not part or part in text_of(view.post))
        ]
        pages = max(math.ceil(len(fitting) / ROWS_MAX), 1)
        page = min(int(number), pages)
        chosen = {"show": show, "find": find, "provider": provider}
        listed = fitting[(page - 1) * ROWS_MAX : page * ROWS_MAX]
        pictures = self._newest(asked, listed)
        return self._page(
            asked,
            "posts.html",
            rows=[self._row(asked, view, told, alarmed, pictures.get(view.post.node)) for view in listed],
            pictured=asked.who.role in PICTURES,
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
        return self._page(
            asked,
            "post.html",
            row=self._row(asked, view, told, self._evidence.posts(), self._newest(asked, [view]).get(node)),
            told=told,
            past=view.past[:PAST_SHOWN_MAX],
            bars=[
                (10 * (DAYS + 1 - len(view.uptime.days) + index), _look(day), self._day(asked, day))
                for index, day in enumerate(view.uptime.days)
            ],
            wide=10 * (DAYS + 1),
            evidence=self._evidence.of_post(asked, node),
            median="" if view.uptime.median_s is None else told.span(view.uptime.median_s),
            length=lambda outage: told.span(outage.seconds(self._clock.utc().utc_ns)),
        )

    def todo(self, asked: Asked) -> Response:
        """What somebody must do, by ways."""
        told, alarmed = PostWords.of(asked.words.language), self._evidence.posts()
        trips = []
        for trip in todo(self._views(asked)):
            keys = dict.fromkeys(key for view in trip if view.task is not None for key in view.task.bring)
            trips.append(([self._row(asked, view, told, alarmed) for view in trip], [told(key) for key in keys]))
        return self._page(asked, "todo.html", trips=trips, told=told, evidence=self._evidence.strip(asked))

    def _page(self, asked: Asked, template: str, **values: object) -> Response:
        return HTMLResponse(self._pages.render(template, asked=asked, words=asked.words, person=asked.who, **values))

    def _views(self, asked: Asked) -> list[PostView]:
        return self._desk.views(only(asked.who.scope))

    def _newest(self, asked: Asked, views: list[PostView]) -> dict[str, AlertPicture]:
        """The newest pictures of alerts, for who may see any: who does is on record, in one line for all of a page."""
        if asked.who.role not in PICTURES:
            return {}
        found = self._pictures.newest(asked.who.scope, [view.post.node for view in views])
        self._viewed.note(asked, [(node, one.incident) for node, one in found.items()], what="picture")
        return found

    def _row(
        self,
        asked: Asked,
        view: PostView,
        told: PostWords,
        alarmed: frozenset[str],
        picture: AlertPicture | None = None,
    ) -> Row:
        post = view.post
        kept = storage_days(post, self._clock.utc().utc_ns)
        free = None if post.beat is None else post.beat.said.machine.diskfreebytes
        overwrite = overwrite_of(view)
        bell = bell_of(post, self._clock.utc().utc_ns)
        when = "" if bell is None or bell.utc_ns is None else self._pages.moment(bell.utc_ns)
        why = "" if view.now is None else told.why(view.now)
        return Row(
            view=view,
            alarmed=post.node in alarmed,
            look=look_of(view, alarmed=post.node in alarmed),
            state=told.state(post),
            why=why,
            reason=why if why or view.task is None else told(view.task.what),
            kept="" if kept is None else told.span(kept * 86_400),
            free="" if free is None else gb(free),
            overwrite_utc_ns=None if overwrite is None else told_ns(overwrite),
            up="" if view.uptime.up is None else f"{view.uptime.up:.1%}",
            hours=f"{view.cost.total_h:.1f}",
            bell=bell,
            bell_says="" if bell is None else told(f"bell.{bell.look}").format(when=when),
            picture=picture,
            picture_error="" if picture is None else clock_error(asked.words, picture.utc_ns, picture.error_ms),
        )

    def _day(self, asked: Asked, day: Day) -> str:
        up = asked.words("posts.unknown") if day.up is None else f"{day.up:.1%}"
        return f"{day.date:%d.%m.%Y}: {up}"


def only(scope: Scope) -> frozenset[str] | None:
    """The posts of a scope, as PostsDesk.views takes them."""
    return None if scope.whole_site else scope.posts


def look_of(view: PostView, *, alarmed: bool) -> str:
    """One of LOOKS. `alarmed`: an evidence alarm is open there."""
    if not view.post.heard:
        return "bad"
    return "warn" if alarmed or view.now is not None or view.task is not None else "good"


def _is_shown(view: PostView, show: str, *, alarmed: bool) -> bool:
    """Whether a filter of the list leaves a post in. One that was revoked is nobody's trouble any more, but for
    evidence alarms that nobody has answered.
    """
    if show == "trouble":
        return alarmed or (look_of(view, alarmed=False) != "good" and not view.post.revoked)
    return show != "dark" or not (view.post.heard or view.post.revoked)


def _is_page(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= PAGE_DIGITS_MAX and int(text) > 0


def _look(day: Day) -> str:
    if day.up is None:
        return "none"
    return "good" if day.up >= GOOD_UP else "warn" if day.up >= FAIR_UP else "bad"
