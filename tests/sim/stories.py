"""What happens to a post, told once and used by every test that cuts it short."""

from __future__ import annotations

from agent.types import Event, Kind, Phase, Priority
from tests.sim.world import Visit, World

VISITS = (Visit(4.0, 7.0), Visit(15.0, 18.0))
LENGTH_S = 34.0


def a_day_in_half_a_minute(world: World) -> None:
    """First boot; a person passes; the bell; somebody wants the beginning kept; the network goes, a second person
    passes, it comes back; a curtain is drawn and opened; files roll and the oldest go; a clean stop, as for an update,
    and a second start with other settings; what was held is let go.
    """
    world.going_on.add("wardpost.storage")  # young footage is deleted: the notice stays open for an hour
    world.at(6.0, world.press_bell)
    world.at(9.5, lambda: world.hold(6.5, 7.5))
    world.at(11.0, lambda: world.network(up=False))
    world.at(16.5, world.press_bell)
    world.at(21.0, lambda: world.network(up=True))
    world.at(22.0, lambda: world.draw_curtain(1.5))
    world.at(27.0, lambda: world.reconfigure(recording={"keep_days_max": 20.0}))
    world.at(27.5, world.restart)
    world.at(31.0, lambda: world.release(6.5))
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
