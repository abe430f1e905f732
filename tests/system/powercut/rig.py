"""A real file system on the logging disk, and the node on it.

    image file -> blocklog.py (NBD server) -> nbdfuse (a file) -> losetup (a disk) -> ext4

Needs root and Debian's libnbd-bin, fuse3, e2fsprogs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from tests.system.powercut.blocklog import Marker
from tests.system.powercut.rebuild import sparse_copy

ROOT = Path(__file__).resolve().parents[3]
DISK_BYTES = 1 << 30
START_S_MAX = 120.0  # a busy machine; half a second on a quiet one
NEEDED = {"nbdfuse": "libnbd-bin", "fusermount3": "fuse3", "losetup": "mount", "mke2fs": "e2fsprogs"}


def missing() -> str:
    """Why this machine cannot run a logging disk; empty when it can."""
    if os.geteuid() != 0:
        return "needs root: it mounts file systems"
    lacking = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    return f"needs Debian's {', '.join(lacking)}: make test-system installs them" if lacking else ""


def make_base(path: Path, *, size: int = DISK_BYTES, label: str = "wardpost-data") -> None:
    """A fresh ext4 as the installer makes it (ordered data, 4 KiB blocks), in a sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", label, "-E", "lazy_itable_init=0,lazy_journal_init=0", path],
        check=True,
    )


def wait_until(what: str, ready: object, timeout_s: float = START_S_MAX) -> None:
    """Polls `ready()`."""
    by = time.monotonic() + timeout_s
    while not ready():  # type: ignore[operator]
        if time.monotonic() > by:
            raise RuntimeError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(0.02)


def module(name: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of one of these modules."""
    return [sys.executable, "-m", f"tests.system.powercut.{name}", *arguments]


class DiskServer:
    """blocklog.py as a process of its own. `image` is written in place."""

    def __init__(self, folder: Path, image: Path, name: str = "disk") -> None:
        self.socket, self.control, self.log = (folder / f"{name}.{end}" for end in ("nbd", "control", "log"))
        self._process = subprocess.Popen(
            module("blocklog", "--disk", image, "--log", self.log, "--socket", self.socket, "--control", self.control),
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the logging disk did not start")

    def close(self) -> None:
        """Ends the log where it stands."""
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def attach(file: Path) -> str:
    """A loop device on a file; its node is made when this machine has none left."""
    for _ in range(20):
        device = subprocess.run(["losetup", "-f"], check=True, capture_output=True, text=True).stdout.strip()
        if not Path(device).exists():
            with contextlib.suppress(FileExistsError):
                os.mknod(device, 0o600 | stat.S_IFBLK, os.makedev(7, int(device.removeprefix("/dev/loop"))))
        if subprocess.run(["losetup", device, file], capture_output=True).returncode == 0:
            return device
        time.sleep(0.05)  # somebody else was faster
    raise RuntimeError(f"no loop device for {file}")


class LoggedMount:
    """A folder on a logging disk. `base` is the disk as it was when the log began; `log` is what happened since."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.base, self._image = folder / "base.img", folder / "disk.img"
        make_base(self.base)
        sparse_copy(self.base, self._image)
        self._undo = contextlib.ExitStack()
        try:
            self._open()
        except BaseException:
            self._undo.close()
            raise

    def _open(self) -> None:
        self.server = DiskServer(self.folder, self._image)
        self._undo.callback(self.server.close)
        export = self.folder / "export"
        export.touch()
        fuse = subprocess.Popen(["nbdfuse", export, "--unix", self.server.socket], stderr=subprocess.PIPE)
        self._undo.callback(self._end_fuse, fuse, export)
        size = self.base.stat().st_size
        wait_until("nbdfuse", lambda: fuse.poll() is not None or export.stat().st_size == size)
        device = attach(export)
        self._undo.callback(lambda: subprocess.run(["losetup", "-d", device]))
        self.path = self.folder / "mnt"
        self.path.mkdir()
        subprocess.run(["mount", "-t", "ext4", "-o", "noatime", device, self.path], check=True)
        self._undo.callback(lambda: subprocess.run(["umount", self.path]))
        self.marker = Marker(self.server.control)
        self._undo.callback(self.marker.close)

    @staticmethod
    def _end_fuse(process: subprocess.Popen[bytes], export: Path) -> None:
        subprocess.run(["fusermount3", "-u", "-z", export], check=False, capture_output=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()

    @property
    def log(self) -> Path:
        return self.server.log

    def close(self) -> None:
        """Unmounts and ends the log. What the unmounting writes is in the log too: a cut may fall there."""
        self._undo.close()


class LoggedNode:
    """`wardpost run` on a logged folder, killed and started again; see entry.py."""

    def __init__(self, mount: LoggedMount, config: Path, *, bug: str = "") -> None:
        self._mount = mount
        self._config = config
        self._bug = ["--bug", bug] if bug else []
        self.words = mount.folder / "node.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.words.open("ab") as log:
            self._process = subprocess.Popen(
                module("entry", self._config, self._mount.server.control, *self._bug),
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def end(self, number: signal.Signals) -> int:
        """Ends it with a signal and says in the log that it does not run any more."""
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(timeout=START_S_MAX)
        self._process = None
        if code != 0:
            self._mount.marker(json.dumps({"t": "end"}).encode())
        return code

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
