"""A post is provisioned: its kit is whole and starts a node, its row stands in the register, its name is its own."""

from __future__ import annotations

import builtins
import datetime as dt
import re
import stat
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zxingcpp
from cryptography import x509

from agent.card.kit import read_kit
from agent.cli import main
from agent.clock import SystemClock
from agent.config import Config, load
from agent.site import founding, label
from agent.site.folder import open_site
from agent.vision.faults import faults

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "ward-7"
    founding.found_site(root, name="ward-7", hosts=["hq.example.org"], clock=SystemClock())
    return root


def provision(site: Path, node: str, *more: str, net: tuple[str, ...] = ("--ethernet",)) -> int:
    return main(["provision", node, "--site", str(site), *net, *more])


def judged(site: Path, node: str) -> Any:
    """The kit, through the reader of `wardpost flash`."""
    return read_kit(site / "nodes" / node / "kit", node=node, now=dt.datetime.now(dt.UTC))


@pytest.mark.parametrize("profile", ["", "household", "school-gate", "roadside"])
def test_the_kit_is_whole_and_its_settings_start_a_node(site: Path, profile: str) -> None:
    more = ("--profile", profile) if profile else ()
    assert provision(site, "gate-2", *more, "--time-zone", "Asia/Ho_Chi_Minh", "--place", 'Cổng "số" 3\\b') == 0
    kit = judged(site, "gate-2")
    settings = load(site / "nodes/gate-2/kit/node.toml", Config)
    assert [fault for fault in faults(settings) if fault.fatal] == []
    assert settings.node.place == 'Cổng "số" 3\\b'
    assert settings.calendar.time_zone == kit.network.time_zone == "Asia/Ho_Chi_Minh"
    assert bool(settings.rules) == bool(profile)
    assert settings.uplink.brokers == kit.claim.brokers == ("mqtts://hq.example.org:8883",)
    if profile:  # the technician reads the profile's own words
        comment = (ROOT / f"deploy/profiles/{profile}.toml").read_text().splitlines()[0]
        assert comment in (site / "nodes/gate-2/kit/node.toml").read_text()


def test_the_claim_is_for_days_and_the_register_knows_all_of_it(site: Path) -> None:
    words = ("--device", "100000abc", "--custodian", "Bà Lan", "--consent", "paper 7", "--claim-days", "3")
    assert provision(site, "gate-2", *words) == 0
    folder = site / "nodes/gate-2/kit"
    cert = x509.load_pem_x509_certificate((folder / "claim.pem").read_bytes())
    cert.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes()))
    assert dt.timedelta(days=2) < cert.not_valid_after_utc - dt.datetime.now(dt.UTC) < dt.timedelta(days=3, hours=1)
    register = founding.open_register(open_site(site))
    node, (claim,) = register.node("gate-2"), register.claims_of("gate-2")
    register.close()
    assert node is not None
    assert (node.device, node.custodian, node.consent, node.state) == ("100000abc", "Bà Lan", "paper 7", "provisioned")
    assert claim.claim == tomllib.loads((folder / "claim.toml").read_text())["claim"]
    assert claim.used_by is None
    for name in ("claim.key", "network.toml"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    for path in folder.iterdir():
        assert path.name == "claim.key" or b"PRIVATE KEY" not in path.read_bytes()


@pytest.mark.parametrize("ssid", ['Quán "Cà phê" 咖', "it's a \\backslash\\", "  blanks  ", "Wi-Fi 🏠", "#[]{}=,;%"])
def test_wifi_names_of_every_kind_arrive_as_they_are(site: Path, tmp_path: Path, ssid: str) -> None:
    (tmp_path / "psk").write_text(' pass "word" \\ #\r\n')
    net = ("--wifi", ssid, "--psk-file", str(tmp_path / "psk"), "--country", "vn")
    assert provision(site, "gate-2", net=net) == 0
    wifi = judged(site, "gate-2").network.wifi
    assert (wifi.ssid, wifi.psk, wifi.country) == (ssid, ' pass "word" \\ #', "VN")


@pytest.mark.parametrize(
    ("psk", "says"),
    [("1234567", "7 bytes"), ("x" * 64, "64 bytes"), ("mật khẩu", "not ASCII"), ("", "its first line is empty"),
     ("tab\there12", "control character")],
)  # fmt: skip
def test_a_password_that_no_access_point_takes_is_refused_and_never_shown(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], psk: str, says: str
) -> None:
    (tmp_path / "psk").write_text(psk + "\n")
    assert provision(site, "gate-2", net=("--wifi", "x", "--psk-file", str(tmp_path / "psk"), "--country", "VN")) == 78
    error = capsys.readouterr().err
    assert says in error and (not psk or psk not in error)
    assert not (site / "nodes/gate-2").exists()


