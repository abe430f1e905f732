"""Disk faults, clocks and silence, told as stories to a whole node and a whole station in simulated time.

SQLite is real: its disk full is SQLite's own (max_page_count); footage, ledger and receipts lie on the fake disk.
"""

from __future__ import annotations

import errno
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import wire
from agent.types import MS, NS, Cause, Priority
from tests.sim import checks
from tests.sim.stories import notice
from tests.sim.universe import universe_folder
from tests.sim.world import Visit, World

SEED = 5
HOUR_S = 3600.0
NAP_S = 600.0  # in the days in which nothing happens


@pytest.fixture
def folder() -> Iterator[Path]:
    with universe_folder() as path:
        yield path


def holds(world: World) -> None:
    world.going_on.add("wardpost.storage")
    world.settle()
    problems = checks.all_problems(world)
    world.close()
    assert problems == []


def whats(world: World) -> set[str]:
    return {stretch.what for stretch in checks.life_of(world)}


# -- the disk refuses, at every kind of step, early and late, once and for long --------------------------------------

OPS = ["write", "sync", "create", "unlink", "rename", "truncate", "open", "list", "replace"]
CODES = [errno.ENOSPC, errno.EIO, errno.EROFS]
CASES = [
    pytest.param(op, after, times, CODES[(n + m) % 3], marks=[pytest.mark.system] if m else [])
    for n, op in enumerate(OPS)
    for m, (after, times) in enumerate([(2, 5), (0, 1), (3, 40)])
]


@pytest.mark.parametrize(("op", "after", "times", "code"), CASES)
def test_a_step_that_fails_costs_nothing_that_was_committed(
    folder: Path, op: str, after: int, times: int, code: int
) -> None:
    """Recorder, ledger, receipts and retention share the disk: whoever comes next meets the fault."""
    world = World(folder, SEED, visits=[Visit(4.0, 8.0)])
    world.boot()
    world.at(9.0, lambda: world.disk.fail(op, after=after, times=times, code=code))
    world.at(11.0, world.press_bell)
    world.at(30.0, world.disk.heal)
    world.run(34.0)
    world.restart()
    world.run(40.0)
    holds(world)


@pytest.mark.parametrize(
    "op",
    ["write", "list", *(pytest.param(op, marks=pytest.mark.system) for op in OPS if op not in {"write", "list"})],
)
def test_a_boot_that_meets_a_fault_is_tried_again_and_nothing_is_lost(folder: Path, op: str) -> None:
    """systemd starts the process again: the boot path is safe to repeat."""
    world = World(folder, SEED, visits=[Visit(4.0, 8.0)])
    world.boot()
    world.run(9.0)
    world.press_bell()
    world.run(10.0)
    world.stop()
    for after in range(6):
        world.disk.fail(op, after=after, times=1)
        world.boot()
        if world.boot_error:
            assert "\n" not in world.boot_error
            gc.collect()  # the process has ended, and its connection with it
            world.run(world.now_s + 4.0)
        world.disk.heal()
        world.run(world.now_s + 4.0)
        assert world.running
        world.stop()
    world.boot()
    holds(world)


def test_a_database_that_is_full_at_every_write_loses_nothing_committed(folder: Path) -> None:
    """SQLite says "database or disk is full": events wait in memory, footage goes on, rows follow when there is room."""
    world = World(folder, SEED, visits=[Visit(4.0, 8.0)])
    world.boot()
    world.run(9.0)

    def limit(pages: int) -> None:
        db = world.node.store._db
        assert db is not None
        db.execute(f"pragma max_page_count={pages}")

    world.network(up=False)
    limit(1)  # SQLite: no less than there are
    for n in range(60):
        world.at(10.0 + n / 4, lambda n=n: world.report([notice(world, n, Priority.ALERT)]))  # type: ignore[misc]
    world.run(26.0)
    assert world.reporter_waiting() > 0, "the database was never full: the test shows nothing"
    recorded = world.recorder_state().fragments_written
    world.run(30.0)
    assert world.recorder_state().fragments_written > recorded, "recording stops for a full index"
    limit(1 << 30)
    world.network(up=True)
    world.run(60.0)
    assert world.reporter_waiting() == 0
    told = {f"00000000-0000-7000-8000-{n:012d}" for n in range(60)}
    assert told <= {event.body.data.incident for event in checks.at_station(world.station_folder)}
    holds(world)


