"""What a node has to do with headquarters: the uplink, what may be asked over it, settings and releases from afar."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent import __version__, wire
from agent.assembly.books import Books
from agent.assembly.sight import Sight
from agent.assembly.world import World
from agent.config import Config
from agent.doctor.desk import DoctorDesk
from agent.evidence import keys
from agent.evidence.records import RecordKind
from agent.health import Heartbeats
from agent.live.worker import LiveWorker
from agent.panel.signals import SignalDesk, hours
from agent.panel.worker import PanelWorker
from agent.recording.holds import HoldDesk
from agent.recording.marks import Marks
from agent.release.download import Https, Stick
from agent.release.plan import Limits as ReleaseLimits
from agent.release.settings_desk import SettingsDesk
from agent.release.settings_errand import SettingsErrand
from agent.release.worker import Eyes, ReleaseWorker, running_slot
from agent.sending.carrier import Carrier, chunk_bytes
from agent.sending.clip_errand import ClipErrand
from agent.sending.clips import Around
from agent.sending.worker import FootageSender
from agent.state import NodeState, verbs
from agent.types import NS, Priority
from agent.uplink import parse_broker
from agent.uplink.commands import believe, load_key
from agent.uplink.worker import UplinkWorker
from agent.verdicts import VerdictDesk

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Headquarters:
    """What the rest of the node knows of it."""

    uplink: UplinkWorker
    release: ReleaseWorker
    settings: SettingsDesk
    sender: FootageSender
    live: LiveWorker


def make_headquarters(
    config: Config,
    world: World,
    books: Books,
    sight: Sight,
    *,
    state: NodeState,
    panel: PanelWorker,
    holds: HoldDesk,
    doctor: DoctorDesk,
) -> Headquarters:
    """Starts nothing. `state` is told of what is made here."""
    clock, disk, node = world.clock, world.disk, config.node
    command_key = load_key(config.uplink.command_key)
    heartbeat = Heartbeats(
        node=node.id,
        session=books.store.session,
        clock=clock,
        machine=world.machine,
        probes=state.probes(),
        clips="none" if world.depot is None else config.sending.clips,
    )
    settings = SettingsDesk(
        disk=disk,
        clock=clock,
        running=config,
        revision=world.revision,
        believe=partial(believe, site=node.site, node=node.id, key=command_key),
        station=lambda: uplink.broker is not None and not uplink.station_silent,
        frames=sight.has_frames,
        busy=lambda: release.on_trial,
        note=books.noting(RecordKind.UPDATE),
        tell=books.tell,
    )
    release = ReleaseWorker(
        slots=world.slots,
        running=running_slot(Path(sys.prefix), Path(config.release.root)),
        disk=disk,
        clock=clock,
        public=keys.pinned("release.key", config.release.key),
        limits=ReleaseLimits(gate_s=config.release.gate_s, network_s=config.release.network_s),
        eyes=Eyes(
            frames=sight.has_frames,
            broker=lambda: uplink.broker is not None,
            quiet=lambda: sight.vision.stats.incidents_open == 0 and not settings.on_trial,
        ),
        sources={"https": Https(), "file": Stick()},
        bytes_max=config.release.download_mb_max * MB,
        note=books.noting(RecordKind.UPDATE),
        tell=books.tell,
        reply=lambda reply: uplink.tell(reply),  # noqa: PLW0108  (made after this)
        also=settings.watch,
    )
    recorder = sight.recorder
    sending = config.sending
    rate = sending.kbps_max * 125.0
    clips = ClipErrand(
        least=None if sending.clips == "none" else sending.clips,
        around=Around(
            before_ns=round(sending.clips_before_s * NS),
            after_ns=round(sending.clips_after_s * NS),
            incident_ns=round(sending.clips_incident_s_max * NS),
        ),
        day_bytes=sending.clips_mb_per_day_max * MB,
        disk=disk,
        index=books.store,
        clock=clock,
        chunk_bytes=chunk_bytes(rate),
        writing=lambda: recorder.state.writing,
        note=books.noting(RecordKind.EXTRACTION),
    )
    sender = FootageSender(
        depot=world.depot,
        carrier=Carrier(disk, chunk_bytes=chunk_bytes(rate)),
        clips=None if world.depot is None else clips,
        disk=disk,
        index=books.store,
        marks=Marks(books.store, preroll_s=config.recording.preroll_s, postroll_s=config.recording.postroll_s),
        holds=holds,
        clock=clock,
        bytes_per_s_max=rate,
        writing=lambda: recorder.state.writing,
        alerts_wait=lambda: any(row.priority <= Priority.ALERT for row in books.store.pending(1)),
        pictures_wait=books.store.pictures_wait,
        note=books.noting(RecordKind.EXTRACTION),
        reply=lambda reply: uplink.tell(reply),  # noqa: PLW0108  (made after this)
    )
    live = LiveWorker(
        settings=config.live,
        clock=clock,
        rtc=world.rtc,
        gallery=sight.gallery,
        stills=sight.stills,
        privacy_left_s=lambda: sight.privacy.left_s,
        note=books.noting(RecordKind.VIEWED),
        reply=lambda reply: uplink.tell(reply),  # noqa: PLW0108  (made after this)
    )
    signals = SignalDesk(
        outputs={"siren": panel.siren, "lamp": panel.lamp},
        privacy_left_s=lambda: sight.privacy.left_s,
        allowed=hours(config.panel.signals_during, calendar=config.calendar, schedules=config.schedules, utc=clock.utc),
        note=books.noting(RecordKind.SIGNAL),
    )
    uplink = UplinkWorker(
        store=books.store,
        transport=world.transport,
        clock=clock,
        rng=world.rng,
        site=node.site,
        node=node.id,
        place=node.place,
        version=__version__,
        brokers=[parse_broker(url) for url in config.uplink.brokers],
        heartbeat=heartbeat,
        heartbeat_s=config.health.heartbeat_s,
        backoff_s_max=config.uplink.backoff_s_max,
        window_rows_max=config.uplink.window_rows_max,
        ack_timeout_s=config.uplink.ack_timeout_s,
        command_key=command_key,
        verbs=verbs(
            heartbeat=heartbeat,
            panel=panel,
            state=state,
            holds=holds,
            privacy=sight.privacy,
            verdicts=VerdictDesk(keep=books.store.add_verdict, utc_ns=lambda: clock.utc().utc_ns),
            update=release.update,
            doctor=doctor.examine,
            signal=signals.signal,
            send=sender.take,
            live=live.take,
        ),
        wait_s_max=world.wait_s_max,
        ledger_key=lambda: books.chain.key.public.hex(),  # noqa: PLW0108  (of the key in force by then: it may change)
        ledger_receipt=books.ledger.receipt,
        errands=(
            SettingsErrand(wire.Topics(node.site, node.id), settings),
            *(() if world.renewal is None else (world.renewal,)),
        ),
    )
    if world.renewal is not None:
        world.renewal.tell = books.tell
    state.watching = lambda: live.watching
    state.release, state.settings, state.uplink = release.reported, settings.reported, uplink
    books.ledger.handed_over = uplink.notify
    books.reporter.committed = uplink.notify
    return Headquarters(uplink, release, settings, sender, live)
