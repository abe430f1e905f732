"""Questions to the database that are asked together: one trip to the server for all that are of one kind.

On PostgreSQL a statement costs about a millisecond of driver and planner, whatever little it reads, so a page must not
ask some hundred of them. On SQLite there is no trip, and each is asked by itself. Values go as JSON: the driver writes
arrays letter by letter, in Python. It takes some 25 us for each row, too: of what has thousands, many come as one.

Who needs the answer to one question for the next is a `Reading`: a generator that yields what it asks and is sent the
rows. Several go abreast, so that eight posts take as many trips as one.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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

from agent.station.db.rows import rows_of, written
from agent.station.db.types import storable

T = TypeVar("T")
Rows = list[Any]
Types = Mapping[str, "TypeEngine[Any]"]
Make = Callable[[Mapping[str, ColumnElement[Any]]], Select[Any]]


class Question:
    """A query with some values left open. Made once, asked often."""

    def __init__(
        self, make: Make, types: Types, *, shape: Callable[[Select[Any]], Select[Any]] = lambda rows: rows
    ) -> None:
        """`make` gets an expression for each open value, by name. Its columns have names, none of them `which`.

        `shape`: what PostgreSQL makes of its rows before it tells them.
        """
        self._one = make({name: bindparam(name, type_=of) for name, of in types.items()})
        columns = [column("which", BigInteger), *(column(name, of) for name, of in types.items())]
        asked = rows_of("asked", columns, "asked")
        told = shape(make({name: asked.c[name] for name in types})).lateral("told")
        self._all: Executable = select(asked.c.which, told).select_from(asked.join(told, true()))
        self._names = tuple(types)

    def ask(self, db: Connection, values: Sequence[Mapping[str, Any]]) -> list[Rows]:
        """The rows for each set of values. One order of rows within a set, where the query has an order."""
        if db.dialect.name != "postgresql":
            return [list(db.execute(self._one, dict(one)).all()) for one in values]
        found: list[Rows] = [[] for _ in values]
        if not values:
            return found
        asked = [{"which": which} | {name: one[name] for name in self._names} for which, one in enumerate(values)]
        for row in db.execute(self._all, {"asked": written(asked)}):
            found[row.which].append(row)
        return found


class Packed(Question):
    """The same, of rows that are many: on PostgreSQL those of a `pack` come as one row. None has an order."""

    def __init__(self, make: Make, types: Types, *, pack: ColumnElement[Any]) -> None:
        """`make`: the last of its columns are bytes, the others words and numbers; it has neither order nor limit."""
        super().__init__(
            make, types, shape=lambda rows: rows.with_only_columns(*_joined(rows.selected_columns)).group_by(pack)
        )
        self._row = _row_of(self._one)

    def ask(self, db: Connection, values: Sequence[Mapping[str, Any]]) -> list[Rows]:
        found = super().ask(db, values)
        if db.dialect.name != "postgresql":
            return found
        return [[one for row in rows for one in _parted(row, self._row)] for rows in found]


class OnePack:
    """A query whose rows are many, of some values left open: on PostgreSQL they come as one. Made once, asked often."""

    def __init__(self, query: Select[Any]) -> None:
        """Its columns are as `Packed` wants them, and the first of them is its order."""
        self._row = _row_of(query)
        self._on = {"sqlite": query, "postgresql": select(*_joined(query.subquery().c))}

    def ask(self, db: Connection, **values: Any) -> Rows:
        """Its rows, in their order."""
        told = db.execute(self._on[db.dialect.name], values)
        return list(_parted(told.one(), self._row) if db.dialect.name == "postgresql" else told.all())


def _row_of(query: Select[Any]) -> Any:
    return namedtuple("Row", [one.name for one in query.selected_columns])  # noqa: PYI024


def _joined(columns: Iterable[ColumnElement[Any]]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    """What the rows are, and behind each other their bytes, in one order."""
    *heads, body = columns
    nothing = cast(literal(b"", LargeBinary), LargeBinary)
    head = func.json_build_array(*heads, func.octet_length(body))
    return (
        cast(func.json_agg(aggregate_order_by(head, *heads)), Text).label("heads"),
        func.string_agg(body, aggregate_order_by(nothing, *heads), type_=LargeBinary).label("bodies"),
    )


_HEADS = msgspec.json.Decoder(list[list[Any]])


def _parted(joined: Any, row: Any) -> Iterator[Any]:
    if joined.heads is None:  # there were none
        return
    at, bodies = 0, bytes(joined.bodies)
    for *head, size in _HEADS.decode(joined.heads):
        yield row(*head, bodies[at : at + size])
        at += size


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