def test_a_password_of_64_hex_digits_and_an_open_network_are_fine(site: Path, tmp_path: Path) -> None:
    (tmp_path / "psk").write_text("0aF" * 21 + "0")
    assert provision(site, "a", net=("--wifi", "x", "--psk-file", str(tmp_path / "psk"), "--country", "VN")) == 0
    assert provision(site, "b", net=("--wifi", "x", "--country", "VN")) == 0
    assert judged(site, "b").network.wifi.psk == ""


def test_lte_with_its_words(site: Path, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("m3\n")
    net = ("--lte", "v-internet", "--lte-user", "mms", "--lte-password-file", str(tmp_path / "pw"), "--lte-pin", "0123")
    assert provision(site, "gate-2", net=net) == 0
    lte = judged(site, "gate-2").network.lte
    assert (lte.apn, lte.user, lte.password, lte.pin) == ("v-internet", "mms", "m3", "0123")


@pytest.mark.parametrize(
    ("node", "more", "says"),
    [
        ("Gate", ("--ethernet",), "is not a name"),
        ("station", ("--ethernet",), "somebody else"),
        ("claim-abcdefgh", ("--ethernet",), "somebody else"),
        ("g", (), "give --wifi NAME"),
        ("g", ("--wifi", "x" * 33, "--country", "VN"), "33 bytes"),
        ("g", ("--wifi", "ữ" * 11, "--country", "VN"), "33 bytes"),
        ("g", ("--wifi", "", "--country", "VN"), "0 bytes"),
        ("g", ("--wifi", "x"), "--country"),
        ("g", ("--wifi", "x", "--country", "Vietnam"), "--country"),
        ("g", ("--ethernet", "--country", "VN"), "go with --wifi"),
        ("g", ("--ethernet", "--lte-pin", "1"), "go with --lte"),
        ("g", ("--lte", "apn", "--lte-pin", "12a4"), "4 to 8 digits"),
        ("g", ("--ethernet", "--profile", "houshold"), "known: household, roadside, school-gate"),
        ("g", ("--ethernet", "--profile", "/nowhere.toml"), "no such file"),
        ("g", ("--ethernet", "--time-zone", "Asia/Saigonn"), "is not known"),
        ("g", ("--ethernet", "--claim-days", "0"), "1 to 366"),
        ("g", ("--ethernet", "--place", "two\nlines"), "one line"),
        ("g", ("--ethernet", "--user", "root"), "technician"),
        ("g", ("--ethernet", "--camera-url", "x\ud800"), "not text"),
    ],
)
def test_what_cannot_work_is_refused_in_words_and_changes_nothing(
    site: Path, capsys: pytest.CaptureFixture[str], node: str, more: tuple[str, ...], says: str
) -> None:
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert provision(site, node, *more, net=()) == 78
    error = capsys.readouterr().err
    assert says in error and "Traceback" not in error
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_a_profile_of_ones_own_is_judged_before_anything_is_written(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    for text, says in (
        ("[recording]\nbudget_gbb = 3\n", "did you mean recording.budget_gb"),
        ("[node]\nid = 'x'\n", "which provisioning writes"),
        ('[[rules]]\nname = "x"\nkind = "enters"\nzones = ["nowhere"]\n', "nowhere"),
        ("x = [\n", "not TOML"),
        ("x = " + "9" * 5000, "not TOML"),
    ):
        own.write_text(text)
        assert provision(site, "gate-2", "--profile", str(own)) == 78
        assert says in capsys.readouterr().err
    own.write_text("[recording]\nbudget_gb = 3.0\n")
    assert provision(site, "gate-2", "--profile", str(own), "--time-zone", "Asia/Ho_Chi_Minh") == 0
    settings = load(site / "nodes/gate-2/kit/node.toml", Config)
    assert (settings.recording.budget_gb, settings.calendar.time_zone) == (3.0, "Asia/Ho_Chi_Minh")


def test_two_posts_of_one_name_are_refused_and_a_new_card_revokes_the_old_one(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provision(site, "gate-2", "--place", "Harbour Road") == 0
    first = (site / "nodes/gate-2/kit/claim.pem").read_bytes()
    assert provision(site, "gate-2") == 78
    assert "has a post of that name (Harbour Road)" in capsys.readouterr().err
    assert (site / "nodes/gate-2/kit/claim.pem").read_bytes() == first
    assert provision(site, "gate-2", "--again") == 0
    assert (site / "nodes/gate-2/kit/claim.pem").read_bytes() != first
    crl = x509.load_pem_x509_crl((site / "broker/crl.pem").read_bytes())
    assert [entry.serial_number for entry in crl] == [x509.load_pem_x509_certificate(first).serial_number]
    nats, acl = ((site / "broker" / name).read_text() for name in ("nats.conf", "wardpost.acl"))
    claim = tomllib.loads((site / "nodes/gate-2/kit/claim.toml").read_text())["claim"]
    assert "CN=gate-2,OU=g2" in nats and "OU=g1" not in nats
    assert f"user {claim}\n" in acl and acl.count("user claim-") == 1
    judged(site, "gate-2")


def test_a_cut_before_the_register_costs_nothing_but_saying_it_again(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.site.register import Register

    def cut(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Register, "provisioned", cut)
        assert provision(site, "gate-2") == 130
    assert provision(site, "gate-2") == 0
    judged(site, "gate-2")


def read_back(drawn: str) -> list[str]:
    """What a phone reads in each QR code of a label, in the label's order.

    By ZXing, which phones use. OpenCV's reader fails at two in a hundred codes that ZXing reads (of 20,000 all).
    """
    read = []
    for path in drawn.split("<path")[1:]:
        runs = [(int(x), int(y), int(n)) for x, y, n in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path)]
        size = max(y for _, y, _ in runs) + 9
        matrix = np.full((size, size), 255, np.uint8)
        for x, y, n in runs:
            matrix[y + 4, x + 4 : x + 4 + n] = 0
        read += [found.text for found in zxingcpp.read_barcodes(np.kron(matrix, np.ones((8, 8), np.uint8)))]
    return read


def test_the_label_names_the_post_and_its_code_can_be_read_back(site: Path) -> None:
    words = ("--device", "a/b&c", "--place", "<Cổng> 3 & 4", "--custodian", "Bà Lan " + "x" * 40)
    assert provision(site, "gate-2", *words) == 0
    drawn = (site / "nodes/gate-2/kit/label.svg").read_text(encoding="utf-8")
    texts = "".join(ET.fromstring(drawn).itertext())
    assert "gate-2" in texts and "ward-7" in texts and "<Cổng> 3 & 4" in texts and label.HELP[:20] in texts
    assert label.text_of("ward-7", "gate-2", "a/b&c") == "wardpost:ward-7/gate-2?device=a%2Fb%26c"
    assert read_back(drawn) == ["wardpost:ward-7/gate-2?device=a%2Fb%26c"]


def test_the_label_for_the_inside_joins_the_hotspot_and_opens_the_page(site: Path) -> None:
    assert provision(site, "gate-2") == 0
    kit = site / "nodes/gate-2/kit"
    code = tomllib.loads((kit / "node.toml").read_text())["setup_page"]["code"]
    assert re.fullmatch("[A-HJ-NP-Z2-9]{5}-[A-HJ-NP-Z2-9]{5}", code)
    assert code not in (kit / "label.svg").read_text() and code in (kit / "label-inside.svg").read_text()
    assert provision(site, "gate-2", "--again") == 0
    assert code not in (kit / "label-inside.svg").read_text(), "another card, another code"
    code = tomllib.loads((kit / "node.toml").read_text())["setup_page"]["code"]
    read = read_back((kit / "label-inside.svg").read_text())
    assert read == [f"WIFI:T:WPA;S:wp-gate-2;P:{code.replace('-', '')};;", f"http://10.42.77.1:8080/#{code}"]


def test_without_segno_the_kit_is_made_and_what_is_missing_is_said(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "segno":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert provision(site, "gate-2") == 0
    assert "wardpost[provision]" in capsys.readouterr().out
    judged(site, "gate-2")


def test_a_private_ssh_key_is_not_put_on_a_card(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "id"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    assert provision(site, "gate-2", "--ssh-key", str(key)) == 78
    assert "is a private key" in capsys.readouterr().err
    key.write_text("ssh-ed25519 " + "A" * 68 + " lan@laptop\n")
    assert provision(site, "gate-2", "--ssh-key", str(key)) == 0
    assert judged(site, "gate-2").network.ssh_keys == (key.read_text().strip(),)


def test_the_command_is_quick_and_needs_no_heavy_library(site: Path) -> None:
    code = (
        "import sys; from agent.cli import main; main(sys.argv[1:]);"
        "heavy = {'cv2', 'numpy', 'av', 'paho', 'ai_edge_litert'} & set(sys.modules); assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, "provision", "gate-2", "--site", str(site), "--ethernet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
