"""What is asked of a post's footage, and what it has answered, as the book of orders has it. Pure."""

from __future__ import annotations

import json
from typing import Any

from agent import wire
from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.station.orders import Order

SAID_CHARS_MAX = 400


def args_of(order: Order) -> dict[str, Any]:
    """What a command asks; empty for one that is not of this release."""
    try:
        return wire.decode(order.payload, wire.Command).args
    except Corrupt:
        return {}


def range_of(args: dict[str, Any]) -> tuple[int, int] | None:
    """From and to of such a command, UTC ns; None: it names no range."""
    try:
        return parse_rfc3339(str(args["from"])), parse_rfc3339(str(args["to"]))
    except (KeyError, ValueError, OverflowError):
        return None


def answer_of(order: Order) -> dict[str, Any]:
    """What the post has answered so far; empty: nothing, or nothing that can be read."""
    try:
        found = json.loads(order.answer) if order.answer else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def result_of(answer: dict[str, Any]) -> dict[str, Any]:
    """Of it, what the command came to."""
    result = answer.get("result")
    return result if isinstance(result, dict) else {}


def says(answer: dict[str, Any]) -> str:
    """The post's own words."""
    return str(result_of(answer).get("summary") or answer.get("detail") or "")[:SAID_CHARS_MAX]
