"""Zones: named polygons in the picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config import ZoneSettings
from agent.errors import ConfigError

Point = tuple[float, float]


class ZoneMap:
    """Answers in which zones a point lies."""

    def __init__(self, zones: Sequence[ZoneSettings]) -> None:
        """Raises ConfigError for a name used twice and for a polygon that encloses nothing."""
        names = [zone.name for zone in zones]
        for index, zone in enumerate(zones):
            if zone.name in names[:index]:
                raise ConfigError(f"zones[{index}]: the name {zone.name!r} is taken; give each zone a name of its own")
            if abs(_doubled_area(zone.polygon)) < 1e-6:
                raise ConfigError(f"zones[{index}] ({zone.name}): the polygon encloses nothing; give 3 corners or more")
        self._zones = tuple((zone.name, zone.polygon) for zone in zones)

    @property
    def polygons(self) -> tuple[tuple[str, tuple[Point, ...]], ...]:
        """Name and corners of each zone, in the order of the configuration."""
        return self._zones

    def at(self, point: Point) -> tuple[str, ...]:
        """Names of the zones that contain `point`, in the order of the configuration. Zones may overlap.

        A foot at the picture's lower edge (y = 1) is just outside every polygon drawn to the edge: it is moved in.
        """
        x, y = min(max(point[0], 1e-6), 1 - 1e-6), min(max(point[1], 1e-6), 1 - 1e-6)
        return tuple(name for name, polygon in self._zones if _contains(polygon, x, y))


def _contains(polygon: Sequence[Point], x: float, y: float) -> bool:
    """Even-odd rule: a ray to the right crosses the outline an odd number of times."""
    inside = False
    x1, y1 = polygon[-1]
    for x2, y2 in polygon:
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            inside = not inside
        x1, y1 = x2, y2
    return inside


def _doubled_area(polygon: Sequence[Point]) -> float:
    """The shoelace formula, without sign taken off: self-crossing outlines may cancel, and are rare and visible."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], polygon[0]), strict=True))
