"""The power goes at every disk and database step of a life; the next boot must keep every promise."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest

from tests.sim import report, update
from tests.sim.explore import Cut, Outcome
from tests.sim.plan import plan
from tests.sim.power import CrashPoints, Odometer, kind_of
from tests.sim.stories import VISITS, a_day_in_half_a_minute
from tests.sim.universe import Universe, universe_folder
from tests.sim.world import SimDisk

SEED = int(os.environ.get("WARDPOST_SEED") or 20261121)
CUTS = int(os.environ.get("WARDPOST_SIM_CUTS") or 1020)  # in `make test`
CUTS_SYSTEM = int(os.environ.get("WARDPOST_SIM_CUTS") or 4_000)  # second cuts included; 0.2 CPU seconds a life
CUTS_PER_STORY = 1100
CUTS_UPDATE = min(80, CUTS // 4)  # of those: through the first start of a release on what an earlier one has left
MUST_REACH = {
    *(f"after {step}" for step in ("write segments", "sync segments", "sync folder segments", "write ledger")),
    *(f"after {step}" for step in ("create, before sync folder segments", "create, before sync folder ledger")),
    *(f"after {step}" for step in ("unlink, before sync folder segments", "rename, before sync folder keys")),
    *(f"after commit: {what}" for what in ("create store", "start session", "note config", "commit events", "anchor")),
    *(f"after commit: {what}" for what in ("seal segment", "condemn segments", "forget segments", "acknowledge")),
    *(f"after commit: {what}" for what in ("hand over records", "hold", "release", "privacy", "privacy ends", "gap")),
    *(f"after commit: {what}" for what in ("stop session", "station store", "station register keys")),
}
JOBS = min(os.cpu_count() or 1, 8)


def universe(seed: int) -> Universe:
    return Universe(a_day_in_half_a_minute, seed, VISITS)


def explore(seed: int, budget: int) -> list[Outcome]:
    """About `budget` cuts over one run of the story."""
    story = universe(seed)
    node, station, problems = story.count()
    assert not problems, (seed, problems)
    wanted: dict[tuple[bool, int], list[Cut]] = defaultdict(list)
    for cut in plan(node, station, budget=budget, seed=seed):
        wanted[cut.kind == "station", cut.point].append(cut)
    return story.explore(lambda point, _: wanted[False, point], station=lambda point, _: wanted[True, point], jobs=JOBS)


def hold(outcomes: list[Outcome]) -> None:
    figures = report.report(outcomes)
    print(report.table(figures))
    report.write(figures)
    failed = [outcome for outcome in outcomes if outcome.problems]
    for outcome in failed[:5]:
        print(f"\nfailed: {outcome.cut}\n  repeat: {command(outcome.cut)}")
        print("\n".join(outcome.problems))
    assert not failed, f"{len(failed)} of {len(outcomes)} cuts broke a promise; the first: {failed[0].cut}"


def command(cut: Cut) -> str:
    story = f" --story {cut.area}" if cut.area == update.AREA else ""
    return (
        f".venv/bin/python -m tests.sim.replay --seed {cut.story}{story} --point {cut.point} --kind {cut.kind}"
        f" --cut-seed {cut.seed} --again-after {cut.again_after} --way '{json.dumps(cut.way)}'"
    )


def test_without_any_cut_the_story_keeps_every_promise() -> None:
    node, station, problems = universe(SEED).count()
    kinds = {kind_of(step) for step in [*node, *station]}
    print(f"{len(node)} crash points at the node, {len(station)} at the station, of {len(kinds)} kinds")
    assert not problems
    missing = MUST_REACH - kinds
    assert not missing, f"the story never reaches {sorted(missing)}"


def test_the_same_seed_is_the_same_life_and_another_is_another() -> None:
    def trace(seed: int) -> list[str]:
        steps: list[str] = []
        with universe_folder() as folder:
            world = universe(seed).world(folder)
            world.crash_points.listener = lambda _, step: steps.append(step)
            a_day_in_half_a_minute(world)
            world.close()
        return steps

    first = trace(SEED)
    assert trace(SEED) == first
    assert trace(SEED + 1) != first


@pytest.mark.parametrize("kind", ["power", "station"])
def test_a_cut_in_a_forked_universe_is_the_same_cut_replayed(kind: str) -> None:
    story = universe(SEED)
    wanted = Cut(70 if kind == "power" else 20, "", kind, SEED, again_after=3)

    def choose(point: int, _step: str) -> list[Cut]:
        return [wanted] if point == wanted.point else []

    (forked,) = story.explore(
        choose if kind == "power" else nothing, station=nothing if kind == "power" else choose, jobs=1
    )
    alone = story.replay(forked.cut)
    assert not forked.problems
    assert (alone.problems, alone.figures) == (forked.problems, forked.figures)


def nothing(_point: int, _step: str) -> list[Cut]:
    return []


def test_the_odometer_counts_every_run_of_answers_once() -> None:
    odometer = Odometer()
    seen = []
    while odometer.turn():
        first = odometer.choose(3)
        seen.append((first, *([odometer.choose(2)] if first == 1 else []), odometer.choose(2)))
    assert sorted(seen) == [(0, 0), (0, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (2, 0), (2, 1)]
    assert odometer.exact
    assert odometer.finished


def test_a_disk_tells_every_way_in_which_a_cut_may_leave_it(tmp_path: Path) -> None:
    disk = SimDisk(root=tmp_path, crash_point=CrashPoints())
    disk.unsynced_names = True  # the planted bug: names wait for ever
    disk.list("a")
    file = disk.create("a/1")
    file.write(b"one")
    disk.create("a/2")
    ways, exact = disk.ways()
    left = set()
    for way in ways:
        answers = iter(way)
        names, inodes = dict(disk._durable_names), dict(disk._names)
        ops = {folder: list(found) for folder, found in disk._dir_ops.items()}
        disk.power_cut(lambda _count, answers=answers: next(answers))  # type: ignore[misc]
        left.add(tuple((name, disk.content(name)) for name in disk.list("a")))
        disk._names, disk._durable_names, disk._dir_ops = inodes, names, ops
    assert exact
    assert len(left) == len(ways)
    assert () in left
    assert {len(names) for names in left} == {0, 1, 2}
    assert {dict(names)["a/1"] for names in left if names} >= {b"", b"one", b"\0\0\0", b"o", b"on"}


@pytest.mark.timeout(900)  # about 65 s on two quiet cores
def test_the_power_may_go_at_any_step() -> None:
    outcomes = explore(SEED, CUTS - CUTS_UPDATE) + update.explore(SEED, budget=CUTS_UPDATE, jobs=JOBS)
    hold(outcomes)
    real = [outcome for outcome in outcomes if outcome.happened]
    assert len(real) >= min(CUTS * 0.95, 1000)
    assert {outcome.cut.kind for outcome in real} == {"power", "torn", "kill", "station"}


@pytest.mark.system
@pytest.mark.timeout(7200)  # at the lowest priority it may take three times as long
def test_the_power_may_go_at_any_step_at_length() -> None:
    outcomes: list[Outcome] = []
    seed = SEED
    while sum(report.deaths(outcome) for outcome in outcomes) < CUTS_SYSTEM:
        outcomes += explore(seed, CUTS_PER_STORY - CUTS_UPDATE)
        outcomes += update.explore(seed, budget=CUTS_UPDATE, jobs=JOBS)
        seed += 1
    hold(outcomes)
