"""What a post is looked for in. Pure."""

from __future__ import annotations

from functools import lru_cache

from agent.station.posts.known import Known
from agent.station.search.meaning import fold

FOLDED_MAX = 100_000
"""Posts whose words are kept as they are searched; some 400 bytes each."""


def text_of(post: Known) -> str:
    """Name, place, house and pole, as `fold` makes them."""
    return _text(post.node, post.place, post.spot.house, post.spot.pole)


@lru_cache(maxsize=FOLDED_MAX)
def _text(*words: str) -> str:
    """Kept, for folding takes some microseconds, and a station has tens of thousands of posts."""
    return fold(" ".join(words))
