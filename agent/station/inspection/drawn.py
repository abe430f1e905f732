"""What was drawn in a week: out of the whole draw, and as it is kept apart from it. Pure.

A draw has all that it was drawn from, 7 MB at 70,000 posts, so that anybody can repeat it; who only wants to know what
was drawn reads a row of a few kilobytes. The row is made of the draw and names it by its SHA-256, which is on the audit
log, too: whoever doubts the one reads the other.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from agent.evidence.records import digest
from agent.station.inspection.sample import Candidate


@dataclass(frozen=True, slots=True)
class Drawn:
    """The sample of a week."""

    week: str
    posts: tuple[Candidate, ...]
    footage: tuple[Candidate, ...]
    of_posts: int
    of_footage: int
    of_senders: int  # posts out of which those of the files were drawn
    seed: str  # empty: of version 1, which drew out of the files of all posts
    sha256: str  # of the whole draw


def drawn_of(draw: str) -> Drawn:
    """Out of a whole draw, as it was written down."""
    told: dict[str, Any] = json.loads(draw)
    return Drawn(
        told["week"],
        tuple(Candidate(**one) for one in told["drawn_posts"]),
        tuple(Candidate(**one) for one in told["drawn_footage"]),
        len(told["posts"]),
        len(told["footage"]),
        len(told.get("senders", ())),
        str(told.get("seed", "")),
        digest(draw.encode()),
    )


def written(drawn: Drawn) -> str:
    """As it is kept apart, JSON."""
    return json.dumps(asdict(drawn), ensure_ascii=True, sort_keys=True)


def read_back(body: str) -> Drawn:
    """What `written` has written."""
    told: dict[str, Any] = json.loads(body)
    for name in ("posts", "footage"):
        told[name] = tuple(Candidate(**one) for one in told[name])
    return Drawn(**told)
