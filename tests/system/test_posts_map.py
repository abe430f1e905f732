"""The map of posts in a real browser: a fleet of real nodes' messages, seen on a desk, on a phone and by keyboard."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from agent.assets import DESK, Assets
from agent.clock import SystemClock
from agent.evidence.chain import What
from agent.site import authority, founding
from agent.site.folder import open_site
from agent.site.register import Claim, Node
from agent.station.db.engine import open_engine, writing
from agent.station.evidence_alarms import OfFile
from agent.station.ledgers import Alarm, Ledgers
from agent.station.people.roles import Person, Role, scope_of
from agent.station.web.desk import Desk, make_desk, serve
from agent.station.web.settings import WebSettings
from tests.e2e.brokers import free_port
from tests.fakes.certificates import self_signed
from tests.fakes.clock import StandingClock
from tests.fakes.database import fresh
from tests.fakes.desk import PASSWORD, quick
from tests.fakes.ward import SITE, Ward, ward
from tests.system import axe
from tests.system.browser import Browser, chromium

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

SHOTS = Path(__file__).parents[2] / "test-out" / "map"
LAT, LON = 21.0285, 105.8542
NOW_NS = 1_700_000_000 * 10**9
START_S_MAX = 60.0
Spots = list[tuple[str, dict[str, Any]]]

# A house with three posts, one alone, and two hundred along the lanes of a ward, 90 m apart.
FEW: Spots = [
    *((f"gate-{n}", {"house": "A", "provider": "V", "lat": LAT, "lon": LON}) for n in (1, 2, 3)),
    ("lane-1", {"house": "B", "provider": "F", "lat": LAT + 0.0015, "lon": LON + 0.0018}),
]
MANY: Spots = FEW + [
    (
        f"p{n:03d}",
        {"house": f"H{n}", "provider": "VF"[n % 2], "lat": LAT + n // 20 * 8e-4, "lon": LON - (n % 20) * 9e-4},
    )
    for n in range(1, 201)
]


def write_register(root: Path, spots: Spots) -> None:
    """The site's folder, with every post where it stands."""
    founding.found_site(root, name=SITE, hosts=["hq.example.org"], clock=SystemClock())
    found = open_site(root)
    ca, key = founding.load_authority(found), authority.new_key().public_key()
    register = founding.open_register(found)
    for number, (node, spot) in enumerate(spots):
        issued = authority.issue_claim(ca, f"claim-{number:06d}xxxxxxx", key, now_ns=NOW_NS, days=14)
        row = founding.of_certificate(issued, "claim", NOW_NS, node=node, generation=1)
        claim = Claim(
            claim=row.name, node=node, generation=1, hash=f"{number:064x}", expires_utc_ns=row.not_after_utc_ns
        )
        made = Node(node=node, generation=1, state="provisioned", device="", place="", custodian="", consent="",
                    profile="", made_utc_ns=NOW_NS, **spot)  # fmt: skip
        register.provisioned(made, claim, row, NOW_NS)
    register.close()


def write_tiles(folder: Path, zoom: int) -> None:
    """The squares around the posts, each of a grey of its own."""
    n = 1 << zoom
    column = int((LON + 180) / 360 * n)
    row = int((1 - math.asinh(math.tan(math.radians(LAT))) / math.pi) / 2 * n)
    for x in range(column - 3, column + 4):
        (folder / str(zoom) / str(x)).mkdir(parents=True)
        for y in range(row - 3, row + 4):
            grey = np.full((256, 256, 3), 40 + (x + y) % 2 * 25, dtype=np.uint8)
            cv2.line(grey, (0, 128), (255, 128), (120, 120, 120), 6)
            cv2.line(grey, (128, 0), (128, 255), (120, 120, 120), 6)
            cv2.imwrite(str(folder / str(zoom) / str(x) / f"{y}.png"), grey)


class Office:
    """The desk of a ward, and its people."""

    def __init__(self, made: Ward, desk: Desk, clock: StandingClock, origin: str) -> None:
        self.ward, self.desk, self.clock, self.origin = made, desk, clock, origin

    def person(self, role: Role, *posts: str) -> None:
        new = Person(role.value, role.value.capitalize(), role, scope_of(role, posts))
        self.desk.registry.add(new, password=quick().hash(PASSWORD), by="account:test")

    def tick(self, times: int) -> None:
        """Heartbeats; the desk's clock goes with the ward's."""
        before_ns = self.ward.now_ns
        self.ward.tick(times)
        self.clock.advance((self.ward.now_ns - before_ns) / 1e9)


