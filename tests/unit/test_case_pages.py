"""The pages of cases and inspection, by HTTP on the real desk: who may, what is on record, what a hostile text becomes."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import insert, text
from sqlalchemy.exc import SQLAlchemyError

from agent import tus, wire
from agent.clock import parse_rfc3339
from agent.errors import Transient
from agent.evidence import verify
from agent.recording.index import FOLDER
from agent.sending.plan import check_range
from agent.station.cases import desk as desk_module
from agent.station.cases import reading as reading_module
from agent.station.cases.states import Act, Objection, State
from agent.station.db.engine import writing
from agent.station.db.tables import receipt
from agent.station.inspection.desk import RESULTS
from agent.station.inspection.drawn import drawn_of
from agent.station.inspection.report import DEFINED
from agent.station.inspection.sample import Candidate, draw, draw_files, sender_candidate
from agent.station.orders import OrderBook
from agent.station.people.roles import Role
from agent.station.uploads_admission import Admission, Daily
from agent.station.web.words import load
from agent.types import NS
from agent.uplink.commands import Judge, Run, Verb
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import Visitor
from tests.fakes.evidence_post import NODE, UTC_0, EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

RANGE: dict[str, Any] = {"from": "2023-11-14T22:13:10", "to": "2023-11-14T22:15:00"}
XSS = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
OPENING: dict[str, Any] = {
    "number": "12/2026",
    "reason": "a bicycle was stolen",
    "place": "School gate",
    "posts": POST,
    **RANGE,
}


# Who gets what: the routes of cases once more, by hand.
WORK = {Role.OPERATOR, Role.SUPERVISOR}
MAY: dict[tuple[str, str], set[Role]] = {
    ("GET", "/cases"): WORK | {Role.AUDITOR, Role.ADMIN},
    ("POST", "/cases"): WORK,
    ("GET", "/cases/{case}"): WORK | {Role.AUDITOR, Role.ADMIN},
    ("GET", "/cases/{case}/packages"): WORK,
    ("GET", "/cases/{case}/copies/{copy}"): WORK,
    ("POST", "/cases/{case}/note"): WORK,
    ("POST", "/cases/{case}/view"): WORK | {Role.AUDITOR},
    ("POST", "/cases/{case}/copy"): WORK,
    ("POST", "/cases/{case}/attach"): WORK,
    ("POST", "/cases/{case}/keep"): WORK,
    ("POST", "/cases/{case}/transfer"): {Role.SUPERVISOR},
    ("POST", "/cases/{case}/return"): {Role.SUPERVISOR},
    ("POST", "/cases/{case}/close"): WORK,
    ("POST", "/cases/{case}/reopen"): WORK,
    ("POST", "/cases/{case}/dispose"): {Role.SUPERVISOR, Role.ADMIN},
}


class CaseWard(FootageWard):
    """... of the site that its footage is of."""

    site = NODE.partition("/")[0]


@contextmanager
def headquarters(kind: str, tmp_path: Path, of: type[FootageWard] = CaseWard) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(kind, folder) as database:
        made = of(folder, database)
        made.footage.knows()
        made.footage.knows("gate-9", "Other gate")
        yield made
        made.footage.engine.dispose()
        made.close()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[FootageWard]:
    with headquarters("sqlite", tmp_path) as made:
        yield made


@pytest.fixture(params=KINDS)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    """For the tests that go through every query."""
    with headquarters(request.param, tmp_path) as made:
        yield made


def visitor(ward: FootageWard, role: Role, *posts: str) -> Visitor:
    login = f"{role.value}{len(posts) or ''}"
    ward.person(login, role, *(posts or ([POST] if role in (Role.SCHOOL, Role.HOUSEHOLD) else [])))
    return ward.visitor(login)


def opened(who: Visitor, **more: Any) -> str:
    """A new case; its address."""
    who.get("/cases")
    answer = who.post("/cases", **(OPENING | more))
    assert answer.status_code == 303, answer.text
    where = answer.headers["location"]
    assert who.get(where).status_code == 200
    return str(where)


def act(who: Visitor, where: str, act: str, **fields: Any) -> httpx.Response:
    """As a person does it: by the form of the page as it is now."""
    if "seen" not in fields:
        who.get(where)
        found = re.search(r'name="seen" value="([0-9]+)"', who.page)
        fields["seen"] = found[1] if found else "1"
    return who.post(f"{where}/{act}", **({"reason": "because"} | fields))


def make_packages(ward: FootageWard) -> None:
    """Every package that was asked for, as the station's thread makes them; it is not started here."""
    packer = ward.desk.packer
    while any(job.open for case in range(1, 20) for job in packer.of(case)):
        packer.step(0.0)


