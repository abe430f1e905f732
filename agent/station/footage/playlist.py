"""An HLS media playlist over archived files, without re-encoding (RFC 8216). Pure.

A file of the recorder (agent/recording/fragments.py) is fragmented MP4 already: its ftyp and moov are the media
initialisation section, and a run of fragments is a media segment, named by the file's address and a byte range. The
trailers between them are uuid boxes, which players skip.

    EXT-X-MAP                  before the first segment of each file
    EXT-X-DISCONTINUITY        before every file but the first, for media time begins anew in each; and behind a hole
    EXT-X-PROGRAM-DATE-TIME    behind each of these: UTC by the best time anchor of that boot, so a player tells the
                               time of a picture on both sides of a gap, whatever the gap's length
    EXTINF                     up to the next segment where nothing is missing, else to the end of the last picture

Time in which nothing is archived has no segment: a player goes on behind it, as a person wants. What is missing, and
why, is on the coverage bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent.clock import rfc3339
from agent.recording.fragments import Fragment
from agent.recording.timeline import Timeline
from agent.types import NS

HOLE_NS_MAX = NS // 2
"""Between two fragments of one file; more than that is a hole. Frame times jitter."""
SEGMENT_NS_MAX = 10 * NS
"""A media segment begins at a key frame and ends before another; a longer group of pictures is cut within."""
SEGMENTS_MAX = 20_000  # of one playlist: eleven hours at a key frame every two seconds
_VERSION = 7  # EXT-X-MAP in a playlist of media segments, with a byte range


@dataclass(frozen=True, slots=True)
class File:
    """An archived file, as far as a playlist must know it."""

    uri: str  # its address; nothing that a node said is in it
    init_bytes: int  # ftyp and moov, from its first byte on
    boot_id: str
    fragments: tuple[Fragment, ...]
    sealed: bool = False  # its fragments can be read with the station's private key only


@dataclass(frozen=True, slots=True)
class Part:
    """One media segment."""

    file: int  # its index in the files given
    offset: int
    length: int
    start_utc_ns: int
    duration_ns: int
    joined: bool  # follows the one before in media time: same file, nothing missing in between


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Archived footage that a playlist cannot show, and why."""

    start_utc_ns: int
    end_utc_ns: int
    why: str  # "sealed", "no-key-frame"


@dataclass(frozen=True, slots=True)
class Playlist:
    """What is played, in order of time."""

    parts: tuple[Part, ...]
    left_out: tuple[LeftOut, ...]
    cut: bool  # the range held more than SEGMENTS_MAX

    @property
    def files(self) -> list[int]:
        """Indices of the files that are played, in order."""
        return list(dict.fromkeys(part.file for part in self.parts))


def compose(files: Sequence[File], timeline: Timeline, start_utc_ns: int, end_utc_ns: int) -> Playlist:
    """The media segments that touch the range, each whole, from the key frame before it.

    A stretch that two files have is played once. Files of a boot that nothing ties to UTC are not placed.
    """
    parts: list[Part] = []
    left_out: list[LeftOut] = []
    until = start_utc_ns
    for index, file, shift_ns in _in_order(files, timeline):
        runs, lost = _runs(file.fragments, start_utc_ns - shift_ns, end_utc_ns - shift_ns)
        if file.sealed:
            runs, lost = [], [*lost, *runs]
        why = "sealed" if file.sealed else "no-key-frame"
        left_out += [LeftOut(run[0].start_ns + shift_ns, run[-1].end_ns + shift_ns, why) for run in lost]
        for part in _parts(index, runs, shift_ns):
            if parts and not parts[-1].start_utc_ns < part.start_utc_ns > until - part.duration_ns // 2:
                continue  # another file has it
            joined = part.joined and bool(parts) and parts[-1].file == index
            parts.append(replace(part, joined=joined))
            until = part.start_utc_ns + part.duration_ns
    return Playlist(tuple(parts[:SEGMENTS_MAX]), tuple(left_out), cut=len(parts) > SEGMENTS_MAX)


