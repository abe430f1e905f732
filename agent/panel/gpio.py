"""A panel on the Raspberry Pi's GPIO, through gpiozero. Pins are BCM numbers; hardware/wiring.md draws them.

Traps met here (field notes): gpiozero has no debounce worth the name, so it is ours; an exception in a callback reaches
the driver of the pin, so callbacks append and return; `close` floats an output, so the siren needs a pull-down resistor
of its own; lgpio makes a pipe `.lgd-nfy0` in the working directory as it is imported, which must be writable.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.clock import Clock
from agent.config import PanelSettings
from agent.errors import ConfigError, Transient
from agent.panel import Debouncer, Edge, Input, Line, Output
from agent.types import MS

RAW_EDGES_MAX = 256
"""A storm of edges longer than this loses its oldest ones; `read` looks at the level itself as well."""

SETTLE_S = 0.04
"""The internal resistor (about 50 kilohm) and 100 nF at the pin, as hardware/wiring.md has it, take 5 ms to settle."""


def system_factory() -> Any:
    """A gpiozero factory on the machine's own GPIO (lgpio). Raises ConfigError when it cannot be had here."""
    folder = Path.cwd()
    if not os.access(folder, os.W_OK):
        raise ConfigError(
            f"panel: the working directory {folder} is not writable, and lgpio keeps a pipe there; "
            "set WorkingDirectory= in the systemd unit"
        )
    try:
        from gpiozero.pins.lgpio import LGPIOFactory

        return LGPIOFactory()
    except ImportError as error:
        raise ConfigError(f"panel.driver: gpio needs gpiozero and lgpio ({error}); apt install python3-lgpio") from None
    except Exception as error:  # noqa: BLE001  (gpiozero and lgpio raise a dozen classes, even for a missing chip)
        raise ConfigError(
            f"panel.driver: no GPIO on this machine ({type(error).__name__}: {error}); "
            'is the user in the group gpio? otherwise set driver = "none"'
        ) from None


