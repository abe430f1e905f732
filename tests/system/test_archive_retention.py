"""Retention of an archive in a real object store: a program that is killed at each of its steps, and a store that goes away."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.station.archive import name_of
from tests.fakes.footage_desk import POST, FootageDesk
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.fakes.retention_desk import CHILD, World, film, object_store, settle, whole, world_on
from tests.system.object_store import ObjectStore

pytestmark = pytest.mark.system
BACK_S_MAX = 120.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    made = ObjectStore(tmp_path_factory.mktemp("store"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def world(store: ObjectStore, tmp_path: Path) -> Iterator[World]:
    """A desk whose archive lies in the store."""
    desk = FootageDesk(tmp_path / "desk")
    desk.knows()
    film(desk, tmp_path)
    made = world_on(desk)
    made.archive = object_store(store.url, store.bucket, tmp_path.name)
    for sha256 in made.present():
        name = name_of(POST, sha256)
        size = desk.archive.size(name) or 0
        made.archive.put(name, io.BytesIO(desk.archive.read(name, 0, size)), size=size, sha256=sha256)
        desk.archive.remove(name)
    yield made
    desk.engine.dispose()


def test_kill_9_at_each_step_is_finished_at_the_next_start(world: World, store: ObjectStore, tmp_path: Path) -> None:
    before, n = world.present(), 0
    assert len(before) >= 2 and all(world.in_archive(one) for one in before)
    while True:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(world.desk.folder), str(n), store.url, store.bucket, tmp_path.name],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert child.returncode in (0, -signal.SIGKILL), child.stderr[-2000:]
        whole(world, before, f"step {n}")
        if child.returncode == 0:
            break
        n += 1
    assert n >= 3, "after the tombstones, and before and behind a file"
    settle(world)
    whole(world, before, "in the end")
    assert world.todo() == [] and not any(world.in_archive(one) for one in before)
    assert len(world.log("footage-removed")) == 1


def test_a_store_that_goes_away_is_waited_for(world: World, store: ObjectStore) -> None:
    before = world.present()
    world.later(31)
    desk = world.retention()
    assert desk.remove_due() == len(before)
    store.stop()
    with pytest.raises(Transient):
        desk.sweep()
    assert len(world.todo()) == len(before), "nothing is off the list"
    store.start()
    by = time.monotonic() + BACK_S_MAX
    while world.todo():
        try:
            settle(world)
        except Transient:
            assert time.monotonic() < by, "it does not come back"
            time.sleep(0.5)
    whole(world, before, "back")
