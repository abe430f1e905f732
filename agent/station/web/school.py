"""The first page of a school: today's crowds and congestion at its own posts, bells and alerts, whom they reach."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Engine, select
from starlette.responses import HTMLResponse, Response

from agent import wire
from agent.clock import Clock, parse_rfc3339
from agent.errors import Corrupt
from agent.station.alerts import ANSWERING, Alert, Alerts
from agent.station.db.engine import reading
from agent.station.db.tables import event, node, stream
from agent.station.outward.schools import SchoolBook
from agent.station.people.registry import find
from agent.station.people.roles import Person, Role
from agent.station.web.evidence import EvidencePages
from agent.station.web.gate import Asked
from agent.station.web.pages import Pages
from agent.station.web.routes import Route
from agent.types import NS

SCHOOLS = frozenset({Role.SCHOOL})
COUNTER = "tns1:RuleEngine/CountAggregation/Counter"
"""How events of the rules `crowd` and `congestion` are marked, whatever a rule is called (agent/vision/rules.py)."""
EVENTS_OF_POST_MAX = 5000
POSTS_MAX = 30
SHOWN_MAX = 50
CONTACTS_MAX = 50
REFRESH_S = 20
"""So often a page that is open looks for crowds; alerts it is told of at once."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """A crowd, or vehicles that stand. `ended_utc_ns` None: it goes on, as far as was told. By the post's own clock."""

    incident: str
    what: str  # crowd, congestion
    since_utc_ns: int
    ended_utc_ns: int | None
    says: str


@dataclass(frozen=True, slots=True)
class Gate:
    """One post today."""

    node: str
    place: str
    heard: bool
    gatherings: tuple[Gathering, ...]  # the newest first

    @property
    def on(self) -> list[Gathering]:
        """What goes on."""
        return [one for one in self.gatherings if one.ended_utc_ns is None]

    def count(self, what: str) -> int:
        """How many of a kind there were."""
        return sum(1 for one in self.gatherings if one.what == what)


def gatherings(bodies: Iterable[bytes], now_utc_ns: int) -> tuple[Gathering, ...]:
    """Crowds and congestion among a post's events, oldest first. What is no such event is left out; a time that lies
    ahead is now.
    """
    found: dict[str, Gathering] = {}
    for body in bodies:
        try:
            told = wire.decode(body, wire.CloudEvent)
            at = min(parse_rfc3339(told.time), now_utc_ns)
            since = min(parse_rfc3339(told.data.since), at) if told.data.since else at
        except (Corrupt, ValueError, OverflowError):
            continue
        data = told.data
        if data.onvif != COUNTER or data.severity == "thumbnail":
            continue
        ended = at if data.phase == "ended" else None
        before = found.get(data.incident)
        if before is None:
            what = "congestion" if data.label == "vehicle" else "crowd"
            found[data.incident] = Gathering(data.incident, what, since, ended, data.summary)
        else:
            over = before.ended_utc_ns if before.ended_utc_ns is not None else ended
            found[data.incident] = replace(before, ended_utc_ns=over, says=data.summary or before.says)
    return tuple(sorted(found.values(), key=lambda one: -one.since_utc_ns))


class SchoolPages:
    """Handlers. Any thread; they block for the database."""

    def __init__(
        self,
        *,
        engine: Engine,
        alerts: Alerts,
        pages: Pages,
        clock: Clock,
        book: SchoolBook,
        evidence: EvidencePages,
        contacts: Sequence[tuple[str, float]] = (),
    ) -> None:
        """`contacts`: names of whom the station tells what nobody has acknowledged, and after how many seconds."""
        self._engine = engine
        self._alerts = alerts
        self._pages = pages
        self._clock = clock
        self._book = book
        self._evidence = evidence
        self._contacts = tuple(contacts)

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        return (Route(method="GET", path="/school", handler=self.page, may=SCHOOLS),)

    def page(self, asked: Asked) -> Response:
        """Today, by the pages' clock; for its script: what changes of it, posts and alerts."""
        step = self._alerts.newest_step()  # before the alerts: what comes in between is looked for once more
        who, now = asked.who, self._clock.utc().utc_ns
        start = self._today(now)
        own = sorted(who.scope.posts)
        with reading(self._engine, "read a school's posts") as db:
            posts = own[:POSTS_MAX]
            rows = db.execute(select(node.c.node, node.c.place, node.c.state).where(node.c.node.in_(posts)))
            known = {str(of): (str(place), str(state)) for of, place, state in rows}
            gates = [
                Gate(
                    node=of,
                    place=known.get(of, ("", ""))[0] or of,
                    heard=known.get(of, ("", ""))[1] in ("online", "late"),
                    gatherings=gatherings(_bodies(db, of, start), now),
                )
                for of in posts
            ]
            people = [] if asked.part else [one for one in find(db) if _answers(one, who)]
        alerts = [one for one in self._alerts.board(who.scope, start) if _is_of(one, start)]
        changing = {
            "asked": asked,
            "words": asked.words,
            "gates": gates,
            "left_out": len(own) - len(posts),
            "alerts": alerts[:SHOWN_MAX],
            "more_alerts": len(alerts) > SHOWN_MAX,
            "places": {gate.node: gate.place for gate in gates},
        }
        if asked.part:
            return HTMLResponse(self._pages.render("school_now.html", **changing))
        return HTMLResponse(
            self._pages.render(
                "school.html",
                **changing,
                evidence=self._evidence.strip(asked),
                step=step,
                refresh_s=REFRESH_S,
                people=people[:CONTACTS_MAX],
                more_people=len(people[CONTACTS_MAX:]),
                contacts=self._contacts,
                own=self._book.contacts([who.login]),
                today=start,
            )
        )

    def _today(self, now_utc_ns: int) -> int:
        """When this day began, where the school is."""
        local = dt.datetime.fromtimestamp(now_utc_ns // NS, self._pages.zone)
        return int(local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * NS


def _answers(one: Person, school: Person) -> bool:
    """Whether alerts of the school's posts reach somebody else."""
    if one.disabled or one.role not in ANSWERING or one.login == school.login:
        return False
    return any(one.scope.covers(post) for post in school.scope.posts)


def _is_of(one: Alert, start_utc_ns: int) -> bool:
    return one.raised_utc_ns >= start_utc_ns or one.acknowledged_utc_ns is None


def _bodies(db: Connection, post: str, start_utc_ns: int) -> list[bytes]:
    """A post's newest events since then, oldest first; only those that may be of a counter."""
    life = db.execute(
        select(stream.c.stream, stream.c.head).where(stream.c.node == post).order_by(stream.c.stream.desc()).limit(1)
    ).one_or_none()
    if life is None:
        return []
    rows = db.execute(
        select(event.c.body)
        .where(
            event.c.stream == life.stream,
            event.c.sequence > life.head - EVENTS_OF_POST_MAX,
            event.c.received_utc_ns >= start_utc_ns,
            event.c.kind != "thumbnail",
        )
        .order_by(event.c.sequence)
    ).scalars()
    return [bytes(body) for body in rows if COUNTER.encode() in bytes(body)]
