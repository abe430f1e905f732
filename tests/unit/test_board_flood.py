"""More open alerts than a board shows: it says so, and whoever answers those that are shown comes to the others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.station import alerts
from agent.station.people.roles import Role, Scope, scope_of
from agent.station.web import board
from tests.fakes.database import Database
from tests.fakes.desk import Visitor, Ward, incident

WHOLE = Scope(whole_site=True)
SHOWN_MAX = 4
COUNTED_MAX = 10


@pytest.fixture
def ward(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ward]:
    """A board of four places."""
    monkeypatch.setattr(alerts, "SHOWN_MAX", SHOWN_MAX)
    for module in (alerts, board):
        monkeypatch.setattr(module, "COUNTED_MAX", COUNTED_MAX)
    made = Ward(tmp_path, database)
    made.person("lan", Role.OPERATOR, name="Lan")
    yield made
    made.close()


def hear(ward: Ward, *numbers: int, severity: str = "alert", node: str = "gate-2") -> None:
    for number in numbers:
        ward.clock.advance(1)
        ward.hear(number, severity=severity, node=node)


def on(visitor: Visitor) -> list[str]:
    return re.findall(r'<article id="alert-([0-9a-f-]+)"', visitor.page)


def said(visitor: Visitor) -> str:
    """What the page says of those it does not show."""
    found = re.search(r'<p id="more" [^>]*?(hidden)?>\s*<span>([^<]*)</span>', visitor.page)
    assert found is not None
    return "" if found[1] else found[2]


def ways(visitor: Visitor) -> list[str]:
    return re.findall(r'<a class="button"(?: rel="next")? href="(/\?skip=\d+|/)"', visitor.page)


def test_a_board_that_shows_all_says_nothing_of_more(ward: Ward) -> None:
    hear(ward, 1, 2, 3, 4)
    lan = ward.visitor("lan")
    lan.get("/")
    assert len(on(lan)) == 4 and said(lan) == "" and ways(lan) == []


def test_what_is_open_and_not_shown_is_counted_and_a_link_leads_there(ward: Ward) -> None:
    """Two bells and seven alerts: the bells are first, the rest follows, each once, on three pages."""
    hear(ward, 1, 2, 3, 4, 5, 6, 7)
    hear(ward, 8, 9, severity="bell")
    lan = ward.visitor("lan")
    lan.get("/")
    assert said(lan) == "9 alerts are open; 4 of them are shown."
    seen = on(lan)
    assert seen == [incident(n) for n in (9, 8, 7, 6)] and ways(lan) == ["/?skip=4"]
    lan.get("/?skip=4")
    assert on(lan) == [incident(n) for n in (5, 4, 3, 2)] and ways(lan) == ["/", "/?skip=8"]
    lan.get("/?skip=8")
    assert on(lan) == [incident(1)] and ways(lan) == ["/"]
    assert said(lan) == "9 alerts are open; 1 of them are shown."
    lan.get("/?skip=1")
    assert on(lan) == [incident(n) for n in (8, 7, 6, 5)], "one of two bells is passed by"


def test_who_answers_those_that_are_shown_comes_to_the_others(ward: Ward) -> None:
    """Without a script by loading the page again; a script asks for what the page would show, as data."""
    hear(ward, 1, 2, 3, 4, 5, 6)
    lan = ward.visitor("lan")
    lan.get("/")
    for one in on(lan):
        assert lan.post(f"/alerts/{one}/acknowledge", back="/").status_code == 303
    part = lan.get("/", **{"X-Wardpost-Part": "board"}).json()
    assert part["open"] == 2
    assert [one["incident"] for one in part["cards"] if one["open"]] == [incident(2), incident(1)]
    assert 'href="/alerts/' in part["cards"][0]["html"]
    lan.get("/")
    assert on(lan)[:2] == [incident(2), incident(1)] and said(lan) == ""


def test_a_flood_is_not_counted_through(ward: Ward) -> None:
    hear(ward, *range(1, COUNTED_MAX + 1))
    lan = ward.visitor("lan")
    lan.get("/")
    assert said(lan) == "10 alerts are open; 4 of them are shown."
    hear(ward, 90, 91, 92)
    lan.get("/")
    assert said(lan) == "More than 10 alerts are open; 4 of them are shown."
    assert ward.desk.alerts.open_count(WHOLE) == COUNTED_MAX + 1


def test_each_counts_what_he_may_see(ward: Ward) -> None:
    hear(ward, 1, 2, 3)
    hear(ward, 4, 5, severity="bell", node="gate-9")
    ward.desk.alerts.acknowledge(ward.desk.registry.find("lan"), incident(1))
    assert [ward.desk.alerts.open_count(one) for one in (WHOLE, scope_of(Role.SCHOOL, ("gate-9",)))] == [4, 2]
    assert ward.desk.alerts.open_count(scope_of(Role.SCHOOL, ("lane-1",))) == 0


@pytest.mark.parametrize("asked", ["-1", "x", "1e3", "99999999", "4.5", "٤"])
def test_what_is_no_number_of_alerts_is_refused(ward: Ward, asked: str) -> None:
    assert ward.visitor("lan").get(f"/?skip={asked}").status_code == 400
