"""Is a file what its node has recorded? Decided from facts alone; `uploads_clerk.py` gathers them and acts.

The hash on the ledger is that of the whole file, and a file of this recorder carries the hash of each of its fragments:
so one equal hash answers for every fragment, and where it is not equal the fragments say from which second on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO

from agent.evidence import standalone

CHUNK_BYTES = 1 << 20
TIME_NS_MAX = 1 << 62
"""146 years: what a node may say of a time, so that two of them can be added up in any database."""
_SOURCE = re.compile(r"[\x21-\x7e]{1,200}")
_BOOT_ID = re.compile(r"[0-9a-f]{32}")


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
    recorded: str = ""  # of a mismatch: the hash by the node's own word; empty: it has not told one


def examine(source: BinaryIO, size: int) -> Arrived:
    """Reads a file once for its hash and once for its fragments. Never raises for what it holds. Raises OSError."""
    digest = hashlib.sha256()
    source.seek(0)
    while data := source.read(CHUNK_BYTES):
        digest.update(data)
    seen = standalone.scan(standalone.View(source, 0, size))
    end_ns = max((fragment.end_ns for fragment in seen.fragments), default=None)
    about = _about(seen.header, end_ns)
    problem = seen.problem
    if about is None:
        about = _About("", "", 0, 0, None)
        problem = problem or "its header or its times are not what a file of this recorder has"
    return Arrived(
        sha256=digest.hexdigest(),
        bytes=size,
        source=about.source,
        boot_id=about.boot_id,
        start_ns=about.start_ns,
        end_ns=about.end_ns,
        utc_ns=about.utc_ns,
        sealed=bool(seen.header.get("sealed")),
        problem=problem,
    )


@dataclass(frozen=True, slots=True)
class _About:
    source: str
    boot_id: str
    start_ns: int
    end_ns: int
    utc_ns: int | None


def _about(header: dict[str, Any], end_ns: int | None) -> _About | None:
    """What a file says of itself; None for what no file of this recorder says. `end_ns`: of its last fragment."""
    source, boot_id, start, utc = (header.get(name) for name in ("source", "boot_id", "start_ns", "utc_ns"))
    if not (isinstance(source, str) and isinstance(boot_id, str) and isinstance(start, int) and _time(start)):
        return None
    if not (_SOURCE.fullmatch(source) and _BOOT_ID.fullmatch(boot_id)):
        return None
    end = start if end_ns is None else end_ns
    if not start <= end <= TIME_NS_MAX:
        return None
    if utc is None:
        return _About(source, boot_id, start, end, None)
    return _About(source, boot_id, start, end, utc) if isinstance(utc, int) and _time(utc) else None


def judge(arrived: Arrived, *, source: str, announced: str, lines: Sequence[Recorded]) -> Finding:
    """`source`: whose footage it must be; `lines`: those with this file's hash, and those with its beginning."""
    same = next((line for line in lines if line.sha256 == arrived.sha256), None)
    damage = f": {arrived.problem}" if arrived.problem else ""
    if arrived.sha256 != announced:
        also = f"; it is what record {same.seq} says" if same is not None else ""
        text = f"announced as {announced[:16]}..., it is {arrived.sha256[:16]}...{also}{damage}"
        return Finding(State.MISMATCH, detail=text, recorded=announced)
    if same is not None:
        return Finding(State.VERIFIED, same.root, same.seq)
    if arrived.problem:
        return Finding(State.MISMATCH, detail=f"no record knows it, and it does not prove itself{damage}")
    if arrived.source != source:
        return Finding(State.MISMATCH, detail=f"no record knows it, and its header names {arrived.source[:80]!r}")
    if lines:
        other = lines[0]
        text = f"record {other.seq} says of the file that begins there: {other.sha256[:16]}..., it is"
        text = f"{text} {arrived.sha256[:16]}..."
        return Finding(State.MISMATCH, other.root, other.seq, text, recorded=other.sha256)
    return Finding(State.PENDING)


def _time(value: int) -> bool:
    return not isinstance(value, bool) and 0 <= value <= TIME_NS_MAX
