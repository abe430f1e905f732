"""Footage to headquarters at its word: what the place it goes to promises. `depot.py` is the driver.

tests/fakes/depot.py is its fake; both pass tests/contract/test_depot.py.
"""

from __future__ import annotations

from typing import Protocol

from agent import tus


class Depot(Protocol):
    """Where a station takes files. One thread; each call blocks for some seconds at most.

    Raises Transient when it cannot be had, or the file has to be offered again; Corrupt when it refuses this file.
    """

    def offer(self, footage: tus.Footage, size: int) -> int:
        """How many bytes of this file are durable there already; `size`: all, nothing is to be sent."""

    def send(self, footage: tus.Footage, offset: int, data: bytes) -> int:
        """Adds a chunk to what was offered; the new offset, durable there."""

    def close(self) -> None:
        """Lets go of the connection. Never raises."""
