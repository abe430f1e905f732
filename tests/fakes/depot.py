"""A station's depot in memory: `agent.sending.Depot`. It keeps what was acknowledged, whatever becomes of the sender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent import tus
from agent.errors import Corrupt, Transient


def nothing(_what: str) -> None:
    """The default for `before`."""


@dataclass
class FakeDepot:
    """`before` is called ahead of each request and may raise Transient, Corrupt or PowerCut; `after` behind its effect."""

    before: Callable[[str], None] = nothing
    after: Callable[[str], None] = nothing
    refused: set[str] = field(default_factory=set)  # names
    files: dict[str, bytearray] = field(default_factory=dict)  # sha256 -> bytes
    sizes: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)  # sha256 -> as what it was offered
    chunks: list[tuple[str, int, int]] = field(default_factory=list)  # name, offset, length: in the order of coming
    closed: int = 0

    def offer(self, footage: tus.Footage, size: int) -> int:
        self.before(f"offer {footage.name}")
        if footage.name in self.refused:
            raise Corrupt("the station refuses it: 413")
        if self.sizes.setdefault(footage.sha256, size) != size:
            raise Transient("send: the station answers 409")
        self.names.setdefault(footage.sha256, []).append(footage.name)
        here = len(self.files.setdefault(footage.sha256, bytearray()))
        self.after(f"offer {footage.name}")
        return here

    def send(self, footage: tus.Footage, offset: int, data: bytes) -> int:
        self.before(f"send {footage.name}")
        here = self.files.get(footage.sha256)
        if here is None or offset != len(here):
            raise Transient("send: the station answers 409")
        if offset + len(data) > self.sizes[footage.sha256]:
            raise Corrupt("the station refuses it: 413")
        here += data
        self.chunks.append((footage.name, offset, len(data)))
        self.after(f"send {footage.name}")
        return len(here)

    def close(self) -> None:
        self.closed += 1
