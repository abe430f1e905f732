"""The page of footage: who may see what, and nothing leaves the archive before it is on record who sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from agent import wire
from agent.clock import rfc3339
from agent.station.orders import OrderBook
from agent.station.people.roles import Role
from agent.station.web.footage import LABELS
from agent.station.web.pages import Pages
from agent.station.web.words import load
from agent.types import NS
from tests.fakes.database import KINDS, fresh
from tests.fakes.evidence_post import UTC_0, EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.packets import encoded, shifted
from tests.fakes.recording_post import closed_posts  # noqa: F401

RANGE = "from=2023-11-14T22:13:20&to=2023-11-14T22:15:00"
MEDIA = f"/footage/{POST}/list.m3u8?{RANGE}"


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = FootageWard(folder, database)
        for role in Role:
            made.person(role.value, role, *([POST] if role in (Role.SCHOOL, Role.HOUSEHOLD) else []))
        made.person("other-school", Role.SCHOOL, "gate-9")
        yield made
        made.footage.engine.dispose()
        made.close()


@pytest.fixture
def post(tmp_path: Path, ward: FootageWard) -> EvidencePost:
    """Four seconds, a minute without a camera, four seconds more; of it, the first half is here."""
    made = EvidencePost(tmp_path / "post")
    made.feed(encoded(seconds=4))
    made.post.recorder.lost(made.post.clock.boot_ns(), "unplugged")
    made.feed(shifted(encoded(seconds=4), 64 * NS))
    made.seal()
    ward.footage.knows()
    ward.footage.knows("gate-9", "Other gate")
    ward.footage.hear(made)
    for name in list(made.post.disk.list("segments"))[:2]:
        ward.footage.take(made, name)
    return made


moment = Pages(time_zone="UTC").moment


def views(ward: FootageWard) -> list[dict[str, object]]:
    return [line for line in ward.trail() if line["kind"] == "viewed"]


def test_what_there_is_is_shown_and_what_is_missing_is_asked_for(ward: FootageWard, post: EvidencePost) -> None:
    operator = ward.visitor("operator")
    page = operator.get(f"/footage?post.{POST}=on&{RANGE}")
    assert page.status_code == 200
    assert "School gate" in page.text
    assert "Here: 0:00:04" in page.text
    assert "still at the post: 0:00:04" in page.text
    assert "Camera fault: 0:01:00" in page.text
    assert "unplugged" in page.text
    assert views(ward) == [], "what is missing is no picture of anybody"

    answer = operator.post(f"/footage/{POST}/request", **_range(), reason="a stolen bicycle")
    assert answer.status_code == 303
    page = operator.get(answer.headers["location"])
    assert "a stolen bicycle" in page.text
    assert "Queued" in page.text
    assert 'data-busy="yes"' in page.text
    book = OrderBook(ward.engine)
    book.open()
    (order,) = book.of(POST)
    book.close()
    command = wire.decode(order.payload, wire.Command)
    assert (command.verb, command.args["from"], command.args["to"]) == (
        "send",
        "2023-11-14T22:13:20.000Z",
        "2023-11-14T22:15:00.000Z",
    )
    assert command.args["reason"] == "Operator: a stolen bicycle"
    line = ward.trail()[-1]
    assert (line["kind"], line["who"], line["post"], line["order"]) == (
        "footage-requested",
        "operator",
        POST,
        order.id,
    )

    # The post has sent one file, and says how many are left.
    book.open()
    progress = {"summary": "1 files are at headquarters", "left": 1, "pending": True}
    book.answered(POST, wire.Reply(id=order.id, state="accepted", result=progress))
    book.close()
    part = operator.get(re.search(r'data-part="([^"]+)"', page.text)[1].replace("&amp;", "&"))  # type: ignore[index]
    assert "<progress" in part.text
    assert "1 files are at headquarters" in part.text


def _range() -> dict[str, Any]:
    return dict(pair.split("=") for pair in RANGE.split("&"))


def test_who_sees_footage_is_on_record_once_and_before_the_first_byte(ward: FootageWard, post: EvidencePost) -> None:
    operator = ward.visitor("operator")
    media = operator.get(MEDIA)
    assert media.headers["content-type"] == "application/vnd.apple.mpegurl"
    addresses = list(dict.fromkeys(re.findall(r"^/footage/.*$", media.text, re.MULTILINE)))
    assert len(addresses) == 2
    (line,) = views(ward)
    assert (line["who"], line["what"]) == ("operator", "footage")
    assert len(line["posts"][POST]) == 2  # type: ignore[index]
    for address in addresses * 2:
        got = operator.get(address, range="bytes=0-99")
        assert (got.status_code, len(got.content)) == (206, 100)
        assert got.headers["content-range"].startswith("bytes 0-99/")
    operator.get(MEDIA)
    assert len(views(ward)) == 1, "once for each session and file"
    ward.visitor("operator").get(MEDIA)
    assert len(views(ward)) == 2, "another session is another line"

    # A file that nobody has listed is on record by itself; and who keeps the whole of it, too.
    auditor = ward.visitor("auditor")
    whole = auditor.get(addresses[0])
    assert [line["what"] for line in views(ward)[2:]] == ["footage", "original"]
    assert whole.status_code == 200
    assert 'attachment; filename="cam-1_' in whole.headers["content-disposition"]
    name = next(iter(post.disk.list("segments")))
    with post.disk.open(name) as file:
        assert whole.content == file.read()


def test_every_role_gets_what_is_its_own(ward: FootageWard, post: EvidencePost) -> None:
    number = re.search(r"files/(\d+)\.mp4", ward.visitor("operator").get(MEDIA).text)[1]  # type: ignore[index]
    paths = ["/footage", f"/footage/{POST}/part?{RANGE}", MEDIA, f"/footage/{POST}/files/{number}.mp4"]
    for login in ("operator", "supervisor", "auditor", "school"):
        visitor = ward.visitor(login)
        assert [visitor.get(path).status_code for path in paths] == [200] * 4, login
    for login in ("technician", "admin"):
        visitor = ward.visitor(login)
        assert [visitor.get(path).status_code for path in paths] == [403] * 4, login
    assert [ward.visitor().get(path, accept="*/*").status_code for path in paths] == [401] * 4

    # Another school sees neither the post nor, by its own post's address, the post's files.
    other = ward.visitor("other-school")
    page = other.get(f"/footage?post.{POST}=on&{RANGE}")
    assert POST not in page.text.replace(f"post.{POST}", "")
    assert [other.get(path).status_code for path in paths[1:]] == [404] * 3
    assert other.get(f"/footage/gate-9/files/{number}.mp4").status_code == 404
    other.get("/footage")  # the form's token
    assert other.post(f"/footage/{POST}/request", **_range(), reason="x").status_code == 404
    auditor = ward.visitor("auditor")
    page = auditor.get(f"/footage?post.{POST}=on&{RANGE}")
    assert "/request" not in page.text
    assert auditor.post(f"/footage/{POST}/request", **_range(), reason="x").status_code == 403
    assert "footage-requested" not in ward.kinds()


ELSEWHERE = (
    f"/footage/{POST}/files/..%2f..%2fstation.db",
    f"/footage/{POST}/files/%2e%2e/1.mp4",
    f"/footage/{POST}/files/999999.mp4",
    f"/footage/{POST}/files/99999999999999999999.mp4",
    f"/footage/{POST}/files/1.mp4/../../x",
    f"/footage/../{POST}/files/1.mp4",
    "/footage/%2e%2e/files/1.mp4",
    f"/footage/{POST}/files/-1.mp4",
    "/footage?alert=" + "x" * 36,
)
NO_RANGES = (
    "from=2023-11-14T22:13:20&to=2023-11-14T22:13:20",
    "from=2023-11-14T22:13:20&to=2023-11-16T22:13:20",
    "from=yesterday&to=2023-11-14T22:13:20",
    "from=2023-11-14T22:13:20",
    "from=0000-11-14T22:13:20&to=9999-11-14T22:13:20",
    "from=2023-13-14T22:13&to=2023-11-14T22:13:20",
    "",
)


def test_no_path_leads_anywhere_else_and_a_range_that_is_none_is_refused(ward: FootageWard, post: EvidencePost) -> None:
    operator = ward.visitor("operator")
    assert {path: operator.get(path).status_code for path in ELSEWHERE} == dict.fromkeys(ELSEWHERE, 404)
    asked = {query: operator.get(f"/footage/{POST}/list.m3u8?{query}").status_code for query in NO_RANGES}
    assert asked == dict.fromkeys(NO_RANGES, 400)
    assert views(ward) == []


SAYS = {
    "from=2023-11-14T22:13:20&to=2023-11-14T22:13:20": "The time must end after it begins, and within 24 hours.",
    "from=2023-11-14T22:13:20&to=2023-11-16T22:13:20": "The time must end after it begins, and within 24 hours.",
    "from=2300-01-01T00:00&to=2300-01-01T01:00": "Give a time from and a time to. Years go from 2000 to 2199.",
    "from=2023-11-14T22:13:20&to=": "Give a time from and a time to. Years go from 2000 to 2199.",
    "from=%3Cb%3E&to=x": "Give a time from and a time to. Years go from 2000 to 2199.",
}


@pytest.mark.parametrize("query", SAYS)
def test_a_range_that_is_none_brings_the_form_back_as_it_was_filled_in(ward: FootageWard, query: str) -> None:
    ward.footage.knows()
    ward.footage.knows("gate-9", "Other gate")
    operator = ward.visitor("operator")
    typed: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    page = operator.get(f"/footage?post.{POST}=on&{query}")
    asked = operator.post(f"/footage/{POST}/request", **typed, reason="x")
    for answer in (page, asked):
        assert answer.status_code == 400 and SAYS[query] in answer.text
        assert re.findall(r'name="(?:from|to)" value="([^"]*)" required', answer.text) == [
            escape(one) for one in typed.values()
        ]
        assert f'name="post.{POST}" checked' in answer.text and 'name="post.gate-9" checked' not in answer.text
        assert '<section class="post"' not in answer.text
    assert "footage-requested" not in ward.kinds()

    # Without a reason nobody is asked; what was chosen stays on the page.
    answer = operator.post(f"/footage/{POST}/request", **_range(), reason=" ")
    assert answer.status_code == 400 and "2023-11-14T22:13:20" in answer.text and '<section class="post"' in answer.text


def test_ranges_behind_the_end_and_a_file_that_is_away(ward: FootageWard, post: EvidencePost) -> None:
    operator = ward.visitor("operator")
    address = re.findall(r"^/footage/.*$", operator.get(MEDIA).text, re.MULTILINE)[0]
    got = operator.get(address, range="bytes=99999999-")
    assert got.status_code == 416
    assert got.headers["content-range"].startswith("bytes */")
    for file in (ward.folder / "archive").rglob("*.mp4"):
        file.unlink()
    assert operator.get(address, range="bytes=0-9").status_code == 503, "a state, not a broken connection"


def test_around_an_alert(ward: FootageWard, post: EvidencePost) -> None:
    """A link that the alert's page has: half an hour around the time that the post told."""
    name = ward.hear(7, node=POST, time="2023-11-14T22:13:21.000Z", historical=True)
    page = ward.visitor("operator").get(f"/footage?alert={name}")
    assert 'value="2023-11-14T21:58:21"' in page.text
    assert 'value="2023-11-14T22:28:21"' in page.text
    assert "Around the alert of 14.11.2023 22:13:21" in page.text
    assert "checked" in page.text
    assert ward.visitor("other-school").get(f"/footage?alert={name}").status_code == 404


