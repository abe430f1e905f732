"""An update of many rows at once, each with values of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table, bindparam, column, update

from agent.station.db.rows import parts, rows_of, written


class Update:
    """Of the rows of `table` with some keys. Made once, run often."""

    def __init__(self, table: Table, key: Column[Any], *columns: Column[Any]) -> None:
        """`columns` get new values; none of them holds bytes."""
        of = bindparam(f"the_{key.name}", type_=key.type)
        self._names = [key.name, *(one.name for one in columns)]
        self._each = (
            update(table)
            .where(key == of)
            .values({one: bindparam(f"the_{one.name}", type_=one.type) for one in columns})
        )
        told = rows_of("rows", [column(one.name, one.type) for one in (key, *columns)], "told")
        self._all = update(table).where(key == told.c[key.name]).values({one: told.c[one.name] for one in columns})

    def many(self, db: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """No row twice by its key; what is not there is not made."""
        for part in parts(rows):
            if db.dialect.name == "postgresql":
                db.execute(self._all, {"rows": written(part)})
            else:
                db.execute(self._each, [{f"the_{name}": row[name] for name in self._names} for row in part])
