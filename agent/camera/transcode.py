"""Encodes pictures to H.264 where the source's own stream cannot be kept: another codec, or privacy masks."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from agent.camera import h264, yuv
from agent.types import NS, Packet, VideoFormat

_US = Fraction(1, 1_000_000)
_PENDING_MAX = 64  # stamps remembered; zerolatency gives every picture back at once


class Transcoder:
    """libx264, ultrafast and zerolatency: a key frame every second, no B-frames, SPS and PPS in band. One thread.

    A picture of another size starts another encoder, and so another VideoFormat.
    """

    def __init__(self, *, fps: float, bitrate_kbps: int) -> None:
        """`fps` and `bitrate_kbps` guide the rate control; the pictures' own stamps count."""
        self._fps = fps
        self._bitrate_kbps = bitrate_kbps
        self._encoder: Any = None
        self._video = VideoFormat(0, 0)
        self._stamps: dict[int, int] = {}  # microseconds as encoded -> boot_ns
        self._first_ns = 0
        self._last_us = -1
        self._key_ns: int | None = None

    def encode(self, picture: Any, boot_ns: int) -> list[Packet]:
        """Access units for one `av.VideoFrame` of 4:2:0, whose pixels are only read. Odd sizes lose a row or column."""
        width, height = picture.width & ~1, picture.height & ~1
        if self._encoder is None or (width, height) != (self._video.width, self._video.height):
            self._start(width, height, boot_ns, int(picture.color_range))
        picture.pict_type = PictureType.NONE  # else libx264 copies the source's choice of key frames
        if self._key_ns is None or boot_ns - self._key_ns >= NS - round(NS / self._fps / 2):
            picture.pict_type = PictureType.I
            self._key_ns = boot_ns
        stamp_us = max((boot_ns - self._first_ns) // 1000, self._last_us + 1)
        self._last_us = stamp_us
        if len(self._stamps) >= _PENDING_MAX:
            self._stamps.clear()
        self._stamps[stamp_us] = boot_ns
        picture.pts = stamp_us
        picture.time_base = _US
        return [self._packet(encoded) for encoded in self._encoder.encode(picture)]

    def _start(self, width: int, height: int, boot_ns: int, color_range: int) -> None:
        encoder: Any = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base = _US
        encoder.framerate = Fraction(self._fps).limit_denominator(1001)
        encoder.bit_rate = self._bitrate_kbps * 1000
        encoder.gop_size = max(round(self._fps * 2), 1)  # we force one each second; this is the net below
        encoder.color_range = color_range
        encoder.thread_count = 1
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "forced-idr": "1", "x264-params": "scenecut=0"}
        self._encoder = encoder
        self._video = VideoFormat(width, height)
        self._stamps.clear()
        self._first_ns, self._last_us, self._key_ns = boot_ns, -1, None

    def _packet(self, encoded: Any) -> Packet:
        data = bytes(encoded)
        if encoded.is_keyframe:
            sets = h264.parameter_sets(data)
            if sets != self._video.extradata:
                self._video = VideoFormat(self._video.width, self._video.height, sets)
        boot_ns = self._stamps.pop(encoded.pts, self._first_ns + encoded.pts * 1000)
        return Packet(boot_ns=boot_ns, dts_ns=boot_ns, keyframe=encoded.is_keyframe, data=data, video=self._video)


def even_copy(planes: yuv.Planes) -> tuple[Any, yuv.Planes]:
    """A new `av.VideoFrame` (yuv420p, even size) with the picture's content, and its planes, writable.

    Masks are drawn on a copy, never on the decoder's own picture: later pictures are predicted from that one.
    """
    width, height = planes.width & ~1, planes.height & ~1
    picture = av.VideoFrame(width, height, "yuv420p")
    if planes.full_range:
        picture.color_range = 2
    copy = planes_of(picture)
    copy.y[:] = planes.y[:height, :width]
    copy.u[:] = planes.u[: height // 2, : width // 2]
    copy.v[:] = planes.v[: height // 2, : width // 2]
    return picture, copy


def planes_of(picture: Any) -> yuv.Planes:
    """The planes of a decoded `av.VideoFrame` without a copy, as far as its format allows; they keep it alive.

    4:2:0, 4:2:2 and 4:4:4 of 8 bits and gray are views (chroma is thinned); anything else is converted by swscale.
    """
    name = picture.format.name
    full = name.startswith("yuvj") or int(picture.color_range) == 2
    name = name.replace("yuvj", "yuv")
    if name not in {"yuv420p", "yuv422p", "yuv444p", "nv12", "gray"}:
        picture = picture.reformat(format="yuv420p")
        name, full = "yuv420p", int(picture.color_range) == 2
    height, width = picture.height, picture.width
    half_h, half_w = (height + 1) // 2, (width + 1) // 2
    y = _rows(picture.planes[0])[:height, :width]
    if name == "gray":
        neutral = np.full((half_h, half_w), yuv.BLACK_UV, np.uint8)
        return yuv.Planes(y, neutral, neutral, full_range=True)
    if name == "nv12":
        chroma = _rows(picture.planes[1])
        return yuv.Planes(y, chroma[:half_h, 0 : 2 * half_w : 2], chroma[:half_h, 1 : 2 * half_w : 2], full)
    down = 1 if name == "yuv420p" else 2
    across = 2 if name == "yuv444p" else 1
    u, v = (_rows(plane)[: half_h * down : down, : half_w * across : across] for plane in picture.planes[1:3])
    return yuv.Planes(y, u, v, full)


def _rows(plane: Any) -> yuv.Plane:
    """The memory of a plane as rows, padding included."""
    rows: yuv.Plane = np.frombuffer(plane, np.uint8)
    return rows[: rows.size // plane.line_size * plane.line_size].reshape(-1, plane.line_size)
