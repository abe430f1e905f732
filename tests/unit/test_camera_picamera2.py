"""What can go wrong inside the real picamera2, and what the driver makes of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.camera import CameraLost, CameraStuck, yuv
from agent.camera.picamera2 import Picamera2Camera
from agent.clock import Clock, SystemClock
from agent.errors import ConfigError
from agent.types import NS, Frame, Packet
from tests.fakes.libcamera import Sensor
from tests.fakes.picamera2 import make_rig

pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")  # picamera2 on Python 3.13

CORNER = (((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)),)


class Bench:
    def __init__(self) -> None:
        self.sensor: Sensor
        self.sensor, self.factory = make_rig(fps=20)
        self.clock: Clock = SystemClock()
        self.camera = self.make()

    def make(self, **options: Any) -> Picamera2Camera:
        settings: dict[str, Any] = {
            "width": 320, "height": 240, "fps": 20.0, "bitrate_kbps": 500, "analysis_fps": 10.0, "luma_px": 160,
            "masks": CORNER, "make_picamera2": self.factory, **options,
        }  # fmt: skip
        self.camera = Picamera2Camera(clock=self.clock, **settings)
        return self.camera

    def watch(
        self, seconds: float, *, packets: int = 0, frames: int = 0, till: Callable[[], bool] = lambda: True
    ) -> tuple[list[Packet], list[Frame]]:
        """For so long; on a machine that is too busy to bring `packets`, `frames` and `till` by then, up to a minute."""
        got, seen = list[Packet](), list[Frame]()
        end = self.clock.boot_ns() + round(seconds * NS)
        while (now := self.clock.boot_ns()) < end or (
            now < end + 60 * NS and not (len(got) >= packets and len(seen) >= frames and till())
        ):
            for item in self.camera.read(0.1):
                if isinstance(item, Packet):
                    got.append(item)
                else:
                    seen.append(item)
        return got, seen


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.camera.close()


def test_a_mask_that_cannot_be_drawn_blackens_the_whole_picture(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invariant 8 holds also when the code that keeps it fails: nothing is shown, and the camera runs on."""

    def fails(self: yuv.Mask, planes: yuv.Planes) -> None:
        raise MemoryError("no room for a mask")

    bench.camera.open()
    bench.watch(0.3)
    monkeypatch.setattr(yuv.Mask, "apply", fails)
    bench.watch(0.5, till=lambda: bench.camera.counters.mask_failures > 3)  # what was under way before
    packets, frames = bench.watch(0.7, packets=1, frames=1)
    assert packets
    assert frames
    assert max(int(frame.luma.max()) for frame in frames) == yuv.BLACK_Y
    assert int(frames[-1].crop().max()) == 0
    assert bench.camera.counters.mask_failures > 3


def test_when_not_even_that_works_nothing_leaves_the_camera(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MemoryError("no room")

    bench.camera.open()
    bench.watch(0.3)
    monkeypatch.setattr(yuv.Mask, "apply", fails)
    monkeypatch.setattr(yuv, "blacken", fails)
    with pytest.raises(CameraLost, match="masks cannot be drawn"):
        bench.watch(60)
    bench.camera.close()
    monkeypatch.undo()
    bench.camera.open()
    packets, _ = bench.watch(0.6, packets=1)
    assert packets, "opened again, it works again"


def test_an_exception_in_our_callback_does_not_kill_the_library(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pitfall of the field notes: it would end the event loop, and `stop` would hang for ever."""

    def fails(self: Picamera2Camera, request: object) -> None:
        raise RuntimeError("a bug of ours")

    bench.camera.open()
    bench.watch(0.3)
    monkeypatch.setattr(Picamera2Camera, "_frame", fails)
    packets, _ = bench.watch(0.5, packets=1, till=lambda: bench.camera.counters.callback_failures > 3)
    assert packets, "recording goes on"
    monkeypatch.undo()
    _, frames = bench.watch(0.5, frames=1)
    assert frames
    assert bench.camera.counters.callback_failures > 3
    started = bench.clock.boot_ns()
    bench.camera.close()
    assert bench.clock.boot_ns() - started < 30 * NS


def test_nobody_reads_for_a_while(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue is bounded; after an overflow recording resumes with a key frame."""
    monkeypatch.setattr("agent.camera.picamera2._PACKETS_MAX", 15)
    bench.make(masks=())
    bench.camera.open()
    bench.watch(0.2)
    for _ in range(40):
        bench.clock.wait(threading.Event(), 1.5)
        if bench.camera.counters.packets_dropped:
            break
    packets, _ = bench.watch(1.2, packets=15)
    assert bench.camera.counters.packets_dropped >= 15
    assert packets[0].keyframe
    assert bench.sensor.starved < 15, "a busy machine misses some; without its buffers back the camera misses all"


def test_a_camera_that_freezes_gives_nothing_and_closes_quickly(bench: Bench) -> None:
    """`Camera frontend has timed out`: pictures just stop. The worker sees it by their age; closing must not hang."""
    bench.camera.open()
    bench.watch(0.3, frames=1)
    bench.sensor.frozen = True
    for _ in range(60):
        if bench.watch(0.4) == ([], []):
            break
    assert bench.watch(0.4) == ([], [])
    started = bench.clock.boot_ns()
    bench.camera.close()
    assert bench.clock.boot_ns() - started < 30 * NS
    bench.sensor.frozen = False
    bench.camera.open()
    assert bench.watch(0.6, packets=1)[0]


def test_a_library_that_does_not_stop_is_stuck(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder holds its lock for ever (issues 1090, 1392): the driver gives up in time and asks for a new process."""
    monkeypatch.setattr("agent.camera.picamera2._STOP_S_MAX", 0.5)
    bench.camera.open()
    bench.watch(0.3)
    encoder = bench.camera._encoder
    encoder._lock.acquire()
    bench.watch(0.3)
    started = bench.clock.boot_ns()
    bench.camera.close()
    assert bench.clock.boot_ns() - started < 30 * NS
    with pytest.raises(CameraStuck, match="new process"):
        bench.camera.open()
    encoder._lock.release()
    for thread in threading.enumerate():
        if thread.name == "picamera2-closer":
            thread.join(timeout=60)
            assert not thread.is_alive(), "let loose, the library closes"


def test_stamps_of_another_clock_are_brought_to_ours(bench: Bench) -> None:
    bench.sensor.stamp_offset_ns = 86_400 * NS
    bench.camera.open()
    packets, frames = bench.watch(0.7, packets=1, frames=1)
    now = bench.clock.boot_ns()
    stamps = [packet.boot_ns for packet in packets] + [frame.boot_ns for frame in frames]
    assert stamps
    assert all(abs(stamp - now) < 90 * NS for stamp in stamps), "not a day off"


def test_no_camera_and_no_library(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.sensor.unplugged = True
    with pytest.raises(CameraLost, match="no camera found; check the ribbon cable"):
        bench.camera.open()
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(ConfigError, match="install python3-picamera2 with apt"):
        bench.camera.open()
