"""Nothing is asked of a post but on record: what a person orders at the station's own machine, or on a page, is queued
together with its line of the audit log, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from agent import fleet, wire
from agent.cli import main
from agent.clock import uuid7_maker
from agent.errors import Transient
from agent.station.orders import OrderBook
from agent.station.people.roles import Role
from agent.station.people.trail import Trail
from agent.station.signing import Signer
from agent.station.web.desk import verdict_sender
from tests.fakes.database import KINDS, fresh
from tests.fakes.desk import incident
from tests.fakes.footage_ward import FootageWard

NODE_TOML = """
[node]
site = "ward-7"
id = "gate-2"
data = "/data"
[camera]
driver = "picamera2"
[uplink]
brokers = ["mqtt://hq"]
"""
RANGE = ["--from", "2026-11-22T07:00Z", "--to", "2026-11-22T07:10Z"]
FORM: dict[str, Any] = {"from": "2026-11-22T07:00", "to": "2026-11-22T07:10", "reason": "a theft"}


@pytest.fixture(params=KINDS)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FootageWard]:
    with fresh(request.param, tmp_path) as database:
        made = FootageWard(tmp_path, database)
        made.hear(1, node="gate-2")
        yield made
        made.footage.engine.dispose()
        made.close()


@pytest.fixture
def ward(tmp_path: Path) -> Iterator[FootageWard]:
    with fresh("sqlite", tmp_path) as database:
        made = FootageWard(tmp_path, database)
        made.hear(1, node="gate-2")
        made.person("home", Role.HOUSEHOLD, "gate-2")
        yield made
        made.footage.engine.dispose()
        made.close()


@pytest.fixture
def config(ward: FootageWard) -> str:
    file = ward.folder / "station.toml"
    file.write_text(
        f'[station]\nsite = "ward-7"\nid = "hq"\ndata = "{ward.folder}"\ncommand_key = "{ward.key}"\n'
        f'register = "{ward.folder}"\n[broker]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
        '[uploads]\nlisten = "127.0.0.1:8444"\nhosts = ["hq.example"]\n'
    )
    return str(file)


def orders(ward: FootageWard) -> list[str]:
    with OrderBook(ward.engine) as book:
        return [one.verb for one in book.of("gate-2")]


def lines(ward: FootageWard, before: int) -> list[dict[str, Any]]:
    return ward.trail()[before:]


def refuse(patch: pytest.MonkeyPatch) -> None:
    """From here on the audit log takes nothing."""

    def full(*_: object, **__: object) -> None:
        raise Transient("the disk is full")

    patch.setattr(Trail, "add", full)


def test_a_household_sees_what_was_asked_of_its_camera_at_the_stations_own_machine(
    ward: FootageWard, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.station.order_desk.login", lambda: "root")
    before = len(ward.trail())
    assert main(["send", "--config", config, "--wait-s", "0", *RANGE, "--reason", "I am curious", "gate-2"]) == 0
    (line,) = lines(ward, before)
    assert (line["kind"], line["who"], line["post"]) == ("footage-requested", "account:root", "gate-2")
    assert line["reason"] == "I am curious"
    with OrderBook(ward.engine) as book:
        assert [one.id for one in book.of("gate-2")] == [line["order"]]
    page = ward.visitor("home").get("/household").text
    assert "Footage asked for" in page
    assert "I am curious" in page
    assert "account:root" in page


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["hold", "--node", "gate-2", *RANGE, "--reason", "r"], "footage-held", {"post": "gate-2", "reason": "r"}),
        (["hold", "--node", "gate-2", "--release", "h1"], "order", {"post": "gate-2", "verb": "release"}),
        (
            ["verdict", "--node", "gate-2", "--incident", incident(1), "--verdict", "false", "--reason", "a dog"],
            "verdict",
            {"node": "gate-2", "incident": incident(1), "verdict": "false", "reason": "a dog"},
        ),
        (["signal", "--reason", "fun", "--wait-s", "0", "gate-2", "siren", "10"], "order", {"verb": "siren"}),
        (["doctor", "--node", "gate-2", "--wait-s", "0"], "order", {"post": "gate-2", "verb": "doctor"}),
        (
            ["update", "--url", "https://hq/b", "--number", "7", "--bytes", "9", "--sha256", "ab" * 32,
             "--wait-s", "0", "gate-2"],
            "order",
            {"verb": "update"},
        ),
        (["rollout", "pause"], "rollout", {"verb": "pause"}),
        (["configure", "--file", "node.toml", "--wait-s", "0", "gate-2"], "settings-desired", {"post": "gate-2"}),
    ],
)  # fmt: skip
def test_whatever_is_asked_at_the_stations_own_machine_stands_on_the_audit_log_or_is_not_asked(
    ward: FootageWard,
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    kind: str,
    said: dict[str, str],
) -> None:
    monkeypatch.setattr("agent.station.order_desk.login", lambda: "root")
    monkeypatch.setattr(fleet, "ANSWER_S_MAX", 0.0)
    monkeypatch.chdir(ward.folder)
    (ward.folder / "node.toml").write_text(NODE_TOML)
    command = [arguments[0], *arguments[1:2], "--config", config, *arguments[2:]] if arguments[0] == "rollout" else [
        arguments[0], "--config", config, *arguments[1:]]  # fmt: skip
    before = len(ward.trail())
    with monkeypatch.context() as patch:
        refuse(patch)
        assert main(command) not in (0, None)
    tables = ("command", "request", "desired")
    assert [ward.database.rows(f"select count(*) from {table}") for table in tables] == [[(0,)]] * 3
    main(command)
    (line,) = lines(ward, before)
    assert (line["kind"], line["who"]) == (kind, "account:root")
    assert {name: line[name] for name in said} == said
    assert sum(ward.database.rows(f"select count(*) from {table}")[0][0] for table in tables) == 1


def test_footage_is_not_asked_for_on_a_page_when_the_audit_log_takes_nothing(
    either: FootageWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = either
    ward.person("op", Role.OPERATOR)
    operator = ward.visitor("op")
    operator.get("/footage?post.gate-2=on&from=2026-11-22T07:00&to=2026-11-22T07:10")
    for way in ("request", "hold"):
        with monkeypatch.context() as patch:
            refuse(patch)
            assert operator.post(f"/footage/gate-2/{way}", **FORM).status_code == 503
        assert orders(ward) == []
    for way, verb, kind in (("request", "send", "footage-requested"), ("hold", "hold", "footage-held")):
        assert operator.post(f"/footage/gate-2/{way}", **FORM).status_code == 303
        assert orders(ward)[0] == verb
        assert ward.kinds()[-1] == kind
        before = len(ward.trail())
        assert operator.post(f"/footage/gate-2/{way}", **FORM).status_code == 409, "the same again"
        assert len(ward.trail()) == before
    ward.key.unlink()
    assert operator.post("/footage/gate-2/request", **(FORM | {"to": "2026-11-22T07:11"})).status_code == 409
    assert orders(ward) == ["hold", "send"]
    assert ward.kinds()[-1] == "footage-held"


def test_a_verdict_goes_to_its_post_together_with_its_line_or_not_at_all(
    either: FootageWard, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward = either
    queue = verdict_sender(Signer(site="ward-7", key=str(ward.key), days=14.0), uuid7_maker(ward.clock), ward.clock)
    monkeypatch.setattr(ward, "_send", queue)
    ward.footage.engine.dispose()
    ward.start()
    ward.person("op", Role.OPERATOR)
    operator = ward.visitor("op")
    operator.get(f"/alerts/{incident(1)}")
    verdict: dict[str, Any] = {"verdict": "false", "reason": "a dog"}
    before = len(ward.trail())
    with monkeypatch.context() as patch:
        refuse(patch)
        assert operator.post(f"/alerts/{incident(1)}/verdict", **verdict).status_code == 503
    assert orders(ward) == [], "a post is told nothing that is not on record"
    assert operator.post(f"/alerts/{incident(1)}/verdict", **verdict).status_code == 303
    with OrderBook(ward.engine) as book:
        (order,) = book.of("gate-2")
    assert wire.decode(order.payload, wire.Command).args == {"incident": incident(1), "by": "Op", **verdict}
    (line,) = [line for line in lines(ward, before) if line["kind"] == "verdict"]
    assert (line["who"], line["verdict"], line["order"]) == ("op", "false", order.id), "and the line names the order"
    ward.key.unlink()
    answer = operator.post(f"/alerts/{incident(1)}/verdict", verdict="true", reason="a fox")
    assert answer.status_code == 200
    assert "not sent to the post: station.command_key" in answer.text
    assert orders(ward) == ["verdict"]
    assert [(line["verdict"], line["order"]) for line in lines(ward, before) if line["kind"] == "verdict"] == [
        ("false", order.id), ("true", ""),
    ], "what could not be told to the post is on record all the same, and that it was not"  # fmt: skip


def test_a_book_within_a_transaction_keeps_nothing_that_the_transaction_does_not(either: FootageWard) -> None:
    """Neither an order that is there twice nor what fails behind it leaves a half."""
    command = wire.Command(id="c-1", verb="hold", expires="2027-01-01T00:00:00Z", args={})

    def fails() -> None:
        with either.desk.trail.writing("try") as entry:
            OrderBook.within(entry.db).add("gate-2", command, asked_utc_ns=1, expires_utc_ns=2**60)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert orders(either) == []
    with either.desk.trail.writing("try") as entry:
        book = OrderBook.within(entry.db)
        book.add("gate-2", command, asked_utc_ns=1, expires_utc_ns=2**60)
        with pytest.raises(IntegrityError):
            book.add("gate-2", command, asked_utc_ns=1, expires_utc_ns=2**60)
        assert [one.id for one in book.of("gate-2")] == ["c-1"]
        entry.note("order", "op")
    assert orders(either) == ["hold"]
    assert either.kinds()[-1] == "order"
