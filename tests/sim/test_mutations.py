"""Do the checks bite? Each planted bug must be caught by the check that is there for it, within a few cuts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim import checks
from tests.sim.explore import Cut
from tests.sim.mutations import MUTATIONS, Mutation, blink, clock_steps, flood, lossy_broker
from tests.sim.stories import VISITS, a_day_in_half_a_minute
from tests.sim.test_cuts import JOBS, SEED
from tests.sim.universe import Universe
from tests.sim.world import World

CUTS_MAX = 24
MUST_BE_CAUGHT = {
    "missing directory fsync",
    "row before fsync",
    "retention unlinks before the row",
    "acknowledge before commit",
    "delete on PUBACK",
    "reused sequence number",
    "time step used as interval",
    "torn ledger line accepted",
    "held footage deleted",
    "unbounded queue",
}
"""The planted bugs that nobody may take out of the table."""


def universe(mutation: Mutation) -> Universe:
    return Universe(
        mutation.story, SEED, mutation.visits, parts=mutation.parts, settings=mutation.settings, plant=mutation.plant
    )


def findings(mutation: Mutation) -> list[str]:
    """What the checks say of a product with this bug."""
    story = universe(mutation)
    if not mutation.at:
        try:
            return story.count()[2]
        except checks.Broken as broken:  # a bound, judged while the world runs
            return [f"check_6_bounds: {broken}"]
    tried: list[int] = []
    due: set[int] = set()

    def choose(point: int, step: str) -> list[Cut]:
        if mutation.at in step and (not point % 3 or "commit" in step):
            due.add(point + mutation.later)
        if point not in due or len(tried) >= CUTS_MAX:
            return []
        tried.append(point)
        # The outcomes 2 and on of a disk with an unsynced tail are the torn ones.
        return [Cut(point, step, "power", SEED + point + turn, turn=turn) for turn in range(4)]

    outcomes = story.explore(choose, jobs=JOBS, enough=lambda outcome: bool(bites(mutation, outcome.problems)))
    return [problem for outcome in outcomes for problem in outcome.problems]


def bites(mutation: Mutation, problems: list[str]) -> list[str]:
    return [problem for problem in problems if mutation.caught_by in problem]


def test_each_planted_bug_is_caught_by_the_check_that_is_there_for_it() -> None:
    lines, missed = [], []
    for mutation in MUTATIONS:
        found = findings(mutation)
        caught = bites(mutation, found)
        lines.append(f"{mutation.name:42s} {(caught or ['NOBODY'])[0][:110]}")
        if not caught:
            missed.append((mutation.name, found[:2]))
    print("\n".join([f"{'planted bug':42s} caught by", *lines]))
    assert {mutation.name for mutation in MUTATIONS} >= MUST_BE_CAUGHT
    assert not missed


@pytest.mark.parametrize("plant", [flood, lossy_broker, blink, clock_steps], ids=lambda plant: str(plant.__name__))
def test_the_world_of_a_planted_bug_is_no_bug_itself(plant: Callable[[World], None]) -> None:
    settings = {"store": {"outbox_rows_max": 100}} if plant is flood else {}
    story = Universe(a_day_in_half_a_minute, SEED, VISITS, plant=plant, settings=settings)
    assert story.count()[2] == []
