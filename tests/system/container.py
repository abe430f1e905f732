"""A post without a camera: Debian's systemd as PID 1 in a container (systemd-nspawn), with the real units.

The Debian root is that of the virtual machine (vm/build.sh), untouched below an overlay in memory. Processes, mounts,
network and control groups are the container's own; the kernel is the host's.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.system.vm import machine

NEEDED = {"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
BOOT_S_MAX = 240.0  # a busy machine; five seconds on a quiet one
STEP_S_MAX = 180.0
REBOOTS = 133  # how nspawn ends where the machine in it reboots, and somebody else is to start it again

# --keep-unit and no registration: it runs where no systemd is the host's. Its own /run keeps nspawn from looking for one.
# All capabilities and bpf(2), within its own name spaces: DeviceAllow= is a program that systemd loads into the kernel.
START = """
mount --make-rprivate /
mount -t tmpfs tmpfs /run
exec systemd-nspawn --quiet --register=no --keep-unit --directory="$1" --console=pipe --private-network \
  --capability=all --system-call-filter=bpf --boot systemd.unit=multi-user.target systemd.unified_cgroup_hierarchy=1
"""


def missing() -> str:
    """Why no container can be had here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root: it starts a machine of its own"
    lacking = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if lacking:
        return f"needs Debian's {', '.join(lacking)}: make test-system installs them"
    return "" if "overlay" in Path("/proc/filesystems").read_text() else "this kernel has no overlay file system"


class Container:
    """One machine: made with `folder` for what it writes, started, looked into, switched off."""

    def __init__(self, folder: Path) -> None:
        """Needs the Debian root; builds it where it is not there, which takes two minutes."""
        if not (machine.FOLDER / ".done/pip").exists():
            machine.build()
        self.root = folder / "root"
        for name in ("up", "work", "root"):
            (folder / name).mkdir()
        layers = f"lowerdir={machine.FOLDER / 'root'},upperdir={folder / 'up'},workdir={folder / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, self.root], check=True)
        self.console = folder / "console"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Switches it on, and waits until it has booted."""
        self._power()
        self.booted()

    def _power(self) -> None:
        environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", START, "sh", self.root],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment,
            )  # fmt: skip

    def rebooted(self) -> bool:
        """Whether it has begun to start again by itself. Then it is switched on again, as a board does."""
        if self._process is None or self._process.poll() != REBOOTS:
            return False
        self._power()
        return True

    def booted(self) -> None:
        """Waits until systemd says so."""
        self.wait("systemd to have booted", lambda: self.run("systemctl", "is-system-running", check=False).strip()
                  in ("running", "degraded"), BOOT_S_MAX)  # fmt: skip

    @property
    def init(self) -> int:
        """The host's number of the container's PID 1; 0 while there is none."""
        if self._process is None:
            return 0
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    def run(self, *command: str | Path, check: bool = True, timeout_s: float = STEP_S_MAX, text: str = "") -> str:
        """A program in the container, as root; its output. `text` goes to its standard input."""
        pid = self.init
        if not pid:
            assert not check, "the container is not there"
            return ""
        done = subprocess.run(
            ["nsenter", "-t", str(pid), "-m", "-p", "-n", "-u", "-i", "-C", "--", *command],
            input=text, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit; of systemd itself without a name."""
        text = self.run("systemctl", "show", *([unit] if unit else []), "--property", ",".join(names), check=False)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def journal(self, unit: str = "") -> str:
        """What was said, of this boot."""
        return self.run(
            "journalctl", "--no-pager", "-o", "short-monotonic", *(["-u", unit] if unit else []), check=False
        )

    def wait(self, what: str, happened: Callable[[], object], timeout_s: float) -> float:
        """Waits until it has happened; returns how long that took."""
        began = time.monotonic()
        while not happened():
            took_s = time.monotonic() - began
            if took_s > timeout_s or self._process is None or self._process.poll() not in (None, REBOOTS):
                console = self.console.read_text(errors="replace")[-2000:]
                raise AssertionError(f"waited {took_s:.0f} s for {what}\n{self.journal()[-6000:]}\n{console}")
            time.sleep(0.1)
        return time.monotonic() - began

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A file in the container."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def chroot(self, *command: str) -> None:
        """A program in its root before it is switched on."""
        subprocess.run(["chroot", self.root, *command], check=True, stdout=subprocess.DEVNULL)

    def close(self) -> None:
        """Switches it off."""
        if self._process is not None:
            if pid := self.init:
                os.kill(pid, signal.SIGKILL)
            try:
                self._process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        subprocess.run(["umount", "-l", self.root], check=False)


def released(root: Path, slot: str, sources: Path, *, broken: Sequence[str] = ()) -> None:
    """A release in its place: a virtual environment of the container's Python, with the agent of this checkout.

    What the agent needs is that of the Debian root. `broken`: modules that raise when they are imported.
    """
    release = root / "opt/wardpost/releases" / slot
    packages = release / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (release / "bin").mkdir()
    (release / "bin/python").symlink_to("/usr/bin/python3")
    (release / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n")
    (packages / "needed.pth").write_text("/opt/wardpost/lib/python3.11/site-packages\n")
    shutil.copytree(sources / "agent", packages / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for module in broken:
        (packages / "agent" / module).write_text("raise RuntimeError('this release is broken')\n")
    program = release / "bin/wardpost"
    program.write_text(
        f"#!/opt/wardpost/releases/{slot}/bin/python\nimport sys\nfrom agent.cli import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)
