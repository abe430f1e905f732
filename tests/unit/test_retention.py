"""Retention: what must go, in which order, and what outlives it; then the deletion itself on a disk that may be full."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Transient
from agent.recording import retention
from agent.recording.holds import Kept
from agent.recording.marks import MarkedTime, Marks
from agent.recording.retention import (
    BALLAST,
    CALM_S,
    PERIOD_S,
    Keep,
    Limits,
    NoHolds,
    RetentionWorker,
    decide,
    forecast,
    within_share,
)
from agent.recording.timeline import Timeline
from agent.store.store import Moment
from agent.types import NS, EndReason, Event, Kind, Phase, Priority, Segment
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


def by_number(
    *, held: Collection[int] = (), event: Collection[int] = (), unsent: Collection[int] = ()
) -> Callable[[Segment], Keep]:
    def keep(one: Segment) -> Keep:
        n = one.start_ns // NS
        if n in held:
            return Keep.HELD
        if n in unsent:
            return Keep.UNSENT
        return Keep.EVENT if n in event else Keep.CONTINUOUS

    return keep


def gone(doomed: list[tuple[Segment, str]]) -> list[int]:
    return [one.start_ns // NS for one, _ in doomed]


def test_held_footage_is_passed_over_whatever_the_pressure() -> None:
    limits = Limits(budget_bytes=350, free_bytes_min=0, age_ns_max=1 << 62)
    segments = [segment(n) for n in range(6)]
    found = decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda _s: None, keep=by_number(held={0, 1}))
    assert gone(found) == [2, 3, 4]
    everything = by_number(held=set(range(6)))
    nothing = Limits(budget_bytes=0, free_bytes_min=1 << 40, age_ns_max=0)
    assert decide(segments, limits=nothing, free_bytes=0, age_ns=lambda _s: 1 << 60, keep=everything) == []


def test_ordinary_footage_goes_before_that_of_events_and_unsent_alerts_go_last() -> None:
    segments = [segment(n) for n in range(9)]
    keep = by_number(unsent={0, 1}, event={2, 3, 7}, held={4})
    order = []
    for budget in (800, 600, 400, 200, 0):
        limits = Limits(budget_bytes=budget, free_bytes_min=0, age_ns_max=1 << 62)
        order.append(gone(decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda _s: None, keep=keep)))
    assert order == [[5], [5, 6, 8], [5, 6, 8, 2, 3], [5, 6, 8, 2, 3, 7, 0], [5, 6, 8, 2, 3, 7, 0, 1]]


def test_each_class_has_its_age_and_what_headquarters_does_not_have_has_none() -> None:
    limits = Limits(budget_bytes=1 << 40, free_bytes_min=0, age_ns_max=3 * NS, event_age_ns_max=6 * NS)
    segments = [segment(n) for n in range(9)]
    keep = by_number(unsent={0}, event={1, 2, 3, 4}, held={5})
    found = decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda s: 10 * NS - s.end_ns, keep=keep)
    assert gone(found) == [1, 2]
    older = decide(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda s: 14 * NS - s.end_ns, keep=keep)
    assert gone(older) == [6, 7, 8, 1, 2, 3, 4]
    assert {why for _, why in older} == {"age"}
    assert not {0, 5} & set(gone(older))


def test_a_busy_place_does_not_end_the_recording_of_what_comes() -> None:
    """Events everywhere: beyond their share they are ordinary, the sent ones first, or nothing new could be kept."""
    segments = [segment(n) for n in range(10)]
    classes = within_share(segments, by_number(event={0, 1, 2, 3, 4}, unsent={5, 6}), 400)
    assert [classes[s.name] for s in segments[:8]] == [
        *[Keep.CONTINUOUS] * 3,
        *[Keep.EVENT] * 2,
        *[Keep.UNSENT] * 2,
        Keep.CONTINUOUS,
    ]
    classes = within_share(segments, by_number(event={0, 1}, unsent={2, 3, 4, 5, 6}), 400)
    assert [classes[s.name] for s in segments[:7]] == [*[Keep.CONTINUOUS] * 3, *[Keep.UNSENT] * 4]


@given(
    st.lists(st.integers(1, 1000), max_size=30),
    st.integers(0, 20_000),
    st.integers(0, 5000),
    st.integers(0, 5000),
    st.integers(0, 20_000),
    st.lists(st.sampled_from(Keep), min_size=30, max_size=30),
)
def test_the_limits_are_met_unless_only_held_footage_is_left(
    sizes: list[int], budget: int, free: int, free_min: int, share: int, classes: list[Keep]
) -> None:
    """Any sizes, any classes: no more goes than must, the lower class goes first, held footage never."""
    segments = [segment(n, size) for n, size in enumerate(sizes)]
    limits = Limits(budget_bytes=budget, free_bytes_min=free_min, age_ns_max=1 << 62, event_bytes_max=share)

    def keep(one: Segment) -> Keep:
        return classes[one.start_ns // NS]

    doomed = [s for s, _ in decide(segments, limits=limits, free_bytes=free, age_ns=lambda _s: None, keep=keep)]
    assert len(set(doomed)) == len(doomed)
    assert not any(keep(s) is Keep.HELD for s in doomed)
    left = [s for s in segments if s not in doomed]
    if any(keep(s) is not Keep.HELD for s in left):
        assert sum(s.bytes for s in left) <= budget
        assert free + sum(s.bytes for s in doomed) >= free_min
    real = within_share(segments, keep, share)
    levels = [real[s.name] for s in doomed]
    assert levels == sorted(levels)
    if doomed:
        lowest_left = min((real[s.name] for s in left), default=Keep.HELD)
        assert lowest_left >= levels[-1] or all(
            s.start_ns > doomed[-1].start_ns for s in left if real[s.name] == levels[-1]
        )
        assert sum(s.bytes for s in segments) - sum(s.bytes for s in doomed[:-1]) > budget or (
            free + sum(s.bytes for s in doomed[:-1]) < free_min
        )


# -- mutations: the checks bite ----------------------------------------------------------------------------------------


def promises(delete: Callable[..., list[tuple[Segment, str]]]) -> None:
    """What no deletion may break, tried on one post under pressure. Raises AssertionError."""
    segments = [segment(n) for n in range(12)]
    keep = by_number(held={1, 2}, unsent={0, 3}, event={4, 5, 6})
    limits = Limits(budget_bytes=700, free_bytes_min=0, age_ns_max=30 * NS, event_age_ns_max=60 * NS)
    found = gone(delete(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda _s: 0, keep=keep))
    assert not {1, 2} & set(found), "held footage was deleted"
    assert not {0, 3} & set(found), "footage of unsent alerts went before other footage"
    assert found == [7, 8, 9, 10, 11], "footage of events went before ordinary footage"
    tight = Limits(budget_bytes=200, free_bytes_min=0, age_ns_max=30 * NS)
    found = gone(delete(segments, limits=tight, free_bytes=1 << 40, age_ns=lambda _s: 0, keep=keep))
    assert sorted(found) == [0, 3, 4, 5, 6, 7, 8, 9, 10, 11], "the budget is not kept, or held footage went"
    old = gone(delete(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda _s: 40 * NS, keep=keep))
    assert not {1, 2, 4, 5, 6} & set(old), "held footage, or that of events, was too old for somebody"


def mutant(**changed: Keep) -> Callable[..., list[tuple[Segment, str]]]:
    """`decide` with a class taken for another."""
    swap = {Keep[name.upper()]: other for name, other in changed.items()}

    def delete(segments: list[Segment], *, keep: Callable[[Segment], Keep], **rest: Any) -> list[tuple[Segment, str]]:
        return decide(segments, keep=lambda s: swap.get(keep(s), keep(s)), **rest)

    return delete


def without_order(segments: list[Segment], **rest: Any) -> list[tuple[Segment, str]]:
    """`decide` that takes the newest first."""
    return decide(segments[::-1], **rest)


MUTANTS = {
    "holds are ignored": mutant(held=Keep.CONTINUOUS),
    "holds are events": mutant(held=Keep.EVENT),
    "unsent is ordinary": mutant(unsent=Keep.CONTINUOUS),
    "events are ordinary": mutant(event=Keep.CONTINUOUS),
    "everything is held": mutant(event=Keep.HELD, unsent=Keep.HELD, continuous=Keep.HELD),
    "the newest goes first": without_order,
}


def test_the_promises_hold() -> None:
    promises(decide)


@pytest.mark.parametrize("name", MUTANTS)
def test_each_planted_bug_is_caught(name: str) -> None:
    with pytest.raises(AssertionError):
        promises(MUTANTS[name])


class HoldsOne(NoHolds):
    """One file is held, by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def held(self, segments: Sequence[Segment], timeline: Timeline) -> Kept:
        return Kept(frozenset({self.name}), 0, 0)


