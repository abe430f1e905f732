"""Clips of alerts to headquarters without an order: what `clips.py` plans, carried out below the orders and a budget.

    clips.json   the plan, durable: before a file's first byte (paid), when an alert is taken in, when one is over

A power cut costs at most that a file is offered again, which the station knows, or that a second record tells of one
alert; never that an alert is forgotten (it is in the store, behind `read`) or that more is sent than was paid for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from agent import state_file, wire
from agent.clock import Clock
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.evidence import records
from agent.sending import Depot, clips
from agent.sending.carrier import Carrier
from agent.sending.clips import Around, Item, Plan, Purse, Severity, Wish
from agent.types import Segment

STATE = "clips.json"
STATE_BYTES_MAX = 4 << 20
EVENTS_PER_LOOK = 500
RETRY_S = (2.0, 300.0)
"""Of one file that the station does not take yet; the others go meanwhile."""
RETRIES_MAX = 1000
"""Files whose retries are remembered, in memory."""

log = logging.getLogger(__name__)


class Index(Protocol):
    """The part of the store that clips need. Raises Transient."""

    epoch: str

    def segments(self, *, garbage: bool = False) -> list[Segment]: ...

    def told_after(self, after: int, limit: int) -> list[tuple[int, wire.CloudEvent]]: ...

    def newest_sequence(self) -> int: ...


class ClipErrand:
    """One thread."""

    def __init__(
        self,
        *,
        least: Severity | None,
        around: Around,
        day_bytes: int,
        disk: Disk,
        index: Index,
        clock: Clock,
        chunk_bytes: int,
        writing: Callable[[], Segment | None],
        note: Callable[[bytes], None],
        waiting_max: int = clips.WISHES_MAX,
    ) -> None:
        """`least`: from which severity on; None: no clips are sent. `day_bytes`: what may go in a day of running.

        `writing`: the file in progress. `note` puts a JSON object on the ledger; raises Transient.
        """
        self._least, self._around, self._day_bytes = least, around, day_bytes
        self._disk, self._index, self._clock = disk, index, clock
        self._writing, self._note, self._waiting_max = writing, note, waiting_max
        self._carrier = Carrier(disk, chunk_bytes=chunk_bytes)
        self._plan: Plan | None = None
        self._unsaved = False
        self._later: dict[str, tuple[int, int]] = {}  # file -> how often it was in vain, boot ns of the next time

    # -- what is remembered -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Reads the plan of the last life. Raises Transient."""
        self._carrier.forget()
        self._later = {}
        if self._least is None:
            self._plan = None
            self._disk.unlink(STATE)  # switched on again, it begins with what happens then
            return
        plan = self._read()
        if plan is None or plan.epoch != self._index.epoch:
            read = self._index.newest_sequence() if plan is None else 0  # another store counts from 1
            kept = self._new(read) if plan is None else msgspec.structs.replace(plan, epoch=self._index.epoch, read=0)
            self._save(kept)
        else:
            self._plan = plan

    def _new(self, read: int) -> Plan:
        purse = Purse(boot_id=self._clock.boot_id, at_ns=self._clock.boot_ns(), left_bytes=self._day_bytes)
        return Plan(epoch=self._index.epoch, read=read, purse=purse)

    def _read(self) -> Plan | None:
        try:
            with self._disk.open(STATE) as file:
                data = file.read(STATE_BYTES_MAX + 1)
            return state_file.decode(data, Plan, name=STATE, bytes_max=STATE_BYTES_MAX)
        except FileNotFoundError:
            return None
        except Corrupt as error:
            log.error("%s; clips of alerts before this moment are not sent by themselves", error)  # noqa: TRY400
            return None
        except OSError as error:
            raise Transient(f"{self._disk.path(STATE)}: cannot be read: {error.strerror}") from None

    def _save(self, plan: Plan) -> None:
        """Durable when it returns. Raises Transient: then nothing has changed."""
        self._disk.replace(STATE, msgspec.json.encode(plan))
        self._plan, self._unsaved = plan, False

    def close(self) -> None:
        """Keeps what is known."""
        if self._plan is not None and self._unsaved:
            with suppress(Transient):
                self._save(self._plan)
        self._carrier.forget()

    # -- the work -----------------------------------------------------------------------------------------------------

    def step(self, depot: Depot) -> tuple[int, float] | None:
        """A chunk, an offer, or a look; the bytes it sent, and in how many seconds to come again beside their pace.

        None: there is nothing to do. Raises Transient.
        """
        plan = self._plan
        if self._least is None or plan is None:
            return None
        if self._carrier.segment is not None:
            return self._carry(depot, plan), 0.0
        plan = self._hear(plan, self._least)
        if not plan.wishes:
            return None
        surplus = clips.surplus(plan, self._waiting_max)
        if surplus is not None:
            self._end(plan, surplus, f"newer alerts took its place: {self._waiting_max} wait at most")
            return 0, 0.0
        queue = clips.queue(plan, self._index.segments(), self._around)
        over = self._over(plan, {item.wish.incident for item in queue})
        if over is not None:
            self._end(plan, over)
            return 0, 0.0
        now_ns = self._clock.boot_ns()
        item = next((one for one in queue if self._later.get(one.segment.name, (0, 0))[1] <= now_ns), None)
        return None if item is None else (0, self._offer(depot, plan, item))

    def _hear(self, plan: Plan, least: Severity) -> Plan:
        """With what the store was told since; durable as soon as it changes what is to be done."""
        before = plan.wishes
        for sequence, event in self._index.told_after(plan.read, EVENTS_PER_LOOK):
            plan = clips.hear(plan, sequence, event, least)
            if clips.surplus(plan, self._waiting_max) is not None:
                break
        if plan.wishes != before:
            self._save(plan)
        else:
            self._unsaved |= plan is not self._plan
            self._plan = plan
        return plan

    def _over(self, plan: Plan, waiting: set[str]) -> Wish | None:
        """An alert of which everything that could go has gone."""
        boot_id, now_ns, writing = self._clock.boot_id, self._clock.boot_ns(), self._writing()
        for wish in plan.wishes:
            come = clips.to_come(wish, self._around, boot_id=boot_id, now_ns=now_ns, writing=writing)
            full = len(wish.done) + len(wish.failed) >= clips.FILES_MAX
            if full or (wish.incident not in waiting and not come):
                return wish
        return None

    def _offer(self, depot: Depot, plan: Plan, item: Item) -> float:
        """In how long to come again."""
        segment, wish = item.segment, item.wish
        if segment.name not in plan.paid:
            if segment.bytes > self._day_bytes:
                self._leave(plan, wish, segment, f"{segment.bytes} bytes; {self._day_bytes} may go in a day")
                return 0.0
            purse = clips.filled(
                plan.purse, boot_id=self._clock.boot_id, now_ns=self._clock.boot_ns(), day_bytes=self._day_bytes
            )
            self._unsaved |= purse is not plan.purse
            self._plan = plan = msgspec.structs.replace(plan, purse=purse)
            if purse.left_bytes < segment.bytes:
                return clips.wait_s(purse, segment.bytes, self._day_bytes)
        try:
            left = self._carrier.offer(depot, segment, order=wish.incident, why="alert")
        except Corrupt as error:
            self._leave(plan, wish, segment, str(error))
            return 0.0
        except Transient:
            self._postpone(segment)
            raise
        self._later.pop(segment.name, None)
        if left and segment.name not in plan.paid:
            try:
                self._save(clips.pay(plan, segment.name, left))
            except Transient:
                self._carrier.forget()  # not a byte goes before it is paid for
                raise
        if not left:
            self._arrived(plan, segment)
        return 0.0

    def _postpone(self, segment: Segment) -> None:
        """Of a file that the station does not take now: it may lack its record, or have taken enough of us today."""
        low, high = RETRY_S
        tries = self._later.pop(segment.name, (0, 0))[0] + 1
        pause_s = min(low * 2.0 ** min(tries, 16), high)
        self._later[segment.name] = (tries, self._clock.boot_ns() + round(pause_s * 1e9))
        while len(self._later) > RETRIES_MAX:
            del self._later[next(iter(self._later))]

    def _carry(self, depot: Depot, plan: Plan) -> int:
        segment = self._carrier.segment
        if segment is None:
            return 0
        try:
            count = self._carrier.send(depot)
        except Corrupt as error:
            self._carrier.forget()
            for wish in [one for one in plan.wishes if self._wants(one, segment)]:
                self._leave(self._plan or plan, wish, segment, str(error))
            return 0
        if self._carrier.arrived:
            self._arrived(plan, segment)
        return count

    def _wants(self, wish: Wish, segment: Segment) -> bool:
        return segment.name not in wish.done and clips.touches(segment, wish, clips.whole(wish, self._around))

    def _arrived(self, plan: Plan, segment: Segment) -> None:
        """The station has it: for every alert that it serves. Not durable at once: it would be found there again."""
        self._carrier.forget()
        for wish in plan.wishes:
            if self._wants(wish, segment):
                plan = clips.put(plan, clips.sent(wish, segment))
        self._plan, self._unsaved = clips.cleared(plan, segment.name), True

    def _leave(self, plan: Plan, wish: Wish, segment: Segment, why: str) -> None:
        log.warning("clip of %s: %s does not go to headquarters: %s", wish.incident, segment.name, why)
        self._carrier.forget()
        self._later.pop(segment.name, None)
        self._plan = clips.cleared(clips.put(plan, clips.not_sent(wish, segment, why)), segment.name)
        self._unsaved = True

    def _end(self, plan: Plan, wish: Wish, given_up: str = "") -> None:
        """Puts on record what has left this post for an alert and what has not and why; then forgets the alert."""
        missing = clips.shortfall(wish, given_up)
        start_ns, end_ns = clips.whole(wish, self._around)
        self._note(
            records.body(
                to="station",
                why="alert",
                order=wish.incident,
                reason=f"{wish.severity}: sent by itself",
                boot_id=wish.boot_id,
                start_ns=start_ns,
                end_ns=end_ns,
                files=len(wish.done),
                bytes=wish.bytes,
                not_sent=missing,
            )
        )
        self._save(clips.settle(plan, wish.incident))
        log.info(
            "clip of %s: %d files, %d bytes%s",
            wish.incident,
            len(wish.done),
            wish.bytes,
            f"; {missing}" if missing else "",
        )

    def let_go(self) -> None:
        """The connection broke: what is on its way is offered again."""
        self._carrier.forget()
