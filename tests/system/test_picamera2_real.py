"""The real picamera2 on the real libcamera, Debian trixie's, with its `virtual` pipeline in place of a sensor.

Needs root, debootstrap and Debian's packages. The folder is made once (about 90 s) and used again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent / "picamera2_chroot"
ROOT = Path(os.environ.get("WARDPOST_TRIXIE", "/var/tmp/wardpost-trixie"))

Enter = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def enter() -> Enter:
    """Runs a command in the folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root: debootstrap and chroot")
    if shutil.which("debootstrap") is None:
        pytest.skip("needs debootstrap: apt-get install debootstrap")
    subprocess.run([HERE / "setup.sh", ROOT, CHECKOUT], check=True, timeout=1500)

    def run(*command: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HERE / "enter.sh", ROOT, *command], capture_output=True, text=True, timeout=timeout_s, check=False
        )

    return run


def probe(enter: Enter, *arguments: str) -> dict[str, Any]:
    done = enter("python", "/opt/wardpost/rig/probe_driver.py", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    print(report)
    return report


def test_the_driver_on_the_real_library(enter: Enter) -> None:
    """Frames, luma, crops and playable H.264 come out, and again after a close."""
    report = probe(enter)
    for session, seconds in (("session0", 7), ("session1", 2)):
        found = report[session]
        assert found["packets"] > seconds * 8
        assert found["pictures"] == found["packets"], "every access unit decodes"
        assert found["keyframes"] >= seconds - 1
        assert found["complete"], "SPS and PPS in every key frame"
        assert found["size"] == [640, 360]
        assert found["luma"] == [180, 320]
        assert found["crop"] == [360, 640, 3]
        assert found["frames"] > seconds * 3
        assert found["late_s"] < seconds + 1, "SensorTimestamp is our clock"
        assert found["corner_crop"] > 90
    assert report["session0"]["moved"] > 60, "the walker is seen"
    assert "mask_failures=0, callback_failures=0" in report["counters"]


def test_masks_on_the_real_library(enter: Enter) -> None:
    """A masked corner is black in the footage, in the luma and in the crops."""
    report = probe(enter, "masked")
    for session in ("session0", "session1"):
        assert report[session]["corner_crop"] == 0
        assert report[session]["corner_luma"] == 16
        assert report[session]["corner_footage"] < 24
    assert report["session0"]["moved"] > 60
