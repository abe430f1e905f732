"""Which footage of which alert headquarters should have without being asked, in order of value, and what it may cost.

Pure. All times are CLOCK_BOOTTIME ns of the boot named beside them, so a wrong clock chooses no wrong footage.

The unit is the file: its hash alone is on the ledger, once it is sealed. A fragment carries its own hash and a link to
the one before, but no signed line names a fragment, so a shorter piece would be the node's bare word.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent import wire
from agent.clock import parse_rfc3339
from agent.types import NS, Segment

WISHES_MAX = 200
"""Alerts whose clips wait; beyond them the least valuable is given up, on record."""
SETTLED_MAX = 400
"""Incidents that are over are remembered, so that a later word of one does not begin it again."""
FILES_MAX = 100
"""Of one alert: files may be short where a node starts again and again."""
PAID_MAX = 64
DAY_NS = 86_400 * NS

Severity = Literal["bell", "alert"]
_RANK = {"bell": 0, "alert": 1}
_Boot = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]


@dataclass(frozen=True, slots=True)
class Around:
    """How much of an alert."""

    before_ns: int  # of the moment of alarm: the short clip
    after_ns: int
    incident_ns: int  # of the rest of the incident, to either side of that moment, at most


class Wish(Struct, frozen=True, kw_only=True):
    """One incident that became an alert. Of the boot `boot_id`."""

    incident: Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}$(?!\n)")]
    severity: Severity
    sequence: int  # of the event by which it became one: the later the newer, whatever the clock says
    boot_id: _Boot
    at_ns: int  # the moment of alarm
    since_ns: int  # when the incident began
    until_ns: int  # the newest that was heard of it
    ended: bool = False
    done: tuple[str, ...] = ()  # files that the station has
    failed: tuple[str, ...] = ()  # files that do not go, each with why
    bytes: int = 0  # of those that the station has


class Purse(Struct, frozen=True, kw_only=True):
    """What may still be sent. It fills by time that the node runs: no clock that is set again fills it."""

    boot_id: _Boot
    at_ns: int
    left_bytes: int


class Plan(Struct, frozen=True, kw_only=True):
    """As it lies on the disk."""

    epoch: str  # of the store that `read` counts in
    read: int  # events up to this one are in here
    purse: Purse
    v: Literal[1] = 1
    wishes: tuple[Wish, ...] = ()  # in the order in which they became alerts
    settled: tuple[str, ...] = ()  # incidents, oldest first
    paid: tuple[str, ...] = ()  # files that were paid for, and are not noted as done yet


def hear(plan: Plan, sequence: int, event: wire.CloudEvent, least: Severity) -> Plan:
    """With what an event tells, row `sequence` of the store. The plan may exceed its bound by one: see `surplus`."""
    plan = msgspec.structs.replace(plan, read=max(plan.read, sequence))
    known = next((one for one in plan.wishes if one.incident == event.data.incident), None)
    severity = event.data.severity
    if known is None:
        if severity not in _RANK or _RANK[severity] > _RANK[least] or event.data.incident in plan.settled:
            return plan
        made = Wish(
            incident=event.data.incident,
            severity="bell" if severity == "bell" else "alert",
            sequence=sequence,
            boot_id=event.bootid,
            at_ns=event.monons,
            since_ns=_since(event),
            until_ns=event.monons,
            ended=event.data.phase == "ended",
        )
        return msgspec.structs.replace(plan, wishes=(*plan.wishes, made))
    same_boot = event.bootid == known.boot_id  # the end of what a power cut left open is told in the next boot
    return put(
        plan,
        msgspec.structs.replace(
            known,
            severity="bell" if severity == "bell" else known.severity,
            until_ns=max(known.until_ns, event.monons) if same_boot else known.until_ns,
            ended=known.ended or event.data.phase == "ended" or not same_boot,
        ),
    )


def _since(event: wire.CloudEvent) -> int:
    """When the incident began: both times were labelled by one look at the clock, so their distance is right."""
    if event.data.since is None:
        return event.monons
    try:
        return event.monons - max(parse_rfc3339(event.time) - parse_rfc3339(event.data.since), 0)
    except ValueError:
        return event.monons


def put(plan: Plan, wish: Wish) -> Plan:
    """With this one, instead of the one of its incident."""
    wishes = tuple(wish if one.incident == wish.incident else one for one in plan.wishes)
    return msgspec.structs.replace(plan, wishes=wishes)


def settle(plan: Plan, incident: str) -> Plan:
    """Without it, for good."""
    return msgspec.structs.replace(
        plan,
        wishes=tuple(one for one in plan.wishes if one.incident != incident),
        settled=(*plan.settled, incident)[-SETTLED_MAX:],
    )


def short(wish: Wish, around: Around) -> tuple[int, int]:
    """The seconds around the moment of alarm."""
    return wish.at_ns - around.before_ns, wish.at_ns + around.after_ns


def whole(wish: Wish, around: Around) -> tuple[int, int]:
    """These, and the rest of the incident, as far as it is known and within the bound."""
    start_ns, end_ns = short(wish, around)
    latest_ns = wish.at_ns + around.incident_ns
    first_ns = max(wish.since_ns, wish.at_ns - around.incident_ns)
    last_ns = min(wish.until_ns, latest_ns) if wish.ended else latest_ns
    return min(start_ns, first_ns), max(end_ns, last_ns)


def touches(segment: Segment, wish: Wish, stretch: tuple[int, int]) -> bool:
    """Whether any of a file lies in a stretch of the alert's boot."""
    return segment.boot_id == wish.boot_id and segment.end_ns > stretch[0] and segment.start_ns < stretch[1]


