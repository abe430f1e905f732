"""Opens what `camera.url` names and takes packets out of it. Everything that may hang in FFmpeg or the kernel is here.

A file is read on the caller's thread. A live source (network, /dev/video*) has a thread of its own that opens, reads
and closes it, for a name server, a V4L2 driver or a peer that goes silent can hold a call for longer than the camera
worker may wait. Such a thread is abandoned, never killed; it ends when its call returns.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import av.error

from agent.camera import CameraLost, EndOfFootage
from agent.clock import Clock
from agent.errors import ConfigError, WardpostError
from agent.types import NS

_log = logging.getLogger(__name__)

OPEN_S_MAX = 9.0  # what `open` may block; the contract of Camera says 10
_CONNECT_S_MAX = 4.0  # FFmpeg applies it twice: to connecting and to finding the streams
_BATCH_PACKETS_MAX = 100
_LEAD_DRIFT_NS = 20_000  # a packet: a camera's clock that goes slow is followed by 0.3 ms a second
_QUEUE_PACKETS_MAX = 600  # 20 s of 30 fps: a worker that is later than this has lost pictures


class Kind(StrEnum):
    """How a source behaves."""

    NETWORK = "network"
    DEVICE = "device"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Source:
    """What `camera.url` names."""

    url: str
    kind: Kind
    shown: str  # for messages: without user name, password and query

    @property
    def live(self) -> bool:
        return self.kind is not Kind.FILE


def source_of(url: str) -> Source:
    """Reads `camera.url`. Raises ConfigError when it is empty or of a kind that is not known."""
    if not url:
        raise ConfigError("camera.url: missing; name an rtsp:// address, a device such as /dev/video0, or a file")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in {"rtsp", "rtsps", "http", "https", "tcp", "udp", "rtp", "rtmp", "srt"}:
        return Source(url, Kind.NETWORK, _without_secrets(url))
    if scheme and scheme != "file":
        raise ConfigError(
            f"camera.url: {scheme}:// is not known here; use rtsp://, http://, a /dev/video device or a file"
        )
    path = url.removeprefix("file://")
    return Source(path, Kind.DEVICE if path.startswith("/dev/") else Kind.FILE, path)


def _without_secrets(url: str) -> str:
    """The address without user, password and query, nor `password=` pieces that some cameras keep in the path."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        where = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return f"{url.partition('://')[0]}://(unreadable address)"
    path = re.sub(r"(?i)(pass\w*|pwd|user\w*|token|key)=[^&/;]*", r"\1=***", parts.path)
    return f"{parts.scheme}://{where}{port}{path}"


@dataclass(frozen=True, slots=True)
class Description:
    """What a source turned out to be."""

    codec: str
    width: int
    height: int
    fps: float | None
    pixels: str  # FFmpeg's name of the pixel format, empty when unknown
    duration_s: float | None = None


