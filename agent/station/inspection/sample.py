"""A random sample with weights that anybody can draw again: same site, week and candidates, same sample. Pure.

Each candidate gets a number u in (0, 1) out of SHA-256(site, week, candidate), and with its weight w the key -ln(u)/w;
those with the smallest keys are drawn. That is sampling without replacement in which every next one is drawn with a
chance in proportion to its weight (Efraimidis and Spirakis, Information Processing Letters 97, 2006). Nobody can
choose whom it hits, for neither site nor week nor id are his to choose; and who comes or goes does not change the key
of anybody else.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.types import NS

WEEK = re.compile(r"[0-9]{4}-W(?:0[1-9]|[1-4][0-9]|5[0-3])")
POSTS_DRAWN = 5
FOOTAGE_DRAWN = 5
DARK_FACTOR = 3.0
NEW_FACTOR = 2.0
NEW_DAYS = 14.0
UNCHECKED_DAYS_MAX = 180.0
"""Never checked, or longer ago, counts as this."""
DAY_NS = 86_400 * NS


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may be drawn. `ref`: SHA-256 of a file; empty: the post itself."""

    node: str
    ref: str
    weight: float
    why: str  # what makes the weight: words in one line, kept with the draw


@dataclass(frozen=True, slots=True)
class PostFacts:
    """What weighs for a post. `checked_utc_ns` None: never."""

    node: str
    checked_utc_ns: int | None
    dark: bool
    known_since_utc_ns: int


def week_of(utc_ns: int, zone: dt.tzinfo) -> str:
    """The week of a moment by ISO 8601, as 2026-W47."""
    year, week, _ = dt.datetime.fromtimestamp(utc_ns // NS, zone).isocalendar()
    return f"{year:04}-W{week:02}"


def post_candidate(facts: PostFacts, now_utc_ns: int) -> Candidate:
    """Days since the last check, one more for a start; three times for a dark post, twice for a new one."""
    checked = facts.checked_utc_ns
    days = UNCHECKED_DAYS_MAX if checked is None else min(max(now_utc_ns - checked, 0) / DAY_NS, UNCHECKED_DAYS_MAX)
    new = now_utc_ns - facts.known_since_utc_ns < NEW_DAYS * DAY_NS
    weight = (days + 1) * (DARK_FACTOR if facts.dark else 1.0) * (NEW_FACTOR if new else 1.0)
    said = ["never checked" if checked is None else f"checked {days:.1f} days ago"]
    said += ["dark"] * facts.dark + ["new"] * new
    return Candidate(facts.node, "", round(weight, 3), ", ".join(said))


def footage_candidates(files: Iterable[tuple[str, str]], checked: Iterable[str]) -> list[Candidate]:
    """Files as (post, SHA-256), those that were never looked at before; each post weighs alike, however many it has."""
    seen = set(checked)
    fresh = [(node, sha256) for node, sha256 in files if sha256 not in seen]
    counts: dict[str, int] = {}
    for node, _ in fresh:
        counts[node] = counts.get(node, 0) + 1
    return [
        Candidate(node, sha256, round(1 / counts[node], 6), f"one of {counts[node]} files of the post")
        for node, sha256 in fresh
    ]


def draw(site: str, week: str, candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Who is drawn, in the order of the draw. A weight of 0 or less is never drawn."""
    able = [one for one in candidates if one.weight > 0]
    return sorted(able, key=lambda one: (key_of(site, week, one), one.node, one.ref))[:count]


def key_of(site: str, week: str, one: Candidate) -> float:
    """The number that decides; the smallest ones are drawn. Rounded, so that every machine comes to the same."""
    digest = hashlib.sha256(f"wardpost-inspection\n{site}\n{week}\n{one.node}\n{one.ref}".encode()).digest()
    u = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return round(-math.log(u) / one.weight, 12)
