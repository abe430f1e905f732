"""When a post was dark, and how much of the time it was not. Pure.

The station notes each change of its judgement (`change`). An outage lasts from the last sign of life before `dark` or
`offline` to the first one after it; `late` alone is none: heartbeats go at QoS 0, and one or two may be lost.
"""

from __future__ import annotations

import datetime as dt
import math
import statistics
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.station.posts.company import house_key
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
    reason: str = ""
    """Why it ended, in the post's word or its last will's (`wire.LEFT`); empty: nobody said."""

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
    reason = ""
    for change in changes:
        if change.state in ("dark", "offline"):
            if start is None:
                start, goodbye_s, reason = change.since_utc_ns, None, ""
            if change.state == "offline" and goodbye_s is None:
                goodbye_s, reason = (change.noticed_utc_ns - change.since_utc_ns) / NS, change.reason
        elif start is not None:
            found.append(Outage(start, max(change.since_utc_ns, start), goodbye_s, reason))
            start = None
    if start is not None:
        found.append(Outage(start, None, goodbye_s, reason))
    return found


def at_once(one_utc_ns: int, other_utc_ns: int) -> bool:
    """Whether two posts that were last heard then fell silent together."""
    return abs(one_utc_ns - other_utc_ns) <= AT_ONCE_S * NS


def is_site_wide(silent: int, houses: int, posts: int) -> bool:
    """Whether so many posts, of so many houses, that fell silent together tell that headquarters was cut off; `posts`
    is how many there are. A post whose house nobody has written down counts as a house of its own.
    """
    return houses >= SITE_HOUSES_MIN and silent >= SITE_SHARE_MIN * posts


def away(posts: Sequence[Known], outages: Mapping[str, Sequence[Outage]]) -> list[Outage]:
    """When headquarters itself was cut off, or its broker: most posts fell silent at once. `outages` by node."""
    houses = {post.node: house_key(post.node, post.spot.house) for post in posts}
    rows = sorted(
        ((one.start_utc_ns, node, one) for node, ones in outages.items() for one in ones), key=lambda row: row[:2]
    )
    spans = [span for ones in outages.values() for span in _spans(ones)]
    begun, ended = sorted(low for low, _ in spans), sorted(high for _, high in spans)
    together: dict[int, tuple[int, int]] = {}  # by the first moment: the rows from here to there
    first = 0
    of_node: Counter[str] = Counter()
    of_house: Counter[str] = Counter()
    before: int | None = None  # others that were silent already at the first moment; None: not counted yet
    for last, (start, node, _) in enumerate(rows):
        while start - rows[first][0] > AT_ONCE_S * NS:
            _drop(of_node, of_house, rows[first][1], houses)
            first, before = first + 1, None
        at = rows[first][0]
        of_node[node] += 1
        if of_node[node] == 1:
            of_house[houses[node]] += 1
            if before is not None and _lasts(outages[node], at):
                before -= 1
        if len(of_node) < SITE_HOUSES_MIN:
            continue
        lasting = bisect_left(begun, at) - bisect_right(ended, at)
        if not is_site_wide(len(of_node), len(of_house), len(posts) - lasting):
            continue  # not even if all those that lasted were others
        if before is None:
            before = lasting - sum(_lasts(outages[one], at) for one in of_node)
        if is_site_wide(len(of_node), len(of_house), len(posts) - before):
            together[at] = first, last
    found = []
    for at, (low, high) in together.items():
        over = [one.end_utc_ns for _, _, one in rows[low : high + 1] if one.end_utc_ns is not None]
        # It ended with the first post that came back: those that stay away have reasons of their own.
        found.append(Outage(at, min(over) if over else None))
    return found


def _drop(of_node: Counter[str], of_house: Counter[str], node: str, houses: Mapping[str, str]) -> None:
    of_node[node] -= 1
    if not of_node[node]:
        del of_node[node]
        house = houses[node]
        of_house[house] -= 1
        if not of_house[house]:
            del of_house[house]


