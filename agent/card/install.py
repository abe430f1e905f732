"""The first boot of a post: installs what lies beside this file on the boot partition, without a network.

It lies on the card as node/install.py and is started at every boot until it has succeeded. It uses only the standard
library (Python 3.11 to 3.13) and nothing of the agent, for the agent is what it installs.

It may be cut at any byte. So every step looks at what is there and completes it, files are written beside their place
and renamed, and the flag that ends it all is written last, after everything else has reached the card.

    exit 0   done, now or before           exit 1   stopped; progress.txt and the journal say why; it is tried again

`WARDPOST_ROOT`: another root folder than /, for tests; then no service is started and nothing is mounted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PLAN_VERSION = 1
PROGRESS_BYTES = 4096
PROGRAM_S_MAX = 1800  # pip on the slowest post took a tenth of this
CHECK_S_MAX = 120
NEVER_IMPORTED = "/(tests?|testing|setuptools)/"
SPACE_FACTOR = 4  # unpacked wheels and compiled files, of the wheels' own size
MOUNT = "/boot/firmware"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
USER = "wardpost"
USER_GROUPS = ("video", "gpio", "render", "dialout")
DATA_LABEL = "wardpost-data"
DATA = "/var/lib/wardpost"
IDENTITY = f"{DATA}/identity"
APP = "/opt/wardpost"
KEY_TYPES = 3  # of ssh's own keys: RSA, ECDSA, Ed25519
DONE = "/etc/wardpost/card-done"
SSH_ENABLED = "/etc/systemd/system/multi-user.target.wants/ssh.service"
COMPLETE = ".complete"  # in a release: everything in it has reached the card
# By themselves; a timer is a person's decision.
STARTED = (
    "wardpost-node.service",
    "wardpost-escalate.service",
    "wardpost-setup-link.path",
    "wardpost-enrol.service",
)
APPLIANCE = {  # what makes a stock system one that runs alone for years (deploy/appliance.md)
    "journald.conf": "/etc/systemd/journald.conf.d/60-wardpost.conf",
    "watchdog.conf": "/etc/systemd/system.conf.d/60-wardpost.conf",
    "timesyncd.conf": "/etc/systemd/timesyncd.conf.d/60-wardpost.conf",
    "sysctl.conf": "/etc/sysctl.d/60-wardpost.conf",
    "swap.conf": "/etc/rpi/swap.conf.d/60-wardpost.conf",  # Trixie
    "dphys-swapfile": "/etc/dphys-swapfile",  # Bookworm
}
UNIT = "wardpost-card.service"
UNIT_TEXT = f"""\
# The first boot goes on until it is done; node/install.py removes this unit then.
[Unit]
Description=Wardpost: first boot
RequiresMountsFor={MOUNT}
After=local-fs.target
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -I {MOUNT}/node/install.py
Restart=on-failure
RestartSec=60
TimeoutStartSec=3600
StandardOutput=journal+console

