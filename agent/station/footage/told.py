"""What the ledger lines at a station tell of a post's footage, as rows of the node's own store.

So coverage at the desk is decided by the very function that decides it on the node. Lines were verified when they came
in; their bodies are a node's words all the same, and what does not fit is left out.

Lines of a ledger are in order of time but for clocks that were wrong, so a range is looked up by halving over the times
of whole blocks of them (footage/blocks.py), past those that nobody vouched for. Read are: the blocks of the range and
MARGIN_NS around it, the start of the session that it begins in, anchors up to the end of the session that it ends in,
and all deletions since. A `Reader` remembers blocks, and reads them as runs of files: the same answers for less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, literal_column, select

from agent.clock import parse_rfc3339
from agent.evidence.records import Payload, RecordKind
from agent.recording.coverage import FUTURE, Now, Stretch, coverage
from agent.recording.runs import Run
from agent.recording.timeline import Timeline
from agent.station.db.engine import reading
from agent.station.db.tables import line
from agent.station.db.together import Ask, Make, Packed, Question, Reading, Rows, Types, abreast, answered
from agent.station.footage import blocks
from agent.station.footage.blocks import BLOCK, NOTHING, Block, Files, Remembered, block_of
from agent.station.footage.lines import converted, payload_of
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
    """Rows as the node's own store has them. `runs`: further segments, put together. `last`: boot id and boot time of
    the newest line that was read.
    """

    sessions: list[SessionRow] = field(default_factory=list)
    anchors: list[TimeAnchor] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
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
        known = set(self.digests()) if archived else set()
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
            runs=self.runs,
        )
        return [part for stretch in stretches for part in _dated(stretch, now_utc_ns)], timeline

    def digests(self) -> Iterator[str]:
        """Of all files."""
        yield from (segment.sha256 for segment in self.segments)
        for run in self.runs:
            yield from run.sha256()

    def named(self, start_utc_ns: int, end_utc_ns: int) -> Iterator[str]:
        """Digests of the files that lines put into the range."""
        timeline = Timeline(self.anchors)
        boots = {*(one.boot_id for one in self.segments), *(one.boot_id for one in self.runs)}
        zeros = {boot: zero.utc_ns for boot in boots if (zero := timeline.utc(boot, 0)) is not None}
        for segment in self.segments:
            zero_ns = zeros.get(segment.boot_id)
            if (
                zero_ns is not None
                and segment.start_ns < end_utc_ns - zero_ns
                and segment.end_ns > start_utc_ns - zero_ns
            ):
                yield segment.sha256
        for run in self.runs:
            if (zero_ns := zeros.get(run.boot_id)) is not None:
                yield from run.sha256(*run.touching(start_utc_ns - zero_ns, end_utc_ns - zero_ns))


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


class Reader:
    """The same, of blocks that it remembers. Any thread."""

    def __init__(self, engine: Engine, *, bytes_max: int = blocks.BYTES_MAX) -> None:
        """`bytes_max`: of what it remembers."""
        self._engine = engine
        self._remembered = Remembered(bytes_max=bytes_max)

    @property
    def bytes(self) -> int:
        """About as many as what it remembers takes."""
        return self._remembered.bytes

    def read_all(self, nodes: Sequence[str], start_utc_ns: int, end_utc_ns: int) -> list[Told]:
        """As `told.read_all`, most files as `runs`. Raises Transient."""
        with reading(self._engine, "read the ledgers") as db:
            ahead = STEPS_AHEAD[db.dialect.name]
            oldest = db.execute(_OLDEST_ROW).scalar() or 0
            memory = _Memory(self._remembered, oldest)
            return answered(db, abreast([_post(node, start_utc_ns, end_utc_ns, None, ahead, memory) for node in nodes]))


@dataclass(frozen=True, slots=True)
class _Memory:
    """What is remembered, and `n` of the oldest row that the table has."""

    blocks: Remembered
    oldest: int


def _post(
    node: str, start_utc_ns: int, end_utc_ns: int, root: str | None, ahead: int, memory: _Memory | None = None
) -> Reading[Told]:
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
    newest = [
        _Ledger(node, one, ahead, memory).read(first, last, start_utc_ns, end_utc_ns) for _, one, first, last in begun
    ]
    told = Told()
    for found in (yield from abreast(newest[-ROOTS_MAX:])):
        told.cut = told.cut or found.cut
        for deletion in found.deletions:
            _deletion(told, deletion.body)
        _take(told, found.entries)
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
_BY_SEQ = line.c.seq, line.c.n, line.c.kind, line.c.body
_NUMBER = line.c.seq // literal_column(str(BLOCK), line.c.seq.type)
_OLDEST_ROW = select(func.min(line.c.n))
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
_PACKED = Packed(
    lambda of: select(line.c.seq, line.c.n, line.c.kind, line.c.body).where(
        _kind(of), line.c.seq.between(of["low"], of["high"])
    ),
    {name: _TYPES[name] for name in ("node", "root", "kind", "low", "high")},
    pack=_NUMBER,
)
"""Of blocks whose lines were counted: no more than LINES_MAX, but for those that came meanwhile."""
_COUNT = _question(
    lambda of: select(func.count().label("lines")).where(_mine(of), line.c.seq.between(of["low"], of["high"])),
    "node", "root", "low", "high",
)  # fmt: skip
_COUNTS = _question(
    lambda of: (
        select(
            _NUMBER.label("block"), func.count().label("lines"), func.min(line.c.n).label("oldest")
        )
        .where(_mine(of), line.c.seq.between(of["low"], of["high"]))
        .group_by(_NUMBER)
    ),
    "node", "root", "low", "high",
)  # fmt: skip
"""Those of a kind go by the index `line_kind`, the others by that of the unique lines."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Lines of one ledger, oldest first."""

    deletions: list[Payload]
    entries: list[Payload | Files]
    cut: bool


