"""The write-ahead log of the node's database is damaged, cut short, foreign or gone: committed events still arrive once.

SQLite reads a log up to the first frame that does not add up and says nothing of what came behind it: the database goes
back in time. The next events would take numbers that the station knows already, and be lost there. So a store that knows
less than the node's own ledger is set aside, and the index is rebuilt from both.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agent import boot
from agent.types import NS, Hold, Priority
from tests.sim import checks
from tests.sim.power import Killed
from tests.sim.stories import notice
from tests.sim.universe import universe_folder
from tests.sim.world import Visit, World

SEED = 13
HEADER, FRAME, PAGE = 32, 24, 4096
HOLD = Hold(
    "hold-1", 1_790_000_000 * NS, 1_790_000_600 * NS, None, "an accident at the gate", "desk", 1_790_000_700 * NS
)
NEW = {f"00000000-0000-7000-8000-{900 + n:012d}" for n in range(20)}
Damage = Callable[[Path, random.Random], None]


@pytest.fixture
def folder() -> Iterator[Path]:
    with universe_folder() as path:
        yield path


def log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def frames(path: Path) -> int:
    """How many frames of the log belong to its present generation."""
    data = log_of(path).read_bytes()
    salts = data[16:24]
    count = 0
    while data[HEADER + count * (FRAME + PAGE) + 8 :][:8] == salts:
        count += 1
    return count


def flip(at: Callable[[int], int]) -> Damage:
    """One bit of the log, at an offset that depends on how many frames it has."""

    def damage(path: Path, rng: random.Random) -> None:
        data = bytearray(log_of(path).read_bytes())
        data[at(frames(path))] ^= 1 << rng.randrange(8)
        log_of(path).write_bytes(data)

    return damage


def in_frame(share: float, offset: int) -> Damage:
    """One bit of the frame that lies at this share of the log."""
    return flip(lambda count: HEADER + round(share * (count - 1)) * (FRAME + PAGE) + offset)


def cut_at(share: float, beyond: int) -> Damage:
    """The log ends so many bytes behind this share of its frames."""

    def damage(path: Path, _rng: random.Random) -> None:
        keep = HEADER + round(share * frames(path)) * (FRAME + PAGE) + beyond
        log_of(path).write_bytes(log_of(path).read_bytes()[: max(keep, 0)])

    return damage


def of_another_database(path: Path, _rng: random.Random) -> None:
    """A whole, valid log, of something else."""
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other, isolation_level=None)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table meta (key text primary key, value text not null) without rowid")
        db.execute("insert into meta values ('schema', '2')")
        log_of(path).write_bytes(log_of(other).read_bytes())
    for name in ("other.db", "other.db-wal", "other.db-shm"):
        path.with_name(name).unlink(missing_ok=True)


def gone(path: Path, _rng: random.Random) -> None:
    log_of(path).unlink()


def gone_and_its_index_is_there(path: Path, rng: random.Random) -> None:
    log_of(path).unlink()
    path.with_name(path.name + "-shm").write_bytes(rng.randbytes(32768))


def index_of_nonsense(path: Path, rng: random.Random) -> None:
    path.with_name(path.name + "-shm").write_bytes(rng.randbytes(32768))


def nonsense(path: Path, rng: random.Random) -> None:
    log_of(path).write_bytes(rng.randbytes(log_of(path).stat().st_size))


def page_of_the_database(number: int) -> Damage:
    """A page of the database is nonsense; the log is whole, and has a newer version of that page, or none."""

    def damage(path: Path, rng: random.Random) -> None:
        data = bytearray(path.read_bytes())
        assert len(data) > (number + 1) * PAGE, "this database has no such page"
        data[number * PAGE : (number + 1) * PAGE] = rng.randbytes(PAGE)
        path.write_bytes(data)

    return damage


DAMAGES: dict[str, Damage] = {
    "magic of the header": flip(lambda _: 1),
    "page size in the header": flip(lambda _: 9),
    "salt in the header": flip(lambda _: 18),
    "checksum of the header": flip(lambda _: 27),
    "page number of the first frame": in_frame(0.0, 3),
    "page number of a frame": in_frame(0.5, 3),
    "commit mark of a frame": in_frame(0.5, 7),
    "salt of a frame": in_frame(0.5, 9),
    "checksum of a frame": in_frame(0.5, 20),
    "page of the first frame": in_frame(0.0, FRAME + 100),
    "page of a frame": in_frame(0.3, FRAME + 2000),
    "page of a late frame": in_frame(0.8, FRAME + 4095),
    "cut to nothing": cut_at(0.0, -HEADER),
    "cut in the header": cut_at(0.0, -7),
    "cut behind the header": cut_at(0.0, 0),
    "cut in a frame's header": cut_at(0.4, 11),
    "cut in a page": cut_at(0.4, FRAME + 1000),
    "cut between frames": cut_at(0.6, 0),
    "log of another database": of_another_database,
    "no log": gone,
    "no log, but its index": gone_and_its_index_is_there,
    "index of nonsense": index_of_nonsense,
    "log of nonsense": nonsense,
    "first page of the database": page_of_the_database(0),
    "second page of the database": page_of_the_database(1),
    "a page of the database": page_of_the_database(9),
}


def checkpoint(world: World) -> None:
    """SQLite moves the log into the database, as it does by itself every 1,000 pages."""
    assert world.node.store._db is not None
    world.node.store._db.execute("pragma wal_checkpoint(truncate)")


def killed_in_the_dark(folder: Path) -> tuple[World, set[str]]:
    """The network goes, things happen, a hold is asked for, and the process is killed: its log is full of commits."""
    world = World(folder, SEED, visits=[Visit(4.0, 8.0)], recording={"budget_gb": 0.1})
    world.going_on.add("wardpost.storage")
    world.boot()
    world.run(9.0)
    world.network(up=False)
    for n in range(12):
        world.report([notice(world, n, Priority.ALERT if n % 3 == 0 else Priority.NOTICE)])
    checkpoint(world)
    for n in range(12, 30):
        world.report([notice(world, n, Priority.ALERT if n % 3 == 0 else Priority.NOTICE)])
        world.run(world.now_s + 0.2)
    world.press_bell()
    world.node.store.add_hold(HOLD)
    world.run(26.0)
    world.die(Killed("the test"), random.Random(SEED), off_s=1.0)
    world._script.clear()
    assert frames(world.node_folder / boot.STORE_NAME) > 40
    return world, {f"00000000-0000-7000-8000-{n:012d}" for n in range(30)}


def comes_back(world: World) -> None:
    """The node starts again; before it is heard, new things happen: they must not take the place of older ones."""
    world.boot()
    assert world.boot_error == ""
    world.report([notice(world, 900 + n, Priority.ALERT) for n in range(20)])
    world.network(up=True)
    world.settle()


def said(world: World) -> list[str]:
    """What headquarters heard of the damage."""
    events = checks.at_station(world.station_folder)
    return [event.body.data.summary for event in events if "has been set aside" in event.body.data.summary]


MUST_BE_SET_ASIDE = {
    "magic of the header", "salt in the header", "checksum of the header", "page of the first frame", "page of a frame",
    "cut to nothing", "cut behind the header", "cut in a page", "cut between frames", "no log", "log of nonsense",
    "log of another database",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_every_event_and_hold_survives_whatever_becomes_of_the_log(folder: Path, name: str) -> None:
    world, told = killed_in_the_dark(folder)
    sealed = dict(world.promises.sealed)
    DAMAGES[name](world.node_folder / boot.STORE_NAME, random.Random(f"{SEED} {name}"))
    comes_back(world)
    told |= NEW
    events = checks.at_station(world.station_folder)
    incidents = [event.body.data.incident for event in events]
    keys = [(event.epoch, event.sequence) for event in events]
    assert sorted(told - set(incidents)) == [], "lost"
    assert sorted(one for one in told if incidents.count(one) > 1) == [], "doubled"
    assert len(keys) == len(set(keys))
    assert [one.body.type for one in events].count("wardpost.bell") >= 1
    assert world.node.store.outbox_rows == 0
    rows = {row.name: row.sha256 for row in world.node.store.segments()}
    assert sealed.items() <= rows.items()
    assert [hold.id for hold in world.node.store.holds() if not hold.released] == [HOLD.id]
    assert [row.session for row in world.node.store.sessions()] == [1, 2]
    set_aside = world.node.store.epoch != min(epoch for epoch, _ in world.promises.committed)
    assert bool(said(world)) == set_aside, "a store was set aside without a word"
    assert set_aside or name not in MUST_BE_SET_ASIDE
    if set_aside:
        assert list(world.node_folder.glob(f"{boot.STORE_NAME}.corrupt-*")), "nothing is left to examine"
    world.close()


def test_without_a_look_at_the_ledger_numbers_are_used_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same story with the comparison left out loses events, so the tests above can tell."""
    world, told = killed_in_the_dark(folder)
    DAMAGES["page of a frame"](world.node_folder / boot.STORE_NAME, random.Random(SEED))
    monkeypatch.setattr(boot, "require_newest", lambda *_: None)
    comes_back(world)
    assert (told | NEW) - {event.body.data.incident for event in checks.at_station(world.station_folder)}
    world.close()
