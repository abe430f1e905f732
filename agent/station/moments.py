"""Which times headquarters goes by: those at which there can have been a post. Pure.

A year that somebody mistypes, and what a node says whose clock is broken or which lies, can be any of 1 to 9999; a
database keeps 64 bits of nanoseconds, which end in 1678 and 2262, and no footage is older than the first post.

And what a local time means that a person types: where clocks are turned back an hour comes twice, and where they are
turned forward one never comes.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agent.clock import parse_rfc3339
from agent.types import NS

YEAR_MIN, YEAR_MAX = 2000, 2200
"""In UTC; the first is within, the last is not."""
UTC_NS_MIN, UTC_NS_MAX = 946_684_800 * NS, 7_258_118_400 * NS
"""When these years begin."""


def kept_ns(utc_ns: int) -> int | None:
    """The same; None where it lies in no year that can be."""
    return utc_ns if UTC_NS_MIN <= utc_ns < UTC_NS_MAX else None


def told_ns(text: str) -> int | None:
    """UTC ns of the time that a node tells; None for what is no time, or none that can be."""
    try:
        return kept_ns(parse_rfc3339(text))
    except (ValueError, OverflowError):
        return None


class Never(ValueError):  # noqa: N818  (a time, not a fault)
    """A local time that never comes. `before`, `after`: the last one in front of the gap, and the first behind it."""

    def __init__(self, before: dt.datetime, after: dt.datetime) -> None:
        super().__init__(f"clocks go from {before} to {after}")
        self.before = before
        self.after = after


@dataclass(frozen=True, slots=True)
class Local:
    """What a local time means, UTC ns: the first time that it comes, and the last."""

    first_utc_ns: int
    last_utc_ns: int

    @property
    def twice(self) -> bool:
        """Whether clocks were turned back in between."""
        return self.first_utc_ns != self.last_utc_ns


def local(at: dt.datetime, zone: dt.tzinfo) -> Local:
    """What this time, to the second and without a zone, means there. Raises Never, OverflowError."""
    first, last = (int(at.replace(tzinfo=zone, fold=fold).timestamp()) for fold in (0, 1))
    if first > last:  # by the offset of before the gap, and of behind it: in between lies the turn
        before, after = last, first
        offset = _offset(before, zone)
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (middle, after) if _offset(middle, zone) == offset else (before, middle)
        raise Never(*(dt.datetime.fromtimestamp(one, zone).replace(tzinfo=None, fold=0) for one in (before, after)))
    return Local(first * NS, last * NS)


def _offset(utc_s: int, zone: dt.tzinfo) -> dt.timedelta | None:
    return dt.datetime.fromtimestamp(utc_s, zone).utcoffset()
