"""Time of a source to CLOCK_BOOTTIME: whatever the source's clock does, ours never goes back."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.camera.timeline import Pick, Timeline
from agent.types import MS, NS

STEP = NS // 25


def test_a_file_with_b_frames_keeps_its_distances() -> None:
    line = Timeline(live=False, step_ns=STEP)
    stamps = [(0, -80 * MS), (160 * MS, -40 * MS), (80 * MS, 0), (40 * MS, 40 * MS)]
    mapped = [line.map(pts, dts, 5 * NS) for pts, dts in stamps]
    assert [pts - 5 * NS for pts, _ in mapped] == [0, 160 * MS, 80 * MS, 40 * MS]
    assert [dts - 5 * NS for _, dts in mapped] == [-80 * MS, -40 * MS, 0, 40 * MS]


def test_a_file_that_starts_again_goes_on_one_step_later() -> None:
    line = Timeline(live=False, step_ns=STEP)
    last = [line.map(n * STEP, n * STEP, 0) for n in range(10)][-1]
    line.restart()
    pts, dts = line.map(0, 0, 99 * NS)
    assert (pts, dts) == (last[0] + STEP, last[1] + STEP)


def test_a_live_camera_whose_clock_jumps_is_taken_at_its_arrival() -> None:
    line = Timeline(live=True, step_ns=STEP)
    now = 100 * NS
    line.map(0, 0, now)
    for media in (-7200 * NS, 86_400 * NS, 5 * NS):  # back two hours, a day ahead, back again
        now += STEP
        pts, dts = line.map(media, media, now)
        assert (pts, dts) == (now, now)
    assert line.jumps == 3


def test_a_pause_of_the_network_is_a_pause_and_not_a_jump() -> None:
    line = Timeline(live=True, step_ns=STEP)
    line.map(0, 0, 0)
    pts, _ = line.map(4 * NS, 4 * NS, 4 * NS + 30 * MS)
    assert pts == 4 * NS
    assert line.jumps == 0


def test_drift_of_a_camera_is_followed_for_a_day() -> None:
    """A clock that is 200 ppm off in either direction would be 17 s wrong after a day."""
    for drift in (-200e-6, 200e-6):
        rng = random.Random(7)
        line = Timeline(live=True, step_ns=NS // 5)
        worst = 0
        for number in range(24 * 3600 // 10 * 5):  # a packet each 2 s
            now = number * 2 * NS
            media = round(now * (1 + drift))
            delay = round(rng.random() * 30 * MS)
            pts, _ = line.map(media, media, now + delay)
            assert pts <= now + delay, "nothing is stamped in the future"
            if number > 10:
                worst = max(worst, abs(pts - now))
        assert worst < 60 * MS, f"drift {drift}"


def test_a_burst_on_connecting_does_not_leave_a_lag() -> None:
    """The server sends its last second at once; from then on stamps are as late as the network, no more."""
    line = Timeline(live=True, step_ns=STEP)
    for number in range(25):
        line.map(number * STEP, number * STEP, 10 * NS)
    for number in range(25, 100):
        now = 10 * NS + (number - 24) * STEP
        pts, dts = line.map(number * STEP, number * STEP, now)
        assert dts <= pts
        if number > 60:
            assert now - pts < 100 * MS


stamp = st.none() | st.integers(min_value=-(10**12), max_value=10**15)


@given(st.lists(st.tuples(stamp, stamp, st.integers(0, 10 * NS)), max_size=60), st.booleans())
def test_rubbish_stamps_never_go_back(packets: list[tuple[int | None, int | None, int]], live: bool) -> None:
    line = Timeline(live=live, step_ns=STEP)
    now, last = 0, None
    for pts_in, dts_in, passed in packets:
        now += passed
        pts, dts = line.map(pts_in, dts_in, now)
        assert dts <= pts
        assert last is None or dts > last
        last = dts


def test_frames_are_picked_evenly() -> None:
    for fps, wanted, expected in ((25, 5.0, 5), (15, 5.0, 3), (30, 5.0, 6), (10, 10.0, 1), (12.5, 25.0, 1)):
        pick = Pick(wanted)
        taken = [n for n in range(100) if pick.take(round(n * NS / fps))]
        assert {b - a for a, b in pairwise(taken)} == {expected}, (fps, wanted)


def test_every_frame_is_picked_when_asked_and_after_a_pause() -> None:
    every = Pick(float("inf"))
    assert all(every.take(n) for n in (0, 1, 2, 2, 3))
    pick = Pick(5.0)
    assert pick.take(0)
    assert pick.take(60 * NS), "the first after a pause"
    assert not pick.take(60 * NS + 40 * MS), "but what was missed is not made up for"
