"""When the page is on: pure decisions. `worker.py` acts.

It goes on by one of three: a request on the boot partition that has not been used yet, the bell held while the box is
open, or the command `wardpost setup-page`. It goes off by itself when its time is over. A restart of the agent goes on
with what was left; so does a reboot, by what had been noted each NOTE_S, so that pulled plugs cannot make it longer
than a minute each.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent import state_file
from agent.types import NS

NOTE_S = 60.0
STATE_BYTES_MAX = 4096
REQUEST_BYTES_MAX = 4096


class Opening(Struct, frozen=True, kw_only=True):
    """The page is on."""

    boot_id: str
    until_ns: Annotated[int, Meta(ge=0)]  # CLOCK_BOOTTIME of that boot
    left_s: Annotated[float, Meta(ge=0, le=86_400)]  # when this was written
    nonce: Annotated[str, Meta(pattern=r"^[0-9a-f]{32,64}$(?!\n)")]
    why: Annotated[str, Meta(max_length=100)]


class PageState(Struct, frozen=True, kw_only=True):
    """The content of setup-page/state.json."""

    v: Literal[1] = 1
    used: Annotated[str, Meta(max_length=64)] = ""  # SHA-256 of the last request on the boot partition
    on: Opening | None = None


def encode(state: PageState) -> bytes:
    """As it is kept."""
    return msgspec.json.encode(state) + b"\n"


def decode(data: bytes) -> PageState:
    """Raises Corrupt in one line."""
    return state_file.decode(data, PageState, name="setup-page state", bytes_max=STATE_BYTES_MAX)


def requested(state: PageState, request: bytes | None) -> str:
    """The hash of a request that is there and has not been used; empty for none."""
    if request is None or not request.strip() or len(request) > REQUEST_BYTES_MAX:
        return ""
    found = hashlib.sha256(request.strip()).hexdigest()
    return "" if found == state.used else found


def begun(
    state: PageState, *, why: str, minutes: float, boot_id: str, now_ns: int, nonce: bytes, request: str = ""
) -> PageState:
    """It goes on, for so long from now."""
    opening = Opening(
        boot_id=boot_id, until_ns=now_ns + round(minutes * 60 * NS), left_s=minutes * 60, nonce=nonce.hex(), why=why
    )
    return PageState(used=request or state.used, on=opening)


def resumed(state: PageState, *, boot_id: str, now_ns: int, minutes_max: float) -> PageState:
    """At a start of the agent: what is left of it, never more than may be granted."""
    if state.on is None:
        return state
    left_s = (state.on.until_ns - now_ns) / NS if state.on.boot_id == boot_id else state.on.left_s
    left_s = min(left_s, minutes_max * 60)
    if left_s <= 0:
        return ended(state)
    on = msgspec.structs.replace(state.on, boot_id=boot_id, until_ns=now_ns + round(left_s * NS), left_s=left_s)
    return msgspec.structs.replace(state, on=on)


def noted(state: PageState, now_ns: int) -> PageState:
    """With the time that is left now."""
    if state.on is None:
        return state
    on = msgspec.structs.replace(state.on, left_s=left_s(state, now_ns))
    return msgspec.structs.replace(state, on=on)


def ended(state: PageState) -> PageState:
    """It is off."""
    return msgspec.structs.replace(state, on=None)


def left_s(state: PageState, now_ns: int) -> float:
    """Seconds until it goes off; 0 when it is."""
    return 0.0 if state.on is None else max((state.on.until_ns - now_ns) / NS, 0.0)
