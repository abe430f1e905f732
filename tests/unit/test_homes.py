"""The first pages of a school and of a household: what they tell, and that they tell nothing of anybody else."""

from __future__ import annotations

import base64
import datetime as dt
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from agent import wire
from agent.clock import rfc3339
from agent.errors import ConfigError
from agent.evidence.chain import What
from agent.station.db.cases import case_head, case_post
from agent.station.db.engine import writing
from agent.station.intake import StatusIn
from agent.station.ledgers import Alarm, Ledgers
from agent.station.people import view_log
from agent.station.people.roles import Role, scope_of
from agent.station.people.view_log import without
from agent.station.store import Batch
from agent.station.web.desk import make_desk
from agent.station.web.school import COUNTER, gatherings
from agent.types import NS
from agent.vision.rules import TOPICS
from tests.fakes.database import Database
from tests.fakes.desk import JPEG, Ward, incident
from tests.unit.test_desk_pages import MAY

OWN, OTHER = "gate-2", "gate-9"
PLACE, ELSEWHERE = "School gate", "Secret lane"


@contextmanager
def headquarters(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database, time_zone="Asia/Ho_Chi_Minh")
    for node, place in ((OWN, PLACE), (OTHER, ELSEWHERE)):
        status = wire.Status(state="online", node=node, bootid="f" * 32, session=1, place=place)
        made.store.commit(Batch(taken=[StatusIn(node, status, retained=False)]))
    yield made
    made.close()


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    with headquarters(tmp_path, database) as made:
        yield made


def ago(ward: Ward, seconds: float) -> str:
    return rfc3339(ward.clock.utc().utc_ns - round(seconds * NS))


def gathers(ward: Ward, number: int, *, node: str = OWN, since_s: float, s: float = 0.0, **data: Any) -> None:
    """A message of a rule that counts: begun `since_s` ago, told `s` ago."""
    place = PLACE if node == OWN else ELSEWHERE
    known: dict[str, Any] = {"severity": "notice", "label": "person", "rule": "crowd-at-dismissal", "place": place}
    ward.hear(number, node=node, onvif=COUNTER, since=ago(ward, since_s), time=ago(ward, s), **(known | data))


# -- the school ------------------------------------------------------------------------------------------------------------


def test_the_mark_of_a_counting_rule_is_that_of_the_rules() -> None:
    assert {TOPICS["crowd"], TOPICS["congestion"]} == {COUNTER}
    assert [kind for kind, topic in TOPICS.items() if topic == COUNTER] == ["crowd", "congestion"]


def test_a_school_sees_todays_crowds_and_congestion_since_when_and_whether_they_go_on(ward: Ward) -> None:
    ward.person("school", Role.SCHOOL, OWN)
    gathers(ward, 1, since_s=900, summary="9 people at the gate")
    gathers(ward, 1, since_s=900, s=300, phase="ended", summary="Over")
    gathers(ward, 2, since_s=120, summary="12 people at the gate")
    gathers(ward, 2, since_s=120, s=10, phase="updated", summary="15 people at the gate")
    gathers(ward, 3, since_s=600, label="vehicle", summary="2 vehicles stand")
    gathers(ward, 3, since_s=600, s=60, phase="ended", label="vehicle")
    ward.hear(4, severity="notice", label="person", summary="Somebody walks by")
    gathers(ward, 5, node=OTHER, since_s=60, summary="A crowd elsewhere")
    visitor = ward.visitor()
    assert visitor.log_in("school").headers["location"] == "/school"
    page = visitor.get("/school").text
    assert "<dt>Crowds today</dt><dd>2</dd>" in page and "<dt>Congestion today</dt><dd>1</dd>" in page
    assert page.count("A crowd since") == 1 and "15 people at the gate" in page and "Vehicles stand since" not in page
    assert "0:10:00" in page and "0:09:00" in page, "how long they were"
    assert "walks by" not in page and "elsewhere" not in page and OTHER not in page
    vietnamese = visitor.send("GET", "/school", headers={"accept-language": "vi"}).text
    assert "Đang tụ tập đông từ" in vietnamese and "A crowd since" not in vietnamese


