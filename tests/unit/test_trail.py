"""The audit log: what tampering with it costs, in the database and in an exported file."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agent.cli import main
from agent.disk import PosixDisk
from agent.errors import Corrupt
from agent.evidence import keys
from agent.evidence.records import digest
from agent.station.db.engine import writing
from agent.station.people import trail_line
from agent.station.people.roles import Role
from agent.station.people.trail import HEAD_FILE, Trail
from tests.fakes.database import Database
from tests.fakes.desk import Ward

TOML = '[station]\nsite = "ward-7"\nid = "hq"\ndata = "{data}"\n[broker]\nbrokers = ["mqtt://127.0.0.1:1"]\n'


@pytest.fixture
def ward(tmp_path: Path, database: Database) -> Iterator[Ward]:
    made = Ward(tmp_path, database)
    made.person("minh", Role.OPERATOR)
    for number in range(6):
        made.desk.trail.note("viewed", "minh", posts={"gate-2": [str(number)]})
    yield made
    made.close()


def broken(lines: list[bytes]) -> set[str]:
    found, seals = trail_line.split(b"\n".join(lines))
    verdict = trail_line.check(found, seals, keys={})
    return {str(one.what) for one in verdict.findings}


def resigned(line: bytes) -> bytes:
    """The payload with another word in it, its old signature around it."""
    outer = json.loads(line)
    payload = base64.b64decode(outer["payload"]).replace(b'"who":"minh"', b'"who":"lanh"')
    outer["payload"] = base64.b64encode(payload).decode()
    return json.dumps(outer, separators=(",", ":")).encode()


def one_byte_off(line: bytes) -> bytes:
    """A byte of the payload's base64 is another one, whichever it was: keys, and so signatures, are new in every run."""
    at = line.index(b'"payload":"') + 40
    return line[:at] + (b"B" if line[at : at + 1] == b"A" else b"A") + line[at + 1 :]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


ATTACKS: list[tuple[str, Callable[[list[bytes]], list[bytes]], str]] = [
    ("a word changed", lambda lines: [*lines[:4], resigned(lines[4]), *lines[5:]], "altered"),
    ("a byte changed", lambda lines: [*lines[:4], one_byte_off(lines[4]), *lines[5:]], "altered"),
    ("a line left out", lambda lines: [*lines[:4], *lines[5:]], "dropped"),
    ("the first lines left out", lambda lines: lines[2:], "foreign-key"),
    ("two lines exchanged", swapped, "out-of-order"),
    ("a line twice", lambda lines: [*lines[:4], lines[3], *lines[4:]], "duplicate"),
    ("the end cut off", lambda lines: [*lines[:-3], lines[-1]], "truncated"),
    ("the end cut off, with its checkpoint", lambda lines: lines[:-3], "truncated"),
    ("everything gone", lambda _: [], "truncated"),
]


@pytest.mark.parametrize(("attack", "does", "found"), ATTACKS, ids=[name for name, _, _ in ATTACKS])
def test_an_export_that_was_tampered_with_is_told(
    ward: Ward, attack: str, does: Callable[[list[bytes]], list[bytes]], found: str
) -> None:
    lines = ward.desk.trail.export()
    assert broken(lines) == set(), "as it was exported"
    assert found in broken(does(lines))


def test_a_log_that_somebody_else_signed_is_not_this_stations(ward: Ward, tmp_path: Path) -> None:
    """All of it forged anew, with a key of his own: consistent with itself, and refused by who knows the key."""
    (tmp_path / "forger").mkdir()
    theirs = Trail(ward.engine, clock=ward.clock, site="ward-7", station="hq", disk=PosixDisk(tmp_path / "forger"))
    forger = keys.generate()
    lines = [trail_line.introduce(key=forger, by=forger, clock=ward.clock, node="ward-7/hq", seq=1, prev="0" * 64)]
    sha = digest(lines[0])
    seal = trail_line.checkpoint(key=forger, clock=ward.clock, station="hq", node="ward-7/hq", seq=1, head=sha)
    assert trail_line.check(lines, [seal], keys={}).ok
    verdict = trail_line.check(lines, [seal], keys=ward.desk.trail.public_keys())
    assert {str(one.what) for one in verdict.findings} >= {"foreign-key", "bad-receipt"}
    with pytest.raises(Corrupt, match="signed by key"):
        theirs.open()  # it has a key of its own, and may not go on where ours has ended


@pytest.mark.parametrize(
    "statement",
    [
        "update trail set keyid = 'x' where seq = 3",
        "delete from trail where seq = 3",
        "delete from trail",
        "update trail set seq = seq + 100",
    ],
)
def test_the_database_itself_refuses_to_change_the_log(ward: Ward, statement: str) -> None:
    before = ward.trail()
    with pytest.raises(DBAPIError, match="append-only"):
        ward.database.run(statement)
    assert ward.trail() == before


def test_nor_does_a_replacing_insert_get_past_it(ward: Ward) -> None:
    word = "or replace into" if ward.database.kind == "sqlite" else "into"
    statement = f"insert {word} trail (seq, sha256, keyid, line) select seq, 'x', keyid, line from trail where seq = 3"
    with pytest.raises(DBAPIError):
        ward.database.run(statement)


