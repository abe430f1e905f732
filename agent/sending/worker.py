"""The worker that brings footage to headquarters at its word: the original files, byte for byte, sealed ones too.

An order is held, on the disk and answered, in this order; so retention takes nothing of it, and a power cut costs at
most that some files are offered again, which the station knows and does not take twice. One chunk in a step, a pause
after it by the budget; while an alert waits for the station nothing is sent at all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from agent import state_file, tus, wire
from agent.clock import Clock, parse_rfc3339
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import records
from agent.recording.timeline import Timeline
from agent.sending import Depot, plan
from agent.sending.plan import Book, Sending
from agent.types import NS, Segment, TimeAnchor
from agent.worker import FOREVER_S

STATE = "sending.json"
STATE_BYTES_MAX = 16 << 20
SAVE_S = 30.0
"""So much of what has gone may be forgotten by a cut."""
ALERT_PAUSE_S = 0.5
LOOK_S = 5.0
RETRY_S = (2.0, 300.0)
CHUNK_S = 2.0
"""A chunk is what the budget gives in so long: an alert waits no longer behind it."""
CHUNK_BYTES_MIN = 16 * 1024
READ_FAILURES_MAX = 5
ASKER = "headquarters"

log = logging.getLogger(__name__)


class Index(Protocol):
    """What there is to send. Raises Transient."""

    def segments(self, *, garbage: bool = False) -> list[Segment]: ...

    def anchors(self) -> list[TimeAnchor]: ...


class Relevance(Protocol):
    """Where something happened (agent.recording.marks.Marks)."""

    def catch_up(self) -> bool: ...

    def touches(self, segment: Segment) -> bool: ...


class Holds(Protocol):
    """The part of HoldDesk that an order needs."""

    def hold(self, args: dict[str, Any], asker: str) -> dict[str, Any]: ...

    def release(self, args: dict[str, Any], asker: str) -> dict[str, Any]: ...


class FootageSender:
    """`agent.worker.Worker`. `take` may be called from any thread."""

    name = "sending"
    step_s_max = 120.0  # a token, an offer and a chunk, each with a connection that hangs

    def __init__(
        self,
        *,
        depot: Depot | None,
        disk: Disk,
        index: Index,
        marks: Relevance,
        holds: Holds,
        clock: Clock,
        bytes_per_s_max: float,
        writing: Callable[[], Segment | None],
        alerts_wait: Callable[[], bool],
        note: Callable[[bytes], None],
        reply: Callable[[wire.Reply], None],
    ) -> None:
        """`depot` None: this post sends none. `writing`: the file in progress; `alerts_wait`: one is not acknowledged.

        `note` puts a JSON object on the ledger; `reply` answers a command later. Both raise Transient.
        """
        self._depot, self._disk, self._index, self._marks, self._holds = depot, disk, index, marks, holds
        self._clock, self._rate = clock, bytes_per_s_max
        self._writing, self._alerts_wait, self._note, self._reply = writing, alerts_wait, note, reply
        self._chunk_bytes = min(max(round(bytes_per_s_max * CHUNK_S), CHUNK_BYTES_MIN), tus.CHUNK_BYTES_MAX)
        self._lock = threading.RLock()
        self._book: Book | None = None
        self._saved_s = 0.0
        self._unsaved = False
        self._queue: list[Segment] = []  # of the order at hand
        self._of = ""  # whose queue it is
        self._file: tuple[Segment, tus.Footage, int] | None = None  # on its way, with the offset
        self._failures = 0
        self._unread: dict[str, int] = {}
        self._not_before_s = 0.0
        self.wake: Callable[[], None] | None = None

    # -- from other threads -------------------------------------------------------------------------------------------

    def take(self, args: dict[str, Any]) -> dict[str, Any]:
        """The command `send`: `id`, `from`, `to`, `reason`. The same id again: how far it is. Raises WardpostError."""
        with self._lock:
            book = self._load()
            known = book.find(str(args.get("id")))
            if known is None:
                known = self._accept(book, args)
            if known.state == "failed":
                raise Corrupt(f"send: {known.detail}")
            return plan.told(known, len(self._queue) if self._of == known.id else 0)

    def _accept(self, book: Book, args: dict[str, Any]) -> Sending:
        if self._depot is None:
            raise ConfigError(
                "send: this post does not know where to: sending.url, and uplink.tls with its certificate"
            )
        if len(book.open) >= plan.ORDERS_MAX:
            raise ConfigError(f"send: {len(book.open)} orders are at work already; wait for their end")
        try:
            start_ns, end_ns = (parse_rfc3339(str(args.get(name))) for name in ("from", "to"))
        except ValueError as error:
            raise Corrupt(f"send: {error}") from None
        plan.check_range(start_ns, end_ns)
        self._holds.hold({name: args.get(name) for name in ("id", "from", "to", "reason")}, ASKER)
        try:
            order = msgspec.convert(
                {
                    "id": args.get("id"),
                    "start_utc_ns": start_ns,
                    "end_utc_ns": end_ns,
                    "reason": str(args.get("reason"))[:300],
                    "made_utc_ns": self._clock.utc().utc_ns,
                },
                Sending,
            )
        except msgspec.ValidationError as error:
            raise Corrupt(f"send: {error}") from None
        self._put(order, now=True)
        if self.wake is not None:
            self.wake()
        return order

    # -- what is remembered -------------------------------------------------------------------------------------------

    def _load(self) -> Book:
        if self._book is None:
            try:
                with self._disk.open(STATE) as file:
                    data = file.read(STATE_BYTES_MAX + 1)
                self._book = state_file.decode(data, Book, name=STATE, bytes_max=STATE_BYTES_MAX)
            except FileNotFoundError:
                self._book = Book()
            except Corrupt as error:  # the station asks again for what it has no answer to
                log.error("%s; the orders in it are taken anew when headquarters asks again", error)  # noqa: TRY400
                self._book = Book()
            except OSError as error:
                raise Transient(f"{self._disk.path(STATE)}: cannot be read: {error.strerror}") from None
        return self._book

    def _put(self, order: Sending, *, now: bool) -> None:
        """Remembers it; on the disk at once, or within SAVE_S of work. Raises Transient: then nothing has changed."""
        book = self._load().put(order)
        if now:
            self._save(book)
        self._book, self._unsaved = book, not now

    def _save(self, book: Book) -> None:
        self._disk.replace(STATE, msgspec.json.encode(book))
        self._saved_s, self._unsaved = self._now(), False

    # -- the worker ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        with self._lock:
            self._load()
        self._forget_file()

    def close(self) -> None:
        with self._lock, suppress(Transient):
            if self._book is not None and self._unsaved:
                self._save(self._book)
        self._forget_file()
        if self._depot is not None:
            self._depot.close()

    def step(self, now: float) -> float:
        with self._lock:
            orders = self._load().open
        if self._depot is None or not orders:
            return now + FOREVER_S
        if now < self._not_before_s:
            return self._not_before_s
        if self._alerts_wait():
            return now + ALERT_PAUSE_S
        try:
            wait_s = self._work(self._depot, orders)
        except Transient as error:
            low, high = RETRY_S
            wait_s = min(low * 2.0 ** min(self._failures, 16), high)
            self._failures += 1
            log.warning("%s; again in %.0f s", error, wait_s)
            self._forget_file()
            self._depot.close()
        self._not_before_s = now + wait_s
        return self._not_before_s

    def _work(self, depot: Depot, orders: Sequence[Sending]) -> float:
        """A chunk, an offer, or a look for the next file; in how many seconds to come again. Raises Transient."""
        if self._file is not None:
            return self._send_chunk(depot, *self._file)
        for order in orders:
            too_much = plan.too_much(order, self._clock.utc().utc_ns)
            if too_much:
                self._end(plan.given_up(order, too_much))
                return 0.0
            if self._of != order.id or not self._queue:
                self._queue, self._of = self._wanted(order), order.id
            if self._queue:
                self._offer(depot, order, self._queue[0])
                return 0.0
            if self._nothing_to_come(order):
                self._end(plan.over(order))
                return 0.0
        return LOOK_S

    def _wanted(self, order: Sending) -> list[Segment]:
        while not self._marks.catch_up():
            pass
        return plan.wanted(order, self._index.segments(), Timeline(self._index.anchors()), self._marks.touches)

    def _nothing_to_come(self, order: Sending) -> bool:
        """The range has passed, and the file in progress began after it."""
        writing = self._writing()
        if self._clock.utc().utc_ns < order.end_utc_ns:
            return False
        return writing is None or not plan.wanted(order, [writing], Timeline(self._index.anchors()), lambda _: False)

    def _offer(self, depot: Depot, order: Sending, segment: Segment) -> None:
        footage = tus.Footage(name=segment.name, sha256=segment.sha256, order=order.id)
        try:
            offset = depot.offer(footage, segment.bytes)
        except Corrupt as error:
            self._skip(order, segment, str(error))
            return
        self._failures = 0
        self._file = (segment, footage, offset)
        if offset == segment.bytes:
            self._arrived(segment)

    def _send_chunk(self, depot: Depot, segment: Segment, footage: tus.Footage, offset: int) -> float:
        with self._lock:
            order = self._load().find(self._of)
        if order is None:
            self._forget_file()
            return 0.0
        try:
            data = self._read(segment, offset)
            new = depot.send(footage, offset, data)
        except Corrupt as error:
            self._skip(order, segment, str(error))
            return 0.0
        self._failures = 0
        self._file = (segment, footage, new)
        if new == segment.bytes:
            self._arrived(segment)
        return len(data) / self._rate

    def _read(self, segment: Segment, offset: int) -> bytes:
        """The next chunk. Raises Corrupt for a file that is gone or short, or has not been readable READ_FAILURES_MAX
        times; Transient before.
        """
        count = min(self._chunk_bytes, segment.bytes - offset)
        try:
            with self._disk.open(segment.name) as file:
                file.seek(offset)
                data = file.read(count)
        except FileNotFoundError:
            raise Corrupt("it is not there any more") from None
        except (OSError, Transient) as error:
            tries = self._unread[segment.name] = self._unread.get(segment.name, 0) + 1
            if tries >= READ_FAILURES_MAX:
                del self._unread[segment.name]
                raise Corrupt(f"it cannot be read: {error}") from None
            raise Transient(f"send: {segment.name}: {error}") from None
        if len(data) < count:
            raise Corrupt("it is shorter than its record says")
        return data

    def _arrived(self, segment: Segment) -> None:
        """The station has all of it, durably."""
        self._leave(segment, lambda order: plan.sent(order, segment))

    def _skip(self, order: Sending, segment: Segment, why: str) -> None:
        log.error("send: %s does not go to headquarters (order %s): %s", segment.name, order.id, why)
        self._leave(segment, lambda now: plan.not_sent(now, segment, why))

    def _leave(self, segment: Segment, change: Callable[[Sending], Sending]) -> None:
        with self._lock:
            order = self._load().find(self._of)
            if order is not None:
                self._put(change(order), now=self._now() - self._saved_s >= SAVE_S)
            self._queue = [one for one in self._queue if one.name != segment.name]
        self._file = None

    def _end(self, order: Sending) -> None:
        """Lets go of what was held, puts on record what has left this post, then remembers the end and tells it.

        A cut before the end is remembered does it all once more: rather two records of one order than none.
        """
        with suppress(Corrupt):  # somebody has released it by hand, and that long ago
            self._holds.release({"hold": order.id}, ASKER)
        self._note(
            records.body(
                to="station",
                order=order.id,
                reason=order.reason,
                from_utc_ns=order.start_utc_ns,
                to_utc_ns=order.end_utc_ns,
                files=order.files,
                bytes=order.bytes,
            )
        )
        with self._lock:
            self._put(order, now=True)
            self._queue, self._of = [], ""
        log.info("order %s: %s", order.id, order.detail)
        if order.state == "done":
            self._reply(wire.Reply(id=order.id, state="done", result=plan.told(order, 0)))
        else:
            self._reply(wire.Reply(id=order.id, state="failed", detail=order.detail))

    def _forget_file(self) -> None:
        """It is offered again: the station knows how much of it there is."""
        self._file, self._queue, self._of = None, [], ""

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