def _lasts(outages: Sequence[Outage], at_utc_ns: int) -> bool:
    """Whether a post was silent already: it could not fall silent then."""
    return any(one.start_utc_ns < at_utc_ns and (one.end_utc_ns or at_utc_ns + 1) > at_utc_ns for one in outages)


def _spans(outages: Sequence[Outage]) -> list[tuple[int, float]]:
    """When one post was silent, each moment once: a clock that was set back makes outages overlap."""
    found: list[tuple[int, float]] = []
    for one in sorted(outages, key=lambda one: one.start_utc_ns):
        end = math.inf if one.end_utc_ns is None else one.end_utc_ns
        if found and one.start_utc_ns < found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end)
        elif end > one.start_utc_ns:
            found.append((one.start_utc_ns, end))
    return found


class Calendar:
    """The days of a range, cut at the midnights of `zone` once for all posts of a fleet. Immutable."""

    def __init__(self, *, start_utc_ns: int, now_utc_ns: int, zone: dt.tzinfo, aways: Sequence[Outage] = ()) -> None:
        """`aways`: as `away` gives them; that blames no post."""
        self._start, self._now, self._zone, self._aways = start_utc_ns, now_utc_ns, zone, tuple(aways)
        self._bounds = list(self._cut_days(start_utc_ns))
        self._quiet = [self._day(date, low, high, ()) for date, low, high in self._bounds]
        self._well = self._uptime(start_utc_ns, ())

    def uptime(self, post: Known, outages: Sequence[Outage]) -> Uptime:
        """How one post did, with all its outages."""
        start = max(self._start, post.known_since_utc_ns)
        if start == self._start and not outages:
            return self._well  # that of most posts, on most days
        return self._uptime(start, outages)

    def _uptime(self, start: int, outages: Sequence[Outage]) -> Uptime:
        days = list(self._days(start, outages))
        counted = [
            one
            for one in outages
            if (one.end_utc_ns is None or one.end_utc_ns > start)
            and not any(at_once(one.start_utc_ns, other.start_utc_ns) for other in self._aways)
        ]
        lengths = [one.seconds(self._now) for one in counted]
        watched_s = sum(day.known_s - day.away_s for day in days)
        dark_s = sum(day.dark_s for day in days)
        return Uptime(
            tuple(days),
            len(counted),
            statistics.median(lengths) if lengths else None,
            dark_s,
            None if watched_s <= 0 else max(1 - dark_s / watched_s, 0.0),
        )

    def _days(self, start: int, outages: Sequence[Outage]) -> Iterator[Day]:
        for (date, low, high), quiet in zip(self._bounds, self._quiet, strict=True):
            if high <= start:
                continue
            own = [
                one for one in outages if one.start_utc_ns < high and (one.end_utc_ns is None or one.end_utc_ns > low)
            ]
            yield quiet if low >= start and not own else self._day(date, max(low, start), high, own)

    def _day(self, date: dt.date, low: int, high: int, own: Sequence[Outage]) -> Day:
        cut = _union(self._aways, low, high, self._now)
        dark = _union([*own, *self._aways], low, high, self._now) - cut if own else 0
        return Day(date, (high - low) / NS, dark / NS, cut / NS)

    def _cut_days(self, moment: int) -> Iterator[tuple[dt.date, int, int]]:
        while moment < self._now:
            date = dt.datetime.fromtimestamp(moment / NS, self._zone).date()
            midnight = dt.datetime.combine(date + dt.timedelta(days=1), dt.time(), self._zone)
            end = max(min(int(midnight.timestamp()) * NS, self._now), moment + 1)
            yield date, moment, end
            moment = end


def uptime(
    post: Known,
    outages: Sequence[Outage],
    *,
    start_utc_ns: int,
    now_utc_ns: int,
    zone: dt.tzinfo,
    aways: Sequence[Outage] = (),
) -> Uptime:
    """How a post did since `start_utc_ns`, by days of `zone`; for many posts make one Calendar."""
    return Calendar(start_utc_ns=start_utc_ns, now_utc_ns=now_utc_ns, zone=zone, aways=aways).uptime(post, outages)


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
