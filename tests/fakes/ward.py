"""A ward of posts and the station that watches them, with faults that a test causes and therefore knows.

Each post is the node's own parts: its store with sessions, outbox and journal, its signed ledger, its heartbeats, the
events of its panel, camera and recorder as the node words them. The station is its own store and its own judgement of
silence. Only clocks, power and network are the test's.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import boot, wire
from agent.clock import uuid7_maker
from agent.evidence import keys
from agent.evidence.worker import LedgerWorker
from agent.health import Heartbeats, Probes
from agent.machine import Machine
from agent.panel import Input
from agent.panel.worker import _WORDS as PANEL
from agent.recording.recover import Recovery
from agent.station.db.engine import open_engine
from agent.station.intake import StatusIn, take_all
from agent.station.posts.fleet import PostView, judge
from agent.station.posts.known import Known, Spot
from agent.station.posts.reader import PostsReader
from agent.station.states import age_s
from agent.station.states import judge as judge_state
from agent.station.store import Batch, StationStore
from agent.store.store import Origin, Store
from agent.types import NS, Event, Kind, Phase, Priority
from agent.uplink.worker import HISTORICAL_S
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database
from tests.fakes.disk import FakeDisk

SITE = "ward-7"
BEAT_S = 30.0
LATE_S, DARK_S = 75.0, 180.0
WILL_S = 40.0
"""From the last heartbeat to the will of a connection that dies without a word: 1.5 keepalives, and a ping before."""


class WatchedPost:
    """One post. `power`, `network` say what works; `mains_input`: it has one, and a battery for a minute."""

    def __init__(self, node: str, spot: Spot, folder: Path, *, number: int, mains_input: bool = False) -> None:
        self.node, self.spot, self.mains_input = node, spot, mains_input
        self.place = f"Place {node}"
        self.clock = FakeClock(boot_id=f"{number:08x}" + "0" * 24, boot_ns=number * NS)
        self.disk = FakeDisk()
        self._folder = folder
        self._number = number
        self._boots = 0
        self.throttled = 0  # as the firmware tells it: 0x1 under-voltage now, 0x10000 since boot
        self.parts: dict[str, Any] = {}
        self.disk_free_bytes = 20_000_000_000
        self.reason = ""  # why it is offline, as it or its last will says; empty: an older agent
        self.running = False
        self.network = True
        self.told_ns: int | None = None  # when its last word reached the broker, by the ward's clock
        self.closed = False  # its connection ended in order
        self.start()

    def start(self) -> None:
        """The agent starts, as agent/main.py and agent/assembly/books.py have it."""
        self.store = Store(
            self._folder / f"{self.node}.db",
            clock=self.clock,
            new_id=uuid7_maker(self.clock),
            origin=Origin(SITE, self.node, f"Place {self.node}"),
            outbox_rows_max=1000,
            event_rows_max=1000,
        )
        self.store.open()
        ledger, receipts, _ = boot.open_ledger(self.disk, self.store, self.clock, f"{SITE}/{self.node}")
        before = self.store.start_session()
        self.ledger = LedgerWorker(ledger=ledger, receipts=receipts, journal=self.store)
        self.ledger.open()
        self.store.commit(boot.notices(before, Recovery(), None, self.clock, uuid7_maker(self.clock)))
        self.store.commit(boot.end_left_open(self.store, self.clock))
        machine = Machine(root=self._folder / "no-such-machine", vcgencmd=lambda: f"throttled={self.throttled:#x}")
        parts: dict[str, Any] = {
            "camera": lambda: wire.CameraState(name="stream", fps=5.0, frameagems=40, frames=9, restarts=0),
            "vision": lambda: wire.VisionState(detector="tflite", healthy=True, detectorruns=3, inferencems=12.0),
            "recording": lambda: wire.RecordingState(
                recording=True, segments=2, bytes=40_000_000_000, oldest="2023-11-07T22:13:20Z", droppedpackets=0
            ),
            "queue": self._queue,
        }
        self.beats = Heartbeats(
            node=self.node,
            session=self.store.session,
            clock=self.clock,
            machine=machine,
            probes=Probes(
                **{name: (lambda name=name, made=made: self.parts.get(name, made)()) for name, made in parts.items()},
                disk_free_bytes=lambda: self.disk_free_bytes,
            ),
        )
        self.running, self.closed = True, False
        self._connected_ns = self.clock.boot_ns()

    def _queue(self) -> wire.QueueState:
        return wire.QueueState(outboxrows=self.store.outbox_rows, oldestage_s=None, dropped=0)

    # -- faults -------------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """The agent dies; the machine goes on."""
        self.store.close()
        self.running, self.closed = False, True  # the kernel closes the socket

    def stop(self) -> None:
        """The agent is stopped in order; its last word is delivered at the next start."""
        self.store.stop_session("stopped")
        self.kill()

    def cut_power(self) -> None:
        """Everything stops at once."""
        self.store.close()
        self.running = False

    def power_back(self, off_s: float) -> None:
        """`off_s` has passed on all clocks already: the machine's own counts anew."""
        self._boots += 1
        self.clock = FakeClock(
            boot_id=f"{self._number:08x}{self._boots:08x}" + "0" * 16,
            boot_ns=20 * NS,
            utc_ns=self.clock.utc().utc_ns,
        )
        self.start()

    def say(
        self, kind: Kind, phase: Phase, summary: str, *, incident: str, priority: Priority = Priority.ALERT
    ) -> None:
        """An event, as its worker makes it."""
        now = self.clock.boot_ns()
        self.store.commit(
            [Event(incident=incident, kind=kind, phase=phase, boot_ns=now, priority=priority, summary=summary,
                   since_ns=now)]
        )  # fmt: skip

    def lose_mains(self) -> None:
        """Its input tells; it runs on its battery."""
        words = PANEL[Input.MAINS_LOST]
        self.say(words.kind, Phase.STARTED, words.started, incident=uuid7_maker(self.clock)())

    # -- talk ---------------------------------------------------------------------------------------------------------

    def messages(self) -> Iterator[tuple[str, bytes]]:
        """(topic, payload) of what it says in one go: what waits, and a heartbeat."""
        topics = wire.Topics(SITE, self.node)
        self.store.alive()
        self.ledger.notify()
        self.ledger.step(self.clock.boot_ns() / NS)
        for row in self.store.pending(500):
            late = row.session != self.store.session or row.boot_ns < self._connected_ns
            late = late or self.clock.boot_ns() - row.boot_ns > HISTORICAL_S * NS
            body = wire.mark_historical(row.body) if late and row.kind != "record" else row.body
            yield (topics.record if row.kind == "record" else topics.event(row.kind)), body
            self.store.acknowledge([(row.sequence, row.sequence)])
        yield topics.heartbeat, wire.encode(self.beats())

    def status(self, state: str) -> StatusIn:
        """As agent.uplink says it at birth, and as its will."""
        said = wire.Status(
            state="online" if state == "online" else "offline",
            node=self.node,
            bootid=self.clock.boot_id,
            session=self.store.session,
            place=self.place,
            key=self._key() if state == "online" else "",
            reason="" if state == "online" else self.reason,
        )
        return StatusIn(self.node, said, retained=False)

    def _key(self) -> str:
        return keys.load(self.disk, "node")[-1].public.hex()

    def reconnected(self) -> None:
        self._connected_ns = self.clock.boot_ns()


