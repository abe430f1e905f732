"""How many fell silent together around each moment, for a fleet of any size in one pass. Pure.

After an outage of headquarters every post has an outage that began within a minute of everybody else's: whoever lists
the company of each one by itself has squared the fleet. So the windows of all moments are counted in one pass over the
starts, in order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Fall = tuple[int, str]
"""When a post was last heard before an outage, UTC ns by the station's clock, and its name."""


@dataclass(frozen=True, slots=True)
class Window:
    """Who fell silent around one moment. A post whose house nobody has written down has one of its own."""

    posts: int
    houses: int
    first: tuple[str, ...]  # some of their names, the first by the alphabet


def house_key(node: str, house: str) -> str:
    """Names the house of a post among all houses."""
    return house or f"\n{node}"


def between(falls: Sequence[Fall], start_ns: int, near_ns: int) -> Sequence[Fall]:
    """Those within `near_ns` of a moment, of `falls` in order."""
    return falls[bisect_left(falls, (start_ns - near_ns, "")) : bisect_right(falls, start_ns + near_ns, key=_at)]


def window(falls: Iterable[Fall], houses: Mapping[str, str], *, names_max: int) -> Window:
    """Of posts that fell silent together. `houses`: `house_key` of each post."""
    nodes = {node for _, node in falls}
    return Window(len(nodes), len({houses[node] for node in nodes}), tuple(sorted(nodes)[:names_max]))


def windows(falls: Sequence[Fall], houses: Mapping[str, str], *, near_ns: int, names_max: int) -> dict[int, Window]:
    """The window of every moment at which one of `falls`, in order, was last heard."""
    found: dict[int, Window] = {}
    of_node: Counter[str] = Counter()
    of_house: Counter[str] = Counter()
    names: list[str] = []
    low = high = 0
    for start, _ in falls:
        if start in found:
            continue
        while high < len(falls) and falls[high][0] <= start + near_ns:
            node = falls[high][1]
            of_node[node] += 1
            if of_node[node] == 1:
                of_house[houses[node]] += 1
                insort(names, node)
            high += 1
        while falls[low][0] < start - near_ns:
            node = falls[low][1]
            of_node[node] -= 1
            if not of_node[node]:
                house = houses[node]
                of_house[house] -= 1
                if not of_house[house]:
                    del of_house[house]
                del names[bisect_left(names, node)]
            low += 1
        found[start] = Window(len(names), len(of_house), tuple(names[:names_max]))
    return found


def _at(fall: Fall) -> int:
    return fall[0]
