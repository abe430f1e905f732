"""From a blank card to a trusted post: the card that `wardpost flash` has written is put into a computer and gets power.

Debian trixie with cloud-init stands for Raspberry Pi OS. The post has no network but the broker of its site. The power
may be cut during its first boot, once while cloud-init works and once while the agent is installed; what was not
flushed is lost. Then it is left alone: it must install itself, record, enrol, and be seen at the station; and after one
more cut go straight to recording. In a second story its agent is updated, and the power goes while that is under way.

Each story keeps a processor busy for ten minutes and is told where this is set; `test_card.py` has a card's first
boot, cut ten times, on every run, and `test_powercut_vm.py` an emulated computer.
WARDPOST_CARD_VM_CUTS: how many power cuts in the first boot, 0 to 2.
WARDPOST_CARD_VM_UPDATE_CUTS: how many during the update, 1 or 2; it needs the first story.
WARDPOST_SEED repeats the moments. Reports, seconds per step: test-out/card-vm.json, test-out/card-vm-update.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cryptography import x509

from agent.assets import FOOTAGE, Assets
from tests.system.card_image import BOOT_AT, read_boot, tool
from tests.system.fetching import fetched
from tests.system.powercut.rebuild import BlockLog, Cut, Rebuilder, sparse_copy
from tests.system.powercut.rig import ROOT
from tests.system.vm.card_machine import CARD_BYTES, FILM, FOLDER, CardMachine, stock_image
from tests.system.vm.card_site import CardSite, wardpost
from tests.system.vm.emulator import missing, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]

NODE = "gate-north"
CUTS = int(os.environ.get("WARDPOST_CARD_VM_CUTS") or 0)
UPDATE_CUTS = int(os.environ.get("WARDPOST_CARD_VM_UPDATE_CUTS") or 0)
FIRST_BOOT = bool(os.environ.get("WARDPOST_CARD_VM_CUTS")) or UPDATE_CUTS > 0
ARCH, PYTHON = "x86_64", "3.13"
STEP_S_MAX = 900.0  # an emulated processor on a busy machine
REPORT = ROOT / "test-out" / "card-vm.json"
UPDATE_REPORT = ROOT / "test-out" / "card-vm-update.json"
# Motion alerts: one look of the detector takes an emulated processor seconds, a busy one more than the watchdog allows.
# That the bundle's detector loads and sees is tried in test_card.py, on a real processor.
PROFILE = """\
[vision]
analysis_fps = 1.0
alert_on = ["motion"]

[vision.detector]
driver = "none"

[calendar]
time_zone = "Asia/Ho_Chi_Minh"

[recording]
segment_s = 10
budget_gb = 0.5
free_gb_min = 0.05

[health]
heartbeat_s = 5
"""


MAY_FAIL = (
    "ssh.service",  # cloud-init starts it again before there are keys, which our first boot makes
    "wardpost-card.service",  # the second of two: cloud-init has started another one, which is at work
)


class Laps:
    """Seconds per step, for the report."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        self.seconds[what] = round(now - self._last, 1)
        self._last = now
        print(f"{what}: {self.seconds[what]} s", flush=True)


