"""The camera worker: keeps one camera running, hands on what it gives, and says so when it gives nothing.

A camera that cannot be opened, stalls, vanishes or sends rubbish is one case, not four: it is reported once, the
recorder is told, and the camera is opened again with back-off for as long as it takes.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.camera import Camera, CameraLost, CameraStuck, EndOfFootage
from agent.clock import Clock
from agent.errors import ConfigError
from agent.types import NS, Event, Frame, Kind, NewId, Packet, Phase, Priority
from agent.worker import FOREVER_S

_log = logging.getLogger(__name__)

SIGNAL_LOSS = "tns1:VideoSource/SignalLoss"  # the topic by which ONVIF names it
_BACKOFF_S_FIRST = 0.5
_RATE_WINDOW_NS = 5 * NS
_STAMPS_MAX = 1024  # bounds the window of the rate: 5 s of 120 fps and as many frames fit


@dataclass(frozen=True, slots=True)
class CameraStats:
    """The camera as the heartbeat tells it."""

    up: bool  # frames are coming
    fps: float  # pictures per second of the source, over the last 5 s
    frames: int  # given to vision since the start
    packets: int  # given to the recorder since the start
    restarts: int  # times the camera was lost
    newest_ns: int | None  # CLOCK_BOOTTIME when a frame or packet last arrived


class CameraWorker:
    """See `agent.worker.Worker`. Owns the camera: nobody else calls it.

    A CameraStuck is reported like any loss and then raised: only a new process helps (NeedsRestart).
    """

    name = "camera"
    step_s_max = 30.0  # opening takes 10 s, closing a few

    def __init__(
        self,
        *,
        camera: Camera,
        clock: Clock,
        packets: Callable[[Packet], object],
        frames: Callable[[Frame], object],
        report: Callable[[Event], None],
        lost: Callable[[int, str], None],
        new_id: NewId,
        rng: random.Random,
        stall_s: float = 4.0,
        read_s: float = 0.5,
        idle_s: float = 0.0,
        backoff_s_max: float = 10.0,
    ) -> None:
        """`packets`, `frames`, `report` and `lost` are called on the worker's thread and must not block.

        `lost(boot_ns, reason)`: after `boot_ns` there are no pictures, until packets come again. `read_s` bounds one
        step; `idle_s` is the pause after a read that gave nothing (a simulator reads with 0 and pauses instead).
        """
        self._camera = camera
        self._clock = clock
        self._packets = packets
        self._frames = frames
        self._report = report
        self._lost = lost
        self._new_id = new_id
        self._rng = rng
        self._stall_ns = round(stall_s * NS)
        self._read_s = read_s
        self._idle_s = idle_s
        self._backoff_s_max = backoff_s_max
        self._is_open = False
        self._over = False  # footage has ended and will not come back
        self._retry_ns = 0
        self._failures = 0  # in a row
        self._newest_ns: int | None = None  # arrival of the newest item
        self._last_ns = 0  # until when there are pictures
        self._told_lost = False  # the recorder knows
        self._incident: str | None = None
        self._since_ns = 0
        self._back_ns: int | None = None  # first frame after a loss
        self._stamps: deque[int] = deque(maxlen=_STAMPS_MAX)  # of packets
        self._frames_count = self._packets_count = self._restarts = 0
        self._stats = CameraStats(up=False, fps=0.0, frames=0, packets=0, restarts=0, newest_ns=None)

    @property
    def stats(self) -> CameraStats:
        """The newest counters. May be read from any thread."""
        return self._stats

    def open(self) -> None:
        """Does not touch the camera: a camera that is away when the node starts is no reason to fail."""
        self._is_open = False

    def step(self, now: float) -> float:
        """Opens the camera or reads from it once."""
        if self._over:
            return now + FOREVER_S
        now_ns = self._clock.boot_ns()
        if not self._is_open and now_ns < self._retry_ns:
            return max(self._retry_ns / NS, now)
        try:
            if not self._is_open:
                self._camera.open()
                self._is_open = True
                self._newest_ns = self._clock.boot_ns()
                return now
            items = self._camera.read(self._read_s)
        except EndOfFootage as end:
            self._over = True
            self._fail(str(end))
            return now + FOREVER_S
        except CameraStuck as stuck:
            self._fail(str(stuck))
            raise
        except (CameraLost, ConfigError) as error:
            return self._fail(str(error))
        except Exception as error:
            self._fail(f"{self._camera.name}: {type(error).__name__}: {error}")
            raise
        return self._took(items, now)

    def close(self) -> None:
        """Closes the camera. An incident stays open: the camera may well be lost still."""
        self._is_open = False
        self._camera.close()

    def _took(self, items: list[Frame | Packet], now: float) -> float:
        now_ns = self._clock.boot_ns()
        for item in items:
            self._last_ns = max(self._last_ns, item.boot_ns)
            if isinstance(item, Packet):
                self._packets_count += 1
                self._stamps.append(item.boot_ns)
                self._told_lost = False
                self._packets(item)
            else:
                self._frames_count += 1
                if self._incident is not None and self._back_ns is None:
                    self._back_ns = item.boot_ns
                self._frames(item)
        if items:
            self._newest_ns = now_ns
            self._settle()
        elif self._newest_ns is not None and now_ns - self._newest_ns >= self._stall_ns:
            seconds = (now_ns - self._newest_ns) / NS
            return self._fail(f"{self._camera.name}: no picture for {seconds:.0f} s; check its power and cable")
        self._count(now_ns, up=self._incident is None and self._frames_count > 0)
        return now if items else now + self._idle_s

    def _settle(self) -> None:
        """Ends the incident once frames have kept coming for `stall_s`: a flapping camera is one incident, not many."""
        if self._incident is None:
            if self._frames_count:
                self._failures = 0
            return
        if self._back_ns is None or self._last_ns - self._back_ns < self._stall_ns:
            return
        seconds = (self._back_ns - self._since_ns) / NS
        self._report(
            Event(
                incident=self._incident,
                kind=Kind.CAMERA,
                phase=Phase.ENDED,
                boot_ns=self._back_ns,
                priority=Priority.ALERT,
                summary=f"The camera is back after {seconds:.0f} s",
                since_ns=self._since_ns,
                onvif=SIGNAL_LOSS,
            )
        )
        self._incident, self._back_ns, self._failures = None, None, 0

    def _fail(self, reason: str) -> float:
        """The camera is lost. Returns when to try again."""
        now_ns = self._clock.boot_ns()
        _log.warning("camera lost: %s", reason)
        self._is_open = False
        self._camera.close()
        self._back_ns = None
        self._restarts += 1
        since_ns = self._last_ns or now_ns  # an interval starts where the pictures end, not where somebody noticed
        if not self._told_lost:
            self._told_lost = True
            self._lost(since_ns, reason)
        if self._incident is None:
            self._incident, self._since_ns = self._new_id(), since_ns
            self._report(
                Event(
                    incident=self._incident,
                    kind=Kind.CAMERA,
                    phase=Phase.STARTED,
                    boot_ns=since_ns,
                    priority=Priority.ALERT,
                    summary=f"The camera gives no pictures: {reason}",
                    since_ns=since_ns,
                    onvif=SIGNAL_LOSS,
                )
            )
        self._failures += 1
        longest_s = min(_BACKOFF_S_FIRST * 2 ** min(self._failures - 1, 16), self._backoff_s_max)
        self._retry_ns = now_ns + round(longest_s * self._rng.uniform(0.5, 1.0) * NS)
        self._count(now_ns, up=False)
        return self._retry_ns / NS

    def _count(self, now_ns: int, *, up: bool) -> None:
        while self._stamps and self._stamps[0] < now_ns - _RATE_WINDOW_NS:
            self._stamps.popleft()
        span_ns = self._stamps[-1] - self._stamps[0] if len(self._stamps) > 1 else 0
        self._stats = CameraStats(
            up=up,
            fps=round((len(self._stamps) - 1) * NS / span_ns, 1) if span_ns else 0.0,
            frames=self._frames_count,
            packets=self._packets_count,
            restarts=self._restarts,
            newest_ns=self._newest_ns if self._frames_count or self._packets_count else None,
        )
