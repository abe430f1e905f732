"""Power cuts on a real post, by a relay, at random moments; judged by the same code as the emulated ones.

Runs only when WARDPOST_HIL names a rig's configuration (hardware/bench-rig.md):

    WARDPOST_HIL=rig.toml .venv/bin/python -m pytest -m system tests/hil -s

WARDPOST_SEED repeats the moments. Report: test-out/powercut-bench.json.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from agent.config import load
from tests.hil.rig import Post, Relay, RigSettings, Ticks, wait_until_recording
from tests.system.powercut.judge import Facts, Promises, verdict

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "test-out" / "powercut-bench.json"
DAMAGE = ("UNEXPECTED INCONSISTENCY", "RUN fsck MANUALLY")

pytestmark = [pytest.mark.system, pytest.mark.timeout(0)]


def remember(promises: Promises, facts: Facts) -> None:
    """What stands in the store of a node that was read must stand there after every later cut."""
    for sequence, event_id, waiting in facts.events:
        promises.committed[facts.epoch, sequence] = event_id
        if not waiting:
            promises.acknowledged.add((facts.epoch, sequence))


def run_cycles(settings: RigSettings, rng: random.Random) -> list[dict[str, Any]]:
    """Cuts the power as often as the settings say; returns what each cut cost."""
    post, relay, run = Post(settings.post), Relay(settings.relay), settings.run
    promises = Promises()
    cycles: list[dict[str, Any]] = []
    relay.on()
    status = wait_until_recording(post, run.boot_s_max)
    for _ in range(run.cycles):
        ticks = Ticks(settings.post)
        try:
            time.sleep(rng.uniform(run.run_s_min, max(run.run_s_max, run.run_s_min)))
            began_ns = ticks.newest[1] if ticks.newest else 0
            relay.off()
            time.sleep(settings.relay.off_s)
            newest = ticks.newest
        finally:
            ticks.close()
        assert newest is not None, "the post's clock was never heard: is python3 on the post?"
        session = int(str(status["session"]))
        switched_on = time.monotonic()
        relay.on()
        status = wait_until_recording(post, run.boot_s_max)
        up_s = time.monotonic() - switched_on
        fsck = post.fsck()
        facts = post.facts()
        promises.running, promises.session = True, session
        promises.first_ns, promises.camera_ns, promises.taken_ns = began_ns, newest[1], newest[1]
        found = verdict(facts, promises, fragment_s=run.fragment_s + run.late_s)
        broken = [*found.broken, *(f"fsck at boot: {word}" for word in DAMAGE if word in fsck)]
        if int(str(status["session"])) <= session:
            broken.append("the post did not start anew: was its power really cut?")
        cycles.append(
            {
                "broken": broken,
                "lost_s": None if found.lost_s is None else round(found.lost_s, 3),
                "boot_to_recording_s": round(up_s, 1),
                "fsck": fsck.strip().splitlines()[-1:],
                "segments": len(facts.rows),
                "events": len(facts.events),
                "ledger_records": facts.ledger_lines,
            }
        )
        print(json.dumps(cycles[-1]))
        remember(promises, facts)
        status = wait_until_recording(post, run.boot_s_max)  # reading the facts has restarted the node
    return cycles


@pytest.mark.skipif(
    not os.environ.get("WARDPOST_HIL"), reason="WARDPOST_HIL names no bench rig (hardware/bench-rig.md)"
)
def test_a_post_on_the_bench_keeps_its_word(seed: int) -> None:
    settings = load(Path(os.environ["WARDPOST_HIL"]), RigSettings)
    cycles = run_cycles(settings, random.Random(seed))
    report = {"seed": seed, "cuts": len(cycles), "failed": sum(1 for c in cycles if c["broken"]), "cycles": cycles}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    assert [cycle for cycle in cycles if cycle["broken"]] == []
