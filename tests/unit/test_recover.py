"""Recovery, and what holds after a power cut at any step of recording, deleting and recovering.

The planted bugs at the end prove that the exploration would see them.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.disk import DurableFile, PosixDisk
from agent.errors import Transient
from agent.recording.coverage import RECORDED, coverage
from agent.recording.fragments import scan
from agent.recording.recorder import RecorderWorker
from agent.recording.recover import QUARANTINE_FILES_MAX, recover
from agent.recording.retention import Limits, RetentionWorker
from agent.recording.timeline import Timeline
from agent.types import NS, Cause, EndReason, Packet, Segment
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FakeDisk, PowerCut, no_crash
from tests.fakes.packets import encoded, shifted
from tests.fakes.recording_post import SOURCE, RecordingPost, closed_posts, says, whole  # noqa: F401

START = 1000 * NS
NAME = "segments/000001-00000000.mp4"


def recorded(tmp_path: Path, seconds: float = 5.0) -> tuple[FakeDisk, RecordingPost]:
    """A node that has been stopped cleanly after some seconds."""
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    post.feed(encoded(seconds=seconds))
    post.stop()
    return disk, post


def again(disk: FakeDisk, post: RecordingPost, tmp_path: Path) -> RecordingPost:
    return RecordingPost(disk, tmp_path, clock=post.clock).boot()


# -- one thing at a time ----------------------------------------------------------------------------------------------


def test_after_a_clean_stop_there_is_nothing_to_do_and_nothing_is_read(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    found = again(disk, post, tmp_path).recovery
    assert (found.sealed, found.removed, found.quarantined, found.missing) == ([], [], [], [])
    assert found.scanned_bytes == 0


@pytest.mark.parametrize(("same_boot", "reason"), [(True, EndReason.KILLED), (False, EndReason.POWER_CUT)])
def test_the_file_in_progress_is_sealed_with_the_reason(same_boot: bool, reason: EndReason, tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    post.feed(encoded(seconds=5.3))
    post.store.close()
    if same_boot:
        post.clock.advance(3)
    else:
        disk.power_cut(lambda n: n - 1)
        post.clock.reboot(60)
    back = again(disk, post, tmp_path)
    assert [s.end_reason for s in back.recovery.sealed] == [reason]
    assert back.recovery.sealed[0].end_ns == START + 5 * NS
    whole(back)


def test_what_a_killed_process_left_in_the_page_cache_is_synced_before_its_row(tmp_path: Path) -> None:
    """The process dies between write and sync; recovery finds the fragment whole in the cache; then the power goes."""
    power = _Power(None)
    disk = FakeDisk(root=tmp_path, crash_point=power)
    post = RecordingPost(disk, tmp_path).boot()
    packets = encoded(seconds=5)
    post.feed(packets[:13])
    disk.crash_point = lambda what: _die(what, "after write")
    with pytest.raises(PowerCut):
        post.feed(packets[13:])
    disk.crash_point = no_crash
    post.store.close()
    back = again(disk, post, tmp_path)
    assert [s.end_reason for s in back.recovery.sealed] == [EndReason.KILLED]
    back.store.close()
    disk.power_cut(lambda _n: 0)
    post.clock.reboot(5)
    last = again(disk, post, tmp_path)
    assert (last.recovery.resealed, last.recovery.missing) == ([], [])
    whole(last)


def _die(what: str, step: str) -> None:
    if step in what:
        raise PowerCut(what)


def test_a_new_store_is_rebuilt_from_the_files(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path, 9)
    (tmp_path / "second").mkdir()
    before = RecordingPost(disk, tmp_path, clock=post.clock)
    before.store.open()
    known = before.store.segments()
    before.store.close()
    post.clock.reboot(30)
    rebuilt = RecordingPost(disk, tmp_path / "second", clock=post.clock).boot()
    same = [replace(s, end_reason=EndReason.POWER_CUT) for s in known]
    assert rebuilt.store.segments() == same
    assert rebuilt.store.session == 2, "the number of an old session, and the names of its files, would be used again"
    assert [s.session for s in rebuilt.store.sessions()] == [1, 2]
    rebuilt.feed(encoded(seconds=3, start_ns=100 * NS))
    rebuilt.stop()
    assert len(disk.list("segments")) == 7


def test_a_row_without_a_file_is_explained_as_a_storage_fault(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    disk.unlink(NAME)
    back = again(disk, post, tmp_path)
    assert back.recovery.missing == [NAME]
    assert says(back.coverage(START, START + 5 * NS)) == [("storage-fault", 2.0), ("recorded", 3.0)]
    whole(back)


def test_an_interrupted_deletion_is_finished(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    post.store.open()
    post.store.condemn([NAME], "budget")
    post.store.close()
    back = again(disk, post, tmp_path)
    assert back.recovery.deletions_finished == 1
    assert NAME not in disk.list("segments")
    assert says(back.coverage(START, START + 5 * NS)) == [("deleted-by-policy", 2.0), ("recorded", 3.0)]
    whole(back)


def test_a_sealed_file_that_lost_bytes_keeps_the_rest_and_says_what_is_missing(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    disk.truncate(NAME, disk.size(NAME) - 10)
    back = again(disk, post, tmp_path)
    assert back.recovery.resealed == [NAME]
    assert says(back.coverage(START, START + 5 * NS)) == [("recorded", 1.5), ("storage-fault", 0.5), ("recorded", 3.0)]
    whole(back)
    back.stop()
    disk.truncate(NAME, 20)
    last = again(disk, back, tmp_path)
    assert says(last.coverage(START, START + 5 * NS)) == [
        ("storage-fault", 1.5),
        ("storage-fault", 0.5),
        ("recorded", 3.0),
    ]
    whole(last)


def test_a_sealed_file_that_grew_is_cut_back(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    disk.put(NAME, disk.content(NAME) + b"surplus")
    whole(again(disk, post, tmp_path))


def test_what_is_not_ours_is_set_aside_and_named(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    good = disk.content(NAME)
    disk.put("segments/notes.txt", b"hello")
    disk.put("segments/000009-00000001.mp4", good.replace(b"hoa-cuong/cam-1", b"hoa-cuong/cam-2"))
    foreign_disk = FakeDisk(root=tmp_path / "other")
    (tmp_path / "other").mkdir()
    foreign = RecordingPost(foreign_disk, tmp_path / "other").boot()
    foreign.recorder._source = "wardpost/hoa-cuong/cam-2"
    foreign.feed(encoded(seconds=3))
    foreign.stop()
    disk.put("segments/000007-00000000.mp4", foreign_disk.content(NAME))
    future = FakeClock(boot_ns=post.clock.boot_ns() + 3600 * NS)
    (tmp_path / "late").mkdir()
    late_disk = FakeDisk(root=tmp_path / "late")
    late = RecordingPost(late_disk, tmp_path / "late", clock=future).boot()
    late.feed(encoded(seconds=3, start_ns=future.boot_ns()))
    late.stop()
    disk.put("segments/000008-00000000.mp4", late_disk.content(NAME))
    back = again(disk, post, tmp_path)
    why = {name.rpartition("-")[2] + " " + reason for name, reason in back.recovery.quarantined}
    assert len(back.recovery.quarantined) == 4, why
    assert any("notes.txt" in w for w in why)
    assert any("recorded by 'wardpost/hoa-cuong/cam-2'" in w for w in why)
    assert any("from the future of this boot" in w for w in why)
    assert any("damaged" in w for w in why)  # the header was edited: its chain does not fit
    assert len(disk.list("quarantine")) == 4
    whole(back)


def test_quarantine_is_bounded(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    for n in range(QUARANTINE_FILES_MAX + 8):
        disk.put(f"segments/junk-{n:03d}", bytes(10))
    again(disk, post, tmp_path)
    assert len(disk.list("quarantine")) == QUARANTINE_FILES_MAX


def test_a_file_without_a_good_fragment_is_removed_unless_it_is_damage(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    good = disk.content(NAME)
    first = scan(disk.open(NAME)).fragments[0]
    for n, size in enumerate((0, 5, first.offset, first.end - 1)):
        disk.put(f"segments/000001-9000000{n}.mp4", good[:size])
    rotten = bytearray(good)
    rotten[first.offset + 200] ^= 1
    disk.put("segments/000001-90000009.mp4", bytes(rotten))
    back = again(disk, post, tmp_path)
    assert len(back.recovery.removed) == 4
    assert next(why for _, why in back.recovery.quarantined).startswith("damaged: fragment 1")
    whole(back)


def test_damage_within_an_unsealed_file_keeps_the_whole_in_quarantine_and_the_front_in_place(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    good = bytearray(disk.content(NAME))
    fragments = scan(disk.open(NAME)).fragments
    good[fragments[1].offset + 100] ^= 4
    (tmp_path / "new").mkdir()
    fresh = FakeDisk(root=tmp_path / "new")
    fresh.put(NAME, bytes(good))
    back = RecordingPost(fresh, tmp_path / "new", clock=post.clock).boot()
    assert fresh.content(fresh.list("quarantine")[0]) == good
    assert [s.fragments for s in back.recovery.sealed] == [1]
    whole(back)


def test_a_disk_error_on_one_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    disk, post = recorded(tmp_path)
    (tmp_path / "new").mkdir()
    disk.fail("open")
    back = RecordingPost(disk, tmp_path / "new", clock=post.clock).boot()
    assert [name for name, _ in back.recovery.failed] == [NAME]
    assert len(back.recovery.sealed) == 2
    back.store.close()
    assert len(again(disk, post, tmp_path / "new").recovery.sealed) == 1


def test_boot_with_a_thousand_sealed_segments_is_quick(tmp_path: Path) -> None:
    real = PosixDisk(tmp_path)
    post = RecordingPost(real, tmp_path)
    post.store.open()
    real.list("segments")
    for n in range(1000):
        name = f"segments/000001-{n:08d}.mp4"
        (tmp_path / name).write_bytes(b"x" * 100)
    with post.store._transaction("test") as db:
        db.executemany(
            "insert into segment values (?, 1, ?, ?, ?, 100, 1, ?, 'rolled', 96, 64, 'sealed')",
            [(f"segments/000001-{n:08d}.mp4", "f" * 32, n * NS, (n + 1) * NS, "0" * 64) for n in range(1000)],
        )
    began = time.thread_time()
    found = recover(disk=real, index=post.store, clock=post.clock, source=SOURCE)
    took_s = time.thread_time() - began
    print(f"1,000 sealed segments checked in {took_s * 1000:.0f} ms")
    assert (found.scanned_bytes, found.missing, found.failed) == (0, [], [])
    assert took_s < 2


# -- the power goes at every step -------------------------------------------------------------------------------------

CUTS = int(os.environ.get("WARDPOST_CUTS") or 60)  # `WARDPOST_CUTS=100000` tries every step
BUDGET = Limits(budget_bytes=36_000, free_bytes_min=0, age_ns_max=1 << 62)  # about four segments


class _Power:
    """Counts the steps of disk and store, and cuts at one of them."""

    def __init__(self, cut_at: int | None) -> None:
        self.steps = 0
        self.cut_at = cut_at
        self.cut = ""

    def __call__(self, what: str) -> None:
        self.steps += 1
        if self.steps == self.cut_at:
            self.cut = what
            raise PowerCut(what)


def story(
    tmp_path: Path,
    power: _Power,
    choose: Callable[[int], int],
    *,
    recovery_power: _Power,
    recorder: type[RecorderWorker] = RecorderWorker,
    retention: type[RetentionWorker] = RetentionWorker,
    lying_folders: bool = False,
) -> None:
    """A node records, deletes, loses its camera, meets a bad sync, and loses its power at one step; then it must be
    whole. A second cut hits the recovery.
    """
    disk = FakeDisk(root=tmp_path, crash_point=power)
    disk.unsynced_names = lying_folders
    disk.fail("sync", after=12)
    post = RecordingPost(disk, tmp_path, limits=BUDGET, crash_point=power, recorder=recorder, retention=retention)
    packets = encoded(seconds=12)
    claimed_ns: int | None = None
    offered: Packet | None = None
    try:
        post.boot()
        for packet in packets[:70]:
            post.feed([packet])
            claimed_ns, offered = post.recorder.state.durable_ns, post.offered
        post.recorder.lost(packet.boot_ns, "no picture")
        post.step()
        for packet in shifted(packets[70:], 3 * NS):
            post.feed([packet])
            claimed_ns, offered = post.recorder.state.durable_ns, post.offered
        post.stop()
        power.cut_at = None
    except PowerCut:
        post.store.close()
    old_boot = post.clock.boot_id
    power.cut_at = None
    disk.power_cut(choose)
    post.clock.reboot(20)
    disk.crash_point = recovery_power
    back = RecordingPost(disk, tmp_path, clock=post.clock, crash_point=recovery_power)
    try:
        back.boot()
    except PowerCut:
        back.store.close()
        disk.power_cut(choose)
        post.clock.reboot(20)
    recovery_power.cut_at = None
    if recovery_power.cut:
        back = RecordingPost(disk, tmp_path, clock=post.clock).boot()
    check(back, old_boot, claimed_ns, offered)
    found = recover(disk=disk, index=back.store, clock=back.clock, source=SOURCE)
    assert not (found.sealed or found.removed or found.quarantined or found.missing or found.failed), "not idempotent"
    back.store.close()


def check(post: RecordingPost, boot_id: str, claimed_ns: int | None, offered: Packet | None) -> None:
    """What must hold after recovery, wherever the power went."""
    found = post.recovery
    assert not found.missing, f"rows without files: {found.missing}"
    assert not found.resealed, f"sealed files that lost bytes: {found.resealed}"
    assert not found.quarantined, found.quarantined
    assert not found.failed, found.failed
    whole(post)
    rows = [s for s in post.store.segments() if s.boot_id == boot_id]
    stones = [t for t in post.store.tombstones() if t.boot_id == boot_id]
    newest = max([s.end_ns for s in rows] + [t.end_ns for t in stones], default=0)
    if claimed_ns is not None:
        assert newest >= claimed_ns, "what was called durable is gone"
    if offered is not None and not post.store.gaps():
        assert offered.boot_ns - max(newest, START) <= 1.2 * NS, "more than a fragment was lost"
    if claimed_ns is None:
        return
    begin = 1_700_000_000 * NS
    stretches = coverage(
        begin,
        begin + claimed_ns - START,
        sessions=post.store.sessions(),
        segments=post.store.segments(),
        gaps=post.store.gaps(),
        tombstones=post.store.tombstones(),
        timeline=Timeline(post.store.anchors()),
    )
    unknown = [s for s in stretches if s.what not in (RECORDED, Cause.DELETED, Cause.CAMERA_FAULT, Cause.AGENT_STOPPED)]
    assert not unknown, unknown


def steps_of(tmp_path: Path) -> int:
    """How many crash points the story has."""
    folder = tmp_path / "whole"
    folder.mkdir()
    power = _Power(None)
    story(folder, power, random.Random(1).randrange, recovery_power=_Power(None))
    return power.steps


def explore(tmp_path: Path, seed: int, runs: int, *, until: str = "", **planted: object) -> list[str]:
    """Cuts at `runs` steps spread over the story, each with a second cut in the recovery. Returns what went wrong;
    stops early once `until` has been seen.
    """
    steps = steps_of(tmp_path)
    dice = random.Random(seed)
    at = dice.sample(range(1, steps + 1), min(runs, steps))
    wrong = []
    for step in at:
        folder = tmp_path / f"cut-{step}"
        folder.mkdir()
        power, second = _Power(step), _Power(dice.choice([None, *range(1, 12)]))
        try:
            story(folder, power, dice.randrange, recovery_power=second, **planted)  # type: ignore[arg-type]
        except AssertionError as error:
            wrong.append(f"cut at {power.cut!r}, again at {second.cut!r}: {error}")
            if until and re.search(until, str(error)):
                break
    return wrong


def test_the_power_may_go_at_any_step(tmp_path: Path, seed: int) -> None:
    wrong = explore(tmp_path, seed, CUTS)
    assert not wrong, f"seed {seed}: {len(wrong)} of {CUTS} cuts: " + "\n".join(wrong[:5])


class RowFirst(RecorderWorker):
    """Planted bug: the row goes down before the last fragment has been synced."""

    def _seal(self, end_reason: EndReason, *, now: float, following: Packet | None = None) -> None:
        writing = self._writing
        if writing is not None:
            real = writing.file
            writing.file = _LateSync(real)
            super()._seal(end_reason, now=now, following=following)
            self._flush_rows()
            with contextlib.suppress(Transient):
                real.sync()
            real.close()


class _LateSync:
    """Promises a sync and leaves it for later."""

    def __init__(self, file: DurableFile) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def sync(self) -> None:
        return

    def close(self) -> None:
        return


class UnlinkFirst(RetentionWorker):
    """Planted bug: the file goes before the row says so."""

    def _delete(self, now: float) -> bool:
        rows: list[Segment] = self._index.segments()
        total = sum(row.bytes for row in rows)
        for row in rows:
            if total > self._limits.budget_bytes:
                self._disk.unlink(row.name)
                self._index.condemn([row.name], "budget")
                self._index.forget([row.name])
                total -= row.bytes
        return False


@pytest.mark.parametrize(
    ("planted", "symptom"),
    [
        ({"recorder": RowFirst}, "sealed files that lost bytes"),
        ({"lying_folders": True}, "rows without files"),
        # seen at once, or, after a second cut in the recovery, as footage that went without a reason
        ({"retention": UnlinkFirst}, "rows without files|file missing"),
    ],
    ids=["row before fsync", "folder not synced", "unlink before condemn"],
)
def test_planted_bugs_are_caught(planted: dict[str, object], symptom: str, tmp_path: Path) -> None:
    wrong = explore(tmp_path, 7, 150, until=symptom, **planted)
    assert any(re.search(symptom, line) for line in wrong), wrong[:3]


def test_the_crash_points_count_every_step(tmp_path: Path) -> None:
    assert steps_of(tmp_path) > 150
    assert no_crash("nothing") is None  # type: ignore[func-returns-value]
