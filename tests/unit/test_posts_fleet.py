"""Large fleets: what is counted in one pass, and read bit by bit, is what somebody who looks at everything finds."""

from __future__ import annotations

import cProfile
import datetime as dt
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.station.db.engine import open_engine
from agent.station.posts.company import Window, house_key, window, windows
from agent.station.posts.fleet import judge
from agent.station.posts.known import Change, Incident, Known, Spot
from agent.station.posts.outages import (
    AT_ONCE_S,
    SITE_HOUSES_MIN,
    Calendar,
    Day,
    Outage,
    at_once,
    away,
    is_site_wide,
    outages_of,
)
from agent.station.posts.reader import PostsReader
from agent.station.posts.why_dark import Around, Cause, Finding, Neighbour, why_dark
from agent.types import NS
from tests.fakes.database import Database
from tests.fakes.ward import ward
from tests.unit.test_why_dark import FAULTS, fleet, mend, strike

NOW = 1_700_000_000 * NS
DAY = 86_400 * NS
SEEDS = (3, 8, 21)


def changes(outages: Sequence[tuple[int, int | None]]) -> tuple[Change, ...]:
    found = []
    for start, end in outages:
        found.append(Change("dark", start + 180 * NS, start))
        if end is not None:
            found.append(Change("online", end, end))
    return tuple(found)


def random_fleet(rng: random.Random, count: int) -> list[Known]:
    """Posts in houses, on poles, by providers, some of them nobody has written down; silent alone and together."""
    moments = sorted(NOW - rng.randrange(1, 12 * 86_400) * NS for _ in range(8))
    shares = [1.0, *(rng.choice((0.1, 0.4, 0.9, 1.0)) for _ in moments[1:])]  # the first: headquarters itself
    posts = []
    for number in range(count):
        falls: list[tuple[int, int | None]] = []
        for moment, share in zip(moments, shares, strict=True):
            if rng.random() < share and (not falls or (falls[-1][1] or NOW) < moment):
                start = moment + rng.randrange(-45, 45) * NS
                if falls and start <= (falls[-1][1] or NOW):
                    continue
                falls.append((start, start + rng.randrange(1, 7200) * NS if rng.random() < 0.9 else None))
                if falls[-1][1] is None:
                    break
        dark = bool(falls) and falls[-1][1] is None
        mains = tuple(
            Incident(f"{number}-{place}", "mains", "alert", start - rng.randrange(0, 600) * NS, None, "lost")
            for place, (start, _) in enumerate(falls)
            if rng.random() < 0.3
        )
        spot = Spot(
            house=rng.choice(("", f"H{number // 3}")),
            pole=rng.choice(("", f"P{number // 9}")),
            provider=rng.choice(("", "V", "F")),
        )
        posts.append(
            Known(
                node=f"p{number:04d}",
                state="dark" if dark else "online",
                seen_utc_ns=falls[-1][0] if dark else NOW - rng.randrange(0, 60) * NS,
                known_since_utc_ns=NOW - rng.randrange(5, 60) * DAY,
                spot=spot,
                incidents=mains,
                changes=changes(falls),
            )
        )
    return posts


class Plain(Around):
    """The same questions, answered by a look at every other post."""

    def __init__(self, posts: Sequence[Neighbour]) -> None:
        super().__init__(posts)
        self._all = sorted(posts, key=lambda one: one.post.node)

    def _fell(self, post: Known, start: int) -> list[Neighbour]:
        return [
            one
            for one in self._all
            if one.post.node != post.node and any(at_once(outage.start_utc_ns, start) for outage in one.outages)
        ]

    def silent(self, post: Known, start_utc_ns: int, provider: str = "") -> Window:
        them = [one.post for one in self._fell(post, start_utc_ns) if provider in ("", one.post.spot.provider)]
        names = sorted(one.node for one in (post, *them))
        return Window(len(names), len({house_key(one.node, one.spot.house) for one in (post, *them)}), tuple(names[:7]))

    def without_mains(self, post: Known, start_utc_ns: int) -> list[Neighbour]:
        return [
            one
            for one in self._fell(post, start_utc_ns)
            if any(i.kind == "mains" and abs(i.since_utc_ns - start_utc_ns) <= 300 * NS for i in one.post.incidents)
        ]

    def silent_mates(self, post: Known, shared: str, start_utc_ns: int) -> list[Neighbour]:
        own = getattr(post.spot, shared)
        return [one for one in self._fell(post, start_utc_ns) if own and getattr(one.post.spot, shared) == own]

    def others(self, post: Known, shared: str) -> int:
        return len(self.sharing(post, shared))

    def heard(self, post: Known, shared: str, start_utc_ns: int) -> list[Neighbour]:
        fell = {one.post.node for one in self._fell(post, start_utc_ns)}
        on = [
            one
            for one in self.sharing(post, shared)
            if one.post.node not in fell
            and one.post.seen_utc_ns > start_utc_ns + 60 * NS
            and not any(o.end_utc_ns is None and o.start_utc_ns < start_utc_ns + 180 * NS for o in one.outages)
        ]
        return on[:6]