[Install]
WantedBy=multi-user.target
"""
DROP_IN = f"[Service]\nEnvironment=WARDPOST_CACHE={APP}/model\n"
WRAPPER = f'#!/bin/sh\nWARDPOST_CACHE={APP}/model exec {APP}/current/bin/wardpost "$@"\n'


class Problem(Exception):  # noqa: N818
    """What stops the installation, in one line for a technician: what is wrong, and what to do."""


class Busy(Exception):  # noqa: N818
    """Another one is at work: cloud-init starts one at every boot, and so does the unit that a try before has left."""


class Post:
    """The card and the system that is being made."""

    def __init__(self, *, root: Path, card: Path) -> None:
        """`root`: / on a real post. `card`: the folder node/ of the boot partition."""
        self.root = root
        self.card = card
        self.real = root == Path("/")
        self.lock_fd = -1
        self.plan: dict[str, Any] = {}
        self.notes: list[str] = []

    def at(self, path: str) -> Path:
        """A path of the node."""
        return self.root / path.lstrip("/")

    def run(self, *command: str, timeout_s: float = PROGRAM_S_MAX, env: dict[str, str] | None = None) -> str:
        """A program's output. Raises Problem with its last line. It holds our lock for as long as it lives."""
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
                timeout=timeout_s, pass_fds=[self.lock_fd] if self.lock_fd >= 0 else [],
                env={"PATH": PATH, "LC_ALL": "C.UTF-8", **(env or {})},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Problem(f"{command[0]} did not run: {error}") from None
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
            errors = [line for line in lines if "error" in line.lower()]
            raise Problem(f"{Path(command[0]).name} failed: {(errors or lines)[-1].strip()[:300]}")
        return done.stdout

    def systemctl(self, *words: str) -> None:
        """Tells systemd, if it runs here; a refusal is noted, for the next boot reads the same files anyway."""
        if self.real and Path("/run/systemd/system").is_dir():
            try:
                self.run("systemctl", "--no-block", *words, timeout_s=90)
            except Problem as error:
                self.notes.append(str(error))

    def owner(self, name: str) -> tuple[int, int] | None:
        """User and group number of a name in the node's own /etc/passwd, or None."""
        for line in self.lines("/etc/passwd"):
            fields = line.split(":")
            if len(fields) >= 4 and fields[0] == name:
                return int(fields[2]), int(fields[3])
        return None

    def lines(self, path: str) -> list[str]:
        """Of a text file of the node; none if it is not there."""
        try:
            return self.at(path).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []

    def folder(self, path: str, *, mode: int = 0o755, owner: str = "root") -> None:
        """Makes a folder, or gives it its mode and owner."""
        target = self.at(path)
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(mode)
        self.give(target, owner)

    def place(self, path: str, data: bytes, *, mode: int = 0o644, owner: str = "root") -> None:
        """A whole file with its mode and owner, or what was there before; durable when this returns."""
        target = self.at(path)
        if self._is(target, data):
            target.chmod(mode)
            self.give(target, owner)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.wardpost")
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            self.give(beside, owner)
            os.fsync(fd)
        beside.replace(target)
        sync_folder(target.parent)

    def link(self, path: str, to: str) -> None:
        """A symbolic link, switched in one step."""
        target = self.at(path)
        if target.is_symlink() and str(target.readlink()) == to:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.wardpost")
        beside.unlink(missing_ok=True)
        beside.symlink_to(to)
        beside.replace(target)
        sync_folder(target.parent)

    def remove(self, path: str) -> None:
        """A file or link that must go, durably; one that is not there is fine."""
        target = self.at(path)
        if target.is_symlink() or target.exists():
            target.unlink()
            sync_folder(target.parent)

    @staticmethod
    def _is(target: Path, data: bytes) -> bool:
        try:
            return stat.S_ISREG(target.lstat().st_mode) and target.read_bytes() == data
        except OSError:
            return False

    def give(self, target: Path, owner: str) -> None:
        """Makes it belong to a user and the group of that name."""
        if os.geteuid() != 0:
            return  # only a test: without root nothing can be given away
        ids = (0, 0) if owner == "root" else self.owner(owner)
        if ids is None:
            raise Problem(
                f"the user {owner} is missing, though it was made; is /etc/passwd damaged? Flash the card again"
            )
        os.chown(target, *ids, follow_symlinks=False)


