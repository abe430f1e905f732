"""What is installed, and what becomes of it: pure decisions. `slots.py` acts, `deploy/wardpost-launch` counts starts.

                 switch             confirm
    staged ---------------> trying ---------> (it is the good one now; the one before is kept)
       ^                     |   ^
       |        roll back    v   | try again (the network was away, not the release bad)
    install              rolled-back --------> failed: is to blame, for good

`State.good` has been confirmed and is what every doubt leads back to. `State.candidate` is the one beside it, at most
one. `current` follows the state: it points at the candidate while that is being tried, else at the good one.

When a release counts as good (`gate`), as decided:

- It must do what the one before it did: give frames, if that one had frames when it was left; reach a broker, if that
  one had one; and write to its storage, always. So a post whose camera or network is out can still be updated.
- Not before `settle_s`, so that a release which dies after twenty seconds is not confirmed by its first frame.
- Frames or storage missing for `gate_s`: rolled back. Only the broker missing: it gets `network_s`, then it is rolled
  back too - but a network that has gone away must not cost a good release. So the release before it watches
  (`doubt`): if that one reaches a broker within `network_s`, the candidate was to blame, for good; if it does not
  either, the network is away, and the candidate is tried once more, without being asked for a broker.
- STARTS_MAX starts in one boot without confirmation (a crash, a watchdog), or BOOTS_MAX boots: rolled back by the
  launcher, before the code of the candidate runs again. A power cut is no crash (starts.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent import state_file
from agent.errors import Corrupt
from agent.release.starts import Count, counted, too_many

TRIES_MAX = 2
STATE_BYTES_MAX = 16 * 1024
WHY_CHARS_MAX = 300

Slot = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}$(?!\n)", description="a folder in releases/")]


class Phase(StrEnum):
    """Of a candidate."""

    STAGED = "staged"
    TRYING = "trying"
    ROLLED_BACK = "rolled-back"  # was tried, and the good one runs again; it may be tried once more
    FAILED = "failed"  # will not be tried again


class Release(Struct, frozen=True, kw_only=True):
    """One release on the card. `number` 0: installed by hand or from the card, before there were bundles."""

    slot: Slot
    number: Annotated[int, Meta(ge=0)]
    version: Annotated[str, Meta(max_length=64)] = ""


class Candidate(Struct, frozen=True, kw_only=True):
    """The release beside the good one."""

    release: Release
    phase: Phase
    starts: int = 0  # without confirmation, in this try and boot
    boots: int = 0  # without confirmation, in this try
    boot: Annotated[str, Meta(max_length=64)] = ""  # boot id of the last start
    tries: int = 0
    frames: bool = True  # asked for, since the release before had them
    broker: bool = True
    alone: bool = False  # rolled back for want of a broker only: the release before watches
    why: Annotated[str, Meta(max_length=WHY_CHARS_MAX)] = ""


class State(Struct, frozen=True, kw_only=True):
    """The content of release/state.json."""

    v: Literal[1] = 1
    good: Release
    before: Release | None = None  # good until `good` was; where a person may go back to
    highest: int = 0  # number ever confirmed
    candidate: Candidate | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a running release observes of itself."""

    up_s: float  # since this process started
    frames: bool
    storage: bool
    broker: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """How long is waited."""

    settle_s: float = 45.0
    gate_s: float = 300.0
    network_s: float = 900.0


class Act(StrEnum):
    """What is to be done now."""

    WAIT = "wait"
    CONFIRM = "confirm"
    ROLL_BACK = "roll back"
    TRY_AGAIN = "try again"
    BLAME = "blame"


@dataclass(frozen=True, slots=True)
class Decision:
    """An act, and why, in words for the ledger."""

    act: Act
    why: str = ""
    alone: bool = False  # nothing but the broker was missing


WAIT = Decision(Act.WAIT)


def first(slot: str, version: str = "") -> State:
    """The state of a node that was installed without a bundle."""
    return State(good=Release(slot=slot, number=0, version=version))


def encode(state: State) -> bytes:
    """As it is kept: JSON, for `wardpost-launch` reads it without any library."""
    return msgspec.json.format(msgspec.json.encode(state), indent=1) + b"\n"


def decode(data: bytes) -> State:
    """Raises Corrupt in one line."""
    return state_file.decode(data, State, name="release state", bytes_max=STATE_BYTES_MAX)


def current(state: State) -> Release:
    """Where `current` is to point."""
    tried = state.candidate
    return tried.release if tried is not None and tried.phase is Phase.TRYING else state.good


def slots(state: State) -> set[str]:
    """The folders that must stay."""
    kept = {state.good.slot}
    if state.before is not None:
        kept.add(state.before.slot)
    if state.candidate is not None and state.candidate.phase is not Phase.FAILED:
        kept.add(state.candidate.release.slot)
    return kept


def objection(state: State, number: int, *, by_hand: bool = False) -> str:
    """Why this release is not to be installed now; empty when it may. Downgrade and replay end here.

    `by_hand`: a person at the node may try once more what was rolled back.
    """
    floor = max(state.good.number, state.highest)
    if number <= floor:
        same = "runs already" if number == state.good.number else f"is older than release {floor}, which was confirmed"
        return f"release {number} {same}; only a higher number is installed"
    tried = state.candidate
    if tried is None:
        return ""
    if tried.phase is Phase.TRYING:
        return f"release {tried.release.number} is being tried; wait until it is confirmed or rolled back"
    if number == tried.release.number and tried.phase is Phase.STAGED:
        return f"release {number} is installed already and waits for its switch"
    if number <= tried.release.number and tried.phase is not Phase.STAGED and not by_hand:
        return f"release {tried.release.number} was given up ({tried.why}); make one with a higher number"
    return ""


