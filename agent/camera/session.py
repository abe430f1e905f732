"""One life of an open source: its packets in, and out come frames to look at and access units to keep.

H.264 is passed through; any other codec, or a picture with privacy masks, is decoded and encoded again. What is only
looked at is decoded on demand, as `vigilance` orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import av
import av.error

from agent.camera import CameraLost, h264, yuv
from agent.camera.demux import Container, Description
from agent.camera.timeline import Pick, Timeline
from agent.camera.transcode import Transcoder, even_copy, planes_of
from agent.camera.vigilance import Order, Vigilance
from agent.types import NS, Box, Frame, Packet, VideoFormat

if TYPE_CHECKING:
    from agent.types import Bgr

PENDING_BYTES_MAX = 4 << 20  # undecoded, kept for the moment when something moves
PENDING_NS_MAX = 4 * NS  # more would take too long to catch up with
PROOF_S = 30.0  # a stream that is only kept is proved decodable so often
_NS_BASE = Fraction(1, NS)


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


class _Unit(NamedTuple):
    """An access unit that has not been decoded yet, or must be decoded again before what refers to it."""

    data: bytes
    boot_ns: int
    dts_ns: int
    again: bool = False


class Session:
    """Decoder, encoder if need be, and the mapping of time. One thread."""

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
        on_demand: bool = False,
        keeps: bool = True,
    ) -> None:
        """`on_demand`: only what is worth it is decoded. `keeps`: gives packets; otherwise frames alone."""
        found = container.describe()
        self._shown = container.source.shown
        self._luma_px = luma_px
        self._polygons = masks
        self._mask: yuv.Mask | None = None
        self._stall_ns = stall_ns
        self._pick = Pick(analysis_fps)
        self._timeline = Timeline(live=container.source.live, step_ns=round(NS / (found.fps or fps)))
        self._transcoder: Transcoder | None = None
        self._keeps = keeps
        if keeps and (found.codec != "h264" or masks):
            self._transcoder = Transcoder(fps=found.fps or fps, bitrate_kbps=bitrate_kbps)
        on_demand = on_demand and found.codec == "h264" and self._transcoder is None
        self.vigilance = Vigilance() if on_demand else None
        self.order = Order.WATCH  # by the newest packet
        self.looks = True  # frames are wanted; may be changed between two packets
        self.counters = StreamCounters()
        self.dropped_seen = 0
        self.frames_seen = 0  # pictures, decoded or passed over
        self.ended = False
        self.waiting: tuple[Any, int, int] | None = None  # a packet of a file whose time has not come
        self.delay_ns = 0  # from decoding to presentation
        self._good_ns: int | None = None  # when a picture was last decoded, or needed not be, in mapped time
        self._shown_ns: int | None = None  # the newest picture's time
        self._since_good = 0  # packets since
        self._proved_ns: int | None = None  # when a key frame was last decoded
        self._video = VideoFormat(0, 0)
        self._attach(container, found)

    @property
    def transcodes(self) -> bool:
        """Whether every picture is decoded and encoded again."""
        return self._transcoder is not None

    def _attach(self, container: Container, found: Description) -> None:
        """Makes the decoder and the filter for a (re)opened container."""
        stream = container.stream
        self._container = container
        self._h264 = found.codec == "h264"
        self._filter: Any = None
        if self._h264:
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
        self._pixels = 0
        self._decoded_sets: bytes | None = None  # parameter sets of the newest decoded key frame
        self._pending: list[_Unit] = []  # not decoded, since the newest key frame
        self._pending_bytes = 0
        self._passed_over = False  # the decoder lacks something that came before `_pending`

    def restart(self, container: Container) -> None:
        """The file begins again; stamps go on."""
        self._timeline.restart()
        self._attach(container, container.describe())

    def skip_to_keyframe(self) -> None:
        """Packets were lost: what refers to them is of no use."""
        self._keyframe_seen = False
        self._forget_pending()

    def stamps(self, packet: Any, now_ns: int) -> tuple[int, int]:
        """Presentation and decoding time of a packet in CLOCK_BOOTTIME."""
        stamp_ns = self._container.stamp_ns
        boot_ns, dts_ns = self._timeline.map(stamp_ns(packet.pts), stamp_ns(packet.dts), now_ns)
        if self._good_ns is None:
            self._good_ns = dts_ns
            self.delay_ns = boot_ns - dts_ns
        return boot_ns, dts_ns

    def take(
        self, packet: Any, boot_ns: int, dts_ns: int, attended_ns: int = 0, order: Order | None = None
    ) -> list[Frame | Packet]:
        """What comes out when a packet goes in. Raises CameraLost when nothing has been decodable for too long.

        `attended_ns`: vision wants every picture up to then. `order`: given by whoever knows better than the sizes of
        this stream's packets; LOOK is for key frames.
        """
        keyframe = bool(packet.is_keyframe)
        self._keyframe_seen = self._keyframe_seen or keyframe
        items: list[Frame | Packet] = []
        self._since_good += 1
        if self._keyframe_seen:
            try:
                items = self._through(packet, boot_ns, dts_ns, attended_ns, order, keyframe=keyframe)
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

    def _through(
        self, packet: Any, boot_ns: int, dts_ns: int, attended_ns: int, order: Order | None, *, keyframe: bool
    ) -> list[Frame | Packet]:
        """One packet through filter, decoder and, where needed, encoder."""
        if not self._h264:
            packet.pts, packet.dts, packet.time_base = boot_ns, dts_ns, _NS_BASE
            return self._frames(self._decoder.decode(packet))
        data = b"".join(bytes(part) for part in self._filter.filter(packet)) if self._filter else bytes(packet)
        data = self._inband.complete(data, keyframe=keyframe)
        if not data:
            return []
        if keyframe:
            self._forget_pending()
        self._pending.append(_Unit(data, boot_ns, dts_ns))
        self._pending_bytes += len(data)
        if order is None:
            order = self._order(data, dts_ns, attended_ns, keyframe=keyframe)
        frames = self._obey(order, dts_ns, keyframe=keyframe)
        if not self._keeps or self._transcoder is not None:
            return frames
        if keyframe:
            size = (self._decoder.width, self._decoder.height)
            if (*size, self._inband.sets) != (self._video.width, self._video.height, self._video.extradata):
                self._video = VideoFormat(*size, self._inband.sets)
        if not self._video.width:
            return frames
        kept = Packet(boot_ns=boot_ns, dts_ns=dts_ns, keyframe=keyframe, data=data, video=self._video)
        return [kept, *frames]

    def _order(self, data: bytes, dts_ns: int, attended_ns: int, *, keyframe: bool) -> Order:
        """What to do with the newest unit."""
        new_sets = keyframe and self._inband.sets != self._decoded_sets
        self.order = Order.WATCH
        if self.vigilance is not None:
            self.order = self.vigilance.order(
                now_ns=dts_ns,
                size=len(data),
                keyframe=keyframe,
                kind=min(h264.referred(data), 1),
                pixels=self._pixels,
                attended_ns=attended_ns,
            )
        order = self.order
        if not self.looks and self._transcoder is None:
            unproved = self._proved_ns is None or dts_ns - self._proved_ns >= PROOF_S * NS
            order = Order.LOOK if keyframe and unproved else Order.SKIP
        return Order.LOOK if order is Order.SKIP and new_sets else order

    def _obey(self, order: Order, dts_ns: int, *, keyframe: bool) -> list[Frame | Packet]:
        """Decodes what is ordered; the frames that are wanted of it."""
        if order is Order.LOOK:
            return self._look()
        if order is Order.SKIP:
            self._spare(dts_ns)
            long = self._pending and dts_ns - self._pending[0].dts_ns > PENDING_NS_MAX
            if not (long or self._pending_bytes > PENDING_BYTES_MAX):
                return []
            if not self.looks:
                self._forget_pending()
                return []
        if keyframe:
            self._decoded_sets = self._inband.sets
        return self._catch_up(forced=order is Order.SKIP)

    def _look(self) -> list[Frame | Packet]:
        """Decodes the key frame that has just come, alone."""
        unit = self._pending[-1]
        before = self.frames_seen
        frames = self._catch_up(forced=True)
        if self.frames_seen == before:  # the decoder keeps it back, to put B-frames in order
            try:
                frames = self._frames(self._decoder.decode(None), forced=True)
            except av.error.FFmpegError:
                frames = []
            self._decoder.flush_buffers()
            self._pending = [_Unit(unit.data, unit.boot_ns, unit.dts_ns, True)]
            self._pending_bytes = len(unit.data)
        if self.frames_seen > before:
            self._decoded_sets = self._inband.sets
        return frames if self.looks else []

    def _spare(self, dts_ns: int) -> None:
        """A packet need not be decoded: as good as decoded while the last proof holds."""
        if self._proved_ns is not None and dts_ns - self._proved_ns <= 2 * PROOF_S * NS:
            self._good_ns = max(dts_ns, self._good_ns or dts_ns)
            self._since_good = 0

    def passed_over(self) -> None:
        """Packets were left out before a key frame, on purpose."""
        self._forget_pending()
        self._passed_over = True

    def _forget_pending(self) -> None:
        """What was not decoded will not be: a key frame makes it needless, or a loss useless."""
        if self._pending:
            self.frames_seen += sum(not unit.again for unit in self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._passed_over = True

    def _catch_up(self, *, forced: bool) -> list[Frame | Packet]:
        """Decodes what is at hand. Of what is late only the newest picture is shown: the others are history."""
        units, self._pending, self._pending_bytes = self._pending, [], 0
        if self._passed_over:
            self._decoder.flush_buffers()
            self._passed_over = False
        frames: list[Frame | Packet] = []
        for at, one in enumerate(units):
            unit: Any = av.Packet(one.data)
            unit.pts, unit.dts, unit.time_base = one.boot_ns, one.dts_ns, _NS_BASE
            last = at == len(units) - 1
            try:
                frames = self._frames(self._decoder.decode(unit), shown=last, forced=forced or len(units) > 1)
            except av.error.FFmpegError:  # a damaged access unit is still evidence: kept, only not looked at
                self.counters.undecodable += 1
            if one.again:
                self.frames_seen -= 1
        return frames

    def drain(self) -> list[Frame | Packet]:
        """The pictures that the decoder still holds."""
        try:
            return self._frames(self._decoder.decode(None))
        except av.error.FFmpegError:
            return []

    def _frames(self, pictures: list[Any], *, shown: bool = True, forced: bool = False) -> list[Frame | Packet]:
        """Decoded pictures as frames, those that are due; none unless `shown`, all if `forced`."""
        items: list[Frame | Packet] = []
        for decoded in pictures:
            self.frames_seen += 1
            self._since_good = 0
            boot_ns = int(decoded.pts) if decoded.pts is not None else (self._good_ns or 0) + self._timeline.step_ns
            self._good_ns = max(boot_ns, self._good_ns or boot_ns)
            self._proved_ns = self._good_ns
            self._pixels = decoded.width * decoded.height
            if not shown:
                continue
            if self._shown_ns is not None:
                boot_ns = max(boot_ns, self._shown_ns + 1)
            self._shown_ns = boot_ns
            wanted = (self._pick.take(boot_ns) or forced) and self.looks
            if self._transcoder is None and not wanted:
                continue
            planes = planes_of(decoded)
            if self._transcoder is not None:
                picture, planes = self._encodable(decoded, planes)
                items += self._transcoder.encode(picture, boot_ns)
            elif self._polygons:
                _, planes = self._encodable(decoded, planes)
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
