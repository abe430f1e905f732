"""A computer in QEMU, switched on when it is made and off when its power is cut; its disk is a logging disk.

The processor is emulated (accel=tcg): nothing of the host's kernel is needed. Killing QEMU alone is too kind a power
cut: the host keeps every write. The logging disk knows which of them the guest had flushed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}


def missing() -> str:
    """Why this machine cannot build or run a virtual one; empty when it can."""
    if os.geteuid() != 0:
        return "needs root: it builds a Debian image"
    lacking = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    return f"needs Debian's {', '.join(lacking)}: make test-system installs them" if lacking else ""


class Emulator:
    """One switched-on computer. `serial` takes what it writes on its console."""

    def __init__(
        self, images: Path, serial: Path, *, append: str, network: str, more: Sequence[Sequence[str | Path]]
    ) -> None:
        """`images`: holds vmlinuz and initrd. `append`: the kernel's command line. `more`: disks and ports."""
        self.serial = serial
        serial.touch()
        command: list[Sequence[str | Path]] = [
            ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256"],
            ["-cpu", "Nehalem", "-smp", "2", "-m", "768"],
            ["-nodefaults", "-nographic", "-no-reboot", "-rtc", "base=utc"],
            ["-kernel", images / "vmlinuz", "-initrd", images / "initrd", "-append", append],
            ["-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"],
            ["-chardev", f"file,id=serial,path={serial}", "-serial", "chardev:serial"],
            *more,
        ]
        self._process = subprocess.Popen(
            [str(word) for line in command for word in line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def running(self) -> bool:
        return self._process.poll() is None

    def cut(self) -> None:
        """The power goes: the computer is gone between two instructions."""
        self._process.kill()
        self._process.wait()


def wait_for(what: str, happened: Callable[[], bool], machine: Emulator, timeout_s: float) -> float:
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
