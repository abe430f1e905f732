"""What the machine under the agent says about itself: temperature, throttling, model, memory, disk.

Every reading is None when this machine does not have it. `root` is a path prefix, so that tests read a tree of files.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

VCGENCMD_S_MAX = 3.0

# Raspberry Pi documentation, "get_throttled": bits 0 to 3 are now, 16 to 19 are since boot.
_THROTTLED = (
    (0, "under-voltage"),
    (1, "frequency capped"),
    (2, "throttled"),
    (3, "soft temperature limit"),
    (16, "under-voltage since boot"),
    (17, "frequency capped since boot"),
    (18, "throttled since boot"),
    (19, "soft temperature limit since boot"),
)


def throttled_words(bits: int) -> list[str]:
    """The bits of get_throttled in words; an empty list means that all is well."""
    return [words for bit, words in _THROTTLED if bits >> bit & 1]


def power_words(throttled: list[str] | None) -> str | None:
    """What the power supply is to blame for, one text; empty: nothing; None: this machine does not tell."""
    return None if throttled is None else ", ".join(throttled)


def run_vcgencmd() -> str:
    """Output of `vcgencmd get_throttled`, as `throttled=0x50005`. Raises OSError or subprocess.SubprocessError."""
    return subprocess.run(
        ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=VCGENCMD_S_MAX, check=True
    ).stdout


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer. Any thread; each reading costs well under a millisecond, but for `vcgencmd` where it is needed."""

    root: Path = Path("/")
    vcgencmd: Callable[[], str] = run_vcgencmd

    def model(self) -> str:
        """As the device tree names it: "Raspberry Pi 4 Model B Rev 1.5"; else the architecture."""
        try:
            text = (self.root / "proc/device-tree/model").read_bytes().rstrip(b"\0\n").decode("utf-8", "replace")
        except OSError:
            text = ""
        return text[:100] or os.uname().machine

    def temperature_c(self) -> float | None:
        """The hottest thermal zone, in degrees Celsius."""
        found: list[float] = []
        for zone in sorted((self.root / "sys/class/thermal").glob("thermal_zone*/temp"))[:16]:
            try:
                found.append(int(zone.read_text()) / 1000)
            except (OSError, ValueError):
                continue  # a zone that is switched off answers with EINVAL
        return round(max(found), 1) if found else None

    def throttled(self) -> list[str] | None:
        """What the firmware complains of, now or since boot; None where there is no such firmware."""
        try:
            # The kernel's own door to the same word: no process to start, no /dev/vcio to open to the service.
            text = (self.root / "sys/devices/platform/soc/soc:firmware/get_throttled").read_text()
        except OSError:
            try:
                text = self.vcgencmd()
            except (OSError, subprocess.SubprocessError):
                return None
        try:
            return throttled_words(int(text.strip().rpartition("=")[2], 16))
        except ValueError:
            return None

    def memory_available_bytes(self) -> int:
        """What can still be given out without swapping."""
        return int(psutil.virtual_memory().available)

    def rss_bytes(self) -> int:
        """Resident memory of this process."""
        return int(psutil.Process().memory_info().rss)

    def load1(self) -> float:
        """Mean number of runnable threads over the last minute."""
        return round(os.getloadavg()[0], 2)
