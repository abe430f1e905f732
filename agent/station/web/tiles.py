"""Pictures behind the map of posts: a folder z/x/y.png on the station's disk, in the common numbering (Web Mercator,
256 pixels, y from the north). The station fetches nothing from anywhere; who made the pictures is told on the map.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from agent.errors import ConfigError

ZOOM_MAX = 19
TILE_BYTES_MAX = 1_000_000
PNG = b"\x89PNG\r\n\x1a\n"


class Tiles:
    """Any thread. Which zooms there are is looked at once, at the start."""

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError for a folder without tiles."""
        try:
            self._root = folder.resolve(strict=True)
            found = sorted(int(one.name) for one in self._root.iterdir() if one.name in _ZOOMS)
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"web.tiles: {folder}: {error}") from None
        if not found:
            raise ConfigError(f"web.tiles: {folder} has no folders 0 to {ZOOM_MAX} with tiles z/x/y.png in them")
        self.zoom_min, self.zoom_max = found[0], found[-1]

    def read(self, zoom: int, x: int, y: int) -> bytes | None:
        """One PNG. None: there is none, or what lies there is none, leads out of the folder or is too big. Blocks."""
        if not (0 <= zoom <= ZOOM_MAX and 0 <= x < 1 << zoom and 0 <= y < 1 << zoom):
            return None
        try:
            path = (self._root / str(zoom) / str(x) / f"{y}.png").resolve(strict=True)
            if not path.is_relative_to(self._root):
                return None
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode) or facts.st_size > TILE_BYTES_MAX:
                    return None
                data = file.read(TILE_BYTES_MAX)
        except (OSError, RuntimeError):
            return None
        return data if data.startswith(PNG) else None


_ZOOMS = frozenset(str(zoom) for zoom in range(ZOOM_MAX + 1))
