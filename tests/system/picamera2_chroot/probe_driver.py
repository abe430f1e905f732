"""Runs the picamera2 driver in the chroot for some seconds and prints, as JSON, what came out. One argument: masked or not."""

from __future__ import annotations

import json
import sys
from itertools import pairwise

import shims  # type: ignore[import-not-found]  # beside this file in the chroot

shims.make_scene()
shims.install()

import av  # noqa: E402
import numpy as np  # noqa: E402

from agent.camera import h264  # noqa: E402
from agent.camera.picamera2 import Picamera2Camera  # noqa: E402
from agent.clock import SystemClock  # noqa: E402
from agent.types import NS, Box, Frame, Packet  # noqa: E402


def main() -> None:
    masked = sys.argv[1:] == ["masked"]
    clock = SystemClock()
    camera = Picamera2Camera(
        clock=clock,
        width=640,
        height=360,
        fps=shims.FPS,
        bitrate_kbps=1500,
        analysis_fps=5,
        luma_px=320,
        masks=(((0, 0), (0.5, 0), (0.5, 0.3), (0, 0.3)),) if masked else (),
    )
    report: dict[str, object] = {}
    for session in range(2):  # opening again after a close must work as well
        camera.open()
        end_ns = clock.boot_ns() + (7 if session == 0 else 2) * NS
        items: list[Frame | Packet] = []
        corner = 0
        crop = None
        while clock.boot_ns() < end_ns:
            got = camera.read(0.5)
            items += got
            for frame in got:
                if isinstance(frame, Frame):
                    crop = frame.crop(Box(0, 0, 1, 1), 640)
                    corner = max(corner, int(crop[:100, :300].max()))
        camera.close()
        packets = [item for item in items if isinstance(item, Packet)]
        frames = [item for item in items if isinstance(item, Frame)]
        decoder = av.CodecContext.create("h264", "r")
        pictures = [picture for packet in packets for picture in decoder.decode(av.Packet(packet.data))]
        pictures += decoder.decode(None)
        lumas = [frame.luma.astype(int) for frame in frames]
        report[f"session{session}"] = {
            "packets": len(packets),
            "frames": len(frames),
            "pictures": len(pictures),
            "keyframes": sum(packet.keyframe for packet in packets),
            "complete": all(bool(h264.parameter_sets(packet.data)) for packet in packets if packet.keyframe),
            "size": [packets[0].video.width, packets[0].video.height],
            "luma": list(frames[0].luma.shape),
            "crop": list(crop.shape) if crop is not None else None,
            "late_s": max(abs(item.boot_ns - clock.boot_ns()) for item in items) / NS,
            "moved": max(float(np.abs(b - a).max()) for a, b in pairwise(lumas)),
            "corner_crop": corner,
            "corner_luma": max(int(frame.luma[:50, :150].max()) for frame in frames),
            "corner_footage": max(int(picture.to_ndarray(format="gray")[:100, :300].max()) for picture in pictures),
        }
    report["counters"] = str(camera.counters)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
