"""The station's memory. What `commit` returned survives a power cut: only then is it receipted.

One process writes (lock.py), over one connection; `reader.Reader` reads beside it. Where the connection breaks or a
transaction fails, what is known in memory is read anew before the next one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from agent import wire
from agent.clock import Clock
from agent.disk import PosixDisk
from agent.errors import ConfigError, Corrupt, Transient
from agent.evidence import keys
from agent.evidence.chain import What
from agent.station import rollouts
from agent.station.db import migrate
from agent.station.db.engine import FILE, database_url, open_engine, transaction
from agent.station.db.errors import name_of, plain
from agent.station.db.tables import carried, change, event, meta, node, reject
from agent.station.db.together import Among
from agent.station.db.update import Update
from agent.station.db.upsert import Upsert
from agent.station.intake import EventIn, HeartbeatIn, Intake, RecordIn, ReportedIn, StatusIn
from agent.station.ledgers import Alarm, Ledgers, Refused, Signed
from agent.station.lock import FolderLock, become_writer
from agent.station.reader import HEARTBEATS, NODES
from agent.station.rollout import Post, Rollout
from agent.station.states import NodeSeen, NodeState
from agent.station.streams import Life, Streams

FREE_BYTES_MIN = 32 * 1024 * 1024
"""Less than this, and nothing is taken in: a full disk makes SQLite's shared memory a SIGBUS (field notes)."""
REJECTS_MAX = 1000
CHANGES_MAX = 10_000
WHOLE_MAX = 2**63 - 1
"""A larger number of a node's is stored as this: neither database holds it."""
ASKED_MAX = 500
"""Events that are looked for in one query."""

