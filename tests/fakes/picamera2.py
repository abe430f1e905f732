"""The registry's real picamera2 on top of tests/fakes/libcamera.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import libcamera
from tests.fakes.camera import Walker, picture
from tests.system.picamera2_chroot.memfd import memfd_allocator


def make_rig(fps: float = 15, kind: str = "YUV420") -> tuple[libcamera.Sensor, Callable[[], Any]]:
    """The sensor, for faults, and what `Picamera2Camera(make_picamera2=)` takes. Skips where picamera2 is not installed.

    libx264 takes the place of the hardware encoder, as it does on a Pi 5.
    """
    sensor = libcamera.Sensor(lambda w, h, n: picture(w, h, n / fps, (Walker(0, 60),)), fps, kind)
    libcamera.install(sensor)
    pytest.importorskip("picamera2", reason="picamera2 is not installed (make setup does it)")
    import picamera2.encoders
    import picamera2.picamera2
    from picamera2.encoders.libav_h264_encoder import LibavH264Encoder

    picamera2.encoders.H264Encoder = LibavH264Encoder
    picamera2.picamera2.DmaAllocator = lambda: memfd_allocator(1)
    picamera2.picamera2.Picamera2._cm = picamera2.picamera2.CameraManager()
    return sensor, lambda: picamera2.Picamera2(allocator=memfd_allocator(1))
