"""A node changes its key: the old one introduces the new one, on record, wherever the power goes."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest

from agent import boot
from agent.errors import Transient
from agent.evidence import chain, dsse, keys, records, rotation
from agent.evidence.keys import generate
from agent.evidence.records import RecordKind
from agent.evidence.standalone import EXTRACTION, KEYS, LEDGER
from agent.evidence.worker import LedgerWorker
from agent.store.store import Origin, Store
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.forger import Forger, edit_line
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_verify import both, codes

NODE = "a/b"


class Life:
    """One life of a node's ledger and keys, on any disk."""

    def __init__(self, disk: FakeDisk, clock: FakeClock, folder: Path) -> None:
        ids = (f"00000000-0000-7000-8000-{n:012x}" for n in itertools.count(1))
        self.store = Store(
            folder / "store.db", clock=clock, new_id=lambda: next(ids), origin=Origin("a", "b"),
            outbox_rows_max=1000, event_rows_max=1000, crash_point=disk.crash_point,
        )  # fmt: skip
        self.store.open()
        try:
            self.ledger, receipts, self.problem = boot.open_ledger(disk, self.store, clock, NODE)
        except BaseException:
            self.store.close()
            raise
        self.worker = LedgerWorker(ledger=self.ledger, receipts=receipts, journal=self.store)
        self.desk = rotation.KeyDesk(disk=disk, ledger=self.ledger, notes=self.store)
        self.disk = disk

    def say(self, word: str) -> None:
        """Something to be put on the ledger."""
        self.store.note(RecordKind.HOLD, records.body(word=word), urgent=True)
        self.worker.notify()
        self.worker.step(0.0)


def lines(disk: FakeDisk) -> list[bytes]:
    names = [name for name in disk.list("ledger") if name.rpartition("/")[2][:-6].isdigit()]
    return [line for name in names for line in disk.content(name).split(b"\n")[:-1]]


