"""libcamera's Python bindings without a camera, as far as the real picamera2 uses them.

`install` puts it (and empty stand-ins for pykms, prctl and pidng, which have no wheels and are not used here) where
`import` finds it. Above it everything is the registry's picamera2: its event loop, requests, mapped arrays, encoder
and outputs. The fake sensor has state: it fills buffers with a scene at its own rate, pads rows, stamps pictures with
CLOCK_BOOTTIME, and runs dry when requests are not given back.
"""

from __future__ import annotations

import contextlib
import enum
import os
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Id:
    """A control or property: known by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.type = None


class StreamRole(enum.Enum):
    StillCapture = 0
    Raw = 1
    VideoRecording = 2
    Viewfinder = 3


class Orientation(enum.Enum):
    Rotate0 = 0
    Rotate0Mirror = 1
    Rotate180Mirror = 2
    Rotate180 = 3
    Rotate90Mirror = 4
    Rotate270 = 5
    Rotate90 = 6
    Rotate270Mirror = 7


class ControlType(enum.Enum):
    Null = 0
    Rectangle = 1
    Size = 2


class Transform:
    def __init__(self, other: Transform | None = None, *, hflip: int = 0, vflip: int = 0, transpose: int = 0) -> None:
        self.hflip: int = other.hflip if other else hflip
        self.vflip: int = other.vflip if other else vflip
        self.transpose: int = other.transpose if other else transpose

    def __str__(self) -> str:  # picamera2 makes this the repr as well
        return f"transform {self.hflip} {self.vflip} {self.transpose}"


class ColorSpace:
    class YcbcrEncoding(enum.Enum):
        Null = 0
        Rec601 = 1

    class Range(enum.Enum):
        Full = 0
        Limited = 1

    def __init__(self, name: ColorSpace | str) -> None:
        self.name: str = name.name if isinstance(name, ColorSpace) else name
        self.primaries = self.transferFunction = self.name
        self.ycbcrEncoding = self.YcbcrEncoding.Rec601
        self.range = self.Range.Limited

    def __str__(self) -> str:
        return self.name

    @classmethod
    def Sycc(cls) -> ColorSpace:  # noqa: N802
        return cls("Sycc")

    @classmethod
    def Smpte170m(cls) -> ColorSpace:  # noqa: N802
        return cls("Smpte170m")

    @classmethod
    def Rec709(cls) -> ColorSpace:  # noqa: N802
        return cls("Rec709")

    @classmethod
    def Raw(cls) -> ColorSpace:  # noqa: N802
        return cls("Raw")


class Size:
    def __init__(self, width: int = 0, height: int = 0) -> None:
        self.width, self.height = width, height

    def to_tuple(self) -> tuple[int, int]:
        return (self.width, self.height)


class Rectangle(Size):
    pass


class PixelFormat:
    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


class SensorConfiguration:
    def __init__(self) -> None:
        self.bit_depth = 0
        self.output_size = Size()


class FrameMetadata:
    class Status(enum.Enum):
        Success = 0
        Error = 1

    def __init__(self) -> None:
        self.status = self.Status.Success


class FrameBuffer:
    class Plane:
        fd = -1
        offset = 0
        length = 0

    def __init__(self, planes: list[Any]) -> None:
        self.planes = planes
        self.metadata = FrameMetadata()


class Stream:
    configuration: StreamConfig


class _Formats:
    pixel_formats = (PixelFormat("SRGGB10_CSI2P"),)

    def sizes(self, pixel_format: PixelFormat) -> list[Size]:
        return [Size(1920, 1080)]


class StreamConfig:
    def __init__(self) -> None:
        self.size = Size()
        self.pixel_format = PixelFormat("YUV420")
        self.buffer_count = 4
        self.stride = 0
        self.frame_size = 0
        self.color_space: Any = None
        self.formats = _Formats()
        self.stream = Stream()
        self.stream.configuration = self


class CameraConfiguration:
    class Status(enum.Enum):
        Valid = 0
        Adjusted = 1
        Invalid = 2

    def __init__(self, roles: list[StreamRole], sensor: Sensor) -> None:
        self._configs = [StreamConfig() for _ in roles]
        self._roles = roles
        self._sensor = sensor
        self.orientation = Orientation.Rotate0
        self.sensor_config: Any = None

    def at(self, index: int) -> StreamConfig:
        return self._configs[index]

    def __iter__(self) -> Iterator[StreamConfig]:
        return iter(self._configs)

    def validate(self) -> Status:
        """Pads rows as the hardware does: to 64 bytes, in the chroma planes as well."""
        status = self.Status.Valid
        for config, role in zip(self._configs, self._roles, strict=True):
            width, height = config.size.to_tuple()
            if role is StreamRole.Raw:
                config.stride = width * 2
                config.frame_size = config.stride * height
                continue
            if str(config.pixel_format) != self._sensor.kind:
                config.pixel_format = PixelFormat(self._sensor.kind)
                status = self.Status.Adjusted
            align = 128 if self._sensor.kind == "YUV420" else 64
            config.stride = -(-width // align) * align
            config.frame_size = config.stride * height * 3 // 2
        return status


class Request:
    class Status(enum.Enum):
        Complete = 0
        Cancelled = 1

    def __init__(self, cookie: int) -> None:
        self.cookie = cookie
        self.status = self.Status.Complete
        self.buffers: dict[Stream, FrameBuffer] = {}
        self.metadata: dict[Id, int] = {}

    def add_buffer(self, stream: Stream, buffer: FrameBuffer) -> None:
        self.buffers[stream] = buffer

    def reuse(self) -> None:
        self.metadata = {}

    def set_control(self, control: Id, value: Any) -> None:
        pass


class Sensor:
    """What the one camera sees, and its faults. Tests hold on to it."""

    def __init__(self, scene: Callable[[int, int, int], Any], fps: float, kind: str) -> None:
        """`scene(width, height, number)` gives luma; `kind` is the only format it knows: YUV420 or NV12."""
        self.scene = scene
        self.period_s = 1 / fps
        self.kind = kind
        self.unplugged = False
        self.frozen = False  # "Camera frontend has timed out": pictures just stop
        self.starved = 0  # pictures missed because no buffer was free
        self.stamp_offset_ns = 0


class Camera:
    id = "/base/soc/i2c0mux/i2c@1/imx219@10"

    def __init__(self, manager: CameraManager, sensor: Sensor) -> None:
        self._manager = manager
        self._sensor = sensor
        self.controls = {controls.FrameDurationLimits: types.SimpleNamespace(min=8333, max=1_000_000, default=33_333)}
        self.properties = {properties.Model: "imx219", properties.ColorFilterArrangement: 0}
        self._queue: deque[Request] = deque()
        self._thread: threading.Thread | None = None
        self._running = threading.Event()
        self.acquired = False
        self.duration_limits: Any = None

    def generate_configuration(self, roles: list[StreamRole]) -> CameraConfiguration:
        return CameraConfiguration(roles, self._sensor)

    def configure(self, config: CameraConfiguration) -> int:
        return 0

    def acquire(self) -> None:
        if self.acquired:
            raise RuntimeError("Device or resource busy")
        self.acquired = True

    def release(self) -> None:
        self.acquired = False

    def create_request(self, cookie: int) -> Request:
        return Request(cookie)

    def queue_request(self, request: Request) -> None:
        self._queue.append(request)

    def start(self, settings: dict[Id, Any]) -> None:
        self.duration_limits = settings.get(controls.FrameDurationLimits)
        self._running.set()
        self._thread = threading.Thread(target=self._run, name="fake-sensor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._running.clear()
        assert self._thread is not None
        self._thread.join()
        self._queue.clear()

    def _run(self) -> None:
        number = 0
        while self._running.is_set():
            time.sleep(self._sensor.period_s)
            if self._sensor.frozen or self._sensor.unplugged:
                continue
            number += 1
            if not self._queue:
                self._sensor.starved += 1
                continue
            request = self._queue.popleft()
            for stream, buffer in request.buffers.items():
                self._expose(stream.configuration, buffer, number)
            stamp = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._sensor.stamp_offset_ns
            request.metadata = {controls.SensorTimestamp: stamp}
            self._manager.finish(request)

    def _expose(self, config: StreamConfig, buffer: FrameBuffer, number: int) -> None:
        width, height = config.size.to_tuple()
        if str(config.pixel_format) != self._sensor.kind:
            return
        picture = np.full((height * 3 // 2, config.stride), 200, np.uint8)  # padding is not black
        picture[:height, :width] = self._sensor.scene(width, height, number)
        picture[height:] = 128
        os.pwrite(buffer.planes[0].fd, picture.tobytes(), 0)


class CameraManager:
    _one: CameraManager | None = None
    sensor: Sensor

    def __init__(self) -> None:
        read, self._write = os.pipe2(os.O_NONBLOCK)
        self.event_fd = read
        self._ready: deque[Request] = deque()
        self._camera = Camera(self, self.sensor)

    @classmethod
    def singleton(cls) -> CameraManager:
        if cls._one is None:
            cls._one = cls()
        return cls._one

    @property
    def cameras(self) -> list[Camera]:
        return [] if self.sensor.unplugged else [self._camera]

    def finish(self, request: Request) -> None:
        self._ready.append(request)
        os.write(self._write, b"\0")

    def get_ready_requests(self) -> list[Request]:
        with contextlib.suppress(BlockingIOError):
            os.read(self.event_fd, 4096)
        done = []
        while self._ready:
            done.append(self._ready.popleft())
        return done


controls = types.SimpleNamespace(
    SensorTimestamp=Id("SensorTimestamp"),
    FrameDurationLimits=Id("FrameDurationLimits"),
    ExposureTime=Id("ExposureTime"),
    ExposureTimeMode=Id("ExposureTimeMode"),
    AnalogueGain=Id("AnalogueGain"),
    AnalogueGainMode=Id("AnalogueGainMode"),
    draft=types.SimpleNamespace(
        NoiseReductionModeEnum=types.SimpleNamespace(Fast=1, HighQuality=2, Minimal=3),
    ),
)
properties = types.SimpleNamespace(
    Model=Id("Model"),
    ColorFilterArrangement=Id("ColorFilterArrangement"),
    draft=types.SimpleNamespace(ColorFilterArrangementEnum=types.SimpleNamespace(MONO=4)),
)


_KMS_FORMATS = ("RGB888", "BGR888", "XRGB8888", "XBGR8888", "YUV420", "YVU420", "NV12", "NV21", "YUYV", "MJPEG")


def install(sensor: Sensor) -> None:
    """Makes `import libcamera` find this module, with one camera that sees `sensor`. Idempotent."""
    CameraManager.sensor = sensor
    CameraManager._one = None
    me = sys.modules[__name__]
    me._libcamera = me  # type: ignore[attr-defined]
    sys.modules["libcamera"] = me
    for name, attributes in (
        ("pykms", {"PixelFormat": types.SimpleNamespace(**dict.fromkeys(_KMS_FORMATS, 0))}),
        ("prctl", {}),
        ("pidng", {}),
        ("pidng.camdefs", {"Picamera2Camera": object}),
        ("pidng.core", {"PICAM2DNG": object}),
    ):
        module = types.ModuleType(name)
        for key, value in attributes.items():
            setattr(module, key, value)
        sys.modules.setdefault(name, module)
