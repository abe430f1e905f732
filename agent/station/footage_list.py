"""`wardpost send --list`: what was asked of nodes, how far it has come, and what their ledgers say of what is here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agent import wire
from agent.clock import rfc3339
from agent.errors import Corrupt
from agent.station import uploads_rows as rows
from agent.station.archive import name_of
from agent.station.book import station_engine
from agent.station.db.engine import reading
from agent.station.main import StationSettings
from agent.station.orders import Order, OrderBook
from agent.station.uploads_judge import State

FILES_MAX = 10_000
ORDERS_MAX = 20


def listed(settings: StationSettings, nodes: Sequence[str], *, as_json: bool, out: Callable[[str], None]) -> int:
    """The newest orders of each node. 1 when something in the archive is not what its node recorded.

    Raises ConfigError, Transient.
    """
    with station_engine(Path(settings.station.data), settings.station.database) as engine:
        with OrderBook(engine) as book:
            asked = [one for node in nodes for one in book.of(node) if one.verb == "send"][: ORDERS_MAX * len(nodes)]
        with reading(engine, "read footage") as db:
            told = [_told(one, rows.of_order(db, one.id, FILES_MAX)) for one in asked]
    if as_json:
        out(json.dumps(told, indent=2))
    else:
        out("\n".join(line for row in told for line in _words(row)) or "no footage was asked for")
    return 1 if any(row["mismatch"] for row in told) else 0


def _told(order: Order, files: Sequence[rows.Kept]) -> dict[str, Any]:
    args = wire.decode(order.payload, wire.Command).args
    counts = Counter(one.state for one in files)
    return {
        "id": order.id,
        "node": order.node,
        "from": args.get("from"),
        "to": args.get("to"),
        "reason": args.get("reason"),
        "asked": rfc3339(order.asked_utc_ns),
        "expires": rfc3339(order.expires_utc_ns),
        "state": order.state,
        "sent": order.sent,
        "says": _answer(order),
        **{state.value: counts[state] for state in State},
        "bytes": sum(one.bytes for one in files),
        "files": [
            {
                "name": one.name,
                "archive": name_of(one.node, one.sha256),
                "from": None if one.from_utc_ns is None else rfc3339(one.from_utc_ns),
                "to": None if one.to_utc_ns is None else rfc3339(one.to_utc_ns),
                "bytes": one.bytes,
                "sealed": one.sealed,
                "state": one.state.value,
                "record": one.seq or None,
                "detail": one.detail,
            }
            for one in files
        ],
    }


def _answer(order: Order) -> str:
    """The node's newest words; empty while it has said none."""
    if not order.answer:
        return ""
    try:
        reply = wire.decode(order.answer.encode(), wire.Reply)
    except Corrupt:
        return ""
    return str(reply.result.get("summary") or reply.detail)


def _words(row: dict[str, Any]) -> list[str]:
    state = row["state"]
    if state == "waiting" and not row["says"]:
        state = f"waiting, sent {row['sent']} times, valid until {row['expires']}"
    here = f"{len(row['files'])} files, {row['bytes'] / 1e6:.1f} MB: {row['verified']} as recorded"
    lines = [
        f"{row['id']}  {row['node']}: {row['from']} to {row['to']} ({row['reason']}): {state}"
        + (f"; {row['says']}" if row["says"] else ""),
        f"    here: {here}, {row['pending']} wait for their record, {row['mismatch']} NOT as recorded",
    ]
    lines += [f"    {one['name']}: {one['detail']}" for one in row["files"] if one["state"] == State.MISMATCH.value]
    return lines
