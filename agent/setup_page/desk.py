"""What the page may do: look, read the checks, try bell, siren, lamp and LED, and be done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from agent.clock import Clock
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.panel import Input, Output
from agent.setup_page.view import LiveView, Still
from agent.setup_page.worker import PageWorker
from agent.types import NS
from agent.zones_page.desk import Desk

EXAMINED_S = 3.0
"""The doctor is asked so often at most, however many pages are open: it reads the database."""
STILL_WAIT_S = 1.0
PICTURE_WAIT_S = 8.0
SECONDS = {Output.SIREN: 2.0, Output.LAMP: 5.0, Output.LED: 10.0}
"""How long a trial lasts."""


class SetupDesk:
    """One post. Any thread."""

    def __init__(
        self,
        *,
        page: PageWorker,
        view: LiveView,
        clock: Clock,
        about: Mapping[str, str],
        status: Callable[[], dict[str, Any]],
        examine: Callable[[dict[str, Any]], dict[str, Any]],
        free_bytes: Callable[[], int],
        wired: Callable[[Input | Output], bool],
        outputs: Mapping[Output, Callable[[float], float]],
        zones: Callable[[Callable[[], bytes]], Desk],
    ) -> None:
        """`about`: who the post is. `zones` makes the desk of the zones page from what gives a JPEG; may raise."""
        self.page, self._view, self._clock, self._about = page, view, clock, dict(about)
        self._status, self._examine, self._free_bytes = status, examine, free_bytes
        self._wired, self._outputs, self._zones = wired, dict(outputs), zones
        self._lock = threading.Lock()
        self._examined_ns = 0
        self._examined: dict[str, Any] = {}
        self._desk: Desk | None = None

    def state(self) -> dict[str, Any]:
        """What the page shows beside the picture. Never raises for a part that is sick."""
        status = self._status()
        return {
            **self._about,
            "left_s": round(self.page.left_s),
            "privacy_s": status["recording"]["privacyleft_s"],
            "checks": checks(
                status,
                free_bytes=self._free(),
                unc_ns=self._clock.utc().unc_ns,
            ),
            "doctor": self._doctor(),
            "wired": {pin.value: self._wired(pin) for pin in (*Input, *Output)},
            "wires": self.page.wires(),
        }

    def still(self, after: int) -> Still | None:
        """The next picture for the page; None: there was none in STILL_WAIT_S."""
        return self._view.still(after=after, wait_s=STILL_WAIT_S)

    def try_out(self, what: str) -> dict[str, Any]:
        """Switches an output for some seconds, once that is on record. Raises ConfigError, Corrupt, Transient."""
        output = next((one for one in self._outputs if one.value == what), None)
        if output is None:
            raise Corrupt("siren, lamp or led")
        if not self._wired(output):
            raise ConfigError(f"panel.{what}: nothing is wired there")
        self.page.did(what)
        return {"seconds": self._outputs[output](SECONDS[output])}

    def zones(self) -> Desk:
        """Where zones and masks are drawn. Raises ConfigError when the settings in force cannot be edited."""
        with self._lock:
            if self._desk is None:
                self._desk = self._zones(self._picture)
            return self._desk

    def _picture(self) -> bytes:
        """A JPEG for drawing on. Blocks for PICTURE_WAIT_S at most. Raises Transient."""
        until_ns = self._clock.boot_ns() + round(PICTURE_WAIT_S * NS)
        newest = self._view.newest
        while self._clock.boot_ns() < until_ns:
            still = self._view.still(after=newest, wait_s=STILL_WAIT_S)
            if still is not None:
                return still.jpeg
        raise Transient("there is no picture: is the privacy switch on, or the camera lost?")

    def _doctor(self) -> dict[str, Any]:
        with self._lock:
            now_ns = self._clock.boot_ns()
            if not self._examined or now_ns - self._examined_ns > EXAMINED_S * NS:
                self._examined, self._examined_ns = self._examine({}), now_ns
            return self._examined

    def _free(self) -> int | None:
        try:
            return self._free_bytes()
        except WardpostError:
            return None


def checks(status: Mapping[str, Any], *, free_bytes: int | None, unc_ns: int | None) -> list[dict[str, Any]]:
    """What a post needs, in the order in which a technician mends it: `id`, `ok`, a number to show. Pure."""
    camera, vision, recording = status["camera"], status["vision"], status["recording"]
    age_ms = camera["frameagems"]
    return [
        {"id": "camera", "ok": age_ms is not None and age_ms < 3000, "value": camera["fps"]},
        {"id": "detector", "ok": bool(vision["healthy"]), "value": vision["inferencems"]},
        {"id": "recording", "ok": bool(recording["recording"]) and not recording["fault"], "value": ""},
        {
            "id": "card",
            "ok": free_bytes is not None and free_bytes > 0 and not recording["fault"],
            "value": "" if free_bytes is None else round(free_bytes / 1e9, 1),
        },
        {"id": "clock", "ok": unc_ns is not None, "value": ""},
        {"id": "broker", "ok": bool(status["broker"]), "value": ""},
        {
            "id": "headquarters",
            "ok": bool(status["broker"]) and not status["station_silent"],
            "value": status["queue"]["outboxrows"],
        },
    ]
