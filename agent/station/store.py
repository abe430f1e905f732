"""The station's memory in SQLite. What `commit` returned survives a power cut (WAL, FULL): only then is it receipted.

One process writes, under a file lock; `Reader` reads beside it (`wardpost watch`).
"""

from __future__ import annotations

import fcntl
import importlib.resources
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import Clock
from agent.disk import PosixDisk
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import keys
from agent.evidence.chain import What
from agent.station import rollouts
from agent.station.intake import EventIn, HeartbeatIn, Intake, RecordIn, ReportedIn, StatusIn
from agent.station.ledgers import Alarm, Ledgers, Refused, Signed
from agent.station.rollout import Post, Rollout
from agent.station.states import NodeSeen
from agent.transaction import immediate

SCHEMA = "3"
UPGRADES = {"1": "upgrade_1_to_2.sql", "2": "upgrade_2_to_3.sql"}
FILE = "station.db"
FREE_BYTES_MIN = 32 * 1024 * 1024
"""Less than this, and nothing is taken in: a full disk makes SQLite's shared memory a SIGBUS (field notes)."""
REJECTS_MAX = 1000
_HEARTBEATS = "select node, heartbeat from node where heartbeat is not null"
CHANGES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Reject:
    """A message that was refused."""

    topic: str
    reason: str
    payload: bytes


@dataclass(slots=True)
class Batch:
    """What is committed together."""

    taken: list[Intake] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Stored:
    """Sequence numbers of one node and epoch that are now on the disk, and up to where there is no hole."""

    node: str
    epoch: str
    sequences: list[int]
    head: int


