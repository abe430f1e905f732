"""A transaction of SQLite that is all or nothing, also when what is done in it fails."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def immediate(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Committed when it ends well, else rolled back. The connection commits nothing by itself (isolation_level=None).

    Raises what SQLite raises, and what is raised inside.
    """
    db.execute("begin immediate")
    try:
        yield db
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise


def statements(sql: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would commit behind our back."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
