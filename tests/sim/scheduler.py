"""One thread instead of eight: who is due runs, in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.supervisor import Life
from agent.types import NS
from tests.fakes.clock import FakeClock


@dataclass(slots=True)
class Machine:
    """A computer: its clock, and the lives that run on it. A clock stands still while the machine is off."""

    name: str
    clock: FakeClock
    lives: dict[str, Life] = field(default_factory=dict)
    due_ns: dict[str, int] = field(default_factory=dict)  # in true time
    waits_s: dict[str, Callable[[], float]] = field(default_factory=dict)
    """How long a life's next step would wait, unless woken, for the world to do something: it is not asked before."""
    on: bool = True


@dataclass(slots=True)
class Pace:
    """How the scheduler treats the threads of a machine."""

    turn_s_max: float = 0.002  # what one step costs, at most
    late_s: float = 0.005  # how late an ordinary wake-up is, at most
    stall_share: float = 0.02  # of the wake-ups are late by up to `stall_s`: another process had the core, or the disk
    stall_s: float = 0.4
    line_s: float = 0.05  # a message takes up to so long to get through
    nap_s: float = 0.0  # nobody sleeps for less, unless woken: for stories of days in which little happens


class Scheduler:
    """Runs machines in true time, which counts from 0. Deterministic for a seed and the same machines."""

    def __init__(self, rng: random.Random, *, pace: Pace | None = None) -> None:
        self._rng = rng
        self.pace = pace or Pace()
        self.now_ns = 0
        self.machines: list[Machine] = []
        self.after_turn: Callable[[Machine, Life], None] | None = None
        self.turns = 0

    @property
    def now_s(self) -> float:
        return self.now_ns / NS

    def run(self, until_s: float) -> None:
        """Lets everything live until this moment of true time. Whatever a step raises beyond its Life comes out here."""
        until_ns = round(until_s * NS)
        while self.now_ns < until_ns:
            due, next_ns = self._due(until_ns)
            if due:
                self._turn(*due[self._rng.randrange(len(due))])
            else:
                self._pass_time(next_ns - self.now_ns)

    def wake_all(self, machine: Machine) -> None:
        """A machine has started: all of its lives are due."""
        machine.due_ns.clear()

    def stir(self, machine: Machine, name: str) -> None:
        """Something has come in for a life that waits for it: it will wake up when it has arrived, as late as any other."""
        at_ns = self.now_ns + round(self._rng.random() * self.pace.line_s * NS) + self._lateness_ns()
        machine.due_ns[name] = min(machine.due_ns.get(name, at_ns), at_ns)

    def _due(self, until_ns: int) -> tuple[list[tuple[Machine, Life]], int]:
        """Who may run now; and when somebody may next, if nobody may now."""
        now_ns, next_ns = self.now_ns, until_ns
        due: list[tuple[Machine, Life]] = []
        for machine in self.machines:
            if not machine.on:
                continue
            due_ns = machine.due_ns
            for name, life in machine.lives.items():
                at_ns = due_ns.get(name, 0)
                if at_ns <= now_ns or life.wake.is_set():
                    due.append((machine, life))
                elif at_ns < next_ns:
                    next_ns = at_ns
        return due, next_ns

    def _turn(self, machine: Machine, life: Life) -> None:
        self.turns += 1
        life.wake.clear()
        machine.due_ns.pop(life.name, None)
        before_ns = machine.clock.boot_ns()
        next_s = life.turn()
        took_ns = machine.clock.boot_ns() - before_ns  # a fake that waits moves its own machine's clock only
        self._pass_time(took_ns, skip=machine)
        ahead_ns = max(round(next_s * NS) - machine.clock.boot_ns(), 0)
        waits = machine.waits_s.get(life.name)
        wait_s = self.pace.nap_s if waits is None else max(self.pace.nap_s, waits())
        due_ns = self.now_ns + max(ahead_ns, round(wait_s * NS)) + self._lateness_ns()
        machine.due_ns[life.name] = min(due_ns, machine.due_ns.get(life.name, due_ns))  # stirred in its own turn
        self._pass_time(round(self._rng.random() * self.pace.turn_s_max * NS) + 1)
        if self.after_turn is not None:
            self.after_turn(machine, life)

    def _lateness_ns(self) -> int:
        pace = self.pace
        late_s = pace.stall_s if self._rng.random() < pace.stall_share else pace.late_s
        return round(self._rng.random() * late_s * NS)

    def _pass_time(self, ns: int, *, skip: Machine | None = None) -> None:
        if ns <= 0:
            return
        self.now_ns += ns
        for machine in self.machines:
            if machine.on and machine is not skip:
                machine.clock.advance(ns / NS)
