"""`wardpost replay`: the node's own pipeline over a file, offline, in media time, as fast as the machine allows.

The same workers as in `main.py`, stepped from one thread by the media instead of by the clock: the same file gives the
same output, twice or on another machine with the same libraries.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import msgspec

from agent.camera import EndOfFootage
from agent.camera.stream import StreamCamera
from agent.clock import MediaClock, Usage, uuid7_maker
from agent.config import (
    CalendarSettings,
    CameraSettings,
    Config,
    LineSettings,
    NodeSettings,
    RecordingSettings,
    RuleSettings,
    ScheduleSettings,
    StoreSettings,
    VisionSettings,
    ZoneSettings,
)
from agent.disk import PosixDisk
from agent.drivers import make_detector
from agent.errors import ConfigError
from agent.recording.recorder import RecorderWorker
from agent.reporter import Reporter
from agent.store.store import Origin, Store
from agent.types import NS, Box, Detection, Event, Frame, Packet
from agent.vision.album import Album, Scenery
from agent.vision.faults import refuse
from agent.vision.schedule import Calendar
from agent.vision.tamper import ViewWatch
from agent.vision.tracker import Track
from agent.vision.worker import VisionWorker
from agent.worker import Inbox, WhenFull

_NODE = NodeSettings(site="replay", id="replay", data="")


class ReplaySettings(msgspec.Struct, frozen=True, kw_only=True):
    """What replay reads of a node's configuration; the rest of the file is checked but not used."""

    node: NodeSettings = _NODE
    camera: CameraSettings = CameraSettings(driver="stream")
    vision: VisionSettings = VisionSettings()
    zones: tuple[ZoneSettings, ...] = ()
    lines: tuple[LineSettings, ...] = ()
    calendar: CalendarSettings = CalendarSettings()
    schedules: tuple[ScheduleSettings, ...] = ()
    rules: tuple[RuleSettings, ...] = ()
    recording: RecordingSettings = RecordingSettings()
    store: StoreSettings = StoreSettings()

    @classmethod
    def of(cls, config: Config) -> ReplaySettings:
        """The part of a node's configuration that a replay uses."""
        return cls(**{name: getattr(config, name) for name in cls.__struct_fields__})

    def scenery(self) -> Scenery:
        """What to draw of it."""
        return Scenery(
            zones=[(zone.name, zone.polygon) for zone in self.zones],
            lines=[(line.name, line.points) for line in self.lines],
            ignored=self.vision.ignore_masks,
        )


