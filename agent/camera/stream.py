"""The `stream` camera: RTSP and other network streams, V4L2 devices, and files, through FFmpeg (PyAV).

H.264 is passed through; any other codec, or a picture with privacy masks, is decoded and encoded again. Decoding runs
on one thread, the one that calls `read`: on a Pi frame threads cost memory and delay and save nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import av.error

from agent.camera import CameraLost, EndOfFootage, h264, yuv
from agent.camera.demux import Container, Description, FileReader, LiveReader, Source, source_of, stamp_ns
from agent.camera.timeline import Pick, Timeline
from agent.camera.transcode import Transcoder, even_copy, planes_of
from agent.clock import Clock
from agent.errors import ConfigError
from agent.types import NS, Box, Frame, Packet, VideoFormat

if TYPE_CHECKING:
    from agent.types import Bgr

_log = logging.getLogger(__name__)

_NS_BASE = Fraction(1, NS)
_PACKETS_PER_READ_MAX = 16  # bounds one `read`


@dataclass(frozen=True, slots=True)
class Probe:
    """What a source is, for `wardpost check`."""

    name: str  # without passwords
    codec: str
    width: int
    height: int
    fps: float | None
    transcodes: bool  # costs a decode and an encode of every picture
    duration_s: float | None  # of a file


def probe(*, url: str, clock: Clock, masks: Sequence[yuv.Polygon] = ()) -> Probe:
    """Opens a source, describes it and closes it. Blocks 10 s at most. Raises CameraLost or ConfigError."""
    source = source_of(url)
    options: dict[str, Any] = {"width": 1280, "height": 720, "fps": 15, "read_s_max": 4.0}
    reader: LiveReader | FileReader
    if source.live:
        reader = LiveReader(source, clock, **options)
        try:
            found = reader.wait_open().describe()
        finally:
            reader.stop()
    else:
        reader = FileReader(source, **options)
        found = reader.container.describe()
        reader.stop()
    transcodes = found.codec != "h264" or bool(masks)
    return Probe(source.shown, found.codec, found.width, found.height, found.fps, transcodes, found.duration_s)


@dataclass(slots=True)
class StreamCounters:
    """What went wrong without stopping the camera, since `open`."""

    undecodable: int = 0  # packets that the decoder refused
    dropped: int = 0  # packets lost because the worker came too late


class _Picture:
    """A frame's full-resolution picture. Keeps the decoder's buffer alive."""

    __slots__ = ("_planes",)

    def __init__(self, planes: yuv.Planes) -> None:
        self._planes = planes

    def crop(self, box: Box, px_max: int) -> Bgr:
        return yuv.crop_bgr(self._planes, box, px_max)


class StreamCamera:
    """See `agent.camera.Camera`. A file plays at its own speed by the injected clock, or as fast as it is read.

    Not paced, the same file gives the same frames and stamps each time; they start at the clock's time of the first
    read, which a MediaClock makes 0. Decoding stamps of B-frame files start a little earlier than that.
    """

    def __init__(
        self,
        *,
        url: str,
        clock: Clock,
        analysis_fps: float,
        luma_px: int,
        masks: Sequence[yuv.Polygon] = (),
        paced: bool = True,
        loop: bool = False,
        stall_s: float = 4.0,
        width: int = 1280,
        height: int = 720,
        fps: float = 15,
        bitrate_kbps: int = 2500,
    ) -> None:
        """`analysis_fps` may be infinity: every frame. `width`, `height`, `fps` are asked of a V4L2 device only."""
        self._source: Source = source_of(url)
        self._clock = clock
        self._analysis_fps = analysis_fps
        self._luma_px = luma_px
        self._masks = tuple(masks)
        self._paced = paced and not self._source.live
        self._loop = loop and not self._source.live
        self._stall_ns = round(stall_s * NS)
        self._fps = fps
        self._bitrate_kbps = bitrate_kbps
        self._options: dict[str, Any] = {"width": width, "height": height, "fps": fps, "read_s_max": stall_s}
        self._never = threading.Event()
        self._live: LiveReader | None = None
        self._file: FileReader | None = None
        self._session: _Session | None = None
        self.name = f"stream {self._source.shown}"

    @property
    def counters(self) -> StreamCounters:
        """Faults of this session that were survived."""
        counters = StreamCounters() if self._session is None else replace(self._session.counters)
        counters.dropped += self._live.dropped if self._live is not None else 0
        return counters

    def open(self) -> None:
        self._close_source()
        if self._live is not None and self._live.alive:
            raise CameraLost(
                f"{self._source.shown}: the previous attempt still hangs in FFmpeg or the driver; waiting for it"
            )
        if self._source.live:
            self._live = LiveReader(self._source, self._clock, **self._options)
            container = self._live.wait_open()
        else:
            self._file = FileReader(self._source, **self._options)
            container = self._file.container
        self._session = _Session(
            container,
            analysis_fps=self._analysis_fps,
            luma_px=self._luma_px,
            masks=self._masks,
            stall_ns=self._stall_ns,
            fps=self._fps,
            bitrate_kbps=self._bitrate_kbps,
        )

    def read(self, timeout_s: float) -> list[Frame | Packet]:
        session = self._session
        if session is None:
            raise CameraLost(f"{self._source.shown}: not open")
        if self._live is not None:
            return self._read_live(session, self._live, timeout_s)
        assert self._file is not None  # noqa: S101  (open made one of the two)
        return self._read_file(session, self._file, timeout_s)

    def close(self) -> None:
        try:
            self._close_source()
        except Exception:  # noqa: BLE001  (the contract: never raises)
            _log.exception("%s: closing failed", self._source.shown)

    def _close_source(self) -> None:
        self._session = None
        if self._file is not None:
            self._file.stop()
            self._file = None
        if self._live is not None:
            self._live.stop()
            if not self._live.alive:
                self._live = None

    def _read_live(self, session: _Session, live: LiveReader, timeout_s: float) -> list[Frame | Packet]:
        items: list[Frame | Packet] = []
        for _ in range(_PACKETS_PER_READ_MAX):
            lost_before = live.dropped
            got = live.get(0.0 if items else timeout_s)
            if got is None:
                break
            if live.dropped != lost_before or live.dropped != session.dropped_seen:
                session.dropped_seen = live.dropped
                session.skip_to_keyframe()
            packet, now_ns = got
            items += session.take(packet, *session.stamps(packet, now_ns))
        return items

    def _read_file(self, session: _Session, file: FileReader, timeout_s: float) -> list[Frame | Packet]:
        items: list[Frame | Packet] = []
        deadline_ns = self._clock.boot_ns() + round(timeout_s * NS)
        for _ in range(_PACKETS_PER_READ_MAX):
            if session.ended:
                raise EndOfFootage(f"{self._source.shown}: end of the footage")
            if session.waiting is None:
                packet = file.next()
                if packet is None:
                    items += self._at_end(session, file)
                    if items:
                        break
                    continue
                session.waiting = (packet, *session.stamps(packet, self._clock.boot_ns()))
            packet, boot_ns, dts_ns = session.waiting
            if self._paced and not self._wait_until(dts_ns + session.delay_ns, deadline_ns, waits=not items):
                break
            session.waiting = None
            items += session.take(packet, boot_ns, dts_ns)
            if items and not self._paced:
                break
        return items

    def _at_end(self, session: _Session, file: FileReader) -> list[Frame | Packet]:
        """The last pictures of the file; then it begins again, or has ended."""
        items = session.drain()
        if session.frames_seen == 0:
            raise ConfigError(f"{self._source.shown}: nothing in it could be decoded; it is damaged or not a video")
        if self._loop:
            session.restart(file.rewind())
        else:
            session.ended = True
        return items

    def _wait_until(self, due_ns: int, deadline_ns: int, *, waits: bool) -> bool:
        """Whether `due_ns` has come, waiting for it until `deadline_ns` at most."""
        now_ns = self._clock.boot_ns()
        if waits and now_ns < due_ns:
            self._clock.wait(self._never, max(min(due_ns, deadline_ns) - now_ns, 0) / NS)
            now_ns = self._clock.boot_ns()
        return now_ns >= due_ns


class _Session:
    """One life of an open source: decoder, encoder if need be, and the mapping of its time."""

    def __init__(
        self,
        container: Container,
        *,
        analysis_fps: float,
        luma_px: int,
        masks: tuple[yuv.Polygon, ...],
        stall_ns: int,
        fps: float,
        bitrate_kbps: int,
    ) -> None:
        found = container.describe()
        self._shown = container.source.shown
        self._luma_px = luma_px
        self._polygons = masks
        self._mask: yuv.Mask | None = None
        self._stall_ns = stall_ns
        self._pick = Pick(analysis_fps)
        self._timeline = Timeline(live=container.source.live, step_ns=round(NS / (found.fps or fps)))
        self._transcoder: Transcoder | None = None
        if found.codec != "h264" or masks:
            self._transcoder = Transcoder(fps=found.fps or fps, bitrate_kbps=bitrate_kbps)
        self.counters = StreamCounters()
        self.dropped_seen = 0
        self.frames_seen = 0
        self.ended = False
        self.waiting: tuple[Any, int, int] | None = None  # a packet of a file whose time has not come
        self.delay_ns = 0  # from decoding to presentation
        self._good_ns: int | None = None  # when a picture was last decoded, in mapped time
        self._shown_ns: int | None = None  # the newest picture's time
        self._since_good = 0  # packets since
        self._video = VideoFormat(0, 0)
        self._attach(container, found)

    def _attach(self, container: Container, found: Description) -> None:
        """Makes the decoder and the filter for a (re)opened container."""
        stream = container.stream
        self._filter: Any = None
        if found.codec == "h264":
            extradata = stream.codec_context.extradata or b""
            self._inband = h264.InBand(extradata)
            if extradata[:1] == b"\x01":  # avcC: NAL units with lengths, not start codes
                self._filter = av.BitStreamFilterContext("h264_mp4toannexb", stream)
            self._decoder: Any = av.CodecContext.create("h264", "r")
            if self._inband.sets:
                self._decoder.extradata = self._inband.sets
        else:
            self._inband = h264.InBand()
            self._decoder = stream.codec_context
        self._decoder.thread_count = 1
        self._decoder.thread_type = "NONE"
        self._keyframe_seen = False

    def restart(self, container: Container) -> None:
        """The file begins again; stamps go on."""
        self._timeline.restart()
        self._attach(container, container.describe())

    def skip_to_keyframe(self) -> None:
        """Packets were lost: what refers to them is of no use."""
        self._keyframe_seen = False

    def stamps(self, packet: Any, now_ns: int) -> tuple[int, int]:
        """Presentation and decoding time of a packet in CLOCK_BOOTTIME."""
        base = packet.time_base
        boot_ns, dts_ns = self._timeline.map(stamp_ns(packet.pts, base), stamp_ns(packet.dts, base), now_ns)
        if self._good_ns is None:
            self._good_ns = dts_ns
            self.delay_ns = boot_ns - dts_ns
        return boot_ns, dts_ns

    def take(self, packet: Any, boot_ns: int, dts_ns: int) -> list[Frame | Packet]:
        """What comes out when a packet goes in. Raises CameraLost when nothing has been decodable for too long."""
        keyframe = bool(packet.is_keyframe)
        self._keyframe_seen = self._keyframe_seen or keyframe
        items: list[Frame | Packet] = []
        self._since_good += 1
        if self._keyframe_seen:
            packet.pts, packet.dts, packet.time_base = boot_ns, dts_ns, _NS_BASE
            try:
                items = self._through(packet, boot_ns, dts_ns, keyframe=keyframe)
            except av.error.FFmpegError:
                self.counters.undecodable += 1
        assert self._good_ns is not None  # noqa: S101  (set by stamps)
        if dts_ns - self._good_ns > self._stall_ns:
            why = "could be decoded" if self._keyframe_seen else "was a key frame"
            raise CameraLost(
                f"{self._shown}: none of {self._since_good} packets in {(dts_ns - self._good_ns) / NS:.0f} s {why};"
                " the stream is damaged or not what it claims to be"
            )
        return items

    def _through(self, packet: Any, boot_ns: int, dts_ns: int, *, keyframe: bool) -> list[Frame | Packet]:
        """One packet through filter, decoder and, where needed, encoder."""
        if self._transcoder is not None and self._filter is None:
            return self._frames(self._decoder.decode(packet))
        data = b"".join(bytes(part) for part in self._filter.filter(packet)) if self._filter else bytes(packet)
        data = self._inband.complete(data, keyframe=keyframe)
        if not data:
            return []
        unit: Any = av.Packet(data)
        unit.pts, unit.dts, unit.time_base = boot_ns, dts_ns, _NS_BASE
        try:
            frames = self._frames(self._decoder.decode(unit))
        except av.error.FFmpegError:  # a damaged access unit is still evidence: kept, only not looked at
            self.counters.undecodable += 1
            frames = []
        if self._transcoder is not None:
            return frames
        size = (self._decoder.width, self._decoder.height)
        if keyframe and (*size, self._inband.sets) != (self._video.width, self._video.height, self._video.extradata):
            self._video = VideoFormat(*size, self._inband.sets)
        if not self._video.width:
            return frames
        kept = Packet(boot_ns=boot_ns, dts_ns=dts_ns, keyframe=keyframe, data=data, video=self._video)
        return [kept, *frames]

    def drain(self) -> list[Frame | Packet]:
        """The pictures that the decoder still holds."""
        try:
            return self._frames(self._decoder.decode(None))
        except av.error.FFmpegError:
            return []

    def _frames(self, pictures: list[Any]) -> list[Frame | Packet]:
        items: list[Frame | Packet] = []
        for decoded in pictures:
            self.frames_seen += 1
            self._since_good = 0
            boot_ns = int(decoded.pts) if decoded.pts is not None else (self._good_ns or 0) + self._timeline.step_ns
            if self._shown_ns is not None:
                boot_ns = max(boot_ns, self._shown_ns + 1)
            self._shown_ns = boot_ns
            self._good_ns = max(boot_ns, self._good_ns or boot_ns)
            wanted = self._pick.take(boot_ns)
            if self._transcoder is None and not wanted:
                continue
            planes = planes_of(decoded)
            if self._transcoder is not None:
                picture, planes = self._encodable(decoded, planes)
                items += self._transcoder.encode(picture, boot_ns)
            if wanted:
                luma = yuv.luma_low(planes.y, self._luma_px)
                items.append(Frame(seq=self.frames_seen, boot_ns=boot_ns, luma=luma, source=_Picture(planes)))
        return items

    def _encodable(self, picture: Any, planes: yuv.Planes) -> tuple[Any, yuv.Planes]:
        """The picture as libx264 takes it, masks drawn. From here on nobody sees the unmasked one."""
        plain = picture.format.name in {"yuv420p", "yuvj420p"} and not (picture.width % 2 or picture.height % 2)
        if plain and not self._polygons:
            return picture, planes
        picture, planes = even_copy(planes)
        if self._polygons:
            if self._mask is None or self._mask.size != (planes.width, planes.height):
                self._mask = yuv.Mask(self._polygons, planes.width, planes.height)
            self._mask.apply(planes)
        return picture, planes
