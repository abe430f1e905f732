"""A playable MP4 of a range of time, without re-encoding.

Whole fragments that touch the range, from the key frame before it; each one is checked against its hash as it is read,
so nothing that was altered or torn gets into a clip. Holes longer than HOLE_NS_MAX are closed in the clip: a player
would stand still for an hour. `parts` says what stands where, and the coverage says what is missing and why.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction as Ratio
from pathlib import Path
from typing import BinaryIO

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.evidence.seal import Key, Opener, identity
from agent.recording.coverage import Now, Stretch, coverage
from agent.recording.fragments import Fragment, Header, Scan, read_fragment, scan
from agent.recording.index import FOLDER, Catalog
from agent.recording.timeline import Timeline
from agent.types import NS, EndReason, Segment, TimeAnchor

HOLE_NS_MAX = 2 * NS
_RATE = 90_000  # ticks per second of the clip: what every player expects of H.264
_TICK = Ratio(1, _RATE)

log = logging.getLogger(__name__)


class NoFootage(WardpostError):  # noqa: N818
    """The range holds nothing to extract. `coverage` tells why."""

    def __init__(self, text: str, stretches: list[Stretch]) -> None:
        super().__init__(text)
        self.coverage = stretches


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a clip that plays without a hole."""

    file: Path
    at_s: float  # where it begins in the file
    utc_ns: int  # what the clock showed there
    seconds: float


@dataclass(slots=True)
class Extraction:
    """What was written."""

    files: list[Path] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    fragments: int = 0
    damaged: list[str] = field(default_factory=list)  # fragments that failed their check and were left out
    coverage: list[Stretch] = field(default_factory=list)


def unsealed(disk: Disk, catalog: Catalog) -> list[tuple[Segment, TimeAnchor]]:
    """Files without a row, normally the one being written, as far as they can be trusted; their sha256 is empty."""
    known = {segment.name for segment in catalog.segments()} | {s.name for s in catalog.segments(garbage=True)}
    found: list[tuple[Segment, TimeAnchor]] = []
    for name in disk.list(FOLDER):
        if name in known:
            continue
        try:
            with disk.open(name) as file:
                contents = scan(file, contents=False)
        except FileNotFoundError:
            continue  # deleted meanwhile
        header = contents.header
        if header is None or not contents.fragments:
            continue
        segment = Segment(
            name=name,
            session=header.session,
            boot_id=header.boot_id,
            start_ns=header.start_ns,
            end_ns=contents.end_ns,
            bytes=contents.trusted,
            fragments=len(contents.fragments),
            sha256="",
            end_reason=EndReason.ROLLED,
            width=header.width,
            height=header.height,
        )
        anchor = TimeAnchor(header.boot_id, header.start_ns, header.utc_ns, header.unc_ns, header.utc_source)
        found.append((segment, anchor))
    return found


def survey(
    *, disk: Disk, catalog: Catalog, start_utc_ns: int, end_utc_ns: int, now: Now | None = None
) -> tuple[list[Stretch], list[Segment], Timeline]:
    """The coverage of a range, with the segments (the open one included) and the timeline it rests on."""
    open_files = unsealed(disk, catalog)
    segments = catalog.segments() + [segment for segment, _ in open_files]
    timeline = Timeline([*catalog.anchors(), *(anchor for _, anchor in open_files)])
    stretches = coverage(
        start_utc_ns,
        end_utc_ns,
        sessions=catalog.sessions(),
        segments=segments,
        gaps=catalog.gaps(),
        tombstones=catalog.tombstones(),
        timeline=timeline,
        now=now,
        signs=catalog.signs(),
    )
    return stretches, segments, timeline


def extract(
    *,
    disk: Disk,
    catalog: Catalog,
    start_utc_ns: int,
    end_utc_ns: int,
    output: Path,
    now: Now | None = None,
    key: Key | None = None,
) -> Extraction:
    """Writes `output`; a change of format begins `output`-2.mp4 and so on. Blocks for the reading and writing.

    The files appear whole or not at all. `key`: the station's, for footage that is sealed to it. Raises NoFootage;
    ConfigError when `output` cannot be written, or the footage is sealed and no key was given; Transient when the disk
    refuses.
    """
    if end_utc_ns <= start_utc_ns:
        raise ConfigError("footage: the range ends before it begins; give --from and then --to")
    stretches, segments, timeline = survey(
        disk=disk, catalog=catalog, start_utc_ns=start_utc_ns, end_utc_ns=end_utc_ns, now=now
    )
    result = Extraction(coverage=stretches)
    clip = _Clip(output, timeline, result)
    try:
        for chosen in _choose(segments, timeline, start_utc_ns, end_utc_ns):
            _copy(disk, chosen, clip, result, key)
        clip.finish()
    except (av.FFmpegError, OSError) as error:
        raise _refused(error, output) from error
    finally:
        clip.discard()
    if not result.files:
        why = "; ".join(f"{s.seconds:.0f} s {s.what}" + (f" ({s.detail})" if s.detail else "") for s in stretches[:5])
        damaged = f"; left out as damaged: {', '.join(result.damaged[:3])}" if result.damaged else ""
        raise NoFootage(f"footage: nothing is recorded in this range: {why}{damaged}", stretches)
    return result


