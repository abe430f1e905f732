"""The `picamera2` camera: a Raspberry Pi camera module through picamera2 and libcamera.

Everything comes from one callback per picture and one per access unit, on threads of the library. They copy, append
to bounded queues and return; they never raise, for an exception there kills the library's event loop and `stop` then
hangs for ever (field notes). H264Encoder is the hardware encoder on a Pi 4 and an alias for libx264 on a Pi 5.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from agent.camera import CameraLost, CameraStuck, h264, yuv
from agent.camera.timeline import Pick
from agent.clock import Clock
from agent.errors import ConfigError, Transient
from agent.types import NS, Box, Frame, Packet, VideoFormat

if TYPE_CHECKING:
    from agent.types import Bgr

_log = logging.getLogger(__name__)

_BUFFERS = 8  # two held for crops, one in a crop, two in the encoder, the rest with the camera
_HELD_MAX = 2  # requests kept for crops: the newest frame and the one before, which vision may still be looking at
_PACKETS_MAX = 300  # 10 s of 30 fps
_FRAMES_MAX = 4  # frames nobody fetched; each old one has lost its picture anyway
_STOP_S_MAX = 5.0
_FAILED_OPENS_MAX = 100  # each Picamera2() that fails leaves a pipe open behind it
_CLOCKS_APART_NS_MAX = 10 * NS  # stamps further from CLOCK_BOOTTIME than this are of another clock

MakePicamera2 = Callable[[], Any]


def default_picamera2() -> Any:
    """The first camera of the machine. Raises what picamera2 raises."""
    from picamera2 import Picamera2

    return Picamera2()


@dataclass(slots=True)
class PicameraCounters:
    """What went wrong without stopping the camera, since it was made."""

    packets_dropped: int = 0  # nobody fetched them in time
    mask_failures: int = 0  # pictures blackened whole because a mask could not be drawn
    callback_failures: int = 0


class _Held:
    """A frame's picture: a request of the camera that is not recycled yet.

    The library's buffers are few, so the driver takes them back: when newer frames come, and when the frame is
    forgotten. Giving back happens on the driver's own threads (a request must not be released inside a collection
    that may run while the library holds the lock which `release` takes): forgetting only queues it.
    """

    def __init__(self, request: Any, give_back: Callable[[Any], None]) -> None:
        request.acquire()
        self._request: Any = request
        self._give_back = give_back
        self._lock = threading.Lock()

    def crop(self, box: Box, px_max: int) -> Bgr:
        with self._lock:
            request = self._request
            if request is None:
                raise Transient("picamera2: this picture has gone back to the camera; ask sooner after the frame")
            request.acquire()
        try:
            with _mapped(request, "main") as planes:
                return yuv.crop_bgr(planes, box, px_max)
        except Exception as error:  # noqa: BLE001  (whatever the library has met)
            raise Transient(f"picamera2: the picture cannot be read: {type(error).__name__}: {error}") from None
        finally:
            self._give_back(request)

    def drop(self) -> None:
        """Gives the request back; further crops raise Transient."""
        with self._lock:
            request, self._request = self._request, None
        if request is not None:
            self._give_back(request)

    def __del__(self) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._give_back(request)


class _mapped:  # noqa: N801  (used like a function)
    """`with _mapped(request, "main") as planes`: a stream's buffer as YUV planes, writable, valid inside only."""

    def __init__(self, request: Any, stream: str) -> None:
        from picamera2 import MappedArray

        self._config = request.config[stream]
        self._mapped = MappedArray(request, stream)

    def __enter__(self) -> yuv.Planes:
        array = self._mapped.__enter__().array
        width, height = self._config["size"]
        kind = self._config["format"]
        if kind == "YUV420":
            return yuv.planes_of_i420(array, width, height)
        if kind == "NV12":
            return yuv.planes_of_nv12(array, width, height)
        raise ValueError(f"pictures come as {kind}, not as YUV420 or NV12")

    def __exit__(self, *details: object) -> None:
        self._mapped.__exit__(*details)


