"""The desk's pages by HTTP: who may what, and what hostile visitors and hostile posts come to."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from agent.errors import ConfigError, Transient
from agent.station.db import tables
from agent.station.db.engine import writing
from agent.station.people.roles import Role
from agent.station.web import words as languages
from agent.station.web.app import table
from agent.station.web.assets import KINDS
from agent.station.web.headers import HEADERS
from agent.station.web.routes import ANYBODY, PATTERNS, Route, check_table
from agent.station.web.settings import WebSettings, listening
from tests.fakes.database import Database
from tests.fakes.desk import JPEG, ORIGIN, PASSWORD, Visitor, Ward, incident

# Who gets what: the table of the routes once more, by hand. A route that is missing here fails the walk.
SEE = {Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL, Role.AUDITOR}
ACT = {Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL}
LEAD = {Role.OPERATOR, Role.SUPERVISOR}
ALL = set(Role)
STAFF = ALL - {Role.HOUSEHOLD}
MAY: dict[tuple[str, str], set[Role] | None] = {  # None: anybody
    ("GET", "/assets/{asset}"): None,
    ("GET", "/login"): None,
    ("POST", "/login"): None,
    ("POST", "/language"): None,
    ("POST", "/logout"): ALL,
    ("GET", "/account"): ALL,
    ("POST", "/account/password"): ALL,
    ("GET", "/"): SEE,
    ("GET", "/board/stream"): SEE,
    ("GET", "/alerts/{incident}"): SEE,
    ("GET", "/alerts/{incident}/picture"): SEE,
    ("GET", "/search"): SEE,
    ("GET", "/search/{incident}/picture"): SEE,
    ("POST", "/alerts/{incident}/acknowledge"): ACT,
    ("POST", "/alerts/{incident}/comment"): ACT,
    ("POST", "/alerts/{incident}/verdict"): LEAD,
    ("POST", "/alerts/{incident}/hand-over"): LEAD,
    ("POST", "/evidence/{alarm}/acknowledge"): ACT,
    ("GET", "/posts"): STAFF,
    ("GET", "/posts/{post}"): STAFF,
    ("GET", "/posts/{post}/picture"): SEE,
    ("GET", "/map"): STAFF,
    ("GET", "/map/posts"): STAFF,
    ("GET", "/to-do"): STAFF - {Role.SCHOOL},
    ("GET", "/dock"): STAFF - {Role.SCHOOL},
    ("GET", "/school"): {Role.SCHOOL},
    ("GET", "/household"): {Role.HOUSEHOLD},
    ("GET", "/schools"): {Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
    ("POST", "/schools/contacts"): {Role.SUPERVISOR, Role.ADMIN},
    ("POST", "/schools/contacts/remove"): {Role.SUPERVISOR, Role.ADMIN},
    ("POST", "/schools/contacts/test"): {Role.SUPERVISOR, Role.ADMIN},
    ("GET", "/inspection"): {Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
    ("POST", "/inspection/draw"): {Role.SUPERVISOR, Role.AUDITOR},
    ("GET", "/inspection/draw.json"): {Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
    ("POST", "/inspection/check"): {Role.SUPERVISOR, Role.AUDITOR},
    ("GET", "/inspection/report"): {Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
    ("GET", "/inspection/report.csv"): {Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
    ("GET", "/inspection/report.json"): {Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN},
}
FIELDS: dict[str, dict[str, Any]] = {
    "/language": {"language": "vi", "back": "/"},
    "/alerts/{incident}/comment": {"text": "seen"},
    "/alerts/{incident}/verdict": {"verdict": "false", "reason": "a poster"},
    "/alerts/{incident}/hand-over": {"to": "supervisor"},
    "/account/password": {"old": PASSWORD, "new": "short", "again": "short"},
    "/schools/contacts": {"school": "school", "contact": "Head", "how": "phone", "address": "113", "after": "0"},
    "/schools/contacts/remove": {"n": "1"},
    "/schools/contacts/test": {"n": "1"},
}
POSTS = {Role.SCHOOL: ("gate-2",), Role.HOUSEHOLD: ("gate-2",)}


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database)
    yield made
    made.close()


@pytest.fixture
def staffed(ward: Ward) -> Ward:
    """One person of each role, named after it, and an alert with a picture at gate-2 and at gate-9."""
    for role in Role:
        ward.person(role.value, role, *POSTS.get(role, ()))
    for number, node in ((1, "gate-2"), (2, "gate-9")):
        ward.hear(number, node=node)
        ward.hear(number, node=node, severity="thumbnail", jpeg=base64.b64encode(JPEG).decode())
    ward.searchable()
    return ward


# -- the table --------------------------------------------------------------------------------------------------------


def test_a_route_that_does_not_say_who_may_cannot_be_made() -> None:
    for may in (frozenset(), None, "operator", {"operator"}, frozenset({"operator"})):
        with pytest.raises((TypeError, ValueError)):
            Route(method="GET", path="/x", handler=print, may=may)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Route(method="GET", path="/x", handler=print)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="nobody has said what"):
        Route(method="GET", path="/x/{anything}", handler=print, may=ANYBODY)
    one = Route(method="GET", path="/x/{incident}", handler=print, may=ANYBODY)
    with pytest.raises(ValueError, match="twice"):
        check_table([one, Route(method="GET", path="/x/{asset}", handler=print, may=ANYBODY)])


def test_the_walk_below_knows_every_route(ward: Ward) -> None:
    assert {(one.method, one.path) for one in ward.desk.routes} == set(MAY)
    served = {(method, one.path) for one in ward.desk.app.routes for method in one.methods - {"HEAD"}}
    assert served == set(MAY), "nothing is served beside the table"
    assert table.__doc__


@pytest.mark.parametrize("who", [None, *Role], ids=lambda who: "nobody" if who is None else who.value)
def test_every_route_with_every_role_and_with_nobody(staffed: Ward, who: Role | None) -> None:
    visitor = staffed.visitor(who.value if who else "")
    for (method, path), may in MAY.items():
        real = path.replace("{incident}", incident(1)).replace("{asset}", "desk.css").replace("{post}", "gate-2")
        real = real.replace("{alarm}", "1")
        if path in ("/logout", "/board/stream"):
            continue  # below: one ends the session, the other never ends
        if path == "/login" and method == "POST":
            continue  # the next tests
        visitor.get("/login" if who is None else "/account")
        answer = visitor.get(real) if method == "GET" else visitor.post(real, **FIELDS.get(path, {}))
        if may is None or who in may:
            assert answer.status_code in (200, 303, 400), f"{method} {path}: {answer.status_code}"
            assert answer.headers.get("location", "") != "/login" or path == "/language"
        elif who is None:
            assert answer.status_code == (303 if method == "GET" else 401), f"{method} {path}"
            assert method == "POST" or answer.headers["location"] == "/login"
            assert answer.text == "" or "picture" not in answer.text
        else:
            assert answer.status_code == 403, f"{method} {path}: {answer.status_code}"
    stream = None if who in SEE else visitor.get("/board/stream")
    assert stream is None or stream.status_code == (401 if who is None else 403)
    visitor.get("/login" if who is None else "/account")
    assert visitor.post("/logout").status_code == (401 if who is None else 303)
    assert visitor.get("/account").headers["location"] == "/login"


def test_a_handler_that_fails_says_nothing_of_why(staffed: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = staffed.visitor("operator")
    for error, status in (
        (Transient("/var/secret: disk"), 503),
        (ZeroDivisionError("secret"), 500),
        (ConfigError("secret"), 500),
    ):

        def fail(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(staffed.desk.alerts, "board", fail)
        answer = visitor.get("/")
        assert answer.status_code == status and "secret" not in answer.text and "Traceback" not in answer.text
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]


# -- logging in -------------------------------------------------------------------------------------------------------


def test_logging_in_and_out_and_what_is_on_record(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    visitor = ward.visitor()
    assert visitor.log_in("minh", "a wrong password").status_code == 403
    same = re.sub(r'value="[^"]*"', "", visitor.log_in("nobody", PASSWORD).text)
    assert same == re.sub(r'value="[^"]*"', "", visitor.log_in("minh", "wrong again").text), "no word on who exists"
    assert visitor.log_in("minh").status_code == 303
    assert visitor.get("/").status_code == 200
    token = visitor.cookies["__Host-wardpost"]
    assert visitor.post("/logout").status_code == 303
    visitor.cookies.set("__Host-wardpost", token, domain="desk.example")
    assert visitor.get("/").status_code == 303, "the token is of no use any more"
    said = [(line["kind"], line["who"], line.get("login")) for line in ward.trail() if line["kind"].startswith("log")]
    refused = [("login-refused", "", "minh"), ("login-refused", "", "nobody"), ("login-refused", "", "minh")]
    assert said == [*refused, ("login", "minh", None), ("logout", "minh", None)]
    assert all(line["address"] == "192.0.2.7" for line in ward.trail() if line["kind"].startswith("log"))


def test_cookies_are_for_this_host_over_tls_and_not_for_scripts(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    visitor = ward.visitor()
    visitor.get("/login")
    answer = visitor.post("/login", login="minh", password=PASSWORD)
    for cookie in answer.headers.get_list("set-cookie"):
        assert cookie.startswith("__Host-") and "Domain" not in cookie
        assert all(word in cookie for word in ("Secure", "HttpOnly", "Path=/", "SameSite=strict"))


def test_guessing_gets_slower_and_costs_the_station_nothing(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    visitor = ward.visitor()
    answers = [visitor.log_in("minh", f"guess {number} of many") for number in range(8)]
    assert [one.status_code for one in answers] == [403] * 4 + [429] * 4
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert visitor.log_in("minh").status_code == 429, "also the right one waits"
    assert ward.kinds().count("login-refused") == 4, "what is not looked at is not written down"
    ward.clock.advance(31)
    assert visitor.log_in("minh").status_code == 303


def test_a_session_that_somebody_planted_is_not_the_one_that_is_used(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    ward.person("mallory", Role.OPERATOR)
    planted = ward.desk.sessions.begin("mallory")
    victim = ward.visitor()
    victim.get("/login")
    victim.cookies.set("__Host-wardpost", planted, domain="desk.example")
    victim.get("/account")
    victim.post("/login", login="minh", password=PASSWORD)
    assert victim.cookies["__Host-wardpost"] != planted
    assert "Minh" in victim.get("/account").text
    assert ward.desk.sessions.find(planted).person.login == "mallory"
    for fixed in ("A" * 43, "x", ""):
        fresh_one = ward.visitor()
        fresh_one.cookies.set("__Host-wardpost", fixed, domain="desk.example")
        fresh_one.log_in("minh")
        assert fresh_one.cookies["__Host-wardpost"] != fixed


def test_a_new_password_ends_every_session_and_the_old_one_is_asked_for(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    here, there = ward.visitor("minh"), ward.visitor("minh", address="192.0.2.99")
    here.get("/account")
    change: dict[str, Any] = {"new": "three geese on the roof", "again": "three geese on the roof"}
    assert here.post("/account/password", old="not this one", **change).status_code == 403
    assert here.post("/account/password", old=PASSWORD, new="abcdefghijkl", again="other").status_code == 400
    assert here.post("/account/password", old=PASSWORD, new="password123", again="password123").status_code == 400
    assert there.get("/").status_code == 200
    assert here.post("/account/password", old=PASSWORD, **change).status_code == 303
    assert here.get("/").status_code == there.get("/").status_code == 303
    assert ward.visitor().log_in("minh").status_code == 403
    assert ward.visitor().log_in("minh", "three geese on the roof").status_code == 303
    assert "password-changed" in ward.kinds()


def test_an_old_hash_is_made_anew_when_its_password_is_known(ward: Ward) -> None:
    from argon2 import PasswordHasher

    from agent.station.people.passwords import Passwords

    ward.person("minh", Role.OPERATOR)
    before = ward.desk.registry.password("minh")
    ward.passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    ward.start()
    ward.visitor("minh")
    after = ward.desk.registry.password("minh")
    assert after != before and "m=16,t=2" in after
    assert ward.visitor("minh").get("/").status_code == 200


# -- forged requests --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": ORIGIN}, 303),
        ({"origin": ORIGIN, "sec-fetch-site": "same-origin"}, 303),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "same-origin"}, 303),
        ({}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "https://desk.example.evil.example"}, 403),
        ({"origin": "http://desk.example"}, 403),
        ({"origin": ORIGIN, "sec-fetch-site": "cross-site"}, 403),
        ({"origin": ORIGIN, "sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-origin"}, 403),
    ],
)
def test_only_our_own_pages_may_act(staffed: Ward, headers: dict[str, str], status: int) -> None:
    visitor = staffed.visitor("operator")
    path = f"/alerts/{incident(1)}/acknowledge"
    assert visitor.post(path, headers=headers).status_code == status


def test_a_form_needs_the_token_of_its_own_session(staffed: Ward) -> None:
    visitor, other = staffed.visitor("operator"), staffed.visitor("supervisor")
    path = f"/alerts/{incident(1)}/acknowledge"
    for token in ("", "0" * 64, other.form(), visitor.form()[:-1], visitor.form().upper() + "x"):
        assert visitor.post(path, form=token).status_code == 403, token
    assert "acknowledged" not in staffed.kinds()
    assert visitor.post(path).status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "desk.example:444", "", "desk.example.evil.example", "127.0.0.1"])
def test_another_name_for_this_desk_is_refused(staffed: Ward, host: str) -> None:
    """DNS rebinding: the browser believes that it talks to evil.example."""
    visitor = staffed.visitor("operator")
    answer = visitor.get("/", host=host)
    assert answer.status_code == 421 and "gate-2" not in answer.text


def test_bodies_are_bounded_and_of_one_kind(staffed: Ward) -> None:
    visitor = staffed.visitor("operator")
    path = f"/alerts/{incident(1)}/comment"
    ours = {"origin": ORIGIN}
    form = f"form={visitor.form()}"
    urlencoded = ours | {"content-type": "application/x-www-form-urlencoded"}

    def send(content: bytes, headers: dict[str, str] = urlencoded) -> int:
        return visitor.send("POST", path, headers=headers, content=content).status_code

    assert send(f"{form}&text={'x' * 20_000}".encode()) == 413
    assert send(b"&".join(b"f%d=1" % number for number in range(200))) == 400
    assert send(f"{form}&text=a&text=b".encode()) == 400, "which of the two is meant?"
    assert send(f"{form}&text=%ff%fe".encode()) == 400
    assert send(form.encode() + b"&text=\xff") == 400
    assert send(b'{"text": "x"}', ours | {"content-type": "application/json"}) == 415
    assert send(b"x", ours | {"content-type": "multipart/form-data; boundary=x"}) == 415
    assert send(f"{form}&text={'x' * 301}".encode()) == 400, "longer than a comment may be"
    assert send(f"{form}&text=+++".encode()) == 400
    assert send(f"{form}&text=a%00b".encode()) == 400
    assert "comment" not in staffed.kinds()
    assert send(f"{form}&text=seen".encode()) == 303


@pytest.mark.parametrize(
    "path",
    [
        "/assets/..%2fwords.en.json", "/assets/%2e%2e/gate.py", "/assets/desk.css%00", "/assets/words.en.json",
        "/assets//etc/passwd", "/assets/",  "/alerts/1", f"/alerts/{incident(1).replace('7000', 'A000')}",
        f"/alerts/{incident(1)}%0d%0aSet-Cookie:x=1",  "/login/",
        "/alerts/' or '1'='1", "/static/board.js", "/.git/config", "/docs", "/openapi.json",
    ],
)  # fmt: skip
def test_tricks_with_paths_find_nothing(staffed: Ward, path: str) -> None:
    answer = staffed.visitor("operator").get(path)
    assert answer.status_code in (404, 405), answer.status_code
    assert "evil" not in str(answer.headers) and "x=1" not in str(answer.headers)


def test_methods_that_are_not_in_the_table_do_nothing(staffed: Ward) -> None:
    visitor = staffed.visitor("operator")
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert visitor.send(method, f"/alerts/{incident(1)}").status_code == 405
    assert visitor.get(f"/alerts/{incident(1)}/acknowledge").status_code == 405, "a link does not act"
    assert "acknowledged" not in staffed.kinds()


# -- somebody else's alert --------------------------------------------------------------------------------------------


def test_a_school_finds_nothing_of_another_post_by_any_way(staffed: Ward) -> None:
    school = staffed.visitor("school")
    theirs, mine = incident(2), incident(1)
    board = school.get("/").text
    assert mine in board and theirs not in board and "gate-9" not in board
    assert school.get(f"/alerts/{mine}").status_code == 200
    before = [line for line in staffed.trail() if "gate-9" in json.dumps(line) and line["who"] == "school"]
    missing = school.get(f"/alerts/{incident(77)}")
    answer = school.get(f"/alerts/{theirs}")
    assert (answer.status_code, answer.text) == (missing.status_code, missing.text) and answer.status_code == 404
    assert school.get(f"/alerts/{theirs}/picture").status_code == 404
    assert school.get(f"/alerts/{mine}/picture").content == JPEG
    school.get("/")
    for act in ("acknowledge", "comment"):
        assert school.post(f"/alerts/{theirs}/{act}", text="hello").status_code == 404
    assert [line for line in staffed.trail() if "gate-9" in json.dumps(line) and line["who"] == "school"] == before


def test_a_scope_that_is_narrowed_holds_at_once(staffed: Ward) -> None:
    from agent.station.people.roles import scope_of

    school = staffed.visitor("school")
    staffed.desk.registry.set_role("school", Role.SCHOOL, scope_of(Role.SCHOOL, ["gate-9"]), by="account:test")
    assert school.get(f"/alerts/{incident(1)}/picture").status_code == 303
    school.log_in("school")
    assert school.get(f"/alerts/{incident(1)}/picture").status_code == 404


# -- hostile posts ----------------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"


def test_what_a_post_says_is_text_wherever_it_stands(ward: Ward) -> None:
    ward.person("boss", Role.SUPERVISOR, name="Boss")
    one = ward.hear(1, place=EVIL, summary=EVIL, time="<b>now</b>")
    two = ward.hear(2, place="a\r\nSet-Cookie: x=1", summary="data: x\n\nevent: left\n\n", time="2026-11-22T07:02:11Z")
    visitor = ward.visitor("boss")
    visitor.post(f"/alerts/{one}/comment", text=EVIL)
    part = visitor.send(
        "POST", f"/alerts/{one}/acknowledge",
        headers={"origin": ORIGIN, "x-wardpost-part": "card"}, data={"form": visitor.form()},
    )  # fmt: skip
    pages = [
        visitor.get("/").text,
        visitor.get(f"/alerts/{one}").text,
        part.json()["html"],
        visitor.get(f"/alerts/{two}").text,
    ]
    for page in pages:
        assert "<script>alert" not in page and "<img src=x" not in page and "&gt;49" not in page
        assert "<b>now" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages[0] and "{{7*7}}" in pages[0]
    assert part.headers["content-type"] == "application/json"


def test_no_text_turns_the_direction_of_what_is_read(ward: Ward) -> None:
    """By such a character `gate` is shown as `etag`, and what stands behind it with it. Letters and marks stay."""
    turning = "\u202e\u2066\u200f\u061c"
    ward.person("boss", Role.SUPERVISOR, name="Boss" + turning)
    with writing(ward.engine, "a post") as db:
        place = f"Cổng {turning}trường"
        db.execute(insert(tables.node).values(
            node="gate-2", place=place, seen_boot_id="b" * 32, seen_ns=1, seen_utc_ns=1, state_since_utc_ns=1,
        ))  # fmt: skip
    one = ward.hear(1, place=f"Cổng {turning}trường", summary=f"{turning}Người lạ")
    visitor = ward.visitor("boss")
    visitor.post(f"/alerts/{one}/comment", text="xong")
    for path in ("/", f"/alerts/{one}", "/posts", "/posts/gate-2", "/map", "/map/posts"):
        answer = visitor.get(path)
        assert answer.status_code == 200 and not set(turning) & set(answer.text), path
        assert "Cổng trường" in answer.text or path == "/map/posts", path
    assert "Người lạ" in visitor.get("/").text


def test_a_picture_is_only_ever_a_picture(staffed: Ward) -> None:
    answer = staffed.visitor("operator").get(f"/alerts/{incident(1)}/picture")
    assert answer.headers["content-type"] == "image/jpeg" and answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_a_name_of_a_person_is_text_too(ward: Ward) -> None:
    ward.person("x", Role.OPERATOR, name="<i>Bobby</i>")
    visitor = ward.visitor("x")
    one = ward.hear(1)
    visitor.post(f"/alerts/{one}/acknowledge")
    for page in ("/", f"/alerts/{one}", "/account"):
        text = visitor.get(page).text
        assert "<i>Bobby" not in text and "&lt;i&gt;Bobby" in text


# -- acts -------------------------------------------------------------------------------------------------------------


def test_the_second_to_acknowledge_sees_who_was_first(staffed: Ward) -> None:
    one, two = staffed.visitor("operator"), staffed.visitor("supervisor")
    path = f"/alerts/{incident(1)}/acknowledge"
    assert one.post(path).status_code == 303
    answer = two.post(path)
    assert answer.status_code == 409 and "Operator has it" in answer.text
    assert one.post(path).status_code == 303, "the first presses again: nothing changes"
    assert staffed.kinds().count("acknowledged") == 1


def test_a_verdict_that_was_not_seen_is_not_overwritten(staffed: Ward) -> None:
    """Two look at the same alert: the second is told what the first said, and may say otherwise when he knows it."""
    one, two = staffed.visitor("operator"), staffed.visitor("supervisor")
    path = f"/alerts/{incident(1)}"

    def seen(visitor: Visitor) -> str:
        visitor.get(path)
        (found,) = re.findall(r'name="seen" value="(\d+)"', visitor.page)
        return str(found)

    first, second = seen(one), seen(two)
    assert one.post(f"{path}/verdict", verdict="true", reason="a burglar", seen=first).status_code == 303
    answer = two.post(f"{path}/verdict", verdict="false", reason="a poster", seen=second)
    assert answer.status_code == 409
    assert "Operator has judged it meanwhile" in answer.text and "True alert: a burglar" in answer.text
    assert 'value="a poster"' in answer.text, "what he wrote is not lost"
    assert [sent[2] for sent in staffed.sent] == ["true"], "nor is it sent to the post"
    assert staffed.kinds().count("verdict") == 1
    answer = two.post(f"{path}/verdict", verdict="false", reason="a poster")
    assert answer.status_code == 409, "who says nothing of what he saw has seen nothing"
    assert one.post(f"{path}/verdict", verdict="true", reason="a burglar", seen=first).status_code == 303, "his own"

    assert two.post(f"{path}/verdict", verdict="false", reason="a poster", seen=seen(two)).status_code == 303
    assert [sent[2] for sent in staffed.sent] == ["true", "true", "false"]
    assert two.post(f"{path}/verdict", verdict="false", seen="x").status_code == 400
    assert "Supervisor: false alert" in two.get(path).text or "False alert: a poster" in two.page


def test_a_verdict_goes_to_the_post_with_the_persons_name(staffed: Ward) -> None:
    visitor = staffed.visitor("operator")
    assert visitor.post(f"/alerts/{incident(1)}/verdict", verdict="false", reason=" a \n poster ").status_code == 303
    assert staffed.sent == [("gate-2", incident(1), "false", "a poster", "Operator")]
    for bad in ("maybe", "", "TRUE"):
        assert visitor.post(f"/alerts/{incident(1)}/verdict", verdict=bad).status_code == 400
    staffed.broken_key = "station.command_key: not set; nodes obey only what is signed by the key they know"
    answer = visitor.post(f"/alerts/{incident(2)}/verdict", verdict="true", reason="")
    assert answer.status_code == 200 and "not sent to the post: station.command_key: not set." in answer.text
    assert [line["verdict"] for line in staffed.trail() if line["kind"] == "verdict"] == ["false", "true"]


def test_what_is_seen_is_on_record_once_a_session_and_before_it_is_shown(
    staffed: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = staffed.visitor("auditor")
    for _ in range(3):
        visitor.get("/")
        visitor.get(f"/alerts/{incident(1)}/picture")
        visitor.get(f"/alerts/{incident(1)}")
    seen = [(line["what"], line["posts"]) for line in staffed.trail() if line["kind"] == "viewed"]
    assert seen == [
        ("picture", {"gate-2": [incident(1)], "gate-9": [incident(2)]}),
        ("alert", {"gate-2": [incident(1)]}),
    ]
    fresh_one = staffed.visitor("auditor")
    assert len([line for line in staffed.trail() if line["kind"] == "viewed"]) == 3

    def refuse(*_: Any, **__: Any) -> None:
        raise Transient("the disk is full")

    monkeypatch.setattr(staffed.desk.trail, "note", refuse)
    assert fresh_one.get(f"/alerts/{incident(1)}").status_code == 503, "no record, no picture"


def test_the_times_are_told_with_their_error(ward: Ward) -> None:
    ward.person("minh", Role.OPERATOR)
    ward.hear(1, timeerrms=2500)
    ward.hear(2, timeerrms=None)
    ward.hear(3, time="yesterday")
    ward.hear(4, historical=True)
    board = ward.visitor("minh").get("/").text
    assert "22.11.2026 07:02:11" in board and "±\u00a03\u00a0s" in board
    assert "not verified" in board and "told no time" in board and "Delivered late" in board


def test_local_time_is_that_of_the_settings(tmp_path: Path, database: Database) -> None:
    ward = Ward(tmp_path, database, time_zone="Asia/Ho_Chi_Minh")
    ward.person("minh", Role.OPERATOR)
    ward.hear(1)
    assert "22.11.2026 14:02:11" in ward.visitor("minh").get("/").text
    ward.close()


# -- languages --------------------------------------------------------------------------------------------------------


def test_every_language_says_everything_with_the_same_placeholders() -> None:
    found = languages.load()
    assert set(found) >= {"en", "vi"}
    for words in found.values():
        assert words.keys() == found["en"].keys(), words.language
        for key in sorted(words.keys()):
            holes = [set(re.findall(r"\{(\w*)\}", one._texts[key])) for one in (words, found["en"])]
            assert holes[0] == holes[1], f"{words.language}: {key}"
            assert words._texts[key].strip()


def test_what_a_post_is_called_in_vietnamese_is_one_noun() -> None:
    texts = languages.load()["vi"]._texts
    others = re.compile("điểm (?:camera|giám sát|nào)|(?:tại|từng) điểm", re.IGNORECASE)
    assert {key: text for key, text in texts.items() if others.search(text)} == {}
    assert sum("trạm" in text.lower() for text in texts.values()) > 50


def test_every_text_is_used_and_every_text_that_is_used_is_there() -> None:
    folder = Path(languages.__file__).parent
    code = "\n".join(path.read_text(encoding="utf-8") for path in [*folder.rglob("*.html"), *folder.rglob("*.py")])
    keys = languages.load()["en"].keys()
    asked = set(re.findall(r'words\("([a-z0-9.-]+)"', code))
    begun = tuple(key for key in asked if key.endswith("."))  # words("role." ~ role)
    assert {key for key in asked if key not in keys and not any(one.startswith(key) for one in keys)} == set()
    made = set(re.findall(r'f"((?:[a-z-]+\.)+)\{', code))  # f"case.no.{why}"
    built = (*begun, *made, "state.true", "state.false")
    spare = {key for key in keys if key not in asked and not key.startswith(built) and f'"{key}"' not in code}
    assert spare == set(), f"nobody says {spare}"


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "vi-VN,vi;q=0.9,en;q=0.8", "vi"),
        ("", "fr,en;q=0.5,vi;q=0.7", "vi"),
        ("en", "vi", "en"),
        ("xx", "", "en"),
        ("../../etc", "de;q=1", "en"),
        ("", "vi;q=0.1;q=2,," + "a" * 9000, "en"),
    ],
)
def test_the_language_is_the_persons_choice_then_the_browsers(cookie: str, accepted: str, language: str) -> None:
    assert languages.chosen(languages.load(), cookie, accepted).language == language


def test_the_language_is_changed_by_a_form_and_kept(ward: Ward) -> None:
    visitor = ward.visitor()
    visitor.get("/login")
    assert visitor.post("/language", language="vi", back="/login").headers["location"] == "/login"
    assert "Đăng nhập" in visitor.get("/login").text and 'lang="vi"' in visitor.page
    assert visitor.post("/language", language="vi", back="https://evil.example").headers["location"] == "/"
    assert visitor.post("/language", language="xx", back="/").status_code == 400


# -- headers and settings ---------------------------------------------------------------------------------------------


def test_every_answer_carries_the_headers_and_no_page_has_inline_code(staffed: Ward) -> None:
    visitor = staffed.visitor("supervisor")
    paths = [
        "/",
        "/account",
        f"/alerts/{incident(1)}",
        f"/alerts/{incident(1)}/picture",
        "/none",
        *(f"/assets/{name}" for name in KINDS),
    ]
    for path in paths:
        answer = visitor.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, f"{path}: {name}"
        if answer.headers["content-type"].startswith("text/html"):
            assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", answer.text), path
            assert not re.search(r'(?:src|href|action)="(?:https?:)?//', answer.text), path
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert all(PATTERNS["asset"].fullmatch(name) for name in KINDS)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"listen": "0.0.0.0:8080", "behind_proxy": True}, "loopback only"),
        ({"listen": "[::]:8080", "behind_proxy": True}, "loopback only"),
        ({"listen": "127.0.0.1:8080"}, "desk-cert"),
        ({"listen": "0.0.0.0:8443", "certificate": "/a"}, "both or neither"),
        ({"listen": "127.0.0.1:1", "certificate": "/a", "key": "/b", "behind_proxy": True}, "without a certificate"),
        ({"listen": "localhost:8443", "behind_proxy": True}, "no address"),
        ({"listen": "127.0.0.1:99999", "behind_proxy": True}, "no address"),
        ({"listen": "127.0.0.1", "behind_proxy": True}, "no address"),
        ({"origin": "http://desk.example", "behind_proxy": True}, "web.origin"),
        ({"origin": "https://desk.example/", "behind_proxy": True}, "web.origin"),
        ({"origin": "https://Desk.example", "behind_proxy": True}, "web.origin"),
        ({"origin": "*", "behind_proxy": True}, "web.origin"),
    ],
)
def test_pages_are_never_served_in_the_clear_where_somebody_could_listen(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        listening(WebSettings(**{"origin": ORIGIN} | settings))


def test_what_is_served_safely_is_let_through() -> None:
    assert listening(WebSettings(origin=ORIGIN, behind_proxy=True)).secure is False
    at = listening(WebSettings(origin=ORIGIN, listen="[::]:8443", certificate="/a", key="/b"))
    assert (at.host, at.port, at.secure) == ("::", 8443, True)


def test_behind_a_proxy_the_address_is_what_the_proxy_says_and_not_the_visitor(ward: Ward) -> None:
    visitor = ward.visitor()
    visitor.get("/login")
    forged = {"origin": ORIGIN, "x-forwarded-for": "10.9.9.9, 203.0.113.5"}
    visitor.post("/login", headers=forged, login="minh", password="a guess, no more")
    assert ward.trail()[-1]["address"] == "203.0.113.5"
