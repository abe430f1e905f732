"""Power cuts on a whole machine: Debian, systemd, the node as its service, in an emulator. What was not flushed is lost.

Each cycle boots the machine, waits until the station hears that the post records, cuts the power at a random moment,
makes the data disk as it may be after the cut, judges a copy of it, and boots from it again.

WARDPOST_VM_CYCLES: how many cuts (2). WARDPOST_SEED repeats the moments. Report: test-out/powercut-vm.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config, load
from tests.system.powercut.blocklog import FLUSH, WRITE
from tests.system.powercut.judge import NextBoot, Promises, boot, disk_promises, fsck, gather, verdict
from tests.system.powercut.rebuild import BlockLog, Cut, Rebuilder, sparse_copy
from tests.system.powercut.rig import ROOT, make_base
from tests.system.powercut.rig import missing as no_disk
from tests.system.vm.emulator import missing, wait_for
from tests.system.vm.machine import HERE, Headquarters, Machine, build

pytestmark = [pytest.mark.system, pytest.mark.timeout(7200)]

CYCLES = int(os.environ.get("WARDPOST_VM_CYCLES", "2"))
MODES = ("none", "subset", "torn", "prefix")
BOOT_S_MAX = 900.0  # an emulated processor on a busy machine
RUN_S = (4.0, 14.0)  # the power goes so long after the post is seen to record
FRAGMENT_S = 1.0
REPORT = ROOT / "test-out" / "powercut-vm.json"


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    why = missing() or no_disk()
    if why:
        pytest.skip(why)
    build()
    folder = Path(tempfile.mkdtemp(prefix="wardpost-vm-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def judge(data: Path, folder: Path, promises: Promises) -> dict[str, Any]:
    """Mends a copy of the disk as the machine will, boots the node's way on it, and holds it against the promises."""
    copy, mount = folder / "judged.img", folder / "mnt"
    mount.mkdir(exist_ok=True)
    sparse_copy(data, copy)
    code, words = fsck(copy, how="-p")  # as systemd-fsck does before it mounts
    broken = [] if code in (0, 1) else [f"e2fsck -p says {code}: {words[-500:]}"]
    config = folder / "judge.toml"
    config.write_text((HERE / "files/etc/wardpost/node.toml.in").read_text().replace("@BROKER@", "mqtt://127.0.0.1:1"))
    subprocess.run(["mount", "-t", "ext4", "-o", "loop,noatime", copy, mount], check=True, capture_output=True)
    try:
        broken += disk_promises(mount, promises, names=True)
        node = boot(load(config, Config), mount)
        try:
            session = node.store.sessions()[-1]
            facts = gather(mount, node.store, boot_id=session.boot_id, boot_ns=NextBoot().boot_ns())
        finally:
            node.store.close()
    finally:
        subprocess.run(["umount", mount], check=True)
    after, words = fsck(copy)
    if after:
        broken.append(f"e2fsck after recovery says {after}: {words[-500:]}")
    found = verdict(facts, promises, fragment_s=FRAGMENT_S)
    return {
        "fsck": "clean" if code == 0 else "mended",
        "broken": [*broken, *found.broken],
        "lost_s": None if found.lost_s is None else round(found.lost_s, 3),
        "boots": facts.boots - 1,  # the judge's own boot is one more
        "segments": len(facts.rows),
        "recorded_s": round(sum(s.end_utc_ns - s.start_utc_ns for s in facts.account if s.what == "recorded") / 1e9, 1),
        "account": sorted({stretch.what for stretch in facts.account}),
        "events": len(facts.events),
        "ledger_records": facts.ledger_lines,
    }


def promised(headquarters: Headquarters, machine: Machine, earlier: Promises) -> Promises:
    """What is known outside: what the machine had told by the cut, and what the station has."""
    for line in machine.told():
        earlier.note(line)
    for epoch, sequence, event_id in headquarters.events():
        earlier.committed[epoch, sequence] = event_id
        earlier.acknowledged.add((epoch, sequence))
    return earlier


def test_a_machine_that_loses_its_power_again_and_again(workshop: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = workshop / "data-0.img"
    make_base(data, size=512 << 20)
    headquarters = Headquarters(workshop)
    promises = Promises()
    cycles: list[dict[str, Any]] = []
    began = time.monotonic()
    machine: Machine | None = None
    try:
        for n in range(CYCLES):
            base = workshop / f"base-{n}.img"
            sparse_copy(data, base)
            switched_on = time.monotonic()
            machine = Machine(workshop, data, headquarters.broker.port, name=f"vm-{n}")

            wait_for(
                f"boot {n + 1}: the post records and the station hears it",
                lambda m=machine: records(headquarters.heartbeat(), m),  # type: ignore[misc]
                machine,
                BOOT_S_MAX,
            )
            up_s = time.monotonic() - switched_on
            time.sleep(rng.uniform(*RUN_S))
            machine.cut()
            log = BlockLog(machine.disk.log)
            cut = Cut(len(log.entries), MODES[n % len(MODES)], rng.getrandbits(32))
            data = workshop / f"data-{n + 1}.img"
            rebuilder = Rebuilder(log, base, workshop)
            lost_bytes = rebuilder.image(cut, data)
            rebuilder.close()
            time.sleep(0.5)  # the station commits what has arrived
            found = judge(data, workshop, promised(headquarters, machine, promises))
            cycles.append(
                {
                    "cut": cut.mode,
                    "boot_to_recording_s": round(up_s, 1),
                    "writes": log.count(WRITE),
                    "flushes": log.count(FLUSH),
                    "unflushed_bytes_lost": lost_bytes,
                    **found,
                }
            )
            print(json.dumps(cycles[-1]))
            assert found["boots"] == n + 1, "every boot is on record"
            base.unlink()
    finally:
        if machine is not None and machine.running():
            machine.cut()
        headquarters.close()
        report = {"seed": seed, "cuts": len(cycles), "failed": sum(1 for c in cycles if c["broken"]),
                  "seconds": round(time.monotonic() - began), "cycles": cycles}  # fmt: skip
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(report, indent=2) + "\n")
    losses = [cycle["lost_s"] for cycle in cycles]
    print(f"{len(cycles)} cuts in {report['seconds']} s, footage lost: at most {max(losses):.2f} s")
    assert [cycle for cycle in cycles if cycle["broken"]] == []


def records(beat: dict[str, Any], machine: Machine) -> bool:
    """Whether a heartbeat comes from this boot of the machine and says that it records."""
    recording = beat.get("recording") or {}
    here = str(beat.get("bootid")).encode() in b"".join(line for line in machine.told() if b'"session"' in line)
    return here and bool(recording.get("recording"))