def film(ward: FootageWard, folder: Path, of: str = POST) -> None:
    """Four seconds of footage of the post are here, with its ledger and the receipts for it."""
    post = EvidencePost(folder / of, node=f"{ward.site}/{of}")
    post.feed(encoded(seconds=4), receipt_every=20)
    post.seal()
    ward.footage.hear(post, of=of)
    ward.footage.take_all(post, of=of)
    with post.disk.open("ledger/receipts.jsonl") as file, writing(ward.engine, "sign") as db:
        for seq, raw in enumerate(file.read().splitlines(), 1):
            db.execute(insert(receipt).values(node=of, root="a" * 64, seq=seq, utc_ns=UTC_0, body=raw))


def test_a_case_from_report_to_disposal_each_step_by_a_named_person(either: FootageWard, tmp_path: Path) -> None:
    ward = either
    film(ward, tmp_path)
    operator, supervisor, admin = (visitor(ward, role) for role in (Role.OPERATOR, Role.SUPERVISOR, Role.ADMIN))
    where = opened(operator)
    book = OrderBook(ward.engine)
    book.open()
    asked = [wire.decode(one.payload, wire.Command) for one in reversed(book.of(POST))]
    book.close()
    assert [(one.verb, one.args["reason"]) for one in asked] == [("hold", "case 12/2026"), ("send", "case 12/2026")]
    assert asked[0].args["from"] == "2023-11-14T22:13:10.000Z"

    answer = act(operator, where, "view", post=POST, reason="to see who it was")
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"/footage?post.{POST}=on&from=2023-11-14T22")
    assert operator.get(answer.headers["location"]).status_code == 200

    assert act(operator, where, "transfer", recipient="District", reference="D-1").status_code == 403
    assert act(supervisor, where, "transfer", recipient="District", reference="").status_code == 400
    assert act(supervisor, where, "transfer", recipient="District, Capt. Vu", reference="D-77").status_code == 303
    assert act(operator, where, "close").status_code == 409  # it is with another agency
    assert act(supervisor, where, "return").status_code == 303
    assert act(operator, where, "close").status_code == 303
    assert act(operator, where, "dispose", reference="decree 5").status_code == 403
    assert act(admin, where, "dispose", reference="").status_code == 400
    exports = tmp_path / "hq" / "exports"
    exports.mkdir(exist_ok=True)
    n = where.rpartition("/")[2]
    for name in (f"case-{n}-3.zip", f"case-{n}0-3.zip"):  # of this case, and of another
        (exports / name).write_bytes(b"footage")
    assert act(admin, where, "dispose", reference="decree 5").status_code == 303
    assert [path.name for path in exports.iterdir()] == [f"case-{n}0-3.zip"], (
        "disposed of is disposed of in copies, too"
    )
    page = admin.get(where).text
    for said in (
        "decree 5",
        "Disposed of",
        "to see who it was",
        "District, Capt. Vu",
        "their reference D-77",
        "Operator",
    ):
        assert said in page
    told = [line for line in ward.trail() if line["kind"] == "case"]
    assert [(one["act"], one["who"]) for one in told] == [
        ("opened", "operator"),
        ("attached", "operator"),
        ("held", "operator"),
        ("viewed", "operator"),
        ("transferred", "supervisor"),
        ("returned", "supervisor"),
        ("closed", "operator"),
        ("released", "operator"),
        ("disposed", "admin"),
    ]
    assert {one["step"] for one in told} == set(range(1, 10))
    read = [line for line in ward.trail() if line["kind"] == "viewed" and line["what"] == "case"]
    assert {one["who"] for one in read} == {"operator", "supervisor", "admin"}


def test_a_package_is_made_downloaded_and_verified(ward: FootageWard, tmp_path: Path) -> None:
    film(ward, tmp_path)
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    assert act(operator, where, "copy", post=POST, reason="for the prosecutor").status_code == 303
    make_packages(ward)
    found = re.search(rf'href="({where}/copies/[0-9]+)"', operator.get(where).text)
    assert found
    answer = operator.get(found[1])
    assert answer.status_code == 200
    path = tmp_path / "fetched.zip"
    path.write_bytes(answer.content)
    result = verify.verify(path, [])
    assert (result["verdict"], result["findings"]) == ("verified", [])
    assert ward.trail()[-1]["what"] == "case-copy"
    auditor = visitor(ward, Role.AUDITOR)
    assert auditor.get(found[1]).status_code == 403
    assert found[1] not in auditor.get(where).text
    for other in (f"{where}/copies/1", f"{where}/copies/999", "/cases/999/copies/4", f"{where}/copies/0"):
        assert operator.get(other).status_code == 404
    assert act(operator, where, "copy", post="gate-9").status_code == 404
    assert act(operator, where, "copy", post=POST, reason="").status_code == 400


