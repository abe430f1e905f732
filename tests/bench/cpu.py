"""What a second of video costs: the whole node, beside the least it could be, and beside Debian's motion on the same file.

The node is `wardpost run`, process tree, with everything on: detector, recording with fdatasync, outbox, uplink to a
broker and a station that acknowledges. CPU time is taken over a window after the warm-up and divided by the window: the
file is played at its own speed, so a second of it is a second of video. The least is decoding alone and, where the
detector looks, as many bare inferences as the node has made.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass

from tests.bench import beside, decode, footage, inference, motion_peer, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row, Skip
from tests.bench.programs import Program, broker

_WORDS = {"still": "nothing moves", "street": "a busy street"}


@dataclass(frozen=True, slots=True)
class _Spent:
    """What the node did in a second of video."""

    cpu_ms: float
    looks: float  # of the detector


def measure(bench: Bench) -> list[Row]:
    """Rows of each scene: against decoding alone, the least where the detector looks, and motion."""
    rows: list[Row] = []
    inference_ms = inference.cpu_ms(bench.assets.model())
    for height in bench.size.heights:
        for name in bench.size.scenes:
            rows += _scene(bench, name, height, inference_ms)
    with contextlib.suppress(Skip):  # no motion: the rows above say so
        rows += beside.measure(bench)
    return rows


def _scene(bench: Bench, name: str, height: int, inference_ms: float) -> list[Row]:
    size = bench.size
    seconds = math.ceil(2 * size.warm_s + size.window_s) + 5
    scene = footage.make(bench.assets.footage(), bench.footage, name=name, height=height, seconds=seconds)
    tag, what = f"{name}-{height}p", f"node, CPU per video second, {height}p, {_WORDS[name]}"
    ours = _node(bench, scene, tag)
    alone = decode.cpu_ms_per_video_s(scene.path)
    rows = [Row(f"cpu-{tag}-decode", what, ours.cpu_ms, "ms", "decoding alone", alone)]
    if name != "still":
        least = alone + ours.looks * inference_ms
        peer = f"decoding + {ours.looks:.1f} inferences of {inference_ms:.0f} ms"
        rows.append(Row(f"cpu-{tag}-least", what, ours.cpu_ms, "ms", peer, least))
    try:
        theirs = _motion(bench, scene, tag)
    except Skip as skip:
        return [*rows, Row(f"cpu-{tag}-motion", what, ours.cpu_ms, "ms", f"skipped: {skip}")]
    if name == "still":
        target, met = "below motion", ours.cpu_ms < theirs
        rows.append(Row(f"cpu-{tag}-motion", what, ours.cpu_ms, "ms", "motion", theirs, target=target, met=met))
    else:
        rows.append(Row(f"cpu-{tag}-motion", what, ours.cpu_ms, "ms", "motion, which knows no persons", theirs))
    return rows


def _node(bench: Bench, scene: footage.Scene, tag: str) -> _Spent:
    folder = bench.folder / f"node-{tag}"
    with broker(folder / "broker") as port, station(folder / "station", broker_port=port) as desk:
        path = node.config(folder / "node", footage=scene.path, broker_port=port)
        with node.start(bench, path) as program:
            node.first_fragment(path, program)
            time.sleep(bench.size.warm_s)
            looks = node.wait_well(path, program)["vision"]["detectorruns"]
            cpu_ms, seconds = _window(bench, program)
            looks = node.need_well(path)["vision"]["detectorruns"] - looks
            desk.need_alive()
    return _Spent(cpu_ms, looks / seconds)


def _motion(bench: Bench, scene: footage.Scene, tag: str) -> float:
    with motion_peer.start(bench.folder / f"motion-{tag}", scene) as program:
        time.sleep(1.0 + bench.size.warm_s)  # it opens the file twice before it begins
        return _window(bench, program)[0]


def _window(bench: Bench, program: Program) -> tuple[float, float]:
    """CPU ms of the process tree per second, and the seconds it was taken over."""
    started, spent = time.monotonic(), program.cpu_s()
    time.sleep(bench.size.window_s)
    passed = time.monotonic() - started
    return (program.cpu_s() - spent) * 1000 / passed, passed
