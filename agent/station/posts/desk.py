"""The posts as a page asks for them: read and judged once for a few seconds, whoever asks. Any thread."""

from __future__ import annotations

import datetime as dt
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy import Engine

from agent.clock import Clock
from agent.station.posts.fleet import PostView, judge
from agent.station.posts.known import Known, Spot
from agent.station.posts.reader import PostsReader, read_spots
from agent.types import NS

KEPT_S = 5.0
KEPT_MAX = 8


class PostsDesk:
    """Blocks for the reading, one reader at a time. Raises Transient, Corrupt."""

    def __init__(
        self, engine: Engine, *, register: Callable[[], Mapping[str, Spot]], clock: Clock, zone: dt.tzinfo
    ) -> None:
        """`register`: house, pole and provider of each post, asked for anew each time (`registered`)."""
        self._reader = PostsReader(engine)
        self._register = register
        self._clock = clock
        self._zone = zone
        self._lock = threading.Lock()
        self._read: tuple[int, int, list[Known]] | None = None
        self._kept: OrderedDict[frozenset[str] | None, tuple[int, list[PostView]]] = OrderedDict()

    def views(self, only: frozenset[str] | None) -> list[PostView]:
        """All posts, by name; `only`: just these. Whoever may see some posts only is told nothing of the others: they
        are no evidence either.
        """
        with self._lock:
            kept = self._kept.get(only)
            if kept is not None and 0 <= self._clock.boot_ns() - kept[0] < KEPT_S * NS:
                return kept[1]
            read_ns, now_ns, known = self._known()
            found = judge(
                [one for one in known if only is None or one.node in only], now_utc_ns=now_ns, zone=self._zone
            )
            self._kept[only] = (read_ns, found)
            self._kept.move_to_end(only)
            while len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
            return found

    def _known(self) -> tuple[int, int, list[Known]]:
        """When it was read, by both clocks, and what: for whoever asks, so that a school's page costs no reading."""
        if self._read is None or not 0 <= self._clock.boot_ns() - self._read[0] < KEPT_S * NS:
            at_ns, now_ns = self._clock.boot_ns(), self._clock.utc().utc_ns
            self._read = at_ns, now_ns, self._reader.read(self._register(), now_utc_ns=now_ns)
        return self._read


def registered(root: str) -> Callable[[], Mapping[str, Spot]]:
    """Reads the register in a site's folder; an empty `root`: there is none, and nobody has neighbours."""
    return (lambda: read_spots(Path(root))) if root else dict