class Blind(RetentionWorker):
    """A planted bug: it does not ask who holds what."""

    def _classes(self, segments: Sequence[Segment]) -> Callable[[Segment], Keep]:
        return lambda _segment: Keep.CONTINUOUS


class Greedy(RetentionWorker):
    """A planted bug: it deletes files, not rows: the one being written is a file too."""

    def _delete(self, now: float) -> bool:
        for name in self._disk.list("segments"):
            self._disk.unlink(name)
        return super()._delete(now)


@pytest.mark.parametrize("kind", [RetentionWorker, Blind, Greedy])
def test_on_a_real_post_neither_the_held_nor_the_open_file_goes_and_planted_bugs_are_seen(
    kind: type[RetentionWorker], tmp_path: Path
) -> None:
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    post.feed(encoded(seconds=7))
    held = post.store.segments()[0].name
    writing = post.recorder.state.writing
    assert writing is not None
    worker = kind(
        limits=Limits(budget_bytes=0, free_bytes_min=0, age_ns_max=0),
        disk=disk,
        index=post.store,
        clock=post.clock,
        report=post.events.extend,
        new_id=post.new_id,
        holds=HoldsOne(held),
    )
    now = post.now()
    while worker.step(now) <= now:
        continue
    safe = {held, writing.name} <= set(disk.list("segments")) and held in {s.name for s in post.store.segments()}
    assert safe is (kind is RetentionWorker)


