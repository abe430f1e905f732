"""From a stock image to a post: a real card image is flashed, read back, and its first boot is run, cut and run again."""

from __future__ import annotations

import json
import lzma
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import pytest

from agent.card import image
from agent.card.collect import Collector
from agent.card.flash import Flasher
from agent.errors import ConfigError, Corrupt, Transient
from tests.fakes.clock import FakeClock
from tests.fakes.kit import NOW, wifi, write_kit
from tests.system.card_image import BOOT_AT, MIB, check_file_systems, make_card, read_boot, tool
from tests.system.fetching import fetched

pytestmark = pytest.mark.system
ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"3.{sys.version_info.minor}"
ARCH = os.uname().machine
PASSWORD = "pass-word-9"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, assets: object) -> Path:
    """A real one, for this machine: fetched by pip, with the model."""
    folder = tmp_path_factory.mktemp("bundle") / "b"
    collector = Collector(source=ROOT, assets=assets, out=print)  # type: ignore[arg-type]
    fetched(lambda: collector.collect(folder, arch=ARCH, python=PYTHON), Transient)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_kit(folder, network={**wifi('Quán "cà phê" \\ ☕', PASSWORD), "lte": {"apn": "v-internet", "pass": "p;w"}})
    return folder


def flasher(said: list[str] | None = None, **other: object) -> Flasher:
    clock = FakeClock(utc_ns=round(NOW.timestamp() * 1e9))
    return Flasher(
        clock=clock,
        out=(said if said is not None else []).append,
        ask=None,
        tell=lambda *_: None,
        **other,  # type: ignore[arg-type]
    )


