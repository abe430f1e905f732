"""What a life costs the card: bytes to disk over bytes of video, the ledger's share, and what a boot has to read.

The node is the real one with a station; bytes are the kernel's count (`write_bytes` in /proc/PID/io) of its process.
The card's life is arithmetic on top, with its assumptions in the note: 64 GB, 3,000 program cycles (a good TLC card),
2 Mbit/s of video around the clock.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from agent.clock import SystemClock
from agent.disk import PosixDisk
from agent.recording.recover import recover
from agent.types import NS
from tests.bench import event_bytes, footage, node
from tests.bench.desk import station
from tests.bench.figure import Bench, Row
from tests.bench.programs import Program, broker

CARD_BYTES = 64e9
CYCLES = 3000
VIDEO_BYTES_PER_S = 2e6 / 8


def measure(bench: Bench) -> list[Row]:
    """Write amplification, card life, ledger per hour, and recovery against what it reads."""
    event_bytes.need_disk(bench.folder)
    size = bench.size
    window_s = max(size.window_s, 3.0)  # a shorter one may see no fragment at all
    seconds = size.warm_s + window_s
    scene = footage.make(
        bench.assets.footage(), bench.footage, name="street", height=min(size.heights), seconds=int(seconds) + 5
    )
    with broker(bench.folder / "broker") as port, station(bench.folder / "station", broker_port=port):
        path = node.config(bench.folder / "node", footage=scene.path, broker_port=port)
        data = path.with_name("data")
        with node.start(bench, path) as program:
            node.first_fragment(path, program)
            time.sleep(size.warm_s)
            before, video, ledger = program.written(), _bytes(data / "segments"), _bytes(data / "ledger")
            time.sleep(window_s)
            written = program.written() - before
            video = _bytes(data / "segments") - video
            ledger = _bytes(data / "ledger") - ledger
            _need(video, program)
    years = CARD_BYTES * CYCLES / (VIDEO_BYTES_PER_S * written / video) / (365.25 * 86_400)
    recovery_s, read = _recovery(bench, data)
    per_hour = 3600 / window_s
    return [
        Row("write-amplification", "bytes written to the disk by the whole node", written, "B", "bytes of video", video),
        Row(
            "card-years",
            "life of a 64 GB card",
            years,
            "years",
            "at the bytes of the video alone",
            years * written / video,
            note="3,000 cycles, 2 Mbit/s, the card's own amplification not counted",
        ),
        Row("ledger-hour", "ledger per hour, on a busy street", ledger * per_hour, "B", "video of it", video * per_hour),
        Row(
            "recovery",
            "recovery after a crash",
            recovery_s * 1e3,
            "ms",
            "reading the same bytes",
            read * 1e3,
        ),
    ]  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _need(video: int, program: Program) -> None:
    if not video:
        raise RuntimeError(f"nothing was recorded; see {program.log}")


def _recovery(bench: Bench, data: Path) -> tuple[float, float]:
    """Seconds to recover the largest file as if it had been torn, and to read it."""
    newest = max((data / "segments").glob("*.mp4"), key=lambda file: file.stat().st_size)
    folder = bench.folder / "torn"
    (folder / "segments").mkdir(parents=True)
    torn = folder / "segments" / newest.name
    shutil.copy(newest, torn)
    with torn.open("r+b") as file:
        file.truncate(torn.stat().st_size - 1000)
    index = event_bytes.store(folder / "store")
    started = time.perf_counter()
    torn.read_bytes()
    read = time.perf_counter() - started
    clock = SystemClock()
    started = time.perf_counter()
    found = recover(disk=PosixDisk(folder), index=index, clock=clock, source="wardpost/bench/post-1")
    seconds = time.perf_counter() - started
    index.close()
    if len(found.sealed) != 1 or found.sealed[0].end_ns - found.sealed[0].start_ns < NS // 10:
        raise RuntimeError(f"recovery did not seal the torn file: {found}")
    return seconds, read
