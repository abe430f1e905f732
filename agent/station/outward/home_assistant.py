"""Tells Home Assistant's broker of the posts: what is so, retained; what is raised, as it comes; and takes a post away
that is revoked.

Which topics the broker keeps of ours stands in the database before they are published, and until the broker has
acknowledged that they are gone: no crash leaves a device behind. After each connection everything is published anew.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Engine, delete, func, select

from agent.clock import Clock
from agent.errors import Transient
from agent.station.db.board import alert, alert_step
from agent.station.db.engine import reading, writing
from agent.station.db.outward import outward_discovery
from agent.station.db.tables import event, node
from agent.station.db.upsert import Upsert
from agent.station.outward.discovery import OFFLINE, ONLINE, Discovery, Post
from agent.station.outward.retry import pause_s
from agent.station.store import event_of
from agent.types import NS
from agent.uplink import Broker, Connected, Delivered, Disconnected, Hello, Refused, Transport, Will

LOOK_S = 1.0
REVOKED_EVERY_S = 15.0
UNDER_WAY_MAX = 50
EVENTS_MAX = 50
"""Told in one look; of more, the newest: who was away for long sees what is so, not all that was."""

log = logging.getLogger(__name__)


class HomeAssistantWorker:
    """`agent.worker.Worker`. It waits inside `step`, on the socket."""

    name = "home-assistant"
    step_s_max = 60.0

    def __init__(
        self,
        *,
        engine: Engine,
        transport: Transport,
        discovery: Discovery,
        revoked: Callable[[], Collection[str]],
        brokers: Sequence[Broker],
        client_id: str,
        clock: Clock,
        rng: random.Random,
        wait_s_max: float = LOOK_S,
    ) -> None:
        """`revoked`: posts that must not be told any more. `wait_s_max` 0: for a test that owns the time."""
        self._engine = engine
        self._transport = transport
        self._discovery = discovery
        self._revoked = revoked
        self._brokers = tuple(brokers)
        self._client_id = client_id
        self._clock = clock
        self._rng = rng
        self._wait_s_max = wait_s_max
        self._note = Upsert(outward_discovery, lambda bare: bare.on_conflict_do_nothing())
        self._gone: frozenset[str] = frozenset()
        self._forget()
        self._turn = self._failures = 0
        self._connecting = False
        self._connect_at = self._look_at = self._revoked_at = 0.0

    def _forget(self) -> None:
        """What the broker has, as far as it is known: nothing."""
        self._up = False
        self._kept: dict[str, bytes] = {}
        self._under_way: dict[int, tuple[str, bytes]] = {}
        self._noted: set[str] = set()
        self._step: int | None = None

    def open(self) -> None:
        self._forget()
        self._connecting, self._connect_at, self._look_at, self._revoked_at = False, 0.0, 0.0, 0.0

    def step(self, now: float) -> float:
        """Raises Transient when the database is away, ConfigError for certificates that cannot be read."""
        if not self._up and not self._connecting and now >= self._connect_at:
            self._connecting = True
            will = Will(self._discovery.station, OFFLINE)
            self._transport.connect(self._brokers[self._turn % len(self._brokers)], Hello(self._client_id, will=will))
        for happening in self._transport.poll(min(self._wait_s_max, max(self._look_at - now, 0.0))):
            match happening:
                case Connected():
                    self._forget()
                    self._up, self._connecting, self._failures = True, False, 0
                    self._publish(self._discovery.station, ONLINE)
                case Refused() | Disconnected():
                    self._lost(happening.broker, happening.reason)
                case Delivered():
                    self._arrived(happening.mid)
                case _:
                    pass
        now = self._clock.boot_ns() / NS
        if self._up and now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look(now)
        return now if self._wait_s_max else now + LOOK_S / 2

    def close(self) -> None:
        if self._up:
            try:
                self._transport.publish(self._discovery.station, OFFLINE, qos=1, retain=True)
            except Transient:
                log.debug("the broker publishes the last will instead")
        self._transport.disconnect()
        self._forget()

    def _lost(self, broker: Broker, reason: str) -> None:
        self._forget()
        self._connecting = False
        self._failures += 1
        self._turn += 1
        wait_s = pause_s(self._failures, self._rng)
        self._connect_at = self._clock.boot_ns() / NS + wait_s
        log.warning("Home Assistant's broker %s: %s; next attempt in %.0f s", broker, reason, wait_s)

    def _look(self, now: float) -> None:
        if now >= self._revoked_at:
            self._revoked_at = now + REVOKED_EVERY_S
            self._gone = frozenset(self._revoked())
        wanted: dict[str, bytes] = {}
        owners: dict[str, str] = {}
        posts = [post for post in self._posts() if post.node not in self._gone]
        for post in posts:
            for topic, payload in self._discovery.messages(post).items():
                wanted[topic], owners[topic] = payload, post.node
        self._write_down(owners)
        # First what goes: an entity that comes under another topic has the name of the old one.
        wanted = dict.fromkeys(self._stale(wanted), b"") | wanted
        busy = {topic for topic, _ in self._under_way.values()}
        for topic, payload in wanted.items():
            if len(self._under_way) >= UNDER_WAY_MAX or not self._up:
                break
            if topic not in busy and self._kept.get(topic) != payload:
                self._publish(topic, payload)
        self._tell_events({post.node for post in posts})

    def _posts(self) -> list[Post]:
        open_alerts = select(alert.c.node).where(alert.c.acknowledged_utc_ns.is_(None)).distinct()
        with reading(self._engine) as db:
            alerting = set(db.execute(open_alerts).scalars())
            rows = db.execute(select(node.c.node, node.c.place, node.c.state, node.c.version).order_by(node.c.node))
            return [Post(row.node, row.place, row.state, row.version, row.node in alerting) for row in rows]

    def _write_down(self, owners: dict[str, str]) -> None:
        new = [topic for topic in owners if topic not in self._noted]
        if new:
            with writing(self._engine, "note what Home Assistant is told") as db:
                self._note.many(db, [{"topic": topic, "node": owners[topic]} for topic in new])
            self._noted.update(new)

    def _stale(self, wanted: Collection[str]) -> list[str]:
        """What the broker may have of ours and is not to have. What was taken away is forgotten."""
        with reading(self._engine) as db:
            there = db.execute(select(outward_discovery.c.topic)).scalars().all()
        stale = [topic for topic in there if topic not in wanted]
        done = [topic for topic in stale if self._kept.get(topic) == b""]
        if done:
            with writing(self._engine, "note what Home Assistant is told no more") as db:
                db.execute(delete(outward_discovery).where(outward_discovery.c.topic.in_(done[:UNDER_WAY_MAX])))
            self._noted.difference_update(done)
        return [topic for topic in stale if topic not in done]

    def _tell_events(self, posts: Collection[str]) -> None:
        """What was raised since the last look; nothing of what was before the connection."""
        with reading(self._engine) as db:
            newest = int(db.execute(select(func.coalesce(func.max(alert_step.c.n), 0))).scalar_one())
            since, self._step = newest if self._step is None else self._step, newest
            if newest <= since:
                return
            rows = db.execute(
                select(alert.c.node, alert.c.incident, alert.c.severity, event.c.body)
                .join(alert_step, alert_step.c.incident == alert.c.incident)
                .outerjoin(event, event.c.n == alert.c.event)
                .where(alert_step.c.n > since, alert_step.c.n <= newest, alert_step.c.what == "raised")
                .order_by(alert_step.c.n.desc())
                .limit(EVENTS_MAX)
            ).all()
        for row in reversed(rows):
            if row.node in posts:
                told = None if row.body is None else event_of(bytes(row.body))
                summary = "" if told is None else told.data.summary
                payload = self._discovery.event(severity=row.severity, incident=row.incident, summary=summary)
                self._publish(self._discovery.event_topic(row.node), payload, retain=False)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        try:
            mid = self._transport.publish(topic, payload, qos=1, retain=retain)
        except Transient as error:
            log.debug("%s", error)  # a Disconnected follows, and then all of it again
            return
        if retain:
            self._under_way[mid] = (topic, payload)

    def _arrived(self, mid: int) -> None:
        found = self._under_way.pop(mid, None)
        if found is not None:
            self._kept[found[0]] = found[1]
