"""What the cuts have shown: a table for people and `test-out/cuts.json` for the README.

`python -m tests.sim.report` prints the newest one again.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.sim.explore import Outcome
from tests.sim.power import WAY_LENGTHS, WAYS_MAX, kind_of

FILE = Path(__file__).resolve().parents[2] / "test-out" / "cuts.json"


def report(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures. Losses are seconds of footage, of the recording in progress, the worst of each universe."""
    real = [outcome for outcome in outcomes if outcome.happened]
    steps: dict[str, Counter[str]] = defaultdict(Counter)
    areas: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in real:
        steps[kind_of(outcome.cut.step)][outcome.cut.kind] += 1
        areas[outcome.cut.area].append(outcome)
    again = Counter(outcome.again_at for outcome in real if outcome.again_at)
    return {
        "universes": len(real),
        "cuts": sum(map(deaths, real)),
        "failed": sum(bool(outcome.problems) for outcome in real),
        "by_kind": dict(sorted(Counter(outcome.cut.kind for outcome in real).items())),
        "second_cuts": sum(again.values()),
        "by_step": {step: dict(kinds) for step, kinds in sorted(steps.items())},
        "second_cuts_by_step": dict(sorted(again.items())),
        "by_area": {area: _losses(found) for area, found in sorted(areas.items())},
        "all": _losses(real),
        "disk_outcomes": {
            "counted out": sum(outcome.cut.way is not None for outcome in real),
            "drawn": sum(outcome.cut.way is None and outcome.cut.kind == "power" for outcome in real),
            "lengths_per_tail_max": WAY_LENGTHS,
            "outcomes_per_step_max": WAYS_MAX,
        },
    }


def deaths(outcome: Outcome) -> int:
    """How many times this life was cut."""
    return round(outcome.figures.get("deaths", 1.0)) if outcome.happened else 0


def _losses(outcomes: Sequence[Outcome]) -> dict[str, float | int]:
    lost = sorted(outcome.figures["loss_s"] for outcome in outcomes if "loss_s" in outcome.figures)
    found: dict[str, float | int] = {
        "cuts": len(outcomes),
        "failed": sum(bool(outcome.problems) for outcome in outcomes),
    }
    if lost:
        found |= {
            "lost_s_max": round(lost[-1], 2),
            "lost_s_p95": round(lost[min(int(len(lost) * 0.95), len(lost) - 1)], 2),
            "lost_s_mean": round(sum(lost) / len(lost), 2),
        }
    return found


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in figures["by_kind"].items())
    ways = figures["disk_outcomes"]
    lines = [
        (
            f"{figures['cuts']} cuts in {figures['universes']} lives ({kinds}), {figures['second_cuts']} of them during"
            f" the recovery from the first: {figures['failed']} failed"
        ),
        (
            f"outcomes of the disk: {ways['counted out']} counted out (at most {ways['lengths_per_tail_max']} lengths"
            f" of a tail, {ways['outcomes_per_step_max']} outcomes of a step), {ways['drawn']} drawn by seed"
        ),
        f"{'cut at':58s} power  torn  kill  station  again",
    ]
    second = figures["second_cuts_by_step"]
    for step in sorted(set(figures["by_step"]) | set(second)):
        by = figures["by_step"].get(step, {})
        columns = [by.get(kind, 0) for kind in ("power", "torn", "kill", "station")] + [second.get(step, 0)]
        lines.append(f"{step:58s} {columns[0]:5d} {columns[1]:5d} {columns[2]:5d} {columns[3]:8d} {columns[4]:6d}")
    lines.append(f"{'cut while':20s}  cuts  failed  footage lost: max, p95, mean")
    for area, found in [*figures["by_area"].items(), ("all", figures["all"])]:
        lost = [found.get(f"lost_s_{name}") for name in ("max", "p95", "mean")]
        words = "  ".join("-" if value is None else f"{value:.2f} s" for value in lost)
        lines.append(f"{area:20s} {found['cuts']:5d}  {found['failed']:6d}  {words}")
    return "\n".join(lines)


def write(figures: dict[str, Any], path: Path = FILE) -> None:
    """Leaves the figures where `make clean` removes them."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(table(json.loads(FILE.read_text(encoding="utf-8"))))
