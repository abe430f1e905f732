"""The live board in a real browser: a real broker, a real station with its pages, and a post that calls for help."""

from __future__ import annotations

import base64
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent import wire
from agent.assets import Assets
from agent.cli import main
from agent.clock import SystemClock, rfc3339, uuid7_maker
from agent.config import load
from agent.station.main import Station, StationSettings
from agent.station.orders import OrderBook
from tests.e2e.brokers import NatsServer, free_port
from tests.e2e.test_coverage import keys
from tests.fakes.database import engine_in
from tests.fakes.hook_server import HookServer
from tests.system.axe import violations
from tests.system.browser import Browser, chromium

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1200),
    pytest.mark.filterwarnings(
        "ignore:'imghdr' is deprecated:DeprecationWarning"
    ),  # by apprise, which messages schools
]

SHOTS = Path(__file__).resolve().parents[2] / "test-out" / "board"
PASSWORD = "a goose on the roof"
EVIL = "<img src=x onerror=\"document.title='pwned'\"> Gate <b>2</b>"
TOML = """\
[station]
site = "ward-7"
id = "hq"
data = "{data}"
command_key = "{key}"
[broker]
brokers = ["{broker}"]
[web]
listen = "{host}:{port}"
origin = "https://{host}:{port}"
certificate = "{site}/desk/desk.pem"
key = "{site}/desk/desk.key"
time_zone = "Asia/Ho_Chi_Minh"
"""


def picture() -> bytes:
    """A street at night, more or less."""
    rows = np.linspace(20, 90, 240, dtype=np.uint8)[:, None, None]
    image = np.broadcast_to(rows, (240, 426, 3)).copy()
    cv2.rectangle(image, (180, 80), (230, 220), (200, 190, 180), -1)
    cv2.circle(image, (205, 60), 20, (200, 190, 180), -1)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1])


class Posts:
    """What nodes publish, as any program would that has the contract."""

    def __init__(self, port: int) -> None:
        self._clock = SystemClock()
        self._new_id = uuid7_maker(self._clock)
        self._epochs: dict[str, str] = {}
        self._sequences: dict[str, int] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="posts")
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def say(self, node: str, incident: str = "", **data: object) -> str:
        """One message, at the broker when this returns. Returns its incident."""
        incident = incident or self._new_id()
        sequence = self._sequences[node] = self._sequences.get(node, 0) + 1
        epoch = self._epochs.setdefault(node, self._new_id())
        kind = "thumbnail" if data.get("severity") == "thumbnail" else str(data.pop("kind", "person"))
        event = wire.CloudEvent(
            id=self._new_id(),
            source=f"wardpost/ward-7/{node}",
            type=f"wardpost.{kind}",
            subject=incident,
            time=rfc3339(self._clock.utc().utc_ns),
            epoch=epoch,
            sequence=sequence,
            session=1,
            bootid=self._clock.boot_id,
            monons=self._clock.boot_ns(),
            timeerrms=1500,
            data=wire.EventData(**{"incident": incident, "phase": "started", "summary": ""} | data),  # type: ignore[arg-type]
        )
        topic = wire.Topics("ward-7", node).event(kind)
        self._client.publish(topic, wire.encode(event), qos=1).wait_for_publish(60)
        return incident

    def show(self, node: str, incident: str) -> None:
        """Its picture."""
        jpeg = base64.b64encode(picture()).decode()
        self.say(node, incident, severity="thumbnail", jpeg=jpeg)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Headquarters:
    """A station that can be stopped and started."""

    hooks: HookServer  # where its schools have a webhook

    def __init__(self, folder: Path, broker: NatsServer, host: str = "127.0.0.1", more: str = "") -> None:
        """`more`: settings besides."""
        self.port = free_port()
        self.origin = f"https://{host}:{self.port}"
        self.data = folder / "data"
        self.data.mkdir()
        site = folder / "site"
        assert main(["site", "init", str(site), "--site", "ward-7", "--broker", "127.0.0.1"]) == 0
        assert main(["site", "desk-cert", str(site), host]) == 0
        private, self.public_key = keys(folder)
        self.config = folder / "station.toml"
        self.config.write_text(
            TOML.format(data=self.data, key=private, broker=broker.url, host=host, port=self.port, site=site) + more,
            encoding="utf-8",
        )
        password = folder / "password"
        password.write_text(PASSWORD)
        self._secret = ["--password-file", str(password), "--config", str(self.config)]
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def person(self, login: str, role: str, *more: str) -> None:
        assert main(["user", "add", login, "--role", role, *more, *self._secret]) == 0

    def start(self) -> None:
        self._stop = threading.Event()
        station = Station(load(self.config, StationSettings), clock=SystemClock(), rng=random.Random(1))
        self._thread = threading.Thread(target=station.run, args=(self._stop,))
        self._thread.start()
        until_s = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{self.origin}/login", verify=False)
                break
            except httpx.HTTPError:
                assert time.monotonic() < until_s and self._thread.is_alive(), "the station did not come up"
                time.sleep(0.1)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(120)
            assert not self._thread.is_alive()

    def colleague(self, login: str) -> httpx.Client:
        """Somebody else at another desk, without a picture."""
        client = httpx.Client(base_url=self.origin, verify=False, headers={"origin": self.origin}, timeout=30)
        form = re.search(r'name="form" value="(\w+)"', client.get("/login").text)
        assert form is not None
        answer = client.post("/login", data={"form": form[1], "login": login, "password": PASSWORD})
        assert answer.status_code == 303
        return client


