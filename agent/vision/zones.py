"""Zones: named polygons in the picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.config import ZoneSettings
from agent.errors import ConfigError
from agent.vision.geometry import Point, area, contains

_AREA_MIN = 5e-7  # of the picture


class ZoneMap:
    """Answers in which zones a point lies."""

    def __init__(self, zones: Sequence[ZoneSettings]) -> None:
        """Raises ConfigError for a name used twice and for a polygon that encloses nothing."""
        names = [zone.name for zone in zones]
        for index, zone in enumerate(zones):
            if zone.name in names[:index]:
                raise ConfigError(f"zones[{index}]: the name {zone.name!r} is taken; give each zone a name of its own")
            if area(zone.polygon) < _AREA_MIN:
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
        return tuple(name for name, polygon in self._zones if contains(polygon, x, y))
