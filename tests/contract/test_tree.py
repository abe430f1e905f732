"""What every Tree promises: the same suite on the real file system and on the fake that loses power."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import Transient
from agent.release.tree import PosixTree, Tree
from tests.fakes.tree import FakeTree


@pytest.fixture(params=["posix", "fake"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Tree:
    return PosixTree(tmp_path) if request.param == "posix" else FakeTree()


def test_folders_files_and_links_are_made_and_read(tree: Tree) -> None:
    tree.mkdir("a")
    tree.mkdir("a")
    tree.mkdir("a/b")
    tree.create("a/b/x", iter([b"one", b"two"]))
    tree.create("a/run", [b"#!"], executable=True)
    tree.link("a/link", "b/x")
    assert tree.names("a") == ["b", "link", "run"]
    assert tree.names("none") == [] == tree.names("a/run")
    assert tree.read("a/b/x", 100) == b"onetwo"
    assert tree.read("a/b/x", 2) == b"on"
    assert (tree.target("a/link"), tree.target("a/run"), tree.target("none")) == ("b/x", "", "")
    assert tree.exists("a/link") and tree.exists("a/b") and not tree.exists("a/none")
    tree.link("dangling", "nowhere")
    assert tree.exists("dangling")
    assert tree.free_bytes() > 0


def test_what_is_there_is_not_overwritten(tree: Tree) -> None:
    tree.create("x", [b"old"])
    attempts: list[Callable[[], None]] = [lambda: tree.create("x", [b"new"]), lambda: tree.link("x", "y")]
    for attempt in attempts:
        with pytest.raises(Transient, match="File exists"):
            attempt()
    assert tree.read("x", 10) == b"old"


def test_a_link_gives_way_to_a_rename_and_a_folder_that_is_full_does_not(tree: Tree) -> None:
    tree.link("current", "releases/1")
    tree.link("current.new", "releases/2")
    tree.rename("current.new", "current")
    assert (tree.target("current"), tree.exists("current.new")) == ("releases/2", False)
    for name in ("a", "b"):
        tree.mkdir(name)
        tree.create(f"{name}/x", [b""])
    with pytest.raises(Transient, match="cannot rename"):
        tree.rename("a", "b")
    tree.rename("a", "c")
    assert tree.names("c") == ["x"]
    with pytest.raises(Transient, match="No such file"):
        tree.rename("none", "other")


def test_a_folder_is_removed_with_what_is_in_it_and_a_link_without(tree: Tree) -> None:
    tree.mkdir("a")
    tree.mkdir("a/b")
    tree.create("a/b/x", [b"1"])
    tree.mkdir("kept")
    tree.create("kept/x", [b"1"])
    tree.link("a/link", "../kept")
    tree.remove("a")
    tree.remove("a")
    assert not tree.exists("a")
    assert tree.names("kept") == ["x"]


def test_errors_are_one_line(tree: Tree) -> None:
    attempts: list[Callable[[], None]] = [
        lambda: tree.mkdir("no/folder"),
        lambda: tree.create("no/file", [b""]),
        lambda: tree.sync("no"),
    ]
    for attempt in attempts:
        with pytest.raises(Transient, match=r"release: cannot .*; check the disk") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        tree.read("none", 1)


def test_the_real_tree_syncs_what_it_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else f"file of {os.fstat(fd).st_size}")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    tree = PosixTree(tmp_path)
    before = os.umask(0o077)
    tree.create("x", [b"12", b"345"])
    assert calls == ["file of 5"], "the sync comes after all of the content"
    tree.create("run", [b""], executable=True)
    os.umask(before)
    tree.sync("")
    assert calls[-1] == "folder"
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("x", "run")] == [0o644, 0o755]


def first(_count: int) -> int:
    return 0


def last(count: int) -> int:
    return count - 1


@pytest.mark.parametrize(("choose", "there"), [(first, False), (last, True)])
def test_what_was_not_synced_may_be_there_or_not(choose: Callable[[int], int], there: bool) -> None:
    tree = FakeTree()
    tree.mkdir("a")
    tree.sync("")
    tree.create("a/x", [b"content"])
    tree.power_cut(choose)
    assert tree.exists("a") and tree.exists("a/x") is there
    tree = FakeTree()
    tree.mkdir("a")
    tree.create("a/x", [b"content"])
    tree.sync("a")
    tree.sync("")
    tree.rename("a", "b")
    tree.power_cut(choose)
    assert tree.names("") == (["b"] if there else ["a"]), "a rename is one act: never both, never none"
    assert tree.listing() == {("b/x" if there else "a/x"): b"content"}


def test_a_removal_that_was_cut_leaves_a_folder_half_empty() -> None:
    tree = FakeTree()
    tree.mkdir("a")
    for name in "xyz":
        tree.create(f"a/{name}", [b"1"])
    tree.sync("a")
    tree.sync("")
    tree.remove("a")
    picks = iter([0, 2])  # of the root's operations none survives, of the folder's two
    tree.power_cut(lambda _count: next(picks, 0))
    assert tree.names("a") == ["z"]
