"""What can be had back of a store that is damaged or gone: from the file that was set aside, and from the ledger.

    the file     every row that SQLite can still read, from both ends of each table up to the damage
    the ledger   sessions, anchors, gaps, deletions, holds, verdicts and events, in the node's own signed words

Segments are not looked for: recovery reads the files themselves. Events keep the epoch, sequence number and id that
they were committed under, so the station knows one that it has: whatever may be undelivered is sent again, nothing is
doubled.

Both sources may be hostile: statements name tables and columns, rows are checked field by field, work is bounded.
Pure but for reading; `Store.restore` writes. Nothing here raises: what cannot be read is left out and counted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta

from agent import wire
from agent.clock import parse_rfc3339, rfc3339
from agent.disk import Disk
from agent.errors import Corrupt, Transient
from agent.evidence import dsse, records
from agent.evidence.records import Fact, Payload, RecordKind, digest
from agent.types import Cause, Hold, Priority

ROWS_MAX = 200_000  # of one table
BYTES_MAX = 64 << 20  # of messages
EVENTS_KEPT = 2000  # delivered ones: an incident that was open is ended by them
LEDGER_LINES_MAX = 250_000  # two months at a line every 20 s
LEDGER_FILE_BYTES_MAX = 16 << 20
DELIVERED_LINES = 1000
"""An event so many lines before the newest one that the station has signed for is taken as delivered: it left first."""
_OPS_PER_CALL, _CALLS_MAX = 100_000, 2000  # of SQLite's machine: a schema may be made to run for ever

_Int = Annotated[int, Meta(ge=-(2**62), le=2**62)]
_Time = Annotated[int, Meta(ge=0, le=2**62)]
_Session = Annotated[int, Meta(ge=1, le=10**9)]
_Boot = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
_Text = Annotated[str, Meta(max_length=2000)]

# table -> columns, their types, and what to order by
_TABLES: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "session": (
        ("session", "boot_id", "start_ns", "alive_ns", "stop"),
        tuple[_Session, _Boot, _Time, _Time, _Text | None],
        "session",
    ),
    "anchor": (
        ("boot_id", "boot_ns", "utc_ns", "unc_ns", "source"),
        tuple[_Boot, _Time, _Int, _Time | None, _Text],
        "boot_id {0}, boot_ns {0}",
    ),
    "tombstone": (
        ("boot_id", "start_ns", "end_ns", "segments", "bytes", "reason"),
        tuple[_Boot, _Time, _Time, _Time, _Time, _Text],
        "boot_id {0}, start_ns {0}",
    ),
    "gap": (
        ("boot_id", "start_ns", "end_ns", "cause", "detail"),
        tuple[_Boot, _Time, _Time, Cause, _Text],
        "boot_id {0}, start_ns {0}, cause {0}",
    ),
    "shed": (
        ("boot_ns", "session", "priority", "first_sequence", "last_sequence", "rows", "reason"),
        tuple[_Time, _Session, _Time, _Time, _Time, _Time, _Text],
        "session {0}, first_sequence {0}, last_sequence {0}, priority {0}",
    ),
    "hold": (
        ("id", "start_utc_ns", "end_utc_ns", "until_utc_ns", "reason", "asker", "made_utc_ns", "released"),
        tuple[_Text, _Int, _Int, _Int | None, _Text, _Text, _Int, _Text],
        "id",
    ),
    "verdict": (
        ("id", "incident", "verdict", "reason", "person", "asker", "made_utc_ns"),
        tuple[_Text, _Text, Literal["true", "false"], _Text, _Text, _Text, _Int],
        "n",
    ),
    "sign": (
        ("session", "boot_id", "boot_ns", "what", "active", "text"),
        tuple[_Session, _Boot, _Time, _Text, Annotated[int, Meta(ge=0, le=1)], _Text],
        "session {0}, boot_ns {0}, what {0}",
    ),
    "privacy": (
        ("one", "boot_id", "start_ns", "until_ns", "charged_ns", "asker"),
        tuple[Annotated[int, Meta(ge=1, le=1)], _Boot, _Time, _Time, _Time, _Text],
        "one",
    ),
}


@dataclass(frozen=True, slots=True)
class Restored:
    """An event as it was committed. `priority` None: the station has it."""

    message: wire.CloudEvent
    body: bytes
    kind: str
    priority: Priority | None

    @property
    def key(self) -> tuple[str, int]:
        """What the station knows it by."""
        return self.message.epoch, self.message.sequence


@dataclass(slots=True)
class Found:
    """What is going into the new store. Rows are as in schema.sql; the first of two with one key counts."""

    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    events: list[Restored] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)  # committed, and not on the ledger yet
    unread: list[str] = field(default_factory=list)  # tables of the file with damage in them

    @property
    def waiting(self) -> int:
        """Events that go out again."""
        return sum(event.priority is not None for event in self.events)


@dataclass(slots=True)
class _File:
    """A store that was set aside, as far as it can be read."""

    epoch: str = ""
    number: int = 0  # the highest of a fact
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    events: dict[tuple[str, int], Restored] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Told:
    """What the ledger tells, newest first."""

    epoch: str = ""  # of the newest line that a store has asked for
    number: int = 0  # the highest one of that epoch
    payloads: list[Payload] = field(default_factory=list)


def find(
    *, files: Sequence[Path], disk: Disk, ledger: str, public: Mapping[str, bytes], source: str, receipted: int
) -> Found:
    """Reads what there is. `files`: stores that were set aside, newest last. `ledger`: its folder. `public`: the node's
    keys. `receipted`: the newest line of the ledger that the station has signed for.
    """
    told = _read_ledger(disk, ledger, public, node=source.partition("/")[2])
    old = _File()
    for path in reversed(files[-2:]):  # the newest; the one before when a cut kept it from being taken in
        old = _read_file(path, source)
        # A file of another epoch than the ledger's last one is no more than a memory of an older accident.
        if old.epoch and (not told.epoch or old.epoch == told.epoch):
            break
        old = _File()
    found = Found(rows=old.rows, unread=old.unread)
    found.facts = [fact for fact in old.facts if old.epoch != told.epoch or (fact.number or 0) > told.number]
    # What the file has whole is at least as new as the ledger, which is made from it.
    _add_facts(found, told, set(_TABLES) if not old.epoch else set(old.unread))
    if old.epoch and old.epoch == told.epoch and told.number > old.number:  # whole, and as it was some time ago
        late = [said for said in told.payloads if said.epoch == old.epoch and (said.number or 0) > old.number]
        _add_facts(found, replace(told, payloads=late), set(_TABLES))
    _add_events(found, old, told, source=source, receipted=receipted)
    return found


# -- the file ----------------------------------------------------------------------------------------------------------


def _read_file(path: Path, source: str) -> _File:
    """With its write-ahead log, where that can be read; else without."""
    best = _File()
    for options in ("?mode=ro", "?immutable=1"):
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}{options}", uri=True, isolation_level=None)) as db:
                found = _read_tables(db, source)
        except sqlite3.Error:
            continue
        if found.epoch and not found.unread:
            return found
        if (bool(found.epoch), len(found.events), -len(found.unread)) > (
            bool(best.epoch), len(best.events), -len(best.unread),
        ):  # fmt: skip
            best = found
    return best


def _read_tables(db: sqlite3.Connection, source: str) -> _File:
    calls = iter(range(_CALLS_MAX))
    db.set_progress_handler(lambda: next(calls, None) is None, _OPS_PER_CALL)  # true: SQLite gives up
    db.text_factory = bytes.decode
    db.execute("pragma trusted_schema=off")
    db.execute("pragma cell_size_check=on")
    found = _File()
    meta = {str(key): value for key, value in _rows(db, found, "meta", ("key", "value"), tuple[_Text, _Text], "key")}
    if meta.get("node") == source:
        found.epoch = str(meta.get("epoch", ""))
    if not found.epoch:
        return found
    for table, (columns, kind, order) in _TABLES.items():
        found.rows[table] = _rows(db, found, table, columns, kind, order)
    waiting = {
        sequence: Priority(priority)
        for sequence, priority in _rows(
            db, found, "outbox", ("sequence", "priority"),
            tuple[_Int, Annotated[int, Meta(ge=0, le=len(Priority) - 1)]], "priority {0}, sequence {0}",
        )
    }  # fmt: skip
    in_doubt = "outbox" in found.unread
    size = 0
    events = _rows(db, found, "event", ("sequence", "kind", "body"), tuple[_Int, _Text, bytes], "sequence")
    events.sort(key=lambda row: (row[0] in waiting, row[0]), reverse=True)
    for n, (sequence, kind, body) in enumerate(events):
        if kind == "record" or size > BYTES_MAX or (n >= EVENTS_KEPT and sequence not in waiting and not in_doubt):
            continue
        try:
            message = wire.decode(body, wire.CloudEvent)
        except Corrupt:
            continue
        if message.source != source or message.type != f"wardpost.{kind}":
            continue
        size += len(body)
        priority = waiting.get(sequence, Priority[message.data.severity.upper()] if in_doubt else None)
        event = Restored(message, body, kind, priority)
        found.events[event.key] = event
    facts = _rows(
        db, found, "record", ("number", "kind", "boot_id", "boot_ns", "utc_ns", "unc_ns", "body"),
        tuple[_Int, _Text, _Boot, _Time, _Int, _Time | None, bytes], "number",
    )  # fmt: skip
    found.facts = sorted((Fact(*row) for row in facts if _is_object(row[6])), key=lambda fact: fact.number or 0)
    taken = meta.get("journal", "0")
    found.number = max([int(taken) if taken.isdecimal() and len(taken) < 19 else 0, *(row[0] for row in facts)])
    return found


def _rows(
    db: sqlite3.Connection, found: _File, table: str, columns: Sequence[str], kind: Any, order: str
) -> list[tuple[Any, ...]]:
    """All rows that can be read: upwards to the damage, then downwards to it. Rows that make no sense are left out."""
    rows: dict[tuple[Any, ...], None] = {}
    for direction in ("asc", "desc"):
        by = order.format(direction) if "{" in order else f"{order} {direction}"
        try:
            if not db.execute("select 1 from sqlite_master where type = 'table' and name = ?", (table,)).fetchone():
                raise sqlite3.DatabaseError(f"no table {table}")
            for row in db.execute(
                f"select {', '.join(columns)} from {table} order by {by} limit ?",  # noqa: S608  (our own names)
                (ROWS_MAX,),
            ):
                if len(rows) < ROWS_MAX and _fits(row, kind):
                    rows[row] = None
        except (sqlite3.Error, UnicodeDecodeError, OverflowError):
            if table not in found.unread:
                found.unread.append(table)
            continue
        break
    return list(rows)


def _fits(row: tuple[Any, ...], kind: Any) -> bool:
    try:
        msgspec.convert(row, kind)
    except (msgspec.ValidationError, ValueError):
        return False
    return True


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


# -- the ledger --------------------------------------------------------------------------------------------------------


def _read_ledger(disk: Disk, folder: str, public: Mapping[str, bytes], *, node: str) -> _Told:
    """Lines that this node has signed, newest first. A signature vouches for all lines that it is chained to."""
    told = _Told()
    for payload in islice(_payloads(disk, folder, public, node), LEDGER_LINES_MAX):
        told.payloads.append(payload)
        if payload.number is not None:
            told.epoch = told.epoch or payload.epoch
            if payload.epoch == told.epoch:
                told.number = max(told.number, payload.number)
    return told


def newest_fact(disk: Disk, folder: str, public: Mapping[str, bytes], node: str) -> tuple[str, int]:
    """The newest line that the ledger in `folder` has of a fact: the store's epoch, and its number there; else "", 0.

    `public`: the node's keys. Reads from the end, one file at most that has such a line.
    """
    for payload in _payloads(disk, folder, public, node):
        if payload.number is not None:
            return payload.epoch, payload.number
    return "", 0


def _payloads(disk: Disk, folder: str, public: Mapping[str, bytes], node: str) -> Iterator[Payload]:
    """All that this node has signed, newest first, as far as it can be read."""
    try:
        names = [name for name in disk.list(folder) if name.removesuffix(".jsonl")[len(folder) + 1 :].isdigit()]
    except Transient:
        return
    for name in reversed(names):
        try:
            with disk.open(name) as file:
                data = file.read(LEDGER_FILE_BYTES_MAX)
        except (Transient, OSError):
            continue
        yield from _signed(data, public, node)


def _signed(data: bytes, public: Mapping[str, bytes], node: str) -> Iterator[Payload]:
    expected = ""
    for raw in reversed(data.split(b"\n")):
        try:
            envelope = dsse.parse(raw)
            payload = records.read(envelope)
        except Corrupt:
            continue
        if payload.node != node:
            continue
        key = public.get(envelope.keyid)
        if digest(raw) != expected and (key is None or not envelope.verify(key)):
            continue
        expected = payload.prev
        yield payload


class _Start(msgspec.Struct):
    session: _Session


class _GapTold(msgspec.Struct):
    boot_id: _Boot
    start_ns: _Time
    end_ns: _Time
    cause: Cause
    detail: _Text


class _AnchorTold(msgspec.Struct):
    boot_id: _Boot
    boot_ns: _Time
    utc_ns: _Int
    unc_ns: _Time | None
    source: _Text


class _EventTold(msgspec.Struct):
    sequence: wire.Sequence
    id: wire.Uuid
    incident: wire.Uuid
    kind: Annotated[str, Meta(pattern=r"^[a-z]{1,32}$(?!\n)")]
    phase: str
    boot_ns: _Time
    severity: str
    summary: str = ""
    label: str | None = None
    box: list[float] | None = None
    zones: list[str] = []
    rule: str = ""
    reason: str = ""
    onvif: str = ""


class _PrivacyTold(msgspec.Struct):
    state: str
    boot_id: _Boot = "0" * 32
    start_ns: _Time = 0
    until_ns: _Time = 0
    charged_ns: _Time = 0
    asker: _Text = ""


def _add_facts(found: Found, told: _Told, wanted: set[str]) -> None:
    """Sessions, anchors, gaps, tombstones, holds, verdicts and privacy in force, for the tables that are wanted."""
    rows: dict[str, list[tuple[Any, ...]]] = {table: list(found.rows.get(table, [])) for table in _TABLES}
    _add_sessions(rows["session"], told)
    for payload in told.payloads:
        body = payload.body
        match payload.kind:
            case RecordKind.ANCHOR | RecordKind.CLOCK_STEP if (anchor := _convert(body, _AnchorTold)) is not None:
                rows["anchor"].append(msgspec.structs.astuple(anchor))
            case RecordKind.GAP if (gap := _convert(body, _GapTold)) is not None:
                rows["gap"].append(msgspec.structs.astuple(gap))
            case RecordKind.DELETION:
                _add_tombstones(rows["tombstone"], body)
            case _:
                pass
    rows["gap"].sort(key=lambda gap: -gap[2])  # one that has grown meanwhile counts as far as it goes
    _add_holds(rows["hold"], told)
    _add_verdicts(rows["verdict"], told)
    newest = next((p.body for p in told.payloads if p.kind == RecordKind.PRIVACY), {})
    privacy = _convert(newest, _PrivacyTold)
    if privacy is not None and privacy.state == "on":
        rows["privacy"].append((1, *msgspec.structs.astuple(privacy)[1:]))
    found.rows = {table: rows[table] if table in wanted else found.rows.get(table, []) for table in _TABLES}


def _add_sessions(rows: list[tuple[Any, ...]], told: _Told) -> None:
    """Starts and stops; one that has no stop lived at least until the last line before the next start."""
    ends: dict[str, int] = {}  # the newest moment of each boot, up to the start that was seen last
    stops: dict[int, tuple[str, int]] = {}
    for payload in told.payloads:
        body, boot_id = payload.body, payload.boot_id
        ends.setdefault(boot_id, payload.boot_ns)
        if payload.kind == RecordKind.STOP and isinstance(body.get("session"), int):
            stops[body["session"]] = (str(body.get("reason", ""))[:200], payload.boot_ns)
        elif payload.kind == RecordKind.START and (start := _convert(body, _Start)) is not None:
            stop, alive_ns = stops.get(start.session, (None, ends[boot_id]))
            rows.append((start.session, boot_id, payload.boot_ns, max(alive_ns, payload.boot_ns), stop))
            del ends[boot_id]


def _add_holds(rows: list[tuple[Any, ...]], told: _Told) -> None:
    """Holds, and how they ended."""
    ended = {row[0]: row[7] for row in rows if row[7]}
    for payload in told.payloads:  # newest first: a release comes before its hold
        if payload.kind == RecordKind.RELEASE:
            ended[str(payload.body.get("id"))] = str(payload.body.get("how") or "released")[:200]
        elif payload.kind == RecordKind.HOLD and (hold := _convert(payload.body, Hold)) is not None:
            row = (hold.id, hold.start_utc_ns, hold.end_utc_ns, hold.until_utc_ns, hold.reason, hold.asker)
            rows.append((*row, hold.made_utc_ns, hold.released))
    rows[:] = [(*row[:7], ended.get(row[0], row[7])) for row in rows]


def _add_verdicts(rows: list[tuple[Any, ...]], told: _Told) -> None:
    """In the order in which they came: the last one about an incident counts."""
    for payload in reversed(told.payloads):
        if payload.kind == RecordKind.VERDICT:
            said = [payload.body.get(key, "") for key in ("id", "incident", "verdict", "reason", "by", "asker")]
            try:
                row = (*said, parse_rfc3339(payload.utc))
            except ValueError:
                continue
            if said[0] and _fits(row, _TABLES["verdict"][1]):
                rows.append(row)


def _add_tombstones(rows: list[tuple[Any, ...]], body: dict[str, Any]) -> None:
    reason = str(body.get("reason", ""))[:200]
    for told in body.get("segments") or []:
        if not isinstance(told, dict):
            continue
        row = (told.get("boot_id"), told.get("start_ns"), told.get("end_ns"), 1, told.get("bytes"), reason)
        if _fits(row, _TABLES["tombstone"][1]):
            rows.append(row)


def _convert(body: dict[str, Any], kind: Any) -> Any:
    try:
        return msgspec.convert(body, kind)
    except (msgspec.ValidationError, ValueError):
        return None


def _add_events(found: Found, old: _File, told: _Told, *, source: str, receipted: int) -> None:
    """The file's events, and those that the ledger tells of and the file has lost, in order."""
    events = dict(old.events)
    newest = max((sequence for epoch, sequence in events if epoch == old.epoch), default=0)
    whole = bool(old.epoch) and not {"event", "outbox"} & set(old.unread)
    starts = sorted((row[1], row[2], row[0]) for row in found.rows.get("session", []))
    for payload in told.payloads:
        if payload.kind != RecordKind.EVENT or payload.seq <= receipted - DELIVERED_LINES:
            continue
        event = _convert(payload.body, _EventTold)
        if event is None or (payload.epoch, event.sequence) in events:
            continue
        if whole and payload.epoch == old.epoch and event.sequence <= newest:
            continue  # delivered long ago, and forgotten
        session = [s for boot_id, start_ns, s in starts if boot_id == payload.boot_id and start_ns <= payload.boot_ns]
        message = _message(payload, event, source, max(session, default=1))
        if message is not None:
            body = wire.encode(message)
            events[message.epoch, message.sequence] = Restored(
                message, body, event.kind, Priority[message.data.severity.upper()]
            )
    found.events = sorted(events.values(), key=lambda event: (event.message.session, event.message.sequence))


