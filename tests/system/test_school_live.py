"""The first page of a school in a real browser: a bell and a crowd come to it while it is open, and it says when not."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.evidence.chain import What
from agent.station.db.engine import writing
from agent.station.evidence_alarms import OfFile
from agent.station.ledgers import Alarm, Ledgers
from agent.station.people.roles import Role
from agent.station.web import school
from agent.station.web.desk import serve
from tests.e2e.brokers import free_port
from tests.fakes.certificates import self_signed
from tests.fakes.database import fresh
from tests.fakes.desk import PASSWORD, Ward, incident
from tests.system.browser import chromium

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

LINE = "document.querySelector('#line').textContent"


def bell(number: int) -> str:
    return f"document.querySelector('#now a[href=\"/alerts/{incident(number)}\"]')"


def alarmed(ward: Ward, what: What) -> None:
    """Something false comes from the school's post."""
    with writing(ward.engine, "raise an alarm") as db:
        Ledgers.raise_alarm(db, Alarm("gate-2", what, "it is not so", OfFile()), ward.clock.utc().utc_ns)


def test_a_bell_and_a_crowd_come_to_the_page_of_a_school_that_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(school, "REFRESH_S", 2)
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
        ward.person("school", Role.SCHOOL, "gate-2")
        ward.hear(1, severity="notice")
        server = serve(ward.settings, ward.desk, close=lambda: None)
        server.start()
        try:
            browser.go(f"{origin}/login")
            browser.fill("#login", "school")
            browser.fill("#password", PASSWORD)
            browser.press("form.sheet button")
            browser.wait(f"location.pathname === '/school' && {LINE} === 'Live'")
            browser.js("window.same = true")  # nothing of this loads the page again
            browser.js("document.querySelector('#now a').focus()")
            ward.hear(2, severity="bell")
            browser.wait(f"{bell(2)} !== null")
            assert browser.js("document.activeElement.getAttribute('href')") == "/posts/gate-2"
            ward.hear(3, severity="notice", onvif=school.COUNTER, label="person", summary="20 people at the gate")
            browser.wait("document.querySelector('#now').innerText.includes('20 people at the gate')")

            # So does an evidence alarm; what is being written on one is not lost when another comes.
            alarmed(ward, What.FOOTAGE)
            browser.wait("document.querySelectorAll('#evidence article').length === 1")
            browser.fill("#evidence [name=comment]", "we fetch")
            alarmed(ward, What.CHAIN_BREAK)
            browser.wait("document.querySelectorAll('#evidence article').length === 2")
            browser.type(" the card")
            assert browser.js("document.activeElement.value") == "we fetch the card"
            assert browser.js("window.same") is True
            browser.press("#evidence article:last-of-type button")
            browser.wait("window.same === undefined && document.querySelectorAll('#evidence article').length === 1")
            assert browser.js("location.pathname") == "/school"
            assert browser.errors == []
        finally:
            server.stop()
        try:
            browser.wait(f"{LINE}.startsWith('No connection')")
        finally:
            ward.close()
