"""The station's hand in settings: publishes what is desired, retained, and writes down what nodes report.

A desired revision is published once, for whoever comes for it, however late. A broker may lose it, and some keep
nothing: so it is published again, ever more rarely, while its node is heard and has not judged it. It costs its size
at each connection of the node; a node.toml with all its comments has 15 KiB.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet

from agent import wire
from agent.clock import Clock
from agent.station.settings_book import SettingsBook, Wanted, answered

RESEND_S = 30.0
RESEND_S_MAX = 3600.0
PUBLISHED_AT_ONCE_MAX = 50
"""In one step: some two megabytes at most."""


class FleetSettings:
    """One thread. Raises Transient when the disk refuses, or the connection is gone."""

    def __init__(self, book: SettingsBook, *, clock: Clock, site: str, nodes_max: int = 10_000) -> None:
        self._book, self._clock, self._site, self._nodes_max = book, clock, site, nodes_max
        self._told: dict[str, wire.SettingsState] = {}
        self._sent: dict[str, tuple[int, int, float]] = {}  # node -> revision, how often, when

    def open(self) -> None:
        self._book.open()
        self._told = {node: told for node, (told, _) in self._book.reported().items()}

    def close(self) -> None:
        self._book.close()

    def hears(self, node: str, told: wire.SettingsState) -> None:
        """By `config/reported` or a heartbeat."""
        known = self._told.get(node)
        if known == told or (known is None and len(self._told) >= self._nodes_max):
            return
        self._book.report(node, told, utc_ns=self._clock.utc().utc_ns)
        self._told[node] = told

    def step(self, now: float, *, heard: AbstractSet[str], publish: Callable[[str, bytes], None]) -> None:
        """Publishes what is due. `heard`: nodes that are there. `publish` retains."""
        count = 0
        for wanted in self._book.wanted():
            if count >= PUBLISHED_AT_ONCE_MAX:
                return
            if not self._due(wanted, now, wanted.node in heard):
                continue
            payload = self._book.payload(wanted.node, wanted.revision)
            if payload is None:
                continue
            publish(wire.Topics(self._site, wanted.node).desired, payload)
            count += 1
            revision, often, _ = self._sent.get(wanted.node, (0, 0, 0.0))
            self._sent[wanted.node] = (wanted.revision, often + 1 if revision == wanted.revision else 1, now)
            if not wanted.published:
                self._book.published(wanted.node, wanted.revision)

    def _due(self, wanted: Wanted, now: float, heard: bool) -> bool:
        if not wanted.published:
            return True
        if not heard or answered(wanted, self._told.get(wanted.node)):
            return False
        revision, often, sent_s = self._sent.get(wanted.node, (0, 0, 0.0))
        if revision != wanted.revision:
            return True
        return now - sent_s >= min(RESEND_S * 2.0 ** (often - 1), RESEND_S_MAX)
