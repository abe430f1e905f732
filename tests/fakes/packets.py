"""Real H.264 access units for tests of recording: made by libx264, or taken out of a file."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from agent.types import NS, Packet, VideoFormat


@cache
def encoded(
    *,
    seconds: float = 12.0,
    fps: int = 10,
    gop: int = 5,
    b_frames: int = 0,
    width: int = 96,
    height: int = 64,
    start_ns: int = 1_000 * NS,
    seed: int = 1,
) -> tuple[Packet, ...]:
    """A moving gradient with noise, as Annex B with SPS and PPS in every key frame. Made once per test run."""
    codec = av.CodecContext.create("libx264", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base = Fraction(1, fps)
    codec.framerate = Fraction(fps)
    codec.options = {
        "preset": "ultrafast" if b_frames == 0 else "fast",
        "g": str(gop),
        "keyint_min": str(gop),
        "sc_threshold": "0",
        "bf": str(b_frames),
        "threads": "1",
        "crf": "28",
    }
    random = np.random.default_rng(seed)
    units: list[av.Packet[VideoStream]] = []
    for index in range(round(seconds * fps)):
        luma = np.add.outer(np.arange(height), np.arange(width) + 3 * index) % 256
        noise = random.integers(0, 12, (height, width))
        picture = np.full((height * 3 // 2, width), 128, np.uint8)
        picture[:height] = np.clip(luma + noise, 0, 255)
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts = index
        units += codec.encode(frame)
    units += codec.encode(None)
    return _packets(units, VideoFormat(width, height), start_ns, Fraction(1, fps))


@cache
def of_file(path: Path, start_ns: int = 1_000 * NS) -> tuple[Packet, ...]:
    """The H.264 stream of a file, unchanged, in Annex B form."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        annex_b = av.BitStreamFilterContext("h264_mp4toannexb", video)
        units = [unit for packet in container.demux(video) for unit in annex_b.filter(packet if packet.size else None)]
        assert video.time_base is not None
        return _packets(units, VideoFormat(video.width, video.height), start_ns, video.time_base)


def _packets(
    units: list[av.Packet[VideoStream]], video: VideoFormat, start_ns: int, time_base: Fraction
) -> tuple[Packet, ...]:
    first = min(unit.pts for unit in units if unit.pts is not None)
    packets = []
    for unit in units:
        assert unit.pts is not None
        assert unit.dts is not None
        packets.append(
            Packet(
                boot_ns=start_ns + round((unit.pts - first) * time_base * NS),
                dts_ns=start_ns + round((unit.dts - first) * time_base * NS),
                keyframe=unit.is_keyframe,
                data=bytes(unit),
                video=video,
            )
        )
    return tuple(packets)


def shifted(packets: tuple[Packet, ...], by_ns: int) -> tuple[Packet, ...]:
    """The same pictures at another time."""
    return tuple(replace(p, boot_ns=p.boot_ns + by_ns, dts_ns=p.dts_ns + by_ns) for p in packets)
