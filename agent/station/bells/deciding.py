"""What is kept around a press of a bell, and by whom. Pure.

A press is believed: somebody may be in need. What it may cost others is bounded, for a post may be in hostile hands and
press its bell a thousand times: one bell makes holds for so many presses an hour and a day; and of the holds that other
posts' bells cause, one post gets so many a day. Its own bell's are not counted there, so nobody else can use them up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.clock import parse_rfc3339
from agent.station.bells.settings import BellSettings
from agent.station.posts.known import Spot
from agent.station.posts.upkeep import distance_m
from agent.types import MS, NS

HOUR_NS, DAY_NS = 3600 * NS, 86_400 * NS
SURE_MS_MAX = 60_000
"""A node's time with a larger error is not gone by."""
FRESH_NS = 120 * NS
"""So far from its arrival the time of a press may lie that was not delivered late: more is a wrong clock."""
LATE_NS_MAX = 31 * DAY_NS
"""A press that is told later than this is too old to hold anything for: a node's hold reaches no further."""
WAITING_MAX = 50
"""Orders that may wait for a dark post before no more are added: there must be room for those of people."""


@dataclass(frozen=True, slots=True)
class Near:
    """A post near another one, which shares its house or pole (0 m) or lies so many metres off."""

    node: str
    metres: float


@dataclass(frozen=True, slots=True)
class Ordered:
    """A hold that was ordered before: for the bell of which post, at which, when, for which press."""

    bell: str
    node: str
    utc_ns: int
    incident: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is asked to keep what. `left`: who is not, and why: `bell-limit`, `post-limit`, `queue`."""

    ask: tuple[Near, ...]
    left: Mapping[str, str]


def nearest(node: str, spots: Mapping[str, Spot], *, among: Iterable[str], m_max: float) -> list[Near]:
    """The posts `among` which are near `node`, the nearest first, without itself. By the register: house, pole,
    coordinates; who has none of them is near nobody.
    """
    here = spots.get(node)
    found = []
    for other in among:
        there = spots.get(other)
        if here is None or there is None or other == node:
            continue
        metres = _apart(here, there)
        if metres is not None and metres <= m_max:
            found.append(Near(other, metres))
    return sorted(found, key=lambda one: (one.metres, one.node))


def _apart(one: Spot, other: Spot) -> float | None:
    shared = (one.house and one.house == other.house) or (one.pole and one.pole == other.pole)
    return 0.0 if shared else distance_m(one, other)


def pressed_at(time: str, error_ms: int | None, *, late: bool, received_utc_ns: int) -> int | None:
    """When it was pressed, UTC ns; None: nobody can tell. `time`, `error_ms`, `late`: as the node told.

    Of a press that came at once the arrival is good enough, where the node's own clock cannot be gone by.
    """
    try:
        told = parse_rfc3339(time)
    except (ValueError, OverflowError):
        told = None
    sure = told is not None and error_ms is not None and 0 <= error_ms <= SURE_MS_MAX
    if not late:
        return told if sure and told is not None and abs(told - received_utc_ns) <= FRESH_NS else received_utc_ns
    if not sure or told is None or not received_utc_ns - LATE_NS_MAX <= told <= received_utc_ns + FRESH_NS:
        return None
    return told


def span(pressed_utc_ns: int, error_ms: int | None, settings: BellSettings) -> tuple[int, int]:
    """From when to when footage is kept: the error of the time widens it at both ends, bounded."""
    unsure_ns = min(error_ms or 0, SURE_MS_MAX) * MS
    start = pressed_utc_ns - round(settings.before_minutes * 60 * NS) - unsure_ns
    return start, pressed_utc_ns + max(round(settings.after_minutes * 60 * NS), NS) + unsure_ns


def decide(
    node: str,
    near: Sequence[Near],
    past: Sequence[Ordered],
    waiting: Mapping[str, int],
    settings: BellSettings,
    *,
    now_utc_ns: int,
) -> Decision:
    """Who is asked for a press of the bell of `node`. `past`: what was ordered within a day, by the station's clock;
    `waiting`: how many orders wait for a post.
    """
    posts = [Near(node, 0.0), *near[: settings.neighbours_max]]
    presses = {one.incident: one.utc_ns for one in past if one.bell == node}
    lately = sum(1 for utc_ns in presses.values() if utc_ns > now_utc_ns - HOUR_NS)
    if lately >= settings.holds_per_hour_max or len(presses) >= settings.holds_per_day_max:
        return Decision((), {one.node: "bell-limit" for one in posts})
    ask, left = [], {}
    for one in posts:
        foreign = sum(1 for before in past if before.node == one.node and before.bell != one.node)
        if one.node != node and foreign >= settings.foreign_holds_per_day_max:
            left[one.node] = "post-limit"
        elif waiting.get(one.node, 0) >= WAITING_MAX:
            left[one.node] = "queue"
        else:
            ask.append(one)
    return Decision(tuple(ask), left)