def cut_at(step: int, choice: int, folder: Path) -> tuple[str, FakeDisk]:
    """The power goes at one step of a change; then the node starts again and the change is asked for once more."""
    folder.mkdir()
    seen = 0
    where = ""

    def crash(what: str) -> None:
        nonlocal seen, where
        seen += 1
        if armed and seen == step:
            where = what
            raise PowerCut

    armed = False
    disk, clock = FakeDisk(root=folder, crash_point=crash), FakeClock()
    life = Life(disk, clock, folder)
    life.say("before")
    first = life.ledger.key.keyid
    armed, seen = True, 0
    try:
        life.desk.rotate({"reason": "test"})
        life.say("after")
    except PowerCut:
        disk.power_cut(lambda n: (0, n - 1, n // 2)[choice])
    armed = False
    life.store.close()
    clock.reboot(10)
    again = Life(disk, clock, folder)
    assert again.problem == ""
    again.say("restarted")
    if rotation.in_force(disk) is not None and again.ledger.key.keyid == first:
        again.desk.rotate({"reason": "again"})
        again.say("turned")
    again.say("at last")
    in_force = rotation.in_force(disk)
    assert in_force is not None and in_force.keyid == again.ledger.key.keyid != first
    verdict = chain.check(lines(disk), keys={}, whole=True)
    assert verdict.ok, verdict.findings
    assert dsse.parse(lines(disk)[-1]).keyid == in_force.keyid
    assert len(keys.load(disk, "node")) == 2, "a change that was cut off left a key that is never used"
    words = [line.payload.body["word"] for line in verdict.lines if line.payload.kind == "hold"]
    assert len(words) == len(set(words)) and words[-1] == "at last"
    again.store.close()
    return where, disk


@pytest.mark.parametrize("choice", range(3))
def test_the_power_may_go_at_any_step(choice: int, tmp_path: Path) -> None:
    """Never a node that cannot sign, never two ledgers, never a key that nobody introduced; and it can be asked again."""
    tried = []
    for step in range(1, 200):
        where, _ = cut_at(step, choice, tmp_path / str(step))
        if not where:
            break
        tried.append(where)
    print(f"{len(tried)} cuts")
    assert len(tried) >= 12 and any("keys/" in where for where in tried) and any("ledger/" in where for where in tried)


def test_a_disk_that_refuses_leaves_the_old_key_in_force(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    life = Life(disk, FakeClock(), tmp_path)
    life.say("before")
    first = life.ledger.key.keyid
    disk.fail("replace")
    with pytest.raises(Transient):
        life.desk.rotate({})
    life.say("still")
    assert dsse.parse(lines(disk)[-1]).keyid == first
    told = life.desk.rotate({})
    with pytest.raises(Transient, match="on its way onto the ledger"):
        life.desk.rotate({})
    life.say("now")
    assert dsse.parse(lines(disk)[-1]).keyid == told["keyid"] != first
    assert [key["in_force"] for key in rotation.show(disk)["keys"]] == [False, True]
    life.desk.rotate({})
    life.say("twice")
    assert len(rotation.show(disk)["keys"]) == 3
    life.store.close()


def test_a_key_that_nobody_introduced_signs_no_package(tmp_path: Path) -> None:
    """Made, and then the power went: the export is signed by the key in force, not by the newest file."""
    post = EvidencePost(tmp_path / "node")
    post.feed(encoded(seconds=3))
    post.seal()
    before = rotation.in_force(post.disk)
    keys.make(post.disk, "node")
    after = rotation.in_force(post.disk)
    assert before is not None and after is not None and before.keyid == after.keyid


def rotated(post: EvidencePost) -> None:
    rotation.KeyDesk(disk=post.disk, ledger=post.ledger, notes=post.post.store).rotate({"reason": "yearly"})
    post.settle()


def package(post: EvidencePost, path: Path, start_s: float, end_s: float) -> bytes:
    post.export(path, start_s, end_s)
    return path.read_bytes()


@pytest.fixture
def post(tmp_path: Path) -> EvidencePost:
    """Footage, a new key, footage, and another new key."""
    post = EvidencePost(tmp_path / "node")
    post.feed(encoded(seconds=4), receipt_every=10)
    post.hear()
    rotated(post)
    post.feed(encoded(seconds=4, start_ns=1004 * NS), receipt_every=10)
    post.seal()
    rotated(post)
    for word in ("one", "two"):  # so that the change lies before the slice of what follows
        post.post.store.note(RecordKind.HOLD, records.body(word=word))
    post.settle()
    post.feed(encoded(seconds=4, start_ns=1010 * NS), receipt_every=10)
    post.seal()
    return post


@pytest.mark.parametrize(("start_s", "end_s", "count"), [(0, 14, 3), (0, 1.5, 3), (11, 13, 1), (0, 7, 3)])
def test_packages_before_across_and_behind_a_change_are_verified(
    start_s: float, end_s: float, count: int, post: EvidencePost, tmp_path: Path
) -> None:
    """The export is signed with the newest key; the package holds how the node came to it."""
    data = package(post, tmp_path / "p.zip", start_s, end_s)
    result = both(data, tmp_path)
    assert result["verdict"] == "verified", result["findings"]
    assert len(result["node_keys"]) == count
    first, newest = keys.load(post.disk, "node")[0], keys.load(post.disk, "node")[-1]
    assert "you trust" in both(data, tmp_path, [newest.public])["trust"]
    assert "you trust" in both(data, tmp_path, [post.station.key.public])["trust"]
    old = both(data, tmp_path, [first.public])
    assert old["verdict"] == ("verified" if count == 3 else "not verified")


def test_a_forgers_key_beside_the_nodes(post: EvidencePost, tmp_path: Path) -> None:
    """He puts his own public key into the package, and signs the manifest anew with it: one file is excused away."""
    own = generate()
    for data in (package(post, tmp_path / "p.zip", 0, 14), package(post, tmp_path / "q.zip", 11, 13)):
        forger = Forger(data)
        name = forger.segments[0]
        del forger.files[name]
        forger.files[f"keys/node-{own.keyid}.pem"] = keys.public_pem(own.public)
        forger.manifest(
            lambda told, name=name: told.update(  # type: ignore[misc]
                segments=[s for s in told["segments"] if s["name"] != name],
                missing=[{"name": name, "why": "deleted while the package was made"}],
                clip=None,
            )
        )
        del forger.files[EXTRACTION]
        forger.restate(own)
        for trusted in ([], [keys.load(post.disk, "node")[-1].public], [post.station.key.public]):
            result = both(forger.data(), tmp_path, trusted)
            assert ("foreign-key", f"keys/node-{own.keyid}.pem") in codes(result)


def test_a_forged_ledger_that_carries_the_trusted_key_along(post: EvidencePost, tmp_path: Path) -> None:
    """Everything is the forger's own, and the node's public key and the station's receipts lie beside it."""
    other = EvidencePost(tmp_path / "forger")
    other.feed(encoded(seconds=4, seed=9))
    other.seal()
    forger = Forger(package(other, tmp_path / "f.zip", 0, 4))
    genuine = Forger(package(post, tmp_path / "p.zip", 0, 14))
    node = keys.load(post.disk, "node")[0]
    forger.files[f"keys/node-{node.keyid}.pem"] = keys.public_pem(node.public)
    forger.restate(other.key)
    assert both(forger.data(), tmp_path, [node.public])["verdict"] == "not verified"
    # His own key introduces the node's, as a node would: then it is the node's that should have signed the package.
    line = edit_line(
        forger.lines()[-1],
        other.key,
        lambda p: p.update(seq=p["seq"] + 50, kind="key", body={"keyid": node.keyid, "public": node.public.hex()}),
    )
    forger.set_lines([line], KEYS)
    forger.restate(other.key)
    assert {code for code, _ in codes(both(forger.data(), tmp_path))} == {"retired-key"}
    assert both(forger.data(), tmp_path, [node.public])["verdict"] == "not verified"
    # And the station's receipts for other records than these prove nothing about these.
    station = f"keys/station-{post.station.key.keyid}.pem"
    forger.files[station] = genuine.files[station]
    late = edit_line(genuine.lines("receipts.jsonl")[-1], post.station.key, lambda p: p.update(seq=10_000))
    forger.set_lines([late], "receipts.jsonl")
    forger.restate(other.key)
    assert both(forger.data(), tmp_path, [post.station.key.public])["verdict"] == "not verified"


def test_what_a_stolen_key_signs_after_it_was_replaced(post: EvidencePost, tmp_path: Path) -> None:
    """The thief has the first key. He goes on from the record that replaced it, and signs the package with it."""
    first = keys.load(post.disk, "node")[0]
    forger = Forger(package(post, tmp_path / "p.zip", 0, 7))
    lines = forger.lines()
    at = next(n for n, line in enumerate(lines) if records.read(dsse.parse(line)).kind == "key")
    forged = lines[: at + 1]
    for line in lines[at + 1 :]:
        prev = hashlib.sha256(forged[-1]).hexdigest()
        forged.append(edit_line(line, first, lambda p, prev=prev: p.update(prev=prev)))  # type: ignore[misc]
    forger.set_lines(forged)
    forger.files.pop(KEYS, None)
    forger.restate(first)
    result = both(forger.data(), tmp_path, [first.public])
    assert result["verdict"] == "not verified"
    assert "retired-key" in {code for code, _ in codes(result)}, result["findings"]


def test_an_introduction_that_was_altered_or_left_out(post: EvidencePost, tmp_path: Path) -> None:
    data = package(post, tmp_path / "p.zip", 0, 1.5)
    newest = keys.load(post.disk, "node")[-1]
    forger = Forger(data)
    assert forger.lines(KEYS) and forger.lines(LEDGER)
    forger.set_lines(forger.lines(KEYS)[:-1], KEYS)
    forger.restate(newest)
    assert ("foreign-key", f"keys/node-{newest.keyid}.pem") in codes(both(forger.data(), tmp_path))
    forger = Forger(data)
    raw = json.loads(forger.lines(KEYS)[-1])
    raw["signatures"][0]["sig"] = raw["signatures"][0]["sig"][::-1]
    forger.set_lines([*forger.lines(KEYS)[:-1], json.dumps(raw, separators=(",", ":")).encode()], KEYS)
    forger.restate(newest)
    assert both(forger.data(), tmp_path)["verdict"] == "not verified"