def cut_off(ward: Ward, count: int) -> None:
    """As who owns the database's files can."""
    with writing(ward.engine, "cut") as db:
        if ward.database.kind == "sqlite":
            db.execute(text("drop trigger trail_no_delete"))
        else:
            db.execute(text("drop trigger trail_append_only on trail"))
        db.execute(text("delete from trail where seq > (select max(seq) from trail) - :count"), {"count": count})


def test_a_log_that_was_cut_off_in_the_database_is_told_by_its_checkpoint_and_tells_it_for_ever(ward: Ward) -> None:
    cut_off(ward, 3)
    ward.start()
    last = ward.trail()[-1]
    assert last["kind"] == "alarm" and "line 8 was there" in last["text"] and "cut off" in last["text"]
    assert "truncated" in broken(ward.desk.trail.export()), "also in every export from then on"
    ward.start()
    assert ward.kinds().count("alarm") == 1, "told once"


def test_a_log_from_an_older_copy_of_the_database_is_told(ward: Ward) -> None:
    """Put back and gone on with: as long as before, and other lines."""
    cut_off(ward, 3)
    seal = (ward.folder / HEAD_FILE).read_bytes()
    for number in range(5):
        ward.desk.trail.note("viewed", "lan", posts={"gate-9": [str(number)]})
    (ward.folder / HEAD_FILE).write_bytes(seal)
    ward.start()
    assert "rewritten" in ward.trail()[-1]["text"]


def test_a_checkpoint_that_is_gone_or_foreign_is_told(ward: Ward) -> None:
    (ward.folder / HEAD_FILE).unlink()
    ward.start()
    assert "is missing" in ward.trail()[-1]["text"]
    (ward.folder / HEAD_FILE).write_bytes(b"{}")
    ward.start()
    assert "no checkpoint" in ward.trail()[-1]["text"]


def test_what_is_not_done_is_not_on_record_and_what_is_not_on_record_is_not_done(ward: Ward) -> None:
    before = ward.trail()

    def cut() -> None:
        with ward.desk.trail.writing("act") as entry:
            entry.note("verdict", "minh", incident="x")
            raise RuntimeError("power")

    with pytest.raises(RuntimeError, match="power"):
        cut()
    assert ward.trail() == before
    ward.desk.trail.note("viewed", "minh")
    assert [line["seq"] for line in ward.trail()] == list(range(1, len(before) + 2)), "no number is left out"


def test_a_new_key_of_the_station_is_introduced_by_the_one_before(ward: Ward) -> None:
    keys.make(PosixDisk(ward.folder), "station")
    ward.start()
    ward.desk.trail.note("viewed", "minh")
    assert broken(ward.desk.trail.export()) == set()
    first = next(iter(keys.load(PosixDisk(ward.folder), "station")))
    lines, seals = trail_line.split(b"\n".join(ward.desk.trail.export()))
    assert trail_line.check(lines, seals, keys={first.keyid: first.public}).ok, "who knows the first key knows all"


def test_the_commands_export_and_verify_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    config, password = tmp_path / "station.toml", tmp_path / "password"
    config.write_text(TOML.format(data=tmp_path / "data"))
    password.write_text("a goose on the roof\nand not this\n")
    asked = ["--config", str(config)]
    secret = ["--password-file", str(password)]
    assert main(["user", "add", "minh", "--name", "Minh", "--role", "operator", *secret, *asked]) == 0
    assert main(["user", "add", "an", "--role", "school", *secret, *asked]) == 78, "a school needs posts"
    assert main(["user", "add", "an", "--role", "school", "--post", "gate-1", *secret, *asked]) == 0
    assert main(["user", "passwd", "an", *secret, *asked]) == 0
    assert main(["user", "role", "an", "school", "--post", "gate-2", *asked]) == 0
    assert main(["user", "disable", "an", *asked]) == 0
    assert main(["user", "enable", "an", *asked]) == 0
    assert main(["user", "disable", "nobody", *asked]) == 78
    capsys.readouterr()
    assert main(["user", "list", "--json", *asked]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["login"], one["role"], one["posts"]) for one in listed] == [
        ("an", "school", ["gate-2"]),
        ("minh", "operator", []),
    ]
    file = tmp_path / "trail.jsonl"
    assert main(["trail", "check", *asked]) == 0
    assert main(["trail", "export", "-o", str(file), *asked]) == 0
    assert main(["trail", "export", "-o", str(file), *asked]) == 78, "never overwritten"
    assert file.stat().st_mode & 0o077 == 0
    [key] = keys.load(PosixDisk(tmp_path / "data"), "station")
    assert main(["verify", str(file), "--trust", key.public.hex()]) == 0
    said = capsys.readouterr().out
    assert "VERIFIED, 8 lines" in said and "not proved" not in said
    assert main(["verify", str(file)]) == 0
    assert "not proved: that the key is the station's" in capsys.readouterr().out
    assert main(["verify", str(file), "--trust", "0" * 64]) == 1
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:3], *lines[4:]]))
    capsys.readouterr()
    assert main(["verify", str(file), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "not verified" and {one["what"] for one in told["findings"]} == {"dropped"}
    file.write_bytes(b"\0" * 100)
    assert main(["verify", str(file)]) == 1
    assert main(["verify", str(tmp_path / "none.jsonl")]) == 2
