"""Asking a post for its footage: the signed command `send`, queued for a dark post too, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from agent.clock import Clock, rfc3339
from agent.station import archive_retention_rows as retention
from agent.station import uploads_rows
from agent.station.db.engine import reading
from agent.station.footage.asking import answer_of, args_of, range_of, result_of, says
from agent.station.orders import Order, OrderBook
from agent.station.signing import Signer

VERB = "send"
LOOKED_AT_MAX = 200  # commands of one post
SHOWN_MAX = 10
FILES_MAX = 5000


@dataclass(frozen=True, slots=True)
class Request:
    """One that touches a range. `state`: of the command; `files`, `bytes`: of what it has brought."""

    id: str
    start_utc_ns: int
    end_utc_ns: int
    reason: str
    asked_utc_ns: int
    expires_utc_ns: int
    state: str  # waiting, done, refused, failed, expired
    sent: int  # how often it went out; 0: the post was not heard since
    left: int | None  # files that are still to go, as the post says; None: it has not said
    answer: str  # its words
    files: int
    bytes: int
    removed: int = 0  # files that it has brought, and that retention has removed since

    @property
    def open(self) -> bool:
        """Whether anything more may come of it."""
        return self.state == "waiting"


class Requests:
    """Any thread: each call has a connection of its own. Raises Transient."""

    def __init__(self, *, engine: Engine, signer: Signer, new_id: Callable[[], str], clock: Clock) -> None:
        self._engine = engine
        self._signer = signer
        self._new_id = new_id
        self._clock = clock

    def ask(self, book: OrderBook, node: str, start_utc_ns: int, end_utc_ns: int, reason: str) -> tuple[str, bool]:
        """Queues it, by the book of somebody's transaction. The command's id, and whether it is new: a request of the
        same range that is still open is the same request. Raises ConfigError where no command can be signed.
        """
        args = {"from": rfc3339(start_utc_ns), "to": rfc3339(end_utc_ns), "reason": reason}
        for order in book.waiting(node, VERB):
            asked = args_of(order)
            if (asked.get("from"), asked.get("to")) == (args["from"], args["to"]):
                return order.id, False
        command_id = self._new_id()
        self._signer.queue(book, node, VERB, args, command_id=command_id, clock=self._clock)
        return command_id, True

    def of(self, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int) -> dict[str, list[Request]]:
        """What was asked of each post that touches a range, the newest first."""
        with OrderBook(self._engine) as book:
            asked = book.of_all(nodes, LOOKED_AT_MAX)
        found: dict[str, list[Request]] = {node: [] for node in nodes}
        for node, orders in asked.items():
            for order in orders:
                if order.verb != VERB or len(found[node]) >= SHOWN_MAX:
                    continue
                args = args_of(order)
                told = range_of(args)
                if told is not None and told[0] < end_utc_ns and told[1] > start_utc_ns:
                    found[node].append(self._request(order, *told, str(args.get("reason", ""))))
        return found

    def _request(self, order: Order, start_utc_ns: int, end_utc_ns: int, reason: str) -> Request:
        answer = answer_of(order)
        left = result_of(answer).get("left")
        with reading(self._engine, "look for footage") as db:
            kept = uploads_rows.of_order(db, order.id, FILES_MAX)
            removed = retention.of_order(db, order.id)
        return Request(
            id=order.id,
            start_utc_ns=start_utc_ns,
            end_utc_ns=end_utc_ns,
            reason=reason,
            asked_utc_ns=order.asked_utc_ns,
            expires_utc_ns=order.expires_utc_ns,
            state=order.state,
            sent=order.sent,
            left=left if isinstance(left, int) else None,
            answer=says(answer),
            files=len(kept),
            bytes=sum(one.bytes for one in kept),
            removed=removed,
        )
