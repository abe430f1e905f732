"""Which outbox rows to send now: a sliding window over what the station has not yet acknowledged. Pure logic.

It works like TCP's: the station's receipts are the clock.

- At most `rows_max` rows and `bytes_max` bytes are sent and not receipted. The bytes bound what can lie in a slow
  line's buffers in front of the next alert: 256 KiB are 2 s at 1 Mbit/s.
- After a connect the window is small and grows by each row that is receipted, so that a thousand nodes that reconnect
  together do not flood a station.
- No receipt for `ack_timeout_s` although rows are out: the station is absent, or the broker lost what it took. The
  window falls back to one row, the probe, repeated with back-off up to `retry_s_max`: a broker that queues for an
  absent station must not be flooded. The next receipt opens the window again.
- One row without receipt while others get theirs is sent again alone, with back-off: a row that the station does not
  understand must not hold up the rest.
- The most urgent go first, and an alert that this connection has not yet carried does not wait for the window.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from agent.store.store import OutboxRow
from agent.types import Priority

START_ROWS = 10
RESERVE_ROWS = 20
"""Room beyond the window, for alerts only."""


@dataclass(slots=True)
class _Sent:
    at: float
    size: int


class Window:
    """Decides; it neither reads the outbox nor sends. Times are seconds of one clock. One thread."""

    def __init__(
        self, *, rows_max: int, bytes_max: int = 256 * 1024, ack_timeout_s: float = 10.0, retry_s_max: float = 60.0
    ) -> None:
        self._rows_max = rows_max
        self._bytes_max = bytes_max
        self._ack_timeout_s = ack_timeout_s
        self._retry_s_max = max(retry_s_max, ack_timeout_s)
        self.reset(0.0)

    def reset(self, now: float) -> None:
        """A new connection: nothing is on its way."""
        self._sent: dict[int, _Sent] = {}
        self._bytes = 0
        self._carried: set[int] = set()  # sent at least once on this connection
        self._strikes: dict[int, int] = {}  # rows overdue although receipts flow
        self._retry_at: dict[int, float] = {}
        self._probed: set[int] = set()  # probes of this silence, so that they take turns
        self._allowed = min(START_ROWS, self._rows_max)
        self._patience_s = self._ack_timeout_s
        self._heard = now
        self.silent = False  # the station does not answer
        self.again: frozenset[int] = frozenset()  # of the rows chosen last: those that this connection carried before

    @property
    def look_ahead(self) -> int:
        """How many rows of the outbox `select` wants to see that are not `in_flight`."""
        return self._rows_max + RESERVE_ROWS - len(self._sent) + min(len(self._retry_at), self._rows_max)

    @property
    def in_flight(self) -> Collection[int]:
        """Sequence numbers that are sent and not receipted."""
        return self._sent.keys()

    @property
    def unacknowledged(self) -> int:
        """Rows sent and not receipted."""
        return len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether `select` could send an ordinary row."""
        return len(self._sent) < self._allowed and self._bytes < self._bytes_max

    @property
    def wants_rows(self) -> bool:
        """Whether it is worth reading the outbox: a quarter of the window is free. A read costs the whole window."""
        return self.has_room and 4 * (self._allowed - len(self._sent)) >= self._allowed

    def due(self) -> float:
        """When `expire` has something to do next; infinity when nothing is on its way or in back-off."""
        times = [*self._retry_at.values()]
        if self._sent:
            times.append(self._heard + self._patience_s)
            if not self.silent:  # in a silence no row is overdue by itself: a time that has passed would be polled for
                times.append(min(sent.at for sent in self._sent.values()) + self._ack_timeout_s)
        return min(times, default=float("inf"))

    def receipt(self, ranges: Sequence[tuple[int, int]], now: float) -> None:
        """The station has committed these (inclusive ranges)."""
        covered = _covered(self._carried | self._sent.keys() | self._strikes.keys(), ranges)
        done = covered & self._sent.keys()
        for sequence in done:
            self._forget(sequence)
        self._carried -= covered
        for sequence in covered & self._strikes.keys():
            del self._strikes[sequence]
            self._retry_at.pop(sequence, None)
        # An answer of any kind ends a silence. It also opens the window by what it covers.
        self._heard = now
        self._patience_s = self._ack_timeout_s
        self._probed.clear()
        self.silent = False
        self._allowed = min(self._allowed + max(len(done), 1), self._rows_max)

    def expire(self, now: float) -> list[int]:
        """Notices what should have been acknowledged by now. Returns rows that are overdue although receipts flow."""
        for sequence in [s for s, at in self._retry_at.items() if now >= at]:
            del self._retry_at[sequence]
        if not self._sent:
            return []
        if now - self._heard >= self._patience_s:
            self._patience_s = min(self._patience_s * (2 if self.silent else 1), self._retry_s_max)
            self.silent = True
            self._allowed = 1
            self._heard = now
            self._sent.clear()
            self._bytes = 0
            return []
        if self.silent:
            return []
        overdue = [s for s, sent in self._sent.items() if now - sent.at >= self._ack_timeout_s]
        for sequence in overdue:
            self._forget(sequence)
            strikes = self._strikes.get(sequence, 0)
            self._strikes[sequence] = strikes + 1
            self._retry_at[sequence] = now + min(self._ack_timeout_s * 2**strikes, self._retry_s_max)
        return overdue

    def select(self, rows: Sequence[OutboxRow], now: float) -> list[OutboxRow]:
        """Of `rows` (the head of the outbox, most urgent first), those to send now; they count as sent.

        Rows in flight may be left out of `rows`.
        """
        seen = {row.sequence for row in rows} | self._sent.keys()
        self._carried &= seen
        for table in (self._strikes, self._retry_at):
            for sequence in [s for s in table if s not in seen]:
                del table[sequence]  # given up by the store
        chosen: list[OutboxRow] = []
        carried = frozenset(self._carried)
        for row in self._in_turn(rows):
            if row.sequence in self._sent or row.sequence in self._retry_at:
                continue
            fresh_alert = row.priority <= Priority.ALERT and row.sequence not in self._carried
            if self.has_room or (fresh_alert and len(self._sent) < self._rows_max + RESERVE_ROWS):
                if not self._sent:
                    self._heard = now
                self._sent[row.sequence] = _Sent(now, len(row.body))
                self._bytes += len(row.body)
                self._carried.add(row.sequence)
                if self.silent:
                    self._probed.add(row.sequence)
                chosen.append(row)
        self.again = carried & {row.sequence for row in chosen}
        return chosen

    def _in_turn(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """In a silence the probes take turns: should one row be poison, another breaks the silence."""
        if not self.silent:
            return list(rows)
        if all(row.sequence in self._probed for row in rows):
            self._probed.clear()
        return sorted(rows, key=lambda row: row.sequence in self._probed)

    def _forget(self, sequence: int) -> None:
        self._bytes -= self._sent.pop(sequence).size


def _covered(sequences: set[int], ranges: Sequence[tuple[int, int]]) -> set[int]:
    """Those of `sequences` that lie in one of the inclusive ranges, which may overlap."""
    found: set[int] = set()
    ordered = sorted(sequences)
    for low, high in ranges:
        found.update(ordered[bisect_left(ordered, low) : bisect_right(ordered, high)])
    return found
