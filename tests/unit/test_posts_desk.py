"""What pages show of all posts is read behind their visitors: nobody waits for 70,000 posts, and nothing grows old."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.station.db.engine import open_engine
from agent.station.posts import desk as desks
from agent.station.posts import searched
from agent.station.posts.desk import KEPT_S, KEPT_S_MAX, SHARE, PostsDesk
from agent.station.posts.fleet import PostView
from agent.station.posts.known import Known, Spot
from agent.station.posts.renewal import PAUSE_S_MAX, Renewal
from agent.types import NS
from tests.fakes.clock import FakeClock

OWN = frozenset({"p-1"})


class City:
    """Three posts that take so long to read as a city's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cost_s: float) -> None:
        self.clock = FakeClock()
        self.cost_s = cost_s
        self.reads = 0
        self.during: Callable[[], None] = lambda: None
        monkeypatch.setattr(desks, "PostsReader", lambda _: self)
        engine = open_engine(f"sqlite:///{tmp_path}/never.db", pooled=False)
        self.desk = PostsDesk(engine, register=dict, clock=self.clock, zone=dt.UTC)
        self.renewal = Renewal(self.desk, clock=self.clock)

    def read(self, _spots: Mapping[str, Spot], *, now_utc_ns: int) -> list[Known]:
        self.reads += 1
        self.during()
        self.clock.advance(self.cost_s)
        return [
            Known(node=f"p-{n}", place=f"Cổng {n}", state="online", seen_utc_ns=now_utc_ns, known_since_utc_ns=0)
            for n in range(3)
        ]

    def now_s(self) -> float:
        return self.clock.boot_ns() / NS

    def age_s(self, views: list[PostView]) -> float:
        return (self.clock.utc().utc_ns - views[0].post.seen_utc_ns) / NS


def test_of_a_large_fleet_nobody_waits_for_the_reading_and_nothing_is_older_than_it_may_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    city = City(monkeypatch, tmp_path, cost_s=6.0)
    due, began = city.renewal.step(city.now_s()), city.now_s()
    renewals = 1
    while city.now_s() < began + 3600:
        if city.now_s() >= due:
            due = city.renewal.step(city.now_s())
            renewals += 1
        for only, count in ((None, 3), (OWN, 1)):
            found = city.desk.views(only)
            assert len(found) == count and city.age_s(found) < KEPT_S_MAX
        assert city.reads == renewals, "a visitor read"
        city.clock.advance(1)
    assert renewals * 6.0 <= 3600 * SHARE * 1.1, "and the station has other work to do"
    assert renewals >= 3600 / (PAUSE_S_MAX + 10)


def test_while_all_is_read_anew_visitors_get_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    city = City(monkeypatch, tmp_path, cost_s=6.0)
    city.renewal.step(city.now_s())
    before = city.desk.views(None)
    city.clock.advance(70)
    reads, go_on = threading.Event(), threading.Event()

    def long() -> None:
        reads.set()
        go_on.wait(60)

    city.during = long
    thread = threading.Thread(target=city.renewal.step, args=(city.now_s(),), daemon=True)
    thread.start()
    assert reads.wait(60)
    seen: list[int] = []
    visitor = threading.Thread(
        target=lambda: seen.extend(len(city.desk.views(one)) for one in (None, OWN)), daemon=True
    )
    visitor.start()
    visitor.join(60)
    assert seen == [3, 1] and city.desk.views(None) is before
    go_on.set()
    thread.join(60)
    assert city.desk.views(None) is not before and city.reads == 2


def test_when_the_renewal_fails_visitors_read_themselves_before_it_is_too_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    city = City(monkeypatch, tmp_path, cost_s=6.0)
    city.renewal.step(city.now_s())

    def away() -> None:
        raise Transient("the database is away")

    city.during = away
    city.clock.advance(PAUSE_S_MAX + 1)
    with pytest.raises(Transient):
        city.renewal.step(city.now_s())
    assert city.desk.views(None), "what is kept is shown meanwhile"
    city.clock.advance(KEPT_S_MAX)
    for only in (None, OWN):
        with pytest.raises(Transient):
            city.desk.views(only)
    city.during = lambda: None
    assert city.age_s(city.desk.views(None)) <= 6.0


def test_a_small_station_reads_when_somebody_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    city = City(monkeypatch, tmp_path, cost_s=0.05)
    first = city.desk.views(None)
    assert city.desk.views(None) is first and city.reads == 1
    assert len(city.desk.views(OWN)) == 1 and city.reads == 1, "a school's page costs no reading"
    city.clock.advance(KEPT_S)
    assert city.age_s(city.desk.views(OWN)) < 1 and city.reads == 2
    assert city.age_s(city.desk.views(None)) < 1
    due = city.renewal.step(city.now_s())
    assert due - city.now_s() >= 59, "and does next to nothing while nobody does"
    reads = city.reads
    assert city.renewal.step(due - 1) == due and city.reads == reads, "woken too early"


def test_what_posts_are_searched_in_is_made_with_the_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first search after a start folded every name of the site, while somebody waited."""
    searched._text.cache_clear()
    city = City(monkeypatch, tmp_path, cost_s=6.0)
    city.renewal.step(city.now_s())

    def never(_text: str) -> str:
        raise AssertionError("folded while somebody waits")

    monkeypatch.setattr(searched, "fold", never)
    assert [searched.text_of(view.post).split()[:2] for view in city.desk.views(None)][1] == ["p-1", "cong"]
