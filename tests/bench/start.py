"""From nothing to work, and the memory it takes: the real node beside the bare libraries that it cannot do without."""

from __future__ import annotations

import json
import math
import subprocess
import time

from agent.types import NS
from tests.bench import footage, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row, percentile
from tests.bench.programs import ROOT, Memory, Program, broker, python

RSS_MB_MAX = 150.0


def measure(bench: Bench) -> list[Row]:
    """Resident memory while a street is watched; seconds to the first picture and to the first durable fragment."""
    size = bench.size
    seconds = math.ceil(size.warm_s + size.window_s) + 5
    scene = footage.make(
        bench.assets.footage(), bench.footage, name="street", height=min(size.heights), seconds=seconds
    )
    bare = _bare(bench, scene)
    first_frame_s, first_fragment_s = [], []
    memory: list[Memory] = []
    for turn in range(size.repeats):
        folder = bench.folder / str(turn)
        with broker(folder / "broker") as port, station(folder / "station", broker_port=port):
            path = node.config(folder / "node", footage=scene.path, broker_port=port)
            with node.start(bench, path) as program:
                header, seen_ns = node.first_fragment(path, program)
                first_frame_s.append((header.start_ns - program.started_ns) / NS)
                first_fragment_s.append((seen_ns - program.started_ns) / NS)
                if turn == 0:  # the other turns only time the start
                    memory = _watch(program, seconds=size.warm_s + size.window_s)
                    node.need_well(path)
    highest = max(reading.rss_mb for reading in memory)
    least_s = percentile([run["seconds"] for run in bare], 0.5)
    return [
        Row(
            "rss",
            "memory of the working node, highest",
            highest,
            "MB",
            "bare libraries, model, one decoder",
            max(run["rss_mb"] for run in bare),
            target=f"< {RSS_MB_MAX:g} MB",
            met=highest < RSS_MB_MAX,
            note=f"{scene.height}p, full decode, detector running",
        ),
        Row(
            "rss-anonymous",
            "of it what the kernel cannot drop (not of files)",
            max(reading.anonymous_mb for reading in memory),
            "MB",
            "bare libraries, model, one decoder",
            max(run["anonymous_mb"] for run in bare),
        ),
        Row(
            "start-first-frame",
            "start to the first picture",
            percentile(first_frame_s, 0.5),
            "s",
            "interpreter, imports and model alone",
            least_s,
        ),
        Row(
            "start-first-fragment",
            "start to the first fragment on the disk",
            percentile(first_fragment_s, 0.5),
            "s",
            "the same, and the second of the fragment",
            least_s + 1.0,
        ),
    ]


def _watch(program: Program, *, seconds: float) -> list[Memory]:
    """Resident memory, looked at ten times a second."""
    readings = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        readings.append(program.memory())
        time.sleep(0.1)
    return readings


def _bare(bench: Bench, scene: footage.Scene) -> list[dict[str, float]]:
    """A process that only imports the libraries, loads the model, infers once and decodes a second of the scene."""
    runs = []
    for _ in range(bench.size.repeats):
        started_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        done = subprocess.run(
            python("tests.bench.bare", str(bench.assets.model()), str(scene.path)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
        seconds = (found.pop("ready_ns") - started_ns) / NS
        runs.append({**found, "seconds": seconds})
    return runs