# -- what is to come ---------------------------------------------------------------------------------------------------


def test_the_forecast_says_when_the_oldest_of_each_class_goes() -> None:
    """100 bytes a second, 700 bytes of room: ordinary footage goes in 7 s, an event's when its share is full."""
    segments = [segment(n) for n in range(10)]
    limits = Limits(
        budget_bytes=1700, free_bytes_min=0, age_ns_max=60 * NS, event_bytes_max=400, event_age_ns_max=90 * NS
    )
    found = forecast(
        segments,
        limits=limits,
        free_bytes=1 << 40,
        age_ns=lambda s: 10 * NS - s.end_ns,
        keep=by_number(event={2, 3}, held={5}),
        hold_ends_in_s=1234.0,
    )
    assert found[Keep.CONTINUOUS].gone_in_s == pytest.approx(7)
    assert found[Keep.CONTINUOUS].age_s == 9
    assert found[Keep.EVENT].gone_in_s == pytest.approx(200 / 20)  # 200 bytes in 10 s
    assert found[Keep.HELD].gone_in_s == 1234.0
    assert found[Keep.UNSENT].gone_in_s is None and found[Keep.UNSENT].oldest is None
    aged = forecast(segments, limits=limits, free_bytes=1 << 40, age_ns=lambda s: 65 * NS - s.end_ns, keep=by_number())
    assert aged[Keep.CONTINUOUS].gone_in_s == 0, "already too old"


