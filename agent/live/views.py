"""Who watches, and how long he may. Pure: times come in."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import ConfigError
from agent.live.feed import Feed
from agent.live.request import Begin

JOIN_S_MAX = 20.0
"""A connection that has not come about by then does not."""
SILENT_S_MAX = 10.0
"""A viewer's browser reports about once a second that pictures arrive."""
LOST_MAX = 0.3
THIN_S_MAX = 8.0
"""With more lost for so long, what is sent only stands in the way: of alerts, too."""
PAGE_SILENT_S_MAX = 20.0
"""Of stills: the station says every few seconds that somebody looks at them."""
AGAIN_S = 10.0
"""A still of which nothing was heard for so long was lost: the next one goes."""
PRIVACY = "the privacy switch is on"


@dataclass(slots=True)
class View:
    """One viewer."""

    begin: Begin
    command: str  # that began it: what becomes of it is answered to that
    since_s: float
    until_s: float
    heard_s: float
    feed: Feed
    joined: bool = False
    losing_s: float | None = None  # since when too much is lost
    sent: int = 0  # number of the newest still
    sent_s: float = 0.0
    got: int = 0
    stills: int = 0

    @property
    def pictures(self) -> int:
        """Handed to the network."""
        return self.stills if self.begin.stills else self.feed.taken

    def heard(self, now: float, lost: float) -> None:
        """The viewer has said what arrives."""
        self.heard_s = now
        if lost <= LOST_MAX:
            self.losing_s = None
        elif self.losing_s is None:
            self.losing_s = now

    def over(self, now: float, *, private: bool) -> str:
        """Why it ends now; empty: it goes on."""
        if private:
            return PRIVACY
        if now >= self.until_s:
            return "its time was over"
        if self.feed.reordered:
            return "this camera sends its pictures out of order, which WebRTC cannot carry; ask for stills"
        return self._stills_over(now) if self.begin.stills else self._video_over(now)

    def _stills_over(self, now: float) -> str:
        return "nobody looks at the page any more" if now - self.heard_s > PAGE_SILENT_S_MAX else ""

    def _video_over(self, now: float) -> str:
        silent_s = now - self.heard_s
        if not self.joined:
            return "no connection came about" if silent_s > JOIN_S_MAX else ""
        if silent_s > SILENT_S_MAX:
            return "the viewer has gone"
        thin = self.losing_s is not None and now - self.losing_s > THIN_S_MAX
        return "the network is too thin for video" if thin else ""

    def still_due(self, now: float, period_s: float) -> bool:
        """Whether the next still may go: the one before has arrived, and the rate allows it."""
        arrived = self.got >= self.sent or now - self.sent_s >= AGAIN_S
        return arrived and (not self.sent or now - self.sent_s >= period_s)


class Views:
    """All viewers of a post. One thread."""

    def __init__(self, *, viewers_max: int, still_viewers_max: int, s_max: float) -> None:
        """`viewers_max`: of video, which each costs the uplink whole; `still_viewers_max`: of stills, beside them."""
        self._viewers_max = {False: viewers_max, True: still_viewers_max}
        self._s_max = s_max
        self._views: dict[str, View] = {}

    def begin(self, begin: Begin, *, command: str, now: float) -> View:
        """Raises ConfigError when as many watch in this way as may."""
        if begin.view in self._views:
            raise ConfigError("live: this view has begun already")
        names = [one.begin.by for one in self._views.values() if one.begin.stills == begin.stills]
        if len(names) >= self._viewers_max[begin.stills]:
            raise ConfigError(f"live: {len(names)} watch already, and more may not: {', '.join(names)}")
        view = View(begin, command, now, now + min(begin.seconds, self._s_max), now, Feed())
        self._views[begin.view] = view
        return view

    def more(self, view_id: str, seconds: float, got: int, *, now: float) -> View:
        """Somebody goes on looking. Raises ConfigError when there is no such view."""
        view = self._need(view_id)
        if seconds:
            view.until_s = max(view.until_s, now + min(seconds, self._s_max))
        if view.begin.stills:
            view.heard_s, view.got = now, max(view.got, min(got, view.sent))
        return view

    def end(self, view_id: str) -> View:
        """Forgets it. Raises ConfigError when there is no such view."""
        view = self._need(view_id)
        del self._views[view_id]
        return view

    def find(self, view_id: str) -> View | None:
        """None: it is over."""
        return self._views.get(view_id)

    def all(self) -> list[View]:
        """In the order of their begin."""
        return list(self._views.values())

    def _need(self, view_id: str) -> View:
        if view_id not in self._views:
            raise ConfigError("live: there is no such view; it is over")
        return self._views[view_id]
