"""The composition root: the whole node on one screen. Nothing else wires things together.

boot    lock the folder, open the store, recover footage, end what the last life left open
build   workers, each handed exactly what it needs
run     one thread a worker, until a signal, a bug too many or a stuck call
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent import __version__, audit, boot, drivers, logs, wire
from agent.camera import Camera
from agent.camera.vigilance import Attention
from agent.camera.worker import CameraWorker
from agent.clock import Clock, SystemClock, Usage, uuid7_maker
from agent.config import Config, fingerprint, load
from agent.disk import Disk, PosixDisk
from agent.doctor.desk import DoctorDesk
from agent.doctor.gather import RunningPost
from agent.errors import Transient
from agent.evidence import keys
from agent.evidence.records import RecordKind
from agent.evidence.rotation import KeyDesk
from agent.evidence.seal import Lock, station_key
from agent.evidence.worker import LedgerWorker
from agent.folder import DataLock
from agent.health import HealthWorker, Heartbeats
from agent.local import LocalWorker
from agent.machine import Machine, power_words
from agent.notify import Notifier
from agent.panel import Output, Panel
from agent.panel.signals import SignalDesk, hours
from agent.panel.worker import PanelWorker
from agent.privacy import PrivacyWorker
from agent.recording.holds import HoldDesk
from agent.recording.marks import Marks
from agent.recording.recorder import RecorderWorker
from agent.recording.recover import recover
from agent.recording.retention import Limits as RetentionLimits
from agent.recording.retention import RetentionWorker
from agent.release import tree
from agent.release.download import Https, Stick
from agent.release.plan import Limits as ReleaseLimits
from agent.release.settings_desk import SettingsDesk, at_start
from agent.release.settings_errand import SettingsErrand
from agent.release.slots import Slots
from agent.release.worker import Eyes, ReleaseWorker, notice, running_slot
from agent.renewal import Renewal
from agent.reporter import Reporter
from agent.setup_page.desk import SetupDesk
from agent.setup_page.drawing import drawing_desk
from agent.setup_page.server import listen
from agent.setup_page.view import LiveView
from agent.setup_page.worker import PageWorker, request_reader
from agent.state import NodeState, verbs
from agent.store.store import Origin, Store, ignore_step
from agent.supervisor import Limits, Supervisor
from agent.types import Box, Detection, Event, Frame, NewId
from agent.uplink import Transport, parse_broker
from agent.uplink.commands import believe, load_key
from agent.uplink.worker import UplinkWorker
from agent.verdicts import VerdictDesk
from agent.vision.detector import Detector
from agent.vision.faults import refuse
from agent.vision.schedule import Calendar
from agent.vision.snapshot import Snapshots
from agent.vision.tamper import ViewWatch
from agent.vision.tracker import Track
from agent.vision.view_shelf import ViewShelf
from agent.vision.worker import Seen, VisionWorker
from agent.worker import Inbox, WhenFull, Worker

GB = 1_000_000_000
MB = 1_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """Everything through which a node touches the world. The simulator brings its own."""

    clock: Clock
    disk: Disk
    camera: Camera
    detector: Detector
    panel: Panel
    transport: Transport
    machine: Machine
    rng: random.Random
    stopwatch_ns: Callable[[], int]
    crash_point: Callable[[str], None] = ignore_step
    revision: int = 0  # of the settings, where they came from afar
    config_path: Path | None = None  # of the settings on the system; None: there is no such file
    renewal: Renewal | None = None  # None: its certificate is somebody else's care
    slots: Slots | None = None  # None: this agent was not installed by releases
    attend: Callable[[int], None] | None = None  # asks the camera for every picture until then; None: it gives them all
    wait_s_max: float = 1.0  # how long a worker may block in a step; 0 where the simulator owns the time


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
        node = build(config, replace(real_world(config, disk, clock), revision=revision, config_path=config_path))
        machine = Machine()
        supervisor = Supervisor(
            node.workers,
            clock=clock,
            notify=Notifier.from_environment(os.environ),
            limits=Limits(),
            rss_bytes=machine.rss_bytes,
            on_network=frozenset({"uplink", "release"} | ({"camera"} if "://" in config.camera.url else set())),
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


def real_world(config: Config, disk: Disk, clock: Clock) -> World:
    """The machine's own camera, model, pins and network, by the settings. Opens none of them."""
    attention, rng = Attention(), random.Random()  # noqa: S311  (jitter)
    renewal = drivers.make_renewal(config, clock, rng)
    return World(
        clock=clock,
        disk=disk,
        camera=drivers.make_camera(
            config.camera,
            analysis_fps=config.vision.analysis_fps,
            luma_px=config.vision.luma_px,
            clock=clock,
            attention=attention,
        ),
        attend=attention.hold,
        detector=drivers.make_detector(config.vision.detector),
        panel=drivers.make_panel(config.panel, clock),
        transport=drivers.make_transport(config.uplink, clock, None if renewal is None else renewal.choose),
        renewal=renewal,
        slots=_slots(config, disk),
        machine=Machine(),
        rng=rng,
        stopwatch_ns=Usage().cpu_ns,
    )


