"""Inspection: the sample of a week and its results; the report of a period, on the page, on paper, as CSV and JSON."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine
from starlette.responses import HTMLResponse, RedirectResponse, Response

from agent.clock import Clock, rfc3339
from agent.station.footage.shelf import Shelf, Stored
from agent.station.inspection import views
from agent.station.inspection.desk import INSPECTING, RESULTS, TEXT_CHARS_MAX, InspectionDesk
from agent.station.inspection.reading import InspectionReader
from agent.station.inspection.report import (
    DEFINED,
    PERIOD_DAYS_MAX,
    Cut,
    Figures,
    PostFigures,
    RemovedFact,
    as_dict,
    figures,
    shares,
)
from agent.station.inspection.sample import DAY_NS, WEEK, Candidate
from agent.station.inspection.table import as_csv
from agent.station.people.roles import POST, Role
from agent.station.people.trail import Trail
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.types import NS

READING = frozenset({Role.AUDITOR, Role.SUPERVISOR, Role.ADMIN})
USUAL_DAYS = 7
PLAYING = INSPECTING
"""Who is shown what was drawn: those of them who see footage at all (agent/station/web/app.py)."""
AROUND_S = 60.0
"""Before and behind a file, of the range that is shown with it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a drawn file is to be seen."""

    file: str  # its own address
    around: str  # of the page that plays it; empty: it tells of no time


@dataclass(frozen=True, slots=True)
class Report:
    """One, made."""

    start_utc_ns: int
    end_utc_ns: int
    found: Figures
    posts: Sequence[PostFigures]
    removed: Sequence[RemovedFact]
    cut: Cut


class InspectionPages:
    """Handlers. Any thread."""

    def __init__(
        self,
        *,
        engine: Engine,
        reader: InspectionReader,
        desk: InspectionDesk,
        shelf: Shelf | None,
        trail: Trail,
        pages: Pages,
        clock: Clock,
        site: str,
        zone: dt.tzinfo,
    ) -> None:
        """`shelf` None: there is no archive."""
        self._engine = engine
        self._shelf = shelf
        self._reader = reader
        self._desk = desk
        self._trail = trail
        self._pages = pages
        self._clock = clock
        self._site = site
        self._zone = zone

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        report = "/inspection/report"
        return (
            Route(method="GET", path="/inspection", handler=self.page, may=READING),
            Route(method="POST", path="/inspection/draw", handler=self.draw, may=INSPECTING),
            Route(method="GET", path="/inspection/draw.json", handler=self.whole, may=READING),
            Route(method="POST", path="/inspection/check", handler=self.check, may=INSPECTING),
            Route(method="GET", path=report, handler=self.report, may=READING),
            Route(method="GET", path=f"{report}.csv", handler=self.csv, may=READING),
            Route(method="GET", path=f"{report}.json", handler=self.json, may=READING),
        )

    def page(self, asked: Asked) -> Response:
        """What is to be looked at this week, and what came of it."""
        week = asked.query.get("week", "") or self._desk.week()
        if not WEEK.fullmatch(week):
            raise Refused(400)
        drawn = self._reader.drawn(week)
        scope = asked.who.scope
        checks, more = self._reader.checks(scope, week)
        footage = [one for one in drawn.footage if scope.covers(one.node)] if drawn else []
        shelf = self._shelf if asked.who.role in PLAYING else None
        page = self._pages.render(
            "inspection.html",
            asked=asked,
            words=asked.words,
            week=week,
            this_week=week == self._desk.week(),
            drawn=drawn,
            posts=[one for one in drawn.posts if scope.covers(one.node)] if drawn else [],
            footage=footage,
            playing=shelf is not None,
            places={} if shelf is None else self._places(shelf, footage),
            checks=checks,
            more=more,
            may=asked.who.role in INSPECTING,
            results=RESULTS,
            text_max=TEXT_CHARS_MAX,
        )
        return HTMLResponse(page)

    def _places(self, shelf: Shelf, files: Sequence[Candidate]) -> dict[tuple[str, str], Place]:
        """Of those that are here and may be played."""
        found: dict[tuple[str, str], Place] = {}
        for node in {one.node for one in files}:
            here = shelf.by_digest(node, [one.ref for one in files if one.node == node])
            found |= {(node, ref): self._place(one) for ref, one in here.items()}
        return found

    def _place(self, one: Stored) -> Place:
        around = ""
        if one.from_utc_ns is not None:
            start = self._pages.address(one.from_utc_ns - round(AROUND_S * NS))
            end = self._pages.address(one.from_utc_ns + max(one.end_ns - one.start_ns, 0) + round((AROUND_S + 1) * NS))
            around = f"/footage?post.{one.node}=on&from={start}&to={end}"
        return Place(f"/footage/{one.node}/files/{one.n}.mp4", around)

    def draw(self, asked: Asked) -> Response:
        """This week's sample; once."""
        self._desk.draw(asked.who)
        return RedirectResponse("/inspection", status_code=303)

    def whole(self, asked: Asked) -> Response:
        """The whole draw of a week, for `wardpost redraw`. It names every post of the site: for who sees all."""
        week = asked.query.get("week", "")
        if not WEEK.fullmatch(week):
            raise Refused(400)
        body = self._reader.whole(week) if asked.who.scope.whole_site else None
        if body is None:
            raise Refused(404)
        headers = {"Content-Disposition": f'attachment; filename="wardpost-draw-{week}.json"'}
        return Response(body, media_type="application/json", headers=headers)

    def check(self, asked: Asked) -> Response:
        """A result."""
        week, kind, node, ref, result = (asked.field(name, 64) for name in ("week", "kind", "post", "ref", "result"))
        text = asked.field("text", TEXT_CHARS_MAX)
        known = kind in ("post", "footage") and result in RESULTS and WEEK.fullmatch(week) and POST.fullmatch(node)
        if not known or (result != "good" and not text):
            raise Refused(400, "inspect.why")
        if not self._desk.check(asked.who, week, kind=kind, node=node, ref=ref, result=result, text=text):
            raise Refused(404)
        return RedirectResponse(f"/inspection?week={week}", status_code=303)

    # -- the report ---------------------------------------------------------------------------------------------------

    def report(self, asked: Asked) -> Response:
        """A page that is made to be printed."""
        made = self._make(asked)
        page = self._pages.render(
            "report.html",
            asked=asked,
            words=asked.words,
            site=self._site,
            made=made,
            now=self._clock.utc().utc_ns,
            figures=shares(made.found),
            cut=self._left_out(asked, made),
            start=self._pages.field(made.start_utc_ns),
            end=self._pages.field(made.end_utc_ns),
            twice=self._pages.twice(asked.words, made.start_utc_ns, made.end_utc_ns),
        )
        return HTMLResponse(page)

    def csv(self, asked: Asked) -> Response:
        """For a spreadsheet."""
        made = self._make(asked)
        period = rfc3339(made.start_utc_ns), rfc3339(made.end_utc_ns)
        text = as_csv(
            made.found, made.posts, made.removed, self._definitions(asked), period, self._left_out(asked, made)
        )
        headers = {"Content-Disposition": 'attachment; filename="wardpost-report.csv"'}
        return Response("\ufeff" + text, media_type="text/csv; charset=utf-8", headers=headers)

    def json(self, asked: Asked) -> Response:
        """For programs."""
        made = self._make(asked)
        about = {
            "site": self._site,
            "from": rfc3339(made.start_utc_ns),
            "to": rfc3339(made.end_utc_ns),
            "made": rfc3339(self._clock.utc().utc_ns),
            "by": asked.who.login,
            "alerts_cut": made.cut.alerts,
            "requests_cut": made.cut.requests,
            "views_cut": made.cut.views,
            "cases_cut": made.cut.cases,
            "posts_left_out": made.cut.posts,
        }
        told = as_dict(made.found, made.posts, made.removed, self._definitions(asked), about)
        headers = {"Content-Disposition": 'attachment; filename="wardpost-report.json"'}
        return Response(json.dumps(told, indent=1), media_type="application/json", headers=headers)

    def _definitions(self, asked: Asked) -> dict[str, str]:
        return {name: asked.words(f"report.what.{name}") for name in DEFINED}

    @staticmethod
    def _left_out(asked: Asked, made: Report) -> list[str]:
        """In words."""
        shown = len(made.posts)
        of = {"posts": {"shown": shown, "of": shown + made.cut.posts}}
        return [asked.words(f"report.cut.{name}", **of.get(name, {})) for name in made.cut.names]

    def _make(self, asked: Asked) -> Report:
        start, end = self._period(asked)
        now, scope = self._clock.utc().utc_ns, asked.who.scope
        alerts, alerts_cut = self._reader.alerts(scope, start, end)
        posts, beyond = self._reader.posts(scope, start, end, now_utc_ns=now, zone=self._zone, alerts=alerts)
        requests, requests_cut = self._reader.requests(scope, start, end)
        seen = views.read(self._engine, scope, start, end)
        cases, cases_cut = self._reader.cases(scope)
        found = figures(
            alerts=alerts, requests=requests, views=seen.files, watched=seen.live, cases=cases, now_utc_ns=now
        )
        cut = Cut(alerts=alerts_cut, requests=requests_cut, views=seen.cut, cases=cases_cut, posts=beyond)
        self._trail.note("report", asked.who.login, start=rfc3339(start), end=rfc3339(end), address=asked.address)
        return Report(start, end, found, posts, self._reader.removed(scope, start, end), cut)

    def _period(self, asked: Asked) -> tuple[int, int]:
        """As chosen; else the last USUAL_DAYS whole days."""
        if not asked.query.get("from") and not asked.query.get("to"):
            today = dt.datetime.fromtimestamp(self._clock.utc().utc_ns // NS, self._zone).date()
            midnight = dt.datetime.combine(today, dt.time(), self._zone)
            first = dt.datetime.combine(today - dt.timedelta(days=USUAL_DAYS), dt.time(), self._zone)
            return int(first.timestamp()) * NS, int(midnight.timestamp()) * NS
        typed = [asked.query.get(name, "") for name in ("from", "to")]
        never = self._pages.never(asked.words, *typed)
        if never:
            raise Refused(400, said=never)
        start, end = self._pages.begins(typed[0]), self._pages.ends(typed[1])
        if start is None or end is None or not 0 < end - start <= PERIOD_DAYS_MAX * DAY_NS:
            raise Refused(400, "report.period")
        return start, end
