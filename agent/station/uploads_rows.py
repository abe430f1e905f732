"""The rows of footage: what came, and what the nodes' ledgers say of it. Each function is one statement or a few."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from agent import tus, wire
from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.chain import What
from agent.evidence.records import RecordKind
from agent.station.db.tables import event, line, reject, stream
from agent.station.db.uploads import footage, footage_asked, footage_clip, footage_line, footage_mark
from agent.station.db.upsert import Upsert
from agent.station.evidence_alarms import OfFile
from agent.station.ledgers import Alarm, Ledgers
from agent.station.uploads_judge import Arrived, Finding, Recorded, State

LINES_PER_READ = 5000
ID_CHARS = 36
NOT_SENT_CHARS_MAX = 400
Came = tus.Reason | Literal["card"]
"""Why a file is here: the post has sent it, or it lay on a card that was docked."""
_TELLING = (RecordKind.SEGMENT.value, RecordKind.EXTRACTION.value)
ALARMS_MAX = 100
"""Events of one incident that are looked at."""
SAME_MAX = 20
"""Lines about one file: a file is resealed once, and a fork tells of it twice."""
_ADD = Upsert(footage, lambda made: made.on_conflict_do_nothing())
_ADD_LINE = Upsert(footage_line, lambda made: made.on_conflict_do_nothing())
_ASKED = Upsert(footage_asked, lambda made: made.on_conflict_do_nothing())
_CLIP = Upsert(
    footage_clip,
    lambda made: made.on_conflict_do_update(
        index_elements=["node", "incident"],
        set_={name: getattr(made.excluded, name) for name in ("line", "files", "bytes", "not_sent")},
        where=footage_clip.c.line < made.excluded.line,
    ),
)
_MARK = Upsert(
    footage_mark,
    lambda made: made.on_conflict_do_update(index_elements=["key"], set_={"value": made.excluded.value}),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of `footage`, as far as people ask for it."""

    node: str
    name: str
    sha256: str
    bytes: int
    from_utc_ns: int | None
    to_utc_ns: int | None
    sealed: bool
    order: str
    state: State
    seq: int
    detail: str
    received_utc_ns: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that waited for its line. That its header names the node was seen when it came."""

    n: int
    node: str
    name: str
    announced: str
    arrived: Arrived


def size_of(db: Connection, node: str, sha256: str) -> int | None:
    """Of a file with this content that came as announced; None when there is none."""
    found = db.execute(
        select(footage.c.bytes).where(footage.c.node == node, footage.c.announced == sha256, footage.c.sha256 == sha256)
    ).scalar()
    return None if found is None else int(found)


def lines_about(db: Connection, node: str, arrived: Arrived) -> list[Recorded]:
    """Lines of the node's ledgers with this hash, or about a file that begins where this one does."""
    c = footage_line.c
    begins = (c.boot_id == arrived.boot_id) & (c.start_ns == arrived.start_ns)
    which = or_(c.sha256 == arrived.sha256, begins) if arrived.boot_id else c.sha256 == arrived.sha256
    rows = db.execute(
        select(c.root, c.seq, c.sha256).where(c.node == node, which).order_by(c.line.desc()).limit(SAME_MAX)
    )
    return [Recorded(root, seq, sha256) for root, seq, sha256 in rows]


def add(
    db: Connection,
    *,
    node: str,
    name: str,
    announced: str,
    order: str,
    arrived: Arrived,
    found: Finding,
    now_utc_ns: int,
    why: Came = "order",
) -> bool:
    """Notes a file that is in the archive. False when it was noted before: then nothing has changed."""
    length_ns = arrived.end_ns - arrived.start_ns
    return _ADD.one(
        db,
        {
            "node": node,
            "name": name,
            "announced": announced,
            "sha256": arrived.sha256,
            "bytes": arrived.bytes,
            "boot_id": arrived.boot_id,
            "start_ns": arrived.start_ns,
            "end_ns": arrived.end_ns,
            "from_utc_ns": arrived.utc_ns,
            "to_utc_ns": None if arrived.utc_ns is None else arrived.utc_ns + length_ns,
            "sealed": int(arrived.sealed),
            "order_id": order,
            "state": found.state.value,
            "root": found.root,
            "seq": found.seq,
            "detail": found.detail,
            "received_utc_ns": now_utc_ns,
            "checked_utc_ns": now_utc_ns,
            "why": why,
        },
    )