class Container:
    """An open source: its one video stream, packet by packet. Blocks; used by one thread."""

    def __init__(self, source: Source, *, width: int, height: int, fps: float, read_s_max: float) -> None:
        """Opens it. Raises CameraLost or ConfigError with one line that names the source."""
        self.source = source
        self._container = _opened(source, width=width, height=height, fps=fps, read_s_max=read_s_max)
        try:
            self.stream = self._video()
            base = self.stream.time_base
            self._ns_per_tick = (base.numerator * NS, base.denominator) if base else None
            self._packets: Iterator[Any] = self._container.demux(self.stream)
        except BaseException:
            self._container.close()
            raise

    def _video(self) -> Any:
        """The video stream. Attached pictures (the cover of a sound file) are none."""
        for stream in self._container.streams.video:
            codec = getattr(stream, "codec_context", None)
            if codec is None or int(getattr(stream, "disposition", 0)) & 0x400:
                continue
            return stream
        kinds = sorted({stream.type for stream in self._container.streams}) or ["nothing"]
        raise ConfigError(f"{self.source.shown}: holds no video, only {' and '.join(kinds)}; choose another source")

    def describe(self) -> Description:
        """Codec, size and rate, as the source claims them."""
        codec = self.stream.codec_context
        rate = self.stream.average_rate or self.stream.guessed_rate
        duration = self._container.duration
        return Description(
            codec=codec.name,
            width=codec.width,
            height=codec.height,
            fps=float(rate) if rate and rate < 1000 else None,
            pixels=codec.pix_fmt or "",
            duration_s=duration / av.time_base if duration and not self.source.live else None,
        )

    def stamp_ns(self, stamp: int | None) -> int | None:
        """A stamp of one of the stream's packets in nanoseconds."""
        if stamp is None or self._ns_per_tick is None:
            return None
        ns, ticks = self._ns_per_tick
        return int(stamp * ns // ticks)

    def next(self) -> Any | None:
        """The next packet with data; None at the end. Raises CameraLost."""
        try:
            for packet in self._packets:
                if packet.size:
                    return packet
        except av.error.FFmpegError as error:
            if self.source.kind is Kind.FILE:
                _log.warning("%s: damaged, ends early: %s", self.source.shown, error.strerror)
                return None
            raise _lost(self.source, error, "while reading") from None
        return None

    def close(self) -> None:
        self._container.close()


def _opened(source: Source, *, width: int, height: int, fps: float, read_s_max: float) -> Any:
    """The FFmpeg container. A device is tried with its own H.264 first, then as asked, then as it likes."""
    if source.kind is Kind.FILE and not Path(source.url).is_file():
        what = "is a folder" if Path(source.url).is_dir() else "no such file"
        raise ConfigError(f"{source.shown}: {what}; check camera.url")
    timeout: Any = (_CONNECT_S_MAX, read_s_max)
    if source.kind is not Kind.DEVICE:
        options = {"fpsprobesize": "3"} if source.live else {}  # else FFmpeg watches 20 pictures go by before it opens
        if source.url.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # UDP loses packets silently
        try:
            return av.open(source.url, mode="r", options=options, timeout=timeout if source.live else None)
        except av.error.FFmpegError as error:
            raise _lost(source, error, "on opening") from None
    size = {"video_size": f"{width}x{height}", "framerate": f"{fps:g}"}
    refused: av.error.FFmpegError | None = None
    for options in ({**size, "input_format": "h264"}, size, {}):
        try:
            return av.open(source.url, mode="r", format="v4l2", options=options, timeout=timeout)
        except (av.error.FileNotFoundError, av.error.PermissionError) as error:
            raise _lost(source, error, "on opening") from None
        except av.error.FFmpegError as error:
            refused = error
    assert refused is not None  # noqa: S101  (the loop has run)
    raise _lost(source, refused, "on opening") from None


def _lost(source: Source, error: av.error.FFmpegError, when: str) -> WardpostError:
    """FFmpeg's error as one of ours, in one line. Its own text is not used: it quotes the address with the password."""
    shown = source.shown
    if isinstance(error, av.error.HTTPUnauthorizedError | av.error.HTTPForbiddenError):
        return ConfigError(f"{shown}: the camera refused the user name or password; correct them in camera.url")
    if isinstance(error, av.error.PermissionError):
        return ConfigError(f"{shown}: not allowed to open it; add this user to the group that owns it (video)")
    if source.kind is Kind.FILE:
        return ConfigError(f"{shown}: not a video that can be read (damaged, cut off, or another kind of file)")
    words = f"{(error.strerror or type(error).__name__).rstrip('.').lower()} {when}; check the camera and camera.url"
    for kind, better in (
        (av.error.ExitError, f"no answer {when} in time; check its power and network"),
        (av.error.EOFError, f"the other side closed the connection {when}; check that the camera still sends"),
        (av.error.FileNotFoundError, "not there; check that the camera is plugged in and camera.url is right"),
    ):
        if isinstance(error, kind):
            words = better
    return CameraLost(f"{shown}: {words}")


class LiveReader:
    """Reads a live source on a thread of its own into a bounded queue.

    All methods are for one other thread. Packets are `(packet, boot_ns of arrival)`.
    """

    def __init__(
        self, source: Source, clock: Clock, *, wakes: bool = True, phase_s: float = 0.0, **options: Any
    ) -> None:
        """`options` are those of Container. Starts the thread; `wait_open` tells how it went.

        `wakes`: a packet ends the wait in `get`; otherwise whoever fetches is woken by something else. `phase_s`: see
        `batch`.
        """
        self._source = source
        self._clock = clock
        self._options = options
        self._queue: deque[tuple[Any, int]] = deque()
        self._lock = threading.Lock()
        self._something = threading.Event()
        self._opened = threading.Event()
        self._stop = threading.Event()
        self._error: WardpostError | None = None
        self.container: Container | None = None
        self.dropped = 0  # packets lost because nobody fetched them
        self._rest = _Rest(clock, phase_s=phase_s)
        self._wakes = wakes
        self._later: list[tuple[Any, int]] = []
        self.hoards = False  # nobody fetches for a while: only the newest group of pictures is kept
        self.heard_ns = 0  # when a packet arrived last
        self.passed_over = 0  # packets that went for its sake
        self._thread = threading.Thread(target=self._run, name="camera-reader", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_open(self) -> bool:
        """Whether `wait_open` would return, or raise, at once."""
        return self._opened.is_set()

    def batch(self, s: float) -> None:
        """From now on packets are fetched every `s` seconds, all at once, `phase_s` after each multiple of `s`.

        The kernel keeps them meanwhile. Waking a thread for each costs more than all that is done with it. 0: at once.
        """
        self._rest.length(s)

    def fetch_now(self) -> None:
        """Ends the pause between two batches, this once."""
        self._rest.cut()

    def wait_open(self) -> Container:
        """Blocks until the source is open, OPEN_S_MAX at most. Raises CameraLost or ConfigError."""
        if not self._clock.wait(self._opened, OPEN_S_MAX):
            raise CameraLost(
                f"{self._source.shown}: no answer on opening within {OPEN_S_MAX:g} s; check power and network"
            )
        if self._error is not None:
            raise self._error
        assert self.container is not None  # noqa: S101  (opened without an error)
        return self.container

    @property
    def waiting(self) -> int:
        """Packets that nobody has fetched."""
        return len(self._queue)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest of them arrived."""
        with self._lock:
            return self._queue[0][1] if self._queue else None

    def get(self, timeout_s: float) -> tuple[Any, int] | None:
        """The oldest packet, waiting at most `timeout_s`. Raises what ended the reading, after the last one."""
        if timeout_s > 0 and not self._queue and self._error is None:
            self._clock.wait(self._something, timeout_s)
        with self._lock:
            if self._queue:
                return self._queue.popleft()
            self._something.clear()
            if self._error is not None:
                raise self._error
        return None

    def stop(self) -> None:
        """Tells the thread to end and waits a moment for it. It ends by itself when FFmpeg's call returns."""
        self._stop.set()
        self._rest.length(0.0)
        self._thread.join(timeout=0.5)

    def _run(self) -> None:
        container: Container | None = None
        try:
            container = Container(self._source, **self._options)
            self.container = container
            self._opened.set()
            self._pump(container)
        except WardpostError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001  (a bug here must not look like a silent camera)
            _log.exception("the reader of %s failed", self._source.shown)
            self._error = CameraLost(f"{self._source.shown}: the reader failed: {type(error).__name__}; see the log")
        finally:
            self._opened.set()
            self._something.set()
            if container is not None:
                container.close()

    def _pump(self, container: Container) -> None:
        got: list[tuple[Any, int]] = []
        while not self._stop.is_set():
            packet = container.next()
            if packet is None:
                raise CameraLost(f"{self._source.shown}: the stream ended; check that the camera still sends")
            now_ns = self._clock.boot_ns()
            self.heard_ns = now_ns
            got.append((packet, now_ns))
            drained = self._rest.drained(container.stamp_ns(packet.dts), now_ns)
            if not drained and len(got) < _BATCH_PACKETS_MAX:
                continue
            with self._lock:
                if len(self._queue) >= _QUEUE_PACKETS_MAX:
                    self.dropped += len(self._queue)
                    self._queue.clear()
                self._queue.extend(got)
                if self.hoards and any(packet.is_keyframe for packet, _ in got):
                    self._only_newest_group()
                got.clear()
            if self._wakes:
                self._something.set()
            self._rest.take()

    def _only_newest_group(self) -> None:
        """Drops what comes before the newest key frame."""
        while not self._queue[-1][0].is_keyframe:
            self._later.append(self._queue.pop())
        self._later.append(self._queue.pop())
        self.passed_over += len(self._queue)
        self._queue.clear()
        while self._later:
            self._queue.append(self._later.pop())


class _Rest:
    """The pauses between batches of packets. `length` for any thread, the rest for the reader's."""

    def __init__(self, clock: Clock, *, phase_s: float) -> None:
        self._clock = clock
        self._phase_ns = round(phase_s * NS)
        self._ns = 0
        self._over = threading.Event()
        self._lead_ns: int | None = None  # arrival minus stamp of a packet that had to be waited for
        self._before_ns: int | None = None  # stamp of the packet before

    def length(self, s: float) -> None:
        """The time from batch to batch. A shorter one than before ends a pause at once."""
        before_ns, self._ns = self._ns, round(s * NS)
        if self._ns < before_ns:
            self._over.set()

    def cut(self) -> None:
        """Ends a pause at once."""
        self._over.set()

    def drained(self, dts_ns: int | None, now_ns: int) -> bool:
        """Whether the next packet is not there yet, as far as stamps tell; always so where there are no batches."""
        before_ns, self._before_ns = self._before_ns, dts_ns
        if not self._ns or dts_ns is None or before_ns is None or not 0 < dts_ns - before_ns <= NS:
            self._lead_ns = None
            return True
        lead_ns = now_ns - dts_ns
        self._lead_ns = lead_ns if self._lead_ns is None else min(self._lead_ns + _LEAD_DRIFT_NS, lead_ns)
        return now_ns < dts_ns + (dts_ns - before_ns) + self._lead_ns

    def take(self) -> None:
        """Waits for the time of the next batch."""
        self._over.clear()
        length_ns = self._ns  # read after the clearing: who shortens it from now on ends the wait
        if not length_ns:
            return
        now_ns = self._clock.boot_ns()
        due_ns = (now_ns - self._phase_ns) // length_ns * length_ns + length_ns + self._phase_ns
        self._clock.wait(self._over, (due_ns - now_ns) / NS)


class FileReader:
    """Reads a file on the caller's thread, from its beginning again when `loop` is set."""

    def __init__(self, source: Source, **options: Any) -> None:
        self._source = source
        self._options = options
        self.container = Container(source, **options)

    def next(self) -> Any | None:
        """The next packet, None at the end."""
        return self.container.next()

    def rewind(self) -> Container:
        """Opens the file again: seeking is not to be had in every format. Raises EndOfFootage when it is gone."""
        self.container.close()
        try:
            self.container = Container(self._source, **self._options)
        except ConfigError as error:
            raise EndOfFootage(f"{error} (while starting again from the beginning)") from None
        return self.container

    def stop(self) -> None:
        self.container.close()
