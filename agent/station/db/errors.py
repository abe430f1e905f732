"""What a database says, as an error that a person can act on. Passwords never stand in it: see `name_of`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agent.errors import ConfigError, Corrupt, NoRoom, Transient

_WAIT = ("08", "25006", "40", "53", "55", "57", "58", "42P01")
"""SQLSTATE classes: connection, nothing may be written (a standby, or its keeper sees the disk fill up), deadlock, no
room or connections left, lock, shut down or cancelled, its disk; and a table that is not there: no station has been
started on it yet."""
_ASK = ("28", "3D", "42501")
"""Password or user, no such database, no right: a person must act."""
_BROKEN = ("XX001", "XX002")
"""A page or an index of it is damaged."""
_FULL = "53100"


def name_of(url: URL) -> str:
    """What a database is called in messages: a file's path, or the URL without password and query."""
    if url.get_backend_name() == "sqlite":
        return url.database or ":memory:"
    return url.set(query={}, password=None).render_as_string(hide_password=True)


@contextmanager
def plain(name: str, what: str) -> Iterator[None]:
    """Turns the errors of SQLAlchemy and its drivers into Transient (NoRoom: its disk is full), Corrupt or ConfigError;
    what is a bug passes.

    `name`: the database, see `name_of`. `what`: a verb for the sentence, as in "cannot store".
    """
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeout as error:
        raise Transient(f"{name}: cannot {what}: all its connections are in use; try again") from error
    except DBAPIError as error:
        raise _of(name, what, error) from error
    except OSError as error:  # a socket, before the driver has taken hold of it
        raise Transient(f"{name}: cannot {what}: {error.strerror or error}; is the database running?") from error


def _of(name: str, what: str, error: DBAPIError) -> Exception:
    orig: Any = error.orig
    if type(orig).__module__.startswith("sqlite3"):
        return _of_sqlite(name, what, error, type(orig).__name__)
    told = orig.args[0] if orig is not None and orig.args else {}
    if not isinstance(told, dict):  # the driver's own words: the connection could not be made, or is gone
        broken = type(orig).__name__ in ("InterfaceError", "OperationalError")
        # A server may hang up before the driver has read why: then it is as if it were away.
        ask = "is the database running, and does it know this user and this database?"
        return Transient(f"{name}: cannot {what}: {orig}; {ask}") if broken else error
    state, words = str(told.get("C", "")), " ".join(str(told.get("M", "")).split())
    if state.startswith(_BROKEN):
        return Corrupt(f"{name}: {words}; restore the database from its backup")
    if state.startswith(_ASK):
        return ConfigError(f"station.database: {name}: {words}")
    if state.startswith(_WAIT):
        said = f"{name}: cannot {what}: {words}"
        return NoRoom(f"{said}: the disk is full; make room on it") if state == _FULL else Transient(said)
    return error


def _of_sqlite(name: str, what: str, error: DBAPIError, kind: str) -> Exception:
    if getattr(error.orig, "sqlite_errorname", "") == "SQLITE_FULL":
        return NoRoom(f"{name}: cannot {what}: the disk is full; make room on it")
    if kind == "OperationalError":
        return Transient(f"{name}: cannot {what}: {error.orig}; check the disk")
    if kind == "DatabaseError":
        return Corrupt(f"{name}: {error.orig}; set the file aside, nodes send again what they still hold")
    return error
