"""What the doctor knows of a post. Every default is that of a post that is well, so a fact stands for what is not."""

from __future__ import annotations

from dataclasses import dataclass

from agent.quantities import DAY_S


@dataclass(frozen=True, slots=True)
class Service:
    """What systemd says of the agent's unit."""

    active: str = "active"  # ActiveState
    enabled: bool = True
    restarts: int = 0
    exit_code: int = 0  # of its last process


@dataclass(frozen=True, slots=True)
class Stopped:
    """A post whose agent gives no answer, and what it left."""

    folder: str = ""
    folder_fault: str = ""  # why its data folder cannot be used
    holder: str = ""  # the process that holds the folder all the same
    said: str = ""  # what came instead of an answer
    never: bool = False  # it has never run on this folder
    ended: str = ""  # how its last life ended, in words
    silent_s: float | None = None  # since its last sign of life; None: unknown
    store_fault: str = ""  # why its memory cannot be read
    objections: tuple[str, ...] = ()  # what a start would say of settings and keys
    service: Service | None = None  # None: no systemd here


@dataclass(frozen=True, slots=True)
class Camera:
    """The camera as the running agent sees it."""

    name: str = "camera"
    up: bool = True
    ever: bool = True  # there was a picture since the agent started
    age_s: float | None = 0.1  # of the newest picture
    fps: float = 15.0
    fps_wanted: float | None = None  # None: the camera decides
    restarts: int = 0
    fault: str = ""  # of the open incident


@dataclass(frozen=True, slots=True)
class Recording:
    """Footage: being made, kept, and about to go."""

    on: bool = True
    fault: str = ""
    privacy_left_s: float = 0.0
    kept_s: float | None = None  # age of the oldest footage
    overwrite_s: float | None = None  # until the oldest ordinary footage goes; None: not in sight
    unsent_s: float | None = None  # until footage goes that headquarters has not heard of
    young_s: float = DAY_S
    notice_s: float = 7200.0


@dataclass(frozen=True, slots=True)
class Card:
    """The file system of the data folder."""

    size_bytes: int = 64_000_000_000
    free_bytes: int = 20_000_000_000
    free_bytes_min: int = 500_000_000
    footage_bytes: int = 20_000_000_000
    read_only: bool = False
    fault: str = ""  # it cannot be looked at


@dataclass(frozen=True, slots=True)
class Link:
    """The way to headquarters."""

    brokers: tuple[str, ...] = ("mqtts://hq:8883",)
    up: bool = True
    away_s: float = 0.0
    reason: str = ""
    silent: bool = False  # connected, but no station acknowledges


@dataclass(frozen=True, slots=True)
class Outbox:
    """What headquarters still has to be told."""

    rows: int = 0
    rows_max: int = 50_000
    oldest_s: float | None = None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's certificate, where one is set."""

    path: str = ""
    there: bool = True
    fault: str = ""  # it cannot be read
    days_left: float | None = None  # negative: expired
    early_days: float = 0.0  # until it becomes valid
    life_days: float | None = None  # from its first day to its last; it is renewed when a third is left
    not_renewed: str = ""  # why headquarters does not renew it, in its words
    claim: bool = False  # a one-time claim lies beside it
    claim_expires: str = ""
    refused: str = ""  # what headquarters said of the claim


@dataclass(frozen=True, slots=True)
class Computer:
    """The Raspberry Pi and its supply."""

    temperature_c: float | None = 50.0
    throttled: tuple[str, ...] | None = ()
    memory_available_bytes: int | None = 1 << 30
    mains_lost: str = ""  # the open incident


@dataclass(frozen=True, slots=True)
class Time:
    """The wall clock."""

    vouched: bool = True
    source: str = "ntp"
    says: str = ""  # what it shows now


@dataclass(frozen=True, slots=True)
class Part:
    """One worker of the agent."""

    name: str
    restarts: int = 0
    trouble: str = ""
    up_s: float = 3600.0  # since it was opened last


@dataclass(frozen=True, slots=True)
class Trials:
    """Releases and settings from afar."""

    release: int | None = None  # on trial
    release_failed: int | None = None
    release_why: str = ""
    settings: int | None = None  # revision on trial
    settings_why: str = ""  # why the last one was given up
    settings_seen: int = 0


@dataclass(frozen=True, slots=True)
class Dark:
    """What is not recorded of the last day, for one cause."""

    cause: str  # agent.types.Cause
    times: int
    seconds: float
    ago_s: float  # since the last of them ended
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One post at one moment. A part that is None was not asked: the agent does not run, or `unasked` says why."""

    stopped: Stopped | None = None
    age_s: float = 3600.0  # since the agent started
    starts: int = 1  # within the last hour
    camera: Camera | None = None
    recording: Recording | None = None
    card: Card | None = None
    link: Link | None = None
    outbox: Outbox | None = None
    identity: Identity | None = None
    computer: Computer | None = None
    time: Time | None = None
    trials: Trials | None = None
    detector_fault: str = ""
    views: tuple[str, ...] = ()  # open tamper incidents
    parts: tuple[Part, ...] = ()
    objections: tuple[str, ...] = ()  # of a running agent: what its next start would say
    dark: tuple[Dark, ...] = ()
    unasked: tuple[tuple[str, str], ...] = ()  # part, error
