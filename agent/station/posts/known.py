"""What a station knows of a post, as plain values: the input of every decision about posts. No decision is taken here.

Times are UTC nanoseconds by the station's clock, except where a field says that it is the node's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from agent import wire


@dataclass(frozen=True, slots=True)
class Spot:
    """What a post shares with its neighbours, from the site's register. Empty or None: nobody has said."""

    house: str = ""
    pole: str = ""
    provider: str = ""
    lat: float | None = None
    lon: float | None = None
    custodian: str = ""
    revoked: bool = False  # its certificates are worth nothing any more: what it does not say means nothing


@dataclass(frozen=True, slots=True)
class Incident:
    """Trouble that a post told of: events of kind mains, camera, storage, tamper. Times are the node's own."""

    id: str
    kind: str
    severity: str
    since_utc_ns: int
    ended_utc_ns: int | None  # None: still open as far as the station was told
    summary: str
    reason: str = ""  # of tamper: covered, turned, ...; empty: the box was opened


@dataclass(frozen=True, slots=True)
class Before:
    """The life of the agent before a start, as the node found it on its disk."""

    session: int
    boot_id: str
    alive_ns: int  # CLOCK_BOOTTIME of that boot: its last sign of life, a minute old at most when it died
    stop: str | None  # None: nobody wrote down that it ended


@dataclass(frozen=True, slots=True)
class Start:
    """A `start` record of the node's ledger."""

    session: int
    boot_id: str
    boot_ns: int
    received_utc_ns: int
    utc_ns: int | None  # the node's own clock; None: nobody vouched for it then
    before: Before | None

    @property
    def boot_utc_ns(self) -> int | None:
        """When its machine was switched on, if a clock vouches for it."""
        return None if self.utc_ns is None else self.utc_ns - self.boot_ns


@dataclass(frozen=True, slots=True)
class Change:
    """The station's judgement of a post changed."""

    state: str
    noticed_utc_ns: int
    since_utc_ns: int  # when the post was last heard, or heard again
    reason: str = ""  # offline: in the post's word, or its last will's; empty: an older agent


@dataclass(frozen=True, slots=True)
class Errand:
    """A command to the post."""

    verb: str
    asked_utc_ns: int
    state: str  # waiting, done, refused, failed, expired
    sent: int


@dataclass(frozen=True, slots=True)
class Beat:
    """The newest heartbeat, and when it was received."""

    said: wire.Heartbeat
    received_utc_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One post."""

    node: str
    place: str = ""
    state: str  # online, late, dark, offline
    said: str = "online"  # its own last status, or its will
    seen_utc_ns: int
    known_since_utc_ns: int  # before this, nothing is known of it
    spot: Spot = Spot()
    beat: Beat | None = None
    incidents: tuple[Incident, ...] = ()  # newest first
    starts: tuple[Start, ...] = ()  # in order of arrival
    changes: tuple[Change, ...] = ()  # oldest first
    errands: tuple[Errand, ...] = ()  # updates on their way to a post that is dark; newest first
    late_utc_ns: tuple[int, ...] = ()  # when messages arrived that had waited at the post; newest first
    false_alerts: int = 0  # of the last 30 days, by what people said

    @property
    def heard(self) -> bool:
        """Whether the station hears it now."""
        return self.state in ("online", "late")

    @property
    def revoked(self) -> bool:
        """Whether its site has given it up, by the register."""
        return self.spot.revoked


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that speaks for a verdict. `what` is a key of words.*.json, `values` fill in its sentence."""

    what: str
    source: str  # heartbeat, event, ledger, station, register, order: a key of words.*.json too
    utc_ns: int | None
    values: Mapping[str, str | float] = field(default_factory=lambda: MappingProxyType({}))
    """A name that ends in `_s` is seconds; everything else is told as it is."""
