"""Has posts keep what they recorded around a press: `hold` orders, signed, which wait for a dark post."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

from sqlalchemy import Engine

from agent.clock import Clock, rfc3339
from agent.errors import ConfigError, Corrupt
from agent.station.bells.book import BellBook, Hold, Press
from agent.station.bells.deciding import DAY_NS, HOUR_NS, decide, nearest, pressed_at, span
from agent.station.bells.settings import BellSettings
from agent.station.orders import OrderBook
from agent.station.posts.known import Spot
from agent.station.signing import Signer

LOOK_S = 0.5
WHY_CHARS_MAX = 300
LIMITED_MAX = 1000
"""Bells of which it is remembered that their limit was told."""

log = logging.getLogger(__name__)


class BellWorker:
    """`agent.worker.Worker`. Decides and asks; it never waits for a post."""

    name = "bells"
    step_s_max = 60.0

    def __init__(
        self,
        settings: BellSettings,
        *,
        book: BellBook,
        engine: Engine,
        signer: Signer,
        register: Callable[[], Mapping[str, Spot]],
        new_id: Callable[[], str],
        clock: Clock,
    ) -> None:
        """`engine`: where orders wait. `register`: where posts are, asked for anew at each press."""
        self._settings = settings
        self._book = book
        self._engine = engine
        self._signer = signer
        self._register = register
        self._new_id = new_id
        self._clock = clock
        self._limited: dict[str, int] = {}  # by bell: when its limit was last put on the audit log

    def open(self) -> None:
        """Raises Corrupt, Transient."""
        self._book.open()

    def step(self, now: float) -> float:
        """One look. Raises Transient when database or disk are away: nothing is lost by that."""
        presses = self._book.presses()
        for press in presses:
            self._settle(press)
        due = self._book.due()
        for hold in due:
            self._order(hold)
        return now if presses or due else now + LOOK_S

    def close(self) -> None:
        """Holds nothing open."""

    def _settle(self, press: Press) -> None:
        now = self._clock.utc().utc_ns
        told = press.told
        about = {"incident": press.incident, "bell": press.node}
        pressed = None
        if told is not None:
            pressed = pressed_at(told.time, told.timeerrms, late=told.historical, received_utc_ns=press.received_utc_ns)
        if told is None or pressed is None:
            self._book.settle(press, [], about | {"posts": {}, "why": "nobody can tell when it was pressed"}, now)
            return
        places = self._book.posts()
        near = nearest(press.node, self._spots(), among=places, m_max=self._settings.near_m_max)
        posts = [press.node, *(one.node for one in near[: self._settings.neighbours_max])]
        decided = decide(press.node, near, self._book.past(now), self._waiting(posts), self._settings, now_utc_ns=now)
        start, end = span(pressed, told.timeerrms, self._settings)
        reason = f"emergency bell at {places.get(press.node, '') or press.node}, {rfc3339(pressed)}"[:200]
        holds = [
            Hold(
                incident=press.incident,
                node=one.node,
                bell=press.node,
                id=self._new_id(),
                asked_utc_ns=now,
                from_utc_ns=start,
                to_utc_ns=end,
                metres=math.ceil(one.metres),
                reason=reason,
            )
            for one in decided.ask
        ]
        line: dict[str, object] | None = about | {
            "posts": {one.node: one.id for one in holds},
            "from": rfc3339(start),
            "to": rfc3339(end),
            "reason": reason,
            "left": dict(decided.left),
        }
        if not holds and not self._worth_a_line(press.node, now):
            line = None
        self._book.settle(press, holds, line, now)

    def _spots(self) -> Mapping[str, Spot]:
        """Where posts are. A register that cannot be read costs the neighbours, not the hold at the bell itself."""
        try:
            return self._register()
        except (ConfigError, Corrupt) as error:
            log.error("bells: nobody can tell what is near: %s", error)  # noqa: TRY400
            return {}

    def _worth_a_line(self, bell: str, now_utc_ns: int) -> bool:
        """A bell that goes on and on beyond its limit is told of once an hour: its own alerts tell the rest."""
        before = self._limited.get(bell)
        if before is not None and 0 <= now_utc_ns - before < HOUR_NS:
            return False
        if len(self._limited) >= LIMITED_MAX:
            self._limited.clear()
        self._limited[bell] = now_utc_ns
        return True

    def _waiting(self, posts: list[str]) -> dict[str, int]:
        with OrderBook(self._engine) as book:
            return {of: sum(1 for one in book.of(of, 200) if one.state == "waiting") for of in posts}

    def _order(self, hold: Hold) -> None:
        until = max(hold.to_utc_ns, self._clock.utc().utc_ns) + round(self._settings.hold_days * DAY_NS)
        args = {
            "from": rfc3339(hold.from_utc_ns),
            "to": rfc3339(hold.to_utc_ns),
            "until": rfc3339(until),
            "reason": hold.reason,
        }
        why = ""
        with OrderBook(self._engine) as book:
            try:
                if book.find(hold.id) is None:  # else it was put there before a cut
                    self._signer.queue(book, hold.node, "hold", args, command_id=hold.id, clock=self._clock)
            except ConfigError as error:
                why = str(error).partition(";")[0][:WHY_CHARS_MAX]
                log.error("bells: %s is not asked to keep what it recorded: %s", hold.node, error)  # noqa: TRY400
        self._book.done(hold, why)
