"""Footage of every kind, good and bad, through the stream driver: it works, or says in one line why not."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from agent.assets import Assets
from agent.camera import CameraLost, EndOfFootage
from agent.camera.demux import Kind, source_of
from agent.camera.stream import StreamCamera, probe
from agent.clock import MediaClock, SystemClock
from agent.errors import ConfigError
from agent.types import NS, Frame, Packet
from tests.fakes.camera import access_units
from tests.fakes.clock import FakeClock
from tests.fakes.footage import make_sound, make_video

EVERY = float("inf")


def replay(path: Path, **options: Any) -> tuple[list[Packet], list[Frame], StreamCamera]:
    """The whole file, as fast as it goes."""
    settings: dict[str, Any] = {"analysis_fps": EVERY, "luma_px": 160, "paced": False, **options}
    camera = StreamCamera(url=str(path), clock=MediaClock(), **settings)
    camera.open()
    items: list[Frame | Packet] = []
    try:
        while True:
            items += camera.read(1.0)
    except EndOfFootage:
        pass
    camera.close()
    packets = [item for item in items if isinstance(item, Packet)]
    return packets, [item for item in items if isinstance(item, Frame)], camera


def pictures_in(packets: list[Packet]) -> list[Any]:
    decoder: Any = av.CodecContext.create("h264", "r")
    found = [picture for packet in packets for picture in decoder.decode(av.Packet(packet.data))]
    return [*found, *decoder.decode(None)]


def test_real_footage_with_b_frames(assets: Assets) -> None:
    packets, frames, camera = replay(assets.footage())
    assert len(packets) == len(frames) == 250
    assert [frame.seq for frame in frames] == list(range(1, 251))
    assert [frame.boot_ns for frame in frames] == [n * NS // 25 for n in range(250)]
    assert sorted(packet.boot_ns for packet in packets) == [frame.boot_ns for frame in frames]
    assert all(packet.dts_ns <= packet.boot_ns for packet in packets)
    assert camera.counters.undecodable == 0
    assert len(pictures_in(packets)) == 250


def test_replay_is_deterministic(assets: Assets) -> None:
    first, second = (replay(assets.footage(), analysis_fps=5.0, luma_px=320) for _ in range(2))
    assert first[0] == second[0]
    assert [frame.boot_ns for frame in first[1]] == [frame.boot_ns for frame in second[1]]
    for one, other in zip(first[1], second[1], strict=True):
        assert (one.luma == other.luma).all()
        assert (one.crop(px_max=300) == other.crop(px_max=300)).all()


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "form", "size"),
    [
        ("libx264", "yuv420p", "mkv", (320, 240)),
        ("libx264", "yuv420p", "ts", (320, 240)),
        ("libx264", "yuv420p", "h264", (320, 240)),  # no stamps at all
        ("libx264", "yuv444p", "mp4", (321, 241)),
        ("libx264", "yuv422p", "mp4", (320, 240)),
        ("libx264", "gray", "mp4", (320, 240)),
        ("libx264", "yuv420p10le", "mp4", (320, 240)),
        ("mjpeg", "yuvj420p", "avi", (320, 240)),
        ("mjpeg", "yuvj422p", "avi", (322, 242)),
        ("mpeg4", "yuv420p", "avi", (318, 238)),
        ("rawvideo", "yuyv422", "avi", (320, 240)),
        ("rawvideo", "bgr24", "avi", (320, 240)),
        ("ffv1", "yuv420p", "mkv", (321, 241)),
    ],
)
def test_every_kind_of_video(tmp_path: Path, codec: str, pix_fmt: str, form: str, size: tuple[int, int]) -> None:
    """Whatever the codec, the pixels and the container: all frames, the right picture, playable H.264."""
    raw = {"bf": "0"} if form == "h264" else None  # without stamps nobody can put B-frames in order
    path = make_video(tmp_path / f"a.{form}", codec=codec, pix_fmt=pix_fmt, size=size, options=raw)
    packets, frames, _ = replay(path)
    assert len(frames) == len(packets) == 20
    assert all(b.boot_ns > a.boot_ns for a, b in pairwise(frames))
    if form != "h264":  # which has no stamps, so FFmpeg takes 25 a second
        assert frames[-1].boot_ns - frames[0].boot_ns == pytest.approx(1.9 * NS, rel=0.06)
    whole = frames[5].crop()
    assert whole.shape == (
        size[1] - (codec != "libx264") * (size[1] % 2),
        size[0] - (codec != "libx264") * (size[0] % 2),
        3,
    )
    grey = whole.astype(int).mean(axis=2)
    left = int(0.25 * (1 - 0.08) * size[0]) + 2
    assert grey[int(size[1] * 0.5), left + 5] > 180, "the walker, where it is after half a second"
    assert grey[int(size[1] * 0.9), left + 5] < 150
    assert packets[0].keyframe
    assert len(pictures_in(packets)) == 20
    found = probe(url=str(path), clock=SystemClock())
    assert found.transcodes == (codec != "libx264")
    assert (found.width, found.height) == size


def test_a_transcoded_stream_has_a_key_frame_a_second(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", codec="mpeg4", fps=25, seconds=4)
    packets, _, _ = replay(path)
    keys = [packet.boot_ns for packet in packets if packet.keyframe]
    assert [round(b - a, -6) for a, b in pairwise(keys)] == [NS, NS, NS]
    assert all(packet.dts_ns == packet.boot_ns for packet in packets), "no B-frames"


def test_masks_are_in_everything(assets: Assets) -> None:
    """A masked corner is black in the footage, in the luma and in every crop; the rest is as it was."""
    corner = (((0.0, 0.0), (0.4, 0.0), (0.4, 0.4), (0.0, 0.4)),)
    packets, frames, _ = replay(assets.footage(), masks=corner, luma_px=320)
    _, open_frames, _ = replay(assets.footage(), luma_px=320)
    assert len(packets) == len(frames) == 250
    for frame, plain in zip(frames[::25], open_frames[::25], strict=True):
        assert frame.luma[:54, :128].max() == 16
        assert frame.crop()[:108, :256].max() == 0
        assert (frame.luma[57:, 131:] == plain.luma[57:, 131:]).all()
    for picture in pictures_in(packets)[::25]:
        assert picture.to_ndarray(format="gray")[:104, :250].max() < 24


def test_the_picture_changes_its_size_midway(tmp_path: Path) -> None:
    """A camera was reconfigured: a new VideoFormat, a new luma shape, nothing lost."""
    path = tmp_path / "two-sizes.h264"
    units = [*access_units(320, 240, 10)[:20], *access_units(480, 240, 10)[:20]]
    path.write_bytes(b"".join(data for _, data in units))
    packets, frames, _ = replay(path)
    assert [(packet.video.width, packet.video.height) for packet in packets] == [(320, 240)] * 20 + [(480, 240)] * 20
    assert [frame.luma.shape for frame in frames] == [(120, 160)] * 20 + [(80, 160)] * 20
    assert packets[20].keyframe
    assert packets[20].video.extradata != packets[19].video.extradata
    masked, _, _ = replay(path, masks=(((0, 0), (0.5, 0), (0.5, 0.5)),))
    assert {(packet.video.width, packet.video.height) for packet in masked} == {(320, 240), (480, 240)}
    assert len(masked) == 40


def test_footage_whose_time_jumps(tmp_path: Path) -> None:
    """An hour forward and two hours back: stamps go on evenly."""
    path = tmp_path / "jumps.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_mux_stream("h264", width=320, height=240, time_base=Fraction(1, 1000))
        for index, (keyframe, data) in enumerate(access_units(320, 240, 10)):
            packet = av.Packet(data)
            packet.stream, packet.is_keyframe = stream, keyframe
            packet.time_base = Fraction(1, 1000)
            seconds = 10_000 + index / 10 + (3600 if 10 <= index < 20 else 0)
            packet.pts = packet.dts = round(seconds * 1000)
            if index >= 20:
                packet.pts = packet.dts = round((10_000 + 3600 + 42 + index / 10) * 1000)
            container.mux(packet)
    packets, frames, _ = replay(path)
    assert len(packets) == len(frames) == 40
    steps = {round((b.boot_ns - a.boot_ns) / NS, 2) for a, b in pairwise(frames)}
    assert max(steps) <= 0.2
    assert min(steps) > 0


def test_a_loop_has_no_seam(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", options={"bf": "2"})
    clock = FakeClock()
    camera = StreamCamera(url=str(path), clock=clock, analysis_fps=10, luma_px=160, loop=True)
    camera.open()
    start = clock.boot_ns()
    items: list[Frame | Packet] = []
    while clock.boot_ns() - start < 7 * NS:
        items += camera.read(0.5)
    camera.close()
    stamps = sorted(item.boot_ns for item in items if isinstance(item, Packet))
    assert {b - a for a, b in pairwise(stamps[:60])} == {NS // 10}
    frames = [item for item in items if isinstance(item, Frame)]
    assert 66 <= len(frames) <= 71, "paced: as many as the time that passed"
    assert all(b.seq == a.seq + 1 for a, b in pairwise(frames))


def test_a_paced_file_takes_its_time(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4")
    clock = FakeClock()
    camera = StreamCamera(url=str(path), clock=clock, analysis_fps=10, luma_px=160)
    camera.open()
    start = clock.boot_ns()
    frames: list[Frame] = []
    while len(frames) < 20:
        for item in camera.read(0.03):
            if isinstance(item, Frame):
                assert item.boot_ns <= clock.boot_ns(), "nothing is seen before its time"
                frames.append(item)
    assert (clock.boot_ns() - start) / NS == pytest.approx(1.9, abs=0.1)
    with pytest.raises(EndOfFootage, match="end of the footage"):
        camera.read(0.03)
    camera.close()


def test_broken_packets_are_survived(assets: Assets, tmp_path: Path) -> None:
    """A tenth of the bytes of some pictures is overwritten: the rest is still seen, and nothing raises."""
    data = bytearray(assets.footage().read_bytes())
    rng = np.random.default_rng(3)
    print("seed 3")
    for _ in range(300):
        data[int(rng.integers(4000, len(data) - 30_000))] = int(rng.integers(256))
    path = tmp_path / "hurt.mp4"
    path.write_bytes(data)
    packets, frames, camera = replay(path)
    assert len(packets) >= 200
    assert len(frames) >= 150
    assert all(b.dts_ns > a.dts_ns for a, b in pairwise(packets))
    print(camera.counters)


def test_a_recording_that_was_cut_off_plays_to_the_cut(tmp_path: Path) -> None:
    whole = make_video(tmp_path / "a.ts", seconds=4)
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    packets, frames, _ = replay(cut)
    assert 10 <= len(frames) < 40
    assert packets[0].keyframe


def bad_files(tmp_path: Path) -> dict[str, Path]:
    whole = make_video(tmp_path / "whole.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("This is not a video.\n" * 500)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-800])  # without its index, which stands at the end
    noise = tmp_path / "noise.h264"
    noise.write_bytes(b"\x00\x00\x00\x01\x65" + np.random.default_rng(1).bytes(20_000))
    return {
        "text": text,
        "empty": empty,
        "cut": cut,
        "noise": noise,
        "sound": make_sound(tmp_path / "sound.wav"),
        "missing": tmp_path / "nobody.mp4",
        "folder": tmp_path,
    }


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "noise", "sound", "missing", "folder"])
def test_what_is_no_footage_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = bad_files(tmp_path)[kind]
    words = {"sound": "no video, only audio", "missing": "no such file", "folder": "is a folder"}.get(
        kind, "not a video|no video|decoded"
    )
    with pytest.raises((ConfigError, CameraLost), match=words) as failure:
        replay(path)
    assert str(path) in str(failure.value)
    assert "\n" not in str(failure.value)


def test_a_stream_that_never_sends_a_key_frame_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "no-key.h264"
    units = access_units(320, 240, 10)
    path.write_bytes(units[0][1][:60] + b"".join(data for keyframe, data in units * 4 if not keyframe))
    with pytest.raises((CameraLost, ConfigError), match=r"decoded|key frame|not a video"):
        replay(path, stall_s=2.0)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:pa:ss@10.0.0.9:554/h264?channel=1&password=x", "rtsp://10.0.0.9:554/h264"),
        ("rtsp://10.0.0.9/user=admin&password=hunter2&channel=1/", "rtsp://10.0.0.9/user=***&password=***&channel=1/"),
        ("http://[fe80::1]:8080/video?token=abc", "http://[fe80::1]:8080/video"),
        ("rtsp://u:p@host:99999/x", "rtsp://(unreadable address)"),
        ("/dev/video0", "/dev/video0"),
        ("file:///srv/a.mp4", "/srv/a.mp4"),
    ],
)
def test_names_are_without_passwords(url: str, shown: str) -> None:
    assert source_of(url).shown == shown


def test_what_a_url_may_be() -> None:
    assert source_of("/dev/video0").kind is Kind.DEVICE
    assert source_of("rtsp://camera/1").kind is Kind.NETWORK
    for url in ("", "gopher://camera/1"):
        with pytest.raises(ConfigError, match=r"camera\.url"):
            source_of(url)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    camera = StreamCamera(url="/dev/video-none", clock=SystemClock(), analysis_fps=5, luma_px=160)
    with pytest.raises(CameraLost, match="plugged in"):
        camera.open()
    camera.close()
    camera = StreamCamera(url="rtsp://admin:hunter2@127.0.0.1:1/x", clock=SystemClock(), analysis_fps=5, luma_px=160)
    with pytest.raises(CameraLost, match="refused") as failure:
        camera.open()
    assert "hunter2" not in str(failure.value)
    camera.close()