class Card:
    """A written card, and the site it belongs to."""

    def __init__(self, folder: Path, film: Path) -> None:
        self.folder, self.laps = folder, Laps()
        self.stock = stock_image(folder / "stock.img", film)
        self.laps("the stock image is made (no part of the product)")
        self.site = CardSite(kind="mosquitto", folder=folder)
        self.laps("wardpost site init")
        bundle = ("bundle", "-o", folder / "bundle", "--arch", ARCH, "--python", PYTHON)
        fetched(lambda: wardpost(*bundle), AssertionError)
        self.laps("wardpost bundle")
        tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")
        (folder / "profile.toml").write_text(PROFILE)
        wardpost(
            "provision", NODE, "--site", self.site.root, "--profile", folder / "profile.toml", "--ethernet",
            "--camera-url", FILM, "--ssh-key", folder / "key.pub", "--place", "Gate 3",
        )  # fmt: skip
        self.kit = self.site.root / "nodes" / NODE / "kit"
        settings = (self.kit / "node.toml").read_text()
        # The camera of this post is a film of ten seconds; everything else is as it was provisioned.
        (self.kit / "node.toml").write_text(settings.replace(f'url = "{FILM}"', f'url = "{FILM}"\nloop = true'))
        self.laps("wardpost provision")
        self.path = folder / "card.img"
        sparse_copy(self.stock, self.path)
        os.truncate(self.path, CARD_BYTES)  # a card is larger than its image
        self.said = wardpost("flash", self.path, NODE, "--site", self.site.root, "--bundle", folder / "bundle")
        self.laps("wardpost flash")
        self.lived: Path | None = None  # the card as the first story has left it

    def switch_on(self, image: Path, name: str) -> tuple[CardMachine, Path]:
        """A computer with this state of the card, and a copy of it for `lose_power`."""
        before = self.folder / f"{name}.before"
        sparse_copy(image, before)
        return CardMachine(self.folder, image, self.site.port, name=name), before


@pytest.fixture(scope="module")
def card(assets: Assets) -> Iterator[Card]:
    why = missing()
    if why:
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="wardpost-card-vm-", dir="/var/tmp"))
    try:
        yield Card(folder, assets.get(FOOTAGE))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_trixies_own_cloud_init_and_netplan_take_the_files_that_were_written(card: Card, tmp_path: Path) -> None:
    boot = read_boot(card.path, tmp_path / "boot")
    inside = FOLDER / "root/tmp/seed"
    shutil.rmtree(inside, ignore_errors=True)
    shutil.copytree(boot, inside, ignore=shutil.ignore_patterns("node"))
    plan = inside / "plan/etc/netplan"
    plan.mkdir(parents=True)
    shutil.copy(boot / "network-config", plan / "50-cloud-init.yaml")
    (plan / "50-cloud-init.yaml").chmod(0o600)

    def chroot(*command: str) -> str:
        return tool(
            "chroot", FOLDER / "root", "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8", *command
        )

    try:
        said = chroot("cloud-init", "schema", "--config-file", "/tmp/seed/user-data")
        said += chroot(
            "cloud-init", "schema", "--schema-type", "network-config", "--config-file", "/tmp/seed/network-config"
        )
        chroot("netplan", "generate", "--root-dir", "/tmp/seed/plan")
    finally:
        shutil.rmtree(inside)
    assert said.count("Valid schema") == 2, said


def lose_power(machine: CardMachine, before: Path, after: Path, *, mode: str, seed: int) -> int:
    """Cuts, and makes the card as it may be then. `before`: as it was when the machine was switched on."""
    machine.cut()
    log = BlockLog(machine.disk.log)
    rebuilder = Rebuilder(log, before, after.parent)
    lost = rebuilder.image(Cut(len(log.entries), mode, seed), after)
    rebuilder.close()
    machine.disk.log.unlink()
    machine.card.unlink()
    return lost


def records(beat: dict[str, Any]) -> bool:
    """Whether a heartbeat says that the post records."""
    return bool((beat.get("recording") or {}).get("recording"))


