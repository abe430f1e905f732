"""Nobody is shown a picture or an alert's page before it is on record who sees it; once for each session and alert."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from agent.station.people.trail import Trail
from agent.station.web.gate import Asked

REMEMBERED_MAX = 50_000
PER_LINE_MAX = 200


class Viewed:
    """Any thread. Raises Transient: then nothing may be shown."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def note(self, asked: Asked, seen: Iterable[tuple[str, str]], *, what: str) -> None:
        """`seen`: node and incident of each; `what`: `picture`, or `alert` for the whole page."""
        session = f"{asked.session}/{what}"
        with self._lock:
            new = [(node, incident) for node, incident in seen if (session, incident) not in self._known]
        if not new:
            return
        for first in range(0, len(new), PER_LINE_MAX):
            by_post: dict[str, list[str]] = {}
            for node, incident in new[first : first + PER_LINE_MAX]:
                by_post.setdefault(node, []).append(incident)
            self._trail.note("viewed", asked.who.login, address=asked.address, what=what, posts=by_post)
        with self._lock:
            for _, incident in new:
                self._known[session, incident] = None
            while len(self._known) > REMEMBERED_MAX:
                self._known.popitem(last=False)
