"""Opens the station's database, and the only two kinds of transactions there are on it.

`sqlite:////path/station.db` or `postgresql+pg8000://user@host/name?password_file=/path&ca=/path`: the password's file
and the certificate of who signed the server's (with it, the connection is TLS and the server is verified) are ours,
everything else is SQLAlchemy's.
"""

from __future__ import annotations

import logging
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from agent.clock import Clock, SystemClock
from agent.errors import ConfigError
from agent.station.db.errors import name_of, plain
from agent.types import NS

FILE = "station.db"
BUSY_S_MAX = 5.0
"""So long one process waits for another's transaction on SQLite."""
STATEMENT_S_MAX = 30.0
ANSWER_S_MAX = 40.0
"""Without a byte from PostgreSQL for so long, the connection is given up. Longer than a statement may take."""
CONNECTIONS_MAX = 10
"""Of one process; the eleventh waits POOL_S_MAX at most."""
POOL_S_MAX = 10.0
TRUSTED_S = 2.0
"""After so long without work a connection is asked whether it still is one; before, its own next answer tells.

Where one was found broken, all that rested at that time are asked.
"""
PASSWORD_BYTES_MAX = 1000
_OURS = ("password_file", "ca")
_WRITES = "wardpost_writes"
_RESTS = "wardpost_rests"  # since when, boot time


def database_url(folder: Path, database: str) -> str:
    """What `station.database` means: a URL, or when it is empty the file in the station's data folder.

    Raises ConfigError for another file: the lock that keeps a second station away is in the data folder.
    """
    if database.startswith("sqlite"):
        raise ConfigError("station.database: leave it empty for SQLite: the file is in station.data, beside its lock")
    return database or URL.create("sqlite", database=str(folder.absolute() / FILE)).render_as_string()


def open_engine(url: str, *, read_only: bool = False, pooled: bool = True, clock: Clock | None = None) -> Engine:
    """Connects to nothing yet. May be used by several threads; each transaction has a connection of its own.

    `read_only`: writes are refused by the database, and SQLite's file is not made. `pooled` False: a connection is
    closed when its transaction ends. `clock` tells how long one lay idle; without it the system's does. Raises
    ConfigError for a URL that is none, or a password file that cannot be read.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("station.database: not a URL; as in postgresql+pg8000://user@host/name") from None
    pool: dict[str, Any] = {"poolclass": NullPool} if not pooled else _pool()
    match parsed.drivername:
        case "sqlite" | "sqlite+pysqlite":
            return _sqlite(parsed, pool, read_only=read_only)
        case "postgresql+pg8000":
            return _postgresql(parsed, pool, read_only=read_only, clock=clock or SystemClock())
    raise ConfigError(f"station.database: {parsed.drivername}: give sqlite:// or postgresql+pg8000://")


def _pool() -> dict[str, Any]:
    return {
        "pool_size": CONNECTIONS_MAX // 2,
        "max_overflow": CONNECTIONS_MAX - CONNECTIONS_MAX // 2,
        "pool_timeout": POOL_S_MAX,
        "pool_recycle": 1800,
    }


def _sqlite(url: URL, pool: dict[str, Any], *, read_only: bool) -> Engine:
    if not url.database or url.database == ":memory:":
        raise ConfigError("station.database: sqlite:////absolute/path: a database in memory would keep nothing")
    path = Path(url.database)
    uri = path.absolute().as_uri() + ("?mode=ro" if read_only else "")

    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_S_MAX)
        try:
            if read_only:
                db.execute("pragma query_only=on")
            else:
                db.execute("pragma journal_mode=wal")
                db.execute("pragma synchronous=full")
                db.execute("pragma journal_size_limit=16777216")
                db.execute("pragma foreign_keys=on")
            db.execute("pragma cache_size=-16000")
        except BaseException:
            db.close()
            raise
        return db

    engine = create_engine(url, creator=connect, **pool)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        """Python's driver would begin late, and a writer that begins as a reader may be refused in the middle."""
        writes = connection.get_execution_options().get(_WRITES, False)
        connection.exec_driver_sql("begin immediate" if writes else "begin")

    return engine


