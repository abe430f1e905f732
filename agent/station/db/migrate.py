"""Brings a database to the newest revision, in one transaction: after a power cut it is the old one or the new one."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text

from agent.errors import ConfigError
from agent.station.db.engine import transaction
from agent.station.db.errors import name_of, plain

MIGRATIONS = Path(__file__).parent / "migrations"
VERSIONS = "alembic_version"
LOCK = 0x77617264_00000001
"""PostgreSQL's advisory lock of a migration: two stations that start at once do not both create the tables."""

log = logging.getLogger(__name__)


def upgrade(engine: Engine) -> None:
    """Makes the tables, or changes those of an earlier release. Does nothing to a database that is at the newest.

    Blocks while another process does it. Raises ConfigError for a database of a later release, Transient, Corrupt.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it says at each start what it would be able to do
    name = name_of(engine.url)
    with plain(name, "upgrade"), engine.connect() as db:
        with transaction(db, writes=False):
            if revision(db) == newest():
                return
        if db.dialect.name == "sqlite":
            _sqlite_foreign_keys(db, on=False)  # else, dropping a table deletes what points at it
        try:
            with transaction(db, writes=True):
                if db.dialect.name == "postgresql":
                    db.execute(text("set local statement_timeout = 0"))  # a large store takes its time
                    db.execute(text("set local lock_timeout = 0"))
                    db.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK})
                before = revision(db)
                try:
                    command.upgrade(_config(db), "head")
                except CommandError:
                    raise ConfigError(
                        f"{name}: revision {before!r} is of a later release; this one reads {newest()!r}:"
                        " start that release, or restore the backup from before it"
                    ) from None
                if before is not None and revision(db) != before:
                    log.info("%s: brought from revision %s to %s", name, before, newest())
        finally:
            if db.dialect.name == "sqlite" and not db.invalidated:
                _sqlite_foreign_keys(db, on=True)


@functools.cache
def newest() -> str:
    """The revision that this release works with."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""


def revision(db: Connection) -> str | None:
    """The revision of a database; None when Alembic has never worked on it."""
    if not inspect(db).has_table(VERSIONS):
        return None
    found = db.execute(text(f"select version_num from {VERSIONS}")).scalar()  # noqa: S608
    return None if found is None else str(found)


def _config(db: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = db
    return config


def _sqlite_foreign_keys(db: Connection, *, on: bool) -> None:
    """Takes effect outside a transaction only."""
    raw = db.connection.dbapi_connection
    if raw is not None:
        raw.cursor().execute(f"pragma foreign_keys={'on' if on else 'off'}")