class GpioPanel:
    """See `agent.panel.Panel`. `open` calls `make_factory`, `close` closes what it made: never the global one."""

    def __init__(
        self, settings: PanelSettings, *, clock: Clock, make_factory: Callable[[], Any] = system_factory
    ) -> None:
        self._clock = clock
        self._make_factory = make_factory
        self._hold_ns = settings.debounce_ms * MS
        self._pins: dict[Input | Output, int] = {
            pin: number for pin in (*Input, *Output) if (number := getattr(settings, pin.value)) is not None
        }
        self.name = "gpio " + (", ".join(f"{pin.value}={number}" for pin, number in self._pins.items()) or "(no pins)")
        self.wake: Callable[[], None] | None = None
        self._factory: Any = None
        self._inputs: dict[Input, Any] = {}
        self._outputs: dict[Output, Any] = {}
        self._edges: deque[tuple[Input, bool, int]] = deque(maxlen=RAW_EDGES_MAX)
        self._debouncer = Debouncer(self._hold_ns)

    def open(self) -> None:
        try:
            from gpiozero import DigitalInputDevice, DigitalOutputDevice, GPIOZeroError
        except ImportError as error:
            raise ConfigError(f"panel.driver: gpio needs gpiozero ({error}); apt install python3-gpiozero") from None
        self._debouncer = Debouncer(self._hold_ns)
        self._edges.clear()
        self._factory = self._make_factory()
        pin: Input | Output
        number = -1
        try:
            for pin, number in self._pins.items():
                if isinstance(pin, Output):
                    self._outputs[pin] = DigitalOutputDevice(number, initial_value=False, pin_factory=self._factory)
                else:
                    self._listen(pin, DigitalInputDevice(number, pull_up=True, pin_factory=self._factory))
        except GPIOZeroError as error:
            self.close()
            raise ConfigError(f"panel: cannot use BCM pin {number} ({type(error).__name__}: {error})") from None
        except OSError as error:
            self.close()
            raise Transient(f"panel: cannot take BCM pin {number}: {error}; is another program using it?") from error
        self._sample(self._clock.boot_ns())

    def read(self, now_ns: int) -> list[Edge]:
        while self._edges:
            self._debouncer.level(*self._edges.popleft())
        self._sample(now_ns)
        return self._debouncer.settled(now_ns)

    def settles_at(self) -> int | None:
        return self._debouncer.settles_at()

    def set(self, output: Output, *, on: bool) -> bool:
        device = self._outputs.get(output)
        if device is None:
            return False
        try:
            device.value = 1 if on else 0
        except Exception as error:  # lgpio.error, GPIOZeroError, OSError: by driver and version
            raise Transient(f"panel.{output.value}: cannot be switched: {error}") from error
        return True

    def has(self, pin: Input | Output) -> bool:
        return pin in self._pins

    def test(self, pin: Input) -> Line:
        """Open with its pull-up, it must read low when it is pulled down instead."""
        device = self._inputs.get(pin)
        if device is None:
            return Line.NONE
        from gpiozero import DigitalInputDevice

        number = self._pins[pin]
        try:
            if self._active(pin, bool(device.is_active)):
                return Line.CLOSED
            # Not by `pin.pull`: with lgpio the line is claimed anew by that, and its edges are told no more.
            device.close()
            del self._inputs[pin]
            pulled = DigitalInputDevice(number, pull_up=False, pin_factory=self._factory)
            try:
                self._clock.wait(threading.Event(), SETTLE_S)
                high = bool(pulled.is_active)
            finally:
                pulled.close()
            self._listen(pin, DigitalInputDevice(number, pull_up=True, pin_factory=self._factory))
            self._clock.wait(threading.Event(), SETTLE_S)
        except Exception as error:  # lgpio.error, GPIOZeroError, OSError: by driver and version
            raise Transient(f"panel.{pin.value}: cannot be tested: {error}") from error
        while self._edges:
            edge = self._edges.popleft()
            if edge[0] is not pin:  # those of this one are our own
                self._debouncer.level(*edge)
        self._sample(self._clock.boot_ns())
        return Line.HIGH if high else Line.WELL

    def close(self) -> None:
        for device in (*self._outputs.values(), *self._inputs.values()):
            try:
                if device in self._outputs.values():
                    device.off()
                device.close()
            except Exception:  # noqa: BLE001, S112  (the next pin must be let go of as well)
                continue
        self._outputs, self._inputs = {}, {}
        factory, self._factory = self._factory, None
        if factory is not None:
            try:
                factory.close()
            except Exception:  # noqa: BLE001  (nothing more can be done with it)
                return

    def _listen(self, pin: Input, device: Any) -> None:
        self._inputs[pin] = device
        device.when_activated = self._edge(pin, closed=True)
        device.when_deactivated = self._edge(pin, closed=False)

    def _edge(self, pin: Input, *, closed: bool) -> Callable[[], None]:
        """A callback for gpiozero's thread: appends, wakes, returns. Cannot raise."""
        active = self._active(pin, closed)

        def seen() -> None:
            self._edges.append((pin, active, self._clock.boot_ns()))
            if self.wake is not None:
                self.wake()

        return seen

    def _sample(self, now_ns: int) -> None:
        """Looks at the levels themselves: heals an interrupt that was lost, and sees what was pressed at boot."""
        try:
            for pin, device in self._inputs.items():
                self._debouncer.level(pin, self._active(pin, bool(device.is_active)), now_ns)
        except Exception as error:  # lgpio.error, GPIOZeroError, OSError: by driver and version
            raise Transient(f"panel: inputs cannot be read: {error}") from error

    @staticmethod
    def _active(pin: Input, closed: bool) -> bool:
        """The tamper switch is closed while the box is shut, so that a cut wire counts as opened."""
        return not closed if pin is Input.TAMPER else closed
