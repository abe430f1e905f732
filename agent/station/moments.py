"""Which times headquarters goes by: those at which there can have been a post. Pure.

A year that somebody mistypes, and what a node says whose clock is broken or which lies, can be any of 1 to 9999; a
database keeps 64 bits of nanoseconds, which end in 1678 and 2262, and no footage is older than the first post.
"""

from __future__ import annotations

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