def neighbours(posts: Sequence[Known], rng: random.Random) -> list[Neighbour]:
    found = []
    for post in posts:
        outages = tuple(outages_of(post.changes))
        told = {one.start_utc_ns: Finding(rng.choice(list(Cause)), 0.95, ()) for one in outages if rng.random() < 0.3}
        found.append(Neighbour(post, outages, told))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_verdict_out_of_windows_is_that_of_a_look_at_everybody(seed: int) -> None:
    rng = random.Random(seed)
    them = neighbours(random_fleet(rng, 60), rng)
    fast, plain = Around(them), Plain(them)
    seen = set()
    for one in them:
        # One that stands on the list, and one that the station has forgotten: it is dark, and no change tells since when.
        for outage in (*one.outages, Outage(NOW - rng.randrange(1, 12 * 86_400) * NS, None)):
            found = why_dark(one.post, outage, fast, now_utc_ns=NOW)
            assert found == why_dark(one.post, outage, plain, now_utc_ns=NOW), (seed, one.post.node, outage)
            seen |= {evidence.what for evidence in found.evidence} | {e.what for o in found.others for e in o.evidence}
    stranger = Known(node="q", state="dark", seen_utc_ns=NOW, known_since_utc_ns=NOW, spot=Spot("H1", "P1", "V"))
    gone = Outage(them[0].outages[0].start_utc_ns if them[0].outages else NOW, None)
    assert why_dark(stranger, gone, fast, now_utc_ns=NOW) == why_dark(stranger, gone, plain, now_utc_ns=NOW)
    assert {"site_dark", "provider_dark", "heard_provider", "mains_around"} <= seen, f"seed {seed} is too quiet: {seen}"


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_are_what_lies_around_each_moment(seed: int) -> None:
    rng = random.Random(seed)
    falls = sorted((rng.randrange(0, 4000) * NS, f"n{rng.randrange(40)}") for _ in range(300))
    houses = {f"n{n}": f"h{n // 3}" for n in range(40)}
    found = windows(falls, houses, near_ns=60 * NS, names_max=7)
    assert found.keys() == {at for at, _ in falls}
    for at, told in found.items():
        near = [fall for fall in falls if abs(fall[0] - at) <= 60 * NS]
        assert told == window(near, houses, names_max=7), (seed, at)


def plain_away(posts: Sequence[Known], outages: Mapping[str, Sequence[Outage]]) -> list[Outage]:
    """`away`, by its words."""
    named = {post.node: post for post in posts}
    rows = ((one.start_utc_ns, node, one) for node, ones in outages.items() for one in ones)
    starts = sorted(rows, key=lambda row: row[:2])
    found: list[Outage] = []
    for last, (start, _, _) in enumerate(starts):
        together = [row for row in starts[: last + 1] if start - row[0] <= AT_ONCE_S * NS]
        silent, at = {node for _, node, _ in together}, together[0][0]
        before = sum(
            any(one.start_utc_ns < at and (one.end_utc_ns or at + 1) > at for one in ones)
            for node, ones in outages.items()
            if node not in silent
        )
        houses = {house_key(node, named[node].spot.house) for node in silent}
        if len(silent) >= SITE_HOUSES_MIN and is_site_wide(len(silent), len(houses), len(posts) - before):
            over = [one.end_utc_ns for _, _, one in together if one.end_utc_ns is not None]
            found = [one for one in found if one.start_utc_ns != at]
            found.append(Outage(at, min(over) if over else None))
    return found