@pytest.mark.parametrize(
    "told",
    [
        {"time": "1970-01-01T00:05:00.000Z", "timeerrms": None},
        {"time": "2026-11-22T03:46:39.000Z", "timeerrms": None},
        {"time": "2026-11-22T03:46:39.000Z", "timeerrms": 3000},  # told at once, and three quarters of an hour off
    ],
)
def test_around_an_alert_of_a_post_whose_clock_cannot_be_gone_by(ward: FootageWard, told: dict[str, Any]) -> None:
    """By the time of arrival, as the search and the bells do, and that is said."""
    ward.footage.knows()
    arrived = moment(ward.clock.utc().utc_ns)
    name = ward.hear(7, node=POST, **told)
    page = ward.visitor("operator").get(f"/footage?alert={name}").text
    assert f"Around the alert of {arrived}" in page
    assert "This is when the alert arrived" in page

    # The post goes on telling of it; its clock is set by now, and that it ended is told at once.
    ward.clock.advance(1200)
    now = moment(ward.clock.utc().utc_ns)
    ward.hear(7, node=POST, time=rfc3339(ward.clock.utc().utc_ns), timeerrms=5, phase="ended")
    page = ward.visitor("operator").get(f"/footage?alert={name}").text
    assert f"Around the alert of {now}" in page
    assert "This is when the alert arrived" not in page


