"""A card comes to the desk: everything on it is taken in, held against the ledgers, told, and nothing else is touched."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from sqlalchemy import insert, text

from agent.cli import main
from agent.evidence.keys import keyid_of
from agent.station.db.engine import open_engine, writing
from agent.station.db.tables import key
from agent.station.dock import intake
from agent.station.people import trail_line
from agent.station.uploads_judge import Arrived, examine
from tests.fakes.evidence_post import UTC_0, EvidencePost
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_uploads_clerk import crafted

CONFIG = """\
[station]
site = "hoa-cuong"
id = "hq"
data = "{data}"
[broker]
brokers = ["mqtt://127.0.0.1:1883"]
[archive]
free_gb_min = 0
"""


class Headquarters:
    """A station's folder and its settings."""

    def __init__(self, folder: Path) -> None:
        self.desk = FootageDesk(folder / "hq")
        self.config = folder / "station.toml"
        self.config.write_text(CONFIG.format(data=folder / "hq"))

    def command(self, card: Path, *more: str) -> list[str]:
        return ["dock", str(card), "--config", str(self.config), "--custodian", "Trần Văn Bình", *more]

    def dock(self, card: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
        code = main(self.command(card, "--json", *more))
        said = capsys.readouterr()
        assert said.out, said.err
        return code, json.loads(said.out)

    def knows_key(self, post: EvidencePost) -> None:
        """The post's key stands in the station's books, as a station notes it."""
        with writing(self.desk.engine, "note a key") as db:
            keyid = keyid_of(post.key.public)
            db.execute(
                insert(key).values(
                    node=POST, keyid=keyid, public=post.key.public.hex(), root=keyid, how="registered",
                    since_utc_ns=UTC_0,
                )
            )  # fmt: skip

    def rows(self) -> list[tuple[Any, ...]]:
        with self.desk.engine.connect() as db:
            return [tuple(row) for row in db.execute(text("select name, state, detail from footage order by name"))]

    def archived(self) -> list[str]:
        return sorted(path.name for path in (self.desk.folder / "archive").rglob("*") if path.is_file())

    def trail(self) -> list[dict[str, Any]]:
        engine = open_engine(f"sqlite:///{self.desk.folder}/station.db", read_only=True, pooled=False)
        with engine.connect() as db:
            lines = [bytes(row[0]) for row in db.execute(text("select line from trail order by seq"))]
        return [trail_line.said(line) for line in lines]


@pytest.fixture
def hq(tmp_path: Path) -> Headquarters:
    return Headquarters(tmp_path)


@pytest.fixture
def card(tmp_path: Path) -> EvidencePost:
    """A node that has recorded and was switched off. Its data folder is the card."""
    post = EvidencePost(tmp_path / "card")
    post.feed(encoded(seconds=8))
    post.seal()
    return post


def test_a_card_is_taken_in_and_again_changes_nothing(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str]
) -> None:
    hq.knows_key(card)
    before = {path: path.stat().st_mtime_ns for path in card.folder.rglob("*")}
    code, report = hq.dock(card.folder, capsys)
    assert (code, report["node"], report["files"]) == (0, POST, 4)
    assert (report["taken"], report["duplicates"], report["verified"]) == (4, 0, 4)
    assert (report["pending"], report["mismatched"], report["passed"], report["lines"]) == (0, 0, 0, 4)
    assert [state for _, state, _ in hq.rows()] == ["verified"] * 4
    assert {path: path.stat().st_mtime_ns for path in card.folder.rglob("*")} == before, "the card is only read"

    code, report = hq.dock(card.folder, capsys)
    assert (code, report["taken"], report["duplicates"], report["verified"]) == (0, 0, 4, 4)
    assert len(hq.archived()) == len(hq.rows()) == 4
    kinds = [line["kind"] for line in hq.trail() if line["kind"].startswith("dock")]
    assert kinds == ["dock-begun", "dock-ended"] * 2
    ended = next(line for line in hq.trail() if line["kind"] == "dock-ended")
    assert (ended["custodian"], ended["post"], ended["taken"], ended["mismatched"]) == ("Trần Văn Bình", POST, 4, 0)
    assert ended["who"].startswith("account:")

    found = hq.desk.surveyor.survey(POST, UTC_0, UTC_0 + 10 * 10**9, address="")
    assert found.here == [(UTC_0, UTC_0 + 8 * 10**9)], "and it plays"


