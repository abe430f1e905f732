"""A flashed card in a computer: stock Debian with cloud-init on it, and no network but the site's broker.

The computer has no firmware that reads the card's boot partition as a Raspberry Pi's does, so this does it: the kernel's
command line is the cmdline.txt of the card, with the console of this computer.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.system.card_image import BOOT_AT, make_card, tool
from tests.system.powercut.rig import DiskServer
from tests.system.vm.emulator import Emulator

HERE = Path(__file__).resolve().parent
FOLDER = Path(os.environ.get("WARDPOST_CARD_VM", "/var/tmp/wardpost-card-vm"))
FILM = "/srv/camera.mp4"  # on the node: what its camera sees
BROKER = "10.0.2.100"  # where the machine finds the broker
# The network card by the name that it has on a Raspberry Pi; QEMU 7.2 makes a mess of the instruction cmpxchg16b, on
# which the kernel dies within a minute; the rest spares an emulated processor what no post would miss.
KERNEL = "net.ifnames=0 clearcpuid=cx16 mitigations=off lsm=capability audit=0 cryptomgr.notests quiet systemd.show_status=error"
ROOT_MIB = 2560
CARD_BYTES = 4 << 30  # the rest is for footage


def stock_image(path: Path, film: Path) -> Path:
    """The image of a stock card, a sparse file. The system on it is made once and kept: about 80 s."""
    subprocess.run([HERE / "card" / "build.sh", FOLDER], check=True, timeout=900)
    shutil.copyfile(film, FOLDER / "root" / FILM.lstrip("/"))
    return make_card(path, root=FOLDER / "root", root_mib=ROOT_MIB)


class CardMachine(Emulator):
    """One switched-on computer with the card in it. `card` is written in place."""

    def __init__(self, folder: Path, card: Path, broker_port: int, *, name: str) -> None:
        self.card = card
        self.disk = DiskServer(folder, card, name)
        line = self.read("cmdline.txt").strip().replace("console=serial0,115200 console=tty1", "console=ttyS0")
        relay = f"{sys.executable} -I {HERE / 'relay.py'} 127.0.0.1 {broker_port}"
        super().__init__(
            FOLDER,
            folder / f"{name}.serial",
            append=f"{line} {KERNEL}",
            network=f"user,id=net,restrict=on,guestfwd=tcp:{BROKER}:8883-cmd:{relay}",
            more=[["-drive", f"file=nbd+unix:///?socket={self.disk.socket},format=raw,if=virtio,cache=writeback"]],
        )

    def read(self, name: str) -> str:
        """A file of the boot partition as it is on the card at this moment; what is not flushed may be missing."""
        return tool("mtype", "-i", f"{self.card}@@{BOOT_AT}", f"::/{name}")

    def said(self) -> str:
        """Its console."""
        return self.serial.read_text(errors="replace")

    def cut(self) -> None:
        """The power goes, and the log ends."""
        super().cut()
        self.disk.close()
