"""Bytes that an event costs the card: alone in its transaction, and ten at a time, beside a bare SQLite insert.

Read from the kernel's count of this process (`write_bytes` in /proc/self/io), so the folder must be on a real disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from agent.clock import SystemClock, uuid7_maker
from agent.store.store import Origin, Store
from agent.types import Box, Event, Kind, Label, Phase, Priority
from tests.bench.figure import Bench, Row, Skip

BATCH = 10
_MEMORY = {"tmpfs", "ramfs", "overlay"}  # whose writes the kernel does not count, or not here


def measure(bench: Bench) -> list[Row]:
    """Bytes written per event, the close and its checkpoint included."""
    need_disk(bench.folder)
    count = bench.size.events // BATCH * BATCH
    alone, size = _ours(bench.folder / "alone", count, 1)
    batched, _ = _ours(bench.folder / "batched", count, BATCH)
    bare_alone = _bare(bench.folder / "bare-alone.db", count, 1, size)
    bare_batched = _bare(bench.folder / "bare-batched.db", count, BATCH, size)
    note = f"{count} events of {size} bytes"
    return [
        Row("event-bytes-alone", "bytes written per event, alone", alone, "B", "bare SQLite insert of it", bare_alone, note=note),
        Row("event-bytes-alone-size", "bytes written per event, alone", alone, "B", "the event itself", size, note=note),
        Row("event-bytes-10", f"bytes written per event, {BATCH} at a time", batched, "B", "bare SQLite insert of them", bare_batched, note=note),
        Row("event-bytes-10-size", f"bytes written per event, {BATCH} at a time", batched, "B", "the event itself", size, note=note),
    ]  # fmt: skip


def store(folder: Path) -> Store:
    """A node's store in a new folder, open, with a session."""
    folder.mkdir()
    clock = SystemClock()
    made = Store(
        folder / "wardpost.db",
        clock=clock,
        new_id=uuid7_maker(clock),
        origin=Origin("bench", "post-1", "the bench"),
        outbox_rows_max=50_000,
        event_rows_max=200_000,
    )
    made.open()
    made.start_session()
    return made


def an_event(new_id: Callable[[], str], boot_ns: int, priority: Priority = Priority.ALERT) -> Event:
    """A person at the gate, as the rules tell it, without a picture."""
    return Event(
        incident=new_id(),
        kind=Kind.PERSON,
        phase=Phase.STARTED,
        boot_ns=boot_ns,
        priority=priority,
        summary="A person at the bench (zone gate), 57 % sure",
        label=Label.PERSON,
        score=0.57,
        box=Box(0.31, 0.22, 0.14, 0.55),
        zones=("gate",),
        since_ns=boot_ns,
    )


def _ours(folder: Path, count: int, batch: int) -> tuple[float, int]:
    """Bytes written per event, and the mean size of an event on the wire."""
    made = store(folder)
    clock = SystemClock()
    new_id = uuid7_maker(clock)
    before = _written()
    for _ in range(count // batch):
        made.commit([an_event(new_id, clock.boot_ns()) for _ in range(batch)])
    sizes = [len(row.body) for row in made.pending(100)]
    made.close()
    return (_written() - before) / count, round(sum(sizes) / len(sizes))


def _bare(path: Path, count: int, batch: int, size: int) -> float:
    """The same bytes into one table with nothing else, equally durable (WAL, FULL)."""
    db = sqlite3.connect(path, isolation_level=None)
    for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
        db.execute(f"pragma {pragma}")
    db.execute("create table event (n integer primary key, body blob)")
    body = bytes(size)
    before = _written()
    for _ in range(count // batch):
        db.execute("begin immediate")
        db.executemany("insert into event (body) values (?)", [(body,)] * batch)
        db.execute("commit")
    db.close()
    return (_written() - before) / count


def _written() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return int(value)
    raise Skip("/proc/self/io does not tell write_bytes on this kernel")


def need_disk(folder: Path) -> None:
    """Raises Skip when the folder is not on a disk whose writes are counted."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    resolved = folder.resolve()
    kinds = [(len(point), kind) for point, kind in mounts if resolved.is_relative_to(point)]
    kind = max(kinds)[1] if kinds else "unknown"
    if kind in _MEMORY:
        raise Skip(f"{folder} is on {kind}, whose writes the kernel does not count; give --folder on a real disk")
