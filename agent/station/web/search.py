"""Search for past incidents. All that was asked for stands in the address: it can be kept, sent and gone back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from sqlalchemy import Engine, select
from starlette.responses import HTMLResponse, Response

from agent.station.db.engine import reading
from agent.station.db.tables import node
from agent.station.people.roles import Role, Scope
from agent.station.search.finder import Finder, Incident
from agent.station.search.keeper import ROWS_MAX
from agent.station.search.meaning import KINDS, LABELS, SEVERITIES
from agent.station.search.query import FIELDS, VERDICTS, NotYours, Query, Unclear, asked_for
from agent.station.web.footage import AROUND_S
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.station.web.viewed import Viewed
from agent.station.web.words import Words
from agent.types import MS, NS

SEARCHING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})
"""Who sees the board, and the same posts of it."""
NAMED_MAX = 300
"""Posts that the field's list offers; of more, the first."""
WAITING_TOLD = 2 * ROWS_MAX
"""Fewer events than this are not worth a word: they are taken in within a second or two."""
_CHOICES = {"class": LABELS, "kind": KINDS, "severity": tuple(reversed(SEVERITIES)), "verdict": VERDICTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An incident in words."""

    incident: Incident
    place: str
    says: str
    error: str  # of the time
    what: str  # kind and class
    footage: str  # where what was recorded around it is


class SearchPages:
    """Handlers. Any thread; they block for the database."""

    def __init__(self, *, engine: Engine, finder: Finder, viewed: Viewed, pages: Pages) -> None:
        self._engine = engine
        self._finder = finder
        self._viewed = viewed
        self._pages = pages

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (
            Route(method="GET", path="/search", handler=self.page, may=SEARCHING),
            Route(method="GET", path="/search/{incident}/picture", handler=self.picture, may=SEARCHING),
        )

    def page(self, asked: Asked) -> Response:
        """The form, and what was found; of a question that cannot be understood, which part, and nothing else."""
        query, found, wrong = Query(), None, ""
        try:
            query = asked_for(asked.query, scope=asked.who.scope, begins=self._pages.begins, ends=self._pages.ends)
            found = self._finder.find(asked.who.scope, query)
        except Unclear as unclear:
            never = self._pages.never(asked.words, asked.query.get("from", ""), asked.query.get("to", ""))
            wrong = never or asked.words(unclear.key)
        except NotYours:
            raise Refused(404) from None
        hits = [] if found is None else [self._hit(asked.words, one) for one in found.incidents]
        seen = [(one.incident.node, one.incident.incident) for one in hits if one.incident.has_picture]
        self._viewed.note(asked, seen, what="picture")
        given = {name: asked.query.get(name, "")[:800] for name in FIELDS}
        page = self._pages.render(
            "search.html",
            asked=asked,
            words=asked.words,
            given=given,
            choices=_CHOICES,
            posts=self._posts(asked.who.scope),
            wrong=wrong,
            twice=self._pages.twice(asked.words, query.start_utc_ns, query.end_utc_ns),
            hits=hits,
            found=found,
            searched=_searched(asked.words, query, given),
            onward="" if found is None or found.onward is None else _address(given, before=str(found.onward)),
            first=_address(given),
            later=query.before is not None,
            waiting=0 if found is None or found.waiting < WAITING_TOLD else found.waiting,
        )
        return HTMLResponse(page, status_code=400 if wrong else 200)

    def picture(self, asked: Asked) -> Response:
        """The newest picture of an incident, alert or not."""
        found = self._finder.picture(asked.who.scope, asked.params["incident"])
        if found is None:
            raise Refused(404)
        self._viewed.note(asked, [(found[0], asked.params["incident"])], what="picture")
        return Response(found[1], media_type="image/jpeg")

    def _posts(self, scope: Scope) -> list[tuple[str, str]]:
        """Those that the person sees, with their places, for the field's list."""
        query = select(node.c.node, node.c.place).order_by(node.c.node).limit(NAMED_MAX)
        if not scope.whole_site:
            query = query.where(node.c.node.in_(sorted(scope.posts)))
        with reading(self._engine, "look for posts") as db:
            return [(str(name), str(place)) for name, place in db.execute(query)]

    def _hit(self, words: Words, one: Incident) -> Hit:
        data = None if one.told is None else one.told.data
        kind = words(f"search.kind.{one.kind}")
        label = words(f"search.class.{one.label}") if one.label else ""
        return Hit(
            incident=one,
            place=data.place if data is not None else "",
            says=words("card.gone") if data is None else data.summary,
            error=_error(words, one),
            what=f"{kind} · {label}" if label else kind,
            footage=self._footage(one),
        )

    def _footage(self, one: Incident) -> str:
        if one.is_alert:
            return "/footage?" + urlencode({"alert": one.incident})
        half = round(AROUND_S * NS / 2) + (one.error_ms or 0) * MS
        start, end = (self._pages.address(one.at_utc_ns + off) for off in (-half, half))
        return "/footage?" + urlencode({f"post.{one.node}": "on", "from": start, "to": end})


def _error(words: Words, one: Incident) -> str:
    if one.error_ms is None:
        return words("search.arrival")
    return words("time.error", seconds=max(-(-one.error_ms // 1000), 1))


def _searched(words: Words, query: Query, given: dict[str, str]) -> str:
    """What was looked for, in one sentence's parts."""
    parts: Sequence[tuple[str, str]] = (
        ("post", ", ".join(query.posts)),
        ("from", given["from"].replace("T", " ") if query.start_utc_ns is not None else ""),
        ("to", given["to"].replace("T", " ") if query.end_utc_ns is not None else ""),
        ("class", query.label and words(f"search.class.{query.label}")),
        ("kind", query.kind and words(f"search.kind.{query.kind}")),
        ("severity", query.severity and words(f"search.severity.{query.severity}")),
        ("verdict", query.verdict and words(f"search.verdict.{query.verdict}")),
        ("zone", query.zone),
        ("word", " ".join(query.words)),
    )
    return "; ".join(f"{words(f'search.{name}')}: {text}" for name, text in parts if text)


def _address(given: dict[str, str], **more: str) -> str:
    """Of this search, and of where a page of it begins."""
    return "/search?" + urlencode({name: text for name, text in given.items() if text} | more)
