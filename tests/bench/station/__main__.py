"""`python -m tests.bench.station`: as `python -m tests.bench`, of the station; its report is DIR/bench-station.json."""

from __future__ import annotations

import sys

from tests.bench.__main__ import main
from tests.bench.figure import Measure
from tests.bench.station import backlog, delivery, first_second, intake, pages

STATION_BENCHES: dict[str, Measure] = {
    "intake": intake.measure,
    "backlog": backlog.measure,
    "delivery": delivery.measure,
    "pages": pages.measure,
    "first-second": first_second.measure,
}

if __name__ == "__main__":
    sys.exit(main(benches=STATION_BENCHES, report="bench-station.json", prog="python -m tests.bench.station"))
