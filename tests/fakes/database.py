"""A station's database for one test: the file in its folder, or a database of its own on a real PostgreSQL."""

from __future__ import annotations

import functools
import os
import secrets
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text

from agent.station.db import migrate
from agent.station.db.engine import database_url, open_engine, reading, writing

SERVER = "WARDPOST_TEST_POSTGRES"
"""URL of a PostgreSQL whose user may create databases: each test makes one, and drops it."""
KINDS = ("sqlite", "postgresql") if SERVER in os.environ else ("sqlite",)
"""What a test of the store runs on. The second needs a server, which tests/system/test_station_postgres.py starts."""


class Database:
    """`setting` is what stands in `station.database`; `url` opens the same."""

    def __init__(self, kind: str, folder: Path, setting: str) -> None:
        self.kind = kind
        self.folder = folder
        self.setting = setting

    @property
    def url(self) -> str:
        return database_url(self.folder, self.setting)

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """What a query gives, beside whoever else is there."""
        with reading(open_engine(self.url, read_only=True, pooled=False)) as db:
            return [tuple(row) for row in db.execute(text(sql), values)]

    def run(self, sql: str, **values: Any) -> None:
        """One statement, in a transaction of its own."""
        with writing(open_engine(self.url, pooled=False), "prepare a test") as db:
            db.execute(text(sql), values)


@contextmanager
def made_like_the_first() -> Iterator[None]:
    """While this is open, an empty SQLite database becomes one of the newest revision by the statements that Alembic
    left in the first one, instead of by Alembic again, which takes twenty times as long and is most of what a test of
    the station would cost. Every other database is brought up to date by Alembic itself."""
    real = migrate.upgrade

    def upgrade(engine: Engine) -> None:
        if not _filled(engine, _statements_of(real)):
            real(engine)

    migrate.upgrade = upgrade
    try:
        yield
    finally:
        migrate.upgrade = real


def _filled(engine: Engine, statements: tuple[str, ...]) -> bool:
    if engine.dialect.name != "sqlite":
        return False
    with reading(engine, "upgrade") as db:
        if not _is_empty(db):
            return False
    with writing(engine, "upgrade") as db:
        if not _is_empty(db):  # another was faster
            return False
        for statement in statements:
            db.exec_driver_sql(statement)
    return True


def _is_empty(db: Connection) -> bool:
    return db.exec_driver_sql("select 1 from sqlite_master limit 1").first() is None


@functools.cache
def _statements_of(upgrade: Callable[[Engine], None]) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "station.db"
        upgrade(open_engine(database_url(Path(folder), ""), pooled=False))
        with closing(sqlite3.connect(path)) as db:
            return tuple(one for one in db.iterdump() if one not in {"BEGIN TRANSACTION;", "COMMIT;"})


def engine_in(folder: Path) -> Engine:
    """The file in a station's folder, made if need be, and at the newest revision."""
    engine = open_engine(database_url(folder, ""), pooled=False)
    migrate.upgrade(engine)
    return engine


@functools.cache
def _newest(server: str) -> str:
    """The name of a database at the newest revision, of this process; it stays as long as the server."""
    name = f"wardpost_newest_{secrets.token_hex(8)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with admin.connect() as db:
        db.execute(text(f"create database {name} template template0"))
    migrate.upgrade(
        open_engine(make_url(server).set(database=name).render_as_string(hide_password=False), pooled=False)
    )
    return name


@contextmanager
def fresh(kind: str, folder: Path, *, newest: bool = True) -> Iterator[Database]:
    """One without a row. `newest`: on PostgreSQL a copy of one that Alembic has brought to the newest revision, which
    takes a quarter of the time."""
    if kind == "sqlite":
        yield Database(kind, folder, "")
        return
    server = os.environ[SERVER]
    name = f"wardpost_{secrets.token_hex(8)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    template = _newest(server) if newest else "template0"
    with admin.connect() as db:
        db.execute(text(f"create database {name} template {template}"))
    try:
        yield Database(kind, folder, make_url(server).set(database=name).render_as_string(hide_password=False))
    finally:
        with admin.connect() as db:
            db.execute(text(f"drop database {name} with (force)"))