def test_without_the_posts_key_nothing_is_vouched_for_and_the_report_says_so(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(hq.command(card.folder)) == 0
    said = capsys.readouterr().out
    assert "0 are what the ledger says, 4 wait for their line, 0 do not match" in said
    assert "no line of the card's own ledger could be used: 4 are signed by keys that are not known here" in said
    hq.desk.hear(card)  # later the post is heard after all
    code, report = hq.dock(card.folder, capsys)
    assert (code, report["verified"], report["pending"]) == (0, 4, 0)


def test_what_does_not_match_is_named_kept_as_evidence_and_named_again(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str]
) -> None:
    hq.knows_key(card)
    names = sorted((card.folder / "segments").iterdir())
    data = bytearray(names[1].read_bytes())
    data[-200] ^= 1
    names[1].write_bytes(data)
    names[2].write_bytes(names[2].read_bytes()[:-60])
    for _ in range(2):
        code, report = hq.dock(card.folder, capsys)
        assert (code, report["verified"], report["mismatched"]) == (1, 2, 2)
        assert [one["name"] for one in report["not_matching"]] == [f"segments/{name.name}" for name in names[1:3]]
    assert [state for _, state, _ in hq.rows()] == ["verified", "mismatch", "mismatch", "verified"]
    assert len(hq.archived()) == 4
    with hq.desk.engine.connect() as db:
        (alarm,) = db.execute(text("select node, what, count from alarm")).all()
    assert tuple(alarm) == (POST, "altered-footage", 2), "an alarm for each, told once, and not again for the same"


