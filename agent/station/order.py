"""`wardpost hold --node`: signs a command at the station and queues it for a node that may be dark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import Clock, SystemClock, parse_rfc3339, rfc3339, uuid7_maker
from agent.errors import ConfigError, Corrupt
from agent.station.book import station_engine
from agent.station.main import StationSettings
from agent.station.orders import OrderBook
from agent.station.signing import Signer

_TIMES = ("from", "to", "until")


def check_node(settings: StationSettings, node: str) -> None:
    """Raises ConfigError for what cannot be the name of a node."""
    try:
        wire.parse_topic(wire.Topics(settings.station.site, node).heartbeat)
    except Corrupt:
        raise ConfigError(f"--node {node!r}: a node's id is 1 to 32 lower-case letters, digits and hyphens") from None


def queue(
    book: OrderBook,
    settings: StationSettings,
    node: str,
    verb: str,
    args: dict[str, Any],
    *,
    command_id: str,
    clock: Clock,
) -> None:
    """Signs a command and queues it; the station sends it. Raises ConfigError, Transient."""
    signer = Signer(site=settings.station.site, key=settings.station.command_key, days=settings.station.order_days)
    signer.queue(book, node, verb, args, command_id=command_id, clock=clock)


@contextmanager
def order_book(settings: StationSettings) -> Iterator[OrderBook]:
    """The station's, for one command of a person beside it. Raises ConfigError, Transient, Corrupt."""
    with station_engine(Path(settings.station.data), settings.station.database) as engine, OrderBook(engine) as book:
        yield book


def order(
    settings: StationSettings,
    node: str,
    verb: str,
    args: dict[str, Any],
    *,
    as_json: bool,
    out: Callable[[str], None],
) -> int:
    """Queues it (or lists, for `holds`); the station sends it and notes the answer. Raises ConfigError, Transient."""
    clock = SystemClock()
    check_node(settings, node)
    with order_book(settings) as book:
        if verb != "holds":
            queue(book, settings, node, verb, plain_times(args), command_id=uuid7_maker(clock)(), clock=clock)
        listed = book.of(node)
    shown = listed if verb == "holds" else listed[:1]
    rows = [
        {
            "id": one.id,
            "verb": one.verb,
            "asked": rfc3339(one.asked_utc_ns),
            "expires": rfc3339(one.expires_utc_ns),
            "state": one.state,
            "sent": one.sent,
            "args": wire.decode(one.payload, wire.Command).args,
            "answer": json.loads(one.answer) if one.answer else None,
        }
        for one in shown
    ]
    out(json.dumps(rows, indent=2) if as_json else "\n".join(_words(node, row) for row in rows) or f"{node}: no orders")
    return 0


def plain_times(args: dict[str, Any]) -> dict[str, Any]:
    """Times as UTC: the node must not take them in its own zone."""
    found = dict(args)
    for name in _TIMES:
        if name in found:
            try:
                found[name] = rfc3339(parse_rfc3339(str(found[name])))
            except ValueError as error:
                raise ConfigError(f"--{name}: {error}") from None
    return found


def _words(node: str, row: dict[str, Any]) -> str:
    answer = row["answer"] or {}
    said = answer.get("result", {}).get("summary") or answer.get("detail") or ""
    if row["state"] == "waiting":
        said = f"sent {row['sent']} times, valid until {row['expires']}" + (f"; {said}" if said else "")
    asked = ", ".join(f"{name} {_short(str(value))}" for name, value in row["args"].items())
    return f"{row['id']}  {node}: {row['verb']} ({asked}): {row['state']}" + (f"; {said}" if said else "")


def _short(value: str) -> str:
    """Of a whole file only its first line."""
    return value if len(value) <= 80 and "\n" not in value else f"{value.strip().partition(chr(10))[0][:60]}..."