def waiting(db: Connection, limit: int) -> list[Waiting]:
    """Files that waited for a line which is here now, oldest first."""
    c, said = footage.c, footage_line.c
    begins = (said.boot_id == c.boot_id) & (said.start_ns == c.start_ns)
    here = select(said.line).where(said.node == c.node, or_(said.sha256 == c.sha256, begins)).exists()
    rows = db.execute(
        select(c.n, c.node, c.name, c.announced, c.sha256, c.bytes, c.boot_id, c.start_ns, c.end_ns, c.from_utc_ns)
        .where(c.state == State.PENDING.value, here)
        .order_by(c.n)
        .limit(limit)
    )
    return [
        Waiting(n, node, name, announced, Arrived(sha, size, "", boot_id, start, end, utc, sealed=False, problem=""))
        for n, node, name, announced, sha, size, boot_id, start, end, utc in rows
    ]


def settle(db: Connection, n: int, found: Finding, now_utc_ns: int) -> None:
    """Notes what came of a file that waited."""
    db.execute(
        update(footage)
        .where(footage.c.n == n)
        .values(state=found.state.value, root=found.root, seq=found.seq, detail=found.detail, checked_utc_ns=now_utc_ns)
    )


def new_lines(db: Connection) -> bool:
    """Whether `read_lines` would find something."""
    return _newest(db) > _mark(db)


def _mark(db: Connection) -> int:
    return int(db.execute(select(footage_mark.c.value).where(footage_mark.c.key == "line")).scalar() or 0)


def _newest(db: Connection) -> int:
    return int(db.execute(select(func.max(line.c.n))).scalar() or 0)


def read_lines(db: Connection, *, rows_max: int) -> bool:
    """Takes in lines that are new; whether there are more."""
    mark, newest = _mark(db), _newest(db)
    if newest <= mark:
        return False
    until = min(mark + LINES_PER_READ, newest)
    rows = db.execute(
        select(line.c.n, line.c.node, line.c.root, line.c.seq, line.c.kind, line.c.body)
        .where(line.c.n > mark, line.c.n <= until, line.c.kind.in_(_TELLING))
        .order_by(line.c.n)
    ).all()
    found = [
        row
        for n, node, root, seq, kind, body in rows
        if kind == RecordKind.SEGMENT.value and (row := _row(n, node, root, seq, body)) is not None
    ]
    if found:
        _ADD_LINE.many(db, found)
        db.execute(delete(footage_line).where(footage_line.c.line <= newest - rows_max))
    clips = [
        row
        for n, node, _, _, kind, body in rows
        if kind == RecordKind.EXTRACTION.value and (row := _clip_row(n, node, body)) is not None
    ]
    for clip in clips:
        _CLIP.one(db, clip)
    if clips:
        db.execute(delete(footage_clip).where(footage_clip.c.line <= newest - rows_max))
    _MARK.one(db, {"key": "line", "value": until})
    return until < newest


def _clip_row(n: int, node: str, body: bytes) -> dict[str, str | int] | None:
    """What a line says of the clip of an alert; None for another extraction, and for what no post of ours says."""
    told = _body(body)
    incident, files, size, not_sent = (told.get(name) for name in ("order", "files", "bytes", "not_sent"))
    if told.get("why") != "alert" or not (isinstance(incident, str) and isinstance(not_sent, str)):
        return None
    if len(incident) != ID_CHARS or not (_count(files) and _count(size)):
        return None
    return {
        "node": node, "incident": incident, "line": n, "files": int(str(files)), "bytes": int(str(size)),
        "not_sent": not_sent[:NOT_SENT_CHARS_MAX],
    }  # fmt: skip


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _body(line_bytes: bytes) -> dict[str, Any]:
    """Of a line; empty for one that cannot be read."""
    try:
        return records.read(dsse.parse(bytes(line_bytes))).body
    except Corrupt:
        return {}


def _row(n: int, node: str, root: str, seq: int, body: bytes) -> dict[str, str | int] | None:
    """What a line says of a file; None for one that says something else than this release knows."""
    told = _body(body)
    boot_id, start_ns, sha256 = (told.get(name) for name in ("boot_id", "start_ns", "sha256"))
    if not (isinstance(boot_id, str) and type(start_ns) is int and isinstance(sha256, str)):  # True is an int, too
        return None
    if not (len(boot_id) == 32 and len(sha256) == 64 and -(2**63) <= start_ns < 2**63):
        return None
    return {
        "line": n,
        "node": node,
        "root": root,
        "seq": seq,
        "boot_id": boot_id,
        "start_ns": start_ns,
        "sha256": sha256,
    }


def raise_alarm(db: Connection, node: str, text: str, now_utc_ns: int, *, about: OfFile | None = None) -> None:
    """Tells of a file that is not what was recorded, as the ledgers tell of theirs."""
    told = Ledgers.raise_alarm(db, Alarm(node, What.FOOTAGE, text, about or OfFile()), now_utc_ns)
    if told:
        tell(db, f"{node}/footage", told, now_utc_ns)


