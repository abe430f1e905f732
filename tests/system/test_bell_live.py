"""Live pictures around a bell, in a real browser: on the card as it comes, for the time of one grant, and never an old one
as live.
"""

from __future__ import annotations

import base64
import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from agent import config, wire
from agent.assets import Assets
from agent.cli import main
from agent.clock import uuid7_maker
from agent.live.feed import Gallery
from agent.live.worker import LiveWorker
from agent.station.live.desk import LiveDesk
from agent.station.live.settings import LiveSettings
from agent.station.people.roles import Role
from agent.station.posts.known import Spot
from agent.station.web.desk import serve
from agent.types import NS
from tests.e2e.brokers import NatsServer, free_port
from tests.e2e.post import recording
from tests.e2e.test_ledger import until
from tests.e2e.test_live_view import SynchronisedPost, records_of
from tests.fakes.certificates import self_signed
from tests.fakes.clock import FakeClock
from tests.fakes.database import Database, fresh
from tests.fakes.desk import PASSWORD
from tests.fakes.footage import make_video
from tests.fakes.footage_ward import FootageWard
from tests.fakes.live import FakeRtc
from tests.system.axe import violations
from tests.system.browser import Browser, chromium
from tests.system.test_board import Headquarters, Posts, log_in, on_the_board, picture, soon

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

SHOTS = Path(__file__).resolve().parents[2] / "test-out" / "bell"
NODE_MORE = '\n[vision.detector]\ndriver = "none"\n[live]\nstill_period_s = 1.0\n'


def card(incident: str) -> str:
    return f"document.getElementById('alert-{incident}')"


def place(incident: str, post: str) -> str:
    """A post around a bell, on the board and on the alert's own page alike."""
    return f'document.querySelector(\'.near[data-incident="{incident}"] li[data-post="{post}"]\')'


def live(incident: str, post: str) -> str:
    return f"{place(incident, post)}?.querySelector('img.live:not(.old)')"


def mark(incident: str, post: str) -> str:
    return f"{place(incident, post)}.querySelector('.mark').textContent"


def button(incident: str) -> str:
    return f'.near[data-incident="{incident}"] > button'


def renewed(browser: Browser, incident: str, post: str) -> None:
    """There is a live picture, and then another."""
    soon(browser, f"{live(incident, post)}?.naturalWidth > 0")
    first = browser.js(f"{live(incident, post)}.src")
    soon(browser, f"{live(incident, post)}?.naturalWidth > 0 && {live(incident, post)}.src !== {json.dumps(first)}")


