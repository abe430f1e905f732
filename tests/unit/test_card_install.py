"""The first boot, cut at every step: run again, it always ends the same, and no password stays on the card."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.card import install
from agent.card.kit import read_kit
from agent.card.seed import Generation, boot_files
from tests.fakes.kit import NOW, SSH_KEY, wifi, write_kit

ROOT = Path(__file__).resolve().parents[2]
TRIXIE = "console=tty1 root=PARTUUID=4e8a1b2c-02 rootwait resize\n"
BOOKWORM = "console=tty1 root=PARTUUID=4e8a1b2c-02 rootwait init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
INSTANCE = "wardpost-gate-north-k3v9q2mz7t"


class Cut(BaseException):
    """The power has gone."""


class Post:
    """A root folder as of a stock image, on which an agent is already, and a card written for it."""

    def __init__(self, folder: Path, generation: Generation = Generation.TRIXIE) -> None:
        self.root, self.boot = folder / "root", folder / "boot"
        self.card = self.boot / "node"
        kit = read_kit(write_kit(folder / "site", network=wifi("Quán ☕", "pass-word-9")), node="gate-north", now=NOW)
        cmdline = TRIXIE if generation is Generation.TRIXIE else BOOKWORM
        files = boot_files(kit, generation=generation, cmdline=cmdline, bundle=None)
        for name, data in files.items():
            path = self.boot / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        shutil.copy(install.__file__, self.card / "install.py")
        uid, gid = os.getuid(), os.getgid()
        self.write(
            "etc/passwd",
            f"root:x:0:0::/root:/bin/bash\nwardpost:x:{uid}:{gid}::/:/x\nlan:x:{uid}:{gid}::/home/lan:/bin/bash\n",
        )
        self.write("etc/group", f"root:x:0:\nwardpost:x:{gid}:\nlan:x:{gid}:\nvideo:x:44:wardpost\n")
        self.write("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\traspberrypi\n")
        self.write("usr/share/zoneinfo/Asia/Ho_Chi_Minh", "TZif2")
        self.write("etc/systemd/system/wardpost-node.service", "[Service]\n")
        agent = self.write(
            "opt/wardpost/releases/0.5/bin/wardpost",
            "#!/bin/sh\necho 'warning: clock: x'\necho '0 problems, 1 warning'\n",
        )
        agent.chmod(0o755)
        (self.root / "opt/wardpost/current").symlink_to("releases/0.5")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def boot_up(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
        """One try of the installer, in this process."""
        monkeypatch.setenv("WARDPOST_ROOT", str(self.root))
        monkeypatch.setattr(install, "__file__", str(self.card / "install.py"))
        return install.main(arguments)

    def progress(self) -> str:
        return (self.card / "progress.txt").read_text()

    def everything(self) -> dict[str, Any]:
        """Every file of root and card: mode and content or target."""
        found: dict[str, Any] = {}
        for top in (self.root, self.boot):
            for path in sorted(top.rglob("*")):
                name = str(path.relative_to(top.parent))
                if path.is_symlink():
                    found[name] = str(path.readlink())
                elif path.is_file() and path.name != "progress.txt":
                    found[name] = (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        return found


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Post]:
    numbers = iter(range(1_000_000))
    return lambda generation=Generation.TRIXIE: Post(tmp_path / str(next(numbers)), generation)


def test_a_first_boot_places_everything_and_says_so(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch) -> None:
    post = make()
    assert post.boot_up(monkeypatch) == 0, post.progress()
    assert "DONE" in post.progress() and "check: 0 problems, 1 warning" in post.progress()
    assert len((post.card / "progress.txt").read_bytes()) == 4096
    identity = post.root / "var/lib/wardpost/identity"
    assert stat.S_IMODE(identity.stat().st_mode) == 0o700
    assert stat.S_IMODE((identity / "claim.key").stat().st_mode) == 0o600
    netplan = post.root / "etc/netplan/60-wardpost.yaml"
    assert stat.S_IMODE(netplan.stat().st_mode) == 0o600 and "Quán ☕" in netplan.read_text()
    assert (post.root / "home/lan/.ssh/authorized_keys").read_text() == SSH_KEY + "\n"
    assert str((post.root / "etc/localtime").readlink()) == "/usr/share/zoneinfo/Asia/Ho_Chi_Minh"
    assert (post.root / "etc/hosts").read_text() == "127.0.0.1\tlocalhost\n127.0.1.1\tgate-north\n"
    enabled = post.root / "etc/systemd/system/multi-user.target.wants"
    assert [path.name for path in enabled.iterdir()] == ["wardpost-node.service"]
    assert (post.root / "etc/wardpost/card-done").read_text() == INSTANCE + "\n"


def test_units_are_placed_and_what_starts_with_the_system_is_enabled(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make()
    units = post.card / "units"
    units.mkdir()
    for path in (ROOT / "deploy").glob("wardpost-*.*"):
        if path.suffix in {".service", ".timer"} and "station" not in path.name:
            shutil.copy(path, units)
    assert post.boot_up(monkeypatch) == 0, post.progress()
    enabled = {path.name for path in (post.root / "etc/systemd/system/multi-user.target.wants").iterdir()}
    assert {"wardpost-node.service", "wardpost-enrol.service"} <= enabled
    assert not [name for name in enabled if "audit" in name]
    assert (post.root / "etc/systemd/system/wardpost-audit.timer").is_file()


def test_no_password_stays_on_the_card(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch) -> None:
    post = make()
    before = b"".join(path.read_bytes() for path in post.boot.rglob("*") if path.is_file())
    assert b"pass-word-9" in before and b"PRIVATE KEY" in before
    size = (post.boot / "network-config").stat().st_size
    assert post.boot_up(monkeypatch) == 0
    after = b"".join(path.read_bytes() for path in post.boot.rglob("*") if path.is_file())
    assert b"pass-word-9" not in after and b"PRIVATE KEY" not in after
    text = (post.boot / "network-config").read_text()
    assert text.strip() == "network: {config: disabled}" and len(text) == size


def test_a_second_run_changes_nothing(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch) -> None:
    post = make()
    assert post.boot_up(monkeypatch) == 0
    state = post.everything()
    (post.root / "etc/wardpost/node.toml").write_text("changed by the technician")
    state["root/etc/wardpost/node.toml"] = (0o644, b"changed by the technician")
    assert post.boot_up(monkeypatch) == 0
    assert post.everything() == state


CUT_AT = ("fsync", "replace", "unlink", "symlink")


def cut(monkeypatch: pytest.MonkeyPatch, at: int, *, before: bool) -> Iterator[int]:
    """The power goes before, or after, the nth change that reaches the card. Gives the number of changes seen."""
    seen, fsync = [0], os.fsync  # which is counted and not done: here the power never really goes
    with monkeypatch.context() as patched:
        for name in CUT_AT:
            real = getattr(os, name)

            def change(*args: Any, real: Any = real, **kwargs: Any) -> Any:
                seen[0] += 1
                if seen[0] == at and before:
                    raise Cut
                try:
                    return None if real is fsync else real(*args, **kwargs)
                finally:
                    if seen[0] == at:
                        raise Cut

            patched.setattr(os, name, change)
        yield 0
    yield seen[0]


@pytest.mark.parametrize("generation", list(Generation))
@pytest.mark.parametrize("before", [True, False])
def test_cut_at_every_change_it_ends_the_same(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch, generation: Generation, before: bool
) -> None:
    """After an even change is before an odd one, so the two together are every change.

    The kit of every post is new, so keys differ: they are compared by what the card of that post brought."""
    number, survived, step = 0, 0, 2 if generation is Generation.TRIXIE else 6
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _fd: None)
    while True:
        number += step
        post = make(generation)
        if generation is Generation.BOOKWORM:
            assert post.boot_up(monkeypatch, "--prepare") == 0
        key = (post.card / "secret/claim.key").read_bytes()
        power = cut(monkeypatch, number, before=before)
        next(power)
        try:
            code = post.boot_up(monkeypatch)
            whole = True
        except Cut:
            whole = False
        seen = next(power)
        if whole:
            assert code == 0 and seen < number
            break
        survived += 1
        done = (post.root / "etc/wardpost/card-done").exists()
        enabled = post.root / "etc/systemd/system/multi-user.target.wants/wardpost-node.service"
        assert done or not enabled.is_symlink(), "an agent that starts before all is placed uses the claim up"
        assert post.boot_up(monkeypatch) == 0, post.progress()
        found = post.everything()
        assert not [name for name in found if ".wardpost" in name.rpartition("/")[2]], f"rubbish after cut {number}"
        assert found["root/var/lib/wardpost/identity/claim.key"] == (0o600, key)
        assert not [name for name in found if name.startswith("boot/node/secret/")]
        assert found["root/etc/wardpost/card-done"][1].decode() == INSTANCE + "\n"
        assert "root/etc/systemd/system/wardpost-card.service" not in found
        assert enabled.is_symlink()
    assert survived * step > 50, "the cuts were not where the work is"


def test_bookworm_prepares_and_takes_its_words_out_of_cmdline(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make(Generation.BOOKWORM)
    size = (post.boot / "cmdline.txt").stat().st_size
    post.write("var/lib/systemd/rfkill/platform-3f300000.mmcnr:wlan", "1\n")
    for _ in range(2):  # a cut before the reboot means that it runs again
        assert post.boot_up(monkeypatch, "--prepare") == 0
    line = (post.boot / "cmdline.txt").read_text()
    assert "systemd.run" not in line and "kernel-command-line" not in line and "root=PARTUUID=4e8a1b2c-02" in line
    assert "cfg80211.ieee80211_regdom=VN" in line and len(line) == size and line.endswith("\n")
    assert (post.root / "etc/systemd/system/multi-user.target.wants/wardpost-card.service").is_symlink()
    profile = post.root / "etc/NetworkManager/system-connections/wardpost-wifi.nmconnection"
    assert stat.S_IMODE(profile.stat().st_mode) == 0o600 and "pass-word-9" in profile.read_text()
    assert (post.root / "var/lib/systemd/rfkill/platform-3f300000.mmcnr:wlan").read_text() == "0\n"


def test_a_damaged_file_on_the_card_stops_it_before_anything_is_placed(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make()
    (post.card / "node.toml").write_bytes(b"\0" * 100)
    assert post.boot_up(monkeypatch) == 1
    assert "STOPPED at 1 of 10: node.toml on the card is damaged; flash the card again" in post.progress()
    assert not (post.root / "etc/wardpost/node.toml").exists()


def test_a_wiped_secret_that_was_never_placed_is_told(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make()
    (post.card / "secret/claim.key").unlink()
    assert post.boot_up(monkeypatch) == 1
    assert "secret/claim.key is missing on the card" in post.progress()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1}'])
def test_a_damaged_plan_is_one_line(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    post = make()
    (post.card / "plan.json").write_text(text)
    assert post.boot_up(monkeypatch) == 1
    assert "STOPPED" in post.progress() and "Traceback" not in post.progress()


def test_an_agent_that_does_not_run_is_told(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch) -> None:
    post = make()
    post.write("opt/wardpost/releases/0.5/bin/wardpost", "#!/bin/sh\necho no module >&2; exit 1\n")
    assert post.boot_up(monkeypatch) == 1
    assert "the installed agent does not run: no module" in post.progress()
    assert not (post.root / "etc/wardpost/card-done").exists()


def test_a_card_without_bundle_in_a_system_without_agent_says_what_to_do(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make()
    (post.root / "opt/wardpost/current").unlink()
    assert post.boot_up(monkeypatch) == 1
    assert "flash the card with --bundle" in post.progress()


def test_another_claim_on_the_same_system_begins_anew(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make()
    assert post.boot_up(monkeypatch) == 0
    identity = post.root / "var/lib/wardpost/identity"
    (identity / "node.key").write_text("of the former post")
    other = make()
    shutil.rmtree(post.boot)
    shutil.copytree(other.boot, post.boot)
    plan = json.loads((post.card / "plan.json").read_text())
    plan["instance"] = "wardpost-gate-north-another"
    (post.card / "plan.json").write_text(json.dumps(plan))
    assert post.boot_up(monkeypatch) == 0
    assert not (identity / "node.key").exists()
    assert (identity / "node.key.former").read_text() == "of the former post"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen (Debian: openssh-client)")
def test_files_of_no_bytes_are_made_again(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut in the system's own first boot was seen to leave: every host key and a sudoers file at 0 bytes."""
    post = make()
    for name in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "ssh_host_rsa_key"):
        post.write(f"etc/ssh/{name}", "")
    post.write("etc/ssh/sshd_config", "# stock")
    for name in ("etc/sudoers.d/90-cloud-init-users", "etc/netplan/50-cloud-init.yaml"):
        post.write(name, "")
    assert post.boot_up(monkeypatch) == 0, post.progress()
    keys = list((post.root / "etc/ssh").glob("ssh_host_*"))
    assert len(keys) >= 4 and all(path.stat().st_size > 0 for path in keys)
    assert not (post.root / "etc/netplan/50-cloud-init.yaml").exists()
    assert "lan ALL=(ALL) NOPASSWD:ALL" in (post.root / "etc/sudoers.d/90-lan").read_text()
    assert "mended after a power cut" in post.progress()