@pytest.fixture
def stock(tmp_path: Path) -> Path:
    return make_card(tmp_path / "stock.img", arch=ARCH, python=PYTHON)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Too small for a bundle; quick to copy."""
    return make_card(tmp_path / "small.img", arch=ARCH, python=PYTHON, boot_mib=64)


def flash(path: Path, site: Path, bundle: Path | None = None, **other: object) -> list[str]:
    said: list[str] = []
    assert flasher(said, **other).flash(path, "gate-north", site=site, bundle=bundle, stock=None, yes=False) == 0
    return said


def test_a_trixie_image_is_flashed_and_every_file_is_there(
    stock: Path, site: Path, bundle: Path, tmp_path: Path
) -> None:
    table, root = stock.read_bytes()[:512], tool("sfdisk", "-d", stock)
    said = flash(stock, site, bundle)
    assert "read back and found good" in said[0] and "trixie" in said[0]
    assert stock.read_bytes()[:512] == table and tool("sfdisk", "-d", stock) == root
    check_file_systems(stock, tmp_path)
    boot = read_boot(stock, tmp_path / "boot")
    for name in json.loads((bundle / "manifest.json").read_text())["files"]:
        assert (boot / "node" / name).read_bytes() == (bundle / name).read_bytes()
    assert 'Quán \\"cà phê\\" \\\\ ☕' in (boot / "network-config").read_text()
    assert "ds=nocloud;i=wardpost-gate-north" in (boot / "cmdline.txt").read_text()
    # Once more, with another kit's worth of files in between: nothing old stays.
    tool("mcopy", "-i", f"{stock}@@{BOOT_AT}", boot / "cmdline.txt", "::/node/old.txt")
    flash(stock, site)
    again = read_boot(stock, tmp_path / "again")
    assert not (again / "node/old.txt").exists() and not (again / "node/wheels").exists()
    assert (again / "cmdline.txt").read_text() == (boot / "cmdline.txt").read_text()
    check_file_systems(stock, tmp_path)


def test_the_room_behind_the_system_is_for_footage(small: Path, site: Path, tmp_path: Path) -> None:
    before = tool("sfdisk", "-d", small).splitlines()
    os.truncate(small, 3 << 30)  # as a card is larger than its image
    assert any("GB are a partition of their own" in line for line in flash(small, site))
    after = tool("sfdisk", "-d", small).splitlines()
    assert after[: len(before)] == before and len(after) == len(before) + 1 and "type=83" in after[-1]
    start = int(after[-1].split("start=")[1].split(",")[0])
    tool("e2fsck", "-fn", f"{small}?offset={start * 512}")
    assert "wardpost-data" in tool("debugfs", "-R", "show_super_stats -h", f"{small}?offset={start * 512}")
    check_file_systems(small, tmp_path)
    # Flashed again, it keeps what it holds.
    tool("debugfs", "-w", "-R", "mkdir footage", f"{small}?offset={start * 512}")
    flash(small, site)
    assert "footage" in tool("debugfs", "-R", "ls", f"{small}?offset={start * 512}")


def test_a_bookworm_image_gets_firstrun(site: Path, tmp_path: Path) -> None:
    card = make_card(tmp_path / "b.img", arch=ARCH, python="3.11", trixie=False, boot_mib=64)
    assert "bookworm" in flash(card, site)[0]
    boot = read_boot(card, tmp_path / "boot")
    assert "systemd.run=/boot/firmware/firstrun.sh" in (boot / "cmdline.txt").read_text()
    assert (boot / "firstrun.sh").is_file() and not (boot / "user-data").exists()
    check_file_systems(card, tmp_path)


def test_a_bundle_that_does_not_fit_the_system_on_the_card_changes_nothing(
    site: Path, bundle: Path, tmp_path: Path
) -> None:
    other = "aarch64" if ARCH == "x86_64" else "x86_64"
    for card, said in (
        (
            make_card(tmp_path / "arm.img", arch=other, python=PYTHON),
            f"is a bundle for {ARCH}, the card is for {other}",
        ),
        (make_card(tmp_path / "py.img", arch=ARCH, python="3.12"), "the card has Python 3.12"),
        (make_card(tmp_path / "small.img", arch=ARCH, python=PYTHON, boot_mib=64), "are needed; take a stock image"),
    ):
        before = card.read_bytes()
        with pytest.raises(ConfigError, match=said):
            flash(card, site, bundle)
        assert card.read_bytes() == before


def test_a_tampered_bundle_changes_nothing(stock: Path, site: Path, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with (copy / "model/labels.txt").open("a") as file:
        file.write("x")
    before = stock.read_bytes()
    with pytest.raises(ConfigError, match=r"labels.txt is not the file that was bundled"):
        flash(stock, site, copy)
    assert stock.read_bytes() == before


def test_a_stock_image_is_written_first_and_verified(small: Path, site: Path, tmp_path: Path) -> None:
    packed = tmp_path / "stock.img.xz"
    with lzma.open(packed, "wb", preset=0) as file, small.open("rb") as source:
        shutil.copyfileobj(source, file, 1 << 20)
    target = tmp_path / "card.img"
    told: list[str] = []
    made = Flasher(
        clock=FakeClock(utc_ns=round(NOW.timestamp() * 1e9)), out=told.append, ask=None, tell=lambda *_: None
    )
    assert made.flash(target, "gate-north", site=site, bundle=None, stock=packed, yes=False) == 0
    assert target.read_bytes()[:512] == small.read_bytes()[:512]
    assert (read_boot(target, tmp_path / "boot") / "node/plan.json").is_file()
    # A damaged archive: told, and the target has no partition table, so it cannot be taken for a good one.
    with packed.open("r+b") as file:
        file.truncate(packed.stat().st_size // 2)
    with pytest.raises(Corrupt, match="the image is damaged"):
        made.flash(target, "gate-north", site=site, bundle=None, stock=packed, yes=True)
    with pytest.raises(Corrupt, match="no partition table"):
        flash(target, site)


class PulledOut:
    """A card that goes away after so many bytes have been written to it."""

    def __init__(self, path: Path, mode: str, left: list[int]) -> None:
        self._file, self._left = path.open(mode), left

    def write(self, data: bytes) -> int:
        self._left[0] -= len(data)
        if self._left[0] < 0:
            raise OSError(5, "Input/output error")
        return self._file.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def test_a_card_pulled_out_midway_is_one_message_and_the_next_run_does_all_of_it(
    small: Path, site: Path, tmp_path: Path
) -> None:
    target = tmp_path / "card.img"
    left = [40 * MIB]
    broken = flasher(open_=lambda path, mode: PulledOut(path, mode, left))
    with pytest.raises(
        Transient, match="Input/output error while it was written; nothing on it can be relied on"
    ) as caught:
        broken.flash(target, "gate-north", site=site, bundle=None, stock=small, yes=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(Corrupt, match="no partition table"):
        image.read_layout(target)
    assert flasher().flash(target, "gate-north", site=site, bundle=None, stock=small, yes=True) == 0
    check_file_systems(target, tmp_path)


def test_pulled_out_while_the_files_are_written_it_still_boots_as_a_stock_card(
    small: Path, site: Path, tmp_path: Path
) -> None:
    """mtools fails in the middle; cmdline.txt, by which the first boot begins, is the last file of all."""
    calls = [0]

    def run(command: object, env: object) -> tuple[int, bytes, str]:
        if command[0] == "mcopy":  # type: ignore[index]
            calls[0] += 1
            if calls[0] == 6:
                return 1, b"", "plain_io write: Input/output error"
        return image.run_tool(command, env)  # type: ignore[arg-type]

    with pytest.raises(Transient, match="mcopy: plain_io write: Input/output error; nothing on it"):
        flash(small, site, run=run)
    assert "nocloud" not in (read_boot(small, tmp_path / "half") / "cmdline.txt").read_text()
    flash(small, site)
    assert "nocloud" in (read_boot(small, tmp_path / "whole") / "cmdline.txt").read_text()


def test_a_damaged_file_table_is_refused(small: Path, site: Path) -> None:
    layout = image.read_layout(small)
    with small.open("r+b") as file:
        file.seek(layout.boot.offset + layout.fat.fat_offset + layout.fat.fat_bytes + 4000)
        file.write(b"\xff" * 64)
    with pytest.raises(Corrupt, match="the two file tables of the boot partition differ"):
        flash(small, site)


def test_cloud_init_and_netplan_read_what_was_written(small: Path, site: Path, tmp_path: Path) -> None:
    if shutil.which("cloud-init") is None:
        pytest.skip("cloud-init is not installed (Debian: cloud-init)")
    flash(small, site)
    boot = read_boot(small, tmp_path / "boot")
    done = subprocess.run(["cloud-init", "schema", "--config-file", boot / "user-data"], capture_output=True, text=True)
    assert done.returncode == 0 and "Valid" in done.stdout, done.stdout + done.stderr
    program = (  # Debian's own Python: cloud-init's YAML reader is there
        "import sys, yaml, json; from cloudinit.net import network_state;"
        "text = open(sys.argv[1], encoding='utf-8').read(); d = yaml.safe_load(text)['network'];"
        "network_state.parse_net_config_data(d); print(json.dumps(d))"
    )
    out = tool("/usr/bin/python3", "-c", program, boot / "network-config")
    points = json.loads(out)["wifis"]["wlan0"]["access-points"]
    assert points == {'Quán "cà phê" \\ ☕': {"password": PASSWORD}}
    if shutil.which("netplan") is not None:
        folder = tmp_path / "plan/etc/netplan"
        folder.mkdir(parents=True)
        shutil.copy(boot / "network-config", folder / "50-cloud-init.yaml")
        (folder / "50-cloud-init.yaml").chmod(0o600)
        tool("netplan", "generate", "--root-dir", tmp_path / "plan")


# -- the first boot ----------------------------------------------------------------------------------------------------


@pytest.fixture
def post(stock: Path, site: Path, bundle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A root folder as a stock system has it, and the boot partition of a flashed card."""
    flash(stock, site, bundle)
    root = tmp_path / "root"
    for name, text in {
        "etc/passwd": "root:x:0:0::/root:/bin/bash\n", "etc/group": "root:x:0:\nvideo:x:44:\ngpio:x:997:\n",
        "etc/shadow": "root:*:19000:0:99999:7:::\n", "etc/gshadow": "root:*::\nvideo:!::\ngpio:!::\n",
        "etc/login.defs": Path("/etc/login.defs").read_text(), "etc/ssh/sshd_config": "# stock\n",
        "etc/hosts": "127.0.0.1 localhost\n", "usr/share/zoneinfo/Asia/Ho_Chi_Minh": "TZif2",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "home").mkdir()
    return root, read_boot(stock, tmp_path / "boot")


