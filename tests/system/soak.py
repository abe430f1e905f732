"""`python -m tests.system.soak MODEL LABELS FRAMES`: a camera's eyes for hours, in one process; prints one JSON object.

A still street with noise, and somebody who crosses it every VISIT_EVERY frames. Everything is real but the camera: motion
gate, TFLite, tracker, rules, thumbnails. Resident memory is read SAMPLES times, after the first quarter is over.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil

from agent.clock import uuid7_maker
from agent.config import VisionSettings
from agent.types import NS, Event, Frame, Phase
from agent.vision.detector.tflite import TfliteDetector
from agent.vision.worker import VisionWorker
from agent.worker import Inbox, WhenFull
from tests.fakes.camera import Walker, _Picture, picture
from tests.fakes.clock import FakeClock

FPS = 5
VISIT_EVERY = 500
VISIT_FRAMES = 25
SAMPLES = 60


def main() -> int:
    model, labels, frames = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    told: dict[Phase, int] = dict.fromkeys(Phase, 0)

    def report(events: Sequence[Event]) -> None:
        for event in events:
            told[event.phase] += 1

    inbox: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
    clock = FakeClock()
    rng = random.Random(7)
    noise = np.random.default_rng(7).integers(0, 4, (16, 180, 320), dtype=np.uint8)
    worker = VisionWorker(
        frames=inbox,
        settings=VisionSettings(),
        zones=[],
        place="the gate",
        detector=TfliteDetector(model=model, labels=labels),
        new_id=uuid7_maker(clock, rng.getrandbits),
        report=report,
        stopwatch_ns=lambda: 0,
    )
    worker.open()
    process, now_ns = psutil.Process(), 1000 * NS
    warm, every = frames // 4, max(frames * 3 // 4 // SAMPLES, 1)
    samples: list[tuple[int, float]] = []
    for index in range(frames):
        at = index % VISIT_EVERY
        walkers = [Walker(0.0, VISIT_FRAMES / FPS)] if at < VISIT_FRAMES else []
        luma = picture(320, 180, at / FPS, walkers) + noise[rng.randrange(16)]
        now_ns += NS // FPS
        inbox.put(Frame(index + 1, now_ns, luma, _Picture(luma, gone=False)))
        worker.step(now_ns / NS)
        if index >= warm and index % every == 0:
            samples.append((index, process.memory_info().rss / 1e6))
    worker.close()
    stats = worker.stats
    told_counts = {phase.value: count for phase, count in told.items()}
    print(json.dumps({"samples": samples, "told": told_counts, "runs": stats.detector_runs, "frames": stats.frames}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
