"""The browser of the other tests: what goes wrong in a page is seen, and what a person cannot do, it cannot either."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from tests.system.browser import Browser, chromium

pytestmark = pytest.mark.system

POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"


class Site(BaseHTTPRequestHandler):
    """Small pages under the security policy of ours, and a script for each."""

    pages: ClassVar[dict[str, tuple[str, str]]] = {
        "/good": ("text/html", "<title>good</title><p>All is well</p><script src=/good.js></script>"),
        "/good.js": ("text/javascript", "setTimeout(() => document.querySelector('p').id = 'late', 200)"),
        "/throws": ("text/html", "<script src=/throws.js></script>"),
        "/throws.js": ("text/javascript", "nowhere.x"),
        "/rejects": ("text/html", "<script src=/rejects.js></script>"),
        "/rejects.js": ("text/javascript", "Promise.reject(new Error('nobody waits for it'))"),
        "/complains": ("text/html", "<script src=/complains.js></script>"),
        "/complains.js": ("text/javascript", "console.warn('not this'); console.error('but this')"),
        "/inline": ("text/html", "<script>document.title = 'pwned'</script>"),
        "/missing": ("text/html", "<script src=/nowhere.js></script>"),
        "/covered": ("text/html", "<button>here</button><dialog>wait</dialog><script src=/covered.js></script>"),
        "/covered.js": (
            "text/javascript",
            """const [button, dialog] = document.body.children;
            addEventListener("click", (event) => { document.title += ` ${event.target.tagName}`; });
            dialog.showModal();
            setTimeout(() => { dialog.close(); document.title = "free,"; }, 500);""",
        ),
    }

    def do_GET(self) -> None:
        kind, text = self.pages.get(self.path, ("", ""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(60)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    with chromium(tmp_path / "profile") as browser:
        browser.size(1440, 900)
        yield browser


def test_what_goes_wrong_in_a_page_is_among_the_errors(page: Browser, site: str) -> None:
    page.go(f"{site}/good")
    page.wait("document.querySelector('#late')")
    assert page.errors == []
    for path, said in (
        ("/throws", "ReferenceError: nowhere is not defined"),
        ("/rejects", "nobody waits for it"),
        ("/complains", "but this"),
        ("/inline", "Content Security Policy"),
        ("/missing", "404"),
    ):
        page.errors.clear()
        page.go(site + path)
        assert page.js("document.title") == "", "the policy is in force, although the test may run what it likes"
        assert [said in error for error in page.errors] == [True], page.errors


def test_a_button_is_pressed_once_nothing_lies_on_it(page: Browser, site: str) -> None:
    page.go(f"{site}/covered")
    page.press("button")
    assert page.js("document.title") == "free, BUTTON"


def test_what_never_comes_true_is_told_with_what_the_page_shows(page: Browser, site: str) -> None:
    page.go(f"{site}/good")
    with pytest.raises(AssertionError, match=r"(?s)TypeError.*/good: All is well"):
        page.wait("document.querySelector('#nowhere').value === 'x'", within_s=0.5)


def test_two_browsers_at_once_know_nothing_of_each_other(page: Browser, site: str, tmp_path: Path) -> None:
    page.go(f"{site}/good")
    page.js("document.cookie = 'who=one'")
    with chromium(tmp_path / "other") as other:
        other.go(f"{site}/throws")
        assert other.js("document.cookie") == ""
        assert len(other.errors) == 1
    assert page.js("document.cookie") == "who=one"
    assert page.errors == []


def test_a_desk_becomes_a_phone_and_a_desk_again(page: Browser, site: str) -> None:
    asked = "[innerWidth, matchMedia('(pointer: coarse)').matches, navigator.maxTouchPoints > 0]"
    page.size(390, 844, phone=True)
    page.go(f"{site}/good")
    # A page that does not say that it fits a phone is shown as one of 980 px.
    assert page.js(asked) == [980, True, True]
    page.size(1440, 900)
    assert page.js(asked) == [1440, False, False]