class StationStore:
    """The writer. One thread. Raises Transient when the disk refuses: nothing of the batch was stored."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        site: str,
        event_rows_max: int = 2_000_000,
        nodes_max: int = 10_000,
        streams_per_node_max: int = 100,
        free_bytes: Callable[[Path], int] | None = None,
        station: str = "station",
        node_keys: Mapping[str, str] | None = None,
    ) -> None:
        """`free_bytes` tells the room left on the disk of a folder; a test brings its own.

        `station` names the desk in the receipts it signs; `node_keys`: public keys of nodes that a person vouches for.
        """
        self._folder = folder
        self._clock = clock
        self._site = site
        self._event_rows_max = event_rows_max
        self._nodes_max = nodes_max
        self._streams_per_node_max = streams_per_node_max
        self._free_bytes = free_bytes or _free_bytes
        self._ledgers = Ledgers(clock=clock, site=site, station=station, rows_max=event_rows_max)
        self._node_keys = dict(node_keys or {})
        self._key: keys.Key | None = None
        self._db: sqlite3.Connection | None = None
        self._lock = -1
        self._heads: dict[tuple[str, str], tuple[int, int]] = {}  # (node, epoch) -> (stream, head)
        self._nodes: set[str] = set()
        self.rejected = 0  # since the start

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or makes the file. Raises ConfigError (folder, second station), Corrupt, Transient."""
        if not self._folder.is_dir():
            raise ConfigError(f"station.data: {self._folder} is not a folder; make it, or mount the partition")
        self._take_lock()
        self._need_room()
        path = self._folder / FILE
        self._key = keys.load_or_make(PosixDisk(self._folder), "station")[-1]
        with _plain(path, "open"):
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            try:
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=full")
                db.execute("pragma cache_size=-16000")
                db.execute("pragma journal_size_limit=16777216")
                self._db = db
                self._prepare(db, path)
            except BaseException:
                self._db = None
                db.close()
                raise

    def _take_lock(self) -> None:
        try:
            fd = os.open(self._folder / "station.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(f"station.data: cannot write to {self._folder}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise ConfigError(f"station.data: {self._folder} is in use by another station") from None
        self._lock = fd

    def _prepare(self, db: sqlite3.Connection, path: Path) -> None:
        if db.execute("select count(*) from sqlite_master").fetchone()[0] == 0:
            sql = importlib.resources.files("agent.station").joinpath("schema.sql").read_text(encoding="utf-8")
            with self._transaction("create store"):
                for statement in _statements(sql):
                    db.execute(statement)
                db.executemany("insert into meta values (?, ?)", [("schema", SCHEMA), ("site", self._site)])
        meta = dict(db.execute("select key, value from meta"))
        while (script := UPGRADES.get(meta.get("schema", ""))) is not None:
            sql = importlib.resources.files("agent.station").joinpath(script).read_text(encoding="utf-8")
            with self._transaction("upgrade"):
                for statement in _statements(sql):
                    db.execute(statement)
            meta = dict(db.execute("select key, value from meta"))
        if meta.get("schema") != SCHEMA:
            raise Corrupt(f"{path}: schema {meta.get('schema')!r}, this station reads {SCHEMA!r}")
        if meta["site"] != self._site:
            raise ConfigError(f"station.site: {path} is of site {meta['site']!r}, the settings say {self._site!r}")
        self._heads = {(n, e): (s, h) for s, n, e, h in db.execute("select stream, node, epoch, head from stream")}
        self._nodes = {node for (node,) in db.execute("select node from node")}
        try:
            with self._transaction("register keys"):
                self._ledgers.register(db, self._node_keys)
        except Corrupt as error:
            raise ConfigError(f"station.node_keys: {error}") from None
        self._ledgers.open(db)

    def close(self) -> None:
        """Checkpoints and closes. Never raises."""
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):  # the WAL keeps everything
                db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        path = self._folder / FILE
        with _plain(path, what):
            if self._db is None:
                raise Transient(f"{path}: the store is closed")
            with immediate(self._db) as db:
                yield db

    def _need_room(self) -> None:
        free = self._free_bytes(self._folder)
        if free < FREE_BYTES_MIN:
            raise Transient(
                f"{self._folder}: only {free >> 20} MiB free, {FREE_BYTES_MIN >> 20} needed; free some space"
            )

    # -- taking in ----------------------------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> list[Stored]:
        """Stores a batch in one transaction, each event once. Returns what may be receipted: all of it is durable."""
        self._need_room()
        now_utc_ns = self._clock.utc().utc_ns
        heads, nodes = dict(self._heads), set(self._nodes)
        rejects = list(batch.rejects)
        found: dict[tuple[str, str], list[int]] = {}
        with self._transaction("store") as db:
            for intake in batch.taken:
                if not self._admit(db, intake.node, nodes, now_utc_ns):
                    rejects.append(Reject("", f"node {intake.node}: {self._nodes_max} nodes are known already", b""))
                elif isinstance(intake, EventIn):
                    refusal = self._add(db, intake, heads, now_utc_ns)
                    if refusal:
                        rejects.append(Reject(f"{intake.node}/{intake.kind}", refusal, intake.body))
                    else:
                        found.setdefault((intake.node, intake.epoch), []).append(intake.sequence)
                elif isinstance(intake, RecordIn):
                    if self._add_line(db, intake, heads, rejects, now_utc_ns):
                        found.setdefault((intake.node, intake.epoch), []).append(intake.sequence)
                elif not isinstance(intake, ReportedIn):  # which is kept in a book of its own
                    self._note(db, intake, now_utc_ns)
            stored = [Stored(*key, sequences, _advance(db, heads, key, sequences)) for key, sequences in found.items()]
            _add_rejects(db, rejects, now_utc_ns)
            if found:
                self._trim(db)
        self._heads, self._nodes = heads, nodes
        self.rejected += len(rejects)
        return stored

    def _admit(self, db: sqlite3.Connection, node: str, nodes: set[str], now_utc_ns: int) -> bool:
        """Makes the row of a node that was never heard, while there is room for one."""
        if node not in nodes:
            if len(nodes) >= self._nodes_max:
                return False
            nodes.add(node)
            db.execute(
                "insert or ignore into node (node, seen_boot_id, seen_ns, seen_utc_ns, state_since_utc_ns)"
                " values (?, ?, ?, ?, ?)",
                (node, self._clock.boot_id, self._clock.boot_ns(), now_utc_ns, now_utc_ns),
            )
        return True

    def _add(
        self, db: sqlite3.Connection, event: EventIn, heads: dict[tuple[str, str], tuple[int, int]], now_utc_ns: int
    ) -> str:
        """Inserts one event, or finds it there already. Returns why it cannot be stored."""
        stream = self._stream(db, event.node, event.epoch, heads)
        if stream is None:
            return f"{self._streams_per_node_max} stores of this node are known already"
        cursor = db.execute(
            "insert or ignore into event (stream, sequence, id, kind, incident, received_utc_ns, body)"
            " values (?, ?, ?, ?, ?, ?, ?)",
            (stream, event.sequence, event.id, event.kind, event.incident, now_utc_ns, event.body),
        )
        if cursor.rowcount:
            return ""
        there = db.execute(
            "select 1 from event where stream = ? and sequence = ? and id = ?", (stream, event.sequence, event.id)
        ).fetchone()
        return "" if there else f"sequence {event.sequence} or id {event.id} is taken by another event"

    def _stream(
        self, db: sqlite3.Connection, node: str, epoch: str, heads: dict[tuple[str, str], tuple[int, int]]
    ) -> int | None:
        """The row of one life of a node's store; None when there are too many of them."""
        key = (node, epoch)
        if key not in heads:
            if sum(known == node for known, _ in heads) >= self._streams_per_node_max:
                return None
            cursor = db.execute("insert into stream (node, epoch) values (?, ?)", key)
            heads[key] = (cursor.lastrowid or 0, 0)
        return heads[key][0]

    def _add_line(
        self,
        db: sqlite3.Connection,
        record: RecordIn,
        heads: dict[tuple[str, str], tuple[int, int]],
        rejects: list[Reject],
        now_utc_ns: int,
    ) -> bool:
        """Stores a line of a ledger; False when it is refused. What is wrong with it is put on the list of rejects."""
        topic = f"{record.node}/record"
        stream = self._stream(db, record.node, record.epoch, heads)
        if stream is None:
            rejects.append(
                Reject(topic, f"{self._streams_per_node_max} stores of this node are known already", record.line)
            )
            return False
        try:
            n, alarms = self._ledgers.add(db, record, now_utc_ns)
        except Refused as refused:
            n, alarms = 0, [Alarm(record.node, refused.what, str(refused))] if refused.alarm else []
        if n:
            db.execute("insert or ignore into carried values (?, ?, ?)", (stream, record.sequence, n))
            taken = db.execute(
                "select 1 from carried where stream = ? and sequence = ? and n <> ?"
                " union all select 1 from event where stream = ? and sequence = ?",
                (stream, record.sequence, n, stream, record.sequence),
            ).fetchone()
            if taken:
                text = f"sequence {record.sequence} came before with something else"
                alarms.append(Alarm(record.node, What.DUPLICATE, text))
        for alarm in alarms:
            text = self._ledgers.raise_alarm(db, alarm, now_utc_ns)
            if text:
                rejects.append(Reject(topic, text, record.line))
        return n > 0

    def receipts(self) -> list[Signed]:
        """Signs receipts for ledgers that have grown, each node's at most once in RECEIPT_EVERY_S; durable already.

        Raises Transient: then none was made.
        """
        due = self._ledgers.due()
        if not due or self._key is None:
            return []
        self._need_room()
        with self._transaction("sign receipts") as db:
            found = self._ledgers.sign(db, due, self._key)
        self._ledgers.signed(due)
        return found

    def _note(self, db: sqlite3.Connection, intake: HeartbeatIn | StatusIn, now_utc_ns: int) -> None:
        """Keeps the newest sign of life."""
        seen = (self._clock.boot_id, self._clock.boot_ns(), now_utc_ns)
        if isinstance(intake, HeartbeatIn):
            db.execute(
                "update node set heartbeat = ?, version = ?, session = ?, said = 'online', seen_boot_id = ?,"
                " seen_ns = ?, seen_utc_ns = ? where node = ?",
                (intake.body, intake.heartbeat.version, intake.heartbeat.session, *seen, intake.node),
            )
            return
        status = intake.status
        self._ledgers.pin(db, intake.node, status.key)
        if status.state == "online":
            db.execute(
                "update node set place = ?, version = ?, session = ?, said = 'online' where node = ?",
                (status.place, status.version, status.session, intake.node),
            )
            if not intake.retained:
                db.execute(
                    "update node set seen_boot_id = ?, seen_ns = ?, seen_utc_ns = ? where node = ?",
                    (*seen, intake.node),
                )
        else:  # the will of an earlier session may come after the birth of the next: it is stale
            db.execute(
                "update node set said = 'offline' where node = ? and session <= ?", (intake.node, status.session)
            )

    def _trim(self, db: sqlite3.Connection) -> None:
        """Gives up the oldest events beyond the bound, and counts them."""
        self._ledgers.trim(db)
        last = db.execute("select max(n) from event").fetchone()[0] or 0
        gone = db.execute("delete from event where n <= ?", (last - self._event_rows_max,)).rowcount
        if gone:
            db.execute(
                "insert into meta values ('deleted', ?)"
                " on conflict (key) do update set value = cast(cast(value as integer) + excluded.value as text)",
                (str(gone),),
            )

    # -- nodes --------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeSeen]:
        """Every node and when it was last heard."""
        if self._db is None:
            return []
        with _plain(self._folder / FILE, "read"):
            return _nodes(self._db)

    def change(self, changes: Sequence[tuple[str, str, int]]) -> None:
        """Notes new states: (node, state, since_utc_ns)."""
        now_utc_ns = self._clock.utc().utc_ns
        self._need_room()
        with self._transaction("note states") as db:
            for node, state, since_utc_ns in changes:
                db.execute(
                    "update node set state = ?, state_since_utc_ns = ? where node = ?", (state, since_utc_ns, node)
                )
                db.execute(
                    "insert into change (node, state, utc_ns, since_utc_ns) values (?, ?, ?, ?)",
                    (node, state, now_utc_ns, since_utc_ns),
                )
            db.execute("delete from change where n <= (select max(n) from change) - ?", (CHANGES_MAX,))

    def heartbeats(self) -> dict[str, bytes]:
        """The newest heartbeat of every node, as it came."""
        if self._db is None:
            return {}
        with _plain(self._folder / FILE, "read"):
            return dict(self._db.execute(_HEARTBEATS))

    # -- rollouts -----------------------------------------------------------------------------------------------------

    def rollout(self) -> Rollout | None:
        """The newest one, whatever has become of it. Raises Corrupt, Transient."""
        with self._transaction("read a rollout") as db:
            found = rollouts.newest(db)
        return None if found is None else found[1]

    def save_rollout(self, rollout: Rollout | None, posts: Sequence[Post], notes: Sequence[rollouts.Note]) -> None:
        """A step, in one transaction: durable when it returns."""
        self._need_room()
        with self._transaction("save a rollout") as db:
            rollouts.save(db, rollout, posts, notes, self._clock.utc().utc_ns)

    def settled(self, request: str) -> str | None:
        """What is on record of a request about rollouts; None when it was not done yet."""
        with self._transaction("read a rollout") as db:
            return rollouts.settled(db, request)


