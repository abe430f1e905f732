"""Footage: posts and a range, or around an alert; what there is, what is missing and why; asked for, played, kept.

Nobody gets a byte before it is on record who sees it (agent/station/web/viewed.py): when the list of what is to be
played is fetched, for all that stands in it, and for each file by itself. What a browser names are a post, a number
and a range of time; the rest is looked up.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from agent.clock import Clock
from agent.errors import ConfigError, Transient
from agent.recording.coverage import FUTURE, RECORDED, Stretch
from agent.station import archive_retention_rows as retention
from agent.station.alerts import Alert, Alerts
from agent.station.archive_retention import Policy
from agent.station.archive_retention_rows import Removed, Wait
from agent.station.bells.around import Around
from agent.station.db.engine import reading
from agent.station.footage import bar, playlist, ranges
from agent.station.footage.holds import Held, Holds
from agent.station.footage.requests import Request, Requests
from agent.station.footage.shelf import SetAside, Shelf, Stored
from agent.station.footage.survey import RANGE_S_MAX, Surveyed, Surveyor
from agent.station.orders import OrderBook
from agent.station.people.roles import POST
from agent.station.people.trail import Trail
from agent.station.posts.choosing import FIND_CHARS_MAX, OFFERED_MAX, Choosing
from agent.station.search.meaning import moment_of
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.viewed import Viewed
from agent.types import MS, NS, Cause

POSTS_MAX = 8
"""On one page."""
REMOVED_MAX = 200
"""Files told one by one on the page, of one post."""
DARK_MAX = 12
"""Dark stretches told in words, the longest."""
AROUND_S = 1800.0
"""Around an alert: half of it before, half behind. The words of `footage.nearest` say so."""
NEAR_S = 120.0
"""The same, of its clip."""
USUAL_S = 3600.0
REASON_CHARS_MAX = 300
TYPED_CHARS_MAX = 30
"""Of a time that is none, and is shown again."""
REFRESH_S = 5
RETRY_S = 5.0
"""After which a browser may ask again for what the archive did not give."""
Ask = Callable[[OrderBook, str, int, int, str], tuple[str, bool]]
"""(book, post, from, to, reason): asks the post. The order's id, and whether it is new. Raises ConfigError."""
PLAYLIST = "application/vnd.apple.mpegurl"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Range:
    """What is looked at."""

    start_utc_ns: int
    end_utc_ns: int
    mark_utc_ns: int | None = None  # of the alert
    by_arrival: bool = False  # the mark: nobody can go by the post's clock


@dataclass(frozen=True, slots=True)
class Row:
    """One post on the page."""

    node: str
    place: str
    surveyed: Surveyed
    bar: str
    totals: dict[str, float]
    dark: list[Stretch]
    requests: list[Request]
    holds: list[Held]
    set_aside: list[SetAside]
    parts: str  # for the script: where each part is in media time, JSON
    removed: list[Removed]  # of its time, by retention
    first_goes_utc_ns: int | None  # of what is here, when the first file's time is over

    @property
    def busy(self) -> bool:
        """Whether something is on its way, or the post has yet to answer."""
        return any(one.open for one in self.requests) or any(one.open for one in self.holds)


