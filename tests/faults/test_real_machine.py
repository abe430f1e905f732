"""The real node process on real file systems and clocks that fail: full, without inodes, failing, gone; out of memory.

Needs root (loop mounts); nbdkit for I/O errors and gcc for the clock are used where they are there.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.assets import Assets
from agent.recording.fragments import scan
from tests.system.powercut.rig import ROOT, attach

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it mounts file systems"),
]

CONFIG = """
[node]
site = "ward"
id = "cam-7"
data = "{data}"

[camera]
driver = "stream"
url = "{footage}"
loop = true

[vision.detector]
driver = "none"

[recording]
segment_s = 10
budget_gb = 0.05
free_gb_min = 0.002

[uplink]
brokers = ["mqtt://127.0.0.1:9"]
"""

CLOCK_C = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static volatile long long *offset;
static int (*real_clock)(clockid_t, struct timespec *);
__attribute__((constructor)) static void start(void) {
  int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY);
  offset = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
  real_clock = dlsym(RTLD_NEXT, "clock_gettime");
}
int clock_gettime(clockid_t id, struct timespec *t) {
  int r = real_clock(id, t);
  if (id == CLOCK_REALTIME) t->tv_sec += *offset;
  return r;
}
time_t time(time_t *t) { struct timespec s; clock_gettime(CLOCK_REALTIME, &s); if (t) *t = s.tv_sec; return s.tv_sec; }
int gettimeofday(struct timeval *restrict t, void *restrict z) {
  struct timespec s; clock_gettime(CLOCK_REALTIME, &s); t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000; return 0;
}
"""


