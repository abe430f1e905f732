"""Siren and lamp at headquarters' word: bounded, on the ledger with name and reason, and not against the post's rules."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.config import CalendarSettings, ScheduleSettings
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.panel import Output, PostState
from agent.panel.none import NoPanel
from agent.panel.signals import SignalDesk, hours
from agent.panel.worker import PanelWorker
from agent.types import NS
from tests.fakes.clock import FakeClock
from tests.fakes.panel import FakePanel

NIGHT = ScheduleSettings(name="night", hours=("22:00-06:00",))
ASKED = {"id": "01900000-0000-7000-8000-000000000001", "seconds": 10, "reason": "somebody climbs over", "by": "Mai"}


class Post:
    """A panel with its worker, behind the desk."""

    def __init__(self, *, wired: bool = True, during: tuple[str, ...] = (), utc: str = "23:30") -> None:
        hour, minute = (int(part) for part in utc.split(":"))
        midnight_ns = 1_700_006_400 * NS  # 2023-11-15 00:00 UTC
        self.clock = FakeClock(utc_ns=midnight_ns + (hour * 60 + minute) * 60 * NS)
        self.panel = FakePanel()
        self.worker = PanelWorker(
            self.panel if wired else NoPanel(),
            clock=self.clock,
            new_id=str,
            report=lambda _: None,
            state=lambda: PostState.WELL,
            siren_s_max=30.0,
        )
        self.worker.open()
        self.privacy_left_s = 0.0
        self.full = False
        self.notes: list[dict[str, Any]] = []
        self.desk = SignalDesk(
            outputs={"siren": self.worker.siren, "lamp": self.worker.lamp},
            privacy_left_s=lambda: self.privacy_left_s,
            allowed=hours(during, calendar=CalendarSettings(), schedules=(NIGHT,), utc=self.clock.utc),
            note=self._note,
        )

    def _note(self, body: bytes) -> None:
        if self.full:
            raise Transient("the card is full")
        self.notes.append(msgspec.json.decode(body))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.worker.step(self.clock.boot_ns() / NS)
            self.clock.advance(0.1)

    def on(self, output: Output = Output.SIREN) -> bool:
        return self.panel.outputs[output]


def test_a_siren_sounds_for_its_time_and_stands_on_the_ledger_with_name_and_reason() -> None:
    post = Post()
    assert post.desk.signal("siren", ASKED) == {"seconds": 10.0, "summary": "siren on for 10 s"}
    post.run(9)
    assert post.on()
    post.run(2)
    assert not post.on()
    assert post.notes == [
        {"signal": "siren", "seconds": 10.0, "reason": "somebody climbs over", "by": "Mai", "command": ASKED["id"]}
    ]
    assert post.desk.signal("siren", ASKED | {"seconds": 5000})["seconds"] == 30.0, "panel.siren_s_max"
    assert post.notes[-1]["seconds"] == 30.0, "what was granted, not what was asked"
    assert post.desk.signal("lamp", ASKED | {"seconds": 5000})["seconds"] == 3600.0


def test_it_can_always_be_ended_without_a_reason() -> None:
    post = Post(during=("night",), utc="21:59")
    post.privacy_left_s = 60.0
    post.worker.siren(30)
    post.run(1)
    assert post.on()
    assert post.desk.signal("siren", {"seconds": 0})["summary"] == "siren off"
    post.run(1)
    assert not post.on() and post.notes[-1]["seconds"] == 0.0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"reason": ""}, "who asks, and why"),
        ({"by": "  "}, "who asks, and why"),
        ({"reason": "x" * 101}, "100 characters at most"),
        ({"by": 7}, "100 characters at most"),
        ({"seconds": True}, "is not a time"),
        ({"seconds": "10"}, "is not a time"),
        ({"seconds": -1}, "is not a time"),
        ({"seconds": float("nan")}, "is not a time"),
        ({"seconds": float("inf")}, "is not a time"),
        ({"seconds": None}, "is not a time"),
    ],
)
def test_what_is_no_order_switches_nothing(changes: dict[str, Any], why: str) -> None:
    post = Post()
    with pytest.raises(Corrupt, match=why):
        post.desk.signal("siren", ASKED | changes)
    post.run(1)
    assert not post.panel.history or not post.on()
    assert post.notes == []


def test_it_is_refused_where_nothing_is_wired_while_privacy_is_on_and_outside_its_hours() -> None:
    for post, why in (
        (Post(wired=False), "nothing is wired there"),
        (Post(during=("night",), utc="21:59"), "does not allow it at this hour"),
        (Post(during=("night",), utc="06:01"), "does not allow it at this hour"),
    ):
        with pytest.raises(WardpostError, match=why):
            post.desk.signal("siren", ASKED)
        assert post.notes == []
    post = Post(during=("night",), utc="05:59")
    post.privacy_left_s = 60.0
    with pytest.raises(Corrupt, match="privacy is on here for 60 s still"):
        post.desk.signal("lamp", ASKED)
    post.privacy_left_s = 0.0
    assert post.desk.signal("lamp", ASKED)["seconds"] == 10.0
    with pytest.raises(ConfigError, match="no schedule 'day'"):
        Post(during=("day",))


def test_what_cannot_be_accounted_for_is_not_done() -> None:
    post = Post()
    post.full = True
    with pytest.raises(Transient, match="the card is full"):
        post.desk.signal("siren", ASKED)
    post.run(1)
    assert not post.on()
