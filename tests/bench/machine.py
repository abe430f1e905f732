"""What the figures were measured on, and how much of it others used meanwhile."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """Processor, cores, system and Python."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
    }


class Others:
    """CPU time of the whole machine that was not ours: figures taken on a busy machine are worth less, and say so."""

    def __init__(self) -> None:
        self._busy_s, self._idle_s, self._own_s = _read()

    def share(self) -> float:
        """Since the beginning, 0..1 of the machine. Ended children count as ours."""
        busy_s, idle_s, own_s = _read()
        passed_s = busy_s - self._busy_s + idle_s - self._idle_s
        others_s = busy_s - self._busy_s - (own_s - self._own_s)
        # The kernel's counter of waiting for a disk may go back, and what passed be less than what was busy.
        return min(max(others_s, 0.0) / passed_s, 1.0) if passed_s > 0 else 0.0


def _read() -> tuple[float, float, float]:
    tick = os.sysconf("SC_CLK_TCK")
    fields = [int(value) / tick for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, idle, iowait, irq, softirq, steal = fields
    return user + nice + system + irq + softirq + steal, idle + iowait, sum(os.times()[:4])
