"""When a rule counts: named schedules in local time, and what happens when nobody knows the time. Pure.

A schedule is a set of windows ("22:00-06:00") on days of the week. A window belongs to the day on which it begins, so
that one across midnight on Fridays ends on Saturday morning. Daylight-saving: a window begins at the earliest and ends
at the latest moment that its clock times can mean, so none ever vanishes in the hour that is left out, and in the hour
that comes twice it covers both.

The clock is only known to a bound. With `unsynchronised = "active"` a rule counts as soon as it may count (an alert too
many rather than silence), and always while nobody vouches for the clock; with "inactive" it counts only when it surely
does.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Callable, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from agent.config import CalendarSettings, RuleSettings, ScheduleSettings
from agent.errors import ConfigError
from agent.types import NS, UtcReading

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNC_S_MAX = 6 * 3600  # a clock that may be wrong by more says nothing about the hour

Span = tuple[float, float]  # seconds since 1970, end excluded


def zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ConfigError when it is none, or this machine has no zone data."""
    try:
        return ZoneInfo(name or " ")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a name that is a folder, or too long
        near = difflib.get_close_matches(name, available_timezones(), n=1, cutoff=0.85)  # Hanoi is not near Manila
        like = f'did you mean "{near[0]}"?' if near else 'write a name like "Asia/Shanghai"'
        raise ConfigError(
            f"{name!r} is not a time zone that this machine knows; {like} (its data is the Debian package tzdata)"
        ) from None


def windows(schedule: ScheduleSettings) -> tuple[tuple[dt.time, dt.timedelta], ...]:
    """Begin and nominal length of each window. Raises ConfigError for one that is empty."""
    out = []
    for text in schedule.hours:
        begin, end = (int(part[:2]) * 60 + int(part[3:5]) for part in text.split("-"))
        length = end - begin if end > begin else end - begin + 24 * 60
        if begin == end:
            raise ConfigError(f'{text!r} is no time at all; write "00:00-24:00" for the whole day')
        out.append((dt.time(begin // 60 % 24, begin % 60), dt.timedelta(minutes=length)))
    return tuple(out)


def dates(text: str) -> tuple[dt.date, dt.date]:
    """First and last day of `2026-12-24` or `2026-12-24/2027-01-06`. Raises ConfigError."""
    first, _, last = text.partition("/")
    try:
        span = dt.date.fromisoformat(first), dt.date.fromisoformat(last or first)
    except ValueError:
        raise ConfigError(f'{text!r} is no date; write "2026-12-24" or "2026-12-24/2027-01-06"') from None
    if span[1] < span[0]:
        raise ConfigError(f"{text!r} ends before it begins; write the earlier day first")
    return span


class Schedule:
    """One named schedule in one time zone."""

    def __init__(self, settings: ScheduleSettings, local: ZoneInfo) -> None:
        """Raises ConfigError for a window or a date that cannot be."""
        self._local = local
        self._days = frozenset(DAYS.index(day) for day in settings.days)
        self._windows = windows(settings)
        self._except = tuple(dates(text) for text in settings.except_on)

    def spans(self, day: dt.date) -> list[Span]:
        """The windows that begin on `day`."""
        if day.weekday() not in self._days or any(first <= day <= last for first, last in self._except):
            return []
        return [self._span(dt.datetime.combine(day, begin), length) for begin, length in self._windows]

    def overlaps(self, first_s: float, last_s: float) -> bool:
        """Whether any moment from `first_s` to `last_s`, both included, lies in a window."""
        return any(begin <= last_s and first_s < end for begin, end in self._near(first_s, last_s))

    def covers(self, first_s: float, last_s: float) -> bool:
        """Whether every moment from `first_s` to `last_s` lies in one and the same window."""
        return any(begin <= first_s and last_s < end for begin, end in self._near(first_s, last_s))

    def _near(self, first_s: float, last_s: float) -> list[Span]:
        day = dt.datetime.fromtimestamp(first_s, self._local).date() - dt.timedelta(days=1)
        until = dt.datetime.fromtimestamp(last_s, self._local).date()
        found: list[Span] = []
        while day <= until:
            found += self.spans(day)
            day += dt.timedelta(days=1)
        return found

    def _span(self, begin: dt.datetime, length: dt.timedelta) -> Span:
        first, last = self._meanings(begin), self._meanings(begin + length)
        return min(first), max(last)

    def _meanings(self, wall: dt.datetime) -> tuple[float, float]:
        """The two moments that a time on the wall's clock may mean; the same one but for two hours a year."""
        return (
            wall.replace(tzinfo=self._local, fold=0).timestamp(),
            wall.replace(tzinfo=self._local, fold=1).timestamp(),
        )


class Calendar:
    """Says whether a rule counts now."""

    def __init__(
        self, *, settings: CalendarSettings, schedules: Sequence[ScheduleSettings], utc: Callable[[], UtcReading]
    ) -> None:
        """Raises ConfigError: an unknown time zone, a window or date that cannot be."""
        local = zone(settings.time_zone)
        self._eager = settings.unsynchronised == "active"
        self._schedules = {one.name: Schedule(one, local) for one in schedules}
        self._utc = utc

    def active(self, rule: RuleSettings) -> bool:
        """Whether `rule` counts: in one of `during` (or it names none), and in none of `outside`. About 30 us."""
        if not rule.during and not rule.outside:
            return True
        reading = self._utc()
        if reading.unc_ns is None or reading.unc_ns > _UNC_S_MAX * NS:
            return self._eager
        first_s, last_s = (reading.utc_ns - reading.unc_ns) / NS, (reading.utc_ns + reading.unc_ns) / NS
        during = [self._schedules[name] for name in rule.during]
        outside = [self._schedules[name] for name in rule.outside]
        if self._eager:
            wanted = not during or any(one.overlaps(first_s, last_s) for one in during)
            return wanted and not any(one.covers(first_s, last_s) for one in outside)
        wanted = not during or any(one.covers(first_s, last_s) for one in during)
        return wanted and not any(one.overlaps(first_s, last_s) for one in outside)


def always(_rule: RuleSettings) -> bool:
    """The calendar of who has none."""
    return True
