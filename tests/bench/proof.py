"""What proving costs: an evidence package checked by both verifiers, beside hashing its bytes with SHA-256 alone.

The package holds footage of the `street` scene from the node's own recorder, with its ledger, a receipt for each minute
and the flat copy. Two of a package's verifiers are timed: `wardpost verify` (its function, without the start of Python)
and the single file that lies in the package, as anybody would run it: Python's standard library and openssl.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from agent.evidence.verify import verify
from agent.types import NS
from tests.bench import footage
from tests.bench.figure import Bench, Row
from tests.fakes.evidence_post import EvidencePost, laps
from tests.fakes.packets import of_file

LAP_S = 20
LENGTH_FACTOR = 10  # seconds of footage for each second of the fragments' bench
_LASTS_S = 1.0  # what is over sooner is repeated


def measure(bench: Bench) -> list[Row]:
    """Hours of footage that are checked in a second."""
    size = bench.size
    scene = footage.make(
        bench.assets.footage(), bench.footage, name="street", height=min(size.heights), seconds=LAP_S + 1
    )
    seconds = size.fragments * LENGTH_FACTOR
    package = _package(bench.folder, scene, seconds)
    hours = seconds / 3600
    hashed = hours / _least_s(lambda: _hash(package), size.repeats)
    checked = hours / _least_s(lambda: _check(package), size.repeats)
    alone = hours / _least_s(lambda: _alone(package, bench.folder), size.repeats)
    note = f"{scene.height}p street, {seconds} s, {package.stat().st_size / 1e6:.1f} MB with the playable copy"
    peer = "SHA-256 of the package alone"
    return [
        Row("verify", "wardpost verify, footage per second", checked, "h/s", peer, hashed, note=note),
        Row("verify-alone", "the package's own verifier, footage per second", alone, "h/s", peer, hashed, note=note),
    ]


def _package(folder: Path, scene: footage.Scene, seconds: int) -> Path:
    """Records `seconds` and exports them. Raises RuntimeError for a package without all of it."""
    post = EvidencePost(folder / "post")
    lap = of_file(scene.path)[: LAP_S * footage.FPS]
    count = seconds * footage.FPS
    post.feed(islice(laps(lap, LAP_S, -(-count // len(lap))), count), receipt_every=60 * footage.FPS)
    post.seal()
    package = folder / "package.zip"
    done = post.export(package, 0, seconds)
    recorded_s = sum((one.end_utc_ns - one.start_utc_ns) / NS for one in done.coverage if one.what == "recorded")
    if recorded_s < seconds - 1:
        raise RuntimeError(f"the package has {recorded_s:.1f} s of the {seconds} s that were recorded")
    return package


def _least_s(work: Callable[[], None], repeats: int) -> float:
    """Seconds of one run of `work`: the best of `repeats` turns, each as often as it takes to last."""
    best = float("inf")
    for _ in range(repeats):
        runs, started = 0, time.perf_counter()
        while not runs or time.perf_counter() - started < _LASTS_S:
            work()
            runs += 1
        best = min(best, (time.perf_counter() - started) / runs)
    return best


def _hash(package: Path) -> None:
    with package.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _check(package: Path) -> None:
    result = verify(package, [])
    if result["verdict"] != "verified":
        raise RuntimeError(f"wardpost verify: {result}")


def _alone(package: Path, folder: Path) -> None:
    script = folder / "verify.py"
    if not script.exists():
        with zipfile.ZipFile(package) as archive:
            script.write_bytes(archive.read("verify.py"))
    done = subprocess.run(
        [sys.executable, "-I", os.fspath(script), os.fspath(package)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"verify.py: {done.stdout}{done.stderr}")
