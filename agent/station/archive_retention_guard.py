"""What stays in the archive whatever its age: what a case that is not disposed of has or covers (its packages are of
that), what a hold keeps, and what was drawn for inspection and nobody has looked at yet.

Holds are known from two places: the commands that this station has queued - they may not have reached a dark post yet -
and the posts' own ledgers, which also have those that were made at the post, and how each of them ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, func, select

from agent import wire
from agent.clock import Clock, parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.records import RecordKind
from agent.recording.timeline import Timeline
from agent.station.archive_retention import DAY_NS, Kept, Range
from agent.station.cases.states import Act, State, state_of
from agent.station.db.books import command
from agent.station.db.cases import case_act, case_head, case_item, case_post, inspection_check, inspection_sample
from agent.station.db.engine import reading
from agent.station.db.tables import line
from agent.station.footage import told
from agent.station.inspection.drawn import read_back

DRAWS_DAYS_MAX = 92
"""A file that was drawn stays so long for somebody to look at it; the report covers no more than that either."""
LINES_AT_ONCE = 20_000
REMEMBERED_MAX = 1000


@dataclass(frozen=True, slots=True)
class _Hold:
    """A hold, and until when; None: until it is released."""

    range: Range
    until_utc_ns: int | None

    def over(self, now_utc_ns: int) -> bool:
        return self.until_utc_ns is not None and self.until_utc_ns <= now_utc_ns


class Guard:
    """One thread. Raises Transient.

    Reads each line of the ledgers once, the first time all of them, in pieces; what a ledger tells of a range is
    remembered until lines have come.
    """

    def __init__(self, engine: Engine, *, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._read_to = 0  # number of the last line that was looked at
        self._holds: dict[tuple[str, str], _Hold] = {}  # by post and id
        self._ended: set[tuple[str, str]] = set()
        self._told: dict[Range, frozenset[str] | None] = {}

    def look(self, nodes: Iterable[str] | None = None) -> Kept:
        """All that stays; what lies in ranges is looked up for these posts only (None: for all)."""
        self._read_ledgers()
        with reading(self._engine, "look for what is kept") as db:
            bare = self.again(db, Kept())
        wanted = None if nodes is None else set(nodes)
        found: dict[Range, frozenset[str] | None] = {}
        for node, ranges in bare.ranges.items():
            if wanted is None or node in wanted:
                found |= {one: self._within(one) for one in ranges}
        return Kept(bare.files, bare.ranges, found)

    def again(self, db: Connection, before: Kept) -> Kept:
        """What stays by now, on a connection of the caller's; what ledgers tell is taken from before."""
        files, covered = _of_cases(db)
        ranges: dict[str, list[Range]] = {}
        for one in [*covered, *self._held(db)]:
            ranges.setdefault(one.node, []).append(one)
        return Kept(_of_inspections(db, self._clock.utc().utc_ns) | files, ranges, before.told)

    def within(self, node: str, start_utc_ns: int, end_utc_ns: int) -> frozenset[str]:
        """Files that lie in a range by the post's ledger."""
        return self._within(Range(node, start_utc_ns, end_utc_ns, "")) or frozenset()

    # -- holds --------------------------------------------------------------------------------------------------------

    def _held(self, db: Connection) -> list[Range]:
        """By the commands, and by the ledgers as far as `_read_ledgers` has read."""
        found, ended = dict(self._holds), set(self._ended)
        c = command.c
        asked = select(c.id, c.node, c.verb, c.payload).where(c.verb.in_(("hold", "release"))).order_by(c.n)
        for own_id, node, verb, payload in db.execute(asked):
            args = _args(bytes(payload))
            hold = str(args.get("id") or own_id)[:36]
            if verb == "release":
                ended.add((str(node), str(args.get("hold"))))
            elif (kept := _asked(str(node), hold, args)) is not None:
                found.setdefault((str(node), hold), kept)
        now = self._clock.utc().utc_ns
        return [one.range for ref, one in found.items() if ref not in ended and not one.over(now)]

    def _read_ledgers(self) -> None:
        while True:
            with reading(self._engine, "look for holds") as db:
                newest = int(db.execute(select(func.max(line.c.n))).scalar() or 0)
                until = min(self._read_to + LINES_AT_ONCE, newest)
                if until <= self._read_to:
                    return
                kinds = (RecordKind.HOLD.value, RecordKind.RELEASE.value)
                where = (line.c.n > self._read_to) & (line.c.n <= until) & line.c.kind.in_(kinds)
                rows = db.execute(select(line.c.node, line.c.kind, line.c.body).where(where).order_by(line.c.n)).all()
            for node, kind, body in rows:
                self._note(str(node), str(kind), bytes(body))
            self._read_to = until
            self._told.clear()

    def _note(self, node: str, kind: str, raw: bytes) -> None:
        try:
            body = records.read(dsse.parse(raw)).body
        except Corrupt:
            return
        ref = (node, str(body.get("id")))
        if kind == RecordKind.RELEASE.value:
            self._holds.pop(ref, None)
            self._ended.add(ref)
            return
        start, end, until = (body.get(name) for name in ("start_utc_ns", "end_utc_ns", "until_utc_ns"))
        if isinstance(start, int) and isinstance(end, int) and start < end:
            kept = Range(node, start, end, f"hold {ref[1][:36]}")
            self._holds[ref] = _Hold(kept, until if isinstance(until, int) else None)

    # -- ledgers ------------------------------------------------------------------------------------------------------

    def _within(self, one: Range) -> frozenset[str] | None:
        """Digests of the files that the post's ledger places in a range; None: there was too much to be looked at."""
        if one not in self._told:
            while len(self._told) >= REMEMBERED_MAX:
                del self._told[next(iter(self._told))]
            self._told[one] = self._look_up(one)
        return self._told[one]

    def _look_up(self, one: Range) -> frozenset[str] | None:
        known = told.read(self._engine, one.node, one.start_utc_ns, one.end_utc_ns)
        if known.cut:
            return None
        timeline = Timeline(known.anchors)
        found: set[str] = set()
        for segment in known.segments:
            first = timeline.utc(segment.boot_id, segment.start_ns)
            last = timeline.utc(segment.boot_id, segment.end_ns)
            if first is None or last is None or (first.utc_ns < one.end_utc_ns and last.utc_ns > one.start_utc_ns):
                found.add(segment.sha256)
        return frozenset(found)


