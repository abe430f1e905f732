"""Which file a post may bring: what a command of this station asked of it, or what belongs to an alert that it raised.

The second needs no person, so it is held against three things that the station has already: the alert's events, the
ledger's line of that very file, and what has come of the post within a day. A post that lies has a few files to lie
with, all signed for on its ledger, and no more bytes a day than the settings say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from agent import tus
from agent.clock import Clock
from agent.station import uploads_rows as rows
from agent.station.db.engine import reading, writing
from agent.station.orders import OrderBook
from agent.station.uploads_rows import Filed, Moment
from agent.station.uploads_staging import Info, NotTaken, Why
from agent.types import NS

DAY_NS = 86_400 * NS
VERB = "send"


@dataclass(frozen=True, slots=True)
class Daily:
    """What one post may bring within 24 hours, by the station's clock."""

    bytes_max: int  # for any reason
    clip_bytes_max: int  # for its alerts, without an order; 0: nothing


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a file is announced."""

    asked: bool  # a command of that id, to send footage, went to this post
    alarms: Sequence[Moment]  # of the incident of that id
    filed: Filed | None  # what the post's ledger says of the file
    bytes: int  # of the post within the day, those on their way included
    clip_bytes: int  # of them, for alerts


def decide(footage: tus.Footage, size: int, facts: Facts, daily: Daily) -> tuple[Why, str] | None:
    """Why it is not taken; None when it is."""
    refused = _order(facts) if footage.why == "order" else _alert(size, facts, daily)
    if refused is not None:
        return refused
    if facts.bytes + size > daily.bytes_max:
        return Why.TOO_MUCH, f"{facts.bytes} bytes of this post have come within a day, {daily.bytes_max} may; later"
    if footage.why == "alert" and facts.clip_bytes + size > daily.clip_bytes_max:
        return Why.TOO_MUCH, f"{facts.clip_bytes} bytes of clips came within a day, {daily.clip_bytes_max} may; later"
    return None


def _order(facts: Facts) -> tuple[Why, str] | None:
    return None if facts.asked else (Why.NOT_ASKED, "no command of this id has asked this post for footage")


def _alert(size: int, facts: Facts, daily: Daily) -> tuple[Why, str] | None:
    if not daily.clip_bytes_max:
        return Why.NOT_ASKED, "this station takes no footage that nobody has asked for (uploads.clips_mb_per_day_max)"
    if not facts.alarms:
        return Why.NOT_ASKED, "no alert of this id has come from this post"
    if facts.filed is None:
        return Why.NOT_YET, "its line of the ledger is not here yet; later"
    if facts.filed.bytes != size:
        return Why.NOT_ASKED, f"{size} bytes; its line of the ledger says {facts.filed.bytes}"
    if not any(_around(facts.filed, moment) for moment in facts.alarms):
        return Why.NOT_ASKED, f"it lies further than {tus.CLIP_S_MAX:.0f} s from the alert"
    return None


def _around(filed: Filed, moment: Moment) -> bool:
    reach_ns = round(tus.CLIP_S_MAX * NS)
    return filed.boot_id == moment.boot_id and (filed.start_ns - reach_ns <= moment.boot_ns <= filed.end_ns + reach_ns)


class Admission:
    """Any thread."""

    def __init__(self, *, engine: Engine, clock: Clock, daily: Daily) -> None:
        self._engine = engine
        self._clock = clock
        self._daily = daily

    def check(self, node: str, size: int, footage: tus.Footage, on_the_way: Sequence[Info]) -> None:
        """`on_the_way`: of this post, announced or whole, not in the archive. Raises NotTaken, Transient."""
        since_ns = self._clock.utc().utc_ns - DAY_NS
        with reading(self._engine, "admit footage") as db:
            facts = Facts(
                asked=footage.why == "order" and self._asked(node, footage.order),
                alarms=rows.alarms(db, node, footage.order) if footage.why == "alert" else (),
                filed=rows.filed(db, node, footage.sha256) if footage.why == "alert" else None,
                bytes=rows.received(db, node, since_ns) + sum(one.size for one in on_the_way),
                clip_bytes=rows.received(db, node, since_ns, "alert")
                + sum(one.size for one in on_the_way if one.footage.why == "alert"),
            )
        refused = decide(footage, size, facts, self._daily)
        if refused is not None:
            raise NotTaken(*refused)

    def also(self, node: str, footage: tus.Footage) -> None:
        """The file is here, or on its way, for another reason: a command that asks for it too is met by it as well.

        Raises Transient.
        """
        if footage.why == "order" and self._asked(node, footage.order):
            with writing(self._engine, "note footage") as db:
                rows.ask_too(db, footage.order, node, footage.sha256)

    def _asked(self, node: str, order: str) -> bool:
        with OrderBook(self._engine) as book:
            found = book.find(order)
        return found is not None and found.node == node and found.verb == VERB
