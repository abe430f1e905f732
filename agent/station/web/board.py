"""The live board: alerts as they come, and what people do about them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from agent import wire
from agent.clock import Clock
from agent.errors import Transient, WardpostError
from agent.station.alerts import ANSWERING, COUNTED_MAX, SKIP_MAX, TEXT_CHARS_MAX, Alert, Alerts, Step
from agent.station.bells.around import Around
from agent.station.footage.clip import Clips
from agent.station.live.desk import PER_PERSON_MAX
from agent.station.moments import told_ns
from agent.station.people.roles import Role
from agent.station.people.sessions import Sessions
from agent.station.web.cards import Card, Cards
from agent.station.web.evidence import EvidencePages, Mark
from agent.station.web.gate import Asked, Refused
from agent.station.web.live import Full, Live
from agent.station.web.live_view import WATCHING
from agent.station.web.pages import Pages, Part
from agent.station.web.viewed import Viewed
from agent.station.web.words import Words, clock_error
from agent.types import MS, NS

HEARTBEAT_S = 15.0
RETRY_MS = 2000
CHANGES_MAX = 50
NEAR_MAX = 20
"""Of the first alerts on the page, bells have what is near them: a flood of presses must not slow the board."""
_NUMBER = re.compile(r"[0-9]{1,15}")
JUDGING = frozenset({Role.OPERATOR, Role.SUPERVISOR})
HANDING_ON = frozenset({Role.OPERATOR, Role.SUPERVISOR})
SendVerdict = Callable[[Connection, str, str, str, str, str], str]
"""(transaction, node, incident, verdict, reason, by): queues the signed command within it. The command's id. Raises
WardpostError, with nothing queued.
"""


class Board:
    """Handlers. Any thread, but `stream`, which belongs to the event loop."""

    def __init__(
        self,
        *,
        alerts: Alerts,
        live: Live,
        sessions: Sessions,
        viewed: Viewed,
        pages: Pages,
        clock: Clock,
        hours: float,
        send_verdict: SendVerdict,
        around: Around,
        clips: Clips,
        evidence: EvidencePages,
        live_pictures: str,
    ) -> None:
        """`live_pictures`: around a bell, as `Card.live` says it; empty: this station has no live view."""
        self._alerts = alerts
        self._live = live
        self._sessions = sessions
        self._viewed = viewed
        self._pages = pages
        self._cards = Cards(pages)
        self._clock = clock
        self._span_ns = int(hours * 3600 * NS)
        self._send_verdict = send_verdict
        self._around = around
        self._clips = clips
        self._evidence = evidence
        self._live_pictures = live_pictures

    # -- what is seen -------------------------------------------------------------------------------------------------

    def page(self, asked: Asked) -> Response:
        """The board; for its script: the cards that it would have now, and how many alerts are open."""
        skip = asked.query.get("skip", "0")
        if not _NUMBER.fullmatch(skip) or int(skip) > SKIP_MAX:
            raise Refused(400)
        step = self._alerts.newest_step()  # before the alerts: what comes in between is told twice, not never
        now = self._clock.utc().utc_ns
        shown = self._alerts.board(asked.who.scope, now - self._span_ns, int(skip))
        count = self._alerts.open_count(asked.who.scope)
        self._see_pictures(asked, shown)
        if asked.part:
            parts = [self._part(asked, one, near=n < NEAR_MAX) for n, one in enumerate(shown)]
            return Response(json.dumps({"open": count, "cards": parts}), media_type="application/json")
        cards = [self._html(asked, self._card(asked, one, near=n < NEAR_MAX)) for n, one in enumerate(shown)]
        page = self._pages.render(
            "board.html",
            evidence=self._evidence.strip(asked),
            asked=asked,
            words=asked.words,
            cards=cards,
            step=step,
            now_ms=now // MS,
            person=asked.who,
            live=self._pictures_for(asked),
            views_max=PER_PERSON_MAX,
            more=_more(shown, count, int(skip)),
        )
        return HTMLResponse(page)

    def alert(self, asked: Asked) -> Response:
        """One alert: its picture, its story, and what can be done."""
        found = self._need(asked)
        self._viewed.note(asked, [(found.node, found.incident)], what="alert")
        return HTMLResponse(self._whole(asked, found))

    def picture(self, asked: Asked) -> Response:
        """Its newest picture."""
        found = self._need(asked)
        jpeg = self._alerts.picture(asked.who.scope, found.incident)
        if jpeg is None:
            raise Refused(404)
        self._see_pictures(asked, [found])
        return Response(jpeg, media_type="image/jpeg")

    async def stream(self, asked: Asked) -> Response:
        """Server-Sent Events: each alert that something has become of, whole, with the number of the step as id; and
        all evidence alarms that are open, whenever something has become of one. `evidence`: some are shown already.
        """
        told = asked.headers["last-event-id"] or asked.query.get("after", "")
        if told and not _NUMBER.fullmatch(told):
            raise Refused(400)
        if self._live.full(asked.who.login, asked.session):
            raise Refused(503, "refused.full", wait_s=10)
        after = int(told) if told else await run_in_threadpool(self._alerts.newest_step)
        return StreamingResponse(
            self._told(asked, after), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _told(self, asked: Asked, after: int) -> AsyncIterator[str]:
        with suppress(Full), self._live.listening(asked.who.login, asked.session) as listener:
            yield f"retry: {RETRY_MS}\n: here\n\n"
            sick = (False, False)
            shown: Mark | None = None if asked.query.get("evidence") else ()
            while not listener.over:
                if listener.crowded:
                    yield _event("crowded", {})
                    return
                if (listener.sick, listener.no_room) != sick:
                    sick = (listener.sick, listener.no_room)
                    full: dict[str, object] = {"full": True} if listener.no_room else {}
                    yield _event("state", {"sick": listener.sick, **full})
                try:
                    changes, evidence = await run_in_threadpool(self._changes, asked, after, shown)
                except Transient:
                    changes, evidence = [], (shown, None)
                if changes is None:
                    yield _event("left", {})
                    return
                for number, card in changes:
                    after = number
                    yield _event("alert", card, number)
                shown, strip = evidence
                if strip is not None:
                    yield _event("evidence", {"html": strip.html})
                if len(changes) < CHANGES_MAX and not await listener.wait(HEARTBEAT_S):
                    yield _event("still", {})

    def _changes(
        self, asked: Asked, after: int, shown: Mark | None
    ) -> tuple[list[tuple[int, dict[str, object]]] | None, tuple[Mark | None, Part | None]]:
        """What is new for these eyes, alerts and evidence; None when they may see no more. An open board counts as use
        of its session.
        """
        session = self._sessions.find(asked.token)
        if session is None or session.person != asked.who:
            return None, (shown, None)
        found = self._alerts.changed_since(session.person.scope, after, CHANGES_MAX)
        evidence = self._evidence.news(asked, shown)
        return [(one.changed, self._part(asked, one)) for one in found], evidence

    # -- what is done -------------------------------------------------------------------------------------------------

    def acknowledge(self, asked: Asked) -> Response:
        """`I have it`. Whoever comes second is shown who was first."""
        first = self._alerts.acknowledge(asked.who, asked.params["incident"])
        if first is None:
            raise Refused(404)
        return self._done(asked, "" if first == asked.who.login else asked.words("act.second"), status=409)

    def verdict(self, asked: Asked) -> Response:
        """True or false, and why: on the board, and to the node as a signed command; both or neither."""
        verdict, reason = asked.field("verdict", 10), asked.field("reason", TEXT_CHARS_MAX)
        if verdict not in ("true", "false"):
            raise Refused(400)
        seen = asked.form.get("seen", "0")
        if not _NUMBER.fullmatch(seen):
            raise Refused(400)
        found, who = self._need(asked), asked.who
        said = ""

        def order(db: Connection) -> str:
            nonlocal said
            try:
                return self._send_verdict(db, found.node, found.incident, verdict, reason, who.name)
            except Transient:
                raise
            except WardpostError as error:  # what a person says of an alert stands, also where its post is not told
                said = asked.words("act.notsent", why=str(error).partition(";")[0][:200])
                return ""

        if self._alerts.judge(who, found.incident, verdict, reason, int(seen), order=order):
            return self._done(asked, said, status=200)
        newest = self._alerts.unseen_verdict(who, found.incident, int(seen))
        if newest is None:
            raise Refused(404)
        said = asked.words("act.judged", who=newest.who, text=_step_text(newest, {}, asked.words))
        return self._done(asked, said, status=409, typed=reason)

    def hand_over(self, asked: Asked) -> Response:
        """To a colleague."""
        if not self._alerts.hand_over(asked.who, self._need(asked).incident, asked.field("to", 40)):
            raise Refused(400, "act.nobody")
        return self._done(asked)

    def comment(self, asked: Asked) -> Response:
        """What somebody adds."""
        text = asked.field("text", TEXT_CHARS_MAX)
        if not text:
            raise Refused(400, "act.empty")
        if not self._alerts.comment(asked.who, asked.params["incident"], text):
            raise Refused(404)
        return self._done(asked)

    # -- in words -----------------------------------------------------------------------------------------------------

    def _done(self, asked: Asked, said: str = "", *, status: int = 200, typed: str = "") -> Response:
        """The alert as it is now: a part for the page's script, else the page again, with the reason that was typed."""
        found = self._need(asked)
        if asked.part:
            part = self._part(asked, found) | {"said": said}
            return Response(json.dumps(part), status_code=status if said else 200, media_type="application/json")
        if said:
            return HTMLResponse(self._whole(asked, found, said, typed), status_code=status)
        back = "/" if asked.form.get("back") == "/" else f"/alerts/{found.incident}"
        return RedirectResponse(back, status_code=303)

    def _whole(self, asked: Asked, found: Alert, said: str = "", typed: str = "") -> str:
        who = asked.who
        seen = self._alerts.verdict_step(found.incident)  # before the steps: what comes in between counts as not seen
        steps = self._alerts.steps(who.scope, found.incident)
        others = self._alerts.answering(who.scope, found.incident) if who.role in HANDING_ON else []
        names = {one.login: one.name for one in others}
        card = self._card(asked, found, whole=True)
        kept = self._around.kept(who.scope, found.incident) if found.severity == "bell" else []
        return self._pages.render(
            "alert.html",
            asked=asked,
            words=asked.words,
            card=card,
            steps=steps,
            others=others,
            said=said,
            seen=seen,
            typed=typed,
            told=lambda step: _step_text(step, names, asked.words),
            kept=kept,
            live=card.live if card.near else "",
            views_max=PER_PERSON_MAX,
            clip=self._clips.of(found.node, found.incident),
        )

    def _part(self, asked: Asked, one: Alert, *, near: bool = True) -> dict[str, object]:
        html = self._html(asked, self._card(asked, one, near=near)).html
        ringing = one.severity == "bell" and one.acknowledged_utc_ns is None
        return {"incident": one.incident, "html": html, "ringing": ringing, "open": one.acknowledged_utc_ns is None}

    def _html(self, asked: Asked, card: Card) -> Part:
        return self._cards.part(card, words=asked.words, form_token=asked.form_token)

    def _card(self, asked: Asked, one: Alert, *, whole: bool = False, near: bool = True) -> Card:
        """`whole`: on its own page, where what is near a bell is shown also when somebody has it already."""
        role = asked.who.role
        ringing = near and one.severity == "bell" and (whole or one.acknowledged_utc_ns is None)
        around = self._around.near(asked.who.scope, one.node) if ringing else []
        rights = {"answer": role in ANSWERING, "judge": role in JUDGING, "hand_on": role in HANDING_ON}
        live = self._pictures_for(asked)
        if one.told is None:
            return Card(alert=one, rights=rights, near=around, live=live)
        at = told_ns(one.told.time)
        return Card(
            alert=one,
            place=one.told.data.place,
            says=_sentence(one.told),
            at_utc_ns=at,
            error=clock_error(asked.words, at, one.told.timeerrms),
            late=one.told.historical,
            rights=rights,
            near=around,
            live=live,
        )

    def _pictures_for(self, asked: Asked) -> str:
        return self._live_pictures if asked.who.role in WATCHING else ""

    def _need(self, asked: Asked) -> Alert:
        found = self._alerts.find(asked.who.scope, asked.params["incident"])
        if found is None:
            raise Refused(404)
        return found

    def _see_pictures(self, asked: Asked, shown: list[Alert]) -> None:
        self._viewed.note(asked, [(one.node, one.incident) for one in shown if one.has_picture], what="picture")


