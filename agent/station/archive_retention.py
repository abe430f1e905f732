"""Which footage leaves the archive, when, and what stays whatever its age. Pure.

Time counts from when a file came here, by the station's clock: what a post says of the time is a label, and footage
that was asked for late must not be gone before anybody has looked at it. A file stays while anything needs it: the
label of its time may be wrong, so where it says nothing that can be believed, the file counts as one that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from agent.types import NS

DAY_NS = 86_400 * NS
FORECAST_DAYS = 7
MARGIN_NS = 3600 * NS
"""On either side of what is kept: so much may a post's clock have been wrong that nobody vouched for."""
LATE_DAYS_MAX = 400
"""A file that came so long after its own time, or before it, has a label that nobody believes."""
ROOM_SHARE = 0.95
"""Of `archive.gb_max`: what goes for want of room goes down to this, so that intake need not wait for each file."""
GB = 1_000_000_000


class Why(StrEnum):
    """Why a file was removed."""

    AGE = "age"  # archive.retention_days
    ROOM = "room"  # archive.gb_max
    EARLY = "early"  # a person asked, another one has confirmed it


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say. `days` 0: for ever; `bytes_max` 0: as much as there is room for."""

    days: float = 0.0
    bytes_max: int = 0
    trust_clock: bool = False  # also while nobody vouches for the station's clock

    @property
    def acts(self) -> bool:
        """Whether anything goes by itself."""
        return self.days > 0 or self.bytes_max > 0

    @property
    def bytes_goal(self) -> int:
        """Down to here, once there is more than that."""
        return int(self.bytes_max * ROOM_SHARE)

    def said(self, why: Why) -> str:
        """The number that decided, as it is kept with a tombstone."""
        return {Why.AGE: f"{self.days:g}", Why.ROOM: f"{self.bytes_max / GB:g}", Why.EARLY: ""}[why]

    def until_utc_ns(self, received_utc_ns: int) -> int | None:
        """When a file that came then goes by its age; None: never."""
        return received_utc_ns + round(self.days * DAY_NS) if self.days > 0 else None

    def due(self, received_utc_ns: int, now_utc_ns: int) -> bool:
        """Whether its time is over."""
        until = self.until_utc_ns(received_utc_ns)
        return until is not None and until <= now_utc_ns


@dataclass(frozen=True, slots=True)
class File:
    """A file in the archive. `n` counts them in the order in which they came."""

    n: int
    node: str
    sha256: str
    bytes: int
    from_utc_ns: int | None
    to_utc_ns: int | None
    received_utc_ns: int

    @property
    def ref(self) -> tuple[str, str]:
        """What names it, and its bytes, everywhere."""
        return self.node, self.sha256


@dataclass(frozen=True, slots=True)
class Range:
    """Time of a post that is needed. `why`: `case 3`, `hold 01f0...`."""

    node: str
    start_utc_ns: int
    end_utc_ns: int
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is needed. `told`: what the post's ledger says lies in a range; None, or a range that is missing: nobody can
    say, so everything of that post stays.
    """

    files: Mapping[tuple[str, str], str] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[Range]] = field(default_factory=dict)  # by post
    told: Mapping[Range, frozenset[str] | None] = field(default_factory=dict)

    def keeps(self, file: File) -> str:
        """For what it stays, in a few words; empty: for nothing."""
        if named := self.files.get(file.ref):
            return named
        for one in self.ranges.get(file.node, ()):
            told = self.told.get(one)
            if told is None or file.sha256 in told or not believable(file) or _overlaps(file, one):
                return one.why
        return ""


def believable(file: File) -> bool:
    """Whether the label of its time can be right at all."""
    if file.from_utc_ns is None or file.to_utc_ns is None:
        return False
    oldest = file.received_utc_ns - LATE_DAYS_MAX * DAY_NS
    return oldest <= file.from_utc_ns <= file.to_utc_ns <= file.received_utc_ns + MARGIN_NS


def _overlaps(file: File, kept: Range) -> bool:
    start, end = file.from_utc_ns or 0, file.to_utc_ns or 0
    return start < kept.end_utc_ns + MARGIN_NS and end > kept.start_utc_ns - MARGIN_NS


@dataclass(slots=True)
class Choice:
    """What goes now, as far as the files have been looked at, oldest first."""

    policy: Policy
    now_utc_ns: int | None  # None: nobody vouches for the clock, so nothing goes by its age
    over_bytes: int  # that must go for want of room
    picked: list[tuple[File, Why]] = field(default_factory=list)

    def take(self, file: File, kept: Kept) -> bool:
        """Looks at the next file; whether later ones may have to go, too."""
        by_age = self.now_utc_ns is not None and self.policy.due(file.received_utc_ns, self.now_utc_ns)
        if not by_age and self.over_bytes <= 0:
            return False
        if not kept.keeps(file):
            self.picked.append((file, Why.AGE if by_age else Why.ROOM))
            self.over_bytes -= file.bytes
        return True


def over(policy: Policy, used_bytes: int) -> int:
    """Bytes that must go for want of room."""
    if not policy.bytes_max or used_bytes <= policy.bytes_goal:
        return 0
    return used_bytes - policy.bytes_goal


@dataclass(slots=True)
class Forecast:
    """What goes in the next FORECAST_DAYS, of one post. Index 0: within a day from now, and what is due already."""

    node: str
    files: list[int] = field(default_factory=lambda: [0] * FORECAST_DAYS)
    bytes: list[int] = field(default_factory=lambda: [0] * FORECAST_DAYS)
    room_files: int = 0  # as an estimate, for want of room
    room_bytes: int = 0
    kept_files: int = 0  # whose time is over by then, and that stay as something needs them
    kept_bytes: int = 0
    kept_for: set[str] = field(default_factory=set)


def forecast(
    files: Iterable[File], kept: Kept, policy: Policy, *, now_utc_ns: int, used_bytes: int, coming_bytes: int
) -> list[Forecast]:
    """By post. `files`: oldest first; `coming_bytes`: what is expected to come meanwhile."""
    found: dict[str, Forecast] = {}
    horizon = now_utc_ns + FORECAST_DAYS * DAY_NS
    left = over(policy, used_bytes + coming_bytes)
    for file in files:
        by_age = policy.due(file.received_utc_ns, horizon - 1)
        if not by_age and left <= 0:
            continue
        row = found.setdefault(file.node, Forecast(file.node))
        if why := kept.keeps(file):
            row.kept_files += 1
            row.kept_bytes += file.bytes
            row.kept_for.add(why)
            continue
        left -= file.bytes
        if by_age:
            due = policy.until_utc_ns(file.received_utc_ns) or now_utc_ns
            day = min(max((due - now_utc_ns) // DAY_NS, 0), FORECAST_DAYS - 1)
            row.files[day] += 1
            row.bytes[day] += file.bytes
        else:
            row.room_files += 1
            row.room_bytes += file.bytes
    return [found[node] for node in sorted(found)]
