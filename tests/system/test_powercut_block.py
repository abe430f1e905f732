"""Real power cuts on real ext4: the node runs on a disk that logs every write; the power is then cut anywhere in the log.

The station, the broker and the node are real processes. Every image is one that the disk could have held; the real boot
path mends it; every promise that had left the node by then must hold. The same with a bug planted must fail, or the
whole test could not tell.

WARDPOST_CUTS: how many cuts (400). WARDPOST_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.assets import Assets
from agent.recording.index import FOLDER
from agent.recording.retention import BALLAST
from tests.e2e.brokers import NatsServer
from tests.system.powercut.blocklog import FLUSH, MARK, WRITE
from tests.system.powercut.cutter import mount_as_at_boot
from tests.system.powercut.entry import BUGS
from tests.system.powercut.judge import fsck
from tests.system.powercut.rebuild import SECTOR, BlockLog, Cut, share
from tests.system.powercut.rig import ROOT, LoggedMount, LoggedNode, missing, module, wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

CUTS = int(os.environ.get("WARDPOST_CUTS", "400"))
CONTROL_CUTS = 20
# The promise that a bug breaks: as many cuts right behind it are tried besides those anywhere.
CONTROL_PROMISE = {
    "no-fdatasync": b'"fragment"',
    "row-first": b'"seal"',
    "no-folder-sync": b'"create"',
    "sqlite-off": b'"commit"',
}
LIVE_S_MAX = 300.0
JUDGES = max(os.cpu_count() or 2, 2)
NODES = {"": "post", **{bug: bug for bug in BUGS}}
REPORT = ROOT / "test-out" / "powercut-block.json"

CONFIG = """
[node]
site = "ward-7"
id = "{node}"
data = "{data}"
place = "School gate"

[camera]
driver = "stream"
url = "{footage}"
loop = true

[vision]
update_s = 1.0
motion_s = 0.5
gone_s = 1.0
alert_on = ["person", "vehicle", "bicycle", "motion"]
{detector}

[recording]
segment_s = 10
free_gb_min = 0.01
budget_gb = {budget_gb}

[uplink]
brokers = ["{broker}"]

