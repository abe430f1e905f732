"""Every crash point of one story, each in a universe of its own.

The story runs once. At each crash point that is wanted the process forks: the parent goes on as if nothing had
happened, the child is the universe in which the power goes there. So a cut costs its recovery and its checks, not the
whole story before it. A child that fails reports the seed and the crash point; `Universe.replay` runs the same cut
without any fork, for a debugger.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import NoReturn

from tests.sim.power import Death, Killed, PowerCut

CHILD_CPU_S_MAX = 60  # a universe that takes more goes round in circles, which is a failure
CHILD_S_MAX = 900  # one that takes longer waits for something; long, for the simulator may run at the lowest priority


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to die. `seed` decides what happens afterwards, and what the disk keeps if `way` does not."""

    point: int
    step: str
    kind: (
        str  # "power", "torn" (in the middle of this commit), "kill", or "station": the station is killed, not the node
    )
    seed: int
    again_after: int = 0  # a second cut so many crash points into the recovery; 0: none
    way: tuple[int, ...] | None = None  # what the disk chose, see SimDisk.ways; None: drawn by the seed
    turn: int = 0  # the how manieth at this crash point: picks `way` when the point is reached
    area: str = ""  # of the product's work, for the table
    story: int = 0  # seed of the story that is cut

    def __str__(self) -> str:
        again = f" and again {self.again_after} steps later" if self.again_after else ""
        return f"{self.kind} at crash point {self.point} ({self.step}){again}, seed {self.seed}, way {self.way}"


@dataclass(slots=True)
class Outcome:
    """What came of a cut."""

    cut: Cut
    problems: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    happened: bool = True  # False: this cut cannot be (a commit that wrote nothing cannot be torn)
    again_at: str = ""  # the kind of step of the second cut


Choose = Callable[[int, str], Sequence[Cut]]
"""Which cuts to try at this crash point."""


class Stopped(BaseException):
    """The parent has seen all it wants."""


def death_of(cut: Cut) -> Death:
    return Killed(str(cut)) if cut.kind == "kill" else PowerCut(str(cut))


class Explorer:
    """Forks a universe per cut, at most `jobs` at a time."""

    def __init__(self, *, jobs: int, enough: Callable[[Outcome], bool] = lambda _outcome: False) -> None:
        """`enough`: whether to stop after this outcome."""
        self._jobs = jobs
        self._enough = enough
        self._children = selectors.DefaultSelector()
        self._running = 0
        self._buffers: dict[int, tuple[Cut, int, bytearray]] = {}
        self.outcomes: list[Outcome] = []

    def fork(self, cut: Cut) -> bool:
        """True in the child, whose business is to call `ready`, to die by `cut`, and to call `report`.

        The parent gets False once the child is ready, or Stopped when it has seen enough.
        """
        while self._running >= self._jobs:
            self._collect()
        read_fd, write_fd = os.pipe()
        ready_fd, self._ready_fd = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python 3.12 and later warn when other threads exist: OpenBLAS's workers do, and are idle here.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            gc.disable()  # it would touch, and so copy, every page of the parent's; the child lives for 0.1 s
            os.close(read_fd)
            os.close(ready_fd)
            self._report_fd = write_fd
            for dies_of in (signal.SIGALRM, signal.SIGPROF):
                signal.signal(dies_of, signal.SIG_DFL)
            signal.alarm(CHILD_S_MAX)
            signal.setitimer(signal.ITIMER_PROF, CHILD_CPU_S_MAX)
            return True
        os.close(write_fd)
        os.close(self._ready_fd)
        os.read(ready_fd, 1)  # an end of file, too, will do: the child is dead and is reported below
        os.close(ready_fd)
        self._children.register(read_fd, selectors.EVENT_READ)
        self._buffers[read_fd] = (cut, pid, bytearray())
        self._running += 1
        return False

    def ready(self) -> None:
        """The child has its own copy of every file: the parent may go on."""
        os.close(self._ready_fd)

    def report(self, outcome: Outcome) -> NoReturn:
        """Ends the child. No finaliser runs: they would touch the parent's files."""
        view = memoryview(json.dumps(asdict(outcome)).encode())
        while view:
            view = view[os.write(self._report_fd, view) :]
        os._exit(0)

    def finish(self) -> list[Outcome]:
        """Waits for all children."""
        while self._running:
            with suppress(Stopped):
                self._collect()
        self.outcomes.sort(key=lambda outcome: (outcome.cut.point, outcome.cut.kind, outcome.cut.seed))
        return self.outcomes

    def _collect(self) -> None:
        for key, _ in self._children.select():  # Stopped leaves the rest for the next call
            fd = key.fd
            data = os.read(fd, 1 << 16)
            cut, pid, buffer = self._buffers[fd]
            if data:
                buffer += data
                continue
            self._children.unregister(fd)
            os.close(fd)
            _, status = os.waitpid(pid, 0)
            del self._buffers[fd]
            self._running -= 1
            self.outcomes.append(_outcome(cut, bytes(buffer), status))
            if self._enough(self.outcomes[-1]):
                raise Stopped


def _outcome(cut: Cut, data: bytes, status: int) -> Outcome:
    if not data or status != 0:
        return Outcome(cut, [f"the universe ended with status {status} and said {data[:200]!r}: it hung or crashed"])
    told = json.loads(data)
    return Outcome(cut, told["problems"], told["figures"], told["happened"], told["again_at"])


def problems_of(error: BaseException) -> list[str]:
    """A failure as lines for the report."""
    return ["".join(traceback.format_exception(error))[-6000:]]