def test_yesterday_is_not_today_where_the_school_is(ward: Ward) -> None:
    """Midnight in Vietnam is 17:00 UTC."""
    ward.person("school", Role.SCHOOL, OWN)
    now = dt.datetime.fromtimestamp(ward.clock.utc().utc_ns / NS, dt.UTC)
    midnight = (now + dt.timedelta(hours=7)).replace(hour=0, minute=0, second=0) - dt.timedelta(hours=7)
    ward.clock.step_utc((midnight - now).total_seconds() - 600)
    gathers(ward, 1, since_s=60)
    gathers(ward, 1, since_s=60, phase="ended")
    visitor = ward.visitor("school")
    assert "<dt>Crowds today</dt><dd>1</dd>" in visitor.get("/school").text
    ward.clock.advance(700)
    assert "<dt>Crowds today</dt><dd>0</dd>" in visitor.get("/school").text


def test_a_school_sees_its_bells_and_alerts_and_whom_they_reach(ward: Ward) -> None:
    ward.person("school", Role.SCHOOL, OWN)
    ward.person("minh", Role.OPERATOR, name="Nguyễn Minh")
    ward.person("lan", Role.SUPERVISOR, OTHER, name="Trần Lan")
    ward.person("other", Role.SCHOOL, OTHER, name="Other school")
    ward.person("tech", Role.TECHNICIAN, name="Technician Tam")
    ward.hear(1, severity="bell", place=PLACE)
    ward.hear(2, severity="bell", node=OTHER, place=ELSEWHERE)
    page = ward.visitor("school").get("/school").text
    assert f'href="/alerts/{incident(1)}"' in page and incident(2) not in page
    assert "Nguyễn Minh, operator" in page
    for stranger in ("Trần Lan", "Other school", "Technician Tam", ELSEWHERE, OTHER):
        assert stranger not in page
    ward.desk.registry.set_disabled("minh", disabled=True, by="account:test")
    assert "Nobody else is set to answer" in ward.visitor("school").get("/school").text


def test_what_happens_now_comes_to_a_page_that_is_open(ward: Ward) -> None:
    """A bell and a crowd, after the page was fetched: its script is told of the alert, and fetches what is new."""
    ward.person("school", Role.SCHOOL, OWN)
    visitor = ward.visitor("school")
    page = visitor.get("/school").text
    assert '<script src="/assets/school.js" defer></script>' in page
    assert visitor.get("/assets/school.js").headers["content-type"].startswith("text/javascript")
    assert 'data-step="0"' in page and "Without scripts this page is not live" in page
    ward.hear(1, severity="bell", place=PLACE)
    gathers(ward, 2, since_s=30, summary="20 people at the gate")
    part = visitor.get("/school", **{"x-wardpost-part": "school"}).text
    assert f'href="/alerts/{incident(1)}"' in part and "20 people at the gate" in part
    for once in ("<html", "<nav", "<script", "Whom alerts of your posts reach"):
        assert once not in part
    whole = visitor.get("/school").text
    assert " ".join(part.split()) in " ".join(whole.split())
    assert 'data-step="0"' not in whole, "the script listens from there on"


