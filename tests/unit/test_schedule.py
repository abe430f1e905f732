"""Schedules: local hours across midnight, daylight-saving, and clocks that nobody vouches for."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import CalendarSettings, RuleSettings, ScheduleSettings
from agent.errors import ConfigError
from agent.types import NS, UtcReading
from agent.vision.schedule import Calendar, Schedule, dates, windows, zone

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = ScheduleSettings(name="night", days=("fri",), hours=("22:00-06:00",))


def at(text: str, local: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=local, fold=fold).timestamp()


def inside(schedule: ScheduleSettings, text: str, fold: int = 0) -> bool:
    moment = at(text, fold=fold)
    one = Schedule(schedule, BERLIN)
    assert one.overlaps(moment, moment) == one.covers(moment, moment)
    return one.overlaps(moment, moment)


def test_a_window_across_midnight_belongs_to_the_day_on_which_it_begins() -> None:
    assert inside(NIGHT, "2026-03-06T22:00") and inside(NIGHT, "2026-03-07T05:59")  # Friday, Saturday morning
    assert not inside(NIGHT, "2026-03-06T21:59") and not inside(NIGHT, "2026-03-07T06:00")
    assert not inside(NIGHT, "2026-03-06T03:00")  # Friday's small hours are Thursday's night
    assert not inside(NIGHT, "2026-03-07T23:00")


def test_a_whole_day_has_no_hole_at_midnight() -> None:
    always = ScheduleSettings(name="a", hours=("00:00-24:00",))
    assert (
        inside(always, "2026-03-06T00:00")
        and inside(always, "2026-03-06T23:59:59")
        and inside(always, "2026-03-07T00:00")
    )


def test_a_window_in_the_hour_that_is_left_out_does_not_vanish() -> None:
    """Berlin, 2026-03-29: 02:00 to 03:00 does not exist."""
    spans = Schedule(ScheduleSettings(name="a", hours=("02:15-02:45",)), BERLIN).spans(dt.date(2026, 3, 29))
    ((begin, end),) = spans
    assert begin < at("2026-03-29T03:00") < end and end - begin <= 1.5 * 3600


def test_a_window_in_the_hour_that_comes_twice_covers_both() -> None:
    """Berlin, 2026-10-25: 02:00 to 03:00 comes twice."""
    twice = ScheduleSettings(name="a", hours=("02:15-02:45",))
    assert inside(twice, "2026-10-25T02:30", fold=0) and inside(twice, "2026-10-25T02:30", fold=1)
    night = ScheduleSettings(name="b", hours=("22:00-06:00",))
    ((begin, end),) = Schedule(night, BERLIN).spans(dt.date(2026, 10, 24))
    assert end - begin == 9 * 3600  # by the clock on the wall


def test_holidays_are_left_out() -> None:
    term = ScheduleSettings(name="a", hours=("08:00-12:00",), except_on=("2026-10-01/2026-10-07", "2026-12-24"))
    assert inside(term, "2026-09-30T09:00") and inside(term, "2026-10-08T09:00")
    assert not any(inside(term, f"2026-{day}T09:00") for day in ("10-01", "10-07", "12-24"))


def calendar(utc: UtcReading, unsynchronised: str = "active") -> Calendar:
    return Calendar(
        settings=CalendarSettings(time_zone="Europe/Berlin", unsynchronised=unsynchronised),  # type: ignore[arg-type]
        schedules=[NIGHT],
        utc=lambda: utc,
    )


DURING = RuleSettings(name="d", kind="forbidden", during=("night",))
OUTSIDE = RuleSettings(name="o", kind="forbidden", outside=("night",))
PLAIN = RuleSettings(name="p", kind="forbidden")


@pytest.mark.parametrize(("policy", "counts"), [("active", True), ("inactive", False)])
def test_while_nobody_vouches_for_the_clock_the_setting_decides(policy: str, counts: bool) -> None:
    for unc_ns in (None, 7 * 3600 * NS):
        one = calendar(UtcReading(round(at("2026-03-04T12:00")) * NS, unc_ns, "x"), policy)
        assert one.active(DURING) is counts and one.active(OUTSIDE) is counts
        assert one.active(PLAIN)


def test_a_clock_that_may_be_a_minute_off_widens_or_narrows_the_window_by_it() -> None:
    just_before = UtcReading(round(at("2026-03-06T21:59:30")) * NS, 60 * NS, "x")
    assert calendar(just_before).active(DURING) and calendar(just_before).active(OUTSIDE)
    assert not calendar(just_before, "inactive").active(DURING)
    assert not calendar(just_before, "inactive").active(OUTSIDE)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: zone("Europe/Berlim"), "not a time zone"),
        (lambda: zone(""), "not a time zone"),
        (lambda: zone("../../etc/passwd"), "not a time zone"),
        (lambda: zone("Europe"), "not a time zone"),
        (lambda: windows(ScheduleSettings(name="a", hours=("08:00-08:00",))), "no time at all"),
        (lambda: dates("2026-02-30"), "no date"),
        (lambda: dates("2026-03-02/2026-03-01"), "ends before it begins"),
    ],
)
def test_what_cannot_be_is_one_clear_error(wrong: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        wrong()  # type: ignore[operator]
    assert "\n" not in str(caught.value) and "; " in str(caught.value)


ZONES = st.sampled_from(
    ["Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe", "Pacific/Apia", "UTC"]
)
MINUTES = st.integers(0, 24 * 60 - 1)


def clock_time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@settings(max_examples=200, deadline=None)
@given(ZONES, MINUTES, MINUTES, st.dates(dt.date(2012, 1, 2), dt.date(2030, 1, 1)))
def test_no_window_ever_vanishes_and_none_is_off_by_more_than_the_shift(
    name: str, begin: int, end: int, day: dt.date
) -> None:
    if begin == end:
        end = (end + 1) % (24 * 60)
    local = ZoneInfo(name)
    one = Schedule(ScheduleSettings(name="a", hours=(f"{clock_time(begin)}-{clock_time(end)}",)), local)
    ((first, last),) = one.spans(day)
    nominal_s = ((end - begin) % (24 * 60) or 24 * 60) * 60
    assert last > first
    if name != "Pacific/Apia":  # which left out a whole day once
        assert abs((last - first) - nominal_s) <= 2 * 3600
    assert one.covers(first, last - 1) and one.overlaps(first, first) and not one.covers(first, last + 26 * 3600)
    wall = dt.datetime.fromtimestamp((first + last) / 2, local)
    assert one.overlaps(wall.timestamp(), wall.timestamp())