class Footage:
    """Handlers. Any thread."""

    def __init__(
        self,
        *,
        engine: Engine,
        shelf: Shelf,
        surveyor: Surveyor,
        requests: Requests,
        holds: Holds,
        choosing: Choosing,
        around: Around,
        alerts: Alerts,
        viewed: Viewed,
        trail: Trail,
        pages: Pages,
        clock: Clock,
        player: Callable[[], bool],
        policy: Policy,
    ) -> None:
        """`player`: whether hls.js is there."""
        self._policy = policy
        self._engine = engine
        self._shelf = shelf
        self._surveyor = surveyor
        self._requests = requests
        self._holds = holds
        self._choosing = choosing
        self._around = around
        self._alerts = alerts
        self._viewed = viewed
        self._trail = trail
        self._pages = pages
        self._clock = clock
        self._player = player

    def page(self, asked: Asked) -> Response:
        """Which posts, which time; and what there is of it."""
        return self._page(asked)

    def _page(self, asked: Asked, said: str = "", *, status: int = 200) -> Response:
        chosen, where = self._chosen(asked)
        find = " ".join(asked.query.get("find", "")[:FIND_CHARS_MAX].split())
        offered = self._choosing.offered(asked.who.scope, find, chosen)
        if isinstance(where, str):  # the form comes back as it was filled in
            start, end = (_given(asked).get(name, "")[:TYPED_CHARS_MAX] for name in ("from", "to"))
            said, status, twice = self._pages.never(asked.words, start, end) or asked.words(where), 400, ""
        else:
            twice = self._pages.twice(asked.words, where.start_utc_ns, where.end_utc_ns)
            start, end = self._pages.field(where.start_utc_ns), self._pages.field(where.end_utc_ns)
        page = self._pages.render(
            "footage.html",
            asked=asked,
            words=asked.words,
            posts=offered.posts,
            more=offered.more,
            find=find,
            find_max=FIND_CHARS_MAX,
            alert=asked.query.get("alert", ""),
            nearest=bool(asked.query.get("nearest")),
            chosen=chosen,
            rows=[] if isinstance(where, str) else self._rows(asked, chosen, where),
            where=None if isinstance(where, str) else where,
            start=start,
            end=end,
            exact=None if isinstance(where, str) else self._exact(where),
            twice=twice,
            asking=asked.who.role.value != "auditor",
            said=said,
            player=self._player(),
            refresh_s=REFRESH_S,
            policy=self._policy,
            wait=self._wait(),
        )
        return HTMLResponse(page, status_code=status)

    def part(self, asked: Asked) -> Response:
        """One post of the page, for its script: how far what was asked for has come."""
        where = self._range(asked)
        (row,) = self._rows(asked, self._one(asked), where)
        page = self._pages.render(
            "footage_post.html", asked=asked, words=asked.words, row=row, where=where,
            exact=self._exact(where),
            asking=asked.who.role.value != "auditor", player=self._player(), policy=self._policy,
        )  # fmt: skip
        return HTMLResponse(page)

    def media(self, asked: Asked) -> Response:
        """What is to be played, as an HLS media playlist."""
        post, where = self._post(asked), self._range(asked)
        found = self._surveyor.survey(post, where.start_utc_ns, where.end_utc_ns, address=_address(post))
        seen = [found.files[index] for index in found.playlist.files]
        if not seen:
            raise Refused(503, "footage.away", wait_s=RETRY_S) if found.away else Refused(404, "footage.nothing")
        self._see(asked, seen)
        return Response(playlist.write(found.playlist, found.listed), media_type=PLAYLIST)

    def file(self, asked: Asked) -> Response:
        """Bytes of one original: a range for a player, the whole of it to be kept."""
        stored = self._shelf.find(self._post(asked), int(asked.params["footage"].partition(".")[0]))
        if stored is None:
            raise Refused(404)
        try:
            part = ranges.parse(asked.headers["range"], stored.bytes)
        except ranges.Unsatisfiable:
            return Response(status_code=416, headers={"Content-Range": f"bytes */{stored.bytes}"})
        self._see(asked, [stored])
        headers = {"Accept-Ranges": "bytes"}
        if part is None:
            self._viewed.note(asked, [(stored.node, stored.sha256)], what="original")
            headers["Content-Disposition"] = f'attachment; filename="{_kept_as(stored)}"'
        else:
            headers["Content-Range"] = f"bytes {part[0]}-{part[0] + part[1] - 1}/{stored.bytes}"
        first, count = part or (0, stored.bytes)
        pieces = self._shelf.bytes(stored, first, count)
        try:
            opening = next(pieces)  # what is not there is an answer of its own, not one that breaks off
        except Transient as error:
            log.warning("footage: %s", error)
            raise Refused(503, "footage.unread", wait_s=RETRY_S) from None
        return StreamingResponse(
            _all(opening, pieces),
            status_code=200 if part is None else 206,
            media_type="video/mp4",
            headers=headers | {"Content-Length": str(count)},
        )

    def ask(self, asked: Asked) -> Response:
        """Has a post send what it has of the range."""
        return self._order(asked, self._requests.ask, kind="footage-requested", already="footage.already")

    def hold(self, asked: Asked) -> Response:
        """Has a post keep what it has of the range, and what it records in it from now on."""
        return self._order(asked, self._holds.ask, kind="footage-held", already="footage.heldalready")

    def _order(self, asked: Asked, ask: Ask, *, kind: str, already: str) -> Response:
        """`kind`: of the line on the audit log; `already`: what is said when the same was asked for before."""
        post, where, reason = self._post(asked), self._typed(asked), asked.field("reason", REASON_CHARS_MAX)
        if isinstance(where, str):
            return self._page(asked)
        if not reason:
            return self._page(asked, asked.words("footage.reason"), status=400)
        start, end = where.start_utc_ns, where.end_utc_ns
        told = {"address": asked.address, "post": post, "start": start, "end": end, "reason": reason}
        try:
            with self._trail.writing("ask a post for footage") as entry:  # never one without the other
                book = OrderBook.within(entry.db)
                number, new = ask(book, post, start, end, f"{asked.who.name}: {reason}"[:300])
                if new:
                    entry.note(kind, asked.who.login, order=number, **told)
        except ConfigError as error:
            return self._page(asked, asked.words("footage.notsent", why=str(error)[:200]), status=409)
        if not new:
            return self._page(asked, asked.words(already), status=409)
        back = f"/footage?post.{post}=on&from={asked.form['from']}&to={asked.form['to']}"
        return RedirectResponse(back, status_code=303)

    # -- what was asked -----------------------------------------------------------------------------------------------

    def _one(self, asked: Asked) -> dict[str, str]:
        """The post of the address, and its place. Raises Refused: there is none such for these eyes."""
        found = self._choosing.places(asked.who.scope, [asked.params["post"]])
        if not found:
            raise Refused(404)
        return found

    def _post(self, asked: Asked) -> str:
        return next(iter(self._one(asked)))

    def _chosen(self, asked: Asked) -> tuple[dict[str, str], Range | str]:
        """Posts, with their places, and range of the page; those of an alert when one is named. In the place of a range
        the name of a sentence that says why there is none.
        """
        given = _given(asked)
        incident = given.get("alert", "")
        if incident:
            alert = self._alerts.find(asked.who.scope, incident) if len(incident) == 36 else None
            if alert is None:
                raise Refused(404)
            where = _around(alert, NEAR_S if given.get("near") else AROUND_S)
            names = [alert.node]
            if given.get("nearest"):
                names = self._around.names(asked.who.scope, alert.node, POSTS_MAX)
            places = self._choosing.places(asked.who.scope, names)
            return {name: places[name] for name in names if name in places}, where
        named = {name.removeprefix("post.") for name, value in given.items() if name.startswith("post.") and value}
        names = [name for name in {*named, asked.params.get("post", "")} if POST.fullmatch(name)]
        chosen = {} if len(names) > OFFERED_MAX else self._choosing.places(asked.who.scope, names)
        if len(names) > OFFERED_MAX or len(chosen) > POSTS_MAX:
            return chosen, "footage.toomany"
        if not given.get("from") and not given.get("to"):
            now = self._clock.utc().utc_ns // (60 * NS) * 60 * NS + 60 * NS
            return chosen, Range(now - round(USUAL_S * NS), now)
        return chosen, self._typed(asked)

    def _typed(self, asked: Asked) -> Range | str:
        """The range of an address or a form, in local time of the desk; else the name of a sentence."""
        given = _given(asked)
        start, end = self._pages.begins(given.get("from", "")), self._pages.ends(given.get("to", ""))
        if start is None or end is None:
            return "footage.when"
        return Range(start, end) if 0 < end - start <= RANGE_S_MAX * NS else "footage.long"

    def _range(self, asked: Asked) -> Range:
        """The same. Raises Refused."""
        found = self._typed(asked)
        if isinstance(found, str):
            raise Refused(400, found)
        return found

    def _exact(self, where: Range) -> tuple[str, str]:
        """The same, for the addresses and the forms of a post: what is asked for there is what is shown here."""
        return self._pages.address(where.start_utc_ns), self._pages.address(where.end_utc_ns)

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _rows(self, asked: Asked, places: dict[str, str], where: Range) -> list[Row]:
        """One for each post, which has its place. What there is of them is looked up together."""
        if not places:
            return []
        start, end = where.start_utc_ns, where.end_utc_ns
        surveyed = self._surveyor.survey_all({post: _address(post) for post in places}, start, end)
        requests = self._requests.of(list(places), start, end)
        holds = self._holds.of(list(places), start, end)
        aside = self._shelf.set_aside(list(places), start, end)
        with reading(self._engine, "look for what was removed") as db:
            removed = retention.removed_all(db, list(places), start, end, REMOVED_MAX)
        return [
            self._row(asked, place, surveyed[post], where, requests[post], holds[post], aside[post], removed[post])
            for post, place in places.items()
        ]

    def _row(
        self,
        asked: Asked,
        place: str,
        found: Surveyed,
        where: Range,
        requests: list[Request],
        holds: list[Held],
        aside: list[SetAside],
        removed: list[Removed],
    ) -> Row:
        post, words = found.node, asked.words
        dark = [one for one in found.stretches if one.what != RECORDED and one.detail != FUTURE]
        longest = sorted(dark, key=lambda one: -one.seconds)[:DARK_MAX]
        return Row(
            node=post,
            place=place,
            surveyed=found,
            bar=bar.draw(
                found.stretches,
                found.here,
                mark_utc_ns=where.mark_utc_ns,
                label=words("footage.bar", post=place or post),
                says=lambda one: f"{self._pages.moment(one.start_utc_ns)} {words(f'coverage.{one.what}')} {one.detail}",
                clock=self._pages.moment,
            ),
            totals=bar.totals_s(found.stretches),
            dark=sorted(longest, key=lambda one: one.start_utc_ns),
            requests=requests,
            holds=holds,
            set_aside=aside,
            parts=_media_times(found),
            removed=removed,
            first_goes_utc_ns=min(
                (u for one in found.files if (u := self._policy.until_utc_ns(one.received_utc_ns)) is not None),
                default=None,
            ),
        )

    def _wait(self) -> Wait | None:
        with reading(self._engine, "look whether the archive waits") as db:
            return retention.waiting(db)

    def _see(self, asked: Asked, seen: list[Stored]) -> None:
        self._viewed.note(asked, [(one.node, one.sha256) for one in seen], what="footage")


