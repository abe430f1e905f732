"""Verdicts of headquarters: one line on the ledger each, whatever comes twice or makes no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent import wire
from agent.cli import main
from agent.errors import Corrupt, Transient
from agent.station.orders import OrderBook
from agent.verdicts import REMEMBERED_MAX, VerdictDesk

INCIDENT = "0192f000-0000-7000-8000-000000000001"
GOOD = {"id": "c1", "incident": INCIDENT, "verdict": "false", "reason": " rain on the lens ", "by": "Minh"}


def test_a_verdict_is_one_record_and_says_who_and_why() -> None:
    noted: list[bytes] = []
    desk = VerdictDesk(noted.append)
    assert desk.take(GOOD, "headquarters")["verdict"] == "false"
    assert json.loads(noted[0]) == GOOD | {"reason": "rain on the lens", "asker": "headquarters"}
    desk.take(GOOD, "headquarters")
    assert len(noted) == 1, "the same command came again"
    desk.take(GOOD | {"id": "c2", "verdict": "true"}, "headquarters")
    assert len(noted) == 2, "somebody has thought again"


def test_what_the_disk_refused_is_taken_when_it_comes_again() -> None:
    noted: list[bytes] = []
    full = [True]

    def note(body: bytes) -> None:
        if full:
            full.pop()
            raise Transient("the disk is full")
        noted.append(body)

    desk = VerdictDesk(note)
    with pytest.raises(Transient):
        desk.take(GOOD, "hq")
    desk.take(GOOD, "hq")
    assert len(noted) == 1


def test_memory_is_bounded() -> None:
    desk = VerdictDesk(lambda _body: None)
    for number in range(REMEMBERED_MAX + 50):
        desk.take(GOOD | {"id": f"c{number}"}, "hq")
    assert len(desk._taken) == REMEMBERED_MAX


@pytest.mark.parametrize(
    "wrong",
    [
        {"incident": None}, {"incident": "x"}, {"incident": 7}, {"verdict": True}, {"verdict": "maybe"}, {"reason": 3},
        {"reason": "x" * 301}, {"by": ["a"]},
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_one_line_and_no_record(wrong: dict[str, Any]) -> None:
    noted: list[bytes] = []
    with pytest.raises(Corrupt) as refused:
        VerdictDesk(noted.append).take(GOOD | wrong, "hq")
    assert noted == [] and "\n" not in str(refused.value)


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
    book = OrderBook(tmp_path)
    book.open()
    (one,) = book.of("gate")
    book.close()
    command = wire.decode(one.payload, wire.Command)
    assert (command.verb, one.state) == ("verdict", "waiting") and command.signature
    assert command.args["incident"] == INCIDENT and command.args["reason"] == "a dog" and command.args["by"]
