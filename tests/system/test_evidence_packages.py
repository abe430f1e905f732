"""Minutes of attacks on evidence packages, and the report as a browser shows it."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.assets import Assets
from tests.fakes.evidence_post import EvidencePost
from tests.fakes.forger import Forger
from tests.fakes.packets import of_file
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.unit.test_verify import flips

pytestmark = pytest.mark.system
FLIPS = 10_000


@pytest.fixture
def package(tmp_path: Path, assets: Assets) -> bytes:
    post = EvidencePost(tmp_path / "node")
    post.feed(of_file(assets.footage()), receipt_every=50)
    post.seal()
    post.export(tmp_path / "package.zip", 1, 9)
    return (tmp_path / "package.zip").read_bytes()


@pytest.mark.timeout(1800)
def test_ten_thousand_flipped_bits(package: bytes, seed: int) -> None:
    tried = flips(package, FLIPS, random.Random(seed), openssl_every=100)
    print(f"{tried} packages with a flipped bit, {len(package)} bytes each: none accepted, no verifier fell over")


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
        [browser, *options, *home, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert picture.stat().st_size > 20_000
    dom = subprocess.run([browser, *options, *home, "--dump-dom", page.as_uri()], capture_output=True, timeout=120)
    assert b"Every second of the range" in dom.stdout
