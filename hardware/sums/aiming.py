"""How large a person is in the picture, and how far away one is still found.

A pinhole camera: a straight lens. Wide lenses bend, and people at the edge of their picture are smaller than this says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hardware.sums import table

PERSON_M = 1.6
CHILD_M = 1.1
SHARE_MIN = 1 / 8
"""Of the picture's height: the smallest visitor of the tests by which the node's eyes are judged (agent/DESIGN.md)."""


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens on its sensor. Millimetres; `sensor_mm` is the height of the part from which a picture of 16:9 is made."""

    name: str
    focal_mm: float
    sensor_mm: float

    @property
    def view_deg(self) -> float:
        """The vertical field of view."""
        return 2 * math.degrees(math.atan(self.sensor_mm / (2 * self.focal_mm)))


LENSES = (
    Lens("Camera Module 3 Wide", 2.75, 3.63),
    Lens("Camera Module 3", 4.74, 3.63),
    Lens("Camera Module 2 (full width of the sensor)", 3.04, 3.68 * 9 / 16),
    Lens("HQ Camera, 6 mm lens", 6.0, 6.287 * 9 / 16),
    Lens("HQ Camera, 16 mm lens", 16.0, 6.287 * 9 / 16),
    Lens("IP camera 1/2.8 inch, 2.8 mm", 2.8, 3.13),
    Lens("IP camera 1/2.8 inch, 4 mm", 4.0, 3.13),
    Lens("IP camera 1/2.8 inch, 6 mm", 6.0, 3.13),
)


def share(
    lens: Lens, *, distance_m: float, person_m: float = PERSON_M, height_m: float = 0.0, tilt_deg: float = 0.0
) -> float:
    """The share of the picture's height that a standing person takes.

    `distance_m` is along the ground, `height_m` that of the camera, `tilt_deg` how far it looks down. Nobody is cut
    off at the edge of the picture here: see `nearest_m`.
    """
    tilt = math.radians(tilt_deg)
    head = math.atan2(person_m - height_m, distance_m) + tilt
    foot = math.atan2(-height_m, distance_m) + tilt
    return (math.tan(head) - math.tan(foot)) * lens.focal_mm / lens.sensor_mm


def farthest_m(lens: Lens, *, person_m: float = PERSON_M, share_min: float = SHARE_MIN) -> float:
    """The distance at which a person takes `share_min` of the picture's height, for a camera that looks level."""
    return person_m * lens.focal_mm / (lens.sensor_mm * share_min)


def nearest_m(lens: Lens, *, height_m: float, tilt_deg: float) -> float:
    """The distance along the ground at which feet come into the picture; inf if it shows no ground."""
    down_deg = tilt_deg + lens.view_deg / 2
    return height_m / math.tan(math.radians(down_deg)) if 0 < down_deg < 90 else (0.0 if down_deg >= 90 else math.inf)


def level_tilt_deg(lens: Lens, *, height_m: float, far_m: float) -> float:
    """The tilt by which the head of a person at `far_m` stands a tenth of the picture below its upper edge."""
    head_deg = math.degrees(math.atan2(PERSON_M - height_m, far_m))
    above_deg = math.degrees(math.atan(0.8 * lens.sensor_mm / (2 * lens.focal_mm)))
    return above_deg - head_deg


def lenses() -> str:
    """The table of hardware/enclosure.md."""
    rows = [
        (
            lens.name,
            f"{lens.view_deg:.0f}",
            f"{farthest_m(lens, share_min=1 / 4):.1f} m",
            f"{farthest_m(lens):.1f} m",
            f"{farthest_m(lens, person_m=CHILD_M):.1f} m",
        )
        for lens in LENSES
    ]
    head = (
        "lens",
        "height of view, degrees",
        "1/4 of the picture, 1.6 m",
        "1/8, 1.6 m: the limit",
        "1/8, a child of 1.1 m",
    )
    return table(head, rows)


def mounting() -> str:
    """The second table of hardware/enclosure.md: one lens, three heights, aimed for its own limit."""
    lens = LENSES[1]
    far_m = farthest_m(lens)
    rows = []
    for height_m in (2.2, 3.0, 4.5):
        tilt_deg = level_tilt_deg(lens, height_m=height_m, far_m=far_m)
        near_m = nearest_m(lens, height_m=height_m, tilt_deg=tilt_deg)
        seen = [share(lens, distance_m=d, height_m=height_m, tilt_deg=tilt_deg) for d in (5.0, 10.0, far_m)]
        rows.append((f"{height_m:g} m", f"{tilt_deg:.0f} degrees", f"{near_m:.1f} m", *(f"{s:.2f}" for s in seen)))
    head = ("camera at", "tilt down", "feet seen from", "share at 5 m", "at 10 m", f"at {far_m:.1f} m")
    return table(head, rows)
