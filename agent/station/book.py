"""What the books at the station have in common: tables of its database that any process may write beside the station.

`orders.py` and `settings_book.py` are such books: the station writes to them, and so do its pages and the commands of a
person (`wardpost hold --node`). The database serialises them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Executable
from sqlalchemy.exc import SQLAlchemyError

from agent.errors import ConfigError, Transient
from agent.station.db import migrate
from agent.station.db.engine import database_url, open_engine, transaction
from agent.station.db.errors import name_of, plain


class Book:
    """One connection, one thread. Raises Transient when the database refuses."""

    def __init__(self, engine: Engine) -> None:
        """`engine`: of a database that is at the newest revision when the book is opened; see `station_engine`."""
        self._engine = engine
        self._name = name_of(engine.url)
        self._db: Connection | None = None
        self._joined = False

    @classmethod
    def within(cls, db: Connection) -> Self:
        """For a transaction that is open already and writes: what the book does is durable when that one ends well, and
        is undone with it. It needs no opening.
        """
        made = cls(db.engine)
        made._db, made._joined = db, True
        return made

    def open(self) -> None:
        """Raises Transient, ConfigError."""
        if self._db is None:
            with plain(self._name, "open"):
                self._db = self._engine.connect()

    def close(self) -> None:
        """Lets go of the connection. Never raises."""
        db, self._db = self._db, None
        if db is not None and not self._joined:
            with suppress(SQLAlchemyError, OSError):  # what was committed is on the disk
                db.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, statement: Executable, values: Mapping[str, Any] | None = None) -> list[Any]:
        """What a query gives. Raises Transient."""
        with self._reading("read") as db:
            return list(db.execute(statement, values or {}))

    @contextmanager
    def _reading(self, what: str) -> Iterator[Connection]:
        """One view of the database. Raises Transient."""
        with plain(self._name, what), self._begun(writes=False):
            yield self._connection()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[Connection]:
        """Durable when it ends well. Raises Transient."""
        with plain(self._name, what), self._begun(writes=True):
            yield self._connection()

    def _begun(self, *, writes: bool) -> AbstractContextManager[object]:
        """Within another's it is a part of that one, which alone is undone when it ends badly."""
        db = self._connection()
        return db.begin_nested() if self._joined else transaction(db, writes=writes)

    def _connection(self) -> Connection:
        if self._db is None:
            raise Transient(f"{self._name}: not open")
        return self._db


@contextmanager
def station_engine(folder: Path, database: str) -> Iterator[Engine]:
    """The station's database for one command of a person beside it; made if the station has never run.

    `folder`, `database`: `station.data` and `station.database`. Raises ConfigError, Transient, Corrupt.
    """
    if not folder.is_dir():
        raise ConfigError(f"station.data: {folder} is not a folder; make it, or mount the partition")
    engine = open_engine(database_url(folder, database), pooled=False)
    try:
        migrate.upgrade(engine)
        yield engine
    finally:
        engine.dispose()