def test_it_runs_by_itself_with_nothing_but_the_standard_library(make: Callable[..., Post]) -> None:
    post = make()
    done = subprocess.run(
        [sys.executable, "-I", "-S", post.card / "install.py"],
        env={"WARDPOST_ROOT": str(post.root)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DONE" in post.progress()


def test_two_at_once_are_one(make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a cut both start it: cloud-init, and the unit that the try before has left. The second must not tell the
    technician that it stopped, on the card or by the LED, while the first one works."""
    post = make()
    first = install.Post(root=post.root, card=post.card)
    install.take_lock(first)
    before = post.progress()
    led = post.write("sys/class/leds/ACT/trigger", "timer")
    try:
        assert post.boot_up(monkeypatch) == 1, "not done: it is asked again after a minute"
    finally:
        os.close(first.lock_fd)
    assert post.progress() == before and led.read_text() == "timer"
    assert not (led.parent / "delay_on").exists()
    assert not (post.root / "etc/wardpost/card-done").exists()
    assert post.boot_up(monkeypatch) == 0


def test_on_a_real_post_the_agent_is_asked_as_its_own_user_with_a_program_that_is_found(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    """runuser lies in sbin: looked for in /usr/bin and /bin alone, no first boot ever came to its end."""
    post = make()
    system = install.Post(root=post.root, card=post.card)
    system.real = True
    asked: list[tuple[list[str], str]] = []

    def run(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append((command, env["PATH"]))
        return subprocess.CompletedProcess(command, 0, "0 problems, 0 warnings\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    install.ask_the_agent(system)
    [(command, path)] = asked
    assert command[:4] == ["runuser", "-u", "wardpost", "--"]
    assert shutil.which("runuser", path=path), path
    assert system.notes == ["check: 0 problems, 0 warnings"]


def test_the_login_is_enabled_once_and_only_started_at_the_next_try(
    make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To enable what is enabled has systemd read all its units again: 18 s on an emulated post, at every try."""
    post = make()
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(install.Post, "systemctl", lambda _, *words: told.append(words))
    assert post.boot_up(monkeypatch) == 0, post.progress()
    assert ("enable", "--now", "ssh") in told
    (post.root / "etc/wardpost/card-done").unlink()
    (post.root / install.SSH_ENABLED.lstrip("/")).symlink_to("/usr/lib/systemd/system/ssh.service")
    told.clear()
    assert post.boot_up(monkeypatch) == 0, post.progress()
    assert ("start", "ssh") in told and ("enable", "--now", "ssh") not in told


def test_a_release_is_compiled_but_for_what_no_post_imports(make: Callable[..., Post]) -> None:
    post = make()
    release = post.root / "opt/wardpost/releases/0.5"
    (release / "bin/python").symlink_to(sys.executable)
    for name in ("lib/agent/main.py", "lib/numpy/tests/test_all.py", "lib/setuptools/build.py"):
        post.write(f"opt/wardpost/releases/0.5/{name}", "x = 1\n")
    system = install.Post(root=post.root, card=post.card)
    install.compile_release(system, release)
    assert [path.parent.parent.name for path in release.rglob("*.pyc")] == ["agent"]
    assert not system.notes
    post.write("opt/wardpost/releases/0.5/lib/agent/old.py", "print 'Python 2'\n")
    install.compile_release(system, release)
    assert system.notes[0].startswith("not compiled: python failed")


@pytest.mark.parametrize("generation", list(Generation))
def test_the_system_is_set_up_to_run_alone_for_years(
    generation: Generation, make: Callable[..., Post], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = make(generation)
    deploy = Path(__file__).resolve().parents[2] / "deploy/appliance"
    assert {path.name for path in deploy.iterdir()} == set(install.APPLIANCE)
    shutil.copytree(deploy, post.card / "appliance")
    if generation is Generation.BOOKWORM:
        post.write("etc/dphys-swapfile", "CONF_SWAPSIZE=512\n")
    assert post.boot_up(monkeypatch) == 0, post.progress()
    for name, target in install.APPLIANCE.items():
        placed = post.root / target.lstrip("/")
        if name == "dphys-swapfile" and generation is Generation.TRIXIE:
            assert not placed.exists()
        else:
            assert placed.read_bytes() == (deploy / name).read_bytes(), name
