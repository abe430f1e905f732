"""Do the checks bite? Each planted bug must be caught by the check that is there for it, within a few cuts."""

from __future__ import annotations

import pytest

from tests.sim import checks
from tests.sim.explore import Cut
from tests.sim.mutations import MUTATIONS, Mutation
from tests.sim.stories import VISITS, a_day_in_half_a_minute
from tests.sim.test_cuts import JOBS, SEED
from tests.sim.universe import Universe

CUTS_MAX = 24


def universe(mutation: Mutation) -> Universe:
    return Universe(
        a_day_in_half_a_minute, SEED, VISITS, parts=mutation.parts, settings=mutation.settings, plant=mutation.plant
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
        ways = 3 if "commit" in mutation.at else 1
        return [Cut(point, step, "power", SEED + point + way) for way in range(ways)]

    return [problem for outcome in story.explore(choose, jobs=JOBS) for problem in outcome.problems]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name.replace(" ", "-"))
def test_a_planted_bug_is_caught(mutation: Mutation) -> None:
    found = findings(mutation)
    caught = [problem for problem in found if mutation.caught_by in problem]
    print(f"{mutation.name:45s} caught by {(caught or found or ['nobody'])[0][:110]}")
    assert caught, found[:3]