def shots(browser: Browser, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width in (390, 1440):
        browser.size(width, 900, phone=width == 390)
        soon(browser, f"innerWidth === {width} && document.body?.clientWidth > 0")
        browser.picture(SHOTS / f"{name}-{width}.png")
        assert browser.js("document.documentElement.scrollWidth <= innerWidth")
        small = "[...document.querySelectorAll('button, .button')].filter((e) => e.checkVisibility() && e.offsetHeight < 44)"
        assert browser.js(f"{small}.length") == 0


# -- a real post ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[tuple[Headquarters, Posts, SynchronisedPost]]:
    for name in ("broker", "post"):
        (tmp_path / name).mkdir()
    with ExitStack() as undo:
        broker = NatsServer(tmp_path / "broker")
        undo.callback(broker.stop)
        broker.start()
        hq = Headquarters(tmp_path, broker)
        hq.person("minh", "operator", "--name", "Nguyễn Minh")
        undo.callback(hq.stop)
        hq.start()
        film = make_video(tmp_path / "film.mp4", seconds=20.0, options={"bf": "0"})
        post = SynchronisedPost(tmp_path / "post", film, broker.url)
        text = post.config.read_text().replace('site = "ward"', 'site = "ward-7"')
        text = text.replace("[uplink]", f'[uplink]\ncommand_key = "{hq.public_key}"')
        post.config.write_text(text + NODE_MORE)
        undo.callback(post.clean_up)
        post.start()
        posts = Posts(broker.port)
        undo.callback(posts.close)
        yield hq, posts, post


def test_a_press_comes_with_live_pictures_of_its_post_and_who_saw_them_is_on_record(
    scene: tuple[Headquarters, Posts, SynchronisedPost], tmp_path: Path, assets: Assets
) -> None:
    hq, posts, post = scene
    with chromium(tmp_path / "profile") as browser:
        browser.size(1440, 900)
        post.wait_for(recording)
        log_in(browser, hq.origin, "minh")

        # Somebody calls for help. Nobody does anything, and the card shows what is happening there.
        began = time.monotonic()
        bell = posts.say("cam-7", kind="bell", severity="bell", place="Trường An", summary="The bell was pressed")
        soon(browser, f"{live(bell, 'cam-7')}?.naturalWidth > 0")
        print(f"from the press to a live picture: {time.monotonic() - began:.2f} s")
        renewed(browser, bell, "cam-7")
        assert browser.js(mark(bell, "cam-7")) == "Live, a picture every 1 s"
        assert post.status()["watching"] == ["Nguyễn Minh"]
        assert violations(browser, assets) == []
        shots(browser, "board")

        # `I have it`: the card is another, and they go on in it, without being asked for again.
        browser.press(f"#alert-{bell} .acts form button")
        soon(browser, f"{card(bell)}.dataset.open === 'no'")
        renewed(browser, bell, "cam-7")
        assert browser.js(f"{card(bell)}.contains({live(bell, 'cam-7')})")

        # The page of the alert, in English and then in Vietnamese: each is a view of its own.
        browser.press(f"#alert-{bell} .acts a[href='/alerts/{bell}']")
        soon(browser, "document.querySelector('.steps') && document.readyState === 'complete'")
        renewed(browser, bell, "cam-7")
        browser.press("form[action='/language'] button")
        soon(browser, "document.documentElement?.lang === 'vi' && document.querySelector('.steps')")
        renewed(browser, bell, "cam-7")
        assert browser.js(mark(bell, "cam-7")) == "Trực tiếp, mỗi 1 giây một hình"
        assert violations(browser, assets) == []
        shots(browser, "alert-vi")

        # Enough. The post is told, and nothing looks live any more.
        browser.press(button(bell))
        soon(browser, f"{mark(bell, 'cam-7')}.startsWith('Không còn trực tiếp')")
        assert browser.js(f"{live(bell, 'cam-7')}") is None
        post.wait_for(lambda status: not status["watching"])
        browser.press(button(bell))
        renewed(browser, bell, "cam-7")
        assert [one for one in browser.errors if "404" not in one] == [], "a still may be asked for as its view ends"

    # The browser is gone without a word.
    post.wait_for(lambda status: not status["watching"])
    assert post.end(signal.SIGTERM) == 0
    records = records_of(post)
    reasons = [one["reason"] for one in records if one["what"] == "began"]
    assert reasons == ["Bell at Trường An"] * 2 + ["Chuông tại Trường An"] * 2
    assert {one["by"] for one in records} == {"Nguyễn Minh"}
    assert [one["mode"] for one in records if one["what"] == "began"] == ["stills"] * 4
    hq.stop()
    trail = tmp_path / "trail.jsonl"
    assert main(["trail", "export", "-o", str(trail), "--config", str(hq.config)]) == 0
    said = [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in trail.read_bytes().splitlines()]
    asked = [one["body"] for one in said if one.get("kind") == "desk-live-began"]
    assert [one["reason"] for one in asked] == reasons
    assert {one["view"] for one in asked} == {one["view"] for one in records if one["what"] == "ended"}
    ended = [one["body"]["how"] for one in said if one.get("kind") == "desk-live-ended"]
    assert ended[:3] == ["ended by the viewer"] * 3 and len(ended) == 4


# -- posts that a test speaks for ----------------------------------------------------------------------------------------

POSTS = ("gate-1", "gate-2", "gate-3")
GRANT_S = 120.0
STEP_S = 0.1
HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@dataclass(frozen=True)
class Shot:
    number: int
    boot_ns: int
    jpeg: bytes


class Post:
    """A node's own live worker, on pictures of a test. Its ledger: `notes`."""

    def __init__(self, name: str, clock: FakeClock, live: LiveDesk) -> None:
        self.name = name
        self.notes: list[dict[str, Any]] = []
        self._clock, self._live = clock, live
        self._shades = itertools.cycle(range(40, 240, 10))
        self._numbers = itertools.count(1)
        self._worker = LiveWorker(
            settings=config.LiveSettings(still_period_s=1.0, viewers_max=4),
            clock=clock,
            rtc=FakeRtc(),
            gallery=Gallery(lambda _: True),
            stills=self,
            privacy_left_s=lambda: 0.0,
            note=lambda body: self.notes.append(msgspec.json.decode(body)),
            reply=lambda reply: void(live.hears(name, reply)),
        )
        self._worker.open()

    def still(self, *, after: int, wait_s: float) -> Shot:
        """A street that grows lighter."""
        image = np.full((90, 160, 3), next(self._shades), np.uint8)
        return Shot(next(self._numbers), self._clock.boot_ns(), bytes(cv2.imencode(".jpg", image)[1]))

    def hears(self, command: wire.Command) -> None:
        self._worker.take({**command.args, "id": command.id})

    def step(self) -> None:
        self._worker.step(self._clock.boot_ns() / NS)


def void(_: object) -> None:
    """For who wants no answer."""


class Street(FootageWard):
    """Headquarters with its pages, and a house with three posts; the clock goes on while it is open."""

    def __init__(self, folder: Path, database: Database) -> None:
        port = free_port()
        certificate, key = self_signed(folder)
        self.origin = f"https://127.0.0.1:{port}"
        super().__init__(
            folder,
            database,
            listen=f"127.0.0.1:{port}",
            origin=self.origin,
            behind_proxy=False,
            certificate=str(certificate),
            key=str(key),
        )
        self.live = self.live_desk(LiveSettings(seconds=GRANT_S), uuid7_maker(self.clock))
        self.posts = {name: Post(name, self.clock, self.live) for name in POSTS}
        self.cut = False  # the posts are not heard
        self.leap_s = 0.0  # so much time passes at once
        for name in POSTS:
            self.footage.knows(name, f"House of {name}")

    @contextmanager
    def open(self) -> Iterator[None]:
        self.desk = self.desk_with(watch=self.live)
        over = threading.Event()
        world = threading.Thread(target=self._go_on, args=(over,))
        server = serve(self.settings, self.desk, close=lambda: None)
        server.start()
        world.start()
        try:
            yield
        finally:
            over.set()
            world.join()
            server.stop()

    def _go_on(self, over: threading.Event) -> None:
        while not over.wait(STEP_S):
            leap_s, self.leap_s = self.leap_s, 0.0
            self.clock.advance(STEP_S + leap_s)
            for message in self.live.outgoing():
                if not self.cut:
                    self.posts[wire.parse_topic(message.topic).node].hears(wire.decode(message.payload, wire.Command))
            if not self.cut:
                for post in self.posts.values():
                    post.step()
            self.live.tend()


@pytest.fixture
def street(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    spots = {name: Spot(house="A") for name in POSTS}
    monkeypatch.setattr("agent.station.web.desk.registered", lambda _root: lambda: spots)
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh("sqlite", folder) as database:
        made = Street(folder, database)
        made.person("lan", Role.OPERATOR, name="Lan")
        try:
            yield made
        finally:
            made.footage.engine.dispose()
            made.close()


def enter(browser: Browser, street: Street) -> None:
    browser.go(f"{street.origin}/login")
    browser.fill("#login", "lan")
    browser.fill("#password", PASSWORD)
    browser.press("form.sheet button")
    on_the_board(browser)


def test_one_bell_at_a_time_has_them_for_one_grant_and_then_at_a_press(
    street: Street, tmp_path: Path, assets: Assets
) -> None:
    street.hear(7, node="gate-2", severity="thumbnail", jpeg=base64.b64encode(picture()).decode())
    older = street.hear(1, node="gate-1", severity="bell")
    street.clock.advance(1)
    newer = street.hear(2, node="gate-2", severity="bell")
    with chromium(tmp_path / "profile") as browser, street.open():
        enter(browser, street)

        # The newest has them, all its posts; the other one offers them.
        for post in POSTS:
            soon(browser, f"{live(newer, post)}?.naturalWidth > 0")
        assert browser.js("document.querySelectorAll('img.live').length") == 3
        assert browser.js(f"document.querySelector({json.dumps(button(older))}).textContent") == "Live pictures"

        # Its time is over. That is said, the alert picture is back, and nothing begins by itself.
        street.leap_s = GRANT_S
        for post in POSTS:
            soon(browser, f"{mark(newer, post)} === 'No longer live: the time was over'")
        assert browser.js("document.querySelector('img.live')") is None
        assert browser.js(f"{place(newer, 'gate-2')}.querySelector('img').checkVisibility()")
        assert browser.js(f"document.querySelector({json.dumps(button(newer))}).textContent") == "Live pictures again"
        noted = [one for post in street.posts.values() for one in post.notes]
        assert [one["what"] for one in noted] == ["began", "ended"] * 3
        assert {(one["by"], one["reason"]) for one in noted} == {("Lan", "Bell at School gate")}
        assert violations(browser, assets) == []
        shots(browser, "over")

        # At a press they begin again; at a press on the other card they go there.
        browser.press(button(newer))
        renewed(browser, newer, "gate-3")
        browser.press(button(older))
        renewed(browser, older, "gate-1")
        assert browser.js(f"{place(newer, 'gate-2')}.querySelector('img.live')") is None
        assert "it was ended here" in browser.js(mark(newer, "gate-2"))

        # Who has as many views as one may: the card says so, once, and shows what it has.
        browser.press(button(older))
        soon(browser, f"{mark(older, 'gate-1')} === 'No longer live: it was ended here'")
        until(lambda: all(one.notes[-1]["what"] == "ended" for one in street.posts.values()), "posts that know it")
        fill = partial(
            street.live.begin, node="gate-3", login="lan", name="Lan", reason="x", case="", stills=True, offer=""
        )
        with held_open(street, [fill(view=street.live.new_view()).id for _ in range(4)]):
            asked = len([one for one in street.kinds() if one == "live-began"])
            browser.press(button(newer))
            for post in POSTS:
                soon(browser, f"{mark(newer, post)}.includes('4 views at once are enough for one person')")
            assert len([one for one in street.kinds() if one == "live-began"]) == asked + 1
            assert browser.js(f"{place(newer, 'gate-2')}.querySelector('img').checkVisibility()")
            assert violations(browser, assets) == []
            shots(browser, "refused")


@contextmanager
def held_open(street: Street, views: list[str]) -> Iterator[None]:
    """Somebody looks at these, in another window."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(1.0):
            for view in views:
                street.live.look(view, "lan")
                street.live.more(view, "lan")

    window = threading.Thread(target=look)
    window.start()
    try:
        yield
    finally:
        over.set()
        window.join()


def test_a_picture_is_live_only_while_somebody_looks_and_the_next_one_comes(
    street: Street, tmp_path: Path, assets: Assets
) -> None:
    bell = street.hear(2, node="gate-2", severity="bell")
    with chromium(tmp_path / "profile") as browser, street.open():
        enter(browser, street)
        renewed(browser, bell, "gate-2")

        # Nobody has the page before him: the post shows itself to nobody. Whoever comes back is told so.
        browser.js(f"({HIDDEN})(true)")
        until(
            lambda: all(one.notes[-1]["what"] == "ended" for one in street.posts.values()), "posts that nobody watches"
        )
        browser.js(f"({HIDDEN})(false)")
        soon(browser, f"{mark(bell, 'gate-2')} === 'No longer live: the page was closed'")
        assert browser.js(live(bell, "gate-2")) is None

        # The post falls silent while somebody watches.
        browser.press(button(bell))
        renewed(browser, bell, "gate-2")
        street.cut = True
        soon(browser, f"/^Not live: this picture came \\d+ s ago$/.test({mark(bell, 'gate-2')})")
        assert browser.js(live(bell, "gate-2")) is None
        assert violations(browser, assets) == []
        shots(browser, "old")
