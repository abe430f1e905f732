"""A camera made of arithmetic: boxes walk over a textured ground, H.264 is real, and every fault can be had."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from threading import Event as Flag
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from agent.camera import CameraLost, h264, yuv
from agent.camera.transcode import planes_of
from agent.clock import Clock
from agent.errors import Transient
from agent.types import NS, Box, Frame, Packet, VideoFormat

if TYPE_CHECKING:
    from agent.types import Bgr, Luma

_CLIP_S = 4  # the H.264 repeats after so long


@dataclass(frozen=True, slots=True)
class Walker:
    """A bright box that crosses the picture from left to right between two moments of the scene."""

    from_s: float
    until_s: float
    y: float = 0.4
    w: float = 0.08
    h: float = 0.3
    level: int = 220

    def box_at(self, t_s: float) -> Box | None:
        """Where it is at `t_s`, or None when it is not there."""
        if not self.from_s <= t_s < self.until_s:
            return None
        share = (t_s - self.from_s) / (self.until_s - self.from_s)
        return Box(share * (1 - self.w), self.y, self.w, self.h)


@functools.lru_cache(maxsize=8)
def ground(width: int, height: int) -> Luma:
    """A still, textured picture, the same at every size."""
    rows = np.arange(height)[:, None]
    columns = np.arange(width)[None, :]
    texture = 70 + 25 * np.sin(columns / width * 35.0) + 20 * np.cos(rows / height * 34.0)
    return np.asarray(np.clip(texture, 16, 200), dtype=np.uint8)


def picture(width: int, height: int, t_s: float, walkers: Sequence[Walker]) -> Luma:
    """The scene's luma at `t_s`."""
    luma = ground(width, height).copy()
    for walker in walkers:
        box = walker.box_at(t_s)
        if box is not None:
            left, top = int(box.x * width), int(box.y * height)
            luma[top : int(box.y2 * height), left : int(box.x2 * width)] = walker.level
    return luma


@functools.lru_cache(maxsize=8)
def access_units(width: int, height: int, fps: int, seconds: int = _CLIP_S) -> tuple[tuple[bool, bytes], ...]:
    """Real H.264 (libx264, a key frame each second, SPS and PPS in band), one Annex B access unit a frame."""
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, fps)
    encoder.framerate = Fraction(fps)
    encoder.gop_size = fps
    encoder.thread_count = 1
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "scenecut=0"}
    walkers = (Walker(0.0, float(seconds)),)
    units: list[tuple[bool, bytes]] = []
    for index in range(fps * seconds):
        frame: Any = av.VideoFrame(width, height, "yuv420p")
        planes = planes_of(frame)
        planes.y[:] = picture(width, height, index / fps, walkers)
        planes.u[:] = 110
        planes.v[:] = 140
        frame.pts = index
        units += [(packet.is_keyframe, bytes(packet)) for packet in encoder.encode(frame)]
    units += [(packet.is_keyframe, bytes(packet)) for packet in encoder.encode(None)]
    return tuple(units)


class _Picture:
    def __init__(self, luma: Luma, *, gone: bool) -> None:
        self._luma = luma
        self._gone = gone

    def crop(self, box: Box, px_max: int) -> Bgr:
        if self._gone:
            raise Transient("fake camera: the picture has been overwritten")
        height, width = (self._luma.shape[0] + 1) // 2, (self._luma.shape[1] + 1) // 2
        chroma = np.full((height, width), 128, np.uint8)
        return yuv.crop_bgr(yuv.Planes(self._luma, chroma, chroma), box, px_max)


class FakeCamera:
    """`agent.camera.Camera` driven by a clock. Faults are switched on and off by the test, at any time.

    The scene's time counts from `epoch_ns`, the clock's time when the camera was made; it goes on while nobody looks.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        fps: int = 10,
        analysis_fps: float = 5.0,
        size: tuple[int, int] = (320, 240),
        luma_px: int = 160,
        walkers: Sequence[Walker] = (),
    ) -> None:
        self.name = "fake camera"
        self.opened = 0  # times it was opened
        self.is_open = False
        self.walkers = list(walkers)
        self.slow_open_s = 0.0  # opening takes so long
        self._clock = clock
        self._fps = fps
        self._every = max(round(fps / analysis_fps), 1)
        self._size = size
        self._luma_px = luma_px
        self._period_ns = NS // fps
        self.epoch_ns = clock.boot_ns()
        self._next = 0  # number of the next picture since the epoch
        self._first = 0  # number of the first picture of this session
        self._mode = "well"
        self._crops_fail = False
        self._video: VideoFormat | None = None

    def stall(self) -> None:
        """Opens, says nothing. The commonest fault of all."""
        self._mode = "stalled"

    def vanish(self) -> None:
        """Unplugged: reading and opening fail."""
        self._mode = "gone"

    def rubbish(self) -> None:
        """Sends data that no decoder takes, which a driver reports after a while."""
        self._mode = "rubbish"

    def fail_crops(self, *, fail: bool = True) -> None:
        """Pictures are overwritten before anybody asks for their colours."""
        self._crops_fail = fail

    def heal(self) -> None:
        """Well again; a session that was open goes on at its next key frame."""
        self._mode = "well"
        self._resume()

    def open(self) -> None:
        self.opened += 1
        if self.slow_open_s:
            self._clock.wait(Flag(), self.slow_open_s)
        if self._mode == "gone":
            raise CameraLost(f"{self.name}: not there; check that the camera is plugged in")
        self.is_open = True
        self._resume()
        self._first = self._next

    def read(self, timeout_s: float) -> list[Frame | Packet]:
        if not self.is_open or self._mode == "gone":
            raise CameraLost(f"{self.name}: not there; check that the camera is plugged in")
        if self._mode == "rubbish":
            self._clock.wait(Flag(), timeout_s)
            raise CameraLost(f"{self.name}: none of its packets could be decoded")
        if self._mode == "stalled":
            self._clock.wait(Flag(), timeout_s)
            return []
        due_ns = self._stamp(self._next)
        now_ns = self._clock.boot_ns()
        if now_ns < due_ns:
            self._clock.wait(Flag(), min(timeout_s, (due_ns - now_ns) / NS))
        items: list[Frame | Packet] = []
        while self._stamp(self._next) <= self._clock.boot_ns() and len(items) < 64:
            items += self._picture(self._next)
            self._next += 1
        return items

    def close(self) -> None:
        self.is_open = False

    def _resume(self) -> None:
        """Skips what nobody saw: the next picture is the next key frame from now on."""
        passed_ns = max(self._clock.boot_ns() - self.epoch_ns, 0)
        number = -(-passed_ns // self._period_ns)
        self._next = max(-(-number // self._fps) * self._fps, self._next)

    def _stamp(self, number: int) -> int:
        return self.epoch_ns + number * self._period_ns

    def _picture(self, number: int) -> list[Frame | Packet]:
        width, height = self._size
        units = access_units(width, height, self._fps)
        keyframe, data = units[number % len(units)]
        if self._video is None:
            self._video = VideoFormat(width, height, h264.parameter_sets(units[0][1]))
        stamp = self._stamp(number)
        items: list[Frame | Packet] = [Packet(stamp, stamp, keyframe, data, self._video)]
        if (number - self._first) % self._every == 0:
            luma = picture(width, height, number / self._fps, self.walkers)
            low = yuv.luma_low(luma, self._luma_px)
            source = _Picture(luma, gone=self._crops_fail)
            items.append(Frame(seq=number - self._first + 1, boot_ns=stamp, luma=low, source=source))
        return items