def test_all_posts_of_a_case_are_one_download_that_goes_on_where_it_was_cut_off(
    either: FootageWard, tmp_path: Path
) -> None:
    ward = either
    for of in (POST, "gate-9"):
        film(ward, tmp_path, of)
    operator = visitor(ward, Role.OPERATOR)
    assert 'value="*"' not in operator.get(opened(operator)).text  # of one post: nothing to choose
    where = opened(operator, posts=f"{POST} gate-9")
    assert 'value="*"' in operator.get(where).text
    assert act(operator, where, "copy", post="*", reason="").status_code == 400
    assert act(operator, where, "copy", post="*", reason="for the prosecutor").status_code == 303
    make_packages(ward)
    page = operator.get(where).text
    found = re.search(rf'href="({where}/copies/[0-9]+)"', page)
    assert found
    assert f"{POST} gate-9" in page
    whole = operator.get(found[1])
    assert whole.status_code == 200
    case, copy = re.findall("[0-9]+", found[1])
    assert whole.headers["content-disposition"] == f'attachment; filename="case-{case}-{copy}.zip"'
    viewed = ward.trail()[-1]
    assert (viewed["what"], sorted(viewed["posts"])) == ("case-copy", [POST, "gate-9"])
    half = len(whole.content) // 2
    rest = operator.get(found[1], range=f"bytes={half}-")
    assert rest.status_code == 206
    assert rest.headers["content-range"] == f"bytes {half}-{len(whole.content) - 1}/{len(whole.content)}"
    assert rest.headers["etag"] == whole.headers["etag"]
    assert operator.get(found[1], range="bytes=999999999-").status_code == 416
    path = tmp_path / "fetched.zip"
    path.write_bytes(whole.content[:half] + rest.content)
    result = verify.verify(path, [])
    assert (result["verdict"], len(result["packages"])) == ("verified", 2)


