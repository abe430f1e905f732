"""What a person at the station's own machine asks of posts: queued and put on the audit log in one transaction, so that
nothing is asked without a line, and no line tells of what was not asked.

Whoever can read the station's settings and keys may; the line names the account of the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from agent.clock import Clock, parse_rfc3339
from agent.login import login
from agent.station.main import StationSettings
from agent.station.orders import OrderBook
from agent.station.people.command import books
from agent.station.people.trail import Trail
from agent.station.signing import Signer

TEXT_CHARS_MAX = 300
"""Of one word of a command, on the audit log; the command itself has all of it."""


def account() -> str:
    """Who acts, as the audit log names people at the machine itself."""
    return f"account:{login()}"


@dataclass(frozen=True, slots=True)
class OrderDesk:
    """One thread. Raises Transient. `book`: for looking at what has become of it."""

    book: OrderBook
    trail: Trail
    signer: Signer

    def queue(
        self,
        node: str,
        verb: str,
        args: dict[str, Any],
        *,
        command_id: str,
        clock: Clock,
        days: float | None = None,
    ) -> None:
        """Signs a command, queues it, and puts that on the audit log; the station sends it. Raises ConfigError.

        `days`: so long a dark node may take it; None: as the station's settings say.
        """
        signer = self.signer if days is None else replace(self.signer, days=days)
        kind, told = line_of(node, verb, args, command_id)
        with self.trail.writing("queue a command") as entry:
            signer.queue(OrderBook.within(entry.db), node, verb, args, command_id=command_id, clock=clock)
            entry.note(kind, account(), **told)

    def ask(self, request_id: str, verb: str, body: str, **told: Any) -> None:
        """Puts a request to the station itself, a rollout's. Raises ConfigError, Transient."""
        with self.trail.writing("ask the station") as entry:
            OrderBook.within(entry.db).ask(request_id, verb, body)
            entry.note("rollout", account(), verb=verb, request=request_id, **told)


@contextmanager
def order_desk(settings: StationSettings) -> Iterator[OrderDesk]:
    """The station's, for one command of a person beside it. Raises ConfigError, Transient, Corrupt."""
    desk = settings.station
    with books(desk) as found, OrderBook(found.engine) as book:
        yield OrderDesk(book, found.trail, Signer(site=desk.site, key=desk.command_key, days=desk.order_days))


def line_of(node: str, verb: str, args: Mapping[str, Any], order: str) -> tuple[str, dict[str, Any]]:
    """Kind and body of the line about a command, without who: as of the same act on a page where there is one. Pure."""
    match verb:
        case "send" | "hold":
            kind = "footage-requested" if verb == "send" else "footage-held"
            start, end = (parse_rfc3339(str(args[name])) for name in ("from", "to"))
            return kind, {"post": node, "start": start, "end": end, "reason": _short(args["reason"]), "order": order}
        case "verdict":
            said = {name: _short(args[name]) for name in ("incident", "verdict", "reason")}
            return "verdict", {"node": node, **said, "by": _short(args["by"]), "order": order}
    return "order", {"post": node, "verb": verb, "order": order, "args": {k: _short(v) for k, v in args.items()}}


def _short(value: Any) -> Any:
    return value[:TEXT_CHARS_MAX] if isinstance(value, str) else value