def test_a_card_that_turns_read_only_and_back(folder: Path) -> None:
    world = World(folder, SEED)
    world.boot()
    world.at(10.0, lambda: setattr(world.disk, "read_only", True))
    world.at(25.0, world.disk.heal)
    world.run(60.0)
    gaps = [gap for gap in world.node.store.gaps() if gap.cause is Cause.STORAGE_FAULT]
    assert gaps
    assert any("ead-only" in gap.detail for gap in gaps)
    assert sum(gap.end_ns - gap.start_ns for gap in gaps) / NS < 50.0, "recording goes on by itself"
    holds(world)


@pytest.mark.parametrize("stall_s", [3.0, 20.0])
def test_a_very_slow_card_never_holds_the_camera_up(folder: Path, stall_s: float) -> None:
    """Stalls of seconds in each sync: `offer` does not wait; what memory cannot hold is dropped, counted, explained."""
    world = World(folder, SEED, recording={"queue_s_max": 8.0})
    world.boot()
    world.run(10.0)
    slow = 4

    def delay(step: str) -> None:
        nonlocal slow
        if step == "sync" and slow > 0:
            slow -= 1
            world.clock.advance(stall_s)  # the recorder's thread waits; the world goes on

    world.disk.delay = delay
    world.run(40.0)
    world.run(130.0)
    assert slow == 0
    dropped = world.recorder_state().packets_dropped
    gaps = [gap for gap in world.node.store.gaps() if gap.cause is Cause.STORAGE_FAULT]
    if dropped:
        assert gaps, f"{dropped} packets were dropped and nobody said so"
    world.run(60.0)
    assert world.recorder_state().recording
    holds(world)


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_steps_both_ways_and_leaps_ages_deletes_nothing(folder: Path) -> None:
    """70 years forward, 50 back, an hour either way: labels move, intervals and footage do not."""
    world = World(folder, SEED, recording={"budget_gb": 0.1})
    world.boot()
    for n, step_s in enumerate((HOUR_S, -2 * HOUR_S, 70 * 8766 * HOUR_S, -70 * 8766 * HOUR_S, HOUR_S)):
        world.at(8.0 + 6.0 * n, lambda step_s=step_s: world.clock.step_utc(step_s))  # type: ignore[misc]
    world.run(50.0)
    assert not world.node.store.tombstones()
    recorded_s = sum(row.end_ns - row.start_ns for row in world.node.store.segments()) / NS
    assert recorded_s > 35.0
    steps = world.node.store._query("select count(*) from anchor")[0][0]
    assert steps >= 6, "each step is an anchor"
    world.settle()
    world.close()


def test_a_clock_that_never_syncs_costs_nothing_but_certainty(folder: Path) -> None:
    """1970 for ever: everything is recorded, delivered and told apart; nobody vouches for the time, and that is said."""
    world = World(folder, SEED, synced=False, visits=[Visit(4.0, 8.0)], recording={"budget_gb": 0.1})
    world.boot()
    world.run(30.0)
    world.restart()
    world.run(60.0)
    events = checks.at_station(world.station_folder)
    assert any(event.body.type == "wardpost.person" for event in events)
    assert all(event.body.timeerrms is None for event in events)
    assert not world.node.store.tombstones()
    holds(world)


@pytest.mark.system
def test_a_clock_that_syncs_after_days_corrects_them(folder: Path) -> None:
    world = World(folder, SEED, synced=False, recording={"budget_gb": 0.1})
    world.boot()
    world.run(20.0)
    world.camera.stall()
    world.scheduler.pace.nap_s = NAP_S
    world.run(3 * 24 * HOUR_S)
    world.scheduler.pace.nap_s = 0.0
    world.clock.step_utc(1_790_000_000.0)
    world.clock.set_unc(20 * MS)
    world.camera.heal()
    world.run(3 * 24 * HOUR_S + 30.0)
    life = checks.life_of(world)
    assert life[0].start_utc_ns > 1_780_000_000 * NS, "the first days are still placed in 1970"
    assert not world.node.store.tombstones()
    holds(world)


