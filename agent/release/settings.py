"""Configuration from afar: pure decisions. `settings_desk.py` acts.

The file on the system (/etc/wardpost/node.toml) is the *base*: it is never touched, and whatever goes wrong, the node
starts with it. What headquarters wants lies beside the data, whole, by revision:

    config/state.json     which revision is in force, which is on trial, what became of the last one that was desired
    config/<revision>.toml

    desired --check--> trying --keeps reaching the station--> in force (the one before is kept)
       |                 |--crashes, or no station though there was one--> given up; the one before again
       '--> refused, with the reason

Rules: a revision must be higher than any seen (a replay is an old one). Who the post is (node.site, node.id, node.data)
and whom it believes (uplink.command_key, release) cannot be changed from afar: a mistake there could not be mended
from afar either. It must check out on this node without a problem that the settings in force do not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent import state_file
from agent.config import Config
from agent.errors import Corrupt
from agent.release import starts

TEXT_BYTES_MAX = 40 * 1024
"""Of a configuration in a command; the example with all its comments has 15 KiB."""
STATE_BYTES_MAX = 16 * 1024
WHY_CHARS_MAX = 300
BASE = 0
"""The revision of the file on the system."""


class Trial(Struct, frozen=True, kw_only=True):
    """A revision that is being tried."""

    revision: Annotated[int, Meta(ge=1)]
    digest: str = ""  # SHA-256 of its text
    starts: int = 0  # of this boot, as starts.py counts them
    boots: int = 0
    boot: str = ""
    station: bool = True  # the station was reached with the settings before
    frames: bool = True  # there were frames with the settings before


class Answer(Struct, frozen=True, kw_only=True):
    """What became of the last desired revision. `revision` 0: of one that could not be believed."""

    revision: Annotated[int, Meta(ge=0)]
    state: Literal["trying", "applied", "refused", "rolled-back"]
    why: Annotated[str, Meta(max_length=WHY_CHARS_MAX)] = ""
    at: str = ""  # RFC 3339, by the node's clock: a label
    by: str = ""  # who desired what is refused


class ConfigState(Struct, frozen=True, kw_only=True):
    """The content of config/state.json."""

    v: Literal[1] = 1
    force: Annotated[int, Meta(ge=0)] = BASE  # the revision that is gone back to
    before: Annotated[int, Meta(ge=0)] = BASE  # in force until then
    seen: Annotated[int, Meta(ge=0)] = 0  # the highest revision ever taken on
    digest: str = ""  # of the text of `force`
    since: str = ""  # when it came into force; a label
    trial: Trial | None = None
    answer: Answer | None = None
    noted: bool = True  # that what became of the last one is on the ledger


class Act(StrEnum):
    """What is to be done."""

    WAIT = "wait"
    KEEP = "keep"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the node sees while it runs on a trial."""

    up_s: float
    station: bool
    frames: bool


def encode(state: ConfigState) -> bytes:
    """As it is kept."""
    return msgspec.json.encode(state) + b"\n"


def decode(data: bytes) -> ConfigState:
    """Raises Corrupt in one line."""
    return state_file.decode(data, ConfigState, name="config state", bytes_max=STATE_BYTES_MAX)


def objection(state: ConfigState, revision: int, old: Config, new: Config) -> str:
    """Why a revision must never be tried; empty when it may."""
    if revision <= state.seen:
        last = state.answer
        given_up = f" and was given up: {last.why}" if last is not None and last.state == "rolled-back" else ""
        return f"revision {revision} is not newer than {state.seen}, which was here already{given_up}"
    fixed = {
        "node.site": (old.node.site, new.node.site),
        "node.id": (old.node.id, new.node.id),
        "node.data": (old.node.data, new.node.data),
        "uplink.command_key": (old.uplink.command_key, new.uplink.command_key),
        "release": (old.release, new.release),
    }
    for name, (before, after) in fixed.items():
        if before != after:
            return f"{name} cannot be changed from afar"
    return ""


def refused(state: ConfigState, revision: int, why: str, *, by: str, at: str) -> ConfigState:
    """It is not tried; what is in force stays."""
    answer = Answer(revision=revision, state="refused", why=why[:WHY_CHARS_MAX], at=at, by=by)
    return msgspec.structs.replace(state, answer=answer, noted=False)


def offered(state: ConfigState, revision: int, *, digest: str, station: bool, frames: bool, at: str) -> ConfigState:
    """It is tried from the next start on. `station`, `frames`: what there is now."""
    trial = Trial(revision=revision, digest=digest, station=station, frames=frames)
    answer = Answer(revision=revision, state="trying", at=at)
    return msgspec.structs.replace(state, seen=revision, trial=trial, answer=answer)


def started(state: ConfigState, boot: str, *, at: str = "") -> ConfigState:
    """Before each start, before anything of the settings is used: counts it, or gives the trial up.

    `boot`: the boot id, which tells a crash from a power cut.
    """
    trial = state.trial
    if trial is None:
        return state
    count = starts.Count(trial.starts, trial.boots, trial.boot)
    why = starts.too_many(count, boot)
    if why:
        return given_up(state, f"{why} without being kept", at=at)
    more = starts.counted(count, boot)
    trial = msgspec.structs.replace(trial, starts=more.starts, boots=more.boots, boot=more.boot)
    return msgspec.structs.replace(state, trial=trial)


def in_use(state: ConfigState) -> int:
    """The revision to start with."""
    return state.force if state.trial is None else state.trial.revision


def judge(state: ConfigState, seen: Seen, *, settle_s: float, station_s: float) -> tuple[Act, str]:
    """What becomes of the trial, and why. A node that could reach its station must reach it again."""
    trial = state.trial
    if trial is None:
        return Act.WAIT, ""
    missing = [
        name
        for name, lacks in (
            ("the station is not reached", trial.station and not seen.station),
            ("no frames", trial.frames and not seen.frames),
        )
        if lacks
    ]
    if missing:
        return (
            (Act.GIVE_UP, f"{' and '.join(missing)} within {station_s:.0f} s")
            if seen.up_s >= station_s
            else (Act.WAIT, "")
        )
    return (Act.KEEP, "") if seen.up_s >= settle_s else (Act.WAIT, "")


def kept(state: ConfigState, *, at: str = "") -> ConfigState:
    """The trial is in force."""
    trial = state.trial
    if trial is None:
        raise Corrupt("config: nothing is on trial")
    return ConfigState(
        force=trial.revision,
        before=state.force,
        seen=state.seen,
        digest=trial.digest,
        since=at,
        answer=Answer(revision=trial.revision, state="applied", at=at),
        noted=False,
    )


def given_up(state: ConfigState, why: str, *, at: str = "") -> ConfigState:
    """The settings before are in force again."""
    revision = 0 if state.trial is None else state.trial.revision
    answer = Answer(revision=revision, state="rolled-back", why=why[:WHY_CHARS_MAX], at=at)
    return msgspec.structs.replace(state, trial=None, answer=answer, noted=False)
