"""Files that follow each other are one run, and a coverage of runs is that of their files: every stretch, how far its
ends may be off, and why. Held against each other over random records of posts, the wrong ones too."""

from __future__ import annotations

import random
from array import array

import pytest

from agent.recording.coverage import RECORDED, Now, coverage
from agent.recording.runs import DIGEST_BYTES, ROLL_NS_MAX, Run, fits, runs_of
from agent.recording.timeline import Timeline
from agent.store.store import SessionRow, Tombstone
from agent.types import MS, NS, Cause, EndReason, Gap, Segment, TimeAnchor

UTC_0 = 1_700_000_000 * NS
BOOTS = ["a" * 32, "b" * 32, "c" * 32]  # nothing ties the last one to UTC


def file(
    start_s: float,
    end_s: float,
    *,
    session: int = 1,
    boot_id: str = BOOTS[0],
    end_reason: EndReason = EndReason.ROLLED,
    sha256: str = "d" * 64,
) -> Segment:
    times = round(start_s * NS), round(end_s * NS)
    return Segment("segments/1.mp4", session, boot_id, *times, 9, 1, sha256, end_reason, 640, 360)


def test_a_run_ends_where_a_file_does_not_follow() -> None:
    files = [
        file(0, 30, sha256="1" * 64),
        file(30, 60, sha256="no digest"),
        file(61, 90),  # as late as a file may begin
        file(91.1, 120),  # too late
        file(119, 150),  # too early
        file(150, 180, end_reason=EndReason.STOPPED),
        file(180, 210),
        file(210, 240, session=2),
        file(240, 270, session=2, boot_id=BOOTS[1]),
        file(270, 270, session=2, boot_id=BOOTS[1]),  # an empty one is by itself
        file(270, 300, session=2, boot_id=BOOTS[1]),
    ]
    runs = runs_of(files)
    assert [len(run) for run in runs] == [3, 1, 2, 1, 1, 1, 1, 1]
    assert list(runs[0].sha256()) == ["1" * 64, "0" * 64, "d" * 64] and list(runs[0].sha256(2)) == ["d" * 64]
    assert (runs[0].start_ns, runs[0].end_ns, runs[2].end_reason) == (0, 90 * NS, EndReason.STOPPED)
    assert runs_of([]) == [] and ROLL_NS_MAX == NS


def test_a_part_of_a_run_is_that_of_its_files() -> None:
    (run,) = runs_of([file(n * 30, n * 30 + 29.9, end_reason=EndReason.ROLLED if n < 4 else EndReason.STOPPED) for n in range(5)])  # fmt: skip
    assert run.part(1, 3).end_reason is EndReason.ROLLED and run.part(3, 5).end_reason is EndReason.STOPPED
    assert run.part(1, 3) == Run(1, BOOTS[0], array("q", [30 * NS, 60 * NS]), array("q", [round(59.9 * NS), round(89.9 * NS)]), bytes.fromhex("d" * 64) * 2, EndReason.ROLLED)  # fmt: skip
    assert len(run.part(1, 3).digests) == 2 * DIGEST_BYTES
    assert run.touching(35 * NS, 36 * NS) == (1, 2)
    assert run.touching(0, 60 * NS) == (0, 2), "its end is not in it"
    first, last = run.touching(round(29.95 * NS), round(29.99 * NS))
    assert first == last, "between two"
    assert run.touching(-9 * NS, 0) == (0, 0) and run.touching(150 * NS, 151 * NS) == (5, 5)


def test_times_that_no_run_can_hold_are_told() -> None:
    assert fits(file(0, 1)) and fits(Segment("n", 1, "b", -(2**63), 2**63 - 1, 9, 1, "", EndReason.ROLLED, 1, 1))
    assert not fits(Segment("n", 1, "b", 0, 2**63, 9, 1, "", EndReason.ROLLED, 1, 1))
    assert not fits(Segment("n", 1, "b", -(2**63) - 1, 0, 9, 1, "", EndReason.ROLLED, 1, 1))


def test_a_file_of_another_boot_between_two_of_a_session_keeps_them_apart() -> None:
    """Though it lies elsewhere in UTC: which file follows which goes by the session."""
    run = [file(0, 10), file(10.5, 20)]
    other = file(10.2, 10.3, boot_id=BOOTS[1])
    timeline = Timeline(
        [TimeAnchor(BOOTS[0], 0, UTC_0, MS, "ntp"), TimeAnchor(BOOTS[1], 0, UTC_0 + 900 * NS, MS, "ntp")]
    )
    told = [
        coverage(UTC_0, UTC_0 + 20 * NS, sessions=[], segments=segments, gaps=[], tombstones=[], timeline=timeline, runs=runs)
        for segments, runs in (([*run, other], []), ([other], runs_of(run)))
    ]  # fmt: skip
    assert told[0] == told[1] and len(told[0]) == 3