class Reader:
    """Reads a station's file while the station writes it. One thread; `open` may be called again after Transient."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Raises ConfigError when there is no station there."""
        if not self._path.is_file():
            raise ConfigError(f"{self._path}: no such file; is a station running on this data folder?")
        self.close()
        with _plain(self._path, "open"):
            db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None, timeout=5.0)
            try:
                db.execute("select count(*) from meta")
            except BaseException:
                db.close()
                raise
        self._db = db

    def close(self) -> None:
        """Lets go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def newest(self, table: str) -> int:
        """The highest row number of `event`, `change` or `reject`; 0 when there is none."""
        return int(self._query(f"select coalesce(max(n), 0) from {_known(table)}")[0][0])  # noqa: S608

    def events_after(self, n: int, limit: int) -> list[tuple[int, int, str, str, bytes]]:
        """(n, received_utc_ns, node, kind, body), in order of arrival."""
        return self._query(
            "select n, received_utc_ns, node, kind, body from event join stream using (stream) where n > ?"
            " order by n limit ?",
            n,
            limit,
        )

    def key_count(self) -> int:
        """How many keys of nodes stand in the books; they only ever become more."""
        return int(self._query("select count(*) from key")[0][0])

    def all_keys(self) -> list[tuple[int, str, str, str, str]]:
        """(since_utc_ns, node, keyid, public, how) of every key in the books, oldest first."""
        return self._query("select since_utc_ns, node, keyid, public, how from key order by since_utc_ns, node, keyid")

    def changes_after(self, n: int, limit: int) -> list[tuple[int, str, str, int, int]]:
        """(n, node, state, utc_ns, since_utc_ns)."""
        return self._query(
            "select n, node, state, utc_ns, since_utc_ns from change where n > ? order by n limit ?", n, limit
        )

    def rejects_after(self, n: int, limit: int) -> list[tuple[int, int, str, str]]:
        """(n, received_utc_ns, topic, reason)."""
        return self._query(
            "select n, received_utc_ns, topic, reason from reject where n > ? order by n limit ?", n, limit
        )

    def nodes(self) -> list[NodeSeen]:
        """Every node and when it was last heard."""
        if self._db is None:
            raise Transient(f"{self._path}: not open")
        with _plain(self._path, "read"):
            return _nodes(self._db)

    def heartbeats(self) -> dict[str, bytes]:
        """The newest heartbeat of every node, as it came."""
        return dict(self._query(_HEARTBEATS))

    def last_events(self, node: str, kinds: Sequence[str], limit: int) -> list[tuple[int, bytes]]:
        """(received_utc_ns, body) of a node's newest events of these kinds, newest first."""
        return self._query(
            "select received_utc_ns, body from event join stream using (stream)"
            " where node = ? and kind in (select value from json_each(?)) order by n desc limit ?",
            node,
            json.dumps(list(kinds)),
            limit,
        )

    def rollout(self, lines_max: int = 20) -> tuple[int, Rollout, list[tuple[int, str]]] | None:
        """When the newest one began, how far it has come, and (utc_ns, text) of its last steps. Raises Corrupt."""
        if self._db is None:
            raise Transient(f"{self._path}: not open")
        with _plain(self._path, "read"):
            found = rollouts.newest(self._db)
            return None if found is None else (*found, rollouts.record(self._db, found[1].id, lines_max))

    def sequences(self) -> dict[tuple[str, str], list[int]]:
        """Sequence numbers by (node, epoch): what an audit compares with the node's own."""
        found: dict[tuple[str, str], list[int]] = {}
        for node, epoch, sequence in self._query(
            "select node, epoch, sequence from event join stream using (stream)"
            " union select node, epoch, sequence from carried join stream using (stream) order by 1, 2, 3"
        ):
            found.setdefault((node, epoch), []).append(sequence)
        return found

    def lines(self, node: str) -> list[bytes]:
        """A node's ledger as far as it has arrived, by number."""
        return [row[0] for row in self._query("select body from line where node = ? order by root, seq, n", node)]

    def receipts(self, node: str) -> list[bytes]:
        """The receipts that were signed for a node's ledger, oldest first."""
        return [row[0] for row in self._query("select body from receipt where node = ? order by n", node)]

    def keys(self, node: str) -> dict[str, bytes]:
        """The public keys of a node's ledger by id: pinned, registered and introduced."""
        return {k: bytes.fromhex(p) for k, p in self._query("select keyid, public from key where node = ?", node)}

    def _query(self, sql: str, *args: object) -> list[Any]:
        if self._db is None:
            raise Transient(f"{self._path}: not open")
        with _plain(self._path, "read"):
            return self._db.execute(sql, args).fetchall()