@pytest.fixture
def headquarters(tmp_path: Path) -> Iterator[tuple[Headquarters, Posts]]:
    (tmp_path / "broker").mkdir()
    broker = NatsServer(tmp_path / "broker")
    broker.start()
    hooks = HookServer()
    made = Headquarters(tmp_path, broker, more=f'[outward.schools]\nhosts = ["127.0.0.1:{hooks.port}"]\n')
    made.hooks = hooks
    made.person("minh", "operator", "--name", "Nguyễn Minh")
    made.person("lan", "supervisor", "--name", "Trần Lan")
    made.person("school", "school", "--name", "Trường An", "--post", "gate-1")
    made.person("home", "household", "--post", "gate-1")
    made.start()
    posts = Posts(broker.port)
    yield made, posts
    posts.close()
    made.stop()
    broker.stop()
    hooks.close()


def soon(browser: Browser, expression: str) -> None:
    """It becomes true, on a busy machine too."""
    browser.wait(f"Boolean({expression})")


def log_in(browser: Browser, origin: str, login: str, home: str = "/") -> None:
    browser.go(f"{origin}/login")
    soon(browser, "document.querySelector('#login')")
    browser.fill("#login", login)
    browser.fill("#password", PASSWORD)
    browser.press("form.sheet button")
    soon(
        browser, f"location.pathname === '{home}' && document.querySelector('h1') && document.readyState === 'complete'"
    )
    if home == "/":
        on_the_board(browser)


def on_the_board(browser: Browser) -> None:
    soon(browser, "location.pathname === '/' && document.querySelector('#board')")
    soon(browser, "document.querySelector('#line').textContent === document.querySelector('#line').dataset.live")


def titles(browser: Browser) -> list[str]:
    found = browser.js("JSON.stringify([...document.querySelectorAll('article h2')].map((e) => e.textContent))")
    return list(json.loads(found))


