"""One file on its way to the station, a chunk at a time; the station knows how much of it there is."""

from __future__ import annotations

from agent import tus
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.sending import Depot
from agent.types import Segment

READ_FAILURES_MAX = 5
CHUNK_S = 2.0
"""A chunk is what the rate gives in so long: an alert waits no longer behind it."""
CHUNK_BYTES_MIN = 16 * 1024


def chunk_bytes(bytes_per_s_max: float) -> int:
    """Of one request, at this rate."""
    return min(max(round(bytes_per_s_max * CHUNK_S), CHUNK_BYTES_MIN), tus.CHUNK_BYTES_MAX)


class Carrier:
    """One thread. Remembers nothing that a cut could cost: the file is offered again."""

    def __init__(self, disk: Disk, *, chunk_bytes: int) -> None:
        self._disk = disk
        self._chunk_bytes = chunk_bytes
        self._footage: tus.Footage | None = None
        self._unread: dict[str, int] = {}
        self.segment: Segment | None = None  # what is on its way
        self.offset = 0

    def offer(self, depot: Depot, segment: Segment, *, order: str, why: tus.Reason = "order") -> int:
        """How many bytes of it are still to go. Raises Corrupt when the station refuses it; Transient."""
        footage = tus.Footage(name=segment.name, sha256=segment.sha256, order=order, why=why)
        self.offset = depot.offer(footage, segment.bytes)
        self.segment, self._footage = segment, footage
        return segment.bytes - self.offset

    def send(self, depot: Depot) -> int:
        """Sends the next chunk of what was offered; its bytes. Raises Corrupt when this file cannot go; Transient."""
        segment, footage = self.segment, self._footage
        if segment is None or footage is None:
            return 0
        data = self._read(segment, self.offset)
        self.offset = depot.send(footage, self.offset, data)
        return len(data)

    @property
    def arrived(self) -> bool:
        """Whether the station has all of it, durably."""
        return self.segment is not None and self.offset == self.segment.bytes

    def forget(self) -> None:
        """Nothing is on its way any more."""
        self.segment = self._footage = None

    def _read(self, segment: Segment, offset: int) -> bytes:
        """The next chunk. Raises Corrupt for a file that is gone or short, or has not been readable READ_FAILURES_MAX
        times; Transient before.
        """
        count = min(self._chunk_bytes, segment.bytes - offset)
        try:
            with self._disk.open(segment.name) as file:
                file.seek(offset)
                data = file.read(count)
        except FileNotFoundError:
            raise Corrupt("it is not there any more") from None
        except (OSError, Transient) as error:
            tries = self._unread[segment.name] = self._unread.get(segment.name, 0) + 1
            if tries >= READ_FAILURES_MAX:
                del self._unread[segment.name]
                raise Corrupt(f"it cannot be read: {error}") from None
            raise Transient(f"send: {segment.name}: {error}") from None
        if len(data) < count:
            raise Corrupt("it is shorter than its record says")
        return data
