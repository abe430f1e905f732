"""The audit log in the station's database: one signed line for whatever somebody did, or saw.

A line is written in the same transaction as what it tells of: there is no act without a record, and none is recorded
that did not happen. Rows are never changed (triggers); whoever can change the database's files all the same must forge
signatures to change a line, and to cut lines off the end he meets `trail.head`: the newest checkpoint, kept as a file
in the station's folder, outside the database; `wardpost trail check` compares. Each line's number and hash also go to
the program's log, and with it to wherever that is kept.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, text

from agent.clock import Clock
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.evidence import keys, receipts
from agent.evidence.keys import Key
from agent.evidence.records import GENESIS, digest
from agent.station.db.engine import reading, writing
from agent.station.db.people import trail
from agent.station.people import trail_line

HEAD_FILE = "trail.head"
HEAD_BYTES_MAX = 8192
READ_ROWS = 1000
FIRST = 2
"""Lines of the first transaction: a cut behind it leaves a log without a checkpoint."""

log = logging.getLogger(__name__)


class Entry:
    """A transaction that may put lines on the audit log. `db` is its connection."""

    def __init__(self, owner: Trail, db: Connection) -> None:
        self._owner = owner
        self.db = db
        self.last: tuple[int, str] | None = None

    def note(self, kind: str, who: str, **body: Any) -> None:
        """One line. `who`: the login of a person, or `account:NAME` at the machine itself, or empty: nobody."""
        self.last = self._owner.add(self.db, kind, {"who": who, **body})


class Trail:
    """Any thread. Raises Transient, Corrupt (no key)."""

    def __init__(self, engine: Engine, *, clock: Clock, site: str, station: str, disk: Disk) -> None:
        """`disk`: of the station's folder, with its keys."""
        self._engine = engine
        self._clock = clock
        self._node = f"{site}/{station}"
        self._station = station
        self._disk = disk
        self._keys: Sequence[Key] = ()
        self._lock = threading.Lock()
        self._head_seq = 0

    def open(self) -> None:
        """Reads the keys, and holds the log's end against its checkpoint: what is missing is put on the log itself."""
        self._keys = keys.load_or_make(self._disk, "station")
        wrong = self._end()
        if wrong:
            log.error("AUDIT LOG ALARM: %s", wrong)
            with self.writing("note an alarm") as entry:
                entry.note(trail_line.ALARM, "", text=wrong)

    @contextmanager
    def writing(self, what: str) -> Iterator[Entry]:
        """A transaction; lines and acts in it are durable together when it ends well. Writers wait for each other."""
        with writing(self._engine, what) as db:
            if db.dialect.name == "postgresql":  # SQLite's writers are alone anyhow
                db.execute(text("lock table trail in share row exclusive mode"))
            entry = Entry(self, db)
            yield entry
        if entry.last is not None:
            self._sealed(*entry.last)

    def note(self, kind: str, who: str, **body: Any) -> None:
        """One line in a transaction of its own."""
        with self.writing("put it on the audit log") as entry:
            entry.note(kind, who, **body)

    def add(self, db: Connection, kind: str, body: dict[str, Any]) -> tuple[int, str]:
        """Appends to the log within a transaction of `writing`. Returns number and hash of the line."""
        if not self._keys:
            raise Transient("the audit log is not open")
        key = self._keys[-1]
        newest = db.execute(select(trail.c.seq, trail.c.sha256, trail.c.keyid).order_by(trail.c.seq.desc()).limit(1))
        seq, prev, signer = newest.one_or_none() or (0, GENESIS, "")
        if signer != key.keyid:
            before = next((one for one in self._keys if one.keyid == signer), None)
            if seq and before is None:
                raise Corrupt(f"the audit log was signed by key {signer}, which is not in keys/: restore it")
            line = trail_line.introduce(
                key=key, by=before or key, clock=self._clock, node=self._node, seq=seq + 1, prev=prev
            )
            seq, prev = self._insert(db, seq + 1, line, (before or key).keyid)
        line = trail_line.make(
            key=key, clock=self._clock, node=self._node, seq=seq + 1, prev=prev, kind=kind, body=body
        )
        return self._insert(db, seq + 1, line, key.keyid)

    @staticmethod
    def _insert(db: Connection, seq: int, line: bytes, keyid: str) -> tuple[int, str]:
        sha256 = digest(line)
        db.execute(insert(trail).values(seq=seq, sha256=sha256, keyid=keyid, line=line))
        return seq, sha256

    def _sealed(self, seq: int, sha256: str) -> None:
        """Moves the checkpoint. It may lag behind a transaction of another process, never run ahead of the log."""
        log.info("audit log: line %d is %s", seq, sha256)
        with self._lock:
            if seq <= self._head_seq:
                return
            seal = self._checkpoint(seq, sha256)
            try:
                self._disk.replace(HEAD_FILE, seal, private=True)
            except Transient as error:
                log.warning("audit log: its checkpoint stays behind: %s", error)
                return
            self._head_seq = seq

    def _checkpoint(self, seq: int, sha256: str) -> bytes:
        return trail_line.checkpoint(
            key=self._keys[-1], clock=self._clock, station=self._station, node=self._node, seq=seq, head=sha256
        )

    def head(self) -> list[bytes]:
        """The checkpoint in the station's folder; none before the first line."""
        try:
            with self._disk.open(HEAD_FILE) as file:
                return [file.read(HEAD_BYTES_MAX)]
        except FileNotFoundError:
            return []

    def _end(self) -> str:
        """What is wrong with the end of the log; empty when nothing is."""
        seals = self.head()
        if not seals:
            with reading(self._engine) as db:
                there = db.execute(select(func.coalesce(func.max(trail.c.seq), 0))).scalar_one()
            return f"{HEAD_FILE} is missing: nobody can tell whether lines behind {there} are" if there > FIRST else ""
        for raw in seals:
            try:
                seal = receipts.read(raw)
            except Corrupt as error:
                return f"{HEAD_FILE} is no checkpoint: {error}"
            if seal.keyid not in {key.keyid for key in self._keys}:
                return f"{HEAD_FILE} is not signed by this station"
            seq = seal.payload.seq
            with reading(self._engine) as db:
                found = db.execute(select(trail.c.sha256).where(trail.c.seq == seq)).scalar()
            if found is None:
                return f"line {seq} was there at {seal.payload.time} and is missing: the log was cut off"
            if found != seal.payload.head:
                return f"line {seq} is not the one that was there at {seal.payload.time}: the log was rewritten"
        return ""

    def lines(self) -> Iterator[bytes]:
        """The whole log, oldest first, in one view each READ_ROWS lines: what is appended meanwhile may come too."""
        after = 0
        while True:
            with reading(self._engine) as db:
                rows = db.execute(
                    select(trail.c.seq, trail.c.line).where(trail.c.seq > after).order_by(trail.c.seq).limit(READ_ROWS)
                ).all()
            if not rows:
                return
            for seq, line in rows:
                after = int(seq)
                yield bytes(line)

    def export(self) -> list[bytes]:
        """All lines, and a checkpoint for the last one: what `wardpost verify` reads."""
        found = list(self.lines())
        return [*found, self._checkpoint(len(found), digest(found[-1]))] if found else []

    def public_keys(self) -> dict[str, bytes]:
        """The station's public keys by id."""
        return keys.public_keys(list(self._keys))
