"""What every Disk promises: the same suite on the real file system and on the fake that the simulator cuts off."""

from __future__ import annotations

import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.disk import Disk, PosixDisk
from agent.errors import ConfigError, Transient
from tests.fakes.disk import FakeDisk, PowerCut


@pytest.fixture(params=["posix", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    made: Disk = PosixDisk(tmp_path) if request.param == "posix" else FakeDisk(root=tmp_path)
    made.list("segments")
    return made


def put(disk: Disk, name: str, data: bytes) -> None:
    file = disk.create(name)
    file.write(data)
    file.sync()
    file.close()


def read(disk: Disk, name: str) -> bytes:
    with disk.open(name) as file:
        return file.read()


def test_a_file_grows_and_is_read_while_it_is_open(disk: Disk) -> None:
    file = disk.create("segments/a")
    assert file.write(b"one") == 3
    assert read(disk, "segments/a") == b"one"
    assert file.write(b"") == 0
    file.write(b"two" * 100_000)
    file.sync()
    assert disk.size("segments/a") == 300_003
    file.close()
    file.close()
    with disk.open("segments/a") as reader:
        reader.seek(-3, 2)
        assert reader.read() == b"two"
        assert reader.tell() == 300_003


def test_an_existing_name_is_never_overwritten(disk: Disk) -> None:
    put(disk, "segments/a", b"old")
    with pytest.raises(Transient, match=r"cannot create .*segments/a: File exists"):
        disk.create("segments/a")
    assert read(disk, "segments/a") == b"old"


def test_a_missing_file_is_named(disk: Disk) -> None:
    with pytest.raises(FileNotFoundError, match="segments/none"):
        disk.open("segments/none")
    with pytest.raises(FileNotFoundError, match="segments/none"):
        disk.size("segments/none")
    with pytest.raises(Transient, match=r"cannot truncate .*segments/none"):
        disk.truncate("segments/none", 0)
    with pytest.raises(Transient, match=r"cannot rename .*segments/none"):
        disk.rename("segments/none", "segments/b")


def test_truncate_shortens(disk: Disk) -> None:
    put(disk, "segments/a", b"0123456789")
    disk.truncate("segments/a", 4)
    assert (disk.size("segments/a"), read(disk, "segments/a")) == (4, b"0123")
    disk.truncate("segments/a", 4)
    assert read(disk, "segments/a") == b"0123"


def test_replace_leaves_the_new_content_and_nothing_else(disk: Disk) -> None:
    disk.replace("segments/a", b"one")
    disk.replace("segments/a", b"two")
    assert read(disk, "segments/a") == b"two"
    assert disk.list("segments") == ["segments/a"]


def test_rename_within_and_between_folders(disk: Disk) -> None:
    put(disk, "segments/a", b"x")
    disk.rename("segments/a", "segments/b")
    with pytest.raises(Transient):
        disk.rename("segments/b", "quarantine/b")
    disk.list("quarantine")
    disk.rename("segments/b", "quarantine/b")
    assert (disk.list("segments"), disk.list("quarantine")) == ([], ["quarantine/b"])
    assert read(disk, "quarantine/b") == b"x"


def test_unlink_may_be_repeated(disk: Disk) -> None:
    put(disk, "segments/a", b"x")
    disk.unlink("segments/a")
    disk.unlink("segments/a")
    assert disk.list("segments") == []


def test_list_is_sorted_makes_the_folder_and_knows_only_files(disk: Disk) -> None:
    for name in ("c", "a", "b"):
        put(disk, f"segments/{name}", b"")
    put(disk, "top", b"")
    assert disk.list("segments") == ["segments/a", "segments/b", "segments/c"]
    assert disk.list("fresh") == []


def test_free_bytes_is_a_plausible_number(disk: Disk) -> None:
    assert 1 << 20 < disk.free_bytes() < 1 << 60
    assert disk.path("segments/a").name == "a"


# -- the real one -----------------------------------------------------------------------------------------------------


def test_a_missing_data_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mount the data partition"):
        PosixDisk(tmp_path / "none")


def test_the_real_disk_syncs_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of system calls is the promise; a page cache hides every mistake in it."""
    calls: list[str] = []

    def spy(name: str) -> None:
        real: Callable[..., object] = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            fd = args[0]
            folder = isinstance(fd, int) and stat.S_ISDIR(os.fstat(fd).st_mode)
            calls.append("folder" if folder else name)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    disk = PosixDisk(tmp_path)
    disk.list("segments")
    disk.list("quarantine")
    for name in ("write", "fdatasync", "fsync", "ftruncate", "unlink", "rename"):
        spy(name)

    def seen() -> list[str]:
        found = list(calls)
        calls.clear()
        return found

    file = disk.create("segments/a")
    assert seen() == ["folder"]
    file.write(b"x")
    file.sync()
    assert seen() == ["write", "fdatasync"]
    disk.truncate("segments/a", 0)
    assert seen() == ["ftruncate", "fsync"]
    disk.replace("segments/b", b"x")
    assert seen() in (
        ["write", "fsync", "rename", "folder"],
        ["write", "fsync", "folder"],
    )  # pathlib keeps its own rename
    disk.rename("segments/b", "quarantine/b")
    assert seen()[-2:] == ["folder", "folder"]
    disk.unlink("segments/a")
    assert seen()[-1] == "folder"


def test_a_full_or_broken_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = PosixDisk(tmp_path)
    file = disk.create("a")

    def refuse(code: int) -> Callable[..., int]:
        def call(*_args: object) -> int:
            raise OSError(code, os.strerror(code))

        return call

    for code, hint in ((errno.ENOSPC, "lower recording.budget_gb"), (errno.EIO, "replace the card")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", refuse(code))
            with pytest.raises(Transient, match=hint):
                file.write(b"x")
    monkeypatch.setattr(os, "fdatasync", refuse(errno.EIO))
    with pytest.raises(Transient, match=r"cannot sync .*/a: Input/output error"):
        file.sync()


def test_a_real_full_device_is_reported() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    from agent.disk import PosixFile

    file = PosixFile(os.open("/dev/full", os.O_WRONLY), Path("/dev/full"))
    with pytest.raises(Transient, match="the disk is full"):
        file.write(b"x")
    file.close()


# -- what the fake takes away -----------------------------------------------------------------------------------------


def first(_count: int) -> int:
    return 0


def test_a_power_cut_takes_what_was_not_synced() -> None:
    disk = FakeDisk()
    put(disk, "a", b"kept")
    file = disk.create("b")
    file.write(b"synced")
    file.sync()
    file.write(b" and not")
    disk.power_cut(first)
    assert (read(disk, "a"), read(disk, "b")) == (b"kept", b"synced")
    with pytest.raises(Transient):
        file.write(b"from the grave")


def test_an_unsynced_tail_survives_in_part_and_never_longer() -> None:
    lengths = set()
    for seed in range(300):
        disk = FakeDisk()
        file = disk.create("a")
        file.write(b"S" * 10)
        file.sync()
        file.write(b"U" * 3000)
        disk.power_cut(random.Random(seed).randrange)
        data = read(disk, "a")
        assert data.startswith(b"S" * 10)
        assert set(data[10:]) <= set(b"U\0")
        lengths.add(len(data))
    assert {10, 3010} < lengths and len(lengths) > 50


def test_names_that_were_not_synced_vanish_and_unlinked_ones_come_back() -> None:
    for step, survives in (("after create, before sync folder", {0: False, 1: True}), ("after sync folder", {0: True})):
        for choice, expected in survives.items():
            disk = FakeDisk(crash_point=cut_at(step))
            with pytest.raises(PowerCut):
                disk.create("a")
            disk.power_cut(lambda n, choice=choice: min(choice, n - 1))  # type: ignore[misc]
            assert (disk.list("") == ["a"]) == expected, (step, choice)
    disk = FakeDisk()
    put(disk, "a", b"x")
    disk.crash_point = cut_at("after unlink, before sync folder")
    with pytest.raises(PowerCut):
        disk.unlink("a")
    assert disk.list("") == []
    disk.power_cut(first)
    assert read(disk, "a") == b"x"


def test_replace_is_the_old_content_or_the_new_one_at_every_step() -> None:
    for step in range(1, 6):
        for seed in range(20):
            disk = FakeDisk()
            disk.replace("a", b"old")
            disk.crash_point = cut_at(f"{disk.steps + step} ")
            with pytest.raises(PowerCut):
                disk.replace("a", b"new")
            disk.crash_point = lambda _step: None
            disk.power_cut(random.Random(seed).randrange)
            assert read(disk, "a") in (b"old", b"new")
            disk.replace("a", b"after")
            assert read(disk, "a") == b"after"


def test_a_failed_sync_forgets_the_bytes_and_a_second_one_does_not_bring_them_back() -> None:
    disk = FakeDisk()
    file = disk.create("a")
    file.write(b"x")
    disk.fail("sync")
    with pytest.raises(Transient, match="Input/output error"):
        file.sync()
    file.sync()
    disk.power_cut(first)
    assert read(disk, "a") == b""


def test_a_full_disk_takes_what_fits() -> None:
    disk = FakeDisk()
    file = disk.create("a")
    disk.fill(free_bytes=5)
    with pytest.raises(Transient, match="No space left"):
        file.write(b"0123456789")
    assert read(disk, "a") == b"01234"
    disk.unlink("a")
    assert disk.free_bytes() == 5


def test_faults_come_when_asked_and_heal() -> None:
    disk = FakeDisk()
    disk.fail("create", after=1, times=2)
    disk.create("a")
    for name in ("b", "c"):
        with pytest.raises(Transient):
            disk.create(name)
    disk.create("d")
    disk.read_only = True
    with pytest.raises(Transient, match="Read-only"):
        disk.unlink("a")
    assert read(disk, "a") == b""
    disk.heal()
    disk.unlink("a")


def cut_at(step: str) -> Callable[[str], None]:
    def crash_point(what: str) -> None:
        if step in what or what.startswith(step):
            raise PowerCut(what)

    return crash_point
