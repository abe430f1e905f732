"""How often something on trial may be started before it is given up. Pure; `deploy/wardpost-launch` has its own copy.

A start in the same boot as the one before follows a crash, or a watchdog's kill: STARTS_MAX of them are a crash loop.
A start in another boot follows a power cut, of which there may be many on a bad day, and which says nothing against
what is tried. But what takes the whole machine down with it looks just like that, so boots have a bound too.
"""

from __future__ import annotations

from typing import NamedTuple

STARTS_MAX = 3
"""In one boot."""
BOOTS_MAX = 8


class Count(NamedTuple):
    """What has been counted."""

    starts: int  # in the boot `boot`
    boots: int
    boot: str  # boot id of the last start; empty: there was none, or nobody knows


def too_many(count: Count, boot: str) -> str:
    """Why there is to be no start in this boot; empty when there may be one."""
    if boot == count.boot:
        return f"{STARTS_MAX} starts" if count.starts >= STARTS_MAX else ""
    return f"{BOOTS_MAX} boots" if count.boots >= BOOTS_MAX else ""


def counted(count: Count, boot: str) -> Count:
    """With one start more."""
    if boot == count.boot:
        return Count(count.starts + 1, count.boots, boot)
    return Count(1, count.boots + 1, boot)
