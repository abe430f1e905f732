"""Having a post keep a range of its footage: the signed command `hold`, queued for a dark post too, and what became of
it. Those of cases, bells and live views are told with it: who looks wants to know whether it is kept, whoever asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from agent.clock import Clock, parse_rfc3339, rfc3339
from agent.station.footage.asking import answer_of, args_of, range_of, says
from agent.station.orders import Order, OrderBook
from agent.station.signing import Signer
from agent.types import NS

VERB = "hold"
HOLD_DAYS = 30
"""So long a post keeps it; a case holds it for longer."""
LOOKED_AT_MAX = 200  # commands of one post
SHOWN_MAX = 10
_DAY_NS = 86_400 * NS


@dataclass(frozen=True, slots=True)
class Held:
    """A hold that touches a range. `id`: as the post knows it."""

    id: str
    start_utc_ns: int
    end_utc_ns: int
    until_utc_ns: int | None  # None: until it is released
    reason: str
    asked_utc_ns: int
    expires_utc_ns: int
    state: str  # waiting, done, refused, failed, expired; released, over
    sent: int  # how often it went out; 0: the post was not heard since
    answer: str  # its words

    @property
    def open(self) -> bool:
        """Whether the post has yet to answer."""
        return self.state == "waiting"

    @property
    def keeps(self) -> bool:
        """Whether it is kept by this, or will be as far as anybody knows."""
        return self.state in ("waiting", "done")


class Holds:
    """Any thread: each call has a connection of its own. Raises Transient."""

    def __init__(self, *, engine: Engine, signer: Signer, new_id: Callable[[], str], clock: Clock) -> None:
        self._engine = engine
        self._signer = signer
        self._new_id = new_id
        self._clock = clock

    def ask(self, book: OrderBook, node: str, start_utc_ns: int, end_utc_ns: int, reason: str) -> tuple[str, bool]:
        """Queues it, by the book of somebody's transaction. The hold's id, and whether it is new: what is kept already,
        or asked for and not answered, is the same. Raises ConfigError where no command can be signed.
        """
        now = self._clock.utc().utc_ns
        args = {
            "from": rfc3339(start_utc_ns),
            "to": rfc3339(end_utc_ns),
            "until": rfc3339(now + HOLD_DAYS * _DAY_NS),
            "reason": reason,
        }
        for one in held(book.of(node, LOOKED_AT_MAX), now):
            if one.keeps and (rfc3339(one.start_utc_ns), rfc3339(one.end_utc_ns)) == (args["from"], args["to"]):
                return one.id, False
        command_id = self._new_id()
        self._signer.queue(book, node, VERB, args, command_id=command_id, clock=self._clock)
        return command_id, True

    def of(self, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int) -> dict[str, list[Held]]:
        """Holds of each post that touch a range, the newest first, SHOWN_MAX at most."""
        now = self._clock.utc().utc_ns
        with OrderBook(self._engine) as book:
            asked = book.of_all(nodes, LOOKED_AT_MAX)
        return {
            node: [one for one in held(orders, now) if one.start_utc_ns < end_utc_ns and one.end_utc_ns > start_utc_ns][
                :SHOWN_MAX
            ]
            for node, orders in asked.items()
        }


def held(orders: Iterable[Order], now_utc_ns: int) -> list[Held]:
    """The holds among the commands of one post, in their order. Pure."""
    known = [(order, args_of(order)) for order in orders if order.verb in (VERB, "release")]
    released = {str(args.get("hold")) for order, args in known if order.verb == "release"}
    found = []
    for order, args in known:
        span = range_of(args) if order.verb == VERB else None
        if span is None:
            continue
        until, hold = _until(args.get("until")), str(args.get("id") or order.id)
        state = order.state
        if state in ("waiting", "done") and hold in released:
            state = "released"
        elif state == "done" and until is not None and until <= now_utc_ns:
            state = "over"
        found.append(
            Held(
                id=hold,
                start_utc_ns=span[0],
                end_utc_ns=span[1],
                until_utc_ns=until,
                reason=str(args.get("reason", "")),
                asked_utc_ns=order.asked_utc_ns,
                expires_utc_ns=order.expires_utc_ns,
                state=state,
                sent=order.sent,
                answer=says(answer_of(order)),
            )
        )
    return found


def _until(told: object) -> int | None:
    try:
        return None if told is None else parse_rfc3339(str(told))
    except (ValueError, OverflowError):
        return None