def test_headquarters_is_told_before_young_footage_has_to_go(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(
        disk,
        tmp_path,
        limits=Limits(budget_bytes=1 << 20, free_bytes_min=0, age_ns_max=1 << 62, notice_ns=3600 * NS),
    ).boot()
    post.feed(encoded(seconds=9))
    assert post.events == [], "the forecast of an empty card says nothing"
    post.clock.advance(61)
    post.step()
    (event,) = post.events
    assert event.kind is Kind.STORAGE and event.phase is Phase.STARTED
    assert "will be overwritten when they are only" in event.summary
    assert post.retention.deleted == 0, "told before, not after"
    assert post.retention.outlook.classes[Keep.CONTINUOUS].segments == len(post.store.segments())
    post.recorder.close()


def person(post: RecordingPost, phase: Phase, incident: str) -> Event:
    return Event(incident, Kind.PERSON, phase, post.clock.boot_ns(), Priority.ALERT, "A person")


def test_footage_around_an_alert_outlives_the_rest_and_after_it_was_sent_it_is_an_event(tmp_path: Path) -> None:
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    incident = post.new_id()
    for number, packet in enumerate(encoded(seconds=12)):
        post.feed([packet])
        if number == 25:
            post.store.commit([person(post, Phase.STARTED, incident)])
        if number == 55:
            sequences = post.store.commit([person(post, Phase.ENDED, incident)])
    around = [s for s in post.store.segments() if s.end_ns > START + 2.0 * NS and s.start_ns < START + 6.5 * NS]
    marks = Marks(post.store, preroll_s=0.5, postroll_s=1.0)
    assert marks.catch_up()
    worker = RetentionWorker(
        limits=Limits(budget_bytes=sum(s.bytes for s in around) + 100, free_bytes_min=0, age_ns_max=1 << 62),
        disk=disk,
        index=post.store,
        clock=post.clock,
        report=post.events.extend,
        new_id=post.new_id,
        marks=marks,
    )
    classes = worker._classes(post.store.segments())
    assert {classes(s) for s in around} == {Keep.UNSENT}
    worker.step(post.now())
    assert post.store.segments() == around, "everything else went, and none of this"
    post.store.acknowledge([(1, sequences[-1])])
    classes = worker._classes(post.store.segments())
    assert {classes(s) for s in around} == {Keep.EVENT}
    assert post.store.tombstones()
    post.recorder.close()


def test_nothing_is_deleted_before_it_is_known_what_happened(tmp_path: Path) -> None:
    class Slow:
        """A store with more events than fit into one look."""

        def moments(self, after: int, limit: int) -> list[Moment]:
            if after >= 3 * limit:
                return []
            return [Moment(after + n + 1, "f" * 32, (after + n) * NS, f"i{after + n}", "ended") for n in range(limit)]

        def unsent(self) -> list[Moment]:
            return []

    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    disk.put(segment(2000).name, bytes(100))
    post.store.add_segment(segment(2000))
    worker = RetentionWorker(
        limits=Limits(budget_bytes=0, free_bytes_min=0, age_ns_max=0),
        disk=disk,
        index=post.store,
        clock=post.clock,
        report=post.events.extend,
        new_id=post.new_id,
        marks=Marks(Slow(), preroll_s=1, postroll_s=1),
    )
    now = post.now()
    wakes = [worker.step(now) for _ in range(4)]
    assert wakes[:3] == [now] * 3 and worker.deleted == 1
    assert wakes[3] == now + PERIOD_S


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 30)), max_size=40), st.integers(0, 320))
def test_marked_time_is_the_union_of_what_was_marked(stretches: list[tuple[int, int]], at: int) -> None:
    marked = MarkedTime()
    for start, length in stretches:
        marked.add("f" * 32, start * NS, (start + length) * NS)
    expected = any(start * NS <= (at + 1) * NS and (start + length) * NS >= at * NS for start, length in stretches)
    assert marked.touches(segment(at)) is expected
    assert len(marked) <= len(stretches)


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


def test_while_there_is_room_the_rows_are_not_read_and_what_is_too_old_still_goes_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 200,000 segments one look at every row takes a second."""
    disk = FakeDisk(root=tmp_path)
    post = RecordingPost(disk, tmp_path).boot()
    for packet in encoded(seconds=12):
        post.feed([packet])
    post.recorder.close()
    names = [segment.name for segment in post.store.segments()]
    assert len(names) >= 3
    reads: list[bool] = []
    real = post.store.segments

    def counted(*, garbage: bool = False) -> list[Segment]:
        reads.append(garbage)
        return real(garbage=garbage)

    monkeypatch.setattr(post.store, "segments", counted)
    monkeypatch.setattr(retention, "DELETIONS_PER_STEP", 1)
    worker = RetentionWorker(
        limits=Limits(budget_bytes=1 << 60, free_bytes_min=0, age_ns_max=3600 * NS),
        disk=disk,
        index=post.store,
        clock=post.clock,
        report=post.events.extend,
        new_id=post.new_id,
    )
    now = post.now()
    worker.step(now)
    first = len(reads)
    for n in range(1, 11):
        worker.step(now + 5 * n)
    assert len(reads) == first, "ten steps with room for everything"
    assert post.store.footage_bytes == sum(segment.bytes for segment in real())
    post.clock.advance(7200)
    now = post.now()
    for _ in range(len(names) + 1):
        worker.step(now)
    assert real() == []
    assert post.store.footage_bytes == 0
