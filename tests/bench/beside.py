"""The whole node beside Debian's `motion`: both watch the same cameras over loopback RTSP in the same seconds.

    idle     nothing moves but the sensor's noise
    mixed    a man comes by for six seconds of every thirty

`single` is a camera with one 720p stream; `sub` has a 360p stream besides, on which both look for motion while they
keep the 720p one (`netcam_high_url` and `movie_passthrough` there, `camera.sub_url` here). The cameras are served from
this process, whose time counts for nobody. CPU time is that of each process tree, system time included. Both run at once, so
what others do to the machine they do to both. Of the mixed scene is told how many visits the node found, and how long after
the first picture of a visit the picture came that decided it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

from agent import wire
from agent.types import NS
from tests.bench import footage, motion_peer, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row
from tests.bench.latency import Arrivals
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
        _cameras(bench, case) as (main, sub, small, epoch_s),
        broker(folder / "broker") as port,
        station(folder / "station", broker_port=port),
        Arrivals(port, "wardpost/v1/bench/+/event/+") as told,
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
            before = node.wait_well(path, program)["vision"]
            begun_s = time.monotonic() - epoch_s
            ours, theirs = _window([program, motion], window_s)
            ended_s = time.monotonic() - epoch_s
            after = node.need_well(path)["vision"]
    looks = after["detectorruns"] - before["detectorruns"]
    note = f"{looks} inferences in {window_s:g} s"
    if case.scene == "mixed":
        note += f"; {_visits(told, epoch_s, begun_s, ended_s)}"
        print(f"{case.tag}: {note}", flush=True)
    ratio = ours / theirs if theirs else float("inf")
    target = "" if case.target is None else f"<= {case.target:g}x"
    met = None if case.target is None else ratio <= case.target
    return Row(f"cpu-{case.tag}", case.words, ours, "ms", "motion", theirs, target=target, met=met, note=note)


@contextlib.contextmanager
def _cameras(bench: Bench, case: Case) -> Iterator[tuple[RtspServer, RtspServer | None, footage.Scene, float]]:
    """The main stream, the sub stream if there is one, the scene that motion is looked for in, and when it began."""
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
        yield servers[0], servers[1] if case.sub else None, scenes[-1], epoch_s
    finally:
        for server in servers:
            server.close()


def _visits(told: Arrivals, epoch_s: float, begun_s: float, ended_s: float) -> str:
    """Of the visits that began in the window and could be told in it: how many were, and how soon. In words."""
    boot_minus_monotonic_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    decided = [
        event.monons / NS - boot_minus_monotonic_s - epoch_s
        for event in (wire.decode(payload, wire.CloudEvent) for _, payload in told.messages())
        if event.data.phase == "started" and event.type in {"wardpost.person", "wardpost.bicycle"}
    ]
    absent_s, period_s = footage.MIXED_PERIOD_S - footage.MIXED_STAY_S, footage.MIXED_PERIOD_S
    visits = [
        begins_s
        for turn in range(int(ended_s / period_s) + 1)
        if begun_s <= (begins_s := turn * period_s + absent_s) <= ended_s - footage.MIXED_STAY_S
    ]
    onsets = [
        min((at_s - visit for at_s in decided if 0 <= at_s - visit <= footage.MIXED_STAY_S), default=None)
        for visit in visits
    ]
    found = [onset for onset in onsets if onset is not None]
    latest = f", decided {max(found):.2f} s after its first picture at the latest" if found else ""
    return f"{len(found)} of {len(visits)} visits found{latest}"


def _window(programs: list[Program], window_s: float) -> list[float]:
    """CPU ms of each process tree per second."""
    started, spent = time.monotonic(), [program.cpu_s() for program in programs]
    time.sleep(window_s)
    passed_s = time.monotonic() - started
    return [(program.cpu_s() - was) * 1000 / passed_s for program, was in zip(programs, spent, strict=True)]
