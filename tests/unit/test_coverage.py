"""Coverage: what the ledger says about every second. Small histories first, then any history at all."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.recording.coverage import Now, Stretch, coverage, recorded_s
from agent.recording.timeline import Timeline
from agent.store.store import SessionRow, Tombstone
from agent.types import NS, Cause, EndReason, Gap, Segment, TimeAnchor

A, B = "a" * 32, "b" * 32
UTC = 1_700_000_000 * NS


def seg(session: int, boot: str, start: float, end: float, why: EndReason = EndReason.ROLLED) -> Segment:
    start_ns, end_ns = round(start * NS), round(end * NS)
    return Segment(f"segments/{session}-{start}", session, boot, start_ns, end_ns, 1, 1, "0" * 64, why, 96, 64)


def row(session: int, boot: str, start: float, alive: float, stop: str | None = None) -> SessionRow:
    return SessionRow(session, boot, round(start * NS), round(alive * NS), stop)


def anchor(boot: str, at_s: float, utc_s: float, unc_s: float | None = 0.005) -> TimeAnchor:
    unc_ns = None if unc_s is None else round(unc_s * NS)
    return TimeAnchor(boot, round(at_s * NS), UTC + round(utc_s * NS), unc_ns, "ntp")


def cover(
    end: float,
    *,
    begin: float = 0,
    sessions: list[SessionRow],
    segments: list[Segment] | None = None,
    gaps: list[Gap] | None = None,
    tombstones: list[Tombstone] | None = None,
    anchors: list[TimeAnchor] | None = None,
    now: Now | None = None,
) -> list[Stretch]:
    return coverage(
        UTC + round(begin * NS),
        UTC + round(end * NS),
        sessions=sessions,
        segments=segments or [],
        gaps=gaps or [],
        tombstones=tombstones or [],
        timeline=Timeline(anchors or [anchor(A, 0, 0), anchor(B, 0, 100)]),
        now=now,
    )


def brief(stretches: list[Stretch]) -> list[tuple[str, float]]:
    return [(s.what, round(s.seconds, 3)) for s in stretches]


def test_a_power_cut() -> None:
    """Boot A is cut at 50 s; boot B begins at 100 s of UTC, its agent starts 8 s later and records after 2 s more."""
    found = cover(
        120,
        sessions=[row(1, A, 5, 40), row(2, B, 8, 20)],
        segments=[seg(1, A, 6, 50, EndReason.POWER_CUT), seg(2, B, 10, 20)],
    )
    assert brief(found) == [
        ("before-install", 5),
        ("agent-stopped", 1),
        ("recorded", 44),
        ("power-off", 50),
        ("agent-stopped", 8),
        ("agent-stopped", 2),
        ("recorded", 10),
    ]
    assert found[4].detail == "booting"
    assert found[3].detail == "the machine lost power or restarted"


def test_what_was_in_memory_when_the_power_went_belongs_to_the_cut() -> None:
    found = cover(110, begin=40, sessions=[row(1, A, 5, 52), row(2, B, 8, 20)], segments=[seg(1, A, 5, 51)])
    assert brief(found)[:2] == [("recorded", 11), ("power-off", 49)]
    assert found[1].start_late_s == 15, "no fragment more was synced, and one is due every second"


def test_a_killed_agent_and_a_clean_stop_in_one_boot() -> None:
    found = cover(
        90,
        sessions=[row(1, A, 0, 20), row(2, A, 25, 50, "SIGTERM"), row(3, A, 80, 90)],
        segments=[seg(1, A, 0, 20), seg(2, A, 25, 50, EndReason.STOPPED), seg(3, A, 80, 90)],
    )
    assert [(s.what, s.detail) for s in found] == [
        ("recorded", ""),
        ("agent-stopped", "the agent was killed"),
        ("recorded", ""),
        ("agent-stopped", "stopped: SIGTERM"),
        ("recorded", ""),
    ]


def test_a_clean_stop_and_a_reboot() -> None:
    found = cover(
        120,
        begin=40,
        sessions=[row(1, A, 0, 50, "SIGTERM"), row(2, B, 5, 20)],
        segments=[seg(1, A, 0, 50), seg(2, B, 5, 20)],
    )
    assert found[1].detail == "stopped: SIGTERM; the machine was restarted meanwhile"
    assert found[1].what == Cause.AGENT_STOPPED


def test_gaps_and_deletions_within_a_session() -> None:
    found = cover(
        60,
        sessions=[row(1, A, 0, 60)],
        segments=[seg(1, A, 30, 40, EndReason.CAMERA), seg(1, A, 50, 60)],
        gaps=[
            Gap(A, 40 * NS, 50 * NS, Cause.CAMERA_FAULT, "no picture for 4 s"),
            Gap(A, 10 * NS, 12 * NS, Cause.PRIVACY, ""),
        ],
        tombstones=[Tombstone(A, 0, 30 * NS, 3, 300, "budget")],
    )
    assert brief(found) == [
        ("deleted-by-policy", 10),
        ("privacy", 2),
        ("deleted-by-policy", 18),
        ("recorded", 10),
        ("camera-fault", 10),
        ("recorded", 10),
    ]


def test_a_lost_file_is_not_a_policy() -> None:
    found = cover(10, sessions=[row(1, A, 0, 10)], tombstones=[Tombstone(A, 0, 10 * NS, 1, 9, "file missing")])
    assert brief(found) == [("storage-fault", 10)]


def test_only_what_nothing_explains_is_unknown() -> None:
    found = cover(60, sessions=[row(1, A, 0, 60)], segments=[seg(1, A, 0, 20), seg(1, A, 40, 60)])
    assert brief(found) == [("recorded", 20), ("unknown", 20), ("recorded", 20)]
    assert brief(cover(60, sessions=[])) == [("unknown", 60)]


def test_jitter_between_rolled_files_is_not_a_hole() -> None:
    found = cover(20, sessions=[row(1, A, 0, 20)], segments=[seg(1, A, 0, 9.9), seg(1, A, 10, 20)])
    assert brief(found) == [("recorded", 20)]
    found = cover(20, sessions=[row(1, A, 0, 20)], segments=[seg(1, A, 0, 9.9, EndReason.STORAGE), seg(1, A, 10, 20)])
    assert brief(found) == [("recorded", 9.9), ("unknown", 0.1), ("recorded", 10)]


def test_a_running_node_says_what_is_not_on_the_disk_yet_and_knows_no_future() -> None:
    found = cover(30, sessions=[row(1, A, 0, 10)], segments=[seg(1, A, 0, 20)], now=Now(A, 21 * NS))
    assert [(s.what, s.detail, s.seconds) for s in found] == [
        ("recorded", "", 20),
        ("unknown", "being recorded, not yet on the disk", 1),
        ("unknown", "in the future", 9),
    ]
    found = cover(30, sessions=[row(1, A, 0, 10)], segments=[seg(1, A, 0, 20)])
    assert found[-1].detail == "the agent does not run"


def test_one_step_of_the_clock_does_not_tear_a_recording() -> None:
    """A boot began with a saved clock, two hours wrong; NTP then stepped it. The best anchor places the whole boot."""
    anchors = [anchor(A, 0, -7200, None), anchor(A, 100, 100, 0.01), anchor(A, 200, 200, 0.5)]
    found = cover(100, sessions=[row(1, A, 0, 100)], segments=[seg(1, A, 0, 100)], anchors=anchors)
    assert brief(found) == [("recorded", 100)]
    assert found[0].unc_s is not None and 0.01 <= found[0].unc_s <= 0.021


def test_without_a_trusted_clock_the_error_is_unknown() -> None:
    found = cover(10, sessions=[row(1, A, 0, 10)], segments=[seg(1, A, 0, 10)], anchors=[anchor(A, 0, 0, None)])
    assert found == [Stretch(UTC, UTC + 10 * NS, "recorded", "", None)]


def test_a_boot_without_an_anchor_claims_nothing() -> None:
    assert brief(cover(10, sessions=[row(1, A, 0, 10)], segments=[seg(1, A, 0, 10)], anchors=[anchor(B, 0, 0)])) == [
        ("unknown", 10)
    ]


def test_timeline_goes_there_and_back() -> None:
    line = Timeline([anchor(A, 50, 7)])
    moment = line.utc(A, 60 * NS)
    assert moment is not None
    assert line.boot_ns(A, moment.utc_ns) == 60 * NS
    assert line.utc(B, 0) is None and line.boot_ns(B, 0) is None


seconds = st.integers(0, 400).map(lambda n: n / 2)
boots = st.sampled_from([A, B, "c" * 32])


@st.composite
def spans(draw: st.DrawFn) -> tuple[str, float, float]:
    start, end = sorted((draw(seconds), draw(seconds)))
    return draw(boots), start, end


@settings(max_examples=300, deadline=None)
@given(
    st.lists(spans(), max_size=5),
    st.lists(st.tuples(spans(), st.integers(1, 5), st.sampled_from(EndReason)), max_size=8),
    st.lists(st.tuples(spans(), st.sampled_from(Cause)), max_size=6),
    st.lists(spans(), max_size=4),
    st.lists(st.tuples(boots, seconds, st.integers(-300, 300), st.none() | st.floats(0, 10)), max_size=6),
    st.tuples(st.integers(-500, 500), st.integers(1, 900)),
    st.none() | seconds,
)
def test_any_history_adds_up_to_the_range_without_overlap(
    lives: list[tuple[str, float, float]],
    files: list[tuple[tuple[str, float, float], int, EndReason]],
    gaps: list[tuple[tuple[str, float, float], Cause]],
    stones: list[tuple[str, float, float]],
    anchors: list[tuple[str, float, int, float | None]],
    span: tuple[int, int],
    now: float | None,
) -> None:
    """Clocks that lie, boots that overlap in UTC, footage of sessions nobody knows: the sum is the range all the same."""
    begin, length = UTC + span[0] * NS, span[1] * NS
    found = coverage(
        begin,
        begin + length,
        sessions=[row(n, boot, start, end, "x" if n % 2 else None) for n, (boot, start, end) in enumerate(lives, 1)],
        segments=[seg(n, boot, start, end, why) for (boot, start, end), n, why in files],
        gaps=[Gap(boot, round(start * NS), round(end * NS), cause, "") for (boot, start, end), cause in gaps],
        tombstones=[Tombstone(boot, round(start * NS), round(end * NS), 1, 1, "age") for boot, start, end in stones],
        timeline=Timeline([anchor(*values) for values in anchors]),
        now=None if now is None else Now(A, round(now * NS)),
    )
    assert found[0].start_utc_ns == begin
    assert found[-1].end_utc_ns == begin + length
    for one, following in pairwise(found):
        assert one.end_utc_ns == following.start_utc_ns
        assert (one.what, one.detail) != (following.what, following.detail)
    assert all(s.end_utc_ns > s.start_utc_ns for s in found)
    assert sum(s.end_utc_ns - s.start_utc_ns for s in found) == length
    known = {str(cause) for cause in Cause} | {"recorded"}
    assert {s.what for s in found} <= known
    assert recorded_s(found) <= length / NS
