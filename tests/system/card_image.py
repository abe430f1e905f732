"""Images of cards as the stock ones are: MBR, FAT32 at 8 MiB, ext4 behind it. Needs dosfstools, fdisk, e2fsprogs, mtools."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

MIB = 1 << 20
BOOT_AT = 8 * MIB
TRIXIE_LINE = "console=serial0,115200 console=tty1 root=PARTUUID=4e8a1b2c-02 rootfstype=ext4 rootwait resize\n"
BOOKWORM_LINE = "console=tty1 root=PARTUUID=4e8a1b2c-02 rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
_LOADERS = {"x86_64": "usr/lib64/ld-linux-x86-64.so.2", "aarch64": "usr/lib/ld-linux-aarch64.so.1"}
_ENV = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "MTOOLSRC": "/dev/null"}


def tool(*command: str | Path, text: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], input=text, env=_ENV, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def make_card(
    path: Path,
    *,
    boot_mib: int = 320,
    arch: str = "x86_64",
    python: str = "3.11",
    trixie: bool = True,
    root: Path | None = None,
    root_mib: int = 24,
) -> Path:
    """Writes the image; sparse, so that it costs little. `root`: a whole system; else a few files that tell of one."""
    root_at = BOOT_AT + boot_mib * MIB
    with path.open("wb") as file:
        file.truncate(root_at + root_mib * MIB)
    table = (
        "label: dos\nlabel-id: 0x4e8a1b2c\n"
        f"start={BOOT_AT // 512}, size={boot_mib * 2048}, type=c\nstart={root_at // 512}, size={root_mib * 2048}, type=83\n"
    )
    tool("sfdisk", "-q", path, text=table)
    tool("mkfs.vfat", "-F", "32", "-s", "1", "-n", "bootfs", f"--offset={BOOT_AT // 512}", path, str(boot_mib * 1024))
    content = root or _tell_tale(path.with_suffix(".root"), arch, python)
    # Inode tables and journal are written here: in the machine the kernel would do it while the post first boots.
    options = f"offset={root_at},lazy_itable_init=0,lazy_journal_init=0"
    tool("mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", "rootfs", "-d", content, "-E", options, path, f"{root_mib}M")
    if root is None:
        shutil.rmtree(content)
    stock = {
        "cmdline.txt": TRIXIE_LINE if trixie else BOOKWORM_LINE,
        "config.txt": "arm_64bit=1\n",
        "issue.txt": "stock\n",
    }
    if trixie:
        stock |= {"meta-data": "instance_id: stock\n", "user-data": "#cloud-config\n", "network-config": "#\n"}
    for name, text in stock.items():
        source = path.with_suffix(".txt")
        source.write_text(text)
        tool("mcopy", "-o", "-i", f"{path}@@{BOOT_AT}", source, f"::/{name}")
        source.unlink()
    return path


def _tell_tale(folder: Path, arch: str, python: str) -> Path:
    for name in (_LOADERS[arch], f"usr/bin/python{python}", "etc/hostname"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("stock\n")
    return folder


def read_boot(image: Path, folder: Path) -> Path:
    """The whole boot partition, into a folder."""
    folder.mkdir(parents=True)
    tool("mcopy", "-s", "-n", "-i", f"{image}@@{BOOT_AT}", "::/*", folder)
    return folder


def check_file_systems(image: Path, folder: Path) -> None:
    """fsck of the boot partition and of the root; both only look."""
    layout = tool("sfdisk", "-d", image)
    sizes = [int(line.split("size=")[1].split(",")[0]) for line in layout.splitlines() if "size=" in line]
    part = folder / "boot.fat"
    tool("dd", f"if={image}", f"of={part}", "bs=1M", "skip=8", f"count={sizes[0] // 2048}", "conv=sparse")
    tool("fsck.vfat", "-n", part)
    part.unlink()
    tool("e2fsck", "-fn", f"{image}?offset={BOOT_AT + sizes[0] * 512}")
