"""`make bench`: what Wardpost costs, each figure beside a peer or a limit measured in the same run on the same machine.

One file a figure. A bench never fails for being slow: it reports, and the reader judges by the ratio and the target.
"""

from __future__ import annotations

from tests.bench import cpu, drain, endurance, event_bytes, fragment_cost, latency, proof, start
from tests.bench.figure import Measure

BENCHES: dict[str, Measure] = {
    "cpu": cpu.measure,
    "latency": latency.measure,
    "start": start.measure,
    "drain": drain.measure,
    "event-bytes": event_bytes.measure,
    "endurance": endurance.measure,
    "fragments": fragment_cost.measure,
    "verify": proof.measure,
}