def sync_folder(folder: Path) -> None:
    """Names in a folder survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# -- the steps -------------------------------------------------------------------------------------------------------


def check_card(post: Post) -> None:
    """Everything on the card is what was written, before any of it is used."""
    for name, wanted in post.plan["sha256"].items():
        digest = hashlib.sha256()
        try:
            with (post.card / name).open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise Problem(f"{name} on the card cannot be read ({error.strerror}); flash the card again") from None
        if digest.hexdigest() != wanted:
            raise Problem(f"{name} on the card is damaged; flash the card again, or take a new card")


def heal(post: Post) -> None:
    """A cut during the system's own first boot leaves files of 0 bytes which nobody makes again."""
    empty = [
        path
        for pattern in ("etc/ssh/ssh_host_*", "etc/sudoers.d/*", "etc/netplan/*.yaml", "home/*/.ssh/authorized_keys")
        for path in post.root.glob(pattern)
        if path.is_file() and path.stat().st_size == 0
    ]
    for path in empty:
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        if path.name.startswith("ssh_host_") and path.name.endswith("_key.pub"):
            path.with_suffix("").unlink(missing_ok=True)  # ssh-keygen makes a pair, or nothing
    # Asked of what is there, not of what was removed: a cut may come between the two.
    if post.at("/etc/ssh/sshd_config").exists() and len(list(post.root.glob("etc/ssh/ssh_host_*_key"))) < KEY_TYPES:
        prefix = [] if post.real else ["-f", str(post.root)]
        post.run("ssh-keygen", "-A", *prefix)
        for path in post.root.glob("etc/ssh/ssh_host_*"):
            sync_file(path)
        sync_folder(post.at("/etc/ssh"))
        post.systemctl("try-restart", "ssh")
    if empty:
        post.notes.append(f"mended after a power cut: {', '.join(sorted(path.name for path in empty))}")


def sync_file(path: Path) -> None:
    """What another program has written survives a power cut."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def name_and_login(post: Post) -> None:
    """Hostname, time zone and the technician's login, whoever else was to make them."""
    plan = post.plan
    hostname, zone, user = plan["hostname"], plan["time_zone"], plan["user"]
    post.place("/etc/hostname", f"{hostname}\n".encode())
    hosts = [line for line in post.lines("/etc/hosts") if not line.startswith("127.0.1.1")]
    post.place("/etc/hosts", ("\n".join([*hosts, f"127.0.1.1\t{hostname}"]) + "\n").encode())
    if post.at(f"/usr/share/zoneinfo/{zone}").is_file():
        post.link("/etc/localtime", f"/usr/share/zoneinfo/{zone}")
        post.place("/etc/timezone", f"{zone}\n".encode())
    else:
        post.notes.append(f"the time zone {zone} is not known to this system; it stays as it was")
    if not plan["ssh_keys"]:
        return
    if post.owner(user) is None:
        make_user(post, user, "--create-home", "--shell", "/bin/bash")
    post.place(f"/etc/sudoers.d/90-{user}", f"{user} ALL=(ALL) NOPASSWD:ALL\n".encode(), mode=0o440)
    home = next((line.split(":")[5] for line in post.lines("/etc/passwd") if line.startswith(f"{user}:")), "")
    if home:
        post.folder(f"{home}/.ssh", mode=0o700, owner=user)
        keys = "".join(f"{key}\n" for key in plan["ssh_keys"]).encode()
        post.place(f"{home}/.ssh/authorized_keys", keys, mode=0o600, owner=user)
    # Asked first: to enable what is enabled has systemd read all its units again, at every try.
    words = ("start",) if post.at(SSH_ENABLED).is_symlink() else ("enable", "--now")
    post.systemctl(*words, "ssh")


def make_user(post: Post, user: str, *options: str) -> None:
    """A user with a group of its own; each of the two is looked for, for a cut may come between them."""
    prefix = [] if post.real else ["--prefix", str(post.root)]
    if not any(line.startswith(f"{user}:") for line in post.lines("/etc/group")):
        post.run("groupadd", *prefix, *(["--system"] if "--system" in options else []), user)
    if post.owner(user) is None:
        post.run("useradd", *prefix, *options, "--gid", user, user)


def data_partition(post: Post) -> None:
    """Mounts the partition that `wardpost flash` has made for footage; a card without one records on the system's."""
    device = f"/dev/disk/by-label/{DATA_LABEL}"
    if not post.at(device).exists():
        post.notes.append("no data partition: footage shares the system's, so keep recording.budget_gb small")
        return
    line = f"LABEL={DATA_LABEL} {DATA} ext4 noatime,commit=5,errors=remount-ro,nofail 0 2"
    others = [text for text in post.lines("/etc/fstab") if text.split()[1:2] != [DATA]]
    post.place("/etc/fstab", ("\n".join([*others, line]) + "\n").encode())
    post.at(DATA).mkdir(parents=True, exist_ok=True)
    if post.real and not os.path.ismount(DATA):
        post.systemctl("daemon-reload")
        post.run("mount", DATA, timeout_s=300)


