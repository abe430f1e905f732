"""What the ledger lines at a station tell of a post's footage, as rows of the node's own store.

So coverage at the desk is decided by the very function that decides it on the node. Lines were verified when they came
in; their bodies are a node's words all the same, and what does not fit is left out.

Lines of a ledger are in order of time but for clocks that were wrong, so a range is looked up by halving over their
times, past those that nobody vouched for. Read are: the lines of the range and MARGIN_NS around it, the start of the
session that it begins in, anchors up to the end of the session that it ends in, and all deletions since.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Engine, func, select

from agent.clock import parse_rfc3339
from agent.evidence import records
from agent.evidence.records import Payload, RecordKind
from agent.recording.coverage import FUTURE, Now, Stretch, coverage
from agent.recording.timeline import Timeline
from agent.station.db.engine import reading
from agent.station.db.tables import line
from agent.station.db.together import Ask, Make, Question, Reading, Rows, Types, abreast, answered
from agent.store.store import SessionRow, Tombstone
from agent.types import MS, NS, Cause, Gap, Segment, TimeAnchor

MARGIN_NS = 900 * NS
"""A line about a file or a gap comes when it has ended: files last 600 s at most (recording.segment_s)."""
LINES_MAX = 20_000  # of the range
ANCHORS_MAX = 2000  # behind it
DELETIONS_MAX = 5000
ROOTS_MAX = 8  # ledgers of one post
VOUCHED_STEPS_MAX = 50
STEPS_AHEAD = {"sqlite": 1, "postgresql": 4}
"""Of halving, that one trip to the database looks ahead: 15 lines, of which 4 are needed, instead of 4 trips."""
NOT_TOLD = "the station has not been told yet"
_RANGE = (
    RecordKind.START,
    RecordKind.STOP,
    RecordKind.ANCHOR,
    RecordKind.CLOCK_STEP,
    RecordKind.SEGMENT,
    RecordKind.GAP,
)
_ANCHORS = (RecordKind.ANCHOR, RecordKind.CLOCK_STEP)


@dataclass(slots=True)
class Told:
    """Rows as the node's own store has them. `last`: boot id and boot time of the newest line that was read."""

    sessions: list[SessionRow] = field(default_factory=list)
    anchors: list[TimeAnchor] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    tombstones: list[Tombstone] = field(default_factory=list)
    last: tuple[str, int] | None = None
    cut: bool = False  # there was more than LINES_MAX: what is missing is shown as not explained

    def account(
        self,
        start_utc_ns: int,
        end_utc_ns: int,
        *,
        now_utc_ns: int,
        archived: Sequence[Segment] = (),
        anchors: Sequence[TimeAnchor] = (),
    ) -> tuple[list[Stretch], Timeline]:
        """Every second of the range. `archived`, `anchors`: what files in the archive tell that have no line here."""
        timeline = Timeline([*self.anchors, *anchors])
        known = {segment.sha256 for segment in self.segments}
        now = None if self.last is None else Now(self.last[0], self.last[1], utc_ns=now_utc_ns)
        stretches = coverage(
            start_utc_ns,
            end_utc_ns,
            sessions=self.sessions,
            segments=[*self.segments, *(segment for segment in archived if segment.sha256 not in known)],
            gaps=self.gaps,
            tombstones=self.tombstones,
            timeline=timeline,
            now=now,
        )
        return [part for stretch in stretches for part in _dated(stretch, now_utc_ns)], timeline


def _dated(stretch: Stretch, now_utc_ns: int) -> Iterable[Stretch]:
    """Behind the newest line a node calls it the future. Here it is the past up to now, and not told yet."""
    if stretch.what != Cause.UNKNOWN or stretch.detail != FUTURE or stretch.start_utc_ns >= now_utc_ns:
        return (stretch,)
    past = replace(stretch, end_utc_ns=min(stretch.end_utc_ns, now_utc_ns), detail=NOT_TOLD)
    if stretch.end_utc_ns <= now_utc_ns:
        return (past,)
    return (past, replace(stretch, start_utc_ns=now_utc_ns))


