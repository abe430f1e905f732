"""What a bench reports: rows of one table, the same in the terminal and in JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.assets import Assets


class Skip(Exception):  # noqa: N818
    """A bench, or a part of it, cannot be had on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure beside what it is measured against, both from this run."""

    key: str  # stable, for whoever reads the JSON
    what: str
    ours: float
    unit: str
    peer: str = ""  # what stands beside it, in words
    theirs: float | None = None  # in the same unit
    target: str = ""
    met: bool | None = None  # None: there is no target
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs; None without a peer."""
        return self.ours / self.theirs if self.theirs else None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured. `TINY` only shows that everything runs."""

    name: str
    window_s: float  # of CPU and memory, after the warm-up
    warm_s: float
    heights: tuple[int, ...]
    scenes: tuple[str, ...]
    alerts: int
    backlog: int
    events: int
    fragments: int
    repeats: int  # of what is over in seconds: the median counts
    streams: tuple[int, int] = (720, 360)  # heights of a camera's main and sub stream


FULL = Size("full", 60, 8, (360, 720), ("still", "street"), 40, 10_000, 2000, 60, 3)
QUICK = Size("quick", 10, 5, (360,), ("still", "street"), 8, 2000, 300, 12, 1)
TINY = Size("tiny", 0.5, 0.2, (180,), ("still",), 1, 60, 20, 2, 1, (360, 180))


@dataclass(frozen=True, slots=True)
class Bench:
    """What a bench is given. `folder` is its own, empty, on a real disk."""

    assets: Assets
    folder: Path
    size: Size

    @property
    def footage(self) -> Path:
        """Where encoded scenes lie, shared by all benches of a run."""
        scenes = self.folder.parent / "footage"
        scenes.mkdir(exist_ok=True)
        return scenes


Measure = Callable[[Bench], list[Row]]


def table(rows: Sequence[Row]) -> str:
    """The rows in columns: figure, ours, peer or limit, ratio, target."""
    cells = [("figure", "ours", "peer or limit, in this run", "ratio", "target")]
    for row in rows:
        theirs = "" if row.theirs is None else f"{number(row.theirs)} {row.unit}, {row.peer}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        met = {None: "", True: " ok", False: " MISSED"}[row.met]
        cells.append((row.what, f"{number(row.ours)} {row.unit}", theirs or row.peer, ratio, row.target + met))
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value below or at which `share` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan
