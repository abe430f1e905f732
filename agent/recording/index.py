"""What recording needs of the index: a part of the Store, so that each worker can be given exactly that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from agent.store.store import SessionRow, Tombstone
from agent.types import Gap, Hold, Segment, Sign, TimeAnchor

FOLDER = "segments"
"""Where segments lie below the data folder."""


class Catalog(Protocol):
    """What is known about footage, read only: the Store of a node that does not run, or a running node's answer."""

    def sessions(self) -> list[SessionRow]: ...

    def anchors(self) -> list[TimeAnchor]: ...

    def segments(self, *, garbage: bool = False) -> list[Segment]: ...

    def gaps(self) -> list[Gap]: ...

    def tombstones(self) -> list[Tombstone]: ...

    def signs(self) -> list[Sign]: ...

    def holds(self) -> list[Hold]: ...


class Ledger(Protocol):
    """Where the recorder writes down what it did. Raises Transient when nothing was stored."""

    def add_segment(self, segment: Segment) -> None: ...

    def add_gap(self, gap: Gap) -> None: ...


class Index(Catalog, Ledger, Protocol):
    """What recovery and retention need besides."""

    @property
    def footage_bytes(self) -> int: ...

    def condemn(self, names: Sequence[str], reason: str) -> None: ...

    def forget(self, names: Sequence[str]) -> None: ...

    def reseal(self, segment: Segment, gap: Gap) -> None: ...

    def adopt(self, session: SessionRow, anchor: TimeAnchor) -> None: ...
