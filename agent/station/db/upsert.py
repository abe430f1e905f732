"""`insert ... on conflict`, which SQLAlchemy spells once for each database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Executable, LargeBinary, Table, Text, column, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

from agent.station.db.rows import parts, rows_of, written

AnyInsert = SqliteInsert | PostgresInsert


class Upsert:
    """An insert into `table` that does something about rows which are there already. Made once, run often."""

    def __init__(self, table: Table, then: Callable[[Any], AnyInsert], *, returning: Column[Any] | None = None) -> None:
        """`then` gets the bare insert, and adds on_conflict_do_nothing or on_conflict_do_update.

        `returning`: the column that `many` tells of the rows that were written; the first one where it is left out.
        """
        self._table = table
        self._then = then
        self._told = next(iter(table.c)) if returning is None else returning
        self._on = {"sqlite": then(sqlite.insert(table)), "postgresql": then(postgresql.insert(table))}
        self._returning = self._on["sqlite"].returning(self._told)
        self._unnested: dict[tuple[str, ...], Executable] = {}

    def one(self, db: Connection, row: Mapping[str, Any]) -> bool:
        """Whether a row was written."""
        return bool(db.execute(self._on[db.dialect.name], row).rowcount)

    def many(self, db: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Rows of the same columns, as many as there are; no row twice by its key. Returns which were written."""
        found: list[Any] = []
        for part in parts(rows):
            if db.dialect.name == "postgresql":
                found += db.execute(self._of_json(tuple(part[0])), {"rows": written(part)}).scalars()
            else:
                found += db.execute(self._returning, part).scalars()
        return found

    def _of_json(self, names: tuple[str, ...]) -> Executable:
        """One statement, parsed once."""
        if names not in self._unnested:
            blobs = {name for name in names if isinstance(self._table.c[name].type, LargeBinary)}
            told = [column(name, Text() if name in blobs else self._table.c[name].type) for name in names]
            rows = rows_of("rows", told, "new")
            values = [func.decode(rows.c[name], "base64") if name in blobs else rows.c[name] for name in names]
            insert = postgresql.insert(self._table).from_select(names, select(*values))
            self._unnested[names] = self._then(insert).returning(self._told)
        return self._unnested[names]
