"""The receiving desk: take in, commit, and only then acknowledge, to the broker and to the node (invariant 1).

The order is the whole point: decode, one transaction for the batch, PUBACK each message, one receipt per node and
epoch. When the commit fails, nothing is acknowledged: the station leaves the broker and comes back after a while, and
the nodes, which still hold everything, send again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence

from agent import wire
from agent.clock import Clock, rfc3339
from agent.errors import Corrupt, Transient, WardpostError
from agent.station.enrolment import EnrolmentDesk
from agent.station.fleet_settings import FleetSettings
from agent.station.intake import HeartbeatIn, Intake, ReportedIn, take_all
from agent.station.live.desk import LiveDesk
from agent.station.orders import ONCE, RESEND_S, OrderBook
from agent.station.rollout_desk import RolloutDesk
from agent.station.states import NodeSeen, NodeState, age_s, in_turn, judge
from agent.station.store import Batch, Reject, StationStore, Stored
from agent.types import NS
from agent.uplink import Broker, Connected, Disconnected, Hello, Received, Refused, Transport

STATES_EVERY_S = 2.0
WATCH_PAUSES = 20.0
"""Between two looks at all nodes so many times what their reading takes: 70,000 rows take more than a second."""
WATCH_PAUSE_S_MAX = 30.0
STATES_MAX = 5000
"""New states noted in one transaction; the next look, which then comes at once, goes on behind them."""
COMMIT_BYTES_MAX = 4 << 20
"""Of messages in one transaction: some thousand events, half a second."""
STABLE_S = 30.0
COMPLAIN_S = 60.0
_HEARD = (NodeState.ONLINE, NodeState.LATE)

log = logging.getLogger(__name__)


class StationWorker:
    """`agent.worker.Worker`. It waits inside `step`, on the socket."""

    name = "station"
    step_s_max = 60.0

    def __init__(
        self,
        *,
        store: StationStore,
        transport: Transport,
        clock: Clock,
        rng: random.Random,
        site: str,
        station: str,
        brokers: Sequence[Broker],
        backoff_s_max: float = 10.0,
        late_s: float = 75.0,
        dark_s: float = 180.0,
        wait_s_max: float = 1.0,
        orders: OrderBook | None = None,
        enrolment: EnrolmentDesk | None = None,
        rollouts: RolloutDesk | None = None,
        settings: FleetSettings | None = None,
        live: LiveDesk | None = None,
    ) -> None:
        """`wait_s_max`: how long a step may wait for the socket; 0 for a simulator that owns the time.

        `orders`: commands that are sent until their node has answered. `enrolment`: gives new posts their certificate.
        `rollouts`: brings a release to the fleet; it works on this `store` and a book of orders that is open with it.
        `settings`: what nodes are to have, and say they have. `live`: who watches what happens now.
        """
        self._store = store
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._site = site
        self._station = station
        self._brokers = tuple(brokers)
        self._backoff_s_max = backoff_s_max
        self._late_s = late_s
        self._dark_s = dark_s
        self._wait_s_max = wait_s_max
        self._orders = orders
        self._enrolment = enrolment
        self._rollouts = rollouts
        self._settings = settings
        self._live = live
        self._sent_s: dict[str, float] = {}  # when an order last went out; of those that wait
        self._turn = 0
        self._failures = 0
        self._connecting = False
        self._connect_at = 0.0
        self._connected_at = 0.0
        self._states_at = self._watch_at = 0.0
        self._noted = ""  # the node whose state was noted last
        self._heard: frozenset[str] = frozenset()  # nodes that were there when all were looked at
        self._complained_at = -COMPLAIN_S
        self.broker: Broker | None = None

    def open(self) -> None:
        self._store.open()
        if self._orders is not None:
            self._orders.open()
        if self._settings is not None:
            self._settings.open()
        if self._rollouts is not None:
            self._rollouts.forget()
        if self._enrolment is not None:
            self._enrolment.open()
        self._connecting, self._connect_at = False, 0.0

    def close(self) -> None:
        self._transport.disconnect()
        self.broker = None
        if self._orders is not None:
            self._orders.close()
        if self._settings is not None:
            self._settings.close()
        if self._enrolment is not None:
            self._enrolment.close()
        self._store.close()

    def step(self, now: float) -> float:
        if self.broker is None and not self._connecting and now >= self._connect_at:
            self._connecting = True
            self._transport.connect(self._brokers[self._turn % len(self._brokers)], self._hello())
        messages: list[Received] = []
        for happening in self._transport.poll(max(min(self._due() - now, self._wait_s_max), 0.0)):
            match happening:
                case Received():
                    messages.append(happening)
                case Connected():
                    log.info("connected to %s", happening.broker)
                    self.broker, self._connecting, self._connected_at = happening.broker, False, self._now()
                case Refused() | Disconnected():
                    self._on_lost(happening.broker, happening.reason)
                case _:
                    pass
        for portion in _portions(messages):
            if not self._desk(portion):
                break
        self._look_around()
        return self._now() if self._wait_s_max > 0 else min(self._due(), now + 0.05)

    def _look_around(self) -> None:
        """What is not about a message that came: every STATES_EVERY_S, and orders as soon as somebody gives one."""
        if self._now() >= self._states_at:
            self._states_at = self._now() + STATES_EVERY_S
            self._watch_nodes()
            self._roll_out()
            self._tend()
            if self.broker is not None:
                self._sign()
                self._send_orders()
                self._send_settings()
        elif self.broker is not None and self._is_asked():
            self._send_orders()  # somebody waits: a siren is for now
        self._send_live()

    def _due(self) -> float:
        if self.broker is None and not self._connecting:
            return min(self._connect_at, self._states_at)
        return self._states_at

    def _hello(self) -> Hello:
        base = f"{wire.ROOT}/{self._site}/+"
        return Hello(
            client_id=f"wardpost_{self._site}_station_{self._station}",
            subscriptions=(
                (f"{base}/event/+", 1),
                (f"{base}/events", 1),
                (f"{base}/record", 1),
                (f"{base}/records", 1),
                (f"{base}/status", 1),
                (f"{base}/heartbeat", 0),
                (f"{base}/reply/+", 1),
                (f"{base}/config/reported", 1),
                *(((f"{base}/enrol", 1), (f"{base}/renew", 1)) if self._enrolment is not None else ()),
            ),
        )

    def _on_lost(self, broker: Broker, reason: str) -> None:
        now = self._now()
        if self.broker is not None and now - self._connected_at >= STABLE_S:
            self._failures = self._turn = 0
        else:
            self._failures += 1
            self._turn += 1
        wait_s = self._rng.uniform(0.2, 1.0) * min(self._backoff_s_max, 2.0 ** min(self._failures, 16))
        log.warning("broker %s: %s; next attempt in %.1f s", broker, reason, wait_s)
        self.broker, self._connecting, self._connect_at = None, False, now + wait_s

    def _desk(self, messages: Sequence[Received]) -> bool:
        """One transaction: decode, commit, acknowledge. In this order. False when nothing can be stored."""
        batch = Batch()
        for message in messages:
            if self._is_reply(message) or self._is_enrolment(message, batch) or self._is_renewal(message, batch):
                continue
            taken, refusal = take_all(message.topic, message.payload, site=self._site, retained=message.retained)
            batch.taken += taken
            if refusal is not None:
                batch.rejects.append(Reject(message.topic, refusal.reason, refusal.payload))
        try:
            stored = self._store.commit(batch)
        except Transient as error:
            self._retreat(str(error))
            return False
        self._note_settings(batch.taken)
        for message in messages:
            message.ack()
        self._receipt(stored)
        self._sign()
        if batch.rejects:
            self._complain(f"{len(batch.rejects)} messages refused, the first: {batch.rejects[0].reason}")
        return True

    def _is_reply(self, message: Received) -> bool:
        """Takes an answer to an order; answers to anybody else's commands are none of our business."""
        if "/reply/" not in message.topic:
            return False
        try:
            address = wire.parse_topic(message.topic)
            if address.channel != "reply":
                return False
            reply = wire.decode(message.payload, wire.Reply)
        except Corrupt:
            return False  # it becomes a reject
        if self._live is not None and reply.id == address.leaf and self._live.hears(address.node, reply):
            return True
        if self._orders is not None and reply.id == address.leaf:
            try:
                if self._orders.answered(address.node, reply):
                    log.info("%s: order %s is %s: %s", address.node, reply.id, reply.state, reply.detail)
            except Transient as error:
                self._complain(str(error))  # it is asked again, and answered again
        return True

    def _is_enrolment(self, message: Received, batch: Batch) -> bool:
        """Answers a card that asks for its certificate. A refusal is kept like any message that was refused."""
        if self._enrolment is None or not message.topic.endswith("/enrol") or message.retained:
            return False
        try:
            address = wire.parse_topic(message.topic)
        except Corrupt:
            return False  # it becomes a reject
        if address.site != self._site or not address.node.startswith(wire.CLAIM_PREFIX):
            batch.rejects.append(Reject(message.topic, f"{address.node} is no claim: it cannot enrol", b""))
            return True
        try:
            answer = self._enrolment.answer(address.node, message.payload)
        except (Transient, Corrupt) as error:
            self._complain(f"enrolment: {error}")
            self._tell(address.topics.enrolled, wire.Enrolled(state="failed", detail=str(error)[:500]))
            return True
        if answer is not None:
            self._tell(address.topics.enrolled, answer.message)
            if answer.refused is not None:
                batch.rejects.append(Reject(message.topic, f"enrolment {answer.message.detail}", b""))
        return True

    def _is_renewal(self, message: Received, batch: Batch) -> bool:
        """Answers a post that asks for its next certificate."""
        if self._enrolment is None or not message.topic.endswith("/renew") or message.retained:
            return False
        try:
            address = wire.parse_topic(message.topic)
        except Corrupt:
            return False  # it becomes a reject
        if address.site != self._site or address.node.startswith(wire.CLAIM_PREFIX):
            batch.rejects.append(Reject(message.topic, f"{address.node} is a claim: it cannot renew", b""))
            return True
        try:
            answer = self._enrolment.renew(address.node, message.payload)
        except (Transient, Corrupt) as error:
            self._complain(f"renewal: {error}")  # it asks again
            return True
        if answer is not None:
            self._tell(address.topics.renewed, answer.message)
            if answer.refused is not None:
                batch.rejects.append(Reject(message.topic, f"renewal {answer.message.detail}", b""))
        return True

    def _tell(self, topic: str, answer: wire.Message) -> None:
        try:
            self._transport.publish(topic, wire.encode(answer), qos=1)
        except Transient as error:
            log.debug("%s", error)  # who asked asks again, and is given the same

    def _send_orders(self) -> None:
        """Sends what waits to nodes that are heard, each again every RESEND_S until it is answered."""
        if self._orders is None:
            return
        now = self._now()
        try:
            due = self._orders.due(self._clock.utc().utc_ns)
            self._sent_s = {one.id: self._sent_s[one.id] for one in due if one.id in self._sent_s}
            state_of = self._judge()  # and not what was noted last: a post that is back is to have its siren now
            heard = {seen.node for seen in self._store.nodes() if state_of(seen) in _HEARD} if due else set()
            for one in due:
                if one.node not in heard or now - self._sent_s.get(one.id, -RESEND_S) < RESEND_S:
                    continue
                if one.sent and one.verb in ONCE:
                    continue
                topic = wire.Topics(self._site, one.node).command(one.verb)
                self._transport.publish(topic, one.payload, qos=1)
                self._sent_s[one.id] = now
                self._orders.sent(one.n)
        except Transient as error:
            self._complain(str(error))

    def _send_live(self) -> None:
        """Commands of live views: once each, or not at all."""
        if self._live is None:
            return
        self._live.tend()
        try:
            for message in self._live.outgoing() if self.broker is not None else ():
                self._transport.publish(message.topic, message.payload, qos=1)
        except Transient as error:
            self._complain(str(error))

    def _is_asked(self) -> bool:
        """Whether another process has put an order into the book since."""
        try:
            return self._orders is not None and self._orders.changed()
        except Transient as error:
            self._complain(str(error))
            return False

    def _note_settings(self, taken: Sequence[Intake]) -> None:
        """Writes down what nodes say they have; a disk that refuses costs nothing, for the next heartbeat says it."""
        if self._settings is None:
            return
        try:
            for one in taken:
                if isinstance(one, ReportedIn):
                    self._settings.hears(one.node, one.settings)
                elif isinstance(one, HeartbeatIn) and one.heartbeat.settings is not None:
                    self._settings.hears(one.node, one.heartbeat.settings)
        except Transient as error:
            self._complain(str(error))

    def _send_settings(self) -> None:
        if self._settings is None:
            return
        try:
            self._settings.step(self._now(), heard=self._heard, publish=self._publish_retained)
        except Transient as error:
            self._complain(str(error))

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        self._transport.publish(topic, payload, qos=1, retain=True)

    def _roll_out(self) -> None:
        if self._rollouts is None:
            return
        try:
            self._rollouts.step(connected=self.broker is not None)
        except (Transient, Corrupt) as error:
            self._complain(f"rollout: {error}")

    def _tend(self) -> None:
        if self._enrolment is None:
            return
        try:
            self._enrolment.tend()
        except WardpostError as error:  # it serves on: the certificates it has are good for long
            self._complain(f"certificates: {error}")

    def _receipt(self, stored: Sequence[Stored]) -> None:
        time = rfc3339(self._clock.utc().utc_ns)
        for part in stored:
            found = wire.ranges(part.sequences)
            for start in range(0, len(found), wire.ACK_RANGES_MAX):
                receipt = wire.Receipt(
                    station=self._station,
                    epoch=part.epoch,
                    stored=found[start : start + wire.ACK_RANGES_MAX],
                    head=part.head,
                    time=time,
                )
                try:
                    self._transport.publish(wire.Topics(self._site, part.node).ack, wire.encode(receipt), qos=1)
                except Transient as error:
                    log.debug("%s", error)  # it is stored; the node asks again by sending again
                    return

    def _sign(self) -> None:
        """Sends signed receipts for ledgers that have grown. One that gets lost is followed by the next."""
        try:
            signed = self._store.receipts()
        except Transient as error:
            self._complain(str(error))
            return
        time = rfc3339(self._clock.utc().utc_ns)
        for part in signed:
            receipt = wire.Receipt(
                station=self._station, epoch=part.epoch, stored=[], head=0, time=time, ledger=part.line
            )
            try:
                self._transport.publish(wire.Topics(self._site, part.node).ack, wire.encode(receipt), qos=1)
            except Transient as error:
                log.debug("%s", error)
                return

    def _retreat(self, reason: str) -> None:
        """Nothing can be stored: leave the broker, so that it does not keep giving, and try again later."""
        log.error("cannot store, so nothing is acknowledged: %s", reason)
        broker = self.broker
        self._transport.disconnect()
        if broker is not None:
            self._on_lost(broker, "left on purpose until the disk takes data again")

    def _watch_nodes(self) -> None:
        """Notes nodes that fell silent, and those that came back; of very many less often, for all are looked at."""
        if (began := self._now()) < self._watch_at:
            return
        changes, heard = [], set()
        try:
            nodes = self._store.nodes()
            self._watch_at = began + min(WATCH_PAUSES * (self._now() - began), WATCH_PAUSE_S_MAX)
            state_of = self._judge()
            for seen in nodes:
                state = state_of(seen)
                if state != seen.state:
                    changes.append((seen.node, state.value, seen.seen_utc_ns))
                if state in _HEARD:
                    heard.add(seen.node)
            self._heard = frozenset(heard)
            if noted := in_turn(changes, self._noted, STATES_MAX):
                self._store.change(noted)
                self._noted = noted[-1][0]
            if len(changes) > STATES_MAX:  # all posts of a city at once, for its network is away
                self._watch_at = self._now()
        except Transient as error:
            self._complain(str(error))

    def _judge(self) -> Callable[[NodeSeen], NodeState]:
        """What each node's silence means now."""
        boot_id, boot_ns, utc_ns = self._clock.boot_id, self._clock.boot_ns(), self._clock.utc().utc_ns

        def state_of(seen: NodeSeen) -> NodeState:
            age = age_s(seen, boot_id=boot_id, boot_ns=boot_ns, utc_ns=utc_ns)
            return judge(seen, age, late_s=self._late_s, dark_s=self._dark_s)

        return state_of

    def _complain(self, text: str) -> None:
        now = self._now()
        if now - self._complained_at >= COMPLAIN_S:
            self._complained_at = now
            log.warning("%s", text)

    def _now(self) -> float:
        return self._clock.boot_ns() / NS


def _portions(messages: Sequence[Received]) -> Iterator[list[Received]]:
    """What is stored together, in order."""
    portion: list[Received] = []
    size = 0
    for message in messages:
        if portion and size + len(message.payload) > COMMIT_BYTES_MAX:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += len(message.payload)
    if portion:
        yield portion
