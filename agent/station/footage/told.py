"""What the ledger lines at a station tell of a post's footage, as rows of the node's own store.

So coverage at the desk is decided by the very function that decides it on the node. Lines were verified when they came
in; their bodies are a node's words all the same, and what does not fit is left out.

Lines of a ledger are in order of time but for clocks that were wrong, so a range is looked up by halving over their
times, past those that nobody vouched for. Read are: the lines of the range and MARGIN_NS around it, the start of the
session that it begins in, anchors up to the end of the session that it ends in, and all deletions since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, func, select

from agent.clock import parse_rfc3339
from agent.errors import Corrupt
from agent.evidence import dsse, records
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
        roots = db.execute(
            select(line.c.root, func.min(line.c.n)).where(line.c.node == node).group_by(line.c.root)
        ).all()
        for of, _ in sorted(roots, key=lambda one: int(one[1]))[-ROOTS_MAX:]:
            if root is None or of == root:
                _Ledger(db, node, str(of)).read(told, start_utc_ns, end_utc_ns)
    told.sessions.sort(key=lambda row: row.session)
    return told


class _Ledger:
    """One ledger of a post, on a connection of the caller's."""

    def __init__(self, db: Connection, node: str, root: str) -> None:
        self._db = db
        self._mine = (line.c.node == node) & (line.c.root == root)

    def read(self, told: Told, start_utc_ns: int, end_utc_ns: int) -> None:
        first, last = self._db.execute(select(func.min(line.c.seq), func.max(line.c.seq)).where(self._mine)).one()
        low = self._from(start_utc_ns - MARGIN_NS, first, last)
        high = self._from(end_utc_ns + MARGIN_NS, low, last)
        begun = self._seq(RecordKind.START, line.c.seq <= low, newest=True) or first
        ends = self._seq(RecordKind.START, line.c.seq > high, newest=False) or last
        wanted = self._rows(_RANGE, begun, high, LINES_MAX + 1, since=low)
        told.cut = told.cut or len(wanted) > LINES_MAX
        wanted += self._rows((*_ANCHORS, RecordKind.START, RecordKind.STOP), high + 1, ends, ANCHORS_MAX)
        for row in self._rows((RecordKind.DELETION,), begun, last, DELETIONS_MAX):
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
        rows = self._db.execute(
            select(line.c.seq, line.c.body)
            .where(self._mine, line.c.seq >= seq, line.c.seq <= high)
            .order_by(line.c.seq)
            .limit(VOUCHED_STEPS_MAX)
        ).all()
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

    def _seq(self, kind: str, where: Any, *, newest: bool) -> int | None:
        pick = func.max(line.c.seq) if newest else func.min(line.c.seq)
        found = self._db.execute(select(pick).where(self._mine, line.c.kind == kind, where)).scalar()
        return None if found is None else int(found)

    def _rows(self, kinds: Sequence[str], low: int, high: int, limit: int, *, since: int = 0) -> list[Any]:
        """Lines of these kinds; before `since` starts and anchors only."""
        kind: Any = line.c.kind.in_(kinds)
        if since > low:
            kind &= (line.c.seq >= since) | line.c.kind.in_((*_ANCHORS, RecordKind.START))
        query = select(line.c.seq, line.c.body).where(self._mine, kind, line.c.seq >= low, line.c.seq <= high)
        return list(self._db.execute(query.order_by(line.c.seq.desc()).limit(limit)).all())

    def _payload_at(self, seq: int) -> Payload | None:
        row = self._db.execute(select(line.c.seq, line.c.body).where(self._mine, line.c.seq == seq).limit(1)).first()
        return None if row is None else _payload(row)


def _payload(row: Any) -> Payload | None:
    try:
        return records.read(dsse.parse(bytes(row.body)))
    except Corrupt:
        return None


def _take(told: Told, payloads: Sequence[Payload]) -> None:
    """Turns lines, oldest first, into rows."""
    seen: set[int] = set()
    for payload in payloads:
        if payload.seq in seen:
            continue
        seen.add(payload.seq)
        body = payload.body
        told.last = (payload.boot_id, payload.boot_ns)
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
        _alive(told, payload)


def _own_anchor(payload: Payload) -> list[TimeAnchor]:
    """A start has an anchor with it, and no line of its own for that: the line's time is it."""
    try:
        utc_ns = parse_rfc3339(payload.utc)
    except ValueError:
        return []
    unc_ns = None if payload.unc_ms is None else payload.unc_ms * MS
    return [TimeAnchor(payload.boot_id, payload.boot_ns, utc_ns, unc_ns, "start")]


def _alive(told: Told, payload: Payload) -> None:
    """Whoever signed a line was alive."""
    row = told.sessions[-1] if told.sessions else None
    if row is not None and row.boot_id == payload.boot_id and row.stop is None:
        told.sessions[-1] = replace(row, alive_ns=max(row.alive_ns, payload.boot_ns))


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
