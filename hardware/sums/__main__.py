"""Prints every table of the hardware guides, under the name of its page."""

from __future__ import annotations

from collections.abc import Callable

from hardware.sums import aiming, heat, network, power, storage

TABLES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("enclosure.md", heat.boxes),
    ("enclosure.md", aiming.lenses),
    ("enclosure.md", aiming.mounting),
    ("power.md", power.boards),
    ("power.md", power.hold_up),
    ("power.md", power.poles),
    ("storage.md", storage.endurance),
    ("network.md", network.budget),
)

if __name__ == "__main__":
    for page, make in TABLES:
        print(f"{page}:\n\n{make()}\n")
