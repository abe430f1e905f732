"""What the ledger lines at a station tell of a post's footage, as rows of the node's own store.

So coverage at the desk is decided by the very function that decides it on the node. Lines were verified when they came
in; their bodies are a node's words all the same, and what does not fit is left out.

Lines of a ledger are in order of time but for clocks that were wrong, so a range is looked up by halving over their
times, past those that nobody vouched for. Read are: the lines of the range and MARGIN_NS around it, the start of the
session that it begins in, anchors up to the end of the session that it ends in, and all deletions since.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Select, bindparam, func, select

from agent.clock import parse_rfc3339
from agent.evidence import records
from agent.evidence.records import Payload, RecordKind
from agent.recording.coverage import FUTURE, Now, Stretch, coverage
from agent.recording.timeline import Timeline
from agent.station.db.engine import reading
from agent.station.db.tables import line
from agent.store.store import SessionRow, Tombstone
from agent.types import MS, NS, Cause, Gap, Segment, TimeAnchor

MARGIN_NS = 900 * NS
"""A line about a file or a gap comes when it has ended: files last 600 s at most (recording.segment_s)."""
LINES_MAX = 20_000  # of the range
ANCHORS_MAX = 2000  # behind it
DELETIONS_MAX = 5000
ROOTS_MAX = 8  # ledgers of one post
VOUCHED_STEPS_MAX = 50
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
    told = Told()
    with reading(engine, "read the ledgers") as db:
        for of in _roots(db, node) if root is None else [root]:
            _Ledger(db, node, of).read(told, start_utc_ns, end_utc_ns)
    told.sessions.sort(key=lambda row: row.session)
    return told


def _roots(db: Connection, node: str) -> list[str]:
    """The newest ledgers of a post, in the order in which they began. From one to the next: none is read through."""
    found: list[tuple[int, str]] = []
    after = ""
    while (root := db.execute(_ROOT, {"node": node, "after": after}).scalar()) is not None:
        first = db.execute(_FIRST, {"node": node, "root": root}).scalar_one()
        found = sorted([*found, (int(first), str(root))])[-ROOTS_MAX:]
        after = str(root)
    return [root for _, root in found]


_MINE = (line.c.node == bindparam("node")) & (line.c.root == bindparam("root"))
_WITHIN = line.c.seq.between(bindparam("low"), bindparam("high"))
_OF_KIND = _MINE & (line.c.kind == bindparam("kind"))
_BY_SEQ = line.c.seq, line.c.body
_ROOT = select(func.min(line.c.root)).where(line.c.node == bindparam("node"), line.c.root > bindparam("after"))
_FIRST = select(line.c.n).where(_MINE).order_by(line.c.seq).limit(1)
_ENDS = tuple(select(pick(line.c.seq)).where(_MINE) for pick in (func.min, func.max))
_FROM = select(*_BY_SEQ).where(_MINE, _WITHIN).order_by(line.c.seq).limit(bindparam("limit"))
_NEWEST = select(func.max(line.c.seq)).where(_OF_KIND, line.c.seq <= bindparam("high"))
_OLDEST = select(func.min(line.c.seq)).where(_OF_KIND, line.c.seq > bindparam("low"))
_KIND = select(*_BY_SEQ).where(_OF_KIND, _WITHIN).order_by(line.c.seq.desc()).limit(bindparam("limit"))
_AT = select(*_BY_SEQ).where(_MINE, line.c.seq == bindparam("high")).limit(1)
"""Made once: a page of eight posts asks them a few hundred times. Those of a kind go by the index `line_kind`."""


class _Ledger:
    """One ledger of a post, on a connection of the caller's."""

    def __init__(self, db: Connection, node: str, root: str) -> None:
        self._db = db
        self._mine: dict[str, str | int] = {"node": node, "root": root}

    def read(self, told: Told, start_utc_ns: int, end_utc_ns: int) -> None:
        first, last = (self._db.execute(query, self._mine).scalar() for query in _ENDS)
        if first is None or last is None:
            return
        low = self._from(start_utc_ns - MARGIN_NS, first, last)
        high = self._from(end_utc_ns + MARGIN_NS, low, last)
        begun = self._seq(_NEWEST, RecordKind.START, high=low) or first
        ends = self._seq(_OLDEST, RecordKind.START, low=high) or last
        before = (*_ANCHORS, RecordKind.START)
        wanted = [row for kind in before for row in self._rows(kind, begun, low - 1, LINES_MAX)]
        wanted += [row for kind in _RANGE for row in self._rows(kind, max(low, begun), high, LINES_MAX + 1)]
        told.cut = told.cut or len(wanted) > LINES_MAX
        wanted = sorted(wanted, key=lambda row: -int(row.seq))[: LINES_MAX + 1]
        for kind in (*_ANCHORS, RecordKind.START, RecordKind.STOP):
            wanted += self._rows(kind, high + 1, ends, ANCHORS_MAX)
        for row in self._rows(RecordKind.DELETION, begun, last, DELETIONS_MAX):
            if (deletion := _payload(row)) is not None:
                _deletion(told, deletion.body)
        payloads = [payload for row in wanted if (payload := _payload(row)) is not None]
        newest = self._payload_at(ends)
        if newest is not None:
            payloads.append(newest)
        _take(told, sorted(payloads, key=lambda payload: payload.seq))

    def _from(self, utc_ns: int, low: int, high: int) -> int:
        """The number of about the first line that is not older than `utc_ns`; `high` when all are."""
        while low < high:
            middle = (low + high) // 2
            at, utc = self._dated(middle, high)
            if utc is not None and utc < utc_ns:
                low = at + 1
            else:
                high = middle
        return low

    def _dated(self, seq: int, high: int) -> tuple[int, int | None]:
        """The first line from `seq` on whose time somebody vouches for; else that of the last one looked at."""
        rows = self._query(_FROM, low=seq, high=high, limit=1)
        if rows and (payload := _payload(rows[0])) is not None and payload.unc_ms is not None:
            with suppress(ValueError):
                return payload.seq, parse_rfc3339(payload.utc)
        rows = self._query(_FROM, low=seq, high=high, limit=VOUCHED_STEPS_MAX)
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

    def _seq(self, query: Select[Any], kind: str, **within: int) -> int | None:
        found = self._db.execute(query, {**self._mine, "kind": kind, **within}).scalar()
        return None if found is None else int(found)

    def _rows(self, kind: str, low: int, high: int, limit: int) -> list[Any]:
        """Lines of a kind, the newest first."""
        return self._query(_KIND, kind=kind, low=low, high=high, limit=limit) if low <= high else []

    def _query(self, query: Select[Any], **more: str | int) -> list[Any]:
        return list(self._db.execute(query, {**self._mine, **more}).all())

    def _payload_at(self, seq: int) -> Payload | None:
        rows = self._query(_AT, high=seq)
        return _payload(rows[0]) if rows else None


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
