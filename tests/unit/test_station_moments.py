"""Times that cannot be: years that people mistype, and what a node says whose clock is broken or which lies."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from agent.clock import parse_rfc3339
from agent.station.moments import UTC_NS_MAX, UTC_NS_MIN, YEAR_MAX, YEAR_MIN, kept_ns, told_ns
from agent.station.orders import OrderBook
from agent.station.people.roles import Role
from agent.station.web.pages import Pages
from agent.station.web.words import load
from tests.fakes.database import KINDS, fresh
from tests.fakes.footage_ward import FootageWard

POST = "gate-2"
YEARS = ("0001", "1600", "1969", "1999", "2201", "2300", "9999")
NO_TIMES = (
    "0001-01-01T00:00:00Z",
    "1600-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "2262-04-11T23:47:16Z",
    "9999-12-31T23:59:59.999Z",
)


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = FootageWard(folder, database, time_zone="Asia/Ho_Chi_Minh")
        made.footage.knows(POST, "Gate")
        made.person("supervisor", Role.SUPERVISOR)
        yield made
        made.footage.engine.dispose()
        made.close()


def _range(year: str) -> dict[str, Any]:
    return {"from": f"{year}-06-01T12:00", "to": f"{year}-06-01T13:00"}


@pytest.mark.parametrize("year", YEARS)
def test_a_year_that_cannot_be_is_a_sentence_on_every_page_and_no_fault(ward: FootageWard, year: str) -> None:
    visitor, query = ward.visitor("supervisor"), urlencode(_range(year))
    paths = (
        f"/search?{query}",
        f"/footage?post.{POST}=on&{query}",
        f"/footage/{POST}/part?{query}",
        f"/footage/{POST}/list.m3u8?{query}",
        f"/inspection/report?{query}",
        f"/inspection/report.csv?{query}",
        f"/inspection/report.json?{query}",
    )
    assert {path: visitor.get(path).status_code for path in paths} == dict.fromkeys(paths, 400)

    visitor.get("/cases")
    opened = visitor.post("/cases", number="1", reason="x", place="", posts=POST, **_range(year))
    assert opened.status_code == 400 and f"{year}-06-01T12:00" in opened.text, "the form, as it was filled in"
    visitor.get("/archive")
    removal = visitor.post("/archive/removals", reason="x", authority="x", post=POST, **_range(year))
    assert removal.status_code == 400


def test_no_post_is_asked_for_a_year_that_cannot_be(ward: FootageWard) -> None:
    visitor = ward.visitor("supervisor")
    visitor.get("/footage")
    for year in YEARS:
        assert visitor.post(f"/footage/{POST}/request", reason="x", **_range(year)).status_code == 400
    with OrderBook(ward.engine) as book:
        assert book.of(POST) == []


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("time", NO_TIMES)
def test_what_a_node_says_of_a_time_breaks_no_page_of_its_alert(ward: FootageWard, time: str, late: bool) -> None:
    visitor = ward.visitor("supervisor")
    name = ward.hear(1, time=time, historical=late)
    ward.searchable()
    for path in ("/", f"/alerts/{name}", f"/footage?alert={name}", f"/footage?alert={name}&near=on", "/search"):
        assert visitor.get(path).status_code == 200, path
    story = unescape(visitor.get(f"/alerts/{name}").text)
    assert "the post told no time that can be" in story, "and not one that somebody might believe"


def test_times_are_kept_within_named_years() -> None:
    assert parse_rfc3339(f"{YEAR_MIN}-01-01T00:00:00Z") == UTC_NS_MIN
    assert UTC_NS_MAX == parse_rfc3339(f"{YEAR_MAX}-01-01T00:00:00Z") < 1 << 63
    assert kept_ns(UTC_NS_MIN) == UTC_NS_MIN and kept_ns(UTC_NS_MIN - 1) is None
    assert kept_ns(UTC_NS_MAX - 1) == UTC_NS_MAX - 1 and kept_ns(UTC_NS_MAX) is None
    assert told_ns("2026-11-22T07:02:11.250Z") == parse_rfc3339("2026-11-22T07:02:11.250Z")
    assert [told_ns(text) for text in (*NO_TIMES, "yesterday", "")] == [None] * (len(NO_TIMES) + 2)
    pages = Pages(time_zone="Asia/Ho_Chi_Minh")
    assert pages.begins("2026-11-22T07:00") == parse_rfc3339("2026-11-22T00:00:00Z")
    assert [pages.begins(f"{year}-06-01T12:00:00") for year in YEARS] == [None] * len(YEARS)


def test_every_sentence_about_a_time_names_the_years() -> None:
    for words in load().values():
        for key in ("footage.when", "case.no.range", "report.period", "archive.no.range", "search.bad.time"):
            assert str(YEAR_MIN) in words(key) and str(YEAR_MAX - 1) in words(key)
