"""Inspection as people use it, by HTTP on the real desk: what was drawn is one click away, and seeing it is on record."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from agent.station.db.engine import writing
from agent.station.inspection import views as views_module
from agent.station.inspection.sample import Candidate
from agent.station.live.settings import LiveSettings
from agent.station.people.roles import Role
from agent.station.web.words import load
from tests.fakes.database import KINDS
from tests.fakes.desk import Visitor, incident
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_case_pages import CaseWard, film, headquarters, opened, visitor
from tests.unit.test_live_pages import begin


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    with headquarters(request.param, tmp_path) as made:
        yield made


def drawn(ward: FootageWard, tmp_path: Path) -> tuple[Visitor, Candidate]:
    """An auditor who has drawn, and a file that was hit: four seconds of the post."""
    film(ward, tmp_path)
    with writing(ward.engine, "it came just now") as db:
        db.execute(text("update footage set received_utc_ns = :now"), {"now": ward.clock.utc().utc_ns})
    auditor = visitor(ward, Role.AUDITOR)
    auditor.get("/inspection")
    assert auditor.post("/inspection/draw").status_code == 303
    ((node, ref),) = ward.database.rows("select node, sha256 from footage order by n limit 1")
    return auditor, Candidate(node, ref, 1.0, "")


def links(page: str, begins: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'href="([^"]+)"', page) if one.startswith(begins)]


def seen(ward: FootageWard) -> list[tuple[str, str, list[str]]]:
    """Who was shown which files, by the audit log."""
    told = [line for line in ward.trail() if line["kind"] == "viewed" and line["what"] in ("footage", "original")]
    return [(line["who"], line["what"], files) for line in told for files in line["posts"].values()]


def test_what_was_drawn_is_played_from_its_link_and_that_is_on_record(ward: FootageWard, tmp_path: Path) -> None:
    auditor, file = drawn(ward, tmp_path)
    page = auditor.get("/inspection").text
    assert sorted(links(page, "/posts/")) == [f"/posts/{node}" for node in sorted((POST, "gate-9"))]
    assert auditor.get(f"/posts/{POST}").status_code == 200
    ranges = links(page, "/footage?")
    assert len(ranges) == len(set(ranges)) == page.count("SHA-256")
    assert not seen(ward), "a list of what is to be looked at shows nothing yet"
    shown = auditor.get(ranges[0])
    assert shown.status_code == 200
    (playlist,) = re.findall(r'data-list="([^"]+)"', shown.text)
    assert auditor.get(html.unescape(playlist)).status_code == 200
    ((who, what, files),) = seen(ward)
    assert (who, what) == ("auditor", "footage") and file.ref in files
    (mine,) = [
        one for one, ref in zip(links(page, f"/footage/{POST}/files/"), refs(page), strict=True) if ref == file.ref
    ]
    taken = auditor.get(mine)
    assert taken.status_code == 200
    assert ("auditor", "original", [file.ref]) in seen(ward)


def refs(page: str) -> list[str]:
    return re.findall(r"SHA-256 ([0-9a-f]{64})", page)


def test_a_file_that_has_left_the_archive_has_no_link_and_is_said_to_be_gone(ward: FootageWard, tmp_path: Path) -> None:
    auditor, file = drawn(ward, tmp_path)
    with writing(ward.engine, "its time is over") as db:
        db.execute(text("delete from footage where sha256 = :ref"), {"ref": file.ref})
    page = auditor.get("/inspection").text
    assert file.ref in page
    assert len(links(page, "/footage?")) == page.count("SHA-256") - 1
    assert page.count("No longer in the archive") == 1


def test_who_is_shown_no_footage_is_given_no_link_to_any(ward: FootageWard, tmp_path: Path) -> None:
    """An administrator reads what was drawn; a supervisor of another post sees nothing of this one."""
    _, file = drawn(ward, tmp_path)
    admin = visitor(ward, Role.ADMIN)
    page = admin.get("/inspection").text
    assert file.ref in page
    assert not links(page, "/footage") and "No longer in the archive" not in page
    assert admin.get("/footage").status_code == 403
    elsewhere = visitor(ward, Role.SUPERVISOR, "gate-9")
    page = elsewhere.get("/inspection").text
    assert not links(page, "/footage?") and links(page, "/posts/gate") == ["/posts/gate-9"]


# -- the report: who saw what without a case --------------------------------------------------------------------------


class WatchingWard(CaseWard):
    """... whose posts can be watched live."""

    def start(self) -> Any:
        super().start()
        numbers = iter(range(1, 10_000))
        self.desk = self.desk_with(watch=self.live_desk(LiveSettings(), lambda: incident(next(numbers))))
        return self.desk


@pytest.fixture(params=KINDS)
def watching(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    with headquarters(request.param, tmp_path, of=WatchingWard) as made:
        yield made


TODAY = "from=2026-11-22T00:00:00&to=2026-11-23T00:00:00"
FOOTAGE = f"/footage/{POST}/list.m3u8?from=2023-11-14T22:13:10&to=2023-11-14T22:15:00"


def watch(who: Visitor, post: str, case: str) -> None:
    who.get(f"/live/{post}")
    assert begin(who, post, mode="stills", offer="", case=case)[1].status_code == 200


def shares(told: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: (one["part"], one["of"]) for name, one in told["figures"].items() if name.startswith("caseless")}


def test_live_views_without_a_case_count_beside_footage_apart_and_together(
    watching: FootageWard, tmp_path: Path
) -> None:
    """An operator plays two files and looks on live twice, once for a case; then there is a case, and he plays again."""
    ward = watching
    film(ward, tmp_path)
    operator, auditor = visitor(ward, Role.OPERATOR), visitor(ward, Role.AUDITOR)
    operator.get(FOOTAGE)
    watch(operator, POST, "")
    watch(operator, "gate-9", "12/2026")
    ward.clock.advance(60)
    opened(operator)
    again = ward.visitor("operator")
    again.get(FOOTAGE)
    ward.clock.advance(60)
    told = auditor.send("GET", f"/inspection/report.json?{TODAY}").json()
    assert shares(told) == {"caseless_footage": (2, 4), "caseless_live": (1, 2), "caseless": (3, 6)}
    assert told["views_without_case_by"] == {"operator": 3}
    assert told["live_views_without_case_by"] == {"operator": 1}
    page = auditor.get(f"/inspection/report?{TODAY}").text
    assert "operator: 3 (1)" in page
    for name in ("caseless", "caseless_footage", "caseless_live"):
        assert load()["en"](f"report.what.{name}") in page
    sheet = auditor.get(f"/inspection/report.csv?{TODAY}").text.lstrip("\ufeff")
    rows = list(csv.reader(io.StringIO(sheet)))
    assert ["caseless by", "3", "", "", "operator"] in rows and ["caseless live by", "1", "", "", "operator"] in rows
    nobody = auditor.send("GET", "/inspection/report.json?from=2026-11-20T00:00:00&to=2026-11-21T00:00:00").json()
    assert shares(nobody) == dict.fromkeys(shares(told), (0, 0)), "of another day"
    elsewhere = visitor(ward, Role.SUPERVISOR, "gate-9")
    told = elsewhere.send("GET", f"/inspection/report.json?{TODAY}").json()
    assert shares(told) == {"caseless_footage": (0, 0), "caseless_live": (0, 1), "caseless": (0, 1)}


def test_a_period_long_ago_is_counted_whole_however_long_the_log_has_become_since(
    watching: FootageWard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is logged behind a day than one report reads; the day itself is within the bound, then it is not."""
    monkeypatch.setattr(views_module, "TRAIL_LINES_MAX", 40)
    monkeypatch.setattr(views_module, "READ_ROWS", 4)
    ward = watching
    film(ward, tmp_path)
    operator, auditor = visitor(ward, Role.OPERATOR), visitor(ward, Role.AUDITOR)
    operator.get(FOOTAGE)
    watch(operator, POST, "")
    ward.clock.advance(2 * 86_400)
    for n in range(90):
        ward.desk.trail.note("noise", "", n=n)
        ward.clock.advance(60)
    auditor = ward.visitor("auditor")
    told = auditor.send("GET", f"/inspection/report.json?{TODAY}").json()
    assert shares(told) == {"caseless_footage": (2, 2), "caseless_live": (1, 1), "caseless": (3, 3)}
    assert told["views_cut"] is False
    busy = "from=2026-11-22T00:00:00&to=2026-11-28T00:00:00"
    told = auditor.send("GET", f"/inspection/report.json?{busy}").json()
    assert told["views_cut"] is True, "what was not read is said"
