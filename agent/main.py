"""The composition root: the whole node on one screen. Its parts are put together in `agent/assembly`.

boot    lock the folder, open the store, recover footage, end what the last life left open
build   workers, each handed exactly what it needs
run     one thread a worker, until a signal, a bug too many or a stuck call
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent import logs, mapped
from agent.assembly.books import open_books
from agent.assembly.headquarters import make_headquarters
from agent.assembly.onsite import make_local, make_page, make_setup
from agent.assembly.sight import make_sight
from agent.assembly.world import World, real_world
from agent.clock import SystemClock
from agent.config import Config, load
from agent.disk import PosixDisk
from agent.doctor.desk import DoctorDesk
from agent.doctor.gather import RunningPost
from agent.errors import Transient
from agent.evidence.worker import LedgerWorker
from agent.folder import DataLock
from agent.health import HealthWorker
from agent.machine import power_words
from agent.notify import Notifier
from agent.panel.worker import PanelWorker
from agent.recording.holds import HoldDesk
from agent.recording.marks import Marks
from agent.recording.retention import Limits as RetentionLimits
from agent.recording.retention import RetentionWorker
from agent.release.settings_desk import at_start
from agent.setup_page.desk import SetupDesk
from agent.state import NodeState
from agent.store.store import Store
from agent.supervisor import Limits, Supervisor
from agent.vision.faults import refuse
from agent.worker import Worker

GB = 1_000_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A node that has booted. `workers` are in the order of their start: consumers before producers."""

    store: Store
    workers: tuple[Worker, ...]
    state: NodeState
    ledger: LedgerWorker
    wakers: Mapping[str, Callable[[Callable[[], None]], None]]  # worker -> how to tell it whom to wake


def run(config_path: Path) -> int:
    """`wardpost run`: blocks until the node stops; returns the exit code. Raises ConfigError before anything starts."""
    logs.set_up()
    config = load(config_path, Config)
    disk = PosixDisk(Path(config.node.data))
    clock = SystemClock()
    with DataLock(Path(config.node.data)).take(clock, patience_s=5.0):
        config, revision = at_start(config, disk, clock, log.warning)
        world = replace(real_world(config, disk, clock), revision=revision, config_path=config_path)
        node = build(config, world)
        supervisor = Supervisor(
            node.workers,
            clock=clock,
            notify=Notifier.from_environment(os.environ),
            limits=Limits(),
            rss_bytes=world.machine.rss_bytes,
            on_ready=mapped.give_back,
            on_network=frozenset(
                {"uplink", "release", "sending"} | ({"camera"} if "://" in config.camera.url else set())
            ),
        )
        for name, tell in node.wakers.items():
            tell(supervisor.waker(name))
        node.state.watch(supervisor)
        code = supervisor.run()
        with suppress(Transient):  # a disk that refuses now is explained by the next start
            node.store.stop_session("stopped" if code == 0 else f"exit {code}")
        if not supervisor.left_running:
            node.ledger.close()  # once more: the stop itself is on record
        node.store.close()
        if supervisor.left_running:  # a thread is stuck in a library: Python would wait for it for ever
            os._exit(code)
    return code


def build(config: Config, world: World) -> Node:
    """Boots from whatever the last life left on the disk, and makes the workers. Starts no thread.

    Raises ConfigError, Transient (the disk refuses) or InUse.
    """
    refuse(config)
    clock, disk = world.clock, world.disk
    books = open_books(config, world)
    sight = make_sight(config, world, books)
    store, recorder = books.store, sight.recorder
    state = NodeState(
        camera_name=world.camera.name,
        config=config,
        clock=clock,
        disk=disk,
        store=store,
        camera=sight.camera,
        vision=sight.vision,
        recorder=recorder,
        privacy_left_s=lambda: sight.privacy.left_s,
        station=books.receipts.station,
    )
    holds = HoldDesk(
        book=store,
        clock=clock,
        settings=config.recording,
        new_id=books.new_id,
        writing=lambda: recorder.state.writing,
        bitrate_kbps=config.camera.bitrate_kbps,
    )
    page = make_page(config, world, books, sight, setup=lambda: setup)
    panel = PanelWorker(
        world.panel,
        clock=clock,
        new_id=books.new_id,
        report=books.reporter,
        state=state.post,
        siren_s_max=config.panel.siren_s_max,
        privacy=sight.privacy.switch,
        edges=page.edge,
    )
    state.bell_line = lambda: panel.bell
    doctor = DoctorDesk(
        RunningPost(
            config=config,
            clock=clock,
            disk=disk,
            store=store,
            machine=world.machine,
            status=state.status,
            writing=lambda: recorder.state.writing,
        )
    )
    headquarters = make_headquarters(config, world, books, sight, state=state, panel=panel, holds=holds, doctor=doctor)
    setup: SetupDesk = make_setup(
        config, world, sight, page=page, panel=panel, state=state, doctor=doctor, headquarters=headquarters
    )
    local = make_local(
        world, books, sight, page=page, state=state, holds=holds, doctor=doctor, headquarters=headquarters
    )
    health = HealthWorker(
        clock=clock,
        ledger=store,
        new_id=books.new_id,
        report=books.reporter,
        retry_reports=books.reporter.retry,
        free_bytes=disk.free_bytes,
        free_bytes_min=int(config.recording.free_gb_min * GB / 2),
        signs={"power": lambda: power_words(world.machine.throttled()), "link": state.link},
    )
    retention = RetentionWorker(
        limits=RetentionLimits.of(config.recording),
        disk=disk,
        index=store,
        clock=clock,
        report=books.reporter,
        new_id=books.new_id,
        marks=Marks(store, preroll_s=config.recording.preroll_s, postroll_s=config.recording.postroll_s),
        holds=holds,
    )
    state.retention = retention
    uplink, release, ledger = headquarters.uplink, headquarters.release, books.ledger
    sending, live = headquarters.sender, headquarters.live
    privacy, vision, camera = sight.privacy, sight.vision, sight.camera
    return Node(
        store=store,
        workers=(
            privacy,
            panel,
            health,
            local,
            uplink,
            ledger,
            retention,
            release,
            sending,
            live,
            page,
            recorder,
            vision,
            camera,
        ),
        state=state,
        ledger=ledger,
        wakers={
            "ledger": ledger.set_wake,
            "live": headquarters.live.set_wake,
            "page": lambda wake: setattr(page, "wake", wake),
            "panel": panel.set_wake,
            "privacy": lambda wake: setattr(privacy, "wake", wake),
            "recorder": recorder.set_wake,
            "sending": lambda wake: setattr(sending, "wake", wake),
            "vision": lambda wake: setattr(sight.frames, "wake", wake),
        },
    )
