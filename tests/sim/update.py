"""A post whose folder was left by an earlier release: schema 1, from before there was a ledger. The new one takes it over.

The earlier release's life is told with the parts that it had in common with this one; what it leaves on the card is then
written anew into `schema_1.sql`, the schema as it was released.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent import boot
from agent.evidence.keys import FOLDER as KEYS
from agent.evidence.ledger import FOLDER as LEDGER
from agent.evidence.records import LedgerLine, LedgerMark, RecordKind
from agent.store.store import Store
from agent.uplink.worker import UplinkWorker
from tests.sim.checks import Unwritten
from tests.sim.explore import Cut, Outcome
from tests.sim.plan import AGAIN_STEPS_MAX
from tests.sim.universe import Universe
from tests.sim.world import RESTART_S, Visit, World

AREA = "update"
VISITS = (Visit(3.0, 5.0),)
STOP_S = 13.0
SCHEMA_1 = Path(__file__).with_name("schema_1.sql")
TABLES = ("session", "anchor", "segment", "tombstone", "gap", "event", "outbox", "shed")
META = ("epoch", "node")
WAYS_TO_DIE = ("power", "power again", "kill", "power", "torn", "power again")


class EarlierStore(Store):
    """Schema 1 had no journal, and so nothing went on any ledger."""

    def _journal(self, db: sqlite3.Connection, kind: RecordKind, body: bytes, *, urgent: bool = False) -> None:
        return

    def ledger_mark(self) -> LedgerMark:
        return LedgerMark(0, "")

    def hand_over(self, lines: Sequence[LedgerLine]) -> None:
        return

    def ledger_waiting(self) -> tuple[int, int] | None:
        return None


def without_key(**given: Any) -> UplinkWorker:
    """The uplink of a node that has no key to tell of."""
    return UplinkWorker(**given | {"ledger_key": str})


def an_update(world: World) -> None:
    """The earlier release: a person passes, files roll, the network goes, the bell, a clean stop for the update. The new
    one: takes the folder over, the network comes back, what was not delivered is.
    """
    parts = dict(world.parts)
    world.parts |= {"Store": EarlierStore, "UplinkWorker": without_key}
    world.going_on.add("wardpost.storage")
    world.at(8.0, lambda: world.network(up=False))
    world.at(9.0, world.press_bell)
    world.boot()
    world.run(STOP_S)
    world.stop()
    world.parts = parts
    leave_as_schema_1(world)
    world.at(STOP_S + RESTART_S, world.boot)
    world.at(STOP_S + RESTART_S + 2.0, lambda: world.network(up=True))
    world.run(STOP_S + RESTART_S + 8.0)


def leave_as_schema_1(world: World) -> None:
    """The node is down: its folder becomes what a release of schema 1 would have left."""
    path = world.node_folder / boot.STORE_NAME
    new = path.with_name("schema-1.db")
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.execute("pragma journal_mode=wal")
        db.executescript(SCHEMA_1.read_text(encoding="utf-8"))
        db.execute("attach ? as newer", (str(path),))
        db.execute("begin")
        db.execute("insert into meta values ('schema', '1')")
        db.execute("insert into meta select key, value from newer.meta where key in (?, ?)", META)
        for table in TABLES:
            db.execute(f"insert into {table} select * from newer.{table}")
        db.execute("commit")
        world.promises.unwritten = Unwritten(
            events=frozenset(sequence for (sequence,) in db.execute("select sequence from event")),
            segments=frozenset(name for (name,) in db.execute("select name from segment")),
            deleted=db.execute("select coalesce(sum(segments), 0) from tombstone").fetchone()[0],
        )
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)
    for folder in (LEDGER, KEYS):
        world.disk.lose(folder)
        shutil.rmtree(world.node_folder / folder, ignore_errors=True)


def cuts(steps: Sequence[str], *, budget: int, seed: int) -> list[Cut]:
    """About `budget` cuts through the first start of the new release: every step of it, in every way to die in turn."""
    rng = random.Random(f"{seed} update")
    first = next(n for n, step in enumerate(steps, 1) if "upgrade from schema" in step)
    last = next(n for n, step in enumerate(steps, 1) if n > first and "after commit: note config" in step)
    found: list[Cut] = []
    for number in range(budget):
        point = first + number % (last - first + 1)
        turn = number // (last - first + 1)
        kind, _, again = WAYS_TO_DIE[turn % len(WAYS_TO_DIE)].partition(" ")
        if kind == "torn" and not steps[point - 1].startswith("after commit"):
            kind = "power"
        again_after = rng.randrange(1, AGAIN_STEPS_MAX) if again else 0
        found.append(
            Cut(point, steps[point - 1], kind, seed + number, again_after, turn=turn, area=AREA, story=seed)
        )  # fmt: skip
    return found


def explore(seed: int, *, budget: int, jobs: int) -> list[Outcome]:
    """About `budget` cuts through the update. Raises AssertionError when the story fails without any."""
    story = Universe(an_update, seed, VISITS)
    steps, _, problems = story.count()
    if problems:
        raise AssertionError(f"seed {seed}: {problems}")
    wanted = cuts(steps, budget=budget, seed=seed)
    return story.explore(lambda point, _: [cut for cut in wanted if cut.point == point], jobs=jobs)
