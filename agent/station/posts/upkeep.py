"""What a post costs to keep, and who must go where with what in the bag. Pure.

**Cost of upkeep**, in hours of somebody's work in 30 days, each part told beside the sum:

    visits   what needs hands now, and outages whose cause lay at the post (power, card, camera, program, or unknown:
             nobody knows), as many as 30 days at the present rate bring, times VISIT_SHARE of them, times VISIT_H
    outages  all of them, times OUTAGE_H: somebody looks, telephones, writes it down
    storage  the share of a card's life that 30 days of its present writing use up, times CARD_H: buy it, flash it, go
    false    false alerts, by what people said of them, times FALSE_H

The hours are assumptions for one commune, not measurements: what matters is the order, and each part is shown so that a
person may weigh it otherwise. How much is written follows from the newest heartbeat: footage on the card, divided by
the age of its oldest (a card that is full writes what it deletes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from agent.station.moments import told_ns
from agent.station.posts.known import Known, Spot
from agent.station.posts.why_dark import Cause, Verdict
from agent.types import NS

VISIT_H, OUTAGE_H, FALSE_H, CARD_H = 2.0, 0.25, 1 / 60, 3.0
VISIT_SHARE = {Cause.UNPLUGGED: 0.5, Cause.CAMERA: 0.7, Cause.CARD: 0.9, Cause.PROGRAM: 0.3, Cause.UNKNOWN: 0.4}
"""Of outages by their cause: how many need somebody on the spot. Of the others none does."""
CARD_CYCLES = 500
"""So often all of a card may be written: an assumption between plain and high-endurance cards."""
MONTH_DAYS = 30.0
WEEK_DAYS = 7.0
"""A post that is known for less is taken to have been well before: one bad hour makes no month."""
DAY_S = 86_400.0
BELL_TESTED_S_MAX = 2 * DAY_S
"""A post tests its bell's line once a day; two tests that are missing are a fault."""
BELL_NEW_S_MAX = 3600.0
"""... and soon after each start."""
NEAR_M = 300.0
EARTH_M = 6_371_000.0


class Urgency(IntEnum):
    """When somebody must go."""

    NOW = 0
    SOON = 1
    NOTE = 2  # when somebody is there anyway


@dataclass(frozen=True, slots=True)
class Task:
    """Something to do at a post. `what` and `bring` are keys of words.*.json."""

    what: str
    bring: tuple[str, ...]
    urgency: Urgency
    trip: bool = True  # False: a telephone call, or something at headquarters


@dataclass(frozen=True, slots=True)
class Cost:
    """Hours in 30 days. See above."""

    visits_h: float
    outages_h: float
    storage_h: float
    false_h: float

    @property
    def total_h(self) -> float:
        return self.visits_h + self.outages_h + self.storage_h + self.false_h


_TASKS: Mapping[tuple[Cause, str], Task] = {
    (Cause.UNPLUGGED, "post"): Task("do.power", ("bring.supply", "bring.meter"), Urgency.NOW),
    (Cause.UNPLUGGED, "house"): Task("do.power_house", ("bring.supply", "bring.meter"), Urgency.NOW),
    (Cause.UNPLUGGED, "pole"): Task("do.power_wait", (), Urgency.SOON, trip=False),
    (Cause.NETWORK, "post"): Task("do.network", ("bring.cable", "bring.modem"), Urgency.SOON),
    (Cause.NETWORK, "house"): Task("do.network_house", ("bring.cable",), Urgency.SOON),
    (Cause.NETWORK, "pole"): Task("do.network_wide", (), Urgency.SOON, trip=False),
    (Cause.NETWORK, "provider"): Task("do.network_wide", (), Urgency.SOON, trip=False),
    (Cause.NETWORK, "headquarters"): Task("do.headquarters", (), Urgency.NOW, trip=False),
    (Cause.CAMERA, "post"): Task("do.camera", ("bring.ladder", "bring.cloth", "bring.camera"), Urgency.NOW),
    (Cause.CARD, "post"): Task("do.card", ("bring.card", "bring.ladder"), Urgency.NOW),
    (Cause.CLOCK, "post"): Task("do.clock", ("bring.rtc",), Urgency.NOTE),
    (Cause.PROGRAM, "post"): Task("do.program", ("bring.laptop", "bring.card"), Urgency.NOW),
    (Cause.PLANNED, "post"): Task("do.wait", (), Urgency.NOTE, trip=False),
    (Cause.UNKNOWN, "post"): Task("do.look", ("bring.supply", "bring.cable", "bring.card", "bring.meter"), Urgency.NOW),
}


def task_for(verdict: Verdict) -> Task:
    """What to do about a verdict."""
    return _TASKS.get((verdict.cause, verdict.scope)) or _TASKS[verdict.cause, "post"]