def test_a_machine_that_was_suspended_for_hours(folder: Path) -> None:
    """CLOCK_BOOTTIME leaps ahead and no thread ran: the hours are a gap, on record; nothing is taken for a hang."""
    world = World(folder, SEED, visits=[Visit(4.0, 8.0)])
    world.boot()
    world.run(12.0)
    before_ns = world.clock.boot_ns()
    world.camera.stall()
    world.clock.advance(5 * HOUR_S)
    world.camera.heal()
    world.network(up=False)  # TCP did not survive it
    world.run(20.0)
    world.network(up=True)
    world.run(50.0)
    life = checks.life_of(world)
    missing_s = sum(stretch.seconds for stretch in life if stretch.what != "recorded")
    assert missing_s > 4.9 * HOUR_S, "five hours in which nothing ran are called recorded"
    assert abs(sum(stretch.seconds for stretch in life) - (world.clock.boot_ns() - 6 * NS) / NS) < 60.0
    rows = world.node.store.segments()
    assert all(not (row.start_ns < before_ns - NS and row.end_ns > before_ns + HOUR_S * NS) for row in rows)
    assert world.recorder_state().recording
    world.settle()
    world.close()


# -- 72 hours ----------------------------------------------------------------------------------------------------------


def lines_behind(world: World) -> int:
    """Bytes of the ledger lines that wait on the card for room in the outbox, as they will be sent."""
    names = [name for name in world.disk.list("ledger") if "receipts" not in name]
    lines = [line for name in names for line in world.disk.content(name).split(b"\n")[:-1]]
    return sum(len(line) + 200 for line in lines[world.node.store._ledger_sent :])


@pytest.mark.system
@pytest.mark.timeout(600)
def test_72_hours_of_silence_arrive_once_alerts_first_within_the_byte_budget(folder: Path) -> None:
    """An outbox with room for them: every single event comes, historical, in order of urgency, each byte about once."""
    world = World(folder, SEED)
    world.boot()
    world.run(30.0)
    world.camera.stall()
    world.network(up=False)
    world.scheduler.pace.nap_s = NAP_S
    told: dict[str, Priority] = {}

    def hour(number: int) -> None:
        for n, priority in enumerate([Priority.NOTICE, Priority.ALERT]):
            event = notice(world, number * 10 + n, priority)
            told[event.incident] = priority
            world.report([event])

    for number in range(1, 72):
        world.at(number * HOUR_S, lambda number=number: hour(number))  # type: ignore[misc]
    world.run(72 * HOUR_S)
    waiting = world.node.store._query("select length(body) from outbox join event using (sequence)")
    owed = sum(row[0] for row in waiting) + lines_behind(world)
    before = len(checks.at_station(world.station_folder))
    sent: list[tuple[str, int]] = []
    inner = world.promises.publish

    def overhear(topic: str, payload: bytes) -> None:
        address = wire.parse_topic(topic)
        if address.channel in {"event", "events", "record", "records"}:
            sent.append((address.channel, len(payload)))
        inner(topic, payload)

    world.transport._overheard = overhear
    world.camera.heal()
    world.scheduler.pace.nap_s = 0.0
    world.network(up=True)
    world.run(world.now_s + 90.0)
    late = [event for event in checks.at_station(world.station_folder)[before:] if event.body.data.incident in told]
    assert sorted(event.body.data.incident for event in late) == sorted(told), "lost or doubled"
    assert all(event.body.historical for event in late)
    severities = [event.body.data.severity for event in late]
    assert severities == sorted(severities, key=["bell", "alert", "notice"].index), "an alert waited for a notice"
    total = sum(size for _, size in sent)
    assert total < 1.2 * owed + 100_000, f"{total} bytes were sent for {owed} that were owed"
    print(f"72 h: {len(waiting)} rows, {owed} bytes owed, {total} bytes sent")
    holds(world)