def files_of(draw: random.Random, *, wild: bool) -> list[Segment]:
    """Mostly one behind the other, in the order of their lines; `wild`: boots and sessions are mixed up as well."""
    found: list[Segment] = []
    session, boot_id, at_s = 1, BOOTS[0], 100.0
    for _ in range(draw.randrange(0, 60)):
        if draw.random() < 0.06:
            session += 1
            at_s += draw.randrange(1, 60)
            if draw.random() < 0.5:
                boot_id, at_s = draw.choice(BOOTS), draw.choice([5.0, at_s, draw.randrange(600)])
        long_s = draw.choice([10, 10, 10, 30, 0, -5] if wild else [10, 10, 30])
        jitter_s = draw.choice([0, 0, 0, 0.03, 0.2, 1, 1.2, 9, -0.02, -4] if wild else [0, 0, 0, 0.03, 1, 9])
        why = draw.choice([EndReason.ROLLED] * 9 + [EndReason.STOPPED])
        named = session if not wild or draw.random() < 0.95 else draw.randrange(1, 4)
        whose = boot_id if not wild or draw.random() < 0.97 else draw.choice(BOOTS)
        at_s += jitter_s
        found.append(file(at_s, at_s + long_s, session=named, boot_id=whose, end_reason=why))
        if wild and draw.random() < 0.03:
            found.append(found[-1])  # resealed, or told twice
        at_s += long_s
    return found


@pytest.mark.parametrize("wild", [False, True])
def test_a_coverage_of_runs_is_that_of_their_files(seed: int, wild: bool) -> None:
    """The plain one decides file by file; gaps, tombstones and other files lie across the runs, and beside them."""
    draw = random.Random(seed)
    most, taken = 0, 0
    for _ in range(300):
        files = files_of(draw, wild=wild)
        first_s = draw.randrange(-50, 900)
        sessions = [
            SessionRow(number, draw.choice(BOOTS), start := draw.randrange(600) * NS, start + draw.randrange(600) * NS, draw.choice([None, "asked"]))
            for number in sorted(draw.sample(range(1, 6), draw.randrange(4)))
        ]  # fmt: skip
        gaps, stones = [], []
        for _ in range(draw.randrange(4)):
            boot, start_ns = draw.choice(BOOTS), draw.randrange(900 * 10) * NS // 10
            end_ns = start_ns + draw.choice([NS // 50, NS, 40 * NS])
            gaps.append(Gap(boot, start_ns, end_ns, draw.choice([Cause.PRIVACY, Cause.CAMERA_FAULT]), "why"))
        for one in draw.sample(files, min(len(files), draw.randrange(5))):
            end_ns = one.end_ns + draw.choice([0, 0, NS])
            stones.append(Tombstone(one.boot_id, one.start_ns, end_ns, 1, 9, draw.choice(["budget", "file missing"])))
        anchors = [
            TimeAnchor(boot, draw.randrange(900) * NS, UTC_0 + draw.randrange(900) * NS, draw.choice([None, 40 * MS, 3 * NS]), "ntp")
            for boot in draw.choices(BOOTS[:2], k=draw.randrange(1, 4))
        ]  # fmt: skip
        more = [] if draw.random() < 0.7 else [draw.choice(files_of(draw, wild=wild) or [file(0, 9)])]
        timeline = Timeline(anchors)
        start_ns = UTC_0 + first_s * NS + draw.choice([0, 0, NS // 7])
        end_ns = start_ns + draw.choice([NS, 70 * NS, 2000 * NS])
        now = draw.choice([None, Now(BOOTS[0], 900 * NS)])
        more_rows = {"sessions": sessions, "gaps": gaps, "tombstones": stones, "timeline": timeline, "now": now}
        plain = coverage(start_ns, end_ns, segments=[*files, *more], **more_rows)  # type: ignore[arg-type]
        runs = runs_of(files)
        assert coverage(start_ns, end_ns, segments=more, runs=runs, **more_rows) == plain  # type: ignore[arg-type]
        most = max(most, *(len(run) for run in runs), 0)
        taken += any(one.what == RECORDED for one in plain)
    assert most > 5 and taken > 50, "there were runs, and some of them counted"
