"""Footage at the desk: what was archived is played as it was recorded, in order, at its own times; and what is missing
is said. Played by FFmpeg over HTTP, from the bytes that the archive has."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.clock import parse_rfc3339
from agent.recording.fragments import Fragment
from agent.recording.timeline import Timeline
from agent.station.footage import playlist, ranges, told
from agent.station.footage.playlist import File, LeftOut, compose
from agent.station.footage.survey import Surveyed
from agent.station.footage.told import NOT_TOLD
from agent.types import NS, TimeAnchor
from tests.fakes.evidence_post import UTC_0, EvidencePost, laps
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.packets import encoded, shifted
from tests.fakes.recording_post import closed_posts, says  # noqa: F401

BOOT = "a" * 32
ANCHOR = TimeAnchor(BOOT, 0, UTC_0, 0, "ntp")


@pytest.fixture
def post(tmp_path: Path) -> EvidencePost:
    return EvidencePost(tmp_path / "post")


@pytest.fixture
def desk(tmp_path: Path) -> FootageDesk:
    return FootageDesk(tmp_path / "desk")


def survey(desk: FootageDesk, start_s: float = 0, end_s: float = 60, address: str = "files/") -> Surveyed:
    start_ns, end_ns = UTC_0 + round(start_s * NS), UTC_0 + round(end_s * NS)
    return desk.surveyor.survey(POST, start_ns, end_ns, address=address)


@contextmanager
def served(desk: FootageDesk, found: Surveyed) -> Iterator[str]:
    """The playlist and its files on a port of this machine, by the functions that the desk's pages use."""
    by_number = {str(one.n): one for one in found.files}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/list.m3u8":
                body = playlist.write(found.playlist, found.listed).encode()
                self._answer(200, body, "application/vnd.apple.mpegurl", {})
                return
            one = by_number[self.path.rpartition("/")[2].removesuffix(".mp4")]
            part = ranges.parse(self.headers.get("Range", ""), one.bytes)
            asked.append(self.headers.get("Range", ""))
            first, count = part or (0, one.bytes)
            body = b"".join(desk.shelf.bytes(one, first, count))
            more = {"Content-Range": f"bytes {first}-{first + count - 1}/{one.bytes}"} if part else {}
            self._answer(206 if part else 200, body, "video/mp4", more)

        def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/list.m3u8"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked


def lumas(address: str) -> list[bytes]:
    """Every picture of a playlist, in the order in which FFmpeg reads it, decoded. FFmpeg knows no EXT-X-DISCONTINUITY:
    behind one it marks packets as not to be shown, for their media time begins anew. So the marks are left out here.
    """
    with av.open(address) as container:
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.extradata = container.streams.video[0].codec_context.extradata
        units = [av.Packet(bytes(packet)) for packet in container.demux(video=0) if packet.size]
        return decoded(decoder, units)


def decoded(decoder: av.VideoCodecContext, units: Sequence[Any]) -> list[bytes]:
    return [bytes(frame.to_ndarray()) for unit in [*units, None] for frame in decoder.decode(unit)]


def segments(text: str) -> list[list[str]]:
    """The playlist's lines, in groups that end with an address."""
    found: list[list[str]] = [[]]
    for row in text.splitlines():
        found[-1].append(row)
        if row and not row.startswith("#"):
            found.append([])
    return found


def test_a_player_shows_every_picture_once_in_order_and_at_its_time(post: EvidencePost, desk: FootageDesk) -> None:
    """Twelve seconds in files of two; then the camera is away for a minute; then eight seconds more."""
    post.feed(encoded(seconds=12))
    post.post.recorder.lost(post.post.clock.boot_ns(), "unplugged")
    post.feed(shifted(encoded(seconds=8, seed=2), 72 * NS))
    post.seal()
    desk.hear(post)
    names = desk.take_all(post)
    assert len(names) > 8
    found = survey(desk, 0, 100)
    with served(desk, found) as address:
        played = lumas(address)
    recorded = []
    for packets in (encoded(seconds=12), encoded(seconds=8, seed=2)):
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        recorded += decoded(decoder, [av.Packet(packet.data) for packet in packets])
    assert len(played) == 200
    assert played == recorded, "the same pictures, in the same order, and not one was encoded anew"

    text = playlist.write(found.playlist, found.listed)
    assert text.startswith("#EXTM3U\n#EXT-X-VERSION:7\n")
    assert text.endswith("#EXT-X-ENDLIST\n")
    assert text.count("#EXT-X-MAP:") == len(names)
    assert text.count("#EXT-X-DISCONTINUITY\n") == len(names) - 1
    at, times = UTC_0, []
    for group in segments(text)[:-1]:
        for row in group:
            if row.startswith("#EXT-X-PROGRAM-DATE-TIME:"):
                at = _utc_ns(row)
        times.append(at)
        at += round(float(group[-3].removeprefix("#EXTINF:").rstrip(",")) * NS)
    gaps = [(b - a) / NS for a, b in pairwise(times)]
    assert max(gaps) == pytest.approx(61, abs=1.1), "behind the gap the time is right again"
    assert sorted(gaps)[-2] < 1.1
    assert times[0] == UTC_0
    assert found.here == [(UTC_0, UTC_0 + 12 * NS), (UTC_0 + 72 * NS, UTC_0 + 80 * NS)]
    assert found.missing_s == pytest.approx(0, abs=0.01)
    assert says(found.stretches)[:3] == [("recorded", 12.0), ("camera-fault", 60.0), ("recorded", 8.0)]


