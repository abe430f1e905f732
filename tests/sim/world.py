"""A whole node and a whole station in one thread: the real workers, stores and boot path; the world around them is fake.

    true time   counts from 0; each machine's own clock runs with it while the machine is on
    node        `agent.main.build` on a FakeDisk, FakeCamera, FakePanel, FakeDetector and the fake broker; SQLite is real
    station     `agent.station` with real SQLite, on a machine of its own
    power       goes at a numbered crash point; the next boot finds one legal outcome of it, drawn by seed

Everything is decided by the seed: the same seed, story and parts give the same run, crash point for crash point.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import agent.main
from agent import boot
from agent.assembly import world as outside
from agent.clock import rfc3339
from agent.config import (
    CameraSettings,
    Config,
    HealthSettings,
    NodeSettings,
    RecordingSettings,
    StoreSettings,
    UplinkSettings,
    VisionSettings,
    fingerprint,
)
from agent.errors import WardpostError
from agent.machine import Machine as Computer
from agent.panel import Input
from agent.recording.index import FOLDER
from agent.recording.recorder import RecorderState, RecorderWorker
from agent.reporter import Reporter
from agent.station.db.engine import FILE, database_url, open_engine
from agent.station.lock import FolderLock
from agent.station.orders import OrderBook
from agent.station.store import StationStore
from agent.station.worker import StationWorker
from agent.store.store import Store
from agent.supervisor import Life, Limits
from agent.types import NS, Event, Frame, Hold, Packet, Segment
from agent.uplink import parse_broker
from tests.fakes.broker import FakeBroker, FakeTransport
from tests.fakes.camera import FakeCamera, Walker
from tests.fakes.clock import FakeClock
from tests.fakes.database import engine_in
from tests.fakes.detector import FakeDetector, bright_spots
from tests.fakes.disk import FakeDisk
from tests.fakes.panel import FakePanel
from tests.fakes.planting import planted
from tests.sim import checks
from tests.sim.power import WAYS_MAX, CrashPoints, DatabaseImage, Death, Odometer, PowerCut, Way
from tests.sim.scheduler import Machine, Pace, Scheduler

SITE, NODE, STATION = "phuong-1", "post-1", "desk"
BROKER = "mqtt://fake:1883"
FPS = 5
RESTART_S = 2.0  # systemd's pause before it starts a process again
BOOT_S = 3.0  # from power to the agent's first instruction
CHECK_EVERY_TURNS = 20
KEYFRAME_S = 1.0  # as FakeCamera's
WAIT_S_MAX = 0.5  # a step waits no longer for a socket or a camera, as `read_s` and `wait_s_max` of the product


class SimDisk(FakeDisk):
    """A FakeDisk whose top level also shows the real files of SQLite: the quarantine renames those."""

    def __init__(self, *, writing: Callable[[], str | None] = lambda: None, **given: Any) -> None:
        """`writing`: the file in progress, which nobody may remove; one that was removed all the same is noted."""
        super().__init__(**given)
        self.writing = writing
        self.torn_away: list[str] = []

    def rename(self, name: str, new: str) -> None:
        if not self.path(name).exists():
            super().rename(name, new)
            return
        self.crash_point(f"before rename {name}")
        self.path(name).rename(self.path(new))
        self.crash_point(f"after rename {name}")

    def unlink(self, name: str) -> None:
        if name == self.writing():
            self.torn_away.append(name)
        if not self.path(name).exists():
            super().unlink(name)
            return
        self.crash_point(f"before unlink {name}")
        self.path(name).unlink()
        self.crash_point(f"after unlink {name}")

    def lose(self, folder: str) -> None:
        """A folder and what is in it were never there."""
        for names in (self._names, self._durable_names):
            for name in [name for name in names if name.startswith(f"{folder}/")]:
                del names[name]

    def move_to(self, folder: Path) -> None:
        """SQLite's files lie elsewhere from now on: in another universe, or after a cut."""
        self._root = folder

    def ways(self) -> tuple[list[Way], bool]:
        """What a power cut now may leave, each outcome once, as choices for `power_cut`; and whether these are all.

        Every legal prefix of the unsynced names, times, for each file with an unsynced tail, each of at most
        WAY_LENGTHS lengths, whole, as zeros or with one block missing; at most WAYS_MAX of these.
        """
        if not any(self._dir_ops.values()) and all(i.data == i.durable for i in self._names.values()):
            return [(0,) * len(self._dir_ops)], True  # each folder is asked about, with one answer
        names, durable, boot_number = self._names, self._durable_names, self._boot
        dir_ops = {folder: list(ops) for folder, ops in self._dir_ops.items()}
        ways: dict[object, Way] = {}
        odometer = Odometer()
        clean = {name for name, inode in names.items() if inode.data == inode.durable}
        held_back = {op.name for ops in dir_ops.values() for op in ops}
        self._durable_names = {name: inode for name, inode in durable.items() if name not in clean - held_back}
        asked = self._durable_names
        while odometer.turn() and len(ways) < WAYS_MAX and odometer.turns < 4 * WAYS_MAX:
            self.power_cut(odometer.choose)
            left = frozenset((name, bytes(inode.data)) for name, inode in self._names.items())
            ways.setdefault(left, tuple(odometer.chosen))
            self._durable_names, self._dir_ops = asked, {folder: list(ops) for folder, ops in dir_ops.items()}
        self._names, self._durable_names, self._boot = names, durable, boot_number
        return list(ways.values()), odometer.exact and odometer.finished


