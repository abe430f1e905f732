"""What the commands do on the card of a node that does not run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from agent.boot import STORE_NAME
from agent.clock import SystemClock
from agent.config import Config, load
from agent.disk import PosixDisk
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.extraction import StoppedNode
from tests.fakes.evidence_post import NODE, EvidencePost
from tests.fakes.packets import encoded
from tests.fakes.recording_post import closed_posts  # noqa: F401

MADE_AS = "store.db"
"""What the fake post calls its store."""


def config(folder: Path) -> Config:
    site, _, node = NODE.partition("/")
    path = folder.parent / "node.toml"
    path.write_text(
        f'[node]\nsite = "{site}"\nid = "{node}"\ndata = "{folder}"\n'
        '[camera]\ndriver = "stream"\nurl = "film.mp4"\n[uplink]\nbrokers = ["mqtt://127.0.0.1:1"]\n'
    )
    return load(path, Config)


def test_a_store_that_has_gone_back_in_time_takes_no_facts_before_the_node_has_mended_it(tmp_path: Path) -> None:
    """The write-ahead log is damaged, and somebody takes out footage before the node starts. A fact under a number that
    the ledger has already would hide from the next start what is lost: nothing would be rebuilt.
    """
    folder = tmp_path / "node"
    post = EvidencePost(folder)
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"{MADE_AS}{suffix}", tmp_path / f"then{suffix}")
    post.feed(encoded(seconds=3))
    post.seal()
    post.post.store.close()
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"then{suffix}", folder / f"{STORE_NAME}{suffix}")
    ledger = {path.name: path.read_bytes() for path in (folder / "ledger").iterdir()}
    node = StoppedNode(config(folder), PosixDisk(folder), SystemClock())
    with pytest.raises(Corrupt, match="start the node") as refused:
        node.extraction(records.body(who="somebody"))
    assert "\n" not in str(refused.value)
    assert {path.name: path.read_bytes() for path in (folder / "ledger").iterdir()} == ledger


def test_a_store_as_it_was_left_takes_facts_once_and_again(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    post = EvidencePost(folder)
    post.feed(encoded(seconds=3))
    post.seal()
    post.post.store.close()
    (folder / MADE_AS).rename(folder / STORE_NAME)
    node = StoppedNode(config(folder), PosixDisk(folder), SystemClock())
    for n in range(3):
        node.extraction(records.body(who=f"visitor {n}"))
    lines = [
        records.read(dsse.parse(raw))
        for path in sorted((folder / "ledger").glob("0*.jsonl"))
        for raw in path.read_bytes().splitlines()
    ]
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    taken = [line for line in lines if line.kind == records.RecordKind.EXTRACTION]
    assert [line.body["who"] for line in taken] == ["visitor 0", "visitor 1", "visitor 2"]
    assert len({line.number for line in taken}) == 3
