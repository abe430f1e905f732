"""Verdicts of headquarters: one line on the ledger each, whatever comes twice or makes no sense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import wire
from agent.cli import main
from agent.clock import uuid7_maker
from agent.errors import Corrupt, Transient
from agent.station.orders import OrderBook
from agent.store.store import Origin, Store
from agent.types import Verdict
from agent.verdicts import VerdictDesk
from tests.fakes.clock import FakeClock
from tests.fakes.database import engine_in

INCIDENT = "0192f000-0000-7000-8000-000000000001"
GOOD = {"id": "c1", "incident": INCIDENT, "verdict": "false", "reason": " rain on the lens ", "by": "Minh"}


class Node:
    """A store in a folder, with a ledger's journal; `again` is a restart."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = Store(
            folder / "node.db",
            clock=self.clock,
            new_id=uuid7_maker(self.clock),
            origin=Origin("ward", "cam-7"),
            outbox_rows_max=100,
            event_rows_max=100,
        )
        self.again()

    def again(self) -> None:
        self.store.close()
        self.store.open()
        self.desk = VerdictDesk(keep=self.store.add_verdict, utc_ns=lambda: self.clock.utc().utc_ns)

    def noted(self) -> list[dict[str, Any]]:
        return [json.loads(fact.body) for fact in self.store.facts(1000) if fact.kind == "verdict"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.store.close()


def test_a_verdict_is_one_record_and_says_who_and_why(node: Node) -> None:
    assert node.desk.take(GOOD, "headquarters")["verdict"] == "false"
    assert node.noted() == [GOOD | {"reason": "rain on the lens", "asker": "headquarters"}]
    answer = node.desk.take(GOOD, "headquarters")
    assert answer["verdict"] == "false" and len(node.noted()) == 1, "the same command came again"
    node.again()
    assert node.desk.take(GOOD, "headquarters") == answer, "and again after a restart: it is answered as before"
    assert len(node.noted()) == 1
    node.desk.take(GOOD | {"id": "c2", "verdict": "true"}, "headquarters")
    assert len(node.noted()) == 2, "somebody has thought again"
    assert [said.verdict for said in node.store.verdicts()] == ["false", "true"], "the last one counts"


def test_what_the_disk_refused_is_taken_when_it_comes_again() -> None:
    kept: list[Verdict] = []
    full = [True]

    def keep(verdict: Verdict) -> bool:
        if full:
            full.pop()
            raise Transient("the disk is full")
        kept.append(verdict)
        return True

    desk = VerdictDesk(keep=keep, utc_ns=lambda: 0)
    with pytest.raises(Transient):
        desk.take(GOOD, "hq")
    desk.take(GOOD, "hq")
    assert len(kept) == 1


def test_memory_is_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.store.store.VERDICT_ROWS_MAX", 10)
    for number in range(25):
        node.desk.take(GOOD | {"id": f"c{number}"}, "hq")
    assert [said.id for said in node.store.verdicts()] == [f"c{number}" for number in range(15, 25)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"incident": None}, {"incident": "x"}, {"incident": 7}, {"verdict": True}, {"verdict": "maybe"}, {"reason": 3},
        {"reason": "x" * 301}, {"by": ["a"]}, {"id": ""}, {"id": None},
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_one_line_and_no_record(wrong: dict[str, Any], node: Node) -> None:
    with pytest.raises(Corrupt) as refused:
        node.desk.take(GOOD | wrong, "hq")
    assert node.noted() == [] and "\n" not in str(refused.value)


def test_the_station_signs_it_and_keeps_it_until_the_node_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    config = tmp_path / "station.toml"
    config.write_text(
        f'[station]\nsite = "ward"\nid = "hq"\ndata = "{tmp_path}"\ncommand_key = "{key}"\n'
        '[broker]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
    )
    arguments = ["verdict", "--config", str(config), "--node", "gate", "--reason", "a dog", "--verdict", "false"]
    assert main([*arguments, "--incident", "rubbish"]) == 78
    assert "is not the id of one" in capsys.readouterr().err
    assert main([*arguments, "--incident", INCIDENT, "--json"]) == 0, capsys.readouterr().err
    book = OrderBook(engine_in(tmp_path))
    book.open()
    (one,) = book.of("gate")
    book.close()
    command = wire.decode(one.payload, wire.Command)
    assert (command.verb, one.state) == ("verdict", "waiting") and command.signature
    assert command.args["incident"] == INCIDENT and command.args["reason"] == "a dog" and command.args["by"]
