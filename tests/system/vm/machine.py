"""A post as a virtual machine: Debian, systemd, the node as its service; its data partition is a logging disk.

The root disk starts every time as it was built.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.brokers import NatsServer
from tests.system.powercut.rig import ROOT, DiskServer
from tests.system.vm.emulator import Emulator
from tests.system.vm.heard import Heard

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("WARDPOST_VM", "/var/tmp/wardpost-vm"))
NODE = "vm"


def build() -> None:
    """Makes the images, or finds them made; the first time takes about three minutes."""
    subprocess.run([HERE / "build.sh", FOLDER, ROOT, sys.executable], check=True, timeout=1200)


class Machine(Emulator):
    """One switched-on machine. `data` is its data partition, written in place."""

    def __init__(self, folder: Path, data: Path, broker_port: int, *, name: str) -> None:
        self.disk = DiskServer(folder, data, name)
        self._told = folder / f"{name}.told"
        self._told.touch()
        words = (
            "root=LABEL=wardpost-root rw console=ttyS0 quiet systemd.show_status=1 net.ifnames=0 mitigations=off"
            f" wardpost.broker=mqtt://10.0.2.2:{broker_port}"
        )
        disk = f"nbd+unix:///?socket={self.disk.socket}"
        super().__init__(
            FOLDER,
            folder / f"{name}.serial",
            append=words,
            network="user,id=net",
            more=[
                ["-drive", f"file={FOLDER / 'root.img'},format=raw,if=virtio,snapshot=on"],
                ["-drive", f"file={disk},format=raw,if=virtio,cache=writeback"],
                ["-chardev", f"file,id=told,path={self._told}", "-device", "virtio-serial-pci"],
                ["-device", "virtserialport,chardev=told,name=wardpost"],
            ],
        )

    def told(self) -> list[bytes]:
        """The whole lines that have come out of the machine: what it has promised."""
        return self._told.read_bytes().split(b"\n")[:-1]

    def cut(self) -> None:
        """The power goes, and the log ends."""
        super().cut()
        self.disk.close()


class Headquarters(Heard):
    """Broker and station on the host."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "station", NODE)
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
