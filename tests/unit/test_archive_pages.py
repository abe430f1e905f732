"""The pages of the archive and of what retention removed, by HTTP on the real desk: who may, what is said, on record."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.station import archive_retention_rows as rows
from agent.station.archive_retention import Policy
from agent.station.archive_retention_making import make_retention
from agent.station.db.engine import reading
from agent.station.people.roles import Role
from agent.types import NS
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import Visitor
from tests.fakes.evidence_post import NODE, EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.fakes.retention_desk import EVERYWHERE, recorded

POLICY = Policy(days=30, bytes_max=1_000_000_000)
RANGE: dict[str, Any] = {"from": "2023-11-14T22:13:10", "to": "2023-11-14T22:15:00"}
ASK: dict[str, Any] = {"post": POST, "reason": "a child, by its parents' wish", "authority": "decision 12", **RANGE}
FOOTAGE = f"/footage?post.{POST}=on&from={RANGE['from']}&to={RANGE['to']}"
XSS = "<script>alert(1)</script>"
READ = {Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN}
MAY: dict[tuple[str, str], set[Role]] = {  # the routes of the archive once more, by hand
    ("GET", "/archive"): READ,
    ("POST", "/archive/removals"): READ - {Role.AUDITOR},
    ("GET", "/archive/removals/{removal}"): READ,
    ("POST", "/archive/removals/{removal}/confirm"): {Role.SUPERVISOR, Role.ADMIN},
    ("POST", "/archive/removals/{removal}/refuse"): {Role.SUPERVISOR, Role.ADMIN},
}


class ArchiveWard(FootageWard):
    """... that keeps footage for thirty days."""

    site = NODE.partition("/")[0]

    def start(self) -> Any:
        super().start()
        self.desk = self.desk_with(retention=POLICY)
        return self.desk

    def work(self) -> None:
        """What the worker does, until there is nothing left."""
        desk = make_retention(
            engine=self.engine, trail=self.desk.trail, archive=self.footage.archive, clock=self.clock, policy=POLICY
        )
        while desk.remove_due() or desk.sweep():
            pass


@pytest.fixture(scope="module")
def post(tmp_path_factory: pytest.TempPathFactory) -> EvidencePost:
    return recorded(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path, post: EvidencePost) -> Iterator[ArchiveWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = ArchiveWard(folder, database)
        made.footage.knows()
        made.footage.knows("gate-9", "Other gate")
        made.footage.hear(post)
        made.footage.take_all(post)
        yield made
        made.footage.engine.dispose()
        made.close()


def visitor(ward: ArchiveWard, role: Role, *posts: str, login: str = "") -> Visitor:
    name = login or role.value
    ward.person(name, role, *(posts or ([POST] if role.value in ("school", "household") else [])))
    return ward.visitor(name)


def asked(who: Visitor, **more: Any) -> str:
    who.get("/archive")
    answer = who.post("/archive/removals", **(ASK | more))
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"])


def test_every_role_gets_what_the_table_says(ward: ArchiveWard) -> None:
    routes = {(one.method, one.path) for one in ward.desk.routes if one.path.startswith("/archive")}
    assert routes == set(MAY)
    where = asked(visitor(ward, Role.OPERATOR, login="asker"))
    for role in Role:
        who = visitor(ward, role)
        for (method, path), may in MAY.items():
            real = path.replace("/archive/removals/{removal}", where)
            who.get("/account")
            answer = who.get(real) if method == "GET" else who.post(real, **(ASK | {"reason": ""}))
            allowed = answer.status_code in (200, 303, 400, 409)
            assert allowed if role in may else answer.status_code == 403, f"{role} {method} {path}"


@pytest.mark.parametrize("language", ["en", "vi"])
def test_the_page_tells_what_goes_and_what_stays(ward: ArchiveWard, language: str) -> None:
    who = visitor(ward, Role.SUPERVISOR)
    who.get("/archive")
    who.post("/language", language=language, back="/archive")
    page = who.get("/archive").text
    assert ("30 days after it came" if language == "en" else "30 ngày") in page
    assert "1.0 GB" in page and "<td>cam-1</td>" in page, (
        "the station's clock is years ahead of the footage: all is due"
    )
    assert "archive." not in re.sub(r"archive\.(trust_clock|css)", "", page), "a text without words"


def test_what_was_removed_is_told_where_the_footage_was(ward: ArchiveWard) -> None:
    who = visitor(ward, Role.OPERATOR)
    page = who.get(FOOTAGE).text
    assert "kept until" in page and "the first goes on" in page and "Removed from the archive" not in page
    ward.work()
    page = who.get(FOOTAGE).text
    assert "Removed from the archive (2)" in page and "by retention of 30 days" in page
    assert page.count("SHA-256") == 2 and "list.m3u8" in page
    with reading(ward.engine) as db:
        stone = rows.removed_at(db, EVERYWHERE)[0]
    assert stone.sha256 in page
    answer = who.get(f"/footage/{POST}/files/1.mp4")
    assert answer.status_code == 404, "an address of before leads nowhere"


def test_a_removal_before_its_time_needs_a_second_person(ward: ArchiveWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    first, second = visitor(ward, Role.SUPERVISOR), visitor(ward, Role.SUPERVISOR, login="second")
    where = asked(first)
    page = first.get(where).text
    assert "Files that go: 2" in page and "/confirm" not in page and "cannot confirm it" in page
    assert first.post(f"{where}/confirm").status_code == 403
    operator.get(where)
    assert operator.post(f"{where}/confirm").status_code == 403
    second.get(where)
    assert second.post(f"{where}/refuse", reason="").status_code == 400
    assert second.post(f"{where}/confirm").status_code == 303
    page = second.get(where).text
    assert "2 files removed, 0 kept" in page and "Second" in page
    assert second.post(f"{where}/confirm").status_code == 409, "once"
    page = operator.get(FOOTAGE).text
    assert "asked by Supervisor, confirmed by Second" in page and "decision 12" in page
    assert [kind for kind in ward.kinds() if "remov" in kind] == [
        "removal-asked",
        "footage-removed",
        "removal-answered",
    ]


def test_what_is_said_is_escaped_and_what_is_wrong_is_told(ward: ArchiveWard) -> None:
    who = visitor(ward, Role.OPERATOR)
    assert XSS not in who.get(asked(who, reason=XSS, authority=XSS)).text
    for wrong in (
        {"post": "gate-99"}, {"post": "../x"}, {"reason": ""}, {"authority": ""}, {"from": "never"},
        {"to": RANGE["from"]}, {"post": "gate-9"}, {"to": "2024-11-14T22:15:00"},
    ):  # fmt: skip
        who.get("/archive")
        answer = who.post("/archive/removals", **(ASK | wrong))
        assert answer.status_code == 400 and 'role="alert"' in answer.text, wrong
    for path in ("/archive/removals/999999", "/archive/removals/0", "/archive/removals/x"):
        assert who.get(path).status_code == 404


def test_another_post_s_removals_do_not_exist(ward: ArchiveWard) -> None:
    where = asked(visitor(ward, Role.OPERATOR))
    other = visitor(ward, Role.SUPERVISOR, "gate-9", login="other")
    page = other.get("/archive").text
    assert POST not in page
    assert other.get(where).status_code == 404
    other.get("/archive")
    assert other.post(f"{where}/confirm").status_code == 404
    ward.work()
    assert POST not in other.get("/archive").text


def test_a_full_archive_is_told_on_both_pages(ward: ArchiveWard) -> None:
    who = visitor(ward, Role.OPERATOR)
    rows.waits(ward.engine, f"archive: 5.0 GB are free {XSS}", ward.clock.utc().utc_ns)
    page = who.get("/archive").text
    assert "takes no footage since" in page and "5.0 GB are free" in page and XSS not in page
    assert "takes no footage since" in who.get(FOOTAGE).text
    rows.takes(ward.engine)
    assert "takes no footage since" not in who.get("/archive").text + who.get(FOOTAGE).text


def test_the_report_counts_it(ward: ArchiveWard) -> None:
    who = visitor(ward, Role.AUDITOR)
    ward.work()
    now = ward.clock.utc().utc_ns
    period = {name: _field(at) for name, at in (("from", now - 86_400 * NS), ("to", now + 60 * NS))}
    query = "&".join(f"{name}={value}" for name, value in period.items())
    told = who.get(f"/inspection/report.json?{query}").json()["removed"]
    assert told["age"]["files"] == 2 and told["age"]["bytes"] > 0 and told["early"] == {"files": 0, "bytes": 0}
    table = list(csv.reader(io.StringIO(who.get(f"/inspection/report.csv?{query}").text)))
    assert ["age", "2", str(told["age"]["bytes"])] in table
    assert "Removed from the archive" in who.get(f"/inspection/report?{query}").text


def _field(utc_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(utc_ns // NS, dt.UTC):%Y-%m-%dT%H:%M:%S}"
