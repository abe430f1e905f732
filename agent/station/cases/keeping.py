"""What is kept for cases: at the posts by their own holds, in the archive by not being disposed of.

A post keeps a range from its retention while it has a hold on it (agent/recording/holds.py), and `send` brings the
footage here. Both are signed commands that wait for a dark post. Which ones are in force stands in the timeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.clock import rfc3339
from agent.station.cases.states import Act, State

Queue = Callable[[str, str, dict[str, Any]], None]
"""(node, verb, args): queues a signed command. Raises WardpostError."""


@dataclass(frozen=True, slots=True)
class HoldAct:
    """A `held` or `released` act: the post, and the id of its hold."""

    act: Act
    node: str
    hold: str


def in_force(acts: Iterable[HoldAct]) -> dict[str, str]:
    """Hold by post, of those that were asked and not released."""
    found: dict[str, str] = {}
    for one in acts:
        if one.act is Act.HELD:
            found[one.node] = one.hold
        elif found.get(one.node) == one.hold:
            del found[one.node]
    return found


def to_hold(state: State, posts: Sequence[str], held: Mapping[str, str]) -> list[str]:
    """Posts that are to be asked to keep their footage, and have not been."""
    return [node for node in posts if node not in held] if state is State.OPEN else []


def to_release(state: State, held: Mapping[str, str]) -> list[tuple[str, str]]:
    """(post, hold) that are needed no more. A case at another agency is not over."""
    return sorted(held.items()) if state in (State.CLOSED, State.DISPOSED) else []


def may_go(ref: tuple[str, str], states: Mapping[int, State], holders: Iterable[tuple[int, tuple[str, str]]]) -> bool:
    """Whether a file (post, SHA-256) may leave the archive: no case that is not disposed of has it.

    `holders`: (case, file) of every attachment; a case whose state nobody knows keeps what it has.
    """
    return all(states.get(case) is State.DISPOSED for case, held in holders if held == ref)


def hold_args(from_utc_ns: int, to_utc_ns: int, number: str) -> dict[str, Any]:
    """What `hold` and `send` are asked."""
    return {"from": rfc3339(from_utc_ns), "to": rfc3339(to_utc_ns), "reason": f"case {number}"[:300]}
