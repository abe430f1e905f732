"""The `stream` camera: RTSP and other network streams, V4L2 devices, and files, through FFmpeg (PyAV).

What comes out of the packets is decided in `session`. Decoding runs on one thread, the one that calls `read`: on a Pi
frame threads cost memory and delay and save nothing. A camera that offers a small stream besides is looked at in that
one (`substream`); while it fails, the main stream is looked at.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.camera import CameraLost, EndOfFootage, yuv
from agent.camera.demux import Container, FileReader, LiveReader, Source, source_of
from agent.camera.session import Session, StreamCounters
from agent.camera.substream import SubStream
from agent.camera.vigilance import Attention, Order
from agent.clock import Clock
from agent.errors import ConfigError
from agent.types import NS, Frame, Packet

_log = logging.getLogger(__name__)

_ASLEEP_S = 0.2  # while nothing happens packets are fetched so often
_UNSEEN_S = 1.0  # and so often those of a sub stream of which nothing is wanted
_PHASE_S = 0.01  # the main stream's after those of the sub stream: then one look at both is enough
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
        sub_url: str = "",
        attention: Attention | None = None,
    ) -> None:
        """`analysis_fps` may be infinity: every frame. `width`, `height`, `fps` are asked of a V4L2 device only.

        With `attention`, by which vision asks for more, pictures are decoded on demand; without, all of them are.
        `sub_url` is a small stream of the same camera. Raises ConfigError for one beside a file.
        """
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
        self._attention = attention if attention is not None and analysis_fps != float("inf") else None
        self._sub: SubStream | None = None
        if sub_url:
            if not self._source.live:
                raise ConfigError("camera.sub_url: goes with a live camera.url only; leave it empty for a file")
            self._sub = SubStream(
                source_of(sub_url), clock=clock, reader=self._options, stall_ns=self._stall_ns, make=self._make_session
            )
        self._seq = 0  # of the newest frame given
        self._newest_ns = 0  # its time
        self._never = threading.Event()
        self._live: LiveReader | None = None
        self._file: FileReader | None = None
        self._session: Session | None = None
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
            self._live = LiveReader(self._source, self._clock, phase_s=_PHASE_S, **self._options)
            container = self._live.wait_open()
        else:
            self._file = FileReader(self._source, **self._options)
            container = self._file.container
        self._session = self._make_session(container, keeps=True)
        self._seq = self._newest_ns = 0
        if self._sub is not None and self._session.transcodes:
            _log.info("%s: every picture is encoded again and so looked at; camera.sub_url is not used", self.name)

    def _make_session(self, container: Container, *, keeps: bool) -> Session:
        return Session(
            container,
            analysis_fps=self._analysis_fps,
            luma_px=self._luma_px,
            masks=self._masks,
            stall_ns=self._stall_ns,
            fps=self._fps,
            bitrate_kbps=self._bitrate_kbps,
            on_demand=self._attention is not None,
            keeps=keeps,
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
        if self._sub is not None:
            self._sub.stop()
        if self._file is not None:
            self._file.stop()
            self._file = None
        if self._live is not None:
            self._live.stop()
            if not self._live.alive:
                self._live = None

    def _read_live(self, session: Session, live: LiveReader, timeout_s: float) -> list[Frame | Packet]:
        items: list[Frame | Packet] = []
        attended_ns = self._attended_ns()
        sub = self._sub if not session.transcodes else None
        looking = sub is not None and sub.tend(self._clock.boot_ns())
        session.looks = not looking
        look = False
        asleep = session.vigilance is not None and session.vigilance.asleep
        live.batch(_ASLEEP_S if asleep else 0.0)
        for _ in range(_PACKETS_PER_READ_MAX):
            got = live.get(0.0 if items else timeout_s)
            if got is None:
                break
            if live.dropped != session.dropped_seen:
                session.dropped_seen = live.dropped
                session.skip_to_keyframe()
            packet, now_ns = got
            items += session.take(packet, *session.stamps(packet, now_ns), attended_ns)
            look = look or session.order is Order.LOOK
        if sub is not None:
            asleep = session.vigilance is not None and session.vigilance.asleep
            sub.batch(_UNSEEN_S if asleep else 0.0)
            items += sub.read(Order.LOOK if look else session.order, asleep=asleep)
        return self._numbered(items) if sub is not None else items

    def _numbered(self, items: list[Frame | Packet]) -> list[Frame | Packet]:
        """Frames of two streams as those of one camera: counted on, and never back in time."""
        kept: list[Frame | Packet] = []
        for item in items:
            if isinstance(item, Packet):
                kept.append(item)
            elif item.boot_ns > self._newest_ns:
                self._seq = max(self._seq + 1, item.seq)
                self._newest_ns = item.boot_ns
                kept.append(replace(item, seq=self._seq))
        return kept

    def _attended_ns(self) -> int:
        return 0 if self._attention is None else self._attention.until_ns

    def _read_file(self, session: Session, file: FileReader, timeout_s: float) -> list[Frame | Packet]:
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
            items += session.take(packet, boot_ns, dts_ns, self._attended_ns())
            if items and not self._paced:
                break
        return items

    def _at_end(self, session: Session, file: FileReader) -> list[Frame | Packet]:
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