def _refused(error: Exception, output: Path) -> WardpostError:
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        return ConfigError(f"footage: cannot write {output}: {error.strerror}; choose another file with -o")
    return Transient(f"footage: cannot write {output}: {error}; check the disk and try again")


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A segment and the part of its boot that is wanted.

    `before`: the file that this one continues, in case it was begun without a key frame. `lead`: only the end of the
    segment is wanted, from its last key frame on.
    """

    segment: Segment
    start_ns: int
    end_ns: int
    before: Segment | None = None
    lead: bool = False


def _choose(segments: Sequence[Segment], timeline: Timeline, start_utc_ns: int, end_utc_ns: int) -> Iterator[_Chosen]:
    """The segments that touch the range, in UTC order."""
    touching: list[tuple[int, _Chosen]] = []
    for segment in segments:
        start_ns = timeline.boot_ns(segment.boot_id, start_utc_ns)
        end_ns = timeline.boot_ns(segment.boot_id, end_utc_ns)
        begin = timeline.utc(segment.boot_id, segment.start_ns)
        if start_ns is None or end_ns is None or begin is None:
            continue
        if segment.end_ns > start_ns and segment.start_ns < end_ns:
            touching.append((begin.utc_ns, _Chosen(segment, start_ns, end_ns)))
    touching.sort(key=lambda pair: (pair[0], pair[1].segment.name))
    for index, (_, chosen) in enumerate(touching):
        yield replace(chosen, before=_before(segments, chosen.segment)) if index == 0 else chosen


def touching(segments: Sequence[Segment], timeline: Timeline, start_utc_ns: int, end_utc_ns: int) -> list[Segment]:
    """The segments of which a clip of this range is made, in its order; first the one that the first one continues."""
    found: list[Segment] = []
    for chosen in _choose(segments, timeline, start_utc_ns, end_utc_ns):
        if chosen.before is not None:
            found.append(chosen.before)
        found.append(chosen.segment)
    return found


def _before(segments: Sequence[Segment], first: Segment) -> Segment | None:
    """The segment that `first` continues without a gap."""
    rolled = [s for s in segments if s.session == first.session and s.end_reason is EndReason.ROLLED]
    ends_there = [s for s in rolled if s.start_ns < first.start_ns and abs(first.start_ns - s.end_ns) < NS]
    return max(ends_there, key=lambda s: s.start_ns, default=None)


def _opener(header: Header, name: str, key: Key | None) -> Opener | None:
    """What opens the fragments of a file; None when they are in clear. Raises ConfigError, Corrupt."""
    if not header.sealed:
        return None
    if key is None:
        raise ConfigError(f"footage: {name} is sealed to the station; extract it there: wardpost footage --key")
    return key.opener(header.sealed, identity(header.session, header.boot_id, header.start_ns, header.source))


def _copy(disk: Disk, chosen: _Chosen, clip: _Clip, result: Extraction, key: Key | None) -> None:
    """Feeds the wanted fragments of one segment to the clip."""
    name = chosen.segment.name
    try:
        file = disk.open(name)
    except FileNotFoundError:
        result.damaged.append(f"{name}: deleted meanwhile")
        return
    with file:
        found = scan(file, contents=False)
        if found.header is None or found.trusted < chosen.segment.bytes:
            result.damaged.append(f"{name}: {found.problem}")
        if found.header is None:
            return
        fragments = _wanted(found, chosen)
        if fragments and not fragments[0].keyframe and chosen.before is not None:
            _copy(disk, replace(chosen, segment=chosen.before, before=None, lead=True), clip, result, key)
        if fragments:
            try:
                opener = _opener(found.header, name, key)
            except Corrupt as error:
                result.damaged.append(f"{name}: {error}")
                return
            feed = _Feed(file, name, found.init, fragments, result, opener)
            clip.add(feed, found.header.boot_id, found.header.base_ns)


def _wanted(found: Scan, chosen: _Chosen) -> list[Fragment]:
    """Fragments that touch the range, and those before them back to a key frame."""
    fragments = found.fragments
    if chosen.lead:
        first = last = len(fragments)
    else:
        touching = [i for i, f in enumerate(fragments) if f.end_ns > chosen.start_ns and f.start_ns < chosen.end_ns]
        if not touching:
            return []
        first, last = touching[0], touching[-1] + 1
    while first > 0 and not (first < len(fragments) and fragments[first].keyframe):
        first -= 1
    return list(fragments[first:last])


class _Feed:
    """The file object that FFmpeg reads from: init, then fragments that pass their check. It never raises."""

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        init: bytes,
        fragments: list[Fragment],
        result: Extraction,
        opener: Opener | None = None,
    ) -> None:
        self._opener = opener
        self._file = file
        self._name = name
        self._fragments = iter(fragments)
        self._result = result
        self._buffer = init
        self._skipping = False  # after damage nothing can be decoded up to the next key frame

    def read(self, size: int) -> bytes:
        while not self._buffer:
            fragment = next(self._fragments, None)
            if fragment is None:
                return b""
            if self._skipping and not fragment.keyframe:
                continue
            try:
                data = read_fragment(self._file, fragment)
                self._buffer = data if self._opener is None else self._opener.open(fragment.n, data)
            except Corrupt as error:
                log.error("footage: %s: %s", self._name, error)  # noqa: TRY400
                self._result.damaged.append(f"{self._name}: {error}")
                self._skipping = True
                continue
            self._skipping = False
            self._result.fragments += 1
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


class _Clip:
    """The file or files being made. Temporary names until `finish`."""

    def __init__(self, output: Path, timeline: Timeline, result: Extraction) -> None:
        self._output = output
        self._timeline = timeline
        self._result = result
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._format: tuple[bytes, int, int] | None = None
        self._done: list[tuple[Path, Path]] = []  # temporary, final
        self._boot_id = ""
        self._last_ns = 0  # decoding time of the newest packet
        self._frame_ns = NS // 25
        self._offset_ns = 0  # decoding time in the clip = dts_ns - this
        self._synced = False  # a key frame has been seen since the last break

    def add(self, feed: _Feed, boot_id: str, base_ns: int) -> None:
        """Copies the packets of one segment. `base_ns`: the moment that is time 0 of its media clock."""
        try:
            source = av.open(feed, "r", format="mp4")
        except av.FFmpegError as error:
            self._result.damaged.append(f"cannot be read: {error}")
            return
        with source:
            self._packets(source, boot_id, base_ns)

    def _packets(self, source: InputContainer, boot_id: str, base_ns: int) -> None:
        video = source.streams.video[0]
        context = video.codec_context
        form = (bytes(context.extradata or b""), context.width, context.height)
        for packet in source.demux(video):
            if packet.dts is None or packet.pts is None or packet.time_base is None:
                continue
            dts_ns = base_ns + round(packet.dts * packet.time_base * NS)
            wait_ns = round((packet.pts - packet.dts) * packet.time_base * NS)
            if boot_id == self._boot_id and dts_ns <= self._last_ns:
                continue  # two files may overlap by a fragment after a storage fault
            hole = boot_id != self._boot_id or dts_ns - self._last_ns > HOLE_NS_MAX
            if (hole or form != self._format or not self._synced) and not packet.is_keyframe:
                self._synced = False
                continue
            self._synced = True
            if form != self._format:
                self._begin(video, form)
                hole = True
                self._offset_ns = dts_ns
            elif hole:
                self._offset_ns += dts_ns - self._last_ns - self._frame_ns
            else:
                self._frame_ns = dts_ns - self._last_ns
            self._note(boot_id, dts_ns, dts_ns + wait_ns, hole=hole)
            self._boot_id, self._last_ns = boot_id, dts_ns
            container, stream = self._container, self._stream
            assert container is not None  # noqa: S101  (for the type checker: _begin made both)
            assert stream is not None  # noqa: S101
            packet.stream = stream
            packet.dts = round((dts_ns - self._offset_ns) * _RATE / NS)
            packet.pts = packet.dts + round(wait_ns * _RATE / NS)
            packet.duration = 0
            packet.time_base = _TICK
            container.mux(packet)

    def _note(self, boot_id: str, dts_ns: int, pts_ns: int, *, hole: bool) -> None:
        """Keeps the map from places in the clip to UTC."""
        at_s = (dts_ns - self._offset_ns) / NS
        parts = self._result.parts
        if hole or not parts:
            moment = self._timeline.utc(boot_id, pts_ns)
            parts.append(Part(self._done[-1][1], at_s, 0 if moment is None else moment.utc_ns, self._frame_ns / NS))
        else:
            parts[-1] = replace(parts[-1], seconds=at_s - parts[-1].at_s + self._frame_ns / NS)

    def _begin(self, template: VideoStream, form: tuple[bytes, int, int]) -> None:
        self._close()
        number = len(self._done) + 1
        final = self._output
        if number > 1:
            final = final.with_name(f"{final.stem}-{number}{final.suffix}")
        temporary = final.with_name(f".{final.name}.part")
        self._container = av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"})
        self._done.append((temporary, final))
        self._stream = self._container.add_stream_from_template(template)
        self._stream.time_base = _TICK
        self._format = form

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def finish(self) -> None:
        """Gives the files their names."""
        self._close()
        for temporary, final in self._done:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(final)
            self._result.files.append(final)
        self._done.clear()

    def discard(self) -> None:
        """Removes what was not finished."""
        try:
            self._close()
        except av.FFmpegError as error:
            log.debug("footage: %s", error)  # it is thrown away
        for temporary, _ in self._done:
            temporary.unlink(missing_ok=True)
