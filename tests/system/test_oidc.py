"""People log in by a real OpenID Connect provider, a process of its own: by HTTP, and in a real browser.

The browser is what knows which cookies go with a way that leads from one site to another.
"""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from agent.clock import SystemClock
from agent.station.people.oidc.links import Link, Links, link_of
from agent.station.people.oidc.settings import OidcSettings
from agent.station.people.roles import Role
from agent.station.web.desk import serve
from agent.station.web.settings import WebSettings
from tests.e2e.brokers import free_port
from tests.e2e.test_desk_live import certificates
from tests.fakes.database import fresh
from tests.fakes.desk import PASSWORD, Ward
from tests.system.browser import chromium

pytestmark = pytest.mark.system
__all__ = ["certificates"]

WITHIN_S = 60.0
USERS = (
    {"sub": "lan-1"},
    {"sub": "minh-2", "email": "minh@ward-7.example", "email_verified": True},
    {"sub": "stranger-3", "email": "stranger@ward-7.example", "email_verified": True},
)


@contextmanager
def provider(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its issuer, and its process. It takes a port that is free and says which."""
    if find_spec("oidc_provider_mock") is None:
        pytest.skip("no provider here: pip install -r tests/requirements-system.txt")
    said = folder / "provider.log"
    users = [part for user in USERS for part in ("--user-claims", json.dumps(user))]
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", "0", "--require-nonce", "1", *users]
    with said.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"})
    try:
        until_s = time.monotonic() + WITHIN_S
        while (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", said.read_text())) is None:
            assert process.poll() is None and time.monotonic() < until_s, said.read_text()
            time.sleep(0.05)
        yield f"http://localhost:{found[1]}", process
    finally:
        process.kill()
        process.wait()


class Desk:
    """A station's pages on TLS, with people of that provider."""

    def __init__(self, folder: Path, certificates: Path, issuer: str) -> None:
        secret = folder / "oidc.secret"
        secret.write_text("any secret is good here\n")
        self.origin = f"https://127.0.0.1:{free_port()}"
        self._fresh = fresh("sqlite", folder)
        self.ward = Ward(folder, self._fresh.__enter__())
        self.ward.clock = SystemClock()  # type: ignore[assignment]  # the provider's is real
        self.ward.settings = WebSettings(
            origin=self.origin,
            listen=self.origin.removeprefix("https://"),
            certificate=str(certificates / "desk" / "desk.pem"),
            key=str(certificates / "desk" / "desk.key"),
            oidc=OidcSettings(
                issuer=issuer, client_id="wardpost", secret_file=str(secret), name="Ward 7", timeout_s=30.0
            ),
        )
        self.ward.start()
        self.ward.person("lan", Role.OPERATOR)
        self.ward.person("minh", Role.OPERATOR)
        links = Links(self.ward.engine, trail=self.ward.desk.trail, issuer=issuer)
        links.put("lan", Link(subject="lan-1"), by="account:test")
        links.put("minh", link_of("", "minh@ward-7.example"), by="account:test")
        self.server = serve(self.ward.settings, self.ward.desk, close=lambda: None)
        self.server.start()

    def close(self) -> None:
        self.server.stop()
        self.ward.close()

    def refusals(self) -> list[str]:
        return [line["why"] for line in self.ward.trail() if line["kind"] == "login-refused"]


@pytest.fixture
def sso(tmp_path: Path, certificates: Path) -> Iterator[tuple[Desk, str, subprocess.Popen[bytes]]]:
    with provider(tmp_path) as (issuer, process):
        desk = Desk(tmp_path, certificates, issuer)
        yield desk, issuer, process
        desk.close()


def test_who_is_linked_gets_in_once_for_each_code_and_nobody_else(
    sso: tuple[Desk, str, subprocess.Popen[bytes]], certificates: Path
) -> None:
    desk, issuer, process = sso
    ca = str(certificates / "ca" / "ca.pem")

    def asked(**answer: str) -> tuple[httpx.Client, str]:
        """A browser that has been at the provider and says this there; and where it is sent then."""
        browser = httpx.Client(base_url=desk.origin, verify=ssl.create_default_context(cafile=ca), timeout=WITHIN_S)
        there = browser.get("/login/oidc")
        assert there.status_code == 303 and there.headers["location"].startswith(issuer)
        back = httpx.post(there.headers["location"], data=answer, timeout=WITHIN_S)
        assert back.status_code in (302, 303), back.text
        return browser, urljoin(desk.origin, back.headers["location"])

    for subject, name in (("lan-1", "Lan"), ("minh-2", "Minh")):
        browser, back = asked(sub=subject)
        with closing(browser):
            cookie = browser.cookies["__Host-wardpost-oidc"]
            answer = browser.get(back)
            assert answer.status_code == 200, (answer.text, desk.refusals())
            assert name in browser.get("/account").text
            browser.cookies.set("__Host-wardpost-oidc", cookie, domain="127.0.0.1")
            assert browser.get(back).status_code == 403, "once"
    for answer_there, why in (({"sub": "stranger-3"}, "nobody is linked"), ({"action": "deny"}, "")):
        browser, back = asked(**answer_there)
        with closing(browser):
            assert browser.get(back).status_code == 403
            assert why in desk.refusals()[-1]
            assert browser.get("/account").status_code in (303, 401)
    browser, back = asked(sub="lan-1")
    process.kill()
    process.wait()
    with closing(browser):
        answer = browser.get(back)
        assert answer.status_code == 503 and "Use your password" in answer.text, desk.refusals()
        form = re.search(r'name="form" value="([0-9a-f]{64})"', browser.get("/login").text)
        assert form is not None
        fields = {"form": form[1], "login": "lan", "password": PASSWORD}
        assert browser.post("/login", data=fields, headers={"origin": desk.origin}).status_code == 303


def test_in_a_browser_the_way_there_and_back_ends_on_the_board(
    sso: tuple[Desk, str, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    desk, issuer, _ = sso
    with chromium(tmp_path / "profile") as browser:
        browser.size(390, 844, phone=True)
        browser.go(desk.origin + "/login")
        browser.wait("!!document.querySelector('a[href=\"/login/oidc\"]')")
        browser.wait("document.documentElement.scrollWidth <= 390")
        browser.press('a[href="/login/oidc"]')
        browser.wait(f"location.href.startsWith('{issuer}') && !!document.querySelector('button[value=\"lan-1\"]')")
        browser.js("document.querySelector('button[value=\"lan-1\"]').click()")
        browser.wait(f"location.href == '{desk.origin}/' && document.body.innerText.includes('Log out')")
        assert not [error for error in browser.errors if "Content Security Policy" in error], browser.errors
        browser.go(desk.origin + "/account")
        browser.wait("document.body.innerText.includes('You are Lan')")
