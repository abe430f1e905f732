"""What a post draws, how long a store of energy carries it, and the panel and battery of a pole."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hardware.sums import table

VOLTS = 5.1


@dataclass(frozen=True, slots=True)
class Board:
    """Watts of a whole post with this board. `board_ma` is the maker's "typical bare-board active" current."""

    name: str
    board_ma: float
    extra_w: float  # camera 1.0 W, network and card: an assumption, see the page
    supply_a: float  # the maker's recommended supply

    @property
    def watts(self) -> float:
        return self.board_ma / 1000 * VOLTS + self.extra_w


BOARDS = (
    Board("Zero 2 W, Wi-Fi", 350, 1.2, 2.5),
    Board("Pi 4, Ethernet", 600, 1.5, 3.0),
    Board("Pi 5, Ethernet", 800, 1.5, 5.0),
)
LTE_W = 1.5


def supercap_s(
    *, farad: float, full_v: float, empty_v: float, watts: float, efficiency: float = 0.85, aged: float = 0.7
) -> float:
    """Seconds for which a bank of capacitors carries a load: E = C (V1^2 - V2^2) / 2.

    `farad` of the whole bank (n equal ones in series: one n-th), `aged` is what is left of it after years in the heat.
    """
    return aged * farad * (full_v**2 - empty_v**2) / 2 * efficiency / watts


def battery_h(
    *, watt_hours: float, watts: float, usable: float = 0.8, efficiency: float = 0.85, aged: float = 0.7
) -> float:
    """Hours for which a battery carries a load. `usable` is the depth to which it is discharged."""
    return watt_hours * usable * efficiency * aged / watts


@dataclass(frozen=True, slots=True)
class Solar:
    """A panel and a battery that carry `watts` around the clock."""

    panel_wp: float
    battery_wh: float


def solar(
    *, watts: float, sun_h: float, dark_days: float, losses: float = 0.65, usable: float = 0.8, aged: float = 0.8
) -> Solar:
    """Sizes a pole.

    `sun_h` is the worst month's sum of a mean day in kWh/m2, which is hours at 1 kW/m2; `losses` what is left after
    heat, dust, controller and battery; `dark_days` without any sun. One day in four may be needed to fill up again.
    """
    day_wh = watts * 24
    return Solar(panel_wp=1.25 * day_wh / (sun_h * losses), battery_wh=day_wh * dark_days / (usable * aged))


def boards() -> str:
    """The first table of hardware/power.md."""
    rows = [
        (
            b.name,
            f"{b.board_ma:.0f} mA",
            f"{b.watts:.1f} W",
            f"{b.watts + LTE_W:.1f} W",
            f"{b.watts * 24:.0f} Wh",
            f"{b.supply_a:g} A",
        )
        for b in BOARDS
    ]
    return table(("board", "bare board, maker", "post", "with LTE", "post, a day", "supply at 5.1 V"), rows)


def hold_up() -> str:
    """The second table of hardware/power.md."""
    rows = []
    for b in BOARDS:
        cap = supercap_s(farad=25.0, full_v=5.0, empty_v=3.0, watts=b.watts)
        hours = [battery_h(watt_hours=wh, watts=b.watts) for wh in (9.0, 18.0, 86.0)]
        rows.append((b.name, f"{cap:.0f} s", *(f"{h:.1f} h" for h in hours)))
    head = (
        "board",
        "two supercaps 50 F, 2.7 V, in series",
        "UPS HAT, one 18650 (9 Wh)",
        "two 18650 (18 Wh)",
        "LiFePO4 12.8 V 6.7 Ah (86 Wh)",
    )
    return table(head, rows)


def poles() -> str:
    """The third table of hardware/power.md."""
    rows = []
    for b in BOARDS[:2]:
        for place, sun_h, dark in (("coast", 3.0, 4.0), ("inland", 4.0, 3.0)):
            watts = b.watts + LTE_W
            need = solar(watts=watts, sun_h=sun_h, dark_days=dark)
            panel, battery = math.ceil(need.panel_wp / 10) * 10, math.ceil(need.battery_wh / 10) * 10
            rows.append(
                (
                    f"{b.name.split(',')[0]}, LTE",
                    place,
                    f"{watts:.1f} W",
                    f"{panel} Wp",
                    f"{battery} Wh",
                    f"{battery / 12.8:.0f} Ah",
                )
            )
    return table(("post", "place", "draws", "panel", "battery", "at 12.8 V"), rows)
