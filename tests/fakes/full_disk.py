"""A database whose disk is full, or that is away, from one moment to the next: as its driver says it."""

from __future__ import annotations

import sqlite3
from typing import Any, Literal

from sqlalchemy import Engine, event

_WRITES = ("insert", "update", "delete")


class Disk:
    """Under the database of `engine`. `trouble` full: writes fail; away: everything does."""

    def __init__(self, engine: Engine) -> None:
        self.trouble: Literal["", "full", "away"] = ""
        self.asked = 0
        self.writes = 0
        self._driver: Any = engine.dialect.loaded_dbapi
        event.listens_for(engine, "do_execute")(self._execute)

    def _execute(self, _cursor: Any, statement: str, _parameters: Any, _context: Any) -> None:
        self.asked += 1
        writes = statement.lstrip().lower().startswith(_WRITES)
        self.writes += writes
        if self.trouble == "away" or (self.trouble == "full" and writes):
            raise self._error()

    def _error(self) -> Exception:
        full = self.trouble == "full"
        if self._driver.__name__.startswith("sqlite3"):
            error = sqlite3.OperationalError("database or disk is full" if full else "unable to open database file")
            error.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_CANTOPEN"
            return error
        told = {"C": "53100", "M": "could not extend file: No space left on device"}
        if not full:
            told = {"C": "57P01", "M": "terminating connection due to administrator command"}
        made: Exception = self._driver.DatabaseError(told)
        return made