def agent_user(post: Post) -> None:
    """The user without a login to whom camera, pins and data belong."""
    make_user(post, USER, "--system", "--home-dir", DATA, "--no-create-home", "--shell", "/usr/sbin/nologin")
    prefix = [] if post.real else ["--prefix", str(post.root)]
    for line in post.lines("/etc/group"):
        group, *_, members = line.split(":")
        if group in USER_GROUPS and USER not in members.split(","):
            post.run("usermod", *prefix, "--append", "--groups", group, USER)


def place_files(post: Post) -> None:
    """Settings, keys and networks. A secret that is in place already may have left the card."""
    former = post.lines(DONE)
    if former and former != [post.plan["instance"]]:  # this system was another post, or had another claim
        for name in ("node.pem", "node.key"):
            path = post.at(f"{IDENTITY}/{name}")
            if path.exists():
                path.replace(path.with_name(f"{name}.former"))
        post.remove(DONE)
    post.folder("/etc/wardpost")
    post.folder(DATA, mode=0o750, owner=USER)
    post.folder(IDENTITY, mode=0o700, owner=USER)
    for entry in post.plan["place"]:
        place_one(post, entry)


def place_one(post: Post, entry: dict[str, Any]) -> None:
    """One file of the plan."""
    source, target = post.card / entry["from"], post.at(entry["to"])
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise Problem(f"{entry['from']} on the card cannot be read ({error.strerror}); flash the card again") from None
    if not data.strip(b"\0"):  # wiped
        if entry["secret"] and target.exists() and target.stat().st_size > 0:
            return
        raise Problem(f"{entry['from']} is missing on the card; flash the card again with the node's kit")
    post.place(entry["to"], data, mode=entry["mode"], owner=entry["owner"])


def install_agent(post: Post) -> None:
    """The agent in a virtual environment of its own, complete or not there at all."""
    if not post.plan["bundle"]:
        if not post.at(f"{APP}/current/bin/wardpost").exists():
            raise Problem("neither the card nor the system has the agent; flash the card with --bundle")
        return
    manifest = json.loads((post.card / "manifest.json").read_text(encoding="utf-8"))
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if manifest["python"] != running or manifest["arch"] != os.uname().machine:
        raise Problem(
            f"the bundle is for Python {manifest['python']} on {manifest['arch']}, this system has Python {running} on"
            f" {os.uname().machine}; flash the card with a bundle made for it"
        )
    for folder in (APP, f"{APP}/releases"):  # the node itself puts its updates there
        post.folder(folder, owner=USER)
    stamp = hashlib.sha256((post.card / "requirements.txt").read_bytes()).hexdigest() + "\n"
    release = f"{APP}/releases/{manifest['version']}"
    if post.lines(f"{release}/{COMPLETE}") != [stamp.strip()]:
        build_release(post, release)
        post.place(f"{release}/{COMPLETE}", stamp.encode())
    for source in sorted((post.card / "model").glob("*")):
        post.place(f"{APP}/model/{source.name}", source.read_bytes())
    for source in sorted((post.card / "lib").glob("*")):
        post.place(f"/usr/local/lib/wardpost/{source.name}", source.read_bytes(), mode=0o755)
    post.link(f"{APP}/current", f"releases/{manifest['version']}")
    if not post.at(f"{APP}/bin").is_dir() or post.at(f"{APP}/bin").is_symlink():
        post.link(f"{APP}/bin", "current/bin")  # where an installation by hand has it


