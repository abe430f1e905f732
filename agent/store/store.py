"""The node's memory in SQLite: sessions, time anchors, segments, gaps, events and the outbox.

WAL with synchronous=FULL: a transaction that returned survives a power cut. locking_mode=EXCLUSIVE *before* WAL: SQLite
then keeps its WAL index in memory; with the shared-memory file, a full disk would be a SIGBUS (field notes).
So one process owns the file; others ask it through `agent.local`.
"""

from __future__ import annotations

import base64
import importlib.resources
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import Clock, rfc3339
from agent.errors import Corrupt, Transient, WardpostError
from agent.types import (
    MS,
    Cause,
    EndReason,
    Event,
    Gap,
    NewId,
    Phase,
    Priority,
    Segment,
    TimeAnchor,
)

SCHEMA = "1"
_SEVERITY = {p: p.name.lower() for p in Priority}


class InUse(WardpostError):  # noqa: N818
    """Another process owns this data folder."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One undelivered event."""

    sequence: int
    priority: Priority
    kind: str
    session: int
    boot_ns: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One start of the agent."""

    session: int
    boot_id: str
    start_ns: int
    alive_ns: int
    stop: str | None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Footage that was deleted."""

    boot_id: str
    start_ns: int
    end_ns: int
    segments: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Footage:
    """How much is kept."""

    segments: int
    bytes: int
    oldest_utc_ns: int | None  # by the best time anchor of that boot


@dataclass(frozen=True, slots=True)
class Origin:
    """Who this node is, as stamped on every event."""

    site: str
    node: str
    place: str = ""

    @property
    def source(self) -> str:
        return f"wardpost/{self.site}/{self.node}"


def ignore_step(_step: str) -> None:
    """The default for `crash_point`."""


