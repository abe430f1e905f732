"""Every crash point of one story, each in a universe of its own.

The story runs once. At each crash point that is wanted the process forks: the parent goes on as if nothing had
happened, the child is the universe in which the power goes there. So a cut costs its recovery and its checks, not the
whole story before it. A child that fails reports the seed and the crash point; `Universe.replay` runs the same cut
without any fork, for a debugger.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NoReturn

from tests.sim.power import Death, Killed, PowerCut, kind_of

CHILD_S_MAX = 60  # a universe that takes longer hangs, which is a failure


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to die. `seed` decides what the disk keeps and what happens afterwards."""

    point: int
    step: str
    kind: str  # "power", "torn" (in the middle of this commit) or "kill"
    seed: int
    again_after: int = 0  # a second cut so many crash points into the recovery; 0: none

    def __str__(self) -> str:
        again = f" and again {self.again_after} steps later" if self.again_after else ""
        return f"{self.kind} at crash point {self.point} ({self.step}){again}, seed {self.seed}"


@dataclass(slots=True)
class Outcome:
    """What came of a cut."""

    cut: Cut
    problems: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    happened: bool = True  # False: this cut cannot be (a commit that wrote nothing cannot be torn)


Choose = Callable[[int, str], Sequence[Cut]]
"""Which cuts to try at this crash point."""


class Stopped(BaseException):
    """The parent has seen all it wants."""


def death_of(cut: Cut) -> Death:
    return Killed(str(cut)) if cut.kind == "kill" else PowerCut(str(cut))


class Explorer:
    """Forks a universe per cut, at most `jobs` at a time."""

    def __init__(self, *, jobs: int) -> None:
        self._jobs = jobs
        self._children = selectors.DefaultSelector()
        self._running = 0
        self._buffers: dict[int, tuple[Cut, int, bytearray]] = {}
        self.outcomes: list[Outcome] = []

    def fork(self, cut: Cut) -> bool:
        """True in the child, whose business is to call `ready`, to die by `cut`, and to call `report`.

        The parent gets False once the child is ready.
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
            os.close(read_fd)
            os.close(ready_fd)
            self._report_fd = write_fd
            signal.alarm(CHILD_S_MAX)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
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
            self._collect()
        self.outcomes.sort(key=lambda outcome: (outcome.cut.point, outcome.cut.kind, outcome.cut.seed))
        return self.outcomes

    def _collect(self) -> None:
        for key, _ in self._children.select():
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


def _outcome(cut: Cut, data: bytes, status: int) -> Outcome:
    if not data or status != 0:
        return Outcome(cut, [f"the universe ended with status {status} and said {data[:200]!r}: it hung or crashed"])
    told = json.loads(data)
    return Outcome(cut, told["problems"], told["figures"], told["happened"])


def problems_of(error: BaseException) -> list[str]:
    """A failure as lines for the report."""
    return ["".join(traceback.format_exception(error))[-6000:]]


def sample(points: int, budget: int, rng: random.Random) -> frozenset[int]:
    """`budget` of the crash points 1..`points`, all of them if they fit."""
    return frozenset(range(1, points + 1)) if points <= budget else frozenset(rng.sample(range(1, points + 1), budget))


def table(outcomes: Sequence[Outcome]) -> str:
    """How many cuts of each kind were tried, and what they cost."""
    real = [outcome for outcome in outcomes if outcome.happened]
    kinds = Counter(outcome.cut.kind for outcome in real)
    steps = Counter((outcome.cut.kind, kind_of(outcome.cut.step)) for outcome in real)
    again = sum(outcome.cut.again_after > 0 for outcome in real)
    lines = [
        (
            f"{len(real)} cuts tried ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}; "
            f"{again} with a second cut during recovery), {sum(bool(outcome.problems) for outcome in real)} failed"
        )
    ]
    lines += [f"  {count:5d}  {kind:5s}  {step}" for (kind, step), count in sorted(steps.items())]
    losses = sorted(outcome.figures["loss_s"] for outcome in real if "loss_s" in outcome.figures)
    if losses:
        p95 = losses[min(int(len(losses) * 0.95), len(losses) - 1)]
        lines.append(
            f"footage lost per cut: max {losses[-1]:.2f} s, p95 {p95:.2f} s, mean {sum(losses) / len(losses):.2f} s"
        )
    return "\n".join(lines)
