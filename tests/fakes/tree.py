"""A folder of releases in memory that keeps the promises of `agent.release.tree` and no others.

Model (ext4, data=ordered): folders are inodes whose entries are changed by operations; of those that were not synced, a
prefix survives a power cut, folder by folder. A rename is one operation. A file's content survives whole once it was
synced, else torn, as in tests/fakes/disk.py. A link's target is in its inode and comes with its name. What a folder
holds survives by itself, so a folder may come back half empty after `remove`, and a renamed one half full.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent.errors import Transient
from tests.fakes.disk import _Inode, _torn, no_crash


@dataclass(eq=False)
class _File(_Inode):
    executable: bool = False


@dataclass(eq=False)
class _Link:
    target: str


@dataclass(eq=False)
class _Folder:
    names: dict[str, _Node] = field(default_factory=dict)
    durable: dict[str, _Node] = field(default_factory=dict)
    ops: list[tuple[tuple[str, _Node | None], ...]] = field(default_factory=list)

    def change(self, *entries: tuple[str, _Node | None]) -> None:
        """One operation of the journal: all of its entries or none."""
        _apply(self.names, entries)
        self.ops.append(entries)


_Node = _File | _Link | _Folder


def _apply(names: dict[str, _Node], entries: Iterable[tuple[str, _Node | None]]) -> None:
    for name, node in entries:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class FakeTree:
    """`agent.release.tree.Tree` in memory. `unsynced`: folders whose sync a test leaves out, to plant a bug;
    `unsynced_files`: no content is synced either.
    """

    def __init__(self, *, crash_point: Callable[[str], None] = no_crash, capacity_bytes: int = 1 << 40) -> None:
        self.root = _Folder()
        self.crash_point = crash_point
        self.capacity_bytes = capacity_bytes
        self.steps = 0
        self.unsynced_files = False
        self.unsynced: Callable[[str], bool] = lambda _folder: False

    def power_cut(self, choose: Callable[[int], int]) -> None:
        """Takes what was not synced. `choose(n)` picks 0..n-1."""
        self.root = _survivor(self.root, choose)

    def listing(self, name: str = "") -> dict[str, bytes | str]:
        """All files and links below a folder, with their content or target."""
        found: dict[str, bytes | str] = {}

        def walk(folder: _Folder, prefix: str) -> None:
            for entry, node in folder.names.items():
                if isinstance(node, _Folder):
                    walk(node, f"{prefix}{entry}/")
                else:
                    found[prefix + entry] = node.target if isinstance(node, _Link) else bytes(node.data)

        node = self._find(name)
        if isinstance(node, _Folder):
            walk(node, "")
        return found

    # -- Tree ---------------------------------------------------------------------------------------------------------

    def names(self, folder: str) -> list[str]:
        node = self._find(folder)
        return sorted(node.names) if isinstance(node, _Folder) else []

    def exists(self, name: str) -> bool:
        return self._find(name) is not None

    def mkdir(self, name: str) -> None:
        if isinstance(self._find(name), _Folder):
            return
        self._add("make", name, _Folder())

    def create(self, name: str, chunks: Iterable[bytes], *, executable: bool = False) -> None:
        file = _File(executable=executable)
        self._add("write", name, file)
        for chunk in chunks:
            if self.free_bytes() < len(chunk):
                raise self._error("write", name, errno.ENOSPC)
            file.data += chunk
            self._step(f"after write {name}")
        file.durable = b"" if self.unsynced_files else bytes(file.data)
        self._step(f"after sync {name}")

    def link(self, name: str, target: str) -> None:
        self._add("link", name, _Link(target))

    def target(self, name: str) -> str:
        node = self._find(name)
        return node.target if isinstance(node, _Link) else ""

    def rename(self, name: str, new: str) -> None:
        parent, old = self._parent("rename", name)
        other, entry = self._parent("rename", new)
        node = parent.names.get(old)
        if node is None:
            raise self._error("rename", name, errno.ENOENT)
        assert parent is other, "within one folder"
        there = parent.names.get(entry)
        if isinstance(there, _Folder) and there.names:
            raise self._error("rename", name, errno.ENOTEMPTY)
        self._step(f"before rename {name}")
        parent.change((old, None), (entry, node))
        self._step(f"after rename {new}")

    def sync(self, folder: str) -> None:
        node = self._find(folder)
        if not isinstance(node, _Folder):
            raise self._error("sync", folder, errno.ENOENT)
        self._step(f"before sync folder {folder}")
        if not self.unsynced(folder):
            for entries in node.ops:
                _apply(node.durable, entries)
            node.ops.clear()
        self._step(f"after sync folder {folder}")

    def remove(self, name: str) -> None:
        node = self._find(name)
        if node is None:
            return
        if isinstance(node, _Folder):
            for entry in sorted(node.names):
                self.remove(f"{name}/{entry}")
        parent, entry = self._parent("remove", name)
        self._step(f"before remove {name}")
        parent.change((entry, None))
        self._step(f"after remove {name}")

    def read(self, name: str, bytes_max: int) -> bytes:
        node = self._find(name)
        if not isinstance(node, _File):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return bytes(node.data[:bytes_max])

    def free_bytes(self) -> int:
        used = sum(len(data) for data in self.listing().values() if isinstance(data, bytes))
        return max(self.capacity_bytes - used, 0)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> _Node | None:
        node: _Node = self.root
        for part in filter(None, name.split("/")):
            if not isinstance(node, _Folder) or part not in node.names:
                return None
            node = node.names[part]
        return node

    def _parent(self, what: str, name: str) -> tuple[_Folder, str]:
        folder, _, entry = name.rpartition("/")
        node = self._find(folder)
        if not isinstance(node, _Folder):
            raise self._error(what, name, errno.ENOENT)
        return node, entry

    def _add(self, what: str, name: str, node: _Node) -> None:
        parent, entry = self._parent(what, name)
        if entry in parent.names:
            raise self._error(what, name, errno.EEXIST)
        self._step(f"before {what} {name}")
        parent.change((entry, node))
        self._step(f"after {what} {name}")

    def _step(self, what: str) -> None:
        self.steps += 1
        self.crash_point(what)

    def _error(self, what: str, name: str, code: int) -> Transient:
        return Transient(f"release: cannot {what} {name}: {os.strerror(code)}; check the disk and its owner")


def _survivor(folder: _Folder, choose: Callable[[int], int]) -> _Folder:
    names = dict(folder.durable)
    for entries in folder.ops[: choose(len(folder.ops) + 1)]:
        _apply(names, entries)
    found: dict[str, _Node] = {}
    for name, node in names.items():
        if isinstance(node, _Folder):
            found[name] = _survivor(node, choose)
        elif isinstance(node, _File):
            data = _torn(node, choose)
            found[name] = _File(bytearray(data), data, executable=node.executable)
        else:
            found[name] = node
    return _Folder(dict(found), dict(found))