def _utc_ns(row: str) -> int:
    return parse_rfc3339(row.partition(":")[2])


def test_what_is_not_here_is_told_by_the_ledger(post: EvidencePost, desk: FootageDesk) -> None:
    """The station has the lines and no file: the bar shows what there is to be asked for."""
    post.feed(encoded(seconds=6))
    post.seal()
    desk.hear(post)
    found = survey(desk, -20, 60)
    assert says(found.stretches)[:2] == [("before-install", 20.0), ("recorded", 6.0)]
    assert found.here == []
    assert found.missing_s == pytest.approx(6, abs=0.01)
    assert found.stretches[-1].detail == NOT_TOLD, "what has not been told is not called the future, nor a fault"
    assert sum(stretch.seconds for stretch in found.stretches) == 80

    desk.take(post, next(iter(post.disk.list("segments"))))
    found = survey(desk, -20, 60)
    assert found.here == [(UTC_0, UTC_0 + 2 * NS)]
    assert found.missing_s == pytest.approx(4, abs=0.01)


def test_footage_that_came_by_hand_from_a_post_that_was_never_heard_plays(
    post: EvidencePost, desk: FootageDesk
) -> None:
    post.feed(encoded(seconds=4))
    post.seal()
    desk.take_all(post)
    found = survey(desk, 0, 10)
    assert found.here == [(UTC_0, UTC_0 + 4 * NS)]
    assert says(found.stretches)[0] == ("recorded", 4.0)


