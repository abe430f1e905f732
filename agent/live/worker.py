"""Live view, at the node: lets in who asks by a signed command, for a bounded time, on record, and ends it.

Nobody is let in before the ledger has `viewed`/`began` with his name and reason; `viewed`/`ended` says how long it was
and how it ended. A cut leaves the first of the two alone, and the seconds in it bound what was seen. Behind the privacy
switch there is nothing to see: the packets end at the switch itself (`Gallery.cut`), the view with the next step.
"""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from agent import wire
from agent.clock import Clock
from agent.config import LiveSettings
from agent.errors import ConfigError, Transient, WardpostError
from agent.evidence import records
from agent.live import Answered, Heard, Joined, Left, Rtc
from agent.live.feed import Gallery
from agent.live.request import Begin, End, More, parse
from agent.live.views import PRIVACY, View, Views
from agent.types import MS, NS
from agent.worker import FOREVER_S, Inbox, WhenFull

LOOK_S = 0.25
ASKED_MAX = 16
OWED_MAX = 64
STILL_BYTES_MAX = 24 * 1024
STILL_AGE_S_MAX = 3.0
"""An older picture is of before: of a view that ended, or of before the privacy switch."""
ENDED_AT_HQ = "ended by headquarters"
STOPPED = "the node stops"

log = logging.getLogger(__name__)


class Still(Protocol):
    """One picture."""

    @property
    def number(self) -> int: ...

    @property
    def boot_ns(self) -> int: ...

    @property
    def jpeg(self) -> bytes: ...


class Stills(Protocol):
    """Pictures out of vision's frames, while somebody asks."""

    def still(self, *, after: int, wait_s: float) -> Still | None:
        """The newest one after that number."""


