"""Coverage: what the ledger says about every second. Small histories first, then any history at all."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import wire
from agent.recording.account import REPLY_BYTES_MAX, Account, account, as_dict, as_reply
from agent.recording.coverage import FUTURE, NOT_YET, Now, Stretch, coverage, recorded_s
from agent.recording.testimony import LINES_MAX, camera_fault
from agent.recording.timeline import Timeline
from agent.store.store import SessionRow, Tombstone
from agent.types import NS, Cause, EndReason, Gap, Hold, Segment, Sign, TimeAnchor

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
    signs: list[Sign] | None = None,
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
        signs=signs or [],
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


# -- what it rests on ---------------------------------------------------------------------------------------------------


def sign(at_s: float, what: str, text: str, *, boot: str = A, session: int = 1, active: bool = True) -> Sign:
    return Sign(session, boot, round(at_s * NS), what, active, text)


def test_after_a_clean_stop_the_tail_is_a_stop_and_then_nobody_runs() -> None:
    """Asked on the spot, in the same boot: nothing is "being recorded" any more, and nothing is unknown."""
    found = cover(
        60,
        sessions=[row(1, A, 0, 41, "stopped")],
        segments=[seg(1, A, 0, 40, EndReason.STOPPED)],
        now=Now(A, 50 * NS, running=False),
    )
    assert [(s.what, s.detail, s.seconds) for s in found] == [
        ("recorded", "", 40),
        ("agent-stopped", "stopping: stopped", 1),
        ("agent-stopped", "the agent does not run: stopped", 9),
        ("unknown", FUTURE, 10),
    ]
    # Even a node that answers has stopped when its last session says so.
    again = cover(60, sessions=[row(1, A, 0, 41, "stopped")], segments=[seg(1, A, 0, 40)], now=Now(A, 50 * NS))
    assert NOT_YET not in {s.detail for s in again}


def test_a_killed_agent_that_nobody_started_again_is_not_being_recorded() -> None:
    found = cover(60, sessions=[row(1, A, 0, 30)], segments=[seg(1, A, 0, 40)], now=Now(A, 50 * NS, running=False))
    assert [(s.what, s.seconds, s.start_late_s) for s in found] == [
        ("recorded", 40, 0),
        ("agent-stopped", 10, 10),
        ("unknown", 10, 0),
    ]
    (proof, *_rest) = found[1].evidence
    assert proof.startswith("last proof of life 2023-11-14T22:14:00")


def test_a_power_cut_carries_its_evidence_mains_flags_boot_record() -> None:
    found = cover(
        120,
        sessions=[row(1, A, 5, 40), row(2, B, 8, 20)],
        segments=[seg(1, A, 6, 50, EndReason.POWER_CUT), seg(2, B, 10, 20)],
        signs=[
            sign(45, "mains", "Mains power lost; running on the battery"),
            sign(20, "power", "under-voltage, throttled"),
            sign(10, "link", "no broker is connected"),
        ],
    )
    (cut,) = [s for s in found if s.what == Cause.POWER_OFF]
    text = "\n".join(cut.evidence)
    assert "mains input: lost at 2023-11-14T22:14:05.000Z, 5 s before, and not back" in text
    assert "under-voltage, throttled" in text
    assert "boot bbbbbbbb began at 2023-11-14T22:15:00.000Z; session 2 in it" in text
    assert cut.start_late_s == 15 and cut.unc_s is not None
    quiet = cover(120, sessions=[row(1, A, 5, 40), row(2, B, 8, 20)], segments=[seg(1, A, 6, 50)])
    assert "mains" not in str([s.evidence for s in quiet]), "what was not seen is not told"


def test_without_footage_a_death_is_only_known_to_a_sign_of_life() -> None:
    found = cover(
        120,
        sessions=[row(1, A, 0, 20), row(2, B, 8, 20)],
        gaps=[Gap(A, 0, 20 * NS, Cause.CAMERA_FAULT, "camera: no answer")],
    )
    (cut,) = [s for s in found if s.what == Cause.POWER_OFF]
    assert (cut.start_utc_ns, cut.start_late_s) == (UTC + 20 * NS, 75)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("rtsp://10.0.0.5/x: connection refused while opening; check the camera and camera.url", "does not answer"),
        ("rtsp://10.0.0.5/x: no answer while reading in time; check its power and network", "does not answer"),
        ("/dev/video0: not there; check that the camera is plugged in and camera.url is right", "away"),
        ("picamera2: no camera found; check the ribbon cable and `rpicam-hello --list-cameras`", "away"),
        ("picamera2: no picture for 5 s; check its power and cable", "silent"),
        ("the camera's clock went back", "broken"),
        ("the picture changed its size without a key frame", "broken"),
        ("something else", "gives no pictures"),
    ],
)
def test_an_unplugged_a_dead_and_a_broken_camera_are_told_apart(reason: str, word: str) -> None:
    assert word in camera_fault(reason)
    found = cover(20, sessions=[row(1, A, 0, 20)], gaps=[Gap(A, 0, 20 * NS, Cause.CAMERA_FAULT, reason)])
    assert found[0].what == Cause.CAMERA_FAULT and word in found[0].evidence[0] and found[0].detail == reason


def test_a_dead_network_is_no_gap_but_stands_beside_the_account_and_in_a_camera_fault() -> None:
    catalog = Catalog(
        sessions=[row(1, A, 0, 100)],
        segments=[seg(1, A, 0, 60), seg(1, A, 80, 100)],
        gaps=[Gap(A, 60 * NS, 80 * NS, Cause.CAMERA_FAULT, "rtsp://cam: no route to host")],
        signs=[
            sign(20, "link", "no broker is connected"),
            sign(40, "link", "well again", active=False),
            sign(50, "link", "no broker is connected"),
        ],
    )
    found = account(catalog, UTC, UTC + 100 * NS)
    assert found.totals_s() == {"recorded": 80, "camera-fault": 20}
    assert [(s.start_utc_ns - UTC, s.end_utc_ns - UTC) for s in found.offline] == [
        (20 * NS, 40 * NS),
        (50 * NS, 100 * NS),
    ]
    assert any("the uplink was down as it began" in line for line in found.stretches[1].evidence)


def test_privacy_explains_itself_whatever_else_failed_behind_it() -> None:
    found = cover(
        30,
        sessions=[row(1, A, 0, 30)],
        gaps=[Gap(A, 0, 30 * NS, Cause.CAMERA_FAULT, "x"), Gap(A, 10 * NS, 20 * NS, Cause.PRIVACY, "privacy, by x")],
    )
    assert brief(found) == [("camera-fault", 10), ("privacy", 10), ("camera-fault", 10)]


# -- as a reply --------------------------------------------------------------------------------------------------------


class Catalog:
    """What a store would tell."""

    def __init__(
        self,
        *,
        sessions: list[SessionRow],
        segments: list[Segment] | None = None,
        gaps: list[Gap] | None = None,
        signs: list[Sign] | None = None,
        holds: list[Hold] | None = None,
    ) -> None:
        self._sessions, self._segments = sessions, segments or []
        self._gaps, self._signs, self._holds = gaps or [], signs or [], holds or []

    def sessions(self) -> list[SessionRow]:
        return self._sessions

    def anchors(self) -> list[TimeAnchor]:
        return [anchor(A, 0, 0)]

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        return [] if garbage else self._segments

    def gaps(self) -> list[Gap]:
        return self._gaps

    def tombstones(self) -> list[Tombstone]:
        return []

    def signs(self) -> list[Sign]:
        return self._signs

    def holds(self) -> list[Hold]:
        return self._holds


def stormy(count: int) -> Account:
    """A camera that comes and goes, with the longest of reasons."""
    gaps = [
        Gap(A, (10 * n + 5) * NS, (10 * n + 10) * NS, Cause.CAMERA_FAULT, f"{n} " + "x" * 500) for n in range(count)
    ]
    segments = [seg(1, A, 10 * n, 10 * n + 5, EndReason.CAMERA) for n in range(count)]
    signs = [sign(n, "camera", "y" * 200, active=bool(n % 2)) for n in range(0, 10 * count, 2)]
    holds = [Hold(f"h{n}", UTC, UTC + NS, None, "z" * 300, "w", n) for n in range(300)]
    catalog = Catalog(sessions=[row(1, A, 0, 10 * count)], segments=segments, gaps=gaps, signs=signs, holds=holds)
    return account(catalog, UTC, UTC + 10 * count * NS)


def test_a_reply_of_any_length_fits_and_the_rest_can_be_asked_for() -> None:
    found = stormy(2000)
    reply = as_reply(found)
    wire.encode(wire.Reply(id="01900000-0000-7000-8000-000000000001", state="done", result=reply))
    assert len(json.dumps(reply)) < wire.PAYLOAD_BYTES_MAX
    assert reply["seconds"] == as_dict(found)["seconds"], "the sums are those of the whole range"
    kept = reply["coverage"]
    assert 10 < len(kept) < 4000 and reply["next"] == kept[-1]["to"]
    assert kept == as_dict(found)["coverage"][: len(kept)], "nothing is merged or left out on the way"
    assert as_reply(stormy(5))["next"] is None
    assert REPLY_BYTES_MAX < wire.PAYLOAD_BYTES_MAX


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
    st.none() | st.tuples(seconds, st.booleans()),
    st.lists(
        st.tuples(boots, seconds, st.sampled_from(["mains", "power", "link", "camera", "storage"]), st.booleans()),
        max_size=8,
    ),
)
def test_any_history_adds_up_to_the_range_without_overlap(
    lives: list[tuple[str, float, float]],
    files: list[tuple[tuple[str, float, float], int, EndReason]],
    gaps: list[tuple[tuple[str, float, float], Cause]],
    stones: list[tuple[str, float, float]],
    anchors: list[tuple[str, float, int, float | None]],
    span: tuple[int, int],
    now: tuple[float, bool] | None,
    signs: list[tuple[str, float, str, bool]],
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
        now=None if now is None else Now(A, round(now[0] * NS), running=now[1]),
        signs=[Sign(1, boot, round(at * NS), what, active, "t") for boot, at, what, active in signs],
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
    assert all(0 <= s.start_late_s <= s.seconds for s in found)
    assert all(len(s.evidence) <= LINES_MAX + 8 for s in found)