def test_posts_and_alerts_that_have_no_room_on_the_page_are_told(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    posts = [f"gate-{number:02}" for number in range(33)]
    ward.person("school", Role.SCHOOL, *posts)
    ward.person("small", Role.SCHOOL, OWN)
    page = ward.visitor("school").get("/school").text
    assert page.count('<li class="post ') == 30
    assert "3 more posts" in page and '<a class="button" href="/posts">' in page
    assert "more posts" not in ward.visitor("small").get("/school").text
    monkeypatch.setattr("agent.station.web.school.SHOWN_MAX", 2)
    for number in range(2):
        ward.hear(number, severity="bell", node=posts[32])
    visitor = ward.visitor("school")
    assert "There are more on the board" not in visitor.get("/school").text
    ward.hear(3, severity="bell", node=posts[32])
    assert "There are more on the board" in visitor.get("/school").text


def test_the_stations_contacts_are_named_without_their_addresses(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    with_contacts = functools.partial(make_desk, contacts=[("duty-officer", 90.0)])
    monkeypatch.setattr("tests.fakes.desk.make_desk", with_contacts)
    ward.start()
    ward.person("school", Role.SCHOOL, OWN)
    assert "duty-officer, 0:01:30 after the deadline" in ward.visitor("school").get("/school").text


def test_events_that_are_none_and_times_that_lie_cost_nothing() -> None:
    now = 1_795_348_000 * NS

    def event(phase: str, **more: Any) -> bytes:
        told: dict[str, Any] = {"time": rfc3339(now)} | {k: more.pop(k) for k in ("time",) if k in more}
        data: dict[str, Any] = {"severity": "notice", "onvif": COUNTER, "summary": "many"}
        return wire.encode(
            wire.CloudEvent(
                id=incident(1), source="x", type="wardpost.person", subject=incident(1), epoch=incident(9), sequence=1,
                session=1, bootid="f" * 32, monons=1, timeerrms=None,
                data=wire.EventData(incident=incident(1), phase=phase, **(data | more)), **told,  # type: ignore[arg-type]
            )
        )  # fmt: skip

    ahead = rfc3339(now + 10**9 * NS)
    (one,) = gatherings([b"{", event("started", time=ahead, since=ahead), event("ended"), event("updated")], now)
    assert one.since_utc_ns == now and one.ended_utc_ns == now, "what is over stays over"
    assert gatherings([event("started", time="soon"), event("started", onvif="tns1:Other")], now) == ()
    (begun,) = gatherings([event("ended", since=rfc3339(now - 5 * NS))], now)
    assert begun.since_utc_ns == now - 5 * NS


# -- the household ---------------------------------------------------------------------------------------------------------


def test_a_household_must_have_posts_and_few_of_them() -> None:
    assert scope_of(Role.HOUSEHOLD, [OWN]).covers(OWN)
    for posts in ([], [f"gate-{n}" for n in range(5)]):
        with pytest.raises(ConfigError, match="a household sees who viewed the posts it hosts"):
            scope_of(Role.HOUSEHOLD, posts)


def case(ward: Ward, n: int, number: str, *posts: str) -> None:
    with writing(ward.engine, "prepare a test") as db:
        head = {"n": n, "number": number, "reason": "r", "place": "p", "from_utc_ns": 1, "to_utc_ns": 2}
        db.execute(insert(case_head).values(**head))
        db.execute(insert(case_post), [{"case_n": n, "node": post} for post in posts])


def test_a_household_sees_who_looked_who_was_given_footage_whose_case_when_and_why(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR, name="Nguyễn Minh")
    ward.person("home", Role.HOUSEHOLD, OWN)
    case(ward, 1, "45/2026", OWN, OTHER)
    case(ward, 2, "99/2026", OTHER)
    trail = ward.desk.trail
    trail.note("live-began", "minh", address="192.0.2.8", post=OWN, view=incident(7), reason="noise", case="45/2026")
    trail.note("live-ended", "minh", post=OWN, view=incident(7), how="time", seconds=95.0, pictures=None)
    trail.note("live-began", "minh", address="192.0.2.8", post=OTHER, view=incident(8), reason="elsewhere", case="")
    trail.note("viewed", "minh", address="192.0.2.8", what="footage", posts={OWN: ["a", "b"], OTHER: ["c"]})
    trail.note("viewed", "minh", address="192.0.2.8", what="original", posts={OTHER: ["c"]})
    trail.note("footage-requested", "minh", address="x", post=OWN, reason="fight near gate-9 in Secret LANE")
    trail.note("case", "minh", case=1, step=4, act="copied", told={"reason": "court", "node": OTHER})
    trail.note("case", "minh", case=1, step=5, act="transferred", told={"reason": "asked", "recipient": "City police"})
    trail.note(
        "case", "minh", case=2, step=2, act="transferred", told={"reason": "x", "recipient": "Nobody's business"}
    )
    trail.note(
        "bell-hold", "", incident=incident(3), bell=OTHER, posts={OWN: incident(4)}, reason="bell at Secret lane"
    )
    trail.note("live-began", "minh", address="x", post=OWN, view=incident(9), reason="still on", case="")
    visitor = ward.visitor()
    assert visitor.log_in("home").headers["location"] == "/household"
    page = visitor.get("/household").text
    assert f"Who viewed the camera: {PLACE}" in page
    told = [line.strip() for line in page.replace("\n", " ").split("<li>")[1:]]
    assert len(told) == 6
    flat = [" ".join(line.split()) for line in told]
    assert "Live view: Nguyễn Minh, operator. Why: still on" in flat[0]
    assert "Footage kept around an emergency bell: the station by itself" in flat[1]
    assert (
        "Case given to another agency: Nguyễn Minh, operator. Why: asked. Case: 45/2026. Given to: City police"
        in flat[2]
    )
    assert "sent to headquarters: Nguyễn Minh, operator. Why: fight near … in …" in flat[3]
    assert "Footage viewed (2): Nguyễn Minh, operator" in flat[4]
    assert "Live view, 0:01:35: Nguyễn Minh, operator. Why: noise. Case: 45/2026" in flat[5]
    for secret in (OTHER, ELSEWHERE, "99/2026", "business", "elsewhere", "192.0.2.8", "court"):
        assert secret not in page
    (own,) = [line for line in ward.trail() if line["kind"] == "viewed" and line["what"] == "log"]
    assert own["who"] == "home" and own["posts"] == {OWN: ["log"]}, "who looks at the log is on it, too"


def test_the_log_goes_back_page_by_page_and_nothing_is_told_twice(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_log, "LINES_MAX", 7)
    monkeypatch.setattr(view_log, "READ_ROWS", 3)
    monkeypatch.setattr(view_log, "SHOWN_MAX", 4)
    for number in range(25):
        ward.desk.trail.note("footage-held", "minh", post=OWN if number % 5 else OTHER, reason=f"number {number}")
    seen, before = [], None
    for _ in range(30):
        page = view_log.read(ward.engine, OWN, before)
        seen += [one.reason for one in page.views]
        before = page.before
        if before is None:
            break
    assert seen == [f"number {number}" for number in range(24, -1, -1) if number % 5]


def test_a_household_may_look_at_the_posts_that_it_hosts_only(ward: Ward) -> None:
    ward.person("home", Role.HOUSEHOLD, OWN)
    visitor = ward.visitor("home")
    assert visitor.get(f"/household?post={OWN}").status_code == 200
    for path in (f"/household?post={OTHER}", "/household?post=nobody", "/household?before=x", "/household?before=-1"):
        assert visitor.get(path).status_code == 404
    assert visitor.get("/household?before=1").status_code == 200


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("see gate-9", "see …"),
        ("see GATE-9, and gate-99", "see …, and gate-99"),
        ("near Secret Lane.", "near …."),
        ("nothing of them", "nothing of them"),
        ("", ""),
    ],
)
def test_names_of_other_posts_are_left_out(text: str, left: str) -> None:
    assert without(text, {OTHER}, {ELSEWHERE, "x"}) == left


