"""All posts of a station, judged: what the list, a post's page and the to-do list show. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.station.posts.known import Known
from agent.station.posts.outages import Calendar, Outage, Uptime, at_once, away, outages_of
from agent.station.posts.upkeep import Cost, Task, Urgency, bell_of, bell_task, cost, task_for, trips
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
    now: Verdict | None  # None: it is heard, and nothing is wrong; or it was revoked
    outage: Outage | None  # the one that goes on
    uptime: Uptime
    cost: Cost
    task: Task | None
    tell_past: Callable[[], tuple[PastOutage, ...]] = field(repr=False, compare=False)

    @property
    def past(self) -> tuple[PastOutage, ...]:
        """Outages of the last days that are over, the newest first. Judged when it is asked for: a list needs none."""
        return self.tell_past()


def judge(posts: Sequence[Known], *, now_utc_ns: int, zone: dt.tzinfo) -> list[PostView]:
    """Every post, in the order given."""
    outages = {post.node: tuple(outages_of(post.changes)) for post in posts}
    aways = away(posts, outages)
    around = Around(Neighbour(post, outages[post.node], _Told(post, outages[post.node])) for post in posts)
    start = now_utc_ns - DAYS * DAY_NS
    calendar = Calendar(start_utc_ns=start, now_utc_ns=now_utc_ns, zone=zone, aways=aways)
    return [_view(post, outages[post.node], around, aways, calendar, start, now_utc_ns=now_utc_ns) for post in posts]


def todo(views: Sequence[PostView]) -> list[list[PostView]]:
    """What somebody must do, by trips, the most urgent first."""
    by_node = {view.post.node: view for view in views}
    tasks = [(view.post, view.task) for view in views if view.task is not None]
    return [[by_node[post.node] for post, _ in trip] for trip in trips(tasks)]


def ranking(views: Sequence[PostView]) -> list[PostView]:
    """By cost of upkeep, the dearest first."""
    return sorted(views, key=lambda view: (-view.cost.total_h, view.post.node))


class _Told(Mapping[int, Finding]):
    """What a post's own return tells of its outages, without anybody else: by their start. Looked at when one asks,
    which is rare: only a post that fell silent with it does.
    """

    def __init__(self, post: Known, outages: Sequence[Outage]) -> None:
        self._post = post
        self._outages = {one.start_utc_ns: one for one in outages[-PAST_OUTAGES_MAX:]}

    def __getitem__(self, start_utc_ns: int) -> Finding:
        returned = after_return(self._post, self._outages[start_utc_ns])
        surest = max(returned, key=lambda finding: finding.confidence, default=None)
        if surest is None or surest.confidence < SURE:
            raise KeyError(start_utc_ns)
        return surest

    def __iter__(self) -> Iterator[int]:
        return iter(self._outages)

    def __len__(self) -> int:
        return len(self._outages)


def _view(
    post: Known,
    own: Sequence[Outage],
    around: Around,
    aways: Sequence[Outage],
    calendar: Calendar,
    start: int,
    *,
    now_utc_ns: int,
) -> PostView:
    over = [one for one in reversed(own[-PAST_OUTAGES_MAX:]) if one.end_utc_ns is not None and one.end_utc_ns > start]
    running = own[-1] if own and own[-1].end_utc_ns is None else None
    if not post.heard and running is None:  # the change that told of it is older than what the station keeps
        running = Outage(post.seen_utc_ns, None)
    now = None
    if not post.revoked:
        now = why_blind(post) if running is None else why_dark(post, running, around, now_utc_ns=now_utc_ns)
    blamed = [
        why_dark(post, one, around, now_utc_ns=now_utc_ns)
        for one in over
        if not any(at_once(one.start_utc_ns, other.start_utc_ns) for other in aways)
    ]
    task = None
    if not post.revoked:
        task = _sooner(_task(post, now, blamed), bell_task(bell_of(post, now_utc_ns)) if post.heard else None)
    known_days = (now_utc_ns - max(post.known_since_utc_ns, start)) / DAY_NS
    return PostView(
        post,
        now,
        running,
        calendar.uptime(post, own),
        cost(post, now, blamed, days=known_days),
        task,
        lambda: tuple(PastOutage(one, why_dark(post, one, around, now_utc_ns=now_utc_ns)) for one in over),
    )


def _sooner(one: Task | None, other: Task | None) -> Task | None:
    """Of two tasks at a post the one that is more urgent: on one way both are seen."""
    if one is None or other is None:
        return one or other
    return other if other.urgency < one.urgency else one


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
