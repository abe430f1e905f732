"""Everything through which a node touches the world, and the real one by the settings."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from agent import drivers
from agent.camera import Camera
from agent.camera.vigilance import Attention
from agent.clock import Clock, Usage
from agent.config import Config
from agent.disk import Disk
from agent.live import Rtc
from agent.live.rtc import AioRtc
from agent.machine import Machine
from agent.panel import Panel
from agent.release import tree
from agent.release.slots import Slots
from agent.release.worker import running_slot
from agent.renewal import Renewal
from agent.sending import Depot
from agent.store.store import ignore_step
from agent.uplink import Transport
from agent.vision.detector import Detector


@dataclass(frozen=True, slots=True)
class World:
    """Everything through which a node touches the world. The simulator brings its own."""

    clock: Clock
    disk: Disk
    camera: Camera
    detector: Detector
    panel: Panel
    transport: Transport
    machine: Machine
    rng: random.Random
    stopwatch_ns: Callable[[], int]
    crash_point: Callable[[str], None] = ignore_step
    revision: int = 0  # of the settings, where they came from afar
    config_path: Path | None = None  # of the settings on the system; None: there is no such file
    renewal: Renewal | None = None  # None: its certificate is somebody else's care
    depot: Depot | None = None  # None: headquarters gets no footage from here
    slots: Slots | None = None  # None: this agent was not installed by releases
    attend: Callable[[int], None] | None = None  # asks the camera for every picture until then; None: it gives them all
    rtc: Rtc = field(default_factory=AioRtc)  # live view; nothing of it runs before somebody wants to see
    wait_s_max: float = 1.0  # how long a worker may block in a step; 0 where the simulator owns the time


def real_world(config: Config, disk: Disk, clock: Clock) -> World:
    """The machine's own camera, model, pins and network, by the settings. Opens none of them."""
    attention, rng = Attention(), random.Random()  # noqa: S311  (jitter)
    renewal = drivers.make_renewal(config, clock, rng)
    return World(
        clock=clock,
        disk=disk,
        camera=drivers.make_camera(
            config.camera,
            analysis_fps=config.vision.analysis_fps,
            luma_px=config.vision.luma_px,
            clock=clock,
            attention=attention,
        ),
        attend=attention.hold,
        detector=drivers.make_detector(config.vision.detector),
        panel=drivers.make_panel(config.panel, clock),
        transport=drivers.make_transport(config.uplink, clock, None if renewal is None else renewal.choose),
        renewal=renewal,
        depot=drivers.make_depot(config, clock),
        slots=_slots(config, disk),
        machine=Machine(),
        rng=rng,
        stopwatch_ns=Usage().cpu_ns,
    )


def _slots(config: Config, disk: Disk) -> Slots | None:
    """The releases of this machine, where this process runs in one of them."""
    root = Path(config.release.root)
    if not running_slot(Path(sys.prefix), root):
        return None
    return Slots(tree=tree.PosixTree(root), disk=disk, root=root)
