"""What happens to a post, told once and used by every test that cuts it short."""

from __future__ import annotations

from agent.types import MS, NS, Event, Kind, Phase, Priority
from tests.sim.world import Visit, World

VISITS = (Visit(4.0, 7.0), Visit(15.0, 18.0))
LENGTH_S = 34.0
TIME_COMES_S = 3.0
KEEP_DAYS = 17.0 / 86_400  # of the second start: some of what the first one kept is too old then


def a_day_in_half_a_minute(world: World) -> None:
    """First boot, with a clock of 1970 until the network tells the time; a person passes; the bell; somebody wants the
    beginning kept; the network goes, a second person passes, it comes back; a curtain is drawn and opened; files roll
    and the oldest go; a clean stop, and a second start with other settings, which keep less; what was held is let go.
    """
    no_clock_yet(world)
    world.at(TIME_COMES_S, lambda: time_comes(world))
    world.going_on.add("wardpost.storage")  # young footage is deleted: the notice stays open for an hour
    world.at(6.0, world.press_bell)
    world.at(9.5, lambda: world.hold(6.5, 7.5))
    world.at(11.0, lambda: world.network(up=False))
    world.at(16.5, world.press_bell)
    world.at(21.0, lambda: world.network(up=True))
    world.at(22.0, lambda: world.draw_curtain(1.5))
    world.at(27.0, lambda: world.reconfigure(recording={"keep_days_max": KEEP_DAYS, "event_days_max": KEEP_DAYS}))
    world.at(27.5, world.restart)
    world.at(31.0, lambda: world.release(6.5))
    world.boot()
    world.run(LENGTH_S)


def no_clock_yet(world: World) -> None:
    """A board without a clock of its own: it believes in 1970, and says that it does not know."""
    world.clock.step_utc(-world.clock.utc().utc_ns / NS)
    world.clock.set_unc(None)


def time_comes(world: World) -> None:
    """The network tells the time: the wall clock steps over half a century."""
    world.clock.step_utc((world.desk.clock.utc().utc_ns - world.clock.utc().utc_ns) / NS)
    world.clock.set_unc(20 * MS)


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