class LiveWorker:
    """See `agent.worker.Worker`. `take` belongs to the uplink's thread, `watching` to any."""

    name = "live"
    step_s_max = 20.0

    def __init__(
        self,
        *,
        settings: LiveSettings,
        clock: Clock,
        rtc: Rtc,
        gallery: Gallery,
        stills: Stills,
        privacy_left_s: Callable[[], float],
        note: Callable[[bytes], None],
        reply: Callable[[wire.Reply], None],
    ) -> None:
        """`note` puts a JSON object on the ledger, and may raise Transient; `reply` answers a command later."""
        self._settings = settings
        self._clock = clock
        self._rtc = rtc
        self._gallery = gallery
        self._stills = stills
        self._privacy_left_s = privacy_left_s
        self._note = note
        self._reply = reply
        self._asked: Inbox[tuple[str, Begin | More | End]] = Inbox(ASKED_MAX, WhenFull.REFUSE)
        self._views = Views(
            viewers_max=settings.viewers_max, still_viewers_max=settings.still_viewers_max, s_max=settings.s_max
        )
        self._owed: deque[bytes] = deque(maxlen=OWED_MAX)  # ends that the store has not taken yet
        self.watching: tuple[str, ...] = ()

    def set_wake(self, wake: Callable[[], None]) -> None:
        """What ends this worker's sleep."""
        self._asked.wake = self._rtc.wake = wake

    # -- the uplink's thread ------------------------------------------------------------------------------------------

    def take(self, args: dict[str, Any]) -> dict[str, Any]:
        """The verb `live`. The answer proper follows. Raises WardpostError with why it is refused."""
        asked = parse(args)
        if isinstance(asked, Begin):
            self._may()
        if not self._asked.put((str(args["id"]), asked)):
            raise Transient("live: too many commands at once")
        return {"pending": True}

    def _may(self) -> None:
        if not self._settings.enabled:
            raise ConfigError("live: this post gives no live view (live.enabled)")
        left_s = self._privacy_left_s()
        if left_s > 0:
            raise ConfigError(f"live: {PRIVACY}, for {left_s:.0f} s still at most")

    # -- the worker ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        return

    def step(self, now: float) -> float:
        while (asked := self._asked.get()) is not None:
            self._answer(*asked, now)
        for happening in self._rtc.happenings():
            self._hear(happening, now)
        private = self._privacy_left_s() > 0
        for view in self._views.all():
            why = view.over(now, private=private)
            if why:
                self._end(view, why, now)
            elif view.begin.stills:
                self._send_still(view, now)
        self._settle()
        if not self._views.all() and self._rtc.running:
            self._rtc.close()
        return now + (LOOK_S if self._views.all() or self._owed else FOREVER_S)

    def close(self) -> None:
        now = self._clock.boot_ns() / NS
        for view in self._views.all():
            self._end(view, STOPPED, now)
        self._settle()
        self._rtc.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _answer(self, command: str, asked: Begin | More | End, now: float) -> None:
        try:
            match asked:
                case Begin():
                    self._begin(command, asked, now)
                    return
                case More():
                    view = self._views.more(asked.view, asked.seconds, asked.got, now=now)
                    result = self._told(view, now)
                case End():
                    known = self._views.find(asked.view)
                    if known is not None:
                        self._end(known, ENDED_AT_HQ, now)
                    result = {"view": asked.view, "summary": "over"}
        except WardpostError as error:
            self._reply(wire.Reply(id=command, state="failed", detail=str(error)[:500]))
        else:
            self._reply(wire.Reply(id=command, state="done", result=result))

    def _begin(self, command: str, begin: Begin, now: float) -> None:
        self._may()
        view = self._views.begin(begin, command=command, now=now)
        mode = "stills" if begin.stills else "video"
        try:
            self._note(
                records.body(
                    view=begin.view,
                    what="began",
                    mode=mode,
                    by=begin.by,
                    reason=begin.reason,
                    case=begin.case,
                    seconds=round(view.until_s - now, 1),
                    command=command[:36],
                )
            )
        except Transient:
            self._views.end(begin.view)  # what cannot be accounted for is not done
            raise
        log.warning("live view (%s) for %s: %s", mode, begin.by, begin.reason)
        self.watching = tuple(one.begin.by for one in self._views.all())
        if begin.stills:
            self._tell(view, now, period_s=self._settings.still_period_s)
            return
        try:
            self._rtc.answer(begin.view, begin.offer, begin.ice, view.feed)
        except ConfigError as error:
            self._end(view, str(error), now)

    def _hear(self, happening: Answered | Joined | Heard | Left, now: float) -> None:
        view = self._views.find(happening.view)
        if view is None:
            self._rtc.hang_up(happening.view)
            return
        match happening:
            case Answered():
                self._tell(view, now, sdp=happening.sdp)
            case Joined():
                view.joined, view.heard_s = True, now
                self._gallery.add(view.feed)
            case Heard():
                view.heard(now, happening.lost)
            case Left():
                self._end(view, happening.why, now)

    def _send_still(self, view: View, now: float) -> None:
        if not view.still_due(now, self._settings.still_period_s):
            return
        still = self._stills.still(after=view.sent, wait_s=0.0)
        age_ns = 0 if still is None else self._clock.boot_ns() - still.boot_ns
        if still is None or age_ns > STILL_AGE_S_MAX * NS or len(still.jpeg) > STILL_BYTES_MAX:
            return
        if self._privacy_left_s() > 0:
            return
        view.sent, view.sent_s, view.stills = still.number, now, view.stills + 1
        jpeg = base64.b64encode(still.jpeg).decode()
        self._tell(
            view,
            now,
            still=still.number,
            jpeg=jpeg,
            age_ms=max(age_ns, 0) // MS,
            period_s=self._settings.still_period_s,
        )

    # -- the end of it ------------------------------------------------------------------------------------------------

    def _end(self, view: View, why: str, now: float) -> None:
        self._gallery.remove(view.feed)
        self._views.end(view.begin.view)
        self._rtc.hang_up(view.begin.view)
        self.watching = tuple(one.begin.by for one in self._views.all())
        seconds = round(now - view.since_s, 1)
        log.warning("live view for %s has ended after %.0f s: %s", view.begin.by, seconds, why)
        self._owed.append(
            records.body(
                view=view.begin.view,
                what="ended",
                by=view.begin.by,
                reason=view.begin.reason,
                how=why,
                seconds=seconds,
                pictures=view.pictures,
            )
        )
        self._settle()
        told = {"view": view.begin.view, "over": why, "pictures": view.pictures, "summary": why}
        self._reply(wire.Reply(id=view.command, state="done", result=told))

    def _settle(self) -> None:
        """Ends that the store has not taken yet."""
        try:
            while self._owed:
                self._note(self._owed[0])
                self._owed.popleft()
        except Transient as error:
            log.error("live: the end of a view is not on record yet: %s", error)  # noqa: TRY400

    def _tell(self, view: View, now: float, **more: Any) -> None:
        """How it stands, to who began it."""
        self._reply(wire.Reply(id=view.command, state="accepted", result=self._told(view, now) | more))

    def _told(self, view: View, now: float) -> dict[str, Any]:
        left_s = round(max(view.until_s - now, 0.0), 1)
        return {"view": view.begin.view, "left_s": left_s, "watching": list(self.watching)}
