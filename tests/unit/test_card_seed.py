"""The texts of the boot partition: what a stock image reads at its first boot."""

from __future__ import annotations

import configparser
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.card import seed
from agent.card.kit import Kit, WifiSettings, read_kit
from agent.card.seed import Generation, boot_files, command_line, generation_of, keyfile_text, wifi_keyfile, yaml
from agent.errors import ConfigError
from tests.fakes.kit import NOW, SSH_KEY, wifi, write_kit

TRIXIE_LINE = (
    "console=serial0,115200 console=tty1 root=PARTUUID=4e8a1b2c-02 rootfstype=ext4 fsck.repair=yes rootwait resize\n"
)
BOOKWORM_LINE = "console=tty1 root=PARTUUID=4e8a1b2c-02 rootwait quiet init=/usr/lib/raspberrypi-sys-mods/firstboot\n"
NAMES = [
    "Harbour Road",
    'He said "hi"',
    "back\\slash\\x41",
    "Quán cà phê Nguyễn ữ",
    "☕🦆",
    "it's: #1 {a}",
    " edge ",
]


def kit(folder: Path, network: dict[str, Any] | None = None) -> Kit:
    return read_kit(write_kit(folder, network=network), node="gate-north", now=NOW)


def files(made: Kit, generation: Generation) -> dict[str, bytes]:
    line = TRIXIE_LINE if generation is Generation.TRIXIE else BOOKWORM_LINE
    return boot_files(made, generation=generation, cmdline=line, bundle={"wheels/a.whl": "00" * 32})


def test_trixie_gets_a_seed_whose_id_is_the_same_in_both_places(tmp_path: Path) -> None:
    made = files(kit(tmp_path), Generation.TRIXIE)
    assert {"meta-data", "user-data", "network-config", "cmdline.txt"} <= set(made)
    assert made["meta-data"].decode().splitlines()[0] == "instance-id: wardpost-gate-north-k3v9q2mz7t"
    line = made["cmdline.txt"].decode()
    assert line.endswith(" ds=nocloud;i=wardpost-gate-north-k3v9q2mz7t cfg80211.ieee80211_regdom=VN\n")
    assert " resize" not in line and "root=PARTUUID=4e8a1b2c-02" in line and line.count("\n") == 1


def test_bookworm_gets_a_firstrun_that_cmdline_starts_and_no_seed(tmp_path: Path) -> None:
    made = files(kit(tmp_path), Generation.BOOKWORM)
    assert "systemd.run=/boot/firmware/firstrun.sh" in made["cmdline.txt"].decode()
    assert "firstboot" not in made["cmdline.txt"].decode()  # it would rewrite the disk's id, in three places
    assert not {"meta-data", "user-data", "network-config"} & set(made)
    script = tmp_path / "firstrun.sh"
    script.write_bytes(made["firstrun.sh"])
    for shell in ("sh", "bash"):
        assert subprocess.run([shell, "-n", script], capture_output=True).returncode == 0


def test_nothing_that_must_survive_a_cut_hangs_on_what_cloud_init_does_once(tmp_path: Path) -> None:
    text = files(kit(tmp_path), Generation.TRIXIE)["user-data"].decode()
    assert text.startswith("#cloud-config\n")
    assert "runcmd" not in text and "write_files" not in text
    [start] = [line for line in text.splitlines() if "install.py" in line and line.startswith("  - ")]
    command = json.loads(start.removeprefix("  - "))
    # Repeated in every boot until the flag of this very kit is there, after the partition is mounted, never waited for.
    assert command.startswith(
        "grep -qsxF wardpost-gate-north-k3v9q2mz7t /etc/wardpost/card-done || systemd-run --no-block"
    )
    assert "RequiresMountsFor=/boot/firmware" in command
    assert subprocess.run(["sh", "-n", "-c", command]).returncode == 0


def test_ssh_is_opened_only_for_somebody(tmp_path: Path) -> None:
    text = files(kit(tmp_path), Generation.TRIXIE)["user-data"].decode()
    assert "enable --now ssh" in text and SSH_KEY in text and "ssh_pwauth: false" in text
    nobody = kit(tmp_path / "other", {"ethernet": {}, "ssh_keys": []})
    assert "enable --now ssh" not in files(nobody, Generation.TRIXIE)["user-data"].decode()


@pytest.mark.parametrize("name", NAMES)
def test_a_wifi_name_survives_as_it_is(tmp_path: Path, name: str) -> None:
    made = kit(tmp_path, wifi(name, 'p"\\ss wörd;#'))
    text = files(made, Generation.TRIXIE)["network-config"].decode()
    [line] = [line for line in text.splitlines() if line.startswith("        ") and line.endswith(":")]
    assert json.loads(line.strip()[:-1]) == name  # a double-quoted scalar of YAML; tests/system asks cloud-init itself
    [password] = [line for line in text.splitlines() if "password:" in line]
    assert json.loads(password.partition(":")[2]) == 'p"\\ss wörd;#'
    keyfile = files(made, Generation.BOOKWORM)["node/secret/wardpost-wifi.nmconnection"].decode()
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#",))
    parser.read_string(keyfile)
    assert bytes(int(n) for n in parser["wifi"]["ssid"].strip(";").split(";")).decode() == name
    assert parser["wifi-security"]["psk"] == 'p"\\\\ss wörd;#'  # the backslash escapes itself