def _step_text(step: Step, names: Mapping[str, str], words: Words) -> str:
    """What a step says, for people: a verdict is kept as `true` or `false`, with its reason behind it."""
    if step.what == "handed-over":
        return names.get(step.text, step.text)
    if step.what != "verdict":
        return step.text
    verdict, _, reason = step.text.partition(": ")
    said = words("act.true" if verdict == "true" else "act.false")
    return f"{said}: {reason}" if reason else said


def _more(shown: list[Alert], count: int, skip: int) -> dict[str, int | bool]:
    """What the page says of open alerts that it does not show. `next`: a link passes so many by; 0: there is none."""
    here = sum(one.acknowledged_utc_ns is None for one in shown)
    behind = skip + here
    following = behind if here and count > behind and behind <= SKIP_MAX else 0
    return {
        "open": min(count, COUNTED_MAX),
        "many": count > COUNTED_MAX,
        "most": COUNTED_MAX,
        "here": here,
        "next": following,
        "skip": skip,
    }


def _sentence(told: wire.CloudEvent) -> str:
    data = told.data
    return data.summary or " ".join(filter(None, (told.type.rpartition(".")[2], data.phase, ", ".join(data.zones))))


def _event(name: str, data: dict[str, object], number: int | None = None) -> str:
    """One event. JSON has no line ends, so nothing in it can begin a field of the stream."""
    mark = "" if number is None else f"id: {number}\n"
    return f"{mark}event: {name}\ndata: {json.dumps(data)}\n\n"
