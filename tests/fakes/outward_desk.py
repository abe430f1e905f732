"""A station's board on a real database, with a clock that a test drives: what notices are made of."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from agent import wire
from agent.disk import PosixDisk
from agent.station.alerts import Alerts
from agent.station.db.engine import open_engine
from agent.station.intake import EventIn
from agent.station.outward.notice import KINDS, Notice
from agent.station.outward.queue import OutwardQueue, Plan, Standing, standings
from agent.station.outward.retry import DELIVERED, Outcome
from agent.station.outward.worker import OutwardWorker, Sender
from agent.station.people.roles import Person, Role, Scope
from agent.station.people.trail import Trail
from agent.station.people.trail_line import said
from agent.station.store import Batch, StationStore
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database

SITE = "ward-7"
EPOCH = "01900000-0000-7000-8000-000000000001"
LAN = Person("lan", "Lan", Role.OPERATOR, Scope(whole_site=True))


def uid(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012x}"


class Board:
    """The store, the alerts, the audit log."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database = database
        self.clock = clock
        self.store = StationStore(database.folder, clock=clock, site=SITE, database=database.setting)
        self.store.open()
        self.engine = open_engine(database.url)
        self.trail = Trail(self.engine, clock=clock, site=SITE, station="hq", disk=PosixDisk(database.folder))
        self.trail.open()
        self.alerts = Alerts(self.engine, trail=self.trail, clock=clock, bell_deadline_s=60.0, alert_deadline_s=300.0)
        self._sequence = 0

    def happens(
        self, severity: str = "alert", *, node: str = "gate-2", incident: int | None = None, **data: Any
    ) -> str:
        """An event comes in, and the board has seen it. Returns the incident."""
        self._sequence += 1
        found = uid(9000 + (self._sequence if incident is None else incident))
        told: dict[str, Any] = {"summary": "A person at the gate", "place": "Lane 12", "phase": "started"} | data
        kind = "bell" if severity == "bell" else "person"
        body = wire.encode(
            wire.CloudEvent(
                id=uid(self._sequence),
                source=f"wardpost/{SITE}/{node}",
                type=f"wardpost.{kind}",
                subject=found,
                time="2026-11-21T07:02:11.250Z",
                epoch=EPOCH,
                sequence=self._sequence,
                session=1,
                bootid="f" * 32,
                monons=1,
                timeerrms=3000,
                data=wire.EventData(incident=found, severity=severity, **told),  # type: ignore[arg-type]
            )
        )
        self.store.commit(Batch(taken=[EventIn(node, EPOCH, self._sequence, uid(self._sequence), kind, found, body)]))
        while self.alerts.take_in():
            pass
        return found

    def becomes(self, node: str, state: str) -> None:
        """A post changes, as the station's worker would note it."""
        self.store.change([(node, state, self.clock.utc().utc_ns - 200 * NS)])

    def passes(self, seconds: float) -> None:
        """Time goes by, and the board notes what is overdue."""
        self.clock.advance(seconds)
        self.alerts.note_overdue()

    def on_record(self, kind: str) -> list[dict[str, Any]]:
        """Lines of the audit log of one kind."""
        return [line for line in map(said, self.trail.lines()) if line["kind"] == kind]

    def standing(self, name: str) -> Standing:
        return next(one for one in standings(self.engine) if one.destination == name)

    def queue(self) -> OutwardQueue:
        return OutwardQueue(self.engine, trail=self.trail, clock=self.clock, site=SITE)

    def worker(self, destinations: Mapping[Plan, Sender], hands: Callable[[int], Any] | None = None) -> OutwardWorker:
        made = OutwardWorker(
            queue=self.queue(),
            destinations=destinations,
            clock=self.clock,
            rng=random.Random(7),
            hands=hands or (lambda _count: AtOnce()),
        )
        made.open()
        return made

    def run(self, worker: OutwardWorker, seconds: float = 2.0) -> None:
        """Lets the worker live for so long, in sixty looks at most."""
        end = self.clock.boot_ns() / NS + seconds
        while (now := self.clock.boot_ns() / NS) < end:
            self.clock.advance(max(worker.step(now) - now, seconds / 60))

    def close(self) -> None:
        self.engine.dispose()
        self.store.close()


@contextmanager
def board(database: Database) -> Iterator[Board]:
    made = Board(database, FakeClock())
    try:
        yield made
    finally:
        made.close()


class AtOnce:
    """An executor without threads."""

    def submit(self, fn: Callable[[], Outcome], /) -> Future[Outcome]:
        done: Future[Outcome] = Future()
        try:
            done.set_result(fn())
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        pass


class Listener:
    """A destination that remembers what it was told, and answers as a test wants."""

    def __init__(self, answer: Outcome = DELIVERED) -> None:
        self.answer = answer
        self.got: list[tuple[str, Notice]] = []
        self.attempts = 0

    def __call__(self, told: Notice, key: str) -> Outcome:
        self.attempts += 1
        if self.answer.state == "delivered":
            self.got.append((key, told))
        return self.answer

    @property
    def kinds(self) -> list[str]:
        return [told.kind for _, told in self.got]


def plan(name: str = "hook", **changes: Any) -> Plan:
    settings: dict[str, Any] = {"tell": frozenset(KINDS), "keep_s": 86_400.0} | changes
    return Plan(name=name, **settings)
