"""A post as a virtual machine: Debian, systemd, the node as its service; its data partition is a logging disk.

QEMU emulates the processor (accel=tcg): nothing of the host's kernel is needed. The root disk starts every time as it
was built. Killing QEMU alone is too kind a power cut: the host keeps every write. The logging disk knows which of them
the guest had flushed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.e2e.brokers import NatsServer
from tests.system.powercut.rig import ROOT, DiskServer

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("WARDPOST_VM", "/var/tmp/wardpost-vm"))
NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
NODE = "vm"


def missing() -> str:
    """Why this machine cannot build or run the virtual one; empty when it can."""
    if os.geteuid() != 0:
        return "needs root: it builds a Debian image"
    lacking = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    return f"needs Debian's {', '.join(lacking)}: make test-system installs them" if lacking else ""


def build() -> None:
    """Makes the images, or finds them made; the first time takes about three minutes."""
    subprocess.run([HERE / "build.sh", FOLDER, ROOT, sys.executable], check=True, timeout=1200)


class Machine:
    """One switched-on machine. `data` is its data partition, written in place."""

    def __init__(self, folder: Path, data: Path, broker_port: int, *, name: str) -> None:
        self.disk = DiskServer(folder, data, name)
        self._told = folder / f"{name}.told"
        self.serial = folder / f"{name}.serial"
        self._told.touch()
        words = (
            "root=LABEL=wardpost-root rw console=ttyS0 quiet systemd.show_status=1 net.ifnames=0 mitigations=off"
            f" wardpost.broker=mqtt://10.0.2.2:{broker_port}"
        )
        self._process = subprocess.Popen(
            [str(word) for line in self._command(words) for word in line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _command(self, words: str) -> list[list[str | Path]]:
        disk = f"nbd+unix:///?socket={self.disk.socket}"
        return [
            ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256"],
            ["-cpu", "Nehalem", "-smp", "2", "-m", "768"],
            ["-nodefaults", "-nographic", "-no-reboot", "-rtc", "base=utc"],
            ["-kernel", FOLDER / "vmlinuz", "-initrd", FOLDER / "initrd", "-append", words],
            ["-drive", f"file={FOLDER / 'root.img'},format=raw,if=virtio,snapshot=on"],
            ["-drive", f"file={disk},format=raw,if=virtio,cache=writeback"],
            ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"],
            ["-chardev", f"file,id=told,path={self._told}", "-device", "virtio-serial-pci"],
            ["-device", "virtserialport,chardev=told,name=wardpost"],
            ["-chardev", f"file,id=serial,path={self.serial}", "-serial", "chardev:serial"],
        ]

    def running(self) -> bool:
        return self._process.poll() is None

    def told(self) -> list[bytes]:
        """The whole lines that have come out of the machine: what it has promised."""
        return self._told.read_bytes().split(b"\n")[:-1]

    def cut(self) -> None:
        """The power goes: the machine is gone between two instructions, and the log ends."""
        self._process.kill()
        self._process.wait()
        self.disk.close()


class Headquarters:
    """Broker and station on the host."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "broker").mkdir()
        (folder / "station").mkdir()
        self.broker = NatsServer(folder / "broker")
        self.broker.start()
        self._station = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.station_process", folder / "station", self.broker.url],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self._station.kill()
        self._station.wait()
        self.broker.stop()

    def heartbeat(self) -> dict[str, object]:
        """The newest heartbeat of the post that the station has; empty: none."""
        rows = self._rows("select heartbeat from node where node = ? and said = 'online'", NODE)
        return dict(json.loads(rows[0][0])) if rows and rows[0][0] else {}

    def events(self) -> list[tuple[str, int, str]]:
        """What the station has of the post: epoch, sequence, id."""
        return self._rows(
            "select epoch, sequence, id from event join stream using (stream) where node = ?"
            " and kind <> 'record' order by 1, 2",
            NODE,
        )

    def _rows(self, sql: str, *args: object) -> list[tuple[str, int, str]]:
        path = self._folder / "station" / "station.db"
        if not path.exists():
            return []
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(sqlite3.connect(path)) as db:
            return db.execute(sql, args).fetchall()
        return []


def wait_for(what: str, happened: Callable[[], bool], machine: Machine, timeout_s: float) -> float:
    """Waits until it has happened; returns how long that took. Raises with the machine's console when it does not."""
    began = time.monotonic()
    while not happened():
        took_s = time.monotonic() - began
        if took_s > timeout_s or not machine.running():
            raise AssertionError(
                f"{what}: not within {took_s:.0f} s; the console:\n{machine.serial.read_text(errors='replace')[-3000:]}"
            )
        time.sleep(0.2)
    return time.monotonic() - began
