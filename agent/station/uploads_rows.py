"""The rows of footage: what came, and what the nodes' ledgers say of it. Each function is one statement or a few."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from agent.errors import Corrupt
from agent.evidence import dsse, records
from agent.evidence.chain import What
from agent.evidence.records import RecordKind
from agent.station.db.tables import line, reject
from agent.station.db.uploads import footage, footage_line, footage_mark
from agent.station.db.upsert import Upsert
from agent.station.ledgers import Alarm, Ledgers
from agent.station.uploads_judge import Arrived, Finding, Recorded, State

LINES_PER_READ = 5000
SAME_MAX = 20
"""Lines about one file: a file is resealed once, and a fork tells of it twice."""
_ADD = Upsert(footage, lambda made: made.on_conflict_do_nothing())
_ADD_LINE = Upsert(footage_line, lambda made: made.on_conflict_do_nothing())
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
        select(line.c.n, line.c.node, line.c.root, line.c.seq, line.c.body)
        .where(line.c.n > mark, line.c.n <= until, line.c.kind == RecordKind.SEGMENT.value)
        .order_by(line.c.n)
    )
    found = [row for row in (_row(*told) for told in rows) if row is not None]
    if found:
        _ADD_LINE.many(db, found)
        db.execute(delete(footage_line).where(footage_line.c.line <= newest - rows_max))
    _MARK.one(db, {"key": "line", "value": until})
    return until < newest


def _row(n: int, node: str, root: str, seq: int, body: bytes) -> dict[str, str | int] | None:
    """What a line says of a file; None for one that says something else than this release knows."""
    try:
        told = records.read(dsse.parse(bytes(body))).body
    except Corrupt:
        return None
    boot_id, start_ns, sha256 = (told.get(name) for name in ("boot_id", "start_ns", "sha256"))
    if not (isinstance(boot_id, str) and isinstance(start_ns, int) and isinstance(sha256, str)):
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


def raise_alarm(db: Connection, node: str, text: str, now_utc_ns: int) -> None:
    """Tells of a file that is not what was recorded, as the ledgers tell of theirs."""
    told = Ledgers.raise_alarm(db, Alarm(node, What.FOOTAGE, text), now_utc_ns)
    if told:
        tell(db, f"{node}/footage", told, now_utc_ns)


def tell(db: Connection, topic: str, text: str, now_utc_ns: int) -> None:
    """Puts an alarm where `wardpost watch` reads it, as the ledgers' own."""
    db.execute(insert(reject).values(received_utc_ns=now_utc_ns, topic=topic, reason=text, bytes=0, head=b""))


def of_order(db: Connection, order: str, limit: int) -> list[Kept]:
    """What a command has brought, by time."""
    return _kept(db, footage.c.order_id == order, limit)


def between(db: Connection, node: str, start_utc_ns: int, end_utc_ns: int, limit: int) -> list[Kept]:
    """What is kept of a node's footage in a range, by time."""
    c = footage.c
    return _kept(db, (c.node == node) & (c.to_utc_ns > start_utc_ns) & (c.from_utc_ns < end_utc_ns), limit)


def _kept(db: Connection, which: object, limit: int) -> list[Kept]:
    c = footage.c
    columns = (
        c.node, c.name, c.sha256, c.bytes, c.from_utc_ns, c.to_utc_ns, c.sealed, c.order_id, c.state, c.seq, c.detail,
        c.received_utc_ns,
    )  # fmt: skip
    rows = db.execute(select(*columns).where(which).order_by(c.from_utc_ns, c.n).limit(limit))  # type: ignore[arg-type]
    return [
        Kept(node, name, sha, size, start, end, bool(sealed), order, State(state), seq, detail, received)
        for node, name, sha, size, start, end, sealed, order, state, seq, detail, received in rows
    ]
