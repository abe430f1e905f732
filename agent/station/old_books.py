"""Brings over what releases before 0011 kept in files beside the database: `orders.db` and `settings.db`.

Both tables of a file in one transaction, then the file is set aside under another name: after a power cut in between
the rows are there already, and are passed over.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from sqlalchemy import Engine, Table

from agent.errors import Transient
from agent.station.db.books import command, desired, reported, request
from agent.station.db.engine import writing
from agent.station.db.upsert import Upsert

FILES: Mapping[str, tuple[Table, ...]] = {"orders.db": (command, request), "settings.db": (desired, reported)}
ASIDE = ".brought-over"
ROWS_MAX = 1_000_000

log = logging.getLogger(__name__)


def bring_over(folder: Path, engine: Engine) -> int:
    """How many rows there were; 0 where there are no such files. `engine`: of a database at the newest revision.

    Raises Transient.
    """
    total = 0
    for name, tables in FILES.items():
        if (folder / name).is_file():
            count = _bring(folder / name, tables, engine)
            log.info("%s: %d rows brought over into the station's database", folder / name, count)
            total += count
    return total


def _bring(file: Path, tables: tuple[Table, ...], engine: Engine) -> int:
    count = 0
    try:
        with closing(sqlite3.connect(file)) as old, writing(engine, f"bring over {file.name}") as db:
            for table in tables:
                rows = _rows(old, table)
                Upsert(table, lambda made: made.on_conflict_do_nothing()).many(db, rows)
                count += len(rows)
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        file.rename(file.with_name(file.name + ASIDE))
    except (sqlite3.Error, OSError) as error:
        raise Transient(f"{file}: cannot be brought over: {error}; check the disk") from error
    return count


def _rows(old: sqlite3.Connection, table: Table) -> list[dict[str, object]]:
    there = old.execute("select 1 from sqlite_master where type = 'table' and name = ?", (table.name,)).fetchone()
    if there is None:
        return []
    names = [column.name for column in table.c if column.name != "n"]  # numbered anew, in the order of asking
    order = "n" if "n" in table.c else names[0]
    found = old.execute(f"select {', '.join(names)} from {table.name} order by {order} limit {ROWS_MAX}")  # noqa: S608
    return [dict(zip(names, row, strict=True)) for row in found]
