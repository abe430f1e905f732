"""Files of one session that follow each other, as one thing: what a day of footage mostly is. Pure.

The coverage of a day is decided from a handful of runs instead of thousands of files, with the same answer
(agent/recording/coverage.py).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from agent.types import NS, EndReason, Segment

ROLL_NS_MAX = NS
"""Between two files of which the first was rolled, nothing is missing: frame times jitter."""
DIGEST_BYTES = 32
_NO_DIGEST = bytes(DIGEST_BYTES)
_WHOLE_MAX = 2**63


@dataclass(frozen=True, slots=True)
class Run:
    """One file or more; each but the last was rolled into the next, which begins where it ends, ROLL_NS_MAX later at
    most. Of several, none is empty. Times are CLOCK_BOOTTIME ns of `boot_id`.
    """

    session: int
    boot_id: str
    starts_ns: array[int]
    ends_ns: array[int]
    digests: bytes  # DIGEST_BYTES of each file; zeros for one whose row has none
    end_reason: EndReason  # of the last

    @property
    def start_ns(self) -> int:
        return self.starts_ns[0]

    @property
    def end_ns(self) -> int:
        return self.ends_ns[-1]

    def __len__(self) -> int:
        return len(self.starts_ns)

    def part(self, first: int, last: int) -> Run:
        """Files `first` up to, and without, `last`; one at least."""
        return Run(
            self.session,
            self.boot_id,
            self.starts_ns[first:last],
            self.ends_ns[first:last],
            self.digests[first * DIGEST_BYTES : last * DIGEST_BYTES],
            self.end_reason if last == len(self) else EndReason.ROLLED,
        )

    def touching(self, start_ns: int, end_ns: int) -> tuple[int, int]:
        """First and behind the last of the files with a part in `[start_ns, end_ns)`; the same: none."""
        first = bisect_right(self.ends_ns, start_ns)
        return first, max(bisect_left(self.starts_ns, end_ns), first)

    def sha256(self, first: int = 0, last: int | None = None) -> Iterator[str]:
        """Digests of those files, in hex."""
        for at in range(first, len(self) if last is None else last):
            yield self.digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES].hex()


def runs_of(segments: Iterable[Segment]) -> list[Run]:
    """Those that follow each other put together; in the order given. Of numbers that `fits` takes."""
    found: list[Run] = []
    going: list[Segment] = []
    for segment in segments:
        if going and not _follows(going[-1], segment):
            found.append(_run(going))
            going = []
        going.append(segment)
    return [*found, _run(going)] if going else found


def fits(segment: Segment) -> bool:
    """Whether a run can hold its times: a post may have said any."""
    return -_WHOLE_MAX <= segment.start_ns < _WHOLE_MAX and -_WHOLE_MAX <= segment.end_ns < _WHOLE_MAX


def _follows(one: Segment, following: Segment) -> bool:
    return (
        one.session == following.session
        and one.boot_id == following.boot_id
        and one.end_reason is EndReason.ROLLED
        and one.start_ns < one.end_ns <= following.start_ns < following.end_ns
        and following.start_ns - one.end_ns <= ROLL_NS_MAX
    )


def _run(files: Sequence[Segment]) -> Run:
    return Run(
        files[0].session,
        files[0].boot_id,
        array("q", [one.start_ns for one in files]),
        array("q", [one.end_ns for one in files]),
        b"".join([_digest(one.sha256) for one in files]),
        files[-1].end_reason,
    )


def _digest(sha256: str) -> bytes:
    """As bytes; what is no digest is one that no file has."""
    with suppress(ValueError):
        raw = bytes.fromhex(sha256)
        if len(raw) == DIGEST_BYTES and raw.hex() == sha256:
            return raw
    return _NO_DIGEST
