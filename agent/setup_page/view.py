"""The live picture of the page: stills out of vision's frames, with what vision makes of them.

Vision is never slowed by more than one conversion of SIDE_PX each PERIOD_S, and by nothing while nobody looks. The
JPEG is made on the thread of whoever asks. What the privacy switch or a mask hides is not in those frames: it was
blackened before vision got them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import Transient
from agent.types import FULL, MS, NS, Bgr, Box, Detection, Frame, Label
from agent.vision import thumbnail
from agent.vision.tracker import Track
from agent.worker import Inbox, WhenFull

SIDE_PX = 960
PERIOD_S = 0.25
WATCHED_S = 3.0
"""So long after the last request pictures are still taken."""
JPEG_BYTES_MAX = 256 * 1024
BOXES_MAX = 16
PERSON_SHARE_MIN = 0.125
"""Of the picture's height: what hardware/enclosure.md calls the limit of a person that is surely found."""
_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Still:
    """One picture for the page."""

    number: int  # counts from 1
    boot_ns: int
    jpeg: bytes
    scene: dict[str, Any]  # as the page gets it


@dataclass(frozen=True, slots=True)
class _Shot:
    picture: Bgr
    boot_ns: int
    motion: tuple[Box, ...]
    tracks: tuple[Track, ...]


class LiveView:
    """`seen` is called from the vision thread, the rest from any other."""

    def __init__(
        self,
        *,
        boot_ns: Callable[[], int],
        attend: Callable[[int], None] | None = None,
        side_px: int = SIDE_PX,
        period_s: float = PERIOD_S,
        jpeg_bytes_max: int = JPEG_BYTES_MAX,
    ) -> None:
        """`attend`: asks a camera that decodes on demand for every picture until then (CLOCK_BOOTTIME ns)."""
        self._boot_ns, self._attend = boot_ns, attend
        self._side_px, self._period_s, self._jpeg_bytes_max = side_px, period_s, jpeg_bytes_max
        self._shots: Inbox[_Shot] = Inbox(1, WhenFull.LATEST)
        self._fresh = threading.Condition()  # held for an instant only: vision takes it
        self._encoding = threading.Lock()
        self._wanted_until_ns = 0
        self._taken_ns = 0
        self._still: Still | None = None
        self.shown = 0  # stills handed out

    def seen(self, frame: Frame, motion: list[Box], _found: list[Detection], tracks: Sequence[Track]) -> None:
        """VisionWorker's observer."""
        now_ns = self._boot_ns()
        if now_ns > self._wanted_until_ns or now_ns - self._taken_ns < self._period_s * NS:
            return
        try:
            picture = frame.crop(FULL, self._side_px)
        except Transient:
            return  # the next frame will do
        self._taken_ns = now_ns
        picture = picture.copy() if picture.base is not None else picture  # the driver's buffer is not ours to keep
        live = [one for one in tracks if one.last_ns >= frame.boot_ns - _FRESH_S * NS and not one.furniture]
        self._shots.put(_Shot(picture, now_ns, tuple(motion[:BOXES_MAX]), tuple(live[:BOXES_MAX])))
        with self._fresh:
            self._fresh.notify_all()

    @property
    def newest(self) -> int:
        """The number of the newest picture; 0 without one."""
        still = self._still
        return 0 if still is None else still.number

    def still(self, *, after: int, wait_s: float) -> Still | None:
        """The newest picture, if it is newer than number `after`; waits up to `wait_s` for one. None: there is none.

        Asking is what keeps pictures coming.
        """
        now_ns = self._boot_ns()
        self._wanted_until_ns = now_ns + round(WATCHED_S * NS)
        if self._attend is not None:
            self._attend(self._wanted_until_ns)
        still = self._take(after)
        if still is None:
            with self._fresh:
                if not len(self._shots):
                    self._fresh.wait(wait_s)
            still = self._take(after)
        if still is not None:
            self.shown += 1
        return still

    def _take(self, after: int) -> Still | None:
        """Encodes what came last, once for everybody, 3 to 8 ms. None: there is nothing newer than `after`."""
        with self._encoding:
            shot = self._shots.get()
            jpeg = None if shot is None else thumbnail.jpeg(shot.picture, bytes_max=self._jpeg_bytes_max)
            if shot is not None and jpeg is not None:
                number = 1 if self._still is None else self._still.number + 1
                self._still = Still(number, shot.boot_ns, jpeg, scene(shot.picture.shape[0], shot.motion, shot.tracks))
            return self._still if self._still is not None and self._still.number > after else None


def scene(height_px: int, motion: Sequence[Box], tracks: Sequence[Track]) -> dict[str, Any]:
    """What is in a picture of that height, in words of JSON. A person cut off by the picture's edge is not measured."""
    least_px = math.ceil(PERSON_SHARE_MIN * height_px)
    return {
        "motion": [box.as_list() for box in motion],
        "least_px": least_px,
        "things": [
            {
                "label": track.label.value,
                "box": track.box.as_list(),
                "px": round(track.box.h * height_px),
                "sure": track.confirmed,
                "enough": track.label is not Label.PERSON or track.box.h * height_px >= least_px,
                "cut": track.box.y < 0.005 or track.box.y2 > 0.995,
            }
            for track in tracks
        ],
    }


def age_ms(still: Still, now_ns: int) -> int:
    """How old a picture is."""
    return max(now_ns - still.boot_ns, 0) // MS