def about(name: str, arrived: Arrived, found: Finding) -> OfFile:
    """A file as an alarm names it."""
    start, length_ns = arrived.utc_ns, arrived.end_ns - arrived.start_ns
    return OfFile(
        name=name,
        recorded=found.recorded,
        arrived=arrived.sha256,
        from_utc_ns=start,
        to_utc_ns=None if start is None else start + length_ns,
    )


def tell(db: Connection, topic: str, text: str, now_utc_ns: int) -> None:
    """Puts an alarm where `wardpost watch` reads it, as the ledgers' own."""
    db.execute(insert(reject).values(received_utc_ns=now_utc_ns, topic=topic, reason=text, bytes=0, head=b""))


def of_order(db: Connection, order: str, limit: int) -> list[Kept]:
    """What a command has brought, and what it found here already, by time."""
    return _kept(db, serves(order), limit)


def serves(order: str) -> ColumnElement[bool]:
    """Of a row of `footage`: whether this command has asked for it, alone or beside others."""
    c, also = footage.c, footage_asked.c
    found = select(also.order_id).where(also.order_id == order, also.node == c.node, also.sha256 == c.announced)
    return or_(c.order_id == order, found.exists())


def ask_too(db: Connection, order: str, node: str, sha256: str) -> None:
    """Notes that a command asked for a file which another one, or an alert, has brought or is bringing."""
    _ASKED.one(db, {"order_id": order, "node": node, "sha256": sha256})


def received(db: Connection, node: str, since_utc_ns: int, why: tus.Reason | None = None) -> int:
    """Bytes that a post has sent since a moment, by the station's clock; for one reason or for any."""
    c = footage.c
    which = (c.node == node) & (c.received_utc_ns > since_utc_ns)
    which &= c.why != "card" if why is None else c.why == why
    return int(db.execute(select(func.coalesce(func.sum(c.bytes), 0)).where(which)).scalar_one())


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was told of an alert: CLOCK_BOOTTIME ns of a boot of the post."""

    boot_id: str
    boot_ns: int


def alarms(db: Connection, node: str, incident: str) -> list[Moment]:
    """The moments at which a post told of an alert or a bell, by the events that the station has of it."""
    rows = db.execute(
        select(event.c.body)
        .join(stream, event.c.stream == stream.c.stream)
        .where(event.c.incident == incident, stream.c.node == node, event.c.kind != "thumbnail")
        .order_by(event.c.n)
        .limit(ALARMS_MAX)
    ).scalars()
    found = []
    for body in rows:
        with suppress(Corrupt):
            told = wire.decode(bytes(body), wire.CloudEvent)
            if told.data.severity in ("bell", "alert"):
                found.append(Moment(told.bootid, told.monons))
    return found


@dataclass(frozen=True, slots=True)
class Filed:
    """What a line says of a sealed file."""

    boot_id: str
    start_ns: int
    end_ns: int
    bytes: int


def filed(db: Connection, node: str, sha256: str) -> Filed | None:
    """What the post's ledger says of a file; None while no line of it is here."""
    said = footage_line.c
    rows = db.execute(
        select(line.c.body)
        .join(footage_line, said.line == line.c.n)
        .where(said.node == node, said.sha256 == sha256)
        .order_by(said.line.desc())
        .limit(SAME_MAX)
    ).scalars()
    for body in rows:
        told = _body(body)
        numbers = [told.get(name) for name in ("start_ns", "end_ns", "bytes")]
        if all(isinstance(one, int) and not isinstance(one, bool) for one in numbers):
            start_ns, end_ns, size = (int(str(one)) for one in numbers)
            return Filed(str(told.get("boot_id")), start_ns, end_ns, size)
    return None


def between(db: Connection, node: str, start_utc_ns: int, end_utc_ns: int, limit: int) -> list[Kept]:
    """What is kept of a node's footage in a range, by time."""
    c = footage.c
    return _kept(db, (c.node == node) & (c.to_utc_ns > start_utc_ns) & (c.from_utc_ns < end_utc_ns), limit)


def _kept(db: Connection, which: ColumnElement[bool], limit: int) -> list[Kept]:
    c = footage.c
    columns = (
        c.node, c.name, c.sha256, c.bytes, c.from_utc_ns, c.to_utc_ns, c.sealed, c.order_id, c.state, c.seq, c.detail,
        c.received_utc_ns,
    )  # fmt: skip
    rows = db.execute(select(*columns).where(which).order_by(c.from_utc_ns, c.n).limit(limit))
    return [
        Kept(node, name, sha, size, start, end, bool(sealed), order, State(state), seq, detail, received)
        for node, name, sha, size, start, end, sealed, order, state, seq, detail, received in rows
    ]
