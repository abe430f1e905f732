"""The only writer of inspections. A draw is made once a week and never again; a second result is a second row."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert, select

from agent.clock import Clock
from agent.evidence.records import digest
from agent.station.db.cases import inspection_check, inspection_draw
from agent.station.inspection.reading import candidates
from agent.station.inspection.sample import (
    DAY_NS,
    FOOTAGE_DRAWN,
    POSTS_DRAWN,
    Candidate,
    draw,
    footage_candidates,
    post_candidate,
    week_of,
)
from agent.station.people.roles import Person, Role
from agent.station.people.trail import Trail

INSPECTING = frozenset({Role.AUDITOR, Role.SUPERVISOR})
RESULTS = ("good", "poor", "bad", "not-possible")
TEXT_CHARS_MAX = 300
FOOTAGE_DAYS = 28
"""Footage that came so long ago is not drawn any more."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The sample of a week."""

    week: str
    posts: tuple[Candidate, ...]
    footage: tuple[Candidate, ...]
    of_posts: int
    of_footage: int


class InspectionDesk:
    """Any thread. Raises Transient."""

    def __init__(self, *, trail: Trail, clock: Clock, site: str, zone: dt.tzinfo) -> None:
        self._trail = trail
        self._clock = clock
        self._site = site
        self._zone = zone

    def week(self) -> str:
        """This week."""
        return week_of(self._clock.utc().utc_ns, self._zone)

    def draw(self, who: Person) -> bool:
        """Draws for this week. False: somebody has. What it was drawn from is kept with it."""
        now, week = self._clock.utc().utc_ns, self.week()
        with self._trail.writing("draw a sample") as entry:
            if entry.db.execute(select(inspection_draw.c.week).where(inspection_draw.c.week == week)).first():
                return False
            posts, files, seen = candidates(entry.db, now, now - FOOTAGE_DAYS * DAY_NS)
            of_posts = [post_candidate(one, now) for one in posts]
            of_footage = footage_candidates(files, seen)
            body = json.dumps(
                {
                    "site": self._site,
                    "week": week,
                    "posts": [asdict(one) for one in of_posts],
                    "footage": [asdict(one) for one in of_footage],
                    "drawn_posts": [asdict(one) for one in draw(self._site, week, of_posts, POSTS_DRAWN)],
                    "drawn_footage": [asdict(one) for one in draw(self._site, week, of_footage, FOOTAGE_DRAWN)],
                },
                ensure_ascii=True,
                sort_keys=True,
            )
            entry.db.execute(insert(inspection_draw).values(week=week, utc_ns=now, login=who.login, body=body))
            entry.note("inspection-draw", who.login, week=week, sha256=digest(body.encode()))
        return True

    def check(self, who: Person, week: str, *, kind: str, node: str, ref: str, result: str, text: str) -> bool:
        """Puts a result on record. False: that was not drawn in that week, or is not for these eyes."""
        with self._trail.writing("note an inspection") as entry:
            body = entry.db.execute(select(inspection_draw.c.body).where(inspection_draw.c.week == week)).scalar()
            drawn = None if body is None else drawn_of(str(body))
            if drawn is None or not who.scope.covers(node):
                return False
            sample = drawn.posts if kind == "post" else drawn.footage
            if not any((one.node, one.ref) == (node, ref) for one in sample):
                return False
            row = {"week": week, "kind": kind, "node": node, "ref": ref, "result": result, "text": text}
            now = self._clock.utc().utc_ns
            entry.db.execute(insert(inspection_check).values(login=who.login, utc_ns=now, **row))
            told = {name: value for name, value in row.items() if value and name != "kind"}
            entry.note("inspection-check", who.login, of=kind, **told)
        return True


def drawn_of(body: str) -> Drawn:
    """What was drawn, as it was written down."""
    told: dict[str, Any] = json.loads(body)
    return Drawn(
        told["week"],
        tuple(Candidate(**one) for one in told["drawn_posts"]),
        tuple(Candidate(**one) for one in told["drawn_footage"]),
        len(told["posts"]),
        len(told["footage"]),
    )
