"""One story, cut at any of its crash points: in forked universes, or again by itself."""

from __future__ import annotations

import gc
import logging
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import URL, Dialect, Engine, create_engine

from agent import boot
from agent.evidence import dsse
from agent.evidence.dsse import Envelope
from tests.sim import checks
from tests.sim.explore import Choose, Cut, Explorer, Outcome, Stopped, death_of, problems_of
from tests.sim.power import DatabaseImage, Death, PowerCut, kind_of
from tests.sim.world import Visit, World

Story = Callable[[World], None]
OFF_S = (1.0, 1.0, 1.0, 20.0)  # how long the power is away, or a killed station
SECOND_DEATH_S = 2.0  # how long the power is away after a second cut
SIGNATURES_MAX = 4096  # that are remembered as good or bad


@dataclass(slots=True)
class Universe:
    """A story with its seed, and the parts of the product that a mutation has replaced."""

    story: Story
    seed: int
    visits: tuple[Visit, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    plant: Callable[[World], None] = lambda _world: None

    def world(self, folder: Path) -> World:
        """A new world, before its first moment."""
        world = World(folder, self.seed, visits=self.visits, parts=self.parts, **self.settings)
        self.plant(world)
        return world

    def count(self) -> tuple[list[str], list[str], list[str]]:
        """Runs the story without any cut: its crash points at the node and at the station, and what does not hold."""
        with frugal(), universe_folder() as folder:
            world = self.world(folder)
            node: list[str] = []
            station: list[str] = []
            world.crash_points.listener = lambda _, step: node.append(step)
            world.station_points.listener = lambda _, step: station.append(step)
            self.story(world)
            world.crash_points.listener = world.station_points.listener = None
            problems = _settled(world)
            world.close()
            return node, station, problems

    def explore(
        self,
        choose: Choose,
        *,
        jobs: int,
        station: Choose = lambda _point, _step: (),
        enough: Callable[[Outcome], bool] = lambda _outcome: False,
    ) -> list[Outcome]:
        """Runs the story once, and each cut that `choose` names in a fork of it, until `enough` says so.

        `station` names the crash points of the station at which it is killed.
        """
        explorer = Explorer(jobs=jobs, enough=enough)
        with frugal(), universe_folder() as folder:
            world = self.world(folder)

            def branch(cuts: Sequence[Cut]) -> None:
                for cut in cuts:
                    if explorer.fork(cut):
                        world.crash_points.listener = world.station_points.listener = None
                        own = Path(tempfile.mkdtemp(prefix="universe-", dir=folder))
                        world.move_to(own)
                        if cut.kind == "station":
                            world.live_on_in_copy()
                        explorer.ready()
                        # Not raised: unwinding would run the product's clean-up on the parent's files.
                        explorer.report(_aftermath(world, cut, own, death_of(cut)))

            def at_node(point: int, step: str) -> None:
                branch(_with_ways(world, choose(point, step)))
                if step.startswith("before commit"):
                    world.torn_from = DatabaseImage(world.node_folder / boot.STORE_NAME)

            world.crash_points.listener = at_node
            world.station_points.listener = lambda point, step: branch(station(point, step))
            gc.collect()
            gc.freeze()
            try:
                self.story(world)
            except Stopped:
                world.crash_points.listener = world.station_points.listener = None
            finally:
                gc.unfreeze()
            outcomes = explorer.finish()
            world.close()
        return outcomes

    def replay(self, cut: Cut, *, quiet: bool = True) -> Outcome:
        """The same cut in this process: for a debugger, and to prove that forking changes nothing."""
        with frugal(), universe_folder(quiet=quiet) as folder:
            world = self.world(folder)

            def listen(point: int, step: str) -> None:
                if point == cut.point:
                    raise death_of(cut)
                if step.startswith("before commit"):
                    world.torn_from = DatabaseImage(world.node_folder / boot.STORE_NAME)

            points = world.station_points if cut.kind == "station" else world.crash_points
            points.listener = listen
            try:
                self.story(world)
            except Death as death:
                return _aftermath(world, cut, folder, death)
            finally:
                with suppress(Exception):
                    world.close()
            return Outcome(cut, [], happened=False)


def _with_ways(world: World, cuts: Sequence[Cut]) -> list[Cut]:
    """Gives each power cut its own legal outcome of the disk, as long as there are any that no cut here has had."""
    if not any(cut.kind == "power" for cut in cuts):
        return list(cuts)
    ways, exact = world.disk.ways()
    found = []
    for cut in cuts:
        if cut.kind == "power" and (cut.turn < len(ways) or exact):
            cut = replace(cut, way=ways[cut.turn % len(ways)])  # noqa: PLW2901
        found.append(cut)
    return found


def _aftermath(world: World, cut: Cut, folder: Path, death: Death) -> Outcome:
    """From a death to a verdict."""
    try:
        return _judged(world, cut, death)
    except BaseException as error:
        return Outcome(cut, problems_of(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(world: World, cut: Cut, death: Death) -> Outcome:
    rng = random.Random(f"{cut.seed} {cut.point} {cut.kind}")
    log: bytes | None = None
    if cut.kind == "torn":
        before, world.torn_from = world.torn_from, None
        after = DatabaseImage(world.node_folder / boot.STORE_NAME)
        log = None if before is None else before.torn_by(after, rng)
        if log is None:
            return Outcome(cut, [], happened=False)
    world.crash_points.listener = world.station_points.listener = None
    world.end_story(node_lives=cut.kind == "station")
    off_s = rng.choice(OFF_S)
    if cut.kind == "station":
        world.kill_station(off_s=off_s)
    else:
        world.die(death, rng, off_s=off_s, log=log, way=cut.way)
    deaths, again_at = 1, ""
    if cut.again_after:
        again_point = world.crash_points.count + cut.again_after

        def listen(point: int, _step: str) -> None:
            if point == again_point:
                raise PowerCut(str(cut))

        world.crash_points.listener = listen
    while True:
        try:
            problems = _settled(world)
            break
        except Death as again:
            deaths += 1
            again_at = kind_of(world.crash_points.last)
            world.crash_points.listener = None
            world.die(again, rng, off_s=SECOND_DEATH_S)
    figures = {"deaths": float(deaths), "lived_s": world.now_s}
    if world.losses:
        figures["loss_s"] = max(loss.lost_s for loss in world.losses)
        figures["loss_beyond_queue_s"] = max(loss.lost_s - loss.queue_s for loss in world.losses)
    return Outcome(cut, problems, figures, again_at=again_at)


def _settled(world: World) -> list[str]:
    """Lets the world come to rest, with a network; what does not hold there."""
    world.network(up=True)
    world.settle()
    if not world.running:
        return [f"the node did not come up: {world.boot_error}"]
    # The world stands still now: what several checks ask is found out once.
    with (
        mock.patch.object(checks, "station_file", lru_cache(checks.station_file)),
        mock.patch.object(checks, "life_of", lru_cache(checks.life_of)),
    ):
        return checks.all_problems(world)


@cache
def _prepared() -> tuple[Dialect, dict[Any, Any]]:
    """SQLAlchemy's spelling for SQLite, and the statements that were compiled with it: as many as the station has."""
    engine = create_engine("sqlite://")
    engine.connect().close()  # a dialect asks the library what it can when it connects first
    engine.dispose()
    return engine.dialect, {}


def _engine(url: URL, **given: Any) -> Engine:
    """An engine that has its statements from those before it. Each by itself would compile all of them anew."""
    engine = create_engine(url, **given)
    engine.dialect, compiled = _prepared()
    engine.update_execution_options(compiled_cache=compiled)
    return engine


@contextmanager
def frugal() -> Iterator[None]:
    """What would be most of the cost of a universe and shows nothing: megabytes of ballast, copied for each; the same
    signature verified by the same key again and again, and the same line of a ledger taken apart: by the node, the
    station and the checks, in each universe; and the station's statements compiled for each connection.
    """
    verify = lru_cache(maxsize=SIGNATURES_MAX)(Envelope.verify)  # a pure function of values that do not change
    with (
        mock.patch("agent.station.db.engine.create_engine", _engine),
        mock.patch("agent.recording.retention.BALLAST_BYTES", 4096),
        # In a life of half a minute some acknowledgements must find no other transaction to ride on.
        mock.patch("agent.uplink.worker.ACK_DELAY_S", 1.0),
        mock.patch.object(Envelope, "verify", verify),
        mock.patch.object(dsse, "parse", lru_cache(maxsize=SIGNATURES_MAX)(dsse.parse)),
    ):
        yield


@contextmanager
def universe_folder(*, quiet: bool = True) -> Iterator[Path]:
    """A folder in memory where there is one: a real disk would spend the time in SQLite's syncs. The log is silenced."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="wardpost-sim-", dir=shm if os.access(shm, os.W_OK) else None))
    log = logging.getLogger("agent")
    before = log.level
    if quiet:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield path
    finally:
        log.setLevel(before)
        shutil.rmtree(path, ignore_errors=True)
