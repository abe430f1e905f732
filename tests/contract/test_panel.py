"""What every panel promises, tried on gpiozero's mock pins, on the fake, and on the null driver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from gpiozero.pins.mock import MockFactory, MockPin

from agent.config import PanelSettings
from agent.errors import ConfigError, Transient
from agent.panel import Edge, Input, Line, Output, Panel
from agent.panel.gpio import GpioPanel
from agent.panel.none import NoPanel
from agent.types import MS
from tests.fakes.clock import FakeClock
from tests.fakes.panel import FakePanel

PINS = {"bell": 17, "tamper": 27, "mains_lost": 22, "privacy": 5, "siren": 23, "lamp": 24, "led": 25}


@dataclass
class Bench:
    """A panel, and hands to press and eyes to see."""

    panel: Panel
    clock: FakeClock
    move: Callable[[Input, bool], None]  # makes an input active or not, as the world would
    lit: Callable[[Output], bool]
    short: Callable[[Input], None]  # the wire touches 3.3 V


class WiredPin(MockPin):  # type: ignore[misc]  # gpiozero publishes no types
    """A mock pin with a wire to ground: while the contact is closed, no pull-up wins against it."""

    def contact(self, *, closed: bool) -> None:
        (self.factory.closed.add if closed else self.factory.closed.discard)(self.info.name)
        (self.drive_low if closed else self.drive_high)()

    def _set_pull(self, value: str) -> None:
        super()._set_pull(value)
        if self.info.name in self.factory.closed:
            self.drive_low()
        elif self.info.name in self.factory.high:
            self.drive_high()


class WiredFactory(MockFactory):  # type: ignore[misc]
    """Contacts outlive the program that reads them."""

    def __init__(self) -> None:
        self.closed: set[str] = set()
        self.high: set[str] = set()  # touches 3.3 V
        super().__init__(pin_class=WiredPin)


def gpio_bench() -> Bench:
    clock, factory = FakeClock(), WiredFactory()
    factory.pin(PINS["tamper"]).contact(closed=True)  # the box is shut
    panel = GpioPanel(
        msgspec.convert({"driver": "gpio", **PINS}, PanelSettings), clock=clock, make_factory=lambda: factory
    )

    def move(pin: Input, active: bool) -> None:
        factory.pin(PINS[pin.value]).contact(closed=active is not (pin is Input.TAMPER))

    def lit(output: Output) -> bool:
        wire = factory.pin(PINS[output.value])
        return wire.function == "output" and bool(wire.state)

    return Bench(panel, clock, move, lit, lambda pin: factory.high.add(f"GPIO{PINS[pin.value]}"))


def fake_bench() -> Bench:
    clock, panel = FakeClock(), FakePanel()
    return Bench(
        panel,
        clock,
        lambda pin, on: panel.level(pin, on, clock.boot_ns()),
        lambda out: panel.outputs[out],
        panel.held_high.add,
    )


@pytest.fixture(params=[gpio_bench, fake_bench], ids=["gpio", "fake"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made: Bench = request.param()
    yield made
    made.panel.close()


def settle(bench: Bench, ms: float = 60) -> list[Edge]:
    bench.clock.advance(ms / 1000)
    return bench.panel.read(bench.clock.boot_ns())


@pytest.mark.parametrize("pin", list(Input))
def test_an_input_that_holds_is_told_once_with_the_time_it_changed(bench: Bench, pin: Input) -> None:
    bench.panel.open()
    assert settle(bench) == []
    at_ns = bench.clock.boot_ns()
    bench.move(pin, True)
    assert bench.panel.read(bench.clock.boot_ns()) == []
    assert bench.panel.settles_at() == at_ns + 50 * MS
    assert settle(bench) == [Edge(pin, active=True, boot_ns=at_ns)]
    assert settle(bench, 5000) == []
    off_ns = bench.clock.boot_ns()
    bench.move(pin, False)
    assert settle(bench) == [Edge(pin, active=False, boot_ns=off_ns)]
    assert bench.panel.settles_at() is None


def test_bouncing_is_one_press_and_a_spike_is_none(bench: Bench) -> None:
    bench.panel.open()
    for _ in range(7):
        bench.move(Input.BELL, True)
        bench.clock.advance(0.004)
        bench.move(Input.BELL, False)
        bench.clock.advance(0.004)
        assert bench.panel.read(bench.clock.boot_ns()) == []
    bench.move(Input.BELL, True)
    assert [edge.active for edge in settle(bench)] == [True]
    bench.move(Input.MAINS_LOST, True)
    bench.clock.advance(0.02)
    bench.move(Input.MAINS_LOST, False)
    assert settle(bench, 1000) == []


def test_pressed_at_boot_counts(bench: Bench) -> None:
    bench.move(Input.BELL, True)
    bench.panel.open()
    bench.panel.read(bench.clock.boot_ns())
    assert [edge.input for edge in settle(bench)] == [Input.BELL]


def test_an_edge_wakes_the_worker(bench: Bench) -> None:
    woken: list[int] = []
    bench.panel.wake = lambda: woken.append(1)
    bench.panel.open()
    woken.clear()
    bench.move(Input.BELL, True)
    assert woken


@pytest.mark.parametrize("output", list(Output))
def test_outputs_are_off_at_open_and_at_close(bench: Bench, output: Output) -> None:
    bench.panel.open()
    assert not bench.lit(output)
    assert bench.panel.set(output, on=True)
    assert bench.lit(output)
    assert bench.panel.set(output, on=False)
    assert not bench.lit(output)
    bench.panel.set(output, on=True)
    bench.panel.close()
    assert not bench.lit(output)
    bench.panel.close()


def test_a_panel_can_be_opened_again(bench: Bench) -> None:
    for _ in range(3):
        bench.panel.open()
        bench.move(Input.BELL, True)
        settle(bench)
        bench.panel.set(Output.SIREN, on=True)
        bench.panel.close()
        bench.move(Input.BELL, False)
    bench.panel.open()
    assert not bench.lit(Output.SIREN)
    assert settle(bench) == []


def test_a_line_that_is_open_and_free_is_well_and_a_test_is_no_press(bench: Bench) -> None:
    bench.panel.open()
    assert settle(bench) == []
    assert bench.panel.test(Input.BELL) is Line.WELL
    assert bench.panel.read(bench.clock.boot_ns()) == [] and bench.panel.settles_at() is None
    assert settle(bench, 1000) == []
    bench.move(Input.BELL, True)
    assert [edge.active for edge in settle(bench)] == [True], "and it rings as before"
    bench.move(Input.BELL, False)
    assert [edge.active for edge in settle(bench)] == [False]


def test_a_press_that_lasts_beyond_a_test_is_told(bench: Bench) -> None:
    bench.panel.open()
    assert settle(bench) == []
    at_ns = bench.clock.boot_ns()
    bench.move(Input.TAMPER, True)
    assert bench.panel.test(Input.BELL) is Line.WELL
    bench.move(Input.BELL, True)
    edges = {edge.input: edge.boot_ns for edge in settle(bench)}
    assert set(edges) == {Input.TAMPER, Input.BELL}
    assert edges[Input.TAMPER] == at_ns, "nor does another wire's edge lose its time"


def test_a_line_that_is_closed_or_held_high_is_told_apart(bench: Bench) -> None:
    bench.panel.open()
    bench.move(Input.BELL, True)
    assert bench.panel.test(Input.BELL) is Line.CLOSED
    assert [edge.active for edge in settle(bench)] == [True], "the test has not taken the press away"
    bench.move(Input.BELL, False)
    bench.short(Input.BELL)
    assert bench.panel.test(Input.BELL) is Line.HIGH
    assert [edge.active for edge in settle(bench)] == [False]


def test_a_storm_of_edges_is_bounded_and_the_level_wins(bench: Bench) -> None:
    bench.panel.open()
    for _ in range(2000):
        bench.move(Input.BELL, True)
        bench.move(Input.BELL, False)
    bench.move(Input.BELL, True)
    bench.panel.read(bench.clock.boot_ns())
    assert [edge.active for edge in settle(bench)] == [True]


def test_the_null_panel_is_a_panel() -> None:
    panel: Panel = NoPanel()
    panel.open()
    assert panel.read(0) == [] and panel.settles_at() is None
    assert not any(panel.has(pin) for pin in (*Input, *Output))
    assert {panel.test(pin) for pin in Input} == {Line.NONE}
    assert not any(panel.set(output, on=True) for output in Output)
    panel.close()
    panel.close()


# -- what only the real driver can get wrong -----------------------------------------------------------------------


def test_an_unwired_pin_is_nothing_and_no_other_pin_is_touched() -> None:
    factory = MockFactory()
    panel = GpioPanel(PanelSettings(driver="gpio", bell=17), clock=FakeClock(), make_factory=lambda: factory)
    panel.open()
    assert [pin.info.name for pin in factory.pins.values()] == ["GPIO17"]
    assert not panel.set(Output.SIREN, on=True)
    assert not panel.has(Output.SIREN)
    panel.close()


def test_an_output_is_driven_low_before_it_floats() -> None:
    """A floating gate keeps its charge: without the low level first, a siren may wail on until it leaks away."""
    factory = MockFactory()
    panel = GpioPanel(PanelSettings(driver="gpio", siren=23), clock=FakeClock(), make_factory=lambda: factory)
    panel.open()
    pin = factory.pin(23)
    panel.set(Output.SIREN, on=True)
    panel.close()
    assert pin.function == "input"
    assert [state.state for state in pin.states][-2:] == [True, False]


def test_one_pin_for_two_things_is_a_config_error_that_names_it() -> None:
    panel = GpioPanel(PanelSettings(driver="gpio", bell=17, led=17), clock=FakeClock(), make_factory=MockFactory)
    with pytest.raises(ConfigError, match="BCM pin 17"):
        panel.open()
    panel.close()


def test_a_lost_interrupt_heals_by_looking_at_the_level() -> None:
    clock, factory = FakeClock(), MockFactory()
    panel = GpioPanel(PanelSettings(driver="gpio", bell=17), clock=clock, make_factory=lambda: factory)
    panel.open()
    factory.pin(17)._state = False  # the level falls, no edge is delivered
    panel.read(clock.boot_ns())
    clock.advance(0.06)
    assert [edge.input for edge in panel.read(clock.boot_ns())] == [Input.BELL]
    panel.close()


def test_a_pin_that_breaks_later_is_transient() -> None:
    clock, factory = FakeClock(), MockFactory()
    panel = GpioPanel(PanelSettings(driver="gpio", siren=23, bell=17), clock=clock, make_factory=lambda: factory)
    panel.open()

    class Broken:
        @property
        def is_active(self) -> bool:
            raise OSError("lgpio: chip gone")

        def __setattr__(self, name: str, value: Any) -> None:
            raise OSError("lgpio: chip gone")

    panel._outputs[Output.SIREN], panel._inputs[Input.BELL] = Broken(), Broken()
    with pytest.raises(Transient, match=r"panel.siren: cannot be switched: lgpio: chip gone"):
        panel.set(Output.SIREN, on=True)
    with pytest.raises(Transient, match="inputs cannot be read"):
        panel.read(clock.boot_ns())
    with pytest.raises(Transient, match=r"panel.bell: cannot be tested: lgpio: chip gone"):
        panel.test(Input.BELL)
    panel.close()
