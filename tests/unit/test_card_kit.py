"""A kit is judged at the desk: what is wrong with it is told there, all of it, and nothing of it reaches a card."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.card.kit import FILES, NODE_PATHS, kit_folder, read_kit
from agent.cli import main
from agent.errors import ConfigError
from tests.fakes.kit import CLAIM, NOW, SSH_KEY, node_toml, wifi, write_kit

NODE = "gate-north"


def wrong(folder: Path, *, node: str = NODE, now: dt.datetime = NOW) -> str:
    with pytest.raises(ConfigError) as caught:
        read_kit(folder, node=node, now=now)
    return str(caught.value)


def test_a_good_kit_is_read_whole(tmp_path: Path) -> None:
    kit = read_kit(write_kit(tmp_path, network=wifi("Quán cà phê ☕")), node=NODE, now=NOW)
    assert (kit.node, kit.site, kit.claim.claim) == (NODE, "ward-7", CLAIM)
    assert kit.network.wifi is not None and kit.network.wifi.ssid == "Quán cà phê ☕"
    assert set(kit.files) == set(FILES) - {"network.toml"}


def test_the_kit_that_provision_writes_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The two commands are written apart; this is what holds them together."""
    site, psk = tmp_path / "site", tmp_path / "psk"
    psk.write_text('pass "word\\ 9\n')
    assert main(["site", "init", str(site), "--site", "ward-7", "--broker", "hq.example.org"]) == 0
    options = ["--wifi", 'Quán "cà phê" \\ ☕', "--psk-file", str(psk), "--country", "VN", "--lte", "v-internet"]
    assert main(["provision", NODE, "--site", str(site), *options, "--time-zone", "Asia/Ho_Chi_Minh"]) == 0
    kit = read_kit(kit_folder(site, NODE), node=NODE, now=dt.datetime.now(dt.UTC))
    assert kit.network.wifi is not None and kit.network.wifi.ssid == 'Quán "cà phê" \\ ☕'
    assert kit.network.wifi.psk == 'pass "word\\ 9' and kit.network.lte is not None
    assert capsys.readouterr().err.count("Traceback") == 0


def test_a_release_key_goes_along_if_the_settings_name_it(tmp_path: Path) -> None:
    folder = write_kit(tmp_path)
    with (folder / "node.toml").open("a") as file:
        file.write('\n[release]\nkey = "/etc/wardpost/release.pub"\n')
    assert "release.pub: No such file, but node.toml names it" in wrong(folder)
    (folder / "release.pub").write_text("x")
    assert "release.pub: is no public Ed25519 key" in wrong(folder)
    (folder / "release.pub").write_bytes((folder / "command.pub").read_bytes())
    assert "release.pub" in read_kit(folder, node=NODE, now=NOW).files
    (folder / "node.toml").write_text(
        (folder / "node.toml").read_text().replace("/etc/wardpost/release", "/etc/release")
    )
    assert "release.key is '/etc/release.pub'" in wrong(folder)


def test_lte_is_read_with_its_password(tmp_path: Path) -> None:
    lte = {"lte": {"apn": "v-internet", "user": "u", "pass": "p;w\\", "pin": "1234"}}
    kit = read_kit(write_kit(tmp_path, network=lte), node=NODE, now=NOW)
    assert kit.network.lte is not None and kit.network.lte.password == "p;w\\"


def test_a_folder_without_kit_says_which_kits_there_are(tmp_path: Path) -> None:
    write_kit(tmp_path, "gate-south")
    with pytest.raises(ConfigError, match="no kit for gate-north; there are kits for gate-south"):
        kit_folder(tmp_path, NODE)
    with pytest.raises(ConfigError, match="wardpost site init"):
        kit_folder(tmp_path / "nowhere", NODE)
    with pytest.raises(ConfigError, match="no name of a node"):
        kit_folder(tmp_path, "../../etc")
    assert kit_folder(tmp_path, "gate-south").is_dir()


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_needed_and_an_empty_one_is_none(tmp_path: Path, name: str) -> None:
    folder = write_kit(tmp_path)
    (folder / name).write_bytes(b"")
    assert f"{name}: is empty" in wrong(folder)
    (folder / name).unlink()
    assert f"{name}: No such file" in wrong(folder)


