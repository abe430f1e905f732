"""Which act a case allows, what it then is, and who may act. Pure.

A case is never changed, only acted upon: its state is what its last act has made of it. So two people cannot overwrite
each other, they can only act on a case that has gone on meanwhile: whoever acts says the last act that he has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from agent.station.people.roles import Role

TEXT_CHARS_MAX = 300
NAME_CHARS_MAX = 120


class State(StrEnum):
    """What a case is."""

    OPEN = "open"  # worked on; its footage is kept
    TRANSFERRED = "transferred"  # another agency has it; its footage is kept here all the same
    CLOSED = "closed"  # nobody works on it; the posts need not keep its footage any more, the archive does
    DISPOSED = "disposed"  # its footage is gone by somebody's authority; the record stays


class Act(StrEnum):
    """What somebody does with a case."""

    OPENED = "opened"
    NOTED = "noted"
    ATTACHED = "attached"
    HELD = "held"  # a post was asked to keep and send its footage
    VIEWED = "viewed"
    COPIED = "copied"
    TRANSFERRED = "transferred"
    RETURNED = "returned"
    CLOSED = "closed"
    RELEASED = "released"  # a post was told that it need not keep it any more
    REOPENED = "reopened"
    DISPOSED = "disposed"


class Objection(StrEnum):
    """Why an act is not done; keys of words.*.json behind `case.no.`."""

    NOT_NOW = "not-now"
    NOT_YOURS = "not-yours"
    CHANGED = "changed"
    REASON = "reason"
    RECIPIENT = "recipient"
    AUTHORITY = "authority"


TABLE: Mapping[tuple[State | None, Act], State] = MappingProxyType(
    {
        (None, Act.OPENED): State.OPEN,
        (State.OPEN, Act.NOTED): State.OPEN,
        (State.OPEN, Act.ATTACHED): State.OPEN,
        (State.OPEN, Act.HELD): State.OPEN,
        (State.OPEN, Act.VIEWED): State.OPEN,
        (State.OPEN, Act.COPIED): State.OPEN,
        (State.OPEN, Act.TRANSFERRED): State.TRANSFERRED,
        (State.OPEN, Act.CLOSED): State.CLOSED,
        (State.TRANSFERRED, Act.NOTED): State.TRANSFERRED,
        (State.TRANSFERRED, Act.HELD): State.TRANSFERRED,
        (State.TRANSFERRED, Act.VIEWED): State.TRANSFERRED,
        (State.TRANSFERRED, Act.COPIED): State.TRANSFERRED,
        (State.TRANSFERRED, Act.RETURNED): State.OPEN,
        (State.CLOSED, Act.NOTED): State.CLOSED,
        (State.CLOSED, Act.VIEWED): State.CLOSED,
        (State.CLOSED, Act.COPIED): State.CLOSED,
        (State.CLOSED, Act.RELEASED): State.CLOSED,
        (State.CLOSED, Act.REOPENED): State.OPEN,
        (State.CLOSED, Act.DISPOSED): State.DISPOSED,
        (State.DISPOSED, Act.NOTED): State.DISPOSED,
        (State.DISPOSED, Act.RELEASED): State.DISPOSED,
    }
)
"""Every transition there is; what is not in it is refused."""
_WORKING = frozenset({Role.OPERATOR, Role.SUPERVISOR})
_LEADING = frozenset({Role.SUPERVISOR})
MAY: Mapping[Act, frozenset[Role]] = MappingProxyType(
    {
        Act.OPENED: _WORKING,
        Act.NOTED: _WORKING,
        Act.ATTACHED: _WORKING,
        Act.HELD: _WORKING,
        Act.VIEWED: _WORKING | {Role.AUDITOR},
        Act.COPIED: _WORKING,
        Act.TRANSFERRED: _LEADING,
        Act.RETURNED: _LEADING,
        Act.CLOSED: _WORKING,
        Act.RELEASED: _WORKING,
        Act.REOPENED: _WORKING,
        Act.DISPOSED: frozenset({Role.SUPERVISOR, Role.ADMIN}),
    }
)
SEEING = frozenset({Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR, Role.ADMIN})
"""Who reads cases. An administrator disposes, so he reads what; footage and pictures are not shown to him."""
UNEXPLAINED = frozenset({Act.ATTACHED, Act.HELD, Act.RELEASED})
"""Acts that need no reason of their own: the case is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What somebody says of an act."""

    reason: str = ""
    recipient: str = ""  # of a transfer: agency and person
    reference: str = ""  # of a transfer: theirs; of a disposal: the decision that allows it


def decide(state: State | None, act: Act, role: Role, told: Told, *, seen: int, newest: int) -> State | Objection:
    """What the case is after it, or why it is not done. `seen`, `newest`: the last act that he saw, that there is."""
    after = TABLE.get((state, act))
    if role not in MAY[act]:
        return Objection.NOT_YOURS
    if seen != newest:
        return Objection.CHANGED
    if after is None:
        return Objection.NOT_NOW
    return _lacks(act, told) or after


def _lacks(act: Act, told: Told) -> Objection | None:
    if act not in UNEXPLAINED and not told.reason:
        return Objection.REASON
    if act is Act.TRANSFERRED and not (told.recipient and told.reference):
        return Objection.RECIPIENT
    if act is Act.DISPOSED and not told.reference:
        return Objection.AUTHORITY
    return None


def state_of(acts: list[Act]) -> State | None:
    """What a timeline comes to; None: it is none. An act that the table does not know changes nothing."""
    state: State | None = None
    for act in acts:
        state = TABLE.get((state, act), state)
    return state


def allowed(state: State, role: Role) -> frozenset[Act]:
    """What somebody of this role may do now."""
    return frozenset(act for act in Act if (state, act) in TABLE and role in MAY[act])
