"""The live board in a real browser when more is open than it shows: it says so, and the rest follows what is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.station import alerts
from agent.station.people.roles import Role
from agent.station.web.desk import serve
from tests.e2e.brokers import free_port
from tests.fakes.certificates import self_signed
from tests.fakes.database import fresh
from tests.fakes.desk import PASSWORD, Ward
from tests.system.browser import chromium

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

OPEN = "document.querySelectorAll('[data-open=yes]').length"
SETTLED = "document.querySelectorAll('[data-open=no]').length"
MORE = "document.querySelector('#more')"
LONG = "Trường" + "X" * 180


def test_whoever_answers_all_that_is_shown_is_shown_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "SHOWN_MAX", 6)
    folder = tmp_path / "hq"
    folder.mkdir()
    port = free_port()
    origin = f"https://127.0.0.1:{port}"
    certificate, key = self_signed(tmp_path)
    with fresh("sqlite", folder) as database, chromium(tmp_path / "profile") as browser:
        ward = Ward(
            folder, database, listen=f"127.0.0.1:{port}", origin=origin, behind_proxy=False,
            certificate=str(certificate), key=str(key),
        )  # fmt: skip
        ward.person("lan", Role.OPERATOR, name="Lan" + "N" * 57)
        for number in range(1, 11):
            ward.clock.advance(1)
            ward.hear(number)
        server = serve(ward.settings, ward.desk, close=lambda: None)
        server.start()
        try:
            browser.go(f"{origin}/login")
            browser.fill("#login", "lan")
            browser.fill("#password", PASSWORD)
            browser.press("form.sheet button")
            browser.wait(f"location.pathname === '/' && {OPEN} === 6")
            browser.wait("document.querySelector('#line').textContent === 'Live'")
            assert browser.js(f"{MORE}.innerText").startswith("10 alerts are open; 6 of them are shown.")
            for settled in range(1, 7):
                browser.js("document.querySelector('[data-open=yes] form button').click()")
                browser.wait(f"{SETTLED} === {settled}")
            browser.wait(f"{OPEN} === 4 && {MORE}.hidden")
            assert ward.database.rows("select count(*) from alert where acknowledged_utc_ns is null") == [(4,)]
            browser.js("document.querySelector('[data-open=yes] form button').click()")
            browser.wait(f"{SETTLED} === 7 && {OPEN} === 3")
            assert browser.js(f"{MORE}.hidden") and browser.errors == []

            # A word that nowhere breaks does not make the page wider than the screen.
            one = ward.hear(11, summary="s" * 190, place=LONG)
            for path in ("/", f"/alerts/{one}", "/account"):
                for width in (390, 1440):
                    browser.size(width, 844, phone=width < 500)
                    browser.go(f"{origin}{path}")
                    assert browser.js("document.documentElement.scrollWidth") <= width, (path, width)
        finally:
            server.stop()
            ward.close()
