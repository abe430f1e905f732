"""The worker that brings footage to headquarters: what was ordered, and below that the clips of alerts by themselves.
The original files, byte for byte, sealed ones too.

An order is held, on the disk and answered, in this order; so retention takes nothing of it, and a power cut costs at
most that some files are offered again, which the station knows and does not take twice. One chunk in a step, a pause
after it by the rate; while an alert waits for the station nothing is sent at all, and no clip while a picture waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from agent import state_file, wire
from agent.clock import Clock, parse_rfc3339
from agent.disk import Disk
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import records
from agent.recording.timeline import Timeline
from agent.sending import Depot, plan
from agent.sending.carrier import Carrier
from agent.sending.clip_errand import ClipErrand
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
BUDGET_S_MAX = 60.0
"""Clips that wait for their budget look so often whether something more valuable has come."""
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


@dataclass(slots=True)
class _Turn:
    """When something may be tried again, and how often it was in vain. Boot seconds."""

    at_s: float = 0.0
    failures: int = 0

    def failed(self, now: float) -> float:
        """Backs off; by how much."""
        low, high = RETRY_S
        wait_s = min(low * 2.0 ** min(self.failures, 16), high)
        self.failures += 1
        self.at_s = now + wait_s
        return wait_s


class FootageSender:
    """`agent.worker.Worker`. `take` may be called from any thread."""

    name = "sending"
    step_s_max = 120.0  # a token, an offer and a chunk, each with a connection that hangs

    def __init__(
        self,
        *,
        depot: Depot | None,
        carrier: Carrier,
        clips: ClipErrand | None,
        disk: Disk,
        index: Index,
        marks: Relevance,
        holds: Holds,
        clock: Clock,
        bytes_per_s_max: float,
        writing: Callable[[], Segment | None],
        alerts_wait: Callable[[], bool],
        pictures_wait: Callable[[], bool],
        note: Callable[[bytes], None],
        reply: Callable[[wire.Reply], None],
    ) -> None:
        """`depot` None: this post sends none; `clips` None: only what is ordered. `writing`: the file in progress;
        `alerts_wait`, `pictures_wait`: one is not acknowledged.

        `note` puts a JSON object on the ledger; `reply` answers a command later. Both raise Transient.
        """
        self._depot, self._disk, self._index, self._marks, self._holds = depot, disk, index, marks, holds
        self._clock, self._rate = clock, bytes_per_s_max
        self._writing, self._note, self._reply = writing, note, reply
        self._alerts_wait, self._pictures_wait = alerts_wait, pictures_wait
        self._carrier, self._clips = carrier, clips
        self._lock = threading.RLock()
        self._book: Book | None = None
        self._saved_s = 0.0
        self._unsaved = False
        self._queue: list[Segment] = []  # of the order at hand
        self._of = ""  # whose queue it is
        self._not_before_s = 0.0  # by the rate
        self._orders, self._clips_turn = _Turn(), _Turn()
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
        self._orders.at_s = 0.0
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
        if self._clips is not None:
            self._clips.open()

    def close(self) -> None:
        with self._lock, suppress(Transient):
            if self._book is not None and self._unsaved:
                self._save(self._book)
        self._forget_file()
        if self._clips is not None:
            self._clips.close()
        if self._depot is not None:
            self._depot.close()

    def step(self, now: float) -> float:
        with self._lock:
            orders = self._load().open
        depot, clips = self._depot, self._clips
        if depot is None or not (orders or clips):
            return now + FOREVER_S
        if now < self._not_before_s:
            return self._not_before_s
        if self._alerts_wait():
            return now + ALERT_PAUSE_S
        at_s = [now + FOREVER_S]
        if orders:
            if now >= self._orders.at_s:
                return self._try(depot, self._orders, now, lambda: self._work(depot, orders))
            at_s.append(self._orders.at_s)
        if clips is not None:
            if now >= self._clips_turn.at_s:
                return self._try(depot, self._clips_turn, now, lambda: self._clip(depot, clips))
            at_s.append(self._clips_turn.at_s)
        return min(at_s)

    def _clip(self, depot: Depot, clips: ClipErrand) -> tuple[int, float] | None:
        return (0, ALERT_PAUSE_S) if self._pictures_wait() else clips.step(depot)

    def _try(self, depot: Depot, turn: _Turn, now: float, work: Callable[[], tuple[int, float] | None]) -> float:
        """One piece of work for this turn: nothing of it keeps the other one's from being tried."""
        try:
            done = work()
        except Transient as error:
            wait_s = turn.failed(now)
            log.warning("%s; again in %.0f s", error, wait_s)
            self._forget_file()
            if self._clips is not None:
                self._clips.let_go()
            depot.close()
            return now
        if done is None:
            turn.at_s = now + LOOK_S
            return now
        count, pause_s = done
        if not pause_s:
            turn.failures = 0
        turn.at_s = now + min(pause_s, BUDGET_S_MAX)
        self._not_before_s = now + count / self._rate
        return self._not_before_s

    def _work(self, depot: Depot, orders: Sequence[Sending]) -> tuple[int, float] | None:
        """A chunk, an offer, or a look for the next file of an order; how many bytes went, and a pause of none.

        None: nothing is there to be sent now. Raises Transient.
        """
        if self._carrier.segment is not None:
            return self._send_chunk(depot, self._carrier.segment), 0.0
        for order in orders:
            too_much = plan.too_much(order, self._clock.utc().utc_ns)
            if too_much:
                self._end(plan.given_up(order, too_much))
                return 0, 0.0
            if self._of != order.id or not self._queue:
                self._queue, self._of = self._wanted(order), order.id
            if self._queue:
                self._offer(depot, order, self._queue[0])
                return 0, 0.0
            if self._nothing_to_come(order):
                self._end(plan.over(order))
                return 0, 0.0
        return None

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
        try:
            left = self._carrier.offer(depot, segment, order=order.id)
        except Corrupt as error:
            self._skip(order, segment, str(error))
            return
        if not left:
            self._arrived(segment)

    def _send_chunk(self, depot: Depot, segment: Segment) -> int:
        with self._lock:
            order = self._load().find(self._of)
        if order is None:
            self._forget_file()
            return 0
        try:
            count = self._carrier.send(depot)
        except Corrupt as error:
            self._skip(order, segment, str(error))
            return 0
        if self._carrier.arrived:
            self._arrived(segment)
        return count

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
        self._carrier.forget()

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
        self._carrier.forget()
        self._queue, self._of = [], ""

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
