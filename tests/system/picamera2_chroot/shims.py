"""What the real picamera2 needs on libcamera's `virtual` pipeline, which is not a Raspberry Pi. Runs in the chroot.

Import it before anything opens a camera: afterwards `picamera2.Picamera2()` works as on a Pi. All else is real.
"""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np

FPS = 15.0
SIZE = (640, 360)
LOW_SIZES = ((320, 180), (160, 90))
_SCENE = Path("/opt/wardpost/scene")
_PIPELINE = Path("/usr/share/libcamera/pipeline/virtual/virtual.yaml")


def make_scene(seconds: int = 6) -> None:
    """A still room in which a bright box walks from left to right in the last four of six seconds, as JPEG files."""
    _SCENE.mkdir(parents=True, exist_ok=True)
    width, height = SIZE
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    still = (90 + 30 * np.sin(columns / 17.0) + 20 * np.cos(rows / 13.0)).astype(np.uint8)
    frames = int(seconds * FPS)
    for number in range(frames):
        picture = cv2.cvtColor(still, cv2.COLOR_GRAY2BGR)
        share = (number - frames / 3) / (frames * 2 / 3)
        if share >= 0:
            left = int(share * (width - 50))
            picture[140:280, left : left + 50] = (40, 60, 240)
        cv2.imwrite(str(_SCENE / f"{number:04d}.jpg"), picture)
    sizes = "".join(
        f"  - width: {w}\n    height: {h}\n    frame_rates:\n    - {FPS:g}\n" for w, h in (*LOW_SIZES, SIZE)
    )
    _PIPELINE.parent.mkdir(parents=True, exist_ok=True)
    _PIPELINE.write_text(
        f'"Virtual0":\n  supported_formats:\n{sizes}  frames:\n    path: "{_SCENE}"\n  model: "Virtual0"\n'
    )


def install() -> None:
    """Stubs for pykms and PiDNG (a display and raw photographs), then a Picamera2 that knows its way here."""
    formats = ("RGB888", "BGR888", "XRGB8888", "XBGR8888", "YUV420", "YVU420", "NV12")
    for name, content in (
        ("pykms", {"PixelFormat": types.SimpleNamespace(**dict.fromkeys(formats, 0))}),
        ("pidng", {}),
        ("pidng.camdefs", {"Picamera2Camera": object}),
        ("pidng.core", {"PICAM2DNG": object}),
    ):
        module = types.ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module

    import picamera2
    import picamera2.encoders
    import picamera2.picamera2
    from memfd import memfd_allocator  # type: ignore[import-not-found]  # beside this file
    from picamera2.encoders.libav_h264_encoder import LibavH264Encoder

    class VirtualPicamera2(picamera2.Picamera2):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(allocator=memfd_allocator(2))

        def _get_raw_modes(self) -> list[dict[str, Any]]:
            return [{"format": "SRGGB10", "size": SIZE}]  # the pipeline has no raw streams to ask for

        def start_encoder(self, *arguments: Any, **named: Any) -> None:
            limits = types.SimpleNamespace(min=33_333, max=1_000_000, default=33_333)
            self.camera_ctrl_info.setdefault("FrameDurationLimits", (None, limits))
            super().start_encoder(*arguments, **named)

        def process_requests(self, display: Any) -> None:
            time.sleep(1 / FPS)  # the pipeline gives pictures as fast as it is asked
            super().process_requests(display)

    picamera2.encoders.H264Encoder = LibavH264Encoder  # as on a Pi 5
    picamera2.picamera2.DmaAllocator = lambda: memfd_allocator(2)
    picamera2.Picamera2 = VirtualPicamera2
