"""The Camera protocol: a source of frames to look at and of access units to keep.

A driver is one file that implements `Camera`. It owns whatever threads its library wants, but gives everything
through `read`, on the thread of the camera worker: callbacks of a camera library copy, append to a bounded deque
and return. They never raise (an exception in picamera2's event loop kills it for good).
"""

from __future__ import annotations

from typing import Protocol

from agent.errors import NeedsRestart, Transient
from agent.types import Frame, Packet


class CameraLost(Transient):
    """The camera stalled, vanished or sent rubbish. The worker reports it and opens the camera again."""


class CameraStuck(CameraLost, NeedsRestart):
    """The camera's library hangs inside this process. Opening again cannot help: only a new process does."""


class EndOfFootage(CameraLost):
    """A file has been read to its end. Replay stops here."""


class Camera(Protocol):
    """One camera. All methods are called from one thread."""

    name: str  # for messages: the driver and the source, without passwords

    def open(self) -> None:
        """Starts the source. Blocks 10 s at most. Raises CameraLost (try again) or ConfigError (it never will)."""

    def read(self, timeout_s: float) -> list[Frame | Packet]:
        """What has arrived since the last call, oldest first; waits at most about `timeout_s` for the first item.

        An empty list means that nothing came in time. Packets carry every access unit of the source in decoding
        order; frames come at the analysis rate. Raises CameraLost.
        """

    def close(self) -> None:
        """Stops the source. May be called at any time, also twice; never raises."""
