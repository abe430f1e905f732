"""A scene put together from real footage: the same visitors come by in one corner, and later in another."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from agent.types import Box

FPS = 10


def compose(path: Path, footage: Path, visits: Sequence[tuple[float, Box]], *, seconds: float) -> Path:
    """`footage` plays in each box from each second on; elsewhere there is a grey wall with a camera's noise."""
    width, height = 960, 540
    noise = np.random.default_rng(7)
    with av.open(str(footage)) as source:
        pictures = [(float(f.time or 0), f.to_ndarray(format="bgr24")) for f in source.decode(video=0)]
    wall = np.full((height, width, 3), 110, np.int16)
    wall[::60] = wall[:, ::80] = 90  # tiles: something to hold on to
    walls = [np.clip(wall + noise.integers(-3, 4, wall.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = FPS
        for index in range(round(seconds * FPS)):
            picture = walls[index % len(walls)].copy()
            for begin_s, box in visits:
                inset = next((p for at_s, p in pictures if begin_s + at_s >= index / FPS - 1e-6), None)
                if index / FPS >= begin_s and inset is not None:
                    _paste(picture, inset, box)
            frame: Any = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts = index
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def _paste(picture: Any, inset: Any, box: Box) -> None:
    height, width = picture.shape[:2]
    x, y, w, h = round(box.x * width), round(box.y * height), round(box.w * width), round(box.h * height)
    rows = np.arange(h) * inset.shape[0] // h
    columns = np.arange(w) * inset.shape[1] // w
    picture[y : y + h, x : x + w] = inset[rows][:, columns]
