"""What a second of video costs: the whole node, decoding alone, and Debian's motion, on the same file.

The node is `wardpost run`, process tree, with everything on: detector, recording with fdatasync, outbox, uplink to a
broker and a station that acknowledges. CPU time is taken over a window after the warm-up and divided by the window: the
file is played at its own speed, so a second of it is a second of video.
"""

from __future__ import annotations

import math
import time

from tests.bench import decode, footage, motion_peer, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row, Skip
from tests.bench.programs import Program, broker


def measure(bench: Bench) -> list[Row]:
    """Two rows a scene: against decoding alone and against motion."""
    size = bench.size
    rows: list[Row] = []
    for height in size.heights:
        for name in size.scenes:
            seconds = math.ceil(2 * size.warm_s + size.window_s) + 5
            scene = footage.make(bench.assets.footage(), bench.footage, name=name, height=height, seconds=seconds)
            tag = f"{name}-{height}p"
            ours = _node(bench, scene, tag)
            alone = decode.cpu_ms_per_video_s(scene.path)
            words = {"still": "nothing moves", "street": "a busy street"}[name]
            rows.append(
                Row(
                    f"cpu-{tag}-decode",
                    f"node, CPU per video second, {height}p, {words}",
                    ours,
                    "ms",
                    "decoding alone",
                    alone,
                )
            )
            try:
                theirs = _motion(bench, scene, tag)
            except Skip as skip:
                rows.append(Row(f"cpu-{tag}-motion", f"the same, {height}p, {words}", ours, "ms", f"skipped: {skip}"))
            else:
                rows.append(
                    Row(
                        f"cpu-{tag}-motion",
                        f"the same, {height}p, {words}",
                        ours,
                        "ms",
                        "motion",
                        theirs,
                        target="below motion",
                        met=ours < theirs,
                    )
                )
    return rows


def _node(bench: Bench, scene: footage.Scene, tag: str) -> float:
    folder = bench.folder / f"node-{tag}"
    with broker(folder / "broker") as port, station(folder / "station", broker_port=port):
        path = node.config(folder / "node", footage=scene.path, broker_port=port)
        with node.start(bench, path) as program:
            node.first_fragment(path, program)
            return _window(bench, program)


def _motion(bench: Bench, scene: footage.Scene, tag: str) -> float:
    with motion_peer.start(bench.folder / f"motion-{tag}", scene) as program:
        time.sleep(1.0)  # it opens the file twice before it begins
        return _window(bench, program)


def _window(bench: Bench, program: Program) -> float:
    """CPU ms of the process tree per second, after the warm-up."""
    time.sleep(bench.size.warm_s)
    started, spent = time.monotonic(), program.cpu_s()
    time.sleep(bench.size.window_s)
    return (program.cpu_s() - spent) * 1000 / (time.monotonic() - started)
