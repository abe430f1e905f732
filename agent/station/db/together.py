"""Questions to the database that are asked together: one trip to the server for all that are of one kind.

On PostgreSQL a statement costs about a millisecond of driver and planner, whatever little it reads, so a page must not
ask some hundred of them. On SQLite there is no trip, and each is asked by itself. Values go as JSON: the driver writes
arrays letter by letter, in Python. It takes some 25 us for each row, too: of what has thousands, many come as one.

Who needs the answer to one question for the next is a `Reading`: a generator that yields what it asks and is sent the
rows. Several go abreast, so that eight posts take as many trips as one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import msgspec
from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    LargeBinary,
    Select,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.types import TypeEngine

from agent.station.db.types import storable

T = TypeVar("T")
Rows = list[Any]
Types = Mapping[str, "TypeEngine[Any]"]
Make = Callable[[Mapping[str, ColumnElement[Any]]], Select[Any]]


class Question:
    """A query with some values left open. Made once, asked often."""

    def __init__(self, make: Make, types: Types) -> None:
        """`make` gets an expression for each open value, by name. Its columns have names, none of them `which`."""
        self._one = make({name: bindparam(name, type_=of) for name, of in types.items()})
        columns = [column("which", BigInteger), *(column(name, of) for name, of in types.items())]
        values = func.json_to_recordset(cast(bindparam("asked", type_=Text), JSON)).table_valued(*columns)
        asked = values.render_derived("asked", with_types=True)
        told = make({name: asked.c[name] for name in types}).lateral("told")
        self._all: Executable = select(asked.c.which, told).select_from(asked.join(told, true()))
        self._names = tuple(types)

    def ask(self, db: Connection, values: Sequence[Mapping[str, Any]]) -> list[Rows]:
        """The rows for each set of values. One order of rows within a set, where the query has an order."""
        if db.dialect.name != "postgresql":
            return [list(db.execute(self._one, dict(one)).all()) for one in values]
        found: list[Rows] = [[] for _ in values]
        if not values:
            return found
        asked = [
            {"which": which} | {name: _kept(one[name]) for name in self._names} for which, one in enumerate(values)
        ]
        for row in db.execute(self._all, {"asked": msgspec.json.encode(asked).decode()}):
            found[row.which].append(row)
        return found


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What a packed row is beside its body. The order is that of `Packed`'s columns."""

    seq: int
    n: int
    kind: str
    size: int  # of its body, bytes


class Line(NamedTuple):
    """A row of a packed question."""

    seq: int
    n: int
    kind: str
    body: bytes


class Packed(Question):
    """The same, of lines that are many: on PostgreSQL those of a `pack` come as one row. None has an order."""

    def __init__(self, make: Make, types: Types, *, pack: ColumnElement[Any]) -> None:
        """`make`: its columns are `seq`, `n`, `kind` and `body`, and it has neither order nor limit."""
        super().__init__(lambda of: _packed(make(of), pack), types)
        self._one = make({name: bindparam(name, type_=of) for name, of in types.items()})
        self._heads = msgspec.json.Decoder(list[Head])

    def ask(self, db: Connection, values: Sequence[Mapping[str, Any]]) -> list[Rows]:
        found = super().ask(db, values)
        if db.dialect.name != "postgresql":
            return found
        return [[line for row in rows for line in self._unpacked(row)] for rows in found]

    def _unpacked(self, row: Any) -> Iterator[Line]:
        at, bodies = 0, bytes(row.bodies)
        for head in self._heads.decode(row.heads):
            yield Line(head.seq, head.n, head.kind, bodies[at : at + head.size])
            at += head.size


def _packed(lines: Select[Any], pack: ColumnElement[Any]) -> Any:
    """What the lines are, and behind each other what they say, in one order."""
    seq, n, kind, body = lines.selected_columns
    head = func.json_build_array(seq, n, kind, func.octet_length(body))
    nothing = cast(literal(b"", LargeBinary), LargeBinary)
    heads = cast(func.json_agg(aggregate_order_by(head, seq, n)), Text).label("heads")
    bodies = func.string_agg(body, aggregate_order_by(nothing, seq, n), type_=LargeBinary).label("bodies")
    return lines.with_only_columns(heads, bodies).group_by(pack)


def _kept(value: Any) -> Any:
    return storable(value) if isinstance(value, str) else value


class Among:
    """A query of which one column has any of some values, however many. Made once, asked often."""

    def __init__(self, query: Select[Any], of: ColumnElement[Any]) -> None:
        """`query` may have values open of its own; none is called `values`."""
        each = func.json_array_elements_text(cast(bindparam("values", type_=Text), JSON))
        self._on = {
            "sqlite": query.where(of.in_(bindparam("values", expanding=True))),
            "postgresql": query.where(of.in_(select(each.column_valued("each")))),  # one value, however many they are
        }

    def ask(self, db: Connection, values: Sequence[Any], **more: Any) -> Rows:
        """Its rows; none for no values."""
        if not values:
            return []
        kind, told = db.dialect.name, list(map(_kept, values))
        given = told if kind == "sqlite" else msgspec.json.encode(told).decode()
        return list(db.execute(self._on[kind], {"values": given, **more}).all())


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with its values."""

    question: Question
    values: Mapping[str, Any]


Reading = Generator[list[Ask], list[Rows], T]
"""Yields what it asks next, is sent the rows of each, returns what it was for."""


def abreast(readings: Sequence[Reading[T]]) -> Reading[list[T]]:
    """All of them, in step: what each asks next is asked with what the others do."""
    found: dict[int, T] = {}
    going: dict[int, tuple[Reading[T], list[Ask]]] = {}

    def go(n: int, reading: Reading[T], rows: list[Rows] | None) -> None:
        try:
            going[n] = (reading, next(reading) if rows is None else reading.send(rows))
        except StopIteration as end:
            found[n] = end.value
            going.pop(n, None)

    for n, reading in enumerate(readings):
        go(n, reading, None)
    while going:
        rows = yield [ask for _, asks in going.values() for ask in asks]
        at = 0
        for n, (reading, asks) in list(going.items()):
            go(n, reading, rows[at : at + len(asks)])
            at += len(asks)
    return [found[n] for n in range(len(readings))]


def answered(db: Connection, reading: Reading[T]) -> T:
    """Asks until it has what it was for. Raises SQLAlchemy's errors."""
    rows: list[Rows] | None = None
    while True:
        try:
            asks = next(reading) if rows is None else reading.send(rows)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        rows = [[] for _ in asks]
        kinds: dict[Question, list[int]] = {}
        for n, ask in enumerate(asks):
            kinds.setdefault(ask.question, []).append(n)
        for question, numbers in kinds.items():
            for n, these in zip(numbers, question.ask(db, [asks[n].values for n in numbers]), strict=True):
                rows[n] = these
