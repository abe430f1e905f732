"""Is a file what its node has recorded? Decided from facts alone; `uploads_clerk.py` gathers them and acts.

The hash on the ledger is that of the whole file, and a file of this recorder carries the hash of each of its fragments:
so one equal hash answers for every fragment, and where it is not equal the fragments say from which second on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from agent.evidence import standalone

CHUNK_BYTES = 1 << 20


class State(StrEnum):
    """What came of the comparison."""

    VERIFIED = "verified"
    PENDING = "pending"  # the ledger's line is not here yet
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file by its own content. Without a header `boot_id` is empty and the times are 0 or None."""

    sha256: str
    bytes: int
    source: str  # wardpost/<site>/<node>
    boot_id: str
    start_ns: int
    end_ns: int
    utc_ns: int | None  # the node's clock at start_ns
    sealed: bool
    problem: str  # from where on it does not prove itself; empty: it does


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line of the node's ledger about a file with this hash, or with this beginning."""

    root: str
    seq: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a file is."""

    state: State
    root: str = ""
    seq: int = 0
    detail: str = ""


def examine(source: BinaryIO, size: int) -> Arrived:
    """Reads a file once for its hash and once for its fragments. Never raises for what it holds. Raises OSError."""
    digest = hashlib.sha256()
    source.seek(0)
    while data := source.read(CHUNK_BYTES):
        digest.update(data)
    seen = standalone.scan(standalone.View(source, 0, size))
    about = _about(seen.header)
    problem = seen.problem
    if about is None:
        about = _About("", "", 0, None)
        problem = problem or "its header lacks what a file of this recorder has"
    end_ns = max((fragment.end_ns for fragment in seen.fragments), default=about.start_ns)
    return Arrived(
        sha256=digest.hexdigest(),
        bytes=size,
        source=about.source,
        boot_id=about.boot_id,
        start_ns=about.start_ns,
        end_ns=end_ns if about.boot_id else 0,
        utc_ns=about.utc_ns,
        sealed=bool(seen.header.get("sealed")),
        problem=problem,
    )


@dataclass(frozen=True, slots=True)
class _About:
    source: str
    boot_id: str
    start_ns: int
    utc_ns: int | None


def _about(header: dict[str, Any]) -> _About | None:
    """What a file says of itself; None for what no file of this recorder says."""
    source, boot_id, start, utc = (header.get(name) for name in ("source", "boot_id", "start_ns", "utc_ns"))
    if not (isinstance(source, str) and isinstance(boot_id, str) and len(boot_id) == 32 and _whole(start)):
        return None
    return _About(source, boot_id, int(str(start)), int(str(utc)) if _whole(utc) else None)


def judge(arrived: Arrived, *, source: str, announced: str, lines: Sequence[Recorded]) -> Finding:
    """`source`: whose footage it must be; `lines`: those with this file's hash, and those with its beginning."""
    same = next((line for line in lines if line.sha256 == arrived.sha256), None)
    damage = f": {arrived.problem}" if arrived.problem else ""
    if arrived.sha256 != announced:
        also = f"; it is what record {same.seq} says" if same is not None else ""
        text = f"announced as {announced[:16]}..., it is {arrived.sha256[:16]}...{also}{damage}"
        return Finding(State.MISMATCH, detail=text)
    if same is not None:
        return Finding(State.VERIFIED, same.root, same.seq)
    if arrived.problem:
        return Finding(State.MISMATCH, detail=f"no record knows it, and it does not prove itself{damage}")
    if arrived.source != source:
        return Finding(State.MISMATCH, detail=f"no record knows it, and its header names {arrived.source[:80]!r}")
    if lines:
        other = lines[0]
        text = f"record {other.seq} says of the file that begins there: {other.sha256[:16]}..., it is"
        return Finding(State.MISMATCH, other.root, other.seq, f"{text} {arrived.sha256[:16]}...")
    return Finding(State.PENDING)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
