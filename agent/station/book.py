"""What the books at the station have in common: a SQLite file that any process may open beside the station.

`orders.py` and `settings_book.py` are such books: the station writes to them, and so do the commands of a person
(`wardpost hold --node`). SQLite serialises them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, Transient
from agent.transaction import immediate

BUSY_S_MAX = 5.0
"""So long one process waits for another."""


class Book:
    """One connection, one thread. Raises Transient when the disk refuses."""

    def __init__(self, path: Path, schema: tuple[str, ...]) -> None:
        self._path = path
        self._schema = schema
        self._db: sqlite3.Connection | None = None
        self._version = -1

    def open(self) -> None:
        """Opens or makes the file. Raises ConfigError, Transient."""
        if not self._path.parent.is_dir():
            raise ConfigError(f"station.data: {self._path.parent} is not a folder; make it, or mount the partition")
        if self._db is not None:
            return
        with self._plain("open"):
            db = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_S_MAX, check_same_thread=False)
            try:
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=full")
                for statement in self._schema:
                    db.execute(statement)
            except BaseException:
                db.close()
                raise
        self._db = db

    def close(self) -> None:
        """Lets go of the file."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def changed(self) -> bool:
        """Whether somebody else has written since this was last asked. Costs some microseconds. Raises Transient."""
        ((version,),) = self._rows("pragma data_version")
        known, self._version = self._version, version
        return bool(known != version)

    def _rows(self, sql: str, args: tuple[object, ...] = ()) -> list[Any]:
        """What a query gives. Raises Transient."""
        with self._plain("read"):
            if self._db is None:
                raise Transient(f"{self._path}: not open")
            return self._db.execute(sql, args).fetchall()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """Durable when it ends well. Raises Transient."""
        with self._plain(what):
            if self._db is None:
                raise Transient(f"{self._path}: not open")
            with immediate(self._db) as db:
                yield db

    @contextmanager
    def _plain(self, what: str) -> Iterator[None]:
        """Turns SQLite's errors into ours."""
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise Transient(f"{self._path}: cannot {what}: {error}; check the disk") from error
