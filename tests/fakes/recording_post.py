"""The recording half of a node, on any disk: real store, real recorder, real retention, a clock that the packets drive.

`check` holds what must be true of the disk after any power cut; tests/unit/test_recover.py explores with it.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from agent.config import RecordingSettings
from agent.disk import Disk
from agent.recording.coverage import RECORDED, Now, Stretch, coverage
from agent.recording.index import FOLDER
from agent.recording.recorder import RecorderWorker
from agent.recording.recover import Recovery, recover
from agent.recording.retention import Limits, RetentionWorker
from agent.recording.timeline import Timeline
from agent.store.store import Origin, Store
from agent.types import NS, Cause, Event, Packet
from tests.fakes.clock import FakeClock
from tests.fakes.disk import no_crash

SOURCE = "wardpost/hoa-cuong/cam-1"
_made: list[RecordingPost] = []
QUICK = RecordingSettings(segment_s=2.0, fragment_s=0.5, queue_s_max=4.0, queue_mb_max=4)


class RecordingPost:
    """One life of a node's recording, from boot to death. Make another on the same disk for the next life."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        clock: FakeClock | None = None,
        settings: RecordingSettings = QUICK,
        limits: Limits | None = None,
        crash_point: Callable[[str], None] = no_crash,
        recorder: type[RecorderWorker] = RecorderWorker,
        retention: type[RetentionWorker] = RetentionWorker,
        source: str = SOURCE,
    ) -> None:
        _made.append(self)
        self.source = source
        self.disk = disk
        self.clock = clock or FakeClock()
        self.settings = settings
        self.limits = limits or Limits(budget_bytes=1 << 40, free_bytes_min=0, age_ns_max=1 << 62)
        self.events: list[Event] = []
        self.offered: Packet | None = None
        self.retaining = limits is not None
        self.recovery = Recovery()
        self._ids = itertools.count(1)
        self._kinds = (recorder, retention)
        self.store = Store(
            folder / "store.db",
            clock=self.clock,
            new_id=self.new_id,
            origin=Origin(*source.split("/")[1:]),
            outbox_rows_max=1000,
            event_rows_max=1000,
            crash_point=crash_point,
        )

    def new_id(self) -> str:
        return f"00000000-0000-7000-8000-{next(self._ids):012x}"

    def boot(self) -> RecordingPost:
        """Recovery, then a new session and the workers: the order of `agent.main`."""
        self.store.open()
        self.recovery = recover(disk=self.disk, index=self.store, clock=self.clock, source=self.source)
        self.store.start_session()
        recorder, retention = self._kinds
        self.recorder = recorder(
            settings=self.settings,
            disk=self.disk,
            ledger=self.store,
            clock=self.clock,
            source=self.source,
            session=self.store.session,
            report=self.events.extend,
            new_id=self.new_id,
        )
        self.recorder.open()
        self.retention = retention(
            limits=self.limits,
            disk=self.disk,
            index=self.store,
            clock=self.clock,
            report=self.events.extend,
            new_id=self.new_id,
        )
        return self

    def now(self) -> float:
        return self.clock.boot_ns() / NS

    def step(self) -> None:
        """Both workers, until neither has more to do at this moment."""
        while self.recorder.step(self.now()) <= self.now():
            continue
        while self.retaining and self.retention.step(self.now()) <= self.now():
            continue

    def feed(self, packets: Iterable[Packet]) -> None:
        """Gives packets as time passes, and lets the workers work after each."""
        for packet in packets:
            self.clock.advance_to(packet.dts_ns)
            self.recorder.offer(packet)
            self.offered = packet
            self.step()

    def stop(self) -> None:
        """A clean stop."""
        self.recorder.close()
        self.retention.close()
        self.store.stop_session("stopped")
        self.store.close()

    def coverage(self, start_ns: int, end_ns: int, *, running: bool = False) -> list[Stretch]:
        """Coverage between two moments of this boot."""
        timeline = Timeline(self.store.anchors())
        start, end = (timeline.utc(self.clock.boot_id, ns) for ns in (start_ns, end_ns))
        assert start is not None
        assert end is not None
        writing = self.recorder.state.writing if running else None
        return coverage(
            start.utc_ns,
            end.utc_ns,
            sessions=self.store.sessions(),
            segments=self.store.segments() + ([writing] if writing else []),
            gaps=self.store.gaps(),
            tombstones=self.store.tombstones(),
            timeline=timeline,
            now=Now(self.clock.boot_id, self.clock.boot_ns()) if running else None,
        )


@pytest.fixture(autouse=True)
def closed_posts() -> Iterator[None]:
    """Closes every store that a test left open, as a test does whose node was killed. Import it to use it."""
    yield
    while _made:
        _made.pop().store.close()


def whole(post: RecordingPost) -> None:
    """Invariant 2: a row means a whole file with the hash in the row; and no file is without a row."""
    rows = post.store.segments()
    for row in rows:
        with post.disk.open(row.name) as file:
            data = file.read()
        assert len(data) == row.bytes, f"{row.name}: {len(data)} bytes, its row says {row.bytes}"
        assert hashlib.sha256(data).hexdigest() == row.sha256, f"{row.name}: not what its row says"
    files = set(post.disk.list(FOLDER))
    assert files == {row.name for row in rows}, f"without a row: {files - {row.name for row in rows}}"
    assert not post.store.segments(garbage=True)


def says(stretches: Sequence[Stretch]) -> list[tuple[str, float]]:
    """Labels and seconds, for comparison."""
    return [(stretch.what, round(stretch.seconds, 2)) for stretch in stretches]


EXPLAINED = {RECORDED, *(str(cause) for cause in Cause if cause is not Cause.UNKNOWN)}
