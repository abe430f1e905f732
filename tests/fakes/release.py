"""A node's releases on simulated disks: bundles, the launcher on the fakes, and what must hold after every power cut."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from agent.errors import Transient
from agent.evidence import keys
from agent.release.bundle import Bundle, open_bundle, this_architecture, this_python
from agent.release.making import make
from agent.release.slots import STATE, Slots
from tests.fakes.disk import FakeDisk
from tests.fakes.tree import FakeTree
from tests.fakes.wheels import wheel

ROOT = Path(__file__).resolve().parents[2]
KEY = keys.generate()


def launcher() -> ModuleType:
    """deploy/wardpost-launch as a module."""
    path = str(ROOT / "deploy/wardpost-launch")
    spec = importlib.util.spec_from_loader(
        "wardpost_launch", importlib.machinery.SourceFileLoader("wardpost_launch", path)
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bundle_bytes(folder: Path, number: int, *, version: str = "", padding: int = 0) -> bytes:
    """A bundle for this machine with a tiny agent in it."""
    version = version or f"1.{number}"
    wheels = folder / f"wheels-{number}"
    files = {
        "agent/__init__.py": f"__version__ = {version!r}\n".encode(),
        "agent/cli.py": b"def main():\n    return 0\n",
        "agent/data.bin": bytes(range(256)) * 4 + bytes(padding),
    }
    wheel(wheels, files, version=version)
    output = folder / f"release-{number}.zip"
    make(output, signer=KEY, wheels=wheels, number=number, architecture=this_architecture(), python=this_python())
    return output.read_bytes()


def opened(data: bytes) -> Bundle:
    """A bundle whose files have been checked."""
    found = open_bundle(io.BytesIO(data), public=KEY.public)
    for _ in found.check_files():
        pass
    return found


class FakeFiles:
    """What the launcher touches, on the simulated disks."""

    def __init__(self, tree: FakeTree, disk: FakeDisk, boot: str = "") -> None:
        self._tree, self._disk, self._boot = tree, disk, boot

    def boot(self) -> str:
        return self._boot

    def read(self) -> bytes | None:
        try:
            with self._disk.open(STATE) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def save(self, data: bytes) -> None:
        try:
            self._disk.replace(STATE, data)
        except Transient as error:
            raise OSError(str(error)) from None

    def target(self) -> str:
        return self._tree.target("current")

    def point(self, slot: str) -> None:
        self._tree.remove("current.launch")
        self._tree.link("current.launch", f"releases/{slot}")
        self._tree.rename("current.launch", "current")
        self._tree.sync("")

    def whole(self, slot: str) -> bool:
        return self._tree.exists(f"releases/{slot}/bin/wardpost") and self._tree.exists(f"releases/{slot}/bin/python")

    def slots(self) -> list[str]:
        return self._tree.names("releases")


class Card:
    """A node that was installed by hand (`base`), and everything about its releases that survives a cut."""

    def __init__(self, make_slots: Callable[..., Slots] = Slots) -> None:
        self.tree = FakeTree()
        self.disk = FakeDisk()
        self.boots = 1
        self.disk.list("release")
        for folder in ("releases", "releases/base", "releases/base/bin"):
            self.tree.mkdir(folder)
        for name in ("wardpost", "python"):
            self.tree.create(f"releases/base/bin/{name}", [b"#!"])
        self.tree.link("current", "releases/base")
        for folder in ("releases/base/bin", "releases/base", "releases", ""):
            self.tree.sync(folder)
        self._make = make_slots
        self._launcher: Any = launcher()

    @property
    def slots(self) -> Slots:
        """As a process that has just started has it."""
        return self._make(
            tree=self.tree,
            disk=self.disk,
            root=Path("/opt/wardpost"),
            base_python=Path("/usr/bin/python3"),
            reserve_bytes=0,
        )

    def on_step(self, crash_point: Callable[[str], None]) -> None:
        self.tree.crash_point = self.disk.crash_point = crash_point

    def power_cut(self, choose: Callable[[int], int]) -> None:
        self.on_step(lambda _step: None)
        self.boots += 1
        self.tree.power_cut(choose)
        self.disk.power_cut(choose)
        self.disk._folders.add("release")

    def start(self) -> str:
        """What systemd does before each start of the node."""
        said: str = self._launcher.launch(FakeFiles(self.tree, self.disk, f"{self.boots:032x}"))
        return said
