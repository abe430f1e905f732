"""WebRTC without a network: what the node is told of viewers, said by a test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.errors import ConfigError
from agent.live import Answered, Happening, Heard, Joined, Left
from agent.live.feed import Feed
from agent.live.request import Ice


class FakeRtc:
    """`agent.live.Rtc`. It believes every offer that has a picture in it; `join`, `report`, `leave` are the viewer's."""

    def __init__(self, *, missing: bool = False) -> None:
        self.wake: Callable[[], None] | None = None
        self.missing = missing
        self.feeds: dict[str, Feed] = {}
        self.ice: dict[str, tuple[Ice, ...]] = {}
        self._happened: list[Happening] = []
        self._running = False

    @property
    def running(self) -> bool:
        return self._running

    def answer(self, view: str, offer: str, ice: Sequence[Ice], feed: Feed) -> None:
        if self.missing:
            raise ConfigError("live: this post has no WebRTC: install wardpost[live], or ask for stills")
        self._running = True
        if "m=video" not in offer:
            self._tell(Left(view, "the offer cannot be met (ValueError)"))
            return
        self.feeds[view], self.ice[view] = feed, tuple(ice)
        self._tell(Answered(view, "v=0\r\nm=video 9 the answer"))

    def happenings(self) -> list[Happening]:
        found, self._happened = self._happened, []
        return found

    def hang_up(self, view: str) -> None:
        self.feeds.pop(view, None)

    def close(self) -> None:
        self._running = False
        self.feeds.clear()
        self._happened.clear()

    def join(self, view: str) -> None:
        self._tell(Joined(view))

    def report(self, view: str, lost: float = 0.0) -> None:
        self._tell(Heard(view, lost))

    def leave(self, view: str) -> None:
        self.feeds.pop(view, None)
        self._tell(Left(view, "the connection failed"))

    def _tell(self, happening: Happening) -> None:
        self._happened.append(happening)
        if self.wake is not None:
            self.wake()
