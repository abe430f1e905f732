"""The only writer of inspections. A draw is made once a week and never again; a second result is a second row."""

from __future__ import annotations

import datetime as dt
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, insert, select

from agent.clock import Clock
from agent.evidence.records import digest
from agent.station.db.cases import inspection_check, inspection_draw, inspection_sample
from agent.station.inspection.drawn import drawn_of, read_back, written
from agent.station.inspection.reading import files_to_check, post_facts, senders
from agent.station.inspection.sample import (
    DAY_NS,
    FOOTAGE_DRAWN,
    POSTS_DRAWN,
    VERSION,
    draw,
    draw_files,
    first_of,
    footage_candidates,
    post_candidate,
    sender_candidate,
    week_of,
)
from agent.station.people.roles import Person, Role
from agent.station.people.trail import Trail

INSPECTING = frozenset({Role.AUDITOR, Role.SUPERVISOR})
RESULTS = ("good", "poor", "bad", "not-possible")
TEXT_CHARS_MAX = 300
FOOTAGE_DAYS = 28
"""Footage that came so long ago is not drawn any more."""
SENDERS_TRIED_MAX = 1000
"""Posts that were drawn for their files, and of which every file has been looked at."""
SEED_BYTES = 32


class InspectionDesk:
    """Any thread. Raises Transient."""

    def __init__(
        self,
        *,
        trail: Trail,
        clock: Clock,
        site: str,
        zone: dt.tzinfo,
        new_seed: Callable[[], str] = lambda: secrets.token_hex(SEED_BYTES),
    ) -> None:
        """`new_seed`: what nobody can know before it is asked."""
        self._new_seed = new_seed
        self._trail = trail
        self._clock = clock
        self._site = site
        self._zone = zone

    def week(self) -> str:
        """This week."""
        return week_of(self._clock.utc().utc_ns, self._zone)

    def draw(self, who: Person) -> bool:
        """Draws for this week. False: somebody has. What it was drawn from is kept with it, the seed as well."""
        now, week, seed = self._clock.utc().utc_ns, self.week(), self._new_seed()
        with self._trail.writing("draw a sample") as entry:
            if entry.db.execute(select(inspection_draw.c.week).where(inspection_draw.c.week == week)).first():
                return False
            of_posts = [post_candidate(one, now) for one in post_facts(entry.db, now)]
            body = json.dumps(
                {
                    "version": VERSION,
                    "seed": seed,
                    "site": self._site,
                    "week": week,
                    "posts": [asdict(one) for one in of_posts],
                    "drawn_posts": [asdict(one) for one in draw(self._site, week, of_posts, POSTS_DRAWN, seed=seed)],
                    **self._footage(entry.db, week, seed, now - FOOTAGE_DAYS * DAY_NS),
                },
                ensure_ascii=True,
                sort_keys=True,
            )
            entry.db.execute(insert(inspection_draw).values(week=week, utc_ns=now, login=who.login, body=body))
            apart = written(drawn_of(body))
            entry.db.execute(insert(inspection_sample).values(week=week, utc_ns=now, body=apart))
            entry.note("inspection-draw", who.login, week=week, seed=seed, sha256=digest(body.encode()))
        return True

    def _footage(self, db: Connection, week: str, seed: str, since_utc_ns: int) -> dict[str, Any]:
        """Posts that have sent files, which of them were drawn and which passed over, their files, and those drawn."""
        known = senders(db, since_utc_ns)
        drawn: dict[str, list[str]] = {}
        passed_over: list[str] = []
        order = draw(self._site, week, [sender_candidate(of) for of in known], SENDERS_TRIED_MAX, seed=seed)
        for of in (one.node for one in order):
            if len(drawn) == FOOTAGE_DRAWN:
                break
            files = files_to_check(db, of, since_utc_ns, first_of(seed, of))
            if files:
                drawn[of] = files
            else:
                passed_over.append(of)
        files_of = footage_candidates([(of, sha256) for of, files in drawn.items() for sha256 in files])
        chosen = draw_files(self._site, week, list(drawn), files_of, FOOTAGE_DRAWN, seed=seed)
        return {
            "senders": known,
            "drawn_senders": list(drawn),
            "passed_over": passed_over,
            "footage": [asdict(one) for one in files_of],
            "drawn_footage": [asdict(one) for one in chosen],
        }

    def check(self, who: Person, week: str, *, kind: str, node: str, ref: str, result: str, text: str) -> bool:
        """Puts a result on record. False: that was not drawn in that week, or is not for these eyes."""
        with self._trail.writing("note an inspection") as entry:
            body = entry.db.execute(select(inspection_sample.c.body).where(inspection_sample.c.week == week)).scalar()
            drawn = None if body is None else read_back(str(body))
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
