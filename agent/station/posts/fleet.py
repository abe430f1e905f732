"""All posts of a station, judged: what the list, a post's page and the to-do list show. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.station.posts.known import Known
from agent.station.posts.outages import Outage, Uptime, at_once, away, outages_of, uptime
from agent.station.posts.upkeep import Cost, Task, Urgency, cost, task_for, trips
from agent.station.posts.why_dark import (
    SURE,
    Around,
    Cause,
    Finding,
    Neighbour,
    Verdict,
    after_return,
    why_blind,
    why_dark,
)
from agent.types import NS

DAYS = 30
PAST_OUTAGES_MAX = 50
DAY_NS = 86_400 * NS


@dataclass(frozen=True, slots=True)
class PastOutage:
    """An outage that is over, and why it was."""

    outage: Outage
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class PostView:
    """One post as it is shown."""

    post: Known
    now: Verdict | None  # None: it is heard, and nothing is wrong
    outage: Outage | None  # the one that goes on
    past: tuple[PastOutage, ...]  # the newest first
    uptime: Uptime
    cost: Cost
    task: Task | None


def judge(posts: Sequence[Known], *, now_utc_ns: int, zone: dt.tzinfo) -> list[PostView]:
    """Every post, in the order given."""
    outages = {post.node: tuple(outages_of(post.changes)) for post in posts}
    aways = away(posts, outages)
    around = Around(Neighbour(post, outages[post.node], _told(post, outages[post.node])) for post in posts)
    return [_view(post, outages[post.node], around, aways, now_utc_ns=now_utc_ns, zone=zone) for post in posts]


def todo(views: Sequence[PostView]) -> list[list[PostView]]:
    """What somebody must do, by trips, the most urgent first."""
    by_node = {view.post.node: view for view in views}
    tasks = [(view.post, view.task) for view in views if view.task is not None]
    return [[by_node[post.node] for post, _ in trip] for trip in trips(tasks)]


def ranking(views: Sequence[PostView]) -> list[PostView]:
    """By cost of upkeep, the dearest first."""
    return sorted(views, key=lambda view: (-view.cost.total_h, view.post.node))


def _told(post: Known, outages: Sequence[Outage]) -> Mapping[int, Finding]:
    """What the post's own return tells of its outages, without anybody else."""
    found: dict[int, Finding] = {}
    for one in outages[-PAST_OUTAGES_MAX:]:
        surest = max(after_return(post, one), key=lambda finding: finding.confidence, default=None)
        if surest is not None and surest.confidence >= SURE:
            found[one.start_utc_ns] = surest
    return found


def _view(
    post: Known,
    own: Sequence[Outage],
    around: Around,
    aways: Sequence[Outage],
    *,
    now_utc_ns: int,
    zone: dt.tzinfo,
) -> PostView:
    start = now_utc_ns - DAYS * DAY_NS
    past = tuple(
        PastOutage(one, why_dark(post, one, around, now_utc_ns=now_utc_ns))
        for one in reversed(own[-PAST_OUTAGES_MAX:])
        if one.end_utc_ns is not None and one.end_utc_ns > start
    )
    running = own[-1] if own and own[-1].end_utc_ns is None else None
    if not post.heard and running is None:  # the change that told of it is older than what the station keeps
        running = Outage(post.seen_utc_ns, None)
    now = why_blind(post) if running is None else why_dark(post, running, around, now_utc_ns=now_utc_ns)
    blamed = [one.verdict for one in past if not any(at_once(one.outage.start_utc_ns, o.start_utc_ns) for o in aways)]
    known_days = (now_utc_ns - max(post.known_since_utc_ns, start)) / DAY_NS
    return PostView(
        post,
        now,
        running,
        past,
        uptime(post, own, start_utc_ns=start, now_utc_ns=now_utc_ns, zone=zone, aways=aways),
        cost(post, now, blamed, days=known_days),
        _task(post, now, blamed),
    )


def _task(post: Known, now: Verdict | None, past: Sequence[Verdict]) -> Task | None:
    """What to do at a post: what is wrong now; else what its power says, before it falls dark."""
    if now is not None:
        return task_for(now)
    flags = () if post.beat is None else post.beat.said.machine.throttled or ()
    if "under-voltage" in flags or "under-voltage since boot" in flags:
        return Task("do.supply", ("bring.supply",), Urgency.SOON)
    if sum(one.cause is Cause.UNPLUGGED for one in past) >= 3:
        return Task("do.loose", ("bring.supply", "bring.meter"), Urgency.SOON)
    return None
