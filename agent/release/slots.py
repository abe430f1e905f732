"""Acts on releases: unpack beside the running one, switch, confirm, roll back. What to do is decided in plan.py.

    /opt/wardpost/releases/<number>.new/   being unpacked; after a cut it is rubbish
    /opt/wardpost/releases/<number>/       whole: every file, every folder synced before the rename
    /opt/wardpost/current                  -> releases/<number>; replaced by one rename
    <data>/release/state.json              says what is meant; the link follows it, at the latest at the next start

A release is a virtual environment (PEP 405: pyvenv.cfg, bin/python) that is written file by file, with bytecode beside
each module, so that the service, which may write nowhere there, need not compile at each start. Order of the promises:
state before link, so a cut between them is put right by `wardpost-launch`; link before anything is removed.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.release import plan
from agent.release.bundle import MANIFEST_BYTES_MAX, Bundle, Manifest
from agent.release.plan import Release, State
from agent.release.tree import Tree
from agent.release.wheel import Wheel

FOLDER = "release"
STATE = f"{FOLDER}/state.json"
RELEASES = "releases"
CURRENT = "current"
COMPILED_BYTES_MAX = 2 << 20
"""Of one module's source; larger ones are compiled when they are imported."""
RESERVE_BYTES = 64 << 20
"""Left free beside a release that is installed."""
_PROGRAM = """#!{python} -P
import sys

from agent.cli import main

sys.exit(main())
"""


