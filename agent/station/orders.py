"""What the station has asked of nodes, until they have answered: a durable queue for posts that are dark.

The commands are signed when they are asked for, and kept in `orders.db` in the station's folder. They go out while the
node is heard, again and again until it has answered or they have expired; per node in the order of asking, one at a
time, so that the end of a hold never overtakes the hold. `update` has a row of its own: one that is downloaded for days
must not keep a hold waiting. What is not safe to repeat (`agent.uplink.commands`: all but the lasting commands) is sent
once, each in a row of its own, and expires within the minute: a siren is for now.

What a node is to have for good - its settings - is no command: settings_book.py.

`request` is what people ask of the station itself (`wardpost rollout`): the station, which alone writes to its
database, takes them from here.

Any process may open the file beside the station (`wardpost hold --node`): SQLite serialises them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent import wire
from agent.errors import ConfigError
from agent.station.book import Book

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
  answer text not null default ''    -- wire.Reply; while it waits, the newest that told of progress
)
"""
_REQUESTS = """
create table if not exists request (
  n integer primary key,
  id text not null unique,
  verb text not null,
  body text not null,                -- JSON
  answer text                        -- JSON: what became of it; null: the station has not looked yet
)
"""
ONCE = ("doctor", "siren", "lamp")
"""Sent once, and not again while no answer has come: the node would refuse it as seen before, or sound twice."""
_ROW = "node, case when verb = 'update' then verb when verb in ('doctor', 'siren', 'lamp', 'send') then id else '' end"
"""Commands of one such row wait for each other. Not `send`: the second must not wait for days to be held."""
REQUESTS_WAITING_MAX = 20
REQUESTS_KEPT_MAX = 200


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


@dataclass(frozen=True, slots=True)
class Request:
    """Something that is asked of the station itself. `answer` None: it has not looked yet."""

    id: str
    verb: str
    body: str
    answer: str | None


class OrderBook(Book):
    """One connection, one thread. Raises Transient when the disk refuses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FILE, (_SCHEMA, _REQUESTS))

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
        """The oldest command that waits, of each node and row; what has expired is noted first."""
        with self._transaction("expire commands") as db:
            db.execute(
                "update command set state = 'expired' where state = 'waiting' and expires_utc_ns <= ?", (now_utc_ns,)
            )
        return self._orders(
            f"where n in (select min(n) from command where state = 'waiting' group by {_ROW}) order by n"  # noqa: S608
        )

    def sent(self, n: int) -> None:
        """It has been sent once more."""
        with self._transaction("note a command") as db:
            db.execute("update command set sent = sent + 1 where n = ?", (n,))

    def answered(self, node: str, reply: wire.Reply) -> bool:
        """Notes what became of it, or how far it has come; False when it is not over by this, or was before."""
        if reply.state == "accepted":
            told = wire.encode(reply).decode()
            with self._transaction("note progress") as db:
                db.execute(
                    "update command set answer = ? where id = ? and node = ? and state = 'waiting' and answer <> ?",
                    (told, reply.id, node, told),
                )
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

    def find(self, command_id: str) -> Order | None:
        """One command by its id."""
        return next(iter(self._orders("where id = ?", command_id)), None)

    def withdraw(self, command_id: str, why: str) -> bool:
        """Gives up a command that its node has not answered yet, not even with progress. What was sent may still be
        carried out: its answer is then noted all the same.
        """
        reply = wire.Reply(id=command_id, state="failed", detail=f"withdrawn: {why}"[:500])
        with self._transaction("withdraw a command") as db:
            changed = db.execute(
                "update command set state = 'expired', answer = ? where id = ? and state = 'waiting' and answer = ''",
                (wire.encode(reply).decode(), command_id),
            ).rowcount
        return bool(changed)

    # -- what is asked of the station itself --------------------------------------------------------------------------

    def ask(self, request_id: str, verb: str, body: str) -> None:
        """Puts a request. Durable when it returns. Raises ConfigError when too many wait."""
        with self._transaction("ask the station") as db:
            (waiting,) = db.execute("select count(*) from request where answer is null").fetchone()
            if waiting >= REQUESTS_WAITING_MAX:
                raise ConfigError(f"{waiting} requests wait for the station already; is `wardpost station` running?")
            db.execute("insert into request (id, verb, body) values (?, ?, ?)", (request_id, verb, body))
            db.execute("delete from request where n <= (select max(n) from request) - ?", (REQUESTS_KEPT_MAX,))

    def request(self, request_id: str) -> Request | None:
        """One request by its id."""
        return next(iter(self._requests("where id = ?", request_id)), None)

    def requests(self) -> list[Request]:
        """What nobody has looked at yet, oldest first."""
        return self._requests("where answer is null order by n")

    def settle(self, request_id: str, answer: str) -> None:
        """Notes what became of a request."""
        with self._transaction("answer a request") as db:
            db.execute("update request set answer = ? where id = ?", (answer, request_id))

    def _requests(self, where: str, *args: object) -> list[Request]:
        return [Request(*row) for row in self._rows(f"select id, verb, body, answer from request {where}", args)]  # noqa: S608

    def _orders(self, where: str, *args: object) -> list[Order]:
        columns = "n, id, node, verb, payload, asked_utc_ns, expires_utc_ns, state, sent, answer"
        return [Order(*row) for row in self._rows(f"select {columns} from command {where}", args)]  # noqa: S608
