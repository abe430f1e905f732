"""The one door to OpenCV: one thread for its own pool, because the supervisor already gives each worker a thread.

OpenCV's pool starts a thread per core for a picture of 320x180: on a Pi that costs more than the work it shares and
takes the cores from the recorder.
"""

from __future__ import annotations

import cv2

cv2.setNumThreads(1)

__all__ = ["cv2"]
