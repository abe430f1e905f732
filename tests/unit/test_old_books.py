"""An upgrade of the station: what people had ordered and desired before is in the database, once, in its order."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from agent import wire
from agent.errors import Transient
from agent.station import old_books
from agent.station.db import migrate
from agent.station.db.engine import open_engine
from agent.station.old_books import bring_over
from agent.station.orders import OrderBook
from agent.station.settings_book import SettingsBook
from tests.fakes.database import Database

pytestmark = pytest.mark.empty_database

ORDERS = """
create table command (
  n integer primary key, id text not null unique, node text not null, verb text not null, payload blob not null,
  asked_utc_ns integer not null, expires_utc_ns integer not null, state text not null default 'waiting',
  sent integer not null default 0, answer text not null default ''
);
insert into command values (7, 'b', 'gate-2', 'hold', x'01', 5, 9000, 'waiting', 3, '');
insert into command values (9, 'a', 'gate-2', 'release', x'02', 6, 9000, 'waiting', 0, '');
create table request (n integer primary key, id text not null unique, verb text not null, body text not null, answer text);
insert into request values (4, 'r', 'pause', '{}', null);
"""
SETTINGS = """
create table desired (
  node text not null, revision integer not null, digest text not null, payload blob not null,
  asked_utc_ns integer not null, published integer not null default 0, primary key (node, revision)
) without rowid;
insert into desired values ('gate-2', 3, 'd', x'03', 5, 1);
create table reported (node text primary key, body blob not null, utc_ns integer not null) without rowid;
"""


def earlier(folder: Path) -> None:
    """The files of the release before."""
    told = wire.encode(wire.SettingsState(revision=2, digest="e" * 64, state="applied", seen=2))
    for name, script in (("orders.db", ORDERS), ("settings.db", SETTINGS)):
        with closing(sqlite3.connect(folder / name)) as db, db:
            db.executescript(script)
            if name == "settings.db":
                db.execute("insert into reported values ('gate-2', ?, 8)", (told,))


@pytest.mark.parametrize("cut", ["", "orders.db", "settings.db"])
def test_what_stood_in_files_is_in_the_database_once_wherever_the_power_goes(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    earlier(tmp_path)
    engine = open_engine(database.url, pooled=False)
    migrate.upgrade(engine)
    rename: Callable[[Path, Path], Path] = Path.rename

    def cut_off(self: Path, target: Path) -> Path:
        if self.name == cut:
            raise OSError("the power is gone")
        return rename(self, target)

    if cut:  # the rows are in, the file is not set aside yet
        monkeypatch.setattr(Path, "rename", cut_off)
        with pytest.raises(Transient, match=f"{cut}: cannot be brought over"):
            bring_over(tmp_path, engine)
        monkeypatch.undo()
    for _ in range(2):
        bring_over(tmp_path, engine)
    with OrderBook(engine) as book:
        newest, first = book.of("gate-2")
        assert (first.id, first.verb, first.sent, first.payload) == ("b", "hold", 3, b"\x01")
        assert (newest.id, newest.n > first.n) == ("a", True), "a release never overtakes its hold"
        assert [one.id for one in book.due(0)] == ["b"]
        assert [one.id for one in book.requests()] == ["r"]
    with SettingsBook(engine) as settings:
        (wanted,) = settings.wanted()
        assert (wanted.revision, wanted.published, settings.payload("gate-2", 3)) == (3, True, b"\x03")
        told, utc_ns = settings.reported()["gate-2"]
        assert (told.revision, utc_ns) == (2, 8)
    engine.dispose()
    assert sorted(file.name for file in tmp_path.glob("*.db*") if "station.db" not in file.name) == [
        f"orders.db{old_books.ASIDE}",
        f"settings.db{old_books.ASIDE}",
    ]


def test_a_file_that_is_no_database_is_named(tmp_path: Path, database: Database) -> None:
    (tmp_path / "orders.db").write_bytes(b"not a database, but long enough to be taken for one " * 100)
    engine = open_engine(database.url, pooled=False)
    migrate.upgrade(engine)
    with pytest.raises(Transient, match=r"orders\.db: cannot be brought over"):
        bring_over(tmp_path, engine)
    engine.dispose()
