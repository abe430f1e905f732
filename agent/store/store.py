"""The node's memory in SQLite: sessions, time anchors, segments, gaps, events and the outbox.

WAL with synchronous=FULL: a transaction that returned survives a power cut. locking_mode=EXCLUSIVE *before* WAL: SQLite
then keeps its WAL index in memory; with the shared-memory file, a full disk would be a SIGBUS (field notes).
So one process owns the file; others ask it through `agent.local`.
"""

from __future__ import annotations

import base64
import importlib.resources
import json
import re
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent import wire
from agent.clock import Clock, rfc3339
from agent.errors import ConfigError, Corrupt, Transient, WardpostError
from agent.evidence import records
from agent.evidence.records import Fact, LedgerLine, LedgerMark, RecordKind
from agent.store import rebuild
from agent.store.trim import trim
from agent.transaction import statements
from agent.types import (
    MS,
    NS,
    PATH_POINTS_MAX,
    Cause,
    Curtain,
    EndReason,
    Event,
    Gap,
    Hold,
    Kind,
    NewId,
    Phase,
    Priority,
    Segment,
    Sign,
    TimeAnchor,
    Verdict,
)

SCHEMA = "3"
UPGRADES = {"1": "upgrade_1_to_2.sql", "2": "upgrade_2_to_3.sql"}
"""Scripts that bring an older schema one step further, each in one transaction."""
RECORD_ROWS_MAX = 20_000
"""Facts that wait for the ledger. Beyond that a fact is kept as ever, and only counted in one `overflow` record."""
HOLD_ROWS_MAX = 1000
HOLD_MEMORY_NS = 62 * 86_400 * NS
"""So long a released hold is remembered: twice what a command for one may live (uplink.commands)."""
SIGN_ROWS_MAX = 20_000
VERDICT_ROWS_MAX = 20_000
"""The oldest give way: 600 a day for as long as a command for one may be repeated (uplink.commands)."""
SIGHTING_ROWS_MAX = 20_000
TELLING_ROWS_MAX = 5000
TELLING_KINDS = (Kind.MAINS, Kind.CAMERA, Kind.STORAGE)
"""Events that explain a gap."""
WATCHED_KINDS = (Kind.PERSON, Kind.VEHICLE, Kind.BICYCLE, Kind.ANIMAL, Kind.MOTION, Kind.BELL, Kind.TAMPER, Kind.MAINS)
"""Events around which footage is worth more than ordinary footage."""
SEEN_KINDS = (Kind.PERSON, Kind.VEHICLE, Kind.BICYCLE, Kind.ANIMAL, Kind.MOTION)
"""Events of what the camera sees."""
BODY_BYTES_MAX = 16 * 1024
CLOCK_STEP_NS_MIN = NS // 2
DELETIONS_PER_RECORD = 32
_PRIORITY = {int(p): p for p in Priority}
_PRIORITIES = ", ".join(map(str, _PRIORITY))  # the outbox's key begins with it: all named, a range of it is quick
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
class Moment:
    """A phase of an incident that makes the footage around it worth keeping."""

    sequence: int
    boot_id: str
    boot_ns: int
    incident: str
    phase: str


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


