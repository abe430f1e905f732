"""Which posts a page offers to be chosen: a bounded part of those that a person may see, found by name or place. And
the place of any one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from sqlalchemy import Engine, func, select

from agent.clock import Clock
from agent.station.db.engine import reading
from agent.station.db.tables import node
from agent.station.people.roles import Scope
from agent.station.posts.docked import docked_only
from agent.station.search.meaning import fold
from agent.types import NS

OFFERED_MAX = 100
"""Posts on one page: of tens of thousands nobody reads a list, and it would be megabytes."""
FIND_CHARS_MAX = 60
KEPT_S = 60.0
"""So long the names of a whole site are kept to look in, or until a post is heard that is new: a place that was given
another name is found by it a minute later.
"""
NOTHING: Mapping[str, str] = MappingProxyType({})
_COUNT = select(func.count()).select_from(node)


@dataclass(frozen=True, slots=True)
class Offered:
    """`posts`: places by name; `more`: how many others there are that fit."""

    posts: dict[str, str]
    more: int


@dataclass(frozen=True, slots=True)
class _Named:
    place: str
    text: str  # name and place as they are looked in


class Choosing:
    """Any thread. Raises Transient."""

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Named] = {}
        self._kept_boot_ns = 0

    def places(self, scope: Scope, names: Iterable[str]) -> dict[str, str]:
        """The places of these posts, by name, in the order of the names; without those that are not known here - nobody
        has heard them, or docked a card of theirs - or not for these eyes. The caller bounds how many.
        """
        wanted = sorted({name for name in names if scope.covers(name)})
        if not wanted:
            return {}
        with reading(self._engine, "look for posts") as db:
            rows = db.execute(select(node.c.node, node.c.place).where(node.c.node.in_(wanted)))
            found = {str(name): str(place) for name, place in rows}
            unheard = [name for name in wanted if name not in found]
            found |= dict.fromkeys(docked_only(db, unheard) if unheard else (), "")
        return dict(sorted(found.items()))

    def offered(self, scope: Scope, find: str = "", chosen: Mapping[str, str] = NOTHING) -> Offered:
        """What is chosen - places by name, of `places` - and then the first OFFERED_MAX posts of a scope, or of those
        in whose name or place `find` stands, however it is written: `truong` finds `Trường`.
        """
        part = fold(find[:FIND_CHARS_MAX])
        first, count = self._fitting(scope, part)
        behind = sum(1 for name, place in chosen.items() if name not in first and part in _text(name, place))
        return Offered({**chosen, **{n: p for n, p in first.items() if n not in chosen}}, count - len(first) - behind)

    def _fitting(self, scope: Scope, part: str) -> tuple[dict[str, str], int]:
        """The first ones, and how many there are."""
        if not scope.whole_site:
            every = self.places(scope, scope.posts)
            return _first({name: place for name, place in every.items() if part in _text(name, place)})
        if part:
            return _first({name: one.place for name, one in self._site().items() if part in one.text})
        with reading(self._engine, "look for posts") as db:
            rows = db.execute(select(node.c.node, node.c.place).order_by(node.c.node).limit(OFFERED_MAX)).all()
            count, unheard = int(db.execute(_COUNT).scalar_one()), docked_only(db)
        every = {str(name): str(place) for name, place in rows} | dict.fromkeys(unheard, "")
        return _first(dict(sorted(every.items())))[0], count + len(unheard)

    def _site(self) -> dict[str, _Named]:
        """Every post. What was told of one before is not folded again."""
        with self._lock, reading(self._engine, "look for posts") as db:
            now = self._clock.boot_ns()
            unheard = docked_only(db)
            count = int(db.execute(_COUNT).scalar_one()) + len(unheard)
            if count != len(self._kept) or not 0 <= now - self._kept_boot_ns < KEPT_S * NS:
                before = self._kept
                every = {str(name): str(place) for name, place in db.execute(select(node.c.node, node.c.place))}
                self._kept = {
                    name: known
                    if (known := before.get(name)) is not None and known.place == place
                    else _Named(place, _text(name, place))
                    for name, place in sorted((every | dict.fromkeys(unheard, "")).items())
                }
                self._kept_boot_ns = now
            return self._kept


def _text(name: str, place: str) -> str:
    return fold(f"{name} {place}")


def _first(found: dict[str, str]) -> tuple[dict[str, str], int]:
    return dict(islice(found.items(), OFFERED_MAX)), len(found)
