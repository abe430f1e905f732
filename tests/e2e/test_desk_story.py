"""One story through all of it, in a real browser: a post sees somebody, the desk answers, has the footage sent, plays it,
keeps it with a case, and what is exported proves itself. Meanwhile a school is refused what is not its own.

Broker, node, station, archive and Chromium are real; the node looks at real footage with the real model.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from agent.assets import HLS, Assets
from agent.cli import main
from tests.e2e.brokers import free_port
from tests.e2e.post import Post, recording
from tests.e2e.test_send import Headquarters, headquarters, until  # noqa: F401  (a fixture)
from tests.system.axe import violations
from tests.system.browser import Browser, chromium
from tests.system.test_board import PASSWORD, log_in, soon

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

SHOTS = Path(__file__).resolve().parents[2] / "test-out" / "story"
WAIT_S_MAX = 300.0
OTHER_LIFE = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def desk(headquarters: Headquarters, tmp_path: Path, assets: Assets) -> str:  # noqa: F811
    """The station with its pages; where they are."""
    assets.get(HLS)
    port = free_port()
    site = headquarters.root
    assert main(["site", "desk-cert", str(site), "127.0.0.1"]) == 0
    with headquarters.config.open("a") as file:
        file.write(
            f'[web]\nlisten = "127.0.0.1:{port}"\norigin = "https://127.0.0.1:{port}"\n'
            f'certificate = "{site}/desk/desk.pem"\nkey = "{site}/desk/desk.key"\n'
        )
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    for login, *role in (("minh", "operator"), ("lan", "supervisor"), ("school", "school", "--post", "gate-1")):
        options = ["--role", *role, "--password-file", str(password), "--config", str(headquarters.config)]
        assert main(["user", "add", login, *options]) == 0
    headquarters.start()
    return f"https://127.0.0.1:{port}"


@pytest.fixture
def page(desk: str, tmp_path: Path) -> Iterator[Browser]:
    until(lambda: answers(desk), lambda: "the pages do not come up")
    with chromium(tmp_path / "profile") as browser:
        browser._call("Security.enable")
        browser._call("Security.setIgnoreCertificateErrors", ignore=True)
        browser._call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "kept"))
        browser.size(1440, 900)
        yield browser
        assert browser.errors == [], "no script failed, and nothing broke the security policy"


def answers(origin: str) -> bool:
    try:
        return httpx.get(f"{origin}/login", verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def fill(page: Browser, field: str, text: str) -> None:
    page.js(f"document.querySelector({field!r}).focus()")
    page.type(text)


def kept(folder: Path, ending: str) -> Path:
    """What the browser has downloaded, whole."""
    by = time.monotonic() + WAIT_S_MAX
    while not (found := [one for one in folder.glob("*") if one.name.endswith(ending)]):
        assert time.monotonic() < by, f"never downloaded; there is {list(folder.glob('*'))}"
        time.sleep(0.2)
    return found[0]


def school(origin: str) -> httpx.Client:
    client = httpx.Client(base_url=origin, verify=False, headers={"origin": origin}, timeout=30)
    form = re.search(r'name="form" value="(\w+)"', client.get("/login").text)
    assert form is not None
    answer = client.post("/login", data={"form": form[1], "login": "school", "password": PASSWORD})
    assert answer.status_code == 303
    return client


def test_from_an_alert_to_a_package_that_proves_itself(
    page: Browser,
    desk: str,
    post: Post,
    headquarters: Headquarters,  # noqa: F811
    tmp_path: Path,
    assets: Assets,
) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)

    # Somebody walks through the picture: the board shows it by itself, with a picture, and it is answered there.
    log_in(page, desk, "minh")
    post.start()
    post.wait_for(recording)
    page.wait("document.querySelector('#board article[data-open=yes] img')?.naturalWidth > 0", WAIT_S_MAX)
    page.picture(SHOTS / "1-alert.png")
    incident = str(page.js("document.querySelector('#board article[data-open=yes]').id")).removeprefix("alert-")
    assert re.fullmatch(r"[0-9a-f-]{36}", incident), incident
    page.press(f"#alert-{incident} form button")
    soon(page, f"document.querySelector('#alert-{incident}')?.dataset.open === 'no'")

    # The school sees nothing of it: neither alert nor picture, footage nor list.
    with closing(school(desk)) as other:
        assert incident not in other.get("/").text
        for path in (f"/alerts/{incident}", f"/alerts/{incident}/picture"):
            assert other.get(path).status_code == 404
        assert other.get(f"/footage?alert={incident}").text.count("cam-7") == 0
        assert other.get("/posts/cam-7").status_code == 404
        assert other.get("/cases").status_code == 403

    # The footage around it: what there is, asked for, and here after a while.
    until(lambda: int(post.status()["recording"]["segments"]) >= 2, lambda: f"nothing is sealed: {post.status()}")
    page.go(f"{desk}/alerts/{incident}")
    soon(page, "[...document.querySelectorAll('a')].some((a) => a.href.includes('/footage?'))")
    address = page.js("[...document.querySelectorAll('a')].find((a) => a.href.includes('/footage?')).href")
    page.go(str(address))
    soon(page, "document.querySelector('.ask [name=reason]')")
    fill(page, ".ask [name=reason]", "a bicycle was taken")
    page.press(".ask button")
    soon(page, "document.querySelector('.requests')")
    page.wait("Boolean(document.querySelector('.start'))", WAIT_S_MAX)
    page.picture(SHOTS / "2-footage.png")
    page.press(".start")
    page.wait("document.querySelector('#video').currentTime > 1", WAIT_S_MAX)
    frames = "document.querySelector('#video').getVideoPlaybackQuality().totalVideoFrames"
    before = int(page.js(frames))
    page.wait(f"{frames} > {before + 10}", WAIT_S_MAX)
    page.picture(SHOTS / "3-plays.png")

    # With a case, by a supervisor; and a package of it that anybody can check.
    start, end = page.js("['from', 'to'].map((name) => document.querySelector(`form.choose [name=${name}]`).value)")
    page.press("form[action='/logout'] button")
    soon(page, "location.pathname === '/login'")
    log_in(page, desk, "lan")
    page.go(f"{desk}/cases")
    soon(page, "document.querySelector('form.fields')")
    page.press("details summary")
    for name, text in (("number", "12/2026"), ("reason", "theft of a bicycle"), ("posts", "cam-7")):
        fill(page, f"form.fields [name={name}]", text)
    page.js(f"document.querySelector('form.fields [name=from]').value = {start!r}")
    page.js(f"document.querySelector('form.fields [name=to]').value = {end!r}")
    page.press("form.fields button")
    soon(page, "document.querySelector('form[action$=\"/copy\"]')")
    fill(page, "form[action$='/copy'] [name=reason]", "for the district court")
    page.press("form[action$='/copy'] button")
    page.wait("Boolean(document.querySelector('a[download], main [role=alert]'))", WAIT_S_MAX)
    assert page.js("document.querySelector('main [role=alert]')?.textContent || ''") == ""
    page.picture(SHOTS / "4-case.png")
    page.press("a[download]")
    package = kept(tmp_path / "kept", ".zip")
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "verify", str(package)], capture_output=True, text=True, timeout=WAIT_S_MAX
    )
    assert done.returncode == 0, done.stdout + done.stderr
    spoilt = bytearray(package.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    (tmp_path / "spoilt.zip").write_bytes(spoilt)
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "verify", str(tmp_path / "spoilt.zip")],
        capture_output=True,
        text=True,
        timeout=WAIT_S_MAX,
    )
    assert done.returncode != 0, "one changed bit, and it is refused"

    # Every page that was used, and those beside them, for somebody who cannot see or uses the keyboard alone.
    case = str(page.js("location.pathname"))
    wrong: dict[str, list[str]] = {}
    for path in ("/", f"/alerts/{incident}", "/footage", "/posts", "/posts/cam-7", "/to-do", "/cases", case,
                 "/inspection", "/inspection/report", "/account", "/live/cam-7"):  # fmt: skip
        page.go(f"{desk}{path}")
        soon(
            page,
            f"location.pathname === {path!r} && document.readyState === 'complete' && document.querySelector('h1')",
        )
        wrong |= {path: found} if (found := violations(page, assets)) else {}
    page.go(str(address))
    soon(page, "document.querySelector('.start')")
    wrong |= {"footage of cam-7": found} if (found := violations(page, assets)) else {}
    page.press("form[action='/logout'] button")
    soon(page, "location.pathname === '/login' && document.readyState === 'complete'")
    wrong |= {"login": found} if (found := violations(page, assets)) else {}
    assert wrong == {}
    page.js("document.querySelector('main').append(document.createElement('img'))")
    assert any("image-alt" in one for one in violations(page, assets)), "the checker does look"
