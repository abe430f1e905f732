"""Decoding on demand: everything is kept, little is decoded, and what is decoded is what full decoding would show."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from agent.camera import EndOfFootage
from agent.camera.stream import StreamCamera
from agent.camera.vigilance import Attention
from agent.clock import MediaClock, SystemClock
from agent.errors import ConfigError
from agent.types import NS, Frame, Packet
from tests.fakes.rtsp import RtspServer

FPS = 10
SIZE = (320, 240)


def film(
    path: Path, *, seconds: int, visit: tuple[float, float], options: dict[str, str], size: tuple[int, int] = SIZE
) -> Path:
    """A still place; from `visit[0]` to `visit[1]` somebody bright walks through it."""
    width, height = size
    place = np.random.default_rng(1).integers(60, 120, (height // 8, width // 8), np.uint8).repeat(8, 0).repeat(8, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "24", "g": str(2 * FPS), "sc_threshold": "0", **options}
        for index in range(seconds * FPS):
            picture = place.copy()
            if visit[0] <= index / FPS < visit[1]:
                left = 20 + int((index / FPS - visit[0]) * 40) % (width - 60)
                picture[height // 4 : 3 * height // 4, left : left + 30] = np.arange(30, dtype=np.uint8) * 7
            frame = av.VideoFrame.from_ndarray(picture, format="gray").reformat(format="yuv420p")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def watch(
    path: Path, attention: Attention | None, *, asks_s: tuple[float, float] = (0, 0)
) -> tuple[list[Packet], list[Frame]]:
    """All that the camera gives; vision asks for more in the frames within `asks_s`."""
    camera = StreamCamera(
        url=str(path), clock=MediaClock(), analysis_fps=5.0, luma_px=160, paced=False, attention=attention
    )
    camera.open()
    packets, frames = [], []
    try:
        while True:
            for item in camera.read(0.0):
                if isinstance(item, Packet):
                    packets.append(item)
                    continue
                frames.append(item)
                if attention is not None and asks_s[0] <= item.boot_ns / NS < asks_s[1]:
                    attention.hold(item.boot_ns + NS)
    except EndOfFootage:
        pass
    camera.close()
    return packets, frames


STREAMS = {
    "plain": {"tune": "zerolatency"},
    "b-frames": {"bf": "2", "b-adapt": "0"},
    "open-gop": {"bf": "2", "b-adapt": "0", "x264-params": "open-gop=1"},
    "long-gop": {"tune": "zerolatency", "g": "150"},
    "one-key-frame": {"tune": "zerolatency", "g": "100000"},
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_visit_in_a_calm_night(kind: str, tmp_path: Path) -> None:
    """Half a minute of nothing, a visit of four seconds, and nothing again."""
    path = film(tmp_path / "a.mp4", seconds=50, visit=(30.7, 34.7), options=STREAMS[kind])
    all_packets, all_frames = watch(path, None)
    packets, frames = watch(path, Attention(), asks_s=(30.7, 34.7))
    assert packets == all_packets, "what is recorded does not depend on what is looked at"
    assert len(frames) < 0.6 * len(all_frames), f"{len(frames)} of {len(all_frames)} pictures were decoded and shown"
    stamps = [frame.boot_ns for frame in frames]
    assert stamps == sorted(set(stamps))
    seen = [stamp / NS for stamp in stamps if 30.7 <= stamp / NS < 34.7]
    assert seen[0] - 30.7 <= 0.5, "the sizes have told, no key frame had to come"
    assert len(seen) >= 17, "then all of them"
    truth = {frame.boot_ns: frame for frame in watch_every(path)}
    for frame in frames:
        assert (frame.luma == truth[frame.boot_ns].luma).all(), f"a wrong picture at {frame.boot_ns / NS:.1f} s"
    gaps = np.diff(stamps) / NS
    assert gaps.max() <= 11, "a look now and then, whatever the key frames"


def watch_every(path: Path) -> list[Frame]:
    camera = StreamCamera(url=str(path), clock=MediaClock(), analysis_fps=float("inf"), luma_px=160, paced=False)
    camera.open()
    frames: list[Frame] = []
    try:
        while True:
            frames += [item for item in camera.read(0.0) if isinstance(item, Frame)]
    except EndOfFootage:
        camera.close()
    return frames


def test_the_same_file_gives_the_same_frames_twice(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", seconds=40, visit=(25.0, 30.0), options=STREAMS["plain"])
    one, other = (watch(path, Attention(), asks_s=(25, 30)) for _ in range(2))
    assert one[0] == other[0]
    assert [(frame.seq, frame.boot_ns) for frame in one[1]] == [(frame.seq, frame.boot_ns) for frame in other[1]]


def test_numbers_of_frames_count_the_pictures_that_were_passed_over(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", seconds=40, visit=(25.0, 30.0), options=STREAMS["plain"])
    _, frames = watch(path, Attention(), asks_s=(25, 30))
    assert all(abs(frame.seq - (frame.boot_ns / NS * FPS + 1)) < 1.5 for frame in frames)


def test_damage_while_nobody_looks_is_kept_and_survived(tmp_path: Path) -> None:
    """A packet of the night is rubbish. When somebody comes, pictures come too, from the next key frame at the latest."""
    path = film(tmp_path / "a.h264", seconds=40, visit=(31.0, 36.0), options=STREAMS["plain"])
    data = bytearray(path.read_bytes())
    at = len(data) // 3
    data[at : at + 40] = bytes(range(40))
    path.write_bytes(data)
    packets, frames = watch(path, Attention(), asks_s=(10, 16))
    assert len(packets) >= 380
    assert any(frame.boot_ns / NS >= 12.6 for frame in frames), "it sees again"  # such a file plays at 25 fps


def test_a_sub_stream_beside_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sub_url"):
        StreamCamera(
            url=str(tmp_path / "a.mp4"), clock=MediaClock(), analysis_fps=5, luma_px=160, sub_url="rtsp://127.0.0.1/2"
        )


def units(path: Path) -> list[tuple[bool, bytes]]:
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        to_bytes = av.BitStreamFilterContext("h264_mp4toannexb", stream)
        return [
            (bool(packet.is_keyframe), b"".join(bytes(part) for part in to_bytes.filter(packet)))
            for packet in container.demux(stream)
            if packet.size
        ]


@pytest.mark.parametrize("on_demand", [False, True])
def test_the_small_stream_is_looked_at_and_when_it_dies_the_large_one(tmp_path: Path, *, on_demand: bool) -> None:
    """Two streams of one camera. The small one breaks: not a packet is lost, and the post goes on seeing."""
    large = units(film(tmp_path / "a.mp4", seconds=4, visit=(0.0, 4.0), options=STREAMS["plain"], size=(640, 480)))
    small = units(film(tmp_path / "b.mp4", seconds=4, visit=(0.0, 4.0), options=STREAMS["plain"]))
    epoch_s = time.monotonic()
    main, sub = RtspServer(large, fps=FPS, epoch_s=epoch_s), RtspServer(small, fps=FPS, epoch_s=epoch_s)
    camera = StreamCamera(
        url=main.url(), clock=SystemClock(), analysis_fps=5.0, luma_px=160, stall_s=2.0, sub_url=sub.url(),
        attention=Attention() if on_demand else None,
    )  # fmt: skip
    try:
        camera.open()
        sizes: list[int] = []
        packets: list[Packet] = []
        frames: list[Frame] = []

        def until(width: int, count: int) -> None:
            deadline = time.monotonic() + 25
            while time.monotonic() < deadline and sizes.count(width) < count:
                for item in camera.read(0.2):
                    if isinstance(item, Packet):
                        packets.append(item)
                    else:
                        frames.append(item)
                        sizes.append(item.crop().shape[1])
            assert sizes.count(width) >= count, f"widths seen: {sizes}"

        until(320, 8)
        before = len(sizes)
        sub.close()
        until(640, sizes.count(640) + 8)
        assert 640 in sizes[before:]
        steps = np.diff([packet.dts_ns for packet in packets]) / NS
        assert {packet.video.width for packet in packets} == {640}
        assert steps.max() < 1.0, "the footage has no hole"
        assert (np.diff([frame.boot_ns for frame in frames]) > 0).all()
        assert (np.diff([frame.seq for frame in frames]) > 0).all()
    finally:
        camera.close()
        main.close()
        sub.close()
