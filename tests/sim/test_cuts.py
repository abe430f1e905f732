"""The power goes at every disk and database step of a life; the next boot must keep every promise."""

from __future__ import annotations

import os
import random

import pytest

from tests.sim import checks
from tests.sim.explore import Cut, Outcome, sample, table
from tests.sim.power import Death, kind_of
from tests.sim.stories import LENGTH_S, VISITS, a_day_in_half_a_minute
from tests.sim.universe import Universe, universe_folder

SEED = int(os.environ.get("WARDPOST_SEED") or 20261121)
CUTS = int(os.environ.get("WARDPOST_SIM_CUTS") or 180)  # in `make test`; about 8 a second on two cores
CUTS_SYSTEM = int(os.environ.get("WARDPOST_SIM_CUTS") or 3000)
JOBS = min(os.cpu_count() or 1, 8)


def universe(seed: int) -> Universe:
    return Universe(a_day_in_half_a_minute, seed, VISITS)


def cuts_at(point: int, step: str, seed: int, count: int) -> list[Cut]:
    """Ways to die here: each has a disk of its own, every second one, by chance, dies again while it recovers."""
    rng = random.Random(f"{seed} {point}")
    found = []
    for number in range(count):
        again = rng.randrange(1, 25) if rng.random() < 0.5 else 0
        found.append(Cut(point, step, "power", seed + number, again))
        if step.startswith("after commit") and number < 2:
            found.append(Cut(point, step, "torn", seed + number, again))
    if rng.random() < 0.25:
        found.append(Cut(point, step, "kill", seed))
    return found


def explore(seed: int, budget: int) -> list[Outcome]:
    """About `budget` cuts over one run of the story."""
    story = universe(seed)
    points, _, problems = story.count()
    assert not problems, problems
    ways = max(round(budget / points / 1.4), 1)
    wanted = sample(points, round(budget / (1.4 * ways)), random.Random(seed))
    return story.explore(lambda point, step: cuts_at(point, step, seed, ways) if point in wanted else [], jobs=JOBS)


def hold(outcomes: list[Outcome]) -> None:
    print(table(outcomes))
    failed = [outcome for outcome in outcomes if outcome.problems]
    for outcome in failed[:5]:
        print(f"\nfailed: {outcome.cut}\n  repeat: {command(outcome.cut)}")
        print("\n".join(outcome.problems))
    assert not failed, f"{len(failed)} of {len(outcomes)} cuts broke a promise; the first: {failed[0].cut}"


def command(cut: Cut) -> str:
    return (
        f".venv/bin/python -m tests.sim.replay --seed {SEED} --point {cut.point} --kind {cut.kind}"
        f" --cut-seed {cut.seed} --again-after {cut.again_after}"
    )


def test_without_any_cut_the_story_keeps_every_promise() -> None:
    points, kinds, problems = universe(SEED).count()
    print(f"{points} crash points:", dict(sorted(kinds.items())))
    assert not problems
    for step in ("after commit commit events", "after sync", "after unlink, before sync folder", "after create,"):
        assert any(step.replace(":", "") in kind.replace(":", "") for kind in kinds), (
            f"the story never reaches {step!r}"
        )


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


def test_a_cut_in_a_forked_universe_is_the_same_cut_replayed() -> None:
    story = universe(SEED)
    wanted = Cut(70, "", "power", SEED, again_after=3)
    (forked,) = story.explore(lambda point, _: [wanted] if point == wanted.point else [], jobs=1)
    alone = story.replay(wanted)
    assert not forked.problems
    assert (alone.problems, alone.figures) == (forked.problems, forked.figures)


def test_the_power_may_go_at_any_step() -> None:
    outcomes = explore(SEED, CUTS)
    hold(outcomes)
    real = [outcome for outcome in outcomes if outcome.happened]
    assert len(real) >= min(CUTS // 2, 100)
    assert {outcome.cut.kind for outcome in real} == {"power", "torn", "kill"}


@pytest.mark.system
@pytest.mark.timeout(3600)
def test_the_power_may_go_at_any_step_at_length(seed: int) -> None:
    left, outcomes = CUTS_SYSTEM, []
    while left > 0:
        found = explore(seed, min(left, 1000))
        outcomes += found
        left -= len(found)
        seed += 1
    hold(outcomes)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_station_may_die_at_any_step(share: float) -> None:
    """kill -9 of the station before and after a commit: what it has not receipted comes again, and is stored once."""
    story = universe(SEED)
    with universe_folder() as folder:
        world = story.world(folder)
        a_day_in_half_a_minute(world)
        points = world.station_points.count
        world.close()
    for offset in (0, 1):  # one of them before, the other after a commit
        point = max(round(points * share), 1) + offset
        with universe_folder() as folder:
            world = story.world(folder)

            def listen(number: int, step: str, wanted: int = point) -> None:
                if number == wanted:
                    print(f"the station dies at {wanted}: {kind_of(step)}")
                    raise Death(step)

            world.station_points.listener = listen
            try:
                a_day_in_half_a_minute(world)
            except Death:
                world.kill_station()
                world.run(LENGTH_S)
            else:
                pytest.fail(f"crash point {point} never came")
            world.settle()
            assert checks.all_problems(world) == []
            world.close()