class Onlooker(Protocol):
    """Is shown a replay as it goes on; see VisionWorker's `seen` and `report`."""

    def seen(self, frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        """One picture that was looked at; the frame is not to be kept."""

    def told(self, events: Sequence[Event]) -> None:
        """What came of it."""


@dataclass(slots=True)
class _Tally:
    """What the summary says."""

    frames: int = 0
    events: int = 0
    last_ns: int = 0
    detections: TextIO | None = field(default=None, repr=False)

    def seen(self, frame: Frame, _motion: list[Box], found: list[Detection], _tracks: Sequence[Track]) -> None:
        """VisionWorker's observer: one line per analysed frame."""
        self.frames += 1
        if self.detections is not None:
            line = {
                "frame": frame.seq,
                "t": round(frame.boot_ns / NS, 3),
                "detections": [
                    {"label": d.label.value, "score": round(d.score, 4), "box": d.box.as_list()} for d in found
                ],
            }
            self.detections.write(_json(line) + "\n")


def replay(
    file: Path,
    *,
    settings: ReplaySettings,
    store_dir: Path | None,
    detections: Path | None,
    every_frame: bool,
    usage: Usage,
    picture: Path | None = None,
    video: Path | None = None,
    onlookers: Sequence[Onlooker] = (),
    utc_ns: int | None = None,
    out: TextIO | None = None,
) -> int:
    """Runs the file through the pipeline and prints one JSON object per event change, then the summary. Blocks.

    `utc_ns`: when the file begins, for rules with a schedule; None: the clock counts as one that nobody vouches for.
    `picture`, `video`: where to draw what it saw (see `agent.vision.album`). `onlookers` are shown the same.
    Raises ConfigError (the file or a setting cannot work), Transient (a disk is full). Returns the exit code.
    """
    _refuse(file, {"detections": detections, "picture": picture, "video": video})
    refuse(settings)
    out = out or sys.stdout  # looked up now: tests and shells replace it
    album = Album(picture=picture, video=video, scenery=settings.scenery()) if picture or video else None
    onlookers = [*onlookers, *([] if album is None else [album])]
    clock = MediaClock(utc_ns=utc_ns)
    rng = random.Random(0)  # noqa: S311  (ids must repeat; nothing secret is made of them)
    new_id = uuid7_maker(clock, rng.getrandbits)
    camera = StreamCamera(
        url=str(file),
        clock=clock,
        analysis_fps=float("inf") if every_frame else settings.vision.analysis_fps,
        luma_px=settings.vision.luma_px,
        masks=settings.camera.privacy_masks,
        paced=False,
    )
    recording = None if store_dir is None else _Recording(store_dir, settings, clock, new_id)
    frames: Inbox[Frame] = Inbox(1, WhenFull.LATEST)
    tally = _Tally()

    show = _Show(out, tally, recording, onlookers)
    tally.detections = _opened(detections)
    vision = VisionWorker(
        frames=frames,
        settings=settings.vision,
        zones=settings.zones,
        lines=settings.lines,
        rules=settings.rules,
        active=Calendar(settings=settings.calendar, schedules=settings.schedules, utc=clock.utc).active,
        place=settings.node.place,
        detector=make_detector(settings.vision.detector),
        new_id=new_id,
        report=show.report,
        stopwatch_ns=usage.cpu_ns,
        view=ViewWatch(settings=settings.vision.tamper, place=settings.node.place, camera=camera.name, new_id=new_id),
        seen=show.seen,
        every_frame=every_frame,
    )
    start = usage.now()
    try:
        vision.open()
        if vision.stats.detector_fault:
            raise ConfigError(vision.stats.detector_fault)
        camera.open()
        _pump(camera, clock, frames, vision, recording, tally)
    finally:
        camera.close()
        vision.close()
        if recording is not None:
            recording.close()
        if tally.detections is not None:
            tally.detections.close()
    if album is not None:
        album.close()
    spent = usage.now() - start
    summary = {
        "frames": tally.frames,
        "media_s": round(tally.last_ns / NS, 3),
        "cpu_s": round(spent.cpu_s, 3),
        "wall_s": round(spent.wall_s, 3),
        "detector_runs": vision.stats.detector_runs,
        "events": tally.events,
        "rss_mb_max": round(usage.rss_mb_max(), 1),
    }
    out.write(_json({"summary": summary}) + "\n")
    return 0


@dataclass(frozen=True, slots=True)
class _Show:
    """Hands on what vision sees and tells."""

    out: TextIO
    tally: _Tally
    recording: _Recording | None
    onlookers: Sequence[Onlooker]

    def seen(self, frame: Frame, motion: list[Box], found: list[Detection], tracks: Sequence[Track]) -> None:
        self.tally.seen(frame, motion, found, tracks)
        for one in self.onlookers:
            one.seen(frame, motion, found, tracks)

    def report(self, events: Sequence[Event]) -> None:
        self.tally.events += len(events)
        self.out.writelines(_json(_event_line(event)) + "\n" for event in events)
        if self.recording is not None:
            self.recording.reporter(events)
        for one in self.onlookers:
            one.told(events)


def _refuse(file: Path, outputs: Mapping[str, Path | None]) -> None:
    """Raises ConfigError for footage that is none, and for an output that would overwrite it or has no folder."""
    if not file.is_file():
        raise ConfigError(f"{file}: {'is a folder' if file.is_dir() else 'no such file'}; name a video file")
    for what, output in outputs.items():
        if output is not None and output.exists() and output.samefile(file):
            raise ConfigError(f"{output}: is the footage itself; name another file for the {what}")
        if output is not None and not output.parent.is_dir():  # not after an hour's work
            raise ConfigError(f"{output}: cannot be written: no such folder; make it, or write the {what} elsewhere")


def _opened(detections: Path | None) -> TextIO | None:
    try:
        return None if detections is None else detections.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{detections}: cannot be written: {error.strerror}") from None


def _pump(
    camera: StreamCamera,
    clock: MediaClock,
    frames: Inbox[Frame],
    vision: VisionWorker,
    recording: _Recording | None,
    tally: _Tally,
) -> None:
    """Reads to the end, one item at a time: what the workers see does not depend on how fast anything runs."""
    while True:
        try:
            items = camera.read(0.0)
        except EndOfFootage:
            return
        for item in items:
            clock.advance_to(item.boot_ns)
            tally.last_ns = max(tally.last_ns, item.boot_ns)
            if isinstance(item, Packet):
                if recording is not None:
                    recording.take(item)
            else:
                frames.put(item)
                vision.step(clock.boot_ns() / NS)


class _Recording:
    """The part of a node that keeps things, in a folder of its own."""

    def __init__(self, folder: Path, settings: ReplaySettings, clock: MediaClock, new_id: Callable[[], str]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            taken = any(folder.iterdir())
        except OSError as error:
            raise ConfigError(f"{folder}: cannot be used as a store: {error.strerror}") from None
        if taken:
            raise ConfigError(f"{folder}: not empty; name a new folder, so that two replays do not mix")
        disk = PosixDisk(folder)
        self._clock = clock
        self._store = Store(
            disk.path("wardpost.db"),
            clock=clock,
            new_id=new_id,
            origin=Origin(settings.node.site, settings.node.id, settings.node.place),
            outbox_rows_max=settings.store.outbox_rows_max,
            event_rows_max=settings.store.event_rows_max,
        )
        self._store.open()
        self._store.start_session()
        self.reporter = Reporter(self._store)
        self._recorder = RecorderWorker(
            disk=disk,
            clock=clock,
            ledger=self._store,
            report=self.reporter,
            new_id=new_id,
            settings=settings.recording,
            source=f"wardpost/{settings.node.site}/{settings.node.id}",
            session=self._store.session,
        )
        self._recorder.open()

    def take(self, packet: Packet) -> None:
        """Records one access unit, at once."""
        self._recorder.offer(packet)
        self._recorder.step(self._clock.boot_ns() / NS)

    def close(self) -> None:
        """Seals the last segment."""
        self._recorder.close()
        self._store.stop_session("replay ended")
        self._store.close()


def _event_line(event: Event) -> dict[str, Any]:
    line: dict[str, Any] = {
        "type": event.kind.value,
        "phase": event.phase.value,
        "severity": event.priority.name.lower(),
        "id": event.incident,
        "t": round(event.boot_ns / NS, 3),
        "label": None if event.label is None else event.label.value,
        "score": None if event.score is None else round(event.score, 4),
        "box": None if event.box is None else event.box.clipped().as_list(),
        "zones": list(event.zones),
        "summary": event.summary,
        "rule": event.rule,
        "dwell_s": None if event.dwell_ns is None else round(event.dwell_ns / NS, 1),
        "height": None if event.height is None else round(event.height, 4),
    }
    if event.reason:
        line["reason"], line["onvif"] = event.reason, event.onvif
    return line


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