def test_a_shift_at_the_desk(headquarters: tuple[Headquarters, Posts], tmp_path: Path, assets: Assets) -> None:
    hq, posts = headquarters
    SHOTS.mkdir(parents=True, exist_ok=True)
    with chromium(tmp_path / "profile") as browser:
        browser.size(1440, 900)
        log_in(browser, hq.origin, "minh")
        assert browser.js("!document.querySelector('#empty').hidden")
        browser.press("#sound")
        assert browser.js("document.querySelector('#sound').getAttribute('aria-pressed')") == "true"

        # A post sees somebody; the card comes by itself, and its picture after it. What the post says is only text.
        began = time.monotonic()
        alert = posts.say(
            "gate-2", severity="alert", place=EVIL, summary="A person at the gate <script>alert(1)</script>"
        )
        card = f"document.getElementById('alert-{alert}')"
        soon(browser, card)
        print(f"from the broker to the page: {time.monotonic() - began:.2f} s")
        posts.show("gate-2", alert)
        soon(browser, f"{card}.querySelector('img')?.naturalWidth > 0")
        assert browser.js(f"{card}.querySelectorAll('b, script, img').length") == 1
        assert "Gate <b>2</b>" in browser.js(f"{card}.textContent")

        # Somebody calls for help: above everything, and with how long there is time.
        bell = posts.say(
            "gate-1", kind="bell", severity="bell", place="Trường An, cổng bắc", summary="The bell was pressed"
        )
        bell_card = f"document.getElementById('alert-{bell}')"
        soon(browser, bell_card)
        assert browser.js("document.querySelector('#board').firstElementChild.id") == f"alert-{bell}"
        soon(browser, f"/\\d:\\d\\d/.test({bell_card}.querySelector('.due')?.textContent)")
        browser.picture(SHOTS / "board-1440.png")

        # A colleague is faster; this page is told, and pressing here too changes nothing.
        lan = hq.colleague("lan")
        form = re.search(r'name="form" value="(\w+)"', lan.get("/").text)
        assert form is not None
        answer = lan.post(f"/alerts/{bell}/acknowledge", data={"form": form[1], "back": "/"})
        assert answer.status_code == 303
        lan.close()
        soon(browser, f"{bell_card}.dataset.open === 'no' && {bell_card}.textContent.includes('Trần Lan has it')")
        assert browser.js("document.querySelector('#board').firstElementChild.id") == f"alert-{alert}", "what is open"

        # With the keyboard: `I have it`, and the focus stays on the card.
        browser.js(f"{card}.querySelector('.acts button').focus()")
        browser.key("Enter")
        soon(browser, f"{card}.dataset.open === 'no' && {card}.textContent.includes('Nguyễn Minh has it')")
        assert browser.js(f"{card}.contains(document.activeElement)")

        # Its story: a verdict, which goes to the post as a signed command, and a comment.
        browser.press(f"#alert-{alert} .acts a[href='/alerts/{alert}']")
        soon(browser, "document.querySelector('input[name=verdict]') && document.readyState === 'complete'")
        browser.press("input[value=false]")
        browser.fill("#reason", "áp phích <i>trên tường</i>")
        browser.press("form[action$=verdict] button")
        soon(
            browser, "document.querySelector('.steps')?.textContent.includes('False alert: áp phích <i>trên tường</i>')"
        )
        browser.picture(SHOTS / "alert-1440.png")
        book = OrderBook(engine_in(hq.data))
        book.open()
        [order] = book.of("gate-2")
        book.close()
        asked = wire.decode(order.payload, wire.Command)
        assert (asked.verb, asked.args["incident"], asked.args["verdict"]) == ("verdict", alert, "false")
        assert asked.args["by"] == "Nguyễn Minh" and asked.signature

        # On a phone, in Vietnamese: nothing to be scrolled sideways.
        browser.size(390, 844, phone=True)
        browser.press("form[action='/language'] button")
        soon(browser, "document.documentElement?.lang === 'vi' && document.querySelector('.steps')")
        browser.go(f"{hq.origin}/")
        soon(browser, f"{card}?.querySelector('img')?.naturalWidth > 0")
        assert browser.js("document.documentElement.scrollWidth") <= 390
        browser.picture(SHOTS / "board-390-vi.png")
        small = "[...document.querySelectorAll('button, .button, nav a')].filter((e) => e.checkVisibility() && e.offsetHeight < 44).length"
        assert browser.js(small) == 0, "large enough for a thumb"
        assert browser.js("document.title") != "pwned"
        assert browser.errors == []

        # The station restarts; the page says that it is old, comes back by itself, and has missed nothing.
        hq.stop()
        soon(browser, "document.querySelector('#line').className === 'lost'")
        missed = posts.say("gate-2", severity="alert", place="Chợ", summary="A person at the market")
        hq.start()
        posts.say("gate-2", severity="alert", place="Chợ", summary="Another one")  # the broker keeps nothing meanwhile
        soon(browser, "document.querySelector('#line').className === ''")
        soon(browser, "[...document.querySelectorAll('article')].some((e) => e.textContent.includes('Another one'))")
        assert missed

        # Later somebody asks what there was: by a word without its accents, on the phone and on the desk.
        for width in (390, 1440):
            browser.size(width, 900, phone=width == 390)
            browser.go(f"{hq.origin}/search")
            soon(browser, "document.querySelector('form.ask [name=word]')")
            browser.fill("[name=word]", "truong an")
            browser.press("form.ask button.primary")
            soon(browser, "location.search.includes('word=truong') && document.querySelectorAll('.hit').length > 0")
            assert browser.js(
                "[...document.querySelectorAll('.hit')].every((e) => e.textContent.includes('Trường An'))"
            )
            browser.picture(SHOTS / f"search-{width}-vi.png")
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
            assert browser.js(small) == 0
            assert violations(browser, assets) == []
        browser.size(390, 844, phone=True)
        browser.go(f"{hq.origin}/")
        on_the_board(browser)

        # The school sees its own bell, and of the other post not even that it is there.
        browser.press("form[action='/logout'] button")
        soon(browser, "document.querySelector('#login')")
        browser.picture(SHOTS / "login-390-vi.png")
        log_in(browser, hq.origin, "school", "/school")
        assert "Trường An" in browser.js("document.body.textContent")
        for width in (390, 1440):
            browser.size(width, 900)
            soon(browser, f"innerWidth === {width} && document.body?.clientWidth > 0")
            browser.picture(SHOTS / f"school-today-{width}-vi.png")
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
        assert violations(browser, assets) == []
        browser.go(f"{hq.origin}/")
        on_the_board(browser)
        assert [one for one in titles(browser) if "Trường An" in one] == titles(browser) != []
        status = f"fetch('/alerts/{alert}').then((a) => a.status)"
        assert browser.js(status) == 404
        assert browser.js(f"fetch('/alerts/{alert}/picture').then((a) => a.status)") == 404
        posts.say("gate-2", severity="alert", place="Elsewhere", summary="Not for a school")
        posts.say("gate-1", severity="alert", place="Trường An, sân", summary="For the school")
        soon(browser, "[...document.querySelectorAll('article')].some((e) => e.textContent.includes('For the school'))")
        assert "Not for a school" not in browser.js("document.body.textContent")
        browser.size(1440, 900)
        browser.picture(SHOTS / "school-1440-vi.png")

        # The household sees who has looked at its camera, and at no other.
        browser.press("form[action='/logout'] button")
        soon(browser, "document.querySelector('#login')")
        log_in(browser, hq.origin, "home", "/household")
        for width in (390, 1440):
            browser.size(width, 900)
            soon(browser, f"innerWidth === {width} && document.body?.clientWidth > 0")
            browser.picture(SHOTS / f"household-{width}-vi.png")
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
        assert violations(browser, assets) == []
        seen = browser.js("document.querySelector('main').textContent")
        assert "trung tâm tự động" in seen and "gate-2" not in seen

        # Whom the school's alerts reach is set at headquarters, and tried out before it matters.
        browser.press("form[action='/logout'] button")
        soon(browser, "document.querySelector('#login')")
        log_in(browser, hq.origin, "lan")
        browser.go(f"{hq.origin}/schools")
        for who, how, address in (("Cô Hoa, hiệu trưởng", "webhook", f"http://127.0.0.1:{hq.hooks.port}/hoa"),
                                  ("Bảo vệ", "phone", "+84 24 3825 0000")):  # fmt: skip
            soon(browser, "document.querySelector('form.fields [name=contact]') && document.readyState === 'complete'")
            browser.fill("form.fields [name=contact]", who)
            browser.js(f"document.querySelector('form.fields [name=how]').value = {how!r}")
            browser.fill("form.fields [name=address]", address)
            browser.press("form.fields button")
            soon(browser, f"[...document.querySelectorAll('.items li')].some((e) => e.textContent.includes({who!r}))")
        browser.press("form[action='/schools/contacts/test'] button")
        soon(browser, "document.querySelector('main [role=status], main [role=alert]')")
        assert browser.js("document.querySelector('main [role=alert]')") is None
        assert [path for path, _, _ in hq.hooks.got][-1] == "/hoa"
        for width in (390, 1440):
            browser.size(width, 900, phone=width == 390)
            soon(browser, f"innerWidth === {width} && document.body?.clientWidth > 0")
            browser.picture(SHOTS / f"schools-{width}-vi.png")
            assert browser.js("document.documentElement.scrollWidth <= innerWidth")
            assert browser.js(small) == 0
            assert violations(browser, assets) == []

    # What it all comes to on the audit log, for an auditor who has nothing but the file.
    file = tmp_path / "trail.jsonl"
    assert main(["trail", "export", "-o", str(file), "--config", str(hq.config)]) == 0
    assert main(["verify", str(file)]) == 0
    payloads = [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in file.read_bytes().splitlines()]
    said = {(one.get("kind"), one.get("body", {}).get("who")) for one in payloads}
    assert said >= {
        ("desk-login", "minh"),
        ("desk-viewed", "minh"),
        ("desk-acknowledged", "lan"),
        ("desk-acknowledged", "minh"),
        ("desk-verdict", "minh"),
        ("desk-logout", "minh"),
        ("desk-login", "school"),
    }
    theirs = [one["body"] for one in payloads if one.get("kind") == "desk-viewed" and one["body"]["who"] == "school"]
    assert all(set(one["posts"]) == {"gate-1"} for one in theirs)