def read(engine: Engine, node: str, start_utc_ns: int, end_utc_ns: int, *, root: str | None = None) -> Told:
    """What is told of a range; with `root`, by that ledger of the post only. Any thread. Raises Transient."""
    with reading(engine, "read the ledgers") as db:
        return answered(db, _post(node, start_utc_ns, end_utc_ns, root, STEPS_AHEAD[db.dialect.name]))


def read_all(engine: Engine, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int) -> list[Told]:
    """The same of several posts, in as many trips to the database as for one. Any thread. Raises Transient."""
    with reading(engine, "read the ledgers") as db:
        ahead = STEPS_AHEAD[db.dialect.name]
        return answered(db, abreast([_post(node, start_utc_ns, end_utc_ns, None, ahead) for node in nodes]))


def _post(node: str, start_utc_ns: int, end_utc_ns: int, root: str | None, ahead: int) -> Reading[Told]:
    """From one root to the next: no ledger is read through. Taken are the newest, in the order in which they began."""
    roots: list[str] = [] if root is None else [root]
    after: str | None = "" if root is None else None
    while after is not None:
        ((row,),) = yield [Ask(_ROOT, {"node": node, "after": after})]
        after = row.root
        roots += [] if after is None else [after]
    ends = yield [Ask(question, {"node": node, "root": one}) for one in roots for question in (_FIRST, _LAST)]
    begun = sorted(
        (firsts[0].n, one, firsts[0].seq, lasts[0].seq)
        for one, firsts, lasts in zip(roots, ends[::2], ends[1::2], strict=True)
        if firsts
    )
    newest = [_Ledger(node, one, ahead).read(first, last, start_utc_ns, end_utc_ns) for _, one, first, last in begun]
    told = Told()
    for found in (yield from abreast(newest[-ROOTS_MAX:])):
        told.cut = told.cut or found.cut
        for deletion in found.deletions:
            _deletion(told, deletion.body)
        _take(told, found.payloads)
    told.sessions.sort(key=lambda row: row.session)
    return told


def _question(make: Make, *names: str) -> Question:
    return Question(make, {name: _TYPES[name] for name in names})


