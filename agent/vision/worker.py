"""The vision worker: frames in, incidents out. It decides nothing itself; see motion, regions, tracker and rules."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.config import LineSettings, RuleSettings, VisionSettings, ZoneSettings
from agent.errors import Transient
from agent.types import FULL, NS, Box, Detection, Event, Frame, NewId, Phase
from agent.vision import appearance, regions, thumbnail
from agent.vision.detector import Detector
from agent.vision.guard import GuardedDetector
from agent.vision.incidents import Incidents
from agent.vision.masks import IgnoreMasks
from agent.vision.motion import MotionGate, Scene
from agent.vision.rules import Active, RuleBook
from agent.vision.schedule import always
from agent.vision.statics import Statics
from agent.vision.tamper import ViewWatch
from agent.vision.tracker import Track, Tracker
from agent.vision.zones import ZoneMap
from agent.worker import Inbox

EVERY_FRAME_SCORE_MIN = 0.1
_SILENCE_S = 10.0  # no frame for so long: whoever was in view is no longer watched
_JUMP_S = 60.0  # frames this far apart do not show the same scene
_WAKE_S = 1.0
_ATTEND_S = 1.2  # after the last picture with something in it
_VAIN_LOOKS = 2  # so often looked for: who is still followed is out of sight, and moves when he comes back
_UNSHOWN_S = 2.0  # a camera that shows nothing for so long has nothing to show: pictures are not later than this
_CORE_SHARE_MAX = 0.5  # of one core's time for inferences: hot or loaded, each takes longer and so they become fewer
_RUNS_PER_S_MIN = 2.0  # fewer would confirm nobody in time
_RUN_MEMORY = 0.2  # weight of the newest inference in their mean time
_ATTEND_NEW_S = 3.0  # of a scene that is new: its background must be learned

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
        lines: Sequence[LineSettings] = (),
        rules: Sequence[RuleSettings] = (),
        active: Active = always,
        place: str,
        detector: Detector,
        new_id: NewId,
        report: Report,
        stopwatch_ns: Callable[[], int],
        view: ViewWatch | None = None,
        seen: Seen | None = None,
        every_frame: bool = False,
        attend: Callable[[int], None] | None = None,
    ) -> None:
        """`seen` is shown each frame with its motion, detections and tracks, and must not keep the frame.

        `every_frame` measures the detector: the whole picture and its parts are looked at in each frame, whatever
        moves, and `seen` gets every detection from EVERY_FRAME_SCORE_MIN. `stopwatch_ns` only times inferences.
        `attend` is told until when (CLOCK_BOOTTIME ns) every picture is wanted: something moves or somebody is in
        sight. A camera that decodes on demand may otherwise leave pictures out. With it the worker is taken for live:
        inferences that take long become fewer, and who was out of sight is given up by the clock.
        Raises ConfigError for zones that cannot be.
        """
        self._attend = attend
        self._frames, self._report, self._seen, self._every_frame = frames, report, seen, every_frame
        self._view = view
        self._gate = MotionGate(area_min=settings.motion_area_min)
        self._planner = regions.Planner()
        self._tracker = Tracker(
            score_min=settings.score_min, confirm_frames=settings.confirm_frames, gone_s=settings.gone_s
        )
        self._ignore = IgnoreMasks(settings.ignore_masks)
        self._statics = Statics(static_s=settings.static_s)
        where = ZoneMap(zones)
        self._incidents = Incidents(
            settings=settings,
            zones=where,
            place=place,
            new_id=new_id,
            rules=RuleBook(rules=rules, zones=where, lines=lines, active=active),
            statics=self._statics,
        )
        self._best = thumbnail.BestShots()
        self._guard = GuardedDetector(detector=detector, new_id=new_id, stopwatch_ns=stopwatch_ns)
        self._silence_s = max(_SILENCE_S, 2 * settings.gone_s)
        self._last_ns: int | None = None
        self._heard_ns: int | None = None  # when the newest picture was taken, unless it was far ahead of its time
        self._run_s = 0.0  # mean time of the latest inferences
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
            if self._heard_ns is not None and now_ns - self._heard_ns > self._silence_s * NS:
                events += self._forget()
            elif self._attend is not None and self._heard_ns is not None:
                events += self._wait_on(now_ns - round(_UNSHOWN_S * NS))
            self._tell(events)
        return now if len(self._frames) else now + _WAKE_S

    def close(self) -> None:
        """Ends every open incident. Never raises."""
        try:
            events = [*self._forget(), *self._guard.close(self._last_ns or 0)]
            self._tell(events + (self._view.close(self._last_ns or 0) if self._view is not None else []))
        except Exception as error:  # noqa: BLE001  (whoever listened may have gone; closing never raises)
            log.error("vision could not tell the end of its incidents: %s: %s", type(error).__name__, error)  # noqa: TRY400

    def _wait_on(self, boot_ns: int) -> list[Event]:
        """Nothing was worth a picture up to `boot_ns`: who had gone before is gone."""
        if boot_ns <= (self._last_ns or 0) or not self._incidents.open_count:
            return []
        self._last_ns = boot_ns
        tracks = self._tracker.update([], boot_ns, looked=[], motion=[])
        return [
            self._pictured(event, None) for event in self._incidents.update(tracks=tracks, motion=[], boot_ns=boot_ns)
        ]

    def _look(self, frame: Frame) -> None:
        events = self._mind_time(frame)
        boot_ns = self._last_ns = self._heard_ns = max(frame.boot_ns, self._last_ns or 0)
        if self._view is not None:
            events += self._view.look(frame, boot_ns)
        motion = self._gate.look(self._ignore.still(frame.luma), boot_ns)
        boxes = list(motion.boxes)
        before = self._tracker.tracks(boot_ns)
        looked, found, lost = self._detect(frame, boot_ns, boxes, self._alive(before), scene=motion.scene)
        found = [one for one in found if not self._ignore.hide(one.box)]
        tracked = [one for one in found if one.score >= self._tracker.score_floor]
        if motion.scene is Scene.CHANGED:  # everything moves, as under a strobe or on a swinging pole
            boxes = [FULL, *(one.box for one in tracked)]
        blind = self._guard.input_px == 0  # nobody looks: what was followed is lost from sight
        if looked or before:
            tracks = self._tracker.update(
                tracked,
                boot_ns,
                looked=[FULL] if blind else looked,
                motion=boxes,
                looks=self._looks(frame, tracked, before),
            )
        else:
            tracks = before
        learned = self._statics.observe(tracks=tracks, found=found, looked=looked, boot_ns=boot_ns)
        events += self._guard.attend(boot_ns)
        events += [
            self._pictured(event, frame)
            for event in self._incidents.update(tracks=tracks, motion=boxes, boot_ns=boot_ns, learned=learned)
        ]
        for incident, box, score in self._incidents.seen_at(boot_ns):
            self._best.offer(incident, box=box, score=score, frame=frame)
        self._count(frame_boxes=bool(boxes), scene=motion.scene, lost=lost)
        self._ask_for_more(boot_ns, motion.scene, boxes, self._alive(tracks))
        if self._seen is not None:
            self._seen(frame, boxes, found, tracks)
        self._tell(events)

    def _ask_for_more(self, boot_ns: int, scene: Scene, boxes: Sequence[Box], tracks: Sequence[Track]) -> None:
        """Tells the camera for how long every picture is wanted.

        Furniture that looks like a person is no reason, nor is who has gone but is not given up: nothing moves.
        """
        if self._attend is None:
            return
        alive = any(not track.furniture and track.missed < _VAIN_LOOKS for track in tracks)
        if boxes or alive:
            self._attend(boot_ns + round(_ATTEND_S * NS))
        elif scene in {Scene.LEARNING, Scene.CHANGED}:
            self._attend(boot_ns + round(_ATTEND_NEW_S * NS))

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
                boot_ns=boot_ns,
                aspect=width / height,
                motion=motion,
                tracks=tracks,
                changed=scene is Scene.CHANGED,
                runs_per_s_max=self._affordable(),
            )
            score_min = self._tracker.score_floor
        looked: list[Box] = []
        found: list[tuple[Detection, bool]] = []
        for look in planned:
            sides_px, region = self._guard.sides_px, look.region
            if not sides_px:
                break  # it fell ill at the region before
            side_px = regions.side_px(look, sides_px)
            shape = region.w * width / (region.h * height)
            try:
                picture = frame.crop(region, px_max=round(side_px * max(shape, 1 / shape)))
            except Transient:
                continue
            before_ns = self._guard.run_ns_total
            found += regions.placed(self._guard.detect(picture, score_min, side_px), region)
            self._run_s += ((self._guard.run_ns_total - before_ns) / NS - self._run_s) * _RUN_MEMORY
            looked.append(region)
        united = regions.united(found)
        if planned:
            self._planner.learn(boot_ns=boot_ns, regions=looked, found=united)
        return looked, united, len(planned) - len(looked) if self._guard.input_px else 0

    def _affordable(self) -> float:
        """Inferences per second. Only a live camera's pictures have to be looked at in time; others are not hurried."""
        if self._attend is None or not self._run_s:
            return regions.RUNS_PER_S_MAX
        return max(_CORE_SHARE_MAX / self._run_s, _RUNS_PER_S_MIN)

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
        return [self._pictured(event, None) for event in self._incidents.close()]

    def _alive(self, tracks: Sequence[Track]) -> list[Track]:
        """Without the parked car, which is worth no look of its own."""
        return [track for track in tracks if not self._statics.ignores(track)]

    def _looks(
        self, frame: Frame, found: Sequence[Detection], tracks: Sequence[Track]
    ) -> list[appearance.Look | None] | None:
        """How each find looks; None while there is only one thing: nobody to mix it up with."""
        if len(found) < 2 and len(tracks) < 2:
            return None
        return appearance.looks(frame, [one.box for one in found])

    def _pictured(self, event: Event, frame: Frame | None) -> Event:
        """With a thumbnail where somebody will want to look: at the start, at what changed, and the best at the end."""
        if event.phase is Phase.ENDED:
            best = self._best.take(event.incident)
            return event if best is None else dataclasses.replace(event, thumbnail=best)
        if event.box is None or frame is None:
            return event
        try:
            picture = thumbnail.of(frame, event.box)
        except Transient:
            return event  # the alert does not wait for its picture
        self._best.told(event, picture)
        return dataclasses.replace(event, thumbnail=picture)

    def _count(self, *, frame_boxes: bool, scene: Scene, lost: int) -> None:
        counts = self._counts
        opened = frame_boxes and not self._gate_open
        self._gate_open = frame_boxes
        self._counts = VisionStats(
            frames=counts.frames + 1,
            gate_openings=counts.gate_openings + opened,
            scene=scene,
            incidents_open=self._incidents.open_count,
            incidents_waiting=self._incidents.waiting,
            crops_lost=counts.crops_lost + lost,
        )

    def _tell(self, events: list[Event]) -> None:
        if events:
            self._report(events)
