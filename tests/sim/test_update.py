"""An update finds the store of an earlier release and the power goes at any step of taking it over: nothing is lost."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from agent import boot
from agent.store.store import SCHEMA
from agent.types import Priority
from tests.sim import checks
from tests.sim.test_cuts import JOBS, SEED
from tests.sim.universe import universe_folder
from tests.sim.update import AREA, STOP_S, VISITS, an_update, explore, leave_as_schema_1
from tests.sim.world import World

CUTS = 60


def test_the_new_release_has_everything_that_the_earlier_one_left() -> None:
    with universe_folder() as folder:
        world = World(folder, SEED, visits=VISITS)
        before: dict[str, object] = {}

        def stopped() -> None:
            with closing(sqlite3.connect(world.node_folder / boot.STORE_NAME)) as db:
                before["schema"] = db.execute("select value from meta where key = 'schema'").fetchone()[0]
                before["tables"] = {name for (name,) in db.execute("select name from sqlite_master")}
                before["events"] = dict(db.execute("select sequence, id from event"))
                before["waiting"] = {s for (s,) in db.execute("select sequence from outbox where priority = 0")}
            assert not world.disk.list("ledger")
            assert not world.disk.list("keys")

        world.at(STOP_S + 0.5, stopped)
        an_update(world)
        world.settle()
        assert before["schema"] == "1" != SCHEMA
        assert {"record", "hold", "sign", "privacy"}.isdisjoint(before["tables"])  # type: ignore[arg-type]
        assert before["waiting"], "the bell had not been delivered"
        there = {event.sequence: event.id for event in checks.at_station(world.station_folder)}
        store = world.node.store
        told = dict(store._query("select sequence, id from event"))
        assert before["events"].items() <= told.items()  # type: ignore[attr-defined]
        assert before["waiting"] <= there.keys()  # type: ignore[operator]
        assert store.epoch == checks.at_station(world.station_folder)[0].epoch
        assert [row.session for row in store.sessions()] == [1, 2]
        assert len(world.promises.sealed) >= 2
        assert checks.all_problems(world) == []
        world.close()


def test_the_power_may_go_at_any_step_of_an_update() -> None:
    outcomes = explore(SEED, budget=CUTS, jobs=JOBS)
    failed = [outcome for outcome in outcomes if outcome.problems]
    assert not failed, (len(failed), str(failed[0].cut), failed[0].problems)
    steps = {outcome.cut.step for outcome in outcomes if outcome.happened}
    assert {f"{when} commit: upgrade from schema 1" for when in ("before", "after")} <= steps
    assert {"after commit: start session", "after commit: note config"} <= steps
    assert {outcome.cut.area for outcome in outcomes} == {AREA}
    print(f"{len(outcomes)} cuts through an update, at {len(steps)} steps, none failed")


def test_a_store_of_schema_1_is_that_of_the_release() -> None:
    """The control: what the story leaves is refused by nobody but because of its schema, and holds what it held."""
    with universe_folder() as folder:
        world = World(folder, SEED)
        world.boot()
        world.run(12.0)
        world.report([])
        sequences = world.node.store._query("select count(*) from event")[0][0]
        world.stop()
        leave_as_schema_1(world)
        with closing(sqlite3.connect(world.node_folder / boot.STORE_NAME)) as db:
            assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
            assert db.execute("select count(*) from event").fetchone()[0] >= sequences - 1
            assert {p for (p,) in db.execute("select distinct priority from outbox")} <= set(map(int, Priority))
        world.close()