@contextmanager
def office(
    folder: Path, spots: Spots, assets: Assets, trouble: Callable[[Ward], None], **more: Any
) -> Iterator[Office]:
    """gate-1 is dark, the rest as `trouble` makes it; the pages are served."""
    for one in DESK:
        assets.get(one)
    write_register(folder / "site", spots)
    certificate, key = self_signed(folder)
    port = free_port()
    origin = f"https://127.0.0.1:{port}"
    settings = WebSettings(
        listen=f"127.0.0.1:{port}", origin=origin, certificate=str(certificate), key=str(key), **more
    )
    data = folder / "data"
    data.mkdir()
    with fresh("sqlite", data) as database, ward(data, database, spots) as made:
        trouble(made)
        made.tick(8)
        clock = StandingClock(utc_ns=made.now_ns)
        engine = open_engine(database.url, pooled=False)
        desk = make_desk(
            settings, engine=engine, folder=data, site=SITE, station="hq", clock=clock,
            send_verdict=lambda *_: "", passwords=quick(), register=str(folder / "site"),
        )  # fmt: skip
        server = serve(settings, desk, close=engine.dispose)
        server.start()
        try:
            answers(origin)
            yield Office(made, desk, clock, origin)
        finally:
            server.stop()


def answers(origin: str) -> None:
    until_s = time.monotonic() + START_S_MAX
    while not answered(origin):
        assert time.monotonic() < until_s, "the desk does not answer"
        time.sleep(0.1)


def answered(origin: str) -> bool:
    try:
        httpx.get(f"{origin}/login", verify=False)
    except httpx.TransportError:
        return False
    return True


@contextmanager
def visitor(folder: Path, made: Office, role: Role) -> Iterator[Browser]:
    """Somebody who has logged in; at the end, nothing broke the security policy and no script failed."""
    with chromium(folder) as browser:
        browser.size(1440, 900)
        browser.go(f"{made.origin}/login")
        browser.wait("!!document.querySelector('[name=password]')")
        for field, text in (("login", role.value), ("password", PASSWORD)):
            browser.fill(f"[name={field}]", text)
        browser.press("main form button")
        browser.wait("location.pathname !== '/login' && document.readyState === 'complete'")
        yield browser
        assert browser.errors == []


def at_map(page: Browser, made: Office, where: str = "") -> None:
    page.go("about:blank")  # an address that differs by its end alone is no new page
    page.go(f"{made.origin}/map{where}")
    page.wait("!!document.querySelector('#map')?.dataset.version")


def counted(page: Browser) -> int:
    """Posts that the markers stand for."""
    found = page.js(
        "[...document.querySelectorAll('#map .leaflet-marker-pane .pin')].reduce((sum, one) =>"
        " sum + (one.matches('.group') ? Number(one.textContent) : 1), 0)"
    )
    return int(found)


def zoom(page: Browser) -> int:
    return int(page.js("location.hash.slice(1).split('/')[0]"))


def nothing_wrong(page: Browser, assets: Assets) -> None:
    assert axe.violations(page, assets) == []
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"


