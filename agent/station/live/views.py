"""One view, as headquarters knows it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

PAGE_SILENT_S_MAX = 15.0
"""A page asks every two seconds how it stands; one that does not is closed."""
ANSWER_S_MAX = 25.0
"""The post has not answered by then: it is dark, or of an age that knows no live view."""
KEEP_S = 5.0
"""Of stills: so often the post hears that somebody looks, whatever arrives."""
LATE_S = 10.0
"""The post ends a view by itself; when its word does not come, the station's own clock does, so much later."""


@dataclass(slots=True)
class View:
    """Somebody watches a post, or has done."""

    id: str
    node: str
    login: str
    name: str
    reason: str
    case: str
    stills: bool
    command: str  # that began it
    since_s: float
    since_utc_ns: int
    page_s: float  # when the page last asked
    until_s: float
    answered: bool = False
    sdp: str = ""
    watching: tuple[str, ...] = ()
    jpeg: bytes = b""
    still: int = 0
    age_ms: int = 0
    period_s: float = 0.0
    kept_s: float = 0.0  # when the post was last told that somebody looks
    pictures: int | None = None  # as the post says at the end
    over: str = ""  # why; empty: it goes on
    over_s: float = 0.0
    asked: set[str] = field(default_factory=set)  # commands whose answers are awaited

    def ends(self, now: float) -> str:
        """Why the station gives it up; empty: it does not."""
        if not self.answered and now - self.since_s > ANSWER_S_MAX:
            return "the post does not answer"
        if now - self.page_s > PAGE_SILENT_S_MAX:
            return "the page was closed"
        return "its time was over" if now > self.until_s + LATE_S else ""
