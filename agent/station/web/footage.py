"""Footage: posts and a range, or around an alert; what there is, what is missing and why; asked for, played, kept.

Nobody gets a byte before it is on record who sees it (agent/station/web/viewed.py): when the list of what is to be
played is fetched, for all that stands in it, and for each file by itself. What a browser names are a post, a number
and a range of time; the rest is looked up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, select
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from agent.clock import Clock
from agent.errors import ConfigError
from agent.recording.coverage import FUTURE, RECORDED, Stretch
from agent.station import archive_retention_rows as retention
from agent.station.alerts import Alerts
from agent.station.archive_retention import Policy
from agent.station.archive_retention_rows import Removed, Wait
from agent.station.db.engine import reading
from agent.station.db.tables import node
from agent.station.footage import bar, playlist, ranges
from agent.station.footage.requests import Request, Requests
from agent.station.footage.shelf import Shelf, Stored
from agent.station.footage.survey import RANGE_S_MAX, Surveyed, Surveyor
from agent.station.people.roles import Scope
from agent.station.people.trail import Trail
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages, told_ns
from agent.station.web.viewed import Viewed
from agent.types import MS, NS, Cause

POSTS_MAX = 8
"""On one page."""
LISTED_MAX = 10_000
REMOVED_MAX = 200
"""Files told one by one on the page, of one post."""
DARK_MAX = 12
"""Dark stretches told in words, the longest."""
AROUND_S = 1800.0
"""Around an alert: half of it before, half behind."""
NEAR_S = 120.0
"""The same, of its clip."""
USUAL_S = 3600.0
REASON_CHARS_MAX = 300
REFRESH_S = 5
PLAYLIST = "application/vnd.apple.mpegurl"


@dataclass(frozen=True, slots=True)
class Range:
    """What is looked at."""

    start_utc_ns: int
    end_utc_ns: int
    mark_utc_ns: int | None = None  # of the alert


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
    parts: str  # for the script: where each part is in media time, JSON
    removed: list[Removed]  # of its time, by retention
    first_goes_utc_ns: int | None  # of what is here, when the first file's time is over

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return any(one.open for one in self.requests)


class Footage:
    """Handlers. Any thread."""

    def __init__(
        self,
        *,
        engine: Engine,
        shelf: Shelf,
        surveyor: Surveyor,
        requests: Requests,
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
        posts = self._posts(asked.who.scope)
        chosen, where = self._chosen(asked, posts)
        rows = self._rows(asked, {one: posts[one] for one in chosen}, where)
        page = self._pages.render(
            "footage.html",
            asked=asked,
            words=asked.words,
            posts=posts,
            chosen=chosen,
            rows=rows,
            where=where,
            start=self._pages.field(where.start_utc_ns),
            end=self._pages.field(where.end_utc_ns),
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
        post, where = self._post(asked), self._range(asked)
        (row,) = self._rows(asked, {post: self._posts(asked.who.scope)[post]}, where)
        page = self._pages.render(
            "footage_post.html", asked=asked, words=asked.words, row=row, where=where,
            start=self._pages.field(where.start_utc_ns), end=self._pages.field(where.end_utc_ns),
            asking=asked.who.role.value != "auditor", player=self._player(), policy=self._policy,
        )  # fmt: skip
        return HTMLResponse(page)

    def media(self, asked: Asked) -> Response:
        """What is to be played, as an HLS media playlist."""
        post, where = self._post(asked), self._range(asked)
        found = self._surveyor.survey(post, where.start_utc_ns, where.end_utc_ns, address=_address(post))
        seen = [found.files[index] for index in found.playlist.files]
        if not seen:
            raise Refused(404, "footage.nothing")
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
        opening = next(pieces)  # what is not there is an answer of its own, not one that breaks off
        return StreamingResponse(
            _all(opening, pieces),
            status_code=200 if part is None else 206,
            media_type="video/mp4",
            headers=headers | {"Content-Length": str(count)},
        )

    def ask(self, asked: Asked) -> Response:
        """Has a post send what it has of the range."""
        post, where, reason = self._post(asked), self._range(asked), asked.field("reason", REASON_CHARS_MAX)
        if not reason:
            raise Refused(400, "footage.reason")
        try:
            number = self._requests.ask(post, where.start_utc_ns, where.end_utc_ns, f"{asked.who.name}: {reason}"[:300])
        except ConfigError as error:
            return self._page(asked, asked.words("footage.notsent", why=str(error)[:200]), status=409)
        self._trail.note(
            "footage-requested",
            asked.who.login,
            address=asked.address,
            post=post,
            start=where.start_utc_ns,
            end=where.end_utc_ns,
            reason=reason,
            order=number,
        )
        back = f"/footage?post.{post}=on&from={asked.form['from']}&to={asked.form['to']}"
        return RedirectResponse(back, status_code=303)

    # -- what was asked -----------------------------------------------------------------------------------------------

    def _posts(self, scope: Scope) -> dict[str, str]:
        """The posts that a person may see, with their places."""
        with reading(self._engine, "look for posts") as db:
            rows = db.execute(select(node.c.node, node.c.place).order_by(node.c.node).limit(LISTED_MAX)).all()
        return {str(name): str(place) for name, place in rows if scope.covers(name)}

    def _post(self, asked: Asked) -> str:
        post = asked.params["post"]
        if post not in self._posts(asked.who.scope):
            raise Refused(404)
        return post

    def _chosen(self, asked: Asked, posts: dict[str, str]) -> tuple[list[str], Range]:
        """Posts and range of the page; those of an alert when one is named."""
        given = asked.query if not asked.form else asked.form
        incident = given.get("alert", "")
        if incident:
            alert = self._alerts.find(asked.who.scope, incident) if len(incident) == 36 else None
            if alert is None:
                raise Refused(404)
            at = None if alert.told is None else told_ns(alert.told.time)
            at = alert.raised_utc_ns if at is None else at
            half = round((NEAR_S if given.get("near") else AROUND_S) * NS / 2)
            return [alert.node] if alert.node in posts else [], Range(at - half, at + half, at)
        chosen = [name for name in posts if given.get(f"post.{name}") or asked.params.get("post") == name]
        if len(chosen) > POSTS_MAX:
            raise Refused(400, "footage.toomany")
        if not given.get("from") and not given.get("to"):
            now = self._clock.utc().utc_ns // (60 * NS) * 60 * NS + 60 * NS
            return chosen, Range(now - round(USUAL_S * NS), now)
        return chosen, self._range(asked)

    def _range(self, asked: Asked) -> Range:
        """The range of an address or a form, in local time of the desk. Raises Refused."""
        given = asked.query if not asked.form else asked.form
        start, end = (self._pages.instant(given.get(name, "")) for name in ("from", "to"))
        if start is None or end is None:
            raise Refused(400, "footage.when")
        if not 0 < end - start <= RANGE_S_MAX * NS:
            raise Refused(400, "footage.long")
        return Range(start, end)

    # -- what is shown ------------------------------------------------------------------------------------------------

    def _rows(self, asked: Asked, places: dict[str, str], where: Range) -> list[Row]:
        """One for each post, which has its place. What there is of them is looked up together."""
        if not places:
            return []
        start, end = where.start_utc_ns, where.end_utc_ns
        surveyed = self._surveyor.survey_all({post: _address(post) for post in places}, start, end)
        requests = self._requests.of(list(places), start, end)
        with reading(self._engine, "look for what was removed") as db:
            removed = retention.removed_all(db, list(places), start, end, REMOVED_MAX)
        return [
            self._row(asked, place, surveyed[post], where, requests[post], removed[post])
            for post, place in places.items()
        ]

    def _row(
        self, asked: Asked, place: str, found: Surveyed, where: Range, requests: list[Request], removed: list[Removed]
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
