"""What happens to a post, told once and used by every test that cuts it short."""

from __future__ import annotations

from agent.types import Event, Kind, Phase, Priority
from tests.sim.world import Visit, World

VISITS = (Visit(4.0, 8.0), Visit(15.0, 19.0))
LENGTH_S = 34.0


def a_day_in_half_a_minute(world: World) -> None:
    """First boot; a person passes; the bell; the network goes, a second person passes, it comes back; files roll and
    the oldest go; a clean stop and a second start.
    """
    world.going_on.add("wardpost.storage")  # young footage is deleted: the notice stays open for an hour
    world.at(6.0, world.press_bell)
    world.at(11.0, lambda: world.network(up=False))
    world.at(16.5, world.press_bell)
    world.at(21.0, lambda: world.network(up=True))
    world.at(28.0, world.restart)
    world.boot()
    world.run(LENGTH_S)


def notice(world: World, number: int, priority: Priority = Priority.NOTICE) -> Event:
    """An event of this priority, as some worker might report it."""
    return Event(
        incident=f"00000000-0000-7000-8000-{number:012d}",
        kind=Kind.BELL if priority is Priority.BELL else Kind.PERSON if priority is Priority.ALERT else Kind.NODE,
        phase=Phase.ENDED,
        boot_ns=world.clock.boot_ns(),
        priority=priority,
        summary=f"event {number}",
    )
