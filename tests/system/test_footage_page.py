"""Footage in a real browser: what a post has recorded plays from the archive, across a gap, and a picture is kept."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from agent.assets import Assets
from agent.station.people.roles import Role
from agent.station.web.desk import serve
from agent.types import NS
from tests.e2e.brokers import free_port
from tests.fakes.certificates import self_signed
from tests.fakes.database import fresh
from tests.fakes.desk import PASSWORD
from tests.fakes.evidence_post import UTC_0, EvidencePost
from tests.fakes.footage_desk import POST
from tests.fakes.footage_ward import FootageWard
from tests.fakes.packets import of_file, shifted
from tests.fakes.recording_post import closed_posts  # noqa: F401
from tests.system.browser import Browser, chromium

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

SHOTS = Path(__file__).parents[2] / "test-out" / "footage"
RANGE = "from=2023-11-15T05:13:10&to=2023-11-15T05:14:50"  # in Vietnam: 10 s before it begins
GAP_NS = 60 * NS


@pytest.fixture
def ward(tmp_path: Path, assets: Assets) -> Iterator[FootageWard]:
    """Ten seconds of a street, a minute without a camera, and the street again; another post that was never asked."""
    folder = tmp_path / "hq"
    folder.mkdir()
    port = free_port()
    certificate, key = self_signed(tmp_path)
    with fresh("sqlite", folder) as database:
        origin = f"https://127.0.0.1:{port}"
        made = FootageWard(
            folder,
            database,
            listen=f"127.0.0.1:{port}",
            origin=origin,
            behind_proxy=False,
            certificate=str(certificate),
            key=str(key),
            time_zone="Asia/Ho_Chi_Minh",
        )
        post = EvidencePost(tmp_path / "post")
        street = of_file(assets.footage())
        post.feed(street)
        post.post.recorder.lost(post.post.clock.boot_ns(), "camera: no answer")
        post.feed(shifted(street, 10 * NS + GAP_NS))
        post.seal()
        made.footage.knows()
        made.footage.knows("gate-9", "Other gate")
        made.footage.hear(post)
        made.footage.take_all(post)
        made.person("lan", Role.OPERATOR, name="Lan")
        server = serve(made.settings, made.desk, close=lambda: None)
        server.start()
        try:
            _answers(port)
            yield made
        finally:
            server.stop()
            made.footage.engine.dispose()
            made.close()


def _answers(port: int) -> None:
    """It listens when its thread has come that far."""
    for _ in range(1200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on port {port}")


@pytest.fixture
def page(ward: FootageWard, tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path / "profile") as browser:
        browser.size(1440, 900)
        browser.go(f"{ward.settings.origin}/login")
        browser.wait("!!document.querySelector('[name=password]')")
        browser.fill("[name=login]", "lan")
        browser.fill("[name=password]", PASSWORD)
        browser.press("main form button")
        browser.wait("location.pathname === '/' && document.readyState === 'complete'")
        yield browser
        assert browser.errors == [], "no script failed, and nothing broke the security policy"


def frames(page: Browser) -> int:
    return int(page.js("document.querySelector('#video').getVideoPlaybackQuality().totalVideoFrames"))


def shown_utc_s(page: Browser) -> float:
    return (int(page.js("document.querySelector('#player').dataset.utc")) - UTC_0 // 10**6) / 1000


def stands(page: Browser) -> None:
    """It is paused, and of the last pictures two were shown one after the other, which a busy machine may need a while
    for."""
    for _ in range(20):
        page.press("#play")
        page.wait("document.querySelector('#video').paused")
        if page.js("Math.abs(frameS - 0.04) < 0.005"):
            return
        page.js("document.querySelector('#video').currentTime = 1")
        page.press("#play")
        page.wait("document.querySelector('#video').currentTime > 1.3")
    raise AssertionError("this machine never shows two pictures one after the other")


def test_footage_plays_in_the_page_across_a_gap_steps_and_a_picture_is_kept(
    page: Browser, ward: FootageWard, tmp_path: Path
) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.go(f"{ward.settings.origin}/footage?post.{POST}=on&post.gate-9=on&{RANGE}")
    page.wait("!!document.querySelector('.start')")
    assert page.js("MediaSource.isTypeSupported('video/mp4; codecs=\"avc1.64001f\"')"), "this Chromium decodes H.264"
    assert [line["kind"] for line in ward.trail()].count("viewed") == 0
    page.press(".start")
    page.wait("document.querySelector('#video').currentTime > 1.5")
    before = frames(page)
    assert before > 20
    page.wait(f"document.querySelector('#video').getVideoPlaybackQuality().totalVideoFrames > {before + 10}")
    assert 0.0 < shown_utc_s(page) < 10.0, "the time of the picture, which is of the first ten seconds"
    page.picture(SHOTS / "plays-1440.png")

    # It goes on behind the gap by itself, and the time is that of the other side.
    page.js("document.querySelector('#video').currentTime = 9.2; document.querySelector('#video').play()")
    page.wait("Number(document.querySelector('#player').dataset.utc) > " + str((UTC_0 + 70 * NS) // 10**6))
    assert 70 <= shown_utc_s(page) < 80

    # Pictures that are left out leave long steps: the shortest of the last five is that of the frames.
    steps = "((...steps) => { let at = mediaTime; for (const one of steps) seen(at += one); return frameS; })"
    page.js("document.querySelector('#video').currentTime = 12; document.querySelector('#video').play()")
    page.wait("!document.querySelector('#video').paused && document.querySelector('#video').currentTime > 12.2")
    assert page.js(f"{steps}(0.2, 0.04, 0.04, 0.16, 0.2)") == pytest.approx(0.04, abs=0.001)
    assert page.js(f"{steps}(0.2, 0.12, 0.16, 0.2, 0.12)") == pytest.approx(0.12, abs=0.001), (
        "and a slower one is learned"
    )

    # A place on the bar is a time: 85 s into the range of 100 s is 75 s behind the first picture. Now that it stands, the
    # time that is shown is that of the video, whose ten seconds behind the gap follow those before it.
    stands(page)
    left, top, wide = page.js(
        f"(() => {{ const b = document.querySelector('[data-post={json.dumps(POST)}] svg');"
        " b.scrollIntoView({block: 'end'}); const r = b.getBoundingClientRect(); return [r.left, r.top, r.width]; })()"
    )
    page.click(left + wide * 0.85, top + 8)
    page.wait(f"Math.abs(document.querySelector('#player').dataset.utc - {(UTC_0 + 75 * NS) // 10**6}) < 300")
    media_s = page.js("document.querySelector('#video').currentTime")
    assert shown_utc_s(page) - GAP_NS / NS == pytest.approx(media_s, abs=0.1)

    # One picture on, one back.
    at = shown_utc_s(page)
    page.press("#forward")
    page.wait(f"document.querySelector('#player').dataset.utc > {(UTC_0 // 10**6) + at * 1000}")
    assert shown_utc_s(page) - at == pytest.approx(0.04, abs=0.005)
    page.press("#back")
    page.wait(f"document.querySelector('#player').dataset.utc < {(UTC_0 // 10**6) + at * 1000 + 20}")
    assert shown_utc_s(page) == pytest.approx(at, abs=0.002)

    kept = page.download("#snapshot", tmp_path / "kept")
    assert kept.name.startswith(f"{POST}_2023-11-14T22-14-3")
    page.wait(f"document.querySelector('#player').dataset.kept === {json.dumps(kept.name)}")
    picture = cv2.imread(str(kept))
    assert picture is not None
    assert picture.shape[:2] == (272, 640)
    assert picture.std() > 20, "it is a picture of the street, not a black one"

    assert [line["posts"] for line in ward.trail() if line["kind"] == "viewed"] != []
    page.size(390, 844, phone=True)
    page.picture(SHOTS / "plays-390.png")
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on a phone"


def test_it_is_asked_for_and_the_page_follows(page: Browser, ward: FootageWard, tmp_path: Path) -> None:
    """A post of which nothing is here: asked for in the page, in Vietnamese, on a phone."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.size(390, 844, phone=True)
    page.go(f"{ward.settings.origin}/footage?post.gate-9=on&{RANGE}")
    page.wait("!!document.querySelector('.ask')")
    page.press("header form:nth-of-type(1) button")
    page.wait("document.documentElement?.lang === 'vi'")
    page.go(f"{ward.settings.origin}/footage?post.gate-9=on&{RANGE}")
    page.wait("!!document.querySelector('.ask [name=reason]')")
    page.fill(".ask [name=reason]", "Mất xe đạp")
    page.press(".ask button")
    page.wait("!!document.querySelector('.requests')")
    assert "Mất xe đạp" in page.js("document.querySelector('.requests').textContent")
    assert page.js("document.querySelector('[data-busy]').dataset.busy") == "yes"
    page.picture(SHOTS / "asked-390-vi.png")
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on a phone"
    page.size(1440, 900)
    page.picture(SHOTS / "asked-1440-vi.png")


