"""The draw of a week out of a real store: every post may be hit, nobody knows it before, anybody can repeat it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, update
from sqlalchemy.exc import SQLAlchemyError

from agent.station.db.cases import inspection_draw
from agent.station.db.engine import writing
from agent.station.db.migrate import upgrade as alembic_upgrade
from agent.station.db.uploads import footage
from agent.station.inspection import reading as inspection_reading
from agent.station.inspection.desk import InspectionDesk
from agent.station.inspection.drawn import drawn_of, read_back
from agent.station.inspection.sample import Candidate, draw, first_of, sender_candidate
from agent.station.people.roles import Role
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import Ward

WEEK_S = 7 * 86_400.0
POSTS = [f"post-{n:02}" for n in range(10)]
SEED = "ab" * 32


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ward]:
    with fresh(request.param, tmp_path) as database:
        made = Ward(tmp_path, database)
        for number, node in enumerate(POSTS):
            made.hear(number, node=node, severity="notice")
        made.person("mai", Role.AUDITOR)
        yield made
        made.close()


def sha256(node: str, n: int) -> str:
    return hashlib.sha256(f"{node}.{n}".encode()).hexdigest()


def came(ward: Ward, node: str, count: int, *, state: str = "verified") -> None:
    """Footage of a post, just now."""
    row = {"node": node, "order_id": "o", "bytes": 1, "state": state, "checked_utc_ns": 0}
    row |= {"received_utc_ns": ward.clock.utc().utc_ns}
    files = [sha256(node, n) for n in range(count)]
    with writing(ward.engine, "footage comes") as db:
        db.execute(insert(footage), [row | {"name": f"{n}.mp4", "announced": n, "sha256": n} for n in files])


def desk(ward: Ward, **more: Any) -> InspectionDesk:
    return InspectionDesk(trail=ward.desk.trail, clock=ward.clock, site="ward-7", zone=dt.UTC, **more)


def drawn(ward: Ward, **more: Any) -> dict[str, Any]:
    """This week's draw, as it is on record."""
    one = desk(ward, **more)
    who = ward.desk.registry.find("mai")
    assert who is not None
    assert one.draw(who)
    assert not one.draw(who), "once a week"
    ((body,),) = ward.database.rows(f"select body from inspection_draw where week = '{one.week()}'")
    found: dict[str, Any] = json.loads(body)
    return found


