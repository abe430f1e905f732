"""The `wardpost` command on a machine whose clock NTP keeps: python -m tests.e2e.synchronised run --config ...

Where tests run, nobody vouches for the clock, and a node then refuses whatever acts. All else is the real thing.
"""

from __future__ import annotations

import sys
import time

from agent import cli
from agent.clock import SystemClock
from agent.types import UtcReading

MODULE = "tests.e2e.synchronised"


def _utc(_self: SystemClock) -> UtcReading:
    return UtcReading(time.time_ns(), 1_000_000, "ntp")


if __name__ == "__main__":
    setattr(SystemClock, "utc", _utc)  # noqa: B010
    sys.exit(cli.main())