def _postgresql(url: URL, pool: dict[str, Any], *, read_only: bool, clock: Clock) -> Engine:
    asked = {name: url.query[name] for name in _OURS if name in url.query}
    bare = url.difference_update_query(_OURS)
    if any(not isinstance(value, str) for value in asked.values()):
        raise ConfigError("station.database: password_file and ca stand once each")
    if "password_file" in asked:
        bare = bare.set(password=_password(str(asked["password_file"])))
    start = {
        "statement_timeout": f"{STATEMENT_S_MAX:.0f}s",
        "lock_timeout": f"{STATEMENT_S_MAX / 2:.0f}s",
        "idle_in_transaction_session_timeout": f"{2 * STATEMENT_S_MAX:.0f}s",
        "synchronous_commit": "on",  # a receipt follows a commit: it must be on the disk, whatever the server's default
        "client_min_messages": "warning",
        "jit": "off",  # compiling a query whose rows it guesses too high takes longer than any query of ours
        "default_transaction_read_only": "on" if read_only else "off",
    }
    args: dict[str, Any] = {"timeout": ANSWER_S_MAX, "application_name": "wardpost", "startup_params": start}
    if "unix_sock" in bare.query:
        # Unasked, the driver reads all certificates of the system for each connection, 40 ms, and finds no TLS there.
        args["ssl_context"] = False
    elif "ca" in asked:
        try:
            args["ssl_context"] = ssl.create_default_context(cafile=str(asked["ca"]))
        except OSError as error:
            raise ConfigError(f"station.database: ca: {asked['ca']}: {error.strerror or error}") from None
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)  # else a traceback for each connection that breaks
    engine = create_engine(bare, connect_args=args, hide_parameters=True, **pool)

    @event.listens_for(engine, "connect")
    def connected(db: Any, _record: Any) -> None:
        """The driver writes a statement in several pieces: without NODELAY each waits 40 ms for the last one's ACK."""
        sock: socket.socket = db._usock  # noqa: SLF001  (it has no other way in)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    _ask_the_idle(engine, clock)
    return engine


def _ask_the_idle(engine: Engine, clock: Clock) -> None:
    """In place of SQLAlchemy's `pool_pre_ping`, which asks each time: a page of ten looks would make ten trips more."""
    broken_ns = 0  # boot time at which one was, last

    @event.listens_for(engine, "invalidate")
    def broken(_db: Any, _record: ConnectionPoolEntry, _error: BaseException | None) -> None:
        nonlocal broken_ns
        broken_ns = clock.boot_ns()

    @event.listens_for(engine, "checkin")
    def rests(_db: Any, record: ConnectionPoolEntry) -> None:
        record.info[_RESTS] = clock.boot_ns()

    @event.listens_for(engine, "checkout")
    def works(db: Any, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
        rests_ns = record.info.pop(_RESTS, None)  # None: it is new
        if rests_ns is None or (clock.boot_ns() - rests_ns <= TRUSTED_S * NS and rests_ns > broken_ns):
            return
        if not _alive(engine, db):
            raise InvalidatePoolError


def _alive(engine: Engine, db: Any) -> bool:
    try:
        return engine.dialect.do_ping(db)
    except (engine.dialect.loaded_dbapi.Error, OSError):
        return False


def _password(path: str) -> str:
    """The first line of a file. Raises ConfigError."""
    try:
        with Path(path).open("rb") as file:
            return file.read(PASSWORD_BYTES_MAX).decode().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"station.database: password_file: cannot read {path}: {error}") from None


@contextmanager
def reading(engine: Engine, what: str = "read") -> Iterator[Connection]:
    """One view of the database. Raises Transient, Corrupt."""
    with plain(name_of(engine.url), what), engine.connect() as db, transaction(db, writes=False):
        yield db


@contextmanager
def writing(engine: Engine, what: str) -> Iterator[Connection]:
    """All or nothing, and durable when it ends well. On SQLite writers wait for each other. Raises as `reading`."""
    with plain(name_of(engine.url), what), engine.connect() as db, transaction(db, writes=True):
        yield db


@contextmanager
def transaction(db: Connection, *, writes: bool) -> Iterator[Connection]:
    """One on a connection that the caller keeps. Raises SQLAlchemy's errors.

    A connection whose transaction cannot even be rolled back is of no use any more: it is left invalidated.
    """
    db.execution_options(**{_WRITES: writes})
    begun = db.begin()
    try:
        yield db
        begun.commit()
    except BaseException as error:
        try:
            begun.rollback()
            broken = isinstance(error, OSError)  # the driver lets some errors of its socket through as they are
        except (SQLAlchemyError, OSError):
            broken = True
        if broken:
            with suppress(SQLAlchemyError, OSError):
                db.invalidate()
        raise
