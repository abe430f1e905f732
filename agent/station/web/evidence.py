"""Evidence alarms on the pages: the strip on the board, the sentence on a post's page and among what is to be done, and
the answer that people give.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from agent.station.alerts import ANSWERING, TEXT_CHARS_MAX
from agent.station.evidence_alarms import SHOWN_MAX, EvidenceAlarm, EvidenceAlarms
from agent.station.people.roles import Role, Scope
from agent.station.web.gate import Asked, Refused
from agent.station.web.pages import Pages, Part
from agent.station.web.routes import Route
from agent.types import NS

AROUND_S = 60.0
"""Shown before and behind a file on the page of footage, which has its own bound for what lies between."""
LINKED_S_MAX = 3600.0
FOOTAGE = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR})
"""Who has the page of footage."""
Mark = tuple[tuple[int, int], ...]
"""What a strip shows: number and change of each alarm."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An alarm, and where its footage is."""

    alarm: EvidenceAlarm
    footage: str  # empty: not for these eyes


class EvidencePages:
    """Handlers, and parts for other pages. Any thread; they block for the database."""

    def __init__(self, *, alarms: EvidenceAlarms, pages: Pages) -> None:
        self._alarms = alarms
        self._pages = pages

    def routes(self) -> tuple[Route, ...]:
        """Who may use what."""
        acknowledge = "/evidence/{alarm}/acknowledge"
        return (Route(method="POST", path=acknowledge, handler=self.acknowledge, may=ANSWERING),)

    def newest_change(self) -> int:
        """Grows with each change of any alarm, whoever may see it."""
        return self._alarms.newest_change()

    def posts(self) -> frozenset[str]:
        """Those with an open one, whoever may see them: a page marks those that it shows anyhow."""
        return self._alarms.posts()

    def strip(self, asked: Asked) -> Part:
        """What is open for these eyes; empty when nothing is."""
        return self._strip(asked, self._alarms.open(asked.who.scope))

    def news(self, asked: Asked, before: Mark | None) -> tuple[Mark, Part | None]:
        """The strip, if it is another than `before`; None as `before`: nobody knows what was shown."""
        found = self._alarms.open(asked.who.scope)
        mark = tuple((one.n, one.changed) for one in found)
        return mark, None if mark == before else self._strip(asked, found)

    def of_post(self, asked: Asked, post: str) -> Part:
        """What is open at a post, and what was answered last. Who asks may see the post."""
        only = Scope(whole_site=False, posts=frozenset({post}))
        return self._strip(asked, [*self._alarms.open(only)[:SHOWN_MAX], *self._alarms.past(post)], shown_max=None)

    def acknowledge(self, asked: Asked) -> Response:
        """`I look after it`, and what was found. Whoever comes second is told so."""
        comment = asked.field("comment", TEXT_CHARS_MAX)
        if not comment:
            raise Refused(400, "act.empty")
        done = self._alarms.acknowledge(asked.who, int(asked.params["alarm"]), comment)
        if done is None:
            raise Refused(404)
        post, first = done
        second = first != asked.who.login
        if asked.part:
            told = {"html": self.strip(asked).html, "said": asked.words("act.second") if second else ""}
            return Response(json.dumps(told), status_code=409 if second else 200, media_type="application/json")
        if second:
            raise Refused(409, "act.second")
        back = asked.form.get("back", "")
        return RedirectResponse(back if back in ("/", "/school", "/to-do") else f"/posts/{post}", status_code=303)

    def _strip(self, asked: Asked, found: Sequence[EvidenceAlarm], *, shown_max: int | None = SHOWN_MAX) -> Part:
        role = asked.who.role
        return self._pages.part(
            "evidence.html",
            words=asked.words,
            shown=[Shown(one, self._footage(one) if role in FOOTAGE else "") for one in found[:shown_max]],
            more=shown_max is not None and len(found) > shown_max,
            answering=role in ANSWERING,
            form_token=asked.form_token,
            back="/" if asked.path == "/board/stream" or asked.part else asked.path,
            shown_max=shown_max,
        )

    def _footage(self, one: EvidenceAlarm) -> str:
        """The page of footage, around the file where its time is known."""
        start, end, chosen = one.about.from_utc_ns, one.about.to_utc_ns, {f"post.{one.node}": "on"}
        if start is not None and end is not None:
            end = min(max(end, start), start + round(LINKED_S_MAX * NS))
            around = round(AROUND_S * NS)
            chosen |= {"from": self._pages.address(start - around), "to": self._pages.address(end + around)}
        return f"/footage?{urlencode(chosen)}"