def plain_days(post: Known, outages: Sequence[Outage], aways: Sequence[Outage], zone: dt.tzinfo) -> list[Day]:
    """The days of the last 30, second by second of whole minutes."""
    days: dict[dt.date, list[int]] = {}
    start = max(NOW - 30 * DAY, post.known_since_utc_ns)

    def within(ones: Sequence[Outage], at: int) -> bool:
        return any(one.start_utc_ns <= at < (NOW if one.end_utc_ns is None else one.end_utc_ns) for one in ones)

    step = 60 * NS
    for at in range(start, NOW, step):
        day = days.setdefault(dt.datetime.fromtimestamp(at // NS, zone).date(), [0, 0, 0])
        cut = within(aways, at)
        day[0] += 60
        day[1] += 0 if cut or not within(outages, at) else 60
        day[2] += 60 if cut else 0
    return [Day(date, *map(float, told)) for date, told in days.items()]


@pytest.mark.parametrize("seed", SEEDS)
def test_headquarters_absence_and_the_days_are_what_a_plain_count_gives(seed: int) -> None:
    rng = random.Random(seed)
    posts = random_fleet(rng, 40)
    outages = {post.node: outages_of(post.changes) for post in posts}
    aways = away(posts, outages)
    assert aways == plain_away(posts, outages), seed
    zone = ZoneInfo("Asia/Ho_Chi_Minh")
    calendar = Calendar(start_utc_ns=NOW - 30 * DAY, now_utc_ns=NOW, zone=zone, aways=aways)
    for post in posts[:2]:
        told = calendar.uptime(post, outages[post.node])
        for day, plain in zip(told.days, plain_days(post, outages[post.node], aways, zone), strict=True):
            assert day.date == plain.date
            slack_s = 60.0 * (2 + 2 * len(aways) + 2 * len(outages[post.node]))  # each edge lies within a minute
            for name in ("known_s", "dark_s", "away_s"):
                assert abs(getattr(day, name) - getattr(plain, name)) <= slack_s, (seed, post.node, day, plain)
    well = Known(node="w", state="online", seen_utc_ns=NOW, known_since_utc_ns=NOW - 60 * DAY)
    assert calendar.uptime(well, ()).up == 1.0 and calendar.uptime(well, ()).outages == 0


def test_headquarters_outages_do_not_square_the_fleet() -> None:
    """Function calls, not seconds: they are the same on any machine. Four times the posts is four times the work."""

    def calls(count: int) -> int:
        outages = [(NOW - day * DAY, NOW - day * DAY + 600 * NS) for day in (9, 6, 3)]
        posts = [
            Known(
                node=f"p{n:04d}", state="online", seen_utc_ns=NOW, known_since_utc_ns=NOW - 60 * DAY,
                spot=Spot(f"H{n // 2}", f"P{n // 8}", "VF"[n % 2]),
                changes=changes([(start + n % 30 * NS, end) for start, end in outages]),
            )
            for n in range(count)
        ]  # fmt: skip
        profile = cProfile.Profile()
        views = profile.runcall(judge, posts, now_utc_ns=NOW, zone=dt.UTC)
        assert len(views) == count and views[0].past[0].verdict.scope == "headquarters"
        return int(sum(one.callcount for one in profile.getstats()))

    assert calls(400) < 6 * calls(100)


def test_a_reader_that_is_kept_tells_what_a_new_one_does(tmp_path: Path, database: Database) -> None:
    """A month of faults in a small ward; after each step both must say the same, whatever came in between."""
    rng = random.Random(17)
    with ward(tmp_path, database, fleet(rng)[:4], seed=17) as made:
        engine = open_engine(database.url, read_only=True, pooled=False)
        kept = PostsReader(engine)
        spots = {node: post.spot for node, post in made.posts.items()}
        checked = 0
        for fault in FAULTS:
            struck = strike(made, fault, rng)
            for step in (2, 6, 0, 3):
                if step:
                    made.tick(step)
                else:
                    mend(made, struck)
                if rng.random() < 0.8:  # sometimes nobody looks for a while
                    known = kept.read(spots, now_utc_ns=made.now_ns)
                    assert known == PostsReader(engine).read(spots, now_utc_ns=made.now_ns), (fault, step)
                    checked += any(one.starts for one in known)
        assert checked > 8
        engine.dispose()
