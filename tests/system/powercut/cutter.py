"""Tries cuts of one block log: makes the image, mounts it, boots the node's own way, judges. One JSON line per cut.

    python -m tests.system.powercut.cutter --work FOLDER --config TOML --scratch FOLDER

WORK holds disk.log and base.img (see rig.LoggedMount); SCRATCH, on tmpfs, holds cuts.json and takes the images.

A process of its own, so that several can share the work, each with a part of the cuts.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.config import Config, load
from agent.disk import PosixDisk
from agent.recording.recover import recover
from tests.system.powercut.judge import (
    NextBoot,
    Promises,
    Verdict,
    boot,
    disk_promises,
    fsck,
    gather,
    verdict,
)
from tests.system.powercut.rebuild import BlockLog, Cut, Rebuilder

MOUNT_TRIES_MAX = 20
MOUNT_PAUSE_S = 0.1
SUPERBLOCK_TORN = "Superblock invalid"  # e2fsck's words


class Cutter:
    """Judges cuts in rising order."""

    def __init__(self, *, log: Path, base: Path, config: Path, scratch: Path) -> None:
        self._log = BlockLog(log)
        self._rebuilder = Rebuilder(self._log, base, scratch)
        self._config = load(config, Config)
        self._image = scratch / "cut.img"
        self._mount = scratch / "mnt"
        self._mount.mkdir(exist_ok=True)
        self._marks = self._log.marks()
        self._noted = 0
        self._promises = Promises()

    def judge(self, cut: Cut) -> tuple[Verdict, int]:
        """The verdict, and how many unflushed bytes the cut lost."""
        while self._noted < len(self._marks) and self._marks[self._noted][0] <= cut.position:
            self._promises.note(self._marks[self._noted][1])
            self._noted += 1
        lost_bytes = self._rebuilder.image(cut, self._image)
        broken: list[str] = []
        mount_as_at_boot(self._image, self._mount)
        try:
            broken += disk_promises(self._mount, self._promises, names=True)
            found = self._boot()
        except Exception as error:  # whatever it is: a post that does not boot is the worst of all verdicts
            found = Verdict((f"it does not boot: {type(error).__name__}: {error}",), None, 0.0)
        finally:
            self._unmount()
        code, words = fsck(self._image)
        if code:
            broken.append(f"e2fsck says {code}: {words[-300:]}")
        return Verdict((*broken, *found.broken), found.lost_s, found.waiting_s), lost_bytes

    def _unmount(self) -> None:
        """A boot that failed half-way may have left a file open: the exception has gone by now, its frames follow."""
        if subprocess.run(["umount", self._mount], capture_output=True).returncode:
            gc.collect()
            subprocess.run(["umount", self._mount], check=True)

    def _boot(self) -> Verdict:
        node = boot(self._config, self._mount)
        try:
            clock = NextBoot()
            session = node.store.sessions()[-1]
            facts = gather(self._mount, node.store, boot_id=session.boot_id, boot_ns=clock.boot_ns())
            again = recover(disk=PosixDisk(self._mount), index=node.store, clock=clock, source=self._source())
            facts = msgspec.structs.replace(facts, second_boot=_mended(again))
        finally:
            node.store.close()
        found = verdict(facts, self._promises, fragment_s=self._config.recording.fragment_s)
        after = disk_promises(self._mount, self._promises, names=False)
        return Verdict((*found.broken, *(f"after recovery: {what}" for what in after)), found.lost_s, found.waiting_s)

    def _source(self) -> str:
        return f"wardpost/{self._config.node.site}/{self._config.node.id}"


def _mended(again: object) -> list[str]:
    return [
        f"{name}: {value}"
        for name in ("sealed", "cut_bytes", "removed", "quarantined", "missing", "resealed", "failed")
        if (value := getattr(again, name))
    ]


def run_all(cuts: list[Cut], cutter: Cutter) -> Iterator[dict[str, object]]:
    for cut in cuts:
        found, lost_bytes = cutter.judge(cut)
        yield {
            "cut": str(cut),
            "broken": list(found.broken),
            "lost_s": found.lost_s,
            "waiting_s": found.waiting_s,
            "lost_bytes": lost_bytes,
        }


def mount_as_at_boot(image: Path, folder: Path) -> None:
    """Mounts it through a loop device. Another judge may take the device that was free a moment ago: tried again.

    A torn write of the superblock (1,024 bytes, two sectors) leaves a wrong checksum, and no kernel mounts that: what
    Raspberry Pi OS does at every boot (`fsck.repair=yes`: e2fsck -y) mends it from a copy and runs the journal.
    An image that cannot be mounted at all fails as often; then its last words are the verdict's.
    """
    command = ["mount", "-t", "ext4", "-o", "loop,noatime", str(image), str(folder)]
    for _ in range(MOUNT_TRIES_MAX):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0:
            return
        if SUPERBLOCK_TORN in fsck(image)[1]:
            fsck(image, how="-y")
        time.sleep(MOUNT_PAUSE_S)
    raise RuntimeError(f"{image} cannot be mounted ({done.returncode}): {done.stderr.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("work", "config", "scratch"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    cuts = [
        Cut(int(p), mode, int(seed))
        for p, mode, seed in (c.split(":") for c in json.loads((args.scratch / "cuts.json").read_text()))
    ]
    cutter = Cutter(log=args.work / "disk.log", base=args.work / "base.img", config=args.config, scratch=args.scratch)
    for line in run_all(cuts, cutter):
        print(json.dumps(line), flush=True)
    sys.stdout.flush()
    os._exit(0)  # libraries' threads are not worth waiting for


if __name__ == "__main__":
    main()