class SimCamera(FakeCamera):
    """Remembers what it has handed over: the truth that recordings are held against."""

    first_ns: int | None = None
    newest_ns: int | None = None

    def read(self, timeout_s: float) -> list[Frame | Packet]:
        items = super().read(timeout_s)
        for item in items:
            if isinstance(item, Packet):
                self.first_ns = item.boot_ns if self.first_ns is None else self.first_ns
                self.newest_ns = item.boot_ns
        return items

    def wait_s(self) -> float:
        """How long `read` would block."""
        if not self.is_open or self._mode != "well":
            return 0.0
        return min(max(self._stamp(self._next) - self._clock.boot_ns(), 0) / NS, WAIT_S_MAX)


class SimTransport(FakeTransport):
    """Lets somebody overhear what is handed to the broker."""

    def __init__(self, *, broker: FakeBroker, clock: FakeClock, heard: Callable[[str, bytes], None]) -> None:
        super().__init__(brokers=[broker], clock=clock)
        self._overheard = heard

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False) -> int:
        mid = super().publish(topic, payload, qos=qos, retain=retain)
        self._overheard(topic, payload)
        return mid

    def wait_s(self, worker: Any) -> float:
        """How long `poll` would block in the next step of this worker."""
        if self.holds_something:
            return 0.0
        due_s: float = worker._due()
        return min(max(due_s - self._now(), 0.0), WAIT_S_MAX)


class SimStationStore(StationStore):
    """Calls a crash point around each transaction."""

    crash_point: Callable[[str], None]

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Any]:
        with super()._transaction(what) as db:
            yield db
            self.crash_point(f"before commit: station {what}")
        self.crash_point(f"after commit: station {what}")


class SimOrderBook(OrderBook):
    """Calls a crash point of the station around each transaction."""

    def __init__(self, folder: Path, crash_point: Callable[[str], None]) -> None:
        super().__init__(engine_in(folder))
        self.crash_point = crash_point

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Any]:
        with super()._transaction(what) as db:
            yield db
            self.crash_point(f"before commit: orders {what}")
        self.crash_point(f"after commit: orders {what}")


class QuietComputer(Computer):
    """A machine whose readings are always the same: this one's would differ from run to run."""

    def model(self) -> str:
        return "Simulated Pi"

    def temperature_c(self) -> float | None:
        return 48.0

    def throttled(self) -> list[str] | None:
        return []

    def memory_available_bytes(self) -> int:
        return 1 << 30

    def rss_bytes(self) -> int:
        return 100 << 20

    def load1(self) -> float:
        return 0.5


