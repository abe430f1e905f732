"""What is kept for cases: at the posts by their own holds, in the archive by not being disposed of.

A post keeps a range from its retention while it has a hold on it (agent/recording/holds.py), and `send` brings the
footage here, a day of it by one order. Both are signed commands that wait for a dark post. Which holds were asked for
stands in the timeline; what the post has answered, in the book of orders (agent/station/cases/answers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.clock import rfc3339
from agent.station.cases.states import Act, State
from agent.types import MS, NS

PIECE_S_MAX = 86_400.0
"""What a post sends by one order at most, and what a page of footage shows; a hold may be longer than any case."""
OWED = frozenset({State.OPEN, State.TRANSFERRED})
"""Of a case that is this, the posts keep the footage. One at another agency is not over."""
Piece = tuple[int, int]
"""From, to: UTC ns."""
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


class Kept(StrEnum):
    """What is known of a hold that a post was asked for; keys of words.*.json behind `case.kept.`."""

    ASKED = "asked"  # it has not answered; or nobody knows any more what it has
    KEPT = "kept"
    REFUSED = "refused"
    EXPIRED = "expired"  # it was dark for too long, or the order was withdrawn


@dataclass(frozen=True, slots=True)
class Answer:
    """An order as it stands in the book. `n`: its number there; `hold`: the id of the hold or sending that it named."""

    n: int
    verb: str
    hold: str
    from_utc_ns: int
    to_utc_ns: int
    reason: str
    state: str
    said: str

    @property
    def lost(self) -> bool:
        """Whether nothing comes of it."""
        return self.state in ("refused", "failed", "expired")


@dataclass(frozen=True, slots=True)
class Keeps:
    """What one post does for a case. `after`: the number of the newest order that is behind `unsent`."""

    hold: str
    kept: Kept
    why: str = ""
    unsent: tuple[Piece, ...] = ()  # pieces that it was asked to send, and will not
    why_unsent: str = ""
    after: int = 0

    @property
    def lost(self) -> bool:
        """Whether it must be asked again."""
        return self.kept in (Kept.REFUSED, Kept.EXPIRED) or bool(self.unsent)


def pieces(from_utc_ns: int, to_utc_ns: int) -> list[Piece]:
    """A range in parts of PIECE_S_MAX, the last one shorter."""
    step = round(PIECE_S_MAX * NS)
    return [(start, min(start + step, to_utc_ns)) for start in range(from_utc_ns, to_utc_ns, step)]


def keeps(hold: str, parts: Iterable[Piece], reason: str, answers: Sequence[Answer]) -> Keeps:
    """What a post does for a case, by the orders that the book has of it, in any order. What it does not have any more
    counts as asked.

    Orders to send are known by what they ask for: a piece is not sent when none that has it whole is at work or done,
    and one that touches it came to nothing. Orders tell times to the millisecond.
    """
    kept, why = _fate([one for one in answers if one.verb == "hold" and one.hold == hold])
    unsent: list[Piece] = []
    lost: list[Answer] = []
    sends = [one for one in answers if one.verb == "send" and one.reason == reason]
    for start, end in parts:
        failed = [one for one in sends if one.lost and one.from_utc_ns + MS < end and one.to_utc_ns - MS > start]
        whole = any(not one.lost and one.from_utc_ns - MS <= start and one.to_utc_ns + MS >= end for one in sends)
        if failed and not whole:
            unsent.append((start, end))
            lost += failed
    newest = max(lost, key=lambda one: one.n, default=None)
    if newest is None:
        return Keeps(hold, kept, why)
    return Keeps(hold, kept, why, tuple(unsent), newest.said, newest.n)


def _fate(orders: Sequence[Answer]) -> tuple[Kept, str]:
    """Of one hold; it may have been queued twice, around a power cut, and is then one all the same."""
    if any(one.state == "done" for one in orders):
        return Kept.KEPT, ""
    if not orders or any(not one.lost for one in orders):
        return Kept.ASKED, ""
    last = max(orders, key=lambda one: one.n)
    return (Kept.EXPIRED if last.state == "expired" else Kept.REFUSED), last.said


def to_hold(state: State, posts: Sequence[str], held: Mapping[str, str]) -> list[str]:
    """Posts that are to be asked to keep their footage, and have not been."""
    return [node for node in posts if node not in held] if state in OWED else []


def to_ask_again(state: State, held: Mapping[str, str], told: Mapping[str, Keeps]) -> list[tuple[str, Keeps]]:
    """(post, what it does) of those that were asked, and will not do all of it."""
    if state not in OWED:
        return []
    return [(node, one) for node, one in sorted(told.items()) if one.lost and held.get(node) == one.hold]


def to_release(state: State, held: Mapping[str, str]) -> list[tuple[str, str]]:
    """(post, hold) that are needed no more."""
    return [] if state in OWED else sorted(held.items())


def may_go(ref: tuple[str, str], states: Mapping[int, State], holders: Iterable[tuple[int, tuple[str, str]]]) -> bool:
    """Whether a file (post, SHA-256) may leave the archive: no case that is not disposed of has it.

    `holders`: (case, file) of every attachment; a case whose state nobody knows keeps what it has.
    """
    return all(states.get(case) is State.DISPOSED for case, held in holders if held == ref)


def hold_args(from_utc_ns: int, to_utc_ns: int, number: str) -> dict[str, Any]:
    """What `hold` and `send` are asked."""
    return {"from": rfc3339(from_utc_ns), "to": rfc3339(to_utc_ns), "reason": reason_of(number)}


def reason_of(number: str) -> str:
    """What orders for a case say why."""
    return f"case {number}"[:300]
