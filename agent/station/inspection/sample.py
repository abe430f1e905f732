"""A random sample with weights that anybody can draw again: same seed, site, week and candidates, same sample. Pure.

Each candidate gets a number u in (0, 1) out of SHA-256(seed, site, week, candidate), and with its weight w the key
-ln(u)/w; those with the smallest keys are drawn. That is sampling without replacement in which every next one is drawn
with a chance in proportion to its weight (Efraimidis and Spirakis, Information Processing Letters 97, 2006). The seed
is random, made at the draw and kept with it: until then nobody can tell whom it will hit, neither who is inspected nor
who inspects, and afterwards everybody can draw it again. Who comes or goes does not change the key of anybody else.

Files are drawn in two steps, so that every post has the same chance however many posts there are and however much each
has sent: first posts out of all that have sent any, then of each of those one file after the other. Of a post with very
many files a part can be drawn: those whose SHA-256 follows the point `first_of`, which hangs on the seed, too.

Version 1 of the draw had no seed (its draws are repeated by an empty one), and one step.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

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
VERSION = 2
"""Of the draw; kept with it."""
ANY_FILE = "*"
"""In place of a SHA-256: the post, for any of its files."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may be drawn. `ref`: SHA-256 of a file, or ANY_FILE; empty: the post itself."""

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


def sender_candidate(node: str) -> Candidate:
    """A post of which files may be drawn; all weigh alike, however many each has."""
    return Candidate(node, ANY_FILE, 1.0, "has sent files")


def footage_candidates(files: Iterable[tuple[str, str]]) -> list[Candidate]:
    """Files as (post, SHA-256); each post weighs alike, however many it has."""
    known = list(files)
    counts = Counter(node for node, _ in known)
    return [
        Candidate(node, sha256, round(1 / counts[node], 6), f"one of {counts[node]} files of the post")
        for node, sha256 in known
    ]


def draw(site: str, week: str, candidates: Sequence[Candidate], count: int, *, seed: str = "") -> list[Candidate]:
    """Who is drawn, in the order of the draw. A weight of 0 or less is never drawn. `seed` empty: version 1."""
    able = [one for one in candidates if one.weight > 0]
    return sorted(able, key=lambda one: (key_of(site, week, one, seed=seed), one.node, one.ref))[:count]


def draw_files(
    site: str, week: str, posts: Sequence[str], files: Sequence[Candidate], count: int, *, seed: str
) -> list[Candidate]:
    """Which files are drawn: the first of each of these posts, in their order, then the second of each, and so on."""
    own: dict[str, list[Candidate]] = {post: [] for post in posts}
    for one in draw(site, week, files, len(files), seed=seed):
        if one.node in own:
            own[one.node].append(one)
    rounds = zip_longest(*own.values())
    return [one for nth in rounds for one in nth if one is not None][:count]


def first_of(seed: str, node: str) -> str:
    """Where in the order of their SHA-256 those files of a post begin that can be drawn, hexadecimal; past the end it
    goes on from the beginning.
    """
    return hashlib.sha256(f"wardpost-inspection-2-first\n{seed}\n{node}".encode()).hexdigest()


def key_of(site: str, week: str, one: Candidate, *, seed: str = "") -> float:
    """The number that decides; the smallest ones are drawn. Rounded, so that every machine comes to the same."""
    drawn_by = f"wardpost-inspection-2\n{seed}" if seed else "wardpost-inspection"
    digest = hashlib.sha256(f"{drawn_by}\n{site}\n{week}\n{one.node}\n{one.ref}".encode()).digest()
    u = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
    return round(-math.log(u) / one.weight, 12)
