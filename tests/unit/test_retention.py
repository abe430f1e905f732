"""Retention: what must go, in which order, and what outlives it; then the deletion itself on a disk that may be full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Transient
from agent.recording.retention import BALLAST, CALM_S, Limits, RetentionWorker, decide, never
from agent.types import NS, EndReason, Kind, Phase, Segment
from tests.fakes.disk import FakeDisk
from tests.fakes.packets import encoded, shifted
from tests.fakes.recording_post import RecordingPost, closed_posts, says, whole  # noqa: F401

START = 1000 * NS
WIDE = Limits(budget_bytes=1 << 40, free_bytes_min=0, age_ns_max=1 << 62)


def segment(n: int, size: int = 100) -> Segment:
    return Segment(
        name=f"segments/000001-{n:08d}.mp4",
        session=1,
        boot_id="f" * 32,
        start_ns=n * NS,
        end_ns=(n + 1) * NS,
        bytes=size,
        fragments=1,
        sha256="0" * 64,
        end_reason=EndReason.ROLLED,
        width=96,
        height=64,
    )


# -- the decision -----------------------------------------------------------------------------------------------------


def test_nothing_goes_while_there_is_room() -> None:
    assert decide([segment(n) for n in range(9)], limits=WIDE, free_bytes=1 << 40, age_ns=lambda _s: 0) == []


def test_the_oldest_go_first_and_no_more_than_necessary() -> None:
    limits = Limits(budget_bytes=550, free_bytes_min=0, age_ns_max=1 << 62)
    doomed = decide([segment(n) for n in range(9)], limits=limits, free_bytes=1 << 40, age_ns=lambda _s: None)
    assert [(s.start_ns // NS, why) for s, why in doomed] == [
        (0, "budget"),
        (1, "budget"),
        (2, "budget"),
        (3, "budget"),
    ]


def test_free_space_counts_what_is_deleted() -> None:
    limits = Limits(budget_bytes=1 << 40, free_bytes_min=250, age_ns_max=1 << 62)
    doomed = decide([segment(n) for n in range(9)], limits=limits, free_bytes=0, age_ns=lambda _s: None)
    assert [why for _, why in doomed] == ["disk full"] * 3


def test_age_counts_only_where_the_clock_can_be_vouched_for() -> None:
    limits = Limits(budget_bytes=1 << 40, free_bytes_min=0, age_ns_max=5 * NS)
    segments = [segment(n) for n in range(9)]
    assert len(decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda s: 9 * NS - s.end_ns)) == 3
    assert decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda _s: None) == []


def test_protected_footage_is_passed_over() -> None:
    limits = Limits(budget_bytes=350, free_bytes_min=0, age_ns_max=1 << 62)
    segments = [segment(n) for n in range(6)]
    held = set(segments[:2])
    doomed = decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda _s: None, protected=held.__contains__)
    assert [s.start_ns // NS for s, _ in doomed] == [2, 3, 4]
    assert not never(segments[0])
    assert decide(segments, limits=limits, free_bytes=0, age_ns=lambda _s: None, protected=lambda _s: True) == []


@given(
    st.lists(st.integers(1, 1000), max_size=30),
    st.integers(0, 20_000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.sets(st.integers(0, 30)),
)
def test_the_limits_are_met_unless_only_protected_footage_is_left(
    sizes: list[int], budget: int, free: int, free_min: int, held: set[int]
) -> None:
    segments = [segment(n, size) for n, size in enumerate(sizes)]
    limits = Limits(budget_bytes=budget, free_bytes_min=free_min, age_ns_max=1 << 62)
    doomed = [
        s
        for s, _ in decide(
            segments,
            limits=limits,
            free_bytes=free,
            age_ns=lambda _s: None,
            protected=lambda s: s.start_ns // NS in held,
        )
    ]
    assert doomed == sorted(doomed, key=lambda s: s.start_ns)
    left = [s for s in segments if s not in doomed]
    ordinary = [s for s in left if s.start_ns // NS not in held]
    if ordinary:
        assert sum(s.bytes for s in left) <= budget
        assert free + sum(s.bytes for s in doomed) >= free_min
    assert not any(s.start_ns // NS in held for s in doomed)


# -- the deletion -----------------------------------------------------------------------------------------------------


def running(tmp_path: Path, disk: FakeDisk, budget_bytes: int = 40_000, free_bytes_min: int = 0) -> RecordingPost:
    limits = Limits(budget_bytes=budget_bytes, free_bytes_min=free_bytes_min, age_ns_max=1 << 62)
    return RecordingPost(disk, tmp_path, limits=limits).boot()


def test_a_ring_of_footage_keeps_to_its_budget_and_explains_what_went(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = running(tmp_path, disk)
    for lap in range(4):
        post.feed(shifted(encoded(seconds=12), lap * 12 * NS))
        assert sum(s.bytes for s in post.store.segments()) <= 40_000 + 15_000  # retention looks every 5 s
    post.stop()
    post.store.open()
    stretches = post.coverage(START, START + 48 * NS)
    assert [what for what, _ in says(stretches)] == ["deleted-by-policy", "recorded"]
    assert sum(s.seconds for s in stretches) == 48
    assert len(post.store.tombstones()) == 1
    whole(post)


def test_the_segment_being_written_is_never_touched(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = running(tmp_path, disk, budget_bytes=0)
    post.feed(encoded(seconds=12))
    assert post.recorder.state.recording
    assert len(disk.list("segments")) <= 4
    post.recorder.close()


def test_each_step_deletes_a_bounded_number(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    for n in range(50):
        disk.put(segment(n).name, bytes(100))
        post.store.add_segment(segment(n))
    limits = Limits(budget_bytes=0, free_bytes_min=0, age_ns_max=1 << 62)
    worker = RetentionWorker(
        limits=limits, disk=disk, index=post.store, clock=post.clock, report=post.events.extend, new_id=post.new_id
    )
    left = []
    now = post.now()
    while True:
        wake = worker.step(now)
        left.append(len(disk.list("segments")))
        if wake > now:
            break
    assert left == [34, 18, 2, 0]
    assert worker.deleted == 50


def test_young_footage_that_must_go_is_reported_once_and_ends(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = running(tmp_path, disk)
    post.feed(encoded(seconds=12))
    post.feed(shifted(encoded(seconds=12), 12 * NS))
    assert [(e.kind, e.phase) for e in post.events] == [(Kind.STORAGE, Phase.STARTED)]
    assert "0.0 h old" in post.events[0].summary
    post.clock.advance(CALM_S + 10)
    post.step()
    assert [e.phase for e in post.events if "Room" in e.summary or "old" in e.summary] == [Phase.STARTED, Phase.ENDED]


def test_a_full_disk_is_relieved_by_the_ballast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite cannot write down a deletion on a full disk: without the ballast nothing could ever be deleted."""
    disk = FakeDisk(root=tmp_path)
    post = running(tmp_path, disk, budget_bytes=1 << 40, free_bytes_min=20_000)
    post.feed(encoded(seconds=9))
    assert disk.list("") == [BALLAST]
    disk.fill(free_bytes=0)
    real = post.store.condemn

    def condemn(names: list[str], reason: str) -> None:
        if disk.free_bytes() == 0:
            raise Transient("store.db: cannot condemn segments: database or disk is full")
        real(names, reason)

    monkeypatch.setattr(post.store, "condemn", condemn)
    for _ in range(4):
        post.clock.advance(5)
        post.retention.step(post.now())
    assert BALLAST not in disk.list("")
    assert disk.free_bytes() > 20_000
    disk.fill(free_bytes=1 << 30)
    post.clock.advance(5)
    post.retention.step(post.now())
    assert disk.list("") == [BALLAST]
    post.recorder.close()
    whole(post)


def test_an_unlink_that_fails_is_tried_again(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = running(tmp_path, disk)
    disk.fail("unlink", code=errno.EIO)
    post.feed(encoded(seconds=12))
    post.feed(shifted(encoded(seconds=12), 12 * NS))
    post.recorder.close()
    assert not post.store.segments(garbage=True)
    whole(post)