def build_release(post: Post, release: str) -> None:
    """A virtual environment from the wheels; everything in it has reached the card when this returns."""
    target = post.at(release)
    wheels = post.card / "wheels"
    if target.exists():
        shutil.rmtree(target)  # half of it, from before a cut
    target.parent.mkdir(parents=True, exist_ok=True)
    wanted = SPACE_FACTOR * sum(path.stat().st_size for path in wheels.iterdir())
    free = shutil.disk_usage(target.parent).free
    if free < wanted:
        raise Problem(
            f"{free >> 20} MiB are free for the agent, {wanted >> 20} are needed; take a larger card,"
            " or a stock image that nothing was added to"
        )
    [pip] = sorted(wheels.glob("pip-*.whl"))
    scratch = post.at(f"{APP}/.scratch")  # not /tmp, which is memory on Trixie
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    env = {"PIP_CONFIG_FILE": os.devnull, "TMPDIR": str(scratch), "HOME": str(scratch)}
    # --without-pip: a stock image may lack ensurepip, so pip comes with the wheels.
    post.run(sys.executable, "-I", "-m", "venv", "--without-pip", "--system-site-packages", str(target), env=env)
    post.run(
        str(target / "bin/python"), str(pip / "pip"), "install", "--no-index", "--find-links", str(wheels),
        "--no-deps", "--ignore-installed", "--require-hashes", "--only-binary=:all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--root-user-action=ignore", "--quiet", "--no-compile",
        "-r", str(post.card / "requirements.txt"),
        env=env,
    )  # fmt: skip
    shutil.rmtree(scratch, ignore_errors=True)
    if not (target / "bin/wardpost").is_file():
        raise Problem("the wheels on the card hold no agent; make the bundle anew with `wardpost bundle`")
    compile_release(post, target)
    for path in (target, *target.rglob("*")):
        post.give(path, USER)
    os.sync()


def compile_release(post: Post, target: Path) -> None:
    """Bytecode, on all processors and without what no post ever imports: half the time that pip would take for it."""
    try:
        post.run(
            str(target / "bin/python"), "-I", "-m", "compileall", "-q", "-j", "0", "-x", NEVER_IMPORTED,
            str(target / "lib"),
        )  # fmt: skip
    except Problem as error:  # the agent runs all the same, and starts more slowly
        post.notes.append(f"not compiled: {error}")


def services(post: Post) -> None:
    """The agent's units, in their places. None starts before all is done: the enrolment uses up what is placed here."""
    units = sorted((post.card / "units").glob("*")) if (post.card / "units").is_dir() else []
    for unit in units:
        post.place(f"/etc/systemd/system/{unit.name}", unit.read_bytes())
    if not post.at("/etc/systemd/system/wardpost-node.service").is_file():
        raise Problem("wardpost-node.service is neither on the card nor in the system; flash the card with --bundle")
    post.place("/etc/systemd/system/wardpost-node.service.d/10-model.conf", DROP_IN.encode())
    post.place("/usr/local/bin/wardpost", WRAPPER.encode(), mode=0o755)
    post.systemctl("daemon-reload")


def appliance(post: Post) -> None:
    """The system's own tools, told to spare the card and to start again what hangs. It holds from the next boot on."""
    for name, target in APPLIANCE.items():
        source = post.card / "appliance" / name
        foreign = name == "dphys-swapfile" and not post.at(target).exists()  # Trixie has not that tool
        if source.is_file() and not foreign:  # a bundle may be older
            post.place(target, source.read_bytes())


def enable(post: Post, unit: str) -> None:
    """What `systemctl enable` does, without a running systemd."""
    post.link(f"/etc/systemd/system/multi-user.target.wants/{unit}", f"/etc/systemd/system/{unit}")


