"""From a worker's event to the outbox. An event that cannot be stored now is kept in memory and tried again: loudly."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from agent.errors import WardpostError
from agent.store.store import Store
from agent.types import Event

PENDING_EVENTS_MAX = 500

log = logging.getLogger(__name__)


class Reporter:
    """Commits events for every worker. Any thread; blocks for one transaction; never raises for lack of disk."""

    def __init__(self, store: Store, *, committed: Callable[[], None] | None = None) -> None:
        """`committed` is called after each commit, to wake the uplink; the uplink is made later and sets it itself."""
        self._store = store
        self.committed = committed
        self._pending: deque[Event] = deque()
        self._lock = threading.Lock()
        self.refused = 0  # events lost because the disk refused them and memory was full

    def __call__(self, events: Sequence[Event]) -> None:
        """Stores `events` after those that still wait."""
        with self._lock:
            for event in events:
                if len(self._pending) >= PENDING_EVENTS_MAX:
                    self.refused += 1
                    log.critical(
                        "event lost: the disk refuses and %d events wait in memory: %s", PENDING_EVENTS_MAX, event
                    )
                else:
                    self._pending.append(event)
            if not self._pending:
                return
            try:
                self._store.commit(list(self._pending))
            except WardpostError as error:
                log.error("%d events wait in memory: %s", len(self._pending), error)  # noqa: TRY400
                return
            self._pending.clear()
        if self.committed is not None:
            self.committed()

    def retry(self) -> None:
        """Tries again what the disk refused; the heartbeat calls this."""
        self([])

    @property
    def waiting(self) -> int:
        """Events that are only in memory."""
        return len(self._pending)
