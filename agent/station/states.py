"""What a node's silence means. Pure. A broker that dies publishes no last will, so the age of the heartbeat decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from agent.types import NS


class NodeState(StrEnum):
    """How a node stands, as seen from headquarters."""

    ONLINE = "online"
    LATE = "late"  # a heartbeat or two are missing
    DARK = "dark"  # nobody knows: the node, its power, its network or the broker is gone
    OFFLINE = "offline"  # it said goodbye, or the broker saw it die


Change = tuple[str, str, int]
"""Node, its new state, since when."""


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One node and when it was last heard. `seen_ns` is boot time of the station's boot `seen_boot_id`."""

    node: str
    place: str
    said: str  # online, offline
    seen_boot_id: str
    seen_ns: int
    seen_utc_ns: int
    state: str
    state_since_utc_ns: int
    reason: str = ""  # offline: in the post's word, or its last will's; empty: an older agent


def age_s(seen: NodeSeen, *, boot_id: str, boot_ns: int, utc_ns: int) -> float:
    """Seconds since the node was heard: by boot time within one boot of the station, else by its wall clock."""
    age_ns = boot_ns - seen.seen_ns if boot_id == seen.seen_boot_id else utc_ns - seen.seen_utc_ns
    return max(age_ns, 0) / NS


def judge(seen: NodeSeen, age: float, *, late_s: float, dark_s: float) -> NodeState:
    """The state of a node that was heard `age` seconds ago."""
    if seen.said == "offline":
        return NodeState.OFFLINE if age < dark_s else NodeState.DARK
    if age >= dark_s:
        return NodeState.DARK
    return NodeState.LATE if age >= late_s else NodeState.ONLINE


def in_turn(changes: Iterable[Change], after: str, most: int) -> list[Change]:
    """Which changes are noted at once, of more than `most`: those behind the node that was noted last, by name, around
    the end. So nodes that change at each look take nobody's turn.
    """
    named = sorted(changes)
    return [*(one for one in named if one[0] > after), *(one for one in named if one[0] <= after)][:most]
