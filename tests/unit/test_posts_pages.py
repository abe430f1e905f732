"""The posts' pages and `wardpost posts`: what is told of a ward in trouble, to whom, and in which words."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import event as sql_event

from agent import wire
from agent.cli import main
from agent.clock import SystemClock, rfc3339
from agent.evidence.chain import What
from agent.site import founding
from agent.site.folder import open_site
from agent.station.db.engine import open_engine, writing
from agent.station.evidence_alarms import OfFile
from agent.station.intake import EventIn
from agent.station.ledgers import Alarm, Ledgers
from agent.station.people.roles import Person, Role, Scope, scope_of
from agent.station.posts.pictures import ALERTS_LOOKED_AT_MAX, Pictures
from agent.station.posts.plan import HEIGHT, WIDTH, plan
from agent.station.posts.table import posts as tell
from agent.station.store import Batch
from agent.station.web import posts as pages_of_posts
from agent.station.web.desk import Desk, make_desk
from agent.station.web.settings import WebSettings
from tests.fakes.database import Database, fresh
from tests.fakes.desk import JPEG, ORIGIN, PASSWORD, Visitor, incident, quick
from tests.fakes.desk import Ward as Headquarters
from tests.fakes.footage_ward import FootageWard
from tests.fakes.ward import SITE, Ward, ward
from tests.unit.test_site import provisioned

PLACES: list[tuple[str, dict[str, Any]]] = [
    ("gate-1", {"house": "A", "provider": "V", "lat": 21.0285, "lon": 105.8542}),
    ("gate-2", {"house": "A", "provider": "V", "lat": 21.0286, "lon": 105.8543}),
    ("lane-1", {"house": "B", "provider": "V", "lat": 21.0300, "lon": 105.8560}),
    ("lane-2", {"house": "C", "provider": "F", "lat": 21.0400, "lon": 105.8600}),
]


@pytest.fixture(scope="module")
def register(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder: the same neighbourhood as the posts have."""
    root = tmp_path_factory.mktemp("site") / "ward-7"
    founding.found_site(root, name=SITE, hosts=["hq.example.org"], clock=SystemClock())
    for node, _ in PLACES:
        provisioned(root, node)
    found = founding.open_register(open_site(root))
    for node, spot in PLACES:
        known = found.node(node)
        assert known is not None
        found.located(replace(known, **spot), 1)
    found.close()
    return root


class Office:
    """A ward in trouble, and the desk that shows it: gate-1 has lost its mains, lane-2 its camera."""

    def __init__(self, made: Ward, folder: Path, register: Path) -> None:
        self.ward = made
        made.posts["lane-1"].place = '<b>Lane</b> "12" & more'
        made.flap("lane-1")
        made.posts["gate-1"].lose_mains()
        made.tick()
        made.posts["gate-1"].cut_power()
        camera = made.posts["lane-2"].beats._probes.camera()
        made.posts["lane-2"].parts["camera"] = lambda: msgspec.structs.replace(camera, frameagems=90_000)
        made.tick(8)
        self.passwords = quick()
        self.desk: Desk = make_desk(
            WebSettings(origin=ORIGIN, behind_proxy=True),
            engine=open_engine(made.database.url, pooled=False),
            folder=folder,
            site=SITE,
            station="hq",
            clock=made.clock,
            send_verdict=lambda *_: "",
            passwords=self.passwords,
            register=str(register),
        )

    def sound(self, node: str, what: What = What.FOOTAGE) -> None:
        """Something false comes from a post."""
        with writing(open_engine(self.ward.database.url, pooled=False), "raise an alarm") as db:
            Ledgers.raise_alarm(db, Alarm(node, what, "it is not so", OfFile()), self.ward.now_ns)

    def visitor(self, role: Role, *posts: str) -> Visitor:
        new = Person(role.value, role.value.capitalize(), role, scope_of(role, posts))
        self.desk.registry.add(new, password=self.passwords.hash(PASSWORD), by="account:test")
        made = Visitor(SimpleNamespace(desk=self.desk), "192.0.2.7")  # type: ignore[arg-type]
        assert made.log_in(role.value).status_code == 303
        return made

    def alert(self, node: str, number: int, *, time: str = "", error_ms: int | None = 40, picture: bool = True) -> str:
        """An alert of a post, and its picture, taken then. Returns the incident."""
        for sequence, severity in ((2 * number, "alert"), (2 * number + 1, "thumbnail")):
            thumbnail = severity == "thumbnail"
            if thumbnail and not picture:
                continue
            kind = "thumbnail" if thumbnail else "person"
            told = wire.CloudEvent(
                id=f"01900000-0000-7{sequence:03x}-8000-{int.from_bytes(node.encode()[-6:], 'big'):012x}",
                source=f"wardpost/{SITE}/{node}", type=f"wardpost.{kind}", subject=incident(number),
                time=time or rfc3339(self.ward.now_ns), timeerrms=error_ms, monons=1, session=1, bootid="f" * 32,
                epoch="01900000-0000-7000-8000-0000000000aa", sequence=sequence,
                data=wire.EventData(
                    incident=incident(number), phase="started", severity=severity,  # type: ignore[arg-type]
                    summary="" if thumbnail else "A person", place="",
                    jpeg=base64.b64encode(JPEG).decode() if thumbnail else None,
                ),
            )  # fmt: skip
            body = wire.encode(told)
            one = EventIn(node, told.epoch, sequence, told.id, kind, incident(number), body)
            self.ward.station.commit(Batch(taken=[one]))
        while self.desk.alerts.take_in():
            pass
        return incident(number)


