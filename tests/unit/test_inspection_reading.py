"""What a report is made of, out of a real store: of whom it is, whole within its bounds, and what was cut is said."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from agent.station.db.board import alert
from agent.station.db.books import command
from agent.station.db.engine import writing
from agent.station.inspection import reading as inspection_reading
from agent.station.inspection.report import Cut
from agent.station.people.roles import Role, Scope
from agent.station.web.words import load
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import Visitor, Ward, incident
from tests.unit.test_station_plans import plans

DAY_NS = 86_400 * 10**9
SAID = {"alerts_cut": False, "requests_cut": False, "cases_cut": False, "views_cut": False, "posts_left_out": 0}


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ward]:
    with fresh(request.param, tmp_path) as database:
        made = Ward(tmp_path, database)
        for number, node in enumerate(("gate-1", "gate-2", "gate-9")):
            made.hear(number, node=node, severity="notice")
        made.person("everywhere", Role.SUPERVISOR)
        made.person("gate9", Role.SUPERVISOR, "gate-9")
        yield made
        made.close()


def raised(ward: Ward, node: str, count: int, *, days_ago: float, first: int) -> None:
    """Alerts that nobody has answered."""
    at = ward.clock.utc().utc_ns - round(days_ago * DAY_NS)
    row = {"node": node, "severity": "alert", "event": 1, "due_utc_ns": at + 10**9}
    with writing(ward.engine, "alerts are raised") as db:
        db.execute(
            insert(alert), [row | {"incident": incident(first + n), "raised_utc_ns": at + n} for n in range(count)]
        )


def asked(ward: Ward, node: str, verb: str, count: int, *, first: int = 0, **more: Any) -> None:
    """Commands for a node, in the order in which they were asked for."""
    now = ward.clock.utc().utc_ns
    row = {"node": node, "verb": verb, "payload": b"{}", "expires_utc_ns": now + DAY_NS, "state": "done"} | more
    with writing(ward.engine, "commands are queued") as db:
        db.execute(
            insert(command), [row | {"id": f"{first + n}", "asked_utc_ns": now + first + n} for n in range(count)]
        )


def period(ward: Ward) -> str:
    def field(utc_ns: int) -> str:
        return dt.datetime.fromtimestamp(utc_ns // 10**9, dt.UTC).strftime("%Y-%m-%dT%H:%M")

    now = ward.clock.utc().utc_ns
    return f"from={field(now - 7 * DAY_NS)}&to={field(now + DAY_NS)}"


def told(ward: Ward, who: Visitor) -> dict[str, Any]:
    found: dict[str, Any] = who.get(f"/inspection/report.json?{period(ward)}").json()
    return found


def left_out(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in SAID}


def test_a_flood_of_alerts_elsewhere_takes_none_from_the_report_of_a_post(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten at gate-9 that nobody has answered, behind more than a report reads at another post."""
    monkeypatch.setattr(inspection_reading, "ALERTS_MAX", 20)
    raised(ward, "gate-1", 30, days_ago=2, first=100)
    raised(ward, "gate-9", 10, days_ago=1, first=200)
    report = told(ward, ward.visitor("gate9"))
    assert (report["figures"]["in_time"]["part"], report["figures"]["in_time"]["of"]) == (0, 10)
    assert [one["alerts"] for one in report["posts"]] == [10]
    assert left_out(report) == SAID


def test_alerts_that_were_too_many_are_said(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection_reading, "ALERTS_MAX", 20)
    raised(ward, "gate-1", 20, days_ago=2, first=100)
    everywhere = ward.visitor("everywhere")
    assert left_out(told(ward, everywhere)) == SAID, "as many as are read"
    raised(ward, "gate-1", 1, days_ago=1, first=200)
    assert left_out(told(ward, everywhere)) == SAID | {"alerts_cut": True}
    said = load()["en"]("report.cut.alerts")
    assert said in everywhere.get(f"/inspection/report?{period(ward)}").text
    sheet = everywhere.get(f"/inspection/report.csv?{period(ward)}").text.lstrip("\ufeff")
    assert ["incomplete", "", "", "", said] in list(csv.reader(io.StringIO(sheet)))