def alerts(bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events that a person is to look at."""
    return [body for body in bodies if body["data"]["severity"] == "alert"]


@contextlib.contextmanager
def mounted(image: Path, number: int, folder: Path) -> Iterator[Path]:
    """A partition of the card, with its journal played back as the next boot would."""
    line = tool("sfdisk", "-d", image).splitlines()[-4 + number]
    start = int(line.split("start=")[1].split(",")[0])
    folder.mkdir(exist_ok=True)
    tool("mount", "-o", f"loop,noatime,offset={start * 512}", image, folder)
    try:
        yield folder
    finally:
        tool("umount", folder)


def look_at(image: Path, folder: Path, kit: Path) -> float:
    """What must be on the card in the end, and what must not. Returns by how much footage is older than the certificate."""
    key = "".join((kit / "claim.key").read_text().split("-----")[2].split()).encode()
    boot = read_boot(image, folder / "boot")  # by mtools: not every kernel knows vfat
    assert "DONE" in (boot / "node/progress.txt").read_text()
    assert (boot / "network-config").read_text().strip() == "network: {config: disabled}"
    assert not list((boot / "node/secret").glob("*"))
    size = int(tool("sfdisk", "-d", image).split("size=")[1].split(",")[0]) * 512
    with image.open("rb") as file:  # also in no sector that no file has any more
        file.seek(BOOT_AT)
        left = file.read(size).replace(b"\n", b"")
    assert key[:40] not in left and b"PRIVATE KEY" not in left
    with mounted(image, 2, folder / "mnt") as root:
        assert str((root / "opt/wardpost/current").readlink()).startswith("releases/")
        assert (root / "etc/wardpost/card-done").read_text().startswith(f"wardpost-{NODE}-")
        assert (root / "etc/hostname").read_text() == f"{NODE}\n"
        assert len([path for path in (root / "etc/ssh").glob("ssh_host_*_key") if path.stat().st_size]) >= 3
        assert (root / "home/technician/.ssh/authorized_keys").stat().st_size
        assert not list(root.glob("etc/sudoers.d/*.wardpost")), "half a file"
        assert [path.name for path in root.glob("etc/sudoers.d/*") if not path.stat().st_size] == []
        assert not (root / "etc/systemd/system/wardpost-card.service").exists()
    with mounted(image, 3, folder / "mnt") as data:
        identity = data / "identity"
        certificate = x509.load_pem_x509_certificate((identity / "node.pem").read_bytes())
        (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        assert name.value == NODE
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((kit / "ca.pem").read_bytes()))
        assert stat.S_IMODE((identity / "node.key").stat().st_mode) == 0o600
        assert not list(identity.glob("claim.*")), "the claim is used up, and its key gone"
        footage = [path for path in data.rglob("*.mp4") if path.stat().st_size > 100_000]
        assert footage
        before_s = born(identity / "node.pem") - min(map(born, footage))
        assert before_s > 0, "it recorded before it was enrolled"
    return round(before_s, 1)


def born(path: Path) -> float:
    """When a file was made, by the clock of its machine, in s since 1970."""
    return float(subprocess.run(["stat", "-c", "%.3W", path], check=True, capture_output=True, text=True).stdout)


def steps(console: str) -> dict[str, float]:
    """What the first boot said on the console -> seconds since the machine was switched on."""
    found = re.findall(r"\[\s*([0-9.]+)\] \S+: wardpost: (?:now\s+)?(.*?)\r?\n", console)
    return {text: round(float(at), 1) for at, text in found}


def ok(console: str) -> None:
    """No unit has failed, and nothing has stopped or raised."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console)
    failed = [line for line in plain.splitlines() if "[FAILED]" in line and not any(map(line.count, MAY_FAIL))]
    assert not failed, failed
    assert "Traceback" not in console and "STOPPED" not in console, console[-3000:]


@pytest.mark.skipif(not FIRST_BOOT, reason="takes ten minutes: WARDPOST_CARD_VM_CUTS=0 tells it without any cut")
def test_a_flashed_card_becomes_a_post_that_headquarters_sees_whatever_its_power_does(card: Card, seed: int) -> None:
    chance = random.Random(seed)
    site, folder, laps = card.site, card.folder, card.laps
    report: dict[str, Any] = {"seed": seed, "steps_s": laps.seconds, "cuts": []}
    now, machine = card.path, None
    assert card.said.startswith(f"{card.path} ") and "read back and found good" in card.said
    laps("(between)")

    try:
        # -- two boots that do not come to their end ------------------------------------------------------------------
        moments = (
            ("running 'init-local'", chance.uniform(0.5, 20.0), "subset"),
            ("the agent is installed", chance.uniform(3.0, 40.0), "none"),
        )
        for n, (sign, wait_s, mode) in enumerate(moments[:CUTS]):
            machine, before = card.switch_on(now, f"cut-{n}")
            wait_for(f"boot {n + 1}: {sign}", lambda m=machine, s=sign: s in m.said(), machine, STEP_S_MAX)  # type: ignore[misc]
            time.sleep(wait_s)
            console, progress = machine.said(), machine.read("node/progress.txt")
            now = folder / f"card-{n}.img"
            lost = lose_power(machine, before, now, mode=mode, seed=chance.getrandbits(32))
            before.unlink()
            laps(f"boot {n + 1}, cut {wait_s:.0f} s after: {sign}")
            report["cuts"].append({"after": sign, "s": round(wait_s, 1), "mode": mode, "unflushed_bytes_lost": lost})
            assert "DONE" not in progress, "the cut came too late to show anything"
            assert not n or "of 10: " in progress, progress
            ok(console)

        # -- left alone -----------------------------------------------------------------------------------------------
        whole, before = card.switch_on(now, "whole")
        machine = whole
        wait_for("the first boot is done", lambda: "wardpost: DONE" in whole.said(), whole, STEP_S_MAX)
        laps("first boot to its end, after those cuts")
        last = "DONE. The post is installed and starts recording"
        # It is said on the console first, and then written.
        wait_for("the card says so too", lambda: last in whole.read("node/progress.txt"), whole, STEP_S_MAX)
        progress = whole.read("node/progress.txt")
        report["progress"] = [line for line in progress.splitlines() if line.strip()]
        assert progress.startswith(f"First boot of {NODE} (ward-7)") and "check: " in progress
        wait_for("the node says that it is ready", lambda: "ready: " in whole.said(), whole, STEP_S_MAX)
        laps("... to a node that is ready, without any network")
        site.open()  # only now: so the node has begun to record before it can be enrolled
        heard = site.heard(NODE)
        wait_for("it is enrolled", lambda: "enrolled: the post has its certificate" in whole.said(), whole, STEP_S_MAX)
        laps("... to its certificate, from when headquarters is there")
        wait_for("the station hears it", lambda: records(heard.heartbeat()), whole, STEP_S_MAX)
        laps("... to its first heartbeat at the station")
        wait_for("the station has an alert", lambda: bool(alerts(heard.bodies())), whole, STEP_S_MAX)
        laps("... to its first alert at the station")
        first = heard.heartbeat()["bootid"]
        report["first_boot_console_s"] = steps(whole.said())
        ok(whole.said())
        now = folder / "card-2.img"
        lose_power(whole, before, now, mode="none", seed=chance.getrandbits(32))
        before.unlink()
        laps("(looking)")

        # -- the next boot --------------------------------------------------------------------------------------------
        machine, before = card.switch_on(now, "second")

        def back() -> bool:
            beat = heard.heartbeat()
            return records(beat) and beat["bootid"] != first

        wait_for("after the next cut it records again and is heard", back, machine, STEP_S_MAX)
        laps("second boot, switched on to recording and heard")
        assert "wardpost: now" not in machine.said(), "the first boot began again"
        ok(machine.said())
        now = folder / "card-3.img"
        lose_power(machine, before, now, mode="none", seed=chance.getrandbits(32))
        shown = json.loads(wardpost("site", "show", site.root, "--json"))
        [post] = shown["nodes"]
        assert (post["node"], post["state"]) == (NODE, "enrolled") and not post["claimopen"], shown
        assert [one["kind"] for one in post["certificates"] if one["kind"] == "node"] == ["node"], shown
        assert not shown["refused"], shown
        report["recording_before_certificate_s"] = look_at(now, folder, card.kit)
        card.lived = now
    finally:
        if machine is not None and machine.running():
            machine.cut()
        site.close()
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(json.dumps(report, indent=2) + "\n")


def still_film(path: Path) -> None:
    """Ten seconds in which nothing moves: an update waits for a moment without an incident."""
    with av.open(str(path), "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=10, options={"g": "10", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(100):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 90, np.uint8), format="rgb24")))
        out.mux(stream.encode())


@pytest.mark.skipif(not UPDATE_CUTS, reason="takes ten minutes: WARDPOST_CARD_VM_UPDATE_CUTS=2 tells it")
def test_the_power_may_go_while_the_agent_is_updated(card: Card, seed: int) -> None:
    now = card.lived
    if now is None:
        pytest.skip("the story before has not come to its end")
    chance = random.Random(f"update {seed}")
    site, folder, laps = card.site, card.folder, Laps()
    report: dict[str, Any] = {"seed": seed, "steps_s": laps.seconds, "cuts": []}
    bundle = folder / "release-1.zip"
    wardpost(
        "release", "make", "-o", bundle, "--key", site.root / "release/release.key", "--wheels", folder / "bundle/wheels",
        "--number", "1", "--architecture", ARCH, "--python", PYTHON,
    )  # fmt: skip
    report["bundle_bytes"] = bundle.stat().st_size
    laps("wardpost release make")
    with mounted(now, 2, folder / "mnt") as root:
        (root / "mnt/stick").mkdir()  # a stick that somebody has plugged in
        shutil.copy(bundle, root / "mnt/stick")
        still_film(root / FILM.lstrip("/"))
        settings = root / "etc/wardpost/node.toml"
        settings.write_text(settings.read_text() + "\n[vision.tamper]\nenabled = false\n")
    heard = site.heard(NODE)
    boots = {heard.heartbeat().get("bootid")}
    machine: CardMachine | None = None

    def told() -> dict[str, Any]:
        return dict(heard.heartbeat().get("release") or {})

    def back() -> bool:
        beat = heard.heartbeat()
        return records(beat) and beat["bootid"] not in boots

    try:
        site.open()
        machine, before = card.switch_on(now, "update")
        wait_for("it records", back, machine, STEP_S_MAX)
        laps("boot")
        config = site.root / "station/station.toml"
        wardpost(
            "update",
            "--config",
            config,
            "--bundle",
            bundle,
            "--url",
            f"/mnt/stick/{bundle.name}",
            "--wait-s",
            "0",
            NODE,
        )
        moments = (
            ("it was told", lambda: True, chance.uniform(5.0, 60.0), "subset"),
            ("the new release is tried", lambda: told().get("phase") == "trying", chance.uniform(0.0, 30.0), "none"),
        )
        for n, (what, come, wait_s, mode) in enumerate(moments[:UPDATE_CUTS]):
            wait_for(what, come, machine, STEP_S_MAX)
            laps(f"{what}")
            time.sleep(wait_s)
            boots.add(heard.heartbeat()["bootid"])
            after = folder / f"update-{n}.img"
            lost = lose_power(machine, before, after, mode=mode, seed=chance.getrandbits(32))
            before.unlink()
            report["cuts"].append({
                "after": what, "s": round(wait_s, 1), "mode": mode, "unflushed_bytes_lost": lost, "release": told(),
            })  # fmt: skip
            with mounted(after, 2, folder / "mnt") as root:  # whatever the moment: `current` is a whole release
                current = root / "opt/wardpost" / (root / "opt/wardpost/current").readlink()
                assert (current / "bin/wardpost").is_file(), sorted(current.parent.iterdir())
            machine, before = card.switch_on(after, f"update-{n}-again")
            wait_for("after the cut it records and is heard", back, machine, STEP_S_MAX)
            laps(f"cut {wait_s:.0f} s later; boot to recording and heard")
        wait_for("the new release is confirmed", lambda: told().get("number") == 1, machine, 2 * STEP_S_MAX)
        laps("... to the new release confirmed")
        assert records(heard.heartbeat())
    finally:
        if machine is not None and machine.running():
            machine.cut()
        site.close()
        UPDATE_REPORT.parent.mkdir(exist_ok=True)
        UPDATE_REPORT.write_text(json.dumps(report, indent=2) + "\n")
