"""Makes the packages that were asked for, one after the other, on a thread of its own: no page waits for one.

What was asked for outlives the station (agent/station/cases/wishes.py): what a restart leaves of a half-made package is
taken away when the thread begins, and it is made again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.clock import Clock
from agent.errors import Transient, WardpostError
from agent.station.cases.export import Abandoned, Watch
from agent.station.cases.packing import FAILED_MAX, SAID_CHARS_MAX, Answer, Failure, Job, Packing, Why, Wish
from agent.station.cases.reading import Case, Cases
from agent.station.cases.states import Act, Objection, Told, decide
from agent.station.cases.wishes import BEGUN_MAX, Wishes
from agent.station.outward.worker import OutwardThread
from agent.station.people.registry import Registry
from agent.station.people.roles import Person
from agent.types import NS

LOOK_S = 0.5
AWAY_S = 10.0
"""While the database is away it is asked so often, and the log says so."""
STOP_S_MAX = 5.0
"""The longest that the end of the station waits for the thread; what it was at is then given up where it is."""

log = logging.getLogger(__name__)


class Maker(Protocol):
    """agent/station/cases/export.py, as far as it is used here."""

    def make(
        self, who: Person, case: Case, node: str, told: Told, *, wish: int, watch: Watch, pause: Callable[[float], None]
    ) -> int | Objection: ...
    def tidy(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Failed:
    """What the database is still to be told."""

    wish: Wish
    failure: Failure
    utc_ns: int


class Packer:
    """`agent.worker.Worker`, with its thread. `ask` and `of` are the pages', from any thread."""

    name = "packages"
    step_s_max = 3600.0  # nobody watches it: a package takes as long as its footage is large

    def __init__(self, *, maker: Maker, wishes: Wishes, cases: Cases, registry: Registry, clock: Clock) -> None:
        self._maker = maker
        self._wishes = wishes
        self._cases = cases
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._packing = Packing()
        self._ends = threading.Event()
        self._thread = OutwardThread(self, clock=clock)
        self._keeping = threading.Lock()  # what is kept is changed by one thread at a time; before `_lock`
        self._known = False
        self._untold: deque[_Failed] = deque(maxlen=FAILED_MAX)

    # -- the pages' threads -------------------------------------------------------------------------------------------

    def ask(self, who: Person, case: Case, node: str, told: Told, *, seen: int) -> Answer | Objection:
        """Asks for a package; returns once that is durable. `node`: empty for all posts in one; `seen`: the last act
        that he saw. Raises Transient.

        What can be decided now is: who comes second is shown what became of the case, nobody asks without a reason.
        """
        decided = decide(case.state, Act.COPIED, who.role, told, seen=seen, newest=case.newest)
        if isinstance(decided, Objection):
            return decided
        wish = Wish(
            case=case.n,
            node=node,
            posts=(node,) if node else case.posts,
            login=who.login,
            name=who.name,
            told=told,
            asked_utc_ns=self._clock.utc().utc_ns,
            newest=case.newest,
        )
        with self._keeping:
            self._settle()
            with self._lock:
                answer = self._packing.answer(wish)
            if answer is Answer.TAKEN:
                kept = self._wishes.add(wish)
                with self._lock:
                    self._packing.take(kept)
        return answer

    def of(self, case: int) -> list[Job]:
        """What was asked for of a case: what is made, what waits, what failed. Raises Transient."""
        if not self._known:
            with self._keeping:
                self._settle()
        with self._lock:
            return self._packing.of(case, now_s=self._now())

    # -- the thread that starts and stops it --------------------------------------------------------------------------

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Has it give up what it makes, and waits for that within STOP_S_MAX. Never raises.

        It gives up between two pieces of footage. In the middle of a film of many gigabytes it may not look in time:
        then it is left behind, a daemon thread that ends with the process, and records nothing.
        """
        self._ends.set()
        self._thread.stop(STOP_S_MAX)

    # -- its own thread -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Takes away what an earlier life has left half-made."""
        try:
            self._maker.tidy()
        except Transient as error:
            log.warning("%s", error)  # it is tidied before each package, and told to who asks for one

    def step(self, now: float) -> float:
        """Makes the next package, if there is one to be made."""
        if self._ends.is_set():
            return now + LOOK_S
        try:
            with self._keeping:
                self._settle()
        except Transient as error:
            log.warning("%s", error)
            return now + AWAY_S
        with self._lock:
            wish = self._packing.begin(utc_ns=self._clock.utc().utc_ns)
        if wish is None:
            return now + LOOK_S
        failure: Failure | None = Failure(Why.BROKEN)
        try:
            failure = self._make(wish) if self._wishes.begin(wish.n) else None  # none such: its package is there
            if failure is not None and self._is_there(wish, failure):
                failure = None
        except Abandoned:
            self._put_back(wish)
        except Transient as error:  # the database is away, and nothing was begun
            log.warning("%s", error)
            with self._lock:
                self._packing.put_back()
            return now + AWAY_S
        finally:
            with self._lock:
                self._packing.end(failure, now_s=self._now(), utc_ns=self._clock.utc().utc_ns)
        return self._now()

    def close(self) -> None:
        """Holds nothing open."""

    def _make(self, wish: Wish) -> Failure | None:
        """None: it is there. Raises Abandoned."""
        try:
            who = self._registry.find(wish.login)
            case = None if who is None or who.disabled else self._cases.find(who.scope, wish.case)
            if who is None or case is None:
                return refused(Objection.NOT_YOURS)
            with self._lock:
                self._packing.reads(case.newest)
            done = self._maker.make(who, case, wish.node, wish.told, wish=wish.n, watch=_Watch(self), pause=self._pause)
        except Abandoned:
            raise
        except WardpostError as error:
            log.warning("case %d: no package: %s", wish.case, error)
            return Failure(Why.CANNOT, str(error)[:SAID_CHARS_MAX])
        except Exception:
            log.exception("case %d: no package", wish.case)
            return Failure(Why.BROKEN)
        return refused(done) if isinstance(done, Objection) else None

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Reads what an earlier life has left, and tells the database what it was away for. Raises Transient."""
        if not self._known:
            self._remember()
            self._known = True
        while self._untold:
            failed = self._untold[0]
            if not self._wishes.fail(failed.wish.n, failed.failure, utc_ns=failed.utc_ns):
                with self._lock:
                    self._packing.succeeded(failed.wish)
            self._untold.popleft()

    def _remember(self) -> None:
        utc_ns, now_s = self._clock.utc().utc_ns, self._now()
        left = self._wishes.all(utc_ns=utc_ns)
        given_up = Failure(Why.GIVEN_UP)
        for kept in left:
            if kept.failure is None and kept.begun >= BEGUN_MAX:
                log.warning(
                    "case %d: the station ended %d times while its package was made", kept.wish.case, kept.begun
                )
                self._wishes.fail(kept.wish.n, given_up, utc_ns=utc_ns)
        with self._lock:
            for kept in left:
                if kept.failure is not None:
                    age_s = max(utc_ns - kept.failed_utc_ns, 0) / NS
                    self._packing.fail(kept.wish, kept.failure, now_s=now_s - age_s, utc_ns=kept.failed_utc_ns)
                elif kept.begun >= BEGUN_MAX:
                    self._packing.fail(kept.wish, given_up, now_s=now_s, utc_ns=utc_ns)
                else:
                    self._packing.take(kept.wish)

    def _is_there(self, wish: Wish, failure: Failure) -> bool:
        """Whether its act came about though its maker was told that it did not; else it is kept why there is none."""
        failed = _Failed(wish, failure, self._clock.utc().utc_ns)
        try:
            return not self._wishes.fail(wish.n, failure, utc_ns=failed.utc_ns)
        except Transient as error:
            log.warning("%s", error)
            with self._keeping:
                self._untold.append(failed)
            return False

    def _put_back(self, wish: Wish) -> None:
        with self._lock:
            self._packing.put_back()
        try:
            self._wishes.put_back(wish.n)
        except Transient as error:
            log.warning("%s", error)  # then it counts as begun

    def go_on(self, *, posts: int = 0, read: int = 0, bytes_max: int = 0) -> None:
        """What is made is so much further. Raises Abandoned when the station ends."""
        if self._ends.is_set():
            raise Abandoned("export: the station ends")
        with self._lock:
            self._packing.go_on(posts=posts, read=read, bytes_max=bytes_max)

    def _pause(self, seconds: float) -> None:
        self._clock.wait(self._ends, seconds)

    def _now(self) -> float:
        return self._clock.boot_ns() / NS


class _Watch:
    """What the package that is made tells its Packer."""

    def __init__(self, packer: Packer) -> None:
        self._packer = packer

    def begins(self, footage_bytes: int) -> None:
        self._packer.go_on(bytes_max=footage_bytes)

    def post_done(self) -> None:
        self._packer.go_on(posts=1)

    def read(self, footage_bytes: int) -> None:
        self._packer.go_on(read=footage_bytes)


def refused(objection: Objection) -> Failure:
    """In words, why somebody has no copy in the end. Of the states, a case that was disposed of alone allows none."""
    return Failure(Why.DISPOSED if objection is Objection.NOT_NOW else Why.NOT_YOURS)
