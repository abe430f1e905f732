"""A picture out of a file that a person names: a photograph, or the first picture of a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.camera.stream import StreamCamera
from agent.clock import SystemClock
from agent.errors import ConfigError, WardpostError
from agent.selftest import one_picture
from agent.types import Bgr
from agent.vision.opencv import cv2

WIDTH_PX_MAX = 1920  # of a film's picture
FILE_BYTES_MAX = 64 << 20  # of a photograph


def picture_in(path: Path) -> Bgr:
    """The pixels of a picture file, or the first picture of a film. Raises ConfigError."""
    try:
        size = path.stat().st_size
        head = path.read_bytes() if size <= FILE_BYTES_MAX else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name a picture or a film") from None
    if head:
        try:
            decoded = cv2.imdecode(np.frombuffer(head, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            decoded = None
        if decoded is not None:
            return np.asarray(decoded, np.uint8)
    try:
        return _first(path)
    except WardpostError as error:
        raise ConfigError(f"{path}: neither a picture nor a film: {error}") from None


def _first(path: Path) -> Bgr:
    clock = SystemClock()
    camera = StreamCamera(
        url=str(path), clock=clock, analysis_fps=float("inf"), luma_px=320, masks=(), paced=False, loop=False
    )
    try:
        return one_picture(camera, clock, px_max=WIDTH_PX_MAX)
    finally:
        camera.close()