def _given(asked: Asked) -> Mapping[str, str]:
    """The fields of the form, or of the address."""
    return asked.form or asked.query


def _around(alert: Alert, seconds: float) -> Range:
    """Half of it before, half behind. By the post's clock where that can be gone by, else by the time of arrival."""
    at, error_ms = alert.heard_utc_ns, None
    if alert.told is not None:
        at, error_ms = moment_of(alert.told, alert.heard_utc_ns)
    half = round(seconds * NS / 2)
    return Range(at - half, at + half, at, by_arrival=error_ms is None)


def _address(post: str) -> str:
    """Of its files, in front of a number."""
    return f"/footage/{post}/files/"


def _media_times(found: Surveyed) -> str:
    """[UTC ms, seconds, media time] of each stretch that plays without a break, JSON."""
    at_ns = 0
    rows: list[list[float]] = []
    for one in found.playlist.parts:
        if rows and one.joined:
            rows[-1][1] += one.duration_ns / NS
        else:
            rows.append([one.start_utc_ns / MS, one.duration_ns / NS, at_ns / NS])
        at_ns += one.duration_ns
    return json.dumps([[round(utc), round(seconds, 6), round(at, 6)] for utc, seconds, at in rows])


def _kept_as(stored: Stored) -> str:
    """What an original is called where it is kept: post, number of the file there, first digits of its hash."""
    name = stored.name.rpartition("/")[2].removesuffix(".mp4")
    plain = "".join(char for char in name if char.isascii() and (char.isalnum() or char == "-"))
    return f"{stored.node}_{plain[:40]}_{stored.sha256[:12]}.mp4"


def _all(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


LABELS = (RECORDED, *(cause.value for cause in Cause))
"""Each has a text `coverage.<label>`."""