@dataclass(frozen=True, slots=True)
class Item:
    """A file for an alert. `rest`: of the rest of the incident."""

    wish: Wish
    segment: Segment
    rest: bool


def queue(plan: Plan, segments: Sequence[Segment], around: Around) -> list[Item]:
    """What could go now, the most valuable first: the short clips of all alerts, then the rest of them; of each bells
    first, then the newest alert; of one alert what is nearest to the moment of alarm. In front of all what was begun:
    half a file is worth nothing, and a station keeps a few unfinished ones of a post at most.

    A file that serves two alerts is in it for each of them: the station has it then, and the second costs nothing.
    """
    boots: dict[str, list[Segment]] = {}
    for segment in sorted(segments, key=lambda one: one.start_ns):
        boots.setdefault(segment.boot_id, []).append(segment)
    found = []
    for wish in plan.wishes:
        left = {*wish.done, *(entry.partition(": ")[0] for entry in wish.failed)}
        near, far = short(wish, around), whole(wish, around)
        found += [
            Item(wish, segment, rest=not touches(segment, wish, near))
            for segment in _between(boots.get(wish.boot_id, []), far)
            if segment.name not in left
        ]
    return sorted(found, key=lambda item: (item.segment.name not in plan.paid, *_value(item)))


def _between(segments: Sequence[Segment], stretch: tuple[int, int]) -> list[Segment]:
    """Of files of one boot in order of time, those that touch a stretch: a month of files is not walked through for
    each of the alerts that wait.
    """
    last = bisect_left(segments, stretch[1], key=lambda one: one.start_ns)
    first = last
    while first > 0 and segments[first - 1].end_ns > stretch[0]:
        first -= 1
    return list(segments[first:last])


def _value(item: Item) -> tuple[bool, int, int, int, str]:
    wish, segment = item.wish, item.segment
    away_ns = max(segment.start_ns - wish.at_ns, wish.at_ns - segment.end_ns, 0)
    return item.rest, _RANK[wish.severity], -wish.sequence, away_ns, segment.name


def to_come(wish: Wish, around: Around, *, boot_id: str, now_ns: int, writing: Segment | None) -> bool:
    """Whether more of its footage may still be sealed."""
    if len(wish.done) + len(wish.failed) >= FILES_MAX:
        return False
    stretch = whole(wish, around)
    if wish.boot_id == boot_id and now_ns < stretch[1]:
        return True
    return writing is not None and touches(writing, wish, stretch)


def surplus(plan: Plan, wishes_max: int = WISHES_MAX) -> Wish | None:
    """Which alert has to give way, None while there is room: one that has something there before one that has nothing,
    alerts before bells, the oldest first.
    """
    if len(plan.wishes) <= wishes_max:
        return None
    return min(plan.wishes, key=lambda one: (not one.done, -_RANK[one.severity], one.sequence))


def sent(wish: Wish, segment: Segment) -> Wish:
    """The station has this file."""
    return msgspec.structs.replace(wish, done=(*wish.done, segment.name), bytes=wish.bytes + segment.bytes)


def not_sent(wish: Wish, segment: Segment, why: str) -> Wish:
    """This file does not go."""
    return msgspec.structs.replace(wish, failed=(*wish.failed, f"{segment.name}: {why}"[:300]))


def shortfall(wish: Wish, given_up: str = "") -> str:
    """Why not all of it is at headquarters; empty when it is. `given_up`: why it is worked at no more."""
    words = [given_up] if given_up else []
    if wish.failed:
        words.append(f"{len(wish.failed)} could not be sent: {wish.failed[0]}")
    if not wish.done and not words:
        words.append("there is no footage of it: none was recorded, or it was deleted before its turn came")
    return "; ".join(words)[:400]


# -- what it may cost --------------------------------------------------------------------------------------------------


def filled(purse: Purse, *, boot_id: str, now_ns: int, day_bytes: int) -> Purse:
    """The purse of this moment: it fills evenly within a day of running, and holds a day's bytes at most."""
    ran_ns = now_ns - purse.at_ns if purse.boot_id == boot_id else now_ns  # of another boot: how long this one runs
    gained = max(ran_ns, 0) * day_bytes // DAY_NS
    if not gained and purse.boot_id == boot_id and purse.left_bytes <= day_bytes:
        return purse  # parts of a byte are not lost by looking often
    return Purse(boot_id=boot_id, at_ns=now_ns, left_bytes=min(purse.left_bytes + gained, day_bytes))


def pay(plan: Plan, name: str, count: int) -> Plan:
    """A file is begun: the purse has so much less. `filled` first."""
    purse = msgspec.structs.replace(plan.purse, left_bytes=plan.purse.left_bytes - count)
    return msgspec.structs.replace(plan, purse=purse, paid=(*plan.paid, name)[-PAID_MAX:])


def cleared(plan: Plan, name: str) -> Plan:
    """A file is done with: were it asked for again, it would be found there."""
    return msgspec.structs.replace(plan, paid=tuple(one for one in plan.paid if one != name))


def wait_s(purse: Purse, count: int, day_bytes: int) -> float:
    """In how long the purse has so much."""
    return max(count - purse.left_bytes, 0) * (DAY_NS / NS) / day_bytes
