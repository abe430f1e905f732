"""A disk in memory that keeps the promises of `agent.disk` and no others: `power_cut` takes everything that was not synced.

Model (ext4, data=ordered, as far as POSIX lets a program rely on it):

- Bytes behind the last sync of a file survive in part: any length, and what survives may be zeros or torn.
- A name that was made, moved or removed without syncing its folder may be as before or as after. Operations on one
  folder reach the journal in order, so a prefix of them survives.
- What was synced survives whole.

Every step that changes something is a numbered crash point: `crash_point("12 before sync segments/x")` may raise PowerCut,
a BaseException, so that no handler of the product can swallow it. Faults are injected by `fail`.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from agent.errors import Transient


class PowerCut(BaseException):
    """The machine has lost power. Nothing may catch this but the simulator."""


@dataclass(eq=False)
class _Inode:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""  # content at the last sync


@dataclass(frozen=True)
class _DirOp:
    """A change of one folder that has not been synced: name -> inode, or None for a removal."""

    name: str
    inode: _Inode | None


@dataclass
class _Fault:
    op: str
    after: int
    times: int
    code: int


def no_crash(_step: str) -> None:
    """The default for `crash_point`."""


class FakeDisk:
    """`agent.disk.Disk` in memory. One thread at a time.

    `capacity_bytes` bounds the sum of all files. `unsynced_names` is set by a test to plant a bug: folder syncs are
    promised and not done.
    """

    def __init__(
        self,
        *,
        root: Path = Path("/fake"),
        capacity_bytes: int = 1 << 40,
        crash_point: Callable[[str], None] = no_crash,
        delay: Callable[[str], None] = no_crash,
    ) -> None:
        """`root`: what `path` is relative to (a real folder for SQLite). `delay` is called in every write and sync:
        a slow disk moves the fake clock there.
        """
        self._root = root
        self._capacity_bytes = capacity_bytes
        self.crash_point = crash_point
        self.delay = delay
        self._names: dict[str, _Inode] = {}
        self._durable_names: dict[str, _Inode] = {}
        self._dir_ops: dict[str, list[_DirOp]] = {}
        self._folders: set[str] = set()
        self._boot = 0
        self.steps = 0
        self._faults: list[_Fault] = []
        self.read_only = False
        self.unsynced_names = False

    # -- faults and the power cut -------------------------------------------------------------------------------------

    def fail(self, op: str, *, after: int = 0, times: int = 1, code: int = errno.EIO) -> None:
        """The next `times` calls of `op` ("write", "sync", "create", "unlink", "rename", "truncate", "open", "list"),
        after `after` good ones, fail with `code`. A failed sync forgets the bytes, as Linux does.
        """
        self._faults.append(_Fault(op, after, times, code))

    def heal(self) -> None:
        """No fault from now on."""
        self._faults.clear()
        self.read_only = False

    def fill(self, *, free_bytes: int) -> None:
        """Makes the disk so full that `free_bytes` are left."""
        self._capacity_bytes = self._used() + free_bytes

    def power_cut(self, choose: Callable[[int], int]) -> None:
        """Takes what was not synced. `choose(n)` picks 0..n-1: a seeded random.randrange, or an enumeration.

        Open files of before are dead afterwards. The disk then is what the next boot finds.
        """
        names = dict(self._durable_names)
        for ops in self._dir_ops.values():
            for op in ops[: choose(len(ops) + 1)]:
                if op.inode is None:
                    names.pop(op.name, None)
                else:
                    names[op.name] = op.inode
        survivors: dict[str, _Inode] = {}
        contents: dict[int, bytes] = {}
        for name, inode in sorted(names.items()):
            if id(inode) not in contents:
                contents[id(inode)] = _torn(inode, choose)
            data = contents[id(inode)]
            survivors[name] = _Inode(bytearray(data), data)
        self._names = dict(survivors)
        self._durable_names = dict(survivors)
        self._dir_ops.clear()
        self._boot += 1

    def flip(self, name: str, bit: int) -> None:
        """Rots one bit of a file, on the platter."""
        inode = self._names[name]
        inode.data[bit // 8] ^= 1 << bit % 8
        inode.durable = bytes(inode.data)

    def content(self, name: str) -> bytes:
        """What a reader would see."""
        return bytes(self._names[name].data)

    def put(self, name: str, data: bytes) -> None:
        """A file that somebody else brought, durable."""
        inode = _Inode(bytearray(data), data)
        self._names[name] = inode
        self._durable_names[name] = inode

    # -- Disk ---------------------------------------------------------------------------------------------------------

    def create(self, name: str) -> FakeFile:
        self._check("create", name)
        if name in self._names:
            raise self._error("create", name, errno.EEXIST)
        self._step(f"before create {name}")
        inode = _Inode()
        self._enter(name, inode)
        self._step(f"after create, before sync folder {name}")
        self._sync_folder(name)
        self._step(f"after sync folder {name}")
        return FakeFile(self, name, inode, self._boot)

    def append(self, name: str) -> FakeFile:
        self._check("open", name)
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return FakeFile(self, name, self._names[name], self._boot)

    def open(self, name: str) -> BinaryIO:
        self._check("open", name, writes=False)
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return io.BytesIO(bytes(self._names[name].data))

    def size(self, name: str) -> int:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return len(self._names[name].data)

    def truncate(self, name: str, size: int) -> None:
        self._check("truncate", name)
        if name not in self._names:
            raise self._error("truncate", name, errno.ENOENT)
        inode = self._names[name]
        self._step(f"before truncate {name}")
        del inode.data[size:]
        inode.data.extend(bytes(size - len(inode.data)))
        self._step(f"after truncate, before sync {name}")
        inode.durable = bytes(inode.data)
        self._step(f"after sync {name}")

    def replace(self, name: str, data: bytes, *, private: bool = False) -> None:
        self._check("replace", name)
        temporary = name + ".tmp"
        self._room(name, len(data))
        self._step(f"before replace {name}")
        inode = _Inode(bytearray(data))
        self._enter(temporary, inode)
        self._step(f"after write, before sync {temporary}")
        inode.durable = bytes(inode.data)
        self._step(f"after sync, before rename {temporary}")
        self._move(temporary, name)
        self._step(f"after rename, before sync folder {name}")
        self._sync_folder(name)
        self._step(f"after sync folder {name}")

    def rename(self, name: str, new: str) -> None:
        self._check("rename", name)
        if name not in self._names or _folder(new) not in self._folders | {""}:
            raise self._error("rename", name, errno.ENOENT)
        self._step(f"before rename {name}")
        self._move(name, new)
        self._step(f"after rename, before sync folder {new}")
        self._sync_folder(new)
        self._step(f"after sync folder {new}")
        if _folder(new) != _folder(name):
            self._sync_folder(name)
            self._step(f"after sync folder {name}")

    def unlink(self, name: str) -> None:
        self._check("unlink", name)
        self._step(f"before unlink {name}")
        if name in self._names:
            del self._names[name]
            self._dir_ops.setdefault(_folder(name), []).append(_DirOp(name, None))
        self._step(f"after unlink, before sync folder {name}")
        self._sync_folder(name)
        self._step(f"after sync folder {name}")

    def list(self, folder: str) -> list[str]:
        self._check("list", folder, writes=folder not in self._folders)
        self._folders.add(folder)
        return sorted(name for name in self._names if _folder(name) == folder)

    def free_bytes(self) -> int:
        return max(self._capacity_bytes - self._used(), 0)

    def path(self, name: str) -> Path:
        return self._root / name

    # -- inside -------------------------------------------------------------------------------------------------------

    def _step(self, what: str) -> None:
        self.steps += 1
        self.crash_point(f"{self.steps} {what}")

    def _used(self) -> int:
        return sum(len(inode.data) for inode in {id(i): i for i in self._names.values()}.values())

    def _enter(self, name: str, inode: _Inode) -> None:
        self._names[name] = inode
        self._dir_ops.setdefault(_folder(name), []).append(_DirOp(name, inode))

    def _move(self, name: str, new: str) -> None:
        inode = self._names.pop(name)
        self._enter(new, inode)
        self._dir_ops.setdefault(_folder(name), []).append(_DirOp(name, None))

    def _sync_folder(self, name: str) -> None:
        if self.unsynced_names:
            return
        for op in self._dir_ops.pop(_folder(name), []):
            if op.inode is None:
                self._durable_names.pop(op.name, None)
            else:
                self._durable_names[op.name] = op.inode

    def _check(self, op: str, name: str, *, writes: bool = True) -> None:
        """Raises what the test asked for."""
        if writes and self.read_only:
            raise self._error(op, name, errno.EROFS)
        for fault in self._faults:
            if fault.op != op or fault.times <= 0:
                continue
            if fault.after > 0:
                fault.after -= 1
                continue
            fault.times -= 1
            raise self._error(op, name, fault.code)

    def _room(self, name: str, count: int) -> None:
        if count > self.free_bytes():
            raise self._error("write", name, errno.ENOSPC)

    def _error(self, op: str, name: str, code: int) -> Transient:
        return Transient(f"cannot {op} {self.path(name)}: {os.strerror(code)}; check the disk")


class FakeFile:
    """A DurableFile of a FakeDisk."""

    def __init__(self, disk: FakeDisk, name: str, inode: _Inode, boot: int) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._boot = boot
        self._failed = False
        self._closed = False

    def _alive(self) -> None:
        if self._closed or self._boot != self._disk._boot:
            raise self._disk._error("use", self._name, errno.EBADF)

    def write(self, data: bytes) -> int:
        self._alive()
        disk = self._disk
        disk._check("write", self._name)
        disk._step(f"before write {self._name}")
        disk.delay("write")
        room = disk.free_bytes()
        self._inode.data += data[:room]
        if len(data) > room:
            raise disk._error("write", self._name, errno.ENOSPC)
        disk._step(f"after write {self._name}")
        return len(data)

    def sync(self) -> None:
        self._alive()
        disk = self._disk
        disk._step(f"before sync {self._name}")
        disk.delay("sync")
        try:
            disk._check("sync", self._name)
        except Transient:
            # The error is reported once; what was dirty reads back from the cache and is not on the platter.
            self._failed = True
            raise
        if not self._failed:
            self._inode.durable = bytes(self._inode.data)
        disk._step(f"after sync {self._name}")

    def close(self) -> None:
        self._closed = True


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _torn(inode: _Inode, choose: Callable[[int], int]) -> bytes:
    """What is left of a file: the synced part, and more or less of the rest."""
    data, durable = bytes(inode.data), inode.durable
    if data == durable:
        return data
    if not data.startswith(durable):
        return (data, durable)[choose(2)]  # shortened without a sync: one or the other
    tail = data[len(durable) :]
    kept = (0, len(tail), choose(len(tail) + 1))[choose(3)]
    left = tail[:kept]
    match choose(3):
        case 1:  # the size was written, the blocks were not
            left = bytes(kept)
        case 2:  # blocks of 512 bytes arrive in any order
            at = choose(kept // 512 + 1) * 512
            left = left[:at] + bytes(min(512, kept - at)) + left[at + 512 :]
        case _:
            pass
    return durable + left


def cut_at(step: int) -> Callable[[str], None]:
    """What a FakeDisk asks before each step: the power goes at this one, counted from 0."""
    left = [step]

    def crash(what: str) -> None:
        if left[0] == 0:
            raise PowerCut(what)
        left[0] -= 1

    return crash