class Store:
    """One SQLite file. Any thread may call; calls are serialised and block for one transaction (usually 5 ms).

    Raises Transient when the disk refuses (full, I/O error): nothing was stored, try again later. `crash_point` is
    called before and after every commit, so that a simulator can cut the power there.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        new_id: NewId,
        origin: Origin,
        outbox_rows_max: int,
        event_rows_max: int,
        crash_point: Callable[[str], None] = ignore_step,
    ) -> None:
        self._path = path
        self._clock = clock
        self._new_id = new_id
        self._origin = origin
        self._outbox_rows_max = outbox_rows_max
        self._event_rows_max = event_rows_max
        self._crash_point = crash_point
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._outbox_rows = 0
        self.epoch = ""
        self.session = 0

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or makes the file. Raises InUse, Corrupt (the caller quarantines the file), or Transient."""
        with self._lock, self._plain("open"):
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1.0)
            try:
                db.execute("pragma locking_mode=exclusive")
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=full")
                db.execute("pragma foreign_keys=on")
                db.execute("pragma cache_size=-2000")
                db.execute("pragma journal_size_limit=4194304")
                self._db = db
                self._prepare(db)
            except BaseException:
                self._db = None
                db.close()
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Makes the tables of a new file, checks those of an old one, and loads what is kept in memory."""
        if db.execute("select count(*) from sqlite_master").fetchone()[0] == 0:
            sql = importlib.resources.files("agent.store").joinpath("schema.sql").read_text(encoding="utf-8")
            with self._transaction("create store"):
                for statement in _statements(sql):
                    db.execute(statement)
                db.executemany(
                    "insert into meta values (?, ?)",
                    [("schema", SCHEMA), ("epoch", self._new_id()), ("node", self._origin.source)],
                )
        meta = dict(db.execute("select key, value from meta"))
        if meta.get("schema") != SCHEMA or "epoch" not in meta:
            raise Corrupt(f"{self._path}: schema {meta.get('schema')!r}, this agent reads {SCHEMA!r}")
        check = db.execute("pragma quick_check(1)").fetchone()[0]
        if check != "ok":
            raise Corrupt(f"{self._path}: {check}")
        self.epoch = meta["epoch"]
        self._outbox_rows = db.execute("select count(*) from outbox").fetchone()[0]

    def close(self) -> None:
        """Checkpoints and closes. Never raises."""
        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                try:
                    db.close()
                except sqlite3.Error:
                    return  # the WAL keeps everything; the next open replays it

    @contextmanager
    def _plain(self, what: str) -> Iterator[None]:
        """Turns SQLite's errors into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InUse(
                    f"{self._path}: in use by another process; is a second agent running on this data folder?"
                ) from None
            raise Transient(f"{self._path}: cannot {what}: {error}; check the disk") from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise Corrupt(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """One durable transaction: all of it or nothing."""
        with self._lock, self._plain(what):
            if self._db is None:
                raise Transient(f"{self._path}: the store is closed")
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._crash_point(f"before commit: {what}")
                self._db.execute("commit")
            except BaseException:
                if self._db is not None and self._db.in_transaction:
                    self._db.execute("rollback")
                raise
            self._crash_point(f"after commit: {what}")

    def _query(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        with self._lock, self._plain("read"):
            if self._db is None:
                raise Transient(f"{self._path}: the store is closed")
            return self._db.execute(sql, args).fetchall()

    # -- sessions and time --------------------------------------------------------------------------------------------

    def start_session(self) -> SessionRow | None:
        """Begins a session and a time anchor; returns the one before it, or None at the first start."""
        before = self.sessions()[-1:]
        now_ns, utc = self._clock.boot_ns(), self._clock.utc()
        with self._transaction("start session") as db:
            cursor = db.execute(
                "insert into session (boot_id, start_ns, alive_ns) values (?, ?, ?)",
                (self._clock.boot_id, now_ns, now_ns),
            )
            db.execute(
                "insert or ignore into anchor values (?, ?, ?, ?, ?)",
                (self._clock.boot_id, now_ns, utc.utc_ns, utc.unc_ns, utc.source),
            )
        self.session = cursor.lastrowid or 0
        return before[0] if before else None

    def alive(self) -> None:
        """Notes that the agent lives, for whoever must explain later when it did not."""
        with self._transaction("alive") as db:
            db.execute("update session set alive_ns = ? where session = ?", (self._clock.boot_ns(), self.session))

    def stop_session(self, reason: str) -> None:
        """Notes a clean stop."""
        with self._transaction("stop session") as db:
            db.execute(
                "update session set alive_ns = ?, stop = ? where session = ?",
                (self._clock.boot_ns(), reason, self.session),
            )

    def sessions(self) -> list[SessionRow]:
        """All sessions, oldest first."""
        rows = self._query("select session, boot_id, start_ns, alive_ns, stop from session order by session")
        return [SessionRow(*row) for row in rows]

    def add_anchor(self, anchor: TimeAnchor) -> None:
        """Adds a pairing of boot time and UTC."""
        with self._transaction("anchor") as db:
            db.execute(
                "insert or ignore into anchor values (?, ?, ?, ?, ?)",
                (anchor.boot_id, anchor.boot_ns, anchor.utc_ns, anchor.unc_ns, anchor.source),
            )

    def anchors(self) -> list[TimeAnchor]:
        """All anchors, by boot and time."""
        rows = self._query("select boot_id, boot_ns, utc_ns, unc_ns, source from anchor order by boot_id, boot_ns")
        return [TimeAnchor(*row) for row in rows]

    # -- footage ------------------------------------------------------------------------------------------------------

    def add_segment(self, segment: Segment) -> None:
        """Adds a sealed segment. The file must be whole and synced: the row is the promise (invariant 2)."""
        with self._transaction("seal segment") as db:
            db.execute(
                "insert or ignore into segment values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'sealed')",
                (
                    segment.name,
                    segment.session,
                    segment.boot_id,
                    segment.start_ns,
                    segment.end_ns,
                    segment.bytes,
                    segment.fragments,
                    segment.sha256,
                    segment.end_reason.value,
                    segment.width,
                    segment.height,
                ),
            )

    def reseal(self, segment: Segment, gap: Gap) -> None:
        """Replaces the row of a segment of which only a part is left, and says why the rest is missing."""
        with self._transaction("reseal segment") as db:
            db.execute(
                "update segment set end_ns = ?, bytes = ?, fragments = ?, sha256 = ?, end_reason = ? where name = ?",
                (
                    segment.end_ns,
                    segment.bytes,
                    segment.fragments,
                    segment.sha256,
                    segment.end_reason.value,
                    segment.name,
                ),
            )
            db.execute(
                "insert or replace into gap values (?, ?, ?, ?, ?)",
                (gap.boot_id, gap.start_ns, max(gap.end_ns, gap.start_ns), gap.cause.value, gap.detail),
            )

    def adopt(self, session: SessionRow, anchor: TimeAnchor) -> None:
        """Adds a session and a time anchor that a footage file tells of and this store has lost.

        Without it a new store would number its sessions from 1 again and reuse the names of files that exist.
        """
        with self._transaction("adopt session") as db:
            db.execute(
                "insert into session values (?, ?, ?, ?, ?) on conflict (session) do update set"
                " start_ns = min(start_ns, excluded.start_ns), alive_ns = max(alive_ns, excluded.alive_ns)"
                " where boot_id = excluded.boot_id and session <> ?",
                (
                    session.session,
                    session.boot_id,
                    session.start_ns,
                    max(session.start_ns, session.alive_ns),
                    session.stop,
                    self.session,
                ),
            )
            db.execute(
                "insert or ignore into anchor values (?, ?, ?, ?, ?)",
                (anchor.boot_id, anchor.boot_ns, anchor.utc_ns, anchor.unc_ns, anchor.source),
            )

    def segments(self, *, garbage: bool = False) -> list[Segment]:
        """Sealed segments, oldest first; or those marked for deletion."""
        rows = self._query(
            "select name, session, boot_id, start_ns, end_ns, bytes, fragments, sha256, end_reason, width, height"
            " from segment where state = ? order by session, start_ns, name",
            "garbage" if garbage else "sealed",
        )
        return [Segment(*(*row[:8], EndReason(row[8]), *row[9:])) for row in rows]

    def footage(self) -> Footage:
        """Count, size and age of the sealed segments."""
        ((count, size),) = self._query("select count(*), coalesce(sum(bytes), 0) from segment where state = 'sealed'")
        oldest = self._query(
            "select a.utc_ns + (s.start_ns - a.boot_ns) from"
            " (select boot_id, start_ns from segment where state = 'sealed' order by session, start_ns limit 1) s"
            " join anchor a using (boot_id) order by a.unc_ns is null, a.unc_ns, a.boot_ns limit 1"
        )
        return Footage(count, size, oldest[0][0] if oldest else None)

    def condemn(self, names: Sequence[str], reason: str) -> None:
        """First half of a deletion: marks segments as garbage and leaves tombstones. Then unlink, then `forget`."""
        with self._transaction("condemn segments") as db:
            for name in names:
                row = db.execute(
                    "select boot_id, start_ns, end_ns, bytes from segment where name = ? and state = 'sealed'", (name,)
                ).fetchone()
                if row is None:
                    continue
                db.execute("update segment set state = 'garbage' where name = ?", (name,))
                _bury(db, *row, reason=reason)

    def forget(self, names: Sequence[str]) -> None:
        """Second half of a deletion: the files are gone for good."""
        with self._transaction("forget segments") as db:
            db.executemany("delete from segment where name = ? and state = 'garbage'", [(name,) for name in names])

    def tombstones(self) -> list[Tombstone]:
        """What was deleted."""
        rows = self._query("select boot_id, start_ns, end_ns, segments, bytes, reason from tombstone order by 1, 2")
        return [Tombstone(*row) for row in rows]

    def add_gap(self, gap: Gap) -> None:
        """Explains a stretch without footage."""
        with self._transaction("gap") as db:
            db.execute(
                "insert or replace into gap values (?, ?, ?, ?, ?)",
                (gap.boot_id, gap.start_ns, max(gap.end_ns, gap.start_ns), gap.cause.value, gap.detail),
            )

    def gaps(self) -> list[Gap]:
        """All explained stretches, by boot and time."""
        rows = self._query("select boot_id, start_ns, end_ns, cause, detail from gap order by boot_id, start_ns")
        return [Gap(row[0], row[1], row[2], Cause(row[3]), row[4]) for row in rows]

    # -- events and outbox --------------------------------------------------------------------------------------------

    def commit(self, events: Sequence[Event]) -> list[int]:
        """Stores events and their outbox rows in one transaction; returns their sequence numbers.

        A thumbnail becomes a message of its own behind the event: an alert never waits for its picture. When the
        outbox is full, the least important rows make room, and the loss is on record (see `_make_room`).
        """
        sequences: list[int] = []
        with self._transaction("commit events") as db:
            (last,) = db.execute("select coalesce(max(sequence), 0) from event").fetchone()
            added = 0
            for event in events:
                parts: list[tuple[str, Priority, bytes | None]] = [(event.kind.value, event.priority, None)]
                if event.thumbnail is not None:
                    parts.append(("thumbnail", Priority.THUMBNAIL, event.thumbnail))
                for kind, priority, jpeg in parts:
                    last += 1
                    message = self._message(event, last, kind, priority, jpeg)
                    db.execute(
                        "insert into event values (?, ?, ?, ?, ?, ?, ?, ?)",
                        (
                            last,
                            message.id,
                            event.incident,
                            kind,
                            event.phase.value,
                            self.session,
                            event.boot_ns,
                            wire.encode(message),
                        ),
                    )
                    db.execute("insert into outbox values (?, ?)", (int(priority), last))
                    sequences.append(last)
                    added += 1
            rows = self._outbox_rows + added
            if rows > self._outbox_rows_max:
                rows -= self._make_room(db, rows - self._outbox_rows_max)
            if last % 256 < added:  # now and then: the table may exceed its bound by as much
                db.execute(
                    "delete from event where sequence <= ? and sequence not in (select sequence from outbox)",
                    (last - self._event_rows_max,),
                )
        self._outbox_rows = rows
        return sequences

    def _message(
        self, event: Event, sequence: int, kind: str, priority: Priority, jpeg: bytes | None
    ) -> wire.CloudEvent:
        now_ns, utc = self._clock.boot_ns(), self._clock.utc()
        at = rfc3339(utc.utc_ns - (now_ns - event.boot_ns))
        since = None if event.since_ns is None else rfc3339(utc.utc_ns - (now_ns - event.since_ns))
        box = None if event.box is None else event.box.clipped().as_list()
        return wire.CloudEvent(
            id=self._new_id(),
            source=self._origin.source,
            type=f"wardpost.{kind}",
            subject=event.incident,
            time=at,
            epoch=self.epoch,
            sequence=sequence,
            session=self.session,
            bootid=self._clock.boot_id,
            monons=event.boot_ns,
            timeerrms=None if utc.unc_ns is None else -(-utc.unc_ns // MS),
            data=wire.EventData(
                incident=event.incident,
                phase=event.phase.value,
                severity=_SEVERITY[priority],  # type: ignore[arg-type]
                summary=event.summary[:500],
                place=self._origin.place[:200],
                label=None if event.label is None else event.label.value,
                score=None if event.score is None else round(event.score, 3),
                box=box,
                zones=list(event.zones),
                since=since,
                jpeg=None if jpeg is None else base64.b64encode(jpeg).decode("ascii"),
            ),
        )

    def _make_room(self, db: sqlite3.Connection, excess: int) -> int:
        """Gives up undelivered rows: least important class first, oldest first within a class. Returns how many."""
        dropped = 0
        for priority in sorted(Priority, reverse=True):
            if dropped >= excess:
                break
            rows = db.execute(
                "select sequence from outbox where priority = ? order by sequence limit ?",
                (int(priority), excess - dropped),
            ).fetchall()
            if not rows:
                continue
            db.executemany(
                "delete from outbox where priority = ? and sequence = ?", [(int(priority), s) for (s,) in rows]
            )
            db.execute(
                "insert or replace into shed values (?, ?, ?, ?, ?, ?, ?)",
                (
                    self._clock.boot_ns(),
                    self.session,
                    int(priority),
                    rows[0][0],
                    rows[-1][0],
                    len(rows),
                    f"outbox full at {self._outbox_rows_max} rows",
                ),
            )
            dropped += len(rows)
        return dropped

    def pending(self, limit: int) -> list[OutboxRow]:
        """The most urgent undelivered rows: by priority, oldest first."""
        rows = self._query(
            "select o.sequence, o.priority, e.kind, e.session, e.boot_ns, e.body"
            " from outbox o join event e using (sequence) order by o.priority, o.sequence limit ?",
            limit,
        )
        return [OutboxRow(row[0], Priority(row[1]), *row[2:]) for row in rows]

    def acknowledge(self, stored: Sequence[tuple[int, int]]) -> int:
        """Deletes the outbox rows that the station has committed. Returns how many there were."""
        deleted = 0
        with self._transaction("acknowledge") as db:
            for priority in Priority:
                deleted += db.executemany(  # its rowcount is the sum
                    "delete from outbox where priority = ? and sequence between ? and ?",
                    [(int(priority), low, high) for low, high in stored],
                ).rowcount
        self._outbox_rows -= deleted
        return deleted

    @property
    def outbox_rows(self) -> int:
        """How many rows wait for the station. Costs nothing."""
        return self._outbox_rows

    def oldest_pending_ns(self) -> int | None:
        """When the oldest undelivered event of this session happened."""
        rows = self._query(
            "select min(e.boot_ns) from outbox o join event e using (sequence) where e.session = ?", self.session
        )
        found: int | None = rows[0][0]
        return found

    def shed_rows(self) -> int:
        """How many rows were ever given up undelivered."""
        return int(self._query("select coalesce(sum(rows), 0) from shed")[0][0])

    def open_incidents(self) -> list[wire.CloudEvent]:
        """The last message of every incident that an earlier session began and never ended."""
        rows = self._query(
            "select body from event where sequence in"
            " (select max(sequence) from event where kind <> 'thumbnail' group by incident"
            " having sum(phase = 'ended') = 0 and min(session) < ?) order by sequence",
            self.session,
        )
        return [wire.decode(bytes(row[0]), wire.CloudEvent) for row in rows]

    def events(self, limit: int) -> list[wire.CloudEvent]:
        """The newest events, newest first, thumbnails left out."""
        rows = self._query("select body from event where kind <> 'thumbnail' order by sequence desc limit ?", limit)
        return [wire.decode(bytes(row[0]), wire.CloudEvent) for row in rows]


def _bury(db: sqlite3.Connection, boot_id: str, start_ns: int, end_ns: int, size: int, *, reason: str) -> None:
    """Adds a tombstone, merged with the one it touches: retention deletes in order of age, one row a boot."""
    row = db.execute(
        "select start_ns, end_ns, segments, bytes from tombstone where boot_id = ? and reason = ? and start_ns <= ?"
        " and end_ns >= ? - 2000000000 order by start_ns desc limit 1",
        (boot_id, reason, start_ns, start_ns),
    ).fetchone()
    if row is None:
        db.execute(
            "insert or replace into tombstone values (?, ?, ?, 1, ?, ?)", (boot_id, start_ns, end_ns, size, reason)
        )
    else:
        db.execute(
            "update tombstone set end_ns = ?, segments = ?, bytes = ? where boot_id = ? and start_ns = ?",
            (max(row[1], end_ns), row[2] + 1, row[3] + size, boot_id, row[0]),
        )


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would commit behind our back."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def phase_of(event: wire.CloudEvent) -> Phase:
    """The phase of a stored event."""
    return Phase(event.data.phase)
