"""Where something happened: stretches of boot time around events, kept in memory, read from the store as it grows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Protocol

from agent.store.store import Moment
from agent.types import NS, Phase, Segment

ROWS_PER_LOOK = 5000
OPEN_MAX = 10_000
"""Incidents in progress that are remembered; of the oldest beyond them only the moments themselves are marked."""


class MarkedTime:
    """Stretches of boots, merged where they touch. One thread."""

    def __init__(self) -> None:
        self._boots: dict[str, tuple[list[int], list[int]]] = {}  # starts and ends, in order, apart from each other

    def add(self, boot_id: str, start_ns: int, end_ns: int) -> None:
        """Marks a stretch."""
        starts, ends = self._boots.setdefault(boot_id, ([], []))
        low, high = bisect_left(ends, start_ns), bisect_right(starts, end_ns)
        if low < high:
            start_ns, end_ns = min(start_ns, starts[low]), max(end_ns, ends[high - 1])
        starts[low:high] = [start_ns]
        ends[low:high] = [end_ns]

    def touches(self, segment: Segment) -> bool:
        """Whether any of the segment is marked."""
        starts, ends = self._boots.get(segment.boot_id, ([], []))
        at = bisect_left(ends, segment.start_ns)
        return at < len(starts) and starts[at] <= segment.end_ns

    def __len__(self) -> int:
        return sum(len(starts) for starts, _ in self._boots.values())


class Source(Protocol):
    """What the store tells. Raises Transient."""

    def moments(self, after: int, limit: int) -> list[Moment]: ...

    def unsent(self) -> list[Moment]: ...


class Marks:
    """What has happened since the store remembers (`store.event_rows_max`). One thread."""

    def __init__(self, source: Source, *, preroll_s: float, postroll_s: float) -> None:
        self._source = source
        self._before_ns = round(preroll_s * NS)
        self._after_ns = round(postroll_s * NS)
        self._read = 0  # sequence number up to which the store was read
        self._time = MarkedTime()
        self._open: dict[str, tuple[str, int]] = {}  # incident -> where it began

    def catch_up(self) -> bool:
        """Reads some of what is new; False while there is more. Raises Transient."""
        moments = self._source.moments(self._read, ROWS_PER_LOOK)
        for moment in moments:
            self._mark(self._time, self._open, moment)
        if moments:
            self._read = moments[-1].sequence
        return len(moments) < ROWS_PER_LOOK

    def touches(self, segment: Segment) -> bool:
        """Whether the segment lies around an event."""
        return self._time.touches(segment)

    def unsent(self) -> MarkedTime:
        """Time around alerts that the station has not acknowledged. Raises Transient."""
        return self._around(self._source.unsent())

    def _around(self, moments: Iterable[Moment]) -> MarkedTime:
        found = MarkedTime()
        began: dict[str, tuple[str, int]] = {}
        for moment in moments:
            self._mark(found, began, moment)
        return found

    def _mark(self, time: MarkedTime, began: dict[str, tuple[str, int]], moment: Moment) -> None:
        """From the phase before to this one: what lies between belongs to the incident."""
        start_ns = moment.boot_ns
        before = began.pop(moment.incident, None)
        if before is not None and before[0] == moment.boot_id:
            start_ns = min(before[1], start_ns)
        time.add(moment.boot_id, start_ns - self._before_ns, moment.boot_ns + self._after_ns)
        if moment.phase != Phase.ENDED.value:
            began[moment.incident] = (moment.boot_id, moment.boot_ns)
            if len(began) > OPEN_MAX:
                del began[next(iter(began))]
