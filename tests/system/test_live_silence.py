"""Live view in a real browser whose station falls silent: nobody takes an old picture for a live one."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent import wire
from agent.clock import uuid7_maker
from agent.station.live.desk import LiveDesk
from agent.station.live.settings import LiveSettings
from agent.station.people.roles import Role
from agent.station.web.desk import serve
from tests.e2e.brokers import free_port
from tests.fakes.certificates import self_signed
from tests.fakes.database import Database, fresh
from tests.fakes.desk import PASSWORD
from tests.fakes.footage_ward import FootageWard
from tests.system.browser import Browser, chromium

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

ASKED_EVERY_S = 0.1
STATE = "document.querySelector('#state').textContent"
PICTURE = "!document.querySelector('#still').hidden"


class Office(FootageWard):
    """Headquarters whose program a test starts and stops, and a post that answers with a still whenever it is asked."""

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
        self.footage.knows("gate-2", "Cổng trường")
        self.stills = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """The program runs; it forgets all views when it ends, as after a restart."""
        live = self.live_desk(LiveSettings(), uuid7_maker(self.clock))
        self.desk = self.desk_with(watch=live)
        over = threading.Event()
        post = threading.Thread(target=self._answer, args=(live, over))
        server = serve(self.settings, self.desk, close=lambda: None)
        server.start()
        post.start()
        try:
            yield
        finally:
            over.set()
            post.join()
            server.stop()

    def _answer(self, live: LiveDesk, over: threading.Event) -> None:
        jpeg = base64.b64encode(bytes(cv2.imencode(".jpg", np.full((90, 160, 3), 120, np.uint8))[1])).decode()
        while not over.wait(ASKED_EVERY_S):
            for message in live.outgoing():
                command = wire.decode(message.payload, wire.Command)
                if command.args["do"] in ("begin", "more"):
                    self.stills += 1
                    result = {"left_s": 100, "watching": [], "period_s": 2.0, "still": self.stills, "jpeg": jpeg}
                    live.hears("gate-2", wire.Reply(id=command.id, state="accepted", result=result))
            live.tend()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    folder = tmp_path / "hq"
    folder.mkdir()
    with fresh("sqlite", folder) as database:
        made = Office(folder, database)
        made.person("lan", Role.OPERATOR, name="Lan")
        try:
            yield made
        finally:
            made.footage.engine.dispose()
            made.close()


def watch_stills(browser: Browser, origin: str) -> None:
    browser.go(f"{origin}/login")
    browser.fill("#login", "lan")
    browser.fill("#password", PASSWORD)
    browser.press("form.sheet button")
    browser.wait("location.pathname === '/'")
    browser.go(f"{origin}/live/gate-2")
    browser.fill("#reason", "a call")
    browser.press("button[value=stills]")
    browser.wait(f"{PICTURE} && {STATE} === 'Live'")


def test_a_picture_is_live_only_as_long_as_the_station_answers(office: Office, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        with office.open():
            watch_stills(browser, office.origin)
        browser.wait(f"{STATE}.startsWith('The station does not answer')", 30)
        assert not browser.js(PICTURE), "the last picture is of before"
        with office.open():
            browser.wait(f"{STATE}.startsWith('It is over')", 30)
            assert not browser.js(PICTURE) and browser.js("document.querySelector('#running').hidden")
            count = len(browser.errors)
            time.sleep(3)
            assert len(browser.errors) == count, "nobody asks for a view that is over"
            browser.press("button[value=stills]")
            browser.wait(f"{PICTURE} && {STATE} === 'Live'")
