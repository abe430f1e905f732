"""Long and unlucky lives, in simulated time: what the world did, and what must hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.types import MS, Priority
from tests.sim import checks
from tests.sim.stories import notice
from tests.sim.universe import universe_folder
from tests.sim.world import Visit, World

HOUR_S = 3600.0
SEED = 7
DARK_STEP_S = 60.0


@pytest.fixture
def folder() -> Iterator[Path]:
    with universe_folder() as path:
        yield path


def whats(world: World) -> set[str]:
    return {stretch.what for stretch in checks.life_of(world)}


def holds(world: World) -> None:
    world.settle()
    problems = checks.all_problems(world)
    world.close()
    assert problems == []


@pytest.mark.parametrize("hours", [12, pytest.param(72, marks=[pytest.mark.system, pytest.mark.timeout(3600)])])
def test_hours_without_network_alerts_come_first_and_nothing_twice(folder: Path, hours: int) -> None:
    """The outbox is bounded: notices make room for alerts, the loss is on record; then all the rest arrives in order."""
    world = World(folder, SEED, store={"outbox_rows_max": 150})
    world.going_on.add("wardpost.storage")
    world.boot()
    world.run(30.0)
    world.camera.stall()  # a dark lens: the hours pass quickly
    world.network(up=False)
    world.scheduler.pace.nap_s = DARK_STEP_S
    told: dict[str, Priority] = {}

    def hour(number: int) -> None:
        for n, priority in enumerate([*[Priority.NOTICE] * 12, Priority.BELL if number % 10 == 0 else Priority.ALERT]):
            event = notice(world, number * 20 + n, priority)
            told[event.incident] = priority
            world.report([event])

    for number in range(1, hours):
        world.at(number * HOUR_S, lambda number=number: hour(number))  # type: ignore[misc]
    world.run(hours * HOUR_S)  # hours pass in steps of DARK_STEP_S: the order of deliveries is what counts here
    assert world.node.store.outbox_rows <= 150
    shed = world.node.store.shed_rows()
    assert shed > 0
    world.camera.heal()
    world.scheduler.pace.nap_s = 0.0
    before = len(checks.at_station(world.station_folder))
    world.network(up=True)
    world.run(world.now_s + 2 * DARK_STEP_S + 60.0)  # whoever sleeps now sleeps on for a step
    late = checks.at_station(world.station_folder)[before:]
    assert [event for event in late if event.body.data.severity == "bell"], "the bell was lost"
    arrived = {event.body.data.incident for event in late}
    assert {incident for incident, priority in told.items() if priority is Priority.ALERT} <= arrived
    first = [event.body.data.severity for event in late if event.body.historical][:50]
    order = ["bell", "alert", "notice", "record", "thumbnail"]
    assert [order.index(severity) for severity in first] == sorted(order.index(severity) for severity in first)
    assert all(event.body.historical for event in late if event.body.data.incident in told)
    print(f"{hours} h dark: {len(late)} events arrived afterwards, {shed} rows were given up, on record")
    holds(world)


def test_a_clock_in_1970_that_is_synchronised_after_hours(folder: Path) -> None:
    """Nothing is measured by the wall clock; the anchor taken later corrects the hours before it."""
    world = World(folder, SEED, synced=False, recording={"budget_gb": 0.1})
    world.boot()
    world.run(60.0)
    world.camera.stall()
    world.scheduler.pace.nap_s = DARK_STEP_S
    world.run(3 * HOUR_S)
    world.scheduler.pace.nap_s = 0.0
    world.clock.step_utc(1_790_000_000.0)
    world.clock.set_unc(20 * MS)
    world.camera.heal()
    world.run(3 * HOUR_S + 30.0)
    life = checks.life_of(world)
    assert life[0].start_utc_ns > 1_780_000_000 * 10**9, "the first hours are still placed in 1970"
    assert abs(sum(stretch.seconds for stretch in life) - 3 * HOUR_S) < 60.0
    assert not world.node.store.tombstones(), "a clock that jumps 56 years must not make footage old"
    holds(world)


def test_a_camera_that_vanishes_and_comes_back(folder: Path) -> None:
    world = World(folder, SEED, visits=[Visit(40.0, 45.0)])
    world.boot()
    world.at(10.0, world.camera.vanish)
    world.at(30.0, world.camera.heal)
    world.run(60.0)
    gap = sum(stretch.seconds for stretch in checks.life_of(world) if stretch.what == "camera-fault")
    assert 19.0 < gap < 35.0
    kinds = {(event.body.type, event.body.data.phase) for event in checks.at_station(world.station_folder)}
    assert {("wardpost.camera", "started"), ("wardpost.camera", "ended"), ("wardpost.person", "started")} <= kinds
    world.going_on.add("wardpost.storage")
    holds(world)


def test_a_disk_that_is_full_and_emptied(folder: Path) -> None:
    """Recording stops, says so, and goes on by itself; the hole is on record as a storage fault."""
    world = World(folder, SEED, capacity_bytes=40 << 20, recording={"budget_gb": 0.03})
    world.boot()
    world.at(12.0, lambda: world.disk.fill(free_bytes=100))
    world.at(30.0, lambda: world.disk.fill(free_bytes=20 << 20))
    world.run(90.0)
    assert "storage-fault" in whats(world) or any(s.reason == "disk full" for s in world.node.store.tombstones())
    kinds = {(event.body.type, event.body.data.phase) for event in checks.at_station(world.station_folder)}
    assert ("wardpost.storage", "started") in kinds
    world.going_on.add("wardpost.storage")
    holds(world)


def test_a_card_that_fails_every_sync_for_a_while(folder: Path) -> None:
    world = World(folder, SEED)
    world.going_on.add("wardpost.storage")
    world.boot()
    world.at(12.0, lambda: world.disk.fail("sync", times=4))
    world.run(60.0)
    assert "storage-fault" in whats(world)
    holds(world)


def test_a_detector_that_fails_and_heals_costs_no_second_of_footage(folder: Path) -> None:
    world = World(folder, SEED, visits=[Visit(10.0, 16.0)], recording={"budget_gb": 0.1})
    world.boot()
    world.run(5.0)
    world.eyes.detect_fault = world.eyes.open_fault = Transient("the model lost its memory")
    world.run(30.0)
    world.eyes.detect_fault = world.eyes.open_fault = None
    world.run(60.0)
    events = checks.at_station(world.station_folder)
    kinds = {(event.body.type, event.body.data.phase) for event in events}
    assert {("wardpost.detector", "started"), ("wardpost.detector", "ended"), ("wardpost.motion", "started")} <= kinds
    assert whats(world) <= {"recorded", "agent-stopped", "unknown"}
    holds(world)


def test_a_broker_that_denies_loses_nothing_of_ours(folder: Path) -> None:
    """A 3.1.1 broker denies in silence: what it swallows, acknowledged, is sent again until the station has it."""
    world = World(folder, SEED, visits=[Visit(8.0, 13.0)])
    world.going_on.add("wardpost.storage")
    world.boot()
    world.at(4.0, lambda: world.broker.deny.add("wardpost/v1/phuong-1/post-1/event"))
    world.at(10.0, world.press_bell)
    world.run(40.0)
    assert world.node.store.outbox_rows > 0
    world.broker.deny.clear()
    holds(world)


def test_a_broker_that_loses_doubles_and_restarts(folder: Path) -> None:
    """What a PUBACK is worth: nothing. Every event arrives once in effect."""
    world = World(folder, SEED, visits=[Visit(8.0, 13.0), Visit(24.0, 30.0)])
    world.going_on.add("wardpost.storage")
    world.boot()
    world.at(7.0, lambda: setattr(world.broker, "lose", 8))
    world.at(20.0, lambda: setattr(world.broker, "duplicate", 30))
    for at_s in (11.0, 26.0, 33.0):
        world.at(at_s, world.broker.restart)
    world.run(40.0)
    assert world.broker.lost
    holds(world)


def test_a_link_that_fades_without_a_word(folder: Path) -> None:
    """Half-open: the node goes on sending into nothing, finds out by itself, and sends again."""
    world = World(folder, SEED, visits=[Visit(8.0, 13.0)])
    world.going_on.add("wardpost.storage")
    world.boot()
    world.at(7.0, lambda: world.network(up=False, silent=True))
    world.at(9.0, world.press_bell)
    world.at(50.0, lambda: world.network(up=True))
    world.run(80.0)
    bell = [event for event in checks.at_station(world.station_folder) if event.body.type == "wardpost.bell"]
    assert bell
    assert all(event.body.historical for event in bell)
    holds(world)