class Picamera2Camera:
    """See `agent.camera.Camera`. `read` gives what the callbacks have queued."""

    name = "picamera2"

    def __init__(
        self,
        *,
        clock: Clock,
        width: int,
        height: int,
        fps: float,
        bitrate_kbps: int,
        analysis_fps: float,
        luma_px: int,
        masks: Sequence[yuv.Polygon] = (),
        make_picamera2: MakePicamera2 = default_picamera2,
    ) -> None:
        """Sizes are made even. `make_picamera2` makes a new Picamera2 at each `open`."""
        self._clock = clock
        self._size = (width & ~1, height & ~1)
        low_width = min(luma_px, width) & ~1
        self._low_size = (low_width, max(round(height * low_width / width) & ~1, 2))
        self._fps = fps
        self._bitrate_kbps = bitrate_kbps
        self._analysis_fps = analysis_fps
        self._luma_px = luma_px
        self._polygons = tuple(masks)
        self._make = make_picamera2
        self._camera: Any = None
        self._encoder: Any = None
        self._stuck = ""
        self._failed_opens = 0  # in a row
        self.counters = PicameraCounters()
        self._something = threading.Event()
        self._reset()

    def _reset(self) -> None:
        """Forgets the last session."""
        self._units: deque[tuple[bytes, bool, int]] = deque()  # data, key frame, microseconds since the first
        self._frames: deque[Frame] = deque(maxlen=_FRAMES_MAX)
        self._held: deque[_Held] = deque()
        self._returned: deque[Any] = deque()
        self._pick = Pick(self._analysis_fps)
        self._seq = 0
        self._masks: dict[str, yuv.Mask] = {}
        self._offset_ns: int | None = None  # from the sensor's stamps to CLOCK_BOOTTIME
        self._resync = True  # nothing but a key frame may come next
        self._closing = False
        self._failure = ""
        self._dts_ns = -1
        self._video = VideoFormat(*self._size)
        self._inband = h264.InBand()

    def open(self) -> None:
        if self._stuck:
            raise CameraStuck(self._stuck)
        self.close()
        self._reset()
        try:
            from picamera2 import Picamera2
            from picamera2.encoders import H264Encoder
            from picamera2.outputs import Output
        except ImportError as error:
            raise ConfigError(
                f"picamera2: cannot be imported ({error}); install python3-picamera2 with apt and make the venv with"
                ' --system-site-packages, or choose camera.driver = "stream"'
            ) from None
        if not Picamera2.global_camera_info():
            raise CameraLost("picamera2: no camera found; check the ribbon cable and `rpicam-hello --list-cameras`")
        if self._failed_opens >= _FAILED_OPENS_MAX:
            raise CameraStuck(f"picamera2: failed to open {self._failed_opens} times; a new process is needed")
        try:
            self._failed_opens += 1
            self._camera = self._make()
            self._failed_opens = 0
            self._configure()
            bitrate = self._bitrate_kbps * 1000
            gop = max(round(self._fps), 1)  # 1 s: a fragment, and the most that a power cut costs
            rate = Fraction(self._fps).limit_denominator(1001)  # libx264 takes no float here
            self._encoder = H264Encoder(bitrate=bitrate, repeat=True, iperiod=gop, framerate=rate)
            output = _output_class(Output)(self._on_unit)
            self._camera.pre_callback = self._on_picture
            self._camera.start_encoder(self._encoder, output, name="main")
            self._camera.start()
        except ConfigError:
            self.close()
            raise
        except Exception as error:  # noqa: BLE001  (whatever the library has met)
            _log.debug("opening failed", exc_info=True)
            self.close()
            raise CameraLost(
                f"picamera2: {_words(error)}; check the ribbon cable, `rpicam-hello --list-cameras`, and that no other"
                " program uses the camera"
            ) from None

    def _configure(self) -> None:
        controls: dict[str, Any] = {}
        if "FrameDurationLimits" in self._camera.camera_controls:
            period_us = round(1_000_000 / self._fps)
            controls["FrameDurationLimits"] = (period_us, period_us)
        config = self._camera.create_video_configuration(
            main={"size": self._size, "format": "YUV420"},
            lores={"size": self._low_size, "format": "YUV420"},
            controls=controls,
            buffer_count=_BUFFERS,
            queue=False,  # the library need not hold a request back as well
        )
        self._camera.configure(config)
        chosen = self._camera.camera_configuration()
        for stream in ("main", "lores"):
            kind = chosen[stream]["format"]
            if kind not in {"YUV420", "NV12"}:
                raise ConfigError(f"picamera2: the camera gives {stream} as {kind}; Wardpost needs YUV420 or NV12")
            self._masks[stream] = yuv.Mask(self._polygons, *chosen[stream]["size"])
        self._video = VideoFormat(*chosen["main"]["size"])
        if self._video.width != self._size[0] or self._video.height != self._size[1]:
            _log.warning("picamera2: asked for %s, the camera gives %d x %d", self._size, *chosen["main"]["size"])

    def read(self, timeout_s: float) -> list[Frame | Packet]:
        if self._camera is None:
            raise CameraLost("picamera2: not open")
        self._recycle()
        if not self._units and not self._frames:
            self._something.clear()
            if not self._units and not self._frames:
                self._clock.wait(self._something, timeout_s)
        if self._failure:
            raise CameraLost(self._failure)
        items: list[Frame | Packet] = [self._packet(*unit) for unit in _taken(self._units)]
        items += _taken(self._frames)
        items.sort(key=lambda item: item.boot_ns)
        return items

    def close(self) -> None:
        camera, self._camera = self._camera, None
        encoder, self._encoder = self._encoder, None
        self._closing = True
        for held in _taken(self._held):
            held.drop()
        self._frames.clear()
        self._recycle()
        if camera is None or self._stuck:
            return
        # A stuck encoder holds the lock that every call of the library takes, so none is made on this thread.
        done = threading.Event()
        threading.Thread(target=_shut, args=(camera, encoder, done), name="picamera2-closer", daemon=True).start()
        if not self._clock.wait(done, _STOP_S_MAX):
            self._stuck = f"picamera2: did not stop within {_STOP_S_MAX:g} s; only a new process helps"
            _log.error("%s", self._stuck)
        self._recycle()

    # Below: on the library's threads. Copy, append, return; never raise.

    def _on_unit(self, data: Any, keyframe: bool, timestamp_us: int | None) -> None:
        """One access unit from the encoder."""
        if self._closing or timestamp_us is None:
            return
        if len(self._units) >= _PACKETS_MAX:
            self.counters.packets_dropped += len(self._units)
            self._units.clear()
            self._resync = True
        if self._resync and not keyframe:
            return
        self._resync = False
        self._units.append((bytes(data), bool(keyframe), int(timestamp_us)))
        self._something.set()

    def _on_picture(self, request: Any) -> None:
        """One picture, before it is encoded: masks first, then the low-resolution luma."""
        try:
            masked = self._mask(request)
            if masked and not self._closing:
                self._frame(request)
            self._recycle()
        except Exception as error:  # noqa: BLE001  (see above)
            self.counters.callback_failures += 1
            if self.counters.callback_failures == 1:
                _log.warning("picamera2: a picture was lost: %s", _words(error), exc_info=True)

    def _mask(self, request: Any) -> bool:
        """Draws the privacy masks on both streams. If that fails the picture is black; if even that fails, it ends."""
        if not self._polygons:
            return True
        try:
            for stream in ("main", "lores"):
                with _mapped(request, stream) as planes:
                    self._masks[stream].apply(planes)
        except Exception as error:  # noqa: BLE001  (see above)
            self.counters.mask_failures += 1
            if self.counters.mask_failures == 1:
                _log.exception("picamera2: a privacy mask could not be drawn: the picture is blackened")
            try:
                _blacken(request)
            except Exception:  # noqa: BLE001  (then nothing of this camera may leave it any more)
                self._closing = True
                self._failure = f"picamera2: privacy masks cannot be drawn: {_words(error)}"
                self._something.set()
                return False
        return True

    def _frame(self, request: Any) -> None:
        stamp_ns = self._boot_ns(int(request.get_metadata()["SensorTimestamp"]))
        self._seq += 1
        if not self._pick.take(stamp_ns):
            return
        with _mapped(request, "lores") as planes:
            luma = yuv.luma_low(planes.y, self._luma_px)
        source = _Held(request, self._returned.append)
        self._frames.append(Frame(seq=self._seq, boot_ns=stamp_ns, luma=luma, source=source))
        self._held.append(source)
        while len(self._held) > _HELD_MAX:
            self._held.popleft().drop()
        self._something.set()

    def _boot_ns(self, sensor_ns: int) -> int:
        """A stamp of the sensor in CLOCK_BOOTTIME. libcamera promises that clock; USB cameras and suspends break it."""
        if self._offset_ns is None:
            apart_ns = self._clock.boot_ns() - sensor_ns
            self._offset_ns = apart_ns if abs(apart_ns) > _CLOCKS_APART_NS_MAX else 0
        return sensor_ns + self._offset_ns

    def _recycle(self) -> None:
        """Releases requests that are no longer wanted. From any thread that does not hold the library's locks."""
        for request in _taken(self._returned):
            _quietly(request.release)

    def _packet(self, data: bytes, keyframe: bool, timestamp_us: int) -> Packet:
        boot_ns = self._boot_ns((int(self._encoder.firsttimestamp) + timestamp_us) * 1000)
        data = self._inband.complete(data, keyframe=keyframe)
        if keyframe and self._inband.sets != self._video.extradata:
            self._video = VideoFormat(self._video.width, self._video.height, self._inband.sets)
        self._dts_ns = max(boot_ns, self._dts_ns + 1)
        return Packet(boot_ns=self._dts_ns, dts_ns=self._dts_ns, keyframe=keyframe, data=data, video=self._video)


