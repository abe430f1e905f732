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
    on: bool = True


@dataclass(slots=True)
class Pace:
    """How the scheduler treats the threads of a machine."""

    turn_s_max: float = 0.002  # what one step costs, at most
    late_s: float = 0.005  # how late an ordinary wake-up is, at most
    stall_share: float = 0.02  # of the wake-ups are late by up to `stall_s`: another process had the core, or the disk
    stall_s: float = 0.4
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
            due = [
                (machine, life)
                for machine in self.machines
                if machine.on
                for name, life in machine.lives.items()
                if machine.due_ns.get(name, 0) <= self.now_ns or life.wake.is_set()
            ]
            if not due:
                self._pass_time(min(self._next_ns(until_ns), until_ns) - self.now_ns)
                continue
            self._turn(*due[self._rng.randrange(len(due))])

    def wake_all(self, machine: Machine) -> None:
        """A machine has started: all of its lives are due."""
        machine.due_ns.clear()

    def _next_ns(self, until_ns: int) -> int:
        times = [at for machine in self.machines if machine.on for at in machine.due_ns.values()]
        return max(min(times, default=until_ns), self.now_ns)

    def _turn(self, machine: Machine, life: Life) -> None:
        self.turns += 1
        life.wake.clear()
        before_ns = machine.clock.boot_ns()
        next_s = life.turn()
        took_ns = machine.clock.boot_ns() - before_ns  # a fake that waits moves its own machine's clock only
        self._pass_time(took_ns, skip=machine)
        ahead_ns = max(round(next_s * NS) - machine.clock.boot_ns(), 0)
        machine.due_ns[life.name] = self.now_ns + max(ahead_ns, round(self.pace.nap_s * NS)) + self._lateness_ns()
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