class Machine:
    """A node's process and the folder that it runs on."""

    def __init__(self, folder: Path, footage: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir()
        self.config = folder / "node.toml"
        self.config.write_text(CONFIG.format(data=self.data, footage=footage))
        self.words = folder / "node.log"
        self.environment: dict[str, str] = {}
        self.memory_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        def limit() -> None:
            if self.memory_bytes:
                resource.setrlimit(resource.RLIMIT_AS, (self.memory_bytes, self.memory_bytes))

        with self.words.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent.cli", "run", "--config", str(self.config)],
                stdout=log, stderr=log, cwd=ROOT, env={**os.environ, **self.environment}, preexec_fn=limit,  # noqa: PLW1509  (no threads here)
            )  # fmt: skip

    def ends_within(self, seconds: float) -> int | None:
        assert self._process is not None
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(30)
        self._process = None
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def written(self) -> int:
        return sum(path.stat().st_size for path in self.data.glob("segments/*.mp4"))

    def wait(self, what: str, ready: Callable[[], bool], seconds: float = 40.0) -> None:
        by = time.monotonic() + seconds
        while not ready():
            assert self._process is not None
            assert self._process.poll() is None, f"it ended while {what}:\n{self.words.read_text()[-3000:]}"
            assert time.monotonic() < by, f"not within {seconds} s: {what}\n{self.words.read_text()[-3000:]}"
            time.sleep(0.1)

    def wait_recording(self) -> None:
        """More footage than there was, in a file that grows."""
        seen = {path.name: path.stat().st_size for path in self.data.glob("segments/*.mp4")}
        self.wait("it records", lambda: any(
            path.stat().st_size > seen.get(path.name, 0) + 20_000 for path in self.data.glob("segments/*.mp4")
        ))  # fmt: skip

    def says(self, text: str) -> bool:
        return text in self.words.read_text()

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        db = sqlite3.connect(self.data / "wardpost.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()

    def check(self) -> None:
        """Of a stopped node: rows are whole files, the holes are explained, and nothing was a surprise to it."""
        rows = self.rows("select name, bytes, sha256 from segment where state = 'sealed'")
        assert rows
        for name, size, sha256 in rows:
            with (self.data / str(name)).open("rb") as file:
                found = scan(file)
            assert (found.trusted, found.sha256) == (size, sha256), name
        assert "Traceback" not in self.words.read_text(), self.words.read_text()[-4000:]

    def storage_gap_s(self) -> float:
        return float(
            self.rows("select coalesce(sum(end_ns - start_ns), 0) / 1e9 from gap where cause = 'storage-fault'")[0][0]  # type: ignore[arg-type]
        )


@pytest.fixture
def machine(tmp_path: Path, assets: Assets) -> Iterator[Machine]:
    made = Machine(tmp_path, assets.footage())
    yield made
    made.kill()


@pytest.fixture
def mounts() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def mount_ext4(machine: Machine, mounts: ExitStack, size: int = 96 << 20, *options: str) -> str:
    image = machine.folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", *options, image], check=True)
    device = attach(image)
    mounts.callback(lambda: subprocess.run(["losetup", "-d", device]))
    subprocess.run(["mount", "-t", "ext4", "-o", "noatime", device, machine.data], check=True)
    mounts.callback(lambda: subprocess.run(["umount", "-l", machine.data], capture_output=True))
    mounts.callback(machine.kill)
    return device


def test_a_disk_that_fills_up_and_is_emptied(machine: Machine, mounts: ExitStack) -> None:
    """Somebody else fills the card to the last byte: retention gives way, recording goes on or resumes by itself."""
    mount_ext4(machine, mounts)
    machine.start()
    machine.wait_recording()
    filler = machine.data / "filler"
    by = time.monotonic() + 20.0
    with filler.open("wb", buffering=0) as file:
        while time.monotonic() < by:
            try:
                file.write(bytes(1 << 16))
            except OSError:
                time.sleep(0.02)
    filler.unlink()
    machine.wait_recording()
    assert machine.stop() == 0
    machine.check()
    print(f"disk full for 20 s: {machine.storage_gap_s():.1f} s of storage-fault")


def test_a_disk_without_inodes(machine: Machine, mounts: ExitStack) -> None:
    mount_ext4(machine, mounts, 96 << 20, "-N", "96")
    machine.start()
    machine.wait_recording()
    files: list[Path] = []
    by = time.monotonic() + 25.0
    while time.monotonic() < by:
        path = machine.data / f"x{len(files)}"
        try:
            path.touch()
            files.append(path)
        except OSError:
            time.sleep(0.01)
    machine.wait("it says so", lambda: machine.says("No space left"))
    for path in files:
        path.unlink()
    machine.wait_recording()
    assert machine.stop() == 0
    machine.check()
    print(f"no inodes for 25 s: {machine.storage_gap_s():.1f} s of storage-fault")


def test_a_file_system_that_turns_read_only(machine: Machine, mounts: ExitStack) -> None:
    """ext4 finds an error and goes read-only, as it does on a dying card; after fsck the next start has everything."""
    device = mount_ext4(machine, mounts)
    subprocess.run(["mount", "-o", "remount,errors=remount-ro", machine.data], check=True)
    trigger = Path(f"/sys/fs/ext4/{Path(device).name}/trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel cannot be told to find an error")
    machine.start()
    machine.wait_recording()
    trigger.write_text("test\n")
    machine.wait("it says so", lambda: machine.says("ead-only"))
    time.sleep(3.0)
    assert machine.stop() in {0, 70}
    subprocess.run(["umount", machine.data], check=True)
    subprocess.run(["e2fsck", "-fy", device], capture_output=True)
    subprocess.run(["mount", "-t", "ext4", "-o", "noatime", device, machine.data], check=True)
    machine.start()
    machine.wait_recording()
    assert machine.stop() == 0
    machine.check()


def test_the_data_folder_vanishes_and_comes_back(machine: Machine, mounts: ExitStack) -> None:
    """Unmounted under the running node: nothing is written to the card below; when it is back, recording goes on."""
    device = mount_ext4(machine, mounts)
    machine.start()
    machine.wait_recording()
    subprocess.run(["umount", "-l", machine.data], check=True)
    machine.wait("it says so", lambda: machine.says("is not the folder"))
    time.sleep(6.0)
    assert list(machine.data.iterdir()) == [], "footage or folders were made below the mount point"
    subprocess.run(["mount", "-t", "ext4", "-o", "noatime", device, machine.data], check=True)
    machine.wait_recording()
    assert machine.stop() == 0
    machine.check()


def test_write_errors_of_the_card(machine: Machine, mounts: ExitStack) -> None:
    """Every write to the device fails for a while, then the file system is mended and the node started again."""
    if not (shutil.which("nbdkit") and shutil.which("nbdfuse")):
        pytest.skip("needs Debian's nbdkit and libnbd-bin")
    folder = machine.folder
    image, sock, export, broken = (folder / name for name in ("disk.img", "disk.sock", "export", "broken"))
    with image.open("wb") as file:
        file.truncate(96 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=0", image], check=True)
    export.touch()
    server = subprocess.Popen(
        ["nbdkit", "-f", "-U", sock, "--filter=error", "file", image,
         "error-pwrite-rate=100%", "error=EIO", f"error-pwrite-file={broken}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    mounts.callback(server.wait)
    mounts.callback(server.kill)
    time.sleep(1.0)
    fuse = subprocess.Popen(["nbdfuse", export, "--unix", sock], stderr=subprocess.DEVNULL)
    mounts.callback(fuse.wait)
    mounts.callback(lambda: subprocess.run(["fusermount3", "-u", "-z", export], capture_output=True))
    by = time.monotonic() + 10
    while export.stat().st_size == 0 and time.monotonic() < by:
        time.sleep(0.05)
    device = attach(export)
    mounts.callback(lambda: subprocess.run(["losetup", "-d", device]))
    subprocess.run(["mount", "-t", "ext4", "-o", "noatime,errors=remount-ro", device, machine.data], check=True)
    mounts.callback(lambda: subprocess.run(["umount", "-l", machine.data], capture_output=True))
    mounts.callback(machine.kill)
    machine.start()
    machine.wait_recording()
    sealed = machine.written()
    assert sealed
    broken.touch()
    machine.wait("it says so", lambda: machine.says("Recording has stopped") or machine.says("I/O error"))
    time.sleep(5.0)
    code = machine.stop()
    assert code in {0, 70}, f"exit {code}:\n{machine.words.read_text()[-2000:]}"
    broken.unlink()
    subprocess.run(["umount", machine.data], check=True)
    subprocess.run(["e2fsck", "-fy", device], capture_output=True)
    subprocess.run(["mount", "-t", "ext4", "-o", "noatime", device, machine.data], check=True)
    machine.start()
    machine.wait_recording()
    assert machine.stop() == 0
    machine.check()


def test_out_of_memory_ends_cleanly_and_the_next_start_recovers(machine: Machine) -> None:
    """An address space too small for it, at several sizes: no hang, no half start that looks well; then all is well."""
    machine.start()
    machine.wait_recording()
    machine.stop(signal.SIGKILL)
    for megabytes in (120, 300, 500, 700):
        machine.memory_bytes = megabytes << 20
        machine.start()
        if machine.ends_within(15.0) is None:
            machine.stop(signal.SIGTERM)
        else:
            machine.kill()
    machine.memory_bytes = 0
    machine.words.write_text("")
    machine.start()
    machine.wait_recording()
    assert machine.stop() == 0
    machine.check()


def test_a_wall_clock_that_leaps_from_1970_under_a_running_node(machine: Machine) -> None:
    """A real process with a real clock that lies: 1970 at the start, today later, then ten years on, then back."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    source, library, offset = (machine.folder / name for name in ("clock.c", "clock.so", "offset"))
    source.write_text(CLOCK_C)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    offset.write_bytes(struct.pack("q", -int(time.time())))
    machine.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(offset)}
    machine.start()
    machine.wait_recording()
    began = time.monotonic()  # how long it takes to load says how busy the machine is
    for leap in (0, 10 * 365 * 86_400, -3600):
        with offset.open("r+b") as file:
            file.write(struct.pack("q", leap))
        time.sleep(6.0)
    machine.wait_recording()
    lived_s = time.monotonic() - began
    assert machine.stop() == 0
    machine.check()
    recorded = machine.rows("select sum(end_ns - start_ns) / 1e9 from segment")[0][0]
    assert float(recorded) > 0.6 * lived_s  # type: ignore[arg-type]
    assert machine.rows("select count(*) from tombstone") == [(0,)], "a leap of the clock has deleted footage"
    assert int(machine.rows("select count(*) from anchor")[0][0]) >= 4, "a leap without an anchor"  # type: ignore[call-overload]
