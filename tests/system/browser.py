"""Debian's Chromium, driven by its own debugging protocol through a pair of pipes: no port, no library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# A busy machine: on a quiet one each is over within a second, the first answer within three.
ANSWER_S_MAX = 120.0
STILL_S_MAX = 60.0
TRUE_S_MAX = 180.0
# What Chromium says to an expression whose page has just gone; the next one may be asked.
LEFT = (
    "Inspected target navigated or closed",
    "Cannot find context with specified id",
    "Execution context was destroyed",
)


class NoValueError(AssertionError):
    """The page was left before it had answered, or an element that it was asked for is not there."""


class Browser:
    """One page. Every call waits for its answer."""

    def __init__(self, process: subprocess.Popen[bytes], read: int, write: int) -> None:
        self._process, self._read, self._write = process, read, write
        self._rest, self._id, self._session = b"", 0, ""
        self.errors: list[str] = []  # of scripts and of the security policy

    def attach(self) -> None:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self._call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def go(self, address: str) -> None:
        """Returns when the page is whole: what is typed into one that is still coming may be lost."""
        self._call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def js(self, expression: str) -> Any:
        """Its value, promises awaited."""
        done = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise NoValueError(done["exceptionDetails"])
        return done["result"].get("value")

    def wait(self, expression: str, within_s: float = TRUE_S_MAX, every_s: float = 0.05) -> Any:
        """Asks until it has a value that is true; a page that is still coming has none."""
        until, why = time.monotonic() + within_s, ""
        while True:
            try:
                if found := self.js(expression):
                    return found
            except NoValueError as error:
                why = str(error)
            assert time.monotonic() < until, f"never true: {expression}; {why}; {self.errors}; {self._shown()}"
            time.sleep(every_s)

    def _shown(self) -> str:
        """Where the page is and what it says, for the report of a failure."""
        try:
            return str(self.js("location.href + ': ' + document.body.innerText.slice(0, 1000)"))
        except AssertionError as error:
            return str(error)

    def mouse(self, kind: str, x: float, y: float, *, pressed: bool = True) -> None:
        self._call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left" if pressed else "none",
            buttons=1 if pressed and kind != "mouseReleased" else 0,
            clickCount=1,
        )

    def click(self, x: float, y: float) -> None:
        self.mouse("mouseMoved", x, y, pressed=False)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("mouseMoved", *start, pressed=False)
        self.mouse("mousePressed", *start)
        for step in (0.3, 0.7, 1.0):
            self.mouse("mouseMoved", start[0] + (end[0] - start[0]) * step, start[1] + (end[1] - start[1]) * step)
        self.mouse("mouseReleased", *end)

    def tap(self, x: float, y: float) -> None:
        self._call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self._call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, selector: str) -> None:
        """A real click in the middle of an element, once it has stopped moving and nothing lies on it."""
        measure = (
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(), x = b.left + b.width / 2, y = b.top + b.height / 2;"
            " return [x, y, e.contains(document.elementFromPoint(x, y))]; })()"
        )
        until, before = time.monotonic() + STILL_S_MAX, None
        while True:  # a page that is still being filled pushes its buttons down
            now = self.wait(measure)
            if now == before and now[2]:
                break
            assert time.monotonic() < until, f"{selector} keeps moving, or something lies on it: {now}"
            before = now
            time.sleep(0.1)
        self.click(now[0], now[1])

    def type(self, text: str) -> None:
        self._call("Input.insertText", text=text)

    def picture(self, target: Path) -> None:
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        target.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **params: Any) -> Any:
        self._id += 1
        message: dict[str, Any] = {"id": self._id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + ANSWER_S_MAX
        while True:
            answer = self._next(until)
            if answer.get("id") == self._id:
                error = answer.get("error")
                if error is not None and any(words in error["message"] for words in LEFT):
                    raise NoValueError(f"{method}: {error}")
                assert error is None, f"{method}: {error}"
                return answer["result"]
            said = answer.get("params", {})
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(str(said["exceptionDetails"].get("exception", {}).get("description")))
            elif answer.get("method") == "Log.entryAdded" and said["entry"]["level"] == "error":
                self.errors.append(said["entry"]["text"])

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(until - time.monotonic(), 0))
            assert ready, f"chromium does not answer (exit code {self._process.poll()})"
            data = os.read(self._read, 1 << 20)
            assert data, f"chromium has ended (exit code {self._process.poll()})"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found


def _pipe() -> tuple[int, int]:
    """A pipe far from 3 and 4, the numbers by which chromium expects its own."""
    low = os.pipe()
    high = tuple(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 50) for fd in low)
    for fd in low:
        os.close(fd)
    return high[0], high[1]


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `folder`. Skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    theirs_in, ours_out = _pipe()
    ours_in, theirs_out = _pipe()
    command = [
        program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--hide-scrollbars", f"--user-data-dir={folder}", "--remote-debugging-pipe",
    ]  # fmt: skip
    script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", *command],
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        browser = Browser(process, ours_in, ours_out)
        browser.attach()
        yield browser
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)
        os.close(ours_in)
        os.close(ours_out)
