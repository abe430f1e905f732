"""Holds: ranges of footage that a person wants kept, through everything, until a day or until they are released.

Holds must not be able to stop recording, so they have a share of the budget. A hold that would exceed it is refused
when it is asked for; for the part that lies in the future the present rate is assumed. Should that prove wrong, footage
becomes held in the order of recording until the share is full: what was held stays held, the rest is told of.

Times are UTC, as people give them. Footage of a boot whose clock nobody vouched for may lie an hour beside them. Where
a clock was set meanwhile, footage is held under every time that it has gone by: a person asked by one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from agent.clock import Clock, parse_asked, rfc3339
from agent.config import RecordingSettings
from agent.errors import ConfigError, Corrupt
from agent.recording.account import account, hold_dict
from agent.recording.coverage import FUTURE, RECORDED, Now
from agent.recording.index import Catalog
from agent.recording.timeline import Timeline
from agent.types import NS, Cause, Hold, NewId, Segment

RANGE_NS_MAX = 31 * 86_400 * NS
UNVOUCHED_NS = 3600 * NS
"""How far beside its label footage of an unsynchronised clock may lie: rather too much is held than too little."""
REASON_CHARS_MAX = 300
RATE_SEGMENTS = 120  # the newest files tell the present rate
LIST_MAX = 200


class Book(Catalog, Protocol):
    """The part of the store that holds need."""

    def add_hold(self, hold: Hold) -> bool: ...

    def end_hold(self, hold_id: str, how: str) -> bool: ...


def in_force(holds: Sequence[Hold], utc_ns: int | None) -> list[Hold]:
    """Those that are neither released nor over. `utc_ns` None: nobody knows what time it is, so none is over."""
    return [
        hold
        for hold in holds
        if not hold.released and (utc_ns is None or hold.until_utc_ns is None or utc_ns < hold.until_utc_ns)
    ]


def reach(segment: Segment, timeline: Timeline) -> list[tuple[int, int]]:
    """The stretches of UTC that a segment may cover, errors included; none when nothing ties its boot to UTC."""
    starts = timeline.labels(segment.boot_id, segment.start_ns)
    ends = timeline.labels(segment.boot_id, segment.end_ns)
    return [
        (
            start.utc_ns - (UNVOUCHED_NS if start.unc_ns is None else start.unc_ns),
            end.utc_ns + (UNVOUCHED_NS if end.unc_ns is None else end.unc_ns),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Kept:
    """Which segments are held, and what did not fit."""

    names: frozenset[str]
    bytes: int
    left_out: int  # segments in a held range for which the share had no room


def kept(segments: Sequence[Segment], holds: Sequence[Hold], timeline: Timeline, bytes_max: int) -> Kept:
    """By the rule above: hold by hold in order of asking, oldest footage first, as long as the share lasts. Pure."""
    names: set[str] = set()
    total = left_out = 0
    reaches = [(segment, reach(segment, timeline)) for segment in segments] if holds else []
    for hold in holds:
        for segment, spans in reaches:
            touched = any(end > hold.start_utc_ns and start < hold.end_utc_ns for start, end in spans)
            if not touched or segment.name in names:
                continue
            if total + segment.bytes > bytes_max:
                left_out += 1
                continue
            names.add(segment.name)
            total += segment.bytes
    return Kept(frozenset(names), total, left_out)


def bytes_per_s(segments: Sequence[Segment], settled: float) -> float:
    """The present rate, from the newest segments; `settled` where there are none yet."""
    newest = segments[-RATE_SEGMENTS:]
    seconds = sum(segment.end_ns - segment.start_ns for segment in newest) / NS
    return sum(segment.bytes for segment in newest) / seconds if seconds > 0 else settled


def future_bytes(holds: Sequence[Hold], now_utc_ns: int, rate: float) -> int:
    """What the parts of holds that lie ahead will take: their union, at this rate."""
    ahead = sorted((max(hold.start_utc_ns, now_utc_ns), hold.end_utc_ns) for hold in holds)
    total_ns, covered_ns = 0, now_utc_ns
    for start, end in ahead:
        total_ns += max(end - max(start, covered_ns), 0)
        covered_ns = max(covered_ns, end)
    return round(total_ns / NS * rate)


class HoldDesk:
    """Takes, lists and ends holds. Any thread; blocks for reading the index and one transaction."""

    def __init__(
        self,
        *,
        book: Book,
        clock: Clock,
        settings: RecordingSettings,
        new_id: NewId,
        writing: Callable[[], Segment | None],
        bitrate_kbps: int,
    ) -> None:
        """`writing`: the file in progress."""
        self._book = book
        self._clock = clock
        self._settings = settings
        self._new_id = new_id
        self._writing = writing
        self._settled = bitrate_kbps * 125.0
        self._lock = threading.RLock()

    @property
    def bytes_max(self) -> int:
        """The share of the budget."""
        return round(self._settings.budget_gb * 1e9 * self._settings.hold_share_max)

    @property
    def steady(self) -> AbstractContextManager[Any]:
        """While it is held, no hold comes or goes: retention decides and condemns within."""
        return self._lock

    def trusted_utc_ns(self) -> int | None:
        """Now, if anybody vouches for the wall clock."""
        utc = self._clock.utc()
        return None if utc.unc_ns is None else utc.utc_ns

    def in_force(self) -> list[Hold]:
        """Holds that keep something now."""
        return in_force(self._book.holds(), self.trusted_utc_ns())

    def held(self, segments: Sequence[Segment], timeline: Timeline) -> Kept:
        """Which of the segments are held now."""
        return kept(segments, self.in_force(), timeline, self.bytes_max)

    def expire(self) -> list[Hold]:
        """Ends what is over, on record. Returns it."""
        now = self.trusted_utc_ns()
        over = [h for h in self._book.holds() if not h.released and h not in in_force([h], now)]
        return [hold for hold in over if self._book.end_hold(hold.id, "its time was over")]

    def hold(self, args: dict[str, Any], asker: str) -> dict[str, Any]:
        """`from`, `to`, `reason`, optional `until` and `id`. The same id again changes nothing and answers the same.

        Raises Corrupt for what is no hold, ConfigError with what to do when it does not fit, Transient.
        """
        wanted = self._read(args, asker)
        with self._lock:
            known = next((hold for hold in self._book.holds() if hold.id == wanted.id), None)
            if known is not None and known.released:
                raise Corrupt(f"hold {known.id} has ended already ({known.released}); ask for a new one")
            if known is None:
                self._price(wanted)
                self._book.add_hold(wanted)
            return self._answer(known or wanted)

    def release(self, args: dict[str, Any], asker: str) -> dict[str, Any]:
        """`hold`: its id. Ending one twice is no error. Raises Corrupt for an id that nobody knows."""
        hold_id = args.get("hold")
        known = next((hold for hold in self._book.holds() if hold.id == hold_id), None)
        if known is None:
            raise Corrupt(f"release: there is no hold {str(hold_id)[:60]!r}; `wardpost hold --list` names them")
        with self._lock:
            ended = self._book.end_hold(known.id, f"released by {asker}")
        return {"id": known.id, "released": True, "was": f"released by {asker}" if ended else known.released}

    def listing(self) -> dict[str, Any]:
        """Every hold in force, the share, and how much of it is taken."""
        segments = self._book.segments()
        found = self.held(segments, Timeline(self._book.anchors()))
        holds = self.in_force()
        return {
            "holds": [hold_dict(hold) for hold in holds[-LIST_MAX:]],
            "count": len(holds),
            "held_bytes": found.bytes,
            "held_bytes_max": self.bytes_max,
            "left_out": found.left_out,
        }

    def _read(self, args: dict[str, Any], asker: str) -> Hold:
        utc_ns = self._clock.utc().utc_ns
        start_ns, end_ns = _time(args, "from"), _time(args, "to")
        until_ns = _time(args, "until") if args.get("until") is not None else None
        reason = _line(args.get("reason"))
        hold_id = args.get("id") or self._new_id()
        if not reason:
            raise Corrupt("hold: reason: say in a few words why this is to be kept")
        if not isinstance(hold_id, str) or not 1 <= len(hold_id) <= 36:
            raise Corrupt("hold: id: at most 36 characters")
        longest_ns = round(self._settings.hold_days_max * 86_400 * NS)
        sure = self.trusted_utc_ns() is not None
        problems = {
            f"to {rfc3339(end_ns)} is not after from {rfc3339(start_ns)}": end_ns <= start_ns,
            f"longer than {RANGE_NS_MAX // NS // 86_400} days; hold it in parts": end_ns - start_ns > RANGE_NS_MAX,
            "lies more than 31 days ahead": sure and end_ns - utc_ns > RANGE_NS_MAX,
            "until is over already": sure and until_ns is not None and until_ns <= utc_ns,
            f"until lies more than {self._settings.hold_days_max:g} days ahead (recording.hold_days_max)": (
                sure and until_ns is not None and until_ns - utc_ns > longest_ns
            ),
        }
        for problem, holds in problems.items():
            if holds:
                raise Corrupt(f"hold: {problem}")
        return Hold(hold_id, start_ns, end_ns, until_ns, reason[:REASON_CHARS_MAX], asker[:60], utc_ns)

    def _price(self, wanted: Hold) -> None:
        """Raises ConfigError when this hold does not fit into the share beside the others."""
        writing, segments, timeline = self._writing(), self._book.segments(), Timeline(self._book.anchors())
        holds = [*self.in_force(), wanted]
        rate = bytes_per_s(segments, self._settled)
        if writing is not None and all(segment.name != writing.name for segment in segments):
            # A file is held as a whole: this one will be larger than it is now, and must not be found too large then.
            rate = rate if segments else bytes_per_s([writing], self._settled)
            whole = max(writing.bytes, round(rate * self._settings.segment_s))
            segments = [*segments, replace(writing, bytes=whole)]
        found = kept(segments, holds, timeline, 1 << 62)
        ahead = future_bytes(holds, self._clock.utc().utc_ns, rate)
        if found.bytes + ahead > self.bytes_max:
            raise ConfigError(
                f"hold: refused: with it {(found.bytes + ahead) / 1e9:.2f} GB would be held"
                f" ({ahead / 1e9:.2f} GB of it still to be recorded), and {self.bytes_max / 1e9:.2f} GB may be"
                " (recording.hold_share_max), or recording would stop; hold a shorter range, or release another hold"
            )

    def _answer(self, hold: Hold) -> dict[str, Any]:
        """What is still there of a held range, and what is not any more."""
        writing = self._writing()
        now = Now(self._clock.boot_id, self._clock.boot_ns())
        found = account(
            self._book, hold.start_utc_ns, hold.end_utc_ns, writing=[writing] if writing is not None else [], now=now
        )
        totals = found.totals_s()
        future_s = sum(s.seconds for s in found.stretches if s.what == Cause.UNKNOWN and s.detail == FUTURE)
        recorded_s, gone_s = totals.get(RECORDED, 0.0), totals.get(str(Cause.DELETED), 0.0)
        words = [f"{recorded_s:.0f} s are there and held"]
        if gone_s:
            words.append(f"{gone_s:.0f} s had been deleted before this hold came")
        if future_s:
            words.append(f"{future_s:.0f} s are still to come")
        other_s = sum(totals.values()) - recorded_s - gone_s - future_s
        if other_s >= 1:
            words.append(f"{other_s:.0f} s were not recorded for other reasons")
        return hold_dict(hold) | {
            "summary": "; ".join(words),
            "seconds": {what: round(seconds, 1) for what, seconds in totals.items()},
            "held_bytes": self.held(self._book.segments(), Timeline(self._book.anchors())).bytes,
            "held_bytes_max": self.bytes_max,
        }


def _line(text: object) -> str:
    """A person's words on one line, without what would move the cursor of the terminal that lists them."""
    printable = "".join(char if char.isprintable() else " " for char in text) if isinstance(text, str) else ""
    return " ".join(printable.split())


def _time(args: dict[str, Any], name: str) -> int:
    value = args.get(name)
    if not isinstance(value, str):
        raise Corrupt(f"hold: {name}: missing; give a time like 2026-11-21T14:00:00+07:00")
    try:
        return parse_asked(value)
    except ValueError as error:
        raise Corrupt(f"hold: {name}: {error}") from None