def test_a_day_is_looked_at_and_two_hours_are_played(ward: FootageWard, post: EvidencePost) -> None:
    operator = ward.visitor("operator")
    day = "from=2023-11-14T12:00:00&to=2023-11-15T12:00:00"
    page = operator.get(f"/footage?post.{POST}=on&{day}")
    assert "Here: 0:00:04" in page.text
    assert "Choose two hours or less to play it." in page.text
    assert 'class="start' not in page.text
    assert operator.get(f"/footage/{POST}/list.m3u8?{day}").status_code == 404
    assert views(ward) == []


def test_the_routes_above_are_all_there_are(ward: FootageWard) -> None:
    found = {one.path: one.may for one in ward.desk.routes if one.path.startswith("/footage")}
    seeing = {Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.SCHOOL}
    post = "/footage/{post}"
    assert found == {
        "/footage": seeing,
        f"{post}/part": seeing,
        f"{post}/list.m3u8": seeing,
        f"{post}/files/{{footage}}": seeing,
        f"{post}/request": seeing - {Role.AUDITOR},
        f"{post}/hold": seeing - {Role.AUDITOR},
    }


def test_media_time_is_told_for_each_stretch(ward: FootageWard, post: EvidencePost) -> None:
    for name in list(post.post.disk.list("segments"))[2:]:
        ward.footage.take(post, name)
    page = ward.visitor("operator").get(f"/footage?post.{POST}=on&{RANGE}")
    parts = json.loads(re.search(r'data-parts="([^"]+)"', page.text)[1])  # type: ignore[index]
    assert [(utc - UTC_0 // 10**6, seconds, at) for utc, seconds, at in parts] == [
        (0, 2.0, 0.0),
        (2000, 2.0, 2.0),
        (64000, 2.0, 4.0),
        (66000, 2.0, 6.0),
    ]
    assert "still at the post" not in page.text


def test_every_label_has_its_words() -> None:
    for words in load().values():
        assert all(words(f"coverage.{label}") for label in LABELS)
