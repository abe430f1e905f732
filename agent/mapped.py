"""Memory of mapped files, given back once a program has started.

A program's libraries are mapped, and what their start reads stays resident long after: tens of megabytes that are never
looked at again. The kernel takes such pages back when memory is short, by then at the cost of whoever needs it. Given
back early they are free from the beginning; what is still needed comes back from the page cache, a page at a time.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_MADV_DONTNEED = 4  # madvise(2), Linux
_AREA = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ [1-9]\d*\s+(/.*)")  # proc_pid_smaps(5); with an inode

_READ_ONLY = ("r--p", "r-xp")  # and private: what is shared may be a device's


def give_back() -> float:
    """Drops every page that is a mere copy of its file. Returns how many 10^6 bytes that were; 0 where it cannot be.

    Only of private areas that cannot be written and of which no page is the process's own (relocated addresses are).
    Takes some 10 ms. Never raises; any thread.
    """
    given = 0
    try:
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for low, high, resident_bytes in _clean(Path("/proc/self/smaps").read_text(encoding="utf-8")):
            if advise(low, high - low, _MADV_DONTNEED) == 0:
                given += resident_bytes
    except (OSError, AttributeError, ValueError):
        return 0.0  # not Linux as we know it: the memory stays in use
    return given / 1e6


def _clean(smaps: str) -> list[tuple[int, int, int]]:
    """First address, end and resident bytes of each area that is a mere copy of a file."""
    found: list[tuple[int, int, int]] = []
    area: re.Match[str] | None = None
    resident = 0
    for line in smaps.splitlines():
        key, _, value = line.partition(":")
        if key == "Rss":
            resident = int(value.split()[0]) * 1024
        elif key == "Anonymous" and area is not None:
            if value.split()[0] == "0" and area[3] in _READ_ONLY and resident:
                found.append((int(area[1], 16), int(area[2], 16), resident))
            area = None
        elif "-" in key.split(" ", 1)[0]:
            area, resident = _AREA.fullmatch(line), 0
    return found
