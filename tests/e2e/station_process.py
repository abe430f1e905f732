"""The real station as a process of its own: python -m tests.e2e.station_process FOLDER BROKER_URL [--bug ack-first]."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
import threading
from pathlib import Path

from agent.clock import SystemClock
from agent.station.intake import EventIn
from agent.station.main import BrokerSettings, DeskSettings, Station, StationSettings
from agent.station.store import Batch, StationStore, Stored

LATE_BATCHES = 10
"""One alone may hold no event, or one whose receipt has not reached the node when the station is killed."""


class AckFirst(StationStore):
    """A planted bug: says that a batch is stored and stores it LATE_BATCHES later. For proving that the suite notices."""

    _later: tuple[Batch, ...] = ()

    def commit(self, batch: Batch) -> list[Stored]:
        self._later = (*self._later, batch)
        if len(self._later) > LATE_BATCHES:
            before, *later = self._later
            self._later = tuple(later)
            super().commit(before)
        found: dict[tuple[str, str], list[int]] = {}
        for intake in batch.taken:
            if isinstance(intake, EventIn):
                found.setdefault((intake.node, intake.epoch), []).append(intake.sequence)
        return [Stored(*key, sequences, 0) for key, sequences in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("broker")
    parser.add_argument("--bug", default="")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = StationSettings(
        station=DeskSettings(site="ward-7", id="hq", data=str(args.folder)),
        broker=BrokerSettings(brokers=(args.broker,), keepalive_s=5, backoff_s_max=1.0),
    )
    station = Station(settings, clock=SystemClock(), rng=random.Random())
    if args.bug == "ack-first":
        station.worker._store = station.store = AckFirst(args.folder, clock=SystemClock(), site="ward-7")
    station.run(stop)


if __name__ == "__main__":
    main()
