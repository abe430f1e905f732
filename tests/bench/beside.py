"""The whole node beside Debian's `motion`: both watch the same cameras over loopback RTSP in the same seconds.

    idle     nothing moves but the sensor's noise
    mixed    a man comes by for six seconds of every thirty

`single` is a camera with one 720p stream; `sub` has a 360p stream besides, on which both look for motion while they
keep the 720p one (`netcam_high_url` and `movie_passthrough` there, `camera.sub_url` here). The cameras are served from
this process, whose time counts for nobody. CPU time is that of each process tree, system time included. Both run at once, so
what others do to the machine they do to both.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench import footage, motion_peer, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row
from tests.bench.programs import Program, broker
from tests.fakes.rtsp import RtspServer

_WINDOW_S_MIN = 5  # shorter ones measure nothing
GOP_S = 2  # as most cameras are delivered


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison and the most that the node may cost, as a share of motion."""

    scene: str  # idle, mixed
    sub: bool
    rate: str
    target: float | None

    @property
    def tag(self) -> str:
        return f"{self.scene}-{'sub' if self.sub else 'single'}{'' if self.rate == 'vbr' else '-' + self.rate}"

    @property
    def words(self) -> str:
        seen = {"idle": "nothing moves", "mixed": "a visit each half minute"}[self.scene]
        streams = "720p and a 360p sub stream" if self.sub else "one 720p stream"
        return f"node, CPU per video second, {streams}, {seen}{'' if self.rate == 'vbr' else ', constant bitrate'}"


CASES = (
    Case("idle", True, "vbr", 0.25),
    Case("mixed", True, "vbr", 0.75),
    Case("idle", False, "vbr", 0.10),
    Case("mixed", False, "vbr", 0.50),
    Case("idle", True, "cbr", None),
    Case("idle", False, "cbr", None),
)


def measure(bench: Bench, cases: tuple[Case, ...] = CASES) -> list[Row]:
    """A row of each case; of the first alone where only the running is tried. Raises Skip where there is no motion."""
    return [_row(bench, case) for case in (cases if bench.size.window_s >= _WINDOW_S_MIN else cases[:1])]


def _row(bench: Bench, case: Case) -> Row:
    window_s = bench.size.window_s
    if case.scene == "mixed":  # whole turns: each sees as many visits
        window_s = max(round(window_s / footage.MIXED_PERIOD_S), 1) * footage.MIXED_PERIOD_S
    folder = bench.folder / case.tag
    folder.mkdir()
    with (
        _cameras(bench, case) as (main, sub, small),
        broker(folder / "broker") as port,
        station(folder / "station", broker_port=port),
    ):
        extra = f'sub_url = "{sub.url()}"\n' if sub else ""
        path = node.config(folder / "node", footage=main.url(), broker_port=port, camera=extra)
        high_url = main.url() if sub else ""
        with (
            motion_peer.start(folder / "motion", small, url=(sub or main).url(), high_url=high_url) as motion,
            node.start(bench, path) as program,
        ):
            node.first_fragment(path, program)
            time.sleep(bench.size.warm_s * 3)  # it learns what is usual before it sleeps
            before = node.need_well(path)["vision"]
            ours, theirs = _window([program, motion], window_s)
            after = node.need_well(path)["vision"]
    looks = after["detectorruns"] - before["detectorruns"]
    note = f"{looks} inferences in {window_s:g} s"
    ratio = ours / theirs if theirs else float("inf")
    target = "" if case.target is None else f"<= {case.target:g}x"
    met = None if case.target is None else ratio <= case.target
    return Row(f"cpu-{case.tag}", case.words, ours, "ms", "motion", theirs, target=target, met=met, note=note)


@contextlib.contextmanager
def _cameras(bench: Bench, case: Case) -> Iterator[tuple[RtspServer, RtspServer | None, footage.Scene]]:
    """The main stream, the sub stream if there is one, and the scene that motion is looked for in."""
    main_height, sub_height = bench.size.streams
    name = "still" if case.scene == "idle" else "mixed"
    seconds = int(footage.MIXED_PERIOD_S) if case.scene == "mixed" else 10
    epoch_s = time.monotonic()
    servers: list[RtspServer] = []
    scenes: list[footage.Scene] = []
    try:
        for height in (main_height, sub_height) if case.sub else (main_height,):
            scene = footage.make(
                bench.assets.footage(), bench.footage,
                name=name, height=height, seconds=seconds, rate=case.rate, gop_s=GOP_S,
            )  # fmt: skip
            scenes.append(scene)
            servers.append(RtspServer(footage.units(scene), fps=footage.FPS, epoch_s=epoch_s))
        yield servers[0], servers[1] if case.sub else None, scenes[-1]
    finally:
        for server in servers:
            server.close()


def _window(programs: list[Program], window_s: float) -> list[float]:
    """CPU ms of each process tree per second."""
    started, spent = time.monotonic(), [program.cpu_s() for program in programs]
    time.sleep(window_s)
    passed_s = time.monotonic() - started
    return [(program.cpu_s() - was) * 1000 / passed_s for program, was in zip(programs, spent, strict=True)]
