"""From a pressed button to an incident; the siren's bound; what the LED says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import wire
from agent.errors import ConfigError, Transient
from agent.panel import BLINK_MS, IDENTIFY_MS, Input, Output, PostState, blink, post_state
from agent.panel.bell import AGAIN_S, FIRST_S, TEST_S, BellLine
from agent.panel.none import NoPanel
from agent.panel.worker import BELL_BURST_MAX, BELL_HELD_S_MAX, BELL_REFILL_S, BellBudget, PanelWorker
from agent.state import bell_state
from agent.types import MS, NS, Event, Kind, Phase, Priority
from tests.fakes.clock import FakeClock
from tests.fakes.panel import FakePanel


class Post:
    """A panel worker in a world that a test drives."""

    def __init__(self) -> None:
        self.clock, self.panel = FakeClock(), FakePanel()
        self.events: list[Event] = []
        self.tested: list[Event] = []  # what the bell's own test tells
        self.state = PostState.WELL
        self._ids = 0
        self.worker = PanelWorker(
            self.panel,
            clock=self.clock,
            new_id=self._new_id,
            report=self._report,
            state=lambda: self.state,
            siren_s_max=60.0,
        )
        self.worker.open()

    def _new_id(self) -> str:
        self._ids += 1
        return f"incident-{self._ids}"

    def _report(self, events: Sequence[Event]) -> None:
        for event in events:
            (self.tested if event.kind is Kind.NODE else self.events).append(event)

    def run(self, seconds: float) -> int:
        """Lets the worker live for a while, waking when it asked to; returns how many steps that took."""
        end_ns, steps = self.clock.boot_ns() + round(seconds * NS), 0
        while True:
            wake_s = self.worker.step(self.clock.boot_ns() / NS)
            steps += 1
            assert steps < 100_000, "the worker spins"
            wake_ns = max(round(wake_s * NS), self.clock.boot_ns() + 1)
            if wake_ns > end_ns:
                self.clock.advance_to(end_ns)
                return steps
            self.clock.advance_to(wake_ns)

    def move(self, pin: Input, active: bool) -> None:
        self.panel.level(pin, active, self.clock.boot_ns())
        self.run(0.1)

    def press(self) -> None:
        self.move(Input.BELL, True)
        self.move(Input.BELL, False)


@pytest.fixture
def post() -> Post:
    return Post()


def test_a_press_is_an_alert_of_the_highest_priority_stamped_when_it_was_pressed(post: Post) -> None:
    at_ns = post.clock.boot_ns()
    post.move(Input.BELL, True)
    (event,) = post.events
    assert (event.kind, event.phase, event.priority) == (Kind.BELL, Phase.STARTED, Priority.BELL)
    assert event.boot_ns == event.since_ns == at_ns
    post.run(2)
    assert len(post.events) == 1, "held, it does not flood"
    post.move(Input.BELL, False)
    started, ended = post.events
    assert ended.phase is Phase.ENDED and ended.incident == started.incident and ended.since_ns == at_ns


def test_each_press_is_an_incident_of_its_own(post: Post) -> None:
    for _ in range(3):
        post.press()
    assert [e.phase for e in post.events] == [Phase.STARTED, Phase.ENDED] * 3
    assert len({e.incident for e in post.events}) == 3


def test_pressed_at_boot_counts() -> None:
    post = Post()
    post.worker.close()
    post.panel.levels[Input.BELL] = True
    post.worker.open()
    post.run(0.2)
    assert [e.phase for e in post.events] == [Phase.STARTED]


def test_a_stuck_bell_ends_after_a_minute_and_works_again_once_released(post: Post) -> None:
    post.move(Input.BELL, True)
    post.run(3600)
    assert [e.phase for e in post.events] == [Phase.STARTED, Phase.ENDED]
    assert "stuck" in post.events[1].summary
    assert post.events[1].boot_ns - post.events[0].boot_ns == pytest.approx(BELL_HELD_S_MAX * NS, abs=2 * NS)
    post.move(Input.BELL, False)
    post.press()
    assert [e.phase for e in post.events[2:]] == [Phase.STARTED, Phase.ENDED]


def test_a_worn_contact_cannot_fill_the_outbox(post: Post) -> None:
    for _ in range(1000):
        post.press()  # 200 s
    started = [e for e in post.events if e.phase is Phase.STARTED]
    assert BELL_BURST_MAX < len(started) <= BELL_BURST_MAX + 200 / BELL_REFILL_S + 1
    assert "times more before" in started[-1].summary, "and none of them is forgotten"
    assert len(post.events) == 2 * len(started)


# -- the bell's own test -----------------------------------------------------------------------------------------------


def days_go_by(post: Post, days: int) -> None:
    """A look every second would be 86,400 a day: here there is one an hour."""
    for _ in range(days * 24):
        post.clock.advance(3600)
        post.run(0)


def told(post: Post) -> list[str]:
    return [event.reason for event in post.tested]


def test_the_bells_line_is_tried_soon_after_the_start_and_daily_and_told_without_any_alarm(post: Post) -> None:
    report = post.worker.bell
    assert report is not None and report.state is BellLine.UNTESTED and report.tested_ns is None
    post.run(FIRST_S + 2)
    assert post.panel.tests == 1 and told(post) == ["bell-well"]
    assert [(e.phase, e.priority) for e in post.tested] == [(Phase.ENDED, Priority.RECORD)]
    days_go_by(post, 3)
    assert post.panel.tests == 4 and told(post) == ["bell-well"] * 4
    report = post.worker.bell
    assert report is not None and report.state is BellLine.WELL and report.tested_ns is not None
    assert post.clock.boot_ns() - report.tested_ns < TEST_S * NS
    assert post.events == []


def test_a_bell_that_stays_closed_is_stuck_until_it_is_free_and_tells_so_daily(post: Post) -> None:
    post.run(FIRST_S + 2)
    at_ns = post.clock.boot_ns()
    post.move(Input.BELL, True)
    post.run(BELL_HELD_S_MAX + 2)
    report = post.worker.bell
    assert report is not None and report.state is BellLine.STUCK and report.since_ns == at_ns
    assert told(post) == ["bell-well", "bell-stuck"] and post.tested[-1].priority is Priority.NOTICE
    days_go_by(post, 2)
    report = post.worker.bell
    assert report is not None and report.since_ns == at_ns, "since then, however often it is looked at"
    assert told(post) == ["bell-well"] + ["bell-stuck"] * 3 and post.panel.tests == 1, "an alarm is never tried"
    post.move(Input.BELL, False)
    post.run(2)
    assert told(post)[-1] == "bell-well" and post.worker.bell is not None
    assert post.worker.bell.state is BellLine.WELL and post.panel.tests == 2


def test_a_line_that_is_held_high_is_told_and_tried_again_until_it_is_repaired(post: Post) -> None:
    post.panel.held_high.add(Input.BELL)
    post.run(FIRST_S + 2)
    assert told(post) == ["bell-high"] and "may not be seen" in post.tested[0].summary
    for _ in range(5):
        post.clock.advance(AGAIN_S)
        post.run(0)
    assert told(post) == ["bell-high"] and post.panel.tests == 6
    post.panel.held_high.clear()
    post.clock.advance(AGAIN_S)
    post.run(0)
    assert told(post) == ["bell-high", "bell-well"]


def test_somebody_who_presses_while_a_test_is_due_is_heard_first(post: Post) -> None:
    post.run(FIRST_S - 1)
    post.move(Input.BELL, True)
    post.run(20)
    assert post.panel.tests == 0 and [e.priority for e in post.events] == [Priority.BELL]
    post.move(Input.BELL, False)
    post.run(2)
    assert post.panel.tests == 1 and told(post) == ["bell-well"]


def test_a_driver_that_fails_does_not_look_tested(post: Post) -> None:
    post.run(FIRST_S + 2)
    before = post.worker.bell
    post.panel.broken = True
    with pytest.raises(Transient):
        post.run(2)
    post.worker.close()
    for _ in range(3):
        with pytest.raises(Transient):
            post.worker.open()
    assert before is not None and post.worker.bell == before, "as it was, and growing old"
    post.panel.broken = False
    post.worker.open()
    report = post.worker.bell
    assert report is not None and report.state is BellLine.UNTESTED and report.tested_ns == before.tested_ns
    post.run(FIRST_S + 2)
    assert post.worker.bell is not None and post.worker.bell.state is BellLine.WELL


def test_the_heartbeat_tells_of_the_bell_in_utc(post: Post) -> None:
    base_ns = 1_700_000_000 * NS
    start = post.worker.bell
    assert start is not None
    told = bell_state(start, base_ns - start.since_ns)
    assert told == wire.BellState(state="untested", since="2023-11-14T22:13:20.000Z")
    post.run(FIRST_S + 2)
    now = post.worker.bell
    assert now is not None and now.tested_ns is not None
    told = bell_state(now, base_ns - now.tested_ns)
    assert told == wire.BellState(state="well", since=told.tested, tested="2023-11-14T22:13:20.000Z")
    assert wire.decode(wire.encode(told), wire.BellState) == told


def test_a_post_without_a_bell_says_nothing_of_one() -> None:
    worker = PanelWorker(
        NoPanel(),
        clock=FakeClock(),
        new_id=lambda: "never",
        report=lambda _: None,
        state=lambda: PostState.WELL,
        siren_s_max=60.0,
    )
    assert worker.bell is None


def test_the_bell_budget_refills_but_never_beyond_its_burst() -> None:
    budget = BellBudget()
    assert [budget.take(0) for _ in range(BELL_BURST_MAX + 2)] == [True] * BELL_BURST_MAX + [False, False]
    assert budget.unreported == 2
    day_ns = 86_400 * NS
    assert sum(budget.take(day_ns) for _ in range(100)) == BELL_BURST_MAX


@pytest.mark.parametrize(("pin", "kind"), [(Input.TAMPER, Kind.TAMPER), (Input.MAINS_LOST, Kind.MAINS)])
def test_tamper_and_mains_are_incidents_with_an_end(post: Post, pin: Input, kind: Kind) -> None:
    post.move(pin, True)
    post.run(7200)
    post.move(pin, False)
    assert [(e.kind, e.phase, e.priority) for e in post.events] == [
        (kind, Phase.STARTED, Priority.ALERT),
        (kind, Phase.ENDED, Priority.ALERT),
    ]


def test_closing_ends_what_is_open_and_switches_everything_off(post: Post) -> None:
    post.move(Input.TAMPER, True)
    post.worker.siren(30)
    post.run(1)
    assert post.panel.outputs[Output.SIREN]
    post.worker.close()
    assert [e.phase for e in post.events] == [Phase.STARTED, Phase.ENDED]
    assert not any(post.panel.outputs.values())


def test_a_broken_panel_is_transient_and_the_next_life_is_clean(post: Post) -> None:
    post.worker.siren(30)
    post.run(1)
    post.panel.broken = True
    with pytest.raises(Transient):
        post.run(1)
    post.worker.close()
    post.panel.broken = False
    post.worker.open()
    post.run(5)
    assert not post.panel.outputs[Output.SIREN]


@pytest.mark.parametrize(
    ("asked_s", "granted_s"), [(10.0, 10.0), (1e9, 60.0), (float("inf"), 60.0), (-5.0, 0.0), (0.0, 0.0)]
)
def test_the_siren_stops_by_itself(post: Post, asked_s: float, granted_s: float) -> None:
    assert post.worker.siren(asked_s) == granted_s
    start_ns = post.clock.boot_ns()
    post.run(0.001)
    assert post.panel.outputs[Output.SIREN] == (granted_s > 0)
    post.run(100)
    assert not post.panel.outputs[Output.SIREN]
    if granted_s:
        assert post.panel.history.count((Output.SIREN, True)) == 1
    assert post.clock.boot_ns() > start_ns


def test_the_siren_can_be_stopped(post: Post) -> None:
    post.worker.siren(60)
    post.run(1)
    post.worker.siren(0)
    post.run(0.001)
    assert not post.panel.outputs[Output.SIREN]


def test_nonsense_orders_are_refused(post: Post) -> None:
    with pytest.raises(ConfigError, match="not a number"):
        post.worker.siren(float("nan"))
    for _ in range(16):
        post.worker.lamp(1)
    with pytest.raises(Transient, match="too many orders"):
        post.worker.lamp(1)


def test_an_order_for_what_is_not_wired_says_so() -> None:
    worker = PanelWorker(
        NoPanel(),
        clock=FakeClock(),
        new_id=str,
        report=lambda _events: None,
        state=lambda: PostState.WELL,
        siren_s_max=60,
    )
    for order in (worker.siren, worker.lamp, worker.identify):
        with pytest.raises(ConfigError, match="nothing is wired there"):
            order(1.0)


def led(post: Post, seconds: float) -> list[tuple[bool, int]]:
    """What the LED does: on or off, and for how many milliseconds."""
    seen: list[tuple[bool, int]] = []
    for _ in range(round(seconds * 100)):
        post.run(0.01)
        on = post.panel.outputs[Output.LED]
        if seen and seen[-1][0] == on:
            seen[-1] = (on, seen[-1][1] + 10)
        else:
            seen.append((on, 10))
    return seen


@pytest.mark.parametrize("state", list(PostState))
def test_the_led_blinks_the_documented_code(post: Post, state: PostState) -> None:
    post.state = state
    whole_s = sum(BLINK_MS[state]) / 1000
    seen = led(post, whole_s)[: len(BLINK_MS[state])]
    assert [on for on, _ in seen] == [i % 2 == 0 for i in range(len(BLINK_MS[state]))]
    assert [ms for _, ms in seen] == pytest.approx(list(BLINK_MS[state]), abs=20)


def test_identify_flickers_for_its_time_and_then_tells_the_state_again(post: Post) -> None:
    assert post.worker.identify(1.0) == 1.0
    fast = led(post, 1.0)
    assert len(fast) >= 9 and all(ms <= 110 for _, ms in fast)
    post.run(3.0)
    assert max(ms for on, ms in led(post, 6.0) if not on) > 2000
    assert IDENTIFY_MS not in BLINK_MS.values()


def test_a_quiet_post_costs_few_steps(post: Post) -> None:
    assert post.run(60) < 150


def test_the_codes_differ_and_none_is_steady() -> None:
    assert len(set(BLINK_MS.values())) == len(PostState)
    for pattern in BLINK_MS.values():
        assert len(pattern) % 2 == 0 and all(ms >= 100 for ms in pattern)


def test_blink_says_when_it_changes() -> None:
    assert blink((100, 2900), 0) == (True, 100 * MS)
    assert blink((100, 2900), 100 * MS) == (False, 2900 * MS)
    assert blink((100, 2900), 3050 * MS) == (True, 50 * MS)


@pytest.mark.parametrize(
    ("booting", "network", "camera", "fault", "state"),
    [
        (False, True, True, False, PostState.WELL),
        (True, False, False, False, PostState.BOOTING),
        (False, False, True, False, PostState.NO_NETWORK),
        (False, False, False, False, PostState.NO_CAMERA),
        (True, True, True, True, PostState.FAULT),
    ],
)
def test_the_most_urgent_state_wins(booting: bool, network: bool, camera: bool, fault: bool, state: PostState) -> None:
    assert post_state(booting=booting, network=network, camera=camera, fault=fault) is state


def test_the_wiring_page_carries_the_codes() -> None:
    text = (Path(__file__).parents[2] / "hardware/wiring.md").read_text(encoding="utf-8")
    words = {2: "one short flash", 4: "two flashes", 6: "three flashes", 8: "four flashes"}
    for state, pattern in BLINK_MS.items():
        phrase = {
            PostState.BOOTING: "half a second on, half a second off",
            PostState.WATCHED: "on, with a short blink every 1.5 s",
            PostState.PRIVACY: "on, with a short blink every 3 s",
        }.get(state) or words[len(pattern)]
        line = next(line for line in text.splitlines() if phrase in line)
        assert state.value in line
