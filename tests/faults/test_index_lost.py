"""The node's database is damaged, cut short or gone: nothing that was promised is lost, and nothing comes twice.

The whole node and the whole station in simulated time, with real SQLite files that are really damaged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import boot
from agent.types import NS, Hold, Priority, Verdict
from tests.sim import checks
from tests.sim.power import Death, Killed
from tests.sim.stories import notice
from tests.sim.universe import universe_folder
from tests.sim.world import Visit, World

SEED = 11
HOLD = Hold(
    "hold-1", 1_790_000_000 * NS, 1_790_000_600 * NS, None, "an accident at the gate", "desk", 1_790_000_700 * NS
)
VERDICTS = [
    Verdict(f"c-{n}", "0192f000-0000-7000-8000-000000000001", said, "rain", "Minh", "desk", 1_790_000_800 * NS)
    for n, said in enumerate(("true", "false"))
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with universe_folder() as path:
        yield path


def gone(path: Path, _rng: random.Random) -> None:
    path.unlink()


def half_written(path: Path, _rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path, _rng: random.Random) -> None:
    path.write_bytes(b"")


def no_header(path: Path, _rng: random.Random) -> None:
    path.write_bytes(bytes(100) + path.read_bytes()[100:])


def another_program(path: Path, _rng: random.Random) -> None:
    path.write_bytes(b"\x7fELF" + bytes(50_000))


def rotten(path: Path, rng: random.Random) -> None:
    """Whole sectors of nonsense, as a dying card gives them."""
    data = bytearray(path.read_bytes())
    for _ in range(max(len(data) // 8192, 3)):
        at = rng.randrange(len(data) // 512) * 512
        data[at : at + 512] = rng.randbytes(512)
    path.write_bytes(data)


DAMAGES: list[Callable[[Path, random.Random], None]] = [
    gone, half_written, empty, no_header, another_program, rotten, rotten, rotten,
]  # fmt: skip


def dark_life(folder: Path, seed: int = SEED) -> tuple[World, set[str]]:
    """A person passes and is reported; the network goes, things happen; the node stops. Returns what must arrive."""
    world = World(folder, seed, visits=[Visit(4.0, 8.0)], recording={"budget_gb": 0.1})
    world.going_on.add("wardpost.storage")
    world.boot()
    world.run(12.0)
    world.network(up=False)
    for n in range(30):
        world.report([notice(world, n, Priority.ALERT if n % 3 == 0 else Priority.NOTICE)])
    world.press_bell()
    world.node.store.add_hold(HOLD)
    for verdict in VERDICTS:
        world.node.store.add_verdict(verdict)
    world.run(26.0)
    told = {f"00000000-0000-7000-8000-{n:012d}" for n in range(30)}
    world.stop()
    return world, told


def arrived(world: World) -> list[str]:
    return [event.body.data.incident for event in checks.at_station(world.station_folder)]


@pytest.mark.parametrize("number", range(len(DAMAGES)))
def test_whatever_becomes_of_the_database_every_event_arrives_once(folder: Path, number: int) -> None:
    world, told = dark_life(folder)
    before = set(world.promises.committed)
    sealed = dict(world.promises.sealed)
    damage = DAMAGES[number]
    damage(world.node_folder / boot.STORE_NAME, random.Random(f"{SEED} {number}"))
    world.clock.advance(5.0)
    world.network(up=True)
    world.boot()
    assert world.boot_error == ""
    world.settle()

    events = checks.at_station(world.station_folder)
    incidents = [event.body.data.incident for event in events]
    assert told <= set(incidents), f"lost: {sorted(told - set(incidents))}"
    assert all(incidents.count(incident) == 1 for incident in told), "an event was doubled"
    keys = [(event.epoch, event.sequence) for event in events]
    assert len(keys) == len(set(keys))
    # A picture goes with the database when the ledger has to tell of the event: its hash is on record, it is not.
    thumbnails = {key for key in before if key not in keys and key not in checks.carried(world.station_folder)}
    assert len(thumbnails) <= 2
    assert world.node.store.outbox_rows == 0, "the station knows them, and the node knows that it does"
    rows = {row.name: row.sha256 for row in world.node.store.segments()}
    assert sealed.items() <= rows.items(), "sealed footage is in the new index under the same hash"
    assert [hold.id for hold in world.node.store.holds() if not hold.released] == [HOLD.id]
    known = world.node.store.verdicts()
    assert [(one.id, one.verdict) for one in known] == [("c-0", "true"), ("c-1", "false")], "the last one counts"
    assert not world.node.store.add_verdict(VERDICTS[0]), "a command that comes again is still known"
    assert [row.session for row in world.node.store.sessions()][:2] == [1, 2]
    checks.check_4_every_second_is_explained(world)
    checks.check_incidents_end(world)
    checks.check_2_a_row_is_a_whole_file(world)
    world.close()


def test_a_second_death_at_every_step_of_the_rebuilding_costs_nothing(folder: Path) -> None:
    """The boot that rebuilds dies at each of its steps; the one after it finishes the work."""
    world, told = dark_life(folder)
    half_written(world.node_folder / boot.STORE_NAME, random.Random(SEED))
    image = {path.name: path.read_bytes() for path in world.node_folder.iterdir() if path.is_file()}
    card = {name: world.disk.content(name) for name in world.disk._names}

    def as_it_was() -> None:
        for name in [path.name for path in world.node_folder.iterdir() if path.is_file()]:
            (world.node_folder / name).unlink()
        for name, data in image.items():
            (world.node_folder / name).write_bytes(data)
        world.disk._names.clear()
        world.disk._durable_names.clear()
        for name, data in card.items():
            world.disk.put(name, data)

    deaths: list[str] = []
    while True:
        as_it_was()
        seen: list[str] = []

        def cut(_count: int, step: str, at: int = len(deaths), seen: list[str] = seen) -> None:
            seen.append(step)
            if len(seen) == at + 1:
                raise Killed(step)

        world.crash_points.listener = cut
        try:
            world.boot()
        except Death as death:
            deaths.append(str(death))
            world.crash_points.listener = None
            world.die(death, random.Random(SEED), off_s=1.0)
            world._script.clear()
            world.boot()
        kept = {event.data.incident for event in world.node.store.events(1000)}
        assert told <= kept, f"death {len(deaths)} at {deaths[-1:]}: lost {len(told - kept)}"
        assert world.node.store.outbox_rows >= len(told)
        assert [hold.id for hold in world.node.store.holds()] == [HOLD.id]
        if len(seen) <= len(deaths) - 1 or "start session" in seen[-1]:
            break
        world._process_ends()
        world.node.store.close()
    world.crash_points.listener = None
    assert any("restore" in death for death in deaths), deaths
    world.network(up=True)
    world.settle()
    incidents = arrived(world)
    assert all(incidents.count(incident) == 1 for incident in told)
    print(f"{len(deaths)} deaths while rebuilding")
    world.close()


def test_without_the_rebuilding_events_and_holds_would_be_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same story with the rebuilding left out fails, so the tests above can tell."""
    world, told = dark_life(folder)
    half_written(world.node_folder / boot.STORE_NAME, random.Random(SEED))
    monkeypatch.setattr(boot, "restore_index", lambda *_: "")
    world.network(up=True)
    world.boot()
    world.settle()
    assert not told & set(arrived(world))
    assert not world.node.store.holds()
    world.close()