def ask_the_agent(post: Post) -> None:
    """`wardpost check`, so that the technician reads on the card what is still wrong. It stops nothing."""
    program = str(post.at(f"{APP}/current/bin/wardpost"))
    command = [program, "check", "--config", str(post.at("/etc/wardpost/node.toml"))]
    if post.real:
        command = ["runuser", "-u", USER, "--", *command]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False,
            timeout=CHECK_S_MAX, pass_fds=[post.lock_fd] if post.lock_fd >= 0 else [],
            env={"PATH": PATH, "HOME": DATA, "WARDPOST_CACHE": str(post.at(f"{APP}/model"))},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem(f"the installed agent does not run ({error}); flash the card again") from None
    lines = done.stdout.strip().splitlines()
    if not lines or done.returncode not in (0, 78):
        raise Problem(f"the installed agent does not run: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    post.notes += [f"check: {line}" for line in lines if line.startswith(("problem", "warning"))][:12]
    post.notes.append(f"check: {lines[-1]}")


STEPS: Sequence[tuple[str, Callable[[Post], None]]] = (
    ("the files on the card are checked", check_card),
    ("what a power cut has damaged is mended", heal),
    ("name, time zone and login", name_and_login),
    ("the data partition", data_partition),
    ("the agent's user", agent_user),
    ("settings, keys and networks are placed", place_files),
    ("the agent is installed, one to five minutes", install_agent),
    ("the services", services),
    ("the system is made to run alone", appliance),
    ("the agent is asked what is wrong", ask_the_agent),
)


def finish(post: Post) -> None:
    """Passwords leave the card, then the flag, then the service: in this order whatever is cut."""
    os.sync()
    for entry in post.plan["place"]:
        if entry["secret"]:
            wipe(post.card / entry["from"])
    seed = post.card.parent / "network-config"
    if post.plan["generation"] == "trixie" and seed.is_file():
        # Not deleted: without it cloud-init would fall back to a network of its own. One sector, of the same length.
        overwrite(seed, b"network: {config: disabled}\n".ljust(seed.stat().st_size))
    os.sync()
    post.place(DONE, f"{post.plan['instance']}\n".encode())
    leave(post)


def leave(post: Post) -> None:
    """From here on the agent starts with the system, and nothing of the first boot does. Repeated after a cut."""
    units = [unit for unit in STARTED if post.at(f"/etc/systemd/system/{unit}").is_file()]
    for unit in units:
        enable(post, unit)
    post.systemctl("daemon-reload")
    post.systemctl("start", *units)
    post.remove(f"/etc/systemd/system/multi-user.target.wants/{UNIT}")
    post.remove(f"/etc/systemd/system/{UNIT}")


def wipe(path: Path) -> None:
    """Overwrites and removes. A card may keep old copies of a sector: whoever takes it apart is not stopped by this."""
    if path.is_file():
        overwrite(path, bytes(path.stat().st_size))
        path.unlink()
        sync_folder(path.parent)


def overwrite(path: Path, data: bytes) -> None:
    """The same bytes on the card are written anew; neither the folder nor the file table changes."""
    with path.open("r+b") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# -- telling ---------------------------------------------------------------------------------------------------------


class Teller:
    """progress.txt on the card, a line in the journal, and the green LED of the board."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._lines: list[str] = []

    def now(self, number: int, what: str) -> None:
        """A step begins."""
        self._led("timer", on_ms=100, off_ms=100)
        self._show(f"now   {number} of {len(STEPS)}: {what}")

    def done(self, number: int, what: str) -> None:
        """A step is done."""
        self._lines.append(f"done  {number} of {len(STEPS)}: {what}")

    def stopped(self, number: int, why: str) -> None:
        """It goes on after a minute, or at the next boot."""
        self._led("timer", on_ms=1000, off_ms=1000)
        self._show(
            f"STOPPED at {number} of {len(STEPS)}: {why}", "It is tried again after a minute, and at every boot."
        )

    def finished(self) -> None:
        """The last word."""
        self._led("heartbeat")
        self._show("DONE. The post is installed and starts recording; passwords were removed from this card.")

    def _show(self, *last: str) -> None:
        print(f"wardpost: {last[0]}", flush=True)
        plan = self._post.plan
        head = f"First boot of {plan.get('node', '?')} ({plan.get('site', '?')})"
        text = "\n".join([head, "", *self._lines, *last, "", *self._post.notes])
        data = text.encode()[: PROGRESS_BYTES - 1].ljust(PROGRESS_BYTES - 1) + b"\n"
        path = self._post.card / "progress.txt"
        with contextlib.suppress(OSError):  # a card that cannot be written is told in the journal, and by the LED
            if path.is_file() and path.stat().st_size == PROGRESS_BYTES:
                overwrite(path, data)
            else:
                path.write_bytes(data)
                sync_file(path)

    def _led(self, trigger: str, *, on_ms: int = 0, off_ms: int = 0) -> None:
        for name in ("ACT", "led0"):
            led = self._post.at(f"/sys/class/leds/{name}")
            with contextlib.suppress(OSError):
                (led / "trigger").write_text(trigger)
                if trigger == "timer":
                    (led / "delay_on").write_text(str(on_ms))
                    (led / "delay_off").write_text(str(off_ms))
                return


# -- Bookworm: before anything else runs -----------------------------------------------------------------------------


def prepare(post: Post) -> int:
    """What firstrun.sh starts: login and network for the next boot, our unit, and cmdline.txt as it was.

    A part that fails does not keep the others from being done: the unit tries all of it again.
    """
    post.place(f"/etc/systemd/system/{UNIT}", UNIT_TEXT.encode())
    enable(post, UNIT)
    for part in (heal, name_and_login, networks, unblock_radio):
        try:
            part(post)
        except (Problem, OSError, KeyError, ValueError) as error:
            print(f"wardpost: first boot: {error}", flush=True)
    post.remove("/etc/systemd/system/multi-user.target.wants/userconfig.service")  # it waits for a keyboard
    os.sync()
    path = post.card.parent / "cmdline.txt"
    text = path.read_bytes().decode()
    words = [word for word in text.split() if not word.startswith(("systemd.run", "systemd.unit=kernel-command-line"))]
    overwrite(path, (" ".join(words)).encode().ljust(len(text.encode()) - 1) + b"\n")
    return 0


def networks(post: Post) -> None:
    """Only the profiles of the network; the rest waits for the agent's user."""
    for entry in post.plan["place"]:
        if entry["to"].startswith(("/etc/NetworkManager/", "/etc/netplan/")):
            place_one(post, entry)


def unblock_radio(post: Post) -> None:
    """The stock image keeps the radio off until somebody names a country; ours stands in cmdline.txt."""
    if post.plan["wifi"]:
        for path in post.root.glob("var/lib/systemd/rfkill/*:wlan"):
            path.write_text("0\n")
        post.remove("/var/lib/NetworkManager/NetworkManager.state")  # remembers that it was off


def main(arguments: Sequence[str]) -> int:
    """One try. Never raises for what the world does."""
    root = Path(os.environ.get("WARDPOST_ROOT", "/")).resolve()
    post = Post(root=root, card=Path(__file__).resolve().parent)
    teller = Teller(post)
    number = 0
    try:
        take_lock(post)
        post.plan = read_plan(post.card)
        if list(arguments) == ["--prepare"]:
            return prepare(post)
        if post.lines(DONE) == [post.plan["instance"]]:
            leave(post)
            return 0
        post.place(f"/etc/systemd/system/{UNIT}", UNIT_TEXT.encode())
        enable(post, UNIT)
        for number, (what, step) in enumerate(STEPS, start=1):
            teller.now(number, what)
            step(post)
            teller.done(number, what)
        finish(post)
        teller.finished()
    except Busy:  # not a word on the card or by the LED: those belong to the one that works
        print("wardpost: the first boot is at work already", flush=True)
        return 1
    except (Problem, OSError, subprocess.SubprocessError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, Problem) else f"{type(error).__name__}: {error}; flash the card again"
        teller.stopped(number, why)
        return 1
    finally:
        if post.lock_fd >= 0:
            os.close(post.lock_fd)
    return 0


def take_lock(post: Post) -> None:
    """One at a time, children included: a pip that outlived its parent must not meet the next one."""
    folder = post.at("/run")
    folder.mkdir(parents=True, exist_ok=True)
    post.lock_fd = os.open(folder / "wardpost-card.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(post.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy from None


def read_plan(card: Path) -> dict[str, Any]:
    """plan.json. Raises Problem when it is damaged."""
    try:
        found: dict[str, Any] = json.loads((card / "plan.json").read_text(encoding="utf-8"))
        version = found["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Problem(f"plan.json on the card is damaged ({error}); flash the card again") from None
    if version != PLAN_VERSION:
        raise Problem(f"plan.json on the card is of version {version}, this installer knows {PLAN_VERSION}")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
