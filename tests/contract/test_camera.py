"""What every camera promises, held against every driver and against the fake that other tests rely on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from agent.camera import Camera, CameraLost, h264
from agent.camera.picamera2 import Picamera2Camera
from agent.camera.stream import StreamCamera
from agent.clock import Clock, SystemClock
from agent.errors import ConfigError, Transient
from agent.types import FULL, NS, Box, Frame, Packet
from tests.fakes.camera import FakeCamera, access_units
from tests.fakes.clock import FakeClock
from tests.fakes.footage import make_video
from tests.fakes.picamera2 import make_rig
from tests.fakes.rtsp import Fault, RtspServer

pytestmark = pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning")  # picamera2 on Python 3.13

WATCH_S_MAX = 60.0
LUMA_PX = 160
ANALYSIS_FPS = 5.0
MASK = (((0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.0, 0.5)),)


@dataclass
class Rig:
    """A camera, its clock, and how to take it away."""

    camera: Camera
    clock: Clock
    take_away: Callable[[], None]
    masked: bool = False
    ends: list[Callable[[], None]] = field(default_factory=list)


def stream_rig(url: str, clock: Clock, **options: Any) -> StreamCamera:
    settings: dict[str, Any] = {"analysis_fps": ANALYSIS_FPS, "luma_px": LUMA_PX, "stall_s": 2.0, **options}
    return StreamCamera(url=url, clock=clock, **settings)


def make(kind: str, tmp_path: Path) -> Rig:
    fake_clock = FakeClock()
    if kind == "fake":
        fake = FakeCamera(clock=fake_clock, luma_px=LUMA_PX, analysis_fps=ANALYSIS_FPS)
        return Rig(fake, fake_clock, fake.vanish)
    if kind.startswith("file"):
        path = tmp_path / "footage.mp4"
        codec = "mpeg4" if kind == "file-transcoded" else "libx264"
        make_video(path, codec=codec, seconds=3, options={"bf": "2"} if kind == "file-b-frames" else None)
        masks = MASK if kind == "file-masked" else ()
        camera = stream_rig(str(path), fake_clock, loop=True, masks=masks)
        return Rig(camera, fake_clock, path.unlink, masked=bool(masks))
    if kind == "rtsp":
        server = RtspServer(access_units(320, 240, 10), fps=10)
        patient = stream_rig(server.url(), SystemClock(), stall_s=30.0)  # a busy machine is no stall
        return Rig(patient, SystemClock(), server.close, ends=[server.close])
    sensor, factory = make_rig(kind="NV12" if kind == "picamera2-nv12" else "YUV420")
    masks = MASK if kind == "picamera2-masked" else ()
    picamera = Picamera2Camera(
        clock=SystemClock(),
        width=320,
        height=240,
        fps=15.0,
        bitrate_kbps=1000,
        analysis_fps=ANALYSIS_FPS,
        luma_px=LUMA_PX,
        masks=masks,
        make_picamera2=factory,
    )
    return Rig(picamera, SystemClock(), lambda: setattr(sensor, "unplugged", True), masked=bool(masks))


DRIVERS = ["fake", "file", "rtsp", "picamera2"]
VARIANTS = ["file-b-frames", "file-transcoded", "file-masked", "picamera2-nv12", "picamera2-masked"]

every_variant = pytest.mark.parametrize("rig", DRIVERS + VARIANTS, indirect=True)


@pytest.fixture(params=DRIVERS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    made = make(request.param, tmp_path)
    yield made
    made.camera.close()
    for end in made.ends:
        end()


def watch(rig: Rig, seconds: float, *, packets: int = 0, frames: int = 0, keyframes: int = 0) -> list[Frame | Packet]:
    """Everything that the camera gives in `seconds` of its clock; of a clock that nobody drives in WATCH_S_MAX at most,
    as long as it has not given so many yet: a busy machine is late."""
    items: list[Frame | Packet] = []
    end = rig.clock.boot_ns() + round(seconds * NS)
    latest = end if isinstance(rig.clock, FakeClock) else end + round(WATCH_S_MAX * NS)
    while (now := rig.clock.boot_ns()) < end or (
        now < latest
        and (
            sum(isinstance(item, Packet) for item in items) < packets
            or sum(isinstance(item, Frame) for item in items) < frames
            or sum(isinstance(item, Packet) and item.keyframe for item in items) < keyframes
        )
    ):
        items += rig.camera.read(0.2)
    return items


def last_words(rig: Rig, silence_s: float) -> str:
    """Reads until the camera says that it is lost, or has been silent for so long."""
    since_ns = rig.clock.boot_ns()
    while rig.clock.boot_ns() - since_ns < silence_s * NS:
        try:
            if rig.camera.read(0.2):
                since_ns = rig.clock.boot_ns()
        except CameraLost as lost:
            return str(lost)
    return ""


def open_and_watch(rig: Rig, seconds: float) -> None:
    rig.camera.open()
    watch(rig, seconds)


@every_variant
def test_a_session_is_whole(rig: Rig) -> None:
    """The world shows a moving box for some seconds; packets and frames keep every promise of the protocol."""
    rig.camera.open()
    began_ns = rig.clock.boot_ns()
    items = watch(rig, 2.6, frames=8, keyframes=2)
    packets = [item for item in items if isinstance(item, Packet)]
    frames = [item for item in items if isinstance(item, Frame)]
    now_ns = rig.clock.boot_ns()

    assert packets[0].keyframe, "recording can begin at the first packet"
    assert sum(packet.keyframe for packet in packets) >= 2, "a key frame each second"
    for packet in packets:
        assert packet.dts_ns <= packet.boot_ns
        assert packet.data.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01")), "Annex B"
        if packet.keyframe:
            assert h264.parameter_sets(packet.data), "a clip may start at any key frame"
            assert packet.video.extradata == h264.parameter_sets(packet.data)
    steps = np.diff([packet.dts_ns for packet in packets])
    assert (steps > 0).all(), "decoding time never goes back, nor stands"
    assert all(began_ns - 3 * NS < item.boot_ns < now_ns + 3 * NS for item in items), "stamps are CLOCK_BOOTTIME"

    assert 8 <= len(frames) <= ANALYSIS_FPS * (now_ns - began_ns) / NS + 3, "5 a second"
    assert (np.diff([frame.seq for frame in frames]) > 0).all()
    assert frames[0].seq >= 1
    assert (np.diff([frame.boot_ns for frame in frames]) > 0).all()
    for frame in frames:
        assert frame.luma.dtype == np.uint8
        assert frame.luma.ndim == 2
        assert frame.luma.flags.c_contiguous
        assert frame.luma.shape == (120, LUMA_PX)
    presented = {packet.boot_ns // 1000 for packet in packets}
    late = [
        frame
        for frame in frames[1:-2]
        if not presented & set(range(frame.boot_ns // 1000 - 2, frame.boot_ns // 1000 + 3))
    ]
    assert not late, "a frame carries the time of its access unit"
    check_that_it_plays(rig, packets)


def check_that_it_plays(rig: Rig, packets: list[Packet]) -> None:
    """Every access unit decodes, at the size that its VideoFormat promises; masks are in the footage."""
    decoder: Any = av.CodecContext.create("h264", "r")
    pictures = [picture for packet in packets for picture in decoder.decode(av.Packet(packet.data))]
    pictures += decoder.decode(None)
    assert len(pictures) == len(packets)
    assert {(picture.width, picture.height) for picture in pictures} == {(320, 240)}
    assert {(packet.video.width, packet.video.height) for packet in packets} == {(320, 240)}
    if rig.masked:
        for picture in pictures:
            shown = picture.to_ndarray(format="gray")
            assert shown[:110, :150].max() < 24, "recorded footage shows nothing under the mask"
            assert shown[130:, 170:].mean() > 40, "and all of the rest"


@every_variant
def test_colour_is_had_on_demand(rig: Rig) -> None:
    """A crop has the shape of its box, is never larger than asked, and shows the same scene as the luma."""
    rig.camera.open()
    frame = None
    for _ in range(300):
        got = [item for item in rig.camera.read(0.2) if isinstance(item, Frame)]
        if got:
            frame = got[-1]
            full = frame.crop()
            break
    assert frame is not None
    assert full.shape == (240, 320, 3)
    assert full.dtype == np.uint8
    assert full.flags.c_contiguous
    right = frame.crop(Box(0.5, 0.5, 0.5, 0.5))
    assert right.shape == (120, 160, 3)
    assert np.abs(right.astype(int) - full[120:, 160:].astype(int)).mean() < 2
    small = frame.crop(FULL, px_max=100)
    assert max(small.shape[:2]) == 100
    assert small.shape[0] == 75
    dot = frame.crop(Box(0.999, 0.999, 0.0, 0.0))
    assert min(dot.shape[:2]) >= 1, "an empty box at the edge still has a pixel"
    outside = frame.crop(Box(-1.0, -1.0, 4.0, 4.0))
    assert outside.shape == full.shape, "a box is clipped to the picture"
    shown = cv2.cvtColor(full, cv2.COLOR_BGR2GRAY)[::2, ::2].astype(float)
    seen = (frame.luma.astype(float) - 16) * 255 / 219
    assert np.abs(shown - seen).mean() < 8, "luma and colour are of one picture"
    if rig.masked:
        assert full[:110, :150].max() < 24, "nor does a crop show what is masked"
        assert frame.luma[:55, :75].max() < 24, "nor the luma"


def test_a_read_is_bounded(rig: Rig) -> None:
    """`read` gives up when its time is over, also with nothing to give."""
    rig.camera.open()
    before_ns = rig.clock.boot_ns()
    rig.camera.read(0.05)
    assert rig.clock.boot_ns() - before_ns < 30 * NS


def test_closing_and_opening_again(rig: Rig) -> None:
    """`close` may come at any time and twice; a new session starts with a key frame and later stamps."""
    rig.camera.close()
    rig.camera.open()
    first = [item for item in watch(rig, 0.8, packets=1) if isinstance(item, Packet)]
    rig.camera.close()
    rig.camera.close()
    with pytest.raises(CameraLost):
        rig.camera.read(0.1)
    rig.camera.open()
    second = [item for item in watch(rig, 1.2, packets=1) if isinstance(item, Packet)]
    assert second[0].keyframe
    assert second[0].boot_ns > first[0].boot_ns


def test_a_camera_that_is_taken_away_is_lost(rig: Rig) -> None:
    """It is unplugged while running: within seconds either `read` says so or nothing comes any more; opening fails."""
    rig.camera.open()
    watch(rig, 0.5)
    rig.take_away()
    reason = last_words(rig, silence_s=1)
    assert "\n" not in reason
    rig.camera.close()
    with pytest.raises((CameraLost, ConfigError)) as failure:
        rig.camera.open()
    assert "\n" not in str(failure.value)
    assert len(str(failure.value)) > 20, "it says what and where"


def test_old_pictures_do_not_starve_the_camera(tmp_path: Path) -> None:
    """Vision keeps every frame it ever got: the newest still has its colours, old ones say so, pictures keep coming."""
    sensor, factory = make_rig()
    camera = Picamera2Camera(
        clock=SystemClock(),
        width=320,
        height=240,
        fps=15,
        bitrate_kbps=500,
        analysis_fps=15,
        luma_px=160,
        make_picamera2=factory,
    )
    rig = Rig(camera, SystemClock(), lambda: None)
    camera.open()
    try:
        kept = [item for item in watch(rig, 2.5, frames=21) if isinstance(item, Frame)]
        assert len(kept) > 20
        assert kept[-1].crop().shape == (240, 320, 3)
        with pytest.raises(Transient, match="gone back to the camera"):
            kept[0].crop()
        assert sensor.starved < len(kept) / 2, "a busy machine misses some; who kept the buffers would get eight in all"
    finally:
        camera.close()


def test_faults_of_a_network_camera() -> None:
    """Whatever the peer does, the driver says so in one line within seconds, and never with the password."""
    faults = [fault for fault in Fault if fault is not Fault.NONE]
    with ThreadPoolExecutor(len(faults)) as pool:  # each takes seconds of real time: all at once
        list(pool.map(meet, faults))
    for thread in threading.enumerate():
        if thread.name == "camera-reader":
            thread.join(timeout=60)
            assert not thread.is_alive(), "the reader ends when the connection does"


def meet(fault: Fault) -> None:
    server = RtspServer(access_units(320, 240, 10), fps=10, fault=fault)
    camera = stream_rig(server.url("admin:hunter2"), SystemClock())
    rig = Rig(camera, SystemClock(), lambda: None)
    started = rig.clock.boot_ns()
    with pytest.raises(ConfigError if fault is Fault.DENIES else CameraLost, match=r"127\.0\.0\.1") as failure:
        open_and_watch(rig, 40)
    assert "hunter2" not in str(failure.value) + camera.name
    assert "\n" not in str(failure.value)
    assert rig.clock.boot_ns() - started < 40 * NS
    camera.close()
    server.close()
