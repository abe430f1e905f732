"""A clock that a test drives. It holds state as the real one does and keeps the same promises."""

from __future__ import annotations

import threading

from agent.types import NS, UtcReading


class FakeClock:
    """`agent.clock.Clock` without time: `advance` moves it, `wait` moves it by the whole timeout at once.

    Safe from any thread, so that a test may drive workers that have threads of their own.
    """

    def __init__(
        self,
        *,
        boot_id: str = "f" * 32,
        boot_ns: int = 1_000 * NS,
        utc_ns: int = 1_700_000_000 * NS,
        unc_ns: int | None = 5_000_000,
    ) -> None:
        """`boot_ns` and `utc_ns` name the same moment; `unc_ns` None is a wall clock that nobody vouches for."""
        self._lock = threading.Lock()
        self._boot_id = boot_id
        self._boot_ns = boot_ns
        self._utc_ns = utc_ns
        self._unc_ns = unc_ns
        self._boots = 1

    @property
    def boot_id(self) -> str:
        with self._lock:
            return self._boot_id

    def boot_ns(self) -> int:
        with self._lock:
            return self._boot_ns

    def utc(self) -> UtcReading:
        with self._lock:
            return UtcReading(self._utc_ns, self._unc_ns, "unsynchronised" if self._unc_ns is None else "ntp")

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Time passes at once. A set event costs no time, as with the real clock."""
        if not event.is_set():
            self.advance(max(timeout_s, 0.0))
        return event.is_set()

    def advance(self, seconds: float) -> None:
        """Lets time pass: boot time and UTC alike."""
        if seconds < 0:
            raise ValueError(f"time never goes back, not even by {-seconds} s; use step_utc for a wrong wall clock")
        with self._lock:
            self._boot_ns += round(seconds * NS)
            self._utc_ns += round(seconds * NS)

    def advance_to(self, boot_ns: int) -> None:
        """Lets time pass until `boot_ns`; an earlier time is ignored."""
        with self._lock:
            step_ns = max(boot_ns - self._boot_ns, 0)
            self._boot_ns += step_ns
            self._utc_ns += step_ns

    def step_utc(self, seconds: float) -> None:
        """Sets the wall clock forward or back, as NTP does; boot time does not notice."""
        with self._lock:
            self._utc_ns += round(seconds * NS)

    def set_unc(self, unc_ns: int | None) -> None:
        """Changes what the kernel says about the wall clock's error."""
        with self._lock:
            self._unc_ns = unc_ns

    def reboot(self, off_s: float = 0.0) -> None:
        """The machine was off for `off_s`: another boot id, boot time from zero, UTC has gone on."""
        with self._lock:
            self._boots += 1
            self._boot_id = f"{self._boots:032x}"
            self._boot_ns = 0
            self._utc_ns += round(off_s * NS)


class StandingClock(FakeClock):
    """A FakeClock for programs whose threads run by themselves: who waits waits a moment of real time, and the clock
    stands until the test moves it. With `wait` as above, a thread that polls would make days fly past.
    """

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.wait(min(max(timeout_s, 0.0), MOMENT_S))


MOMENT_S = 0.05
"""Real time: the longest that a StandingClock keeps anybody."""