def _known(table: str) -> str:
    if table not in {"event", "change", "reject"}:
        raise ValueError(table)
    return table


def _nodes(db: sqlite3.Connection) -> list[NodeSeen]:
    rows = db.execute(
        "select node, place, said, seen_boot_id, seen_ns, seen_utc_ns, state, state_since_utc_ns"
        " from node order by node"
    )
    return [NodeSeen(*row) for row in rows]


def _advance(
    db: sqlite3.Connection, heads: dict[tuple[str, str], tuple[int, int]], key: tuple[str, str], sequences: list[int]
) -> int:
    """Moves a stream's head over everything that is now without a hole. Looks only when the next one has come."""
    stream, head = heads[key]
    if head + 1 not in sequences:
        return head
    for (sequence,) in db.execute(
        "select sequence from event where stream = ?1 and sequence > ?2"
        " union select sequence from carried where stream = ?1 and sequence > ?2 order by sequence",
        (stream, head),
    ):
        if sequence != head + 1:
            break
        head = sequence
    db.execute("update stream set head = ? where stream = ?", (head, stream))
    heads[key] = (stream, head)
    return head


def _add_rejects(db: sqlite3.Connection, rejects: Sequence[Reject], now_utc_ns: int) -> None:
    for reject in rejects[:REJECTS_MAX]:
        db.execute(
            "insert into reject (received_utc_ns, topic, reason, bytes, head) values (?, ?, ?, ?, ?)",
            (now_utc_ns, reject.topic[:200], reject.reason[:500], len(reject.payload), reject.payload[:200]),
        )
    if rejects:
        db.execute("delete from reject where n <= (select max(n) from reject) - ?", (REJECTS_MAX,))


@contextmanager
def _plain(path: Path, what: str) -> Iterator[None]:
    """Turns SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Transient(f"{path}: cannot {what}: {error}; check the disk") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise
        raise Corrupt(f"{path}: {error}; set the file aside, nodes send again what they still hold") from error


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would commit behind our back."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _free_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def event_of(body: bytes) -> wire.CloudEvent | None:
    """A stored event; None when this station does not understand its form."""
    try:
        return wire.decode(body, wire.CloudEvent)
    except Corrupt:
        return None