@dataclass(frozen=True, slots=True)
class _Around:
    """Rows outside of the blocks of a range: before them, behind them, and of deletions."""

    before: Rows
    after: Rows
    gone: Rows


@dataclass(frozen=True, slots=True)
class _Within:
    """Those of its blocks: as rows, or as what is remembered of them."""

    rows: Rows
    blocks: dict[int, Block] | None


class _Ledger:
    """One ledger of a post."""

    def __init__(self, node: str, root: str, ahead: int, memory: _Memory | None = None) -> None:
        """`ahead`: steps of halving that one trip to the database looks ahead."""
        self._steps = ahead
        self._memory = memory
        self._key = (node, root)
        self._mine: dict[str, str | int] = {"node": node, "root": root}

    def read(self, first: int, last: int, start_utc_ns: int, end_utc_ns: int) -> Reading[_Found]:
        """`first`, `last`: the numbers of its ends."""
        behind = last // BLOCK + 1
        since = yield from self._from(start_utc_ns - MARGIN_NS, first // BLOCK, behind, last)
        until = yield from self._from(end_utc_ns + MARGIN_NS, since, behind, last)
        numbers = range(max(since - 1, first // BLOCK), min(until, last // BLOCK) + 1)
        low, high = max(numbers.start * BLOCK, first), min(numbers.stop * BLOCK - 1, last)
        parts: Sequence[Reading[Any]] = [self._around(first, low, high, last), self._within(numbers, low, high)]
        around, within = yield from abreast(parts)
        deletions = _payloads(around.gone)
        if within.blocks is None:
            wanted = sorted(around.before + within.rows, key=lambda row: -int(row.seq))
            payloads = _payloads(_in_order([*wanted[: LINES_MAX + 1], *around.after]))
            return _Found(deletions, _once(payloads), len(wanted) > LINES_MAX)
        known = [within.blocks[number] for number in numbers]
        if len(around.before) + sum(block.rows for block in known) > LINES_MAX:
            return (yield from _Ledger(*self._key, self._steps).read(first, last, start_utc_ns, end_utc_ns))
        after = [
            one
            for one in _payloads(_in_order(around.after))
            if one.seq // BLOCK not in numbers or not within.blocks[one.seq // BLOCK].has(one.seq)
        ]
        entries = [*_once(_payloads(_in_order(around.before))), *(entry for block in known for entry in block.entries)]
        return _Found(deletions, [*entries, *_once(after)], cut=False)

    def _around(self, first: int, low: int, high: int, last: int) -> Reading[_Around]:
        (newest,), (oldest,) = yield [
            self._ask(_NEWEST, kind=RecordKind.START, high=low),
            self._ask(_OLDEST, kind=RecordKind.START, low=high),
        ]
        begun, ends = newest.seq or first, oldest.seq or last
        before = [self._lines(kind, begun, low - 1, LINES_MAX) for kind in (*_ANCHORS, RecordKind.START)]
        after = [
            self._lines(kind, high + 1, ends, ANCHORS_MAX) for kind in (*_ANCHORS, RecordKind.START, RecordKind.STOP)
        ]
        gone, *found = yield [
            self._lines(RecordKind.DELETION, begun, last, DELETIONS_MAX),
            *before, *after, self._ask(_FROM, low=ends, high=ends, limit=1),
        ]  # fmt: skip
        return _Around(_all(found[: len(before)]), _all(found[len(before) :]), gone)

    def _within(self, numbers: range, low: int, high: int) -> Reading[_Within]:
        if self._memory is not None:
            known = yield from self._remembered(self._memory, numbers)
            if known is not None:
                return _Within([], known)
        found = yield [self._lines(kind, low, high, LINES_MAX + 1) for kind in _RANGE]
        return _Within(_all(found), None)

    def _remembered(self, memory: _Memory, numbers: range) -> Reading[dict[int, Block] | None]:
        """None: there is too much to be kept.

        Lines are counted before they are read: a block that has more of them by then is read again the next time.
        """
        known = memory.blocks.blocks(*self._key, numbers, oldest=memory.oldest)
        span = {"low": numbers.start * BLOCK, "high": numbers.stop * BLOCK - 1}
        if len(known) == len(numbers):
            ((row,),) = yield [self._ask(_COUNT, **span)]
            if row.lines == sum(block.lines for block in known.values()):
                return known
        (rows,) = yield [self._ask(_COUNTS, **span)]
        counts = {row.block: (row.lines, row.oldest) for row in rows}
        lines = [count for count, _ in counts.values()]
        if sum(lines) > LINES_MAX or max(lines, default=0) > blocks.LINES_MAX:
            return None
        known = {number: one for number, one in known.items() if one.lines == counts.get(number, (0, 0))[0]}
        known |= dict.fromkeys((number for number in numbers if number not in counts), NOTHING)
        missing = [number for number in numbers if number not in known]
        if missing:
            low, high = missing[0] * BLOCK, missing[-1] * BLOCK + BLOCK - 1
            found = yield [self._ask(_PACKED, kind=kind, low=low, high=high) for kind in _RANGE]
            known |= self._made(memory, missing, _all(found), counts)
        return known

    def _made(
        self, memory: _Memory, missing: Sequence[int], rows: Rows, counts: Mapping[int, tuple[int, int]]
    ) -> dict[int, Block]:
        """Makes and remembers those that are missing, of rows with their numbers and perhaps others."""
        each: dict[int, Rows] = {number: [] for number in missing}
        for row in rows:
            if (number := row.seq // BLOCK) in each:
                each[number].append(row)
        made: dict[int, Block] = {}
        for number, these in each.items():
            lines, oldest = counts[number]
            made[number] = block_of(these, lines=lines, oldest=oldest)
            memory.blocks.note(*self._key, number, made[number])
        return made

    def _from(self, utc_ns: int, low: int, high: int, last: int) -> Reading[int]:
        """The number of about the first block whose first line is not older than `utc_ns`; `high` when all are."""
        known: dict[int, Rows] = {}
        while low < high:
            middle = _middle(low, high)
            begins = None if self._memory is None else self._begins(middle)
            if begins is None and middle not in known:
                ahead = list(_ahead(low, high, self._steps))
                rows = yield [self._ask(_FROM, low=one * BLOCK, high=last, limit=1) for one in ahead]
                known = dict(zip(ahead, rows, strict=True))
            at, utc = (middle * BLOCK, begins) if begins is not None else self._vouched(middle, known[middle])
            if utc is None:
                (rows_from,) = yield [self._ask(_FROM, low=middle * BLOCK, high=last, limit=VOUCHED_STEPS_MAX)]
                at, utc = _first_dated(middle * BLOCK, rows_from)
            if utc is not None and utc < utc_ns:
                low = at // BLOCK + 1
            else:
                high = middle
        return low

    def _begins(self, number: int) -> int | None:
        memory = self._memory
        return None if memory is None else memory.blocks.begins(*self._key, number, oldest=memory.oldest)

    def _vouched(self, number: int, rows: Rows) -> tuple[int, int | None]:
        """Number and time of the first line from a block on, where somebody vouches for its time."""
        payload = payload_of(rows[0].body) if rows else None
        if payload is None or payload.unc_ms is None:
            return number * BLOCK, None
        with suppress(ValueError):
            utc_ns = parse_rfc3339(payload.utc)
            if self._memory is not None and payload.seq == number * BLOCK:
                self._memory.blocks.note_begin(*self._key, number, n=rows[0].n, utc_ns=utc_ns)
            return payload.seq, utc_ns
        return number * BLOCK, None

    def _lines(self, kind: str, low: int, high: int, limit: int) -> Ask:
        """Lines of a kind, the newest first; none where `low` is behind `high`."""
        return self._ask(_KIND, kind=kind, low=low, high=high, limit=limit)

    def _ask(self, question: Question, **more: str | int) -> Ask:
        return Ask(question, {**self._mine, **more})


def _all(found: Iterable[Rows]) -> Rows:
    return [row for rows in found for row in rows]


def _in_order(rows: Rows) -> Rows:
    """Of two lines with one number that which came first stands first, whoever asks and however."""
    return sorted(rows, key=lambda row: (row.seq, row.n))


def _payloads(rows: Rows) -> list[Payload]:
    return [payload for row in rows if (payload := payload_of(row.body)) is not None]


def _once(payloads: Sequence[Payload]) -> list[Payload | Files]:
    """Oldest first; of those with one number the first."""
    found: dict[int, Payload | Files] = {}
    for payload in sorted(payloads, key=lambda payload: payload.seq):
        found.setdefault(payload.seq, payload)
    return list(found.values())


def _middle(low: int, high: int) -> int:
    """Where halving looks: at the number that can be halved most often, so that it is the same few for every range, and
    as the ledger grows.
    """
    if low == 0:
        return 0
    bits = ((low - 1) ^ (high - 1)).bit_length() - 1
    return (high - 1) >> bits << bits


def _ahead(low: int, high: int, steps: int) -> Iterator[int]:
    """Where halving may look within so many steps, if every line is there and dated."""
    if steps and low < high:
        middle = _middle(low, high)
        yield middle
        yield from _ahead(middle + 1, high, steps - 1)
        yield from _ahead(low, middle, steps - 1)


def _first_dated(seq: int, rows: Rows) -> tuple[int, int | None]:
    """The first line whose time somebody vouches for; else the last one that has a time."""
    found: tuple[int, int | None] = (seq, None)
    for row in rows:
        payload = payload_of(row.body)
        if payload is None:
            continue
        try:
            found = (payload.seq, parse_rfc3339(payload.utc))
        except ValueError:
            continue
        if payload.unc_ms is not None:
            break
    return found


def _take(told: Told, entries: Iterable[Payload | Files]) -> None:
    """Turns lines, oldest first, into rows."""
    alive_ns = 0  # of the newest session: whoever signed a line was alive
    for one in entries:
        told.last = (one.boot_id, one.last_ns if isinstance(one, Files) else one.boot_ns)
        signed_ns = one.alive_ns if isinstance(one, Files) else one.boot_ns
        if isinstance(one, Files):
            told.runs += one.runs
        else:
            if one.kind in (RecordKind.START, RecordKind.STOP):
                _alive(told, alive_ns)
                alive_ns = 0
            _row(told, one)
        if told.sessions and told.sessions[-1].boot_id == one.boot_id:
            alive_ns = max(alive_ns, signed_ns)
    _alive(told, alive_ns)


def _row(told: Told, payload: Payload) -> None:
    body = payload.body
    match payload.kind:
        case RecordKind.START if isinstance(session := body.get("session"), int):
            told.sessions.append(SessionRow(session, payload.boot_id, payload.boot_ns, payload.boot_ns, None))
            told.anchors += _own_anchor(payload)
        case RecordKind.STOP:
            _stop(told, payload)
        case RecordKind.ANCHOR | RecordKind.CLOCK_STEP if (anchor := converted(body, TimeAnchor)) is not None:
            told.anchors.append(anchor)
        case RecordKind.SEGMENT if (segment := converted(body, Segment)) is not None:
            told.segments.append(segment)
        case RecordKind.GAP if (gap := converted(body, Gap)) is not None:
            told.gaps.append(gap)
        case _:
            pass


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
        stone = converted(one | {"segments": 1, "reason": reason}, Tombstone)
        if stone is not None:
            told.tombstones.append(stone)