def _args(payload: bytes) -> dict[str, Any]:
    try:
        return wire.decode(payload, wire.Command).args
    except Corrupt:
        return {}


def _asked(node: str, hold: str, args: dict[str, Any]) -> _Hold | None:
    """What a command `hold` keeps; None for one that no post would take."""
    try:
        start, end = parse_rfc3339(str(args["from"])), parse_rfc3339(str(args["to"]))
        until = parse_rfc3339(str(args["until"])) if args.get("until") is not None else None
    except (KeyError, ValueError):
        return None
    return _Hold(Range(node, start, end, f"hold {hold}"), until) if start < end else None


def _of_cases(db: Connection) -> tuple[dict[tuple[str, str], str], list[Range]]:
    """Files and ranges of the cases that are not disposed of. One whose timeline tells nothing keeps what it has."""
    acts: dict[int, list[Act]] = {}
    a = case_act.c
    for n, act in db.execute(select(a.case_n, a.act).order_by(a.case_n, a.number)):
        acts.setdefault(int(n), []).append(Act(act))
    h, p, i = case_head.c, case_post.c, case_item.c
    heads = {
        int(row.n): row
        for row in db.execute(select(h.n, h.number, h.from_utc_ns, h.to_utc_ns))
        if state_of(acts.get(int(row.n), [])) is not State.DISPOSED
    }
    items = db.execute(select(i.node, i.ref, i.case_n).where(i.kind == "footage"))
    files = {(str(node), str(ref)): f"case {heads[n].number}" for node, ref, n in items if n in heads}
    ranges = [
        Range(str(node), heads[n].from_utc_ns, heads[n].to_utc_ns, f"case {heads[n].number}")
        for n, node in db.execute(select(p.case_n, p.node).order_by(p.case_n, p.node))
        if n in heads
    ]
    return files, ranges


def _of_inspections(db: Connection, now_utc_ns: int) -> dict[tuple[str, str], str]:
    """Files that were drawn, and of which there is no result yet."""
    d, c = inspection_sample.c, inspection_check.c
    draws = db.execute(select(d.week, d.body).where(d.utc_ns > now_utc_ns - DRAWS_DAYS_MAX * DAY_NS)).all()
    looked_at = set(db.execute(select(c.week, c.node, c.ref).where(c.kind == "footage")))
    return {
        (one.node, one.ref): f"inspection {week}"
        for week, body in draws
        for one in read_back(str(body)).footage
        if (week, one.node, one.ref) not in looked_at
    }
