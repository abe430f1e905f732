"""What posts have answered to what cases asked of them, as the book of orders has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from agent import wire
from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.station.cases.keeping import Answer
from agent.station.db.books import command

LOOKED_AT_MAX = 2000
"""Orders of all posts of a case, the newest; the book keeps 10,000 of the whole site."""
SAID_CHARS_MAX = 200


def answers(db: Connection, posts: Sequence[str], reason: str) -> dict[str, list[Answer]]:
    """Holds and sendings that these posts were asked for with this reason, by post."""
    c = command.c
    rows = db.execute(
        select(c.n, c.node, c.verb, c.payload, c.state, c.answer)
        .where(c.node.in_(posts), c.verb.in_(("hold", "send")))
        .order_by(c.n.desc())
        .limit(LOOKED_AT_MAX)
    )
    found: dict[str, list[Answer]] = {node: [] for node in posts}
    written = msgspec.json.encode(reason)
    for row in rows:
        one = _answer(row) if written in bytes(row.payload) else None  # most are not about this case
        if one is not None and one.reason == reason:
            found[row.node].append(one)
    return found


def _answer(row: Any) -> Answer | None:
    """None: one that is not of this release."""
    try:
        args = wire.decode(bytes(row.payload), wire.Command).args
        start, end = (parse_rfc3339(str(args[name])) for name in ("from", "to"))
    except (Corrupt, KeyError, ValueError, OverflowError):
        return None
    hold, reason = str(args.get("id", "")), str(args.get("reason", ""))
    return Answer(row.n, row.verb, hold, start, end, reason, row.state, _said(row.answer))


def _said(answer: str) -> str:
    """In the post's own words; empty while it has said none."""
    try:
        told = json.loads(answer) if answer else {}
    except ValueError:
        return ""
    return str(told.get("detail") or "")[:SAID_CHARS_MAX] if isinstance(told, dict) else ""
