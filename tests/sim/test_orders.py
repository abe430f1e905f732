"""A hold for a post that is dark, and a station that is killed at every step of keeping and sending it: it is honoured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text

from agent import wire
from agent.clock import rfc3339
from agent.station.orders import OrderBook
from agent.station.signing import signed
from agent.types import NS
from tests.fakes.database import engine_in
from tests.sim.explore import Cut, Outcome
from tests.sim.test_cuts import JOBS, SEED
from tests.sim.universe import Universe, universe_folder
from tests.sim.world import NODE, SITE, SimOrderBook, World

KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
LIFE_NS = 14 * 86_400 * NS
KEPT, LET_GO, RELEASE = (f"01900000-0000-7000-8000-{n:012x}" for n in (1, 2, 3))


@pytest.fixture
def key_file() -> Iterator[Path]:
    """The station's public key, as the node has it."""
    with universe_folder() as folder:
        path = folder / "station.pem"
        path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        yield path


def ask(world: World, command_id: str, verb: str, args: dict[str, str], *, becomes: str) -> None:
    """A person at the station asks; another process writes, as the command does. From then on it is a promise."""
    now_ns = world.desk.clock.utc().utc_ns
    made = signed(
        KEY, site=SITE, node=NODE, verb=verb, args=args, command_id=command_id, expires=rfc3339(now_ns + LIFE_NS)
    )
    book = OrderBook(engine_in(world.station_folder))
    book.open()
    book.add(NODE, wire.decode(wire.encode(made), wire.Command), asked_utc_ns=now_ns, expires_utc_ns=now_ns + LIFE_NS)
    book.close()
    world.promises.ordered[command_id] = becomes


def asked_in_the_dark(world: World) -> None:
    """The network fades without a word; two holds are asked for and the second is taken back; the network comes back."""
    world.going_on.add("wardpost.storage")

    def people() -> None:
        zero_ns = world.desk.clock.utc().utc_ns - round(world.now_s * NS)
        for command_id, start_s, becomes in ((KEPT, 2.0, "held"), (LET_GO, 4.0, "released")):
            span = {
                "from": rfc3339(zero_ns + round(start_s * NS)),
                "to": rfc3339(zero_ns + round((start_s + 1.0) * NS)),
            }
            ask(world, command_id, "hold", span | {"reason": "a dispute", "id": command_id}, becomes=becomes)
        ask(world, RELEASE, "release", {"hold": LET_GO}, becomes="")

    world.at(8.0, lambda: world.network(up=False, silent=True))  # what is sent now is sent into nothing
    world.at(9.0, people)
    world.at(12.0, lambda: world.network(up=True))
    world.boot()
    world.run(110.0)


def universe(key_file: Path, kind: Callable[[Path, Callable[[str], None]], OrderBook] = SimOrderBook) -> Universe:
    def plant(world: World) -> None:
        world.order_kind = kind
        world._start_station()

    settings = {"uplink": {"command_key": str(key_file)}, "recording": {"budget_gb": 0.1}}
    return Universe(asked_in_the_dark, SEED, settings=settings, plant=plant)


def explore(story: Universe) -> list[Outcome]:
    """The station is killed at every step that concerns its orders."""

    def choose(point: int, step: str) -> list[Cut]:
        wanted = "orders" in step and "expire" not in step
        return [Cut(point, step, "station", SEED + point)] if wanted else []

    return story.explore(lambda _point, _step: [], station=choose, jobs=JOBS)


def test_orders_for_a_dark_post_are_honoured_whenever_the_station_is_killed(key_file: Path) -> None:
    story = universe(key_file)
    _, station, problems = story.count()
    assert problems == []
    assert {
        f"{when} commit: orders note {what}" for when in ("before", "after") for what in ("a command", "an answer")
    } <= set(station)
    outcomes = explore(story)
    assert len(outcomes) >= 12
    assert [(str(outcome.cut), outcome.problems) for outcome in outcomes if outcome.problems] == []
    print(f"the station was killed {len(outcomes)} times while it owed orders")


class Forgets(SimOrderBook):
    """The planted bug: what has been sent counts as done, and is answered by nobody."""

    def sent(self, n: int) -> None:
        with self._transaction("note a command") as db:
            db.execute(text("update command set state = 'done', sent = sent + 1 where n = :n"), {"n": n})


def test_a_station_that_takes_sent_for_done_is_found_out(key_file: Path) -> None:
    _, _, problems = universe(key_file, Forgets).count()
    assert any("check_orders" in problem for problem in problems), problems
