"""Retention of the archive beside the station: what is due goes, and what a cut has left over is finished first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from agent.errors import Transient

LOOK_S = 600.0
SWEEP_S = 20.0
"""Between two looks at what people have confirmed."""
BATCHES_MAX = 20
"""Of one step: the intake writes to the same database."""

log = logging.getLogger(__name__)


class Desk(Protocol):
    """agent.station.archive_retention_desk.RetentionDesk, as far as it is used here."""

    @property
    def clock_trusted(self) -> bool: ...
    def remove_due(self) -> int: ...
    def sweep(self) -> int: ...


class RetentionWorker:
    """`agent.worker.Worker`."""

    name = "archive retention"
    step_s_max = 600.0

    def __init__(self, *, make: Callable[[], Desk], by_age: bool) -> None:
        """`make` opens the audit log; `by_age`: footage goes by its age, so the clock matters."""
        self._make = make
        self._by_age = by_age
        self._desk: Desk | None = None
        self._look_at = 0.0
        self._said = False

    def open(self) -> None:
        """Raises Transient, Corrupt."""
        self._desk = self._make()

    def step(self, now: float) -> float:
        """Bounded. Raises Transient while database or archive cannot be had: what is left is done later."""
        desk = self._desk
        if desk is None:
            raise Transient("archive retention is not open")
        for _ in range(BATCHES_MAX):
            swept = desk.sweep()
            if not swept:
                break
            log.info("retention: %d files were taken out of the archive", swept)
        else:
            return now
        if now < self._look_at:
            return now + SWEEP_S
        self._tell(desk)
        gone = desk.remove_due()
        if gone:
            log.info("retention: %d files are due; their tombstones are on record", gone)
            return now
        self._look_at = now + LOOK_S
        return now + SWEEP_S

    def _tell(self, desk: Desk) -> None:
        """Once, until it is otherwise: nobody should wonder why nothing goes."""
        waits = self._by_age and not desk.clock_trusted
        if waits and not self._said:
            log.warning(
                "retention: nobody vouches for this machine's clock: nothing goes by its age until somebody does"
                " (archive.trust_clock)"
            )
        self._said = waits

    def close(self) -> None:
        """Nothing is lost: what is to be taken away stands in the database."""
        self._desk = None