@dataclass(frozen=True, slots=True)
class Loss:
    """What a death cost of the recording in progress."""

    lost_s: float
    queue_s: float
    bound_s: float


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody crosses the picture between two moments of true time."""

    from_s: float
    until_s: float
    y: float = 0.4


@dataclass(slots=True)
class _Dying:
    """What is known of a life that ended at once, to judge afterwards what it cost."""

    boot_id: str
    session: int
    first_ns: int | None
    newest_ns: int | None
    queue_s: float


@dataclass(order=True, slots=True)
class _Scripted:
    at_s: float
    order: int
    act: Callable[[], None] = field(compare=False)


def config_of(folder: Path, **changes: Any) -> Config:
    """Small numbers, so that a minute holds a whole life: segments of 10 s, and a budget of a few of them."""
    recording = {
        "segment_s": 10.0,
        "fragment_s": 1.0,
        "budget_gb": 0.000_120,
        "free_gb_min": 0.0,
        "hold_share_max": 0.45,
    }
    store = {"outbox_rows_max": 1000}
    return Config(
        node=NodeSettings(site=SITE, id=NODE, data=str(folder), place="the gate"),
        camera=CameraSettings(driver="stream", url="simulated"),
        uplink=UplinkSettings(brokers=(BROKER,), **changes.get("uplink", {})),
        vision=VisionSettings(**changes.get("vision", {})),
        recording=RecordingSettings(**recording | changes.get("recording", {})),
        store=StoreSettings(**store | changes.get("store", {})),
        health=HealthSettings(**changes.get("health", {})),
    )


class World:
    """One run. Everything that `boot` makes is thrown away by `die`; the rest is the world outside."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        visits: Sequence[Visit] = (),
        pace: Pace | None = None,
        parts: Mapping[str, Any] | None = None,
        synced: bool = True,
        capacity_bytes: int = 1 << 40,
        **settings: Any,
    ) -> None:
        """`parts` replaces classes of the product by name (tests/fakes/planting.py): how mutations are planted.

        `synced`: whether the node's wall clock is vouched for; else it starts in 1970. `settings`: see `config_of`.
        """
        self.seed = seed
        self.folder = folder
        self.parts = dict(parts or {})
        self.visits = list(visits)
        self._rng = random.Random(f"{seed} world")
        self.scheduler = Scheduler(random.Random(f"{seed} order"), pace=pace)
        self.scheduler.after_turn = self._after_turn
        self.crash_points = CrashPoints()
        self.station_points = CrashPoints()
        self.promises = checks.Promises()
        self.losses: list[Loss] = []
        self.going_on: set[str] = set()  # kinds of incident that a story leaves open on purpose
        self.curtains: list[tuple[str, int, int]] = []  # boot, from, until: nothing of this may be recorded
        self.lives = 0
        self.station_kind = SimStationStore
        self.order_kind: Callable[[Path, Callable[[str], None]], OrderBook | None] = lambda _folder, _points: None
        self.boot_error = ""
        self.torn_from: DatabaseImage | None = None  # before the commit in which the power goes
        self._script: list[_Scripted] = []
        self._dying: _Dying | None = None
        self._graveyard: list[object] = []  # a dead process closes nothing; and SQLite's close would write
        self._turns = 0

        self.node_folder = self._new_folder("node")
        self.station_folder = self._new_folder("station")
        self.config = config_of(self.node_folder, **settings)
        utc_ns = 1_790_000_000 * NS if synced else 0
        self.clock = FakeClock(
            boot_id="1" * 32, boot_ns=round(BOOT_S * NS), utc_ns=utc_ns, unc_ns=5_000_000 if synced else None
        )
        self.disk = SimDisk(
            root=self.node_folder,
            crash_point=self.crash_points,
            capacity_bytes=capacity_bytes,
            writing=lambda: self.writing() if self.running else None,
        )
        self.promises.unlinked = self.disk.torn_away
        self.eyes = FakeDetector(bright_spots())
        self.computer = Machine("node", self.clock)
        self.desk = Machine("station", FakeClock(boot_id="d" * 32, utc_ns=1_790_000_000 * NS))
        broker = Machine("broker", FakeClock(boot_id="b" * 32, utc_ns=1_790_000_000 * NS))
        self.scheduler.machines = [self.computer, self.desk, broker]
        self.broker = FakeBroker(clock=broker.clock)
        self._start_station()

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """True time."""
        return self.scheduler.now_s

    def at(self, at_s: float, act: Callable[[], None]) -> None:
        """The world does this at that moment of true time."""
        self._script.append(_Scripted(at_s, len(self._script), act))
        self._script.sort()

    def run(self, until_s: float) -> None:
        """Lives on until this moment of true time. Raises Death when the power goes, and Broken."""
        while self._script and self._script[0].at_s <= until_s:
            scripted = self._script[0]
            self.scheduler.run(scripted.at_s)  # may end in a death: what was to come then still comes
            self._script = [other for other in self._script if other is not scripted]
            scripted.act()
        self.scheduler.run(until_s)

    def end_story(self, *, node_lives: bool = False) -> None:
        """Nothing more happens but what has begun: nobody comes, nothing that was to be done is done.

        A node that lives on has a camera that shows its visitors all the same.
        """
        self._script.clear()
        if node_lives and not self.running:  # the story had stopped it, and would have started it again
            self.at(self.now_s + RESTART_S, self.boot)
        elif node_lives:
            panel = self.panel
            self.at(
                self.now_s + 0.5, lambda: panel.level(Input.BELL, active=False, boot_ns=self.clock.boot_ns())
            )  # whoever pressed lets go
            return
        self.visits = [visit for visit in self.visits if visit.from_s <= self.now_s]

    def settle(self, within_s: float = 90.0) -> None:
        """Runs on until all is delivered and quiet, or the time is up (the checks then say what is left)."""
        last = max([visit.until_s for visit in self.visits] + [scripted.at_s for scripted in self._script] + [0.0])
        self.run(max(self.now_s + 2.0, last + 1.0))
        until_s = max(self.now_s, last + 6.0) + within_s
        while self.now_s < until_s and not (self.running and self._is_quiet()):
            self.run(self.now_s + 1.0)

    def _is_quiet(self) -> bool:
        if self._open_kinds() - self.going_on:
            return False
        store = self.node.store
        on_ledger = store.record_rows == 0 and store._ledger_sent in (
            None,
            store._ledger_seq,
        )  # or there is no room yet
        delivered = store.outbox_rows == 0 and on_ledger and not checks.open_orders(self)
        return delivered and self.recorder_state().recording and not self._script

    def _open_kinds(self) -> set[str]:
        """Kinds of the incidents that the node's store knows the beginning of, and no end."""
        rows = self.node.store._query(
            "select distinct kind from event where kind not in ('record', 'thumbnail')"
            " and incident not in (select incident from event where phase = 'ended')"
        )
        return {f"wardpost.{kind}" for (kind,) in rows}

    def _after_turn(self, machine: Machine, life: Life) -> None:
        if life.bugs:
            raise checks.Broken(f"{machine.name}: {life.name} has a bug: {life.trouble}")
        self._turns += 1
        if self._turns % CHECK_EVERY_TURNS == 0 and self.running:
            checks.check_6_bounds(self)

    @property
    def running(self) -> bool:
        """The node's process is there."""
        return bool(self.computer.lives)

    # -- the node -----------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Power on, or systemd starts the process again: the real boot path. Raises Death as any step may."""
        if self.running:
            raise AssertionError("two nodes on one machine: the story starts one that runs")
        self.lives += 1
        self.camera = SimCamera(
            clock=self.clock,
            fps=FPS,
            size=(160, 120),
            luma_px=80,
            walkers=[Walker(v.from_s - self.now_s, v.until_s - self.now_s, y=v.y) for v in self.visits],
        )
        self.panel = FakePanel()
        self.transport = SimTransport(broker=self.broker, clock=self.clock, heard=self.promises.publish)
        world = outside.World(
            clock=self.clock,
            disk=self.disk,
            camera=self.camera,
            detector=self.eyes,
            panel=self.panel,
            transport=self.transport,
            machine=QuietComputer(),
            rng=random.Random(f"{self.seed} node {self.lives}"),
            stopwatch_ns=lambda: 0,
            crash_point=self.crash_points,
            wait_s_max=0.0,
        )
        parts = {"Store": watched(self.parts.get("Store", Store), self)}
        self.running_config = self.config
        self.promises.configs.add(fingerprint(self.config))
        self.promises.keep_s = self.config.recording.keep_days_max * 86_400
        self.promises.born_s.setdefault(self.clock.boot_id, self.now_s - self.clock.boot_ns() / NS)
        try:
            with planted({**self.parts, **parts}):
                self.node = agent.main.build(self.config, world)
        except WardpostError as error:
            self.boot_error = str(error)
            self.at(self.now_s + RESTART_S, self.boot)
            return
        self.boot_error = ""
        limits = Limits()
        jitter = random.Random(f"{self.seed} jitter {self.lives}").random
        # `local` serves a real socket to other processes, of which there are none here.
        workers = [worker for worker in self.node.workers if worker.name != "local"]
        self.computer.lives = {w.name: Life(w, limits=limits, clock=self.clock, jitter=jitter) for w in workers}
        self.computer.due_ns.clear()
        transport, uplink = self.transport, self.computer.lives["uplink"].worker
        self.computer.waits_s = {"camera": self.camera.wait_s, "uplink": lambda: transport.wait_s(uplink)}
        transport.stirred = lambda: self.scheduler.stir(self.computer, "uplink")
        for name, tell in self.node.wakers.items():
            tell(self.computer.lives[name].wake.set)
        self._count_loss()

    def restart(self, *, off_s: float = RESTART_S) -> None:
        """A clean stop, as for an update, and a start; nothing when the node is down just now."""
        if self.running:
            self.stop()
            self.at(self.now_s + off_s, self.boot)

    def stop(self) -> None:
        """SIGTERM: everything is closed in reverse order of the start, as the supervisor does it."""
        for life in reversed(self.computer.lives.values()):
            life.end()
        self.node.store.stop_session("stopped")
        self.node.store.close()
        self._process_ends()

    def die(
        self, death: Death, choose: random.Random, *, off_s: float, log: bytes | None = None, way: Way | None = None
    ) -> None:
        """The process is gone in the middle of a step; the next one starts by itself.

        `way` is what the disk keeps, one of `SimDisk.ways`; None: drawn from `choose`. `log` is another write-ahead log
        than the one in the folder: the cut was in the middle of a commit.
        """
        if self.running:
            recorder = self._recorder()
            self._dying = _Dying(
                self.clock.boot_id,
                self.node.store.session,
                self.camera.first_ns,
                self.camera.newest_ns,
                recorder._queue.seconds,
            )
        was_cut = isinstance(death, PowerCut)
        self._graveyard.append((self.__dict__.get("node"), dict(self.computer.lives), death))
        self._process_ends()
        image = DatabaseImage(self.node_folder / boot.STORE_NAME)
        self.node_folder = self._copy_of(self.node_folder, "node")
        image.restore(self.node_folder / boot.STORE_NAME, log)
        self.disk.move_to(self.node_folder)
        self.crash_points.revive()
        if was_cut:
            answers = iter(way or ())
            self.disk.power_cut(choose.randrange if way is None else lambda _count: next(answers))
            self.computer.on = False
            self.at(self.now_s + off_s + BOOT_S, lambda: self._power_up(off_s))
        else:
            self.transport.vanish()
            self.at(self.now_s + RESTART_S, self.boot)

    def _process_ends(self) -> None:
        self.computer.lives = {}
        self.computer.due_ns.clear()

    def _power_up(self, off_s: float) -> None:
        self.clock.reboot(off_s)
        self.clock.advance(BOOT_S)
        self.computer.on = True
        self.boot()

    def _count_loss(self) -> None:
        """Compares what the camera had given with what the boot path found."""
        dying, self._dying = self._dying, None
        if dying is None or dying.newest_ns is None or dying.first_ns is None:
            return
        ends = [
            row.end_ns
            for row in self.node.store.segments()
            if row.boot_id == dying.boot_id and row.session == dying.session
        ]
        period_ns = NS // FPS
        from_ns, until_ns = max(ends, default=dying.first_ns), dying.newest_ns + period_ns
        hidden_ns = sum(
            max(min(end_ns, until_ns) - max(start_ns, from_ns), 0)
            for boot_id, start_ns, end_ns in self.curtains
            if boot_id == dying.boot_id
        )
        # Behind a curtain nothing is recorded until the next key frame.
        waiting_ns = round(NS * KEYFRAME_S) if hidden_ns else 0
        lost_ns = until_ns - from_ns - hidden_ns - waiting_ns
        fragment_s = self.config.recording.fragment_s
        # The fragment in FFmpeg's hands, and the frame that made it come out; a cut at 1.05 fragments (fragments.py).
        bound_s = fragment_s * 1.05 + 2 / FPS + dying.queue_s
        self.losses.append(Loss(max(lost_ns, 0) / NS, dying.queue_s, bound_s))

    def press_bell(self, held_s: float = 1.0) -> None:
        """Somebody presses for help. While the post is dark nobody is told: that is what mains-lost alarms are for."""
        if not self.running:
            return
        self.panel.level(Input.BELL, active=True, boot_ns=self.clock.boot_ns())
        panel = self.panel
        self.at(self.now_s + held_s, lambda: panel.level(Input.BELL, active=False, boot_ns=self.clock.boot_ns()))

    def hold(self, from_s: float, until_s: float) -> None:
        """Somebody asks for what was recorded between these moments of true time; nothing when the node is down."""
        if not self.running:
            return
        begin_ns = self.clock.utc().utc_ns - round(self.now_s * NS)
        start, end = (rfc3339(begin_ns + round(at_s * NS)) for at_s in (from_s, until_s))
        self.promises.held_s[f"hold-{from_s:g}"] = (from_s, until_s)
        self._verb("hold")({"from": start, "to": end, "reason": "a dispute at the gate", "id": f"hold-{from_s:g}"})

    def release(self, from_s: float) -> None:
        """The hold that began there is not wanted any more. One that a power cut has undone is none to release."""
        if self.running and any(hold.id == f"hold-{from_s:g}" for hold in self.node.store.holds()):
            self._verb("release")({"hold": f"hold-{from_s:g}"})

    def _verb(self, name: str) -> Callable[[dict[str, Any]], Any]:
        local: Any = next(worker for worker in self.node.workers if worker.name == "local")
        found: Callable[[dict[str, Any]], Any] = local._verbs[name]
        return found

    def draw_curtain(self, seconds: float) -> None:
        """Headquarters switches the recording off for a while; nothing when the node is down."""
        if self.running:
            privacy: Any = next(worker for worker in self.node.workers if worker.name == "privacy")
            begin_ns = self.clock.boot_ns()
            privacy.command(seconds)
            self.curtains.append((self.clock.boot_id, begin_ns, begin_ns + round(seconds * NS)))

    def reconfigure(self, **settings: Any) -> None:
        """Somebody edits the settings; they hold from the next start."""
        self.config = config_of(self.node_folder, **settings)

    def report(self, events: Sequence[Event]) -> None:
        """Something in the node reports events, as its workers do."""
        self._reporter()(events)

    def network(self, *, up: bool, silent: bool = False) -> None:
        """The node's way to the broker. `silent`: nobody is told that it is gone, as when a mobile link fades."""
        client = f"wardpost_{SITE}_{NODE}"
        if up:
            self.broker.heal(client)
            return
        if not silent:
            self.broker.cut(client)
        self.broker.partition(client)

    # -- the station --------------------------------------------------------------------------------------------------

    def _start_station(self) -> None:
        store = self.station_kind(self.station_folder, clock=self.desk.clock, site=SITE, free_bytes=lambda _: 1 << 40)
        store.crash_point = self.station_points
        self.station_store = store
        self.station_transport = SimTransport(broker=self.broker, clock=self.desk.clock, heard=self.promises.publish)
        worker = StationWorker(
            store=store,
            transport=self.station_transport,
            clock=self.desk.clock,
            rng=random.Random(f"{self.seed} station"),
            site=SITE,
            station=STATION,
            brokers=[parse_broker(BROKER)],
            wait_s_max=0.0,
            orders=self.order_kind(self.station_folder, self.station_points),
        )
        jitter = random.Random(f"{self.seed} station jitter").random
        self.desk.lives = {"station": Life(worker, limits=Limits(), clock=self.desk.clock, jitter=jitter)}
        self.desk.due_ns.clear()
        transport = self.station_transport
        self.desk.waits_s = {"station": lambda: transport.wait_s(worker)}
        transport.stirred = lambda: self.scheduler.stir(self.desk, "station")

    def kill_station(self, *, off_s: float = 1.0) -> None:
        """kill -9 of the station; it starts again after a while."""
        self._graveyard.append((self.station_store, dict(self.desk.lives)))
        self.desk.lives = {}
        self.desk.due_ns.clear()
        self.station_transport.vanish()
        self.station_folder = self._copy_of(self.station_folder, "station")
        self.station_points.revive()
        self.at(self.now_s + off_s, self._start_station)

    def move_to(self, folder: Path) -> None:
        """This process is another universe now: its files are its own. The station goes on with a copy of its file.

        The old connections stay open for ever: closing one would write into the parent's files. The node must die next,
        or `live_on_in_copy`.
        """
        self.folder = folder
        self.node_folder = self._copy_of(self.node_folder, "node")
        store = self.station_store
        self.station_folder = self._copy_of(self.station_folder, "station")
        store._folder = self.station_folder
        if store._db is None:
            return
        # Not `open`: it would bring the copy up to date, read its keys and load what the store knows already, and be a
        # fifth of what a universe costs.
        self._graveyard.append((store._db, store._lock))
        store._lock = FolderLock(self.station_folder)
        store._lock.take()
        store._db = open_engine(database_url(self.station_folder, ""), pooled=False).connect()

    def live_on_in_copy(self) -> None:
        """The node lives on in this universe, on the copy of its files: for a death of the station alone."""
        self.disk.move_to(self.node_folder)
        if not self.running or self.node.store._db is None:
            return
        store = self.node.store
        self._graveyard.append(store._db)
        store._path = self.node_folder / boot.STORE_NAME
        number, taken, urgent = store._number, store._taken, store._urgent
        points, store._crash_point = store._crash_point, lambda _step: None
        store.open()
        store._crash_point = points
        store._number, store._taken, store._urgent = number, taken, urgent

    # -- what the checks ask ------------------------------------------------------------------------------------------

    def _recorder(self) -> RecorderWorker:
        found = next(worker for worker in self.node.workers if worker.name == "recorder")
        assert isinstance(found, RecorderWorker)
        return found

    def _reporter(self) -> Reporter:
        found = next(worker for worker in self.node.workers if worker.name == "vision")._report  # type: ignore[attr-defined]
        assert isinstance(found, Reporter)
        return found

    def recorder_state(self) -> RecorderState:
        """The recorder's own snapshot."""
        return self._recorder().state

    def reporter_waiting(self) -> int:
        """Events in memory that the disk has refused so far."""
        return self._reporter().waiting

    def writing(self) -> str | None:
        """The file in progress."""
        writing = self._recorder()._writing
        return None if writing is None else writing.name

    def unwritten_s_max(self) -> float:
        """How much of the last moments may not be on the disk yet."""
        return (
            self.config.recording.fragment_s * 1.05
            + 2 / FPS
            + self.scheduler.pace.stall_s
            + self._recorder()._queue.seconds
        )

    def where(self) -> str:
        """The state of affairs on one line, for a message."""
        uplink: Any = next(worker for worker in self.node.workers if worker.name == "uplink")
        desk: Any = self.desk.lives["station"].worker if self.desk.lives else None
        return (
            f"true time {self.now_s:.1f} s, life {self.lives}, node's broker {uplink.broker},"
            f" station's broker {desk and desk.broker}, silent {uplink.station_silent}"
        )

    # -- folders ------------------------------------------------------------------------------------------------------

    def _new_folder(self, name: str) -> Path:
        folder = self.folder / f"{name}-{len(list(self.folder.glob(name + '-*')))}"
        folder.mkdir(parents=True)
        return folder

    def _copy_of(self, source: Path, name: str) -> Path:
        """Files as the kernel has them, without SQLite's shared memory: that is gone with its processes."""
        target = self._new_folder(name)
        for path in source.iterdir():
            if path.is_file() and not path.name.endswith("-shm"):
                shutil.copyfile(path, target / path.name)
        if (source / "keys").is_dir():
            shutil.copytree(source / "keys", target / "keys")
        return target

    def close(self) -> None:
        """The end of the world: lets go of the databases."""
        for store in (self.__dict__.get("node") and self.node.store, self.station_store):
            if store:
                store.close()


def watched(kind: type[Store], world: World) -> type[Store]:
    """A Store of this kind that tells what it has promised."""
    promises = world.promises

    class Watched(kind):  # type: ignore[valid-type, misc]
        def commit(self, events: Sequence[Event]) -> list[int]:
            sequences: list[int] = super().commit(events)
            if sequences:
                for sequence, event_id in self._query(
                    "select sequence, id from event where sequence between ? and ?", sequences[0], sequences[-1]
                ):
                    promises.commit(self.epoch, sequence, event_id)
            return sequences

        def add_segment(self, segment: Segment) -> None:
            super().add_segment(segment)
            promises.sealed[segment.name] = segment.sha256

        def add_hold(self, hold: Hold) -> bool:
            new: bool = super().add_hold(hold)
            promises.holds.add(hold.id)
            return new

        def condemn(self, names: Sequence[str], reason: str) -> None:
            # Before the fact: if the power goes after the commit, the decision stands.
            checks.condemned(world, self, names, reason)
            super().condemn(names, reason)

    return Watched


__all__ = ["FILE", "FOLDER", "Visit", "World", "config_of"]
