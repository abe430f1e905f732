"""How much warmer it gets in a closed box."""

from __future__ import annotations

from hardware.sums import table

PLASTIC_W_M2K = 3.5
STEEL_W_M2K = 5.5
"""Heat that the walls of a closed box give off: rules of thumb of cabinet makers, without wind."""


def rise_k(*, watts: float, sun_w: float = 0.0, area_m2: float, wall: float = PLASTIC_W_M2K) -> float:
    """Kelvin above the air outside. `area_m2` are the walls that air can reach, `sun_w` what the sun leaves in them."""
    return (watts + sun_w) / (wall * area_m2)


def sun_w(*, area_m2: float, absorbed: float) -> float:
    """What the sun at noon (1 kW/m2) leaves in the wall that it meets. `absorbed`: 0.3 white, 0.9 black."""
    return 1000 * area_m2 * absorbed


def boxes() -> str:
    """The first table of hardware/enclosure.md: a box of 200 x 150 x 100 mm at a wall, with a Pi 4."""
    area_m2, lid_m2, air_c = 0.10, 0.03, 38.0
    rows = []
    for name, lit in (
        ("in the shade", 0.0),
        ("sun on a white lid", sun_w(area_m2=lid_m2, absorbed=0.3)),
        ("sun on a black lid", sun_w(area_m2=lid_m2, absorbed=0.9)),
    ):
        inside = [air_c + rise_k(watts=4.6, sun_w=lit, area_m2=area_m2, wall=w) for w in (PLASTIC_W_M2K, STEEL_W_M2K)]
        rows.append((name, *(f"{c:.0f} °C" for c in inside)))
    return table(("inside the box at 38 °C of air", "plastic", "painted steel or aluminium"), rows)
