"""The only reader of time. Everything else is handed a Clock.

Canonical time is `(boot_id, CLOCK_BOOTTIME ns)`: it never steps, runs through suspend, and is the clock in which
libcamera stamps frames. UTC is a label with an error bound: timesyncd restores a *saved* clock at boot (systemd
issue 10620), so a plausible wall clock is worth nothing until the kernel says that it is disciplined.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import datetime as dt
import resource
import secrets
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.types import MS, NS, UtcReading

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """Time as the program may know it. Every method is cheap and may be called from any thread."""

    @property
    def boot_id(self) -> str:
        """Names this boot of the machine: 32 hex digits. Times of two boots cannot be compared."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME in nanoseconds. Never goes back, never steps."""

    def utc(self) -> UtcReading:
        """The wall clock and how far it may be wrong."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Blocks until `event` is set or `timeout_s` has passed; says whether it is set."""


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2), as far as it is read here, with room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),  # microseconds
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


class SystemClock:
    """The real clock of the machine."""

    def __init__(self) -> None:
        self._boot_id = _BOOT_ID.read_text().strip().replace("-", "")
        self._libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def utc(self) -> UtcReading:
        timex = _Timex()
        state = self._libc.adjtimex(ctypes.byref(timex))
        utc_ns = time.time_ns()
        if state < 0 or state == _TIME_ERROR:
            return UtcReading(utc_ns, None, "unsynchronised")
        return UtcReading(utc_ns, timex.maxerror * 1000, "ntp")

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(max(timeout_s, 0.0))


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor and elapsed time, in seconds."""

    cpu_s: float
    wall_s: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu_s - other.cpu_s, self.wall_s - other.wall_s)


class Usage:
    """What this process has cost so far. For figures, never for decisions."""

    def now(self) -> Spent:
        """All threads' processor time, and a monotonic clock."""
        return Spent(time.process_time(), time.monotonic())

    def cpu_ns(self) -> int:
        """Processor time of all threads in nanoseconds."""
        return time.process_time_ns()

    def rss_mb_max(self) -> float:
        """The most memory that was ever resident, in MB (getrusage(2) counts KiB on Linux)."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class MediaClock:
    """A clock that media drives: replay sets it to the time of each frame. Waiting is free and moves nothing.

    Deterministic: the boot id is fixed and UTC starts at `utc_ns`; without it at the Unix epoch, and nobody vouches.
    """

    def __init__(self, *, utc_ns: int | None = None) -> None:
        self._now_ns = 0
        self._utc_ns = utc_ns or 0
        self._unc_ns = None if utc_ns is None else 0

    @property
    def boot_id(self) -> str:
        return "0" * 32

    def boot_ns(self) -> int:
        return self._now_ns

    def advance_to(self, boot_ns: int) -> None:
        """Moves time forward to `boot_ns`; an earlier time is ignored, for time never goes back."""
        self._now_ns = max(self._now_ns, boot_ns)

    def utc(self) -> UtcReading:
        return UtcReading(self._utc_ns + self._now_ns, self._unc_ns, "media")

    def wait(self, event: threading.Event, timeout_s: float) -> bool:  # noqa: ARG002
        return event.is_set()


def uuid7_maker(clock: Clock, random_bits: Callable[[int], int] = secrets.randbits) -> Callable[[], str]:
    """A maker of UUIDv7 (RFC 9562, section 5.7): milliseconds of UTC, then random bits.

    Unique even when the wall clock is wrong: the 74 random bits do not depend on it. Safe from any thread.
    """

    def make() -> str:
        ms = max(clock.utc().utc_ns, 0) // MS & (1 << 48) - 1
        value = ms << 80 | 0x7 << 76 | random_bits(12) << 64 | 0b10 << 62 | random_bits(62)
        return str(uuid.UUID(int=value))

    return make


def rfc3339(utc_ns: int) -> str:
    """UTC with milliseconds, as on the wire: `2026-11-21T14:02:11.250Z`. Years outside 1..9999 are clamped."""
    lowest, highest = -62_135_596_800 * NS, 253_402_300_799 * NS
    seconds, rest_ns = divmod(min(max(utc_ns, lowest), highest), NS)
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    # isoformat, for glibc's %Y does not pad a year below 1000
    return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}.{rest_ns // MS:03d}Z"


def parse_rfc3339(text: str) -> int:
    """UTC nanoseconds of an ISO 8601 text; a text without a zone is taken in the machine's own zone.

    Raises ValueError with the text when it is not a time.
    """
    try:
        moment = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; write it like 2026-11-21T14:00 or 2026-11-21T14:00:00+07:00"
        ) from None
    delta = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return (delta.days * 86_400 + delta.seconds) * NS + delta.microseconds * 1000


def parse_asked(text: str) -> int:
    """As `parse_rfc3339`, for what somebody asks for: raises ValueError also where 64 bits of nanoseconds end, because
    SQLite refuses such a number.
    """
    ns = parse_rfc3339(text)
    if not -(1 << 63) <= ns < 1 << 63:
        raise ValueError(f"{text!r} is not a time that is kept here; years go from 1678 to 2261")
    return ns