def test_a_line_of_the_station_counts_before_one_of_the_card(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Somebody has the node's key, writes other footage of the same time, and a ledger for it: the station remembers."""
    hq.desk.hear(card)
    hq.knows_key(card)
    forged = EvidencePost(tmp_path / "forged")
    forged.feed(encoded(seconds=8, seed=5))
    forged.seal()
    code, report = hq.dock(forged.folder, capsys)
    assert code == 1
    assert report["mismatched"] == 4
    assert "record" in report["not_matching"][0]["why"]


def test_a_hostile_card_gets_nothing_and_everything_is_told(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hq.knows_key(card)
    secret = tmp_path / "secret.mp4"
    good = sorted((card.folder / "segments").iterdir())
    secret.write_bytes(good[0].read_bytes())
    segments = card.folder / "segments"
    (segments / "000009-00000001.mp4").symlink_to(secret)
    (segments / "000009-00000002.mp4").symlink_to("/dev/zero")
    os.mkfifo(segments / "000009-00000003.mp4")
    (segments / "000009-00000004.mp4").mkdir()
    with (segments / "000009-00000005.mp4").open("wb") as huge:
        huge.truncate(1 << 40)  # sparse: it costs the attacker nothing
    (segments / "000009-00000006.mp4").write_bytes(b"")
    boxes = struct.pack(">I4sQ", 1, b"ftyp", 2**63) + struct.pack(">I4s", 0, b"moov") + b"\0" * 100
    (segments / "000009-00000007.mp4").write_bytes(boxes * 50)
    (segments / "000009-00000008.mp4").write_bytes(struct.pack(">I4s", 2**32 - 1, b"moov") * 5000)
    (segments / "..%2f..%2fstation.db").write_bytes(b"x")
    (segments / "a\x1b[31m\n.mp4").write_bytes(good[0].read_bytes())
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(segments)  # a socket's path may be a hundred characters long
        listening.bind("000009-00000009.mp4")
        os.chdir(here)
    (card.folder / "ledger" / "99999999999999999999.jsonl").symlink_to("/dev/zero")
    (card.folder / "ledger" / "88888888888888888888.jsonl").write_bytes(b"{" * (1 << 20) + b"\n" * 100_000)
    code, report = hq.dock(card.folder, capsys)
    assert code == 1
    assert (report["taken"], report["verified"], report["passed"]) == (4, 4, 11)
    why = {one["name"]: one["why"] for one in report["not_taken"]}
    assert len(why) == 11, "each by its name"
    for number in (1, 2, 3, 4, 9):
        assert why[f"segments/000009-0000000{number}.mp4"] == "not a plain file"
    assert "1099511627776 bytes" in why["segments/000009-00000005.mp4"]
    assert why["segments/000009-00000006.mp4"] == "empty"
    for number in (7, 8):
        assert why[f"segments/000009-0000000{number}.mp4"].startswith("not a file of this recorder")
    assert len(hq.archived()) == 4

    main(hq.command(card.folder))
    assert "\x1b" not in capsys.readouterr().out, "a name on a card is no command to a terminal"


def test_a_file_that_says_what_cannot_be_costs_the_card_nothing(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str]
) -> None:
    hq.knows_key(card)
    hostile: tuple[dict[str, object], ...] = ({"boot_id": "\ud800" * 32}, {"utc_ns": 2**63 - 1}, {"source": "\0"})
    for n, said in enumerate(hostile):
        (card.folder / "segments" / f"000000-{n:08}.mp4").write_bytes(crafted(said))
    code, report = hq.dock(card.folder, capsys, "--node", POST)
    assert (code, report["taken"], report["verified"], report["passed"]) == (1, 4, 4, 3)
    assert [line["kind"] for line in hq.trail() if "dock" in line["kind"]] == ["dock-begun", "dock-ended"]


def test_a_fault_of_ours_at_one_file_passes_it_over_and_says_so(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hq.knows_key(card)
    first = min((card.folder / "segments").iterdir()).read_bytes()

    def fails(source: BinaryIO, size: int) -> Arrived:
        if source.read() == first:
            raise ZeroDivisionError
        return examine(source, size)

    monkeypatch.setattr(intake, "examine", fails)
    code, report = hq.dock(card.folder, capsys, "--node", POST)
    assert (code, report["taken"], report["passed"]) == (1, 3, 1)
    assert [line["kind"] for line in hq.trail() if "dock" in line["kind"]] == ["dock-begun", "dock-ended"]
    monkeypatch.undo()
    assert hq.dock(card.folder, capsys)[0] == 0, "with a station that is mended"


def test_a_stick_whose_label_is_not_utf_8_is_taken_in(
    hq: Headquarters, card: EvidencePost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stick = tmp_path / os.fsdecode(b"TH\xc9")
    hq.knows_key(card)
    card.folder.rename(stick)
    code, report = hq.dock(stick, capsys)
    assert (code, report["taken"]) == (0, 4)
    begun = next(line for line in hq.trail() if line["kind"] == "dock-begun")
    assert begun["folder"].endswith("/TH\\udcc9")


@pytest.mark.parametrize("what", ["missing", "a file", "without segments", "linked segments"])
def test_what_is_no_card_is_one_clear_error(
    hq: Headquarters, capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str, card: EvidencePost
) -> None:
    folder = tmp_path / "other"
    if what == "a file":
        folder.write_text("x")
    elif what != "missing":
        folder.mkdir()
    if what == "linked segments":
        (folder / "segments").symlink_to(card.folder / "segments")
    assert main(hq.command(folder)) == 78
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert str(folder) in said
    assert hq.archived() == []


def test_another_sites_card_is_refused(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str]
) -> None:
    hq.config.write_text(hq.config.read_text().replace("hoa-cuong", "ward-7"))
    assert main(hq.command(card.folder)) == 78
    assert "no file in segments/ says that it is of site ward-7" in capsys.readouterr().err


@pytest.mark.system
def test_killed_again_and_again_it_takes_in_everything_once(
    hq: Headquarters, card: EvidencePost, capsys: pytest.CaptureFixture[str]
) -> None:
    """kill -9 at any moment; whatever is in the archive by then is whole, and the last run finds the rest."""
    hq.knows_key(card)
    seed = random.randrange(2**32)
    print(f"seed {seed}", file=sys.stderr)
    rng = random.Random(seed)
    command = [sys.executable, "-m", "agent.cli", *hq.command(card.folder)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        goal = min(len(hq.archived()) + 1, 4)
        while process.poll() is None and len(hq.archived()) < goal and time.monotonic() < until:
            time.sleep(rng.uniform(0.0005, 0.003))
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        for path in (hq.desk.folder / "archive").rglob("*.mp4"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    code, report = hq.dock(card.folder, capsys)
    assert (code, report["taken"] + report["duplicates"], report["verified"]) == (0, 4, 4)
    assert len(hq.rows()) == 4
    assert [name for name in hq.archived() if not name.endswith(".mp4")] == []
