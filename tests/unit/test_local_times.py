"""A local time that comes twice, and one that never comes: where clocks are turned, a time that is typed is not one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import pytest

from agent import wire
from agent.clock import parse_rfc3339, rfc3339
from agent.station.moments import Local, Never, local
from agent.station.orders import OrderBook
from agent.station.people.roles import Role
from agent.station.web.pages import Pages
from tests.fakes.database import fresh
from tests.fakes.desk import Visitor
from tests.fakes.footage_ward import FootageWard

POST = "gate-2"
BERLIN = ZoneInfo("Europe/Berlin")
TWICE: dict[str, Any] = {"from": "2026-10-25T02:10", "to": "2026-10-25T02:50"}
NEVER: dict[str, Any] = {"from": "2026-03-29T01:50", "to": "2026-03-29T02:30"}
BOTH = ("2026-10-25T00:10:00.000Z", "2026-10-25T01:50:00.000Z")


def utc(text: str) -> int:
    return parse_rfc3339(text)


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh("sqlite", folder) as database:
        made = FootageWard(folder, database, time_zone="Europe/Berlin")
        made.footage.knows(POST, "Gate")
        made.person("supervisor", Role.SUPERVISOR)
        yield made
        made.footage.engine.dispose()
        made.close()


@pytest.fixture
def visitor(ward: FootageWard) -> Visitor:
    return ward.visitor("supervisor")


@pytest.mark.parametrize(
    ("at", "zone", "first", "last"),
    [
        ("2026-10-25T02:30", BERLIN, "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
        ("2026-10-25T02:00", BERLIN, "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        ("2026-10-25T03:00", BERLIN, "2026-10-25T02:00:00Z", "2026-10-25T02:00:00Z"),
        ("2026-10-25T01:59:59", BERLIN, "2026-10-24T23:59:59Z", "2026-10-24T23:59:59Z"),
        ("2026-03-29T03:00", BERLIN, "2026-03-29T01:00:00Z", "2026-03-29T01:00:00Z"),
        ("2026-10-25T02:30", ZoneInfo("Asia/Ho_Chi_Minh"), "2026-10-24T19:30:00Z", "2026-10-24T19:30:00Z"),
        ("2026-04-05T01:45", ZoneInfo("Australia/Lord_Howe"), "2026-04-04T14:45:00Z", "2026-04-04T15:15:00Z"),
        ("2026-10-25T02:30", dt.UTC, "2026-10-25T02:30:00Z", "2026-10-25T02:30:00Z"),
    ],
)
def test_what_a_local_time_means(at: str, zone: dt.tzinfo, first: str, last: str) -> None:
    found = local(dt.datetime.fromisoformat(at), zone)
    assert found == Local(utc(first), utc(last))
    assert found.twice == (first != last)


@pytest.mark.parametrize(
    ("at", "zone", "before", "after"),
    [
        ("2026-03-29T02:30", "Europe/Berlin", "2026-03-29T01:59:59", "2026-03-29T03:00"),
        ("2026-03-29T02:00", "Europe/Berlin", "2026-03-29T01:59:59", "2026-03-29T03:00"),
        ("2026-10-04T02:10", "Australia/Lord_Howe", "2026-10-04T01:59:59", "2026-10-04T02:30"),
        ("2011-12-30T12:00", "Pacific/Apia", "2011-12-29T23:59:59", "2011-12-31T00:00"),
    ],
)
def test_a_time_that_never_comes_has_neighbours(at: str, zone: str, before: str, after: str) -> None:
    with pytest.raises(Never) as caught:
        local(dt.datetime.fromisoformat(at), ZoneInfo(zone))
    assert caught.value.before == dt.datetime.fromisoformat(before)
    assert caught.value.after == dt.datetime.fromisoformat(after)


def test_a_time_in_an_address_comes_back_as_the_same_one_in_every_second_around_a_turn() -> None:
    pages = Pages(time_zone="Europe/Berlin")
    for turn in ("2026-10-25T01:00:00Z", "2026-03-29T01:00:00Z"):
        for s in range(-7200, 7200, 97):
            at = utc(turn) + s * 10**9
            assert (pages.begins(pages.address(at)), pages.ends(pages.address(at))) == (at, at)


def test_footage_of_an_hour_that_comes_twice_is_that_of_both(ward: FootageWard, visitor: Visitor) -> None:
    page = unescape(visitor.get(f"/footage?post.{POST}=on&{urlencode(TWICE)}").text)
    assert "comes twice" in page
    assert "from 25.10.2026 00:10:00 to 25.10.2026 01:50:00 UTC" in page
    assert (
        "an hour comes twice"
        not in visitor.get(f"/footage?post.{POST}=on&from=2026-10-26T02:10&to=2026-10-26T03:10").text
    )
    visitor.get(f"/footage?post.{POST}=on&{urlencode(TWICE)}")
    assert visitor.post(f"/footage/{POST}/request", reason="x", **TWICE).status_code == 303
    with OrderBook(ward.engine) as book:
        (order,) = book.of(POST)
    args = wire.decode(order.payload, wire.Command).args
    assert (args["from"], args["to"]) == BOTH, "nothing of what may be meant is left out"


def test_what_an_address_means_stays_what_it_was(visitor: Visitor) -> None:
    """Of a link of the desk's own, the second of two: neither the page nor what it asks for makes it longer."""
    exact = {"from": "2026-10-25T01:30:00Z", "to": "2026-10-26T01:30:00Z"}  # 24 hours, as many as there may be
    page = visitor.get(f"/footage?post.{POST}=on&{urlencode(exact)}")
    assert page.status_code == 200
    assert f"/footage/{POST}/part?from=2026-10-25T01:30:00Z&amp;to=2026-10-26T02:30:00" in page.text
    assert visitor.get(f"/footage/{POST}/part?from=2026-10-25T01:30:00Z&to=2026-10-26T02:30:00").status_code == 200
    assert 'name="from" value="2026-10-25T01:30:00Z"' in page.text
    assert 'name="from" value="2026-10-25T02:30:00"' in page.text, "and the field has what a field can have"


