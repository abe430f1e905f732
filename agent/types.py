"""Values that flow between workers. All are immutable; all times are CLOCK_BOOTTIME nanoseconds of one boot.

Boxes are `(x, y, w, h)` in 0..1 of the whole picture, origin top left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Luma = NDArray[np.uint8]  # (height, width), 0..255
    Bgr = NDArray[np.uint8]  # (height, width, 3), 0..255, the channel order of OpenCV
else:  # names that annotations can import without loading numpy
    Luma = Bgr = object

NS = 1_000_000_000
MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in 0..1 of the picture: left, top, width, height."""

    x: float
    y: float
    w: float
    h: float

    @property
    def x2(self) -> float:
        return self.x + self.w

    @property
    def y2(self) -> float:
        return self.y + self.h

    @property
    def area(self) -> float:
        return self.w * self.h

    @property
    def foot(self) -> tuple[float, float]:
        """Middle of the lower edge: where a person stands. Zones are asked about this point."""
        return (self.x + self.w / 2, self.y + self.h)

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1; 0 for two empty boxes."""
        w = min(self.x2, other.x2) - max(self.x, other.x)
        h = min(self.y2, other.y2) - max(self.y, other.y)
        if w <= 0 or h <= 0:
            return 0.0
        return w * h / (self.area + other.area - w * h)

    def clipped(self) -> Box:
        """The part of the box that lies in the picture."""
        x, y = min(max(self.x, 0.0), 1.0), min(max(self.y, 0.0), 1.0)
        return Box(x, y, max(min(self.x2, 1.0) - x, 0.0), max(min(self.y2, 1.0) - y, 0.0))

    def as_list(self) -> list[float]:
        """`[x, y, w, h]` rounded to 1/10,000 of the picture: the form on the wire."""
        return [round(v, 4) for v in (self.x, self.y, self.w, self.h)]


FULL = Box(0.0, 0.0, 1.0, 1.0)


class FrameSource(Protocol):
    """What a driver gives with a frame: the full-resolution picture, still undecoded to colour."""

    def crop(self, box: Box, px_max: int) -> Bgr:
        """Colour pixels of `box` at the source's best resolution, shrunk so that no side exceeds `px_max` pixels.

        Blocks for the conversion only. Raises Transient when the picture is no longer to be had.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture. `luma` costs nothing; `crop` costs a colour conversion of the region asked for.

    A frame keeps the driver's buffer alive: hold one only as long as you look at it.
    """

    seq: int  # counts frames of this camera session from 1; gaps are frames nobody analysed
    boot_ns: int
    luma: Luma  # low resolution, contiguous
    source: FrameSource

    def crop(self, box: Box = FULL, px_max: int = 4096) -> Bgr:
        """See `FrameSource.crop`."""
        return self.source.crop(box, px_max)


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What a decoder must know before the first access unit. `extradata` is Annex B SPS and PPS; empty: in band."""

    width: int
    height: int
    extradata: bytes = b""


@dataclass(frozen=True, slots=True)
class Packet:
    """One H.264 access unit in Annex B form. Keyframes carry SPS and PPS in band.

    `dts_ns <= boot_ns` (presentation); both are CLOCK_BOOTTIME and dts never goes back within a camera session.
    A change of `video` (another size, another camera) starts a new segment.
    """

    boot_ns: int
    dts_ns: int
    keyframe: bool
    data: bytes
    video: VideoFormat


class Label(StrEnum):
    """What a detector can tell apart. Every model's own names are mapped to these, or dropped."""

    PERSON = "person"
    VEHICLE = "vehicle"
    BICYCLE = "bicycle"
    ANIMAL = "animal"


@dataclass(frozen=True, slots=True)
class Detection:
    """One object in one frame."""

    label: Label
    score: float  # 0..1
    box: Box


class Kind(StrEnum):
    """What an event is about: the last level of its topic and of its CloudEvents type."""

    PERSON = "person"
    VEHICLE = "vehicle"
    BICYCLE = "bicycle"
    ANIMAL = "animal"
    MOTION = "motion"
    BELL = "bell"
    TAMPER = "tamper"
    MAINS = "mains"
    CAMERA = "camera"
    DETECTOR = "detector"
    STORAGE = "storage"
    NODE = "node"


PATH_POINTS_MAX = 32  # in an event: what a map can show


class Phase(StrEnum):
    """Life of an incident. Every incident that started ends, if need be at the next boot."""

    STARTED = "started"
    UPDATED = "updated"
    ENDED = "ended"


class Priority(IntEnum):
    """Order of delivery and, reversed, of sacrifice. Part of the outbox's key: do not renumber."""

    BELL = 0  # a person pressed for help
    ALERT = 1
    NOTICE = 2
    RECORD = 3
    THUMBNAIL = 4


