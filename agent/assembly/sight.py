"""The node's eyes and its memory of what they see: camera, privacy switch, recorder, vision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.assembly.books import Books
from agent.assembly.world import World
from agent.camera.worker import CameraWorker
from agent.config import Config
from agent.evidence.seal import Lock, station_key
from agent.live.feed import Gallery
from agent.live.worker import STILL_BYTES_MAX
from agent.privacy import PrivacyWorker
from agent.recording.recorder import RecorderWorker
from agent.setup_page.view import LiveView
from agent.types import Box, Detection, Frame
from agent.vision.schedule import Calendar
from agent.vision.snapshot import Snapshots
from agent.vision.tamper import ViewWatch
from agent.vision.tracker import Track
from agent.vision.view_shelf import ViewShelf
from agent.vision.worker import Seen, VisionWorker
from agent.worker import Inbox, WhenFull

STILL_PX = 640


@dataclass(frozen=True, slots=True)
class Sight:
    """Workers, the inbox between camera and vision, and who else is shown what vision sees."""

    recorder: RecorderWorker
    privacy: PrivacyWorker
    camera: CameraWorker
    vision: VisionWorker
    frames: Inbox[Frame]
    snapshots: Snapshots
    view: LiveView
    gallery: Gallery
    stills: LiveView

    def has_frames(self) -> bool:
        """Whether the camera gives pictures now. Any thread."""
        return self.camera.stats.up and self.camera.stats.newest_ns is not None


def make_sight(config: Config, world: World, books: Books) -> Sight:
    """Starts nothing."""
    clock, disk, store, reporter, new_id = world.clock, world.disk, books.store, books.reporter, books.new_id
    frames: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
    station = config.recording.seal_key
    recorder = RecorderWorker(
        settings=config.recording,
        lock=partial(Lock, station_key(Path(station))) if station else None,
        disk=disk,
        ledger=store,
        clock=clock,
        source=books.origin.source,
        session=store.session,
        report=reporter,
        new_id=new_id,
        stall_s=config.camera.stall_s,
    )

    gallery = Gallery(recorder.offer)

    def paused(boot_ns: int, reason: str) -> None:
        gallery.cut()
        recorder.paused(boot_ns, reason)

    privacy = PrivacyWorker(
        clock=clock,
        ledger=store,
        packets=gallery.offer,
        frames=frames.put,
        paused=paused,
        report=reporter,
        new_id=new_id,
        s_max=config.panel.privacy_s_max,
    )
    camera = CameraWorker(
        camera=world.camera,
        clock=clock,
        packets=privacy.packet,
        frames=privacy.frame,
        report=books.report_one,
        lost=recorder.lost,
        new_id=new_id,
        rng=world.rng,
        stall_s=config.camera.stall_s,
        read_s=min(0.5, world.wait_s_max),
        idle_s=0.0 if world.wait_s_max else 0.05,
    )
    snapshots, view = Snapshots(), LiveView(boot_ns=clock.boot_ns, attend=world.attend)
    stills = LiveView(  # for a network that carries no video: small, and no picture is decoded only for it
        boot_ns=clock.boot_ns, side_px=STILL_PX, period_s=config.live.still_period_s / 2, jpeg_bytes_max=STILL_BYTES_MAX
    )
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
        seen=both(both(snapshots.seen, view.seen), stills.seen),
    )
    return Sight(recorder, privacy, camera, vision, frames, snapshots, view, gallery, stills)


def both(first: Seen, second: Seen) -> Seen:
    """Shows vision's work to two observers."""

    def seen(frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        first(frame, motion, found, tracks)
        second(frame, motion, found, tracks)

    return seen