TRIM_EVERY = 60
"""Signs of life, one a minute, between two looks at the bounds of agent.store.trim."""


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
        record_rows_max: int = RECORD_ROWS_MAX,
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
        self._record_rows_max = record_rows_max
        self._outbox_rows = 0
        self._acknowledged: set[tuple[int, int]] = set()  # (priority, sequence): rows that the next transaction deletes
        self._record_rows = 0
        self._footage = (0, 0)  # sealed segments and their bytes
        self._number = 0  # of the newest row of the journal; one that was rolled back is not used again
        self._alives = 0
        self._ledger_seq = 0  # the last line that was handed over
        self._ledger_sent: int | None = None  # the last line that went into the outbox; None: nobody knows yet
        self._taken = 0  # rows up to here are in the ledger's hands: they are never changed
        self._urgent = False
        self._restored: dict[tuple[str, int], int] = {}  # (epoch, sequence) of an event's message -> its row here
        self.epoch = ""
        self.session = 0
        self.on_urgent: Callable[[], None] | None = None
        """Called after a commit whose facts should be on the ledger at once: an alarm, a sealed segment."""

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or makes the file. Raises InUse, Corrupt (the caller quarantines the file), or Transient."""
        with self._lock, self._plain("open"):
            db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=1.0)
            try:
                db.execute("pragma locking_mode=exclusive")
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=full")
                # Not enforced: to delete an event SQLite would look for it in the whole outbox, 1.7 ms a line of the
                # ledger with 22,000 rows waiting. Both tables are written in one transaction everywhere.
                db.execute("pragma foreign_keys=off")
                db.execute("pragma cache_size=-2000")
                db.execute("pragma journal_size_limit=4194304")
                self._db = db
                self._prepare(db)
            except (TypeError, OverflowError, ValueError) as error:  # a column that holds something else than it must
                self._db = None
                db.close()
                raise Corrupt(f"{self._path}: {type(error).__name__}: {error}") from error
            except BaseException:
                self._db = None
                db.close()
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Makes the tables of a new file, checks those of an old one, and loads what is kept in memory."""
        if db.execute("select count(*) from sqlite_master").fetchone()[0] == 0:
            sql = importlib.resources.files("agent.store").joinpath("schema.sql").read_text(encoding="utf-8")
            with self._transaction("create store"):
                for statement in statements(sql):
                    db.execute(statement)
                db.executemany(
                    "insert into meta values (?, ?)",
                    [("schema", SCHEMA), ("epoch", self._new_id()), ("node", self._origin.source)],
                )
        meta = self._upgraded(db)
        if meta.get("schema") != SCHEMA or "epoch" not in meta:
            raise Corrupt(f"{self._path}: schema {meta.get('schema')!r}, this agent reads {SCHEMA!r}")
        check = db.execute("pragma quick_check(1)").fetchone()[0]
        if check != "ok":
            raise Corrupt(f"{self._path}: {check}")
        self.epoch = meta["epoch"]
        self._acknowledged.clear()
        self._outbox_rows = db.execute("select count(*) from outbox").fetchone()[0]
        self._footage = db.execute(
            "select count(*), coalesce(sum(bytes), 0) from segment where state = 'sealed'"
        ).fetchone()
        self._record_rows, newest = db.execute("select count(*), coalesce(max(number), 0) from record").fetchone()
        self._number = max(newest, int(meta.get("journal", 0)))
        self._taken = 0
        self._ledger_seq = int(meta.get("ledger_seq", 0))
        self._ledger_sent = int(meta["ledger_sent"]) if "ledger_sent" in meta else self._ledger_seq or None
        self._restored = _restored(db, meta.get("restored", ""))

    @property
    def is_new(self) -> bool:
        """Nobody has lived with this store yet, and nothing was restored to it: see `restore`."""
        return not self._query("select 1 from session union all select 1 from meta where key = 'restored' limit 1")

    def restore(self, found: rebuild.Found) -> None:
        """Takes in what was saved of the store before this one, in one transaction; once, before the first session."""
        with self._transaction("restore") as db:
            (last,) = db.execute("select coalesce(max(sequence), 0) from event").fetchone()
            outbox_rows, facts = rebuild.insert(db, found, first=last + 1, number=self._number + 1)
            self._number += facts
            self._record_rows += facts
            restored = f"{last + 1} {last + len(found.events)}"
            db.execute("insert into meta values ('restored', ?)", (restored,))
            if found.events or facts or any(found.rows.values()):
                told = records.body(
                    events=len(found.events),
                    undelivered=found.waiting,
                    rows={table: len(rows) for table, rows in found.rows.items() if rows},
                    unread=found.unread,
                )
                self._journal(db, RecordKind.INDEX, told, urgent=True)
            rows = self._outbox_rows + outbox_rows
            if rows > self._outbox_rows_max:
                rows -= self._make_room(db, rows - self._outbox_rows_max)
            self._outbox_rows = rows
        with self._lock:
            self._restored = {event.key: last + n for n, event in enumerate(found.events, start=1)}

    def own_ranges(self, epoch: str, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """A receipt's ranges for an earlier store of this node, as sequence numbers of restored rows in this one."""
        return [
            (own, own)
            for (of, sequence), own in self._restored.items()
            if of == epoch and any(low <= sequence <= high for low, high in ranges)
        ]

    def _upgraded(self, db: sqlite3.Connection) -> dict[str, str]:
        """Brings an older schema up to date, a transaction a step. Returns what `meta` says then."""
        meta = dict(db.execute("select key, value from meta"))
        while (script := UPGRADES.get(meta.get("schema", ""))) is not None:
            sql = importlib.resources.files("agent.store").joinpath(script).read_text(encoding="utf-8")
            with self._transaction(f"upgrade from schema {meta['schema']}"):
                for statement in statements(sql):
                    db.execute(statement)
            meta = dict(db.execute("select key, value from meta"))
        return meta

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
        except UnicodeDecodeError as error:  # SQLite's own words about a rotten file need not be text
            raise Corrupt(f"{self._path}: {error}") from error
        except sqlite3.OperationalError as error:
            if "Could not decode" in str(error):
                raise Corrupt(f"{self._path}: {error}") from error
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
            before, self._urgent = (self._record_rows, self._outbox_rows, self._footage), False
            try:
                if self._acknowledged:
                    self._outbox_rows -= self._delete_acknowledged(self._db)
                yield self._db
                self._crash_point(f"before commit: {what}")
                self._db.execute("commit")
            except BaseException:
                self._record_rows, self._outbox_rows, self._footage = before
                if self._db is not None and self._db.in_transaction:
                    self._db.execute("rollback")
                raise
            self._acknowledged.clear()
            urgent = self._urgent
            self._crash_point(f"after commit: {what}")
        if urgent and self.on_urgent is not None:
            self.on_urgent()

    def _query(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        with self._lock, self._plain("read"):
            if self._db is None:
                raise Transient(f"{self._path}: the store is closed")
            return self._db.execute(sql, args).fetchall()

    # -- the journal of the ledger ------------------------------------------------------------------------------------

    def _journal(self, db: sqlite3.Connection, kind: RecordKind, body: bytes, *, urgent: bool = False) -> None:
        """Notes for the ledger, in the transaction of the fact, what has happened. Never refuses (see `_overflow`)."""
        self._urgent |= urgent
        if len(body) > BODY_BYTES_MAX:
            body = records.body(too_large=len(body), sha256=records.digest(body))
        now_ns, utc = self._clock.boot_ns(), self._clock.utc()
        if self._record_rows >= self._record_rows_max:
            body, kind = self._overflow(db, kind, now_ns), RecordKind.OVERFLOW
            if not body:
                return
        self._number += 1
        db.execute(
            "insert into record values (?, ?, ?, ?, ?, ?, ?)",
            (self._number, kind.value, self._clock.boot_id, now_ns, utc.utc_ns, utc.unc_ns, body),
        )
        self._record_rows += 1

    def _overflow(self, db: sqlite3.Connection, kind: RecordKind, now_ns: int) -> bytes:
        """The ledger cannot be written and the journal is full: facts are counted by kind in its last row.

        Returns the body of a new last row; empty when the last row has taken it in. A row that the ledger has already
        read is not changed: the count would be lost.
        """
        row = db.execute("select number, kind, body from record order by number desc limit 1").fetchone()
        if row is None or row[0] <= self._taken or row[1] != RecordKind.OVERFLOW:
            return records.body(facts={kind.value: 1}, until_ns=now_ns)
        told = msgspec.json.decode(row[2])
        facts = told["facts"] | {kind.value: told["facts"].get(kind.value, 0) + 1}
        db.execute("update record set body = ? where number = ?", (records.body(facts=facts, until_ns=now_ns), row[0]))
        return b""

    def note(self, kind: RecordKind, body: bytes, *, urgent: bool = False) -> None:
        """Notes a fact that has no table of its own: an extraction, a key change. Raises Transient."""
        with self._transaction(f"note {kind.value}") as db:
            self._journal(db, kind, body, urgent=urgent)

    def note_config(self, sha256: str) -> bool:
        """Notes which configuration the node runs with; only when it is another one than before. Says whether it is."""
        with self._lock:
            before = self._query("select value from meta where key = 'config'")
            if before and before[0][0] == sha256:
                return False
            with self._transaction("note config") as db:
                db.execute("insert or replace into meta values ('config', ?)", (sha256,))
                told = records.body(sha256=sha256, before=before[0][0] if before else None)
                self._journal(db, RecordKind.CONFIG, told)
        return True

    def facts(self, limit: int) -> list[Fact]:
        """The oldest facts that are not on the ledger yet. From now on these rows do not change."""
        with self._lock:
            rows = self._query(
                "select number, kind, boot_id, boot_ns, utc_ns, unc_ns, body from record order by number limit ?", limit
            )
            if rows:
                self._taken = max(self._taken, rows[-1][0])
        return [Fact(*row) for row in rows]

    @property
    def newest_fact(self) -> int:
        """The highest number that a fact has had in this store. A line of the ledger never has a higher one."""
        return self._number

    @property
    def record_rows(self) -> int:
        """How many facts wait for the ledger. Costs nothing."""
        return self._record_rows

    def ledger_mark(self) -> LedgerMark:
        """Where the ledger stood when it was last heard of."""
        meta = dict(self._query("select key, value from meta where key in ('ledger_seq', 'ledger_head')"))
        return LedgerMark(int(meta.get("ledger_seq", 0)), meta.get("ledger_head", ""))

    def hand_over(self, lines: Sequence[LedgerLine]) -> None:
        """Lines that are durable on the ledger: out of the journal with their facts, and into the outbox as far as
        there is room. The others wait on the ledger itself, for `forward`.
        """
        if not lines:
            return
        with self._transaction("hand over records") as db:
            in_turn = self._ledger_sent is None or lines[0].seq == self._ledger_sent + 1
            sent, added = self._send_lines(db, lines) if in_turn else (self._ledger_sent, 0)
            numbers = [line.number for line in lines if line.number is not None]
            if numbers:
                gone = db.execute("delete from record where number <= ?", (max(numbers),)).rowcount
                self._record_rows -= gone
                db.execute("insert or replace into meta values ('journal', ?)", (str(max(numbers)),))
            db.executemany(
                "insert or replace into meta values (?, ?)",
                [("ledger_seq", str(lines[-1].seq)), ("ledger_head", lines[-1].head)],
            )
            self._outbox_rows += added
        self._ledger_sent, self._ledger_seq = sent, lines[-1].seq

    def forward(self, lines: Sequence[LedgerLine]) -> None:
        """Lines from the ledger that waited for room in the outbox: those that follow `ledger_waiting`'s first."""
        with self._transaction("forward records") as db:
            # None left on the card up to the newest: what was given up there cannot be sent any more.
            sent, added = self._send_lines(db, lines) if lines else (self._ledger_seq, 0)
            db.execute("insert or replace into meta values ('ledger_sent', ?)", (str(sent),))
            self._outbox_rows += added
        self._ledger_sent = sent

    def _send_lines(self, db: sqlite3.Connection, lines: Sequence[LedgerLine]) -> tuple[int, int]:
        """As many as there is room for; returns the number of the last one that is on its way, and how many went."""
        now_ns = self._clock.boot_ns()
        (last,) = db.execute("select coalesce(max(sequence), 0) from event").fetchone()
        sent = lines[0].seq - 1
        going = lines[: self._record_room(db)]
        for line in going:
            last += 1
            body = wire.encode(wire.Record(epoch=self.epoch, sequence=last, line=line.line.decode("ascii")))
            name = self._new_id()
            db.execute(
                "insert into event values (?, ?, ?, 'record', 'ended', ?, ?, ?)",
                (last, name, name, self.session, now_ns, body),
            )
            db.execute("insert into outbox values (?, ?)", (int(Priority.RECORD), last))
            sent = line.seq
        db.execute("insert or replace into meta values ('ledger_sent', ?)", (str(sent),))
        return sent, len(going)

    def _record_room(self, db: sqlite3.Connection) -> int:
        """Records take what is free of the outbox, a quarter of it at most: the ledger itself is their queue, so none
        is ever shed, and none makes the outbox larger than it may be.
        """
        sql = "select count(*) from outbox where priority = ?"
        (rows,) = db.execute(sql, (int(Priority.RECORD),)).fetchone()
        return int(max(min(self._outbox_rows_max // 4 - rows, self._outbox_rows_max - self._outbox_rows), 0))

    def ledger_waiting(self) -> tuple[int, int] | None:
        """The first line that still has to go into the outbox, and how many there is room for; None when none can."""
        if self._ledger_sent is None or self._ledger_sent >= self._ledger_seq:
            return None
        with self._lock, self._plain("read"):
            room = 0 if self._db is None else self._record_room(self._db)
        return (self._ledger_sent + 1, room) if room else None

    # -- sessions and time --------------------------------------------------------------------------------------------

    def start_session(self) -> SessionRow | None:
        """Begins a session and a time anchor; returns the one before it, or None at the first start."""
        before = self.sessions()[-1:]
        before_row = before[0] if before else None
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
            told = records.body(
                session=cursor.lastrowid,
                source=utc.source,
                before=None if before_row is None else msgspec.to_builtins(before_row),
            )
            self._journal(db, RecordKind.START, told, urgent=True)
            trim(db, boot_id=self._clock.boot_id)
        self.session = cursor.lastrowid or 0
        return before_row

    def alive(self) -> None:
        """Notes that the agent lives, for whoever must explain later when it did not."""
        with self._transaction("alive") as db:
            db.execute("update session set alive_ns = ? where session = ?", (self._clock.boot_ns(), self.session))
            self._alives += 1
            if self._alives % TRIM_EVERY == 0:
                trim(db, boot_id=self._clock.boot_id)

    def stop_session(self, reason: str) -> None:
        """Notes a clean stop."""
        with self._transaction("stop session") as db:
            db.execute(
                "update session set alive_ns = ?, stop = ? where session = ?",
                (self._clock.boot_ns(), reason, self.session),
            )
            self._journal(db, RecordKind.STOP, records.body(session=self.session, reason=reason), urgent=True)

    def sessions(self) -> list[SessionRow]:
        """All sessions, oldest first."""
        rows = self._query("select session, boot_id, start_ns, alive_ns, stop from session order by session")
        return [SessionRow(*row) for row in rows]

    def add_anchor(self, anchor: TimeAnchor) -> None:
        """Adds a pairing of boot time and UTC. One that jumps against the one before is a clock step on the ledger."""
        with self._transaction("anchor") as db:
            before = db.execute(
                "select boot_ns, utc_ns from anchor where boot_id = ? and boot_ns <= ? order by boot_ns desc limit 1",
                (anchor.boot_id, anchor.boot_ns),
            ).fetchone()
            added = db.execute(
                "insert or ignore into anchor values (?, ?, ?, ?, ?)",
                (anchor.boot_id, anchor.boot_ns, anchor.utc_ns, anchor.unc_ns, anchor.source),
            ).rowcount
            if added:
                moved_ns = 0 if before is None else (anchor.utc_ns - before[1]) - (anchor.boot_ns - before[0])
                stepped = abs(moved_ns) >= CLOCK_STEP_NS_MIN
                kind = RecordKind.CLOCK_STEP if stepped else RecordKind.ANCHOR
                self._journal(db, kind, records.anchor_body(anchor, moved_ns if stepped else None))

    def anchors(self) -> list[TimeAnchor]:
        """All anchors, by boot and time."""
        rows = self._query("select boot_id, boot_ns, utc_ns, unc_ns, source from anchor order by boot_id, boot_ns")
        return [TimeAnchor(*row) for row in rows]

    # -- footage ------------------------------------------------------------------------------------------------------

    def add_segment(self, segment: Segment) -> None:
        """Adds a sealed segment. The file must be whole and synced: the row is the promise (invariant 2)."""
        with self._transaction("seal segment") as db:
            added = db.execute(
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
            ).rowcount
            if added:
                self._count(1, segment.bytes)
                self._journal(db, RecordKind.SEGMENT, records.segment_body(segment), urgent=True)

    def reseal(self, segment: Segment, gap: Gap) -> None:
        """Replaces the row of a segment of which only a part is left, and says why the rest is missing."""
        with self._transaction("reseal segment") as db:
            before = db.execute(
                "select bytes from segment where name = ? and state = 'sealed'", (segment.name,)
            ).fetchone()
            if before is not None:
                self._count(0, segment.bytes - before[0])
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
            self._journal(db, RecordKind.SEGMENT, records.segment_body(segment, resealed=True), urgent=True)
            self._add_gap(db, gap)

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

    @property
    def footage_bytes(self) -> int:
        """Size of the sealed segments. Costs nothing."""
        return self._footage[1]

    def _count(self, segments: int, size: int) -> None:
        """Within a transaction: what is sealed has changed by as much."""
        self._footage = (self._footage[0] + segments, self._footage[1] + size)

    def footage(self) -> Footage:
        """Count, size and age of the sealed segments."""
        count, size = self._footage
        oldest = self._query(
            "select a.utc_ns + (s.start_ns - a.boot_ns) from"
            " (select boot_id, start_ns from segment where state = 'sealed' order by session, start_ns limit 1) s"
            " join anchor a using (boot_id) order by a.unc_ns is null, a.unc_ns, a.boot_ns limit 1"
        )
        return Footage(count, size, oldest[0][0] if oldest else None)

    def condemn(self, names: Sequence[str], reason: str) -> None:
        """First half of a deletion: marks segments as garbage and leaves tombstones. Then unlink, then `forget`."""
        with self._transaction("condemn segments") as db:
            buried: list[tuple[str, str, int, int, int, str]] = []
            for name in names:
                row = db.execute(
                    "select boot_id, start_ns, end_ns, bytes, sha256 from segment where name = ? and state = 'sealed'",
                    (name,),
                ).fetchone()
                if row is None:
                    continue
                db.execute("update segment set state = 'garbage' where name = ?", (name,))
                self._count(-1, -row[3])
                _bury(db, *row[:4], reason=reason)
                buried.append((name, *row))
            for at in range(0, len(buried), DELETIONS_PER_RECORD):
                part = buried[at : at + DELETIONS_PER_RECORD]
                self._journal(db, RecordKind.DELETION, records.deletion_body(part, reason))

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
            self._add_gap(db, gap)

    def _add_gap(self, db: sqlite3.Connection, gap: Gap) -> None:
        """The row, and a record when it begins and when it ends: not for each time it has grown in between."""
        row = (gap.boot_id, gap.start_ns, max(gap.end_ns, gap.start_ns), gap.cause.value, gap.detail)
        there = db.execute(
            "select end_ns, detail from gap where boot_id = ? and start_ns = ? and cause = ?", (row[0], row[1], row[3])
        ).fetchone()
        if there != (row[2], row[4]):
            db.execute("insert or replace into gap values (?, ?, ?, ?, ?)", row)
            if there is None or not gap.growing:
                self._journal(db, RecordKind.GAP, records.gap_body(gap))

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
                    encoded = wire.encode(message)
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
                            encoded,
                        ),
                    )
                    db.execute("insert into outbox values (?, ?)", (int(priority), last))
                    if jpeg is None:
                        told = records.event_body(event, sequence=last, id=message.id, message=encoded)
                        self._journal(db, RecordKind.EVENT, told, urgent=priority <= Priority.ALERT)
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
            self._outbox_rows = rows  # within the lock: the uplink deletes rows meanwhile
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
                rule=event.rule,
                path=[_in_picture(point) for point in event.path[-PATH_POINTS_MAX:]],
                dwellms=None if event.dwell_ns is None else max(event.dwell_ns // MS, 0),
                height=None if event.height is None else round(min(max(event.height, 0.0), 1.0), 4),
                jpeg=None if jpeg is None else base64.b64encode(jpeg).decode("ascii"),
                reason=event.reason,
                onvif=event.onvif,
            ),
        )

    def _make_room(self, db: sqlite3.Connection, excess: int) -> int:
        """Gives up undelivered rows: least important class first, oldest first within a class. Returns how many."""
        dropped = 0
        for priority in sorted(set(Priority) - {Priority.RECORD}, reverse=True):  # records: see `_record_room`
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

    def pending(self, limit: int, *, skip: Collection[int] = ()) -> list[OutboxRow]:
        """The most urgent undelivered rows: by priority, oldest first, without those numbered in `skip`.

        Rows that are acknowledged and not deleted yet are not among them.
        """
        with self._lock:
            gone = self._acknowledged
            keys = self._query(
                "select priority, sequence from outbox order by priority, sequence limit ?",
                limit + len(skip) + len(gone),
            )
            keys = [key for key in keys if key[1] not in skip and key not in gone][:limit]
            rows = self._query(
                "select sequence, kind, session, boot_ns, body from event"
                " where sequence in (select value from json_each(?))",
                json.dumps([sequence for _, sequence in keys]),
            )
        of = {row[0]: row[1:] for row in rows}
        return [OutboxRow(number, _PRIORITY[priority], *of[number]) for priority, number in keys if number in of]

    def pictures_wait(self) -> bool:
        """Whether a thumbnail has not been acknowledged yet."""
        with self._lock:
            keys = self._query(
                "select priority, sequence from outbox where priority = ? limit ?",
                int(Priority.THUMBNAIL),
                len(self._acknowledged) + 1,
            )
            return any(key not in self._acknowledged for key in keys)

    def note_acknowledged(self, stored: Sequence[tuple[int, int]]) -> None:
        """The station has committed these. Their rows are deleted with the next transaction, whatever it is about, or
        by `acknowledge`. A cut before that costs that they are sent again. Writes nothing.
        """
        with self._lock:
            for low, high in stored:
                self._acknowledged.update(
                    self._query(
                        f"select priority, sequence from outbox where priority in ({_PRIORITIES})"  # noqa: S608
                        " and sequence between ? and ?",
                        low,
                        high,
                    )
                )

    def acknowledge(self, stored: Sequence[tuple[int, int]]) -> int:
        """Deletes the outbox rows that the station has committed, and those noted. Returns how many are new."""
        with self._lock:
            before = self.outbox_rows
            self.note_acknowledged(stored)
            with self._transaction("acknowledge"):
                pass
            return before - self.outbox_rows

    def _delete_acknowledged(self, db: sqlite3.Connection) -> int:
        keys = sorted(self._acknowledged)
        deleted = db.executemany("delete from outbox where priority = ? and sequence = ?", keys).rowcount  # the sum
        (last,) = db.execute("select max(sequence) from event").fetchone()
        db.executemany(  # the ledger has the lines; the newest row stays, whatever it is
            "delete from event where sequence = ? and kind = 'record' and sequence < ?",
            [(sequence, last) for priority, sequence in keys if priority == Priority.RECORD],
        )
        return int(deleted)

    @property
    def acknowledged_rows(self) -> int:
        """How many rows of the outbox the station has, and wait for their deletion. Costs nothing."""
        return len(self._acknowledged)

    @property
    def outbox_rows(self) -> int:
        """How many rows wait for the station: `acknowledged_rows` are not among them. Costs nothing."""
        return self._outbox_rows - len(self._acknowledged)

    def oldest_pending_ns(self) -> int | None:
        """When the oldest undelivered event of this session happened."""
        rows = self._query(
            "select min(e.boot_ns) from outbox o join event e using (sequence) where e.session = ?"
            " and o.sequence not in (select value from json_each(?))",
            self.session,
            json.dumps([sequence for _, sequence in self._acknowledged]),
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
            " (select max(sequence) from event where kind not in ('thumbnail', 'record') group by incident"
            " having sum(phase = 'ended') = 0 and min(session) < ?) order by sequence",
            self.session,
        )
        return [wire.decode(bytes(row[0]), wire.CloudEvent) for row in rows]

    def open_now(self, kinds: Sequence[Kind]) -> list[wire.CloudEvent]:
        """The last message of every incident of these kinds that this session began and that has not ended."""
        marks = ", ".join("?" * len(kinds))
        rows = self._query(
            "select body from event where sequence in"  # noqa: S608  (marks)
            f" (select max(sequence) from event where session = ? and kind in ({marks}) group by incident"
            " having sum(phase = 'ended') = 0) order by sequence",
            self.session,
            *kinds,
        )
        return [wire.decode(bytes(row[0]), wire.CloudEvent) for row in rows]

    def events(self, limit: int) -> list[wire.CloudEvent]:
        """The newest events, newest first, thumbnails left out."""
        rows = self._query(
            "select body from event where kind not in ('thumbnail', 'record') order by sequence desc limit ?", limit
        )
        return [wire.decode(bytes(row[0]), wire.CloudEvent) for row in rows]

    # -- holds, privacy, signs ----------------------------------------------------------------------------------------

    def add_hold(self, hold: Hold) -> bool:
        """Keeps a range from now on. False when the id is known, in force or released: then nothing has changed.

        Raises Transient, and ConfigError when there is no room for one more.
        """
        with self._transaction("hold") as db:
            db.execute(
                "delete from hold where released <> '' and made_utc_ns < ?", (hold.made_utc_ns - HOLD_MEMORY_NS,)
            )
            if db.execute("select 1 from hold where id = ?", (hold.id,)).fetchone():
                return False
            (count,) = db.execute("select count(*) from hold").fetchone()
            if count >= HOLD_ROWS_MAX:
                raise ConfigError(f"hold: {count} holds are known already; release some that are no longer needed")
            db.execute(
                "insert into hold values (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    hold.id,
                    hold.start_utc_ns,
                    hold.end_utc_ns,
                    hold.until_utc_ns,
                    hold.reason,
                    hold.asker,
                    hold.made_utc_ns,
                    hold.released,
                ),
            )
            self._journal(db, RecordKind.HOLD, records.body(**msgspec.to_builtins(hold)), urgent=True)
        return True

    def end_hold(self, hold_id: str, how: str) -> bool:
        """Ends a hold; False when none of that id is in force."""
        with self._transaction("release") as db:
            changed = db.execute("update hold set released = ? where id = ? and released = ''", (how, hold_id)).rowcount
            if changed:
                self._journal(db, RecordKind.RELEASE, records.body(id=hold_id, how=how), urgent=True)
        return bool(changed)

    def holds(self) -> list[Hold]:
        """All that are known, in the order in which they were asked for; also those that are released."""
        rows = self._query(
            "select id, start_utc_ns, end_utc_ns, until_utc_ns, reason, asker, made_utc_ns, released from hold"
            " order by made_utc_ns, id"
        )
        return [Hold(*row) for row in rows]

    def add_verdict(self, verdict: Verdict) -> bool:
        """Keeps it and puts it on the way to the ledger, in one transaction. False when this id is known: then nothing
        has changed. The oldest give way. Raises Transient.
        """
        with self._transaction("verdict") as db:
            added = db.execute(
                "insert or ignore into verdict (id, incident, verdict, reason, person, asker, made_utc_ns)"
                " values (?, ?, ?, ?, ?, ?, ?)",
                (
                    verdict.id,
                    verdict.incident,
                    verdict.verdict,
                    verdict.reason,
                    verdict.by,
                    verdict.asker,
                    verdict.made_utc_ns,
                ),
            ).rowcount
            if added:
                db.execute("delete from verdict where n <= (select max(n) from verdict) - ?", (VERDICT_ROWS_MAX,))
                self._journal(db, RecordKind.VERDICT, records.verdict_body(verdict), urgent=True)
        return bool(added)

    def verdicts(self) -> list[Verdict]:
        """All that are kept, in the order in which they came: of two about one incident the last one counts."""
        rows = self._query("select id, incident, verdict, reason, person, asker, made_utc_ns from verdict order by n")
        return [Verdict(*row) for row in rows]

    def told_after(self, after: int, limit: int) -> list[tuple[int, wire.CloudEvent]]:
        """Events with a sequence number above `after`, oldest first; without pictures and lines of the ledger. The
        number is that of the row: a restored event names the one that it had in the store before.
        """
        rows = self._query(
            "select sequence, body from event where sequence > ? and kind not in ('thumbnail', 'record')"
            " order by sequence limit ?",
            after,
            limit,
        )
        return [(sequence, wire.decode(bytes(body), wire.CloudEvent)) for sequence, body in rows]

    def newest_sequence(self) -> int:
        """Of everything that was ever told; 0: nothing."""
        ((last,),) = self._query("select coalesce(max(sequence), 0) from event")
        return int(last)

    def sightings(self, rows_max: int = SIGHTING_ROWS_MAX) -> list[wire.CloudEvent]:
        """The newest events of what the camera saw, oldest first. Reads and decodes all of them: a second or two."""
        marks = ", ".join("?" * len(SEEN_KINDS))
        rows = self._query(
            f"select body from event where kind in ({marks}) order by sequence desc limit ?",  # noqa: S608  (marks)
            *SEEN_KINDS,
            rows_max,
        )
        return [wire.decode(bytes(body), wire.CloudEvent) for (body,) in reversed(rows)]

    def draw(self, curtain: Curtain, gap: Gap, *, begins: bool) -> None:
        """Privacy is in force: notes it, with the gap as far as it goes."""
        with self._transaction("privacy") as db:
            db.execute(
                "insert or replace into privacy values (1, ?, ?, ?, ?, ?)",
                (curtain.boot_id, curtain.start_ns, curtain.until_ns, curtain.charged_ns, curtain.asker),
            )
            _put_gap(db, gap)
            if begins:
                self._journal(
                    db, RecordKind.PRIVACY, records.body(**msgspec.to_builtins(curtain), state="on"), urgent=True
                )

    def undraw(self, gap: Gap, how: str) -> None:
        """Privacy has ended: at the end of `gap`."""
        with self._transaction("privacy ends") as db:
            db.execute("delete from privacy")
            self._add_gap(db, gap)
            told = records.body(state="off", how=how, boot_id=gap.boot_id, start_ns=gap.start_ns, end_ns=gap.end_ns)
            self._journal(db, RecordKind.PRIVACY, told, urgent=True)

    def curtain(self) -> Curtain | None:
        """Privacy as it was left in force, perhaps by an earlier life."""
        rows = self._query("select boot_id, start_ns, until_ns, charged_ns, asker from privacy")
        return Curtain(*rows[0]) if rows else None

    def add_sign(self, what: str, text: str, *, active: bool, boot_ns: int | None = None) -> None:
        """Notes a change of something that may explain a gap later, and when in this boot it was (None: now). The
        oldest give way.
        """
        at_ns = self._clock.boot_ns() if boot_ns is None else boot_ns
        with self._transaction("sign") as db:
            db.execute(
                "insert or replace into sign values (?, ?, ?, ?, ?, ?)",
                (self.session, self._clock.boot_id, at_ns, what, int(active), text[:200]),
            )
            (count,) = db.execute("select count(*) from sign").fetchone()
            if count > SIGN_ROWS_MAX:
                db.execute(
                    "delete from sign where (session, boot_ns, what) in"
                    " (select session, boot_ns, what from sign order by session, boot_ns limit ?)",
                    (count - SIGN_ROWS_MAX,),
                )

    def signs(self) -> list[Sign]:
        """Signs, and the newest events that tell of mains, camera or card; by session and time."""
        found = [
            Sign(session, boot_id, boot_ns, what, bool(active), text)
            for session, boot_id, boot_ns, what, active, text in self._query(
                "select session, boot_id, boot_ns, what, active, text from sign"
            )
        ]
        marks = ", ".join("?" * len(TELLING_KINDS))
        rows = self._query(
            f"select body from event where kind in ({marks}) order by sequence desc limit ?",  # noqa: S608  (marks)
            *TELLING_KINDS,
            TELLING_ROWS_MAX,
        )
        for row in rows:
            event = wire.decode(bytes(row[0]), wire.CloudEvent)
            kind = event.type.removeprefix("wardpost.")
            active = phase_of(event) is not Phase.ENDED
            found.append(Sign(event.session, event.bootid, event.monons, kind, active, event.data.summary))
        return sorted(found, key=lambda sign: (sign.session, sign.boot_ns, sign.what))

    def moments(self, after: int, limit: int) -> list[Moment]:
        """Phases of incidents worth keeping footage of, in order, with a sequence number above `after`."""
        marks = ", ".join("?" * len(WATCHED_KINDS))
        rows = self._query(
            f"select sequence, boot_id, boot_ns, incident, phase from event join session using (session)"  # noqa: S608
            f" where sequence > ? and kind in ({marks}) order by sequence limit ?",
            after,
            *WATCHED_KINDS,
            limit,
        )
        return [Moment(*row) for row in rows]

    def unsent(self) -> list[Moment]:
        """The same, of alerts that the station has not acknowledged yet."""
        marks = ", ".join("?" * len(WATCHED_KINDS))
        rows = self._query(
            "select sequence, boot_id, boot_ns, incident, phase from outbox join event using (sequence)"  # noqa: S608
            f" join session using (session) where priority <= ? and kind in ({marks}) order by sequence",
            int(Priority.ALERT),
            *WATCHED_KINDS,
        )
        return [Moment(*row) for row in rows]


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


def _put_gap(db: sqlite3.Connection, gap: Gap) -> None:
    """Explains a stretch, or more of one."""
    db.execute(
        "insert or replace into gap values (?, ?, ?, ?, ?)",
        (gap.boot_id, gap.start_ns, max(gap.end_ns, gap.start_ns), gap.cause.value, gap.detail),
    )


def _restored(db: sqlite3.Connection, text: str) -> dict[tuple[str, int], int]:
    """Which of the restored rows, by `meta`, still wait under their old names."""
    if not re.fullmatch("[0-9]{1,18} [0-9]{1,18}", text):
        return {}
    found = {}
    for sequence, body in db.execute(
        "select sequence, body from outbox join event using (sequence) where sequence between ? and ?"
        " and kind <> 'record'",
        [int(part) for part in text.split()],
    ):
        message = wire.decode(bytes(body), wire.CloudEvent)
        found[message.epoch, message.sequence] = sequence
    return found


def _in_picture(point: tuple[float, float]) -> tuple[float, float]:
    """A point of a path as on the wire: inside the picture, to 1/1,000 of it."""
    x, y = (round(min(max(value, 0.0), 1.0), 3) for value in point)
    return x, y


def phase_of(event: wire.CloudEvent) -> Phase:
    """The phase of a stored event."""
    return Phase(event.data.phase)