def shot(page: Browser, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.picture(SHOTS / name)


@pytest.fixture(autouse=True)
def cache(assets: Assets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDPOST_CACHE", str(assets.cache))


def struck(made: Ward) -> None:
    made.posts["gate-1"].lose_mains()
    made.tick()
    made.posts["gate-1"].cut_power()
    for node in ("p050", "p051", "p120"):
        made.posts[node].network = False


def test_two_hundred_posts_on_a_desk(tmp_path: Path, assets: Assets) -> None:
    with office(tmp_path, MANY, assets, struck) as made:
        made.person(Role.TECHNICIAN)
        with visitor(tmp_path / "profile", made, Role.TECHNICIAN) as page:
            at_map(page, made)
            assert counted(page) == len(MANY), "every post is there, by itself or in a group"
            groups = int(page.js("document.querySelectorAll('#map .pin.group').length"))
            assert 0 < groups < len(MANY), "what lies close together shares a marker"
            assert page.js("document.querySelectorAll('#map .cell').length") > 0, "behind it a grid: there are no tiles"
            assert page.js("document.querySelector('.leaflet-control-scale-line').textContent").endswith("m")
            boxes = page.js(
                "[...document.querySelectorAll('#map .leaflet-marker-icon')].map((one) =>"
                " { const b = one.getBoundingClientRect(); return [b.left, b.top]; })"
            )
            assert not overlapping(boxes), "each can be pressed"
            assert page.js("document.querySelector('#list a').textContent") == "Place gate-1", (
                "the list: the worst first"
            )
            nothing_wrong(page, assets)
            shot(page, "many-1440.png")

            # A group is opened: closer. By the keyboard, too.
            before = zoom(page)
            page.press("#map .pin.group.bad")
            page.wait(f"Number(location.hash.slice(1).split('/')[0]) > {before}")
            before = zoom(page)
            at_map(page, made)
            page.js("document.querySelector('#map .pin.group').focus()")
            page.key("Enter")
            page.wait(f"Number(location.hash.slice(1).split('/')[0]) > {before - 1}")

            # Three posts of one house are never apart: they are told one by one.
            at_map(page, made, f"#19/{LAT}/{LON}")
            page.press("#map .pin.group.bad")
            page.wait("document.querySelectorAll('.leaflet-popup-content a').length === 3")
            assert "gate-1" in page.js("document.activeElement.href"), "the keyboard is where one reads on: the worst"
            nothing_wrong(page, assets)
            shot(page, "house-1440.png")
            page.key("Enter")
            page.wait("location.pathname === '/posts/gate-1'")

            # And back: where one was.
            page.js("history.back()")
            page.wait("location.pathname === '/map' && !!document.querySelector('#map')?.dataset.version")
            assert zoom(page) == 19


def overlapping(boxes: Sequence[Sequence[float]], side: float = 44.0) -> bool:
    return any(
        abs(one[0] - other[0]) < side - 1 and abs(one[1] - other[1]) < side - 1
        for number, one in enumerate(boxes)
        for other in boxes[:number]
    )


def test_a_school_on_a_phone_sees_its_own_posts_and_what_becomes_of_them(tmp_path: Path, assets: Assets) -> None:
    tiles = tmp_path / "tiles"
    write_tiles(tiles, 16)

    def alone(made: Ward) -> None:
        made.posts["lane-1"].network = False

    more = {"tiles": str(tiles), "tiles_attribution": "<b>streets</b> & houses: the ward's office"}
    with office(tmp_path, FEW, assets, alone, **more) as made:
        made.person(Role.SCHOOL, "lane-1")
        made.person(Role.SUPERVISOR)
        with visitor(tmp_path / "profile", made, Role.SCHOOL) as page:
            page.size(390, 844, phone=True)
            at_map(page, made)
            assert counted(page) == 1
            assert "gate-" not in page.js("document.documentElement.outerHTML"), "of others it hears nothing"
            page.wait("document.querySelectorAll('#map img.leaflet-tile-loaded').length > 0")
            told = page.js("document.querySelector('.leaflet-control-attribution').textContent")
            assert more["tiles_attribution"] in told, "as it was written, and as text"
            assert page.js("!!document.querySelector('#map a.pin.bad')")
            nothing_wrong(page, assets)
            shot(page, "school-390.png")

            # It comes back, and so does its mark: the page was not loaded again.
            page.js("window.same = true")
            made.ward.posts["lane-1"].network = True
            made.tick(3)
            page.wait("!!document.querySelector('#map a.pin.good')")
            assert page.js("window.same === true")

            # What came from it is not what it recorded: that is marked, too.
            engine = open_engine(made.ward.database.url, pooled=False)
            with writing(engine, "raise an alarm") as db:
                Ledgers.raise_alarm(db, Alarm("lane-1", What.FOOTAGE, "it is not so", OfFile()), made.ward.now_ns)
            engine.dispose()
            page.wait(
                "!!document.querySelector('#map a.pin.warn.alarmed') && !!document.querySelector('#list .alarmed')"
            )
            assert "Evidence alarm" in page.js("document.querySelector('#map a.pin').getAttribute('aria-label')")
            nothing_wrong(page, assets)
            shot(page, "alarmed-390.png")
            page.js("document.querySelector('#map a.pin').focus()")
            page.key("Enter")
            page.wait("location.pathname === '/posts/lane-1'")
        with visitor(tmp_path / "other", made, Role.SUPERVISOR) as page:
            page.press("header form:nth-of-type(1) button")
            page.wait("document.documentElement?.lang === 'vi'")
            at_map(page, made)
            assert counted(page) == len(FEW)
            page.press("#map a.pin")
            page.wait("location.pathname === '/posts/lane-1'")
            at_map(page, made)
            nothing_wrong(page, assets)
            shot(page, "tiles-1440-vi.png")
            page.go(f"{made.origin}/posts")
            page.wait("!!document.querySelector('.find')")
            nothing_wrong(page, assets)
            shot(page, "list-1440-vi.png")
