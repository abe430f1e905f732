"""Which cuts to try with a budget: every kind of step gets its share, so that the frequent ones do not crowd out the rare."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from tests.sim.explore import Cut
from tests.sim.power import kind_of

AGAIN_STEPS_MAX = 60
"""A second cut comes at most so many crash points after the first: recovery and the first seconds behind it."""
WAYS_TO_DIE = ("power", "power again", "kill", "power", "torn", "power again", "power", "torn again")
"""What is tried in turn at the steps of one kind; only a commit can be torn."""

AREAS = (
    ("station", "station"),
    ("note config", "config change"),
    ("hold", "holds"),  # behind `hand over`
    ("release", "holds"),
    ("privacy", "privacy"),
    ("acknowledge", "acknowledgement"),
    ("seal segment", "sealing"),
    ("unlink segments", "retention"),
    ("condemn", "retention"),
    ("forget", "retention"),
    ("ballast", "retention"),
    ("segments", "recording"),
    ("gap", "recording"),
    ("session", "start and stop"),
)


def area_of(step: str, *, first_boot: bool) -> str:
    """The part of the node's work that a step belongs to."""
    if first_boot:
        return "first boot"
    kind = kind_of(step)
    if "ledger" in kind or "hand over" in kind:
        return "ledger"
    return next((area for word, area in AREAS if word in kind), "events and upload")


def plan(node: Sequence[str], station: Sequence[str], *, budget: int, seed: int) -> list[Cut]:
    """At most about `budget` cuts, balanced: each kind of step gets a share that grows with the root of its number."""
    rng = random.Random(f"{seed} plan")
    first_session = next((n for n, step in enumerate(node, 1) if "after commit: start session" in step), len(node))
    groups: dict[str, list[tuple[int, str, bool]]] = defaultdict(list)
    for point, step in enumerate(node, 1):
        groups[kind_of(step)].append((point, step, False))
    for point, step in enumerate(station, 1):
        groups[kind_of(step)].append((point, step, True))
    weights = {kind: len(points) ** 0.5 for kind, points in groups.items()}
    cuts: list[Cut] = []
    for kind, points in sorted(groups.items()):
        rng.shuffle(points)
        share = max(round(budget * weights[kind] / sum(weights.values())), 2)
        for number in range(share):
            point, step, at_station = points[number % len(points)]
            cuts.append(_cut(rng, point, step, number, seed, at_station=at_station, first=point <= first_session))
    return _with_turns(cuts)


def _cut(rng: random.Random, point: int, step: str, number: int, seed: int, *, at_station: bool, first: bool) -> Cut:
    kind, _, again = WAYS_TO_DIE[number % len(WAYS_TO_DIE)].partition(" ")
    area = area_of(step, first_boot=first and not at_station)
    if at_station:
        return Cut(point, step, "station", seed + number, rng.randrange(1, 20) if again else 0, area=area, story=seed)
    if kind == "torn" and not step.startswith("after commit"):
        kind = "power"
    again_after = rng.randrange(1, AGAIN_STEPS_MAX) if again else 0
    return Cut(point, step, kind, seed + number, again_after, area=area, story=seed)


def _with_turns(cuts: Sequence[Cut]) -> list[Cut]:
    """Numbers the power cuts of each crash point: each gets another outcome of the disk."""
    seen: dict[int, int] = defaultdict(int)
    found = []
    for cut in cuts:
        if cut.kind == "power":
            found.append(replace(cut, turn=seen[cut.point]))
            seen[cut.point] += 1
        else:
            found.append(cut)
    return found