def test_what_cannot_be_packed_is_said_and_is_no_copy(ward: FootageWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    assert act(operator, where, "copy", post=POST).status_code == 303
    make_packages(ward)
    page = operator.get(where).text
    assert "Not made" in page
    assert "no ledger of this post" in page
    assert "copied" not in [line.get("act") for line in ward.trail()]


def test_who_comes_second_is_shown_what_became_of_it(ward: FootageWard) -> None:
    operator, supervisor = visitor(ward, Role.OPERATOR), visitor(ward, Role.SUPERVISOR)
    where = opened(operator)
    supervisor.get(where)
    seen = re.search(r'name="seen" value="([0-9]+)"', supervisor.page)
    assert seen
    assert act(operator, where, "note", reason="the owner was here").status_code == 303
    answer = act(supervisor, where, "close", seen=seen[1])
    assert answer.status_code == 409
    assert "Somebody has acted on this case meanwhile" in answer.text
    assert "the owner was here" in answer.text
    assert "State</dt><dd><strong>open" in answer.text
    assert re.search('value="because"[^>]* id="close-reason"', answer.text)  # what he typed is not lost
    assert answer.text.count('value="because"') == 1
    assert act(supervisor, where, "close").status_code == 303
    late = {"reason": "to the district", "recipient": "District <3>", "reference": "D-77"}
    answer = act(supervisor, where, "transfer", **late)  # and it is closed: there is no such form any more
    assert answer.status_code == 409
    assert "You wrote: to the district · District &lt;3&gt; · D-77" in answer.text
    assert act(supervisor, where, "reopen").status_code == 303
    answer = act(supervisor, where, "transfer", **(late | {"seen": "1"}))
    assert answer.status_code == 409
    for typed in ('value="to the district"', 'value="District &lt;3&gt;"', 'value="D-77"'):
        assert answer.text.count(typed) == 1
    for wrong in ("", "-1", "x", "²", "9" * 10):
        assert act(supervisor, where, "close", seen=wrong).status_code == 400


def test_every_route_with_every_role_and_with_nobody(ward: FootageWard) -> None:
    mine = {(one.method, one.path) for one in ward.desk.routes if one.path.startswith("/cases")}
    assert mine == set(MAY)
    ward.person("leader", Role.SUPERVISOR)
    where = opened(ward.visitor("leader"))
    for role in (None, *Role):
        who = ward.visitor() if role is None else visitor(ward, role)
        who.get("/login" if role is None else "/account")
        page, form = who.page, who.form()
        assert ("/cases" in page) is (role in MAY["GET", "/cases"])  # nor does the menu lead where one may not go
        for (method, path), may in MAY.items():
            real = path.replace("{case}", where.rpartition("/")[2]).replace("{copy}", "1")
            fields: dict[str, Any] = {"form": form, "seen": "99", "post": POST, "reason": "x"}
            answer = who.get(real) if method == "GET" else who.post(real, **fields)
            if role in may:
                assert answer.status_code in (200, 303, 400, 404, 409), (role, method, path)
            elif role is None:
                assert answer.status_code == (303 if method == "GET" else 401), (role, method, path)
            else:
                assert answer.status_code == 403, (role, method, path)
    assert [line["act"] for line in ward.trail() if line["kind"] == "case"] == ["opened", "held"]


def test_a_page_that_shows_the_newest_acts_only_says_so(ward: FootageWard, monkeypatch: pytest.MonkeyPatch) -> None:
    who = visitor(ward, Role.SUPERVISOR)
    where = opened(who)
    for number in range(4):
        act(who, where, "note", reason=f"note {number}")
    assert "are shown" not in who.get(where).text
    monkeypatch.setattr("agent.station.cases.reading.ACTS_SHOWN_MAX", 3)
    page = who.get(where).text
    assert "note 0" not in page and "note 3" in page
    assert re.search(r"Acts ([0-9]+) to ([0-9]+) are shown", page) is not None


def test_an_auditor_reads_all_and_changes_nothing(ward: FootageWard) -> None:
    where = opened(visitor(ward, Role.OPERATOR))
    auditor = visitor(ward, Role.AUDITOR)
    page = auditor.get(where).text
    assert f'action="{where}/view"' in page
    for name in ("note", "copy", "attach", "keep", "transfer", "return", "close", "reopen", "dispose"):
        assert f'action="{where}/{name}"' not in page
        assert act(auditor, where, name, post=POST, recipient="x", reference="x").status_code == 403
    assert act(auditor, where, "view", post=POST, reason="").status_code == 400
    assert auditor.post("/cases", **OPENING).status_code == 403


def test_a_case_of_posts_that_are_not_ones_own_does_not_exist(ward: FootageWard) -> None:
    where = opened(visitor(ward, Role.SUPERVISOR), posts=f"{POST} gate-9")
    stranger = visitor(ward, Role.SUPERVISOR, "gate-9")
    assert OPENING["number"] not in stranger.get("/cases").text
    assert stranger.get(where).status_code == stranger.get("/cases/4711").status_code == 404
    stranger.get("/cases")
    for name in ("note", "view", "copy", "attach", "keep", "transfer", "close", "dispose"):
        answer = stranger.post(f"{where}/{name}", seen="1", reason="x", post="gate-9", recipient="x", reference="x")
        assert answer.status_code == 404, name
    stranger.get("/cases")
    answer = stranger.post("/cases", **OPENING)
    assert answer.status_code == 400
    assert "posts that you may see" in answer.text
    for path in ("/cases/0", "/cases/-1", "/cases/1e3", "/cases/%31%2f..", "/cases/12345678901", "/cases/1/erase"):
        assert stranger.get(path).status_code in (404, 405), path


def test_no_form_of_somebody_elses_acts_on_a_case(ward: FootageWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    for headers in (
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {},
    ):
        assert operator.post(f"{where}/close", headers=headers, seen="3", reason="x").status_code == 403
    ours = {"origin": "null", "sec-fetch-site": "same-origin"}
    answer = operator.send("POST", f"{where}/close", headers=ours, data={"seen": "3", "reason": "x", "form": "0" * 64})
    assert answer.status_code == 403
    assert operator.get(f"{where}/close").status_code == 405
    assert "State</dt><dd><strong>open" in operator.get(where).text


def test_whatever_somebody_writes_is_a_text_on_the_page(ward: FootageWard) -> None:
    operator, supervisor = visitor(ward, Role.OPERATOR), visitor(ward, Role.SUPERVISOR)
    where = opened(operator, number=XSS, reason=XSS, place=XSS)
    act(operator, where, "note", reason=XSS)
    act(supervisor, where, "transfer", reason=XSS, recipient=XSS, reference=XSS)
    for page in (supervisor.get(where).text, supervisor.get("/cases").text):
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "&lt;script&gt;alert(1)" in page


WRONG: list[tuple[dict[str, Any], int]] = [
    ({"reason": "x" * 301}, 400),
    ({"number": "x" * 121}, 400),
    ({"reason": "a\0b"}, 400),
    ({"reason": "\u202eevil"}, 400),
    ({"reason": ""}, 400),
    ({"posts": ""}, 400),
    ({"posts": "../../etc"}, 400),
    ({"posts": " ".join(f"cam-{n}" for n in range(21))}, 400),
    ({"posts": "never-heard-of"}, 400),
    ({"from": "yesterday"}, 400),
    ({"from": RANGE["to"]}, 400),
    ({"to": "2023-11-24T22:15:00"}, 400),
    ({"reason": "x" * 20_000}, 413),
]


def test_what_a_phone_puts_into_a_text_unseen_costs_nobody_his_text(ward: FootageWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator, reason="a\u00adstolen \u200bbike")
    family = "\u200d".join("👨👩👧")
    assert act(operator, where, "note", reason=f"they came {family}").status_code == 303
    page = operator.get(where).text
    assert "astolen bike" in page
    assert "they came 👨👩👧" in page


def test_what_cannot_be_a_case_is_refused_and_none_is_made(ward: FootageWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    operator.get("/cases")
    form = operator.form()
    for wrong, status in WRONG:
        assert operator.post("/cases", **(OPENING | {"form": form} | wrong)).status_code == status, wrong
    assert "There is no case." in operator.get("/cases").text
    assert "case" not in ward.kinds()


def test_a_hold_that_could_not_be_asked_is_said_and_asked_again(ward: FootageWard) -> None:
    key = ward.key.read_bytes()
    ward.key.unlink()
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    assert f"Not yet asked to keep the footage: {POST}." in operator.get(where).text
    assert "station.command_key" in act(operator, where, "keep").text
    ward.key.write_bytes(key)
    assert act(operator, where, "keep").status_code == 303
    assert "Not yet asked" not in operator.get(where).text


def asked_of(ward: FootageWard, of: str = POST) -> list[wire.Command]:
    """What a post was asked, the oldest first."""
    with OrderBook(ward.engine) as book:
        return [wire.decode(one.payload, wire.Command) for one in reversed(book.of(of))]


def answer(ward: FootageWard, verb: str, state: Literal["done", "failed"], detail: str = "", of: str = POST) -> None:
    """The post answers every order of this verb that waits."""
    with OrderBook(ward.engine) as book:
        for one in book.of(of):
            if one.verb == verb and one.state == "waiting":
                assert book.answered(of, wire.Reply(id=one.id, state=state, detail=detail))


def test_a_case_of_three_days_is_held_in_one_sent_and_viewed_a_day_at_a_time(either: FootageWard) -> None:
    operator = visitor(either, Role.OPERATOR)
    days = {"from": "2023-11-14T00:00:00", "to": "2023-11-16T12:00:00"}
    where = opened(operator, **days)
    asked = [(one.verb, one.args["from"][:13], one.args["to"][:13]) for one in asked_of(either)]
    assert asked == [
        ("hold", "2023-11-14T00", "2023-11-16T12"),
        ("send", "2023-11-14T00", "2023-11-15T00"),
        ("send", "2023-11-15T00", "2023-11-16T00"),
        ("send", "2023-11-16T00", "2023-11-16T12"),
    ]
    assert len({one.args["id"] for one in asked_of(either)}) == 4
    for one in asked_of(either):
        if one.verb == "send":
            check_range(*(parse_rfc3339(one.args[name]) for name in ("from", "to")))  # the post takes it
    assert operator.get(where).text.count('<option value="') == 3
    for part, day in ((None, "14"), ("0", "14"), ("2", "16")):
        fields = {} if part is None else {"part": part}
        seen = act(operator, where, "view", post=POST, reason="who came by", **fields)
        assert seen.headers["location"].startswith(f"/footage?post.{POST}=on&from=2023-11-{day}T00")
        assert operator.get(seen.headers["location"]).status_code == 200
    page = operator.get(where).text
    assert re.search("16.11.2023 00:00:00 . 16.11.2023 12:00:00</span>", page)
    before = page.count("<strong>Viewed</strong>")
    for part in ("3", "-1", "x", ""):
        assert act(operator, where, "view", post=POST, reason="who came by", part=part).status_code == 400
    assert operator.get(where).text.count("<strong>Viewed</strong>") == before == 3


def test_what_a_post_does_not_keep_is_said_and_it_is_asked_again(either: FootageWard) -> None:
    operator = visitor(either, Role.OPERATOR)
    where = opened(operator)
    assert "asked to keep it, has not answered yet" in operator.get(where).text
    assert f'action="{where}/keep"' not in operator.page
    answer(either, "send", "done")
    answer(either, "hold", "failed", "hold: the share for holds is <full>")
    page = operator.get(where).text
    assert "does not keep it: hold: the share for holds is &lt;full&gt;" in page
    assert f"may be overwritten there: {POST}." in page
    assert act(operator, where, "keep").status_code == 303
    first, _, again, release = asked_of(either)
    assert release.args == {"hold": first.args["id"]}  # or the archive would keep its range for ever
    assert (again.verb, again.args["from"], again.args["to"]) == ("hold", first.args["from"], first.args["to"])
    assert again.args["id"] != first.args["id"]  # a post remembers what it has refused
    assert "has not answered yet" in operator.get(where).text
    answer(either, "hold", "done")
    assert "(keeps it)" in operator.get(where).text
    assert f'action="{where}/keep"' not in operator.page
    act(operator, where, "close")
    released = [one.args["hold"] for one in asked_of(either) if one.verb == "release"]
    assert released == [first.args["id"], again.args["id"]]


def test_what_a_post_refused_is_asked_again_also_when_another_agency_has_the_case_and_never_when_it_is_over(
    either: FootageWard,
) -> None:
    operator, supervisor = visitor(either, Role.OPERATOR), visitor(either, Role.SUPERVISOR)
    where = opened(operator)
    answer(either, "send", "done")
    answer(either, "hold", "failed", "hold: the share for holds is full")
    assert act(supervisor, where, "transfer", recipient="District", reference="D-1").status_code == 303
    page = operator.get(where).text
    assert f"may be overwritten there: {POST}." in page
    assert f'action="{where}/keep"' in page, "what is said to be owed can be asked for"
    assert act(operator, where, "keep").status_code == 303
    again = asked_of(either)[-2]
    assert again.verb == "hold"
    assert "has not answered yet" in operator.get(where).text
    assert f'action="{where}/keep"' not in operator.page
    assert "with another agency" in operator.page
    answer(either, "hold", "failed", "hold: the share for holds is full")
    assert act(supervisor, where, "return").status_code == 303
    assert f'action="{where}/keep"' in operator.get(where).text
    asked = len(asked_of(either))
    assert act(operator, where, "close").status_code == 303
    assert act(supervisor, where, "dispose", reference="decree 5").status_code == 303
    assert act(operator, where, "keep").status_code == 303
    assert {one.verb for one in asked_of(either)[asked:]} == {"release"}, "nobody is asked to keep it any more"
    assert "may be overwritten there" not in operator.get(where).text


def test_what_a_case_asked_for_is_taken_from_its_post_and_told_on_the_page_of_footage(
    either: FootageWard, tmp_path: Path
) -> None:
    """The post says with each file which order it is for: by the id that it goes by at the post."""
    operator = visitor(either, Role.OPERATOR)
    where = opened(operator)
    page = f"/footage?post.{POST}=on&from={RANGE['from']}&to={RANGE['to']}"
    assert "case 12/2026" in operator.get(page).text
    assert "are here.</" not in operator.page
    assert "files, " not in operator.page
    (send,) = [one for one in asked_of(either) if one.verb == "send"]
    key = load_pem_private_key(either.key.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    verbs = {"send": Verb(lambda _: {}, acting=True, lasting=True, needs_time=False)}
    judge = Judge(site=either.site, node=POST, key=key.public_key(), verbs=verbs)
    topic, now = wire.Topics(either.site, POST).command("send"), either.clock.utc()
    decision = judge.judge(topic, wire.encode(send), utc=now, started_utc_ns=now.utc_ns)
    assert isinstance(decision, Run), "and obeys an order of this id, whenever it was issued"
    order = str(({"id": send.id} | send.args)["id"])  # agent/uplink/worker.py
    post = EvidencePost(tmp_path / POST, node=f"{either.site}/{POST}")
    post.feed(encoded(seconds=4), receipt_every=20)
    post.seal()
    either.footage.hear(post)
    daily = Daily(bytes_max=10**9, clip_bytes_max=0)
    door = Admission(engine=either.engine, clock=either.clock, daily=daily)
    names = list(post.disk.list(FOLDER))
    for name in names:
        door.check(POST, 1000, tus.Footage(name=name, sha256="a" * 64, order=order), [])  # it is let in
        either.footage.take(post, name, order=order)
    with OrderBook(either.engine) as book:
        assert book.answered(POST, wire.Reply(id=order, state="done", result={"summary": "all of it"}))
    shown = operator.get(page).text
    assert f"{len(names)} files, " in shown
    assert "all of it" in shown
    assert act(operator, where, "attach", post=POST).status_code == 303
    assert operator.get(where).text.count("SHA-256") == len(names), "and they are the case's once they are attached"


def test_an_order_of_a_case_that_was_queued_before_a_cut_is_the_same_one(
    either: FootageWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = visitor(either, Role.OPERATOR)

    def cut(*_: object, **__: object) -> None:
        raise Transient("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(desk_module.CaseDesk, "_note_hold", cut)
        where = opened(operator)
        assert act(operator, where, "keep").status_code == 409
    assert [one.verb for one in asked_of(either)] == ["hold", "send"]
    assert act(operator, where, "keep").status_code == 303
    assert [one.verb for one in asked_of(either)] == ["hold", "send"]
    assert [line["act"] for line in either.trail() if line["kind"] == "case"] == ["opened", "held"]


def test_a_post_that_was_dark_for_too_long_is_asked_again(either: FootageWard) -> None:
    operator = visitor(either, Role.OPERATOR)
    where = opened(operator)
    with OrderBook(either.engine) as book:
        book.due(either.clock.utc().utc_ns + 15 * 86_400 * NS)
    assert "did not answer in time; will not send all of it" in operator.get(where).text
    assert act(operator, where, "keep").status_code == 303
    assert act(operator, where, "keep").status_code == 303  # twice: once
    hold, _, again, release, send = asked_of(either)
    assert [one.verb for one in (again, release, send)] == ["hold", "release", "send"]
    assert release.args["hold"] == hold.args["id"]  # should it have come there all the same
    assert "has not answered yet" in operator.get(where).text


def test_what_a_post_does_not_send_is_said_and_asked_for_again_while_it_keeps_all(ward: FootageWard) -> None:
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    for turn in (1, 2):
        answer(ward, "hold", "done")
        answer(ward, "send", "failed", "send: 16 orders are at work already; wait for their end")
        assert "keeps it; will not send all of it: send: 16 orders are at work" in operator.get(where).text
        assert act(operator, where, "keep").status_code == 303
        sends = [one.args["id"] for one in asked_of(ward) if one.verb == "send"]
        assert len(set(sends)) == len(sends) == turn + 1
        assert "(keeps it)" in operator.get(where).text
    assert [one.verb for one in asked_of(ward)].count("hold") == 1
    assert [line["act"] for line in ward.trail() if line["kind"] == "case"] == ["opened", "held", "held", "held"]


def test_the_list_has_pages_and_is_searched(ward: FootageWard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "SHOWN_MAX", 2)
    operator = visitor(ward, Role.OPERATOR)
    for n in range(5):
        opened(operator, number=f"K{n}")

    def listed() -> list[str]:
        return re.findall(r'<a href="/cases/[0-9]+">([^<]+)</a>', operator.page)

    def turned(way: str) -> list[str]:
        found = re.search(rf'rel="{way}" href="([^"]+)"', operator.page)
        assert found
        operator.get(found[1].replace("&amp;", "&"))
        return listed()

    operator.get("/cases")
    assert listed() == ["K4", "K3"]
    assert 'rel="prev"' not in operator.page
    assert [turned("next"), turned("next")] == [["K2", "K1"], ["K0"]]
    assert 'rel="next"' not in operator.page
    assert [turned("prev"), turned("prev")] == [["K2", "K1"], ["K4", "K3"]]
    operator.get("/cases?find=school+k")
    assert [listed(), turned("next")] == [["K4", "K3"], ["K2", "K1"]]
    assert 'value="school k"' in operator.page
    operator.get("/cases?find=k1")
    assert listed() == ["K1"]
    assert "No case has these words." in operator.get("/cases?find=%3Cscript%3E").text
    assert operator.get("/cases?find=" + "x" * 5000).status_code == 200
    for wrong in ("before=x", "after=-1", "before=" + "9" * 12):
        assert operator.get(f"/cases?{wrong}").status_code == 400


def test_many_posts_are_not_all_in_the_page_and_may_be_named_all_the_same(
    ward: FootageWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = visitor(ward, Role.OPERATOR)
    assert '<option value="gate-9">' in operator.get("/cases").text
    monkeypatch.setattr(reading_module, "NAMED_MAX", 1)
    page = operator.get("/cases").text
    assert "datalist" not in page
    assert 'list="posts"' not in page
    opened(operator, posts=f"{POST} gate-9")


def test_what_is_cut_or_is_not_what_its_post_recorded_is_said_on_the_page(
    ward: FootageWard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(ward, tmp_path)
    operator = visitor(ward, Role.OPERATOR)
    where = opened(operator)
    assert "not what its post recorded" not in operator.get(where).text
    assert "belong to it; the first" not in operator.page
    with writing(ward.engine, "judge") as db:
        count = db.execute(text("update footage set state = 'mismatch'")).rowcount
    assert operator.get(where).text.count("not what its post recorded") == count > 1
    monkeypatch.setattr(reading_module.items_of, "__defaults__", (1,))
    monkeypatch.setattr(desk_module, "ATTACHED_MAX", 1)
    assert f"{count} files and alerts belong to it; the first 1 are shown." in operator.get(where).text
    where = opened(operator)
    assert f"There is more of {POST} here" in operator.get(where).text
    assert "1 files and alerts; there was more" in operator.page
    for _ in range(1, count):
        assert act(operator, where, "attach", post=POST).status_code == 303
    assert "There is more of" not in operator.get(where).text


# -- inspection -------------------------------------------------------------------------------------------------------


def test_a_sample_is_drawn_once_repeated_by_anybody_and_its_results_have_names(
    either: FootageWard, tmp_path: Path
) -> None:
    ward = either
    film(ward, tmp_path)
    with writing(ward.engine, "time passes") as db:
        db.execute(text("update footage set received_utc_ns = :now"), {"now": ward.clock.utc().utc_ns})
    auditor = visitor(ward, Role.AUDITOR)
    assert "Nobody has drawn" not in auditor.get("/inspection").text
    assert auditor.post("/inspection/draw").status_code == 303
    assert auditor.post("/inspection/draw").status_code == 303
    drawn = [line for line in ward.trail() if line["kind"] == "inspection-draw"]
    assert [(one["who"], one["week"]) for one in drawn] == [("auditor", "2026-W47")]
    ((body,),) = ward.database.rows("select body from inspection_draw")
    told, kept = json.loads(body), drawn_of(body)
    seed, week = told["seed"], "2026-W47"  # by what is on record alone
    assert tuple(draw(ward.site, week, [Candidate(**one) for one in told["posts"]], 5, seed=seed)) == kept.posts
    posts = [one.node for one in draw(ward.site, week, list(map(sender_candidate, told["senders"])), 5, seed=seed)]
    assert posts == told["drawn_senders"]
    files = [Candidate(**one) for one in told["footage"]]
    assert tuple(draw_files(ward.site, week, posts, files, 5, seed=seed)) == kept.footage
    assert [one["seed"] for one in drawn] == [seed]
    assert seed in auditor.get("/inspection").text
    assert {one.node for one in kept.posts} == {POST, "gate-9"}
    assert {one.node for one in kept.footage} == {POST}

    page = auditor.get("/inspection").text
    assert kept.footage[0].ref in page
    check: dict[str, Any] = {"week": "2026-W47", "kind": "post", "post": POST, "ref": "", "result": "poor", "text": XSS}
    assert auditor.post("/inspection/check", **check).status_code == 303
    page = auditor.get("/inspection").text
    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
    assert "Auditor" in page
    for wrong in (
        {"post": "gate-1"},
        {"kind": "footage", "ref": "0" * 64},
        {"week": "2026-W46"},
    ):
        assert auditor.post("/inspection/check", **(check | wrong)).status_code == 404
    for wrong in ({"result": "splendid"}, {"text": ""}, {"week": "x"}, {"kind": "person"}, {"text": "x" * 301}):
        assert auditor.post("/inspection/check", **(check | wrong)).status_code == 400
    assert [line["result"] for line in ward.trail() if line["kind"] == "inspection-check"] == ["poor"]
    with ward.engine.connect() as db, pytest.raises(SQLAlchemyError, match="append-only"), db.begin():
        db.exec_driver_sql("update inspection_check set result = 'good'")
    operator = visitor(ward, Role.OPERATOR)
    assert operator.post("/inspection/draw").status_code == 403
    supervisor = visitor(ward, Role.SUPERVISOR, "gate-9")
    assert POST not in supervisor.get("/inspection").text
    assert supervisor.post("/inspection/check", **check).status_code == 404


def test_the_report_says_what_happened_and_what_its_figures_mean(either: FootageWard, tmp_path: Path) -> None:
    ward = either
    film(ward, tmp_path)
    operator, auditor = visitor(ward, Role.OPERATOR), visitor(ward, Role.AUDITOR)
    ward.hear(1, node=POST)
    operator.get("/")
    operator.post("/alerts/01900000-0000-7000-8000-000000000001/acknowledge")
    operator.post("/alerts/01900000-0000-7000-8000-000000000001/verdict", verdict="false", reason="a dog")
    ward.hear(2, node=POST)
    operator.get(f"/footage/{POST}/list.m3u8?from=2023-11-14T22:13:10&to=2023-11-14T22:15:00")
    ward.clock.advance(60)
    opened(operator)  # a case that comes afterwards is no reason
    ward.clock.advance(1800)
    period = "from=2026-11-22T00:00:00&to=2026-11-23T00:00:00"
    told = auditor.send("GET", f"/inspection/report.json?{period}").json()
    shares = {name: (one["part"], one["of"]) for name, one in told["figures"].items()}
    assert shares["in_time"] == (1, 2)
    assert shares["false_alerts"] == (1, 1)
    assert shares["met"] == (0, 0)
    assert (shares["caseless_footage"], shares["caseless_live"], shares["caseless"]) == ((2, 2), (0, 0), (2, 2))
    assert told["views_without_case_by"] == {"operator": 2}
    assert told["requests_waiting"] == 1
    assert {one["post"] for one in told["posts"]} == {"gate-9", POST}
    page = auditor.get(f"/inspection/report?{period}").text
    for name in DEFINED:
        assert load()["en"](f"report.what.{name}") in page
    assert 'href="/assets/print.css" media="print"' in page
    rows = list(csv.reader(io.StringIO(auditor.send("GET", f"/inspection/report.csv?{period}").text.lstrip("\ufeff"))))
    assert ["in_time", "1", "2", "0.5000", load()["en"]("report.what.in_time")] in rows
    assert auditor.get("/inspection/report").status_code == 200
    for wrong in ("from=x&to=y", "from=2026-11-22T00:00:00", "from=2020-01-01T00:00:00&to=2026-01-01T00:00:00"):
        assert auditor.get(f"/inspection/report?{wrong}").status_code == 400
    assert ward.kinds().count("report") == 4


def test_the_recorded_share_is_what_the_ledger_tells(ward: FootageWard, tmp_path: Path) -> None:
    film(ward, tmp_path)
    auditor = visitor(ward, Role.AUDITOR)
    told = auditor.send("GET", "/inspection/report.json?from=2023-11-14T22:13:20&to=2023-11-14T22:13:28").json()
    (mine,) = [one for one in told["posts"] if one["post"] == POST]
    assert mine["recorded"] == pytest.approx(4 / 8, abs=0.02)
    assert mine["recorded_is_lower_bound"] is False


def test_every_state_act_and_objection_has_its_words() -> None:
    for words in load().values():
        known = words.keys()
        for key in (
            *(f"case.state.{one.value}" for one in State),
            *(f"case.act.{one.value}" for one in Act),
            *(f"case.no.{one.value}" for one in Objection),
            *(f"inspect.is.{one}" for one in RESULTS),
            *(f"report.what.{one}" for one in DEFINED),
        ):
            assert key in known, key