[health]
heartbeat_s = 1
"""


@dataclass(slots=True)
class Trace:
    """A finished log, and what is needed to judge it."""

    mount: LoggedMount
    config: Path
    station: Path


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    """A folder in memory: hundreds of images are made and thrown away."""
    why = missing()
    if why:
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="wardpost-cuts-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def traces(workshop: Path, assets: Assets) -> dict[str, Trace]:
    """A minute in the life of a post, and the beginning of the lives of four that have a bug."""
    footage, model = assets.footage(), (assets.model(), assets.labels())
    (workshop / "broker").mkdir()
    (workshop / "station").mkdir()
    broker = NatsServer(workshop / "broker")
    broker.start()
    station = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.station_process", workshop / "station", broker.url],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    traces: dict[str, Trace] = {}
    nodes: dict[str, LoggedNode] = {}
    try:
        for bug, name in NODES.items():
            mount = LoggedMount(workshop / name)
            config = workshop / f"{name}.toml"
            # The controls need no detector: their bugs are in the storing. Footage is deleted within the minute.
            detector = f'[vision.detector]\nmodel = "{model[0]}"\nlabels = "{model[1]}"'
            config.write_text(
                CONFIG.format(
                    node=name,
                    data=mount.path,
                    footage=footage,
                    broker=broker.url,
                    detector=detector if not bug else '[vision.detector]\ndriver = "none"',
                    budget_gb=0.0009,
                )
            )
            traces[bug] = Trace(mount, config, workshop / "station")
            nodes[bug] = LoggedNode(mount, config, bug=bug)
        live(traces, nodes)
    finally:
        for node in nodes.values():
            node.close()
        time.sleep(0.5)  # the station commits what has arrived
        station.kill()
        station.wait()
        broker.stop()
        for trace in traces.values():
            trace.mount.close()
    return traces


def live(traces: dict[str, Trace], nodes: dict[str, LoggedNode]) -> None:
    """The post records until old footage is deleted, dies, starts, stops, starts, stops. The others roll over once.

    It goes by what has happened, not by the clock: this machine may be busy.
    """

    def files(bug: str, session: int) -> list[Path]:
        return sorted((traces[bug].mount.path / "segments").glob(f"{session:06d}-*.mp4"))

    def wait(bug: str, what: str, happened: Callable[[], bool]) -> None:
        wait_until(f"{bug or 'post'}: {what}", lambda: happened() or not nodes[bug].running(), LIVE_S_MAX)
        assert nodes[bug].running(), nodes[bug].words.read_text()[-3000:]

    for node in nodes.values():
        node.start()
    for bug in BUGS:
        wait(bug, "a second file", lambda bug=bug: len(files(bug, 1)) > 1)  # type: ignore[misc]
    time.sleep(1.5)
    for bug in BUGS:
        nodes[bug].end(signal.SIGTERM)
    post = nodes[""]
    wait(
        "", "old footage is deleted", lambda: bool(files("", 1)) and not files("", 1)[0].name.endswith("-00000000.mp4")
    )
    time.sleep(1.0)
    post.end(signal.SIGKILL)
    for session in (2, 3):
        post.start()
        wait("", "a second file", lambda session=session: len(files("", session)) > 3 - session)  # type: ignore[misc]
        time.sleep(2.0)
        assert post.end(signal.SIGTERM) == 0


def try_cuts(trace: Trace, cuts: list[Cut], workshop: Path) -> list[dict[str, Any]]:
    """Judges cuts in as many processes as there are processors."""
    running = []
    for part in range(JUDGES):
        scratch = Path(tempfile.mkdtemp(prefix="judge-", dir=workshop))
        (scratch / "cuts.json").write_text(json.dumps([str(cut) for cut in share(cuts, part, JUDGES)]))
        running.append(
            subprocess.Popen(
                module("cutter", "--work", trace.mount.folder, "--config", trace.config, "--scratch", scratch),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found: list[dict[str, Any]] = []
    ends = [(*process.communicate(), process.returncode) for process in running]
    for out, err, code in ends:
        assert code == 0, err[-3000:]
        found += [json.loads(line) for line in out.splitlines()]
    assert len(found) == len(cuts)
    return found


def begun(log: BlockLog) -> int:
    """Where the node's life begins in the log."""
    return next(position for position, line in log.marks() if b'"begin"' in line)


def wear(log: BlockLog) -> dict[str, float]:
    """What the whole node writes to the disk, file system and journals included, beside what the camera gave."""
    synced: dict[str, int] = {}
    recorded_ns = 0
    for _, line in log.marks():
        fact = json.loads(line)
        if fact["t"] == "sync":
            synced[fact["name"]] = max(synced.get(fact["name"], 0), fact["bytes"])
        elif fact["t"] == "fragment":
            recorded_ns += fact["end_ns"] - fact["start_ns"]
    video = sum(size for name, size in synced.items() if name.startswith(FOLDER))
    disk = log.written_bytes() - synced.get(BALLAST, 0)  # that one is written once in a card's life
    seconds = recorded_ns / 1e9
    return {
        "recorded_s": round(seconds, 1),
        "disk_bytes": disk,
        "video_bytes": video,
        "write_amplification": round(disk / video, 2),
        "video_bytes_per_s": round(video / seconds),
        "other_bytes_per_s": round((disk - video) / seconds),
    }


