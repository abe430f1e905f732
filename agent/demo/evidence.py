"""What is left when everything has stopped: rows of both databases and bytes of files, gathered without judging."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from agent import wire
from agent.boot import STORE_NAME
from agent.clock import Clock
from agent.disk import PosixDisk
from agent.errors import Corrupt, Transient
from agent.local import catalog_of
from agent.recording.coverage import Stretch
from agent.recording.footage import survey
from agent.station.db.engine import FILE
from agent.types import Segment


@dataclass(frozen=True, slots=True)
class Committed:
    """One message that the node committed."""

    sequence: int
    id: str
    incident: str
    kind: str
    phase: str
    session: int
    boot_ns: int


@dataclass(frozen=True, slots=True)
class Story:
    """What was done, in CLOCK_BOOTTIME ns, and what the terminal showed."""

    began_ns: int  # the node recorded by then
    cut_ns: int
    restored_ns: int
    killed_ns: int
    stopped_ns: int
    shown: Sequence[str]  # ids of the events in the order in which a person saw them


@dataclass(frozen=True, slots=True)
class Received:
    """One message that the station stored, and when, in CLOCK_BOOTTIME ns of this machine."""

    event: wire.CloudEvent
    at_ns: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that the checks look at."""

    story: Story
    committed: Sequence[Committed]
    undelivered: int  # rows in the node's outbox
    given_up: int  # rows that the node dropped for lack of room
    received: Sequence[Received]  # in order of arrival
    refused: int  # messages that the station refused
    segments: Sequence[Segment]
    sha256: dict[str, str]  # of each segment's file, as it is on the disk now; empty text: no such file
    coverage: Sequence[Stretch]  # from began_ns to stopped_ns
    clip_frames: int  # decoded from the extracted clip
    clip_s: float
    picture: Path | None = None
    trouble: Sequence[str] = field(default_factory=tuple)  # what could not be gathered, a line each


def committed_of(node: Path) -> tuple[list[Committed], int, int]:
    """Events that a stopped node committed, how many of them are undelivered, and how many rows it ever gave up.

    Lines of the ledger travel through the same outbox, but are no events: one about the stop itself waits for the next
    start, and each leaves the node's store when it has been delivered.
    """
    with closing(_read_only(node / STORE_NAME)) as db:
        rows = db.execute(
            "select sequence, id, incident, kind, phase, session, boot_ns from event where kind <> 'record'"
            " order by sequence"
        )
        events = [Committed(*row) for row in rows]
        (undelivered,) = db.execute(
            "select count(*) from outbox join event using (sequence) where kind <> 'record'"
        ).fetchone()
        (given_up,) = db.execute("select coalesce(sum(rows), 0) from shed").fetchone()
    return events, undelivered, given_up


def received_of(station: Path, clock: Clock) -> tuple[list[Received], int]:
    """What a station stored, in order of arrival, and how many messages it refused."""
    with closing(_read_only(station / FILE)) as db:
        rows = db.execute("select received_utc_ns, body from event order by n").fetchall()
        (refused,) = db.execute("select count(*) from reject").fetchone()
    offset_ns = clock.utc().utc_ns - clock.boot_ns()
    return [Received(wire.decode(bytes(body), wire.CloudEvent), utc_ns - offset_ns) for utc_ns, body in rows], refused


def footage_of(node: Path, *, clock: Clock, start_ns: int, end_ns: int) -> tuple[list[Segment], list[Stretch]]:
    """The segments of a stopped node, and the coverage of a stretch of this boot."""
    catalog = catalog_of(node, clock)
    offset_ns = clock.utc().utc_ns - clock.boot_ns()
    stretches, segments, _timeline = survey(
        disk=PosixDisk(node), catalog=catalog, start_utc_ns=start_ns + offset_ns, end_utc_ns=end_ns + offset_ns
    )
    return segments, stretches


def sha256_of(path: Path) -> str:
    """Of a file; empty text when there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def decoded(clip: Path) -> tuple[int, float]:
    """Frames and seconds of a clip, by decoding all of it as a player would."""
    import av

    try:
        with av.open(str(clip)) as source:
            stream = source.streams.video[0]
            times = [frame.time for frame in source.decode(stream) if frame.time is not None]
    except (av.FFmpegError, IndexError, OSError) as error:
        raise Corrupt(f"{clip}: cannot be played: {error}") from None
    return len(times), (max(times) - min(times)) if times else 0.0


def _read_only(path: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise Transient(f"{path}: cannot be read: {error}") from None
