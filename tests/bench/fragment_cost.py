"""What a durable fragment costs: mux, hash, write and fdatasync, beside plain PyAV fMP4 that promises nothing.

And how quickly a file is checked after a crash, beside hashing the same bytes with SHA-256 alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from agent.camera import EndOfFootage
from agent.camera.stream import StreamCamera
from agent.clock import MediaClock
from agent.disk import PosixDisk
from agent.recording import fragments
from agent.types import Packet
from tests.bench import footage
from tests.bench.figure import Bench, Row, percentile

FPS = footage.FPS
SCAN_BYTES = 64_000_000


def measure(bench: Bench) -> list[Row]:
    """Time of a fragment, CPU per video second, and the speed of recovery."""
    size = bench.size
    scene = footage.make(
        bench.assets.footage(), bench.footage, name="street", height=max(size.heights), seconds=size.fragments + 1
    )
    packets = _packets(scene)
    durable_ms: list[float] = []
    durable_cpu_ms: list[float] = []
    plain_ms: list[float] = []
    plain_cpu_ms: list[float] = []
    sync_ms: list[float] = []
    for turn in range(size.repeats):
        times, cpu = _durable(packets, bench.folder, f"durable-{turn}.mp4")
        durable_ms += times
        durable_cpu_ms.append(cpu)
        times, cpu = _plain(packets, bench.folder / f"plain-{turn}.mp4")
        plain_ms += times
        plain_cpu_ms.append(cpu)
        sync_ms += _sync_only(packets, bench.folder, f"sync-{turn}.bin")
    scanned, hashed = _scan(bench.folder / "durable-0.mp4")
    note = f"{scene.height}p street, {len(packets) // FPS} s"
    return [
        Row(
            "fragment-cpu",
            "recording, CPU per video second",
            percentile(durable_cpu_ms, 0.5),
            "ms",
            "plain PyAV fMP4, no hash, no sync",
            percentile(plain_cpu_ms, 0.5),
            note=note,
        ),
        Row(
            "fragment-ms-p50",
            "a fragment made durable, p50",
            percentile(durable_ms, 0.5),
            "ms",
            "write + fdatasync of as many bytes",
            percentile(sync_ms, 0.5),
            note=note,
        ),
        Row(
            "fragment-ms-p95",
            "a fragment made durable, p95",
            percentile(durable_ms, 0.95),
            "ms",
            "write + fdatasync of as many bytes",
            percentile(sync_ms, 0.95),
            note=note,
        ),
        Row(
            "fragment-plain-ms-p50",
            "a fragment made durable, p50",
            percentile(durable_ms, 0.5),
            "ms",
            "plain PyAV fMP4, lost on a power cut",
            percentile(plain_ms, 0.5),
            note=note,
        ),
        Row("scan", "recovery checks a file", scanned, "MB/s", "SHA-256 alone", hashed, note="of 10^6 bytes, cached"),
    ]


def _packets(scene: footage.Scene) -> list[Packet]:
    """All access units as the camera gives them."""
    camera = StreamCamera(url=str(scene.path), clock=MediaClock(), analysis_fps=0.01, luma_px=96, paced=False)
    camera.open()
    packets: list[Packet] = []
    try:
        while True:
            packets += [item for item in camera.read(1.0) if isinstance(item, Packet)]
    except EndOfFootage:
        return packets
    finally:
        camera.close()


def _header(first: Packet) -> fragments.Header:
    return fragments.Header(
        v=fragments.FORMAT,
        source="wardpost/bench/post-1",
        session=1,
        boot_id="0" * 32,
        start_ns=first.boot_ns,
        base_ns=first.dts_ns,
        utc_ns=0,
        unc_ns=None,
        utc_source="media",
        width=first.video.width,
        height=first.video.height,
    )


def _durable(packets: list[Packet], folder: Path, name: str) -> tuple[list[float], float]:
    """Milliseconds of each fragment from its first access unit's mux to the end of its fdatasync; CPU ms per second."""
    disk = PosixDisk(folder)
    file = disk.create(name)
    started = time.process_time()
    muxer = fragments.FragmentMuxer(packets[0], packets[0].video.extradata, header=_header(packets[0]), fragment_s=1.0)
    times: list[float] = []
    spent = 0.0
    for packet in packets:
        before = time.perf_counter()
        for piece in muxer.mux(packet):
            file.write(piece.data)
            file.sync()
            if piece.fragment is not None:
                times.append((spent + time.perf_counter() - before) * 1000)
                spent, before = 0.0, time.perf_counter()
        spent += time.perf_counter() - before
    for piece in muxer.finish():
        file.write(piece.data)
    file.sync()
    file.close()
    return times, (time.process_time() - started) * 1000 / (len(packets) / FPS)


def _plain(packets: list[Packet], path: Path) -> tuple[list[float], float]:
    """The same access units through PyAV's own fragmented MP4 into a file; a fragment ends with each key frame."""
    started = time.process_time()
    times: list[float] = []
    spent = 0.0
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        stream = container.add_mux_stream(
            "h264", width=packets[0].video.width, height=packets[0].video.height, time_base=Fraction(1, 1_000_000)
        )
        for packet in packets:
            before = time.perf_counter()
            unit = av.Packet(packet.data)
            unit.stream, unit.time_base = stream, Fraction(1, 1_000_000)
            unit.pts = unit.dts = (packet.dts_ns - packets[0].dts_ns) // 1000
            unit.is_keyframe = packet.keyframe
            container.mux(unit)
            spent += time.perf_counter() - before
            if packet.keyframe and packet is not packets[0]:
                times.append(spent * 1000)
                spent = 0.0
    return times, (time.process_time() - started) * 1000 / (len(packets) / FPS)


def _sync_only(packets: list[Packet], folder: Path, name: str) -> list[float]:
    """Milliseconds to write and sync the bytes of each second: the disk's own share."""
    file = PosixDisk(folder).create(name)
    times = []
    for second in _batched(packets, FPS):
        data = b"".join(packet.data for packet in second)
        before = time.perf_counter()
        file.write(data)
        file.sync()
        times.append((time.perf_counter() - before) * 1000)
    file.close()
    return times


def _batched(packets: list[Packet], count: int) -> Iterator[list[Packet]]:
    for at in range(0, len(packets), count):
        yield packets[at : at + count]


def _scan(path: Path) -> tuple[float, float]:
    """MB/s of the scan that recovery does, and of SHA-256 over the same file; repeated until it lasts."""
    length = path.stat().st_size
    turns = max(SCAN_BYTES // length, 1)
    started = time.perf_counter()
    for _ in range(turns):
        with path.open("rb") as file:
            found = fragments.scan(file)
        if found.trusted != length:
            raise RuntimeError(f"{path}: the scan trusts {found.trusted} of {length} bytes: {found.problem}")
    scanned_s = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(turns):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    hashed_s = time.perf_counter() - started
    return turns * length / scanned_s / 1e6, turns * length / hashed_s / 1e6