def test_what_is_not_what_the_post_recorded_is_not_played(post: EvidencePost, desk: FootageDesk) -> None:
    post.feed(encoded(seconds=4))
    post.seal()
    desk.hear(post)
    name = next(iter(post.disk.list("segments")))
    with post.disk.open(name) as file:
        data = bytearray(file.read())
    data[len(data) // 2] ^= 1
    desk.take(post, name, data=bytes(data))
    assert survey(desk, 0, 10).files == []


def test_a_range_plays_from_the_key_frame_before_it_and_no_further(post: EvidencePost, desk: FootageDesk) -> None:
    post.feed(encoded(seconds=12))
    post.seal()
    desk.hear(post)
    desk.take_all(post)
    found = survey(desk, 4.7, 6.2)
    times = [(part.start_utc_ns - UTC_0) / NS for part in found.playlist.parts]
    assert times[0] == 4.5
    last = found.playlist.parts[-1]
    assert (last.start_utc_ns + last.duration_ns - UTC_0) / NS == 6.5
    assert found.here == [(UTC_0 + 4700 * 10**6, UTC_0 + 6200 * 10**6)]
    with served(desk, found) as address:
        assert len(lumas(address)) == 20


def test_the_lines_of_a_range_are_found_among_many(
    post: EvidencePost, desk: FootageDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A range is looked up by halving: the session that it lies in is known, though it began long before."""
    monkeypatch.setattr(told, "MARGIN_NS", 5 * NS)
    post.feed(laps(encoded(seconds=4), 4, 15))
    post.seal()
    desk.hear(post)
    desk.take_all(post)
    found = survey(desk, 31, 33)
    assert says(found.stretches) == [("recorded", 2.0)]
    assert found.here == [(UTC_0 + 31 * NS, UTC_0 + 33 * NS)]
    read = told.read(desk.engine, POST, UTC_0 + 31 * NS, UTC_0 + 33 * NS)
    assert len(read.sessions) == 1 and len(read.segments) >= 2


# -- the pure part ----------------------------------------------------------------------------------------------------


def fragment(n: int, start_s: float, seconds: float, *, key: bool = True) -> Fragment:
    return Fragment(n, 1000 * n, 900, round(start_s * NS), round((start_s + seconds) * NS), key, b"\0" * 32)


def file(*fragments: Fragment, uri: str = "1", sealed: bool = False) -> File:
    return File(uri, 700, BOOT, fragments, sealed)


def placed(files: list[File], start_s: float = 0, end_s: float = 1000) -> playlist.Playlist:
    return compose(files, Timeline([ANCHOR]), UTC_0 + round(start_s * NS), UTC_0 + round(end_s * NS))


def test_what_no_key_frame_opens_and_what_is_sealed_is_left_out_and_named() -> None:
    torn = file(fragment(1, 0, 0.5, key=False), fragment(2, 0.5, 0.5), fragment(3, 1.0, 0.5, key=False))
    sealed = file(fragment(1, 20, 2), uri="2", sealed=True)
    found = placed([torn, sealed])
    assert [(part.offset, part.length) for part in found.parts] == [(2000, 1900)]
    assert found.left_out == (
        LeftOut(UTC_0, UTC_0 + NS // 2, "no-key-frame"),
        LeftOut(UTC_0 + 20 * NS, UTC_0 + 22 * NS, "sealed"),
    )


def test_a_hole_within_a_file_is_a_discontinuity_and_its_time_is_told_anew() -> None:
    found = placed([file(fragment(1, 0, 2), fragment(2, 30, 2), fragment(3, 32, 0.5, key=False))])
    text = playlist.write(found, [file()])
    assert text.count("#EXT-X-MAP") == 1
    assert text.count("#EXT-X-DISCONTINUITY") == 1
    assert [row for row in text.splitlines() if "DATE-TIME" in row] == [
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:20.000Z",
        "#EXT-X-PROGRAM-DATE-TIME:2023-11-14T22:13:50.000Z",
    ]
    assert [part.duration_ns / NS for part in found.parts] == [2, 2.5]


def test_a_stretch_that_two_files_have_is_played_once() -> None:
    one = file(fragment(1, 0, 2), fragment(2, 2, 2), uri="1")
    other = file(fragment(1, 2, 2), fragment(2, 4, 2), uri="2")
    found = placed([other, one])
    assert [(part.file, (part.start_utc_ns - UTC_0) // NS) for part in found.parts] == [(1, 0), (1, 2), (0, 4)]


def test_a_long_group_of_pictures_is_cut_and_no_segment_is_longer_than_is_said() -> None:
    parts = [fragment(1, 0, 0.5), *(fragment(n, n / 2 - 0.5, 0.5, key=False) for n in range(2, 61))]
    found = placed([file(*parts)])
    assert [part.duration_ns / NS for part in found.parts] == [10, 10, 10]
    assert all(part.joined for part in found.parts[1:])
    assert "#EXT-X-TARGETDURATION:10\n" in playlist.write(found, [file()])


def test_a_file_of_a_boot_without_a_clock_is_not_placed() -> None:
    assert placed([replace(file(fragment(1, 0, 2)), boot_id="b" * 32)]).parts == ()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12)),
        max_size=4,
    ),
    st.integers(0, 60),
    st.integers(1, 60),
)
def test_whatever_was_recorded_a_playlist_is_in_order_and_within_its_files(
    made: list[tuple[int, list[tuple[int, bool]]]], start_s: int, seconds: int
) -> None:
    files = []
    for at_s, lengths in made:
        fragments, at = [], float(at_s)
        for n, (tenths, key) in enumerate(lengths, 1):
            fragments.append(fragment(n, at, tenths / 10, key=key))
            at += tenths / 10 * (1 if tenths % 7 else 3)
        files.append(file(*fragments))
    found = placed(files, start_s, start_s + seconds)
    starts = [part.start_utc_ns for part in found.parts]
    assert starts == sorted(starts)
    for part in found.parts:
        inside = files[part.file].fragments
        opening = next(one for one in inside if one.offset == part.offset)
        ending = next(one for one in inside if one.offset + one.length == part.offset + part.length)
        assert opening.n <= ending.n
        assert part.duration_ns > 0
    text = playlist.write(found, files)
    longest = max((part.duration_ns for part in found.parts), default=NS) / NS
    assert f"#EXT-X-TARGETDURATION:{max(round(longest), 1)}\n" in text, "RFC 8216, 4.3.3.1: rounded, none is longer"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-99", (0, 100)),
        ("bytes=900-", (900, 100)),
        ("bytes=990-5000", (990, 10)),
        ("bytes=-10", (990, 10)),
        ("bytes=-5000", (0, 1000)),
        ("", None),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=0x1-2", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_byte_ranges(header: str, expected: tuple[int, int] | None) -> None:
    assert ranges.parse(header, 1000) == expected


@pytest.mark.parametrize("header", ["bytes=1000-", "bytes=1000-2000", "bytes=-0"])
def test_byte_ranges_behind_the_end(header: str) -> None:
    with pytest.raises(ranges.Unsatisfiable):
        ranges.parse(header, 1000)
