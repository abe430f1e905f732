"""The uplink: what the outbox holds goes to the station, and leaves the outbox when the station says so (invariant 1).

One thread owns the transport and does everything; `notify` is the only call for others. What to send is decided in
window.py, what to obey in commands.py.

`historical` is decided when a row is sent: the event is of an earlier session, or happened before the connection came
back, or more than `HISTORICAL_S` before this moment. A row sent again keeps the mark that the station stored first.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent import wire
from agent.clock import Clock
from agent.errors import Corrupt, Transient, WardpostError
from agent.store.store import OutboxRow, Store
from agent.types import NS
from agent.uplink import Broker, Connected, Disconnected, Errand, Hello, Received, Refused, Transport, Will
from agent.uplink.commands import Drop, Judge, Refuse, Run, Verb
from agent.uplink.parcels import pack
from agent.uplink.window import Window

HISTORICAL_S = 10.0
STABLE_S = 30.0
"""A connection that lived for so long was a good one: the back-off starts again."""
STORE_RETRY_S = 1.0
BATCH_EVENTS_MAX = 64
BATCH_BYTES_MAX = 48 * 1024
"""Of one message of a backlog: 0.4 s at 1 Mbit/s, for that long an alert may have to wait behind it."""
BATCH_LOSSES_MAX = 2
"""Connections in a row that break off over batches before one does without them."""
LAST_S = 1.0
"""A clean stop makes events of its own: so long they may take to arrive. What does not waits for the next start."""
ACK_DELAY_S = 5.0
ACK_ROWS_MAX = 500
"""Rows that the station has are deleted with the next transaction of the store, or by one for so long or so many. A cut
before it costs that they are sent again, which the station knows how to take."""
COMPLAIN_S = 60.0
LATER_MAX = 32
"""Answers that come after the command; the oldest gives way. The station asks again for one that it never got."""
RANGES_MAX = 2000

log = logging.getLogger(__name__)


def backoff_s(failures: int, cap_s: float, rng: random.Random) -> float:
    """How long to wait before the next attempt: doubling from a second, capped, with jitter over 80 % of it."""
    return rng.uniform(0.2, 1.0) * min(cap_s, 2.0 ** min(failures, 16))


class UplinkWorker:
    """`agent.worker.Worker`. It waits inside `step`, on the socket, and `notify` ends the wait."""

    name = "uplink"
    step_s_max = 60.0  # name lookup, TCP and TLS of one attempt, each bounded in the transport

    def __init__(
        self,
        *,
        store: Store,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        site: str,
        node: str,
        place: str,
        version: str,
        brokers: Sequence[Broker],
        heartbeat: Callable[[], wire.Heartbeat],
        heartbeat_s: float,
        backoff_s_max: float = 10.0,
        window_rows_max: int = 100,
        window_bytes_max: int = 256 * 1024,
        ack_timeout_s: float = 10.0,
        batch_events_max: int = BATCH_EVENTS_MAX,
        batch_bytes_max: int = BATCH_BYTES_MAX,
        command_key: Ed25519PublicKey | None = None,
        verbs: Mapping[str, Verb] | None = None,
        wait_s_max: float = 1.0,
        ledger_key: Callable[[], str] = str,
        ledger_receipt: Callable[[str], None] | None = None,
        errands: Sequence[Errand] = (),
    ) -> None:
        """`wait_s_max`: how long a step may wait for the socket; 0 for a simulator that owns the time.

        `ledger_key`: the node's public key, told at each birth; `ledger_receipt` is given what the station signs.
        """
        self._store = store
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._node = node
        self._place = place
        self._version = version
        self._brokers = tuple(brokers)
        self._heartbeat = heartbeat
        self._heartbeat_s = heartbeat_s
        self._backoff_s_max = backoff_s_max
        self._wait_s_max = wait_s_max
        self._ledger_key = ledger_key
        self._ledger_receipt = ledger_receipt
        self._topics = wire.Topics(site, node)
        self._window = Window(rows_max=window_rows_max, bytes_max=window_bytes_max, ack_timeout_s=ack_timeout_s)
        self._batch_events_max = batch_events_max
        self._batch_bytes_max = batch_bytes_max
        self._batched: set[int] = set()  # in flight, as a part of a batch
        self._may_batch = True  # batches are answered, as far as this connection has shown
        self._batch_losses = 0  # connections in a row that ended with batches out and none answered
        self._acked_s: float | None = None  # since when acknowledged rows wait for their deletion
        self._judge = Judge(site=site, node=node, key=command_key, verbs=verbs or {})
        self._errands = tuple(errands)
        self._turn = 0  # which broker is next
        self._failures = 0
        self._connecting = False
        self._connect_at = 0.0
        self._connected_at = 0.0
        self._was_connected = False  # before this connection, in this life
        self._heartbeat_at = 0.0
        self._store_retry_at = 0.0
        self._complained: dict[str, float] = {}
        self._later: deque[wire.Reply] = deque(maxlen=LATER_MAX)
        self._receipts: list[tuple[int, int]] = []
        self._new_rows = True
        self._started_boot_ns = 0
        self.broker: Broker | None = None  # where we are connected; for the heartbeat, the panel and `status`
        self.trouble = ""  # why the last connection failed or ended; empty while one stands
        self._away_ns: int | None = None  # since when there is none
        self.dropped_commands = 0

    @property
    def station_silent(self) -> bool:
        """Connected to a broker, and yet no station acknowledges."""
        return self._window.silent

    @property
    def away_s(self) -> float:
        """For how long there has been no connection, in this life; 0 while one stands."""
        since_ns = self._away_ns
        return 0.0 if self.broker is not None or since_ns is None else (self._clock.boot_ns() - since_ns) / NS

    def tell(self, reply: wire.Reply) -> None:
        """Answers a command later. From any thread; lost with the connection, as every answer."""
        self._later.append(reply)
        self._transport.wake()

    def notify(self) -> None:
        """There is something new in the outbox. From any thread."""
        self._new_rows = True
        self._transport.wake()

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self._started_boot_ns = self._started_boot_ns or self._clock.boot_ns()
        self._connecting, self._connect_at = False, 0.0
        self._away_ns = self._clock.boot_ns() if self._away_ns is None else self._away_ns
        self._receipts.clear()

    def close(self) -> None:
        self._finish()
        if self.broker is not None:
            self._send(self._topics.status, wire.encode(self._status("offline", self._leaving())), retain=True)
        self._transport.disconnect()
        self.broker = None

    def _finish(self) -> None:
        """Sends what the others told while they closed, and hears that it has arrived. Blocks for LAST_S at most."""
        until_s = self._now() + LAST_S
        while self._wait_s_max > 0 and self.broker is not None and self._store.outbox_rows and self._now() < until_s:
            self.step(self._now())

    def step(self, now: float) -> float:
        if self.broker is None and not self._connecting and now >= self._connect_at:
            self._connect()
        for happening in self._transport.poll(max(min(self._due() - now, self._wait_s_max), 0.0)):
            match happening:
                case Connected():
                    self._on_connected(happening.broker, happening.denied)
                case Refused() | Disconnected():
                    self._on_lost(happening.broker, happening.reason)
                case Received():
                    self._on_received(happening)
                case _:
                    pass  # a PUBACK empties nothing (invariant 1)
        now = self._now()
        self._settle_receipts(now)
        if self.broker is not None:
            while self._later:
                self._reply(self._later.popleft())
            self._fill(now)
        self._run_errands(now)
        if self.broker is not None and now >= self._heartbeat_at:
            self._heartbeat_at = now + self._heartbeat_s
            self._send(self._topics.heartbeat, wire.encode(self._heartbeat()), qos=0)
        return now if self._wait_s_max > 0 else min(self._due(), now + 0.05)

    def _run_errands(self, now: float) -> None:
        for errand in self._errands if self.broker is not None else ():
            try:
                errand.step(now, self._send)
            except Transient as error:
                self._complain(str(error))
        if self.broker is not None and any(errand.wants_new_connection for errand in self._errands):
            broker = self.broker
            self._transport.disconnect()
            self._on_lost(broker, "left on purpose, to come back with a new certificate")

    def _due(self) -> float:
        if self.broker is None:
            return self._now() + self._wait_s_max if self._connecting else self._connect_at
        acked_by = float("inf") if self._acked_s is None else self._acked_s + ACK_DELAY_S
        return max(min(self._heartbeat_at, self._window.due(), acked_by), self._store_retry_at)

    # -- the connection -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._connecting = True
        client_id = f"wardpost_{self._topics.site}_{self._topics.node}"
        hello = Hello(
            client_id=client_id,
            subscriptions=((self._topics.ack, 1), (self._topics.commands, 1)),
            will=Will(self._topics.status, wire.encode(self._status("offline", wire.LOST))),
            wishes=tuple(wish for errand in self._errands for wish in errand.wishes),
        )
        self._transport.connect(self._brokers[self._turn % len(self._brokers)], hello)

    def _on_connected(self, broker: Broker, denied: tuple[str, ...]) -> None:
        now = self._now()
        log.info("connected to %s; %d rows wait", broker, self._store.outbox_rows)
        self.broker, self._connecting, self._connected_at = broker, False, now
        self.trouble, self._away_ns = "", None
        self._window.reset(now)
        self._batched.clear()
        self._may_batch = self._batch_losses < BATCH_LOSSES_MAX
        self._heartbeat_at = now
        self._new_rows = True
        self._send(self._topics.status, wire.encode(self._status("online")), retain=True)
        for errand in self._errands:
            errand.connected(denied)

    def _on_lost(self, broker: Broker, reason: str) -> None:
        now = self._now()
        self._was_connected = self._was_connected or self.broker is not None
        self._count_batch_losses()
        if self.broker is not None and now - self._connected_at >= STABLE_S:
            self._failures = self._turn = 0
        else:
            self._failures += 1
            self._turn += 1
        wait_s = backoff_s(self._failures, self._backoff_s_max, self._rng)
        rows = self._store.outbox_rows
        log.warning("broker %s: %s; next attempt in %.1f s, %d rows wait", broker, reason, wait_s, rows)
        self.broker, self._connecting, self._connect_at = None, False, now + wait_s
        for errand in self._errands:
            errand.disconnected()
        self.trouble = reason
        self._away_ns = self._clock.boot_ns() if self._away_ns is None else self._away_ns

    def _leaving(self) -> str:
        """What is on trial tells why a node is stopped: nobody restarts it for that but itself."""
        told = self._heartbeat()
        if told.release is not None and told.release.phase == "trying":
            return wire.UPDATE
        return wire.SETTINGS if told.settings is not None and told.settings.trial else wire.STOPPED

    def _status(self, state: str, reason: str = "") -> wire.Status:
        return wire.Status(
            state="online" if state == "online" else "offline",
            node=self._node,
            bootid=self._clock.boot_id,
            session=self._store.session,
            version=self._version,
            place=self._place[:200],
            key=self._ledger_key(),
            reason=reason,
        )

    # -- the outbox ---------------------------------------------------------------------------------------------------

    def _fill(self, now: float) -> None:
        """Sends what may be sent now."""
        self._doubt_batches(self._window.expire(now))
        waiting = self._store.outbox_rows > self._window.unacknowledged
        if now < self._store_retry_at or not (self._new_rows or (waiting and self._window.wants_rows)):
            return
        self._new_rows = False  # before reading: what is committed from here on sets it again
        try:
            rows = self._store.pending(self._window.look_ahead, skip=self._window.in_flight)
        except Transient as error:
            self._new_rows = True
            self._complain(str(error))
            self._store_retry_at = now + STORE_RETRY_S
            return
        chosen = self._window.select(rows, now)
        self._batched &= set(self._window.in_flight)
        for parcel in pack(
            chosen,
            late=self._is_late,
            alone=self._window.again,
            batch_events_max=self._batch_events_max if self._may_batch else 1,
            batch_bytes_max=self._batch_bytes_max,
        ):
            if not self._send(parcel.topic(self._topics), parcel.payload()):
                return
            if len(parcel.rows) > 1:
                self._batched.update(row.sequence for row in parcel.rows)

    def _is_late(self, row: OutboxRow) -> bool:
        outage = self._was_connected and row.boot_ns < self._connected_at * NS
        return outage or row.session != self._store.session or self._clock.boot_ns() - row.boot_ns > HISTORICAL_S * NS

    def _doubt_batches(self, overdue: Sequence[int]) -> None:
        """A broker's access list that does not know their topics drops batches silently: then one by one it is."""
        if self._may_batch and not self._batched.isdisjoint(overdue):
            self._may_batch = False
            self._complain(
                f"batches: no answer to them on {self._topics.events} or {self._topics.records}, so this connection"
                " does without; does the broker's access list allow these topics?"
            )

    def _count_batch_losses(self) -> None:
        """Some brokers end the connection of whoever publishes what its access list does not know. Then a connection
        without batches follows; the one after that tries them again.
        """
        if not self._may_batch:
            self._batch_losses = min(self._batch_losses, BATCH_LOSSES_MAX - 1)
        elif not self._batched.isdisjoint(self._window.in_flight):
            self._batch_losses += 1
            if self._batch_losses >= BATCH_LOSSES_MAX:
                self._complain(
                    f"batches: the broker ends the connection when they are sent on {self._topics.events} or"
                    f" {self._topics.records}, so the next one does without; does its access list allow these topics?"
                )

    def _settle_receipts(self, now: float) -> None:
        """Takes in what the station has, and sees to it that the outbox is rid of it soon."""
        if now < self._store_retry_at:
            return
        try:
            if self._receipts:
                self._store.note_acknowledged(self._receipts)
                batched = self._batched & set(self._window.in_flight)
                self._window.receipt(self._receipts, now)
                if not batched <= set(self._window.in_flight):
                    self._batch_losses = 0
                self._receipts.clear()
            if not self._store.acknowledged_rows:
                self._acked_s = None
                return
            self._acked_s = now if self._acked_s is None else self._acked_s
            if now >= self._acked_s + ACK_DELAY_S or self._store.acknowledged_rows >= ACK_ROWS_MAX:
                self._store.acknowledge([])
                self._acked_s = None
        except Transient as error:
            self._complain(str(error))
            self._store_retry_at = now + STORE_RETRY_S

    # -- what comes in ------------------------------------------------------------------------------------------------

    def _on_received(self, message: Received) -> None:
        if message.topic == self._topics.ack:
            self._on_receipt(message.payload)
        elif self._is_errand(message):
            pass
        elif not message.retained:  # a command is for now; a broker that keeps one for later is wrong
            self._on_command(message)
        message.ack()

    def _is_errand(self, message: Received) -> bool:
        try:
            return any(errand.received(message.topic, message.payload) for errand in self._errands)
        except Transient as error:
            self._complain(str(error))  # the errand asks again
            return True

    def _on_receipt(self, payload: bytes) -> None:
        try:
            receipt = wire.decode(payload, wire.Receipt)
        except Corrupt as error:
            self._complain(f"receipt dropped: {error}")
            return
        if receipt.ledger and self._ledger_receipt is not None:
            self._ledger_receipt(receipt.ledger)  # of the ledger, whatever became of the store
        found = [(low, high) for low, high in receipt.stored if low <= high]
        if receipt.head:
            found.append((1, receipt.head))
        if receipt.epoch != self._store.epoch:  # of an earlier store of this node: some of its rows may be in this one
            found = self._store.own_ranges(receipt.epoch, found)
        if len(self._receipts) + len(found) <= RANGES_MAX:  # else: they will be sent again
            self._receipts += found

    def _on_command(self, message: Received) -> None:
        utc, now_ns = self._clock.utc(), self._clock.boot_ns()
        decision = self._judge.judge(
            message.topic,
            message.payload,
            utc=utc,
            started_utc_ns=utc.utc_ns - (now_ns - self._started_boot_ns),
        )
        match decision:
            case Drop():
                self.dropped_commands += 1
                self._complain(f"command dropped: {decision.reason}")
            case Refuse():
                self._complain(f"command refused: {decision.reply.detail}")
                self._reply(decision.reply)
            case Run():
                self._reply(self._run(decision))

    def _run(self, decision: Run) -> wire.Reply:
        command = decision.command
        try:
            result = decision.verb.handler({"id": command.id} | command.args)  # args may name another id
            pending = bool(result.get("pending"))  # the answer proper comes by `tell`
            reply = wire.Reply(id=command.id, state="accepted" if pending else "done", result=result)
            wire.encode(reply)
        except WardpostError as error:
            return wire.Reply(id=command.id, state="failed", detail=str(error)[:500])
        except Exception as error:
            # A command from outside must not be able to take the uplink down, and the alerts with it.
            log.exception("command %s failed", command.verb)
            return wire.Reply(id=command.id, state="failed", detail=f"{type(error).__name__}: {error}"[:500])
        log.info("command %s %s done", command.verb, command.id)
        return reply

    def _reply(self, reply: wire.Reply) -> None:
        self._send(self._topics.reply(reply.id), wire.encode(reply))

    def _send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        """False when the connection is gone; then Disconnected follows, and the outbox still has what matters."""
        try:
            self._transport.publish(topic, payload, qos=qos, retain=retain)
        except Transient as error:
            log.debug("%s", error)
            return False
        return True

    def _complain(self, text: str) -> None:
        """Logs a complaint of each kind once a minute."""
        now, kind = self._now(), text.partition(":")[0]
        if now - self._complained.get(kind, -COMPLAIN_S) >= COMPLAIN_S:
            self._complained[kind] = now
            log.warning("%s", text)

    def _now(self) -> float:
        return self._clock.boot_ns() / NS
