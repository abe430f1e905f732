"""Minutes of attacks on evidence packages, and the report as a browser shows it."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.assets import Assets
from agent.evidence import seal
from agent.evidence.opening import open_package
from tests.fakes.clock import FakeClock
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.forger import Forger
from tests.fakes.packets import encoded, of_file
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_verify import flips

pytestmark = pytest.mark.system
FLIPS = 10_000
PARTS = 20
BROWSER_S_MAX = 600.0  # of a lane that gives way to all others; on a quiet machine it takes three


@pytest.fixture
def sealed_and_opened(tmp_path: Path) -> bytes:
    station = X25519PrivateKey.generate()
    post = EvidencePost(tmp_path / "sealing", seal=station.public_key())
    post.feed(encoded(seconds=7), receipt_every=20)
    post.seal()
    post.export(tmp_path / "sealed.zip", 1, 6)
    open_package(
        sealed=tmp_path / "sealed.zip",
        key=seal.Key(station),
        output=tmp_path / "open.zip",
        who="Maj. Le",
        clock=FakeClock(),
        signer=post.station.key,
    )
    return (tmp_path / "open.zip").read_bytes()


@pytest.fixture
def package(tmp_path: Path, assets: Assets) -> bytes:
    post = EvidencePost(tmp_path / "node")
    post.feed(of_file(assets.footage()), receipt_every=50)
    post.seal()
    post.export(tmp_path / "package.zip", 2, 6)
    return (tmp_path / "package.zip").read_bytes()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["clear", "opened"])
def test_ten_thousand_flipped_bits(kind: str, package: bytes, sealed_and_opened: bytes, seed: int) -> None:
    """Both verifiers, each flip by itself, over the whole package; on all cores, for a flip knows nothing of the next."""
    data, count = (package, FLIPS) if kind == "clear" else (sealed_and_opened, FLIPS // 10)
    parts = [(data, count // PARTS, seed * PARTS + n) for n in range(PARTS)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        tried = sum(pool.map(part_of_flips, *zip(*parts, strict=True)))
    assert tried >= count
    print(f"{tried} packages with a flipped bit, {len(data)} bytes each: none accepted, no verifier fell over")


def part_of_flips(data: bytes, count: int, seed: int) -> int:
    """One process's share. A flip that is accepted raises, and fails the test with its place."""
    return flips(data, count, random.Random(seed), openssl_every=100)


@pytest.mark.timeout(1800)
def test_the_report_in_a_browser(package: bytes, tmp_path: Path) -> None:
    """It must fit a page's width and show its table; the picture is left for a person to look at."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_bytes(Forger(package).files["report.html"])
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1600"]
    home = ["--user-data-dir=" + str(tmp_path / "browser")]
    done = subprocess.run(
        [browser, *options, *home, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=BROWSER_S_MAX
    )
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 20_000
    dom = subprocess.run(
        [browser, *options, *home, "--dump-dom", page.as_uri()], capture_output=True, timeout=BROWSER_S_MAX
    )
    assert b"Every second of the range" in dom.stdout