def _shut(camera: Any, encoder: Any, done: threading.Event) -> None:
    """Stops and closes the library's camera. May hang for ever."""
    # Jobs that wait for a picture which never comes are cancelled first: `stop` would queue up behind them.
    _quietly(camera.cancel_all_and_flush)
    _quietly(camera.stop)
    if encoder is not None and encoder.running:
        _quietly(camera.stop_encoder, encoder)
    _quietly(camera.close)
    done.set()


def _output_class(base: Any) -> Any:
    """An Output of picamera2 that hands each access unit to a function. Its base class comes from a heavy import."""

    class UnitOutput(base):  # type: ignore[misc]
        def __init__(self, give: Callable[[Any, bool, int | None], None]) -> None:
            super().__init__()
            self._give = give

        def outputframe(
            self,
            frame: Any,
            keyframe: bool = True,
            timestamp: Any = None,
            packet: Any = None,  # noqa: ARG002
            audio: bool = False,
        ) -> None:
            try:
                if not audio:
                    self._give(frame, keyframe, timestamp)
            except Exception:  # noqa: BLE001  (an exception here ends the library's event loop for good)
                _log.exception("picamera2: an access unit was lost")

    return UnitOutput


def _blacken(request: Any) -> None:
    """The whole picture black, on both streams, whatever their format: zeros would be green, so by planes first."""
    from picamera2 import MappedArray

    for stream in ("main", "lores"):
        try:
            with _mapped(request, stream) as planes:
                yuv.blacken(planes)
        except ValueError:
            with MappedArray(request, stream, reshape=False) as raw:
                raw.array[:] = np.uint8(0)


def _taken(queue: deque[Any]) -> list[Any]:
    """Empties a queue that other threads append to."""
    items = []
    while queue:
        try:
            items.append(queue.popleft())
        except IndexError:  # another thread was faster
            break
    return items


def _quietly(call: Callable[..., Any], *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception as error:  # noqa: BLE001  (closing goes on whatever happens)
        _log.warning("picamera2: %s: %s", getattr(call, "__name__", "call"), _words(error))


def _words(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error.__cause__ or error).split())
    return text.rstrip(".") or type(error).__name__
