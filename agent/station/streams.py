"""How far each node's store has arrived: the table `stream`, and in memory what it takes to move a head without asking.

True as long as its owner is the only writer. After a failed transaction it is loaded anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, insert, select, union_all

from agent.station.db.tables import carried, event, stream
from agent.station.db.upsert import Upsert

AHEAD_MAX = 5000
"""Rows above a head that are looked at in one query."""

Life = tuple[str, str]
"""(node, epoch): one life of a node's store."""

_NEW = insert(stream).returning(stream.c.stream)
_ABOVE = union_all(
    select(event.c.sequence.label("sequence")).where(
        event.c.stream == bindparam("of"), event.c.sequence > bindparam("head")
    ),
    select(carried.c.sequence).where(carried.c.stream == bindparam("of"), carried.c.sequence > bindparam("head")),
).subquery()
_AHEAD = select(_ABOVE.c.sequence).distinct().order_by(_ABOVE.c.sequence).limit(AHEAD_MAX)
_TOP = select(
    select(func.max(event.c.sequence)).where(event.c.stream == bindparam("of")).scalar_subquery(),
    select(func.max(carried.c.sequence)).where(carried.c.stream == bindparam("of")).scalar_subquery(),
)
_MOVE = Upsert(
    stream, lambda made: made.on_conflict_do_update(index_elements=["stream"], set_={"head": made.excluded.head})
)


@dataclass(slots=True)
class _Stream:
    row: int
    head: int
    top: int | None = None  # highest number that is stored; None: not known yet


class Streams:
    """See the module. One thread, in its owner's transactions."""

    def __init__(self, *, per_node_max: int) -> None:
        self._per_node_max = per_node_max
        self._known: dict[Life, _Stream] = {}
        self._count: Counter[str] = Counter()

    def load(self, db: Connection) -> None:
        """Forgets everything and reads it again."""
        rows = db.execute(select(stream.c.node, stream.c.epoch, stream.c.stream, stream.c.head))
        self._known = {(node, epoch): _Stream(row, head) for node, epoch, row, head in rows}
        self._count = Counter(node for node, _ in self._known)

    def row(self, db: Connection, life: Life) -> int | None:
        """The row of one life of a node's store, made if need be; None when the node has had too many of them."""
        known = self._known.get(life)
        if known is None:
            if self._count[life[0]] >= self._per_node_max:
                return None
            made = db.execute(_NEW, {"node": life[0], "epoch": life[1]}).scalar_one()
            known = self._known[life] = _Stream(int(made), 0, 0)
            self._count[life[0]] += 1
        return known.row

    def advance(self, db: Connection, found: Mapping[Life, Iterable[int]]) -> dict[Life, int]:
        """Moves heads over everything that is without a hole, given what has just been stored. Returns the heads."""
        moved = []
        for life, sequences in found.items():
            one = self._known[life]
            before = one.head
            self._walk(db, one, set(sequences))
            if one.head != before:
                moved.append({"stream": one.row, "node": life[0], "epoch": life[1], "head": one.head})
        if moved:
            _MOVE.many(db, moved)
        return {life: self._known[life].head for life in found}

    def _walk(self, db: Connection, one: _Stream, new: set[int]) -> None:
        if one.top == one.head:  # nothing waits above the head: what is new is all there is
            one.top = max(one.head, *new)
            while one.head + 1 in new:
                one.head += 1
            return
        if one.top is not None:
            one.top = max(one.top, *new)
        if one.head + 1 not in new:
            return
        while True:
            ahead = db.execute(_AHEAD, {"of": one.row, "head": one.head}).scalars().all()
            for sequence in ahead:
                if sequence != one.head + 1:
                    break
                one.head = sequence
            if len(ahead) < AHEAD_MAX or ahead[-1] != one.head:
                break
        one.top = max(one.head, *(top or 0 for top in db.execute(_TOP, {"of": one.row}).one()))
