"""From rows to send to MQTT messages: what goes alone, and what goes together. Pure.

A message costs its two ends and the broker the same whether it carries one event or fifty, so what waited goes in
batches. Alone and before them go alerts and bells, everything that is fresh, and what this connection has already
carried once without an answer: should one part of a batch be what keeps it from being taken, the others get through.

Ledger lines tell of what is past and nobody waits for them, so two of them are a batch already.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from agent import wire
from agent.store.store import OutboxRow
from agent.types import Priority

RECORD = "record"
"""The kind of a row that is a line of the ledger."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One MQTT message, and the rows that it carries."""

    rows: tuple[OutboxRow, ...]
    bodies: tuple[bytes, ...]

    @property
    def is_record(self) -> bool:
        """Lines of the ledger; else events."""
        return self.rows[0].kind == RECORD

    def topic(self, topics: wire.Topics) -> str:
        """Where it goes."""
        if len(self.rows) > 1:
            return topics.records if self.is_record else topics.events
        return topics.record if self.is_record else topics.event(self.rows[0].kind)

    def payload(self) -> bytes:
        """What goes there."""
        return wire.encode_batch(self.bodies) if len(self.bodies) > 1 else self.bodies[0]


def pack(
    rows: Sequence[OutboxRow],
    *,
    late: Callable[[OutboxRow], bool],
    alone: Collection[int],
    batch_events_max: int,
    batch_bytes_max: int,
) -> Iterator[Parcel]:
    """`rows` in the order in which they are to be sent, most urgent first; that order of priorities is kept.

    `late`: whether an event is to be marked historical. `alone`: sequence numbers that go by themselves.
    """
    for priority, of_one in groupby(rows, key=lambda row: row.priority):
        waiting: dict[bool, list[tuple[OutboxRow, bytes]]] = {False: [], True: []}
        for row in of_one:
            is_record, body, together = row.kind == RECORD, bytes(row.body), row.sequence not in alone
            if not is_record:
                was = late(row)
                body = wire.mark_historical(body) if was else body
                together = together and was and priority > Priority.ALERT
            if together:
                waiting[is_record].append((row, body))
            else:
                yield Parcel((row,), (body,))
        for parts in waiting.values():
            yield from _batches(parts, batch_events_max, batch_bytes_max)


def _batches(parts: Sequence[tuple[OutboxRow, bytes]], events_max: int, bytes_max: int) -> Iterator[Parcel]:
    """As few messages as the bounds allow, in order. A part that is larger than the bound goes by itself."""
    batch: list[tuple[OutboxRow, bytes]] = []
    size = 1  # the brackets; each part brings a comma, but the first
    for part in parts:
        if batch and (len(batch) >= events_max or size + len(part[1]) + 1 > bytes_max):
            yield _parcel(batch)
            batch, size = [], 1
        batch.append(part)
        size += len(part[1]) + 1
    if batch:
        yield _parcel(batch)


def _parcel(parts: Sequence[tuple[OutboxRow, bytes]]) -> Parcel:
    return Parcel(tuple(row for row, _ in parts), tuple(body for _, body in parts))
