"""When a post was dark, and how much of the time it was not. Pure.

The station notes each change of its judgement (`change`). An outage lasts from the last sign of life before `dark` or
`offline` to the first one after it; `late` alone is none: heartbeats go at QoS 0, and one or two may be lost.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.station.posts.known import Change, Known
from agent.types import NS

AT_ONCE_S = 60.0
"""Posts that were last heard within this of each other fell silent at once: heartbeats are 30 s apart."""
SITE_HOUSES_MIN = 3
SITE_SHARE_MIN = 0.8
"""So many of all posts, of so many houses, fall silent together when it is headquarters that was cut off."""
DAY_NS = 86_400 * NS


@dataclass(frozen=True, slots=True)
class Outage:
    """A stretch without a sign of life. `end_utc_ns` None: it goes on."""

    start_utc_ns: int
    end_utc_ns: int | None
    goodbye_s: float | None = None
    """How long after the last sign of life its connection was seen to end; None: it was not."""

    def seconds(self, now_utc_ns: int) -> float:
        """How long it lasted, so far."""
        return max((now_utc_ns if self.end_utc_ns is None else self.end_utc_ns) - self.start_utc_ns, 0) / NS


@dataclass(frozen=True, slots=True)
class Day:
    """One day of a post, or as much of it as is known. `away_s`: headquarters itself was cut off, and knows nothing."""

    date: dt.date
    known_s: float
    dark_s: float
    away_s: float

    @property
    def up(self) -> float | None:
        """Share of the time in which it was heard; None: nothing is known."""
        watched_s = self.known_s - self.away_s
        return None if watched_s <= 0 else max(1 - self.dark_s / watched_s, 0.0)


@dataclass(frozen=True, slots=True)
class Uptime:
    """Of one post over a range."""

    days: tuple[Day, ...]
    outages: int  # that headquarters' own absence does not explain
    median_s: float | None
    dark_s: float
    up: float | None


def outages_of(changes: Sequence[Change]) -> list[Outage]:
    """The outages of one post, oldest first, from its changes in order."""
    found: list[Outage] = []
    start: int | None = None
    goodbye_s: float | None = None
    for change in changes:
        if change.state in ("dark", "offline"):
            if start is None:
                start, goodbye_s = change.since_utc_ns, None
            if change.state == "offline" and goodbye_s is None:
                goodbye_s = (change.noticed_utc_ns - change.since_utc_ns) / NS
        elif start is not None:
            found.append(Outage(start, max(change.since_utc_ns, start), goodbye_s))
            start = None
    if start is not None:
        found.append(Outage(start, None, goodbye_s))
    return found


def at_once(one_utc_ns: int, other_utc_ns: int) -> bool:
    """Whether two posts that were last heard then fell silent together."""
    return abs(one_utc_ns - other_utc_ns) <= AT_ONCE_S * NS


def is_site_wide(silent: Collection[Known], posts: int) -> bool:
    """Whether posts that fell silent together, out of so many, tell that headquarters was cut off. A post whose house
    nobody has written down counts as a house of its own.
    """
    houses = {one.spot.house or f"\n{one.node}" for one in silent}
    return len(houses) >= SITE_HOUSES_MIN and len(silent) >= SITE_SHARE_MIN * posts


def away(posts: Sequence[Known], outages: Mapping[str, Sequence[Outage]]) -> list[Outage]:
    """When headquarters itself was cut off, or its broker: most posts fell silent at once. `outages` by node."""
    named = {post.node: post for post in posts}
    starts = sorted(
        ((one.start_utc_ns, node, one) for node, ones in outages.items() for one in ones), key=lambda row: row[:2]
    )
    found: list[Outage] = []
    first = 0
    for last in range(len(starts)):
        while starts[last][0] - starts[first][0] > AT_ONCE_S * NS:
            first += 1
        together = starts[first : last + 1]
        silent = {node for _, node, _ in together}
        if len(silent) < SITE_HOUSES_MIN:
            continue
        before = sum(node not in silent and _lasts(ones, together[0][0]) for node, ones in outages.items())
        if is_site_wide([named[node] for node in silent], len(posts) - before):
            over = [one.end_utc_ns for _, _, one in together if one.end_utc_ns is not None]
            # It ended with the first post that came back: those that stay away have reasons of their own.
            found = [one for one in found if one.start_utc_ns != together[0][0]]
            found.append(Outage(together[0][0], min(over) if over else None))
    return found


def _lasts(outages: Sequence[Outage], at_utc_ns: int) -> bool:
    """Whether a post was silent already: it could not fall silent then."""
    return any(one.start_utc_ns < at_utc_ns and (one.end_utc_ns or at_utc_ns + 1) > at_utc_ns for one in outages)


def uptime(
    post: Known,
    outages: Sequence[Outage],
    *,
    start_utc_ns: int,
    now_utc_ns: int,
    zone: dt.tzinfo,
    aways: Sequence[Outage] = (),
) -> Uptime:
    """How a post did since `start_utc_ns`, by days of `zone`. `aways`: as `away` gives them; that blames no post."""
    start = max(start_utc_ns, post.known_since_utc_ns)
    days = []
    moment = start
    while moment < now_utc_ns:
        date = dt.datetime.fromtimestamp(moment / NS, zone).date()
        midnight = dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), zone)
        end = min(int(midnight.timestamp()) * NS, now_utc_ns)
        cut = _union(aways, moment, end, now_utc_ns)
        dark = _union([*outages, *aways], moment, end, now_utc_ns) - cut
        days.append(Day(date, (end - moment) / NS, dark / NS, cut / NS))
        moment = max(end, moment + 1)
    counted = [
        one
        for one in outages
        if (one.end_utc_ns is None or one.end_utc_ns > start)
        and not any(at_once(one.start_utc_ns, other.start_utc_ns) for other in aways)
    ]
    lengths = [one.seconds(now_utc_ns) for one in counted]
    watched_s = sum(day.known_s - day.away_s for day in days)
    dark_s = sum(day.dark_s for day in days)
    return Uptime(
        tuple(days),
        len(counted),
        statistics.median(lengths) if lengths else None,
        dark_s,
        None if watched_s <= 0 else max(1 - dark_s / watched_s, 0.0),
    )


def _union(ones: Iterable[Outage], start: int, end: int, now_utc_ns: int) -> int:
    """Nanoseconds of [start, end) that lie in one of the stretches or more."""
    total, reached = 0, start
    for low, high in sorted(
        (one.start_utc_ns, now_utc_ns if one.end_utc_ns is None else one.end_utc_ns) for one in ones
    ):
        low, high = max(low, reached), min(high, end)  # noqa: PLW2901  (cut to what is left of the day)
        if high > low:
            total += high - low
            reached = high
    return total
