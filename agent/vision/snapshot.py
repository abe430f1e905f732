"""One whole picture on request, out of the running node: for `wardpost zones`.

Nothing is encoded until somebody asks; then the next frame that vision looks at is kept as a JPEG. What the privacy
switch or a mask hides is not in those frames.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from typing import Any

from agent.errors import Transient
from agent.types import FULL, Box, Detection, Frame
from agent.vision import thumbnail
from agent.vision.tracker import Track

SIDE_PX_MAX = 1280
BYTES_MAX = 1 << 20


class Snapshots:
    """`seen` is called from the vision thread, `ask` from any other."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._last: tuple[int, bytes] = (0, b"")  # how many were taken, and the newest; replaced as one

    def seen(self, frame: Frame, _motion: list[Box], _found: list[Detection], _tracks: Sequence[Track]) -> None:
        """VisionWorker's observer. Costs nothing unless somebody waits; then one crop and one JPEG, some 20 ms."""
        if not self._wanted.is_set():
            return
        try:
            picture = thumbnail.jpeg(frame.crop(FULL, SIDE_PX_MAX), bytes_max=BYTES_MAX)
        except Transient:
            return  # the next frame will do
        if picture is not None:
            self._last = (self._last[0] + 1, picture)
            self._wanted.clear()

    def ask(self, args: dict[str, Any]) -> dict[str, Any]:
        """Without `after` asks for a new picture; with it gives the one taken after so many, if there is one yet.

        `{"taken": how many were taken, "jpeg": base64, empty when not yet}`. Never blocks.
        """
        taken, picture = self._last
        after = args.get("after")
        if not isinstance(after, int):
            self._wanted.set()
            return {"taken": taken, "jpeg": ""}
        return {"taken": taken, "jpeg": base64.b64encode(picture).decode() if taken > after else ""}