class Ward:
    """The posts, their station, and the time they share."""

    def __init__(self, folder: Path, database: Database, *, seed: int = 1) -> None:
        self.clock = FakeClock()
        self.rng = random.Random(seed)
        self.posts: dict[str, WatchedPost] = {}
        self._folder = folder
        self.database = database
        self.station = StationStore(
            database.folder, clock=self.clock, site=SITE, database=database.setting, free_bytes=lambda _: 1 << 40
        )
        self.station.open()
        self._engine = open_engine(database.url, read_only=True, pooled=False)
        self.goodbye_s = 5.0  # so long after its last heartbeat a post is killed
        self.headquarters = True  # its own line stands
        self._heard_ns: dict[str, int] = {}
        self._away: set[str] = set()

    def close(self) -> None:
        for post in self.posts.values():
            post.store.close()
        self.station.close()

    def add(self, node: str, *, mains_input: bool = False, **spot: Any) -> WatchedPost:
        """A post that works."""
        folder = self._folder / "nodes"
        folder.mkdir(exist_ok=True)
        made = WatchedPost(node, Spot(**spot), folder, number=len(self.posts) + 1, mains_input=mains_input)
        self.posts[node] = made
        self._away.add(node)
        return made

    def tick(self, times: int = 1) -> None:
        """`times` heartbeats of everybody who can, a while apart; the station judges after each, and in between."""
        for _ in range(times):
            self.wait(self.goodbye_s)
            self._commit(self._wills())
            self.wait(BEAT_S - self.goodbye_s)
            taken: list[Any] = []
            for post in self.posts.values():
                if not (post.running and post.network and self.headquarters):
                    continue
                if post.node in self._away:
                    self._away.discard(post.node)
                    post.reconnected()
                    taken.append(post.status("online"))
                for topic, payload in post.messages():
                    found, refusal = take_all(topic, payload, site=SITE)
                    assert refusal is None, refusal
                    taken += found
                self._heard_ns[post.node] = self.now_ns
            self._commit(taken)

    def _wills(self) -> list[Any]:
        """What the broker tells of connections that have ended. Nobody hears it while headquarters is cut off."""
        taken = []
        for post in self.posts.values():
            silent_s = (self.now_ns - self._heard_ns.get(post.node, 0)) / NS
            up = post.running and post.network and self.headquarters
            if up or post.node in self._away or silent_s < (0.0 if post.closed and post.network else WILL_S):
                continue
            self._away.add(post.node)
            if self.headquarters:
                taken.append(post.status("offline"))
        return taken

    def _commit(self, taken: list[Any]) -> None:
        self.station.commit(Batch(taken))
        self.notice()

    def notice(self) -> None:
        """As agent.station.worker watches nodes."""
        boot_id, boot_ns, utc_ns = self.clock.boot_id, self.clock.boot_ns(), self.clock.utc().utc_ns
        changes = []
        for seen in self.station.nodes():
            age = age_s(seen, boot_id=boot_id, boot_ns=boot_ns, utc_ns=utc_ns)
            state = judge_state(seen, age, late_s=LATE_S, dark_s=DARK_S)
            if state != seen.state:
                changes.append((seen.node, state.value, seen.seen_utc_ns))
        if changes:
            self.station.change(changes)

    def flap(self, node: str) -> None:
        """Its connection ends and comes back at once: it says again who and where it is."""
        self._away.add(node)

    def wait(self, seconds: float) -> None:
        """Time passes for everybody, powered or not."""
        self.clock.advance(seconds)
        for post in self.posts.values():
            post.clock.advance(seconds)

    def known(self) -> list[Known]:
        """What the station knows."""
        spots = {node: post.spot for node, post in self.posts.items()}
        return PostsReader(self._engine).read(spots, now_utc_ns=self.now_ns)

    def views(self) -> dict[str, PostView]:
        """What it makes of that."""
        return {view.post.node: view for view in judge(self.known(), now_utc_ns=self.now_ns, zone=dt.UTC)}

    @property
    def now_ns(self) -> int:
        return self.clock.utc().utc_ns


@contextmanager
def ward(
    folder: Path, database: Database, nodes: Sequence[tuple[str, dict[str, Any]]], *, seed: int = 1
) -> Iterator[Ward]:
    """A ward that has been well for some minutes."""
    made = Ward(folder, database, seed=seed)
    try:
        for node, spot in nodes:
            made.add(node, **spot)
        made.tick(3)
        yield made
    finally:
        made.close()
