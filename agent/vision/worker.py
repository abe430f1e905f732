"""The vision worker: frames in, incidents out. It decides nothing itself; see motion, regions, tracker and rules."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.config import VisionSettings, ZoneSettings
from agent.errors import Transient
from agent.types import FULL, NS, Box, Detection, Event, Frame, NewId, Phase
from agent.vision import regions, thumbnail
from agent.vision.detector import Detector
from agent.vision.guard import GuardedDetector
from agent.vision.motion import MotionGate, Scene
from agent.vision.rules import Rules
from agent.vision.tracker import Track, Tracker
from agent.vision.zones import ZoneMap
from agent.worker import Inbox

EVERY_FRAME_SCORE_MIN = 0.1
_SILENCE_S = 10.0  # no frame for so long: whoever was in view is no longer watched
_JUMP_S = 60.0  # frames this far apart do not show the same scene
_WAKE_S = 1.0

log = logging.getLogger(__name__)

Report = Callable[[Sequence[Event]], None]
Seen = Callable[[Frame, list[Box], list[Detection], Sequence[Track]], None]


@dataclass(frozen=True, slots=True)
class VisionStats:
    """Counters since the start, for the heartbeat and for replay. May be read from any thread."""

    frames: int = 0
    gate_openings: int = 0  # times that motion began
    detector_runs: int = 0
    detector_ms_mean: float = 0.0
    detector: str = ""  # its name
    detector_fault: str = ""  # why only motion is watched; empty when all is well
    scene: str = Scene.LEARNING
    incidents_open: int = 0
    incidents_waiting: int = 0  # found no room: see rules.OPEN_MAX
    crops_lost: int = 0  # the picture was gone before it could be looked at


class VisionWorker:
    """One camera's eyes. Given the same frames it reports the same events.

    Per frame: motion gate -> detector on the regions worth it -> tracker -> rules -> thumbnails -> `report`.
    `report` is called on this worker's thread with what one frame changed; it must not block for long.
    """

    name = "vision"
    step_s_max = 30.0  # opening a model on a cold card takes seconds

    def __init__(
        self,
        *,
        frames: Inbox[Frame],
        settings: VisionSettings,
        zones: Sequence[ZoneSettings],
        place: str,
        detector: Detector,
        new_id: NewId,
        report: Report,
        stopwatch_ns: Callable[[], int],
        seen: Seen | None = None,
        every_frame: bool = False,
    ) -> None:
        """`seen` is shown each frame with its motion, detections and tracks, and must not keep the frame.

        `every_frame` measures the detector: the whole picture and its parts are looked at in each frame, whatever
        moves, and `seen` gets every detection from EVERY_FRAME_SCORE_MIN. `stopwatch_ns` only times inferences.
        Raises ConfigError for zones that cannot be.
        """
        self._frames, self._report, self._seen, self._every_frame = frames, report, seen, every_frame
        self._gate = MotionGate(area_min=settings.motion_area_min)
        self._planner = regions.Planner()
        self._tracker = Tracker(
            score_min=settings.score_min, confirm_frames=settings.confirm_frames, gone_s=settings.gone_s
        )
        self._rules = Rules(settings=settings, zones=ZoneMap(zones), place=place, new_id=new_id)
        self._guard = GuardedDetector(detector=detector, new_id=new_id, stopwatch_ns=stopwatch_ns)
        self._silence_s = max(_SILENCE_S, 2 * settings.gone_s)
        self._last_ns: int | None = None
        self._gate_open = False
        self._counts = VisionStats()

    @property
    def stats(self) -> VisionStats:
        """A snapshot of the counters; a detector's fault is in it as soon as `open` has met it."""
        guard = self._guard
        return dataclasses.replace(
            self._counts,
            detector_runs=guard.runs,
            detector_ms_mean=guard.run_ms_mean,
            detector=guard.name,
            detector_fault=guard.fault,
        )

    def open(self) -> None:
        """Loads the detector's model. A detector that cannot work is reported by the first step, not raised."""
        self._guard.open()

    def step(self, now: float) -> float:
        """Looks at one frame, if there is one. Longest: REGIONS_MAX inferences, or opening the model again."""
        frame = self._frames.get()
        if frame is not None:
            self._look(frame)
        else:
            now_ns = int(now * NS)
            events = self._guard.attend(max(now_ns, self._last_ns or 0))
            if self._last_ns is not None and now_ns - self._last_ns > self._silence_s * NS:
                events += self._forget()
            self._tell(events)
        return now if len(self._frames) else now + _WAKE_S

    def close(self) -> None:
        """Ends every open incident. Never raises."""
        try:
            self._tell([*self._forget(), *self._guard.close(self._last_ns or 0)])
        except Exception as error:  # noqa: BLE001  (whoever listened may have gone; closing never raises)
            log.error("vision could not tell the end of its incidents: %s: %s", type(error).__name__, error)  # noqa: TRY400

    def _look(self, frame: Frame) -> None:
        events = self._mind_time(frame)
        boot_ns = self._last_ns = max(frame.boot_ns, self._last_ns or 0)
        motion = self._gate.look(frame.luma, boot_ns)
        boxes = list(motion.boxes)
        before = self._tracker.tracks(boot_ns)
        looked, found, lost = self._detect(frame, boot_ns, boxes, before, scene=motion.scene)
        tracked = [one for one in found if one.score >= self._tracker.score_floor]
        if motion.scene is Scene.CHANGED:  # everything moves, as under a strobe or on a swinging pole
            boxes = [FULL, *(one.box for one in tracked)]
        blind = self._guard.input_px == 0  # nobody looks: what was followed is lost from sight
        if looked or before:
            tracks = self._tracker.update(tracked, boot_ns, looked=[FULL] if blind else looked, motion=boxes)
        else:
            tracks = before
        events += self._guard.attend(boot_ns)
        events += [
            self._pictured(event, frame) for event in self._rules.update(tracks=tracks, motion=boxes, boot_ns=boot_ns)
        ]
        self._count(frame_boxes=bool(boxes), scene=motion.scene, lost=lost)
        if self._seen is not None:
            self._seen(frame, boxes, found, tracks)
        self._tell(events)

    def _detect(
        self, frame: Frame, boot_ns: int, motion: Sequence[Box], tracks: Sequence[Track], *, scene: Scene
    ) -> tuple[list[Box], list[Detection], int]:
        """Regions looked at, what was found there, and how many looks failed for want of the picture."""
        if self._guard.input_px == 0 or scene is Scene.EMPTY:
            return [], [], 0
        height, width = frame.luma.shape
        if self._every_frame:
            planned = regions.tiles()
            score_min = EVERY_FRAME_SCORE_MIN
        else:
            planned = self._planner.plan(
                boot_ns=boot_ns, aspect=width / height, motion=motion, tracks=tracks, changed=scene is Scene.CHANGED
            )
            score_min = self._tracker.score_floor
        looked: list[Box] = []
        found: list[tuple[Detection, bool]] = []
        for region in planned:
            side_px = self._guard.input_px
            if side_px == 0:
                break  # it fell ill at the region before
            shape = region.w * width / (region.h * height)
            try:
                picture = frame.crop(region, px_max=round(side_px * max(shape, 1 / shape)))
            except Transient:
                continue
            found += regions.placed(self._guard.detect(picture, score_min), region)
            looked.append(region)
        united = regions.united(found)
        if planned:
            self._planner.learn(boot_ns=boot_ns, regions=looked, found=united)
        return looked, united, len(planned) - len(looked) if self._guard.input_px else 0

    def _mind_time(self, frame: Frame) -> list[Event]:
        """A jump in time ends what was in view; a small step back is taken as no time at all."""
        if self._last_ns is None or abs(frame.boot_ns - self._last_ns) <= _JUMP_S * NS:
            return []
        events = self._forget()
        self._last_ns = None
        return events

    def _forget(self) -> list[Event]:
        self._tracker.forget()
        self._planner.forget()
        self._gate.forget()
        return self._rules.close()

    def _pictured(self, event: Event, frame: Frame) -> Event:
        """With a thumbnail where somebody will want to look: at the start and at what changed."""
        if event.phase is Phase.ENDED or event.box is None:
            return event
        try:
            return dataclasses.replace(event, thumbnail=thumbnail.of(frame, event.box))
        except Transient:
            return event  # the alert does not wait for its picture

    def _count(self, *, frame_boxes: bool, scene: Scene, lost: int) -> None:
        counts = self._counts
        opened = frame_boxes and not self._gate_open
        self._gate_open = frame_boxes
        self._counts = VisionStats(
            frames=counts.frames + 1,
            gate_openings=counts.gate_openings + opened,
            scene=scene,
            incidents_open=self._rules.open_count,
            incidents_waiting=self._rules.waiting,
            crops_lost=counts.crops_lost + lost,
        )

    def _tell(self, events: list[Event]) -> None:
        if events:
            self._report(events)
