"""What every archive promises: the folder, the folder on a simulated disk, and a real object store."""

from __future__ import annotations

import hashlib
import io
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.station.archive import Archive, name_of
from agent.station.archive.local import LocalArchive
from agent.station.archive.s3 import Bucket, S3Archive
from tests.fakes.disk import FakeDisk, PowerCut, cut_at
from tests.system.object_store import ObjectStore

ROOM = 1 << 20
BACK_S_MAX = 60.0
T = TypeVar("T")


@dataclass(frozen=True)
class Tried:
    """An archive, and what its world can be made to do."""

    archive: Archive
    stop: Callable[[], None]
    go_on: Callable[[], None]


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path_factory.mktemp("store"))
    store.start()
    yield store
    store.stop()


@pytest.fixture(params=["posix", "fake", pytest.param("s3", marks=pytest.mark.system)])
def tried(request: pytest.FixtureRequest, tmp_path: Path) -> Tried:
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("object_store")
        where = Bucket(store.url, store.bucket, tmp_path.name, "us-east-1", "any", "thing")
        return Tried(S3Archive(where), store.stop, store.start)
    if request.param == "posix":
        archive = LocalArchive(PosixDisk(tmp_path), free_bytes_min=0)
        away = tmp_path.with_name(tmp_path.name + "-away")
        return Tried(archive, lambda: _move(tmp_path, away), lambda: _move(away, tmp_path))
    disk = FakeDisk()
    return Tried(LocalArchive(disk, free_bytes_min=0), lambda: setattr(disk, "read_only", True), disk.heal)


def _move(old: Path, new: Path) -> None:
    old.rename(new)


def footage(size: int, seed: int = 1) -> tuple[bytes, str, str]:
    data = random.Random(seed).randbytes(size)
    sha256 = hashlib.sha256(data).hexdigest()
    return data, sha256, name_of("cam-7", sha256)


@pytest.mark.parametrize("size", [1, 300_000, 20 << 20], ids=["one byte", "in one piece", "in parts"])
def test_what_was_put_is_read_back(tried: Tried, size: int) -> None:
    data, sha256, name = footage(size)
    assert tried.archive.size(name) is None
    tried.archive.put(name, io.BytesIO(data), size=size, sha256=sha256)
    assert tried.archive.size(name) == size
    assert tried.archive.read(name, 0, size) == data
    assert tried.archive.read(name, size // 2, size) == data[size // 2 :], "fewer at its end"
    assert tried.archive.read(name, size, 10) == b""


def test_the_same_again_changes_nothing(tried: Tried) -> None:
    data, sha256, name = footage(50_000)
    for _ in range(2):
        tried.archive.put(name, io.BytesIO(data), size=len(data), sha256=sha256)
    assert tried.archive.read(name, 0, len(data)) == data


@pytest.mark.parametrize("wrong", [b"", b"x" * 999, b"x" * 1000, b"x" * 1001], ids=["none", "short", "other", "long"])
def test_other_bytes_are_refused_and_nothing_is_left_of_them(tried: Tried, wrong: bytes) -> None:
    data, sha256, name = footage(1000)
    with pytest.raises(Corrupt, match="not the 1000 bytes"):
        tried.archive.put(name, io.BytesIO(wrong), size=1000, sha256=sha256)
    assert tried.archive.size(name) is None
    tried.archive.put(name, io.BytesIO(data), size=1000, sha256=sha256)
    assert tried.archive.read(name, 0, 1000) == data


def test_what_is_not_there(tried: Tried) -> None:
    _, _, name = footage(1000, seed=9)
    assert tried.archive.size(name) is None
    with pytest.raises(FileNotFoundError):
        tried.archive.read(name, 0, 10)


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "cam-7/../x.mp4", "cam-7/" + "A" * 64 + ".mp4", ""])
def test_a_path_is_no_name(tried: Tried, name: str) -> None:
    for act in (lambda: tried.archive.size(name), lambda: tried.archive.read(name, 0, 1)):
        with pytest.raises(Corrupt, match="no name"):
            act()
    with pytest.raises(Corrupt, match="no name"):
        tried.archive.put(name, io.BytesIO(b"x"), size=1, sha256=hashlib.sha256(b"x").hexdigest())


def test_gone_and_back(tried: Tried) -> None:
    before, sha_before, name_before = footage(9 << 20, seed=2)
    tried.archive.put(name_before, io.BytesIO(before), size=len(before), sha256=sha_before)
    data, sha256, name = footage(9 << 20, seed=3)
    tried.stop()
    with pytest.raises(Transient):
        tried.archive.put(name, io.BytesIO(data), size=len(data), sha256=sha256)
    tried.go_on()
    assert once_back(lambda: tried.archive.read(name_before, 0, len(before))) == before, "what was kept is still there"
    once_back(lambda: tried.archive.put(name, io.BytesIO(data), size=len(data), sha256=sha256))
    assert tried.archive.read(name, 0, len(data)) == data


def once_back(act: Callable[[], T]) -> T:
    """As the clerk does: again while it says Transient. A store answers before all of it has come up."""
    by = time.monotonic() + BACK_S_MAX
    while True:
        try:
            return act()
        except Transient:
            assert time.monotonic() < by, "it does not come back"
            time.sleep(0.5)


# -- the folder alone --------------------------------------------------------------------------------------------------


def test_room_is_kept_free() -> None:
    disk = FakeDisk(capacity_bytes=ROOM)
    archive = LocalArchive(disk, free_bytes_min=ROOM // 2)
    data, sha256, name = footage(ROOM // 2 + 1)
    with pytest.raises(Transient, match=r"archive\.free_gb_min"):
        archive.put(name, io.BytesIO(data), size=len(data), sha256=sha256)
    assert disk.free_bytes() == ROOM, "not a byte was written"
    small, sha_small, name_small = footage(ROOM // 4)
    archive.put(name_small, io.BytesIO(small), size=len(small), sha256=sha_small)
    assert archive.size(name_small) == len(small)


def test_power_cut_at_every_step_leaves_the_whole_file_or_none_and_the_next_put_ends_well() -> None:
    data, sha256, name = footage(3 << 20)
    steps = 0
    while True:
        seed = 4_000 + steps
        disk = FakeDisk()
        archive = LocalArchive(disk, free_bytes_min=0)
        disk.crash_point = cut_at(steps)
        cut = False
        try:
            archive.put(name, io.BytesIO(data), size=len(data), sha256=sha256)
        except PowerCut:
            cut = True
        disk.crash_point = lambda _step: None
        disk.power_cut(random.Random(seed).randrange)
        there = archive.size(name)
        assert there in ((len(data),) if not cut else (None, len(data))), f"step {steps}, seed {seed}"
        if there is not None:
            assert archive.read(name, 0, len(data)) == data, f"step {steps}, seed {seed}: torn"
        archive.put(name, io.BytesIO(data), size=len(data), sha256=sha256)
        assert archive.read(name, 0, len(data)) == data, f"step {steps}, seed {seed}"
        assert disk.list("cam-7") == [name], "no half of an attempt is left"
        if not cut:
            break
        steps += 1
    assert steps > 10, "the cuts did not reach the writing"