def test_no_promise_is_broken_wherever_the_power_is_cut(traces: dict[str, Trace], workshop: Path, seed: int) -> None:
    trace = traces[""]
    log = BlockLog(trace.mount.log)
    told = Counter(json.loads(line)["t"] for _, line in log.marks())
    print(
        f"log: {log.count(WRITE)} writes, {log.written_bytes() >> 10} KiB, {log.count(FLUSH)} flushes,"
        f" {log.count(MARK)} markers: {dict(told)}"
    )
    assert min(told[what] for what in ("commit", "ack", "seal", "sync", "condemn", "unlink", "session")) > 0, told
    began = time.monotonic()
    results = try_cuts(trace, log.cuts(CUTS, random.Random(seed), first=begun(log)), workshop)
    took_s = time.monotonic() - began
    failed = [result for result in results if result["broken"]]
    losses = sorted(result["lost_s"] for result in results if result["lost_s"] is not None)
    waiting = sorted(result["waiting_s"] for result in results if result["lost_s"] is not None)
    report = {
        "seed": seed,
        "cuts": len(results),
        "failed": len(failed),
        "by_mode": dict(Counter(result["cut"].split(":")[1] for result in results)),
        "while_recording": len(losses),
        "lost_s_max": round(losses[-1], 3),
        "lost_s_p95": round(losses[int(len(losses) * 0.95)], 3),
        "lost_s_median": round(losses[len(losses) // 2], 3),
        "of_it_in_memory_s_max": round(waiting[-1], 3),
        "unflushed_bytes_lost_max": max(result["lost_bytes"] for result in results),
        "ms_per_cut": round(1000 * took_s / len(results)),
        **wear(log),
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))
    assert not failed, f"{len(failed)} of {len(results)}:\n" + "\n".join(str(result) for result in failed[:10])
    assert len(losses) > len(results) / 2, "most cuts must fall into a recording"


def test_what_the_node_heard_acknowledged_is_at_the_station(traces: dict[str, Trace]) -> None:
    """The other half of invariant 1: the rows that left the outbox are on the station's disk."""
    trace = traces[""]
    acknowledged: set[tuple[str, int]] = set()
    for _, line in BlockLog(trace.mount.log).marks():
        fact = json.loads(line)
        if fact["t"] == "ack":
            acknowledged |= {(fact["epoch"], n) for low, high in fact["stored"] for n in range(low, high + 1)}
    db = sqlite3.connect(trace.station / "station.db")
    try:
        stored = {
            (epoch, sequence)
            for epoch, sequence in db.execute(
                "select epoch, sequence from (select stream, sequence from event"
                " union all select stream, sequence from carried) join stream using (stream) where node = 'post'"
            )
        }
    finally:
        db.close()
    assert acknowledged
    assert acknowledged <= stored


def test_a_superblock_whose_write_was_torn_is_mended_as_at_every_boot(tmp_path: Path) -> None:
    """Seen in a torn cut: the kernel refuses the file system, although all that was promised is in it."""
    image, folder = tmp_path / "disk.img", tmp_path / "mnt"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)  # two groups: a copy of the superblock stands in the second
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", image], check=True)
    mount_as_at_boot(image, folder)
    (folder / "promised").write_text("here")
    subprocess.run(["umount", folder], check=True)
    with image.open("r+b") as file:
        file.seek(1024 + 512)  # the superblock's second sector, its checksum among it, is of another time
        second = file.read(SECTOR)
        file.seek(1024 + 512)
        file.write(bytes(byte ^ 0xFF for byte in second[-4:]).rjust(SECTOR, b"\0"))
    mount_as_at_boot(image, folder)
    try:
        assert (folder / "promised").read_text() == "here"
    finally:
        subprocess.run(["umount", folder], check=True)
    assert fsck(image)[0] == 0


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_caught(traces: dict[str, Trace], workshop: Path, seed: int, bug: str) -> None:
    trace = traces[bug]
    log = BlockLog(trace.mount.log)
    rng = random.Random(seed)
    behind = log.cuts_after(CONTROL_PROMISE[bug], rng)
    cuts = [*log.cuts(CONTROL_CUTS, rng, first=begun(log)), *rng.sample(behind, min(len(behind), CONTROL_CUTS))]
    results = try_cuts(trace, cuts, workshop)
    failed = [result for result in results if result["broken"]]
    first = failed[0]["broken"][0] if failed else "nothing"
    print(f"{bug} ({BUGS[bug]}): caught in {len(failed)} of {len(results)} cuts; first: {first}")
    assert failed, "the judge did not notice"