@dataclass(frozen=True, slots=True)
class Event:
    """One phase of one incident, before it is committed. Committing gives it a sequence number and an id of its own."""

    incident: str  # UUIDv7, the same from started to ended
    kind: Kind
    phase: Phase
    boot_ns: int  # when it happened, not when it was decided
    priority: Priority
    summary: str = ""  # one sentence in English for a person; no data that is not also in a field
    label: Label | None = None
    score: float | None = None
    box: Box | None = None
    zones: tuple[str, ...] = ()
    thumbnail: bytes | None = field(default=None, repr=False)  # JPEG
    since_ns: int | None = None  # when the incident started
    reason: str = ""  # kind tamper: what is wrong with the view, see vision.tamper.Reason; kind node: bell-<BellLine>
    onvif: str = ""  # the topic by which ONVIF names it
    rule: str = ""  # name of the rule by which this is told; empty: a visit is told by itself
    path: tuple[tuple[float, float], ...] = ()  # where its foot went, oldest first; PATH_POINTS_MAX at most
    dwell_ns: int | None = None  # how long it has been here
    height: float | None = None  # the largest share of the picture's height that it took, 0..1


@dataclass(frozen=True, slots=True)
class UtcReading:
    """Wall-clock time as an interval: `utc_ns` +- `unc_ns`. `unc_ns` is None when nobody can vouch for it."""

    utc_ns: int
    unc_ns: int | None
    source: str


@dataclass(frozen=True, slots=True)
class TimeAnchor:
    """A pairing of CLOCK_BOOTTIME and UTC taken at one moment. Anchors are added, never rewritten."""

    boot_id: str
    boot_ns: int
    utc_ns: int
    unc_ns: int | None
    source: str


class EndReason(StrEnum):
    """Why a segment ended."""

    ROLLED = "rolled"  # reached its length; the next one follows without a gap
    STOPPED = "stopped"  # clean stop of the agent
    CAMERA = "camera"  # the camera stalled, vanished or changed its format
    STORAGE = "storage"  # a write or sync failed: the file was abandoned
    OVERRUN = "overrun"  # the disk was too slow: packets were dropped after this segment
    PRIVACY = "privacy"  # the privacy switch
    POWER_CUT = "power_cut"  # sealed by recovery, machine had restarted
    KILLED = "killed"  # sealed by recovery, only the process had died


@dataclass(frozen=True, slots=True)
class Segment:
    """One sealed file of footage: what its row in the index says. See invariant 2."""

    name: str
    session: int
    boot_id: str
    start_ns: int
    end_ns: int
    bytes: int
    fragments: int
    sha256: str
    end_reason: EndReason
    width: int
    height: int


class Cause(StrEnum):
    """Why a second is not recorded (field's own word: the coverage of a range is `recorded` plus these)."""

    POWER_OFF = "power-off"
    AGENT_STOPPED = "agent-stopped"
    CAMERA_FAULT = "camera-fault"
    STORAGE_FAULT = "storage-fault"
    PRIVACY = "privacy"
    DELETED = "deleted-by-policy"
    BEFORE_INSTALL = "before-install"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of one boot in which nothing was recorded, and why."""

    boot_id: str
    start_ns: int
    end_ns: int
    cause: Cause
    detail: str
    growing: bool = False  # put down now in case the power goes; the same gap comes again, longer


@dataclass(frozen=True, slots=True)
class Hold:
    """A range that a person wants kept. In UTC: it may lie in several boots, or in the future."""

    id: str
    start_utc_ns: int
    end_utc_ns: int
    until_utc_ns: int | None  # None: until it is released
    reason: str
    asker: str
    made_utc_ns: int
    released: str = ""  # how it ended; empty: it is in force


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person says of an alert. `id`: of the command that brought it, the same however often it comes."""

    id: str
    incident: str
    verdict: str  # "true" or "false"
    reason: str
    by: str
    asker: str
    made_utc_ns: int


@dataclass(frozen=True, slots=True)
class Sign:
    """Something noticed in passing that may explain later why nothing was recorded."""

    session: int
    boot_id: str
    boot_ns: int
    what: str  # "power" (throttling flags), "link" (the uplink), or the Kind of an event: mains, camera, storage
    active: bool  # it begins; False: it has ended
    text: str


@dataclass(frozen=True, slots=True)
class Curtain:
    """Privacy in force: nothing is recorded or looked at from `start_ns` to `until_ns` of this boot."""

    boot_id: str
    start_ns: int
    until_ns: int
    charged_ns: int  # up to here it counts as spent, whatever happens: after a power cut only the rest is granted
    asker: str


NewId = Callable[[], str]  # makes a UUIDv7
