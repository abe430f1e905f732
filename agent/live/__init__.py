"""Live view on demand: what a viewer's connection promises the node. `rtc.py` is the driver; a fake is in tests/fakes.

Nothing here runs, and no library of it is loaded, before somebody with a signed command wants to see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.live.feed import Feed
from agent.live.request import Ice


@dataclass(frozen=True, slots=True)
class Answered:
    """The viewer's offer can be met; `sdp` goes back to him."""

    view: str
    sdp: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The connection stands: pictures may flow."""

    view: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The viewer has said what arrives (an RTCP receiver report)."""

    view: str
    lost: float = 0.0  # share of the packets since his last word that did not come, 0 to 1


@dataclass(frozen=True, slots=True)
class Left:
    """There is no connection any more, or none came about, and why."""

    view: str
    why: str


Happening = Answered | Joined | Heard | Left


class Rtc(Protocol):
    """WebRTC connections to viewers. One thread calls it; nothing blocks but `close`, which is bounded."""

    wake: Callable[[], None] | None
    """Called, from any thread, when something has happened."""

    @property
    def running(self) -> bool:
        """Whether it has a thread."""

    def answer(self, view: str, offer: str, ice: Sequence[Ice], feed: Feed) -> None:
        """Takes up a viewer's offer (SDP); Answered or Left follows within seconds. Raises ConfigError: no aiortc."""

    def happenings(self) -> list[Happening]:
        """What has happened since, oldest first."""

    def hang_up(self, view: str) -> None:
        """Ends a connection. No Left follows."""

    def close(self) -> None:
        """Ends all of them, and the thread. Never raises."""
