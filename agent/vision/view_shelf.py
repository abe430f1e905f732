"""Where the normal view outlives the process: one small file in the data folder, replaced whole."""

from __future__ import annotations

import logging

from agent.disk import Disk
from agent.errors import Transient
from agent.vision.view_reference import STORED_BYTES_MAX

NAME = "view.json"

log = logging.getLogger(__name__)


class ViewShelf:
    """A `view_reference.Shelf` on the data folder. `save` blocks for an fsync, once an hour; nothing here raises."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def load(self) -> bytes | None:
        """What was saved, at most one byte more than it may be; None when there is nothing or it cannot be read."""
        try:
            with self._disk.open(NAME) as file:
                return file.read(STORED_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except (Transient, OSError) as error:
            log.warning("the stored view cannot be read, it is learned anew: %s", error)
            return None

    def save(self, data: bytes) -> None:
        """Keeps `data`: after a power cut there is the old or the new, whole."""
        try:
            self._disk.replace(NAME, data, private=True)
        except Transient as error:
            log.warning("the view is not kept over a restart: %s", error)