_SEEN = ("seen_boot_id", "seen_ns", "seen_utc_ns")
_ADMIT = Upsert(node, lambda made: made.on_conflict_do_nothing())
_BEAT = Upsert(
    node,
    lambda made: made.on_conflict_do_update(
        index_elements=["node"],
        set_={name: made.excluded[name] for name in ("heartbeat", "version", "session", "said", *_SEEN)},
    ),
)
_ADD = Upsert(event, lambda made: made.on_conflict_do_nothing(), returning=event.c.id)
_STATES = Update(node, node.c.node, node.c.state, node.c.state_since_utc_ns)
_REASONS = Among(select(node.c.node, node.c.reason), node.c.node)
_CHANGED = Upsert(change, lambda made: made)
_BY_ID = Among(select(event.c.id, event.c.stream, event.c.sequence), event.c.id)
_CARRY = Upsert(carried, lambda made: made.on_conflict_do_nothing())
_CARRIED = select(carried.c.n).where(carried.c.stream == bindparam("of"), carried.c.sequence == bindparam("number"))
_TAKEN = select(event.c.n).where(event.c.stream == bindparam("of"), event.c.sequence == bindparam("number"))
_DELETED = "deleted"
_TELL = Upsert(
    meta, lambda made: made.on_conflict_do_update(index_elements=["key"], set_={"value": made.excluded.value})
)


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
    """The writer. One thread. Raises Transient when the database refuses: nothing of the batch was stored."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        site: str,
        database: str = "",
        event_rows_max: int = 2_000_000,
        nodes_max: int = 10_000,
        streams_per_node_max: int = 100,
        free_bytes: Callable[[Path], int] | None = None,
        station: str = "station",
        node_keys: Mapping[str, str] | None = None,
    ) -> None:
        """`database`: its URL; empty for the file in the folder. The folder has the lock and the station's key.

        `free_bytes` tells the room left on the disk of a folder; a test brings its own.
        `station` names the desk in the receipts it signs; `node_keys`: public keys of nodes that a person vouches for.
        """
        self._folder = folder
        self._database = database
        self._clock = clock
        self._site = site
        self._event_rows_max = event_rows_max
        self._nodes_max = nodes_max
        self._free_bytes = free_bytes or _free_bytes
        self._ledgers = Ledgers(clock=clock, site=site, station=station, rows_max=event_rows_max)
        self._streams = Streams(per_node_max=streams_per_node_max)
        self._streams_per_node_max = streams_per_node_max
        self._node_keys = dict(node_keys or {})
        self._lock: FolderLock | None = None
        self._key: keys.Key | None = None
        self._open = False
        self._name = os.fspath(folder / FILE)
        self._db: Connection | None = None
        self._fresh = False  # what is known in memory is what the database has
        self._nodes: set[str] = set()
        self.rejected = 0  # since the start

    # -- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Opens or makes the database. Raises ConfigError (folder, second station), Corrupt, Transient."""
        if not self._folder.is_dir():
            raise ConfigError(f"station.data: {self._folder} is not a folder; make it, or mount the partition")
        lock = FolderLock(self._folder)
        lock.take()
        self._lock = lock
        self._need_room()
        self._key = keys.load_or_make(PosixDisk(self._folder), "station")[-1]
        self._open = True
        try:
            self._connected()
        except BaseException:
            self._open = False
            raise
        try:
            with self._transaction("register keys") as db:
                self._ledgers.register(db, self._node_keys)
        except Corrupt as error:
            raise ConfigError(f"station.node_keys: {error}") from None

    def close(self) -> None:
        """Closes the database and lets go of the folder. Never raises."""
        self._open = False
        self._drop()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _drop(self) -> None:
        db, self._db = self._db, None
        self._fresh = False
        if db is not None:
            with suppress(SQLAlchemyError, OSError):  # what was committed is on the disk
                db.close()

    def _connected(self) -> Connection:
        """The one connection, made anew if the last one broke, with what is known in memory true to it."""
        if not self._open:
            raise Transient(f"{self._folder}: the store is closed")
        if self._db is not None and self._db.invalidated:
            self._drop()  # SQLAlchemy would mend it, without the lock that went with it
        if self._db is None:
            self._db = self._connect()
        if not self._fresh:
            with transaction(self._db, writes=False):
                self._streams.load(self._db)
                self._nodes = set(self._db.execute(select(node.c.node)).scalars())
                self._ledgers.open(self._db)
            self._fresh = True
        return self._db

    def _connect(self) -> Connection:
        engine = open_engine(database_url(self._folder, self._database), pooled=False)
        self._name = name_of(engine.url)
        with plain(self._name, "open"):
            db = engine.connect()
            try:
                become_writer(db, self._name)
                migrate.upgrade(engine)
                self._check_site(db)
            except BaseException:
                db.close()
                raise
            return db

    def _check_site(self, db: Connection) -> None:
        with transaction(db, writes=True):
            site = db.execute(select(meta.c.value).where(meta.c.key == "site")).scalar_one_or_none()
            if site is None:
                db.execute(insert(meta).values(key="site", value=self._site))
            elif site != self._site:
                raise ConfigError(f"station.site: {self._name} is of site {site!r}, the settings say {self._site!r}")

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Connection]:
        """Durable when it ends well, else nothing of it."""
        with self._using(what, writes=True) as db:
            yield db

    @contextmanager
    def _using(self, what: str, *, writes: bool) -> Iterator[Connection]:
        with plain(self._name, what):
            try:
                db = self._connected()
                with transaction(db, writes=writes):
                    yield db
            except BaseException as error:
                self._fresh = self._fresh and not writes
                server = self._db is not None and self._db.dialect.name == "postgresql"
                if server and isinstance(error, DBAPIError | OSError):
                    self._drop()  # one that is going down ends the session with the next word
                raise

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
        rejects = list(batch.rejects)
        found: dict[Life, list[int]] = {}
        with self._transaction("store") as db:
            self._admit(db, batch.taken, now_utc_ns)
            events, lines = self._sorted(db, batch.taken, rejects, now_utc_ns)
            for start in range(0, len(events), ASKED_MAX):
                self._add(db, events[start : start + ASKED_MAX], found, rejects, now_utc_ns)
            for record in lines:
                if self._add_line(db, record, rejects, now_utc_ns):
                    found.setdefault((record.node, record.epoch), []).append(record.sequence)
            heads = self._streams.advance(db, found)
            _add_rejects(db, rejects, now_utc_ns)
            if found:
                self._trim(db)
        self.rejected += len(rejects)
        return [Stored(*life, sequences, heads[life]) for life, sequences in found.items()]

    def _sorted(
        self, db: Connection, taken: Sequence[Intake], rejects: list[Reject], now_utc_ns: int
    ) -> tuple[list[tuple[int, EventIn]], list[RecordIn]]:
        """The events with their stream's row, and the lines of ledgers; signs of life are stored on the way."""
        events: list[tuple[int, EventIn]] = []
        lines: list[RecordIn] = []
        beats: dict[str, HeartbeatIn] = {}  # the newest of each node is enough
        for intake in taken:
            if intake.node not in self._nodes:
                rejects.append(Reject("", f"node {intake.node}: {self._nodes_max} nodes are known already", b""))
                continue
            match intake:
                case EventIn():
                    row = self._streams.row(db, (intake.node, intake.epoch))
                    if row is None:
                        rejects.append(Reject(f"{intake.node}/{intake.kind}", self._too_many_stores, intake.body))
                    else:
                        events.append((row, intake))
                case RecordIn():
                    lines.append(intake)
                case HeartbeatIn():
                    beats[intake.node] = intake
                case StatusIn():
                    if intake.node in beats:
                        self._beat(db, [beats.pop(intake.node)], now_utc_ns)
                    self._status(db, intake, now_utc_ns)
                case ReportedIn():
                    pass  # it is kept in a book of its own
        self._beat(db, list(beats.values()), now_utc_ns)
        return events, lines

    @property
    def _too_many_stores(self) -> str:
        return f"{self._streams_per_node_max} stores of this node are known already"

    def _admit(self, db: Connection, taken: Sequence[Intake], now_utc_ns: int) -> None:
        """Makes the rows of nodes that were never heard, while there is room for them."""
        rows = []
        for intake in taken:
            if intake.node not in self._nodes and len(self._nodes) < self._nodes_max:
                self._nodes.add(intake.node)
                rows.append({"node": intake.node, **self._seen(now_utc_ns), "state_since_utc_ns": now_utc_ns})
        if rows:
            _ADMIT.many(db, rows)

    def _seen(self, now_utc_ns: int) -> dict[str, str | int]:
        return dict(zip(_SEEN, (self._clock.boot_id, self._clock.boot_ns(), now_utc_ns), strict=True))

    def _add(
        self,
        db: Connection,
        events: Sequence[tuple[int, EventIn]],
        found: dict[Life, list[int]],
        rejects: list[Reject],
        now_utc_ns: int,
    ) -> None:
        """Inserts events, or finds them there already. What contradicts what is stored goes on the list of rejects."""
        rows = _BY_ID.ask(db, [one.id for _, one in events])
        places = {id_: (row, sequence) for id_, row, sequence in rows}
        new: dict[tuple[int, int], str] = {}
        inserts = []
        for row, one in events:
            place = (row, one.sequence)
            if one.id not in places and place not in new:
                places[one.id], new[place] = place, one.id
                inserts.append(
                    {
                        "stream": row,
                        "sequence": one.sequence,
                        "id": one.id,
                        "kind": one.kind,
                        "incident": one.incident,
                        "received_utc_ns": now_utc_ns,
                        "body": one.body,
                    }
                )
        written = set(_ADD.many(db, inserts)) if inserts else set()
        refused = {id_ for id_ in new.values() if id_ not in written}  # its number is stored with another id
        for row, one in events:
            if one.id not in refused and places.get(one.id) == (row, one.sequence):
                found.setdefault((one.node, one.epoch), []).append(one.sequence)
            else:
                text = f"sequence {one.sequence} or id {one.id} is taken by another event"
                rejects.append(Reject(f"{one.node}/{one.kind}", text, one.body))

    def _add_line(self, db: Connection, record: RecordIn, rejects: list[Reject], now_utc_ns: int) -> bool:
        """Stores a line of a ledger; False when it is refused. What is wrong with it is put on the list of rejects."""
        topic = f"{record.node}/record"
        stream = self._streams.row(db, (record.node, record.epoch))
        if stream is None:
            rejects.append(Reject(topic, self._too_many_stores, record.line))
            return False
        try:
            n, alarms = self._ledgers.add(db, record, now_utc_ns)
        except Refused as refused:
            n, alarms = 0, [Alarm(record.node, refused.what, str(refused))] if refused.alarm else []
        if n:
            place = {"of": stream, "number": record.sequence}
            new = _CARRY.one(db, {"stream": stream, "sequence": record.sequence, "n": n})
            other = not new and db.execute(_CARRIED, place).scalar_one() != n
            if other or db.execute(_TAKEN, place).first() is not None:
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

    def _beat(self, db: Connection, beats: Sequence[HeartbeatIn], now_utc_ns: int) -> None:
        """Keeps each node's newest heartbeat, and that it is there."""
        rows = [
            {
                "node": beat.node,
                "heartbeat": beat.body,
                "version": beat.heartbeat.version,
                "session": min(beat.heartbeat.session, WHOLE_MAX),
                "said": "online",
                "state_since_utc_ns": now_utc_ns,  # of a row that is new, which none is: it was admitted
                **self._seen(now_utc_ns),
            }
            for beat in beats
        ]
        if rows:
            _BEAT.many(db, rows)

    def _status(self, db: Connection, intake: StatusIn, now_utc_ns: int) -> None:
        """Keeps what a node, or its last will, says of itself."""
        status, session = intake.status, min(intake.status.session, WHOLE_MAX)
        self._ledgers.pin(db, intake.node, status.key)
        this = update(node).where(node.c.node == intake.node)
        if status.state == "online":
            said = {
                "place": status.place,
                "version": status.version,
                "session": session,
                "said": "online",
                "reason": "",
            }
            db.execute(this.values(**said, **({} if intake.retained else self._seen(now_utc_ns))))
        else:  # the will of an earlier session may come after the birth of the next: it is stale
            db.execute(this.where(node.c.session <= session).values(said="offline", reason=status.reason))

    def _trim(self, db: Connection) -> None:
        """Gives up the oldest events beyond the bound, and counts them."""
        self._ledgers.trim(db)
        last = db.execute(select(func.max(event.c.n))).scalar_one() or 0
        if last <= self._event_rows_max:
            return
        gone = db.execute(delete(event).where(event.c.n <= last - self._event_rows_max)).rowcount
        if gone:
            before = db.execute(select(meta.c.value).where(meta.c.key == _DELETED)).scalar_one_or_none()
            _TELL.one(db, {"key": _DELETED, "value": str(int(before or 0) + gone)})

    # -- nodes --------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[NodeSeen]:
        """Every node and when it was last heard."""
        if not self._open:
            return []
        with self._using("read", writes=False) as db:
            return [NodeSeen(*row) for row in db.execute(NODES)]

    def change(self, changes: Sequence[tuple[str, str, int]]) -> None:
        """Notes new states: (node, state, since_utc_ns)."""
        now_utc_ns = self._clock.utc().utc_ns
        self._need_room()
        with self._transaction("note states") as db:
            _STATES.many(
                db,
                [{"node": name, "state": state, "state_since_utc_ns": since} for name, state, since in changes],
            )
            gone = [name for name, state, _ in changes if state == NodeState.OFFLINE]
            left = {row.node: row.reason for row in _REASONS.ask(db, gone)}
            _CHANGED.many(
                db,
                [
                    {
                        "node": name,
                        "state": state,
                        "utc_ns": now_utc_ns,
                        "since_utc_ns": since_utc_ns,
                        "reason": left.get(name, ""),
                    }
                    for name, state, since_utc_ns in changes
                ],
            )
            last = select(func.max(change.c.n)).scalar_subquery()
            db.execute(delete(change).where(change.c.n <= last - CHANGES_MAX))

    def heartbeats(self) -> dict[str, bytes]:
        """The newest heartbeat of every node, as it came."""
        if not self._open:
            return {}
        with self._using("read", writes=False) as db:
            return {name: body for name, body in db.execute(HEARTBEATS)}  # noqa: C416 (a Row is no tuple to mypy)

    # -- rollouts -----------------------------------------------------------------------------------------------------

    def rollout(self) -> Rollout | None:
        """The newest one, whatever has become of it. Raises Corrupt, Transient."""
        with self._using("read a rollout", writes=False) as db:
            found = rollouts.newest(db)
        return None if found is None else found[1]

    def save_rollout(self, rollout: Rollout | None, posts: Sequence[Post], notes: Sequence[rollouts.Note]) -> None:
        """A step, in one transaction: durable when it returns."""
        self._need_room()
        with self._transaction("save a rollout") as db:
            rollouts.save(db, rollout, posts, notes, self._clock.utc().utc_ns)

    def settled(self, request: str) -> str | None:
        """What is on record of a request about rollouts; None when it was not done yet."""
        with self._using("read a rollout", writes=False) as db:
            return rollouts.settled(db, request)


def _add_rejects(db: Connection, rejects: Sequence[Reject], now_utc_ns: int) -> None:
    if not rejects:
        return
    rows = [
        {
            "received_utc_ns": now_utc_ns,
            "topic": one.topic[:200],
            "reason": one.reason[:500],
            "bytes": len(one.payload),
            "head": one.payload[:200],
        }
        for one in rejects[:REJECTS_MAX]
    ]
    db.execute(insert(reject), rows)
    last = select(func.max(reject.c.n)).scalar_subquery()
    db.execute(delete(reject).where(reject.c.n <= last - REJECTS_MAX))


def _free_bytes(folder: Path) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def event_of(body: bytes) -> wire.CloudEvent | None:
    """A stored event; None when this station does not understand its form."""
    try:
        return wire.decode(body, wire.CloudEvent)
    except Corrupt:
        return None
