"""What the station has asked of nodes, until they have answered: a durable queue for posts that are dark.

The commands are signed when they are asked for, and kept in the station's database. They go out while the
node is heard, again and again until it has answered or they have expired; per node in the order of asking, one at a
time, so that the end of a hold never overtakes the hold. `update` has a row of its own: one that is downloaded for days
must not keep a hold waiting. What is not safe to repeat (`agent.uplink.commands`: all but the lasting commands) is sent
once, each in a row of its own, and expires within the minute: a siren is for now.

What a node is to have for good - its settings - is no command: settings_book.py.

`request` is what people ask of the station itself (`wardpost rollout`): the station, which alone rolls out, takes them
from here.

Any process may write beside the station (`wardpost hold --node`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, delete, func, insert, select, update

from agent import wire
from agent.errors import ConfigError
from agent.station.book import Book
from agent.station.db.books import command, request
from agent.station.db.together import Question

WAITING_PER_NODE_MAX = 200
KEPT_MAX = 10_000
"""Orders that are over are kept for the record, the newest only."""
RESEND_S = 30.0
ONCE = ("doctor", "siren", "lamp")
"""Sent once, and not again while no answer has come: the node would refuse it as seen before, or sound twice."""
REQUESTS_WAITING_MAX = 20
REQUESTS_KEPT_MAX = 200

_WAITS = command.c.state == "waiting"
_ROW = case(
    (command.c.verb == "update", command.c.verb),
    (command.c.verb.in_((*ONCE, "send")), command.c.id),
    else_="",
)
"""Commands of one node and row wait for each other. Not `send`: the second must not wait for days to be held."""
_OF = Question(
    lambda of: select(command).where(command.c.node == of["node"]).order_by(command.c.n.desc()).limit(of["limit"]),
    {"node": command.c.node.type, "limit": command.c.n.type},
)
_FIRST = select(func.min(command.c.n)).where(_WAITS).group_by(command.c.node, _ROW)


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
    """One connection, one thread. Raises Transient when the database refuses."""

    def __init__(self, engine: Engine) -> None:
        """See Book."""
        super().__init__(engine)
        self._newest = -1

    def add(self, node: str, order: wire.Command, *, asked_utc_ns: int, expires_utc_ns: int) -> None:
        """Queues a signed command. Durable when it returns. Raises ConfigError when too many wait."""
        with self._transaction("queue a command") as db:
            count = select(func.count()).select_from(command).where(command.c.node == node, _WAITS)
            waiting = db.execute(count).scalar_one()
            if waiting >= WAITING_PER_NODE_MAX:
                raise ConfigError(
                    f"{node}: {waiting} commands wait for this node already; it takes them when it is back"
                )
            db.execute(
                insert(command).values(
                    id=order.id,
                    node=node,
                    verb=order.verb,
                    payload=wire.encode(order),
                    asked_utc_ns=asked_utc_ns,
                    expires_utc_ns=expires_utc_ns,
                )
            )
            newest = select(func.max(command.c.n)).scalar_subquery()
            db.execute(delete(command).where(command.c.state != "waiting", command.c.n <= newest - KEPT_MAX))

    def changed(self) -> bool:
        """Whether somebody has asked for something since this was last asked. Cheap. Raises Transient."""
        ((newest,),) = self._rows(select(func.coalesce(func.max(command.c.n), 0)))
        known, self._newest = self._newest, newest
        return bool(known != newest)

    def due(self, now_utc_ns: int) -> list[Order]:
        """The oldest command that waits, of each node and row; what has expired is noted first."""
        late = (_WAITS, command.c.expires_utc_ns <= now_utc_ns)
        if self._rows(select(command.c.n).where(*late).limit(1)):
            with self._transaction("expire commands") as db:
                db.execute(update(command).where(*late).values(state="expired"))
        return self._orders(command.c.n.in_(_FIRST))

    def sent(self, n: int) -> None:
        """It has been sent once more."""
        with self._transaction("note a command") as db:
            db.execute(update(command).where(command.c.n == n).values(sent=command.c.sent + 1))

    def answered(self, node: str, reply: wire.Reply) -> bool:
        """Notes what became of it, or how far it has come; False when it is not over by this, or was before."""
        told = wire.encode(reply).decode()
        this = update(command).where(command.c.id == reply.id, command.c.node == node)
        if reply.state == "accepted":
            with self._transaction("note progress") as db:
                db.execute(this.where(_WAITS, command.c.answer != told).values(answer=told))
            return False
        with self._transaction("note an answer") as db:
            over = this.where(command.c.state.in_(("waiting", "expired")))
            changed = db.execute(over.values(state=reply.state, answer=told)).rowcount
        return bool(changed)

    def of(self, node: str, limit: int = 100) -> list[Order]:
        """What was asked of a node, the newest first."""
        return self._orders(command.c.node == node, newest=limit)

    def waiting(self, node: str, verb: str) -> list[Order]:
        """What was asked of a node by this verb and is not over, oldest first: WAITING_PER_NODE_MAX at most."""
        return self._orders((command.c.node == node) & (command.c.verb == verb) & _WAITS)

    def of_all(self, nodes: Sequence[str], limit: int = 100) -> dict[str, list[Order]]:
        """The same of several nodes, in one trip to the database."""
        with self._reading("read") as db:
            rows = _OF.ask(db, [{"node": node, "limit": limit} for node in nodes])
        return {node: [_order(row) for row in told] for node, told in zip(nodes, rows, strict=True)}

    def find(self, command_id: str) -> Order | None:
        """One command by its id."""
        return next(iter(self._orders(command.c.id == command_id)), None)

    def withdraw(self, command_id: str, why: str) -> bool:
        """Gives up a command that its node has not answered yet, not even with progress. What was sent may still be
        carried out: its answer is then noted all the same.
        """
        reply = wire.Reply(id=command_id, state="failed", detail=f"withdrawn: {why}"[:500])
        this = update(command).where(command.c.id == command_id, _WAITS, command.c.answer == "")
        with self._transaction("withdraw a command") as db:
            changed = db.execute(this.values(state="expired", answer=wire.encode(reply).decode())).rowcount
        return bool(changed)

    # -- what is asked of the station itself --------------------------------------------------------------------------

    def ask(self, request_id: str, verb: str, body: str) -> None:
        """Puts a request. Durable when it returns. Raises ConfigError when too many wait."""
        with self._transaction("ask the station") as db:
            count = select(func.count()).select_from(request).where(request.c.answer.is_(None))
            waiting = db.execute(count).scalar_one()
            if waiting >= REQUESTS_WAITING_MAX:
                raise ConfigError(f"{waiting} requests wait for the station already; is `wardpost station` running?")
            db.execute(insert(request).values(id=request_id, verb=verb, body=body))
            newest = select(func.max(request.c.n)).scalar_subquery()
            db.execute(delete(request).where(request.c.n <= newest - REQUESTS_KEPT_MAX))

    def request(self, request_id: str) -> Request | None:
        """One request by its id."""
        return next(iter(self._requests(request.c.id == request_id)), None)

    def requests(self) -> list[Request]:
        """What nobody has looked at yet, oldest first."""
        return self._requests(request.c.answer.is_(None))

    def settle(self, request_id: str, answer: str) -> None:
        """Notes what became of a request."""
        with self._transaction("answer a request") as db:
            db.execute(update(request).where(request.c.id == request_id).values(answer=answer))

    def _requests(self, which: ColumnElement[bool]) -> list[Request]:
        columns = (request.c.id, request.c.verb, request.c.body, request.c.answer)
        return [Request(*row) for row in self._rows(select(*columns).where(which).order_by(request.c.n))]

    def _orders(self, which: ColumnElement[bool], *, newest: int | None = None) -> list[Order]:
        """Oldest first, or this many of the newest, newest first."""
        found = select(command).where(which).order_by(command.c.n if newest is None else command.c.n.desc())
        return [_order(row) for row in self._rows(found.limit(newest))]


def _order(row: Any) -> Order:
    return Order(*row[-len(command.c) :])  # that of a Question has its number in front
