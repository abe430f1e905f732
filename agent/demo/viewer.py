"""What a person at the station is told: its own file, read beside it, in the words of `wardpost watch`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import wire
from agent.errors import WardpostError
from agent.station.db.engine import FILE
from agent.station.reader import Reader
from agent.station.store import event_of
from agent.station.watch import say_event

ROWS_MAX = 500
_DATE = re.compile(r"^\d\d\.\d\d\.\d{4} ")
_UNVERIFIED = re.compile(r"^(\d\d:\d\d:\d\d) \(clock not verified\)")


@dataclass(frozen=True, slots=True)
class Line:
    """One event in words; `style` is one of the screen's."""

    text: str
    style: str


class Viewer:
    """Follows one station's file. One thread."""

    def __init__(self, station: Path) -> None:
        self._folder = station
        self._reader: Reader | None = None
        self._read = 0
        self.shown: list[str] = []  # ids of events, in the order in which they were told
        self.open: set[str] = set()  # incidents that have started and not ended, as far as was told
        self.visits: set[str] = set()  # incidents with a person

    def lines(self) -> Iterator[Line]:
        """What is new since the last call. Nothing while there is no station yet."""
        if self._reader is None and not self._find():
            return
        if self._reader is None:
            return
        for n, received_ns, node, kind, body in self._reader.events_after(self._read, ROWS_MAX):
            self._read = n
            event = event_of(body)
            if event is None:
                continue
            self.shown.append(event.id)
            if kind == "thumbnail":
                continue
            self._follow(event)
            alert = event.data.severity in ("bell", "alert")
            yield Line(
                shortened(say_event(node, kind, event, received_ns)),
                "late" if event.historical else "alert" if alert else "",
            )

    def close(self) -> None:
        """Lets go of the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _find(self) -> bool:
        if not (self._folder / FILE).is_file():
            return False
        reader = Reader(self._folder)
        try:
            reader.open()
        except WardpostError:
            return False  # the station is just making it
        self._reader = reader
        return True

    def _follow(self, event: wire.CloudEvent) -> None:
        if event.data.phase == "ended":
            self.open.discard(event.data.incident)
        else:
            self.open.add(event.data.incident)
        if event.data.label == "person":
            self.visits.add(event.data.incident)


def shortened(line: str) -> str:
    """Without the date, which is today's, and without the remark about the clock, which the demo makes once."""
    return _UNVERIFIED.sub(r"\1", _DATE.sub("", line))