def _message(payload: Payload, event: _EventTold, source: str, session: int) -> wire.CloudEvent | None:
    """An event in the ledger's words: what was not put on record (its score, its picture) is missing."""
    try:
        utc_ns = parse_rfc3339(payload.utc) - (payload.boot_ns - event.boot_ns)
        message = wire.CloudEvent(
            id=event.id, source=source, type=f"wardpost.{event.kind}", subject=event.incident, time=rfc3339(utc_ns),
            epoch=payload.epoch, sequence=event.sequence, session=session, bootid=payload.boot_id,
            monons=event.boot_ns, timeerrms=payload.unc_ms,
            data=wire.EventData(
                incident=event.incident, phase=event.phase,  # type: ignore[arg-type]
                severity=event.severity,  # type: ignore[arg-type]
                summary=event.summary[:500], place="", label=event.label,  # type: ignore[arg-type]
                score=None, box=event.box,
                zones=event.zones, rule=event.rule, since=None, jpeg=None, reason=event.reason, onvif=event.onvif,
            ),
        )  # fmt: skip
        return wire.decode(wire.encode(message), wire.CloudEvent)  # the whole contract, once more
    except (Corrupt, ValueError, OverflowError):
        return None


# -- the new store -----------------------------------------------------------------------------------------------------


def insert(db: sqlite3.Connection, found: Found, *, first: int, number: int) -> tuple[int, int]:
    """Puts everything into the tables of a new store, in the caller's transaction. `first`: the first free sequence
    number; `number`: the first free one of the journal. Returns how many rows the outbox and the journal have got.
    """
    for table, rows in found.rows.items():
        marks = ", ".join("?" * len(_TABLES[table][0]))
        names = ", ".join(_TABLES[table][0])
        db.executemany(f"insert or ignore into {table} ({names}) values ({marks})", rows)  # noqa: S608
    for sequence, event in enumerate(found.events, start=first):
        said = event.message
        db.execute(
            "insert into event values (?, ?, ?, ?, ?, ?, ?, ?)",
            (sequence, said.id, said.data.incident, event.kind, said.data.phase, said.session, said.monons, event.body),
        )
        if event.priority is not None:
            db.execute("insert into outbox values (?, ?)", (int(event.priority), sequence))
    for at, fact in enumerate(found.facts, start=number):
        db.execute(
            "insert into record values (?, ?, ?, ?, ?, ?, ?)",
            (at, fact.kind, fact.boot_id, fact.boot_ns, fact.utc_ns, fact.unc_ns, fact.body),
        )
    return found.waiting, len(found.facts)