def both(first: Seen, second: Seen) -> Seen:
    """Shows vision's work to two observers."""

    def seen(frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        first(frame, motion, found, tracks)
        second(frame, motion, found, tracks)

    return seen


def _slots(config: Config, disk: Disk) -> Slots | None:
    """The releases of this machine, where this process runs in one of them."""
    root = Path(config.release.root)
    if not running_slot(Path(sys.prefix), root):
        return None
    return Slots(tree=tree.PosixTree(root), disk=disk, root=root)


def build(config: Config, world: World) -> Node:
    """Boots from whatever the last life left on the disk, and makes the workers. Starts no thread.

    Raises ConfigError, Transient (the disk refuses) or InUse.
    """
    refuse(config)
    clock, disk = world.clock, world.disk
    new_id: NewId = uuid7_maker(clock, world.rng.getrandbits)
    origin = Origin(config.node.site, config.node.id, config.node.place)

    def make_store() -> Store:
        return Store(
            disk.path(boot.STORE_NAME),
            clock=clock,
            new_id=new_id,
            origin=origin,
            outbox_rows_max=config.store.outbox_rows_max,
            event_rows_max=config.store.event_rows_max,
            crash_point=world.crash_point,
        )

    store, damage = boot.open_store(make_store, disk, node=f"{config.node.site}/{config.node.id}")
    hq = keys.pinned("uplink.station_key", config.uplink.station_key)
    chain, receipts, torn = boot.open_ledger(disk, store, clock, f"{config.node.site}/{config.node.id}", hq)
    torn = f"{torn} {boot.restore_index(disk, store, chain, receipts, origin.source)}".strip()
    found = recover(disk=disk, index=store, clock=clock, source=origin.source)
    before = store.start_session()
    store.note_config(fingerprint(config))
    reporter = Reporter(store)
    reporter(
        [
            *boot.end_left_open(store, clock),
            *boot.notices(before, found, damage, clock, new_id, ledger=torn, forced=boot.forced_reboots(disk)),
        ]
    )

    ledger = LedgerWorker(ledger=chain, receipts=receipts, journal=store)
    store.on_urgent = ledger.notify

    frames: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
    station = config.recording.seal_key
    recorder = RecorderWorker(
        settings=config.recording,
        lock=partial(Lock, station_key(Path(station))) if station else None,
        disk=disk,
        ledger=store,
        clock=clock,
        source=origin.source,
        session=store.session,
        report=reporter,
        new_id=new_id,
        stall_s=config.camera.stall_s,
    )

    def report_one(event: Event) -> None:
        reporter([event])

    def report_audit(args: dict[str, Any]) -> dict[str, Any]:
        report_one(audit.notice(str(args.get("text", "")), incident=new_id(), boot_ns=clock.boot_ns()))
        return {"summary": "on its way to headquarters"}

    privacy = PrivacyWorker(
        clock=clock,
        ledger=store,
        packets=recorder.offer,
        frames=frames.put,
        paused=recorder.paused,
        report=reporter,
        new_id=new_id,
        s_max=config.panel.privacy_s_max,
    )
    camera = CameraWorker(
        camera=world.camera,
        clock=clock,
        packets=privacy.packet,
        frames=privacy.frame,
        report=report_one,
        lost=recorder.lost,
        new_id=new_id,
        rng=world.rng,
        stall_s=config.camera.stall_s,
        read_s=min(0.5, world.wait_s_max),
        idle_s=0.0 if world.wait_s_max else 0.05,
    )
    snapshots, view = Snapshots(), LiveView(boot_ns=clock.boot_ns, attend=world.attend)
    vision = VisionWorker(
        frames=frames,
        settings=config.vision,
        zones=config.zones,
        lines=config.lines,
        rules=config.rules,
        active=Calendar(settings=config.calendar, schedules=config.schedules, utc=clock.utc).active,
        place=config.node.place,
        detector=world.detector,
        new_id=new_id,
        report=reporter,
        stopwatch_ns=world.stopwatch_ns,
        attend=world.attend,
        view=ViewWatch(
            settings=config.vision.tamper,
            place=config.node.place,
            camera=world.camera.name,
            new_id=new_id,
            # Footage that only the station may read leaves no picture of the place on the card either.
            shelf=None if station else ViewShelf(disk),
        ),
        seen=both(snapshots.seen, view.seen),
    )
    state = NodeState(
        camera_name=world.camera.name,
        config=config,
        clock=clock,
        disk=disk,
        store=store,
        camera=camera,
        vision=vision,
        recorder=recorder,
        privacy_left_s=lambda: privacy.left_s,
        station=receipts.station,
    )
    holds = HoldDesk(
        book=store,
        clock=clock,
        settings=config.recording,
        new_id=new_id,
        writing=lambda: recorder.state.writing,
        bitrate_kbps=config.camera.bitrate_kbps,
    )
    panel = PanelWorker(
        world.panel,
        clock=clock,
        new_id=new_id,
        report=reporter,
        state=state.post,
        siren_s_max=config.panel.siren_s_max,
        privacy=privacy.switch,
        edges=lambda edge: page.edge(edge),  # noqa: PLW0108  (made after this)
    )
    heartbeat = Heartbeats(
        node=config.node.id, session=store.session, clock=clock, machine=world.machine, probes=state.probes()
    )
    settings_desk = SettingsDesk(
        disk=disk,
        clock=clock,
        running=config,
        revision=world.revision,
        believe=partial(believe, site=config.node.site, node=config.node.id, key=load_key(config.uplink.command_key)),
        station=lambda: uplink.broker is not None and not uplink.station_silent,
        frames=lambda: camera.stats.up and camera.stats.newest_ns is not None,
        busy=lambda: release.on_trial,
        note=partial(store.note, RecordKind.UPDATE, urgent=True),
        tell=lambda text: report_one(notice(text, incident=new_id(), boot_ns=clock.boot_ns())),
    )
    release = ReleaseWorker(
        slots=world.slots,
        running=running_slot(Path(sys.prefix), Path(config.release.root)),
        disk=disk,
        clock=clock,
        public=keys.pinned("release.key", config.release.key),
        limits=ReleaseLimits(gate_s=config.release.gate_s, network_s=config.release.network_s),
        eyes=Eyes(
            frames=lambda: camera.stats.up and camera.stats.newest_ns is not None,
            broker=lambda: uplink.broker is not None,
            quiet=lambda: vision.stats.incidents_open == 0 and not settings_desk.on_trial,
        ),
        sources={"https": Https(), "file": Stick()},
        bytes_max=config.release.download_mb_max * MB,
        note=partial(store.note, RecordKind.UPDATE, urgent=True),
        tell=lambda text: report_one(notice(text, incident=new_id(), boot_ns=clock.boot_ns())),
        reply=lambda reply: uplink.tell(reply),  # noqa: PLW0108  (made after this)
        also=settings_desk.watch,
    )
    state.release, state.settings = release.reported, settings_desk.reported
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
    uplink = UplinkWorker(
        store=store,
        transport=world.transport,
        clock=clock,
        rng=world.rng,
        site=config.node.site,
        node=config.node.id,
        place=config.node.place,
        version=__version__,
        brokers=[parse_broker(url) for url in config.uplink.brokers],
        heartbeat=heartbeat,
        heartbeat_s=config.health.heartbeat_s,
        backoff_s_max=config.uplink.backoff_s_max,
        window_rows_max=config.uplink.window_rows_max,
        ack_timeout_s=config.uplink.ack_timeout_s,
        command_key=load_key(config.uplink.command_key),
        verbs=verbs(
            heartbeat=heartbeat,
            panel=panel,
            state=state,
            holds=holds,
            privacy=privacy,
            verdicts=VerdictDesk(keep=store.add_verdict, utc_ns=lambda: clock.utc().utc_ns),
            update=release.update,
            doctor=doctor.examine,
            signal=SignalDesk(
                outputs={"siren": panel.siren, "lamp": panel.lamp},
                privacy_left_s=lambda: privacy.left_s,
                allowed=hours(
                    config.panel.signals_during, calendar=config.calendar, schedules=config.schedules, utc=clock.utc
                ),
                note=partial(store.note, RecordKind.SIGNAL, urgent=True),
            ).signal,
        ),
        wait_s_max=world.wait_s_max,
        ledger_key=lambda: chain.key.public.hex(),  # noqa: PLW0108  (of the key in force by then: it may change)
        ledger_receipt=ledger.receipt,
        errands=(
            SettingsErrand(wire.Topics(config.node.site, config.node.id), settings_desk),
            *(() if world.renewal is None else (world.renewal,)),
        ),
    )
    if world.renewal is not None:
        world.renewal.tell = lambda text: report_one(notice(text, incident=new_id(), boot_ns=clock.boot_ns()))

    page: PageWorker = PageWorker(
        settings=config.setup_page,
        clock=clock,
        disk=disk,
        note=partial(store.note, RecordKind.PAGE, urgent=True),
        tell=lambda text: report_one(notice(text, incident=new_id(), boot_ns=clock.boot_ns())),
        request=request_reader(config.setup_page.request_file),
        nonce=lambda: secrets.token_bytes(16),
        serve=partial(listen, lambda: setup, port=config.setup_page.port, boot_ns=clock.boot_ns),
        shown=lambda: view.shown,
    )
    setup: SetupDesk = SetupDesk(
        page=page,
        view=view,
        clock=clock,
        about={"node": f"{config.node.site}/{config.node.id}", "place": config.node.place},
        status=state.status,
        examine=doctor.examine,
        free_bytes=disk.free_bytes,
        wired=world.panel.has,
        outputs={Output.SIREN: panel.siren, Output.LAMP: panel.lamp, Output.LED: panel.identify},
        zones=partial(
            drawing_desk,
            base=world.config_path,
            disk=disk,
            clock=clock,
            draw=partial(settings_desk.draw, by="the local page"),
        ),
    )
    ledger.handed_over = uplink.notify
    state.uplink = uplink
    reporter.committed = uplink.notify
    health = HealthWorker(
        clock=clock,
        ledger=store,
        new_id=new_id,
        report=reporter,
        retry_reports=reporter.retry,
        free_bytes=disk.free_bytes,
        free_bytes_min=int(config.recording.free_gb_min * GB / 2),
        signs={"power": lambda: power_words(world.machine.throttled()), "link": state.link},
    )
    retention = RetentionWorker(
        limits=RetentionLimits.of(config.recording),
        disk=disk,
        index=store,
        clock=clock,
        report=reporter,
        new_id=new_id,
        marks=Marks(store, preroll_s=config.recording.preroll_s, postroll_s=config.recording.postroll_s),
        holds=holds,
    )
    state.retention = retention
    local = LocalWorker(
        folder=disk.path(""),
        catalog=store,
        status=state.status,
        extracted=lambda body: store.note(RecordKind.EXTRACTION, body, urgent=True),
        verbs={
            "hold": lambda args: holds.hold(args, str(args.get("by", "the post"))),
            "release": lambda args: holds.release(args, str(args.get("by", "the post"))),
            "holds": lambda _: holds.listing(),
            "key": KeyDesk(disk=disk, ledger=chain, notes=store).rotate,
            "picture": snapshots.ask,
            "alerts": lambda _: {"alerts": audit.gather(store.sightings(), store.verdicts())},
            "report": report_audit,
            "releases": release.local,
            "doctor": doctor.examine,
            "setup-page": page.order,
        },
        wait_s=min(0.5, world.wait_s_max),
    )
    return Node(
        store=store,
        workers=(privacy, panel, health, local, uplink, ledger, retention, release, page, recorder, vision, camera),
        state=state,
        ledger=ledger,
        wakers={
            "ledger": ledger.set_wake,
            "page": lambda wake: setattr(page, "wake", wake),
            "panel": panel.set_wake,
            "privacy": lambda wake: setattr(privacy, "wake", wake),
            "recorder": recorder.set_wake,
            "vision": lambda wake: setattr(frames, "wake", wake),
        },
    )
