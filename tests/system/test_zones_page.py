"""`wardpost zones` in a real browser: a person draws with the mouse and with a finger, saves, and the file has it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.system.browser import Browser, chromium

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

CONFIG = """\
[node]
site = "ward-7"
id = "gate"
data = "{data}"
[camera]
driver = "stream"
url = "{data}"
[uplink]
brokers = ["mqtt://127.0.0.1:1883"]
[[zones]]
name = "gate"  # the old one
polygon = [[0.1, 0.1], [0.3, 0.1], [0.3, 0.3], [0.1, 0.3]]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG.format(data=tmp_path))
    picture = np.zeros((720, 1280, 3), np.uint8)
    picture[:, :, 1] = np.linspace(30, 200, 1280).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "view.jpg"), picture)
    return path


@pytest.fixture
def page(file: Path, tmp_path: Path) -> Iterator[Browser]:
    command = [sys.executable, "-m", "agent.cli", "zones", "--config", str(file), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--snapshot", str(tmp_path / "view.jpg")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/#[\w-]{20,}", address)
        with chromium(tmp_path / "profile") as browser:
            browser.size(1440, 900)
            browser.go(address)
            browser.wait("document.body?.dataset.ready === 'yes'")
            assert "#" not in browser.js("location.href"), "the token does not stay in the address bar"
            yield browser
            assert browser.errors == [], "no script failed, and nothing broke the security policy"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, "Ctrl-C ends it in order"
        process.stdout.close()  # type: ignore[union-attr]


def at(page: Browser, x: float, y: float) -> tuple[float, float]:
    left, top, width, height = page.js(
        "(() => { const b = document.querySelector('#drawing').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    return left + x * width, top + y * height


def saved(page: Browser, file: Path) -> dict[str, list[list[float]]]:
    page.wait("!document.querySelector('#save').disabled")
    page.press("#save")
    page.wait("document.querySelector('#said').className === 'good'")
    return {zone["name"]: zone["polygon"] for zone in tomllib.loads(file.read_text())["zones"]}


def test_a_zone_drawn_with_the_mouse_is_in_the_file(page: Browser, file: Path) -> None:
    page.press("#add-zone")
    corners = [(0.5, 0.4), (0.9, 0.4), (0.9, 0.8), (0.5, 0.8)]
    for corner in corners:
        page.click(*at(page, *corner))
    page.press("#finish")
    page.fill("#shapes li:nth-of-type(2) input", "School Yard")
    zones = saved(page, file)
    assert set(zones) == {"gate", "school-yard"}
    np.testing.assert_allclose(zones["school-yard"], corners, atol=0.002)
    assert 'name = "gate"  # the old one' in file.read_text()

    # Its corner is dragged, its edge gets a point, the old zone is deleted.
    page.drag(at(page, 0.9, 0.8), at(page, 0.7, 0.9))
    page.drag(at(page, 0.7, 0.4), at(page, 0.7, 0.2))
    page.wait("!document.querySelector('#save').disabled")
    page.click(*at(page, 0.2, 0.2))
    page.press("#delete")
    zones = saved(page, file)
    assert list(zones) == ["school-yard"]
    wanted = [(0.5, 0.4), (0.7, 0.2), (0.9, 0.4), (0.7, 0.9), (0.5, 0.8)]
    np.testing.assert_allclose(zones["school-yard"], wanted, atol=0.003)


def test_what_crosses_itself_is_said_beside_the_shape_and_cannot_be_saved(page: Browser, file: Path) -> None:
    before = file.read_bytes()
    page.press("#add-zone")
    for corner in [(0.5, 0.4), (0.9, 0.8), (0.9, 0.4), (0.5, 0.8)]:
        page.click(*at(page, *corner))
    page.press("#finish")
    page.wait("document.querySelectorAll('#shapes .complaint').length === 1")
    assert "crosses itself" in page.js("document.querySelector('#shapes .complaint').textContent")
    assert page.js("document.querySelector('#save').disabled") is True
    assert file.read_bytes() == before


def test_a_privacy_mask_is_drawn_with_a_finger_on_a_phone(page: Browser, file: Path, tmp_path: Path) -> None:
    page.size(390, 844, phone=True)
    page.wait("document.querySelector('#drawing').getBoundingClientRect().width < 390")
    assert page.js("document.documentElement.scrollWidth") <= 390, "nothing sticks out of a phone's screen"
    small = page.js(
        "[...document.querySelectorAll('button, input')].filter((e) => e.offsetParent && e.offsetHeight < 44)"
        ".map((e) => e.id)"
    )
    assert small == [], "every control is as large as a finger"
    page.press("#add-privacy")
    corners = [(0.6, 0.2), (0.9, 0.2), (0.75, 0.6)]
    page.js("scrollTo(0, 0)")
    for corner in corners:
        page.tap(*at(page, *corner))
    page.tap(*at(page, *corners[0]))  # the first corner again closes it
    saved(page, file)
    (mask,) = tomllib.loads(file.read_text())["camera"]["privacy_masks"]
    np.testing.assert_allclose(mask, corners, atol=0.01)
    page.picture(tmp_path / "phone.png")
    assert cv2.imread(str(tmp_path / "phone.png")).shape[1] == 390  # type: ignore[union-attr]
