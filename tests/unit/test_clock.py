"""The only reader of time, and the fake that stands for it."""

from __future__ import annotations

import re
import threading
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import Clock, MediaClock, SystemClock, parse_rfc3339, rfc3339, uuid7_maker
from agent.types import MS, NS, UtcReading
from tests.fakes.clock import FakeClock


@pytest.fixture(params=[SystemClock, MediaClock, FakeClock])
def clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


# -- what every clock promises -------------------------------------------------------------------------------------


def test_boot_time_never_goes_back(clock: Clock) -> None:
    readings = [clock.boot_ns() for _ in range(1000)]
    assert readings == sorted(readings)


def test_the_boot_has_a_name(clock: Clock) -> None:
    assert re.fullmatch("[0-9a-f]{32}", clock.boot_id)
    assert clock.boot_id == clock.boot_id


def test_an_event_that_is_set_ends_a_wait_at_once(clock: Clock) -> None:
    event = threading.Event()
    assert clock.wait(event, 0.001) is False
    event.set()
    before_ns = clock.boot_ns()
    assert clock.wait(event, 3600.0) is True
    assert clock.boot_ns() - before_ns < 60 * NS


def test_a_wait_into_the_past_is_no_wait(clock: Clock) -> None:
    assert clock.wait(threading.Event(), -5.0) is False


# -- the real one --------------------------------------------------------------------------------------------------


def test_the_system_clock_agrees_with_the_kernel() -> None:
    clock = SystemClock()
    low, ours, high = time.clock_gettime_ns(time.CLOCK_BOOTTIME), clock.boot_ns(), time.clock_gettime_ns(7)
    assert low <= ours <= high
    low, utc, high = time.time_ns(), clock.utc(), time.time_ns()
    assert low <= utc.utc_ns <= high
    assert (utc.unc_ns is None) == (utc.source == "unsynchronised")


@pytest.mark.parametrize(
    ("state", "maxerror_us", "expected"),
    [(0, 1500, (1_500_000, "ntp")), (5, 16_000_000, (None, "unsynchronised")), (-1, 0, (None, "unsynchronised"))],
)
def test_a_clock_that_nobody_disciplines_has_no_error_bound(
    monkeypatch: pytest.MonkeyPatch, state: int, maxerror_us: int, expected: tuple[int | None, str]
) -> None:
    class Kernel:
        def adjtimex(self, timex: object) -> int:
            timex._obj.maxerror = maxerror_us  # type: ignore[attr-defined]
            return state

    clock = SystemClock()
    monkeypatch.setattr(clock, "_libc", Kernel())
    reading = clock.utc()
    assert (reading.unc_ns, reading.source) == expected


# -- the one that media drive --------------------------------------------------------------------------------------


def test_media_drive_the_media_clock_forward_only() -> None:
    clock = MediaClock(utc_ns=NS)
    clock.advance_to(5 * NS)
    clock.advance_to(3 * NS)
    assert clock.boot_ns() == 5 * NS
    assert clock.utc() == UtcReading(6 * NS, 0, "media")
    assert MediaClock().utc() == UtcReading(0, None, "media"), "nobody has said when the footage is from"


# -- the fake's own doors ------------------------------------------------------------------------------------------


def test_the_fake_moves_when_it_waits_and_only_utc_steps() -> None:
    clock = FakeClock(boot_ns=0, utc_ns=100 * NS)
    clock.wait(threading.Event(), 2.5)
    assert clock.boot_ns() == 2.5 * NS
    clock.step_utc(-50)
    assert clock.boot_ns() == 2.5 * NS and clock.utc().utc_ns == 52.5 * NS
    first = clock.boot_id
    clock.reboot(off_s=60)
    assert clock.boot_ns() == 0 and clock.boot_id != first and clock.utc().utc_ns == 112.5 * NS
    with pytest.raises(ValueError, match="never goes back"):
        clock.advance(-1)


# -- texts and ids -------------------------------------------------------------------------------------------------


def test_rfc3339() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_795_269_731_250 * MS) == "2026-11-21T14:02:11.250Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
    assert rfc3339(10**30) == "9999-12-31T23:59:59.000Z"
    assert rfc3339(-(10**30)) == "0001-01-01T00:00:00.000Z"


@given(st.integers(-62_135_596_800 * 1000, 253_402_300_799 * 1000))
def test_what_is_written_can_be_read(ms: int) -> None:
    assert parse_rfc3339(rfc3339(ms * MS)) == ms * MS


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01", "14:00", "2026-11-21T25:00", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time; write it like"):
        parse_rfc3339(text)


def test_zones_are_respected() -> None:
    assert parse_rfc3339("2026-11-21T21:02:11.25+07:00") == 1_795_269_731_250 * MS


def test_uuid7_carries_the_time_and_is_unique_even_with_a_wrong_clock() -> None:
    clock = FakeClock(utc_ns=1_795_269_731_250 * MS)
    make = uuid7_maker(clock)
    ids = [uuid.UUID(make()) for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert {i.version for i in ids} == {7} and {i.variant for i in ids} == {uuid.RFC_4122}
    assert {i.int >> 80 for i in ids} == {1_795_269_731_250}
    early = uuid.UUID(uuid7_maker(FakeClock(utc_ns=-5 * NS))())
    assert early.version == 7 and early.int >> 80 == 0
