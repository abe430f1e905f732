"""The assignment is the cheapest there is, as trying all of them shows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.vision.assignment import cheapest

pairs = st.dictionaries(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.floats(0, 3), max_size=16)


def by_trying(costs: dict[tuple[int, int], float], rows: list[int], used: frozenset[int], left_out: float) -> float:
    if not rows:
        return 0.0
    row, *rest = rows
    best = left_out + by_trying(costs, rest, used, left_out)
    for (r, column), cost in costs.items():
        if r == row and column not in used:
            best = min(best, cost + by_trying(costs, rest, used | {column}, left_out))
    return best


@settings(max_examples=300, deadline=None)
@given(pairs, st.floats(0.1, 4))
def test_no_other_assignment_costs_less(costs: dict[tuple[int, int], float], left_out: float) -> None:
    got = cheapest(costs, left_out=left_out)
    rows = sorted({row for row, _ in costs})
    assert len({row for row, _ in got}) == len(got) == len({column for _, column in got})
    total = sum(costs[pair] for pair in got) + left_out * (len(rows) - len(got))
    assert abs(total - by_trying(costs, rows, frozenset(), left_out)) < 1e-9


def test_greed_would_leave_the_second_without() -> None:
    costs = {(0, 0): 0.1, (0, 1): 0.2, (1, 0): 0.15}
    assert cheapest(costs, left_out=1.0) == [(0, 1), (1, 0)]