@pytest.fixture
def office(tmp_path: Path, register: Path) -> Iterator[Office]:
    with fresh("sqlite", tmp_path) as database, ward(tmp_path, database, PLACES) as made:
        yield Office(made, tmp_path, register)


def text(page: str) -> str:
    """What a page says, without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("<main", 1)[1]))


def test_the_list_tells_of_each_post_how_it_is_and_why(office: Office) -> None:
    visitor = office.visitor(Role.TECHNICIAN)
    assert visitor.get("/posts").status_code == 200
    told = text(visitor.page)
    for node, _ in PLACES:
        assert node in told
    assert "dark · no power (sure)" in told and "heard · camera (sure)" in told
    assert "<b>Lane</b>" not in visitor.page and "&lt;b&gt;Lane&lt;/b&gt;" in visitor.page
    visitor.get("/posts?show=dark")
    assert "gate-1" in rows(visitor.page) and "gate-2" not in rows(visitor.page)
    assert visitor.get("/posts?show=trouble").status_code == 200
    assert "hours in 30 days" in text(visitor.get("/posts?show=cost").text)
    assert visitor.get("/posts?show=everything").status_code == 404


def rows(page: str) -> str:
    """The list alone."""
    return page.split('<ul class="posts">')[1].split("</ul>", maxsplit=1)[0]


def cell(page: str, node: str) -> str:
    """What the list has of one post."""
    (found,) = [one for one in rows(page).split("<li ")[1:] if f'href="/posts/{node}"' in one]
    return found


def test_the_list_has_of_each_post_its_picture_and_when_it_was_taken(office: Office) -> None:
    office.alert("gate-2", 1, time="2026-11-22T01:02:03Z")
    newest = office.alert("gate-2", 2, time="2026-11-22T04:05:06Z", error_ms=3000)
    office.alert("gate-2", 3, picture=False)
    unsure = office.alert("lane-1", 4, time="2026-11-22T07:08:09Z", error_ms=None)
    broken = office.alert("gate-1", 5, time="1970-01-01T00:00:00Z")
    visitor = office.visitor(Role.OPERATOR)
    visitor.get("/posts")
    shown = cell(visitor.page, "gate-2")
    assert f'src="/alerts/{newest}/picture"' in shown and 'loading="lazy"' in shown
    assert "22.11.2026 04:05:06 ± 3 s" in text("<main" + shown) and 'datetime="2026-11-22T04:05:06Z"' in shown
    assert 'alt="Picture of an alert at Place gate-2"' in shown
    assert visitor.get(f"/alerts/{newest}/picture").content == JPEG
    shown = cell(visitor.page, "lane-1")
    assert f'src="/alerts/{unsure}/picture"' in shown and "clock is not verified" in shown, "no wrong clock looks right"
    assert 'alt="Picture of an alert at &lt;b&gt;Lane&lt;/b&gt; &#34;12&#34; &amp; more"' in shown
    shown = cell(visitor.page, "gate-1")
    assert f'src="/alerts/{broken}/picture"' in shown and "1970" not in shown and "told no time" in shown
    shown = cell(visitor.page, "lane-2")
    assert "<img" not in shown and "No picture" in shown, "where there is none, nothing is asked for"
    visitor.get("/posts/gate-2")
    assert f'src="/alerts/{newest}/picture"' in visitor.page, "and the post's page has the same one"
    taken = text(visitor.page)
    assert "Taken 22.11.2026 04:05:06 ± 3 s" in taken
    vietnamese = text(visitor.send("GET", "/posts/gate-2", headers={"accept-language": "vi"}).text)
    assert "Chụp lúc 22.11.2026 04:05:06 ± 3 giây" in vietnamese
    vietnamese = visitor.send("GET", "/posts", headers={"accept-language": "vi"}).text
    assert "Không có hình" in cell(vietnamese, "lane-2")


def test_who_may_see_no_picture_gets_no_place_for_one_either(office: Office) -> None:
    office.alert("gate-2", 1)
    visitor = office.visitor(Role.TECHNICIAN)
    for path in ("/posts", "/posts/gate-2"):
        visitor.get(path)
        assert "<img" not in visitor.page and "/alerts/" not in visitor.page and "icture" not in text(visitor.page)
    school = office.visitor(Role.SCHOOL, "gate-2")
    assert "<img" in cell(school.get("/posts").text, "gate-2")
    engine = open_engine(office.ward.database.url, pooled=False)
    other = Scope(whole_site=False, posts=frozenset({"lane-1"}))
    assert Pictures(engine).newest(other, ["gate-2", "lane-1"]) == {}, "whatever a page asks for"
    engine.dispose()


def test_the_list_says_how_well_each_post_is_and_why_what_room_it_has_and_what_goes_when(office: Office) -> None:
    post = office.ward.posts["lane-1"]
    kept = [
        wire.FootageClass(name="continuous", segments=1, bytes=1, oldest=None, overwrite="2026-12-01T00:00:00Z"),
        wire.FootageClass(name="event", segments=1, bytes=1, oldest=None, overwrite="2026-12-24T00:00:00Z"),
    ]
    post.parts["recording"] = lambda: wire.RecordingState(
        recording=True, segments=2, bytes=40_000_000_000, oldest="2023-11-07T22:13:20Z", droppedpackets=0, classes=kept
    )
    office.ward.posts["gate-2"].throttled = 0x10000
    office.ward.tick(2)
    visitor = office.visitor(Role.TECHNICIAN)
    visitor.get("/posts")
    shown = cell(visitor.page, "lane-1")
    assert "Free on the card 20.0 GB" in text("<main" + shown)
    assert "Oldest footage goes 01.12.2026 00:00:00" in text("<main" + shown), "what goes first"
    assert 'role="img" aria-label="well"' in shown
    shown = cell(visitor.page, "gate-2")
    assert 'aria-label="trouble"' in shown and "heard · Change the power supply" in shown, "not a mark without a reason"
    assert "Oldest footage goes not known" in text("<main" + shown)
    assert 'aria-label="not heard"' in cell(visitor.page, "gate-1")
    vietnamese = visitor.send("GET", "/posts", headers={"accept-language": "vi"}).text
    assert 'aria-label="tốt"' in cell(vietnamese, "lane-1")
    assert "Hình cũ nhất bị ghi đè 01.12.2026 00:00:00" in text("<main" + cell(vietnamese, "lane-1"))


def test_the_pictures_of_a_page_are_one_question_however_many_posts_are_on_it(
    tmp_path: Path, database: Database
) -> None:
    """And each is looked for among the newest alerts of its post: however many have none, the page costs the same."""
    made = Headquarters(tmp_path, database)
    made.person("lan", Role.OPERATOR)
    asked: list[str] = []
    sql_event.listen(made.engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    counts = []
    visitor = made.visitor("lan")
    visitor.get("/posts")
    jpeg = base64.b64encode(JPEG).decode()
    for posts in (range(1, 2), range(2, 31)):
        for number in posts:
            made.hear(number, node=f"post-{number:02d}")
            made.hear(number, node=f"post-{number:02d}", severity="thumbnail", jpeg=jpeg)
        made.clock.advance(10)
        asked.clear()
        visitor.get("/posts")
        counts.append(len(asked))
        assert rows(visitor.page).count("<img") == posts[-1]
    assert counts[0] == counts[1] <= 30, counts
    (query,) = [one for one in asked if "alert" in one]
    assert query.startswith("SELECT")
    told = [line for line in made.trail() if line["kind"] == "viewed"]
    assert [(line["what"], len(line["posts"])) for line in told] == [("picture", 1), ("picture", 29)]
    assert visitor.get(f"/alerts/{incident(30)}/picture").content == JPEG
    assert made.kinds().count("viewed") == 2, "who is shown fifty pictures is on record once, not fifty times"
    for number in range(100, 100 + ALERTS_LOOKED_AT_MAX):
        made.hear(number, node="post-01")
        made.clock.advance(1)
    made.clock.advance(10)
    visitor.get("/posts")
    assert "<img" not in cell(visitor.page, "post-01"), "it looks no farther"
    made.close()


def test_the_list_is_searched_by_name_place_house_and_provider(office: Office) -> None:
    visitor = office.visitor(Role.OPERATOR)
    for asked, found in (
        ("find=LANE-2", {"lane-2"}),
        ("find=place%20gate", {"gate-1", "gate-2"}),
        ("find=%3Cb%3Elane", {"lane-1"}),
        ("provider=F", {"lane-2"}),
        ("provider=V&find=b", {"lane-1"}),
        ("provider=V&show=dark", {"gate-1"}),
        ("provider=nobody", set()),
    ):
        assert visitor.get(f"/posts?{asked}").status_code == 200
        shown = {node for node, _ in PLACES if f'href="/posts/{node}"' in rows(visitor.page)}
        assert shown == found, asked
        assert f"Posts: {len(found)}" in text(visitor.page)
    visitor.get("/posts?find=%22%3E%3Cscript%3E")
    assert "<script>" not in visitor.page and "&lt;script&gt;" in visitor.page
    assert 'href="/posts?show=dark&amp;find=%22%3E%3Cscript%3E"' in visitor.page, "the filter keeps what is searched"
    for wrong in ("0", "-1", "x", "1e3", "999999", "%D9%A3"):
        assert visitor.get(f"/posts?page={wrong}").status_code == 404, wrong
    assert visitor.get("/posts?page=99999").status_code == 200, "a page that is gone meanwhile is the last one"


@pytest.mark.parametrize("asked", ["truong", "Trường", "TRƯỜNG dong", "trường  đông", "gate-2"])
def test_a_post_is_found_however_its_place_is_written(tmp_path: Path, asked: str) -> None:
    with fresh("sqlite", tmp_path) as database:
        made = FootageWard(tmp_path, database)
        made.footage.knows("gate-2", "Cổng Trường Đông Ngạc")
        made.footage.knows("lane-1", "Ngõ 12")
        made.person("lan", Role.OPERATOR)
        page = made.visitor("lan").get(f"/posts?find={asked}").text
        assert 'href="/posts/gate-2"' in page and 'href="/posts/lane-1"' not in page
        made.footage.engine.dispose()
        made.close()


def test_a_long_list_comes_in_pages_and_every_post_is_on_one_of_them(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages_of_posts, "ROWS_MAX", 3)
    visitor = office.visitor(Role.OPERATOR)
    visitor.get("/posts?show=cost")
    seen = re.findall(r'<h2><a href="/posts/([a-z0-9-]+)"', visitor.page)
    assert len(seen) == 3 and 'rel="prev"' not in visitor.page
    after = re.search(r'rel="next" href="([^"]+)"', visitor.page)
    assert after is not None
    visitor.get(after[1].replace("&amp;", "&"))
    seen += re.findall(r'<h2><a href="/posts/([a-z0-9-]+)"', visitor.page)
    assert sorted(seen) == sorted(node for node, _ in PLACES)
    assert 'rel="next"' not in visitor.page and 'rel="prev"' in visitor.page and "Page 2 of 2" in text(visitor.page)


def test_the_plan_shows_where_the_posts_are_and_needs_no_script(office: Office) -> None:
    visitor = office.visitor(Role.OPERATOR)
    visitor.get("/map")
    drawn = visitor.page.split('<svg class="plan"')[1].split("</svg>")[0]
    assert drawn.count("<circle") == 4 and 'class="bad"' in drawn and " style=" not in visitor.page
    found = plan(list(office.ward.views().values()))
    assert found is not None
    at = {dot.view.post.node: (dot.x, dot.y) for dot in found.dots}
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in at.values())
    assert at["lane-2"][1] < at["lane-1"][1] < at["gate-1"][1], "north is up"
    assert at["lane-2"][0] > at["gate-1"][0], "east is right"


def test_the_map_page_lists_what_the_map_shows_the_worst_first(office: Office) -> None:
    visitor = office.visitor(Role.TECHNICIAN)
    visitor.get("/map")
    listed = visitor.page.split('<ul id="list"')[1].split("</ul>")[0]
    order = re.findall(r'href="/posts/([a-z0-9-]+)"', listed)
    assert order[:2] == ["gate-1", "lane-2"] and len(order) == 4
    assert "dark · no power (sure)" in text("<main" + listed) and "<b>Lane</b>" not in visitor.page
    vietnamese = visitor.send("GET", "/map", headers={"accept-language": "vi"}).text
    assert "Bản đồ" in vietnamese and "mất điện" in vietnamese


def test_the_map_is_told_where_and_how_the_posts_are_and_only_what_is_new(office: Office) -> None:
    visitor = office.visitor(Role.OPERATOR)
    told = visitor.get("/map/posts").json()
    assert {line[0] for line in told["posts"]} == {node for node, _ in PLACES} and told["leftout"] == 0
    assert told["posts"][0] == ["gate-1", "Place gate-1", 21.0285, 105.8542, "bad", "dark · no power (sure)", False]
    assert visitor.get(f"/map/posts?known={told['version']}").status_code == 204
    office.ward.posts["gate-1"].power_back(0)
    office.ward.tick(3)
    news = visitor.get(f"/map/posts?known={told['version']}").json()
    assert news["version"] != told["version"]
    assert {line[0]: line[4] for line in news["posts"]}["gate-1"] == "good"


def marked(visitor: Visitor, path: str, node: str) -> bool:
    """Whether a page says of a post that an evidence alarm is open there."""
    page = visitor.get(path).text
    inside = rows(page) if path.startswith("/posts") else page.split('<ul id="list"')[1].split("</ul>")[0]
    return any(f'href="/posts/{node}"' in one and "Evidence alarm" in one for one in inside.split("<li")[1:])


def test_an_open_evidence_alarm_marks_its_post_in_the_list_and_on_the_map_until_it_is_answered(office: Office) -> None:
    operator, auditor = office.visitor(Role.OPERATOR), office.visitor(Role.AUDITOR)
    technician = office.visitor(Role.TECHNICIAN)
    ours = office.visitor(Role.SCHOOL, "gate-2")
    before = operator.get("/map/posts").json()
    assert 'href="/posts/gate-2"' not in operator.get("/posts?show=trouble").text
    office.sound("gate-2")
    office.sound("gate-2", What.CHAIN_BREAK)
    for visitor in (operator, auditor, technician, ours):
        for path in ("/posts", "/posts?show=trouble", "/posts?show=cost", "/map"):
            assert marked(visitor, path, "gate-2"), path
            assert not marked(visitor, path, "lane-1"), path
        assert 'class="post warn"' in "<li " + cell(visitor.get("/posts").text, "gate-2"), "it is not well"
        (line,) = [one for one in visitor.get("/map/posts").json()["posts"] if one[0] == "gate-2"]
        assert line[4:] == ["warn", "heard · Evidence alarm", True]
    assert "Báo động chứng cứ" in operator.send("GET", "/map", headers={"accept-language": "vi"}).text
    told = operator.get(f"/map/posts?known={before['version']}").json()
    assert [one[0] for one in told["posts"] if one[6]] == ["gate-2"], "although nothing else has changed"
    order = [one[0] for one in told["posts"]]
    assert order.index("gate-1") < order.index("gate-2") < order.index("lane-2"), "of what is heard it is the worst"
    operator.get("/posts/gate-2")
    for number in (1, 2):
        assert operator.post(f"/evidence/{number}/acknowledge", comment="we fetch the card").status_code == 303
    for path in ("/posts", "/map"):
        assert not marked(operator, path, "gate-2")
    (line,) = [one for one in operator.get("/map/posts").json()["posts"] if one[0] == "gate-2"]
    assert line[4:] == ["good", "heard", False]


def test_evidence_alarms_of_others_mark_nothing_and_those_of_a_revoked_post_are_trouble_still(
    tmp_path: Path, register: Path
) -> None:
    root = tmp_path / "site"
    shutil.copytree(register, root)
    with fresh("sqlite", tmp_path) as database, ward(tmp_path, database, PLACES) as made:
        office = Office(made, tmp_path, root)
        school = office.visitor(Role.SCHOOL, "lane-1")
        before = school.get("/map/posts").json()
        office.sound("gate-2")
        for path in ("/posts", "/map", "/posts?show=trouble"):
            assert not marked(school, path, "gate-2") and "gate-2" not in school.page, path
        assert school.get(f"/map/posts?known={before['version']}").status_code == 204
        assert main(["site", "revoke", str(root), "gate-2", "--reason", "stolen"]) == 0
        made.tick(8)
        supervisor = office.visitor(Role.SUPERVISOR)
        assert marked(supervisor, "/posts?show=trouble", "gate-2"), "somebody must answer it"


def test_a_school_has_a_map_of_its_own_posts_and_a_household_has_none(office: Office) -> None:
    visitor = office.visitor(Role.SCHOOL, "gate-1")
    assert [line[0] for line in visitor.get("/map/posts").json()["posts"]] == ["gate-1"]
    visitor.get("/map")
    for node in ("gate-2", "lane-1", "lane-2"):
        assert node not in visitor.page
    host = office.visitor(Role.HOUSEHOLD, "gate-1")
    assert host.get("/map").status_code == 403 and host.get("/map/posts").status_code == 403


def test_one_post_tells_why_with_its_evidence_in_both_languages(office: Office) -> None:
    visitor = office.visitor(Role.SUPERVISOR)
    visitor.get("/posts/gate-1")
    told = text(visitor.page)
    assert (
        "Why it is dark" in told and "It told that the mains was lost" in told and "gate-2, of the same house" in told
    )
    assert "Call the household first" in told and "multimeter" in told
    assert '<svg class="history"' in visitor.page
    vietnamese = text(visitor.send("GET", "/posts/gate-1", headers={"accept-language": "vi"}).text)
    assert "Trạm báo mất điện lưới" in vietnamese and "Why it is dark" not in vietnamese
    assert visitor.get("/posts/nobody").status_code == 404


def test_a_school_sees_its_own_posts_and_hears_of_no_other(office: Office) -> None:
    visitor = office.visitor(Role.SCHOOL, "gate-1")
    for path in ("/posts", "/posts/gate-1", "/posts?show=cost", "/posts?find=lane", "/posts?provider=F"):
        assert visitor.get(path).status_code == 200
        for node in ("gate-2", "lane-1", "lane-2"):
            assert node not in visitor.page, f"{path} names {node}"
    assert visitor.get("/posts/gate-2").status_code == 404, "as one that does not exist"
    assert visitor.get("/to-do").status_code == 403
    assert "/to-do" not in visitor.page


def test_the_to_do_list_says_what_why_and_what_to_bring(office: Office) -> None:
    visitor = office.visitor(Role.TECHNICIAN)
    visitor.get("/to-do")
    told = text(visitor.page)
    assert told.index("Place gate-1") < told.index("Place lane-2") or "now Place lane-2" in told
    assert "Clean the lens" in told and "ladder" in told and "no power (sure)" in told


def test_a_post_that_was_revoked_is_said_to_be_and_nobody_is_sent_there(tmp_path: Path, register: Path) -> None:
    """Its card was stolen: the post stays in the lists, for its past does, but what it does not say means nothing."""
    root = tmp_path / "site"
    shutil.copytree(register, root)
    with fresh("sqlite", tmp_path) as database, ward(tmp_path, database, PLACES) as made:
        office = Office(made, tmp_path, root)
        technician = office.visitor(Role.TECHNICIAN)
        assert 'href="/posts/gate-1"' in technician.get("/to-do").text
        assert main(["site", "revoke", str(root), "gate-1", "--reason", "stolen"]) == 0
        made.tick(8)
        assert 'href="/posts/gate-1"' not in technician.get("/to-do").text
        (said,) = re.findall(
            r'href="/posts/gate-1".*?<p class="state bad">.*?</span> ([^<]*)</p>',
            technician.get("/posts").text,
            re.DOTALL,
        )
        assert re.fullmatch("revoked · (dark|gone)", said), "and nothing is guessed of why"
        page = text(technician.get("/posts/gate-1").text)
        assert said in page and "Why" not in page and "household" not in page
        (line,) = [one for one in technician.get("/map/posts").json()["posts"] if one[0] == "gate-1"]
        assert line[2:4] == [21.0285, 105.8542] and line[5] == said, "where it stood"
        for show, there in (("all", True), ("cost", True), ("dark", False), ("trouble", False)):
            listed = 'href="/posts/gate-1"' in technician.get(f"/posts?show={show}").text
            assert listed is there, f"{show}: it is no post that anybody should bring back"


def test_a_page_is_as_fresh_as_it_says(office: Office) -> None:
    visitor = office.visitor(Role.AUDITOR)
    visitor.get("/posts")
    office.ward.posts["gate-1"].power_back(0)
    office.ward.tick(3)
    visitor.get("/posts/gate-1")
    assert "heard" in text(visitor.page) and "Why it is dark" not in visitor.page
    assert "no power" in text(visitor.page), "and why it was dark stands in its history"


# -- the command ------------------------------------------------------------------------------------------------------


def printed(office: Office, register: Path, **asked: Any) -> str:
    lines: list[str] = []
    given: dict[str, Any] = {"node": None, "as_todo": False, "by_cost": False, "as_json": False} | asked
    tell(
        office.ward.database.folder,
        database="",
        register=str(register),
        clock=office.ward.clock,
        out=lines.append,
        **given,
    )
    return "\n".join(lines)


def test_the_command_tells_the_same(office: Office, register: Path) -> None:
    whole = printed(office, register)
    assert re.search(
        r"^gate-1 \(Place gate-1\): dark, last heard 20\S+, 4 min ago; why: no power \(sure\);", whole, re.MULTILINE
    )
    assert re.search(r"^gate-2 \(Place gate-2\): heard; footage of \d+", whole, re.MULTILINE)
    one = printed(office, register, node="gate-1")
    assert "    It told that the mains was lost, " in one and "(event of the post, 20" in one
    assert "    to do (now): Call the household first" in one
    todo = printed(office, register, as_todo=True)
    assert "now: gate-1 (Place gate-1): Call the household first" in todo and "bring: power supply" in todo
    assert printed(office, register, by_cost=True).splitlines()[0].partition(" ")[0] in ("gate-1", "lane-2")
    told = {row["node"]: row for row in json.loads(printed(office, register, as_json=True))}
    assert told["gate-1"]["why"]["cause"] == "unplugged" and told["gate-1"]["why"]["confidence"] == 0.95
    assert told["gate-1"]["why"]["evidence"][0]["what"] == "mains_lost"
    assert told["lane-1"]["why"] is None and told["lane-1"]["todo"] is None
    assert told["lane-1"]["footagedays"] > 0 and told["lane-1"]["diskfreebytes"] == 20_000_000_000


def test_the_command_names_what_is_missing(
    office: Office, register: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "station.toml"
    data = tmp_path / "elsewhere"
    data.mkdir()
    config.write_text(f'[station]\nsite = "{SITE}"\nid = "hq"\ndata = "{data}"\n[broker]\nbrokers = ["mqtt://x:1"]\n')
    assert main(["posts", "--config", str(config)]) == 78
    assert "is a station running on this data folder?" in capsys.readouterr().err
    config.write_text(config.read_text().replace(str(data), str(office.ward.database.folder)))
    assert main(["posts", "--config", str(config), "--node", "nobody"]) == 78
    assert "nobody: this station has never heard it" in capsys.readouterr().err
    assert main(["posts", "--config", str(config), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 4