def cleared(state: State) -> State:
    """Before another one is unpacked: the candidate's folder goes; that it was given up is remembered."""
    tried = state.candidate
    if tried is None or tried.phase is Phase.STAGED:
        return _with(state, None)
    return _with(state, msgspec.structs.replace(tried, phase=Phase.FAILED, alone=False))


def staged(state: State, release: Release) -> State:
    """It lies complete on the card."""
    return _with(state, Candidate(release=release, phase=Phase.STAGED))


def switched(state: State, seen: Seen) -> State:
    """It runs from the next start on. `seen`: by the release that is left. Raises Corrupt when nothing is staged."""
    tried = state.candidate
    if tried is None or tried.phase is not Phase.STAGED:
        raise Corrupt("release: nothing is staged; install a bundle first")
    return _with(
        state,
        Candidate(release=tried.release, phase=Phase.TRYING, tries=1, frames=seen.frames, broker=seen.broker),
    )


def started(state: State, boot: str) -> State:
    """Before each start, by the launcher: counts it, or gives the candidate up. `boot`: the boot id."""
    tried = state.candidate
    if tried is None or tried.phase is not Phase.TRYING:
        return state
    count = Count(tried.starts, tried.boots, tried.boot)
    why = too_many(count, boot)
    if why:
        return rolled_back(state, f"{why} without being confirmed")
    more = counted(count, boot)
    return _with(state, msgspec.structs.replace(tried, starts=more.starts, boots=more.boots, boot=more.boot))


def gate(state: State, seen: Seen, limits: Limits) -> Decision:
    """What the candidate that is running decides about itself; WAIT when none is being tried."""
    tried = state.candidate
    if tried is None or tried.phase is not Phase.TRYING:
        return WAIT
    missing = [
        name
        for name, lacks in (
            ("its storage cannot be written", not seen.storage),
            ("no frames", tried.frames and not seen.frames),
            ("no broker", tried.broker and not seen.broker),
        )
        if lacks
    ]
    if not missing:
        return Decision(Act.CONFIRM) if seen.up_s >= limits.settle_s else WAIT
    alone = missing == ["no broker"]
    patience_s = max(limits.network_s, limits.gate_s) if alone else limits.gate_s
    if seen.up_s < patience_s:
        return WAIT
    return Decision(Act.ROLL_BACK, f"{' and '.join(missing)} within {patience_s:.0f} s", alone)


def doubt(state: State, seen: Seen, limits: Limits) -> Decision:
    """What the release before decides about a candidate that was rolled back for want of a broker only."""
    tried = state.candidate
    if tried is None or tried.phase is not Phase.ROLLED_BACK or not tried.alone:
        return WAIT
    if seen.broker:
        return Decision(Act.BLAME, f"{tried.why}, and the release before reaches one")
    if seen.up_s < limits.network_s:
        return WAIT
    if tried.tries >= TRIES_MAX:
        return Decision(Act.BLAME, f"{tried.why}, {tried.tries} times")
    return Decision(Act.TRY_AGAIN, "the release before reaches no broker either: the network is away")


def confirmed(state: State) -> State:
    """The candidate is the good one. Raises Corrupt when none is being tried."""
    tried = state.candidate
    if tried is None or tried.phase is not Phase.TRYING:
        raise Corrupt("release: nothing is being tried, so there is nothing to confirm")
    return State(good=tried.release, before=state.good, highest=max(state.highest, tried.release.number))


def rolled_back(state: State, why: str, *, alone: bool = False) -> State:
    """The good one runs again. Without a candidate on trial: a person goes back to the one before. Raises Corrupt."""
    tried = state.candidate
    if tried is not None and tried.phase is Phase.TRYING:
        gone = msgspec.structs.replace(tried, phase=Phase.ROLLED_BACK, alone=alone, why=_short(why))
        return _with(state, gone)
    if state.before is None:
        raise Corrupt("release: there is no release before this one on the card")
    gone = Candidate(release=state.good, phase=Phase.ROLLED_BACK, why=_short(why))
    return State(good=state.before, highest=state.highest, candidate=gone)


def tried_again(state: State) -> State:
    """The candidate gets its last try, without being asked for a broker. Raises Corrupt when it is not in doubt."""
    tried = state.candidate
    if tried is None or tried.phase is not Phase.ROLLED_BACK or not tried.alone:
        raise Corrupt("release: nothing is in doubt")
    again = Candidate(
        release=tried.release, phase=Phase.TRYING, tries=tried.tries + 1, frames=tried.frames, broker=False
    )
    return _with(state, again)


def blamed(state: State, why: str) -> State:
    """The candidate is given up for good. Raises Corrupt when there is none."""
    tried = state.candidate
    if tried is None:
        raise Corrupt("release: there is no candidate to give up")
    return _with(state, msgspec.structs.replace(tried, phase=Phase.FAILED, alone=False, why=_short(why)))


def _with(state: State, candidate: Candidate | None) -> State:
    return msgspec.structs.replace(state, candidate=candidate)


def _short(why: str) -> str:
    return why[:WHY_CHARS_MAX]
