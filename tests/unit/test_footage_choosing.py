"""Which posts the page of footage offers: those around an alert, one of seventy thousand, and never a page of them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from agent.station.archive_retention import FORECAST_DAYS, Forecast
from agent.station.db.engine import writing
from agent.station.db.tables import node
from agent.station.people.roles import Role
from agent.station.posts.choosing import KEPT_S, OFFERED_MAX
from agent.station.posts.known import Spot
from agent.station.web.archive import AHEAD_SHOWN_MAX
from agent.station.web.footage import POSTS_MAX
from tests.fakes.database import KINDS, fresh
from tests.fakes.evidence_post import UTC_0
from tests.fakes.footage_ward import FootageWard

RANGE = "from=2023-11-14T22:13:20&to=2023-11-14T22:15:00"
FORM: dict[str, Any] = dict(pair.split("=") for pair in RANGE.split("&"))
MANY = 10_050  # posts; more than a page ever looked at
LAST = "zz-last"
SPOTS = {
    "gate-2": Spot(house="A", lat=21.0285, lon=105.8542),
    "gate-3": Spot(house="A"),
    "far-1": Spot(lat=21.1285, lon=105.8542),
    "never-1": Spot(house="A"),  # nobody has heard it
} | {f"lane-{n}": Spot(lat=21.0285 + n / 10_000, lon=105.8542) for n in range(1, 10)}  # each 11 m further off


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = FootageWard(folder, database)
        made.person("op", Role.OPERATOR)
        made.person("admin", Role.ADMIN)
        made.person("school", Role.SCHOOL, "gate-2", "lane-2")
        made.person("last-school", Role.SCHOOL, LAST)
        yield made
        made.footage.engine.dispose()
        made.close()


def many(ward: FootageWard) -> None:
    """Ten thousand posts, and one behind all of them by its name."""
    with writing(ward.engine, "hear posts") as db:
        db.execute(insert(node), [_row(f"p{n:05d}", f"Ngõ {n}") for n in range(MANY)])
    ward.footage.knows(LAST, "Cổng trường cuối")


def _row(name: str, place: str) -> dict[str, object]:
    return {
        "node": name, "place": place, "seen_boot_id": "b" * 32, "seen_ns": 1, "seen_utc_ns": UTC_0,
        "state_since_utc_ns": UTC_0,
    }  # fmt: skip


def offered(page: str) -> list[str]:
    return re.findall(r'type="checkbox" name="post\.([a-z0-9-]+)"', page)


def chosen(page: str) -> list[str]:
    return re.findall(r'type="checkbox" name="post\.([a-z0-9-]+)" checked', page)


# -- around an alert -------------------------------------------------------------------------------------------------------


def test_around_an_alert_with_the_nearest_posts(ward: FootageWard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.station.web.desk.registered", lambda _root: lambda: SPOTS)
    ward.start()
    for name in set(SPOTS) - {"never-1"}:
        ward.footage.knows(name, f"Place {name}")
    alert = ward.hear(7, node="gate-2", time="2026-11-22T11:40:00.000Z", historical=True)
    operator = ward.visitor("op")

    # The alert's page offers both; the link leads to the posts, chosen, a quarter of an hour before and behind.
    page = operator.get(f"/alerts/{alert}").text
    assert "30 minutes around it, with the nearest posts" in page
    (near,) = re.findall(r'href="(/footage\?[^"]*nearest=on)"', page)
    page = operator.get(near.replace("&amp;", "&")).text
    assert chosen(page) == ["gate-2", "gate-3", *(f"lane-{n}" for n in range(1, POSTS_MAX - 1))]
    assert 'value="2026-11-22T11:25:00"' in page and 'value="2026-11-22T11:55:00"' in page
    assert page.index("<h2>Place gate-2") < page.index("<h2>Place gate-3") < page.index("<h2>Place lane-1"), (
        "the alert's own post first, then by how near they are"
    )
    assert operator.get(f"/footage?alert={alert}").text.count('<section class="post"') == 1

    # A school is shown those of its own posts only.
    theirs = ward.visitor("school").get(f"/footage?alert={alert}&nearest=on").text
    assert chosen(theirs) == ["gate-2", "lane-2"] and "gate-3" not in theirs
    assert ward.visitor("last-school").get(f"/footage?alert={alert}&nearest=on").status_code == 404


def test_a_post_that_the_register_puts_near_nobody(ward: FootageWard) -> None:
    ward.footage.knows("gate-2", "School gate")
    alert = ward.hear(7, node="gate-2", time="2026-11-22T11:40:00.000Z", historical=True)
    page = ward.visitor("op").get(f"/footage?alert={alert}&nearest=on").text
    assert chosen(page) == ["gate-2"]
    assert "no post near" in page


# -- one of very many ------------------------------------------------------------------------------------------------------


def test_a_post_behind_ten_thousand_others_is_there(ward: FootageWard) -> None:
    many(ward)
    school, operator = ward.visitor("last-school"), ward.visitor("op")
    page = school.get("/footage").text
    assert offered(page) == [LAST] and "No post has been heard" not in page
    for who in (school, operator):
        assert chosen(who.get(f"/footage?post.{LAST}=on&{RANGE}").text) == [LAST]
        assert who.get(f"/footage/{LAST}/part?{RANGE}").status_code == 200
        asking = FORM | {"from": "2023-11-14T22:13:2" + ("1" if who is school else "2")}
        assert who.post(f"/footage/{LAST}/request", reason="a bicycle", **asking).status_code == 303
        assert who.get("/footage/p00001/part?" + RANGE).status_code == (404 if who is school else 200)
    school.get("/footage")
    assert school.post("/footage/p00001/request", reason="x", **FORM).status_code == 404


def test_a_page_offers_some_posts_and_finds_the_others(ward: FootageWard) -> None:
    many(ward)
    operator = ward.visitor("op")
    answer = operator.get(f"/footage?post.{LAST}=on&{RANGE}")
    assert len(answer.content) < 100_000, "not ten thousand checkboxes"
    assert len(offered(answer.text)) == OFFERED_MAX + 1 and chosen(answer.text) == [LAST], "what is chosen is shown"
    assert f"{MANY - OFFERED_MAX} more" in answer.text

    # Somebody looks for a place, as it is typed without its accents; what he has chosen stays.
    found = operator.get(f"/footage?find=truong&post.p00007=on&{RANGE}").text
    assert offered(found) == ["p00007", LAST] and chosen(found) == ["p00007"]
    assert "more posts" not in found
    assert offered(operator.get("/footage?find=P00042").text) == ["p00042"]
    nothing = operator.get("/footage?find=nowhere").text
    assert offered(nothing) == [] and "No post has been heard" not in nothing and "No such post" in nothing
    assert offered(ward.visitor("last-school").get("/footage?find=p0").text) == [], "nothing of others' posts"

    # A post that was heard since is found at once, one that got another place a moment later.
    ward.footage.knows("new-1", "Nhà mới")
    assert offered(operator.get("/footage?find=nha+moi").text) == ["new-1"]
    with writing(ward.engine, "move a post") as db:
        db.execute(update(node).where(node.c.node == "new-1").values(place="Chợ cũ"))
    ward.clock.advance(KEPT_S + 1)
    assert offered(operator.get("/footage?find=cho+cu").text) == ["new-1"]


def test_too_many_chosen_are_refused_and_names_of_nobody_are_passed_over(ward: FootageWard) -> None:
    for n in range(POSTS_MAX + 1):
        ward.footage.knows(f"gate-{n}")
    operator = ward.visitor("op")
    every = "&".join(f"post.gate-{n}=on" for n in range(POSTS_MAX + 1))
    assert operator.get(f"/footage?{every}&{RANGE}").status_code == 400
    endless = "&".join(f"post.x{n}=on" for n in range(OFFERED_MAX + 1))
    assert operator.get(f"/footage?{endless}&{RANGE}").status_code == 400
    strange = operator.get(f"/footage?post.gate-1=on&post.nobody=on&post.%3Cb%3E=on&{RANGE}")
    assert strange.status_code == 200 and chosen(strange.text) == ["gate-1"]


def test_the_archive_asks_for_a_post_by_its_name_not_from_a_list_of_all(ward: FootageWard) -> None:
    many(ward)
    for login in ("op", "admin"):
        who = ward.visitor(login)
        answer = who.get("/archive")
        assert len(answer.content) < 50_000
        assert answer.text.count("<option") == OFFERED_MAX and f"{MANY + 1 - OFFERED_MAX} more" in answer.text
        range_: dict[str, Any] = {
            "from": "2023-11-14T22:13:10",
            "to": "2023-11-14T22:15:00",
            "reason": "a wish",
            "authority": "12",
        }
        wrong = who.post("/archive/removals", post="p99999", **range_)
        assert wrong.status_code == 400 and "one of your posts" in wrong.text and 'value="p99999"' in wrong.text
        who.get("/archive")
        empty = who.post("/archive/removals", post=LAST, **range_)
        assert "The archive has nothing of that time" in empty.text, "the post is known"


def test_what_goes_is_told_of_the_posts_of_which_the_most_goes(
    ward: FootageWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand posts have footage here: the table is a page, and its last line counts all."""
    due = [Forecast(f"p{n:05d}", [1] * FORECAST_DAYS, [n] * FORECAST_DAYS) for n in range(MANY)]
    monkeypatch.setattr("agent.station.archive_retention_desk.RetentionDesk.forecast", lambda *_: due)
    page = ward.visitor("op").get("/archive").text
    assert page.count("<td>p") == AHEAD_SHOWN_MAX
    assert f"<td>p{MANY - 1:05d}</td>" in page and "<td>p00000</td>" not in page
    assert f"{MANY - AHEAD_SHOWN_MAX} more posts" in page and "50.5 MB" in page
