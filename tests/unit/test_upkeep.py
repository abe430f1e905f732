"""Outages and uptime from the station's changes; what a post costs to keep; which posts are one way."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import wire
from agent.clock import rfc3339
from agent.station.posts.known import Beat, Change, Known, Spot
from agent.station.posts.outages import Outage, away, outages_of, uptime
from agent.station.posts.upkeep import (
    CARD_CYCLES,
    Task,
    Urgency,
    cost,
    distance_m,
    near,
    storage_days,
    task_for,
    trips,
    wear,
)
from agent.station.posts.why_dark import Cause, Verdict
from agent.types import NS
from tests.unit.test_health import heartbeats

DAY = 86_400
T0 = 1_700_006_400  # 2023-11-15 00:00 UTC


def at(seconds: float) -> int:
    return round((T0 + seconds) * NS)


def changed(state: str, noticed: float, since: float) -> Change:
    return Change(state, at(noticed), at(since))


def post(node: str = "a", **told: object) -> Known:
    given_: dict[str, object] = {"state": "online", "seen_utc_ns": at(0), "known_since_utc_ns": at(0)} | told
    return Known(node=node, **given_)  # type: ignore[arg-type]


# -- outages ----------------------------------------------------------------------------------------------------------


def test_an_outage_begins_with_the_last_sign_of_life_and_ends_with_the_next() -> None:
    changes = [
        changed("late", 80, 5),  # two heartbeats were lost
        changed("online", 95, 94),
        changed("late", 200, 120),
        changed("dark", 300, 120),
        changed("online", 1002, 1000),
        changed("offline", 2004, 2000),
        changed("dark", 2182, 2000),
        changed("online", 2600, 2599),
        changed("offline", 5040, 5000),
    ]
    assert outages_of(changes) == [
        Outage(at(120), at(1000), None),
        Outage(at(2000), at(2599), 4.0),
        Outage(at(5000), None, 40.0),
    ]
    assert Outage(at(5000), None).seconds(at(5060)) == 60.0
    assert outages_of([]) == []


def test_uptime_is_told_by_days_of_the_place_and_only_of_what_is_known() -> None:
    hanoi = dt.timezone(dt.timedelta(hours=7))
    dark = [Outage(at(-DAY), at(-DAY + 3600)), Outage(at(10 * 3600), at(16 * 3600)), Outage(at(1.75 * DAY), None)]
    found = uptime(post(), dark, start_utc_ns=at(-30 * DAY), now_utc_ns=at(2 * DAY), zone=hanoi)
    assert [day.date.isoformat() for day in found.days] == ["2023-11-15", "2023-11-16", "2023-11-17"]
    assert [day.known_s / 3600 for day in found.days] == [17, 24, 7], "nothing is known of before"
    assert [day.dark_s / 3600 for day in found.days] == [6, 0, 6]
    assert (found.outages, found.median_s) == (2, 6 * 3600)
    assert found.up == pytest.approx(1 - 12 / 48)
    nothing = uptime(post(), [], start_utc_ns=at(DAY), now_utc_ns=at(DAY), zone=dt.UTC)
    assert (nothing.days, nothing.up, nothing.median_s) == ((), None, None)


def test_headquarters_own_absence_is_nobodys_outage() -> None:
    posts = [post(name, spot=Spot(house=name)) for name in "abcd"]
    together = {name: [Outage(at(100 + n), at(700 + n))] for n, name in enumerate("abcd")}
    together["a"] = [Outage(at(100), at(4000))]  # stays away: that is its own
    (cut,) = away(posts, together)
    assert (cut.start_utc_ns, cut.end_utc_ns) == (at(100), at(701))
    found = uptime(posts[1], together["b"], start_utc_ns=at(0), now_utc_ns=at(3600), zone=dt.UTC, aways=[cut])
    assert found.outages == 0 and found.dark_s == pytest.approx(0, abs=2)
    assert found.up == pytest.approx(1.0, abs=1e-3) and found.days[0].away_s == 601
    own = uptime(posts[0], together["a"], start_utc_ns=at(0), now_utc_ns=at(4100), zone=dt.UTC, aways=[cut])
    assert own.dark_s == 3900 - 601


def test_one_house_is_not_all_of_the_ward_and_a_few_are_not_most() -> None:
    one_house = [post(name, spot=Spot(house="12")) for name in "abcd"]
    at_once = {name: [Outage(at(100), at(700))] for name in "abcd"}
    assert away(one_house, at_once) == []
    many = [post(f"p{n}") for n in range(10)]
    assert away(many, {one.node: ([Outage(at(100), None)] if n < 7 else []) for n, one in enumerate(many)}) == []
    assert away(many, {one.node: ([Outage(at(100), None)] if n < 8 else []) for n, one in enumerate(many)})
    assert away([], {}) == []


@given(st.lists(st.tuples(st.integers(0, 400_000), st.integers(1, 100_000)), max_size=12), st.integers(1, 500_000))
def test_uptime_adds_up_whatever_was_dark(stretches: list[tuple[int, int]], now: int) -> None:
    dark = sorted((Outage(at(start), at(start + length)) for start, length in stretches), key=lambda o: o.start_utc_ns)
    found = uptime(post(), dark, start_utc_ns=at(0), now_utc_ns=at(now), zone=dt.UTC)
    seconds = {second for start, length in stretches for second in range(start, min(start + length, now), 1000)}
    assert sum(day.known_s for day in found.days) == pytest.approx(now)
    assert 0 <= found.dark_s <= now and (found.dark_s > 0) == bool(seconds)
    assert all(day.up is None or 0 <= day.up <= 1 for day in found.days)


# -- cost -------------------------------------------------------------------------------------------------------------


def kept(tmp_path: Path, *, gigabytes: float, days: float) -> Known:
    """A post with so much footage, of so many days, and as much room again."""
    told = wire.RecordingState(
        recording=True, segments=9, bytes=round(gigabytes * 1e9), oldest=rfc3339(at(-days * DAY)), droppedpackets=0
    )
    beat = heartbeats(tmp_path, recording=lambda: told, disk_free_bytes=lambda: round(gigabytes * 1e9))()
    return post(beat=Beat(beat, at(0)))


def verdict(cause: Cause) -> Verdict:
    return Verdict(cause, 0.9, ())


def test_a_card_wears_by_what_is_written_a_month_and_footage_reaches_back(tmp_path: Path) -> None:
    found = kept(tmp_path, gigabytes=60, days=6)  # 10 GB a day on 120 GB
    assert wear(found) == pytest.approx(300 / (120 * CARD_CYCLES))
    assert storage_days(found, at(DAY)) == pytest.approx(7)
    assert wear(kept(tmp_path, gigabytes=60, days=0.01)) is None, "minutes tell nothing of a month"
    assert wear(post()) is None and storage_days(post(), at(0)) is None


def test_cost_grows_with_visits_outages_wear_and_false_alerts_and_shows_its_parts(tmp_path: Path) -> None:
    idle = cost(post(), None, [], days=30)
    assert idle.total_h == 0
    plugs = cost(post(), None, [verdict(Cause.UNPLUGGED)] * 4, days=30)
    lines = cost(post(), None, [verdict(Cause.NETWORK)] * 4, days=30)
    assert plugs.visits_h == 4.0 and lines.visits_h == 0.0 and plugs.outages_h == lines.outages_h == 1.0
    assert cost(post(), None, [verdict(Cause.UNPLUGGED)] * 4, days=15).total_h == 2 * plugs.total_h
    assert cost(post(), None, [verdict(Cause.UNPLUGGED)], days=0.1).total_h == pytest.approx(1.25 * 30 / 7)
    assert cost(post(), verdict(Cause.CARD), [], days=30).visits_h == 2.0
    wide = Verdict(Cause.NETWORK, 0.9, (), "provider")
    assert cost(post(), wide, [], days=30).total_h == 0.0, "nobody drives out for a provider"
    assert cost(post(false_alerts=30), None, [], days=30).false_h == 0.5
    assert cost(kept(tmp_path, gigabytes=60, days=6), None, [], days=30).storage_h > 0


def test_there_is_something_to_do_about_every_verdict() -> None:
    for cause in Cause:
        for scope in ("post", "house", "pole", "provider", "headquarters"):
            task = task_for(Verdict(cause, 0.9, (), scope))
            assert task.what.startswith("do.") and all(key.startswith("bring.") for key in task.bring)


# -- ways -------------------------------------------------------------------------------------------------------------


def test_distances_are_those_of_the_earth() -> None:
    hanoi, hue = Spot(lat=21.0285, lon=105.8542), Spot(lat=16.4637, lon=107.5909)
    assert distance_m(hanoi, hue) == pytest.approx(540_500, rel=0.005)
    assert distance_m(hanoi, Spot(house="A")) is None
    assert near(Spot(house="A"), Spot(house="A")) and near(Spot(pole="3"), Spot(pole="3", house="B"))
    assert not near(Spot(), Spot()), "two posts of which nobody knows anything are not near each other"
    assert near(hanoi, Spot(lat=21.0300, lon=105.8542)) and not near(hanoi, hue)


def test_posts_that_are_near_each_other_are_one_way_and_the_most_urgent_is_first() -> None:
    now, soon = Task("do.card", ("bring.card",), Urgency.NOW), Task("do.supply", ("bring.supply",), Urgency.SOON)
    call = Task("do.network_wide", (), Urgency.SOON, trip=False)
    a, b, c = (post(n, spot=Spot(lat=21.0 + i * 0.002, lon=105.0)) for i, n in enumerate("abc"))  # 220 m apart
    far, same = post("far", spot=Spot(lat=22.0, lon=105.0)), post("same", spot=Spot(house="H"))
    other = post("other", spot=Spot(house="H"))
    tasks = [(far, soon), (a, soon), (c, now), (same, soon), (b, soon), (other, soon), (post("x"), call)]
    for seed in range(20):
        random.Random(seed).shuffle(tasks)
        found = [[one.node for one, _ in way] for way in trips(tasks)]
        assert found == [["c", "a", "b"], ["other", "same"], ["far"], ["x"]], "b joins a and c, whoever is told first"
