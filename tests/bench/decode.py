"""Decoding alone: the least that anything that looks at every picture must pay. PyAV, one thread, in this process."""

from __future__ import annotations

import time
from pathlib import Path

import av


def cpu_ms_per_video_s(path: Path) -> float:
    """CPU time of one pass over a file, demuxing included."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"
        started = time.process_time()
        frames = sum(1 for _ in container.decode(stream))
        spent_s = time.process_time() - started
        rate = float(stream.average_rate or 0)
    return spent_s * 1000 / (frames / rate)