def test_a_page_that_follows_says_when_the_station_is_silent_and_when_it_is_not_for_these_eyes_any_more(
    page: Browser, ward: FootageWard
) -> None:
    """The page follows what was asked for; what the station answers to that is told by the test, in its place."""

    def asks(answer: str) -> None:
        page.js(
            f"(() => {{ window.fetch = async () => {answer}; refresh(document.querySelector('section.post')); }})()"
        )

    shown = "document.querySelector('section.post').textContent"
    said = "document.querySelector('.follow').textContent"
    hidden = "document.querySelector('.follow').hidden"

    def asked() -> None:
        page.go(f"{ward.settings.origin}/footage?post.gate-9=on&{RANGE}")
        page.wait("!!document.querySelector('.ask [name=reason]')")

    asked()
    page.fill(".ask [name=reason]", "a bicycle")
    page.press(".ask button")
    page.wait("document.querySelector('[data-busy]').dataset.busy === 'yes' && document.readyState === 'complete'")
    page.js("void (window.real = window.fetch)")
    for silent in ("{ throw new TypeError('gone'); }", "new Response('', { status: 503 })"):
        asks(silent)
        page.wait(f"!{hidden} && /does not answer/.test({said})")
        assert "a bicycle" in page.js(shown), "what is shown stays"
        page.js("(() => { window.fetch = window.real; refresh(document.querySelector('section.post')); })()")
        page.wait(hidden)
    for over in (403, 404):
        asked()
        asks(f"new Response('', {{ status: {over} }})")
        page.wait(f"!{hidden} && /may not see/.test({said})")
        assert page.js(shown).strip() == "", "and nothing of it is shown any more"
    asked()
    asks("new Response('', { status: 401 })")
    page.wait("location.pathname === '/login' || location.pathname === '/'")