# -- nobody else's data, by any address ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.SCHOOL, Role.HOUSEHOLD])
def test_no_address_tells_a_school_or_a_household_of_anybody_else(ward: Ward, role: Role) -> None:
    ward.person("me", role, OWN)
    ward.person("lan", Role.SUPERVISOR, OTHER, name="Trần Lan")
    for number, node, place in ((1, OWN, PLACE), (2, OTHER, ELSEWHERE)):
        ward.hear(number, node=node, severity="bell", place=place)
        ward.hear(number, node=node, severity="thumbnail", jpeg=base64.b64encode(JPEG).decode())
    ward.desk.trail.note("live-began", "lan", address="192.0.2.9", post=OTHER, view=incident(8), reason="x", case="")
    with writing(ward.engine, "raise alarms") as db:
        for node in (OWN, OTHER):  # numbers 1 and 2, too
            Ledgers.raise_alarm(db, Alarm(node, What.FOOTAGE, f"a file of {node}"), ward.clock.utc().utc_ns)
    visitor = ward.visitor("me")
    walked = 0
    for (method, path), may in MAY.items():
        if path in ("/board/stream", "/logout") or (method, path) == ("POST", "/login"):
            continue
        for post, number in ((OTHER, 2), (OWN, 1)):
            real = path.replace("{post}", post).replace("{incident}", incident(number)).replace("{asset}", "desk.css")
            real = real.replace("{alarm}", str(number))
            visitor.get("/account")
            fields: dict[str, Any] = {"text": "x", "comment": "x", "to": "lan", "verdict": "true"}
            answer = visitor.get(real) if method == "GET" else visitor.post(real, **fields)
            if post == OTHER and real != path.replace("{asset}", "desk.css"):
                assert answer.status_code in (403, 404), f"{method} {real}: {answer.status_code}"
            elif may is not None and role not in may:
                assert answer.status_code == 403, f"{method} {real}: {answer.status_code}"
            for secret in (OTHER, ELSEWHERE, "Trần Lan", incident(2), "192.0.2.9"):
                assert secret not in answer.text, f"{method} {real} tells of {secret}"
            walked += 1
    assert walked == 2 * (len(MAY) - 3)
