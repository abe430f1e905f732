"""What the station has asked of nodes, until they have answered: a durable queue for posts that are dark.

The commands are signed when they are asked for, and kept in `orders.db` in the station's folder. They go out while the
node is heard, again and again until it has answered or they have expired; per node in the order of asking, one at a
time, so that a release never overtakes its hold. Only commands that are safe to repeat belong here
(`agent.uplink.commands`: the lasting ones).

Any process may open the file beside the station (`wardpost hold --node`): SQLite serialises them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent import wire
from agent.errors import ConfigError, Transient

FILE = "orders.db"
WAITING_PER_NODE_MAX = 200
KEPT_MAX = 10_000
"""Orders that are over are kept for the record, the newest only."""
RESEND_S = 30.0

_SCHEMA = """
create table if not exists command (
  n integer primary key,
  id text not null unique,
  node text not null,
  verb text not null,
  payload blob not null,             -- wire.Command, signed, as it is sent
  asked_utc_ns integer not null,
  expires_utc_ns integer not null,
  state text not null default 'waiting' check (state in ('waiting', 'done', 'refused', 'failed', 'expired')),
  sent integer not null default 0,   -- how often
  answer text not null default ''    -- wire.Reply
)
"""


@dataclass(frozen=True, slots=True)
class Order:
    """One command and what became of it."""

    n: int
    id: str
    node: str
    verb: str
    payload: bytes
    asked_utc_ns: int
    expires_utc_ns: int
    state: str
    sent: int
    answer: str


class OrderBook:
    """One connection, one thread. Raises Transient when the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Opens or makes the file. Raises ConfigError, Transient."""
        if not self._path.parent.is_dir():
            raise ConfigError(f"station.data: {self._path.parent} is not a folder; make it, or mount the partition")
        if self._db is not None:
            return
        with self._plain("open"):
            db = sqlite3.connect(self._path, isolation_level=None, timeout=5.0, check_same_thread=False)
            try:
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=full")
                db.execute(_SCHEMA)
            except BaseException:
                db.close()
                raise
        self._db = db

    def close(self) -> None:
        """Lets go of the file."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def add(self, node: str, command: wire.Command, *, asked_utc_ns: int, expires_utc_ns: int) -> None:
        """Queues a signed command. Durable when it returns. Raises ConfigError when too many wait."""
        with self._transaction("queue a command") as db:
            (waiting,) = db.execute(
                "select count(*) from command where node = ? and state = 'waiting'", (node,)
            ).fetchone()
            if waiting >= WAITING_PER_NODE_MAX:
                raise ConfigError(
                    f"{node}: {waiting} commands wait for this node already; it takes them when it is back"
                )
            db.execute(
                "insert into command (id, node, verb, payload, asked_utc_ns, expires_utc_ns) values (?, ?, ?, ?, ?, ?)",
                (command.id, node, command.verb, wire.encode(command), asked_utc_ns, expires_utc_ns),
            )
            db.execute(
                "delete from command where state <> 'waiting' and n <= (select max(n) from command) - ?", (KEPT_MAX,)
            )

    def due(self, now_utc_ns: int) -> list[Order]:
        """The oldest command that waits, of each node; what has expired is noted first."""
        with self._transaction("expire commands") as db:
            db.execute(
                "update command set state = 'expired' where state = 'waiting' and expires_utc_ns <= ?", (now_utc_ns,)
            )
        return self._orders("where n in (select min(n) from command where state = 'waiting' group by node) order by n")

    def sent(self, n: int) -> None:
        """It has been sent once more."""
        with self._transaction("note a command") as db:
            db.execute("update command set sent = sent + 1 where n = ?", (n,))

    def answered(self, node: str, reply: wire.Reply) -> bool:
        """Notes what became of it; False when it is not one of ours, or was answered before."""
        if reply.state == "accepted":
            return False
        with self._transaction("note an answer") as db:
            changed = db.execute(
                "update command set state = ?, answer = ?"
                " where id = ? and node = ? and state in ('waiting', 'expired')",
                (reply.state, wire.encode(reply).decode(), reply.id, node),
            ).rowcount
        return bool(changed)

    def of(self, node: str, limit: int = 100) -> list[Order]:
        """What was asked of a node, the newest first."""
        return self._orders("where node = ? order by n desc limit ?", node, limit)

    def _orders(self, where: str, *args: object) -> list[Order]:
        with self._plain("read"):
            if self._db is None:
                raise Transient(f"{self._path}: not open")
            rows = self._db.execute(
                f"select n, id, node, verb, payload, asked_utc_ns, expires_utc_ns, state, sent, answer"  # noqa: S608
                f" from command {where}",  # a text of ours
                args,
            ).fetchall()
        return [Order(*row) for row in rows]

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._plain(what):
            if self._db is None:
                raise Transient(f"{self._path}: not open")
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise

    @contextmanager
    def _plain(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise Transient(f"{self._path}: cannot {what}: {error}; check the disk") from error
