"""`wardpost hold --node`, `verdict`: at the station, queues a signed command for a node that may be dark."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import SystemClock, parse_rfc3339, rfc3339, uuid7_maker
from agent.errors import ConfigError, Corrupt
from agent.station.book import station_engine
from agent.station.main import StationSettings
from agent.station.order_desk import order_desk
from agent.station.orders import OrderBook

_TIMES = ("from", "to", "until")


def check_node(settings: StationSettings, node: str) -> None:
    """Raises ConfigError for what cannot be the name of a node."""
    try:
        wire.parse_topic(wire.Topics(settings.station.site, node).heartbeat)
    except Corrupt:
        raise ConfigError(f"--node {node!r}: a node's id is 1 to 32 lower-case letters, digits and hyphens") from None


@contextmanager
def order_book(settings: StationSettings) -> Iterator[OrderBook]:
    """The station's, to look at, for one command of a person beside it; to queue something: order_desk.py.

    Raises ConfigError, Transient, Corrupt.
    """
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
    if verb == "holds":
        with order_book(settings) as book:
            shown = book.of(node)
    else:
        with order_desk(settings) as desk:
            desk.queue(node, verb, plain_times(args), command_id=uuid7_maker(clock)(), clock=clock)
            shown = desk.book.of(node)[:1]
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
