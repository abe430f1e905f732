"""One story through all of it, in a real browser: a post sees somebody, the desk answers, has the footage sent, plays it,
keeps it with a case, and what is exported proves itself. Meanwhile a school is refused what is not its own.

Broker, node, station, archive and Chromium are real; the node looks at real footage with the real model.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import wire
from agent.assets import HLS, Assets
from agent.cli import main
from agent.clock import SystemClock, rfc3339, uuid7_maker
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


def heard(there: Headquarters, node: str) -> None:
    """The station hears a post of which it has neither ledger nor footage."""
    clock, new_id = SystemClock(), uuid7_maker(SystemClock())
    told = wire.CloudEvent(
        id=new_id(), source=f"wardpost/ward/{node}", type="wardpost.person", subject=(incident := new_id()),
        time=rfc3339(clock.utc().utc_ns), epoch=new_id(), sequence=1, session=1, bootid=clock.boot_id,
        monons=clock.boot_ns(), timeerrms=1500,
        data=wire.EventData(incident=incident, phase="started", severity="record", summary="", place="Gate 1"),
    )  # fmt: skip
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=node)
    client.connect("127.0.0.1", int(there.broker.rpartition(":")[2]))
    client.loop_start()
    client.publish(wire.Topics("ward", node).event("person"), wire.encode(told), qos=1).wait_for_publish(60)
    client.disconnect()
    client.loop_stop()
    until(lambda: (node,) in there.rows("select node from node"), lambda: there.log[-2000:])


@contextmanager
def nobody_else_writes(database: Path, *, once: str) -> Iterator[None]:
    """From the moment when this query finds something the station reads on, and cannot put anything on record: what it
    is at does not end meanwhile.
    """
    over = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as db:
            while not db.execute(once).fetchone() and not over.wait(0.001):
                pass
            db.execute("begin immediate")
            over.wait()
            db.execute("rollback")

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def fits(page: Browser, name: str) -> None:
    """At the desk and on a phone: pictures of both, and nothing that one would have to scroll sideways for."""
    for width, height in ((390, 844), (1440, 900)):
        page.size(width, height, phone=width < 500)
        page.picture(SHOTS / f"{name}-{width}.png")
        assert page.js("document.documentElement.scrollWidth <= innerWidth"), f"{name} at {width} px"


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

    # With a case, by a supervisor; and a package of the whole of it that anybody can check. It is made in the background.
    heard(headquarters, "gate-1")
    start, end = page.js("['from', 'to'].map((name) => document.querySelector(`form.choose [name=${name}]`).value)")
    page.press("form[action='/logout'] button")
    soon(page, "location.pathname === '/login'")
    log_in(page, desk, "lan")
    page.go(f"{desk}/cases")
    soon(page, "document.querySelector('form.fields')")
    page.press("details summary")
    for name, text in (("number", "12/2026"), ("reason", "theft of a bicycle"), ("posts", "cam-7 gate-1")):
        fill(page, f"form.fields [name={name}]", text)
    page.js(f"document.querySelector('form.fields [name=from]').value = {start!r}")
    page.js(f"document.querySelector('form.fields [name=to]').value = {end!r}")
    page.press("form.fields button")
    soon(page, "document.querySelector('form[action$=\"/copy\"]')")
    assert page.js("document.querySelector('form[action$=\"/copy\"] select').value") == "*", "the whole case"
    with nobody_else_writes(headquarters.data / "station.db", once="select 1 from package_wish where begun > 0"):
        fill(page, "form[action$='/copy'] [name=reason]", "for the district court")
        page.press("form[action$='/copy'] button")
        soon(page, "document.querySelector('#packages')?.innerText.includes('Posts done: 2 of 2')")
        told = str(page.js("document.querySelector('#packages').innerText"))
        assert "Is being made since" in told
        assert "Asked for by lan on" in told
        assert "for the district court" in told
        assert page.js("document.querySelectorAll('a[download]').length") == 0
        fits(page, "4-making")
        wrong = {"while it is made": found} if (found := violations(page, assets)) else {}
    # It comes by itself: the page looks again and again, and is loaded anew when the package is on the timeline.
    page.wait("Boolean(document.querySelector('.steps a[download], main [role=alert]'))", WAIT_S_MAX)
    assert page.js("document.querySelector('main [role=alert]')?.textContent || ''") == ""
    assert page.js("document.querySelector('#packages').innerText.trim()") == ""
    fits(page, "5-case")
    package = page.download(".steps a[download]", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "verify", str(package)], capture_output=True, text=True, timeout=WAIT_S_MAX
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "case 12/2026" in done.stdout
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

    # Who writes on the page while one comes to be loses nothing, and is not refused for what he was shown.
    page.js("document.querySelector('form[action$=\"/copy\"] select').value = 'cam-7'")
    fill(page, "form[action$='/copy'] [name=reason]", "for the insurer")
    with nobody_else_writes(headquarters.data / "station.db", once="select 1 from package_wish where begun > 0"):
        page.press("form[action$='/copy'] button")
        soon(page, "document.querySelector('#packages')?.innerText.includes('Is being made since')")
        fill(page, "form[action$='/note'] [name=reason]", "the owner was here")
    page.wait("Boolean(document.querySelector('#packages a[download]'))", WAIT_S_MAX)
    assert page.js("document.querySelector('form[action$=\"/note\"] [name=reason]').value") == "the owner was here"
    fits(page, "6-writing")
    page.press("form[action$='/note'] button")
    soon(page, "document.querySelector('.steps')?.innerText.includes('the owner was here')")
    assert page.js("document.querySelectorAll('.steps a[download]').length") == 2

    # What cannot be made is said where it would have been, in the officer's language.
    page.js("document.querySelector('form[action$=\"/copy\"] select').value = 'gate-1'")
    fill(page, "form[action$='/copy'] [name=reason]", "for the insurer")
    page.press("form[action$='/copy'] button")
    page.wait("Boolean(document.querySelector('#packages [role=alert]'))", WAIT_S_MAX)
    assert "the station has no ledger of this post" in str(page.js("document.querySelector('#packages').innerText"))
    case = str(page.js("location.pathname"))
    page.press("form[action='/language'] button")
    soon(page, "document.documentElement.lang === 'vi'")
    page.go(f"{desk}{case}")
    soon(page, "document.querySelector('#packages')?.innerText.includes('Không tạo được gói')")
    fits(page, "7-not-made")
    page.press("form[action='/language'] button")
    soon(page, "document.documentElement.lang === 'en'")

    # Every page that was used, and those beside them, for somebody who cannot see or uses the keyboard alone.
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