def _in_order(files: Sequence[File], timeline: Timeline) -> Iterator[tuple[int, File, int]]:
    """Files by UTC, each with what is to be added to its boot time."""
    placed = []
    for index, file in enumerate(files):
        moment = timeline.utc(file.boot_id, 0)
        if moment is not None and file.fragments:
            placed.append((file.fragments[0].start_ns + moment.utc_ns, index, file, moment.utc_ns))
    for _, index, file, shift_ns in sorted(placed, key=lambda one: one[:2]):
        yield index, file, shift_ns


_Run = list[Fragment]


def _runs(fragments: Sequence[Fragment], start_ns: int, end_ns: int) -> tuple[list[_Run], list[_Run]]:
    """Runs of fragments that make media segments; and runs that no key frame opens, so that nobody can decode them."""
    wanted = [n for n, one in enumerate(fragments) if one.end_ns > start_ns and one.start_ns < end_ns]
    if not wanted:
        return [], []
    first = wanted[0]
    while first > 0 and not fragments[first].keyframe:
        first -= 1
    runs: list[_Run] = []
    lost: list[_Run] = []
    broken = True  # at the front, and behind a hole, up to the next key frame
    before: Fragment | None = None
    for one in fragments[first : wanted[-1] + 1]:
        hole = before is not None and one.start_ns - before.end_ns > HOLE_NS_MAX
        if one.keyframe:
            broken = False
            runs.append([one])
        elif broken or hole:
            if broken and lost and not hole:
                lost[-1].append(one)
            else:
                lost.append([one])
            broken = True
        elif one.end_ns - runs[-1][0].start_ns > SEGMENT_NS_MAX:
            runs.append([one])
        else:
            runs[-1].append(one)
        before = one
    return runs, lost


def _parts(index: int, runs: Sequence[_Run], shift_ns: int) -> Iterator[Part]:
    for n, run in enumerate(runs):
        end_ns = run[-1].end_ns
        if n + 1 < len(runs) and abs(runs[n + 1][0].start_ns - end_ns) <= HOLE_NS_MAX:
            end_ns = runs[n + 1][0].start_ns
        yield Part(
            file=index,
            offset=run[0].offset,
            length=run[-1].offset + run[-1].length - run[0].offset,
            start_utc_ns=run[0].start_ns + shift_ns,
            duration_ns=max(end_ns - run[0].start_ns, 1),
            joined=n > 0 and run[0].start_ns - runs[n - 1][-1].end_ns <= HOLE_NS_MAX,
        )


def write(playlist: Playlist, files: Sequence[File]) -> str:
    """The playlist as it is sent: `application/vnd.apple.mpegurl`, UTF-8."""
    longest_s = max((part.duration_ns for part in playlist.parts), default=NS) / NS
    lines = [
        "#EXTM3U",
        f"#EXT-X-VERSION:{_VERSION}",
        f"#EXT-X-TARGETDURATION:{max(round(longest_s), 1)}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:VOD",
        *_segments(playlist.parts, files),
        "#EXT-X-ENDLIST",
        "",
    ]
    return "\n".join(lines)


def _segments(parts: Iterable[Part], files: Sequence[File]) -> Iterator[str]:
    before: Part | None = None
    for part in parts:
        file = files[part.file]
        if not part.joined:
            if before is not None:
                yield "#EXT-X-DISCONTINUITY"
            if before is None or before.file != part.file:
                yield f'#EXT-X-MAP:URI="{file.uri}",BYTERANGE="{file.init_bytes}@0"'
            yield f"#EXT-X-PROGRAM-DATE-TIME:{rfc3339(part.start_utc_ns)}"
        yield f"#EXTINF:{part.duration_ns / NS:.6f},"
        yield f"#EXT-X-BYTERANGE:{part.length}@{part.offset}"
        yield file.uri
        before = part