@pytest.mark.parametrize("typed", [NEVER, {"from": NEVER["to"], "to": "2026-03-29T04:00"}])
def test_a_time_that_never_comes_is_said_to_be_none_on_every_page(
    ward: FootageWard, visitor: Visitor, typed: dict[str, Any]
) -> None:
    said = "2026-03-29 02:30 never comes: clocks are turned forward over it. Before it comes 29.03.2026 01:59:59, behind it 29.03.2026 03:00:00."
    query = urlencode(typed)
    for path in (f"/footage?post.{POST}=on&{query}", f"/search?{query}", f"/inspection/report?{query}"):
        answer = visitor.get(path)
        assert answer.status_code == 400, path
        assert said in unescape(answer.text), path
    visitor.get("/cases")
    opened = visitor.post("/cases", number="1", reason="x", place="", posts=POST, **typed)
    assert opened.status_code == 400
    assert said in unescape(opened.text)
    visitor.get("/archive")
    removal = visitor.post("/archive/removals", reason="x", authority="x", post=POST, **typed)
    assert removal.status_code == 400
    assert said in unescape(removal.text)
    visitor.get("/footage")
    assert visitor.post(f"/footage/{POST}/request", reason="x", **typed).status_code == 400
    with OrderBook(ward.engine) as book:
        assert book.of(POST) == []


def test_search_report_and_case_take_both_and_say_so_and_removal_takes_none(
    ward: FootageWard, visitor: Visitor
) -> None:
    said = "from 25.10.2026 00:10:00 to 25.10.2026 01:50:00 UTC"
    query = urlencode(TWICE)
    for path in (f"/search?{query}", f"/inspection/report?{query}"):
        assert said in unescape(visitor.get(path).text), path
    assert "from … to 25.10.2026 01:50:00 UTC" in unescape(visitor.get(f"/search?to={TWICE['to']}").text)
    visitor.get("/cases")
    opened = visitor.post("/cases", number="1", reason="x", place="", posts=POST, **TWICE)
    assert said in unescape(visitor.get(opened.headers["location"]).text)
    with OrderBook(ward.engine) as book:
        asked = [wire.decode(one.payload, wire.Command).args for one in book.of(POST)]
    assert {(one["from"], one["to"]) for one in asked} == {BOTH}
    visitor.get("/archive")
    removal = visitor.post("/archive/removals", reason="x", authority="x", post=POST, **TWICE)
    assert removal.status_code == 400
    assert "nobody could tell which footage is meant" in removal.text
    assert rfc3339(utc(BOTH[0])) == BOTH[0]