def storage_days(post: Known, now_utc_ns: int) -> float | None:
    """How far back the post's footage reaches, in days, by its newest heartbeat; None: it has not said."""
    oldest = _oldest(post)
    return None if oldest is None else max(now_utc_ns - oldest, 0) / NS / DAY_S


def _oldest(post: Known) -> int | None:
    recording = None if post.beat is None else post.beat.said.recording
    return None if recording is None or recording.oldest is None else told_ns(recording.oldest)


@dataclass(frozen=True, slots=True)
class BellLine:
    """What is known of a post's bell, by its newest heartbeat. `look`: well; new (it has just started); stuck; high
    (held at 3.3 V); untested.
    """

    look: str
    utc_ns: int | None  # of the newest test; of stuck and high: since when

    @property
    def trouble(self) -> bool:
        """Whether somebody who presses it may not be heard."""
        return self.look not in ("well", "new")


def bell_of(post: Known, now_utc_ns: int) -> BellLine | None:
    """None: no bell is wired, or the post's agent is older than the test. By the node's own clock."""
    said = None if post.beat is None else post.beat.said.bell
    if said is None:
        return None
    tested, since = told_ns(said.tested), told_ns(said.since)
    if said.state in ("stuck", "high"):
        return BellLine(said.state, since)
    newest, good, late_s = since, "new", BELL_NEW_S_MAX
    if said.state == "well":
        newest, good, late_s = tested, "well", BELL_TESTED_S_MAX
    fresh = newest is not None and now_utc_ns - newest <= late_s * NS
    return BellLine(good if fresh else "untested", since if tested is None else tested)


def bell_task(line: BellLine | None) -> Task | None:
    """What to do about a bell."""
    if line is None or not line.trouble:
        return None
    if line.look in ("stuck", "high"):
        return Task("do.bell", ("bring.bell", "bring.meter"), Urgency.NOW)
    return Task("do.belltest", ("bring.meter",), Urgency.SOON)


def wear(post: Known) -> float | None:
    """Share of its card's life that 30 days use up; None: its heartbeat does not tell enough."""
    beat, oldest = post.beat, _oldest(post)
    recording = None if beat is None else beat.said.recording
    if beat is None or recording is None or oldest is None or beat.said.machine.diskfreebytes is None:
        return None
    age_days = (beat.received_utc_ns - oldest) / NS / DAY_S
    size = recording.bytes + beat.said.machine.diskfreebytes
    if age_days <= 1 / 24 or size <= 0:
        return None  # an hour of footage tells nothing of a month
    return recording.bytes / age_days * MONTH_DAYS / (size * CARD_CYCLES)


def cost(post: Known, now: Verdict | None, past: Sequence[Verdict], *, days: float) -> Cost:
    """Of one post: what is wrong now, and the verdicts on its outages over the last `days`."""
    a_month = MONTH_DAYS / max(days, WEEK_DAYS)
    visits = sum(VISIT_SHARE.get(one.cause, 0.0) for one in past) * a_month
    if now is not None and task_for(now).trip and task_for(now).urgency is Urgency.NOW:
        visits += 1.0
    return Cost(
        visits * VISIT_H,
        len(past) * a_month * OUTAGE_H,
        (wear(post) or 0.0) * CARD_H,
        post.false_alerts * FALSE_H,
    )


def distance_m(one: Spot, other: Spot) -> float | None:
    """Along the ground, by the haversine formula; None: nobody has said where one of them is."""
    if one.lat is None or one.lon is None or other.lat is None or other.lon is None:
        return None
    a, b = math.radians(one.lat), math.radians(other.lat)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(other.lon - one.lon) / 2) ** 2
    return 2 * EARTH_M * math.asin(min(math.sqrt(half), 1.0))


def near(one: Spot, other: Spot) -> bool:
    """Whether one way does for both: the same house or pole, or NEAR_M apart at most."""
    if (one.house and one.house == other.house) or (one.pole and one.pole == other.pole):
        return True
    apart = distance_m(one, other)
    return apart is not None and apart <= NEAR_M


def trips(tasks: Sequence[tuple[Known, Task]]) -> list[list[tuple[Known, Task]]]:
    """What is done on one way: tasks at posts that are near each other, through others of them. The most urgent way
    first, then the one that does most; what needs no way at all comes last, each by itself.
    """
    groups: list[list[tuple[Known, Task]]] = []
    for post, task in tasks:
        if not task.trip:
            groups.append([(post, task)])
            continue
        close = [g for g in groups if g[0][1].trip and any(near(post.spot, other.spot) for other, _ in g)]
        groups = [g for g in groups if not any(g is one for one in close)]
        groups.append([pair for g in close for pair in g] + [(post, task)])
    for group in groups:
        group.sort(key=lambda pair: (pair[1].urgency, pair[0].node))
    return sorted(groups, key=lambda g: (not g[0][1].trip, g[0][1].urgency, -len(g), g[0][0].node))
