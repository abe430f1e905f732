"""Debian's Chromium, driven by Playwright: what a person does at a page, and what the browser complains of meanwhile."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, Playwright

# A busy machine: on a quiet one each is over within a second, the start within three.
START_S_MAX = 120.0
STILL_S_MAX = 60.0
TRUE_S_MAX = 180.0
# Playwright runs once in a thread: browsers that are open at the same time share it.
_RUNNING = threading.local()


class Browser:
    """One page. Every call waits until it is done, and belongs to the thread that opened the browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []  # of scripts, of the security policy, and of what could not be loaded
        self._protocol = page.context.new_cdp_session(page)
        page.on("pageerror", lambda error: self.errors.append(error.stack or error.message))
        page.on("console", self._complains)

    def _complains(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """By the protocol: for Playwright a browser is a phone from its start or never; here a desk becomes one."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def go(self, address: str) -> None:
        """Returns when the page is whole: what is typed into one that is still coming may be lost."""
        self.page.goto(address)

    def js(self, expression: str) -> Any:
        """Its value, promises awaited."""
        return self.page.evaluate(expression)

    def wait(self, expression: str, within_s: float = TRUE_S_MAX, every_s: float = 0.05) -> None:
        """Until it is true, of this page or the next; a page that is still coming, on which it fails, is asked again."""
        from playwright.sync_api import TimeoutError as TooLateError

        asked = f"() => {{ try {{ return ({expression}); }} catch {{ return false; }} }}"
        try:
            self.page.wait_for_function(asked, polling=every_s * 1000, timeout=within_s * 1000)
        except TooLateError:
            raise AssertionError(f"never true: {expression}; {self.errors}; {self._shown(expression)}") from None

    def _shown(self, expression: str) -> str:
        """What the page makes of the expression, where it is and what it says, for the report of a failure."""
        return str(
            self.js(
                f"(() => {{ let is; try {{ is = String({expression}); }} catch (error) {{ is = String(error); }}"
                " return `${is}; ${location.href}: ${document.body?.innerText.slice(0, 1000)}`; })()"
            )
        )

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(x, y)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.page.mouse
        mouse.move(*start)
        mouse.down()
        mouse.move(*end, steps=3)
        mouse.up()

    def tap(self, x: float, y: float) -> None:
        """By the protocol, as `size` is."""
        self._call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self._call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, selector: str) -> None:
        """A real click in the middle of the first such element, once it has stopped moving and nothing lies on it."""
        self.page.locator(selector).first.click(timeout=STILL_S_MAX * 1000)

    def fill(self, selector: str, text: str) -> None:
        """The first such field has this text and nothing else."""
        self.page.locator(selector).first.fill(text, timeout=STILL_S_MAX * 1000)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.page.keyboard.insert_text(text)

    def key(self, name: str) -> None:
        """One key, on what has the focus."""
        self.page.keyboard.press(name)

    def download(self, selector: str, folder: Path) -> Path:
        """Presses what hands over a file; it is whole in `folder`, under the name that the page gave it."""
        with self.page.expect_download(timeout=TRUE_S_MAX * 1000) as coming:
            self.press(selector)
        path: Path = folder / coming.value.suggested_filename
        coming.value.save_as(path)
        return path

    def picture(self, target: Path) -> None:
        """Of the whole page, what lies below the window too."""
        self.page.screenshot(path=target, full_page=True)

    def _call(self, method: str, **params: Any) -> Any:
        """Chromium's own debugging protocol, for what Playwright has no words for."""
        return self._protocol.send(method, params)


@contextmanager
def _playwright() -> Iterator[Playwright]:
    """This thread's, started by the first browser; it and its Chromiums are in the network in which that was opened."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("no playwright here: pip install -r tests/requirements-system.txt")
    running: Playwright | None = getattr(_RUNNING, "playwright", None)
    if running is not None:
        yield running
        return
    with sync_playwright() as started:
        _RUNNING.playwright = started
        try:
            yield started
        finally:
            del _RUNNING.playwright


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `folder`, which takes every certificate. One that is opened while another is
    open ends before it. Skips the test where there is none.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    with (
        _playwright() as playwright,
        playwright.chromium.launch_persistent_context(
            folder,
            executable_path=program,
            args=["--disable-gpu"],  # Playwright gives the rest: headless, no sandbox (we are root), /tmp for /dev/shm
            no_viewport=True,  # `size` says it
            ignore_https_errors=True,
            timeout=START_S_MAX * 1000,
        ) as context,
    ):
        context.set_default_timeout(TRUE_S_MAX * 1000)
        yield Browser(context.pages[0])
