"""Weeks of frames do not fill the memory: the eyes of a node, over many frames, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agent.assets import Assets

FRAMES = int(os.environ.get("WARDPOST_SOAK_FRAMES") or 30_000)
"""50 s; 1,000,000 take half an hour of a core. The slope is stated per million all the same."""
GROWTH_MB_MAX = 1.5
"""Of the last tenth of the samples over the first: what the allocator's own jitter never reached."""
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.system
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_frames_that_were_seen(assets: Assets) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.soak", assets.model(), assets.labels(), str(FRAMES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    frames, rss_mb = np.array(told["samples"]).T
    slope = float(np.polyfit(frames / 1e6, rss_mb, 1)[0])
    tenth = max(len(rss_mb) // 10, 1)
    growth_mb = float(np.median(rss_mb[-tenth:]) - np.median(rss_mb[:tenth]))
    print(
        f"{FRAMES} frames, {told['runs']} inferences, {told['told']} told: {rss_mb[-1]:.1f} MB resident,"
        f" {growth_mb:+.2f} MB from the first tenth to the last, slope {slope:+.1f} MB per million frames"
    )
    assert told["frames"] == FRAMES
    assert told["runs"] > FRAMES // 500, "the detector was part of it"
    assert told["told"]["started"] == told["told"]["ended"] > 0
    assert growth_mb < GROWTH_MB_MAX
