"""Headquarters asks for footage: a real node, broker, station and archive; ordered, sent, verified, the same bytes.

The station's upload address has the certificate that the site's authority makes for it, and the node proves itself by
the key of its own.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.clock import SystemClock, rfc3339
from agent.evidence import dsse, records
from agent.site import authority, founding
from agent.site.folder import SiteFolder
from agent.site.provisioning import Asked, provision
from tests.e2e.brokers import RealBroker, free_port
from tests.e2e.post import Post, recording, wardpost

WAIT_S_MAX = 180.0  # this machine may be busy


@dataclass
class Headquarters:
    """A site, and its station as a process that can be killed."""

    folder: Path
    broker: str
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.root = self.folder / "site"
        self.site: SiteFolder = founding.found_site(self.root, name="ward", hosts=["127.0.0.1:8883"], clock=self.clock)
        self.data = self.folder / "station"
        self.data.mkdir()
        self.config = self.folder / "station.toml"
        self.config.write_text(
            f'[station]\nsite = "ward"\nid = "hq"\ndata = "{self.data}"\nregister = "{self.root}"\n'
            f'command_key = "{self.root}/station/command.key"\n'
            f'[broker]\nbrokers = ["{self.broker}"]\nkeepalive_s = 5\nbackoff_s_max = 1.0\n'
            f'[uploads]\nlisten = "127.0.0.1:{self.port}"\nhosts = ["127.0.0.1"]\n'
            f"[archive]\nfree_gb_min = 0.0\n"
        )

    def enrol(self, node: str, place: Path) -> None:
        """Puts a node's certificate there, without the trouble of getting one."""
        assert provision(self.root, Asked(node=node, ethernet=True), clock=self.clock, out=lambda _line: None) == 0
        now_ns, key = self.clock.utc().utc_ns, authority.new_key()
        ca = founding.load_authority(self.site)
        cert = authority.issue_node(ca, node, 1, key.public_key(), now_ns=now_ns)
        register = founding.open_register(self.site)
        (claim,) = register.claims_of(node)
        row = founding.of_certificate(cert, "node", now_ns, node=node, generation=1)
        assert register.enrolled(claim.claim, row, now_ns)
        register.close()
        place.mkdir()
        (place / "ca.pem").write_bytes(authority.certificate_pem(ca.certificate))
        (place / "node.pem").write_bytes(authority.certificate_pem(cert))
        (place / "node.key").write_bytes(authority.key_pem(key))

    def start(self) -> None:
        command = [sys.executable, "-m", "agent.cli", "station", "--config", str(self.config)]
        with (self.folder / "station.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=WAIT_S_MAX)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "agent.cli", arguments[0], "--config", str(self.config), *arguments[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=240)

    def orders(self) -> list[dict[str, Any]]:
        listed = self.run("send", "cam-7", "--list", "--json")
        assert listed.stdout, listed.stderr
        found: list[dict[str, Any]] = json.loads(listed.stdout)
        return found

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """From its database, beside it; none while it has none."""
        try:
            with closing(sqlite3.connect(f"file:{self.data / 'station.db'}?mode=ro", uri=True, timeout=30)) as db:
                return db.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []

    @property
    def log(self) -> str:
        return (self.folder / "station.log").read_text()


@pytest.fixture
def headquarters(tmp_path: Path, broker: RealBroker, post: Post) -> Iterator[Headquarters]:
    (tmp_path / "hq").mkdir()
    there = Headquarters(tmp_path / "hq", broker.url)
    keys = tmp_path / "keys"
    there.enrol("cam-7", keys)
    text = post.config.read_text()
    text = text.replace("[uplink]\n", f'[uplink]\ncommand_key = "{there.root}/station/command.pub"\n').replace(
        "[health]", f'[sending]\nurl = "https://127.0.0.1:{there.port}"\nkbps_max = 100000\nclips = "none"\n\n[health]'
    )
    tls = f'\n[uplink.tls]\nca = "{keys}/ca.pem"\ncert = "{keys}/node.pem"\nkey = "{keys}/node.key"\n'
    post.config.write_text(text + tls)
    yield there
    there.end(signal.SIGKILL)


def until(what: Callable[[], bool], why: Callable[[], str]) -> None:
    by = time.monotonic() + WAIT_S_MAX
    while not what():
        assert time.monotonic() < by, why()
        time.sleep(0.3)


def sealed_files(post: Post) -> int:
    return int(post.status().get("recording", {}).get("segments", 0))


def test_footage_that_was_asked_for_is_here_byte_for_byte_and_as_recorded(
    post: Post, headquarters: Headquarters, tmp_path: Path
) -> None:
    headquarters.start()
    post.start()
    post.wait_for(recording)
    begun_ns = SystemClock().utc().utc_ns
    until(lambda: sealed_files(post) >= 1, lambda: f"no sealed segments: {post.status()}")
    end_ns = SystemClock().utc().utc_ns
    asked = headquarters.run(
        "send", "cam-7", "--from", rfc3339(begun_ns), "--to", rfc3339(end_ns), "--reason", "accident", "--wait", "150"
    )
    assert asked.returncode == 0, asked.stdout + asked.stderr + headquarters.log[-3000:]
    assert "at headquarters" in asked.stdout, asked.stdout

    def all_verified() -> bool:
        (order,) = headquarters.orders()
        return bool(order["state"] == "done" and order["verified"] >= 2 and order["verified"] == len(order["files"]))

    until(all_verified, lambda: f"{headquarters.orders()}\n{headquarters.log[-3000:]}")
    (order,) = headquarters.orders()
    package = tmp_path / "package.zip"
    exported = post.ask_here(
        "export",
        "--from",
        rfc3339(begun_ns),
        "--to",
        rfc3339(end_ns),
        "-o",
        str(package),
        "--who",
        "t",
        "--reason",
        "r",
    )
    assert exported.returncode == 0, exported.stderr
    assert post.end(signal.SIGTERM) == 0
    rows = dict(post.rows("select name, sha256 from segment"))
    for one in order["files"]:
        here = (headquarters.data / "archive" / one["archive"]).read_bytes()
        assert here == (post.data / one["name"]).read_bytes(), f"{one['name']} is not what the node has"
        assert rows[one["name"]] in one["archive"]
        assert one["record"] > 0
    with zipfile.ZipFile(package) as members:
        packed = {name: members.read(name) for name in members.namelist() if name.startswith("segments/")}
    for one in order["files"]:
        if one["name"] in packed:
            assert (headquarters.data / "archive" / one["archive"]).read_bytes() == packed[one["name"]]
    assert set(packed) & {one["name"] for one in order["files"]}
    checked = wardpost("verify", str(package))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (held,) = post.rows("select released from hold")
    assert held[0], "what was held for the order is released once it is here"
    lines = [line for path in (post.data / "ledger").glob("[0-9]*.jsonl") for line in path.read_bytes().splitlines()]
    told = [one.body for one in (records.read(dsse.parse(line)) for line in lines) if one.kind == "extraction"]
    (left,) = [body for body in told if body.get("to") == "station"]
    assert (left["order"], left["files"]) == (order["id"], len(order["files"])), "what left the post is on its ledger"
    assert not list((headquarters.data / "uploads").iterdir()), "nothing is left on its way"


@pytest.mark.system
def test_kill_both_sides_while_it_is_sent_loses_and_doubles_nothing(
    post: Post, headquarters: Headquarters, seed: int
) -> None:
    post.config.write_text(post.config.read_text().replace("kbps_max = 100000", "kbps_max = 3000"))
    post.start()
    post.wait_for(recording)
    begun_ns = SystemClock().utc().utc_ns
    until(lambda: sealed_files(post) >= 1, lambda: f"no sealed segments: {post.status()}")
    post.end(signal.SIGKILL)
    end_ns = SystemClock().utc().utc_ns
    headquarters.start()
    until((headquarters.data / "station.db").exists, lambda: headquarters.log[-2000:])
    asked = headquarters.run(
        "send", "cam-7", "--from", rfc3339(begun_ns), "--to", rfc3339(end_ns), "--reason", "accident", "--wait", "0"
    )
    assert "queued" in asked.stdout, f"a dark node's order waits: {asked.stdout}{asked.stderr}"
    post.start()
    rng = random.Random(seed)

    def done() -> bool:
        found = headquarters.orders()
        return bool(found) and found[0]["state"] == "done" and found[0]["pending"] == 0

    for turn in range(4):
        time.sleep(rng.uniform(1.0, 4.0))
        if turn % 2:
            headquarters.end(signal.SIGKILL)
            headquarters.start()
        else:
            post.end(signal.SIGKILL)
            post.start()
    until(done, lambda: f"seed {seed}: {headquarters.orders()}\n{headquarters.log[-3000:]}")
    (order,) = headquarters.orders()
    assert order["mismatch"] == 0
    assert order["verified"] == len(order["files"]) > 0
    assert len({one["name"] for one in order["files"]}) == len(order["files"]), "no file twice"
    for one in order["files"]:
        assert (headquarters.data / "archive" / one["archive"]).read_bytes() == (post.data / one["name"]).read_bytes()
    kept = sorted(path.name for path in (headquarters.data / "archive").rglob("*.mp4"))
    assert len(kept) == len(order["files"])


@pytest.mark.system
def test_the_clip_of_an_alert_comes_by_itself_through_kill_9_of_either_side(
    post: Post, headquarters: Headquarters, seed: int
) -> None:
    """Nobody asks. What moves in the film raises alerts; each side dies while the footage of one is on its way."""
    rng = random.Random(seed)
    text = post.config.read_text().replace("kbps_max = 100000", "kbps_max = 1500")
    text = text.replace('clips = "none"', 'clips = "alert"\nclips_incident_s_max = 0')
    post.config.write_text(text + '\n[vision]\nalert_on = ["motion"]\n[vision.detector]\ndriver = "none"\n')
    headquarters.start()
    post.start()
    post.wait_for(recording)
    uploads = headquarters.data / "uploads"

    def on_its_way() -> bool:
        return uploads.is_dir() and any(path.suffix == ".part" for path in uploads.iterdir())

    for side in ("station", "post"):
        until(on_its_way, lambda: f"seed {seed}: {headquarters.log[-3000:]}")
        time.sleep(rng.uniform(0.0, 1.0))  # at any byte
        if side == "station":
            headquarters.end(signal.SIGKILL)
            headquarters.start()
        else:
            post.end(signal.SIGKILL)
            post.start()

    def clips() -> list[tuple[Any, ...]]:
        return headquarters.rows("select incident, files, not_sent from footage_clip where files > 0")

    until(lambda: bool(clips()), lambda: f"seed {seed}: {headquarters.log[-3000:]}")
    post.end(signal.SIGKILL)
    until(lambda: not headquarters.rows("select 1 from footage where state <> 'verified'"), lambda: headquarters.log)
    kept = headquarters.rows("select name, sha256, why, order_id from footage")
    assert kept and {why for _, _, why, _ in kept} == {"alert"}
    assert len({name for name, *_ in kept}) == len(kept), "no file twice"
    alerts = {incident for (incident,) in post.rows("select incident from event where kind <> 'record'")}
    for name, sha256, _, incident in kept:
        (here,) = (headquarters.data / "archive").rglob(f"*{sha256}*")
        assert here.read_bytes() == (post.data / name).read_bytes(), f"{name} is not what the node has"
        assert incident in alerts
    lines = [line for path in (post.data / "ledger").glob("[0-9]*.jsonl") for line in path.read_bytes().splitlines()]
    told = [one.body for one in (records.read(dsse.parse(line)) for line in lines) if one.kind == "extraction"]
    for incident, count, _ in clips():
        assert count in [body["files"] for body in told if body["order"] == incident], "what left is on its ledger"
