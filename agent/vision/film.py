"""A film made of drawn pictures, each shown when it was seen. H.264 in MP4, for any player."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from agent.errors import ConfigError, Transient
from agent.types import Bgr

_TICKS = 90_000  # a second: what MP4 usually counts in
_OPTIONS = {"preset": "veryfast", "crf": "23"}


class Film:
    """One file. `add` as often as there are pictures, then `close`; without a picture there is no file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sink: Any = None
        self._stream: Any = None
        self._last = -1

    def add(self, picture: Bgr, at_s: float) -> None:
        """One picture; its size may differ from the first one's (it is scaled). Times must go forward.

        Blocks for the encoding. Raises ConfigError (the file cannot be made), Transient (it cannot be written).
        """
        try:
            if self._sink is None:
                self._open(picture)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            if (frame.width, frame.height) != (self._stream.width, self._stream.height):
                frame = frame.reformat(width=self._stream.width, height=self._stream.height)
            self._last = max(round(at_s * _TICKS), self._last + 1)
            frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
            self._sink.mux(self._stream.encode(frame))
        except (OSError, av.FFmpegError) as error:
            raise Transient(f"{self._path}: cannot be written: {error}") from None

    def close(self) -> None:
        """Ends the file. Raises Transient."""
        if self._sink is None:
            return
        sink, self._sink = self._sink, None
        try:
            sink.mux(self._stream.encode())
            sink.close()
        except (OSError, av.FFmpegError) as error:
            raise Transient(f"{self._path}: cannot be written: {error}") from None

    def _open(self, picture: Bgr) -> None:
        height, width = (max(side // 2 * 2, 2) for side in picture.shape[:2])  # 4:2:0 has no odd sizes
        try:
            self._sink = av.open(str(self._path), "w", format="mp4")
        except (OSError, av.FFmpegError) as error:
            raise ConfigError(f"{self._path}: cannot be written: {error}") from None
        self._stream = self._sink.add_stream("libx264", options=_OPTIONS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = Fraction(1, _TICKS)