def test_the_kit_of_another_node_is_refused(tmp_path: Path) -> None:
    folder = write_kit(tmp_path)
    said = wrong(folder, node="gate-south")
    assert "node.id is gate-north, this is the kit of gate-south" in said
    assert "claim.toml: node is gate-north" in said


def test_the_claim_of_another_site_is_refused(tmp_path: Path) -> None:
    folder = write_kit(tmp_path)
    (folder / "node.toml").write_text(node_toml(NODE).replace("ward-7", "ward-8"))
    assert "belongs to another site" in wrong(folder)


@pytest.mark.parametrize("setting", NODE_PATHS)
def test_a_path_that_the_installer_does_not_serve_is_refused(tmp_path: Path, setting: str) -> None:
    folder = write_kit(tmp_path)
    key = setting.rpartition(".")[2]
    text = re.sub(rf'^{key} = ".*"$', f'{key} = "/elsewhere"', node_toml(NODE), flags=re.MULTILINE)
    (folder / "node.toml").write_text(text)
    assert f"{setting} is '/elsewhere'" in wrong(folder)


def test_an_expired_claim_is_refused_with_both_times(tmp_path: Path) -> None:
    said = wrong(write_kit(tmp_path), now=NOW + dt.timedelta(days=15))
    assert "has expired on 2026-12-06" in said and "now 2026-12-07" in said


def test_a_claim_without_an_offset_is_refused(tmp_path: Path) -> None:
    folder = write_kit(tmp_path, expires=NOW.replace(tzinfo=None))
    assert "has no offset from UTC" in wrong(folder)


def test_a_key_that_is_not_the_certificates_is_found(tmp_path: Path) -> None:
    folder = write_kit(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "claim.key").write_bytes(other)
    assert "claim.key: does not belong to claim.pem" in wrong(folder)


@pytest.mark.parametrize("name", ["ca.pem", "claim.pem", "claim.key", "command.pub", "station.pub"])
def test_what_is_no_key_is_told_as_such_and_never_shown(tmp_path: Path, name: str) -> None:
    folder = write_kit(tmp_path)
    (folder / name).write_bytes(b"-----BEGIN NONSENSE-----\nsecret-stuff\n-----END NONSENSE-----\n")
    said = wrong(folder)
    assert re.search(rf"{re.escape(name)}: is no (public|private|certificate)", said)
    assert "secret-stuff" not in said


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (wifi("é" * 17), "wifi.ssid: is 34 bytes long"),
        (wifi(""), "wifi.ssid: is 0 bytes long"),
        (wifi("a\nb"), "wifi.ssid: holds a control character"),
        (wifi("a", "short"), "wifi.psk: is 5 bytes long"),
        (wifi("a", "x" * 64), "wifi.psk: is 64 bytes long"),
        (wifi("a", "12345678\x7f"), "wifi.psk: holds a control character"),
        ({}, "none of [wifi], [ethernet] and [lte]"),
        ({"lte": {"apn": ""}}, "lte.apn: is empty"),
        ({"ethernet": {}, "hostname": "Gate North"}, "hostname: 'Gate North' is none"),
        ({"ethernet": {}, "user": "root"}, "user: 'root' cannot be"),
        ({"ethernet": {}, "user": "a b"}, "user: 'a b' cannot be"),
        ({"ethernet": {}, "time_zone": "Asia/Nowhere"}, "time_zone: 'Asia/Nowhere' is not known"),
        ({"ethernet": {}, "time_zone": "../../etc/passwd"}, "time_zone: '../../etc/passwd' is not known"),
        ({"ethernet": {}, "ssh_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "ssh_keys[0]: is no public key"),
        ({"ethernet": {}, "ssh_keys": [f"{SSH_KEY}\nbootcmd: x"]}, "ssh_keys[0]: is no public key"),
    ],
)
def test_a_network_that_cannot_work_is_refused(tmp_path: Path, network: dict[str, Any], said: str) -> None:
    text = wrong(write_kit(tmp_path, network=network))
    assert said in text
    assert "x" * 64 not in text  # a password is never repeated


def test_an_unknown_key_is_named_with_the_nearest_right_one(tmp_path: Path) -> None:
    folder = write_kit(tmp_path, network={"wifi": {"ssid": "a", "password": "12345678", "country": "VN"}})
    assert "wifi.password: unknown key" in wrong(folder)
    assert "12345678" not in wrong(folder)
