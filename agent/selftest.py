"""`wardpost selftest`: proves each part of a post by doing once what it does all day.

A part is a callable that returns what it proved in words, or raises WardpostError. Those that need only a protocol are
made here; the others (broker, recorder) come from whoever wires the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.camera import Camera
from agent.clock import Clock
from agent.disk import Disk
from agent.errors import Corrupt, Transient, WardpostError
from agent.logs import error_line, fold
from agent.panel import Output, Panel
from agent.types import FULL, MS, NS, Bgr, Detection, Frame, Packet
from agent.vision.detector import Detector

EXIT_OK = 0
EXIT_FAILED = 1
FRAMES_MIN = 5
FOLDER = "selftest"


class Skipped(Exception):  # noqa: N818
    """This post does not have the part. Not a failure, but never silent."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to prove. `run` bounds its own waiting."""

    name: str
    run: Callable[[], str]


def selftest(parts: Sequence[Part], *, clock: Clock, out: Callable[[str], None]) -> int:
    """Proves every part, a line each; returns 0 when none failed, else 1."""
    failed: list[str] = []
    width = max((len(part.name) for part in parts), default=0)
    for part in parts:
        start_ns = clock.boot_ns()
        try:
            verdict, text = "ok", part.run()
        except Skipped as error:
            verdict, text = "skipped", str(error)
        except WardpostError as error:
            verdict, text = "FAILED", str(error)
        except Exception as error:  # noqa: BLE001  (the other parts still want to be proved)
            verdict, text = "FAILED", f"a bug: {error_line(error)}"
        if verdict == "FAILED":
            failed.append(part.name)
        took_s = (clock.boot_ns() - start_ns) / NS
        out(fold(f"{verdict:7}  {part.name:{width}}  {text} ({took_s:.1f} s)"))
    out(f"selftest failed: {', '.join(failed)}" if failed else f"selftest passed: {len(parts)} parts")
    return EXIT_FAILED if failed else EXIT_OK


def prove_camera(camera: Camera, clock: Clock, *, wait_s_max: float = 15.0) -> str:
    """The camera gives frames that differ from black and access units that begin with a keyframe."""
    start_ns = clock.boot_ns()
    frames: list[Frame] = []
    packets = keyframes = 0
    first_ns = 0
    camera.open()
    try:
        while len(frames) < FRAMES_MIN or not keyframes:
            if clock.boot_ns() - start_ns > wait_s_max * NS:
                raise Transient(
                    f"{camera.name}: {len(frames)} frames, {packets} packets and {keyframes} keyframes"
                    f" within {wait_s_max:.0f} s; check the cable and the power"
                )
            for item in camera.read(0.5):
                if isinstance(item, Packet):
                    packets += 1
                    keyframes += item.keyframe
                elif len(frames) < FRAMES_MIN:
                    first_ns = first_ns or clock.boot_ns() - start_ns
                    frames.append(item)
        luma = frames[-1].luma
        picture = frames[-1].crop(FULL)
        if int(luma.max()) == int(luma.min()):
            raise Transient(f"{camera.name}: the picture is one even grey of {int(luma.min())}; is the lens covered?")
        height, width = picture.shape[:2]
        return f"{camera.name}: {width}x{height}, first frame after {first_ns / NS:.1f} s, {packets} packets"
    finally:
        frames.clear()
        camera.close()


def prove_detector(detector: Detector, picture: Callable[[], Bgr], clock: Clock) -> str:
    """The detector loads and looks at a picture."""
    detector.open()
    image = picture()
    start_ns = clock.boot_ns()
    found: list[Detection] = detector.detect(image, 0.3)
    took_ms = (clock.boot_ns() - start_ns) / MS
    seen = ", ".join(f"{d.label.value} {d.score:.2f}" for d in found[:4]) or "nothing"
    return f"{detector.name}: {took_ms:.0f} ms, sees {seen}"


def prove_disk(disk: Disk, clock: Clock, data: bytes) -> str:
    """What is written and synced reads back the same; then it is removed."""
    name = f"{FOLDER}/{clock.boot_id[:8]}-{clock.boot_ns()}.bin"
    for left in disk.list(FOLDER):
        disk.unlink(left)  # of a selftest that was cut short
    file = disk.create(name)
    start_ns = clock.boot_ns()
    try:
        file.write(data)
        file.sync()
    finally:
        file.close()
    took_ms = (clock.boot_ns() - start_ns) / MS
    try:
        with disk.open(name) as reader:
            back = reader.read(len(data) + 1)
    finally:
        disk.unlink(name)
    if hashlib.sha256(back).digest() != hashlib.sha256(data).digest():
        raise Corrupt(f"{disk.path(name)}: {len(data)} bytes written, others read back; replace the card")
    return f"{len(data) / 1e6:.1f} MB written and synced in {took_ms:.0f} ms, read back the same"


def prove_panel(panel: Panel, clock: Clock) -> str:
    """The LED goes on and off, and the inputs can be read. The siren is left alone."""
    panel.open()
    try:
        edges = panel.read(clock.boot_ns())
        settles_ns = panel.settles_at()
        if settles_ns is not None:
            edges += panel.read(settles_ns)
        if panel.set(Output.LED, on=True):
            panel.set(Output.LED, on=False)
            led = "LED switched on and off"
        else:
            led = "no LED"
        active = ", ".join(edge.input.value for edge in edges if edge.active) or "none"
        return f"{panel.name}: {led}; active inputs: {active}"
    finally:
        panel.close()


def prove_clock(clock: Clock) -> str:
    """Boot time runs forward and somebody vouches for the wall clock."""
    first_ns, utc, last_ns = clock.boot_ns(), clock.utc(), clock.boot_ns()
    if last_ns < first_ns:
        raise Transient("the boot clock runs backwards; the kernel or the machine is broken")
    if utc.unc_ns is None:
        raise Transient("the wall clock is not synchronised; give the post a time server or a real-time clock")
    return f"wall clock is right to {utc.unc_ns / MS:.0f} ms ({utc.source})"


def one_picture(camera: Camera, clock: Clock, *, px_max: int = 640, wait_s_max: float = 10.0) -> Bgr:
    """One whole picture in colour, no side longer than `px_max` pixels. The caller closes the camera.

    Raises Transient when none comes within `wait_s_max`, and what the camera raises.
    """
    until_ns = clock.boot_ns() + round(wait_s_max * NS)
    camera.open()
    while clock.boot_ns() < until_ns:
        for item in camera.read(0.5):
            if isinstance(item, Frame):
                return item.crop(FULL, px_max)
    raise Transient(f"{camera.name}: no picture within {wait_s_max:.0f} s; check the cable and the power")