def test_a_request_counts_whatever_else_was_asked_of_its_post_afterwards(ward: Ward) -> None:
    asked(ward, "gate-9", "send", 1, state="expired")
    asked(ward, "gate-9", "hold", 1500, first=1)
    for login in ("gate9", "everywhere"):
        report = told(ward, ward.visitor(login))
        assert (report["figures"]["met"]["part"], report["figures"]["met"]["of"]) == (0, 1), login
        assert left_out(report) == SAID


def test_requests_that_were_too_many_or_are_no_longer_kept_are_said(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = ward.visitor("everywhere")
    asked(ward, "gate-9", "send", 6)
    monkeypatch.setattr(inspection_reading, "REQUESTS_MAX", 5)
    assert left_out(told(ward, everywhere)) == SAID | {"requests_cut": True}
    monkeypatch.setattr(inspection_reading, "REQUESTS_MAX", 6)
    assert left_out(told(ward, everywhere)) == SAID
    monkeypatch.setattr(inspection_reading, "KEPT_MAX", 5)  # the queue has forgotten what was over before
    assert left_out(told(ward, everywhere)) == SAID | {"requests_cut": True}


def test_posts_that_have_no_place_in_the_report_are_counted_on_it_and_their_requests_too(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection_reading, "POSTS_MAX", 2)
    asked(ward, "gate-9", "send", 1)
    everywhere = ward.visitor("everywhere")
    report = told(ward, everywhere)
    assert [one["post"] for one in report["posts"]] == ["gate-1", "gate-2"]
    assert left_out(report) == SAID | {"posts_left_out": 1}
    assert report["figures"]["met"]["of"] == 1
    said = load()["en"]("report.cut.posts", shown=2, of=3)
    assert said in everywhere.get(f"/inspection/report?{period(ward)}").text
    assert left_out(told(ward, ward.visitor("gate9"))) == SAID


def test_cases_that_were_not_looked_at_are_said(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case of gate-9 alone, then two of gate-1: of gate-9's supervisor only the first concerns him."""
    monkeypatch.setattr(inspection_reading, "CASES_MAX", 1)
    with writing(ward.engine, "cases are opened") as db:
        for n, node in ((1, "gate-9"), (2, "gate-1"), (3, "gate-1")):
            db.exec_driver_sql(
                "insert into case_head (n, number, reason, place, from_utc_ns, to_utc_ns)"
                f" values ({n}, 'c', 'r', 'p', 1, 2)"
            )
            db.exec_driver_sql(f"insert into case_post (case_n, node) values ({n}, '{node}')")
            db.exec_driver_sql(
                "insert into case_act (case_n, number, utc_ns, login, act, trail_seq)"
                f" values ({n}, 1, 10, 'mai', 'opened', 1)"
            )
    reader = inspection_reading.InspectionReader(ward.engine)
    mine, cut = reader.cases(Scope(whole_site=False, posts=frozenset({"gate-9"})))
    assert [(one.posts, one.since_utc_ns, one.until_utc_ns) for one in mine] == [(frozenset({"gate-9"}), 10, None)]
    assert not cut
    newest, cut = reader.cases(Scope(whole_site=True))
    assert [one.posts for one in newest] == [frozenset({"gate-1"})]
    assert cut
    assert left_out(told(ward, ward.visitor("everywhere"))) == SAID | {"cases_cut": True}
    assert left_out(told(ward, ward.visitor("gate9"))) == SAID


def test_whatever_may_be_left_out_has_its_words() -> None:
    for words in load().values():
        assert {f"report.cut.{one.name}" for one in fields(Cut)} <= words.keys()


def test_alerts_and_requests_of_some_posts_are_found_without_those_of_others(tmp_path: Path) -> None:
    with fresh("sqlite", tmp_path) as database:
        ward = Ward(tmp_path, database)
        reader = inspection_reading.InspectionReader(ward.engine)
        now = ward.clock.utc().utc_ns
        with plans(ward.engine) as found:
            reader.alerts(Scope(whole_site=False, posts=frozenset({"gate-1", "gate-9"})), now - DAY_NS, now)
            reader.requests(Scope(whole_site=False, posts=frozenset({"gate-1", "gate-9"})), now - DAY_NS, now)
        assert any(line.startswith("SEARCH alert USING INDEX alert_of_raised (node=? AND raised") for line in found), (
            found
        )
        assert any(line.startswith("SEARCH command USING INDEX command_node (node=?") for line in found), found
        assert not any(line.startswith("SCAN") for line in found), found
        ward.close()
