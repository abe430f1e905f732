"""Which files an order asks for, in which order they go, and what is told of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.clock import rfc3339
from agent.errors import Corrupt
from agent.recording.timeline import Timeline
from agent.types import NS, Segment

RANGE_NS_MAX = 24 * 3600 * NS
NAMES_MAX = 10_000
ORDERS_MAX = 16
"""Unfinished ones."""
FINISHED_MAX = 64
"""Those are remembered, for the station asks until it has heard the answer."""
LIFE_NS = 30 * 86_400 * NS
"""So long footage is held for an order; what has not gone by then is not sent any more."""
FAILED_MAX = 20


class Sending(Struct, frozen=True, kw_only=True):
    """One order, as it lies on the disk."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f-]{36}$(?!\n)")]
    start_utc_ns: int
    end_utc_ns: int
    reason: str
    made_utc_ns: int
    state: Literal["open", "done", "failed"] = "open"
    done: tuple[str, ...] = ()  # files that the station has
    failed: tuple[str, ...] = ()  # files that did not go, each with why
    files: int = 0  # that were sent, once it is over
    bytes: int = 0  # of the files that the station has
    detail: str = ""


class Book(Struct, frozen=True, kw_only=True):
    """All of them, oldest first."""

    v: Literal[1] = 1
    orders: tuple[Sending, ...] = ()

    def find(self, order_id: str) -> Sending | None:
        """One by its id."""
        return next((one for one in self.orders if one.id == order_id), None)

    def put(self, order: Sending) -> Book:
        """With this one, instead of the one of its id; the oldest finished ones give way."""
        others = [one for one in self.orders if one.id != order.id]
        if len(others) == len(self.orders):
            orders = [*others, order]
        else:
            orders = [order if one.id == order.id else one for one in self.orders]
        finished = [one.id for one in orders if one.state != "open"]
        gone = set(finished[: max(len(finished) - FINISHED_MAX, 0)])
        return msgspec.structs.replace(self, orders=tuple(one for one in orders if one.id not in gone))

    @property
    def open(self) -> list[Sending]:
        """Those that are not over."""
        return [one for one in self.orders if one.state == "open"]


def check_range(start_utc_ns: int, end_utc_ns: int) -> None:
    """Raises Corrupt for a range that is too long for one order."""
    if end_utc_ns - start_utc_ns > RANGE_NS_MAX:
        raise Corrupt(f"send: longer than {RANGE_NS_MAX // NS // 3600} hours; ask for it in parts")


def wanted(
    order: Sending, segments: Sequence[Segment], timeline: Timeline, relevant: Callable[[Segment], bool]
) -> list[Segment]:
    """The files that still have to go: those around events first, each half by age.

    A file goes by every time that it has gone by, with the error that somebody vouches for. Where nobody does, it goes
    by its label alone: an hour on either side is held (agent/recording/holds.py), and would be a gigabyte to send.
    """
    left = set(order.done) | {entry.partition(": ")[0] for entry in order.failed}
    touched = [
        segment
        for segment in segments
        if segment.name not in left
        and any(end > order.start_utc_ns and start < order.end_utc_ns for start, end in spans(segment, timeline))
    ]
    return sorted(touched, key=lambda segment: (not relevant(segment), segment.name))


def too_much(order: Sending, utc_ns: int) -> str:
    """Why an order is not worked at any more; empty while it is."""
    if len(order.done) + len(order.failed) >= NAMES_MAX:
        return f"more than {NAMES_MAX} files; ask for the rest in parts"
    if utc_ns - order.made_utc_ns > LIFE_NS:
        return f"not all of it came within {LIFE_NS // NS // 86_400} days"
    return ""


def spans(segment: Segment, timeline: Timeline) -> list[tuple[int, int]]:
    """The stretches of UTC that a file has gone by; none when nothing ties its boot to UTC."""
    starts = timeline.labels(segment.boot_id, segment.start_ns)
    ends = timeline.labels(segment.boot_id, segment.end_ns)
    return [
        (start.utc_ns - (start.unc_ns or 0), end.utc_ns + (end.unc_ns or 0))
        for start, end in zip(starts, ends, strict=True)
    ]


def sent(order: Sending, segment: Segment) -> Sending:
    """The station has this file."""
    if segment.name in order.done:
        return order
    return msgspec.structs.replace(order, done=(*order.done, segment.name), bytes=order.bytes + segment.bytes)


def not_sent(order: Sending, segment: Segment, why: str) -> Sending:
    """This file does not go."""
    return msgspec.structs.replace(order, failed=(*order.failed, f"{segment.name}: {why}"[:300]))


def over(order: Sending) -> Sending:
    """Everything that could go has gone. The names are not needed any more."""
    words = summary(order, 0)
    state: Literal["done", "failed"] = "failed" if order.failed and not order.done else "done"
    return msgspec.structs.replace(
        order, state=state, files=len(order.done), done=(), failed=order.failed[:FAILED_MAX], detail=words
    )


def given_up(order: Sending, why: str) -> Sending:
    """It is over, whatever has gone."""
    words = f"{why}; {summary(order, 0)}"
    return msgspec.structs.replace(
        order, state="failed", files=len(order.done), done=(), failed=order.failed[:FAILED_MAX], detail=words[:500]
    )


def summary(order: Sending, left: int) -> str:
    """In words."""
    words = [f"{len(order.done)} files, {order.bytes / 1e6:.1f} MB are at headquarters"]
    if left:
        words.append(f"{left} still to go")
    if order.failed:
        words.append(f"{len(order.failed)} could not be sent: {order.failed[0]}")
    return "; ".join(words)[:400]


def told(order: Sending, left: int) -> dict[str, object]:
    """For a reply."""
    files = len(order.done) if order.state == "open" else order.files
    return {
        "pending": order.state == "open",
        "summary": order.detail if order.state != "open" else summary(order, left),
        "from": rfc3339(order.start_utc_ns),
        "to": rfc3339(order.end_utc_ns),
        "files": files,
        "bytes": order.bytes,
        "left": left,
        "failed": list(order.failed[:FAILED_MAX]),
    }
