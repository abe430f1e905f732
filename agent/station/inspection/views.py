"""Who saw footage, or looked on live, in a period: by the audit log, which has a line before anybody sees anything."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Engine, func, select

from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.station.db.engine import reading
from agent.station.db.people import trail
from agent.station.inspection.report import LiveFact, ViewFact
from agent.station.people.roles import Scope
from agent.station.people.trail_line import KIND

TRAIL_LINES_MAX = 200_000
"""Read for one report: 2 s."""
READ_ROWS = 1000
"""At once; and so far the clock may have been set back without a line being missed."""


@dataclass(frozen=True, slots=True)
class Views:
    """What the log tells. `cut`: the period has more lines than are read, and the oldest of them are not counted."""

    files: list[ViewFact] = field(default_factory=list)
    live: list[LiveFact] = field(default_factory=list)
    cut: bool = False


def read(engine: Engine, scope: Scope, start_utc_ns: int, end_utc_ns: int) -> Views:
    """Of the posts of a scope, in [start, end). Blocks for reading the lines of the period, TRAIL_LINES_MAX at most.
    Raises Transient.
    """
    found = Views()
    with reading(engine, "read the audit log") as db:
        newest = int(db.execute(select(func.coalesce(func.max(trail.c.seq), 0))).scalar_one())
    last = newest if newest <= TRAIL_LINES_MAX else min(_first_from(engine, end_utc_ns, newest) + READ_ROWS, newest)
    oldest = max(last - TRAIL_LINES_MAX, 0)
    for upto in range(last, oldest, -READ_ROWS):
        with reading(engine, "read the audit log") as db:
            query = select(trail.c.line).where(trail.c.seq <= upto, trail.c.seq > max(upto - READ_ROWS, oldest))
            lines = [bytes(raw) for raw in db.execute(query.order_by(trail.c.seq.desc())).scalars()]
        times = [at for raw in lines if (at := _read(raw, scope, found, start_utc_ns, end_utc_ns)) is not None]
        if times and max(times) < start_utc_ns:
            return found
    return Views(found.files, found.live, cut=oldest > 0)


def _first_from(engine: Engine, utc_ns: int, newest: int) -> int:
    """Number of the first line of that time or later, in a log whose times rise; `newest` + 1: there is none."""
    low, high = 1, newest + 1
    while low < high:
        middle = (low + high) // 2
        with reading(engine, "read the audit log") as db:
            raw = db.execute(select(trail.c.line).where(trail.c.seq == middle)).scalar()
        at = None if raw is None else _time(bytes(raw))
        if at is not None and at >= utc_ns:
            high = middle
        else:  # what cannot be read counts as earlier: more is read then, not less
            low = middle + 1
    return low


def _read(raw: bytes, scope: Scope, found: Views, start_utc_ns: int, end_utc_ns: int) -> int | None:
    """Adds what a line tells; its time, by the station's clock. None: nobody can read it."""
    try:
        payload = records.read(dsse.parse(raw))
        at = parse_rfc3339(payload.utc)
    except (Corrupt, ValueError):
        return None
    if not start_utc_ns <= at < end_utc_ns:
        return at
    body, kind = payload.body, payload.kind.removeprefix(KIND)
    who = str(body.get("who", ""))
    if kind == "viewed" and body.get("what") == "footage":
        posts = body.get("posts")
        for of, refs in (posts if isinstance(posts, dict) else {}).items():
            if scope.covers(str(of)):
                found.files.extend(ViewFact(at, who, str(of), str(ref)) for ref in refs)
    elif kind == "live-began" and scope.covers(str(body.get("post", ""))):
        case, bell = str(body.get("case", "")).strip(), str(body.get("bell", ""))
        found.live.append(LiveFact(at, who, str(body.get("post", "")), case, bell))
    return at


def _time(raw: bytes) -> int | None:
    try:
        return parse_rfc3339(records.read(dsse.parse(raw)).utc)
    except (Corrupt, ValueError):
        return None