def test_an_open_network_has_no_password_line() -> None:
    text = wifi_keyfile(WifiSettings(ssid="open", country="VN"), "n")
    assert "psk" not in text and "wifi-security" not in text


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=32))
def test_a_quoted_scalar_is_one_line_and_says_the_same(text: str) -> None:
    quoted = yaml(text)
    assert json.loads(quoted) == text
    assert len(quoted.splitlines()) == 1  # what Python takes for an end of line includes what YAML does
    assert not {"\x7f", "\u0085", "\u2028", "\u2029", "\ufeff"} & set(quoted)


@pytest.mark.parametrize(
    ("text", "kept"), [("a\\b", "a\\\\b"), (" a ", "\\sa\\s"), (" ", "\\s"), ("", ""), ("a;b", "a;b")]
)
def test_keyfile_values_keep_backslashes_and_spaces_at_the_ends(text: str, kept: str) -> None:
    assert keyfile_text(text) == kept


@pytest.mark.parametrize("generation", list(Generation))
def test_secrets_lie_in_one_folder_and_nowhere_else(tmp_path: Path, generation: Generation) -> None:
    # Eight digits: four of them are found by chance in the hashes of a kit's new keys, once in 200 kits.
    network = {**wifi("a", "wifi-pass-word"), "lte": {"apn": "x", "pass": "lte-pass-word", "pin": "73514698"}}
    made = kit(tmp_path, network)
    found = files(made, generation)
    secrets = [b"wifi-pass-word", b"lte-pass-word", b"73514698", made.files["claim.key"].splitlines()[1]]
    for path, data in found.items():
        if not path.startswith("node/secret/") and path != "network-config":
            assert not [secret for secret in secrets if secret in data], path
    plan = json.loads(found["node/plan.json"])
    marked = {f"node/{entry['from']}" for entry in plan["place"] if entry["secret"]}
    assert marked == {path for path in found if path.startswith("node/secret/")}
    # Not even a hash: eight letters are found from their hash in no time.
    assert not [name for name in plan["sha256"] if name.startswith("secret/")]


@pytest.mark.parametrize("generation", list(Generation))
def test_a_post_with_a_code_gets_its_hotspot_and_the_first_request_for_its_page(
    tmp_path: Path, generation: Generation
) -> None:
    folder = write_kit(tmp_path)
    without = files(read_kit(folder, node="gate-north", now=NOW), generation)
    with (folder / "node.toml").open("a") as file:
        file.write('\n[setup_page]\ncode = "ABCDE-23456"\n')
    found = files(read_kit(folder, node="gate-north", now=NOW), generation)
    name = "wardpost-setup.nmconnection"
    assert set(found) - set(without) == {f"node/secret/{name}", "node/setup-page.txt"}
    assert b"psk=ABCDE23456" in found[f"node/secret/{name}"]
    assert seed.instance_id(read_kit(folder, node="gate-north", now=NOW)).encode() in found["node/setup-page.txt"]
    plan = json.loads(found["node/plan.json"])
    (placed,) = [entry for entry in plan["place"] if entry["from"] == f"secret/{name}"]
    assert placed["to"] == f"/etc/NetworkManager/system-connections/{name}" and placed["mode"] == 0o600
    assert "setup-page.txt" not in plan["sha256"], "a technician may write something else into it"


def test_the_plan_knows_every_other_file_by_its_hash(tmp_path: Path) -> None:
    found = files(kit(tmp_path), Generation.TRIXIE)
    plan = json.loads(found["node/plan.json"])
    assert plan["sha256"].pop("wheels/a.whl") == "00" * 32
    for name, digest in plan["sha256"].items():
        assert hashlib.sha256(found[f"node/{name}"]).hexdigest() == digest
    assert {entry["from"] for entry in plan["place"]} == {
        *plan["sha256"],
        *(path.removeprefix("node/") for path in found if path.startswith("node/secret/")),
    }


@pytest.mark.parametrize("generation", list(Generation))
def test_a_card_that_is_written_twice_has_each_word_once(tmp_path: Path, generation: Generation) -> None:
    once = command_line(TRIXIE_LINE, generation=generation, instance="one", country="VN")
    assert command_line(once, generation=generation, instance="one", country="VN") == once
    again = command_line(once, generation=generation, instance="two", country="")
    assert "one" not in again.split("ds=nocloud;i=")[-1] and "regdom" not in again


@pytest.mark.parametrize("text", ["", "\n", "console=tty1\n", "root=/dev/a\nroot=/dev/b\n", "\x00" * 512])
def test_a_damaged_cmdline_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not one line that names root="):
        command_line(text, generation=Generation.TRIXIE, instance="i", country="")


def test_a_cmdline_that_is_too_long_is_refused() -> None:
    with pytest.raises(ConfigError, match="bytes long, 1024 at most"):
        command_line("root=/dev/a " + "x" * 1020, generation=Generation.TRIXIE, instance="i", country="")


def test_the_generation_is_told_by_what_lies_on_the_card() -> None:
    stock = {"cmdline.txt", "config.txt", "issue.txt"}
    assert generation_of(stock) is Generation.BOOKWORM
    assert generation_of(stock | {"user-data", "meta-data", "network-config"}) is Generation.TRIXIE
    with pytest.raises(ConfigError, match="not Raspberry Pi OS"):
        generation_of({"syslinux.cfg", "user-data"})
    assert seed.NEUTRAL_NETWORK.startswith("network:")
