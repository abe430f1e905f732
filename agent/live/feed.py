"""Access units on their way from the camera's thread to a viewer: what is recorded, as it is, from a key frame on.

`Gallery.offer` stands beside the recorder and costs nothing while nobody watches. It never blocks and never raises: a
viewer whose network is too slow loses pictures, up to the next key frame, and nobody else does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from agent.types import NS, Packet

WAITING_S_MAX = 2.0
WAITING_BYTES_MAX = 2 << 20


class Feed:
    """One viewer's queue. `offer` and `cut` from the camera's side, `take` from the viewer's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._packets: deque[Packet] = deque()
        self._bytes = 0
        self._whole = False  # what comes next continues what is in the queue, or was taken last
        self._newest_ns: int | None = None
        self._over = False
        self.wake: Callable[[], None] | None = None
        self.taken = 0
        self.dropped = 0
        self.reordered = False  # pictures are not sent in the order in which they are shown: WebRTC cannot carry that

    def offer(self, packet: Packet) -> None:
        """Adds a packet, or drops it: before the first key frame, and after a full queue up to the next one."""
        with self._lock:
            if self._over:
                return
            if self._packets and not self._has_room(packet):
                self.dropped += len(self._packets)
                self._clear()
            self._whole = self._whole or packet.keyframe
            if not self._whole:
                self.dropped += 1
                return
            if self._newest_ns is not None and packet.boot_ns < self._newest_ns:
                self.reordered = True
            self._newest_ns = packet.boot_ns
            self._packets.append(packet)
            self._bytes += len(packet.data)
        if self.wake is not None:
            self.wake()

    def take(self) -> Packet | None:
        """The oldest packet. Never blocks."""
        with self._lock:
            if not self._packets:
                return None
            packet = self._packets.popleft()
            self._bytes -= len(packet.data)
            self.taken += 1
            return packet

    def __len__(self) -> int:
        return len(self._packets)

    def cut(self) -> None:
        """Nothing of what waits may be shown any more, nor what comes."""
        with self._lock:
            self._over = True
            self._clear()

    def _clear(self) -> None:
        self._packets.clear()
        self._bytes, self._whole = 0, False

    def _has_room(self, packet: Packet) -> bool:
        late_ns = packet.dts_ns - self._packets[0].dts_ns
        return 0 <= late_ns <= WAITING_S_MAX * NS and self._bytes + len(packet.data) <= WAITING_BYTES_MAX


class Gallery:
    """Who is shown what is recorded. Any thread."""

    def __init__(self, record: Callable[[Packet], bool]) -> None:
        """`record`: the recorder's way in. It is always asked first, and its answer is what `offer` returns."""
        self._record = record
        self._lock = threading.Lock()
        self._feeds: tuple[Feed, ...] = ()  # replaced, never changed: the camera's thread reads it without the lock

    def offer(self, packet: Packet) -> bool:
        """To the recorder, then to whoever watches."""
        taken = self._record(packet)
        for feed in self._feeds:
            feed.offer(packet)
        return taken

    def add(self, feed: Feed) -> None:
        """From here on he sees."""
        with self._lock:
            self._feeds = (*self._feeds, feed)

    def remove(self, feed: Feed) -> None:
        """He sees nothing more."""
        feed.cut()
        with self._lock:
            self._feeds = tuple(one for one in self._feeds if one is not feed)

    def cut(self) -> None:
        """At once, for all."""
        with self._lock:
            feeds, self._feeds = self._feeds, ()
        for feed in feeds:
            feed.cut()
