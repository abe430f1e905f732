"""What is asked of posts from the page of footage: to send, and to keep it now. Once each, signed, on record, and told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent import wire
from agent.clock import parse_rfc3339
from agent.station.footage.holds import HOLD_DAYS
from agent.station.orders import Order, OrderBook
from agent.station.people.roles import Role
from agent.types import NS
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import Visitor
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard

FORM: dict[str, Any] = {"from": "2026-11-22T11:00:00", "to": "2026-11-22T11:30:00"}
RANGE = "&".join(f"{name}={value}" for name, value in FORM.items())
PAGE = f"/footage?post.{POST}=on&{RANGE}"
DAY_NS = 86_400 * NS
ID = "01900000-0000-7000-8000-{:012x}"


@pytest.fixture(params=KINDS)
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh(request.param, folder) as database:
        made = FootageWard(folder, database)
        for role in Role:
            made.person(role.value, role, *([POST] if role in (Role.SCHOOL, Role.HOUSEHOLD) else []))
        made.person("other-school", Role.SCHOOL, "gate-9")
        made.footage.knows()
        made.footage.knows("gate-9", "Other gate")
        yield made
        made.footage.engine.dispose()
        made.close()


def orders(ward: FootageWard, verb: str) -> list[Order]:
    with OrderBook(ward.engine) as book:
        return [one for one in book.of(POST, 500) if one.verb == verb]


def answer(ward: FootageWard, order: Order, state: str, **result: Any) -> None:
    with OrderBook(ward.engine) as book:
        book.answered(POST, wire.Reply(id=order.id, state=state, **result))  # type: ignore[arg-type]


def hold(who: Visitor, reason: str = "a fight", **other: Any) -> Any:
    who.get(PAGE)
    return who.post(f"/footage/{POST}/hold", reason=reason, **(FORM | other))


# -- hold it now -----------------------------------------------------------------------------------------------------------


def test_a_post_is_asked_to_keep_a_range_and_the_page_tells_what_became_of_it(ward: FootageWard) -> None:
    operator = ward.visitor("operator")
    assert f'formaction="/footage/{POST}/hold"' in operator.get(PAGE).text
    done = hold(operator)
    assert (done.status_code, done.headers["location"]) == (303, PAGE)

    # The post is dark: a signed order waits for it, and the audit log has who, what and why.
    (order,) = orders(ward, "hold")
    command = wire.decode(order.payload, wire.Command)
    assert command.signature and command.args["from"] == "2026-11-22T11:00:00.000Z"
    assert (command.args["to"], command.args["reason"]) == ("2026-11-22T11:30:00.000Z", "Operator: a fight")
    until = parse_rfc3339(command.args["until"])
    assert until == ward.clock.utc().utc_ns + HOLD_DAYS * DAY_NS
    line = ward.trail()[-1]
    assert (line["kind"], line["who"], line["post"], line["reason"], line["order"]) == (
        "footage-held", "operator", POST, "a fight", order.id,
    )  # fmt: skip
    page = operator.get(PAGE).text
    assert "Operator: a fight" in page and "the post is not heard yet" in page and 'data-busy="yes"' in page

    # It comes back and keeps it: until when is told, also to the page's script.
    answer(ward, order, "done", result={"summary": "1800 s are there and held"})
    for text in (operator.get(PAGE).text, operator.get(f"/footage/{POST}/part?{RANGE}").text):
        assert "kept by the post" in text and "1800 s are there and held" in text
        assert "until 22.12.2026" in text and 'data-busy="no"' in text
    other = f"/footage?post.{POST}=on&from=2026-11-22T09:00:00&to=2026-11-22T10:00:00"
    assert "kept by the post" not in operator.get(other).text, "of another time"

    ward.clock.advance((HOLD_DAYS + 1) * 86_400.0)
    operator = ward.visitor("operator")
    text = operator.get(PAGE).text
    assert "kept by the post" not in text and "its time is over" in text
    assert hold(operator).status_code == 303, "asked anew"
    assert len(orders(ward, "hold")) == 2


@pytest.mark.parametrize(
    ("state", "told"),
    [("refused", "refused by the post"), ("failed", "not possible"), ("expired", "not heard in time")],
)
def test_what_did_not_come_of_it_is_told_and_it_may_be_asked_again(ward: FootageWard, state: str, told: str) -> None:
    operator = ward.visitor("operator")
    hold(operator)
    (order,) = orders(ward, "hold")
    if state == "expired":
        ward.clock.advance(15 * 86_400.0)
        with OrderBook(ward.engine) as book:
            book.due(ward.clock.utc().utc_ns)
        operator = ward.visitor("operator")
    else:
        answer(ward, order, state, detail="hold: refused: with it 9 GB would be held")
    text = operator.get(PAGE).text
    assert told in text
    assert ("with it 9 GB would be held" in text) == (state != "expired")
    assert hold(operator).status_code == 303
    assert len({one.id for one in orders(ward, "hold")}) == 2


def test_the_same_hold_is_asked_for_once_and_one_that_was_released_is_none(ward: FootageWard) -> None:
    operator, supervisor = ward.visitor("operator"), ward.visitor("supervisor")
    hold(operator)
    again = hold(supervisor, "the same fight")
    assert again.status_code == 409 and "asked to keep this already" in again.text
    (order,) = orders(ward, "hold")
    answer(ward, order, "done")
    assert hold(operator).status_code == 409, "it is kept"
    assert hold(operator, to="2026-11-22T11:40:00").status_code == 303, "another range is another one"
    assert ward.kinds().count("footage-held") == 2

    # A case is closed, or a technician at the terminal lets it go.
    with OrderBook(ward.engine) as book:
        command = wire.Command(id=ID.format(1), verb="release", expires="2027-01-01T00:00:00Z", args={"hold": order.id})
        book.add(POST, command, asked_utc_ns=1, expires_utc_ns=ward.clock.utc().utc_ns + DAY_NS)
    assert "released" in operator.get(PAGE).text
    assert hold(operator).status_code == 303


def test_who_may_not_ask_for_footage_may_not_have_it_kept_either(ward: FootageWard) -> None:
    may = (Role.OPERATOR, Role.SUPERVISOR, Role.SCHOOL)
    answers = {}
    for n, role in enumerate(Role):
        who = ward.visitor(role.value)
        who.get("/account")
        to = f"2026-11-22T11:{n:02d}:30"  # each its own
        answers[role] = who.post(f"/footage/{POST}/hold", reason="x", **(FORM | {"to": to})).status_code
    assert answers == {role: 303 if role in may else 403 for role in Role}
    other = ward.visitor("other-school")
    other.get("/footage")
    assert other.post(f"/footage/{POST}/hold", reason="x", **FORM).status_code == 404
    assert "/hold" not in ward.visitor("auditor").get(PAGE).text
    operator = ward.visitor("operator")
    assert hold(operator, "").status_code == 400
    assert hold(operator, "x", to=FORM["from"]).status_code == 400
    assert len(orders(ward, "hold")) == len(may)


def test_holds_of_others_are_told_too(ward: FootageWard) -> None:
    """A case and a bell have the post keep it, too: whoever looks sees that it is kept, and why."""
    with OrderBook(ward.engine) as book:
        args = {"id": "case-hold", "from": "2026-11-22T10:50:00Z", "to": "2026-11-22T11:05:00Z", "reason": "case 12"}
        command = wire.Command(id=ID.format(2), verb="hold", expires="2027-01-01T00:00:00Z", args=args)
        book.add(POST, command, asked_utc_ns=1, expires_utc_ns=ward.clock.utc().utc_ns + DAY_NS)
        book.answered(POST, wire.Reply(id=command.id, state="done"))
    text = ward.visitor("auditor").get(PAGE).text
    assert "case 12" in text and "kept by the post" in text and "until it is released" in text
    with OrderBook(ward.engine) as book:
        end = wire.Command(id=ID.format(3), verb="release", expires="2027-01-01T00:00:00Z", args={"hold": "case-hold"})
        book.add(POST, end, asked_utc_ns=1, expires_utc_ns=ward.clock.utc().utc_ns + DAY_NS)
    assert "kept by the post" not in ward.visitor("auditor").get(PAGE).text


def test_a_post_that_no_command_can_be_signed_for_is_not_asked(ward: FootageWard) -> None:
    ward.key.unlink()
    failed = hold(ward.visitor("operator"))
    assert failed.status_code == 409 and "The post was not asked" in failed.text
    assert "footage-held" not in ward.kinds()


# -- the same request is one request ---------------------------------------------------------------------------------------


def ask(who: Visitor, **other: Any) -> Any:
    who.get(PAGE)
    return who.post(f"/footage/{POST}/request", reason="the same", **(FORM | other))


def test_the_same_request_sixty_times_is_one_order(ward: FootageWard) -> None:
    operator = ward.visitor("operator")
    codes = [ask(operator).status_code for _ in range(60)]
    assert codes == [303] + [409] * 59
    (order,) = orders(ward, "send")
    again = ask(ward.visitor("school"))
    assert "has been asked for this already" in again.text and "Operator: the same" in again.text
    assert ward.kinds().count("footage-requested") == 1
    assert ask(operator, to="2026-11-22T11:31:00").status_code == 303, "another range is another request"

    # It is over: whoever asks then asks anew, also within the same minute.
    answer(ward, order, "refused", detail="send: the disk is away")
    assert ask(operator).status_code == 303
    assert len({one.id for one in orders(ward, "send")}) == 3


def test_an_open_request_behind_hundreds_of_others_is_still_the_same(ward: FootageWard) -> None:
    operator = ward.visitor("operator")
    ask(operator)
    with OrderBook(ward.engine) as book:
        for n in range(250):
            command = wire.Command(id=ID.format(n), verb="verdict", expires="2027-01-01T00:00:00Z", args={})
            book.add(POST, command, asked_utc_ns=1, expires_utc_ns=ward.clock.utc().utc_ns + DAY_NS)
            book.answered(POST, wire.Reply(id=command.id, state="done"))
    ward.clock.advance(600)
    assert ask(operator).status_code == 409


def test_those_who_press_at_the_same_moment_ask_once(ward: FootageWard) -> None:
    """Whoever writes waits for the others: who comes second sees the order of who was first."""
    visitors = [ward.visitor(login) for login in ("operator", "supervisor", "school")]
    for who in visitors:
        who.get(PAGE)
    with ThreadPoolExecutor(len(visitors)) as pool:
        for act in ("request", "hold"):
            pressed = [pool.submit(who.post, f"/footage/{POST}/{act}", reason="the same", **FORM) for who in visitors]
            assert sorted(one.result().status_code for one in pressed) == [303, 409, 409]
    assert (len(orders(ward, "send")), len(orders(ward, "hold"))) == (1, 1)
