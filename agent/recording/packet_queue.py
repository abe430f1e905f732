"""Access units on their way from the camera's thread to the recorder's: bounded in seconds and in bytes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.types import NS, Cause, EndReason, Packet


@dataclass(frozen=True, slots=True)
class Break:
    """A hole in the stream of packets: what comes after it does not continue what was before."""

    boot_ns: int  # the first moment that is missing, as far as is known
    cause: Cause
    detail: str
    end_reason: EndReason  # of the segment before


class PacketQueue:
    """Packets and breaks in order. `offer` and `lost` never block on the disk and never raise; any thread.

    When full, what arrives is dropped up to a key frame that finds the queue half empty, so that footage has few long
    holes rather than many short ones; a Break stands for what was dropped.
    """

    def __init__(self, *, s_max: float, bytes_max: int, whole_s: float, whole_bytes: int) -> None:
        """`wake` is called when a key frame comes, and after `whole_s` of footage or `whole_bytes` without one.

        These should be what makes a fragment whole: whoever is woken earlier has nothing to write, and waking a thread
        costs more than looking at a packet.
        """
        self._s_max_ns = round(s_max * NS)
        self._bytes_max = bytes_max
        self._whole_ns = round(whole_s * NS)
        self._whole_bytes = whole_bytes
        self._lock = threading.Lock()
        self._items: deque[Packet | Break] = deque()
        self._bytes = 0
        self._newest_ns = 0
        self._wake_ns = 0  # decoding time of the packet that called `wake` last ...
        self._wake_bytes = 0  # ... and what has come since
        self._dropping = False
        self.wake: Callable[[], None] | None = None
        self.dropped = 0  # packets, since the start

    def offer(self, packet: Packet) -> bool:
        """Adds a packet; False when it was dropped."""
        with self._lock:
            if self._dropping and not (packet.keyframe and self._has_room(packet, 0.5)):
                self.dropped += 1
                return False
            self._dropping = False
            if not self._has_room(packet, 1.0):
                self._dropping = True
                self.dropped += 1
                detail = "the disk was too slow: the queue in memory was full"
                self._append_break(Break(packet.boot_ns, Cause.STORAGE_FAULT, detail, EndReason.OVERRUN))
                return False
            self._items.append(packet)
            self._bytes += len(packet.data)
            self._newest_ns = packet.dts_ns
            self._wake_bytes += len(packet.data)
            wake = (
                packet.keyframe
                or abs(packet.dts_ns - self._wake_ns) >= self._whole_ns
                or self._wake_bytes >= self._whole_bytes
            )
            if wake:
                self._wake_ns, self._wake_bytes = packet.dts_ns, 0
        if wake and self.wake is not None:
            self.wake()
        return True

    def lost(self, boot_ns: int, reason: str) -> None:
        """The camera gives nothing any more, and why."""
        with self._lock:
            self._append_break(Break(boot_ns, Cause.CAMERA_FAULT, reason, EndReason.CAMERA))
        if self.wake is not None:
            self.wake()

    def paused(self, boot_ns: int, reason: str) -> None:
        """Nothing more is wanted from `boot_ns` on: the privacy switch."""
        with self._lock:
            self._append_break(Break(boot_ns, Cause.PRIVACY, reason, EndReason.PRIVACY))
        if self.wake is not None:
            self.wake()

    def _append_break(self, item: Break) -> None:
        """Breaks in a row are one: a camera that fails for hours must not fill the queue with its failures.

        But for one of privacy beside one that is not: a camera that fails behind the curtain has failed all the same.
        """
        before = self._items[-1] if self._items else None
        if isinstance(before, Break):
            alike = (before.cause is Cause.PRIVACY) == (item.cause is Cause.PRIVACY)
            if alike or (len(self._items) > 1 and isinstance(self._items[-2], Break)):
                return
        self._items.append(item)

    def _has_room(self, packet: Packet, share: float) -> bool:
        if self._bytes + len(packet.data) > self._bytes_max * share:
            return not self._items  # a single huge packet is taken all the same
        oldest = next((item for item in self._items if isinstance(item, Packet)), None)
        return oldest is None or packet.dts_ns - oldest.dts_ns <= self._s_max_ns * share

    def take(self) -> Packet | Break | None:
        """The oldest item. The recorder's thread only."""
        with self._lock:
            if not self._items:
                return None
            item = self._items.popleft()
            if isinstance(item, Packet):
                self._bytes -= len(item.data)
            return item

    def put_back(self, items: Sequence[Packet | Break]) -> None:
        """Returns items to the front, in their order: what a failing disk did not take.

        They were in the queue before, and are one fragment at most: so there is no bound here.
        """
        with self._lock:
            for item in reversed(items):
                self._items.appendleft(item)
                if isinstance(item, Packet):
                    self._bytes += len(item.data)

    @property
    def seconds(self) -> float:
        """Footage that waits."""
        with self._lock:
            oldest = next((item for item in self._items if isinstance(item, Packet)), None)
            return 0.0 if oldest is None else max(self._newest_ns - oldest.dts_ns, 0) / NS

    def __len__(self) -> int:
        return len(self._items)
