"""Packages of cases that somebody asked for: which wait, which one is made and how far it is, which failed and why.

Pure: whoever holds it has the lock and the clock (agent/station/cases/packer.py), and keeps what must outlive the
station (agent/station/cases/wishes.py). How far a package is, is told by this life alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.station.cases.states import Told

WAITING_MAX = 8
"""Packages that wait, of the whole station, beside the one that is made."""
FAILED_MAX = 50
FAILED_S_MAX = 86_400.0
"""So long it is told that there is no package, and why; or until somebody asks again."""
SAID_CHARS_MAX = 300


class Answer(StrEnum):
    """What becomes of a wish."""

    TAKEN = "taken"
    KNOWN = "known"  # the same waits, or is made: there will be one
    FULL = "full"


class Stage(StrEnum):
    """What a wish is at; keys of words.*.json behind `case.package.`."""

    WAITING = "waiting"
    MAKING = "making"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A package that somebody asked for."""

    case: int
    node: str  # empty: all its posts in one
    posts: tuple[str, ...]
    login: str
    name: str  # his
    told: Told
    asked_utc_ns: int
    newest: int = 0  # the case's last act when it was asked for
    n: int = 0  # its number among what is kept

    @property
    def key(self) -> tuple[int, str]:
        """What two wishes have that are for the same package, whoever asks."""
        return self.case, self.node


class Why(StrEnum):
    """Why there is no package; keys of words.*.json behind `case.package.no.`."""

    CANNOT = "cannot"  # what is in the way is said besides
    DISPOSED = "disposed"
    NOT_YOURS = "not-yours"  # who asked may not any more
    GIVEN_UP = "given-up"  # the station has ended too often while it was made
    BROKEN = "broken"  # a bug


@dataclass(frozen=True, slots=True)
class Failure:
    """... and what is in the way, for the person who must act."""

    why: Why
    said: str = ""


@dataclass(frozen=True, slots=True)
class Far:
    """How far a package is. `bytes_max`: what lies here of its posts, about what will be read; 0: not yet known."""

    posts: int = 0
    bytes: int = 0
    bytes_max: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A wish as a page shows it."""

    wish: Wish
    stage: Stage
    before: int = 0  # packages that come first, of a waiting one
    since_utc_ns: int  # when it came to this stage
    far: Far = Far()
    failure: Failure | None = None

    @property
    def open(self) -> bool:
        """Whether there is still something to come of it."""
        return self.stage is not Stage.FAILED


class Packing:
    """Any one thread at a time. Times: `now_s` never steps, `utc_ns` is the station's clock, for people."""

    def __init__(self) -> None:
        self._waiting: deque[Wish] = deque()
        self._made: Job | None = None
        self._begun = 0  # the last act that what is made holds
        self._failed: OrderedDict[tuple[int, str], tuple[float, Job]] = OrderedDict()

    def answer(self, wish: Wish) -> Answer:
        """What is to become of it: one more, or the same as before: then the first one's reason counts."""
        if any(one.key == wish.key for one in self._waiting):
            return Answer.KNOWN  # it will have what the case has by then
        if self._made is not None and self._made.wish.key == wish.key and self._begun >= wish.newest:
            return Answer.KNOWN
        if len(self._waiting) >= WAITING_MAX:
            return Answer.FULL
        return Answer.TAKEN

    def take(self, wish: Wish) -> None:
        """One more waits. Of several that an earlier life has left, each in its turn, however many."""
        self._failed.pop(wish.key, None)
        self._waiting.append(wish)

    def put_back(self) -> None:
        """What was made is not made any more, and is the next one again."""
        if self._made is not None:
            self._waiting.appendleft(self._made.wish)
            self._made = None

    def reads(self, newest: int) -> None:
        """What is made holds the case up to this act: who asks after a later one is asking for another package."""
        self._begun = newest

    def begin(self, *, utc_ns: int) -> Wish | None:
        """The next one, in the order of asking; it is made from now on. None: there is none."""
        if not self._waiting:
            return None
        wish = self._waiting.popleft()
        self._begun = wish.newest
        self._made = Job(wish=wish, stage=Stage.MAKING, since_utc_ns=utc_ns)
        return wish

    def go_on(self, *, posts: int = 0, read: int = 0, bytes_max: int = 0) -> None:
        """What is made is so much further. `bytes_max`: it is known now."""
        if self._made is not None:
            far = self._made.far
            far = Far(far.posts + posts, far.bytes + read, bytes_max or far.bytes_max)
            self._made = replace(self._made, far=far)

    def end(self, failure: Failure | None, *, now_s: float, utc_ns: int) -> None:
        """What was made is there, or there is none. What is there, the timeline of the case tells."""
        job, self._made = self._made, None
        if job is None or failure is None:
            return
        self.fail(job.wish, failure, now_s=now_s, utc_ns=utc_ns)

    def fail(self, wish: Wish, failure: Failure, *, now_s: float, utc_ns: int) -> None:
        """There is none of it, since `utc_ns`, which was `now_s`: it is told, unless the same is asked for again."""
        if any(one.key == wish.key for one in self._waiting):
            return
        job = Job(wish=wish, stage=Stage.FAILED, since_utc_ns=utc_ns, failure=failure)
        self._failed[wish.key] = (now_s, job)
        self._failed.move_to_end(wish.key)
        while len(self._failed) > FAILED_MAX:
            self._failed.popitem(last=False)

    def succeeded(self, wish: Wish) -> None:
        """It is there after all: that it failed is told no more."""
        if (told := self._failed.get(wish.key)) is not None and told[1].wish.n == wish.n:
            del self._failed[wish.key]

    def of(self, case: int, *, now_s: float) -> list[Job]:
        """Of one case: what is made, what waits, what failed."""
        found = [] if self._made is None else [self._made]
        ahead = len(found)
        found += [
            Job(wish=wish, stage=Stage.WAITING, before=ahead + place, since_utc_ns=wish.asked_utc_ns)
            for place, wish in enumerate(self._waiting)
        ]
        found += [job for at_s, job in self._failed.values() if now_s - at_s < FAILED_S_MAX]
        return [job for job in found if job.wish.case == case]
