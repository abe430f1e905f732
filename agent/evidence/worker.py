"""From the journal to the ledger to the outbox: the only writer of the ledger while the node runs.

    facts of the store -> signed lines, one fdatasync -> one transaction: out of the journal, into the outbox
                          the outbox has no room for them  -> they wait on the ledger, which is their queue

A cut between the two leaves lines on the ledger whose facts are still in the journal: the boot path hands exactly those
over (agent.boot.open_ledger). So a fact is on the ledger once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from agent.errors import Corrupt, Transient
from agent.evidence.ledger import Ledger
from agent.evidence.receipts import ReceiptBook
from agent.evidence.receipts import read as read_receipt
from agent.evidence.records import Fact, LedgerLine
from agent.worker import Inbox, WhenFull

BATCH_S = 1.0
"""A batch is put down at most so often, unless it is urgent: an alarm, a sealed segment, a start or stop."""
BATCH_ROWS_MAX = 200
FORWARD_ROOM_MIN = 10
"""Room for fewer lines is not worth reading the ledger for."""
RETRY_S = 5.0
COMPLAIN_S = 60.0

log = logging.getLogger(__name__)


class Journal(Protocol):
    """The part of the store that the ledger needs. Raises Transient."""

    @property
    def record_rows(self) -> int: ...

    def facts(self, limit: int) -> list[Fact]: ...

    def hand_over(self, lines: list[LedgerLine]) -> None: ...

    def ledger_waiting(self) -> tuple[int, int] | None: ...

    def forward(self, lines: list[LedgerLine]) -> None: ...


class LedgerWorker:
    """See `agent.worker.Worker`. `notify` and `receipt` may be called from any thread; they never block."""

    name = "ledger"
    step_s_max = 60.0

    def __init__(self, *, ledger: Ledger, receipts: ReceiptBook, journal: Journal) -> None:
        """`ledger` and `receipts` are open: agent.boot.open_ledger."""
        self._ledger = ledger
        self._receipts = receipts
        self._journal = journal
        self.handed_over: Callable[[], None] | None = None  # told when there is something new in the outbox
        self._inbox: Inbox[str] = Inbox(8, WhenFull.DROP_OLDEST)  # a newer receipt says all that an older one says
        self._kept: list[LedgerLine] = []  # durable on the ledger, not handed over yet
        self._urgent = True
        self._wake: Callable[[], None] | None = None
        self._next_s = 0.0
        self._complained_s = -COMPLAIN_S

    def set_wake(self, wake: Callable[[], None]) -> None:
        """Whom to call when a step should come at once."""
        self._wake = wake

    def notify(self) -> None:
        """There is something urgent in the journal."""
        self._urgent = True
        if self._wake is not None:
            self._wake()

    def receipt(self, line: str) -> None:
        """The station has signed this."""
        self._inbox.put(line)

    def open(self) -> None:
        self._next_s = 0.0

    def step(self, now: float) -> float:
        """At most one batch. Comes back at once while there is more than a batch to put down."""
        if now < self._next_s and not self._urgent:
            return self._next_s
        self._urgent = False
        try:
            self._take_receipts(now)
            more = self._batch() or self._forward()
        except Transient as error:
            # Nothing is lost: the facts stay in the journal, and the store says what happens when that is full.
            self._complain(str(error), now)
            self._next_s = now + RETRY_S
            return self._next_s
        self._next_s = now if more else now + BATCH_S
        return self._next_s

    def close(self) -> None:
        try:
            while self._batch():
                continue
        except Transient as error:
            log.warning("ledger: %s; the rest follows at the next start", error)
        self._ledger.close()

    def _batch(self) -> bool:
        """Puts down what waits. True when there may be more."""
        if self._kept:
            self._hand_over()
        if not self._journal.record_rows:
            return False
        facts = self._journal.facts(BATCH_ROWS_MAX)
        newest = self._receipts.newest
        self._kept = self._ledger.append(facts, receipt=None if newest is None else newest.sha256)
        self._hand_over()
        return len(facts) == BATCH_ROWS_MAX

    def _forward(self) -> bool:
        """Lines that found no room in the outbox follow when there is some. True when there may be more."""
        waiting = self._journal.ledger_waiting()
        if waiting is None or waiting[1] < FORWARD_ROOM_MIN:
            return False
        first, room = waiting
        self._journal.forward(self._ledger.lines_from(first, min(room, BATCH_ROWS_MAX)))
        if self.handed_over is not None:
            self.handed_over()
        return True

    def _hand_over(self) -> None:
        self._journal.hand_over(self._kept)
        self._kept = []
        if self.handed_over is not None:
            self.handed_over()

    def _take_receipts(self, now: float) -> None:
        while (line := self._inbox.get()) is not None:
            try:
                said = read_receipt(line.encode()).payload
                self._receipts.add(line.encode(), self._ledger.head_of(said.seq))
            except Corrupt as error:
                self._complain(f"receipt dropped: {error}", now)

    def _complain(self, text: str, now: float) -> None:
        if now - self._complained_s >= COMPLAIN_S:
            self._complained_s = now
            log.error("ledger: %s", text)