def test_a_post_with_the_last_name_is_drawn_as_often_as_the_first(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten posts with thirty files each, and room for few: forty weeks."""
    monkeypatch.setattr(inspection_reading, "FILES_OF_POST_MAX", 4)
    for node in POSTS:
        came(ward, node, 30)
    hits: dict[str, int] = dict.fromkeys(POSTS, 0)
    refs: set[str] = set()
    for week in range(40):
        told = drawn(ward, new_seed=lambda week=week: f"{week:064x}")
        assert told["senders"] == POSTS
        assert len(told["footage"]) == 5 * 4
        for one in told["drawn_footage"]:
            hits[one["node"]] += 1
            refs.add(one["ref"])
        assert len({one["node"] for one in told["drawn_footage"]}) == 5
        ward.clock.advance(WEEK_S)
        with writing(ward.engine, "it came again") as db:
            db.execute(update(footage).values(received_utc_ns=ward.clock.utc().utc_ns))
    assert min(hits.values()) >= 10, hits
    assert len(refs) > 100, "of a post with many files not the same few each week"


def test_nobody_knows_a_week_ahead_whom_it_will_hit(ward: Ward) -> None:
    one, other = drawn(ward), None
    ward.clock.advance(WEEK_S)
    other = drawn(ward)
    assert len({one["seed"], other["seed"]}) == 2
    assert all(len(bytes.fromhex(seed)) == 32 for seed in (one["seed"], other["seed"]))
    drawn_posts = [Candidate(**post) for post in other["drawn_posts"]]
    candidates = [Candidate(**post) for post in other["posts"]]
    assert draw("ward-7", other["week"], candidates, 5, seed=other["seed"]) == drawn_posts
    assert draw("ward-7", other["week"], candidates, 5) != drawn_posts, "site and week are not enough"


def test_what_was_looked_at_and_what_is_not_as_recorded_takes_nobodys_place(ward: Ward) -> None:
    """Of three posts with footage one has been looked at whole, one has sent what it did not record."""
    came(ward, "post-01", 1)
    ward.clock.advance(1)
    told = drawn(ward, new_seed=lambda: SEED)
    assert [one["ref"] for one in told["drawn_footage"]] == [sha256("post-01", 0)]
    who = ward.desk.registry.find("mai")
    assert who is not None
    ref = sha256("post-01", 0)
    assert desk(ward).check(who, told["week"], kind="footage", node="post-01", ref=ref, result="good", text="")
    ward.clock.advance(WEEK_S)
    came(ward, "post-02", 2, state="mismatch")
    came(ward, "post-03", 2)
    told = drawn(ward, new_seed=lambda: SEED)
    assert told["senders"] == ["post-01", "post-02", "post-03"]
    assert told["drawn_senders"] == ["post-03"]
    assert sorted(told["passed_over"]) == ["post-01", "post-02"]
    assert {one["ref"] for one in told["drawn_footage"]} == {sha256("post-03", 0), sha256("post-03", 1)}
    order = draw("ward-7", told["week"], list(map(sender_candidate, told["senders"])), 3, seed=SEED)
    assert [one.node for one in order if one.node not in told["passed_over"]] == told["drawn_senders"]


def test_results_that_have_no_room_on_the_page_are_told(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection_reading, "CHECKS_SHOWN_MAX", 2)
    told, visitor = drawn(ward), ward.visitor("mai")
    who, node = ward.desk.registry.find("mai"), told["drawn_posts"][0]["node"]
    assert who is not None
    for looked in range(3):
        assert ("there are more" in visitor.get("/inspection").text) is False, looked
        assert desk(ward).check(who, told["week"], kind="post", node=node, ref="", result="good", text=f"look {looked}")
    page = visitor.get("/inspection").text
    assert "The newest 2 results are shown; there are more." in page
    assert "look 0" not in page


def test_files_of_a_busy_post_are_taken_from_a_point_that_the_seed_chooses(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection_reading, "FILES_OF_POST_MAX", 10)
    came(ward, "post-04", 30)
    told = drawn(ward, new_seed=lambda: SEED)
    ordered = sorted(sha256("post-04", n) for n in range(30))
    first = first_of(SEED, "post-04")
    around = [one for one in ordered if one >= first] + [one for one in ordered if one < first]
    assert [one["ref"] for one in told["footage"]] == around[:10]


def test_a_draw_of_an_earlier_release_is_still_shown_and_repeated(ward: Ward) -> None:
    """Without a seed, out of the files of all posts."""
    posts: list[dict[str, Any]] = [{"node": node, "ref": "", "weight": 1.0, "why": "never checked"} for node in POSTS]
    files: list[dict[str, Any]] = [
        {"node": node, "ref": sha256(node, 0), "weight": 1.0, "why": "one of 1 files of the post"} for node in POSTS
    ]
    week = desk(ward).week()
    hit = {
        name: [one for post in draw("ward-7", week, [Candidate(**one) for one in of], 5) for one in of if one["node"] == post.node]
        for name, of in (("drawn_posts", posts), ("drawn_footage", files))
    }  # fmt: skip
    body = json.dumps({"site": "ward-7", "week": week, "posts": posts, "footage": files, **hit})
    with writing(ward.engine, "drawn by the release before, which had no table of its own for the sample") as db:
        db.exec_driver_sql("drop table inspection_sample")
        if ward.engine.dialect.name == "postgresql":
            db.exec_driver_sql("drop function inspection_sample_refuses")
        db.exec_driver_sql("update alembic_version set version_num = '0016'")
        db.execute(insert(inspection_draw).values(week=week, utc_ns=1, login="mai", body=body))
    alembic_upgrade(ward.engine)
    ((sample,),) = ward.database.rows("select body from inspection_sample")
    kept = drawn_of(body)
    assert read_back(sample) == kept
    assert (kept.seed, kept.of_footage) == ("", 10)
    assert draw("ward-7", week, [Candidate(**one) for one in posts], 5, seed=kept.seed) == list(kept.posts)
    page = ward.visitor("mai").get("/inspection").text
    assert all(one.ref in page for one in kept.footage)
    assert "out of 10 files" in page


def test_who_looks_at_the_sample_does_not_read_what_it_was_drawn_from(ward: Ward) -> None:
    """That is megabytes at a large site. It stays on record whole, and the sample names it by its SHA-256."""
    came(ward, "post-04", 3)
    drawn(ward)
    ((whole,),) = ward.database.rows("select body from inspection_draw")
    ((apart,),) = ward.database.rows("select body from inspection_sample")
    assert read_back(apart) == drawn_of(whole)
    assert hashlib.sha256(whole.encode()).hexdigest() == read_back(apart).sha256
    assert [line["sha256"] for line in ward.trail() if line["kind"] == "inspection-draw"] == [read_back(apart).sha256]
    visitor, asked = ward.visitor("mai"), []
    event.listen(ward.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    node = read_back(apart).posts[0].node
    assert node in visitor.get("/inspection").text
    check: dict[str, Any] = {
        "week": read_back(apart).week,
        "kind": "post",
        "post": node,
        "ref": "",
        "result": "good",
        "text": "",
    }
    assert visitor.post("/inspection/check", **check).status_code == 303
    assert any("inspection_sample" in one for one in asked)
    assert not any("inspection_draw" in one for one in asked), asked
    with ward.engine.connect() as db, pytest.raises(SQLAlchemyError, match="append-only"), db.begin():
        db.exec_driver_sql("update inspection_sample set body = '{}'")
