"""The posts as a page asks for them: read and judged once for a few seconds, whoever asks. Any thread."""

from __future__ import annotations

import datetime as dt
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from agent.clock import Clock
from agent.station.posts.fleet import PostView, judge
from agent.station.posts.known import Known, Spot
from agent.station.posts.reader import PostsReader, read_spots
from agent.station.posts.searched import text_of
from agent.types import NS

KEPT_S = 5.0
SHARE = 0.1
"""Of the time, at most, that goes into reading and judging all posts: what takes long is kept longer."""
KEPT_S_MAX = 150.0
KEPT_MAX = 8


@dataclass(frozen=True, slots=True)
class _Reading:
    """All posts, as of a moment."""

    boot_ns: int
    utc_ns: int
    known: list[Known]


class PostsDesk:
    """Any thread; blocks for the reading where nothing is kept that is new enough. Raises Transient, Corrupt."""

    def __init__(
        self, engine: Engine, *, register: Callable[[], Mapping[str, Spot]], clock: Clock, zone: dt.tzinfo
    ) -> None:
        """`register`: house, pole and provider of each post, asked for anew each time (`registered`)."""
        self._reader = PostsReader(engine)
        self._register = register
        self._clock = clock
        self._zone = zone
        self._one = threading.Lock()  # who reads, or judges the whole site: the others wait for what he finds
        self._lock = threading.Lock()  # of what is below; never held for long
        self._read: _Reading | None = None
        self._kept: OrderedDict[frozenset[str] | None, tuple[int, list[PostView]]] = OrderedDict()
        self._cost_s = 0.0

    def views(self, only: frozenset[str] | None) -> list[PostView]:
        """All posts, by name; `only`: just these. Whoever may see some posts only is told nothing of the others: they
        are no evidence either. The same list as long as it is kept: KEPT_S, or where a `renew` takes long, so long that
        the next one can come in between, KEPT_S_MAX at most.
        """
        found = self._fresh(only)
        if found is not None:
            return found
        if only is not None:
            read = self._reading()
            return self._keep(only, read, [one for one in read.known if one.node in only])
        with self._one:
            found = self._fresh(None)  # whoever was before has read it
            return self._whole() if found is None else found

    def renew(self) -> float:
        """All posts anew, whatever is kept, which is given meanwhile; and made ready to be searched. How many seconds
        that took.
        """
        with self._one:
            began_ns = self._clock.boot_ns()
            for view in self._whole():
                text_of(view.post)
            return (self._clock.boot_ns() - began_ns) / NS

    def _whole(self) -> list[PostView]:
        """With `_one`."""
        began_ns = self._clock.boot_ns()
        read = self._anew()
        found = self._keep(None, read, read.known)
        with self._lock:
            self._cost_s = (self._clock.boot_ns() - began_ns) / NS
        return found

    def _reading(self) -> _Reading:
        """One that is new enough, whoever asked for it: a school's page costs none."""
        read = self._read
        if read is not None and self._is_fresh(read.boot_ns):
            return read
        with self._one:
            read = self._read
            return read if read is not None and self._is_fresh(read.boot_ns) else self._anew()

    def _anew(self) -> _Reading:
        """With `_one`."""
        boot_ns, utc_ns = self._clock.boot_ns(), self._clock.utc().utc_ns
        self._read = _Reading(boot_ns, utc_ns, self._reader.read(self._register(), now_utc_ns=utc_ns))
        return self._read

    def _fresh(self, only: frozenset[str] | None) -> list[PostView] | None:
        with self._lock:
            kept = self._kept.get(only)
        return kept[1] if kept is not None and self._is_fresh(kept[0]) else None

    def _is_fresh(self, boot_ns: int) -> bool:
        kept_s = min(max(KEPT_S, 2 * self._cost_s / SHARE), KEPT_S_MAX)
        return 0 <= self._clock.boot_ns() - boot_ns < kept_s * NS

    def _keep(self, only: frozenset[str] | None, read: _Reading, posts: list[Known]) -> list[PostView]:
        found = judge(posts, now_utc_ns=read.utc_ns, zone=self._zone)
        with self._lock:
            self._kept[only] = (read.boot_ns, found)
            self._kept.move_to_end(only)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        return found


def registered(root: str) -> Callable[[], Mapping[str, Spot]]:
    """Reads the register in a site's folder; an empty `root`: there is none, and nobody has neighbours."""
    return (lambda: read_spots(Path(root))) if root else dict