class Slots:
    """The releases of one node, and their state. One process and one thread at a time."""

    def __init__(
        self, *, tree: Tree, disk: Disk, root: Path, base_python: Path | None = None, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        """`root`: the real path of `tree`, for the files that name it. `base_python`: the system's interpreter."""
        self._tree = tree
        self._disk = disk
        self._root = root
        self._python = base_python or Path(sys.executable).resolve()
        self._reserve_bytes = reserve_bytes

    # -- what there is ------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What is installed. A state that is lost or damaged is made anew from the release that `current` points at.

        Raises Transient; Corrupt when no release is installed here at all.
        """
        try:
            with self._disk.open(STATE) as file:
                return plan.decode(file.read(plan.STATE_BYTES_MAX + 1))
        except (FileNotFoundError, Corrupt):
            slot = self.running()
        if not slot:
            raise Corrupt(f"release: {self._root / CURRENT} points at no release; see deploy/updates.md")
        told = self.manifest(slot)
        if told is None:
            return plan.first(slot)
        return State(good=Release(slot=slot, number=told.number, version=told.version), highest=told.number)

    def running(self) -> str:
        """The release that `current` points at; empty when it points at none."""
        folder, _, slot = self._tree.target(CURRENT).rpartition("/")
        return slot if folder == RELEASES else ""

    def manifest(self, slot: str) -> Manifest | None:
        """What a release said of itself when it was installed; None for one that came without a bundle."""
        try:
            data = self._tree.read(f"{RELEASES}/{slot}/release.json", MANIFEST_BYTES_MAX)
            return msgspec.json.decode(data, type=Manifest)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
            return None

    # -- acts ---------------------------------------------------------------------------------------------------------

    def install(self, bundle: Bundle, *, by_hand: bool = False) -> Iterator[str]:
        """Unpacks a bundle whose files have been checked. Gives the name of each file when it is durable, so that the
        caller may do other things in between; to stop asking leaves rubbish that the next install removes.

        Raises Corrupt when it must not be installed, Transient when the disk refuses.
        """
        told = bundle.manifest
        state = self.state()
        objection = plan.objection(state, told.number, by_hand=by_hand)
        if objection:
            raise Corrupt(f"release: {objection}")
        state = plan.cleared(state)
        self.save(state)  # durable before the first act: what is not in it is rubbish, whatever the cut leaves
        yield from self._tidy(plan.slots(state))
        room = self._tree.free_bytes() - self._reserve_bytes
        if 2 * told.unpacked_bytes > room:  # bytecode is about as large as its source
            raise Transient(
                f"release: {told.number} unpacks to {2 * told.unpacked_bytes >> 20} MB and"
                f" {max(room, 0) >> 20} MB may be used on {self._root}; make room there"
            )
        slot = str(told.number)
        new = f"{RELEASES}/{slot}.new"
        yield from self._unpack(bundle, new)
        self._tree.rename(new, f"{RELEASES}/{slot}")
        self._tree.sync(RELEASES)
        self.save(plan.staged(state, Release(slot=slot, number=told.number, version=told.version)))
        yield slot

    def save(self, state: State) -> None:
        """Writes the state, durably. Raises Transient."""
        self._disk.list(FOLDER)
        self._disk.replace(STATE, plan.encode(state))

    def follow(self, state: State) -> None:
        """Saves the state, then makes `current` point where it says."""
        self.save(state)
        slot = plan.current(state).slot
        if self.running() != slot:
            self._tree.remove(f"{CURRENT}.new")
            self._tree.link(f"{CURRENT}.new", f"{RELEASES}/{slot}")
            self._tree.rename(f"{CURRENT}.new", CURRENT)
            self._tree.sync("")

    def tidy(self) -> None:
        """Removes what no state names. Not while something is unpacked."""
        for _ in self._tidy(plan.slots(self.state())):
            pass

    def _tidy(self, kept: set[str]) -> Iterator[str]:
        """A folder is renamed before it is emptied: half of a release never has a release's name."""
        running = self.running()
        self._tree.mkdir(RELEASES)
        for name in self._tree.names(RELEASES):
            if name in kept or name == running:
                continue
            gone = name
            if not name.endswith((".new", ".old")):
                gone = f"{name}.old"
                self._tree.remove(f"{RELEASES}/{gone}")
                self._tree.rename(f"{RELEASES}/{name}", f"{RELEASES}/{gone}")
                self._tree.sync(RELEASES)
            self._tree.remove(f"{RELEASES}/{gone}")
            yield gone
        self._tree.sync(RELEASES)

    # -- a virtual environment, file by file --------------------------------------------------------------------------

    def _unpack(self, bundle: Bundle, new: str) -> Iterator[str]:
        folders: list[str] = []
        made: set[str] = set()

        def folder(name: str) -> None:
            if name in made:
                return
            parent = name.rpartition("/")[0]
            if len(name) > len(new):
                folder(parent)
            self._tree.mkdir(name)
            made.add(name)
            folders.append(name)

        def put(path: str, chunks: Iterator[bytes], *, executable: bool = False) -> str:
            folder(f"{new}/{path}".rpartition("/")[0])
            self._tree.create(f"{new}/{path}", chunks, executable=executable)
            return path

        final = self._root / RELEASES / str(bundle.manifest.number)
        version = bundle.manifest.python
        config = f"home = {self._python.parent}\ninclude-system-site-packages = true\nversion = {version}\n"
        folder(f"{new}/bin")
        self._tree.link(f"{new}/bin/python", str(self._python))
        program = _PROGRAM.format(python=final / "bin/python")
        yield put("pyvenv.cfg", iter([config.encode()]))
        yield put("bin/wardpost", iter([program.encode()]), executable=True)
        yield put("release.json", iter([bundle.spelled]))
        for name, file in bundle.wheels():
            wheel = Wheel(file, name, python=version)
            for entry in wheel.entries:
                source: list[bytes] = []
                compiled = entry.path.endswith(".py") and entry.size <= COMPILED_BYTES_MAX
                yield put(
                    entry.path, _noted(wheel.chunks(entry), source if compiled else None), executable=entry.executable
                )
                code = _bytecode(entry.path, b"".join(source)) if compiled else b""
                if code:
                    stem = entry.path.rpartition("/")
                    cached = f"{stem[0]}/__pycache__/{stem[2][:-3]}.{sys.implementation.cache_tag}.pyc"
                    yield put(cached, iter([code]))
        for name in reversed(folders):  # the deepest first: a folder is durable when its parent is synced
            self._tree.sync(name)
        self._tree.sync(RELEASES)


def _noted(chunks: Iterator[bytes], seen: list[bytes] | None) -> Iterator[bytes]:
    for chunk in chunks:
        if seen is not None:
            seen.append(chunk)
        yield chunk


def _bytecode(path: str, source: bytes) -> bytes:
    """A module compiled (PEP 552: by hash, unchecked, for the source cannot change); empty when it does not compile.

    Some packages bring templates and tests for other Pythons that end in .py.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return b""
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    return head + marshal.dumps(code)
