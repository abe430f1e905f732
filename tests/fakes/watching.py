"""The real vision worker with the real model, over frames that somebody gives."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from agent.assets import Assets
from agent.config import VisionSettings
from agent.types import NS, Event, Frame, Kind, Phase
from agent.vision.detector.tflite import TfliteDetector
from agent.vision.tamper import ViewWatch
from agent.vision.worker import Seen, VisionStats, VisionWorker
from agent.worker import Inbox, WhenFull


def watch(
    frames: Iterator[Frame],
    assets: Assets,
    *,
    seen: Seen | None = None,
    every_frame: bool = False,
    view: ViewWatch | None = None,
) -> tuple[list[Event], VisionStats]:
    """What is told of them, each frame looked at in its turn. Blocks for the inference."""
    inbox: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
    told: list[Event] = []
    ids = itertools.count(1)
    worker = VisionWorker(
        frames=inbox,
        settings=VisionSettings(),
        zones=[],
        place="the street",
        detector=TfliteDetector(model=assets.model(), labels=assets.labels()),
        new_id=lambda: f"id-{next(ids)}",
        report=told.extend,
        stopwatch_ns=time.perf_counter_ns,
        seen=seen,
        every_frame=every_frame,
        view=view,
    )
    worker.open()
    for frame in frames:
        inbox.put(frame)
        worker.step(frame.boot_ns / NS)
    worker.close()
    return told, worker.stats


def started(told: Sequence[Event], kind: Kind) -> int:
    """How many incidents of that kind began."""
    return sum(event.kind is kind and event.phase is Phase.STARTED for event in told)