def first_boot(root: Path, boot: Path) -> subprocess.Popen[str]:
    """Without a network, in a session of its own: a power cut ends all of it at once."""
    return subprocess.Popen(
        ["unshare", "-n", sys.executable, "-I", boot / "node/install.py"],
        env={"PATH": os.environ["PATH"], "WARDPOST_ROOT": str(root)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def cpu_s() -> float:
    """What all children that have ended have used: unlike the time they took, no other's business."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


@pytest.mark.timeout(1200)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes users and a network namespace")
def test_the_first_boot_cut_ten_times_ends_with_an_agent_that_works(
    post: tuple[Path, Path], tmp_path: Path, seed: int
) -> None:
    stock = tmp_path / "stock"
    for path in post:
        shutil.copytree(path, stock / path.name, symlinks=True)
    root, boot = post
    chance = random.Random(seed)
    cuts, posts = 0, 1
    while cuts < 10:
        running = first_boot(root, boot)
        try:
            running.communicate(timeout=chance.choice([chance.uniform(0.05, 1.5), chance.uniform(1, 9)]))
            assert running.returncode == 0
            # This machine is fast, and the first boot was over before its power went: another post, and on with it.
            shutil.rmtree(root)
            root, boot = (tmp_path / f"another-{posts}" / path.name for path in post)
            shutil.copytree(stock, root.parent, symlinks=True)
            posts += 1
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
            cuts += 1
    start = time.monotonic()
    running = first_boot(root, boot)
    out, _ = running.communicate(timeout=600)
    print(f"{cuts} cuts, {posts} posts; the last, whole run took {time.monotonic() - start:.1f} s")
    progress = (boot / "node/progress.txt").read_text()
    assert running.returncode == 0, out
    assert "DONE" in progress, progress
    # The agent works from where it was installed, and says of the settings only what is true of this machine.
    toml = root / "etc/wardpost/node.toml"
    text = toml.read_text().replace('"/var/lib', f'"{root}/var/lib').replace('"/etc/', f'"{root}/etc/')
    (root / "check.toml").write_text(text)
    agent = root / "opt/wardpost/current/bin/wardpost"
    env = {"PATH": os.environ["PATH"], "WARDPOST_CACHE": str(root / "opt/wardpost/model")}
    done = subprocess.run(
        ["unshare", "-n", agent, "check", "--config", root / "check.toml"], env=env, capture_output=True, text=True
    )
    assert "vision.detector: " in done.stdout and "loads" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert all(word in " ".join(problems) for word in ("camera",)), problems  # there is none here
    assert not [line for line in problems if "config" in line or "vision" in line], problems
    # Users, rights, secrets, units.
    passwd = (root / "etc/passwd").read_text()
    assert "\nwardpost:" in passwd and "\nlan:" in passwd
    assert "video:x:44:wardpost" in (root / "etc/group").read_text()
    key = root / "var/lib/wardpost/identity/claim.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and key.stat().st_uid != 0
    assert agent.stat().st_uid == key.stat().st_uid, "the node itself puts its updates there"
    assert (root / "usr/local/lib/wardpost/wardpost-launch").stat().st_mode & 0o111
    assert len(list((root / "etc/ssh").glob("ssh_host_*_key"))) >= 3
    for unit in ("wardpost-node.service", "wardpost-enrol.service"):
        assert (root / "etc/systemd/system/multi-user.target.wants" / unit).is_symlink()
    left = b"".join(path.read_bytes() for path in boot.rglob("*") if path.is_file() and path.stat().st_size < MIB)
    assert PASSWORD.encode() not in left and b"PRIVATE KEY" not in left
    # Once done, it is done: the next boot changes nothing, at once.
    before = cpu_s()
    again = first_boot(root, boot)
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert cpu_s() - before < 2, "it did not begin again"
