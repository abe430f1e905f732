"""Small video files, made with FFmpeg when a test asks for them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.fakes.camera import Walker, picture


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (320, 240),
    fps: int = 10,
    seconds: float = 2.0,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """A scene with one walker, in any codec, pixel format and container that this FFmpeg writes."""
    width, height = size
    with av.open(str(path), "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.time_base = Fraction(1, fps)
        stream.codec_context.gop_size = fps
        stream.codec_context.thread_count = 1
        stream.codec_context.options = options or {}
        frames = round(fps * seconds)
        for index in range(frames):
            luma = picture(width, height, index / fps, (Walker(0.0, seconds),))
            frame: Any = av.VideoFrame.from_ndarray(np.repeat(luma[:, :, None], 3, axis=2), format="bgr24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = index
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def make_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000)
        frame: Any = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in stream.encode(frame):
            container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
