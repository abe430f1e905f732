"""A camera's small second stream, only looked at. It comes and goes by itself and never harms the main stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agent.camera.demux import Container, LiveReader, Source
from agent.camera.session import Session
from agent.camera.vigilance import Order
from agent.clock import Clock
from agent.errors import WardpostError
from agent.types import NS, Frame, Packet

_log = logging.getLogger(__name__)

_RETRY_S_MIN = 2.0
_RETRY_S_MAX = 60.0
_PACKETS_PER_READ_MAX = 300  # bounds one `read`
_HOARD_PACKETS_MAX = 100


class MakeSession(Protocol):
    """Makes the session of an open container."""

    def __call__(self, container: Container, *, keeps: bool) -> Session: ...


class SubStream:
    """Opens the stream without waiting for it, reads it, and opens it again with back-off when it is lost. One thread.

    `tend` and `read` do not block but for decoding. Nothing here raises: whoever owns the main stream looks at that
    while this one is away.
    """

    def __init__(
        self,
        source: Source,
        *,
        clock: Clock,
        reader: Mapping[str, Any],
        stall_ns: int,
        make: MakeSession,
        make_reader: Callable[..., LiveReader] = LiveReader,
    ) -> None:
        """`reader`: options of a Container. After `stall_ns` without a packet the stream is lost."""
        self._source, self._clock, self._options = source, clock, dict(reader)
        self._stall_ns, self._make, self._make_reader = stall_ns, make, make_reader
        self._reader: LiveReader | None = None
        self._old: list[LiveReader] = []
        self.session: Session | None = None
        self._passed_over = 0  # as the reader counts
        self._look_ns: int | None = None  # a key frame that comes from then on is to be looked at
        self._heard_ns = 0  # when a packet came, or the opening began
        self._seeing = False  # frames have come from it
        self._retry_ns = 0
        self._retry_s = _RETRY_S_MIN
        self.losses = 0

    def tend(self, now_ns: int) -> bool:
        """Opens what is to be opened. Whether this stream is the one to look at now."""
        if self._reader is None:
            self._old = [reader for reader in self._old if reader.alive]
            if now_ns >= self._retry_ns and not self._old:
                self._reader = self._make_reader(self._source, self._clock, wakes=False, **self._options)
                self._heard_ns = now_ns
        elif now_ns - self._heard_ns > self._stall_ns + (0 if self._seeing else 9 * NS):
            self._lose(f"{self._source.shown}: no picture for {(now_ns - self._heard_ns) / NS:.0f} s", now_ns)
        return self._seeing

    def batch(self, s: float) -> None:
        """See LiveReader.batch."""
        if self._reader is not None:
            self._reader.batch(s)

    def read(self, order: Order, *, asleep: bool) -> list[Frame | Packet]:
        """The frames of what has arrived, by the order that the main stream's newest packet got.

        Asleep, packets lie in the reader until a key frame is to be looked at.
        """
        reader = self._reader
        if reader is None or not reader.is_open:
            return []
        items: list[Frame | Packet] = []
        try:
            if self.session is None:
                self.session = self._make(reader.wait_open(), keeps=False)
            self._heard_ns = max(self._heard_ns, reader.heard_ns)
            if asleep and self._seeing:
                items = self._doze(reader, self.session, order)
            else:
                items = self._fetch(reader, self.session, Order.WATCH)
        except WardpostError as error:
            self._lose(str(error), self._clock.boot_ns())
        if items and not self._seeing:
            self._seeing = True
            self._retry_s = _RETRY_S_MIN
            _log.info("%s: motion is looked for in this stream", self._source.shown)
        return items

    def _doze(self, reader: LiveReader, session: Session, order: Order) -> list[Frame | Packet]:
        if not reader.hoards:
            reader.hoards = True
            self._look_ns = None
        if order is Order.LOOK:
            self._look_ns = reader.heard_ns
            reader.fetch_now()
        if reader.waiting > _HOARD_PACKETS_MAX:  # few key frames: what is at hand must not become too much to catch up
            return self._fetch(reader, session, Order.SKIP)
        oldest_ns = reader.oldest_ns
        if self._look_ns is None or oldest_ns is None or oldest_ns < self._look_ns - NS:
            return []
        self._look_ns = None
        return self._fetch(reader, session, Order.LOOK)

    def _fetch(self, reader: LiveReader, session: Session, order: Order) -> list[Frame | Packet]:
        """Takes what has arrived. What lay there is decoded without being shown, but for its newest picture."""
        late = 0
        if order is Order.WATCH and reader.hoards:
            reader.hoards = False
            late = reader.waiting - 1
        items: list[Frame | Packet] = []
        for at in range(_PACKETS_PER_READ_MAX):
            got = reader.get(0.0)
            if got is None:
                break
            if reader.dropped != session.dropped_seen:
                session.dropped_seen = reader.dropped
                session.skip_to_keyframe()
            packet, now_ns = got
            if reader.passed_over != self._passed_over and packet.is_keyframe:
                self._passed_over = reader.passed_over
                session.passed_over()
            one = order
            if at < late or (order is Order.LOOK and not packet.is_keyframe):
                one = Order.SKIP
            items += session.take(packet, *session.stamps(packet, now_ns), order=one)
        return items

    def stop(self) -> None:
        """Lets go of the stream; `tend` opens it again at once."""
        self._drop()
        self._retry_ns = 0

    def _lose(self, why: str, now_ns: int) -> None:
        _log.warning("sub stream lost, the main stream is looked at: %s", why)
        self.losses += 1
        self._drop()
        self._retry_ns = now_ns + round(self._retry_s * NS)
        self._retry_s = min(self._retry_s * 2, _RETRY_S_MAX)

    def _drop(self) -> None:
        self.session = None
        self._seeing = False
        self._passed_over = 0
        if self._reader is not None:
            self._reader.stop()
            self._old.append(self._reader)
            self._reader = None
