"""Many rows as one value. PostgreSQL takes them as JSON: one way to the server and one value, however many they are.

Its driver writes arrays letter by letter, in Python, and each row of an `executemany` is a trip of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import JSON, ColumnClause, FromClause, Text, bindparam, cast, func

from agent.station.db.types import storable

R = TypeVar("R")
ROWS_MAX = 500
"""In one statement: of eight columns far below what either database takes as parameters."""
_NUL = b"\\u0000"


def parts(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    """Of ROWS_MAX at most, in order."""
    for start in range(0, len(rows), ROWS_MAX):
        yield rows[start : start + ROWS_MAX]


def rows_of(parameter: str, columns: Iterable[ColumnClause[Any]], name: str) -> FromClause:
    """What PostgreSQL reads as a table called `name`, of what `parameter` will hold."""
    made = func.json_to_recordset(cast(bindparam(parameter, type_=Text), JSON)).table_valued(*columns)
    return made.render_derived(name, with_types=True)


def written(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as JSON, of words and numbers as they can be stored; bytes as base64."""
    told = msgspec.json.encode(rows)
    if _NUL in told:  # or a backslash before the same letters
        told = msgspec.json.encode(
            [{name: storable(one) if isinstance(one, str) else one for name, one in row.items()} for row in rows]
        )
    return told.decode()