def _mine(of: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    return (line.c.node == of["node"]) & (line.c.root == of["root"])


def _kind(of: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    return _mine(of) & (line.c.kind == of["kind"])


_TYPES: Types = {
    "node": line.c.node.type, "root": line.c.root.type, "after": line.c.root.type, "kind": line.c.kind.type,
    "low": line.c.seq.type, "high": line.c.seq.type, "limit": line.c.seq.type,
}  # fmt: skip
_BY_SEQ = line.c.seq, line.c.body
_ROOT = _question(
    lambda of: select(func.min(line.c.root).label("root")).where(line.c.node == of["node"], line.c.root > of["after"]),
    "node", "after",
)  # fmt: skip
_FIRST = _question(
    lambda of: select(line.c.n, line.c.seq).where(_mine(of)).order_by(line.c.seq).limit(1),
    "node", "root",
)  # fmt: skip
_LAST = _question(lambda of: select(func.max(line.c.seq).label("seq")).where(_mine(of)), "node", "root")
_FROM = _question(
    lambda of: (
        select(*_BY_SEQ)
        .where(_mine(of), line.c.seq.between(of["low"], of["high"]))
        .order_by(line.c.seq)
        .limit(of["limit"])
    ),
    "node", "root", "low", "high", "limit",
)  # fmt: skip
_NEWEST = _question(
    lambda of: select(func.max(line.c.seq).label("seq")).where(_kind(of), line.c.seq <= of["high"]),
    "node", "root", "kind", "high",
)  # fmt: skip
_OLDEST = _question(
    lambda of: select(func.min(line.c.seq).label("seq")).where(_kind(of), line.c.seq > of["low"]),
    "node", "root", "kind", "low",
)  # fmt: skip
_KIND = _question(
    lambda of: (
        select(*_BY_SEQ)
        .where(_kind(of), line.c.seq.between(of["low"], of["high"]))
        .order_by(line.c.seq.desc())
        .limit(of["limit"])
    ),
    "node", "root", "kind", "low", "high", "limit",
)  # fmt: skip
"""Those of a kind go by the index `line_kind`, the others by that of the unique lines."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Lines of one ledger, oldest first."""

    deletions: list[Payload]
    payloads: list[Payload]
    cut: bool


class _Ledger:
    """One ledger of a post."""

    def __init__(self, node: str, root: str, ahead: int) -> None:
        """`ahead`: steps of halving that one trip to the database looks ahead."""
        self._steps = ahead
        self._mine: dict[str, str | int] = {"node": node, "root": root}

    def read(self, first: int, last: int, start_utc_ns: int, end_utc_ns: int) -> Reading[_Found]:
        """`first`, `last`: the numbers of its ends."""
        low = yield from self._from(start_utc_ns - MARGIN_NS, first, last)
        high = yield from self._from(end_utc_ns + MARGIN_NS, low, last)
        (newest,), (oldest,) = yield [
            self._ask(_NEWEST, kind=RecordKind.START, high=low),
            self._ask(_OLDEST, kind=RecordKind.START, low=high),
        ]
        begun, ends = newest.seq or first, oldest.seq or last
        before = [self._lines(kind, begun, low - 1, LINES_MAX) for kind in (*_ANCHORS, RecordKind.START)]
        within = [self._lines(kind, max(low, begun), high, LINES_MAX + 1) for kind in _RANGE]
        after = [
            self._lines(kind, high + 1, ends, ANCHORS_MAX) for kind in (*_ANCHORS, RecordKind.START, RecordKind.STOP)
        ]
        *found, gone, end = yield [
            *before, *within, *after,
            self._lines(RecordKind.DELETION, begun, last, DELETIONS_MAX),
            self._ask(_FROM, low=ends, high=ends, limit=1),
        ]  # fmt: skip
        near = len(before) + len(within)
        wanted = [row for rows in found[:near] for row in rows]
        cut = len(wanted) > LINES_MAX
        wanted = sorted(wanted, key=lambda row: -int(row.seq))[: LINES_MAX + 1]
        wanted += [row for rows in (*found[near:], end) for row in rows]
        payloads = [payload for row in wanted if (payload := _payload(row)) is not None]
        deletions = [payload for row in gone if (payload := _payload(row)) is not None]
        return _Found(deletions, sorted(payloads, key=lambda payload: payload.seq), cut)

    def _from(self, utc_ns: int, low: int, high: int) -> Reading[int]:
        """The number of about the first line that is not older than `utc_ns`; `high` when all are."""
        known: dict[tuple[int, int], Rows] = {}
        while low < high:
            middle = (low + high) // 2
            if (middle, high) not in known:
                ahead = list(_ahead(low, high, self._steps))
                rows = yield [self._ask(_FROM, low=one, high=until, limit=1) for one, until in ahead]
                known = dict(zip(ahead, rows, strict=True))
            vouched = _vouched(known[middle, high])
            if vouched is None:
                (rows_from,) = yield [self._ask(_FROM, low=middle, high=high, limit=VOUCHED_STEPS_MAX)]
                at, utc = _first_dated(middle, rows_from)
            else:
                at, utc = vouched
            if utc is not None and utc < utc_ns:
                low = at + 1
            else:
                high = middle
        return low

    def _lines(self, kind: str, low: int, high: int, limit: int) -> Ask:
        """Lines of a kind, the newest first; none where `low` is behind `high`."""
        return self._ask(_KIND, kind=kind, low=low, high=high, limit=limit)

    def _ask(self, question: Question, **more: str | int) -> Ask:
        return Ask(question, {**self._mine, **more})


def _ahead(low: int, high: int, steps: int) -> Iterator[tuple[int, int]]:
    """Where halving may look within so many steps, each with its upper end, if every line is there and dated."""
    if steps and low < high:
        middle = (low + high) // 2
        yield middle, high
        yield from _ahead(middle + 1, high, steps - 1)
        yield from _ahead(low, middle, steps - 1)


def _vouched(rows: Rows) -> tuple[int, int] | None:
    """Number and time of a line, where somebody vouches for its time."""
    payload = _payload(rows[0]) if rows else None
    if payload is not None and payload.unc_ms is not None:
        with suppress(ValueError):
            return payload.seq, parse_rfc3339(payload.utc)
    return None


def _first_dated(seq: int, rows: Rows) -> tuple[int, int | None]:
    """The first line whose time somebody vouches for; else the last one that has a time."""
    found: tuple[int, int | None] = (seq, None)
    for row in rows:
        payload = _payload(row)
        if payload is None:
            continue
        try:
            found = (payload.seq, parse_rfc3339(payload.utc))
        except ValueError:
            continue
        if payload.unc_ms is not None:
            break
    return found


class _Line(msgspec.Struct):
    """A line without its signature, which was verified as it came in: that is most of what `dsse.parse` takes."""

    payload_type: str = msgspec.field(name="payloadType")
    payload: str


_LINE = msgspec.json.Decoder(_Line)
_PAYLOAD = msgspec.json.Decoder(Payload)


def _payload(row: Any) -> Payload | None:
    try:
        raw = _LINE.decode(row.body)
        payload = _PAYLOAD.decode(binascii.a2b_base64(raw.payload))
    except (msgspec.DecodeError, UnicodeError, binascii.Error, RecursionError):
        return None
    return payload if raw.payload_type == records.PAYLOAD_TYPE and payload.v == records.VERSION else None


def _take(told: Told, payloads: Sequence[Payload]) -> None:
    """Turns lines, oldest first, into rows."""
    seen: set[int] = set()
    alive_ns = 0  # of the newest session: whoever signed a line was alive
    for payload in payloads:
        if payload.seq in seen:
            continue
        seen.add(payload.seq)
        body = payload.body
        told.last = (payload.boot_id, payload.boot_ns)
        if payload.kind in (RecordKind.START, RecordKind.STOP):
            _alive(told, alive_ns)
            alive_ns = 0
        match payload.kind:
            case RecordKind.START if isinstance(session := body.get("session"), int):
                told.sessions.append(SessionRow(session, payload.boot_id, payload.boot_ns, payload.boot_ns, None))
                told.anchors += _own_anchor(payload)
            case RecordKind.STOP:
                _stop(told, payload)
            case RecordKind.ANCHOR | RecordKind.CLOCK_STEP if (anchor := _convert(body, TimeAnchor)) is not None:
                told.anchors.append(anchor)
            case RecordKind.SEGMENT if (segment := _convert(body, Segment)) is not None:
                told.segments.append(segment)
            case RecordKind.GAP if (gap := _convert(body, Gap)) is not None:
                told.gaps.append(gap)
            case _:
                pass
        if told.sessions and told.sessions[-1].boot_id == payload.boot_id:
            alive_ns = max(alive_ns, payload.boot_ns)
    _alive(told, alive_ns)


def _own_anchor(payload: Payload) -> list[TimeAnchor]:
    """A start has an anchor with it, and no line of its own for that: the line's time is it."""
    try:
        utc_ns = parse_rfc3339(payload.utc)
    except ValueError:
        return []
    unc_ns = None if payload.unc_ms is None else payload.unc_ms * MS
    return [TimeAnchor(payload.boot_id, payload.boot_ns, utc_ns, unc_ns, "start")]


def _alive(told: Told, alive_ns: int) -> None:
    row = told.sessions[-1] if told.sessions else None
    if row is not None and row.stop is None and alive_ns > row.alive_ns:
        told.sessions[-1] = replace(row, alive_ns=alive_ns)


def _stop(told: Told, payload: Payload) -> None:
    row = told.sessions[-1] if told.sessions else None
    if row is not None and row.boot_id == payload.boot_id and payload.body.get("session") == row.session:
        reason = str(payload.body.get("reason", ""))[:200]
        told.sessions[-1] = replace(row, alive_ns=payload.boot_ns, stop=reason)


def _deletion(told: Told, body: dict[str, Any]) -> None:
    reason = str(body.get("reason", ""))[:200]
    listed = body.get("segments")
    for one in listed if isinstance(listed, list) else []:
        if not isinstance(one, dict):
            continue
        stone = _convert(one | {"segments": 1, "reason": reason}, Tombstone)
        if stone is not None:
            told.tombstones.append(stone)


def _convert(body: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(body, kind)
    except (msgspec.ValidationError, ValueError, TypeError):
        return None
